/* integer_avx2.h - integer products (KN_PRECISION_FAST) with vpmaddwd: 16-bit codes times 16-bit
 * activations, neighbours added into 32 bits.
 *
 * Columns go in chunks of 64. Codes wider or narrower than four bits become sixteen 16-bit lanes in
 * natural order. Four-bit codes are only shifted and masked: lane i of vector j is code 4 i + j, so
 * activations are kept in both arrangements (128 bytes a chunk each, one after the other). */

enum { CHUNK = 64, X_CHUNK_BYTES = 4 * CHUNK, ROWS = 8, GROUPS = 8 };

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i, first = c % CHUNK / 4;
        int16_t *at = (int16_t *)(void *)(dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES);
        int16_t *natural = at + c % CHUNK, *by_nibble = at + CHUNK + first;
        v_store_i16(natural, v_load(codes + i));
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 4; j++) by_nibble[16 * j + k] = natural[4 * k + j];
    }
}

#include "kernels/body_act.h"

/* 64 codes as four vectors of 16-bit lanes; only `bytes` of the chunk are there. */
INLINE void unpack_chunk(const uint8_t *p, int bytes, int bits, __m256i *v)
{
    uint8_t padded[CHUNK];
    if (bytes < CHUNK * bits / 8) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, p, (size_t)bytes);
        p = padded;
    }
    if (bits == 4) {
        __m256i raw = _mm256_loadu_si256((const __m256i *)(const void *)p),
                mask = _mm256_set1_epi16(15);
        v[0] = _mm256_and_si256(raw, mask);
        v[1] = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
        v[2] = _mm256_and_si256(_mm256_srli_epi16(raw, 8), mask);
        v[3] = _mm256_srli_epi16(raw, 12);
        return;
    }
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

static inline const char *x_chunk(const char *x, int chunk, int bits)
{
    return x + (size_t)chunk * X_CHUNK_BYTES + (bits == 4 ? 2 * CHUNK : 0);
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
    transpose_8x8((__m256i *)out->scale);
    transpose_8x8((__m256i *)out->bias);
}

/* The next group of eight results: the one place that rounds, the same as integer_dot(). */
static inline __m256 add_group(__m256 total, __m256i exact, __m256 scale, __m256 bias, float step,
                               float sum)
{
    __m256 dot = _mm256_mul_ps(_mm256_cvtepi32_ps(exact), _mm256_set1_ps(step));
    total = _mm256_fmadd_ps(scale, dot, total);
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

/* Sums of one chunk for eight rows: s[0] its first 32 columns, s[1] the others. */
INLINE void chunk_sums(const uint8_t *const *rows, size_t offset, int bytes, int bits, int group,
                       const char *x, const char *ahead, __m256i *s)
{
    const __m256i *xv = (const __m256i *)(const void *)x;
    __m256i x0 = xv[0], x1 = xv[1], x2 = xv[2], x3 = xv[3], q[2];
    UNROLL for (int k = 0; k < 2; k++)
    {
        __m256i sum[4];
        UNROLL for (int i = 0; i < 4; i++)
        {
            __m256i v[4];
            unpack_chunk(rows[4 * k + i] + offset, bytes, bits, v);
            __m256i first =
                _mm256_add_epi32(_mm256_madd_epi16(v[0], x0), _mm256_madd_epi16(v[1], x1));
            __m256i other =
                _mm256_add_epi32(_mm256_madd_epi16(v[2], x2), _mm256_madd_epi16(v[3], x3));
            if (bits != 4 && group == 32) /* bring each half's lanes together, as nibbles lie */
                sum[i] = _mm256_add_epi32(_mm256_permute2x128_si256(first, other, 0x20),
                                          _mm256_permute2x128_si256(first, other, 0x31));
            else sum[i] = _mm256_add_epi32(first, other);
        }
        q[k] = sum_lanes(sum[0], sum[1], sum[2], sum[3]);
    }
    for (int b = 0; b < 8 * bits; b += 8) _mm_prefetch(ahead + 8 * b, _MM_HINT_T0);
    s[0] = _mm256_permute2x128_si256(q[0], q[1], 0x20);
    s[1] = _mm256_permute2x128_si256(q[0], q[1], 0x31);
}

INLINE void vector_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                        const kn_act_layout *layout, int bits)
{
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const char *x = record + layout->codes;
    const uint8_t *rows[ROWS];
    int last = row + n_rows - 1, chunk_bytes = CHUNK * bits / 8, group = w->group;
    for (int i = 0; i < ROWS; i++)
        rows[i] = (const uint8_t *)w->w + (size_t)(row + i < last ? row + i : last) * w->row_bytes;
    const char *ahead = (const char *)w->w + (size_t)(row + ROWS) * w->row_bytes;
    __m256 total = _mm256_setzero_ps();
    __m256i half = _mm256_setzero_si256(); /* of a group of 128 */
    turned t;
    for (int c = 0, g = 0; c < w->cols; c += CHUNK) {
        if (c % group == 0 && g % GROUPS == 0)
            turn_scales(w, row, last, g, layout->groups - g < GROUPS ? layout->groups - g : GROUPS,
                        &t);
        int bytes = (w->cols - c) * bits / 8;
        __m256i s[2];
        size_t offset = (size_t)(c / CHUNK) * (size_t)chunk_bytes;
        chunk_sums(rows, offset, bytes < chunk_bytes ? bytes : chunk_bytes, bits, group,
                   x_chunk(x, c / CHUNK, bits), ahead + offset * ROWS, s);
        if (group == 32) {
            int n = layout->groups - g < 2 ? 1 : 2;
            for (int i = 0; i < n; i++, g++)
                total = add_group(total, s[i], t.scale[g % GROUPS], t.bias[g % GROUPS], step[g],
                                  sum[g]);
            continue;
        }
        half = _mm256_add_epi32(half, _mm256_add_epi32(s[0], s[1]));
        if (group == 128 && c % 128 == 0) continue;
        total = add_group(total, half, t.scale[g % GROUPS], t.bias[g % GROUPS], step[g], sum[g]);
        half = _mm256_setzero_si256();
        g++;
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
