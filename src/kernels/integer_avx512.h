/* integer_avx512.h - integer products (KN_PRECISION_FAST) with VNNI.
 *
 * An activation X is 16 (256 h + m) + l with signed bytes, so one product is three vpdpbusd. Codes
 * are handled in chunks of 128 columns: quadword i of vector A holds codes 16 i .. 16 i + 7, of
 * vector B codes 16 i + 8 .. 16 i + 15, so 32-bit lane l of (A + B) belongs to columns 8 l .. 8 l +
 * 7 and every group is a run of lanes. An activation chunk is six vectors: A's h, m, l and B's. */

enum { CHUNK = 128, X_CHUNK_BYTES = 3 * CHUNK, X_PLANE_BYTES = 3 * 64, ROWS = 16 };

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i;
        char *at = dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK / 2;
        __m512i x = _mm512_cvtps_epi32(v_load(codes + i));
        __m512i u = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(8)), 4);
        __m512i m = _mm512_srai_epi32(_mm512_slli_epi32(u, 24), 24);
        __m128i parts[3] = {_mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_sub_epi32(u, m), 8)),
                            _mm512_cvtepi32_epi8(m),
                            _mm512_cvtepi32_epi8(_mm512_sub_epi32(x, _mm512_slli_epi32(u, 4)))};
        for (int k = 0; k < 3; k++) {
            _mm_storel_epi64((__m128i *)(void *)(at + 64 * k), parts[k]);
            _mm_storeh_pd((double *)(void *)(at + X_PLANE_BYTES + 64 * k),
                          _mm_castsi128_pd(parts[k]));
        }
    }
}

#include "kernels/body_act.h"

/* How to take 128 codes of one width apart. */
typedef struct unpacker {
    __m512i a, b, shifts, mask;
    int bits;
} unpacker;

/* Byte j of quadword i: byte first + i * step + j of the stream. */
static inline __m512i spread_index(int first, int step)
{
    uint8_t index[64];
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) index[8 * i + j] = (uint8_t)(first + i * step + j);
    return _mm512_loadu_si512(index);
}

/* Bit offset of code j of a quadword in byte j. */
static inline __m512i shift_index(int bits)
{
    uint64_t offsets = 0;
    for (int j = 0; j < 8; j++) offsets |= (uint64_t)(j * bits) << 8 * j;
    return _mm512_set1_epi64((long long)offsets);
}

static unpacker unpacker_of(int bits)
{
    return (unpacker){spread_index(0, 2 * bits), spread_index(bits, 2 * bits), shift_index(bits),
                      _mm512_set1_epi8((char)((1 << bits) - 1)), bits};
}

/* `bytes` of the chunk's 16 * bits bytes are there; the rest counts as zero. BITS is a constant. */
INLINE void unpack_chunk(const uint8_t *p, int bytes, int bits, const unpacker *u, __m512i *a,
                         __m512i *b)
{
    if (bits <= 4) {
        __m512i v = bytes == 16 * bits && bits == 4 ? _mm512_loadu_si512(p) : load_bytes(p, bytes);
        *a = _mm512_permutexvar_epi8(u->a, v);
        *b = _mm512_permutexvar_epi8(u->b, v);
    } else {
        __m512i v = load_bytes(p, bytes < 64 ? bytes : 64);
        __m512i w = load_bytes(p + 64, bytes > 64 ? bytes - 64 : 0);
        *a = _mm512_permutex2var_epi8(v, u->a, w);
        *b = _mm512_permutex2var_epi8(v, u->b, w);
    }
    if (bits == 8) return;
    *a = _mm512_and_si512(_mm512_multishift_epi64_epi8(u->shifts, *a), u->mask);
    *b = _mm512_and_si512(_mm512_multishift_epi64_epi8(u->shifts, *b), u->mask);
}

/* --- scales, turned so that a vector holds one group of sixteen rows ---------------------------
 */

enum { GROUPS = 16 }; /* turned at a time */

typedef struct turned {
    __m512 scale[GROUPS], bias[GROUPS];
} turned;

static inline void transpose_16x16(__m512i *r)
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Groups [g, g + n) of rows row .. row + 15; rows behind the last repeat it. */
static void turn_scales(const kn_mat *w, int row, int last, int g, int n, turned *out)
{
    size_t skip = (size_t)g * (w->scale_type == KN_F32 ? 4 : 2);
    for (int i = 0; i < ROWS; i++) {
        size_t at = (size_t)(row + i < last ? row + i : last) * w->scale_row_bytes + skip;
        out->scale[i] = load_scales(w->scale_type, (const char *)w->scales + at, n);
        out->bias[i] = load_scales(w->scale_type, (const char *)w->biases + at, n);
    }
    transpose_16x16((__m512i *)out->scale);
    transpose_16x16((__m512i *)out->bias);
}

/* The three sums of a group as one float32, rounded as quant.h says. */
INLINE __m512 join_sums(__m512i h, __m512i m, __m512i l, int bits)
{
    if (bits <= KN_WHOLE_BITS) {
        __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(h, 12), _mm512_slli_epi32(m, 4));
        return _mm512_cvtepi32_ps(_mm512_add_epi32(upper, l));
    }
    __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(h, 8), m);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(16), _mm512_cvtepi32_ps(l));
}

/* The next group of sixteen results, as integer_dot() adds it. */
static inline __m512 add_group(__m512 total, __m512 dot, __m512 scale, __m512 bias, float step,
                               float sum)
{
    total = _mm512_fmadd_ps(scale, _mm512_mul_ps(dot, _mm512_set1_ps(step)), total);
    return _mm512_fmadd_ps(bias, _mm512_set1_ps(sum), total);
}

/* --- one token: sixteen rows side by side ------------------------------------------------------
 */

/* Per 128-bit lane: sums of a, b, c, d. */
static inline __m512i sum_lanes(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* q[k] holds, per 128-bit lane, sums of rows 4 k .. 4 k + 3. Makes s[i] lane r = row r, columns
 * 32 i .. 32 i + 31. */
INLINE void turn_sums(const __m512i *q, __m512i *s)
{
    __m512i t0 = _mm512_shuffle_i32x4(q[0], q[1], 0x44),
            t1 = _mm512_shuffle_i32x4(q[0], q[1], 0xee);
    __m512i t2 = _mm512_shuffle_i32x4(q[2], q[3], 0x44),
            t3 = _mm512_shuffle_i32x4(q[2], q[3], 0xee);
    s[0] = _mm512_shuffle_i32x4(t0, t2, 0x88);
    s[1] = _mm512_shuffle_i32x4(t0, t2, 0xdd);
    s[2] = _mm512_shuffle_i32x4(t1, t3, 0x88);
    s[3] = _mm512_shuffle_i32x4(t1, t3, 0xdd);
}

/* Sums of one chunk for sixteen rows: sum(q X) in `upper`, or sum(q U) and sum(q L). */
INLINE void chunk_sums(const uint8_t *const *rows, size_t offset, int bytes, int bits,
                       const unpacker *u, const char *x, const char *ahead, __m512i *upper,
                       __m512i *lower)
{
    bool whole = bits <= KN_WHOLE_BITS;
    __m512i xa[3], xb[3], up[4], low[4];
    UNROLL for (int i = 0; i < 3; i++)
    {
        xa[i] = _mm512_loadu_si512(x + 64 * i);
        xb[i] = _mm512_loadu_si512(x + X_PLANE_BYTES + 64 * i);
    }
    UNROLL for (int k = 0; k < 4; k++)
    {
        __m512i v[4], w[4];
        UNROLL for (int i = 0; i < 4; i++)
        {
            __m512i a, b, part[3];
            unpack_chunk(rows[4 * k + i] + offset, bytes, bits, u, &a, &b);
            UNROLL for (int j = 0; j < 3; j++) part[j] = _mm512_dpbusd_epi32(
                _mm512_dpbusd_epi32(_mm512_setzero_si512(), a, xa[j]), b, xb[j]);
            int shift = whole ? 4 : 0;
            __m512i hm = _mm512_add_epi32(_mm512_slli_epi32(part[0], 8), part[1]);
            v[i] = whole ? _mm512_add_epi32(_mm512_slli_epi32(hm, (unsigned)shift), part[2]) : hm;
            w[i] = part[2];
        }
        up[k] = sum_lanes(v[0], v[1], v[2], v[3]);
        if (!whole) low[k] = sum_lanes(w[0], w[1], w[2], w[3]);
    }
    for (int b = 0; b < bits * 4; b++) _mm_prefetch(ahead + 64 * b, _MM_HINT_T0);
    turn_sums(up, upper);
    if (!whole) turn_sums(low, lower);
}

/* From sums of 32 columns to sums of groups. */
INLINE void join_groups(__m512i *s, int group)
{
    if (group >= 64) {
        s[0] = _mm512_add_epi32(s[0], s[1]);
        s[1] = _mm512_add_epi32(s[2], s[3]);
    }
    if (group == 128) s[0] = _mm512_add_epi32(s[0], s[1]);
}

/* Add the groups of one chunk, at most `left` of them; scales from the chunk's first group on. */
INLINE __m512 chunk_groups(__m512 total, __m512i *upper, __m512i *lower, int bits, int group,
                           int left, const __m512 *scale, const __m512 *bias, const float *step,
                           const float *sum)
{
    int n = CHUNK / group < left ? CHUNK / group : left;
    join_groups(upper, group);
    if (bits > KN_WHOLE_BITS) join_groups(lower, group);
    for (int i = 0; i < n; i++) {
        __m512 dot = _mm512_cvtepi32_ps(upper[i]);
        if (bits > KN_WHOLE_BITS)
            dot = _mm512_fmadd_ps(dot, _mm512_set1_ps(16), _mm512_cvtepi32_ps(lower[i]));
        total = add_group(total, dot, scale[i], bias[i], step[i], sum[i]);
    }
    return total;
}

INLINE void vector_rows(float *y, const kn_mat *w, int row, int n_rows, const char *record,
                        const kn_act_layout *layout, int bits)
{
    unpacker u = unpacker_of(bits);
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const char *x = record + layout->codes;
    const uint8_t *rows[ROWS];
    int last = row + n_rows - 1, chunk_bytes = CHUNK * bits / 8;
    for (int i = 0; i < ROWS; i++)
        rows[i] = (const uint8_t *)w->w + (size_t)(row + i < last ? row + i : last) * w->row_bytes;
    const char *ahead = (const char *)w->w + (size_t)(row + ROWS) * w->row_bytes;
    __m512 total = _mm512_setzero_ps();
    turned t;
    for (int c = 0, g = 0; c < w->cols; c += CHUNK, g += CHUNK / w->group) {
        if (g % GROUPS == 0)
            turn_scales(w, row, last, g, layout->groups - g < GROUPS ? layout->groups - g : GROUPS,
                        &t);
        int bytes = (w->cols - c) * bits / 8;
        __m512i upper[4], lower[4];
        size_t offset = (size_t)(c / CHUNK) * (size_t)chunk_bytes;
        chunk_sums(rows, offset, bytes < chunk_bytes ? bytes : chunk_bytes, bits, &u,
                   x + (size_t)(c / CHUNK) * X_CHUNK_BYTES, ahead + offset * ROWS, upper, lower);
        total = chunk_groups(total, upper, lower, bits, w->group, layout->groups - g,
                             t.scale + g % GROUPS, t.bias + g % GROUPS, step + g, sum + g);
    }
    _mm512_mask_storeu_ps(y + row, v_mask(n_rows), total);
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
