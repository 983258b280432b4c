/* run.c - the scratch memory of a forward pass: taken once, so that a step allocates nothing. */
#include "model/product.h"

#include "base/mem.h"

#include <stdint.h>
#include <string.h>

/* A bump allocator that is run twice: over NULL to learn the size, then over the memory. */
typedef struct bump {
    unsigned char *base;
    size_t used;
} bump;

static void *take(bump *b, size_t count, size_t size)
{
    size_t at = b->used;
    b->used = (at + count * size + 63) & ~(size_t)63;
    return b->base ? b->base + at : NULL;
}

static float *floats(bump *b, size_t rows, size_t width)
{
    return take(b, rows * width, sizeof(float));
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

typedef struct sizes {
    size_t n, hidden, experts, top_k, expert_width, shared_width, act_cols;
    bool shares_kv, transposed;
} sizes;

static sizes sizes_of(const md_model *m, int max_tokens)
{
    const md_arch *c = &m->config;
    sizes s = {.n = (size_t)max_tokens, .hidden = (size_t)c->hidden};
    s.experts = (size_t)c->n_experts;
    s.act_cols = s.hidden;
    for (int n = 0; n < c->n_layers; n++) {
        const md_layer_config *l = &c->layer[n];
        s.top_k = most(s.top_k, (size_t)l->top_k);
        s.expert_width = most(s.expert_width, (size_t)l->expert_width);
        s.shared_width = most(s.shared_width, (size_t)l->shared_width);
        s.act_cols = most(s.act_cols, (size_t)l->dense_width);
        s.shares_kv |= l->kv_from != n;
        s.transposed |= m->layers[n].transposed;
        for (int p = 0; p < MD_N_MATS; p++)
            s.act_cols = most(s.act_cols, (size_t)m->layers[n].w.mat[p].cols);
    }
    s.act_cols = most(most(s.act_cols, s.expert_width), s.shared_width);
    s.act_cols =
        most(s.act_cols, (size_t)c->n_heads * (size_t)most((size_t)c->head_dim, (size_t)c->v_dim));
    s.act_cols = most(s.act_cols, (size_t)c->dn_v_heads * (size_t)c->dn_v_dim);
    s.act_cols = most(s.act_cols, most((size_t)c->ssm_inner, (size_t)c->q_lora));
    return s;
}

static size_t work_width(const md_arch *c)
{
    size_t width = 0;
    for (int n = 0; n < c->n_layers; n++) {
        width = most(width, 2 * (size_t)c->layer[n].dense_width);
        switch (c->layer[n].mixer) {
        case MD_ATTENTION: width = most(width, md_attention_work(c)); break;
        case MD_MLA: width = most(width, md_mla_work(c)); break;
        case MD_DELTANET: width = most(width, md_deltanet_work(c)); break;
        case MD_MAMBA1:
        case MD_MAMBA2: width = most(width, md_mamba_work(c)); break;
        }
    }
    return (width + 15) & ~(size_t)15;
}

static size_t private_width(const md_arch *c)
{
    size_t width = most(2 * (size_t)c->n_experts, 2 * (size_t)c->dn_k_dim);
    if (c->kv_lora) width = most(width, md_mla_private(c));
    return (width + 31) & ~(size_t)15;
}

static void lay_out_experts(md_run *r, bump *b, const sizes *s)
{
    size_t pairs = s->n * s->top_k, rows = (size_t)r->bundle_rows;
    r->scores = floats(b, s->n, s->experts);
    r->picks = take(b, pairs, sizeof(int));
    r->weights = floats(b, pairs, 1);
    r->place = take(b, pairs, sizeof(int));
    r->order = take(b, pairs, sizeof(int));
    r->first_of = take(b, s->experts + 1, sizeof(int));
    r->chosen = take(b, s->experts, sizeof(int));
    r->chosen_count = take(b, s->experts, sizeof(int));
    r->ready = take(b, s->experts, sizeof(int));
    r->tickets = take(b, 2 * s->experts, sizeof(xp_ticket));
    r->transposed = take(b, s->transposed ? 2 * s->experts : 0, sizeof *r->transposed);
    r->gathered = floats(b, rows, s->hidden);
    r->expert_hidden = floats(b, rows, s->expert_width);
    r->expert_scratch = floats(b, rows, s->expert_width);
    r->outputs = floats(b, pairs, s->hidden);
    r->shared_hidden = floats(b, s->n, s->shared_width);
    r->shared_scratch = floats(b, s->n, s->shared_width);
    r->shared_switch = floats(b, s->n, 2);
    r->shared_out = floats(b, s->n, s->shared_width ? s->hidden : 0);
}

/* How many (token, expert) pairs are computed in one job: at least what one expert can get. */
static int bundle_rows(const sizes *s)
{
    size_t pairs = s->n * s->top_k, least = s->n > 256 ? s->n : 256;
    return (int)(pairs < least ? pairs : least);
}

static size_t lay_out(md_run *r, unsigned char *base)
{
    const md_arch *c = &r->model->config;
    bump b = {.base = base};
    sizes s = sizes_of(r->model, r->max_tokens);
    size_t half = (size_t)c->rope.dims / 2;
    r->bundle_rows = bundle_rows(&s);
    r->max_items = (int)s.experts + MD_MAX_PRODUCTS;
    r->work_width = work_width(c);
    r->private_width = private_width(c);
    size_t act_rows = most(s.n, (size_t)r->bundle_rows);
    r->act_bytes = (kn_act_bytes((int)act_rows, (int)s.act_cols) + 127) & ~(size_t)63;
    r->segments = take(&b, s.n, sizeof *r->segments);
    r->position = take(&b, s.n, sizeof(int));
    r->segment_of = take(&b, s.n, sizeof(int));
    r->cos = floats(&b, s.n, half);
    r->sin = floats(&b, s.n, half);
    r->x = floats(&b, s.n, s.hidden);
    r->h = floats(&b, s.n, s.hidden);
    r->y = floats(&b, s.n, s.hidden);
    if (s.shares_kv)
        r->kv_shared = floats(&b, s.n, 2 * (size_t)c->n_kv_heads * (size_t)c->head_dim);
    r->work = floats(&b, s.n, r->work_width);
    r->private_ = floats(&b, (size_t)r->threads, r->private_width);
    r->act = take(&b, 2, r->act_bytes);
    r->items = take(&b, (size_t)r->max_items, sizeof *r->items);
    if (s.experts) lay_out_experts(r, &b, &s);
    return b.used;
}

uint64_t md_run_bytes(const md_model *model, int max_tokens, int max_logits)
{
    md_run r = {.model = model, .max_tokens = max_tokens, .max_logits = max_logits, .threads = 64};
    return lay_out(&r, NULL);
}

fm_status md_run_create(const md_model *model, xp_cache *experts, bs_pool *pool, int max_tokens,
                        int max_logits, md_run **out, fm_error *err)
{
    *out = NULL;
    if (max_tokens < 1 || max_logits < 0)
        return fm_fail(err, FM_E_ARGUMENT, "batches of %d tokens: must be at least 1", max_tokens);
    md_run *r = bs_calloc(1, sizeof *r);
    if (!r) return fm_fail_nomem(err, "preparing a forward pass");
    r->model = model;
    r->experts = experts;
    r->pool = pool;
    r->isa = model->options.isa;
    r->max_tokens = max_tokens;
    r->max_logits = max_logits;
    r->threads = bs_pool_threads(pool);
    r->bytes = lay_out(r, NULL);
    r->memory = bs_pages_alloc(r->bytes);
    if (!r->memory) {
        bs_free(r);
        return fm_fail_nomem(err, "preparing a forward pass");
    }
    lay_out(r, r->memory);
    *out = r;
    return FM_OK;
}

void md_run_destroy(md_run *run)
{
    if (!run) return;
    bs_pages_free(run->memory, run->bytes);
    bs_free(run);
}

void md_run_router_only(md_run *run, bool on)
{
    run->router_only = on;
}

void md_run_mass(const md_run *run, md_mass *out)
{
    *out = run->mass;
}

void md_run_watch_routes(md_run *run, md_route_fn *fn, void *arg)
{
    run->watch = fn;
    run->watch_arg = arg;
}
