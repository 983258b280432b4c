/* strips_avx2.h - integer products of a few vectors with a matrix in strips (kernels.h).
 *
 * A register holds four bytes of each of eight rows, half a strip, so a group's sum is complete in
 * its lane: nothing is turned, nothing is added across lanes, and memory is read in order.
 * strip_dots() says how codes are multiplied, and STRIP_TILE how many vectors share them. */

/* All columns of the strip that begins with `row`; m and group are constants. */
INLINE void strip_vectors(float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x,
                          int m, int group)
{
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes;
    const char *scale = (const char *)w->scales + (size_t)row * w->scale_row_bytes;
    const char *bias = (const char *)w->biases + (size_t)row * w->scale_row_bytes;
    size_t half = ROWS * float_bytes(w->scale_type);
    __m256 total[STRIP_TILE][2];
    UNROLL for (int j = 0; j < m; j++) total[j][0] = total[j][1] = _mm256_setzero_ps();
    for (int g = 0; g < w->cols / group; g++) {
        __m256i dot[STRIP_TILE][2];
        const char *x_codes =
            x->codes + (size_t)(g * group / CHUNK) * X_CHUNK_BYTES + g * group % CHUNK / 2;
        strip_dots(dot, m, codes, x_codes, x->record, group);
        codes += (size_t)group / 2 * KN_STRIP_ROWS;
        _mm_prefetch(scale + STRIP_SCALES_AHEAD, _MM_HINT_T0);
        _mm_prefetch(bias + STRIP_SCALES_AHEAD, _MM_HINT_T0);
        UNROLL for (int h = 0; h < 2; h++, scale += half, bias += half)
        {
            __m256 s = eight_floats(scale, w->scale_type), b = eight_floats(bias, w->scale_type);
            UNROLL for (int j = 0; j < m; j++) total[j][h] =
                add_group(total[j][h], _mm256_cvtepi32_ps(dot[j][h]), s, b,
                          of_group(x->step, x, j, g), of_group(x->sum, x, j, g));
        }
    }
    UNROLL for (int j = 0; j < m; j++) UNROLL for (int h = 0; h < 2; h++)
        _mm256_storeu_ps(y + (size_t)j * y_stride + row + ROWS * h, total[j][h]);
}

#define STRIP_TIMES(m)                                                                             \
    static __attribute__((noinline)) void strip_times_##m(                                         \
        float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x)                      \
    {                                                                                              \
        if (w->group == 32) strip_vectors(y, y_stride, w, row, x, m, 32);                          \
        else if (w->group == 64) strip_vectors(y, y_stride, w, row, x, m, 64);                     \
        else strip_vectors(y, y_stride, w, row, x, m, 128);                                        \
    }
STRIP_TIMES(1)
STRIP_TIMES(2)
#if STRIP_TILE > 2
STRIP_TIMES(3)
STRIP_TIMES(4)
#endif

typedef void strip_fn(float *y, size_t y_stride, const kn_mat *w, int row, const some_x *x);
static strip_fn *const strip_times[] = {
    strip_times_1,
    strip_times_2,
#if STRIP_TILE > 2
    strip_times_3,
    strip_times_4,
#endif
};

static void strips_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    fetch_head(w, row0);
    for (int r = row0; r < row1; r += KN_STRIP_ROWS)
        for (int t = t0, m; t < t1; t += m) {
            const char *record = (const char *)a->prepared + (size_t)t * layout.bytes;
            some_x x = {record + layout.codes, record, record + layout.sum, layout.bytes};
            m = t1 - t < STRIP_TILE ? t1 - t : STRIP_TILE;
            strip_times[m - 1](y + (size_t)t * y_stride, y_stride, w, r, &x);
        }
}
