/* quant.h - inside the room: weights as float32, and the layout of prepared activations. */
#ifndef KERNELS_QUANT_H
#define KERNELS_QUANT_H

#include "kernels/kernels.h"

/* Columns that share a scale; 0 for plain floats. */
int kn_group_of(const kn_mat *m);

/* Scale and bias of group g of a row (1 and 0 where the format has none). */
void kn_group_scale(const kn_mat *m, int row, int g, float *scale, float *bias);

/* How far ahead of a product memory is fetched, in bytes of codes and of scales. */
enum { KN_STRIP_AHEAD = 4096, KN_STRIP_SCALES_AHEAD = 1024 };

/* Bytes of a scale. */
static inline size_t kn_float_bytes(kn_format type)
{
    return type == KN_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* n rows of a matrix in strips, from `row` on, as rows again. */
enum { KN_STRIP_ROW_BYTES = 8192, KN_STRIP_SCALE_BYTES = 2048 }; /* of a row at most */
typedef struct kn_strip_rows {
    unsigned char codes[KN_STRIP_ROWS * KN_STRIP_ROW_BYTES];
    unsigned char scales[KN_STRIP_ROWS * KN_STRIP_SCALE_BYTES];
    unsigned char biases[KN_STRIP_ROWS * KN_STRIP_SCALE_BYTES];
} kn_strip_rows;
kn_mat kn_rows_of_strip(const kn_mat *m, int row, int n, kn_strip_rows *to);

/* Columns [c0, c1) of one row as float32, out[c1 - c0]. */
void kn_dequant_span(const kn_mat *m, int row, int c0, int c1, float *out);

/* --- prepared activations (KN_PRECISION_FAST) ---
 *
 * A group of x becomes 16-bit integers: step = max|x| / KN_ACT_MAX, X = rint(x / step) = 256 h + m
 * with signed bytes h and m, so that every ISA finds a multiplication it has. sum(q X) of a group,
 * q the codes of the weights, fits 32 bits at every width: integers add up to the same in any
 * order, and it is rounded once. One token's record, every part 64-byte aligned:
 *
 *     float step[groups]   one integer is worth this much; NaN when x is not finite
 *     float sum[groups]    step * sum(X): what a bias is multiplied with
 *     codes                arranged as the instruction set likes, columns padded to 128 */
enum { KN_ACT_MAX = 127 * 256 };

typedef struct kn_act_layout {
    size_t sum, codes, bytes; /* offsets within a record; bytes: distance to the next record */
    int groups, padded_cols;
} kn_act_layout;

kn_act_layout kn_act_layout_of(const kn_act *a);

/* Does the product of w and a go through integers? If not: float32, whatever the precision. */
bool kn_is_integer_product(const kn_act *a, const kn_mat *w);

#endif
