/* quant.c - reading every weight format as float32, the portable way. */
#include "kernels/quant.h"

#include "kernels/numbers.h"

#include <math.h>

size_t kn_row_bytes(kn_format format, int bits, int cols)
{
    size_t n = cols < 0 ? 0 : (size_t)cols;
    switch (format) {
    case KN_F32: return 4 * n;
    case KN_F16:
    case KN_BF16: return 2 * n;
    case KN_AFFINE: return n * (size_t)bits / 8;
    case KN_MXFP4:
    case KN_NVFP4: return n / 2;
    case KN_MXFP8:
    case KN_F8_BLOCK: return n;
    }
    return 0;
}

size_t kn_scale_row_bytes(kn_format format, kn_format scale_type, int group, int cols)
{
    size_t n = cols < 0 ? 0 : (size_t)cols;
    switch (format) {
    case KN_AFFINE: return n / (size_t)group * (scale_type == KN_F32 ? 4 : 2);
    case KN_MXFP4:
    case KN_MXFP8: return n / 32;
    case KN_NVFP4: return n / 16;
    case KN_F8_BLOCK: return (n + 127) / 128 * 4;
    default: return 0;
    }
}

int kn_group_of(const kn_mat *m)
{
    switch (m->format) {
    case KN_AFFINE: return m->group;
    case KN_MXFP4:
    case KN_MXFP8: return 32;
    case KN_NVFP4: return 16;
    case KN_F8_BLOCK: return 128;
    default: return 0;
    }
}

void kn_group_scale(const kn_mat *m, int row, int g, float *scale, float *bias)
{
    int scale_row = m->format == KN_F8_BLOCK ? row / 128 : row;
    const char *s = (const char *)m->scales + (size_t)scale_row * m->scale_row_bytes;
    *bias = 0;
    switch (m->format) {
    case KN_AFFINE: {
        const char *b = (const char *)m->biases + (size_t)scale_row * m->scale_row_bytes;
        *scale = kn_read_float(m->scale_type, s, (size_t)g);
        *bias = kn_read_float(m->scale_type, b, (size_t)g);
        break;
    }
    case KN_MXFP4:
    case KN_MXFP8: *scale = kn_e8m0_f32((uint8_t)s[g]); break;
    case KN_NVFP4: *scale = kn_e4m3_f32((uint8_t)s[g]); break;
    case KN_F8_BLOCK: *scale = kn_read_float(KN_F32, s, (size_t)g); break;
    default: *scale = 1;
    }
}

/* Columns [c0, c1) of one group: w = scale * code + bias, rounded once. */
static void dequant_group(const kn_mat *m, const uint8_t *row, int c0, int c1, float scale,
                          float bias, float *out)
{
    switch (m->format) {
    case KN_AFFINE:
        for (int c = c0; c < c1; c++)
            *out++ = fmaf(scale, (float)kn_read_code(row, m->bits, (size_t)c), bias);
        break;
    case KN_MXFP4:
    case KN_NVFP4:
        for (int c = c0; c < c1; c++) *out++ = scale * kn_e2m1_f32(row[c / 2] >> (c & 1) * 4);
        break;
    default:
        for (int c = c0; c < c1; c++) *out++ = scale * kn_e4m3_f32(row[c]);
    }
}

void kn_dequant_span(const kn_mat *m, int row, int c0, int c1, float *out)
{
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * m->row_bytes;
    int group = kn_group_of(m);
    if (m->strips) {
        kn_strip_rows rows;
        kn_mat one = kn_rows_of_strip(m, row, 1, &rows);
        kn_dequant_span(&one, 0, c0, c1, out);
        return;
    }
    if (!group) {
        for (int c = c0; c < c1; c++) *out++ = kn_read_float(m->format, w, (size_t)c);
        return;
    }
    while (c0 < c1) {
        int g = c0 / group, stop = (g + 1) * group < c1 ? (g + 1) * group : c1;
        float scale, bias;
        kn_group_scale(m, row, g, &scale, &bias);
        dequant_group(m, w, c0, stop, scale, bias, out);
        out += stop - c0;
        c0 = stop;
    }
}

void kn_dequant_row(const kn_mat *m, int row, float *out)
{
    kn_dequant_span(m, row, 0, m->cols, out);
}
