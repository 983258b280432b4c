/* fixed.h - what a cache does besides answering demand: filling slots ahead of it, keeping chosen
 * experts, leaving and entering with what it had learned, and the seed's fixed resident set.
 *
 * The fixed set is the one LOSSY thing of this room. It exists because the seed's predictive mode
 * does; it is off unless xp_set_fixed says otherwise, and what it drops is counted. All calls come
 * from the thread that owns the cache. */
#ifndef EXPERTS_FIXED_H
#define EXPERTS_FIXED_H

#include "experts/experts.h"
#include "experts/persist.h"

/* --- filling and keeping ---------------------------------------------------------------------- */

/* Ask that these experts be read into empty slots, the first ones first, when no demand waits;
 * those of the layer that is computed next before those of others, so that what is read is of use
 * soon. Never evicts. Reads go on from step to step; xp_preload_finish waits for all. */
fm_status xp_preload(xp_cache *cache, int layer, const int *experts, int n, fm_error *err);
fm_status xp_preload_finish(xp_cache *cache, fm_error *err);
int xp_preload_pending(const xp_cache *cache);

/* Never evict these experts of a layer (universal experts of a profile): the first of the list, as
 * many as leave top_k slots free. Replaces the layer's earlier pins. Returns how many are kept. */
int xp_pin(xp_cache *cache, int layer, const int *experts, int n);
bool xp_is_pinned(const xp_cache *cache, int layer, int expert);

/* --- leaving and entering -----------------------------------------------------------------------
 */

void xp_export(const xp_cache *cache, int layer, xp_saved_layer *out);

/* Counts and pins enter at once; the experts are preloaded, best first. */
fm_status xp_import(xp_cache *cache, int layer, const xp_saved_layer *saved, fm_error *err);

/* --- the seed's fixed set -----------------------------------------------------------------------
 */

typedef enum xp_fixed {
    XP_FIXED_OFF,        /* exact: a missing expert is read */
    XP_FIXED_SKIP,       /* its ticket is `missing` and is never handed out */
    XP_FIXED_SUBSTITUTE, /* its ticket is `missing` and shows the layer's best resident expert */
} xp_fixed;

fm_status xp_set_fixed(xp_cache *cache, xp_fixed fixed, fm_error *err);

/* Distinct experts asked for and not resident since the last xp_refresh, while the set is fixed. */
typedef struct xp_refresh_stats {
    uint64_t requests, misses;
    int swaps, layers; /* experts read in by xp_refresh, and layers that got some */
} xp_refresh_stats;

/* Read the most wanted missing experts in, for cheaper ones that are neither pinned nor wanted
 * more: at most swaps_a_layer in at most max_layers layers, those with the most misses first. What
 * was not read stays wanted. Between tokens only: nothing may be held. */
fm_status xp_refresh(xp_cache *cache, int swaps_a_layer, int max_layers, xp_refresh_stats *out,
                     fm_error *err);

#endif
