/* body_integer.h - integer products in plain C: the reference, for ISAs without their own. Codes of
 * x are int32_t in their natural order. */

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i++) ((int32_t *)(void *)dst)[c0 + i] = (int32_t)codes[i];
}

#include "kernels/body_act.h"

/* sum(q X) of one group. */
static int32_t group_sum(const uint8_t *codes, int bits, const int32_t *x, int c0, int n)
{
    int32_t sum = 0;
    for (int c = c0; c < c0 + n; c++) sum += (int32_t)kn_read_code(codes, bits, (size_t)c) * x[c];
    return sum;
}

/* One result: groups in rising order. */
static float integer_dot(const kn_mat *w, int row, const char *record, const kn_act_layout *layout)
{
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    const int32_t *x = (const int32_t *)(const void *)(record + layout->codes);
    const uint8_t *codes = (const uint8_t *)w->w + (size_t)row * w->row_bytes;
    float total = 0;
    for (int g = 0; g < layout->groups; g++) {
        float scale, bias;
        kn_group_scale(w, row, g, &scale, &bias);
        float dot = (float)group_sum(codes, w->bits, x, g * w->group, w->group);
        total = fmaf(scale, dot * step[g], total);
        total = fmaf(bias, sum[g], total);
    }
    return total;
}

static void matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
                   int t0, int t1)
{
    if (!kn_is_integer_product(a, w)) {
        matmul_f32(y, y_stride, w, a, row0, row1, t0, t1);
        return;
    }
    kn_act_layout layout = kn_act_layout_of(a);
    for (int t = t0; t < t1; t++)
        for (int r = row0; r < row1; r++)
            y[(size_t)t * y_stride + (size_t)r] =
                integer_dot(w, r, (const char *)a->prepared + (size_t)t * layout.bytes, &layout);
}
