/* integer_neon.h - integer products (KN_PRECISION_FAST): signed bytes times signed bytes, with the
 * dot-product instruction where the CPU has it.
 *
 * An activation X = 256 h + m is kept as two planes of bytes, 128 columns at a time. A
 * row's codes become bytes once and serve all vectors of the call. Codes of eight bits are halved
 * and their lowest bit multiplied apart, so that they are signed bytes too. */

enum { CHUNK = 128, X_CHUNK_BYTES = 2 * CHUNK, ROW_BLOCK = 1024 };

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i++) {
        int c = c0 + i, x = (int)codes[i], m = (int8_t)x;
        int8_t *at = (int8_t *)dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK;
        at[0] = (int8_t)((x - m) / 256);
        at[CHUNK] = (int8_t)m;
    }
}

#include "kernels/body_act.h"

/* sum[k] += codes . plane k, over n (a multiple of 16) columns of one chunk. */
typedef void dots_fn(const int8_t *codes, const int8_t *x, int n, int32_t *sum);

static void dots_base(const int8_t *codes, const int8_t *x, int n, int32_t *sum)
{
    int32x4_t total[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < n; i += 16) {
        int8x16_t q = vld1q_s8(codes + i);
        UNROLL for (int k = 0; k < 2; k++)
        {
            int8x16_t v = vld1q_s8(x + CHUNK * k + i);
            int16x8_t p = vmull_s8(vget_low_s8(q), vget_low_s8(v)); /* 127 * 128 fits */
            total[k] = vpadalq_s16(total[k], p);
            total[k] = vpadalq_s16(total[k], vmull_high_s8(q, v));
        }
    }
    for (int k = 0; k < 2; k++) sum[k] += vaddvq_s32(total[k]);
}

__attribute__((target("arch=armv8.2-a+dotprod"))) static void
dots_sdot(const int8_t *codes, const int8_t *x, int n, int32_t *sum)
{
    int32x4_t total[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    for (int i = 0; i < n; i += 16) {
        int8x16_t q = vld1q_s8(codes + i);
        UNROLL for (int k = 0; k < 2; k++) total[k] =
            vdotq_s32(total[k], q, vld1q_s8(x + CHUNK * k + i));
    }
    for (int k = 0; k < 2; k++) sum[k] += vaddvq_s32(total[k]);
}

static bool has_sdot(void)
{
#if defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
    return true;
#else
    return false;
#endif
}

/* The codes of one row from column c0 on as signed bytes; of eight-bit codes half of each in codes,
 * the lowest bit in low. */
static void row_codes(const kn_mat *w, int row, int c0, int n, int8_t *codes, int8_t *low)
{
    const uint8_t *p =
        (const uint8_t *)w->w + (size_t)row * w->row_bytes + (size_t)c0 * (size_t)w->bits / 8;
    unpack_codes(p, w->bits, n, (uint8_t *)codes);
    for (int i = 0; i < n && w->bits == 8; i += 16) {
        uint8x16_t q = vld1q_u8((const uint8_t *)codes + i);
        vst1q_s8(low + i, vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(1))));
        vst1q_s8(codes + i, vreinterpretq_s8_u8(vshrq_n_u8(q, 1)));
    }
}

static int32_t group_sum(dots_fn *dots, int bits, const int8_t *codes, const int8_t *low,
                         const int8_t *x, int n)
{
    int32_t s[2] = {0}, t[2] = {0};
    dots(codes, x, n, s);
    if (bits < 8) return 256 * s[0] + s[1];
    dots(low, x, n, t);
    return 256 * (2 * s[0] + t[0]) + 2 * s[1] + t[1];
}

/* y of one row over the columns [c0, c0 + n) for all tokens; continues what is in y. */
static void row_block(float *y, size_t y_stride, const kn_mat *w, int row, const kn_act *a,
                      dots_fn *dots, int c0, int n, int t0, int t1)
{
    int8_t codes[ROW_BLOCK], low[ROW_BLOCK];
    float scale[ROW_BLOCK / 32], bias[ROW_BLOCK / 32];
    kn_act_layout layout = kn_act_layout_of(a);
    int g0 = c0 / w->group, groups = n / w->group;
    row_codes(w, row, c0, n, codes, low);
    for (int g = 0; g < groups; g++) kn_group_scale(w, row, g0 + g, &scale[g], &bias[g]);
    for (int t = t0; t < t1; t++) {
        const char *record = (const char *)a->prepared + (size_t)t * layout.bytes;
        const float *step = (const float *)(const void *)record + g0;
        const float *sum = (const float *)(const void *)(record + layout.sum) + g0;
        float total = c0 ? y[(size_t)t * y_stride] : 0;
        for (int g = 0; g < groups; g++) {
            int c = g * w->group, at = c0 + c;
            const int8_t *x = (const int8_t *)record + layout.codes +
                              (size_t)(at / CHUNK) * X_CHUNK_BYTES + at % CHUNK;
            float dot = (float)group_sum(dots, w->bits, codes + c, low + c, x, w->group);
            total = fmaf(scale[g], dot * step[g], total);
            total = fmaf(bias[g], sum[g], total);
        }
        y[(size_t)t * y_stride] = total;
    }
}

/* --- strips ------------------------------------------------------------------------------------
 */

/* Where column c of activations begins. */
static inline const char *strip_x(const char *x, int c)
{
    return x + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK;
}

/* Of eight bytes the even or the odd ones, in every lane. */
static inline int8x16_t four_times(const char *p, int parity)
{
    int8x8_t v = vld1_s8((const int8_t *)p);
    v = parity ? vuzp2_s8(v, v) : vuzp1_s8(v, v);
    return vcombine_s8(v, v);
}

/* The same eight bytes in both halves. */
static inline int8x16_t twice(const char *p)
{
    int8x8_t v = vld1_s8((const int8_t *)p);
    return vcombine_s8(v, v);
}

/* Scales, or biases, of four rows of a strip. */
static inline float32x4_t four_floats(const uint8_t *p, kn_format type)
{
    if (type == KN_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    uint16x4_t v = vreinterpret_u16_u8(vld1_u8(p));
    if (type == KN_F16) return vcvt_f32_f16(vreinterpret_f16_u16(v));
    return vreinterpretq_f32_u32(vshll_n_u16(v, 16));
}

/* What vdotq_s32() does. */
static inline int32x4_t dot_base(int32x4_t sum, int8x16_t q, int8x16_t x)
{
    int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(q), vget_low_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(lo, vpaddlq_s16(vmull_high_s8(q, x))));
}

#define STRIP_NAME(name) name##_base
#define STRIP_TARGET
#define STRIP_DOT dot_base
#include "kernels/strips_neon.h"

#define STRIP_NAME(name) name##_sdot
#define STRIP_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define STRIP_DOT vdotq_s32
#include "kernels/strips_neon.h"

static void strips_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                           int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    bool sdot = has_sdot();
    for (int r = row0; r < row1; r += KN_STRIP_ROWS)
        for (int t = t0; t < t1; t++) {
            some_x x = some_x_of(a, &layout, t);
            float *to = y + (size_t)t * y_stride + r;
            if (sdot) strip_sdot(to, w, r, &x);
            else strip_base(to, w, r, &x);
        }
}

static void matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
                   int t0, int t1)
{
    if (!kn_is_integer_product(a, w)) {
        matmul_f32(y, y_stride, w, a, row0, row1, t0, t1);
        return;
    }
    if (w->strips) {
        strips_integer(y, y_stride, w, a, row0, row1, t0, t1);
        return;
    }
    dots_fn *dots = has_sdot() ? dots_sdot : dots_base;
    for (int r = row0; r < row1; r++)
        for (int c = 0; c < w->cols; c += ROW_BLOCK)
            row_block(y + r, y_stride, w, r, a, dots, c,
                      w->cols - c < ROW_BLOCK ? w->cols - c : ROW_BLOCK, t0, t1);
}
