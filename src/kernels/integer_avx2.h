/* integer_avx2.h - integer products (KN_PRECISION_FAST) of one vector or two, eight rows side by
 * side. How codes and activations are multiplied is said by words_avx2.h or bytes_avx2vnni.h. */

#include "kernels/body_act.h"

/* --- scales, turned so that a vector holds one group of eight rows -----------------------------
 */

typedef struct turned {
    __m256 scale[GROUPS], bias[GROUPS];
} turned;

/* The first n of eight 16-bit words, the others zero. */
static inline __m128i first_words(const char *p, int n)
{
    if (n == GROUPS) return _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i pairs = _mm_cmpgt_epi32(_mm_set1_epi32(n / 2), _mm_setr_epi32(0, 1, 2, 3));
    __m128i v = _mm_maskload_epi32((const int *)(const void *)p, pairs);
    if (n % 2 == 0) return v;
    __m128i last =
        _mm_cmpeq_epi16(_mm_set1_epi16((short)(n - 1)), _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm_or_si128(v, _mm_and_si128(last, _mm_set1_epi16((short)kn_read16(p + 2 * (n - 1)))));
}

/* The even and the odd words of eight pairs as float32. */
static inline void widen_pairs(__m256i r, kn_format type, __m256 *even, __m256 *odd)
{
    if (type == KN_BF16) {
        *even = _mm256_castsi256_ps(_mm256_slli_epi32(r, 16));
        *odd = _mm256_castsi256_ps(_mm256_and_si256(r, _mm256_set1_epi32((int)0xffff0000)));
        return;
    }
    const __m256i parity = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0,
                                            1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    r = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(r, parity), 0xd8);
    *even = _mm256_cvtph_ps(_mm256_castsi256_si128(r));
    *odd = _mm256_cvtph_ps(_mm256_extracti128_si256(r, 1));
}

/* Groups [g, g + n) of rows row .. row + 7; rows behind the last repeat it. Sixteen-bit scales and
 * biases are turned together, in pairs. whole: all eight rows are there. */
INLINE void turn_some(const kn_mat *w, int row, int last, int g, int n, bool whole, turned *out)
{
    size_t bytes = w->scale_row_bytes, at = 0;
    size_t first = (size_t)row * bytes + (size_t)g * kn_float_bytes(w->scale_type);
    const char *scale = (const char *)w->scales + first, *bias = (const char *)w->biases + first;
    __m256i r[ROWS], b[ROWS];
    UNROLL for (int i = 0; i < ROWS; i++)
    {
        if (w->scale_type == KN_F32) {
            r[i] = _mm256_maskload_epi32((const int *)(const void *)(scale + at), v_mask8(n));
            b[i] = _mm256_maskload_epi32((const int *)(const void *)(bias + at), v_mask8(n));
        } else {
            r[i] = _mm256_set_m128i(first_words(bias + at, n), first_words(scale + at, n));
        }
        if (whole || row + i < last) at += bytes;
    }
    transpose_8x8(r);
    if (w->scale_type == KN_F32) {
        transpose_8x8(b);
        memcpy(out->scale, r, sizeof r);
        memcpy(out->bias, b, sizeof b);
        return;
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        widen_pairs(r[i], w->scale_type, &out->scale[2 * i], &out->scale[2 * i + 1]);
        widen_pairs(r[4 + i], w->scale_type, &out->bias[2 * i], &out->bias[2 * i + 1]);
    }
}

/* Those of the rows that come next; a line of memory holds 16 groups or more. */
static void fetch_scales(const kn_mat *w, int row, int g)
{
    size_t at =
        (size_t)(row + ROWS) * w->scale_row_bytes + (size_t)g * kn_float_bytes(w->scale_type);
    for (int i = 0; i < ROWS; i++, at += w->scale_row_bytes) {
        _mm_prefetch((const char *)w->scales + at, _MM_HINT_T0);
        _mm_prefetch((const char *)w->biases + at, _MM_HINT_T0);
    }
}

static void turn_scales(const kn_mat *w, int row, int last, int g, int n, turned *out)
{
    if (g % (2 * GROUPS) == 0) fetch_scales(w, row, g);
    /* Groups behind the last are turned too where there is something to read. */
    size_t end = (size_t)(row + ROWS - 1) * w->scale_row_bytes + (size_t)(g + GROUPS) * 2;
    bool plain = row + ROWS - 1 <= last && w->scale_type == KN_BF16 &&
                 end <= (size_t)w->rows * w->scale_row_bytes;
    if (plain) turn_some(w, row, last, g, GROUPS, true, out);
    else turn_some(w, row, last, g, n, false, out);
}

/* Scales, or biases, of eight rows of a strip. */
INLINE __m256 row_floats(const char *p, kn_format type)
{
    if (type == KN_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == KN_F16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* The next group of eight results, as integer_dot() adds it. */
static inline __m256 add_group(__m256 total, __m256 dot, __m256 scale, __m256 bias, float step,
                               float sum)
{
    total = _mm256_fmadd_ps(scale, _mm256_mul_ps(dot, _mm256_set1_ps(step)), total);
    return _mm256_fmadd_ps(bias, _mm256_set1_ps(sum), total);
}

/* --- one token or two: eight rows side by side --------------------------------------------------
 */

enum { FEW = 2 }; /* how many at most; m, how many it is, is a constant at every call */

/* Per 128-bit lane: sums of a, b, c, d. */
static inline __m256i sum_lanes(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

INLINE void turn_sums(const __m256i *q, __m256i *s)
{
    s[0] = _mm256_permute2x128_si256(q[0], q[1], 0x20);
    s[1] = _mm256_permute2x128_si256(q[0], q[1], 0x31);
}

/* The sums of eight rows in at most BLOCK_CHUNKS chunks: [chunk * m + vector][k] as turn_sums()
 * takes them. */
enum { BLOCK_CHUNKS = 128, AHEAD_BYTES = 8192 };
typedef __m256i block_sums[BLOCK_CHUNKS * FEW][2];

/* Fetch `bytes` bytes from *next on, and move it. */
INLINE void fetch(const char **next, int bytes)
{
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(*next + i, _MM_HINT_T0);
    *next += bytes;
}

INLINE void four_sums(const uint8_t *const *rows, size_t offset, int bits, int group, const char *x,
                      size_t record, int m, int k, __m256i (*out)[2])
{
    __m256i xv[FEW][4], sum[FEW][4];
    UNROLL for (int j = 0; j < m; j++) load_x(x + (size_t)j * record, bits, xv[j]);
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m256i v[4];
        unpack_row(rows[i] + offset, bits, v);
        UNROLL for (int j = 0; j < m; j++) sum[j][i] = row_sum(v, bits, group, xv[j]);
    }
    UNROLL for (int j = 0; j < m; j++) out[j][k] =
        sum_lanes(sum[j][0], sum[j][1], sum[j][2], sum[j][3]);
}

/* Four rows at a time: their codes lie side by side, so memory is read nearly in order. `bytes` of
 * each row belong to the block; a last chunk that is cut short is copied behind zeros. */
INLINE void four_rows(const uint8_t *const *rows, int k, int bytes, int bits, int group,
                      const char *x, size_t record, int m, const char **next, __m256i (*out)[2])
{
    int chunk_bytes = CHUNK / 8 * bits, at = 0;
    for (; at + chunk_bytes <= bytes; out += m, at += chunk_bytes, x += X_CHUNK_BYTES) {
        four_sums(rows, (size_t)at, bits, group, x, record, m, k, out);
        fetch(next, 3 * CHUNK / 8 * bits);
    }
    if (at == bytes) return;
    uint8_t copy[4][CHUNK];
    const uint8_t *copies[4];
    for (int i = 0; i < 4; i++) copies[i] = whole_chunk(rows[i] + at, bytes - at, bits, copy[i]);
    four_sums(copies, 0, bits, group, x, record, m, k, out);
}

/* What has been added of eight rows, vector by vector. A group of 128 may end in the next block:
 * its half waits. */
typedef struct few_totals {
    __m256 total[FEW];
    __m256i half[FEW];
    int g; /* the next group */
} few_totals;

INLINE void add_groups(few_totals *t, const turned *scales, const some_x *x, int m,
                       const __m256i *dots)
{
    UNROLL for (int j = 0; j < m; j++) t->total[j] = add_group(
        t->total[j], _mm256_cvtepi32_ps(dots[j]), scales->scale[t->g % GROUPS],
        scales->bias[t->g % GROUPS], of_group(x->step, x, j, t->g), of_group(x->sum, x, j, t->g));
    t->g++;
}

/* Add the groups of n_chunks chunks of eight rows; scales: room for those of eight groups. */
INLINE void join_chunks(few_totals *t, turned *scales, const block_sums s, int n_chunks,
                        const kn_mat *w, int row, int last, const some_x *x, int m,
                        const char **next, int bits, int group)
{
    int n_groups = w->cols / group;
    for (int c = 0; c < n_chunks; c++) {
        __m256i sums[FEW][2], dots[FEW];
        UNROLL for (int j = 0; j < m; j++) turn_sums(s[c * m + j], sums[j]);
        fetch(next, 2 * CHUNK / 8 * bits);
        if (t->g % GROUPS == 0 && (group != 128 || c % 2 == 0)) {
            int n = n_groups - t->g < GROUPS ? n_groups - t->g : GROUPS;
            turn_scales(w, row, last, t->g, n, scales);
        }
        for (int i = 0; group == 32 && i < 2 && t->g < n_groups; i++) {
            UNROLL for (int j = 0; j < m; j++) dots[j] = sums[j][i];
            add_groups(t, scales, x, m, dots);
        }
        if (group == 32) continue;
        UNROLL for (int j = 0; j < m; j++) dots[j] =
            _mm256_add_epi32(t->half[j], _mm256_add_epi32(sums[j][0], sums[j][1]));
        bool whole = group == 64 || c % 2;
        UNROLL for (int j = 0; j < m; j++) t->half[j] = whole ? _mm256_setzero_si256() : dots[j];
        if (whole) add_groups(t, scales, x, m, dots);
    }
}

INLINE void vector_rows(float *y, size_t y_stride, const kn_mat *w, int row, int n_rows,
                        const some_x *x, int m, int bits, int group)
{
    int last = row + n_rows - 1;
    /* As with AVX-512: a steady stream of fetches, a quarter of them while sums are joined. */
    const char *next = (const char *)w->w + (size_t)row * w->row_bytes + AHEAD_BYTES;
    const char *codes = x->codes;
    few_totals t;
    turned scales;
    block_sums s;
    t.g = 0;
    UNROLL for (int j = 0; j < m; j++) t.total[j] = _mm256_setzero_ps(),
                                       t.half[j] = _mm256_setzero_si256();
    for (int c0 = 0; c0 < w->cols; c0 += BLOCK_CHUNKS * CHUNK) {
        int cols = w->cols - c0 < BLOCK_CHUNKS * CHUNK ? w->cols - c0 : BLOCK_CHUNKS * CHUNK;
        for (int k = 0; k < 2; k++) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) {
                int r = row + 4 * k + i < last ? row + 4 * k + i : last;
                rows[i] = (const uint8_t *)w->w + (size_t)r * w->row_bytes + c0 / 8 * bits;
            }
            four_rows(rows, k, cols * bits / 8, bits, group, codes, x->record, m, &next, s);
        }
        join_chunks(&t, &scales, s, (cols + CHUNK - 1) / CHUNK, w, row, last, x, m, &next, bits,
                    group);
        codes += BLOCK_CHUNKS * X_CHUNK_BYTES;
    }
    UNROLL for (int j = 0; j < m; j++)
    {
        float *to = y + (size_t)j * y_stride + row;
        if (n_rows == ROWS) _mm256_storeu_ps(to, t.total[j]);
        else _mm256_maskstore_ps(to, v_mask8(n_rows), t.total[j]);
    }
}

/* Groups of 64 are what most models have. */
#define ROWS_OF(b, m)                                                                              \
    if (w->group == 64) vector_rows(y, y_stride, w, row, n_rows, x, m, b, 64);                     \
    else vector_rows(y, y_stride, w, row, n_rows, x, m, b, w->group);                              \
    return;
#define FEW_ROWS(m)                                                                                \
    static void rows_times_##m(float *y, size_t y_stride, const kn_mat *w, int row, int n_rows,    \
                               const some_x *x)                                                    \
    {                                                                                              \
        switch (w->bits) {                                                                         \
        case 2: ROWS_OF(2, m)                                                                      \
        case 3: ROWS_OF(3, m)                                                                      \
        case 4: ROWS_OF(4, m)                                                                      \
        case 5: ROWS_OF(5, m)                                                                      \
        case 6: ROWS_OF(6, m)                                                                      \
        default: ROWS_OF(8, m)                                                                     \
        }                                                                                          \
    }
FEW_ROWS(1)
FEW_ROWS(2)

static void matvec_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    for (int r = row0; r < row1; r += ROWS)
        for (int t = t0, m; t < t1; t += m) {
            some_x x = some_x_of(a, &layout, t);
            float *to = y + (size_t)t * y_stride;
            int n = row1 - r < ROWS ? row1 - r : ROWS;
            m = t1 - t < FEW ? 1 : FEW;
            if (m == 1) rows_times_1(to, y_stride, w, r, n, &x);
            else rows_times_2(to, y_stride, w, r, n, &x);
        }
}
