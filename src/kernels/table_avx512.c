/* table_avx512.c - AVX-512 F, BW, VL, DQ, VNNI and VBMI. */
#include "kernels/quant.h"
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/lanes_avx512.h"

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

enum { TILE_TOKENS = 6 };
#define dequant_span kn_dequant_span
#include "kernels/body_matmul.h"

#include "kernels/body_integer.h"

#define KN_THIS_TABLE kn_table_avx512
#include "kernels/body_table.h"

#endif
