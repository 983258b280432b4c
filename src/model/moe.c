/* moe.c - the router, the shared expert, and the routed experts as they arrive.
 *
 * The picks of the whole batch are sorted by expert; the distinct experts are asked for in waves
 * that the cache can hold, each next wave before the one at hand is computed. Whatever is ready is
 * computed together in one job; what is missing is waited for last. Every (token, rank) output has
 * a row of its own and they are added in order of rank at the end, so the order of arrival cannot
 * be seen in the result. */
#include "model/product.h"

#include <string.h>

typedef struct moe {
    md_run *r;
    const md_layer *l;
    const md_arch *c;
    int layer, n, k, n_chosen;
    int filled; /* rows of r->outputs that are taken */
    bool shared_done;
    bool skipped; /* a fixed resident set left experts out */
} moe;

/* --- router ----------------------------------------------------------------------------------- */

static void route_token(void *arg, int t, int worker)
{
    const moe *m = arg;
    md_run *r = m->r;
    int e = m->c->n_experts;
    md_route(r->isa, &m->c->router, r->scores + (size_t)t * (size_t)e, m->l->w.vec[MD_ROUTER_BIAS],
             e, m->k, r->private_ + (size_t)worker * r->private_width, r->picks + t * m->k,
             r->weights + t * m->k);
}

/* The router's scores and the shared expert's first half in one job: both read h. */
static void first_products(moe *m)
{
    md_run *r = m->r;
    const md_weights *w = &m->l->w;
    const kn_mat *router = &w->mat[MD_ROUTER], *gate = &w->mat[MD_SHARED_GATE];
    const kn_mat *swtch = &w->mat[MD_SHARED_SWITCH];
    size_t hidden = (size_t)m->c->hidden;
    kn_act act[2];
    int group = md_group_of(router), n = 0, second = 0;
    md_prepare(r, &act[0], 0, r->h, hidden, m->n, (int)hidden, group);
    if (gate->rows && md_group_of(gate) != group) {
        second = 1;
        md_prepare(r, &act[1], 1, r->h, hidden, m->n, (int)hidden, md_group_of(gate));
    }
    md_item items[3];
    items[n++] = (md_item){.w = router,
                           .x = &act[0],
                           .bias = w->bias[MD_ROUTER],
                           .y = r->scores,
                           .y_stride = (size_t)m->c->n_experts,
                           .t1 = m->n};
    if (gate->rows)
        items[n++] = (md_item){.w = gate,
                               .up = &w->mat[MD_SHARED_UP],
                               .x = &act[second],
                               .bias = w->bias[MD_SHARED_GATE],
                               .up_bias = w->bias[MD_SHARED_UP],
                               .y = r->shared_hidden,
                               .scratch = r->shared_scratch,
                               .y_stride = (size_t)m->l->c->shared_width,
                               .t1 = m->n};
    if (swtch->rows)
        items[n++] = (md_item){.w = swtch,
                               .x = &act[md_group_of(swtch) == group ? 0 : second],
                               .bias = w->bias[MD_SHARED_SWITCH],
                               .y = r->shared_switch,
                               .y_stride = (size_t)swtch->rows,
                               .t1 = m->n};
    m->shared_done = !gate->rows;
    md_run_items(r, items, n);
}

static void watch_routes(moe *m)
{
    md_run *r = m->r;
    for (int t = 0; r->watch && t < m->n; t++)
        r->watch(r->watch_arg, m->l->moe_layer, t, r->picks + t * m->k, r->weights + t * m->k,
                 m->k);
}

/* Sort the pairs (token, rank) by expert and list the experts that anybody chose. */
static void collect(moe *m)
{
    md_run *r = m->r;
    int e = m->c->n_experts, pairs = m->n * m->k;
    memset(r->first_of, 0, (size_t)(e + 1) * sizeof *r->first_of);
    for (int i = 0; i < pairs; i++)
        if (r->picks[i] >= 0) r->first_of[r->picks[i] + 1]++;
    m->n_chosen = 0;
    for (int i = 0; i < e; i++) {
        if (r->first_of[i + 1]) {
            r->chosen[m->n_chosen] = i;
            r->chosen_count[m->n_chosen++] = r->first_of[i + 1];
        }
        r->first_of[i + 1] += r->first_of[i];
    }
    for (int i = 0; i < pairs; i++) {
        r->place[i] = -1;
        if (r->picks[i] >= 0) r->order[r->first_of[r->picks[i]]++] = i;
    }
    for (int i = e; i > 0; i--) r->first_of[i] = r->first_of[i - 1];
    r->first_of[0] = 0;
}

/* --- computing -------------------------------------------------------------------------------- */

static md_item shared_down(const moe *m, kn_act *act)
{
    md_run *r = m->r;
    const kn_mat *down = &m->l->w.mat[MD_SHARED_DOWN];
    md_prepare(r, act, 1, r->shared_hidden, (size_t)down->cols, m->n, down->cols,
               md_group_of(down));
    return (md_item){.w = down,
                     .x = act,
                     .bias = m->l->w.bias[MD_SHARED_DOWN],
                     .y = r->shared_out,
                     .y_stride = (size_t)m->c->hidden,
                     .t1 = m->n};
}

static void compute_shared(moe *m)
{
    if (m->shared_done) return;
    kn_act act;
    md_item item = shared_down(m, &act);
    md_run_items(m->r, &item, 1);
    m->shared_done = true;
}

/* Copy the tokens of the ready experts behind each other and give their outputs rows. */
static int gather(moe *m, const xp_ticket *tickets, int n_ready)
{
    md_run *r = m->r;
    size_t hidden = (size_t)m->c->hidden;
    int rows = 0;
    for (int i = 0; i < n_ready; i++) {
        int e = tickets[r->ready[i]].expert;
        for (int p = r->first_of[e]; p < r->first_of[e + 1]; p++, rows++) {
            r->place[r->order[p]] = m->filled + rows;
            if (m->n > 1)
                memcpy(r->gathered + (size_t)rows * hidden,
                       r->h + (size_t)(r->order[p] / m->k) * hidden, hidden * sizeof(float));
        }
    }
    return rows;
}

static const float *bias_of(const moe *m, md_mat which, int expert, int rows)
{
    const float *all = m->l->w.bias[which];
    return all ? all + (size_t)expert * (size_t)rows : NULL;
}

static void expert_items(moe *m, xp_ticket *tickets, int n_ready, const kn_act *x, bool down)
{
    md_run *r = m->r;
    size_t width = (size_t)m->l->c->expert_width, hidden = (size_t)m->c->hidden;
    int row = 0;
    for (int i = 0; i < n_ready; i++) {
        const xp_expert *e = &tickets[r->ready[i]].view;
        int id = tickets[r->ready[i]].expert, count = r->first_of[id + 1] - r->first_of[id];
        md_item *it = &r->items[i];
        *it = (md_item){.x = x, .t0 = row, .t1 = row + count};
        if (down) {
            it->w = &e->m[XP_DOWN];
            it->bias = bias_of(m, MD_EXPERT_DOWN, id, (int)hidden);
            it->y = r->outputs + (size_t)m->filled * hidden;
            it->y_stride = hidden;
        } else {
            it->w = &e->m[XP_GATE];
            it->up = &e->m[XP_UP];
            it->bias = bias_of(m, MD_EXPERT_GATE, id, (int)width);
            it->up_bias = bias_of(m, MD_EXPERT_UP, id, (int)width);
            it->y = r->expert_hidden;
            it->scratch = r->expert_scratch;
            it->y_stride = width;
            if (m->n == 1) { /* every expert reads the same single token */
                it->y += (size_t)row * width;
                it->scratch += (size_t)row * width;
                it->t0 = 0;
                it->t1 = 1;
            }
        }
        row += count;
    }
}

/* --- transposed experts: the same in other jobs --- */

static void activate_row(void *arg, int row, int worker)
{
    (void)worker;
    const moe *m = arg;
    int width = m->l->c->expert_width;
    float *gate = m->r->expert_hidden + (size_t)row * (size_t)width;
    kn_silu_mul(m->r->isa, gate, gate, m->r->expert_scratch + (size_t)row * (size_t)width, width);
}

static void compute_transposed(moe *m, xp_ticket *tickets, int n_ready)
{
    md_run *r = m->r;
    size_t width = (size_t)m->l->c->expert_width, hidden = (size_t)m->c->hidden, row = 0;
    int rows = gather(m, tickets, n_ready), n = 0;
    const float *x = m->n == 1 ? r->h : r->gathered;
    for (int i = 0; i < n_ready; i++) {
        const xp_ticket *e = &tickets[r->ready[i]];
        md_transposed half = {.w = &e->view.m[XP_GATE],
                              .n_out = (int)width,
                              .n = r->first_of[e->expert + 1] - r->first_of[e->expert],
                              .x = m->n == 1 ? x : x + row * hidden,
                              .x_stride = hidden,
                              .y = r->expert_hidden + row * width,
                              .y_stride = width};
        r->transposed[n++] = half;
        half.first = (int)width;
        half.y = r->expert_scratch + row * width;
        r->transposed[n++] = half;
        row += (size_t)half.n;
    }
    md_run_transposed(r, r->transposed, n);
    md_for_tokens(r, activate_row, m, rows, 8 * width);
    for (int i = 0; i < n_ready; i++) {
        md_transposed *down = &r->transposed[i];
        size_t first = (size_t)(r->transposed[2 * i].y - r->expert_hidden) / width;
        *down = (md_transposed){.w = &tickets[r->ready[i]].view.m[XP_DOWN],
                                .n_out = (int)hidden,
                                .n = r->transposed[2 * i].n,
                                .x = r->expert_hidden + first * width,
                                .x_stride = width,
                                .y = r->outputs + ((size_t)m->filled + first) * hidden,
                                .y_stride = hidden};
    }
    md_run_transposed(r, r->transposed, n_ready);
    m->filled += rows;
}

/* All ready experts: gate and up in one job (with the shared expert's second half, if it is still
 * to do), down in another. */
static void compute_ready(moe *m, xp_ticket *tickets, int n_ready)
{
    md_run *r = m->r;
    const xp_expert *first = &tickets[r->ready[0]].view;
    int rows = gather(m, tickets, n_ready), n = n_ready;
    size_t width = (size_t)m->l->c->expert_width, hidden = (size_t)m->c->hidden;
    kn_act act, shared;
    bool one = m->n == 1;
    md_prepare(r, &act, 0, one ? r->h : r->gathered, hidden, one ? 1 : rows, (int)hidden,
               md_group_of(&first->m[XP_GATE]));
    expert_items(m, tickets, n_ready, &act, false);
    if (!m->shared_done) r->items[n++] = shared_down(m, &shared);
    m->shared_done = true;
    md_run_items(r, r->items, n);
    md_prepare(r, &act, 0, r->expert_hidden, width, rows, (int)width,
               md_group_of(&first->m[XP_DOWN]));
    expert_items(m, tickets, n_ready, &act, true);
    md_run_items(r, r->items, n_ready);
    m->filled += rows;
}

/* --- waves ------------------------------------------------------------------------------------ */

static int rows_of(const md_run *r, const xp_ticket *t)
{
    return r->first_of[t->expert + 1] - r->first_of[t->expert];
}

/* Experts that a fixed resident set lacks: count what is lost, and how many will not be handed out
 * at all (skipped, not substituted). */
static int note_missing(moe *m, const xp_ticket *tickets, int n)
{
    md_run *r = m->r;
    int skipped = 0;
    for (int i = 0; i < n; i++) {
        if (!tickets[i].missing) continue;
        int e = tickets[i].expert;
        for (int p = r->first_of[e]; p < r->first_of[e + 1]; p++)
            r->mass.dropped += r->weights[r->order[p]];
        r->mass.dropped_picks += (uint64_t)rows_of(r, &tickets[i]);
        skipped += tickets[i].taken;
    }
    m->skipped |= skipped > 0;
    return skipped;
}

/* Compute a wave of n tickets: what is ready first, as many as fit in one bundle. */
static fm_status compute_wave(moe *m, xp_ticket *tickets, int n, fm_error *err)
{
    md_run *r = m->r;
    int carried = -1; /* handed out, but did not fit any more */
    for (int done = note_missing(m, tickets, n); done < n;) {
        int n_ready = 0, rows = 0;
        while (done + n_ready < n) {
            int i = carried >= 0 ? carried : xp_ready(r->experts, tickets, n);
            carried = -1;
            if (i < 0 && n_ready) break;
            if (i < 0) {
                compute_shared(m);
                fm_status status = xp_wait(r->experts, tickets, n, &i, err);
                if (status) return status;
            }
            if (n_ready && rows + rows_of(r, &tickets[i]) > r->bundle_rows) {
                carried = i;
                break;
            }
            rows += rows_of(r, &tickets[i]);
            r->ready[n_ready++] = i;
        }
        if (m->l->transposed) compute_transposed(m, tickets, n_ready);
        else compute_ready(m, tickets, n_ready);
        done += n_ready;
    }
    return FM_OK;
}

static fm_status acquire(moe *m, int from, int n, xp_ticket *tickets, fm_error *err)
{
    md_run *r = m->r;
    return xp_acquire(r->experts, m->l->moe_layer, r->chosen + from, r->chosen_count + from, n,
                      tickets, err);
}

static int wave_end(const moe *m, int from, int wave)
{
    return from + wave < m->n_chosen ? from + wave : m->n_chosen;
}

static void hint_next(moe *m);

static fm_status compute_experts(moe *m, fm_error *err)
{
    md_run *r = m->r;
    int held = xp_max_held(r->experts, m->l->moe_layer);
    bool one_wave = m->n_chosen <= held, ahead = held >= 2;
    int wave = one_wave ? m->n_chosen : ahead ? held / 2 : 1;
    if (!one_wave) /* what is in memory goes first, before it is evicted */
        xp_order(r->experts, m->l->moe_layer, r->chosen, r->chosen_count, m->n_chosen);
    xp_ticket *now = r->tickets, *next = r->tickets + m->c->n_experts;
    int from = 0, to = wave_end(m, 0, wave);
    fm_status status = acquire(m, 0, to, now, err);
    if (status) return status;
    if (one_wave) hint_next(m);
    for (;;) {
        int next_to = wave_end(m, to, wave);
        bool more = to < m->n_chosen, flying = more && ahead;
        if (flying) status = acquire(m, to, next_to - to, next, err);
        if (status) flying = false;
        else status = compute_wave(m, now, to - from, err);
        xp_release(r->experts, now, to - from);
        if (status && flying) xp_release(r->experts, next, next_to - to);
        if (status || !more) return status;
        if (!flying) status = acquire(m, to, next_to - to, next, err);
        if (status) return status;
        xp_ticket *swap = now;
        now = next;
        next = swap;
        from = to;
        to = next_to;
    }
}

/* --- hints ------------------------------------------------------------------------------------ */

enum { HINT_TOKENS = 4 };

/* What the next MoE layer's router says of this layer's input is a good guess of what it will say
 * of its own. r->y and r->scores are free until the sum. */
static void hint_next(moe *m)
{
    md_run *r = m->r;
    if (m->n > HINT_TOKENS || !xp_wants_hints(r->experts)) return;
    int next = m->layer + 1;
    while (next < m->c->n_layers && !m->c->layer[next].moe) next++;
    if (next == m->c->n_layers) return;
    const md_layer *l = &r->model->layers[next];
    int e = m->c->n_experts, k = l->c->top_k, picks[MD_MAX_TOP_K];
    float weights[MD_MAX_TOP_K];
    md_norm_tokens(r, &l->w, MD_POST_NORM, MD_POST_NORM_BIAS, r->x, r->y);
    md_product p = {&l->w.mat[MD_ROUTER], l->w.bias[MD_ROUTER], r->scores, (size_t)e, false};
    md_products(r, r->y, (size_t)m->c->hidden, m->n, &p, 1);
    for (int t = 0; t < m->n; t++) {
        md_route(r->isa, &m->c->router, r->scores + (size_t)t * (size_t)e, l->w.vec[MD_ROUTER_BIAS],
                 e, k, r->private_, picks, weights);
        xp_hint(r->experts, l->moe_layer, picks, k);
    }
}

/* --- a fixed resident set --------------------------------------------------------------------- */

/* Scale the weights of the experts that were computed so that each token keeps the sum it had. */
static void keep_weight_sum(moe *m)
{
    md_run *r = m->r;
    for (int t = 0; t < m->n; t++) {
        float all = 0, there = 0;
        for (int i = t * m->k; i < (t + 1) * m->k; i++) {
            if (r->picks[i] >= 0) all += r->weights[i];
            if (r->place[i] >= 0) there += r->weights[i];
        }
        if (there == all || there == 0) continue;
        for (int i = t * m->k; i < (t + 1) * m->k; i++) r->weights[i] *= all / there;
    }
}

static void count_mass(const moe *m)
{
    md_run *r = m->r;
    for (int i = 0; i < m->n * m->k; i++)
        if (r->picks[i] >= 0) r->mass.routed += r->weights[i], r->mass.picks++;
}

/* --- the block -------------------------------------------------------------------------------- */

static void add_up(void *arg, int t, int worker)
{
    (void)worker;
    const moe *m = arg;
    md_run *r = m->r;
    int hidden = m->c->hidden;
    float *y = r->y + (size_t)t * (size_t)hidden;
    memset(y, 0, (size_t)hidden * sizeof *y);
    for (int i = t * m->k; i < (t + 1) * m->k; i++)
        if (r->place[i] >= 0)
            kn_axpy(r->isa, y, r->weights[i], r->outputs + (size_t)r->place[i] * (size_t)hidden,
                    hidden);
    if (!m->l->w.mat[MD_SHARED_GATE].rows) return;
    const float *shared = r->shared_out + (size_t)t * (size_t)hidden;
    int rows = m->l->w.mat[MD_SHARED_SWITCH].rows;
    if (rows == 2) { /* softmax of the two */
        float *both = r->shared_switch + 2 * (size_t)t;
        float routed = kn_sigmoidf(both[0] - both[1]);
        kn_scale(r->isa, y, routed, hidden);
        kn_axpy(r->isa, y, 1 - routed, shared, hidden);
    } else kn_axpy(r->isa, y, rows ? kn_sigmoidf(r->shared_switch[t]) : 1, shared, hidden);
}

fm_status md_moe(md_run *r, int layer, fm_error *err)
{
    const md_layer *l = &r->model->layers[layer];
    moe m = {.r = r, .l = l, .c = &r->model->config, .layer = layer, .n = r->n, .k = l->c->top_k};
    first_products(&m);
    md_for_tokens(r, route_token, &m, r->n, 16 * (size_t)m.c->n_experts);
    watch_routes(&m);
    collect(&m);
    count_mass(&m);
    bool wanted = m.n_chosen && !r->router_only;
    fm_status status = wanted ? compute_experts(&m, err) : FM_OK;
    if (status) return status;
    compute_shared(&m);
    if (m.skipped) keep_weight_sum(&m);
    md_for_tokens(r, add_up, &m, r->n, (size_t)(m.k + 1) * (size_t)m.c->hidden);
    return FM_OK;
}
