/* strips_x86.h - integer products of a few vectors with a matrix in strips (kernels.h), with AVX2
 * and AVX-512.
 *
 * A register holds four bytes of each of the strip's rows, or of half of them, so a group's sum is
 * complete in its lane: nothing is turned, nothing is added across lanes, and memory is read in
 * order. strip_dots() says how codes are multiplied, and STRIP_TILE how many vectors share them;
 * STRIP_PARTS registers are a strip. */

/* What the steady fetching of a product begins behind. */
static void fetch_head(const kn_mat *w, int row)
{
    size_t scales = (size_t)row * w->scale_row_bytes;
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes;
    const char *scale = (const char *)w->scales + scales, *bias = (const char *)w->biases + scales;
    fetch(&codes, KN_STRIP_AHEAD);
    fetch(&scale, KN_STRIP_SCALES_AHEAD);
    fetch(&bias, KN_STRIP_SCALES_AHEAD);
}

/* All columns of the strip that begins with `row`; m, group and bits are constants. */
INLINE void strip_vectors(float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x,
                          int m, int group, int bits)
{
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes;
    const char *scale = (const char *)w->scales + (size_t)row * w->scale_row_bytes;
    const char *bias = (const char *)w->biases + (size_t)row * w->scale_row_bytes;
    size_t part = (size_t)ROWS * kn_float_bytes(w->scale_type);
    strip_floats total[STRIP_TILE][STRIP_PARTS];
    UNROLL for (int j = 0; j < m; j++) UNROLL for (int h = 0; h < STRIP_PARTS; h++) total[j][h] =
        no_floats();
    for (int g = 0; g < w->cols / group; g++) {
        strip_sums dot[STRIP_TILE][STRIP_PARTS];
        strip_dots(dot, m, codes, strip_x(x->codes, g * group, bits), x->record, group, bits);
        codes += (size_t)(group * bits / 8 * KN_STRIP_ROWS);
        _mm_prefetch(scale + KN_STRIP_SCALES_AHEAD, _MM_HINT_T0);
        _mm_prefetch(bias + KN_STRIP_SCALES_AHEAD, _MM_HINT_T0);
        UNROLL for (int h = 0; h < STRIP_PARTS; h++, scale += part, bias += part)
        {
            strip_floats s = row_floats(scale, w->scale_type), b = row_floats(bias, w->scale_type);
            UNROLL for (int j = 0; j < m; j++) total[j][h] =
                add_group(total[j][h], to_floats(dot[j][h]), s, b, of_group(x->step, x, j, g),
                          of_group(x->sum, x, j, g));
        }
    }
    UNROLL for (int j = 0; j < m; j++) UNROLL for (int h = 0; h < STRIP_PARTS; h++)
        store_floats(y + (size_t)j * y_stride + row + ROWS * h, total[j][h]);
}

/* Functions of their own: inlined, they leave too few registers to each other. */
#define STRIP_TIMES(m, bits)                                                                       \
    static __attribute__((noinline)) void strip_times_##m##_##bits(                                \
        float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x)                      \
    {                                                                                              \
        if (w->group == 32) strip_vectors(y, y_stride, w, row, x, m, 32, bits);                    \
        else if (w->group == 64) strip_vectors(y, y_stride, w, row, x, m, 64, bits);               \
        else strip_vectors(y, y_stride, w, row, x, m, 128, bits);                                  \
    }
#define STRIP_WIDTHS(m) STRIP_TIMES(m, 4) STRIP_TIMES(m, 8)
#define STRIP_NAMES(m)                                                                             \
    {                                                                                              \
        strip_times_##m##_4, strip_times_##m##_8                                                   \
    }
STRIP_WIDTHS(1)
STRIP_WIDTHS(2)
#if STRIP_TILE > 2
STRIP_WIDTHS(3)
STRIP_WIDTHS(4)
#endif
#if STRIP_TILE > 4
STRIP_WIDTHS(5)
STRIP_WIDTHS(6)
STRIP_WIDTHS(7)
STRIP_WIDTHS(8)
#endif

/* Of each number of vectors, four-bit codes and eight-bit codes. */
typedef void strip_fn(float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x);
static strip_fn *const strip_times[STRIP_TILE][2] = {
    STRIP_NAMES(1), STRIP_NAMES(2),
#if STRIP_TILE > 2
    STRIP_NAMES(3), STRIP_NAMES(4),
#endif
#if STRIP_TILE > 4
    STRIP_NAMES(5), STRIP_NAMES(6), STRIP_NAMES(7), STRIP_NAMES(8),
#endif
};

static void strips_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    fetch_head(w, row0);
    for (int r = row0; r < row1; r += KN_STRIP_ROWS)
        for (int t = t0, m; t < t1; t += m) {
            some_x x = some_x_of(a, &layout, t);
            int left = t1 - t, n_tiles = (left + STRIP_TILE - 1) / STRIP_TILE;
            m = (left + n_tiles - 1) / n_tiles; /* tiles alike */
            strip_times[m - 1][w->bits == 8](y + (size_t)t * y_stride, y_stride, w, r, &x);
        }
}
