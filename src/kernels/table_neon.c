/* table_neon.c - aarch64 Advanced SIMD. */
#include "kernels/quant.h"
#include "kernels/table.h"

#if defined(__aarch64__)

#include "kernels/lanes_neon.h"

#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#endif

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

enum { TILE_TOKENS = 4 };

#include "kernels/dequant_neon.h"

#include "kernels/body_matmul.h"

#include "kernels/integer_neon.h"

#define KN_STRIPS true
#define KN_THIS_TABLE kn_table_neon
#include "kernels/body_table.h"

#endif
