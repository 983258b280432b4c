/* integer_avx2.h - integer products (KN_PRECISION_FAST) of one vector, eight rows side by side. How
 * codes and activations are multiplied is said by words_avx2.h or bytes_avx2vnni.h. */

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
    size_t first = (size_t)row * bytes + (size_t)g * (w->scale_type == KN_F32 ? 4 : 2);
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
        (size_t)(row + ROWS) * w->scale_row_bytes + (size_t)g * (w->scale_type == KN_F32 ? 4 : 2);
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

/* The next group of eight results, as integer_dot() adds it. */
static inline __m256 add_group(__m256 total, __m256 dot, __m256 scale, __m256 bias, float step,
                               float sum)
{
    total = _mm256_fmadd_ps(scale, _mm256_mul_ps(dot, _mm256_set1_ps(step)), total);
    return _mm256_fmadd_ps(bias, _mm256_set1_ps(sum), total);
}

/* --- one token: eight rows side by side ---------------------------------------------------------
 */

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

/* The sums of eight rows in at most BLOCK_CHUNKS chunks: [chunk][k] as turn_sums() takes them. */
enum { BLOCK_CHUNKS = 128, AHEAD_BYTES = 8192 };
typedef __m256i block_sums[BLOCK_CHUNKS][2];

/* Fetch `bytes` bytes from *next on, and move it. */
INLINE void fetch(const char **next, int bytes)
{
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(*next + i, _MM_HINT_T0);
    *next += bytes;
}

INLINE __m256i four_sums(const uint8_t *const *rows, size_t offset, int bits, int group,
                         const char *x)
{
    __m256i xv[4], v[4];
    load_x(x, bits, xv);
    UNROLL for (int i = 0; i < 4; i++) v[i] = row_sum(rows[i] + offset, bits, group, xv);
    return sum_lanes(v[0], v[1], v[2], v[3]);
}

/* Four rows at a time: their codes lie side by side, so memory is read nearly in order. `bytes` of
 * each row belong to the block; a last chunk that is cut short is copied behind zeros. */
INLINE void four_rows(const uint8_t *const *rows, int k, int bytes, int bits, int group,
                      const char *x, const char **next, __m256i (*out)[2])
{
    int chunk_bytes = CHUNK / 8 * bits, c = 0, at = 0;
    for (; at + chunk_bytes <= bytes; c++, at += chunk_bytes, x += X_CHUNK_BYTES) {
        out[c][k] = four_sums(rows, (size_t)at, bits, group, x);
        fetch(next, 3 * CHUNK / 8 * bits);
    }
    if (at == bytes) return;
    uint8_t copy[4][CHUNK];
    const uint8_t *copies[4];
    for (int i = 0; i < 4; i++) copies[i] = whole_chunk(rows[i] + at, bytes - at, bits, copy[i]);
    out[c][k] = four_sums(copies, 0, bits, group, x);
}

/* Add the groups of n_chunks chunks of eight rows to `total`; *g is the first, and is moved on.
 * Columns begin at c. A group of 128 may end in the next block: its half waits in `half`. */
INLINE __m256 join_chunks(__m256 total, const block_sums s, int n_chunks, const kn_mat *w, int row,
                          int last, int *g, turned *t, __m256i *half, const float *step,
                          const float *sum, const char **next, int bits, int group)
{
    int n_groups = w->cols / group;
    for (int c = 0; c < n_chunks; c++) {
        __m256i sums[2];
        turn_sums(s[c], sums);
        fetch(next, 2 * CHUNK / 8 * bits);
        if (*g % GROUPS == 0 && (group != 128 || c % 2 == 0))
            turn_scales(w, row, last, *g, n_groups - *g < GROUPS ? n_groups - *g : GROUPS, t);
        if (group == 32) {
            for (int i = 0; i < 2 && *g < n_groups; i++, ++*g)
                total = add_group(total, _mm256_cvtepi32_ps(sums[i]), t->scale[*g % GROUPS],
                                  t->bias[*g % GROUPS], step[*g], sum[*g]);
            continue;
        }
        *half = _mm256_add_epi32(*half, _mm256_add_epi32(sums[0], sums[1]));
        if (group == 128 && c % 2 == 0) continue;
        total = add_group(total, _mm256_cvtepi32_ps(*half), t->scale[*g % GROUPS],
                          t->bias[*g % GROUPS], step[*g], sum[*g]);
        *half = _mm256_setzero_si256();
        ++*g;
    }
    return total;
}

INLINE void vector_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                        const kn_act_layout *layout, int bits, int group)
{
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const char *x = record + layout->codes;
    int last = row + n_rows - 1;
    /* As with AVX-512: a steady stream of fetches, a quarter of them while sums are joined. */
    const char *next = (const char *)w->w + (size_t)row * w->row_bytes + AHEAD_BYTES;
    __m256 total = _mm256_setzero_ps();
    __m256i half = _mm256_setzero_si256();
    turned t;
    block_sums s;
    int g = 0;
    for (int c0 = 0; c0 < w->cols; c0 += BLOCK_CHUNKS * CHUNK) {
        int cols = w->cols - c0 < BLOCK_CHUNKS * CHUNK ? w->cols - c0 : BLOCK_CHUNKS * CHUNK;
        for (int k = 0; k < 2; k++) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) {
                int r = row + 4 * k + i < last ? row + 4 * k + i : last;
                rows[i] = (const uint8_t *)w->w + (size_t)r * w->row_bytes + c0 / 8 * bits;
            }
            four_rows(rows, k, cols * bits / 8, bits, group, x, &next, s);
        }
        total = join_chunks(total, s, (cols + CHUNK - 1) / CHUNK, w, row, last, &g, &t, &half, step,
                            sum, &next, bits, group);
        x += BLOCK_CHUNKS * X_CHUNK_BYTES;
    }
    if (n_rows == ROWS) {
        _mm256_storeu_ps(y + row, total);
        return;
    }
    _mm256_maskstore_ps(y + row, v_mask8(n_rows), total);
}

/* Four bits in groups of 64 are what most models have. */
static void integer_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                         const kn_act_layout *layout)
{
    int group = w->group;
    switch (w->bits) {
    case 2: vector_rows(y, w, row, n_rows, record, layout, 2, group); return;
    case 3: vector_rows(y, w, row, n_rows, record, layout, 3, group); return;
    case 4:
        if (group == 64) vector_rows(y, w, row, n_rows, record, layout, 4, 64);
        else vector_rows(y, w, row, n_rows, record, layout, 4, group);
        return;
    case 5: vector_rows(y, w, row, n_rows, record, layout, 5, group); return;
    case 6: vector_rows(y, w, row, n_rows, record, layout, 6, group); return;
    default: vector_rows(y, w, row, n_rows, record, layout, 8, group);
    }
}

static void matvec_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    for (int r = row0; r < row1; r += ROWS)
        for (int t = t0; t < t1; t++)
            integer_rows(y + (size_t)t * y_stride, w, r, row1 - r < ROWS ? row1 - r : ROWS,
                         (const char *)a->prepared + (size_t)t * layout.bytes, &layout);
}
