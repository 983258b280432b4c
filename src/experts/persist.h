/* persist.h - what an expert cache had learned, on disk: which experts were resident, in order of
 * worth, with the policy's counts. A start that reads it fills the slots before they are asked for.
 *
 * JSON, the seed's layout with our version and a model identity:
 *   {version: 2, model_id, capacity, timestamp, metadata: {prompt, capacity}, layers: {"<layer>":
 *    {cached_ids: [best first], frequency: {"id": n}, last_active: {"id": step}, step, all_seen,
 *     pinned_set}}}
 * The seed's own version 1 names no model and has lost its ranking; it is refused by name. A file
 * is validated whole before anything uses it. Written by temp + fsync + rename. */
#ifndef EXPERTS_PERSIST_H
#define EXPERTS_PERSIST_H

#include "experts/experts.h"

#include <stdint.h>

typedef struct xp_saved_layer {
    int layer; /* number in the transformer */
    int n_cached;
    int *cached;           /* [n_cached] distinct expert ids, the most worth keeping first */
    double *frequency;     /* [n_experts] the policy's (decayed) counts */
    uint64_t *last_active; /* [n_experts] step of the last use; 0: never */
    unsigned char *pinned; /* [n_experts] */
    uint64_t step;
} xp_saved_layer;

typedef struct xp_saved {
    char *model_id; /* identity of the checkpoint, as the pack's manifest has it */
    char *prompt;   /* what the state was learned on; "" when unknown */
    int capacity;   /* slots a layer; 0 when layers differ */
    int n_experts, n_layers;
    xp_saved_layer *layers;
} xp_saved;

/* A short name for exactly these files (names, sizes, times, headers): what packs and saved states
 * are bound to. The caller frees *out with bs_free. */
fm_status xp_source_id(const xp_source *source, char **out, fm_error *err);

fm_status xp_saved_create(const char *model_id, const char *prompt, int n_experts, int n_layers,
                          const int *layer_ids, xp_saved **out, fm_error *err);
void xp_saved_free(xp_saved *saved);

fm_status xp_saved_write(const xp_saved *saved, const char *path, fm_error *err);

/* FM_E_STALE when the file belongs to another model or version: the message says which. */
fm_status xp_saved_read(const char *path, const char *model_id, int n_experts, int n_layers,
                        const int *layer_ids, xp_saved **out, fm_error *err);

#endif
