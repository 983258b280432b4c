/* scalar.c - one number at a time: exp and its kin (the same steps as body_math.h), logarithm,
 * top-k. Plain IEEE operations and fmaf, so the bits are the same everywhere. */
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/numbers.h"

#include <math.h>

float kn_expf(float x)
{
    if (x != x) return x;
    if (x > KN_EXP_HIGH) return INFINITY;
    if (x < KN_EXP_LOW) return 0;
    float n = rintf(x * KN_LOG2_E);
    float r = fmaf(-n, KN_LN2_HI, x);
    r = fmaf(-n, KN_LN2_LO, r);
    float p = KN_EXP_P0;
    p = fmaf(p, r, KN_EXP_P1);
    p = fmaf(p, r, KN_EXP_P2);
    p = fmaf(p, r, KN_EXP_P3);
    p = fmaf(p, r, KN_EXP_P4);
    p = fmaf(p, r, KN_EXP_P5);
    p = fmaf(p, r * r, r) + 1.0f;
    return p * 2.0f * kn_bits_f32((uint32_t)((int)n - 1 + 127) << 23);
}

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); log(m) by a polynomial in m - 1. */
float kn_logf(float x)
{
    if (!(x > 0)) return x == 0 ? -INFINITY : NAN;
    if (x == INFINITY) return x;
    float lift = 0;
    if (x < 0x1p-126f) x *= 0x1p24f, lift = -24;
    uint32_t bits = kn_f32_bits(x);
    float e = (float)((int)(bits >> 23) - 126) + lift;
    float m = kn_bits_f32((bits & 0x7fffff) | 0x3f000000);
    if (m < 0.707106781f) m += m, e -= 1;
    float f = m - 1.0f, z = f * f, p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float y = f * z * p;
    y = fmaf(e, KN_LN2_LO, y);
    y = fmaf(-0.5f, z, y);
    return fmaf(e, KN_LN2_HI, f + y);
}

float kn_sigmoidf(float x)
{
    return 1.0f / (1.0f + kn_expf(0.0f - x));
}

float kn_siluf(float x)
{
    return x * kn_sigmoidf(x);
}

/* log(1 + e) = log(u) e / (u - 1) with u = 1 + e repairs the rounding of u for small e. */
float kn_softplusf(float x)
{
    if (x > 20.0f) return x;
    float e = kn_expf(x), u = 1.0f + e;
    return u == 1.0f ? e : kn_logf(u) * e / (u - 1.0f);
}

/* A sorted list of the best so far; most scores fail the first comparison. */
void kn_top_k(const float *scores, int n, int k, int *index)
{
    int found = 0;
    if (k <= 0) return;
    for (int i = 0; i < n; i++) {
        float s = scores[i];
        if (found == k && !(s > scores[index[k - 1]])) continue;
        if (s != s) continue;
        int at = found < k ? found++ : k - 1;
        for (; at > 0 && s > scores[index[at - 1]]; at--) index[at] = index[at - 1];
        index[at] = i;
    }
    for (int i = 0; found < k;
         i++) /* only NaN is left: fill up with the lowest indices not taken */
        if (scores[i] != scores[i]) index[found++] = i;
}
