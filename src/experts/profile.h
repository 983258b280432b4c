/* profile.h - which experts a set of prompts used: the seed's JSON profile, with honest counts.
 *
 * File (UTF-8 JSON, indent 2), readable by and from mlx-moe:
 *   model, num_prompts, threshold, capacity, num_experts, moe_layers, prompt_preset, mix,
 *   layers: {"<layer>": {universal: [ids], activation_counts: {"<id>": prompts}, total_unique: n,
 *            token_counts: {"<id>": picks}}}
 * activation_counts says how many PROMPTS touched an expert at least once, as in the seed;
 * token_counts (ours; absent in the seed's files) how many routed picks it got. Layers are keyed by
 * their number in the transformer, dense layers counted. Only num_prompts and activation_counts
 * are needed to load; `universal` is always recomputed. */
#ifndef EXPERTS_PROFILE_H
#define EXPERTS_PROFILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct xp_profile_layer {
    int layer;         /* number in the transformer */
    uint32_t *prompts; /* [n_experts] prompts that touched the expert */
    uint64_t *tokens;  /* [n_experts] routed picks; all 0 in a seed file */
} xp_profile_layer;

typedef struct xp_profile {
    char *model, *preset;
    int n_prompts, n_experts, n_layers;
    int capacity; /* the seed's field; 0 when unknown */
    double threshold;
    xp_profile_layer *layers; /* in order of layer */
} xp_profile;

/* An empty profile for n_layers MoE layers; layer_ids are their numbers in the transformer. */
fm_status xp_profile_create(const char *model, int n_experts, int n_layers, const int *layer_ids,
                            xp_profile **out, fm_error *err);
void xp_profile_free(xp_profile *profile);

/* n_experts: how many the model has; an id outside 0..n_experts-1 is FM_E_STALE with the file's
 * name (the profile of another model), as is a layer the model does not have. layer_ids as above.
 */
fm_status xp_profile_read(const char *path, int n_experts, int n_layers, const int *layer_ids,
                          xp_profile **out, fm_error *err);
fm_status xp_profile_write(const xp_profile *profile, const char *path, fm_error *err);

/* Experts of MoE layer i (0-based here) by falling count, ties by rising id: ids[n_experts].
 * Returns how many have a count above 0; the rest follow by id. Token counts decide when there are
 * any, prompt counts otherwise, as in the seed. */
int xp_profile_rank(const xp_profile *profile, int i, bool by_tokens, int *ids);

/* Pins of a layer into pinned[n_experts] (0/1), how many as result. top_k >= 0: the top_k most
 * counted (0: none); top_k < 0: all with count >= (int)(threshold * n_prompts). Experts that no
 * prompt touched are never pinned. */
int xp_profile_pins(const xp_profile *profile, int i, double threshold, int top_k,
                    unsigned char *pinned);

#endif
