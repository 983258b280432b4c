/* fill.c - reading ahead of all demand into empty slots, pins, and the way out of and into a saved
 * state. */
#include "experts/cache.h"

#include "base/mem.h"

#include <string.h>

static bool grow(xp_fill_list *list, int more)
{
    if (list->n + more <= list->capacity) return true;
    int capacity = 2 * (list->n + more);
    int *experts = bs_realloc(list->experts, (size_t)capacity, sizeof *experts);
    if (!experts) return false;
    list->experts = experts;
    list->capacity = capacity;
    return true;
}

fm_status xp_preload(xp_cache *c, int layer, const int *experts, int n, fm_error *err)
{
    xp_fills *f = &c->fills;
    if (c->lazy) return FM_OK; /* nothing stays */
    if (!f->lists) f->lists = bs_calloc((size_t)c->source.n_layers, sizeof *f->lists);
    if (!f->lists || !grow(&f->lists[layer], n)) return fm_fail_nomem(err, "preloading experts");
    xp_fill_list *list = &f->lists[layer];
    for (int i = 0; i < n; i++) list->experts[list->n++] = experts[i];
    f->left += n;
    return FM_OK;
}

int xp_preload_pending(const xp_cache *c)
{
    return c->fills.left + c->fills.n_flying;
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

/* The next expert of the nearest layer ahead that still wants some. */
static int take_next(xp_fills *f, int layer, int n_layers, int *expert)
{
    while (f->lists[layer].next == f->lists[layer].n) layer = (layer + 1) % n_layers;
    xp_fill_list *list = &f->lists[layer];
    *expert = list->experts[list->next++];
    if (list->next == list->n) list->next = list->n = 0;
    f->left--;
    return layer;
}

void xp_fill_step(xp_cache *c, int next_layer)
{
    xp_fills *f = &c->fills;
    forget_finished(c);
    while (f->n_flying < XP_MAX_FILLS && f->left) {
        int expert, layer = take_next(f, next_layer, c->source.n_layers, &expert);
        int s = xp_res_place(c->residency, layer, expert, false);
        if (s < 0) continue; /* there already, or the layer is full */
        xp_read_into(c, s, layer, expert, true);
        c->slots[s].guess = false; /* meant to stay */
        f->flying[f->n_flying++] = s;
    }
    xp_reader_poll(c->reader);
}

/* A failed preload is not an error of the model: the slot is given back, and demand would meet the
 * same read again and report it. Here it is reported, since the caller waits for all. */
fm_status xp_preload_finish(xp_cache *c, fm_error *err)
{
    xp_fills *f = &c->fills;
    fm_status status = FM_OK;
    while (xp_preload_pending(c)) {
        xp_fill_step(c, 0);
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
    for (int l = 0; c->fills.lists && l < c->source.n_layers; l++)
        bs_free(c->fills.lists[l].experts);
    bs_free(c->fills.lists);
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
