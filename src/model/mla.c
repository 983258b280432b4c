/* mla.c - multi-head latent attention. The cache holds one row a token: the normed latent and the
 * rotated key part, shared by all heads. Queries are taken into the latent space and values out of
 * it by kv_b, which is stored split (embed_q [heads][c][nope], unembed_out [heads][v][c]) or whole
 * ([heads][nope + v][c]).
 *
 * Of r->work, a token: q_a | q [heads][nope + rope] | kv_a [c + rope] | absorbed q [heads][c +
 * rope] | latent out [heads][c] | out [heads][v]. */
#include "model/attend.h"
#include "model/product.h"

#include <string.h>

typedef struct mla {
    md_run *r;
    const md_layer *l;
    const md_arch *c;
    size_t q_head, latent; /* nope + rope; c + rope */
    float *q_a, *q, *kv_a, *absorbed, *seen, *out;
    int heads_each, n_chunks; /* heads of one attention task */
} mla;

size_t md_mla_work(const md_arch *c)
{
    size_t n = (size_t)c->n_heads, lora = (size_t)c->kv_lora, rope = (size_t)c->qk_rope;
    return (size_t)c->q_lora + lora + rope +
           n * ((size_t)c->qk_nope + rope + 2 * lora + rope + (size_t)c->v_dim);
}

enum { TILE = 32 }; /* tokens that a worker prepares at a time */

/* One prepared activation, or one row of kv_b. */
size_t md_mla_private(const md_arch *c)
{
    int cols = c->qk_nope > c->kv_lora ? c->qk_nope : c->kv_lora;
    return kn_act_bytes(TILE, cols) / sizeof(float) + (size_t)c->kv_lora + 16;
}

static mla make(md_run *r, int layer)
{
    const md_arch *c = &r->model->config;
    mla m = {.r = r, .l = &r->model->layers[layer], .c = c};
    m.q_head = (size_t)(c->qk_nope + c->qk_rope);
    m.latent = (size_t)(c->kv_lora + c->qk_rope);
    m.q_a = r->work;
    m.q = m.q_a + c->q_lora;
    m.kv_a = m.q + (size_t)c->n_heads * m.q_head;
    m.absorbed = m.kv_a + m.latent;
    m.seen = m.absorbed + (size_t)c->n_heads * m.latent;
    m.out = m.seen + (size_t)c->n_heads * (size_t)c->kv_lora;
    int chunks = 2 * r->threads, each = (c->n_heads + chunks - 1) / chunks;
    if (r->n > 1 && each < 16) each = 16;
    m.heads_each = each < 16 ? each : 16;
    m.n_chunks = (c->n_heads + m.heads_each - 1) / m.heads_each;
    return m;
}

static void rotate(const mla *m, float *x, int t)
{
    size_t half = (size_t)m->c->rope.dims / 2;
    kn_rope(m->r->isa, x, m->r->cos + (size_t)t * half, m->r->sin + (size_t)t * half,
            m->c->rope.dims, m->c->rope.layout);
}

/* Norms, the key part's rotation, and the cache. */
static void place_token(void *arg, int t, int worker)
{
    (void)worker;
    const mla *m = arg;
    const md_arch *c = m->c;
    md_run *r = m->r;
    size_t row = (size_t)t * r->work_width;
    if (c->q_lora)
        kn_rms_norm(r->isa, m->q_a + row, m->q_a + row, m->l->w.vec[MD_Q_A_NORM], c->q_lora,
                    c->lora_norm_eps);
    float *kv = m->kv_a + row;
    kn_rms_norm(r->isa, kv, kv, m->l->w.vec[MD_KV_A_NORM], c->kv_lora, c->lora_norm_eps);
    rotate(m, kv + c->kv_lora, t);
    const md_state *s = r->segments[r->segment_of[t]].state;
    kn_kv keys = {r->model->options.kv_type, KN_KEYS, (int)m->latent, md_keys(s, m->l, 0)};
    kn_kv_store(r->isa, &keys, r->position[t], kv);
}

/* The matrix of one head of a stacked one. */
static kn_mat head_of(const kn_mat *stacked, int head, int rows)
{
    kn_mat w = *stacked;
    size_t first = (size_t)head * (size_t)rows;
    w.rows = rows;
    w.w = (const char *)w.w + first * w.row_bytes;
    if (w.scales) w.scales = (const char *)w.scales + first * w.scale_row_bytes;
    if (w.biases) w.biases = (const char *)w.biases + first * w.scale_row_bytes;
    return w;
}

/* y_t = W x_t of one head, by one worker alone. */
static void head_product(const mla *m, int worker, const kn_mat *w, float *y, size_t y_stride,
                         const float *x, size_t x_stride)
{
    md_run *r = m->r;
    for (int t = 0; t < r->n; t += TILE) {
        int n = r->n - t < TILE ? r->n - t : TILE;
        kn_act act;
        kn_act_init(&act, r->isa, x + (size_t)t * x_stride, x_stride, n, w->cols, md_group_of(w),
                    r->model->options.precision, r->private_ + (size_t)worker * r->private_width);
        kn_act_prepare(&act, 0, n);
        kn_matmul(y + (size_t)t * y_stride, y_stride, w, &act, 0, w->rows, 0, n);
    }
}

/* Whole kv_b: the absorbed query is the sum of its rows, weighted by the query's elements. */
static void absorb_rows(const mla *m, int head, float *row)
{
    const md_arch *c = m->c;
    md_run *r = m->r;
    const kn_mat *kv_b = &m->l->w.mat[MD_KV_B];
    for (int t = 0; t < r->n; t++)
        memset(m->absorbed + (size_t)t * r->work_width + (size_t)head * m->latent, 0,
               (size_t)c->kv_lora * sizeof(float));
    for (int i = 0; i < c->qk_nope; i++) {
        kn_dequant_row(kv_b, head * (c->qk_nope + c->v_dim) + i, row);
        for (int t = 0; t < r->n; t++) {
            size_t at = (size_t)t * r->work_width;
            kn_axpy(r->isa, m->absorbed + at + (size_t)head * m->latent,
                    m->q[at + (size_t)head * m->q_head + (size_t)i], row, c->kv_lora);
        }
    }
}

static void absorb(void *arg, int head, int worker)
{
    const mla *m = arg;
    const md_arch *c = m->c;
    md_run *r = m->r;
    float *q = m->q + (size_t)head * m->q_head, *to = m->absorbed + (size_t)head * m->latent;
    const kn_mat *split = &m->l->w.mat[MD_EMBED_Q];
    if (split->rows) {
        kn_mat w = head_of(split, head, c->kv_lora);
        head_product(m, worker, &w, to, r->work_width, q, r->work_width);
    } else absorb_rows(m, head, r->private_ + (size_t)worker * r->private_width);
    for (int t = 0; t < r->n; t++) {
        size_t row = (size_t)t * r->work_width;
        rotate(m, q + row + c->qk_nope, t);
        memcpy(to + row + c->kv_lora, q + row + c->qk_nope, (size_t)c->qk_rope * sizeof(float));
    }
}

static md_heads heads_of(const void *arg, int index)
{
    const mla *m = arg;
    const md_arch *c = m->c;
    md_run *r = m->r;
    int t = index / m->n_chunks, head = index % m->n_chunks * m->heads_each;
    size_t row = (size_t)t * r->work_width;
    const md_state *s = r->segments[r->segment_of[t]].state;
    return (md_heads){.k = {.type = r->model->options.kv_type,
                            .k = md_keys(s, m->l, 0),
                            .v = md_keys(s, m->l, 0),
                            .k_stride = m->l->k_bytes,
                            .v_stride = m->l->k_bytes,
                            .k_dim = (int)m->latent,
                            .v_dim = c->kv_lora,
                            .end = r->position[t] + 1,
                            .scale = c->attention_scale},
                      .q = m->absorbed + row + (size_t)head * m->latent,
                      .out = m->seen + row + (size_t)head * (size_t)c->kv_lora,
                      .first = head,
                      .n = c->n_heads - head < m->heads_each ? c->n_heads - head : m->heads_each,
                      .state = s};
}

static void unembed(void *arg, int head, int worker)
{
    const mla *m = arg;
    const md_arch *c = m->c;
    md_run *r = m->r;
    const float *x = m->seen + (size_t)head * (size_t)c->kv_lora;
    float *y = m->out + (size_t)head * (size_t)c->v_dim;
    const kn_mat *split = &m->l->w.mat[MD_UNEMBED];
    if (split->rows) {
        kn_mat w = head_of(split, head, c->v_dim);
        head_product(m, worker, &w, y, r->work_width, x, r->work_width);
        return;
    }
    float *row = r->private_ + (size_t)worker * r->private_width;
    for (int i = 0; i < c->v_dim; i++) {
        kn_dequant_row(&m->l->w.mat[MD_KV_B], head * (c->qk_nope + c->v_dim) + c->qk_nope + i, row);
        for (int t = 0; t < r->n; t++)
            y[(size_t)t * r->work_width + (size_t)i] =
                kn_dot(r->isa, row, x + (size_t)t * r->work_width, c->kv_lora);
    }
}

void md_mla(md_run *r, int layer)
{
    mla m = make(r, layer);
    const md_weights *w = &m.l->w;
    size_t wide = r->work_width, hidden = (size_t)m.c->hidden;
    md_product p[] = {
        {&w->mat[MD_Q_A], w->bias[MD_Q_A], m.q_a, wide, false},
        {&w->mat[MD_Q], w->bias[MD_Q], m.q, wide, false},
        {&w->mat[MD_KV_A], w->bias[MD_KV_A], m.kv_a, wide, false},
    };
    md_products(r, r->h, hidden, r->n, p, 3);
    md_for_tokens(r, place_token, &m, r->n, 4 * (m.latent + (size_t)m.c->q_lora));
    md_product q_b = {&w->mat[MD_Q_B], w->bias[MD_Q_B], m.q, wide, false};
    if (m.c->q_lora) md_products(r, m.q_a, wide, r->n, &q_b, 1);
    bs_pool_run(r->pool, absorb, &m, m.c->n_heads);
    md_attend(r, &(md_attention_job){.heads = heads_of, .arg = &m, .n_tasks = r->n * m.n_chunks});
    bs_pool_run(r->pool, unembed, &m, m.c->n_heads);
    md_product o = {&w->mat[MD_O], w->bias[MD_O], r->y, hidden, false};
    md_products(r, m.out, wide, r->n, &o, 1);
}
