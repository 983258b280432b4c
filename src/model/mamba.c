/* mamba.c - selective state spaces: Mamba-1 (Jamba) and Mamba-2 (Granite 4).
 *
 * Of r->work, a token, Mamba-1: x | z | convolved x | dt B C | dt | y;
 * Mamba-2: gate | x B C | dt | convolved x B C | y. */
#include "model/product.h"

#include <math.h>

enum { CHANNELS_A_TASK = 64 };

typedef struct mamba {
    md_run *r;
    const md_layer *l;
    const md_arch *c;
    size_t inner, channels; /* channels: of the convolution */
    float *in, *gate, *dt_low, *dt, *convolved, *out;
} mamba;

size_t md_mamba_work(const md_arch *c)
{
    size_t inner = (size_t)c->ssm_inner, state = (size_t)c->ssm_state;
    size_t first = 5 * inner + (size_t)c->ssm_dt_rank + 2 * state;
    size_t channels = inner + 2 * (size_t)c->ssm_groups * state;
    size_t second = 2 * inner + 2 * channels + (size_t)c->ssm_heads;
    return first > second ? first : second;
}

static void finish(const mamba *m)
{
    md_run *r = m->r;
    const md_weights *w = &m->l->w;
    md_product o = {&w->mat[MD_O], w->bias[MD_O], r->y, (size_t)m->c->hidden, false};
    md_products(r, m->out, r->work_width, r->n, &o, 1);
}

/* --- Mamba-1 ---------------------------------------------------------------------------------- */

static void norm_low(void *arg, int t, int worker)
{
    (void)worker;
    const mamba *m = arg;
    const md_arch *c = m->c;
    const md_weights *w = &m->l->w;
    float *dt = m->dt_low + (size_t)t * m->r->work_width;
    float *B = dt + c->ssm_dt_rank, *C = B + c->ssm_state;
    kn_rms_norm(m->r->isa, dt, dt, w->vec[MD_DT_NORM], c->ssm_dt_rank, c->norm_eps);
    kn_rms_norm(m->r->isa, B, B, w->vec[MD_B_NORM], c->ssm_state, c->norm_eps);
    kn_rms_norm(m->r->isa, C, C, w->vec[MD_C_NORM], c->ssm_state, c->norm_eps);
}

static void scan_channels(void *arg, int index, int worker)
{
    (void)worker;
    const mamba *m = arg;
    const md_arch *c = m->c;
    const md_weights *w = &m->l->w;
    md_run *r = m->r;
    int c0 = index * CHANNELS_A_TASK, c1 = c0 + CHANNELS_A_TASK;
    if (c1 > c->ssm_inner) c1 = c->ssm_inner;
    for (int s = 0; s < r->n_segments; s++) {
        const md_segment *g = &r->segments[s];
        float *S = md_recurrent(g->state, m->l) + m->l->conv_floats;
        for (int t = g->first; t < g->first + g->count; t++) {
            size_t row = (size_t)t * r->work_width;
            float *dt = m->dt + row, *out = m->out + row;
            const float *B = m->dt_low + row + c->ssm_dt_rank;
            for (int i = c0; i < c1; i++) dt[i] = kn_softplusf(dt[i]);
            kn_mamba1_step(r->isa, out, S, m->convolved + row, dt, w->vec[MD_A_LOG], B,
                           B + c->ssm_state, w->vec[MD_D], c->ssm_state, c0, c1);
            kn_silu_mul(r->isa, out + c0, m->gate + row + c0, out + c0, c1 - c0);
        }
    }
}

void md_mamba1(md_run *r, int layer)
{
    const md_arch *c = &r->model->config;
    mamba m = {.r = r, .l = &r->model->layers[layer], .c = c, .inner = (size_t)c->ssm_inner};
    m.in = r->work;
    m.gate = m.in + m.inner;
    m.convolved = m.gate + m.inner;
    m.dt = m.convolved + m.inner;
    m.out = m.dt + m.inner;
    m.dt_low = m.out + m.inner;
    const md_weights *w = &m.l->w;
    size_t wide = r->work_width;
    md_product in = {&w->mat[MD_SSM_IN], w->bias[MD_SSM_IN], m.in, wide, false};
    md_products(r, r->h, (size_t)c->hidden, r->n, &in, 1);
    md_convolve(r, layer, m.in, m.convolved, wide, c->ssm_inner);
    md_product low = {&w->mat[MD_SSM_X], w->bias[MD_SSM_X], m.dt_low, wide, true};
    md_products(r, m.convolved, wide, r->n, &low, 1);
    md_for_tokens(r, norm_low, &m, r->n, 1024);
    md_product dt = {&w->mat[MD_SSM_DT], w->bias[MD_SSM_DT], m.dt, wide, true};
    md_products(r, m.dt_low, wide, r->n, &dt, 1);
    bs_pool_run(r->pool, scan_channels, &m, (c->ssm_inner + CHANNELS_A_TASK - 1) / CHANNELS_A_TASK);
    finish(&m);
}

/* --- Mamba-2 ---------------------------------------------------------------------------------- */

static void scan_head(void *arg, int head, int worker)
{
    (void)worker;
    const mamba *m = arg;
    const md_arch *c = m->c;
    const md_weights *w = &m->l->w;
    md_run *r = m->r;
    int dh = c->ssm_head_dim, n = c->ssm_state, group = head / (c->ssm_heads / c->ssm_groups);
    for (int s = 0; s < r->n_segments; s++) {
        const md_segment *g = &r->segments[s];
        float *S =
            md_recurrent(g->state, m->l) + m->l->conv_floats + (size_t)(head * dh) * (size_t)n;
        for (int t = g->first; t < g->first + g->count; t++) {
            size_t row = (size_t)t * r->work_width;
            const float *x = m->convolved + row, *B = x + m->inner + (size_t)(group * n);
            const float *C = B + (size_t)(c->ssm_groups * n);
            float dt = kn_softplusf(m->dt[row + (size_t)head] + w->vec[MD_DT_BIAS][head]);
            dt = dt < c->ssm_dt_min ? c->ssm_dt_min : dt > c->ssm_dt_max ? c->ssm_dt_max : dt;
            kn_mamba2_step(r->isa, m->out + row + (size_t)(head * dh), S, x + (size_t)(head * dh),
                           B, C, kn_expf(w->vec[MD_A_LOG][head] * dt), dt, w->vec[MD_D][head], dh,
                           n);
        }
    }
}

static void gate_and_norm(void *arg, int t, int worker)
{
    (void)worker;
    const mamba *m = arg;
    const md_arch *c = m->c;
    size_t row = (size_t)t * m->r->work_width;
    float *y = m->out + row;
    kn_silu_mul(m->r->isa, y, m->gate + row, y, c->ssm_inner);
    kn_rms_norm(m->r->isa, y, y, m->l->w.vec[MD_MIX_NORM], c->ssm_inner, c->norm_eps);
}

void md_mamba2(md_run *r, int layer)
{
    const md_arch *c = &r->model->config;
    mamba m = {.r = r, .l = &r->model->layers[layer], .c = c, .inner = (size_t)c->ssm_inner};
    m.channels = m.inner + 2 * (size_t)(c->ssm_groups * c->ssm_state);
    m.gate = r->work;
    m.in = m.gate + m.inner;
    m.dt = m.in + m.channels;
    m.convolved = m.dt + c->ssm_heads;
    m.out = m.convolved + m.channels;
    const md_weights *w = &m.l->w;
    md_product in = {&w->mat[MD_SSM_IN], w->bias[MD_SSM_IN], r->work, r->work_width, false};
    md_products(r, r->h, (size_t)c->hidden, r->n, &in, 1);
    md_convolve(r, layer, m.in, m.convolved, r->work_width, (int)m.channels);
    bs_pool_run(r->pool, scan_head, &m, c->ssm_heads);
    md_for_tokens(r, gate_and_norm, &m, r->n, 8 * m.inner);
    finish(&m);
}
