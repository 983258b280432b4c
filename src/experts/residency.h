/* residency.h - which expert is in which slot, and who goes next: the decisions without the bytes.
 *
 * cache.c puts memory and reads behind it; simulate.c replays traces through it. Both therefore
 * count the same hits. Slots are numbered; slots of one size class are interchangeable, so a layer
 * may borrow from the others of its class. Invariants:
 *   - slot_of(layer, expert) == s  <=>  slot s holds (layer, expert); at most one slot an expert;
 *   - a pinned or busy slot is never a victim;
 *   - a layer never falls below top_k slots by lending. */
#ifndef EXPERTS_RESIDENCY_H
#define EXPERTS_RESIDENCY_H

#include "experts/policy.h"

typedef struct xp_residency xp_residency;

typedef struct xp_res_layer {
    int n_experts, top_k;
    int size_class; /* 0.. : layers whose slots have the same size */
    int slots;      /* its share */
} xp_res_layer;

/* lend: shares are only where the sum of a class comes from; false, or lcp: each layer keeps to its
 * own. */
fm_status xp_res_create(const xp_res_layer *layers, int n_layers, xp_policy policy, bool lend,
                        xp_residency **out, fm_error *err);
void xp_res_destroy(xp_residency *r);

int xp_res_slots(const xp_residency *r);
int xp_res_size_class(const xp_residency *r, int slot);

void xp_res_begin_step(xp_residency *r, int tokens, bool prefill);

/* The decisions of one xp_acquire: note the use of n distinct experts, pin them all, evict for the
 * missing ones. slots[i] and hits[i] are filled. False, and nothing pinned or evicted, when the
 * layer cannot hold n at once. */
bool xp_res_acquire(xp_residency *r, int layer, const int *experts, const int *picks, int n,
                    int *slots, bool *hits);
void xp_res_pin(xp_residency *r, int slot);
void xp_res_unpin(xp_residency *r, int slot);

/* A slot for an expert that was only guessed (not pinned, first to go while the guess is open), or
 * -1 when that would cost an expert that is worth as much. */
int xp_res_claim_guess(xp_residency *r, int layer, int expert);

/* Busy: a read is writing into it. */
void xp_res_set_busy(xp_residency *r, int slot, bool busy);

/* Forget what an unpinned slot holds (a failed read, capacity 0). */
void xp_res_drop(xp_residency *r, int slot);

/* Take a slot out of use for good: an empty one, else the cheapest expert's of all layers that keep
 * top_k. -1: none can go. */
int xp_res_retire(xp_residency *r);

int xp_res_slot_of(const xp_residency *r, int layer, int expert); /* -1: not resident */
void xp_res_content(const xp_residency *r, int slot, int *layer, int *expert); /* -1: empty */

/* Note the use of experts without fetching any (a fixed resident set). */
void xp_res_use(xp_residency *r, int layer, const int *experts, const int *picks, int n);

/* A slot for an expert outside xp_res_acquire, not pinned: an empty one or, with evict, that of the
 * cheapest expert if it is worth less. -1: none. */
int xp_res_place(xp_residency *r, int layer, int expert, bool evict);

/* Keep these experts whatever happens: the first of the list, as many as leave top_k slots of the
 * layer's share free. Replaces earlier pins; returns how many are kept. */
int xp_res_keep(xp_residency *r, int layer, const int *experts, int n);
bool xp_res_is_kept(const xp_residency *r, int layer, int expert);

/* Resident experts of the layer, the most worth keeping first: experts[n_experts]; how many. */
int xp_res_rank(const xp_residency *r, int layer, int *experts);
const xp_history *xp_res_history(const xp_residency *r, int layer, int expert);
void xp_res_set_history(xp_residency *r, int layer, int expert, const xp_history *h);
const xp_clock *xp_res_clock(const xp_residency *r);

/* Most experts that xp_res_acquire can hold for a layer at once. */
int xp_res_max_held(const xp_residency *r, int layer);

/* Reorder experts (and their picks, may be NULL) so that resident ones come first, otherwise
 * keeping the order: a caller that works in waves then uses what is there before it can be evicted.
 */
void xp_res_order(const xp_residency *r, int layer, int *experts, int *picks, int n);

#endif
