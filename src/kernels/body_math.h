/* body_math.h - exp and its kin over sixteen lanes. scalar.c runs the same steps on one number, so
 * kn_expf(x) and a lane of v_exp have the same bits. */
#ifndef KERNELS_BODY_MATH_H
#define KERNELS_BODY_MATH_H

#include "kernels/exp_constants.h"

/* exp(r), |r| at most half of ln 2. */
static inline v16 v_exp_near_zero(v16 r)
{
    v16 p = v_set1(KN_EXP_P0);
    p = v_fma(p, r, v_set1(KN_EXP_P1));
    p = v_fma(p, r, v_set1(KN_EXP_P2));
    p = v_fma(p, r, v_set1(KN_EXP_P3));
    p = v_fma(p, r, v_set1(KN_EXP_P4));
    p = v_fma(p, r, v_set1(KN_EXP_P5));
    return v_add(v_fma(p, v_mul(r, r), r), v_set1(1));
}

static inline v16 v_exp(v16 x)
{
    v16 low = v_set1(KN_EXP_LOW), high = v_set1(KN_EXP_HIGH);
    v16 t = v_max(low, v_min(high, x)); /* NaN stays NaN */
    v16 n = v_round(v_mul(t, v_set1(KN_LOG2_E)));
    v16 r = v_fnma(n, v_set1(KN_LN2_HI), t);
    r = v_fnma(n, v_set1(KN_LN2_LO), r);
    v16 y = v_mul(v_mul(v_exp_near_zero(r), v_set1(2)), v_pow2(v_sub(n, v_set1(1))));
    y = v_select_gt(x, high, v_set1(INFINITY), y);
    return v_select_gt(low, x, v_zero(), y);
}

/* 2^x for x below 1 in a third fewer steps than v_exp; what is below 2^-126 is 2^-126. */
static inline v16 v_exp2_below(v16 x)
{
    v16 t = v_max(v_set1(-126), x);
    v16 n = v_round(t);
    v16 r = v_mul(v_sub(t, n), v_set1(KN_LN2));
    return v_mul(v_exp_near_zero(r), v_pow2(n));
}

static inline v16 v_sigmoid(v16 x)
{
    v16 one = v_set1(1);
    return v_div(one, v_add(one, v_exp(v_sub(v_zero(), x))));
}

static inline v16 v_silu(v16 x)
{
    return v_mul(x, v_sigmoid(x));
}

/* 1 - 2 / (exp(2x) + 1) */
static inline v16 v_tanh(v16 x)
{
    v16 one = v_set1(1), e = v_exp(v_add(x, x));
    return v_sub(one, v_div(v_set1(2), v_add(e, one)));
}

static inline float exp_one(float x)
{
    return v_first(v_exp(v_set1(x)));
}

#endif
