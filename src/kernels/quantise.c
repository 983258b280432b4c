/* quantise.c - floats to MLX affine codes, as mlx.core.quantize makes them. */
#include "kernels/numbers.h"
#include "kernels/quant.h"

#include <math.h>
#include <string.h>

static void store_scale(kn_format type, void *base, size_t i, float v)
{
    uint16_t half = type == KN_F16 ? kn_f32_f16(v) : kn_f32_bf16(v);
    if (type == KN_F32) memcpy((char *)base + 4 * i, &v, sizeof v);
    else memcpy((char *)base + 2 * i, &half, sizeof half);
}

/* Code c of a little-endian bit stream of zeros. */
static void put_code(uint8_t *stream, int bits, size_t c, unsigned code)
{
    size_t bit = c * (size_t)bits;
    unsigned shifted = code << bit % 8;
    stream[bit / 8] |= (uint8_t)shifted;
    if (bit % 8 + (size_t)bits > 8) stream[bit / 8 + 1] |= (uint8_t)(shifted >> 8);
}

/* The edge of the group that lies further from zero becomes exact, and so does zero. */
static void find_scale(const float *x, int n, float most, float *scale, float *bias)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    bool below = fabsf(low) > fabsf(high);
    float step = fmaxf((high - low) / most, 1e-7f), edge = below ? low : high;
    *scale = below ? step : -step;
    *bias = 0;
    float codes = rintf(edge / *scale);
    if (codes == 0) return;
    *scale = edge / codes;
    *bias = edge;
}

void kn_quantise_row(const float *x, const kn_mat *shape, void *codes, void *scales, void *biases)
{
    float most = (float)((1 << shape->bits) - 1);
    memset(codes, 0, kn_row_bytes(KN_AFFINE, shape->bits, shape->cols));
    for (int g = 0; g < shape->cols / shape->group; g++) {
        float scale, bias;
        const float *in = x + (size_t)g * (size_t)shape->group;
        find_scale(in, shape->group, most, &scale, &bias);
        store_scale(shape->scale_type, scales, (size_t)g, scale);
        store_scale(shape->scale_type, biases, (size_t)g, bias);
        for (int i = 0; i < shape->group; i++) {
            float code = rintf((in[i] - bias) / scale);
            code = code > 0 ? code < most ? code : most : 0;
            put_code(codes, shape->bits, (size_t)(g * shape->group + i), (unsigned)code);
        }
    }
}
