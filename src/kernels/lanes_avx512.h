/* lanes_avx512.h - sixteen lanes in one register. See lanes_portable.h for what each must do. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/numbers.h"

#include <immintrin.h>
#include <math.h>

typedef __m512 v16;

static inline v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v_zero(void)
{
    return _mm512_setzero_ps();
}

static inline v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}

static inline __mmask16 v_mask(int n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline v16 v_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(v_mask(n), p);
}

static inline void v_store_n(float *p, v16 a, int n)
{
    _mm512_mask_storeu_ps(p, v_mask(n), a);
}

static inline v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v_fnma(v16 a, v16 b, v16 c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

static inline v16 v_abs(v16 a)
{
    return _mm512_abs_ps(a);
}

static inline v16 v_select_gt(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}

static inline v16 v_round(v16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline v16 v_pow2(v16 n)
{
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

static inline v16 v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static inline v16 v_load_bf16(const void *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline v16 v_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

/* One half in every lane. */
static inline v16 v_set1_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)kn_read16(p)));
}

static inline void v_store_f16(void *p, v16 a)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline void v_store_i16(int16_t *p, v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)));
}

static inline float v_first(v16 a)
{
    return _mm512_cvtss_f32(a);
}

static inline float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Sixteen times the tree of v_sum or v_highest, side by side: each step joins the halves of two
 * times as many vectors. */
#define KN_SIXTEEN_TREES(name, join)                                                               \
    static inline v16 name(const v16 *a)                                                           \
    {                                                                                              \
        const __m512i order =                                                                      \
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);               \
        __m512 b[8], c[4];                                                                         \
        __m512d d[4], e[2];                                                                        \
        UNROLL for (int i = 0; i < 8; i++) b[i] =                                                  \
            join(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x44),                               \
                 _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xee));                              \
        UNROLL for (int i = 0; i < 4; i++)                                                         \
        {                                                                                          \
            c[i] = join(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),                        \
                        _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));                       \
            d[i] = _mm512_castps_pd(c[i]);                                                         \
        }                                                                                          \
        UNROLL for (int i = 0; i < 2; i++) e[i] =                                                  \
            _mm512_castps_pd(join(_mm512_castpd_ps(_mm512_unpacklo_pd(d[2 * i], d[2 * i + 1])),    \
                                  _mm512_castpd_ps(_mm512_unpackhi_pd(d[2 * i], d[2 * i + 1]))));  \
        __m512 x = _mm512_castpd_ps(e[0]), y = _mm512_castpd_ps(e[1]);                             \
        __m512 f = join(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));             \
        return _mm512_permutexvar_ps(order, f);                                                    \
    }
KN_SIXTEEN_TREES(v_sum_sixteen, _mm512_add_ps)
KN_SIXTEEN_TREES(v_highest_sixteen, _mm512_max_ps)
#undef KN_SIXTEEN_TREES

/* out[i] = v_sum(a[i]) */
static inline void v_sums(float *out, const v16 *a, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, v_sum_sixteen(a + i));
    for (; i < n; i++) out[i] = v_sum(a[i]);
}

static inline float v_highest(v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* out[i] = v_highest(a[i]) */
static inline void v_highests(float *out, const v16 *a, int n)
{
    int i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, v_highest_sixteen(a + i));
    for (; i < n; i++) out[i] = v_highest(a[i]);
}

typedef __m512i pairs, sums;

static inline sums i_zero(void)
{
    return _mm512_setzero_si512();
}

static inline sums i_dot(sums sum, pairs a, const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, sizeof both);
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(_mm512_set1_epi32(both)));
    return sum;
}

static inline v16 v_from_sums(sums a)
{
    return _mm512_cvtepi32_ps(a);
}

static inline pairs i_widen(const void *codes)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(codes));
}

typedef __m512 vn;
enum { VN_LANES = 16 };

static inline vn vn_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline vn vn_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void vn_store(float *p, vn a)
{
    _mm512_storeu_ps(p, a);
}

static inline vn vn_fma(vn a, vn b, vn c)
{
    return _mm512_fmadd_ps(a, b, c);
}

#endif
