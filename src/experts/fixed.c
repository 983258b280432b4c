/* fixed.c - the seed's predictive mode: a resident set that the forward pass does not change, and
 * its refresh between tokens. LOSSY by nature, so every miss is counted, always. */
#include "experts/cache.h"

#include "base/mem.h"

#include <string.h>

static bool prepare(xp_cache *c)
{
    xp_wanted *w = &c->wanted;
    if (w->picks) return true;
    for (int l = 0; l < c->source.n_layers; l++)
        if (c->source.layers[l].n_experts > w->most) w->most = c->source.layers[l].n_experts;
    w->picks = bs_calloc((size_t)c->source.n_layers * (size_t)w->most, sizeof *w->picks);
    w->stand_in = bs_calloc((size_t)c->source.n_layers, sizeof *w->stand_in);
    w->rank = bs_calloc((size_t)w->most, sizeof *w->rank);
    return w->picks && w->stand_in && w->rank;
}

static uint32_t *picks_of(const xp_cache *c, int layer)
{
    return c->wanted.picks + (size_t)layer * (size_t)c->wanted.most;
}

/* The seed shows slot 0's expert for a missing one: its best-ranked. */
static void choose_stand_ins(xp_cache *c)
{
    for (int l = 0; l < c->source.n_layers; l++) {
        int n = xp_res_rank(c->residency, l, c->wanted.rank);
        c->wanted.stand_in[l] = n ? c->wanted.rank[0] : -1;
    }
}

fm_status xp_set_fixed(xp_cache *c, xp_fixed fixed, fm_error *err)
{
    if (fixed && c->lazy)
        return fm_fail(err, FM_E_ARGUMENT, "a fixed resident set needs a capacity above 0");
    if (fixed && !prepare(c)) {
        xp_fixed_close(c);
        return fm_fail_nomem(err, "fixing the resident set");
    }
    c->wanted.fixed = fixed;
    if (fixed) choose_stand_ins(c);
    return FM_OK;
}

void xp_fixed_close(xp_cache *c)
{
    bs_free(c->wanted.picks);
    bs_free(c->wanted.stand_in);
    bs_free(c->wanted.rank);
    c->wanted = (xp_wanted){0};
}

static int resident_slot(xp_cache *c, int layer, int expert)
{
    int s = expert < 0 ? -1 : xp_res_slot_of(c->residency, layer, expert);
    if (s < 0) return -1;
    xp_settle(c, s);
    return c->slots[s].loaded ? s : -1;
}

void xp_acquire_fixed(xp_cache *c, int layer, const int *experts, const int *picks, int n,
                      xp_ticket *tickets)
{
    xp_wanted *w = &c->wanted;
    xp_res_use(c->residency, layer, experts, picks, n);
    w->requests += (uint64_t)n;
    for (int i = 0; i < n; i++) {
        int s = resident_slot(c, layer, experts[i]);
        tickets[i] = (xp_ticket){.layer = layer, .expert = experts[i], .slot = s, .hit = s >= 0};
        if (s >= 0) {
            c->stats.hits++;
        } else {
            c->stats.misses++;
            w->misses++;
            picks_of(c, layer)[experts[i]] += picks ? (uint32_t)picks[i] : 1;
            if (w->fixed == XP_FIXED_SUBSTITUTE) s = resident_slot(c, layer, w->stand_in[layer]);
            tickets[i].missing = true;
            tickets[i].slot = s;
            tickets[i].taken = s < 0; /* nothing to hand out */
        }
        if (s >= 0) xp_res_pin(c->residency, s);
    }
}

/* --- refresh
 * -------------------------------------------------------------------------------------- */

static uint64_t misses_of(const xp_cache *c, int layer)
{
    uint64_t sum = 0;
    for (int e = 0; e < c->source.layers[layer].n_experts; e++) sum += picks_of(c, layer)[e];
    return sum;
}

static int most_wanted(const xp_cache *c, int layer)
{
    int best = -1;
    const uint32_t *picks = picks_of(c, layer);
    for (int e = 0; e < c->source.layers[layer].n_experts; e++)
        if (picks[e] && (best < 0 || picks[e] > picks[best])) best = e;
    return best;
}

/* Up to `most` swaps in one layer; the reads fly together, then all are awaited. */
static fm_status refresh_layer(xp_cache *c, int layer, int most, int *swaps, fm_error *err)
{
    int slots[XP_MAX_JOBS], n = 0;
    fm_status status = FM_OK;
    for (int e; n < most && n < XP_MAX_JOBS && (e = most_wanted(c, layer)) >= 0;) {
        int s = xp_res_place(c->residency, layer, e, true);
        if (s < 0) break; /* all that is left is wanted more, or pinned */
        picks_of(c, layer)[e] = 0;
        xp_read_into(c, s, layer, e, false);
        slots[n++] = s;
    }
    for (int i = 0; i < n; i++) {
        xp_job *job = c->slots[slots[i]].job;
        if (job) xp_reader_wait(c->reader, job);
        if (job && atomic_load(&job->state) == XP_JOB_FAILED && !status)
            status = fm_fail(err, job->error.code, "%s", job->error.message);
        xp_settle(c, slots[i]);
        if (c->slots[slots[i]].loaded) *swaps += 1;
        else xp_res_drop(c->residency, slots[i]);
    }
    return status;
}

fm_status xp_refresh(xp_cache *c, int swaps_a_layer, int max_layers, xp_refresh_stats *out,
                     fm_error *err)
{
    xp_refresh_stats done = {.requests = c->wanted.requests, .misses = c->wanted.misses};
    fm_status status = FM_OK;
    int tried = 0;
    bool *seen = c->wanted.fixed ? bs_calloc((size_t)c->source.n_layers, sizeof *seen) : NULL;
    if (!seen)
        return c->wanted.fixed ? fm_fail_nomem(err, "refreshing the resident set")
                               : fm_fail(err, FM_E_ARGUMENT, "the resident set is not fixed");
    while (!status && tried < max_layers) {
        int best = -1;
        uint64_t most = 0;
        for (int l = 0; l < c->source.n_layers; l++) {
            uint64_t misses = seen[l] ? 0 : misses_of(c, l);
            if (misses > most) most = misses, best = l;
        }
        if (best < 0) break;
        int swaps = 0;
        seen[best] = true;
        status = refresh_layer(c, best, swaps_a_layer, &swaps, err);
        done.swaps += swaps;
        done.layers += swaps > 0;
        tried += swaps > 0; /* a layer without a swap uses no budget */
    }
    bs_free(seen);
    choose_stand_ins(c);
    c->wanted.requests = c->wanted.misses = 0;
    if (out) *out = done;
    return status;
}
