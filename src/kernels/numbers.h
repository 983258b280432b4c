/* numbers.h - the small number formats, one value at a time. Reads may be unaligned. */
#ifndef KERNELS_NUMBERS_H
#define KERNELS_NUMBERS_H

#include "kernels/kernels.h"

#include <string.h>

static inline float kn_bits_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t kn_f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline uint16_t kn_read16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float kn_bf16_f32(uint16_t v)
{
    return kn_bits_f32((uint32_t)v << 16);
}

/* Exact, subnormals, infinities and NaN included. */
static inline float kn_f16_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16;
    uint32_t rest = v & 0x7fffu;
    if (rest >= 0x7c00) return kn_bits_f32(sign | 0x7f800000u | (rest & 0x3ff) << 13);
    if (rest >= 0x0400) return kn_bits_f32(sign | ((rest << 13) + 0x38000000u));
    float magnitude = (float)rest * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

/* Round to nearest, ties to even, as the hardware converts. */
static inline uint16_t kn_f32_f16(float f)
{
    uint32_t bits = kn_f32_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and up */
    if (rest < 0x38800000u) { /* below 2^-14: the float adder rounds to multiples of 2^-24 */
        float shifted = kn_bits_f32(rest) + 0.5f;
        return (uint16_t)(sign | (kn_f32_bits(shifted) - 0x3f000000u));
    }
    rest += 0xfffu + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000u) >> 13);
}

/* Round to nearest, ties to even; of finite numbers. */
static inline uint16_t kn_f32_bf16(float f)
{
    uint32_t bits = kn_f32_bits(f);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* E4M3: a half float's bits shifted by 7, times 256. 0x7f is 480, as MLX has it. */
static inline float kn_e4m3_f32(uint8_t v)
{
    float magnitude = kn_f16_f32((uint16_t)((v & 0x7f) << 7)) * 256.0f;
    return v & 0x80 ? -magnitude : magnitude;
}

/* E8M0: 2^(v - 127). */
static inline float kn_e8m0_f32(uint8_t v)
{
    return kn_bits_f32(v ? (uint32_t)v << 23 : 0x00400000u);
}

static inline float kn_e2m1_f32(unsigned code)
{
    static const float value[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return value[code & 15];
}

/* Element i of an array of KN_F32, KN_F16 or KN_BF16. */
static inline float kn_read_float(kn_format type, const void *base, size_t i)
{
    const char *p = base;
    float f;
    if (type == KN_BF16) return kn_bf16_f32(kn_read16(p + 2 * i));
    if (type == KN_F16) return kn_f16_f32(kn_read16(p + 2 * i));
    memcpy(&f, p + 4 * i, sizeof f);
    return f;
}

/* Code c of a little-endian bit stream of `bits`-wide codes. */
static inline unsigned kn_read_code(const uint8_t *stream, int bits, size_t c)
{
    size_t bit = c * (size_t)bits;
    const uint8_t *p = stream + bit / 8;
    unsigned shift = bit % 8, v = p[0];
    if (shift + (unsigned)bits > 8) v |= (unsigned)p[1] << 8;
    return v >> shift & ((1u << bits) - 1);
}

#endif
