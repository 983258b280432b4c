/* integer_avx2.h - integer products (KN_PRECISION_FAST) with 16-bit multiplications.
 *
 * Columns go in chunks of 64, and an activation X = 16 U + L, U = 256 h + m, is kept in two shapes:
 *   nibbles   for four-bit codes, which are only shifted and masked: byte k of the low nibbles is
 *             code 2 k, of the high ones code 2 k + 1. Six vectors: h, m, l of the even columns,
 *             then of the odd ones. vpmaddubsw: sums of two products fit 16 bits.
 *   words     for all other widths, in natural order: 64 times U, 64 times L, 16 bits each.
 * vpmaddwd. Either way 32-bit lane l of a chunk's sum belongs to columns 8 l .. 8 l + 7, or is
 * brought there. */

enum { CHUNK = 64, NIBBLES = 6 * 32, X_CHUNK_BYTES = NIBBLES + 4 * CHUNK, ROWS = 8, GROUPS = 8 };

/* Sixteen words that fit bytes: the even ones to even[8], the odd ones to odd[8]. */
static inline void store_bytes(__m256i words, char *even, char *odd)
{
    const __m256i pick =
        _mm256_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, 2,
                         6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
    __m256i both = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(words, pick), order);
    _mm_storel_epi64((__m128i *)(void *)even, _mm256_castsi256_si128(both));
    _mm_storeh_pd((double *)(void *)odd, _mm_castsi128_pd(_mm256_castsi256_si128(both)));
}

/* The low halves of sixteen 32-bit integers that fit. */
static inline __m256i to_words(__m256i lo, __m256i hi)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
}

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    const __m256i eight = _mm256_set1_epi32(8);
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i, in_chunk = c % CHUNK;
        char *at = dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES;
        v16 v = v_load(codes + i);
        __m256i x0 = _mm256_cvtps_epi32(v.lo), x1 = _mm256_cvtps_epi32(v.hi);
        __m256i u0 = _mm256_srai_epi32(_mm256_add_epi32(x0, eight), 4);
        __m256i u1 = _mm256_srai_epi32(_mm256_add_epi32(x1, eight), 4);
        __m256i u = to_words(u0, u1);
        __m256i l = to_words(_mm256_sub_epi32(x0, _mm256_slli_epi32(u0, 4)),
                             _mm256_sub_epi32(x1, _mm256_slli_epi32(u1, 4)));
        __m256i m = _mm256_srai_epi16(_mm256_slli_epi16(u, 8), 8);
        __m256i h = _mm256_srai_epi16(_mm256_sub_epi16(u, m), 8);
        char *even = at + in_chunk / 2, *odd = even + 96;
        store_bytes(h, even, odd);
        store_bytes(m, even + 32, odd + 32);
        store_bytes(l, even + 64, odd + 64);
        _mm256_storeu_si256((__m256i *)(void *)(at + NIBBLES + 2 * in_chunk), u);
        _mm256_storeu_si256((__m256i *)(void *)(at + NIBBLES + 2 * CHUNK + 2 * in_chunk), l);
    }
}

#include "kernels/body_act.h"

static inline __m256i load_vector(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* p, or a zero-filled copy if only `bytes` of a chunk are there. */
static inline const uint8_t *whole_chunk(const uint8_t *p, int bytes, int bits, uint8_t *copy)
{
    if (bytes >= CHUNK * bits / 8) return p;
    memset(copy, 0, CHUNK);
    memcpy(copy, p, (size_t)bytes);
    return copy;
}

/* 64 codes, not of four bits, as four vectors of 16-bit lanes. */
INLINE void unpack_words(const uint8_t *p, int bits, __m256i *v)
{
    UNROLL for (int j = 0; j < 4; j++)
    {
        __m128i b;
        if (bits == 8) {
            b = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * j));
        } else {
            uint64_t lo = eight_codes(p + 2 * j * bits, bits);
            uint64_t hi = eight_codes(p + (2 * j + 1) * bits, bits);
            b = _mm_set_epi64x((long long)hi, (long long)lo);
        }
        v[j] = _mm256_cvtepu8_epi16(b);
    }
}

static inline void split_nibbles(__m256i raw, __m256i *even, __m256i *odd)
{
    __m256i mask = _mm256_set1_epi8(15);
    *even = _mm256_and_si256(raw, mask);
    *odd = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
}

/* --- scales, turned so that a vector holds one group of eight rows -----------------------------
 */

typedef struct turned {
    __m256 scale[GROUPS], bias[GROUPS];
} turned;

static inline void transpose_8x8(__m256i *r)
{
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    memcpy(r, t, sizeof t);
}

static inline __m256 load_scales(kn_format type, const char *p, int n)
{
    float few[GROUPS] = {0};
    if (n < GROUPS) {
        for (int i = 0; i < n; i++) few[i] = kn_read_float(type, p, (size_t)i);
        return _mm256_loadu_ps(few);
    }
    if (type == KN_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == KN_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Groups [g, g + n) of rows row .. row + 7; rows behind the last repeat it. */
static void turn_scales(const kn_mat *w, int row, int last, int g, int n, turned *out)
{
    size_t skip = (size_t)g * (w->scale_type == KN_F32 ? 4 : 2);
    for (int i = 0; i < ROWS; i++) {
        size_t at = (size_t)(row + i < last ? row + i : last) * w->scale_row_bytes + skip;
        out->scale[i] = load_scales(w->scale_type, (const char *)w->scales + at, n);
        out->bias[i] = load_scales(w->scale_type, (const char *)w->biases + at, n);
    }
    for (int i = ROWS; i < 2 * ROWS; i++) { /* those of the rows that come next */
        size_t at = (size_t)(row + i) * w->scale_row_bytes + skip;
        _mm_prefetch((const char *)w->scales + at, _MM_HINT_T0);
        _mm_prefetch((const char *)w->biases + at, _MM_HINT_T0);
    }
    transpose_8x8((__m256i *)out->scale);
    transpose_8x8((__m256i *)out->bias);
}

/* sum(q U) and sum(q L) of a group of wide codes as one float32. */
static inline __m256 join_sums(__m256i upper, __m256i lower)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(upper), _mm256_set1_ps(16),
                           _mm256_cvtepi32_ps(lower));
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

/* sum(q X) of 64 four-bit codes, by lane. x: the six vectors. */
INLINE __m256i nibble_sums(__m256i raw, const __m256i *x)
{
    __m256i even, odd, part[3];
    split_nibbles(raw, &even, &odd);
    UNROLL for (int j = 0; j < 3; j++) part[j] =
        _mm256_add_epi16(_mm256_maddubs_epi16(even, x[j]), _mm256_maddubs_epi16(odd, x[3 + j]));
    __m256i h = _mm256_madd_epi16(part[0], _mm256_set1_epi16(4096));
    __m256i m = _mm256_madd_epi16(part[1], _mm256_set1_epi16(16));
    return _mm256_add_epi32(_mm256_add_epi32(h, m),
                            _mm256_madd_epi16(part[2], _mm256_set1_epi16(1)));
}

/* sum(v x) of 64 words, by lane; a lane of the result is never of two groups. */
INLINE __m256i word_sums(const __m256i *v, const __m256i *x, int group)
{
    __m256i first = _mm256_add_epi32(_mm256_madd_epi16(v[0], x[0]), _mm256_madd_epi16(v[1], x[1]));
    __m256i other = _mm256_add_epi32(_mm256_madd_epi16(v[2], x[2]), _mm256_madd_epi16(v[3], x[3]));
    if (group > 32) return _mm256_add_epi32(first, other);
    return _mm256_add_epi32(_mm256_permute2x128_si256(first, other, 0x20),
                            _mm256_permute2x128_si256(first, other, 0x31));
}

INLINE void turn_sums(const __m256i *q, __m256i *s)
{
    s[0] = _mm256_permute2x128_si256(q[0], q[1], 0x20);
    s[1] = _mm256_permute2x128_si256(q[0], q[1], 0x31);
}

/* The lanes of one row's chunk: sum(q X) in `upper`, or sum(q U) and sum(q L). */
INLINE void row_sums(const uint8_t *codes, int bits, int group, const __m256i *x, __m256i *upper,
                     __m256i *lower)
{
    if (bits == 4) {
        *upper = nibble_sums(load_vector(codes), x);
        return;
    }
    __m256i v[4];
    unpack_words(codes, bits, v);
    *upper = word_sums(v, x, group);
    *lower = word_sums(v, x + 4, group);
    if (bits <= KN_WHOLE_BITS) *upper = _mm256_add_epi32(_mm256_slli_epi32(*upper, 4), *lower);
}

/* The sums of eight rows in at most BLOCK_CHUNKS chunks: [chunk][k] as turn_sums() takes them. */
enum { BLOCK_CHUNKS = 128, AHEAD_BYTES = 8192 };
typedef struct block_sums {
    __m256i upper[BLOCK_CHUNKS][2], lower[BLOCK_CHUNKS][2];
} block_sums;

/* Fetch `bytes` bytes from *next on, and move it. */
INLINE void fetch(const char **next, int bytes)
{
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(*next + i, _MM_HINT_T0);
    *next += bytes;
}

INLINE void four_sums(const uint8_t *const *rows, size_t offset, int bits, int group, const char *x,
                      __m256i *upper, __m256i *lower)
{
    __m256i xv[8], a[4], b[4];
    UNROLL for (int i = 0; i < 8; i++) xv[i] = load_vector(x + 32 * i + (bits == 4 ? 0 : NIBBLES));
    UNROLL for (int i = 0; i < 4; i++) row_sums(rows[i] + offset, bits, group, xv, &a[i], &b[i]);
    *upper = sum_lanes(a[0], a[1], a[2], a[3]);
    if (bits > KN_WHOLE_BITS) *lower = sum_lanes(b[0], b[1], b[2], b[3]);
}

/* Four rows at a time: their codes lie side by side, so memory is read nearly in order. `bytes` of
 * each row belong to the block; a last chunk that is cut short is copied behind zeros. */
INLINE void four_rows(const uint8_t *const *rows, int k, int bytes, int bits, int group,
                      const char *x, const char **next, block_sums *out)
{
    int chunk_bytes = CHUNK / 8 * bits, c = 0, at = 0;
    for (; at + chunk_bytes <= bytes; c++, at += chunk_bytes, x += X_CHUNK_BYTES) {
        four_sums(rows, (size_t)at, bits, group, x, &out->upper[c][k], &out->lower[c][k]);
        fetch(next, 3 * CHUNK / 8 * bits);
    }
    if (at == bytes) return;
    uint8_t copy[4][CHUNK];
    const uint8_t *copies[4];
    for (int i = 0; i < 4; i++) copies[i] = whole_chunk(rows[i] + at, bytes - at, bits, copy[i]);
    four_sums(copies, 0, bits, group, x, &out->upper[c][k], &out->lower[c][k]);
}

INLINE __m256 group_dot(__m256i upper, __m256i lower, int bits)
{
    return bits <= KN_WHOLE_BITS ? _mm256_cvtepi32_ps(upper) : join_sums(upper, lower);
}

/* Add the groups of n_chunks chunks of eight rows to `total`; *g is the first, and is moved on.
 * Columns begin at c. A group of 128 may end in the next block: its half waits in `half`. */
INLINE __m256 join_chunks(__m256 total, const block_sums *s, int n_chunks, const kn_mat *w, int row,
                          int last, int *g, turned *t, __m256i *half, const float *step,
                          const float *sum, const char **next, int bits)
{
    int n_groups = w->cols / w->group, group = w->group;
    __m256i up = half[0], low = half[1];
    for (int c = 0; c < n_chunks; c++) {
        __m256i upper[2], lower[2] = {low, low};
        turn_sums(s->upper[c], upper);
        if (bits > KN_WHOLE_BITS) turn_sums(s->lower[c], lower);
        fetch(next, 2 * CHUNK / 8 * bits);
        if (*g % GROUPS == 0 && (group != 128 || c % 2 == 0))
            turn_scales(w, row, last, *g, n_groups - *g < GROUPS ? n_groups - *g : GROUPS, t);
        if (group == 32) {
            for (int i = 0; i < 2 && *g < n_groups; i++, ++*g)
                total = add_group(total, group_dot(upper[i], lower[i], bits), t->scale[*g % GROUPS],
                                  t->bias[*g % GROUPS], step[*g], sum[*g]);
            continue;
        }
        up = _mm256_add_epi32(up, _mm256_add_epi32(upper[0], upper[1]));
        low = _mm256_add_epi32(low, _mm256_add_epi32(lower[0], lower[1]));
        if (group == 128 && c % 2 == 0) continue;
        total = add_group(total, group_dot(up, low, bits), t->scale[*g % GROUPS],
                          t->bias[*g % GROUPS], step[*g], sum[*g]);
        up = low = _mm256_setzero_si256();
        ++*g;
    }
    half[0] = up, half[1] = low;
    return total;
}

INLINE void vector_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                        const kn_act_layout *layout, int bits)
{
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const char *x = record + layout->codes;
    int last = row + n_rows - 1;
    /* As with AVX-512: a steady stream of fetches, a quarter of them while sums are joined. */
    const char *next = (const char *)w->w + (size_t)row * w->row_bytes + AHEAD_BYTES;
    __m256 total = _mm256_setzero_ps();
    __m256i half[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
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
            four_rows(rows, k, cols * bits / 8, bits, w->group, x, &next, &s);
        }
        total = join_chunks(total, &s, (cols + CHUNK - 1) / CHUNK, w, row, last, &g, &t, half, step,
                            sum, &next, bits);
        x += BLOCK_CHUNKS * X_CHUNK_BYTES;
    }
    if (n_rows == ROWS) {
        _mm256_storeu_ps(y + row, total);
        return;
    }
    _mm256_maskstore_ps(y + row, v_mask8(n_rows), total);
}

static void integer_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                         const kn_act_layout *layout)
{
    switch (w->bits) {
    case 2: vector_rows(y, w, row, n_rows, record, layout, 2); return;
    case 3: vector_rows(y, w, row, n_rows, record, layout, 3); return;
    case 4: vector_rows(y, w, row, n_rows, record, layout, 4); return;
    case 5: vector_rows(y, w, row, n_rows, record, layout, 5); return;
    case 6: vector_rows(y, w, row, n_rows, record, layout, 6); return;
    default: vector_rows(y, w, row, n_rows, record, layout, 8);
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
