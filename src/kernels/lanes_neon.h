/* lanes_neon.h - sixteen lanes in four registers. See lanes_portable.h for what each must do. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/numbers.h"

#include <arm_neon.h>
#include <math.h>

typedef struct v16 {
    float32x4_t q[4];
} v16;

#define KN_EACH_QUARTER for (int i = 0; i < 4; i++)

static inline v16 v_set1(float x)
{
    v16 r;
    KN_EACH_QUARTER r.q[i] = vdupq_n_f32(x);
    return r;
}

static inline v16 v_zero(void)
{
    return v_set1(0);
}

static inline v16 v_load(const float *p)
{
    v16 r;
    KN_EACH_QUARTER r.q[i] = vld1q_f32(p + 4 * i);
    return r;
}

static inline void v_store(float *p, v16 a)
{
    KN_EACH_QUARTER vst1q_f32(p + 4 * i, a.q[i]);
}

static inline v16 v_load_n(const float *p, int n)
{
    float padded[16] = {0};
    if (n == 16) return v_load(p);
    memcpy(padded, p, (size_t)n * sizeof *p);
    return v_load(padded);
}

static inline void v_store_n(float *p, v16 a, int n)
{
    float lanes[16];
    if (n == 16) {
        v_store(p, a);
        return;
    }
    v_store(lanes, a);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

#define KN_QUARTERS_BINARY(name, expression)                                                       \
    static inline v16 name(v16 a, v16 b)                                                           \
    {                                                                                              \
        v16 r;                                                                                     \
        KN_EACH_QUARTER                                                                            \
        {                                                                                          \
            float32x4_t x = a.q[i], y = b.q[i];                                                    \
            r.q[i] = (expression);                                                                 \
        }                                                                                          \
        return r;                                                                                  \
    }
KN_QUARTERS_BINARY(v_add, vaddq_f32(x, y))
KN_QUARTERS_BINARY(v_sub, vsubq_f32(x, y))
KN_QUARTERS_BINARY(v_mul, vmulq_f32(x, y))
KN_QUARTERS_BINARY(v_div, vdivq_f32(x, y))
KN_QUARTERS_BINARY(v_max, vbslq_f32(vcgtq_f32(x, y), x, y))
KN_QUARTERS_BINARY(v_min, vbslq_f32(vcltq_f32(x, y), x, y))
#undef KN_QUARTERS_BINARY

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    KN_EACH_QUARTER c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return c;
}

static inline v16 v_fnma(v16 a, v16 b, v16 c)
{
    KN_EACH_QUARTER c.q[i] = vfmsq_f32(c.q[i], a.q[i], b.q[i]);
    return c;
}

static inline v16 v_abs(v16 a)
{
    KN_EACH_QUARTER a.q[i] = vabsq_f32(a.q[i]);
    return a;
}

static inline v16 v_select_gt(v16 a, v16 b, v16 x, v16 y)
{
    v16 r;
    KN_EACH_QUARTER r.q[i] = vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), x.q[i], y.q[i]);
    return r;
}

static inline v16 v_round(v16 a)
{
    KN_EACH_QUARTER a.q[i] = vrndnq_f32(a.q[i]);
    return a;
}

static inline v16 v_pow2(v16 n)
{
    KN_EACH_QUARTER
    {
        int32x4_t e = vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127));
        n.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(e, 23));
    }
    return n;
}

static inline v16 v_load_f16(const void *p)
{
    v16 r;
    KN_EACH_QUARTER
    {
        uint16x4_t h = vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i));
        r.q[i] = vcvt_f32_f16(vreinterpret_f16_u16(h));
    }
    return r;
}

static inline v16 v_load_bf16(const void *p)
{
    v16 r;
    KN_EACH_QUARTER
    {
        uint16x4_t h = vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i));
        r.q[i] = vreinterpretq_f32_u32(vshll_n_u16(h, 16));
    }
    return r;
}

static inline v16 v_load_i8(const void *p)
{
    int8x16_t b = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_s8(vget_high_s8(b));
    return (v16){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}

static inline v16 v_load_u8(const uint8_t *p)
{
    uint8x16_t b = vld1q_u8(p);
    uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_high_u8(b);
    return (v16){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_high_u16(lo)),
                  vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_high_u16(hi))}};
}

/* One half in every lane. */
static inline v16 v_set1_f16(const void *p)
{
    return v_set1(kn_f16_f32(kn_read16(p)));
}

static inline void v_store_f16(void *p, v16 a)
{
    KN_EACH_QUARTER
    {
        uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(a.q[i]));
        vst1_u8((uint8_t *)p + 8 * i, vreinterpret_u8_u16(h));
    }
}

static inline void v_store_i16(int16_t *p, v16 a)
{
    KN_EACH_QUARTER vst1_s16(p + 4 * i, vqmovn_s32(vcvtnq_s32_f32(a.q[i])));
}

static inline float v_first(v16 a)
{
    return vgetq_lane_f32(a.q[0], 0);
}

static inline float v_sum(v16 a)
{
    float32x4_t c = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
    float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

/* out[i] = v_sum(a[i]) */
static inline void v_sums(float *out, const v16 *a, int n)
{
    for (int i = 0; i < n; i++) out[i] = v_sum(a[i]);
}

static inline float v_highest(v16 a)
{
    v16 b = v_max(a, (v16){{a.q[2], a.q[3], a.q[2], a.q[3]}});
    float f[8];
    vst1q_f32(f, b.q[0]);
    vst1q_f32(f + 4, b.q[1]);
    for (int half = 4; half; half /= 2)
        for (int l = 0; l < half; l++) f[l] = f[l] > f[l + half] ? f[l] : f[l + half];
    return f[0];
}

/* out[i] = v_highest(a[i]) */
static inline void v_highests(float *out, const v16 *a, int n)
{
    for (int i = 0; i < n; i++) out[i] = v_highest(a[i]);
}

typedef struct pairs {
    int16x8_t first[2], second[2];
} pairs;

typedef struct sums {
    int32x4_t q[4];
} sums;

static inline sums i_zero(void)
{
    sums r;
    KN_EACH_QUARTER r.q[i] = vdupq_n_s32(0);
    return r;
}

static inline sums i_dot(sums sum, pairs a, const int16_t *two)
{
    for (int i = 0; i < 2; i++) {
        sum.q[2 * i] = vmlal_n_s16(sum.q[2 * i], vget_low_s16(a.first[i]), two[0]);
        sum.q[2 * i] = vmlal_n_s16(sum.q[2 * i], vget_low_s16(a.second[i]), two[1]);
        sum.q[2 * i + 1] = vmlal_high_n_s16(sum.q[2 * i + 1], a.first[i], two[0]);
        sum.q[2 * i + 1] = vmlal_high_n_s16(sum.q[2 * i + 1], a.second[i], two[1]);
    }
    return sum;
}

static inline v16 v_from_sums(sums a)
{
    v16 r;
    KN_EACH_QUARTER r.q[i] = vcvtq_f32_s32(a.q[i]);
    return r;
}

static inline pairs i_widen(const void *codes)
{
    int8x16x2_t two = vld2q_s8(codes);
    return (pairs){{vmovl_s8(vget_low_s8(two.val[0])), vmovl_high_s8(two.val[0])},
                   {vmovl_s8(vget_low_s8(two.val[1])), vmovl_high_s8(two.val[1])}};
}

typedef float32x4_t vn;
enum { VN_LANES = 4 };

static inline vn vn_set1(float x)
{
    return vdupq_n_f32(x);
}

static inline vn vn_load(const float *p)
{
    return vld1q_f32(p);
}

static inline void vn_store(float *p, vn a)
{
    vst1q_f32(p, a);
}

static inline vn vn_fma(vn a, vn b, vn c)
{
    return vfmaq_f32(c, a, b);
}

#endif
