/* integer_avx512.h - integer products (KN_PRECISION_FAST) with VNNI.
 *
 * An activation X is 256 h + m with signed bytes, so one product is two vpdpbusd. Codes
 * are handled in chunks of 128 columns, as two vectors: 32-bit lane l of A holds the even ones of
 * codes 8 l .. 8 l + 7, of B the odd ones, so lane l of (A + B) belongs to columns 8 l .. 8 l + 7
 * and every group is a run of lanes; four-bit codes are only shifted and masked. An activation
 * chunk is four vectors: A's h and m, and B's. */

enum { CHUNK = 128, X_CHUNK_BYTES = 2 * CHUNK, X_PLANE_BYTES = 2 * 64, ROWS = 16 };

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    const __m128i planes = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i;
        char *at = dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK / 2;
        __m512i x = _mm512_cvtps_epi32(v_load(codes + i));
        __m512i m = _mm512_srai_epi32(_mm512_slli_epi32(x, 24), 24);
        __m128i parts[2] = {_mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_sub_epi32(x, m), 8)),
                            _mm512_cvtepi32_epi8(m)};
        for (int k = 0; k < 2; k++) {
            __m128i both = _mm_shuffle_epi8(parts[k], planes);
            _mm_storel_epi64((__m128i *)(void *)(at + 64 * k), both);
            _mm_storeh_pd((double *)(void *)(at + X_PLANE_BYTES + 64 * k), _mm_castsi128_pd(both));
        }
    }
}

#include "kernels/body_act.h"

/* How to take 128 codes of one width apart: bytes are brought into the quadword that needs them,
 * then shifted. Up to four bits, sixteen codes fit a quadword and both vectors begin from it. Five
 * and six are taken as they lie, four and four, and parted by parity afterwards. */
typedef struct unpacker {
    __m512i bytes_a, bytes_b, shifts_a, shifts_b, mask, even, odd;
} unpacker;

static inline bool as_they_lie(int bits)
{
    return bits == 5 || bits == 6;
}

/* Byte j of quadword i becomes code 16 i + code_at(bits, plane, j). */
static inline int code_at(int bits, int plane, int j)
{
    int lane = 8 * (j / 4), k = j % 4;
    return as_they_lie(bits) ? lane + 4 * plane + k : lane + plane + 2 * k;
}

/* All quadwords are alike, 2 bits bytes apart. */
static unpacker unpacker_of(int bits)
{
    uint64_t bytes[2] = {0}, shifts[2] = {0}, even = 0;
    for (int plane = 0; plane < 2; plane++)
        for (int j = 0; j < 8; j++) {
            int bit = code_at(bits, plane, j) * bits, first = 0, byte = j;
            if (as_they_lie(bits)) {
                first = code_at(bits, plane, j - j % 4) * bits / 8;
                byte = first + j % 4;
            } else if (bits == 8) {
                byte = bit / 8;
            }
            int begin = as_they_lie(bits) ? 8 * (j - j % 4) : 0; /* of `first` in the quadword */
            bytes[plane] |= (uint64_t)byte << 8 * j;
            shifts[plane] |= (uint64_t)((begin + bit - 8 * first) & 63) << 8 * j;
        }
    for (int j = 0; j < 8; j++) /* of A or, with bit 6, of B */
        even |= (uint64_t)(j - j % 4 + 2 * (j % 2) + (j % 4 > 1 ? 64 : 0)) << 8 * j;
    __m512i quadword = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    __m512i step = _mm512_set1_epi64((long long)(2 * (uint64_t)bits * 0x0101010101010101));
    __m512i begin = _mm512_mullo_epi64(quadword, step);
    __m512i lanes = _mm512_mullo_epi64(quadword, _mm512_set1_epi64(0x0808080808080808));
    __m512i first = _mm512_add_epi64(lanes, _mm512_set1_epi64((long long)even));
    return (unpacker){_mm512_add_epi64(begin, _mm512_set1_epi64((long long)bytes[0])),
                      _mm512_add_epi64(begin, _mm512_set1_epi64((long long)bytes[1])),
                      _mm512_set1_epi64((long long)shifts[0]),
                      _mm512_set1_epi64((long long)shifts[1]),
                      _mm512_set1_epi8((char)((1 << bits) - 1)),
                      first,
                      _mm512_add_epi8(first, _mm512_set1_epi8(1))};
}

/* Which of a chunk's 16 * bits bytes are there; the others count as zero. */
typedef struct present {
    __mmask64 first, second; /* 64 bytes each */
} present;

static inline __mmask64 first_bytes(int n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

static inline present present_of(int bytes, int bits)
{
    if (bytes > 16 * bits) bytes = 16 * bits;
    return (present){first_bytes(bytes), first_bytes(bytes > 64 ? bytes - 64 : 0)};
}

/* Two four-bit codes a byte as a byte each. */
INLINE void split_nibbles(__m512i v, __m512i *a, __m512i *b)
{
    __m512i mask = _mm512_set1_epi8(15);
    *a = _mm512_and_si512(v, mask);
    *b = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
}

/* BITS is a constant. */
INLINE void unpack_chunk(const uint8_t *p, present there, int bits, const unpacker *u, __m512i *a,
                         __m512i *b)
{
    __m512i v = _mm512_maskz_loadu_epi8(there.first, p);
    if (bits == 4) {
        split_nibbles(v, a, b);
        return;
    }
    if (bits < 4) {
        *a = *b = _mm512_permutexvar_epi8(u->bytes_a, v);
    } else {
        __m512i w = _mm512_maskz_loadu_epi8(there.second, p + 64);
        *a = _mm512_permutex2var_epi8(v, u->bytes_a, w);
        *b = _mm512_permutex2var_epi8(v, u->bytes_b, w);
    }
    if (bits == 8) return;
    v = _mm512_and_si512(_mm512_multishift_epi64_epi8(u->shifts_a, *a), u->mask);
    *b = _mm512_and_si512(_mm512_multishift_epi64_epi8(u->shifts_b, *b), u->mask);
    *a = as_they_lie(bits) ? _mm512_permutex2var_epi8(v, u->even, *b) : v;
    *b = as_they_lie(bits) ? _mm512_permutex2var_epi8(v, u->odd, *b) : *b;
}

/* --- scales, turned so that a vector holds one group of sixteen rows ---------------------------
 */

enum { GROUPS = 16 }; /* turned at a time, or half as many where they are float32 */

typedef struct turned {
    __m512 scale[GROUPS], bias[GROUPS];
} turned;

static inline int turned_groups(const kn_mat *w)
{
    return w->scale_type == KN_F32 ? GROUPS / 2 : GROUPS;
}

INLINE void transpose_16x16(__m512i *r)
{
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2)
    {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
    {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Lanes as they lie in memory, float32 or two of sixteen bits, as float32. */
INLINE void widen_scales(const __m512i *r, int n, kn_format type, __m512 *out)
{
    for (int i = 0; type == KN_F32 && i < n; i++) out[i] = _mm512_castsi512_ps(r[i]);
    if (type == KN_F32) return;
    for (int i = 0; 2 * i < n; i++) {
        __m512i even = _mm512_slli_epi32(r[i], 16), odd = _mm512_srli_epi32(r[i], 16);
        if (type == KN_BF16) {
            out[2 * i] = _mm512_castsi512_ps(even);
            out[2 * i + 1] = _mm512_castsi512_ps(_mm512_slli_epi32(odd, 16));
        } else {
            out[2 * i] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(r[i]));
            out[2 * i + 1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(odd));
        }
    }
}

/* Groups [g, g + n) of rows row .. row + 15; rows behind the last repeat it. Scales and biases are
 * turned together, and those of the sixteen rows that come next are fetched. */
static void turn_scales(const kn_mat *w, int row, int last, int g, int n, turned *out, int to_group)
{
    int size = w->scale_type == KN_F32 ? 4 : 2;
    size_t at = (size_t)row * w->scale_row_bytes + (size_t)(g * size);
    const char *scale = (const char *)w->scales + at, *bias = (const char *)w->biases + at;
    __mmask32 there = (__mmask32)first_bytes(n * size);
    __m512i r[ROWS];
    for (int i = 0; i < ROWS; i++) {
        size_t skip = (size_t)(row + i < last ? i : last - row) * w->scale_row_bytes;
        r[i] =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi8(there, scale + skip)),
                               _mm256_maskz_loadu_epi8(there, bias + skip), 1);
    }
    for (int i = ROWS; i < 2 * ROWS; i++) {
        _mm_prefetch(scale + (size_t)i * w->scale_row_bytes, _MM_HINT_T0);
        _mm_prefetch(bias + (size_t)i * w->scale_row_bytes, _MM_HINT_T0);
    }
    transpose_16x16(r);
    widen_scales(r, n, w->scale_type, out->scale + to_group);
    widen_scales(r + 8, n, w->scale_type, out->bias + to_group);
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

/* sum += a x_a + b x_b */
INLINE __m512i products(__m512i sum, __m512i a, __m512i xa, __m512i b, __m512i xb)
{
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, a, xa), b, xb);
}

/* sum(q X) of one row's chunk, by lane. */
INLINE __m512i row_sum(__m512i a, __m512i b, const __m512i *xa, const __m512i *xb)
{
    __m512i h = products(_mm512_setzero_si512(), a, xa[0], b, xb[0]);
    return products(_mm512_slli_epi32(h, 8), a, xa[1], b, xb[1]);
}

/* The activations of a chunk. */
INLINE void load_x(const char *x, __m512i *xa, __m512i *xb)
{
    UNROLL for (int i = 0; i < 2; i++)
    {
        xa[i] = _mm512_loadu_si512(x + 64 * i);
        xb[i] = _mm512_loadu_si512(x + X_PLANE_BYTES + 64 * i);
    }
}

/* The sums of sixteen rows in at most BLOCK_CHUNKS chunks: [chunk][k] as turn_sums() takes them. */
enum { BLOCK_CHUNKS = 64 };
typedef __m512i block_sums[BLOCK_CHUNKS][4];

/* How far ahead codes are fetched, in order of addresses. Four rows are read side by side, so the
 * last of them is read three rows' length ahead of the first. */
static inline size_t ahead_bytes(const kn_mat *w)
{
    enum { AHEAD = 7168, LONGEST = 4096 };
    return AHEAD + 3 * (w->row_bytes < LONGEST ? w->row_bytes : LONGEST);
}

/* Fetch `bytes` bytes from *next on, and move it. */
INLINE void fetch(const char **next, int bytes)
{
    for (int i = 0; i < bytes; i += 64) _mm_prefetch(*next + i, _MM_HINT_T0);
    *next += bytes;
}

/* Four rows at a time: their codes lie side by side, so memory is read nearly in order. */
INLINE void four_rows(const uint8_t *const *rows, int k, int n_chunks, int bytes, int bits,
                      const unpacker *u, const char *x, const char **next, __m512i (*out)[4])
{
    for (int c = 0; c < n_chunks; c++, x += X_CHUNK_BYTES) {
        __m512i xa[2], xb[2], v[4], a, b;
        present there = present_of(bytes - c * 16 * bits, bits);
        load_x(x, xa, xb);
        UNROLL for (int i = 0; i < 4; i++)
        {
            const uint8_t *codes = rows[i] + (size_t)c * 16 * (size_t)bits;
            unpack_chunk(codes, there, bits, u, &a, &b);
            v[i] = row_sum(a, b, xa, xb);
        }
        out[c][k] = sum_lanes(v[0], v[1], v[2], v[3]);
        fetch(next, 3 * 16 * bits);
    }
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
INLINE __m512 chunk_groups(__m512 total, __m512i *sums, int group, int left, const __m512 *scale,
                           const __m512 *bias, const float *step, const float *sum)
{
    int n = CHUNK / group < left ? CHUNK / group : left;
    join_groups(sums, group);
    for (int i = 0; i < n; i++)
        total = add_group(total, _mm512_cvtepi32_ps(sums[i]), scale[i], bias[i], step[i], sum[i]);
    return total;
}

INLINE void vector_rows(float *y, const kn_mat *w, const unpacker *u, int row, int n_rows,
                        const char *record, const kn_act_layout *layout, int bits)
{
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const char *x = record + layout->codes;
    int last = row + n_rows - 1, turn = turned_groups(w), g = 0;
    /* Codes are read by software prefetch, steadily: a quarter of them while sums are joined. */
    const char *next = (const char *)w->w + (size_t)row * w->row_bytes + ahead_bytes(w);
    __m512 total = _mm512_setzero_ps();
    turned t;
    block_sums s;
    for (int c = 0; c < w->cols; c += BLOCK_CHUNKS * CHUNK) {
        int n_chunks = (w->cols - c + CHUNK - 1) / CHUNK, bytes = (w->cols - c) * bits / 8;
        if (n_chunks > BLOCK_CHUNKS) n_chunks = BLOCK_CHUNKS;
        for (int k = 0; k < 4; k++) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) {
                int r = row + 4 * k + i < last ? row + 4 * k + i : last;
                rows[i] = (const uint8_t *)w->w + (size_t)r * w->row_bytes + c * bits / 8;
            }
            four_rows(rows, k, n_chunks, bytes, bits, u, x, &next, s);
        }
        for (int i = 0; i < n_chunks; i++, g += CHUNK / w->group) {
            int left = layout->groups - g;
            if (g % turn == 0) turn_scales(w, row, last, g, left < turn ? left : turn, &t, 0);
            __m512i sums[4];
            turn_sums(s[i], sums);
            total = chunk_groups(total, sums, w->group, left, t.scale + g % turn, t.bias + g % turn,
                                 step + g, sum + g);
            fetch(&next, 4 * 16 * bits);
        }
        x += BLOCK_CHUNKS * X_CHUNK_BYTES;
    }
    _mm512_mask_storeu_ps(y + row, v_mask(n_rows), total);
}

static void integer_rows(float *y, const kn_mat *w, const unpacker *u, int row, int n_rows,
                         const char *record, const kn_act_layout *layout)
{
    switch (w->bits) {
    case 2: vector_rows(y, w, u, row, n_rows, record, layout, 2); return;
    case 3: vector_rows(y, w, u, row, n_rows, record, layout, 3); return;
    case 4: vector_rows(y, w, u, row, n_rows, record, layout, 4); return;
    case 5: vector_rows(y, w, u, row, n_rows, record, layout, 5); return;
    case 6: vector_rows(y, w, u, row, n_rows, record, layout, 6); return;
    default: vector_rows(y, w, u, row, n_rows, record, layout, 8);
    }
}

static void matvec_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    unpacker u = unpacker_of(w->bits);
    const char *head = (const char *)w->w + (size_t)row0 * w->row_bytes;
    fetch(&head, (int)ahead_bytes(w)); /* what the steady fetching begins behind */
    for (int r = row0; r < row1; r += ROWS)
        for (int t = t0; t < t1; t++)
            integer_rows(y + (size_t)t * y_stride, w, &u, r, row1 - r < ROWS ? row1 - r : ROWS,
                         (const char *)a->prepared + (size_t)t * layout.bytes, &layout);
}
