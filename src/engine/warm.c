#include "engine/warm.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/internal.h"
#include "engine/seed_rules.h"
#include "experts/fixed.h"
#include "experts/profile.h"

#include <string.h>
#include <unistd.h>

enum {
    DISCOVERY_TOKENS = 10, /* the seed's */
    WARM_TOKENS = 10,      /* computed exactly (full) or with a refresh after each (hybrid) */
    SWAPS = 10,            /* a layer and refresh */
    INCREMENTAL_LAYERS = 2,
    REFRESH_LAYERS = 12,
    ALL_LAYERS = 1 << 20,
};

struct en_warm {
    xp_profile *profile;
    char *state_path; /* saved state; NULL without --cache-dir */
    char *model_id;
    int *layer_ids; /* [n_moe_layers] numbers in the transformer */
    int n_layers, n_experts;
    bool filled;     /* something said which experts are wanted */
    bool warmed;     /* predictive: the first request has come */
    int tokens_left; /* of the warmup at hand */
    int swap_passes; /* passes left of the incremental delta warmup */
    int since_refresh;
    /* --refresh -1: what the seed's server decided from */
    int tokens, no_swap_streak, low_streak;
    double miss_rate;
};

fm_status en_warm_check(const en_options *o, fm_error *err)
{
    if (o->mode == EN_EXACT) {
        const char *idle = o->refresh                    ? "--refresh"
                           : o->warmup != EN_WARMUP_NONE ? "--warmup"
                           : o->hold                     ? "--hold"
                                                         : NULL;
        if (idle)
            return fm_fail(err, FM_E_ARGUMENT,
                           "%s acts in predictive mode only; exact mode reads what it needs", idle);
    }
    if (o->mode == EN_PREDICTIVE && o->keep_prefixes)
        return fm_fail(err, FM_E_ARGUMENT,
                       "predictive mode cannot reuse prefixes: they depend on what was resident");
    if (o->mode == EN_PREDICTIVE && o->capacity == 0)
        return fm_fail(err, FM_E_ARGUMENT, "predictive mode needs a capacity above 0");
    if (o->mode == EN_PREDICTIVE && o->parallel > 1)
        return fm_fail(err, FM_E_ARGUMENT, "predictive mode answers one request at a time");
    if (!o->profile && (o->pin_top_k >= 0 || o->pin_threshold >= 0))
        return fm_fail(err, FM_E_ARGUMENT, "pins come from a profile: give --profile FILE as well");
    return FM_OK;
}

/* --- opening ------------------------------------------------------------------------------------
 */

static fm_status create(en_engine *e, fm_error *err)
{
    const md_info *info = md_describe(e->model);
    en_warm *w = e->warm = bs_calloc(1, sizeof *w);
    if (!w) return fm_fail_nomem(err, "opening a model");
    w->n_layers = info->n_moe_layers;
    w->n_experts = info->n_experts;
    w->layer_ids = bs_calloc((size_t)w->n_layers, sizeof *w->layer_ids);
    if (!w->layer_ids) return fm_fail_nomem(err, "opening a model");
    for (int i = 0; i < w->n_layers; i++) w->layer_ids[i] = md_moe_layer(e->model, i);
    return FM_OK;
}

/* The pins of one layer, best first, into ids; how many. */
static int pins_of(const en_engine *e, int layer, int *ids, unsigned char *pinned)
{
    const en_options *o = &e->options;
    const en_warm *w = e->warm;
    double threshold = o->pin_threshold >= 0 ? o->pin_threshold : w->profile->threshold;
    if (!xp_profile_pins(w->profile, layer, threshold, o->pin_top_k, pinned)) return 0;
    int used = xp_profile_rank(w->profile, layer, false, ids), n = 0;
    for (int i = 0; i < used; i++)
        if (pinned[ids[i]]) ids[n++] = ids[i];
    return n;
}

static fm_status pin(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    int *ids = bs_calloc((size_t)w->n_experts, sizeof *ids);
    unsigned char *pinned = bs_calloc((size_t)w->n_experts, 1);
    fm_status status = ids && pinned ? FM_OK : fm_fail_nomem(err, "pinning experts");
    int asked = 0, kept = 0;
    for (int l = 0; l < w->n_layers && !status; l++) {
        int n = pins_of(e, l, ids, pinned), k = xp_pin(e->experts, l, ids, n);
        asked += n;
        kept += k;
        status = xp_preload(e->experts, l, ids, k, err);
    }
    if (kept < asked)
        bs_buf_printf(&e->notes, "%d of %d pins kept: each layer needs free slots for a token%c",
                      kept, asked, 0);
    bs_free(ids);
    bs_free(pinned);
    return status;
}

/* The profile's order fills what pins and a saved state left empty. */
static fm_status fill_from_profile(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    int *ids = bs_calloc((size_t)w->n_experts, sizeof *ids);
    fm_status status = ids ? FM_OK : fm_fail_nomem(err, "reading a profile");
    for (int l = 0; l < w->n_layers && !status; l++) {
        int used = xp_profile_rank(w->profile, l, true, ids);
        status = xp_preload(e->experts, l, ids, used, err);
        w->filled |= used > 0;
    }
    bs_free(ids);
    return status;
}

/* DIR/<folder's name>-<identity>.json, so that models do not overwrite each other's. */
static fm_status find_state(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    const char *folder = e->options.model;
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && folder[from - 1] != '/') from--;
    fm_status status = bs_make_dirs(e->options.cache_dir, err);
    if (!status) status = xp_source_id(md_expert_source(e->model), &w->model_id, err);
    if (status) return status;
    w->state_path = bs_sprintf("%s/%.*s-%s.json", e->options.cache_dir, (int)(n - from),
                               folder + from, w->model_id);
    return w->state_path ? FM_OK : fm_fail_nomem(err, "opening a model");
}

/* A file that does not fit is named in a note and replaced at the end; it is never half used. */
static fm_status enter_state(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    fm_status status = find_state(e, err);
    if (status || access(w->state_path, F_OK)) return status;
    xp_saved *saved = NULL;
    fm_error why;
    status = xp_saved_read(w->state_path, w->model_id, w->n_experts, w->n_layers, w->layer_ids,
                           &saved, &why);
    if (status == FM_E_STALE || status == FM_E_FORMAT) {
        bs_buf_printf(&e->notes, "saved state not used: %s%c", why.message, 0);
        return FM_OK;
    }
    if (status) {
        if (err) *err = why;
        return status;
    }
    for (int l = 0; l < w->n_layers && !status; l++)
        status = xp_import(e->experts, l, &saved->layers[l], err);
    w->filled = true;
    xp_saved_free(saved);
    return status;
}

fm_status en_warm_open(en_engine *e, fm_error *err)
{
    const en_options *o = &e->options;
    if (!e->experts) {
        if (o->mode == EN_EXACT && !o->profile && !o->cache_dir) return FM_OK;
        return fm_fail(err, FM_E_ARGUMENT,
                       "this model has no routed experts: --mode, --profile and "
                       "--cache-dir have nothing to act on");
    }
    fm_status status = create(e, err);
    en_warm *w = e->warm;
    if (!status && o->profile)
        status =
            xp_profile_read(o->profile, w->n_experts, w->n_layers, w->layer_ids, &w->profile, err);
    if (!status && w->profile) status = pin(e, err);
    if (!status && o->cache_dir) status = enter_state(e, err);
    if (!status && w->profile) status = fill_from_profile(e, err);
    return status;
}

static void save_state(en_engine *e)
{
    en_warm *w = e->warm;
    xp_saved *s = NULL;
    if (xp_saved_create(w->model_id, "", w->n_experts, w->n_layers, w->layer_ids, &s, NULL)) return;
    s->capacity = e->options.capacity > 0 ? e->options.capacity : 0;
    for (int l = 0; l < w->n_layers; l++) xp_export(e->experts, l, &s->layers[l]);
    xp_saved_write(s, w->state_path, NULL); /* a state lost costs a cold start, no more */
    xp_saved_free(s);
}

void en_warm_close(en_engine *e)
{
    en_warm *w = e->warm;
    if (!w) return;
    if (w->state_path && e->totals.steps) save_state(e);
    xp_profile_free(w->profile);
    bs_free(w->state_path);
    bs_free(w->model_id);
    bs_free(w->layer_ids);
    bs_free(w);
}

/* --- discovery ----------------------------------------------------------------------------------
 */

typedef struct counting {
    uint64_t *counts;
    int n_experts;
} counting;

static void count_route(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    (void)token, (void)weights;
    counting *c = arg;
    for (int i = 0; i < top_k; i++)
        if (experts[i] >= 0) c->counts[(size_t)layer * (size_t)c->n_experts + (size_t)experts[i]]++;
}

static int32_t greedy(const float *logits, int vocab)
{
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static fm_status feed(en_engine *e, md_state *state, const int32_t *ids, int n_ids, int tokens,
                      fm_error *err)
{
    fm_status status = FM_OK;
    for (int at = 0; at < n_ids && !status;) {
        int n = n_ids - at < e->plan.max_tokens ? n_ids - at : e->plan.max_tokens;
        for (int i = 0; i < n; i++)
            e->batch[i] = (md_token){ids[at + i], state, at + i + 1 == n_ids};
        status = md_forward(e->run, e->batch, n, true, e->logits, err);
        at += n;
    }
    int room = e->plan.context - n_ids;
    for (int i = 0; i < tokens && i < room && !status; i++) {
        e->batch[0] = (md_token){greedy(e->logits, md_describe(e->model)->vocab), state, true};
        status = md_forward(e->run, e->batch, 1, false, e->logits, err);
    }
    return status;
}

/* Feed a prompt and `tokens` greedy tokens through the slot's empty state, watching the router,
 * then empty it again. counts may be NULL. */
static fm_status discover(en_engine *e, en_slot *slot, const int32_t *ids, int n, int tokens,
                          bool router_only, uint64_t *counts, fm_error *err)
{
    counting count = {counts, md_describe(e->model)->n_experts};
    fm_status status = counts ? en_watch_routes(e, count_route, &count, err) : FM_OK;
    if (status) return status;
    md_run_router_only(e->run, router_only);
    status = feed(e, slot->state, ids, n, tokens, err);
    md_run_router_only(e->run, false);
    if (counts) en_unwatch_routes(e, count_route, &count);
    en_clear_slot(e, slot);
    return status;
}

/* --- the predictive mode ------------------------------------------------------------------------
 */

typedef struct ranked {
    uint64_t count;
    int id;
} ranked;

static int falling(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return x->id - y->id;
}

/* Slots filled by falling count; what nobody asked for follows by id (the seed's fillers). */
static fm_status fill_by_counts(en_engine *e, const uint64_t *counts, fm_error *err)
{
    en_warm *w = e->warm;
    ranked *r = bs_calloc((size_t)w->n_experts, sizeof *r);
    int *ids = bs_calloc((size_t)w->n_experts, sizeof *ids);
    fm_status status = r && ids ? FM_OK : fm_fail_nomem(err, "warming up");
    for (int l = 0; l < w->n_layers && !status; l++) {
        for (int i = 0; i < w->n_experts; i++)
            r[i] = (ranked){counts ? counts[(size_t)l * (size_t)w->n_experts + (size_t)i] : 0, i};
        qsort(r, (size_t)w->n_experts, sizeof *r, falling);
        for (int i = 0; i < w->n_experts; i++) ids[i] = r[i].id;
        status = xp_preload(e->experts, l, ids, w->n_experts, err);
    }
    bs_free(r);
    bs_free(ids);
    return status;
}

/* From now on the set is fixed; slots that nothing was known for hold the seed's fillers. */
static fm_status fix(en_engine *e, fm_error *err)
{
    xp_fixed how = e->options.on_miss == EN_MISS_SKIP ? XP_FIXED_SKIP : XP_FIXED_SUBSTITUTE;
    fm_status status = fill_by_counts(e, NULL, err);
    if (!status) status = xp_preload_finish(e->experts, err);
    return status ? status : xp_set_fixed(e->experts, how, err);
}

static fm_status fill_by_router(en_engine *e, en_choice *c, fm_error *err)
{
    en_warm *w = e->warm;
    uint64_t *counts = bs_calloc((size_t)w->n_layers * (size_t)w->n_experts, sizeof *counts);
    if (!counts) return fm_fail_nomem(err, "warming up");
    const en_request *r = &c->request->set;
    fm_status status =
        discover(e, c->slot, r->prompt, r->n_prompt, DISCOVERY_TOKENS, true, counts, err);
    if (!status) status = fill_by_counts(e, counts, err);
    bs_free(counts);
    return status;
}

static fm_status first_warmup(en_engine *e, en_choice *c, fm_error *err)
{
    en_warm *w = e->warm;
    fm_status status = FM_OK;
    w->warmed = true;
    w->miss_rate = 1; /* the seed begins as if all had been missed */
    switch (e->options.warmup) {
    case EN_WARMUP_FULL: /* exact for a while; fixed when tokens_left is used up */
        w->tokens_left = WARM_TOKENS;
        return FM_OK;
    case EN_WARMUP_HYBRID: w->tokens_left = WARM_TOKENS; /* fall through */
    case EN_WARMUP_ROUTER: status = fill_by_router(e, c, err); break;
    case EN_WARMUP_NONE: /* what profile or state have asked for */ break;
    }
    return status ? status : fix(e, err);
}

/* A later prompt: find what it misses in the present set and swap it in before it is computed. */
static fm_status delta_warmup(en_engine *e, en_choice *c, fm_error *err)
{
    en_warm *w = e->warm;
    if (w->tokens_left) { /* the first answer was shorter than its warmup */
        w->tokens_left = 0;
        fm_status status = fix(e, err);
        if (status) return status;
    }
    if (e->options.hold) return FM_OK; /* incremental instead, while the answer is held */
    const en_request *r = &c->request->set;
    fm_status status =
        discover(e, c->slot, r->prompt, r->n_prompt, DISCOVERY_TOKENS, false, NULL, err);
    return status ? status : xp_refresh(e->experts, SWAPS, ALL_LAYERS, NULL, err);
}

fm_status en_warm_admit(en_engine *e, en_choice *c, fm_error *err)
{
    en_warm *w = e->warm;
    if (!w || e->options.mode == EN_EXACT || c->slot->history.n) return FM_OK;
    fm_status status = w->warmed ? delta_warmup(e, c, err) : first_warmup(e, c, err);
    bool fixed = e->options.warmup != EN_WARMUP_FULL || w->tokens_left == 0;
    if (!status && e->options.hold && fixed) {
        c->holding = true;
        w->swap_passes = (w->n_layers + INCREMENTAL_LAYERS - 1) / INCREMENTAL_LAYERS;
    }
    return status;
}

/* Prompt and answer are computed anew: what was held leaves no trace in state or context. */
static fm_status let_go(en_engine *e, en_choice *c, fm_error *err)
{
    c->holding = false;
    en_clear_slot(e, c->slot);
    c->fed = 0;
    c->held.length = 0;
    c->stats.tokens = 0;
    c->phase = EN_PROMPT;
    return en_prepare_choice(e, c, err);
}

static fm_status swap_some_layers(en_engine *e, en_choice *c, fm_error *err)
{
    xp_refresh_stats done;
    fm_status status = xp_refresh(e->experts, e->warm->n_experts, INCREMENTAL_LAYERS, &done, err);
    if (status) return status;
    if (--e->warm->swap_passes > 0 && done.swaps) return FM_OK;
    return let_go(e, c, err);
}

/* The seed's server: how often and how much follows from the last window's miss rate. */
static fm_status refresh_by_policy(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    en_refresh r = en_refresh_policy(++w->tokens, w->miss_rate, w->no_swap_streak, w->low_streak);
    if (w->tokens % r.interval) return FM_OK;
    xp_refresh_stats done;
    fm_status status = xp_refresh(e->experts, SWAPS, r.layers, &done, err);
    if (status) return status;
    w->miss_rate = done.requests ? (double)done.misses / (double)done.requests : 0;
    w->no_swap_streak = done.swaps ? 0 : w->no_swap_streak + 1;
    w->low_streak = w->miss_rate <= 0.005 ? w->low_streak + 1 : 0;
    return FM_OK;
}

static fm_status refresh_now(en_engine *e, int layers, fm_error *err)
{
    e->warm->since_refresh = 0;
    return xp_refresh(e->experts, SWAPS, layers, NULL, err);
}

fm_status en_warm_step(en_engine *e, fm_error *err)
{
    en_warm *w = e->warm;
    if (!w || e->options.mode == EN_EXACT) return FM_OK;
    en_choice *c = e->active;
    while (c && c->phase != EN_ANSWER) c = c->next_choice;
    if (!c) return FM_OK;
    if (c->holding) return swap_some_layers(e, c, err);
    if (w->tokens_left > 0) {
        w->tokens_left--;
        if (e->options.warmup == EN_WARMUP_HYBRID) return refresh_now(e, ALL_LAYERS, err);
        return w->tokens_left ? FM_OK : fix(e, err);
    }
    if (e->options.refresh < 0) return refresh_by_policy(e, err);
    if (!e->options.refresh || ++w->since_refresh < e->options.refresh) return FM_OK;
    return refresh_now(e, REFRESH_LAYERS, err);
}

/* --- step by step -------------------------------------------------------------------------------
 */

static fm_status check_idle(en_engine *e, const int32_t *ids, int n, fm_error *err)
{
    if (!e->warm) return fm_fail(err, FM_E_ARGUMENT, "this model has no routed experts");
    en_stats stats;
    en_get_stats(e, &stats);
    if (stats.active || stats.waiting)
        return fm_fail(err, FM_E_BUSY, "the engine is answering %d requests", stats.active);
    if (n < 1 || n > e->plan.context)
        return fm_fail(err, FM_E_LIMIT, "%d tokens, the context holds %d", n, e->plan.context);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= md_describe(e->model)->vocab)
            return fm_fail(err, FM_E_ARGUMENT, "token %d is no token of the vocabulary",
                           (int)ids[i]);
    return FM_OK;
}

fm_status en_count_experts(en_engine *e, const int32_t *ids, int n, int tokens, bool router_only,
                           uint64_t *counts, fm_error *err)
{
    fm_status status = check_idle(e, ids, n, err);
    if (status) return status;
    en_clear_slot(e, &e->slots[0]);
    return discover(e, &e->slots[0], ids, n, tokens, router_only, counts, err);
}

fm_status en_fix_experts(en_engine *e, bool fixed, fm_error *err)
{
    static const int32_t any = 0;
    fm_status status = check_idle(e, &any, 1, err);
    if (status) return status;
    e->warm->warmed = true;
    e->warm->tokens_left = 0;
    en_forget_prefixes(e, 0, true); /* they were computed with another set */
    pthread_mutex_lock(&e->lock);   /* en_get_stats names it */
    e->options.mode = fixed ? EN_PREDICTIVE : EN_EXACT;
    pthread_mutex_unlock(&e->lock);
    return fixed ? fix(e, err) : xp_set_fixed(e->experts, XP_FIXED_OFF, err);
}

fm_status en_delta_warmup(en_engine *e, const int32_t *ids, int n, const en_delta *how,
                          en_delta_stats *out, fm_error *err)
{
    fm_status status = check_idle(e, ids, n, err);
    if (!status && e->options.mode != EN_PREDICTIVE)
        status =
            fm_fail(err, FM_E_ARGUMENT, "a delta warmup changes a fixed set; exact mode has none");
    if (status) return status;
    *out = (en_delta_stats){0};
    double start = bs_now();
    en_clear_slot(e, &e->slots[0]);
    status = discover(e, &e->slots[0], ids, n, how->tokens, false, NULL, err);
    out->discovery_s = bs_now() - start;
    xp_refresh_stats swapped = {0};
    if (!status) status = xp_refresh(e->experts, how->swaps_a_layer, how->layers, &swapped, err);
    out->total_s = bs_now() - start;
    out->requests = swapped.requests;
    out->misses = swapped.misses;
    out->swaps = swapped.swaps;
    out->layers = swapped.layers;
    return status;
}

fm_status en_refresh_experts(en_engine *e, int swaps_a_layer, int layers, en_delta_stats *out,
                             fm_error *err)
{
    static const int32_t any = 0;
    fm_status status = check_idle(e, &any, 1, err);
    xp_refresh_stats swapped = {0};
    double start = bs_now();
    if (!status) status = xp_refresh(e->experts, swaps_a_layer, layers, &swapped, err);
    *out = (en_delta_stats){.total_s = bs_now() - start,
                            .requests = swapped.requests,
                            .misses = swapped.misses,
                            .swaps = swapped.swaps,
                            .layers = swapped.layers};
    return status;
}
