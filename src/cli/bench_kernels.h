/* bench_kernels.h - `bench --kernels`: how fast the arithmetic is on this machine. */
#ifndef CLI_BENCH_KERNELS_H
#define CLI_BENCH_KERNELS_H

#include "kernels/kernels.h"

#include <stdbool.h>

/* Measure every kernel at expert shapes and print a table, or (to stdout) one JSON object:
 * {"read_gb_s","isa","threads","decode":[{"kernel","rows","cols","precision","gb_s","of_read"}],
 *  "prefill":[{...,"tokens","gflop_s"}]}. A product of one vector is given in bytes of weights a
 * second and as a fraction of the streaming read rate, measured in turn with it; a product of many
 * in floating point operations. `only`
 * limits it to kernels whose name holds that text (NULL: all). Returns the exit status. */
int bench_kernels(kn_isa isa, int threads, const char *only, bool json);

#endif
