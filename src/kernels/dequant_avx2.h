/* dequant_avx2.h - weights of every format as float32, eight columns at a time. Codes of any width
 * come out of their bit stream with pdep: eight codes of b bits are b bytes. */

typedef enum kind { CODES, CODES4, FP4, FP8 } kind;

/* What is the same for all rows of a matrix. */
typedef struct dequant_plan {
    kind kind;
    int bits;
} dequant_plan;

static dequant_plan dequant_plan_of(const kn_mat *m)
{
    if (m->format == KN_AFFINE) return (dequant_plan){m->bits == 4 ? CODES4 : CODES, m->bits};
    bool fp4 = m->format == KN_MXFP4 || m->format == KN_NVFP4;
    return fp4 ? (dequant_plan){FP4, 4} : (dequant_plan){FP8, 8};
}

/* The n <= 4 bytes at p. Several small copies into one integer would wait in memory for each other:
 * what is read there must have been written at once. */
static inline uint64_t few_bytes(const uint8_t *p, int n)
{
    uint32_t v;
    if (n == 1) return *p;
    if (n == 2) return kn_read16(p);
    if (n == 3) return kn_read16(p) | (uint64_t)p[2] << 16;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Eight codes of `bits` bits, a byte each. Reads exactly `bits` bytes. */
static inline uint64_t eight_codes(const uint8_t *p, int bits)
{
    uint64_t v = few_bytes(p, bits < 4 ? bits : 4);
    if (bits > 4) v |= few_bytes(p + 4, bits - 4) << 32;
    return bits == 8 ? v : _pdep_u64(v, 0x0101010101010101u * ((1u << bits) - 1));
}

/* Eight four-bit codes in 32-bit lanes. */
static inline __m256i eight_nibbles(const uint8_t *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(v), shifts), _mm256_set1_epi32(15));
}

static inline __m256 e2m1_values(__m256i codes)
{
    const __m256 size = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(codes, 3), 31);
    return _mm256_or_ps(_mm256_permutevar8x32_ps(size, codes), _mm256_castsi256_ps(sign));
}

/* E4M3 as a half's bits, times 256. */
static inline __m256 e4m3_values(const uint8_t *p)
{
    __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m128i sign = _mm_and_si128(wide, _mm_set1_epi16((short)0x8000));
    __m128i rest = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(0x3f80));
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, rest)), _mm256_set1_ps(256));
}

INLINE __m256 eight_values(kind kind, int bits, const uint8_t *p, __m256 scale, __m256 bias)
{
    if (kind == FP8) return _mm256_mul_ps(scale, e4m3_values(p));
    if (kind == FP4) return _mm256_mul_ps(scale, e2m1_values(eight_nibbles(p)));
    __m256i codes = kind == CODES4
                        ? eight_nibbles(p)
                        : _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)eight_codes(p, bits)));
    return _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(codes), bias);
}

static void dequant_floats(const kn_mat *m, const uint8_t *w, int c0, int c1, float *out)
{
    for (; c0 + 16 <= c1; c0 += 16, out += 16) {
        if (m->format == KN_F32) v_store(out, v_load((const float *)(const void *)w + c0));
        else if (m->format == KN_F16) v_store(out, v_load_f16(w + 2 * (size_t)c0));
        else v_store(out, v_load_bf16(w + 2 * (size_t)c0));
    }
    for (; c0 < c1; c0++) *out++ = kn_read_float(m->format, w, (size_t)c0);
}

INLINE void dequant_codes(kind kind, int bits, const kn_mat *m, int row, int c0, int c1, float *out)
{
    const uint8_t *w =
        (const uint8_t *)m->w + (size_t)row * m->row_bytes + (size_t)c0 * (size_t)bits / 8;
    int group = kn_group_of(m);
    for (int c = c0; c < c1; c += group) {
        float scale, bias;
        int n = c1 - c < group ? c1 - c : group;
        kn_group_scale(m, row, c / group, &scale, &bias);
        __m256 s = _mm256_set1_ps(scale), b = _mm256_set1_ps(bias);
        for (int i = 0; i < n; i += 8, w += bits, out += 8)
            _mm256_storeu_ps(out, eight_values(kind, bits, w, s, b));
    }
}

/* c0 is a multiple of SPAN; c1 too, or the end of the row. */
static void dequant_span(const dequant_plan *plan, const kn_mat *m, int row, int c0, int c1,
                         float *out)
{
    if (!kn_group_of(m)) {
        dequant_floats(m, (const uint8_t *)m->w + (size_t)row * m->row_bytes, c0, c1, out);
        return;
    }
    if (c1 % 16) { /* KN_F8_BLOCK only */
        kn_dequant_span(m, row, c0, c1, out);
        return;
    }
    if (plan->kind == CODES4) dequant_codes(CODES4, 4, m, row, c0, c1, out);
    else if (plan->kind == FP4) dequant_codes(FP4, 4, m, row, c0, c1, out);
    else if (plan->kind == FP8) dequant_codes(FP8, 8, m, row, c0, c1, out);
    else if (plan->bits == 8) dequant_codes(CODES, 8, m, row, c0, c1, out);
    else dequant_codes(CODES, plan->bits, m, row, c0, c1, out);
}
