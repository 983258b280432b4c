/* body_integer.h - integer products in plain C: the reference, for ISAs without their own. Codes of
 * x are int16_t in their natural order. */

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i += 16) v_store_i16((int16_t *)dst + c0 + i, v_load(codes + i));
}
#include "kernels/body_act.h"

/* One result of an integer product: groups in rising order, each an exact integer sum. */
static float integer_dot(const kn_mat *w, int row, const char *record, const kn_act_layout *layout)
{
    const float *step = (const float *)record, *sum = (const float *)(record + layout->sum);
    const int16_t *x = (const int16_t *)(record + layout->codes);
    const uint8_t *codes = (const uint8_t *)w->w + (size_t)row * w->row_bytes;
    float total = 0;
    for (int g = 0; g < layout->groups; g++) {
        int32_t dot = 0;
        float scale, bias;
        for (int c = g * w->group; c < (g + 1) * w->group; c++)
            dot += (int32_t)kn_read_code(codes, w->bits, (size_t)c) * x[c];
        kn_group_scale(w, row, g, &scale, &bias);
        total = fmaf(scale, (float)dot * step[g], total);
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
