/* simulate.h - what a policy would have hit on recorded routing: the engine's own residency code
 * (residency.c, policy.c) driven by a trace instead of a model. On the trace that a run recorded it
 * gives that run's counters exactly (prefetch off). */
#ifndef EXPERTS_SIMULATE_H
#define EXPERTS_SIMULATE_H

#include "experts/policy.h"
#include "experts/trace.h"

typedef struct xp_sim_options {
    xp_policy policy;
    int capacity; /* slots a layer, at least the trace's top_k */
    bool lend;    /* layers may borrow from each other, as without --capacity */
} xp_sim_options;

/* Distinct experts asked for a step and layer, split by phase. */
typedef struct xp_sim_result {
    uint64_t hits, misses;               /* all */
    uint64_t decode_hits, decode_misses; /* in steps that are not prefill */
} xp_sim_result;

fm_status xp_simulate(const xp_trace *trace, const xp_sim_options *options, xp_sim_result *out,
                      fm_error *err);

/* The clairvoyant ceiling: each layer evicts what is needed again last. `window`: how many steps
 * ahead it can see (0: all); experts not seen there go in order of last use. It shows how far one
 * would have to look ahead to be that good. */
fm_status xp_simulate_belady(const xp_trace *trace, int capacity, int window, xp_sim_result *out,
                             fm_error *err);

#endif
