/* allocate.h - how many slots each layer gets when layers differ in what they use. */
#ifndef EXPERTS_ALLOCATE_H
#define EXPERTS_ALLOCATE_H

#include "base/error.h"

#include <stdint.h>

/* counts[l][e] (n_layers x n_experts, row-major): how often expert e of layer l was used. Divide
 * `budget` slots, at least `least` and at most n_experts a layer, so that the expected misses fall:
 * start even, then move one slot at a time from the layer that loses least to the one that gains
 * most (the seed's compute_adaptive_allocations). slots[n_layers] and miss_rate[n_layers] are
 * filled; *moves (may be NULL) counts the slots moved. */
fm_status xp_allocate(const uint64_t *counts, int n_layers, int n_experts, int budget, int least,
                      int *slots, double *miss_rate, int *moves, fm_error *err);

/* The seed's adaptive_capacity_upgrade: 1.3 x the experts seen a layer, at least `least`, scaled to
 * the budget and clamped to n_experts. */
void xp_allocate_by_seen(const int *seen, int n_layers, int n_experts, int budget, int least,
                         int *slots);

#endif
