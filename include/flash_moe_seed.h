/* flash_moe_seed.h - the step-by-step operations of mlx-moe ("the seed"), for those who come from
 * it.
 *
 * Most programs need none of this: in exact mode, the default, nothing here changes what a model
 * says, and the cache looks after itself. The seed's predictive mode, which these calls steer,
 * keeps a fixed set of experts and DROPS what is not in it; its output is worse than the model's
 * own and fm_statistics.dropped_mass says by how much. docs/SEED.md maps all of the seed's
 * features.
 *
 *     mlx-moe                                        here
 *     enable_lazy_experts(capacity=0)                fm_options.capacity = 0
 *     enable_lazy_experts(capacity=N)                fm_options.capacity = N (exact, unlike the
 * seed's name) upgrade_to_predictive, upgrade_from_profile    fm_options.mode = "predictive",
 * .profile; or fm_model_fix upgrade_to_predictive_with_pinning             the same with .profile
 * and .pin_threshold upgrade_from_saved_state, save_cache_state     fm_options.cache_dir
 *     reset_to_cached                                fm_model_fix(model, false)
 *     router_only_discovery, router_only_forward     fm_model_discover(..., true, ...)
 *     delta_warmup, fast_delta_warmup                fm_model_delta_warmup
 *     IncrementalDeltaWarmup.step(2)                 fm_model_refresh(model, all, 2)
 *     dynamic_cache_update                           fm_model_refresh(model, 10, 12)
 *     get_fallback_stats, measure_fallback           fm_delta, fm_statistics.dropped_*
 *     get_cache_stats                                fm_statistics.expert_hits, .expert_misses
 *     enable_skip_fallback                           fm_options.on_miss = "skip" (works here)
 *     select_capacity                                fm_select_capacity
 *     compute_adaptive_allocations                   fm_allocate_slots
 *     adaptive_capacity_upgrade                      fm_allocate_slots_by_seen; lending does it
 * live generate, stream_generate, Session             flash_generate, fm_session_generate,
 * fm_session
 *
 * All calls want a model on which no session is generating (FM_E_BUSY otherwise). They are errors
 * on models without routed experts. Errors and threads as in flash_moe.h. */
#ifndef FLASH_MOE_SEED_H
#define FLASH_MOE_SEED_H

#include "flash_moe.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Computes `text` and `tokens` greedy tokens after it and adds to counts[moe_layers][experts] how
 * often the router picked each expert. router_only: without any routed expert, fast, roughly right.
 * No conversation remains. */
fm_status fm_model_discover(fm_model *model, const char *text, int tokens, bool router_only,
                            uint64_t *counts, fm_error *err);

/* true: the experts in memory become a fixed set (slots left empty are filled first); from now on
 * output is LOSSY. false: exact again. */
fm_status fm_model_fix(fm_model *model, bool fixed, fm_error *err);

typedef struct fm_delta {
    double discovery_s, total_s;
    uint64_t requests, misses; /* distinct experts a step and layer since the last refresh */
    int swaps, layers;         /* experts read in; layers that got some */
} fm_delta;

/* Find what `text` misses in the fixed set, by computing it and 10 tokens after it with that set,
 * and swap it in: at most swaps_a_layer in at most max_layers layers (0: no limit), the most wanted
 * first. Pinned experts stay. */
fm_status fm_model_delta_warmup(fm_model *model, const char *text, int swaps_a_layer,
                                int max_layers, fm_delta *out, fm_error *err);

/* Swap in what was missed since the last call. out may be NULL. */
fm_status fm_model_refresh(fm_model *model, int swaps_a_layer, int max_layers, fm_delta *out,
                           fm_error *err);

/* Experts a layer for 0.71 of working_gb (1e9 bytes) after base_gb of other weights, slot_mb one
 * expert: the seed's formula, 0..512. The planner's own choice (capacity -1) is the better one. */
int fm_select_capacity(double base_gb, double working_gb, int moe_layers, double slot_mb);

/* Its first version: for 0.53 of the machine's memory. */
int fm_select_capacity_by_ram(double base_gb, double ram_gb, int moe_layers, double slot_mb);

/* The 85 % guard: capacity, or the multiple of 8 that keeps active_gb and slots under 0.85 ram_gb.
 */
int fm_guard_capacity(int capacity, double active_gb, double ram_gb, int moe_layers,
                      double slot_mb);

/* Divide `budget` slots over layers, at least `least` each, from use counts[layers][experts] as
 * fm_model_discover makes them; slots[layers] and miss_rate[layers] are filled. */
fm_status fm_allocate_slots(const uint64_t *counts, int layers, int experts, int budget, int least,
                            int *slots, double *miss_rate, fm_error *err);

/* The same from how many experts each layer has used: 1.3 x seen, scaled to the budget. */
void fm_allocate_slots_by_seen(const int *seen, int layers, int experts, int budget, int least,
                               int *slots);

#ifdef __cplusplus
}
#endif
#endif
