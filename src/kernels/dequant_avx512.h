/* dequant_avx512.h - weights of every format as float32 lanes, either stored (dequant_span) or
 * multiplied at once with one vector (matvec_f32).
 *
 * 64 codes are loaded at a time. VBMI puts the two bytes that hold code l into 32-bit lane l, a
 * shift brings the code to the lane's foot, and what lies above it is either masked off or ignored:
 * codes of up to four bits look their value up in a register of sixteen floats. */

typedef enum kind { LUT, LUT4, FP4, WIDE, FP8 } kind; /* LUT4: four bits, FP4: E2M1 */

typedef struct taker {
    __m512i index[4], shifts, mask; /* for codes 0-15, 16-31, 32-47, 48-63 */
    v16 values;                     /* LUT: 0 1 2 .. (repeating); FP4: what E2M1 means */
} taker;

/* The first n bytes behind p (0 <= n <= 64), zeros after them. */
static inline __m512i load_bytes(const void *p, int n)
{
    return _mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : (1ull << n) - 1, p);
}

static taker taker_of(kind kind, int bits)
{
    uint8_t index[4][64];
    int32_t shifts[16];
    float values[16];
    for (int l = 0; l < 16; l++) {
        int last_byte = (64 * bits - 1) / 8;
        shifts[l] = l * bits % 8;
        values[l] = kind == FP4 ? kn_e2m1_f32((unsigned)l) : (float)(l & ((1 << bits) - 1));
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 4; j++) {
                int byte = (16 * k + l) * bits / 8 + (j > 1 ? 1 : j);
                index[k][4 * l + j] = (uint8_t)(byte < last_byte ? byte : last_byte);
            }
    }
    taker t = {.shifts = _mm512_loadu_si512(shifts),
               .mask = _mm512_set1_epi32((1 << bits) - 1),
               .values = v_load(values)};
    if (kind == LUT4 || kind == FP4) { /* a multishift of the broadcast eight bytes, see take() */
        uint64_t offsets[8];
        for (uint64_t q = 0; q < 8; q++) offsets[q] = 8 * q | (8 * q + 4) << 32;
        t.shifts = _mm512_loadu_si512(offsets);
    }
    for (int k = 0; k < 4; k++) t.index[k] = _mm512_loadu_si512(index[k]);
    return t;
}

/* What a group's codes turn into: v = first * code + second, or a table, or a factor. */
typedef struct group_values {
    v16 first, second;
} group_values;

INLINE group_values begin_group(kind kind, const taker *t, float scale, float bias)
{
    v16 s = v_set1(scale), b = v_set1(bias);
    if (kind == LUT || kind == LUT4) return (group_values){v_fma(s, t->values, b), b};
    if (kind == FP4) return (group_values){v_mul(s, t->values), b};
    return (group_values){s, b};
}

/* Codes 16 k .. 16 k + 15 of a chunk of 64 at p, whose bytes are also in `chunk`. */
INLINE v16 take(kind kind, const taker *t, const uint8_t *p, __m512i chunk, int k, group_values g)
{
    if (kind == LUT4 || kind == FP4) {
        long long eight;
        memcpy(&eight, p + 8 * k, sizeof eight);
        __m512i codes = _mm512_multishift_epi64_epi8(t->shifts, _mm512_set1_epi64(eight));
        return _mm512_permutexvar_ps(codes, g.first);
    }
    if (kind == FP8) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * k));
        __m256i wide = _mm256_cvtepi8_epi16(bytes);
        __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16((short)0x8000));
        __m256i rest = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(0x3f80));
        v16 v = _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
        return v_mul(g.first, v_mul(v, v_set1(256)));
    }
    __m512i codes = _mm512_permutexvar_epi8(t->index[k], chunk);
    codes = _mm512_srlv_epi32(codes, t->shifts);
    if (kind == LUT) return _mm512_permutexvar_ps(codes, g.first);
    return v_fma(g.first, _mm512_cvtepi32_ps(_mm512_and_si512(codes, t->mask)), g.second);
}

static kind kind_of(const kn_mat *m)
{
    if (m->format == KN_AFFINE) return m->bits == 4 ? LUT4 : m->bits < 4 ? LUT : WIDE;
    return m->format == KN_MXFP4 || m->format == KN_NVFP4 ? FP4 : FP8;
}

static int bits_of(const kn_mat *m)
{
    if (m->format == KN_AFFINE) return m->bits;
    return m->format == KN_MXFP4 || m->format == KN_NVFP4 ? 4 : 8;
}

/* --- scales as float32 -------------------------------------------------------------------------
 */

static inline v16 load_scales(kn_format type, const char *p, int n)
{
    if (type == KN_F32) return _mm512_maskz_loadu_ps(v_mask(n), p);
    __m256i h = _mm256_maskz_loadu_epi16(v_mask(n), p);
    if (type == KN_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* 2^(byte - 127) of the first n bytes; 0 means 2^-127. */
static inline v16 e8m0_scales(const uint8_t *p, int n)
{
    __m128i bytes = _mm_maskz_loadu_epi8(v_mask(n < 16 ? n : 16), p);
    __m512i e = _mm512_cvtepu8_epi32(bytes);
    __m512i bits = _mm512_slli_epi32(e, 23), least = _mm512_set1_epi32(0x00400000);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(e, e), least));
}

/* n <= 32 groups from group g of a row on. Whole vectors of results are stored. */
static void row_scales(const kn_mat *m, int row, int g, int n, float *scale, float *bias)
{
    if (m->format == KN_MXFP4 || m->format == KN_MXFP8) {
        const uint8_t *p = (const uint8_t *)m->scales + (size_t)row * m->scale_row_bytes + g;
        for (int i = 0; i < n; i += 16) v_store(scale + i, e8m0_scales(p + i, n - i));
        memset(bias, 0, (size_t)n * sizeof *bias);
        return;
    }
    if (m->format != KN_AFFINE) {
        for (int i = 0; i < n; i++) kn_group_scale(m, row, g + i, &scale[i], &bias[i]);
        return;
    }
    size_t at = (size_t)row * m->scale_row_bytes, width = m->scale_type == KN_F32 ? 4 : 2;
    for (int i = 0; i < n; i += 16) {
        size_t here = at + (size_t)(g + i) * width;
        int some = n - i < 16 ? n - i : 16;
        v_store(scale + i, load_scales(m->scale_type, (const char *)m->scales + here, some));
        v_store(bias + i, load_scales(m->scale_type, (const char *)m->biases + here, some));
    }
}

/* --- storing ------------------------------------------------------------------------------------
 */

enum { SPAN_GROUPS = 512 / 16 };

static void dequant_floats(const kn_mat *m, const uint8_t *w, int c0, int c1, float *out)
{
    for (; c0 + 16 <= c1; c0 += 16, out += 16) {
        if (m->format == KN_F32) v_store(out, _mm512_loadu_ps(w + 4 * (size_t)c0));
        else if (m->format == KN_F16) v_store(out, v_load_f16(w + 2 * (size_t)c0));
        else v_store(out, v_load_bf16(w + 2 * (size_t)c0));
    }
    for (; c0 < c1; c0++) *out++ = kn_read_float(m->format, w, (size_t)c0);
}

/* c0 starts a group, or a group of 128 starts 64 columns before it. */
INLINE void dequant_codes(kind kind, const kn_mat *m, const taker *t, int row, int c0, int c1,
                          float *out)
{
    int bits = bits_of(m), group = kn_group_of(m), shift = __builtin_ctz((unsigned)group);
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * m->row_bytes;
    float scale[SPAN_GROUPS], bias[SPAN_GROUPS];
    int first = c0 >> shift;
    row_scales(m, row, first, ((c1 + group - 1) >> shift) - first, scale, bias);
    for (int c = c0; c < c1; c += 64) {
        int n = c1 - c < 64 ? c1 - c : 64;
        const uint8_t *p = w + (size_t)c * (size_t)bits / 8;
        __m512i chunk = load_bytes(p, n * bits / 8);
        group_values g = {v_zero(), v_zero()};
        for (int k = 0; 16 * k < n; k++, out += 16) {
            int at = ((c + 16 * k) >> shift) - first;
            if (k == 0 || !(16 * k & (group - 1))) g = begin_group(kind, t, scale[at], bias[at]);
            v_store(out, take(kind, t, p, chunk, k, g));
        }
    }
}

/* What is the same for all rows of a matrix. */
typedef struct dequant_plan {
    kind kind;
    taker taker;
} dequant_plan;

static dequant_plan dequant_plan_of(const kn_mat *m)
{
    kind kind = kind_of(m);
    return (dequant_plan){kind, taker_of(kind, bits_of(m))};
}

/* c0 is a multiple of SPAN; c1 too, or the end of the row. */
static void dequant_span(const dequant_plan *plan, const kn_mat *m, int row, int c0, int c1,
                         float *out)
{
    const taker *t = &plan->taker;
    if (!kn_group_of(m)) {
        dequant_floats(m, (const uint8_t *)m->w + (size_t)row * m->row_bytes, c0, c1, out);
        return;
    }
    if (c1 % 16) { /* KN_F8_BLOCK only */
        kn_dequant_span(m, row, c0, c1, out);
        return;
    }
    switch (plan->kind) {
    case LUT: dequant_codes(LUT, m, t, row, c0, c1, out); return;
    case LUT4: dequant_codes(LUT4, m, t, row, c0, c1, out); return;
    case FP4: dequant_codes(FP4, m, t, row, c0, c1, out); return;
    case WIDE: dequant_codes(WIDE, m, t, row, c0, c1, out); return;
    case FP8: dequant_codes(FP8, m, t, row, c0, c1, out); return;
    }
}
