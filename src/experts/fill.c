/* fill.c - reading ahead of all demand into empty slots, pins, and the way out of and into a saved
 * state. */
#include "experts/cache.h"

#include "base/mem.h"

#include <string.h>

static bool grow(xp_fills *f, int more)
{
    if (f->n + more <= f->capacity) return true;
    int capacity = 2 * (f->n + more);
    xp_fill *queue = bs_realloc(f->queue, (size_t)capacity, sizeof *queue);
    if (!queue) return false;
    f->queue = queue;
    f->capacity = capacity;
    return true;
}

fm_status xp_preload(xp_cache *c, int layer, const int *experts, int n, fm_error *err)
{
    xp_fills *f = &c->fills;
    if (c->lazy) return FM_OK; /* nothing stays */
    if (!grow(f, n)) return fm_fail_nomem(err, "preloading experts");
    for (int i = 0; i < n; i++) f->queue[f->n++] = (xp_fill){layer, experts[i]};
    return FM_OK;
}

int xp_preload_pending(const xp_cache *c)
{
    return c->fills.n - c->fills.next + c->fills.n_flying;
}

static void forget_finished(xp_cache *c)
{
    xp_fills *f = &c->fills;
    int flying = 0;
    for (int i = 0; i < f->n_flying; i++) {
        xp_settle(c, f->flying[i]);
        if (c->slots[f->flying[i]].job) f->flying[flying++] = f->flying[i];
    }
    f->n_flying = flying;
}

void xp_fill_step(xp_cache *c)
{
    xp_fills *f = &c->fills;
    forget_finished(c);
    while (f->n_flying < XP_MAX_FILLS && f->next < f->n) {
        xp_fill want = f->queue[f->next++];
        int s = xp_res_place(c->residency, want.layer, want.expert, false);
        if (s < 0) continue; /* there already, or the layer is full */
        xp_read_into(c, s, want.layer, want.expert, true);
        c->slots[s].guess = false; /* meant to stay */
        f->flying[f->n_flying++] = s;
    }
    if (f->next == f->n) f->next = f->n = 0;
}

/* A failed preload is not an error of the model: the slot is given back, and demand would meet the
 * same read again and report it. Here it is reported, since the caller waits for all. */
fm_status xp_preload_finish(xp_cache *c, fm_error *err)
{
    xp_fills *f = &c->fills;
    fm_status status = FM_OK;
    while (xp_preload_pending(c)) {
        xp_fill_step(c);
        for (int i = 0; i < f->n_flying; i++) {
            int s = f->flying[i], layer, expert;
            xp_job *job = c->slots[s].job;
            if (job) xp_reader_wait(c->reader, job);
            if (job && atomic_load(&job->state) == XP_JOB_FAILED && !status) {
                xp_res_content(c->residency, s, &layer, &expert);
                status = fm_fail(err, job->error.code, "expert %d of MoE layer %d: %s", expert,
                                 layer, job->error.message);
            }
            xp_settle(c, s);
            if (!c->slots[s].loaded) xp_res_drop(c->residency, s);
        }
        f->n_flying = 0;
    }
    return status;
}

void xp_fill_close(xp_cache *c)
{
    bs_free(c->fills.queue);
}

int xp_pin(xp_cache *c, int layer, const int *experts, int n)
{
    return c->lazy ? 0 : xp_res_keep(c->residency, layer, experts, n);
}

bool xp_is_pinned(const xp_cache *c, int layer, int expert)
{
    return xp_res_is_kept(c->residency, layer, expert);
}

void xp_export(const xp_cache *c, int layer, xp_saved_layer *out)
{
    const xp_clock *clock = xp_res_clock(c->residency);
    out->step = clock->steps;
    out->n_cached = xp_res_rank(c->residency, layer, out->cached);
    for (int e = 0; e < c->source.layers[layer].n_experts; e++) {
        const xp_history *h = xp_res_history(c->residency, layer, e);
        out->frequency[e] = xp_policy_count(c->options.policy, clock, h);
        out->last_active[e] = h->last;
        out->pinned[e] = xp_res_is_kept(c->residency, layer, e);
    }
}

fm_status xp_import(xp_cache *c, int layer, const xp_saved_layer *saved, fm_error *err)
{
    const xp_clock *clock = xp_res_clock(c->residency);
    for (int e = 0; e < c->source.layers[layer].n_experts; e++) {
        if (!saved->last_active[e]) continue;
        xp_history h = xp_policy_restore(c->options.policy, clock, saved->frequency[e],
                                         saved->step - saved->last_active[e]);
        xp_res_set_history(c->residency, layer, e, &h);
    }
    return xp_preload(c, layer, saved->cached, saved->n_cached, err);
}
