#include "experts/simulate.h"

#include "base/mem.h"
#include "experts/residency.h"

#include <limits.h>
#include <string.h>

/* The distinct experts of a step and layer in rising order with their picks, as the model asks. */
static int collect(const xp_trace *t, const xp_trace_step *step, int layer, int *counts,
                   int *experts, int *picks)
{
    memset(counts, 0, (size_t)t->n_experts * sizeof *counts);
    for (int token = step->first; token < step->first + step->n; token++) {
        const int32_t *p = xp_trace_picks(t, token, layer);
        for (int i = 0; i < t->top_k; i++)
            if (p[i] >= 0) counts[p[i]]++;
    }
    int n = 0;
    for (int e = 0; e < t->n_experts; e++) {
        if (!counts[e]) continue;
        experts[n] = e;
        picks[n++] = counts[e];
    }
    return n;
}

static void count(xp_sim_result *out, bool prefill, bool hit)
{
    *(hit ? &out->hits : &out->misses) += 1;
    if (!prefill) *(hit ? &out->decode_hits : &out->decode_misses) += 1;
}

/* --- the engine's policies
 * ------------------------------------------------------------------------ */

typedef struct run {
    const xp_trace *trace;
    xp_residency *r;
    int *counts, *experts, *picks; /* [n_experts] */
    int *slots;                    /* [2][n_experts] of this wave and the next */
    bool *hits;
    xp_sim_result *out;
} run;

static bool acquire(run *s, int layer, int from, int n, int *slots, bool prefill)
{
    if (!xp_res_acquire(s->r, layer, s->experts + from, s->picks + from, n, slots, s->hits))
        return false;
    for (int i = 0; i < n; i++) count(s->out, prefill, s->hits[i]);
    return true;
}

static void release(run *s, const int *slots, int n)
{
    for (int i = 0; i < n; i++) xp_res_unpin(s->r, slots[i]);
}

/* One layer of one step, in the waves of the model: while one is computed the next is held too. */
static bool use_layer(run *s, const xp_trace_step *step, int layer)
{
    int n = collect(s->trace, step, layer, s->counts, s->experts, s->picks);
    int held = xp_res_max_held(s->r, layer);
    int wave = n <= held ? n : held >= 2 ? held / 2 : 1;
    bool ahead = held >= 2;
    if (n > held) xp_res_order(s->r, layer, s->experts, s->picks, n);
    int *now = s->slots, *next = s->slots + s->trace->n_experts;
    for (int from = 0; from < n; from += wave) {
        int here = n - from < wave ? n - from : wave, left = n - from - here;
        if ((from == 0 || !ahead) && !acquire(s, layer, from, here, now, step->prefill))
            return false;
        int after = left < wave ? left : wave;
        if (ahead && after && !acquire(s, layer, from + here, after, next, step->prefill))
            return false;
        release(s, now, here);
        int *swap = now;
        now = next;
        next = swap;
    }
    return true;
}

static fm_status run_trace(run *s, fm_error *err)
{
    for (int i = 0; i < s->trace->n_steps; i++) {
        const xp_trace_step *step = &s->trace->steps[i];
        xp_res_begin_step(s->r, step->n, step->prefill);
        for (int l = 0; l < s->trace->n_layers; l++)
            if (!use_layer(s, step, l))
                return fm_fail(err, FM_E_BUDGET, "too few slots for step %d, layer %d", i, l);
    }
    return FM_OK;
}

static fm_status create(const xp_trace *t, const xp_sim_options *o, xp_residency **out,
                        fm_error *err)
{
    if (o->capacity < t->top_k)
        return fm_fail(err, FM_E_BUDGET, "capacity %d is below the %d experts of a token",
                       o->capacity, t->top_k);
    xp_res_layer *layers = bs_calloc((size_t)t->n_layers, sizeof *layers);
    if (!layers) return fm_fail_nomem(err, "simulation");
    for (int l = 0; l < t->n_layers; l++)
        layers[l] =
            (xp_res_layer){.n_experts = t->n_experts,
                           .top_k = t->top_k,
                           .slots = o->capacity < t->n_experts ? o->capacity : t->n_experts};
    fm_status status = xp_res_create(layers, t->n_layers, o->policy, o->lend, out, err);
    bs_free(layers);
    return status;
}

fm_status xp_simulate(const xp_trace *t, const xp_sim_options *o, xp_sim_result *out, fm_error *err)
{
    *out = (xp_sim_result){0};
    run s = {.trace = t, .out = out};
    fm_status status = create(t, o, &s.r, err);
    if (status) return status;
    size_t n = (size_t)t->n_experts;
    s.counts = bs_calloc(5 * n, sizeof *s.counts);
    s.hits = bs_calloc(n, sizeof *s.hits);
    if (s.counts && s.hits) {
        s.experts = s.counts + n;
        s.picks = s.experts + n;
        s.slots = s.picks + n;
        status = run_trace(&s, err);
    } else {
        status = fm_fail_nomem(err, "simulation");
    }
    bs_free(s.counts);
    bs_free(s.hits);
    xp_res_destroy(s.r);
    return status;
}

/* --- Belady
 * ----------------------------------------------------------------------------------------- */

typedef struct belady {
    const xp_trace *trace;
    int capacity, window;
    int *next_use; /* [n_steps][n_experts] of the layer at hand: first step >= this one */
    int *counts, *experts, *picks;
    int *last_use; /* [n_experts] */
    bool *resident, *wanted;
    int n_resident;
} belady;

static void find_next_uses(belady *b, int layer)
{
    int n = b->trace->n_experts, steps = b->trace->n_steps;
    for (int e = 0; e < n; e++) b->next_use[(size_t)steps * n + e] = INT_MAX;
    for (int i = steps - 1; i >= 0; i--) {
        int *row = b->next_use + (size_t)i * (size_t)n;
        memcpy(row, row + n, (size_t)n * sizeof *row);
        int m = collect(b->trace, &b->trace->steps[i], layer, b->counts, b->experts, b->picks);
        for (int j = 0; j < m; j++) row[b->experts[j]] = i;
    }
}

/* Worse means better to evict: needed later, or, beyond the window, idle for longer. */
static bool is_worse(const belady *b, int step, int e, int than)
{
    const int *next = b->next_use + (size_t)(step + 1) * (size_t)b->trace->n_experts;
    int horizon = b->window ? step + b->window : INT_MAX - 1;
    bool unseen = next[e] > horizon, than_unseen = next[than] > horizon;
    if (unseen != than_unseen) return unseen;
    return unseen ? b->last_use[e] < b->last_use[than] : next[e] > next[than];
}

static void evict_one(belady *b, int step)
{
    int victim = -1;
    for (int e = 0; e < b->trace->n_experts; e++)
        if (b->resident[e] && !b->wanted[e] && (victim < 0 || is_worse(b, step, e, victim)))
            victim = e;
    if (victim < 0) return; /* a prompt wants more than fits: it streams through */
    b->resident[victim] = false;
    b->n_resident--;
}

static void belady_step(belady *b, int layer, int step, xp_sim_result *out)
{
    const xp_trace_step *s = &b->trace->steps[step];
    int n = collect(b->trace, s, layer, b->counts, b->experts, b->picks);
    memset(b->wanted, 0, (size_t)b->trace->n_experts * sizeof *b->wanted);
    for (int i = 0; i < n; i++) {
        count(out, s->prefill, b->resident[b->experts[i]]);
        b->wanted[b->experts[i]] = n <= b->capacity;
        b->last_use[b->experts[i]] = step;
    }
    for (int i = 0; i < n; i++) {
        if (b->resident[b->experts[i]]) continue;
        b->resident[b->experts[i]] = true;
        b->n_resident++;
        if (b->n_resident > b->capacity) evict_one(b, step);
    }
}

static void belady_layers(belady *b, xp_sim_result *out)
{
    for (int l = 0; l < b->trace->n_layers; l++) {
        find_next_uses(b, l);
        memset(b->resident, 0, (size_t)b->trace->n_experts * sizeof *b->resident);
        b->n_resident = 0;
        for (int e = 0; e < b->trace->n_experts; e++) b->last_use[e] = -1;
        for (int i = 0; i < b->trace->n_steps; i++) belady_step(b, l, i, out);
    }
}

fm_status xp_simulate_belady(const xp_trace *t, int capacity, int window, xp_sim_result *out,
                             fm_error *err)
{
    *out = (xp_sim_result){0};
    size_t n = (size_t)t->n_experts;
    belady b = {.trace = t, .capacity = capacity, .window = window};
    b.next_use = bs_calloc(((size_t)t->n_steps + 1) * n, sizeof *b.next_use);
    b.counts = bs_calloc(4 * n, sizeof *b.counts);
    b.resident = bs_calloc(2 * n, sizeof *b.resident);
    fm_status status = FM_OK;
    if (b.next_use && b.counts && b.resident) {
        b.experts = b.counts + n;
        b.picks = b.experts + n;
        b.last_use = b.picks + n;
        b.wanted = b.resident + n;
        belady_layers(&b, out);
    } else {
        status = fm_fail_nomem(err, "simulation");
    }
    bs_free(b.next_use);
    bs_free(b.counts);
    bs_free(b.resident);
    return status;
}
