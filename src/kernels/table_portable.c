/* table_portable.c - the reference: every function in plain C. */
#include "kernels/table.h"
#include "kernels/quant.h"

#include "kernels/lanes_portable.h"

#include "kernels/body_math.h"
#include "kernels/body_vector.h"

#include "kernels/body_attention.h"
#include "kernels/body_recurrence.h"

enum { TILE_TOKENS = 2 };

#include "kernels/dequant_portable.h"

#include "kernels/body_matmul.h"

#include "kernels/body_integer.h"

#define KN_STRIPS false
#define KN_THIS_TABLE kn_table_portable
#include "kernels/body_table.h"
