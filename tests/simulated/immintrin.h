/* immintrin.h - AVX-512 and AVX-VNNI in software, to test their kernels on a CPU with AVX2 alone:
 * SIMDe's functions (Debian: libsimde-dev), and here, lane by lane, those that it lacks. */
#pragma once
#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <math.h>
#include <string.h>

#ifdef SIMULATE_AVXVNNI
#define __AVXVNNI__ 1
#endif

#define SIMULATED static inline __attribute__((unused))

/* name(a): lane i of n is `expression` of a[i]. */
#define LANES(name, result, lane_out, argument, lane_in, n, expression)                            \
    SIMULATED result name(argument v)                                                              \
    {                                                                                              \
        lane_in a[n];                                                                              \
        lane_out r[n];                                                                             \
        result out;                                                                                \
        memcpy(a, &v, sizeof a);                                                                   \
        for (int i = 0; i < n; i++) r[i] = (lane_out)(expression);                                 \
        memcpy(&out, r, sizeof out);                                                               \
        return out;                                                                                \
    }
LANES(sim_cvtepi32_epi16, __m256i, short, __m512i, int, 16, a[i])
LANES(sim_cvtepi32_epi8, __m128i, signed char, __m512i, int, 16, a[i])
LANES(sim_cvtepi32_ps, __m512, float, __m512i, int, 16, a[i])
LANES(sim_cvtepi8_epi32, __m512i, int, __m128i, signed char, 16, a[i])
LANES(sim_cvtepu16_epi32, __m512i, int, __m256i, unsigned short, 16, a[i])
LANES(sim_cvtepu8_epi32, __m512i, int, __m128i, unsigned char, 16, a[i])
LANES(sim_cvtps_epi32, __m512i, int, __m512, float, 16, lrintf(a[i]))

/* Loads of n lanes, those without their bit in `mask` being zero. */
#define MASKED_LOAD(name, result, lane, n)                                                         \
    SIMULATED result name(unsigned long long mask, const void *p)                                  \
    {                                                                                              \
        lane r[n] = {0};                                                                           \
        result out;                                                                                \
        for (int i = 0; i < n; i++)                                                                \
            if (mask >> i & 1) memcpy(&r[i], (const lane *)p + i, sizeof r[i]);                    \
        memcpy(&out, r, sizeof out);                                                               \
        return out;                                                                                \
    }
MASKED_LOAD(sim_maskz_loadu_ps, __m512, float, 16)
MASKED_LOAD(sim_maskz_loadu_epi8, __m512i, char, 64)
MASKED_LOAD(sim256_maskz_loadu_epi8, __m256i, char, 32)
MASKED_LOAD(sim256_maskz_loadu_epi16, __m256i, short, 16)
MASKED_LOAD(sim128_maskz_loadu_epi8, __m128i, char, 16)

SIMULATED void sim_mask_storeu_ps(void *p, unsigned mask, __m512 v)
{
    float r[16];
    memcpy(r, &v, sizeof r);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) memcpy((float *)p + i, &r[i], sizeof r[i]);
}

SIMULATED __m512 sim_cvtph_ps(__m256i a)
{
    __m128i half[2];
    __m512 out;
    memcpy(half, &a, sizeof half);
    __m256 wide[2] = {_mm256_cvtph_ps(half[0]), _mm256_cvtph_ps(half[1])};
    memcpy(&out, wide, sizeof out);
    return out;
}

SIMULATED __m256i sim_cvtps_ph(__m512 a, int rounding)
{
    __m256 wide[2];
    __m256i out;
    (void)rounding; /* to nearest, as everywhere here */
    memcpy(wide, &a, sizeof wide);
    __m128i half[2] = {_mm256_cvtps_ph(wide[0], 0), _mm256_cvtps_ph(wide[1], 0)};
    memcpy(&out, half, sizeof out);
    return out;
}

SIMULATED float sim_cvtss_f32(__m512 a)
{
    float first;
    memcpy(&first, &a, sizeof first);
    return first;
}

SIMULATED __m256 sim_extractf32x8_ps(__m512 a, int half)
{
    __m256 out;
    memcpy(&out, (const char *)&a + 32 * half, sizeof out);
    return out;
}

SIMULATED __m512 sim_shuffle_f32x4(__m512 a, __m512 b, int pick)
{
    __m128 x[4], y[4];
    __m512 out;
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    __m128 r[4] = {x[pick & 3], x[pick >> 2 & 3], y[pick >> 4 & 3], y[pick >> 6 & 3]};
    memcpy(&out, r, sizeof out);
    return out;
}

SIMULATED __m512i sim_srai_epi32(__m512i v, int by)
{
    int a[16];
    memcpy(a, &v, sizeof a);
    for (int i = 0; i < 16; i++) a[i] >>= by;
    memcpy(&v, a, sizeof v);
    return v;
}

SIMULATED __mmask16 sim_testn_epi32_mask(__m512i v, __m512i w)
{
    int a[16], b[16];
    unsigned mask = 0;
    memcpy(a, &v, sizeof a);
    memcpy(b, &w, sizeof b);
    for (int i = 0; i < 16; i++) mask |= (unsigned)!(a[i] & b[i]) << i;
    return (__mmask16)mask;
}

/* sum + products of `per` neighbours, in n 32-bit lanes. */
#define DOT(name, vector, lane_a, lane_b, per, n)                                                  \
    SIMULATED vector name(vector sum, vector v, vector w)                                          \
    {                                                                                              \
        int s[n];                                                                                  \
        lane_a a[per * (n)];                                                                       \
        lane_b b[per * (n)];                                                                       \
        memcpy(s, &sum, sizeof s);                                                                 \
        memcpy(a, &v, sizeof a);                                                                   \
        memcpy(b, &w, sizeof b);                                                                   \
        for (int i = 0; i < per * (n); i++) s[i / per] += a[i] * b[i];                             \
        memcpy(&sum, s, sizeof sum);                                                               \
        return sum;                                                                                \
    }
DOT(sim_dpwssd, __m512i, short, short, 2, 16)
DOT(sim256_dpwssd, __m256i, short, short, 2, 8)
DOT(sim256_dpbusd, __m256i, unsigned char, signed char, 4, 8)

#undef _mm512_maskz_loadu_ps
#undef _mm512_cvtps_ph
#undef _mm512_shuffle_f32x4
#undef _mm512_extractf32x8_ps
#undef _mm256_dpbusd_avx_epi32
#define _mm512_cvtepi32_epi16 sim_cvtepi32_epi16
#define _mm512_cvtepi32_epi8 sim_cvtepi32_epi8
#define _mm512_cvtepi32_ps sim_cvtepi32_ps
#define _mm512_cvtepi8_epi32 sim_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 sim_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 sim_cvtepu8_epi32
#define _mm512_cvtps_epi32 sim_cvtps_epi32
#define _mm512_maskz_loadu_ps sim_maskz_loadu_ps
#define _mm512_maskz_loadu_epi8 sim_maskz_loadu_epi8
#define _mm256_maskz_loadu_epi8 sim256_maskz_loadu_epi8
#define _mm256_maskz_loadu_epi16 sim256_maskz_loadu_epi16
#define _mm_maskz_loadu_epi8 sim128_maskz_loadu_epi8
#define _mm512_mask_storeu_ps sim_mask_storeu_ps
#define _mm512_cvtph_ps sim_cvtph_ps
#define _mm512_cvtps_ph sim_cvtps_ph
#define _mm512_cvtss_f32 sim_cvtss_f32
#define _mm512_extractf32x8_ps sim_extractf32x8_ps
#define _mm512_shuffle_f32x4 sim_shuffle_f32x4
#define _mm512_srai_epi32 sim_srai_epi32
#define _mm512_testn_epi32_mask sim_testn_epi32_mask
#define _mm256_dpbusd_avx_epi32 sim256_dpbusd
