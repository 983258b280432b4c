/* lanes_portable.h - sixteen float lanes in plain C: the reference for every other lanes_*.h.
 *
 * A lanes header gives `v16` and the operations below, each exact or rounded once as IEEE says, so
 * that a body compiled over any of them yields the same bits. max and min return the second
 * operand when either is NaN. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/numbers.h"

#include <math.h>

typedef struct v16 {
    float f[16];
} v16;

#define KN_EACH_LANE for (int l = 0; l < 16; l++)

static inline v16 v_set1(float x)
{
    v16 r;
    KN_EACH_LANE r.f[l] = x;
    return r;
}

static inline v16 v_zero(void)
{
    return v_set1(0);
}

static inline v16 v_load(const float *p)
{
    v16 r;
    memcpy(r.f, p, sizeof r.f);
    return r;
}

static inline void v_store(float *p, v16 a)
{
    memcpy(p, a.f, sizeof a.f);
}

/* The first n lanes (0 <= n <= 16); the others are zero, and no memory behind them is touched. */
static inline v16 v_load_n(const float *p, int n)
{
    v16 r = v_zero();
    memcpy(r.f, p, (size_t)n * sizeof *p);
    return r;
}

static inline void v_store_n(float *p, v16 a, int n)
{
    memcpy(p, a.f, (size_t)n * sizeof *p);
}

#define KN_LANES_BINARY(name, expression)                                                          \
    static inline v16 name(v16 a, v16 b)                                                           \
    {                                                                                              \
        v16 r;                                                                                     \
        KN_EACH_LANE                                                                               \
        {                                                                                          \
            float x = a.f[l], y = b.f[l];                                                          \
            r.f[l] = (expression);                                                                 \
        }                                                                                          \
        return r;                                                                                  \
    }
KN_LANES_BINARY(v_add, x + y)
KN_LANES_BINARY(v_sub, x - y)
KN_LANES_BINARY(v_mul, x *y)
KN_LANES_BINARY(v_div, x / y)
KN_LANES_BINARY(v_max, x > y ? x : y)
KN_LANES_BINARY(v_min, x < y ? x : y)
#undef KN_LANES_BINARY

/* a * b + c, rounded once. */
static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    v16 r;
    KN_EACH_LANE r.f[l] = fmaf(a.f[l], b.f[l], c.f[l]);
    return r;
}

/* c - a * b, rounded once. */
static inline v16 v_fnma(v16 a, v16 b, v16 c)
{
    v16 r;
    KN_EACH_LANE r.f[l] = fmaf(-a.f[l], b.f[l], c.f[l]);
    return r;
}

static inline v16 v_abs(v16 a)
{
    KN_EACH_LANE a.f[l] = fabsf(a.f[l]);
    return a;
}

/* a > b ? x : y, lane by lane. */
static inline v16 v_select_gt(v16 a, v16 b, v16 x, v16 y)
{
    v16 r;
    KN_EACH_LANE r.f[l] = a.f[l] > b.f[l] ? x.f[l] : y.f[l];
    return r;
}

/* To the nearest integer, ties to even. */
static inline v16 v_round(v16 a)
{
    KN_EACH_LANE a.f[l] = rintf(a.f[l]);
    return a;
}

/* 2^n for integral n in [-126, 127]; anything for other n. */
static inline v16 v_pow2(v16 n)
{
    v16 r;
    KN_EACH_LANE
    {
        float x = n.f[l] >= -126 && n.f[l] <= 127 ? n.f[l] : 0;
        r.f[l] = kn_bits_f32((uint32_t)((int)x + 127) << 23);
    }
    return r;
}

static inline v16 v_load_f16(const void *p)
{
    v16 r;
    KN_EACH_LANE r.f[l] = kn_f16_f32(kn_read16((const char *)p + 2 * l));
    return r;
}

static inline v16 v_load_bf16(const void *p)
{
    v16 r;
    KN_EACH_LANE r.f[l] = kn_bf16_f32(kn_read16((const char *)p + 2 * l));
    return r;
}

static inline v16 v_load_i8(const void *p)
{
    v16 r;
    KN_EACH_LANE r.f[l] = (float)((const int8_t *)p)[l];
    return r;
}

/* One half in every lane. */
static inline v16 v_set1_f16(const void *p)
{
    return v_set1(kn_f16_f32(kn_read16(p)));
}

static inline void v_store_f16(void *p, v16 a)
{
    KN_EACH_LANE
    {
        uint16_t h = kn_f32_f16(a.f[l]);
        memcpy((char *)p + 2 * l, &h, sizeof h);
    }
}

/* To the nearest 16-bit integer, ties to even; anything for values outside of them. */
static inline void v_store_i16(int16_t *p, v16 a)
{
    KN_EACH_LANE
    {
        float x = rintf(a.f[l]);
        p[l] = (int16_t)(x >= -32768 && x <= 32767 ? x : 0);
    }
}

/* The lanes as a tree: l and l+8, l+4, l+2, l+1. */
static inline float v_sum(v16 a)
{
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) a.f[l] = a.f[l] + a.f[l + half];
    return a.f[0];
}

/* out[i] = v_sum(a[i]) */
static inline void v_sums(float *out, const v16 *a, int n)
{
    for (int i = 0; i < n; i++) out[i] = v_sum(a[i]);
}

static inline float v_highest(v16 a)
{
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) a.f[l] = a.f[l] > a.f[l + half] ? a.f[l] : a.f[l + half];
    return a.f[0];
}

/* out[i] = v_highest(a[i]) */
static inline void v_highests(float *out, const v16 *a, int n)
{
    for (int i = 0; i < n; i++) out[i] = v_highest(a[i]);
}

static inline float v_first(v16 a)
{
    return a.f[0];
}

/* Integers: sixteen lanes of two 16-bit codes each, and sixteen 32-bit sums. How a `pairs` keeps
 * its codes is the header's own business. */
typedef struct pairs {
    int16_t first[16], second[16];
} pairs;

typedef struct sums {
    int32_t i[16];
} sums;

static inline sums i_zero(void)
{
    return (sums){{0}};
}

/* sum + the two codes of each lane times two[0] and two[1]. */
static inline sums i_dot(sums sum, pairs a, const int16_t *two)
{
    KN_EACH_LANE sum.i[l] += a.first[l] * two[0] + a.second[l] * two[1];
    return sum;
}

static inline v16 v_from_sums(sums a)
{
    v16 r;
    KN_EACH_LANE r.f[l] = (float)a.i[l];
    return r;
}

/* Sixteen pairs of signed bytes. */
static inline pairs i_widen(const void *codes)
{
    const int8_t *code = codes;
    pairs r;
    KN_EACH_LANE r.first[l] = code[2 * l], r.second[l] = code[2 * l + 1];
    return r;
}

/* The native register and its multiply-add, for blocked loops that keep many sums. */
typedef float vn;
enum { VN_LANES = 1 };
static inline vn vn_set1(float x)
{
    return x;
}
static inline vn vn_load(const float *p)
{
    return *p;
}
static inline void vn_store(float *p, vn a)
{
    *p = a;
}
static inline vn vn_fma(vn a, vn b, vn c)
{
    return fmaf(a, b, c);
}

#endif
