/* table_avx2.c - AVX2 with FMA, F16C and BMI2. */
#include "kernels/quant.h"
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/lanes_avx2.h"

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

enum { TILE_TOKENS = 3 };

#include "kernels/dequant_portable.h"

#include "kernels/body_matmul.h"

#include "kernels/body_integer.h"

#define KN_THIS_TABLE kn_table_avx2
#include "kernels/body_table.h"

#endif
