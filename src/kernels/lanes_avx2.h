/* lanes_avx2.h - sixteen lanes in two registers. See lanes_portable.h for what each must do. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/numbers.h"

#include <immintrin.h>
#include <math.h>

typedef struct v16 {
    __m256 lo, hi;
} v16;

static inline v16 v_set1(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline v16 v_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

static inline v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

/* All ones in the first n of eight lanes, for any n. */
static inline __m256i v_mask8(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline v16 v_load_n(const float *p, int n)
{
    if (n == 16) return v_load(p);
    __m256 hi = n > 8 ? _mm256_maskload_ps(p + 8, v_mask8(n - 8)) : _mm256_setzero_ps();
    return (v16){_mm256_maskload_ps(p, v_mask8(n)), hi};
}

static inline void v_store_n(float *p, v16 a, int n)
{
    if (n == 16) {
        v_store(p, a);
        return;
    }
    _mm256_maskstore_ps(p, v_mask8(n), a.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, v_mask8(n - 8), a.hi);
}

static inline v16 v_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline v16 v_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline v16 v_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline v16 v_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline v16 v_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline v16 v_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline v16 v_fnma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}

static inline v16 v_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

static inline v16 v_select_gt(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
                 _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
}

static inline v16 v_round(v16 a)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (v16){_mm256_round_ps(a.lo, NEAREST), _mm256_round_ps(a.hi, NEAREST)};
}

static inline __m256 v_pow2_half(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

static inline v16 v_pow2(v16 n)
{
    return (v16){v_pow2_half(n.lo), v_pow2_half(n.hi)};
}

static inline v16 v_load_f16(const void *p)
{
    const __m128i *q = p;
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}

static inline __m256 v_load_bf16_half(const __m128i *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline v16 v_load_bf16(const void *p)
{
    const __m128i *q = p;
    return (v16){v_load_bf16_half(q), v_load_bf16_half(q + 1)};
}

static inline v16 v_load_i8(const void *p)
{
    __m128i b = _mm_loadu_si128(p);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
}

/* One half in every lane. */
static inline v16 v_set1_f16(const void *p)
{
    __m256 half = _mm256_cvtph_ps(_mm_set1_epi16((short)kn_read16(p)));
    return (v16){half, half};
}

static inline void v_store_f16(void *p, v16 a)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    __m128i *q = p;
    _mm_storeu_si128(q, _mm256_cvtps_ph(a.lo, NEAREST));
    _mm_storeu_si128(q + 1, _mm256_cvtps_ph(a.hi, NEAREST));
}

static inline void v_store_i16(int16_t *p, v16 a)
{
    __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(packed, 0xD8));
}

static inline float v_first(v16 a)
{
    return _mm256_cvtss_f32(a.lo);
}

static inline float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Four times v_sum, side by side. */
static inline __m128 v_sum_four(const v16 *a)
{
    __m256 b[4], c[2];
    UNROLL for (int i = 0; i < 4; i++) b[i] = _mm256_add_ps(a[i].lo, a[i].hi);
    UNROLL for (int i = 0; i < 2; i++) c[i] = _mm256_add_ps(
        _mm256_permute2f128_ps(b[i], b[i + 2], 0x20), _mm256_permute2f128_ps(b[i], b[i + 2], 0x31));
    __m256d c0 = _mm256_castps_pd(c[0]), c1 = _mm256_castps_pd(c[1]);
    __m256 d = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(c0, c1)),
                             _mm256_castpd_ps(_mm256_unpackhi_pd(c0, c1)));
    __m128 lo = _mm256_castps256_ps128(d), hi = _mm256_extractf128_ps(d, 1);
    return _mm_add_ps(_mm_shuffle_ps(lo, hi, 0x88), _mm_shuffle_ps(lo, hi, 0xdd));
}

/* out[i] = v_sum(a[i]) */
static inline void v_sums(float *out, const v16 *a, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) _mm_storeu_ps(out + i, v_sum_four(a + i));
    for (; i < n; i++) out[i] = v_sum(a[i]);
}

static inline float v_highest(v16 a)
{
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* out[i] = v_highest(a[i]) */
static inline void v_highests(float *out, const v16 *a, int n)
{
    for (int i = 0; i < n; i++) out[i] = v_highest(a[i]);
}

typedef struct pairs {
    __m256i lo, hi;
} pairs, sums;

static inline sums i_zero(void)
{
    return (sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

static inline sums i_dot(sums sum, pairs a, const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, sizeof both);
    __m256i b = _mm256_set1_epi32(both);
#ifdef __AVXVNNI__
    __asm__("%{vex%} vpdpwssd %1, %2, %0" : "+x"(sum.lo) : "x"(b), "x"(a.lo));
    __asm__("%{vex%} vpdpwssd %1, %2, %0" : "+x"(sum.hi) : "x"(b), "x"(a.hi));
#else
    sum.lo = _mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, b));
    sum.hi = _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, b));
    __asm__("" : "+x"(sum.lo), "+x"(sum.hi)); /* gcc would keep some of eight sums in memory */
#endif
    return sum;
}

static inline v16 v_from_sums(sums a)
{
    return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}

static inline pairs i_widen(const void *codes)
{
    const __m128i *half = codes;
    return (pairs){_mm256_cvtepi8_epi16(_mm_loadu_si128(half)),
                   _mm256_cvtepi8_epi16(_mm_loadu_si128(half + 1))};
}

typedef __m256 vn;
enum { VN_LANES = 8 };

static inline vn vn_set1(float x)
{
    return _mm256_set1_ps(x);
}

static inline vn vn_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void vn_store(float *p, vn a)
{
    _mm256_storeu_ps(p, a);
}

static inline vn vn_fma(vn a, vn b, vn c)
{
    return _mm256_fmadd_ps(a, b, c);
}

#endif
