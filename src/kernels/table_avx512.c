/* table_avx512.c - AVX-512 F, BW, VL, DQ, VNNI and VBMI. */
#include "kernels/quant.h"
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/lanes_avx512.h"

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

/* Up to MATVEC_TOKENS vectors are multiplied one by one in float32; up to STRIP_TOKENS are
 * multiplied with a strip's codes as they lie, more of them share a panel. */
enum { TILE_TOKENS = 6, MATVEC_TOKENS = 2, STRIP_TOKENS = 16 };
#include "kernels/dequant_avx512.h"

#include "kernels/body_matmul.h"

#include "kernels/matvec_avx512.h"

#include "kernels/integer_avx512.h"

#include "kernels/strips_avx512.h"

#include "kernels/strips_x86.h"

#include "kernels/gemm_avx512.h"

static void matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
                   int t0, int t1)
{
    bool whole_lanes = w->format != KN_F8_BLOCK || w->cols % 16 == 0;
    if (kn_is_integer_product(a, w) && w->strips && t1 - t0 <= STRIP_TOKENS) {
        strips_integer(y, y_stride, w, a, row0, row1, t0, t1);
    } else if (kn_is_integer_product(a, w) && t1 - t0 == 1 && !w->strips) {
        matvec_integer(y, y_stride, w, a, row0, row1, t0, t1);
    } else if (kn_is_integer_product(a, w)) {
        gemm_integer(y, y_stride, w, a, row0, row1, t0, t1);
    } else if (t1 - t0 <= MATVEC_TOKENS && whole_lanes) {
        for (int t = t0; t < t1; t++)
            matvec_f32(y + (size_t)t * y_stride, w, a->x + (size_t)t * a->stride, row0, row1);
    } else {
        matmul_f32(y, y_stride, w, a, row0, row1, t0, t1);
    }
}

#define KN_STRIPS true
#define KN_THIS_TABLE kn_table_avx512
#include "kernels/body_table.h"

#endif
