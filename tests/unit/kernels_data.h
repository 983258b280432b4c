/* kernels_data.h - random vectors and matrices of every format, for the kernel tests. */
#ifndef TESTS_KERNELS_DATA_H
#define TESTS_KERNELS_DATA_H

#include "kernels/kernels.h"
#include "kernels/numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct rng {
    uint64_t state;
} rng;

static inline uint32_t rng_next(rng *r)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 32);
}

static inline int rng_below(rng *r, int n)
{
    return (int)(rng_next(r) % (uint32_t)n);
}

/* Uniform in [-1, 1). */
static inline float rng_float(rng *r)
{
    return (float)(int32_t)rng_next(r) * 0x1p-31f;
}

/* Filled with values of very different sizes, as activations have. */
static inline float *random_floats(rng *r, size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        float v = rng_float(r);
        x[i] = v * v * v * (rng_below(r, 50) ? 2.0f : 30.0f);
    }
    return x;
}

/* A matrix whose three parts lie at odd addresses. owned is what to free. */
typedef struct test_mat {
    kn_mat m;
    void *owned[3];
} test_mat;

static inline void *odd_bytes(rng *r, size_t n, void **owned)
{
    uint8_t *p = malloc(n + 8);
    *owned = p;
    p += 1 + rng_below(r, 7);
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)rng_next(r);
    return p;
}

static inline void put_float(kn_format type, void *base, size_t i, float v)
{
    uint32_t bits = kn_f32_bits(v);
    uint16_t h = type == KN_F16 ? kn_f32_f16(v) : (uint16_t)(bits >> 16);
    if (type == KN_F32) memcpy((char *)base + 4 * i, &v, 4);
    else memcpy((char *)base + 2 * i, &h, 2);
}

static inline test_mat random_mat(rng *r, kn_format format, int bits, int group, kn_format scale,
                                  int rows, int cols)
{
    test_mat t = {.owned = {NULL}};
    t.m = (kn_mat){.format = format,
                   .bits = bits,
                   .group = group,
                   .scale_type = scale,
                   .rows = rows,
                   .cols = cols};
    kn_mat *m = &t.m;
    m->row_bytes = kn_row_bytes(format, bits, cols);
    m->scale_row_bytes = kn_scale_row_bytes(format, scale, group, cols);
    size_t n_rows = (size_t)rows,
           n_scale_rows = format == KN_F8_BLOCK ? (n_rows + 127) / 128 : n_rows;
    void *w = odd_bytes(r, n_rows * m->row_bytes, &t.owned[0]);
    void *s = odd_bytes(r, n_scale_rows * m->scale_row_bytes + 1, &t.owned[1]);
    void *b = odd_bytes(r, n_scale_rows * m->scale_row_bytes + 1, &t.owned[2]);
    if (format == KN_F32 || format == KN_F16 || format == KN_BF16)
        for (size_t i = 0; i < n_rows * (size_t)cols; i++) put_float(format, w, i, rng_float(r));
    size_t n_scales = m->scale_row_bytes / (scale == KN_F32 || format == KN_F8_BLOCK ? 4 : 2);
    if (format == KN_AFFINE || format == KN_F8_BLOCK) {
        for (size_t i = 0; i < n_scale_rows * n_scales; i++) {
            put_float(format == KN_F8_BLOCK ? KN_F32 : scale, s, i, rng_float(r) * 0.1f);
            if (format == KN_AFFINE) put_float(scale, b, i, rng_float(r));
        }
    } else if (format == KN_MXFP4 || format == KN_MXFP8) {
        for (size_t i = 0; i < n_scale_rows * m->scale_row_bytes; i++)
            ((uint8_t *)s)[i] = (uint8_t)(120 + rng_below(r, 10));
    }
    m->w = w;
    m->scales = s;
    m->biases = format == KN_AFFINE ? b : NULL;
    return t;
}

static inline void free_mat(test_mat *t)
{
    for (int i = 0; i < 3; i++) free(t->owned[i]);
}

/* Every format there is, as (format, bits, group, scale type). */
static const struct {
    kn_format format;
    int bits, group;
    kn_format scale;
} all_formats[] = {
    {KN_F32, 0, 0, KN_F32},       {KN_F16, 0, 0, KN_F32},      {KN_BF16, 0, 0, KN_F32},
    {KN_MXFP4, 4, 32, KN_F32},    {KN_NVFP4, 4, 16, KN_F32},   {KN_MXFP8, 8, 32, KN_F32},
    {KN_F8_BLOCK, 8, 0, KN_F32},  {KN_AFFINE, 4, 64, KN_BF16}, {KN_AFFINE, 4, 32, KN_F16},
    {KN_AFFINE, 4, 128, KN_F32},  {KN_AFFINE, 8, 64, KN_BF16}, {KN_AFFINE, 8, 32, KN_F32},
    {KN_AFFINE, 8, 128, KN_F16},  {KN_AFFINE, 2, 64, KN_BF16}, {KN_AFFINE, 2, 32, KN_F32},
    {KN_AFFINE, 2, 128, KN_F16},  {KN_AFFINE, 3, 64, KN_BF16}, {KN_AFFINE, 3, 32, KN_F16},
    {KN_AFFINE, 3, 128, KN_F32},  {KN_AFFINE, 5, 64, KN_F16},  {KN_AFFINE, 5, 32, KN_BF16},
    {KN_AFFINE, 5, 128, KN_BF16}, {KN_AFFINE, 6, 64, KN_F32},  {KN_AFFINE, 6, 32, KN_BF16},
    {KN_AFFINE, 6, 128, KN_F16},
};
enum { N_FORMATS = sizeof all_formats / sizeof *all_formats };

/* y for all rows and tokens, as the model calls it. */
static inline void product(kn_isa isa, kn_precision precision, float *y, const kn_mat *m,
                           const float *x, size_t stride, int n)
{
    void *scratch = malloc(kn_act_bytes(n, m->cols));
    kn_act a;
    int group = m->format == KN_AFFINE ? m->group : 0;
    kn_act_init(&a, isa, x, stride, n, m->cols, group, precision, scratch);
    kn_act_prepare(&a, 0, n);
    kn_matmul(y, (size_t)m->rows, m, &a, 0, m->rows, 0, n);
    free(scratch);
}

#endif
