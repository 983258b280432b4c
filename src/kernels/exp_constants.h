/* exp_constants.h - exp(x) = 2^n (1 + r + r^2 P(r)), n = rint(x log2 e), r = x - n ln 2. Below
 * EXP_LOW (= -125 ln 2) the result is 0, above EXP_HIGH it is infinite. */
#ifndef KERNELS_EXP_CONSTANTS_H
#define KERNELS_EXP_CONSTANTS_H

#define KN_EXP_LOW -86.6433975f
#define KN_EXP_HIGH 88.7228317f
#define KN_LOG2_E 1.44269502f
#define KN_LN2 0.693147182f
#define KN_LN2_HI 0.693359375f
#define KN_LN2_LO -2.12194440e-4f
#define KN_EXP_P0 1.9875691500e-4f
#define KN_EXP_P1 1.3981999507e-3f
#define KN_EXP_P2 8.3334519073e-3f
#define KN_EXP_P3 4.1665795894e-2f
#define KN_EXP_P4 1.6666665459e-1f
#define KN_EXP_P5 5.0000001201e-1f

#endif
