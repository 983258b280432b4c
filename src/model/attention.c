/* attention.c - grouped-query attention: one block with flags for every family.
 *
 * Of r->work, a token: q [heads * dim] | gate [the same] | k | v [kv heads * dim] | out [heads *
 * dim]. Keys and values are cached after norm and rotation. */
#include "model/attend.h"
#include "model/product.h"

#include <string.h>

typedef struct attention {
    md_run *r;
    const md_layer *l;
    const md_arch *c;
    size_t q_width, kv_width;
    float *q, *gate, *out; /* token t at t * r->work_width */
    const float *k, *v;    /* token t at t * kv_stride */
    size_t kv_stride;
    int n_kv;
} attention;

size_t md_attention_work(const md_arch *c)
{
    return (size_t)c->head_dim * (size_t)(3 * c->n_heads + 2 * c->n_kv_heads);
}

static attention make(md_run *r, int layer)
{
    const md_arch *c = &r->model->config;
    attention a = {.r = r, .l = &r->model->layers[layer], .c = c, .n_kv = c->n_kv_heads};
    a.q_width = (size_t)c->n_heads * (size_t)c->head_dim;
    a.kv_width = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    a.q = r->work;
    a.gate = a.q + a.q_width;
    a.out = a.gate + a.q_width + 2 * a.kv_width;
    a.k = a.gate + a.q_width;
    a.kv_stride = r->work_width;
    if (r->kv_shared) {
        a.k = r->kv_shared;
        a.kv_stride = 2 * a.kv_width;
    }
    a.v = a.k + a.kv_width;
    return a;
}

static void project(const attention *a)
{
    const md_weights *w = &a->l->w;
    size_t wide = a->r->work_width;
    md_product p[] = {
        {&w->mat[MD_Q], w->bias[MD_Q], a->q, wide, false},
        {&w->mat[MD_Q_GATE], w->bias[MD_Q_GATE], a->gate, wide, false},
        {&w->mat[MD_K], w->bias[MD_K], (float *)a->k, a->kv_stride, false},
        {&w->mat[MD_V], w->bias[MD_V], (float *)a->v, a->kv_stride, false},
    };
    md_products(a->r, a->r->h, (size_t)a->c->hidden, a->r->n, p, 4);
}

/* Norm and rotation of one head, in place. */
static void place_head(const attention *a, float *x, const float *norm, int t)
{
    const md_arch *c = a->c;
    kn_isa isa = a->r->isa;
    size_t half = (size_t)c->rope.dims / 2;
    if (c->qk_norm == MD_QK_HEAD) kn_rms_norm(isa, x, x, norm, c->head_dim, c->norm_eps);
    if (a->l->c->rope && c->rope.dims)
        kn_rope(isa, x, a->r->cos + (size_t)t * half, a->r->sin + (size_t)t * half, c->rope.dims,
                c->rope.layout);
    if (c->qk_norm == MD_QK_HEAD_POST) kn_rms_norm(isa, x, x, norm, c->head_dim, c->norm_eps);
}

static void place_token(void *arg, int t, int worker)
{
    (void)worker;
    const attention *a = arg;
    const md_arch *c = a->c;
    md_run *r = a->r;
    const md_weights *w = &a->l->w;
    float *q = a->q + (size_t)t * r->work_width;
    float *k = (float *)a->k + (size_t)t * a->kv_stride;
    const float *v = a->v + (size_t)t * a->kv_stride;
    if (c->qk_norm == MD_QK_FULL) {
        kn_rms_norm(r->isa, q, q, w->vec[MD_Q_NORM], (int)a->q_width, c->norm_eps);
        kn_rms_norm(r->isa, k, k, w->vec[MD_K_NORM], (int)a->kv_width, c->norm_eps);
    }
    for (int h = 0; h < c->n_heads; h++) place_head(a, q + h * c->head_dim, w->vec[MD_Q_NORM], t);
    const md_state *s = r->segments[r->segment_of[t]].state;
    for (int h = 0; h < a->n_kv; h++) {
        float key[KN_ATT_MAX_DIM]; /* the projection itself may be needed by a later layer */
        memcpy(key, k + h * c->head_dim, (size_t)c->head_dim * sizeof *key);
        place_head(a, key, w->vec[MD_K_NORM], t);
        kn_kv_type type = r->model->options.kv_type;
        kn_kv keys = {type, KN_KEYS, c->head_dim, md_keys(s, a->l, h)};
        kn_kv values = {type, KN_VALUES, c->head_dim, md_values(s, a->l, h)};
        kn_kv_store(r->isa, &keys, r->position[t], key);
        kn_kv_store(r->isa, &values, r->position[t], v + h * c->head_dim);
    }
}

/* One token and KV head: all query heads that share it. */
static md_heads heads_of(const void *arg, int index)
{
    const attention *a = arg;
    const md_arch *c = a->c;
    md_run *r = a->r;
    int t = index / a->n_kv, kv = index % a->n_kv, group = c->n_heads / a->n_kv;
    size_t first = (size_t)t * r->work_width + (size_t)(kv * group) * (size_t)c->head_dim;
    const md_state *s = r->segments[r->segment_of[t]].state;
    int end = r->position[t] + 1, window = a->l->c->window;
    const float *sinks = a->l->w.vec[MD_SINKS];
    return (md_heads){.k = {.type = r->model->options.kv_type,
                            .k = md_keys(s, a->l, kv),
                            .v = md_values(s, a->l, kv),
                            .k_stride = a->l->k_bytes,
                            .v_stride = a->l->v_bytes,
                            .k_dim = c->head_dim,
                            .v_dim = c->head_dim,
                            .begin = window && end > window ? end - window : 0,
                            .end = end,
                            .scale = c->attention_scale,
                            .sink = sinks ? sinks + kv * group : NULL},
                      .q = a->q + first,
                      .out = a->out + first,
                      .first = kv * group,
                      .n = group,
                      .state = s};
}

static void gate_heads(const void *arg, int index)
{
    const attention *a = arg;
    md_heads h = heads_of(arg, index);
    int width = h.n * a->c->head_dim;
    float *gate = a->gate + (h.out - a->out);
    kn_sigmoid(a->r->isa, gate, gate, width);
    kn_mul(a->r->isa, h.out, gate, width);
}

void md_attention(md_run *r, int layer)
{
    attention a = make(r, layer);
    const md_weights *w = &a.l->w;
    project(&a);
    md_for_tokens(r, place_token, &a, r->n, 8 * (a.q_width + a.kv_width));
    md_attend(r, &(md_attention_job){.heads = heads_of,
                                     .finish = a.c->family->output_gate ? gate_heads : NULL,
                                     .arg = &a,
                                     .n_tasks = r->n * a.n_kv});
    md_product o = {&w->mat[MD_O], w->bias[MD_O], r->y, (size_t)a.c->hidden, false};
    md_products(r, a.out, r->work_width, r->n, &o, 1);
}
