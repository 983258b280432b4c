/* strips_avx512.h - integer products of a few vectors with a matrix in strips (kernels.h).
 *
 * A register holds four bytes of each of the strip's sixteen rows, so a group's sum is complete in
 * its lane, as in a panel (gemm_avx512.h), and memory is read in order. */

enum { STRIP_TILE = 8 };

/* Scales, or biases, of the sixteen rows of a strip. */
INLINE __m512 sixteen_floats(const char *p, kn_format type)
{
    if (type == KN_F32) return _mm512_loadu_ps(p);
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    if (type == KN_F16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

/* sum += q times the same four bytes in every lane. gcc would neither read those bytes as part of
 * the instruction nor keep sums where they are. */
INLINE __m512i add_four(__m512i sum, __m512i q, const char *four)
{
    const int *x = (const int *)(const void *)four;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(q), "m"(*x));
    return sum;
}

/* dot[i] = sum(q X) of `group` columns of the strip at `codes` and vector i of m, whose codes are
 * `record` bytes apart. m and group are constants. */
INLINE void strip_dots(__m512i *dot, int m, const char *codes, const char *x, size_t record,
                       int group)
{
    __m512i part[STRIP_TILE][2]; /* of each plane */
    UNROLL for (int i = 0; i < m; i++) part[i][0] = part[i][1] = _mm512_setzero_si512();
    for (int lane = 0; lane < group / 8; lane++, codes += 64, x += 4) {
        __m512i even, odd;
        _mm_prefetch(codes + STRIP_AHEAD, _MM_HINT_T0);
        split_nibbles(_mm512_loadu_si512(codes), &even, &odd);
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
        {
            const char *plane = x + (size_t)i * record + 64 * j;
            part[i][j] = add_four(part[i][j], even, plane);
            part[i][j] = add_four(part[i][j], odd, plane + X_PLANE_BYTES);
        }
    }
    UNROLL for (int i = 0; i < m; i++) dot[i] =
        _mm512_add_epi32(_mm512_slli_epi32(part[i][0], 8), part[i][1]);
}

/* All columns of the strip that begins with `row`, for m vectors from the one at `first` on. */
INLINE void strip_vectors(float *y, size_t y_stride, const kn_mat *w, int row, const char *first,
                          const kn_act_layout *layout, int m, int group)
{
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes;
    const char *scale = (const char *)w->scales + (size_t)row * w->scale_row_bytes;
    const char *bias = (const char *)w->biases + (size_t)row * w->scale_row_bytes;
    size_t strip = KN_STRIP_ROWS * float_bytes(w->scale_type);
    __m512 total[STRIP_TILE];
    UNROLL for (int i = 0; i < m; i++) total[i] = _mm512_setzero_ps();
    for (int g = 0; g < w->cols / group; g++, scale += strip, bias += strip) {
        __m512i dot[STRIP_TILE];
        const char *x = first + layout->codes + (size_t)(g * group / CHUNK) * X_CHUNK_BYTES +
                        g * group % CHUNK / 2;
        strip_dots(dot, m, codes, x, layout->bytes, group);
        codes += (size_t)group / 2 * KN_STRIP_ROWS;
        _mm_prefetch(scale + STRIP_SCALES_AHEAD, _MM_HINT_T0);
        _mm_prefetch(bias + STRIP_SCALES_AHEAD, _MM_HINT_T0);
        __m512 s = sixteen_floats(scale, w->scale_type), b = sixteen_floats(bias, w->scale_type);
        UNROLL for (int i = 0; i < m; i++)
        {
            float step, sum;
            const char *record = first + (size_t)i * layout->bytes + (size_t)g * sizeof step;
            memcpy(&step, record, sizeof step);
            memcpy(&sum, record + layout->sum, sizeof sum);
            total[i] = add_group(total[i], _mm512_cvtepi32_ps(dot[i]), s, b, step, sum);
        }
    }
    UNROLL for (int i = 0; i < m; i++) _mm512_storeu_ps(y + (size_t)i * y_stride + row, total[i]);
}

#define STRIP_TIMES(m)                                                                             \
    static __attribute__((noinline)) void strip_times_##m(float *y, size_t y_stride,               \
                                                          const kn_mat *w, int row, const char *x, \
                                                          const kn_act_layout *l)                  \
    {                                                                                              \
        if (w->group == 32) strip_vectors(y, y_stride, w, row, x, l, m, 32);                       \
        else if (w->group == 64) strip_vectors(y, y_stride, w, row, x, l, m, 64);                  \
        else strip_vectors(y, y_stride, w, row, x, l, m, 128);                                     \
    }
STRIP_TIMES(1)
STRIP_TIMES(2)
STRIP_TIMES(3)
STRIP_TIMES(4)
STRIP_TIMES(5)
STRIP_TIMES(6)
STRIP_TIMES(7)
STRIP_TIMES(8)

static void strips_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    typedef void strip_fn(float *, size_t, const kn_mat *, int, const char *,
                          const kn_act_layout *);
    static strip_fn *const times[] = {strip_times_1, strip_times_2, strip_times_3, strip_times_4,
                                      strip_times_5, strip_times_6, strip_times_7, strip_times_8};
    kn_act_layout layout = kn_act_layout_of(a);
    fetch_head(w, row0);
    for (int r = row0; r < row1; r += KN_STRIP_ROWS)
        for (int t = t0, m; t < t1; t += m) {
            int left = t1 - t, n_tiles = (left + STRIP_TILE - 1) / STRIP_TILE;
            m = (left + n_tiles - 1) / n_tiles; /* tiles alike */
            times[m - 1](y + (size_t)t * y_stride, y_stride, w, r,
                         (const char *)a->prepared + (size_t)t * layout.bytes, &layout);
        }
}
