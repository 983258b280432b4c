/* table_avx2vnni.c - AVX2 and AVX-VNNI, which CPUs without AVX-512 have today. */
#include "kernels/quant.h"
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/lanes_avx2.h"

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

enum { TILE_TOKENS = 3 };

#include "kernels/dequant_avx2.h"

#include "kernels/body_matmul.h"

#include "kernels/codes_avx2.h"

#include "kernels/bytes_avx2vnni.h"

#include "kernels/integer_avx2.h"

#include "kernels/panel_avx2.h"

#include "kernels/group_dots_avx2vnni.h"

#include "kernels/strips_avx2.h"

#include "kernels/strips_x86.h"

#include "kernels/gemm_panel_avx2.h"

#include "kernels/gemm_avx2.h"

/* Up to so many vectors, codes are multiplied as they lie; more of them share a panel. */
enum { MATVEC_TOKENS = 2, STRIP_TOKENS = 16 };

static void matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
                   int t0, int t1)
{
    if (!kn_is_integer_product(a, w)) matmul_f32(y, y_stride, w, a, row0, row1, t0, t1);
    else if (w->strips && t1 - t0 <= STRIP_TOKENS)
        strips_integer(y, y_stride, w, a, row0, row1, t0, t1);
    else if (w->strips || t1 - t0 > MATVEC_TOKENS)
        gemm_integer(y, y_stride, w, a, row0, row1, t0, t1);
    else matvec_integer(y, y_stride, w, a, row0, row1, t0, t1);
}

#define KN_STRIPS true
#define KN_THIS_TABLE kn_table_avx2vnni
#include "kernels/body_table.h"

#endif
