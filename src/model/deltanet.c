/* deltanet.c - the gated delta net of Qwen3-Next and Qwen3.5, and the convolution that Mamba
 * shares with it.
 *
 * Rows of the projections are un-ordered when loading, so that both families look alike here. Of
 * r->work, a token: qkv | z | b | a | convolved qkv | out. */
#include "model/product.h"

#include <math.h>

enum { CHANNELS_A_TASK = 256 };

/* Keys and outputs of a head are divided by their norm, which makes much of rounding where they are
 * near zero: short ones often are, so their products are exact. */
enum { SHORT_HEAD = 64 };

bool md_deltanet_is_exact(const md_arch *c, md_mat part)
{
    if (part == MD_DN_B || part == MD_DN_A) return true;
    bool wide = part == MD_DN_QKV || part == MD_DN_Z || part == MD_O;
    return wide && (c->dn_k_dim < SHORT_HEAD || c->dn_v_dim < SHORT_HEAD);
}

/* --- convolution ------------------------------------------------------------------------------ */

typedef struct convolution {
    md_run *r;
    const md_layer *l;
    const float *in;
    float *out;
    size_t stride;
    int channels;
} convolution;

static void convolve_channels(void *arg, int index, int worker)
{
    (void)worker;
    const convolution *v = arg;
    md_run *r = v->r;
    int c0 = index * CHANNELS_A_TASK, c1 = c0 + CHANNELS_A_TASK;
    if (c1 > v->channels) c1 = v->channels;
    const md_weights *w = &v->l->w;
    for (int s = 0; s < r->n_segments; s++) {
        const md_segment *g = &r->segments[s];
        float *state = md_recurrent(g->state, v->l);
        for (int t = g->first; t < g->first + g->count; t++)
            kn_conv_step(r->isa, v->out + (size_t)t * v->stride, v->in + (size_t)t * v->stride,
                         state, w->vec[MD_CONV], w->vec[MD_CONV_BIAS], v->channels,
                         r->model->config.conv_width, c0, c1);
    }
}

void md_convolve(md_run *r, int layer, const float *in, float *out, size_t stride, int channels)
{
    convolution v = {r, &r->model->layers[layer], in, out, stride, channels};
    bs_pool_run(r->pool, convolve_channels, &v, (channels + CHANNELS_A_TASK - 1) / CHANNELS_A_TASK);
}

/* --- delta rule ------------------------------------------------------------------------------- */

typedef struct deltanet {
    md_run *r;
    const md_layer *l;
    const md_arch *c;
    size_t kd, vd;
    float *qkv, *z, *b, *a, *convolved, *out;
} deltanet;

size_t md_deltanet_work(const md_arch *c)
{
    size_t kd = (size_t)(c->dn_k_heads * c->dn_k_dim), vd = (size_t)(c->dn_v_heads * c->dn_v_dim);
    return 2 * (2 * kd + vd) + 2 * vd + 2 * (size_t)c->dn_v_heads;
}

static deltanet make(md_run *r, int layer)
{
    const md_arch *c = &r->model->config;
    deltanet d = {.r = r, .l = &r->model->layers[layer], .c = c};
    d.kd = (size_t)(c->dn_k_heads * c->dn_k_dim);
    d.vd = (size_t)(c->dn_v_heads * c->dn_v_dim);
    d.qkv = r->work;
    d.z = d.qkv + 2 * d.kd + d.vd;
    d.b = d.z + d.vd;
    d.a = d.b + c->dn_v_heads;
    d.convolved = d.a + c->dn_v_heads;
    d.out = d.convolved + 2 * d.kd + d.vd;
    return d;
}

/* l2-normalised and scaled: q by 1 / sqrt(dk) twice, k once. */
static void normalised(const deltanet *d, float *dst, const float *src, float scale)
{
    kn_rms_norm(d->r->isa, dst, src, NULL, d->c->dn_k_dim, 1e-6f);
    kn_scale(d->r->isa, dst, scale, d->c->dn_k_dim);
}

static void step(const deltanet *d, int head, float *S, int t, float *private_)
{
    const md_arch *c = d->c;
    kn_isa isa = d->r->isa;
    size_t row = (size_t)t * d->r->work_width;
    int key = head / (c->dn_v_heads / c->dn_k_heads);
    const float *mixed = d->convolved + row;
    float *q = private_, *k = private_ + c->dn_k_dim;
    normalised(d, q, mixed + key * c->dn_k_dim, 1 / (float)c->dn_k_dim);
    normalised(d, k, mixed + d->kd + (size_t)(key * c->dn_k_dim), 1 / sqrtf((float)c->dn_k_dim));
    const float *v = mixed + 2 * d->kd + (size_t)(head * c->dn_v_dim);
    float a = d->a[row + (size_t)head] + d->l->w.vec[MD_DT_BIAS][head];
    float decay = kn_expf(d->l->w.vec[MD_A_LOG][head] * kn_softplusf(a));
    float beta = kn_sigmoidf(d->b[row + (size_t)head]);
    float *out = d->out + row + (size_t)(head * c->dn_v_dim);
    kn_delta_step(isa, out, S, q, k, v, decay, beta, c->dn_k_dim, c->dn_v_dim);
    kn_rms_norm(isa, out, out, d->l->w.vec[MD_MIX_NORM], c->dn_v_dim, c->norm_eps);
    kn_silu_mul(isa, out, d->z + row + (size_t)(head * c->dn_v_dim), out, c->dn_v_dim);
}

static void run_head(void *arg, int head, int worker)
{
    const deltanet *d = arg;
    md_run *r = d->r;
    float *private_ = r->private_ + (size_t)worker * r->private_width;
    size_t size = (size_t)d->c->dn_k_dim * (size_t)d->c->dn_v_dim;
    for (int s = 0; s < r->n_segments; s++) {
        const md_segment *g = &r->segments[s];
        float *S = md_recurrent(g->state, d->l) + d->l->conv_floats + (size_t)head * size;
        for (int t = g->first; t < g->first + g->count; t++) step(d, head, S, t, private_);
    }
}

void md_deltanet(md_run *r, int layer)
{
    deltanet d = make(r, layer);
    const md_weights *w = &d.l->w;
    size_t wide = r->work_width, hidden = (size_t)d.c->hidden;
    const md_mat parts[] = {MD_DN_QKV, MD_DN_Z, MD_DN_B, MD_DN_A, MD_O};
    float *const to[] = {d.qkv, d.z, d.b, d.a, r->y};
    md_product p[5];
    for (int i = 0; i < 5; i++)
        p[i] = (md_product){&w->mat[parts[i]], w->bias[parts[i]], to[i], i < 4 ? wide : hidden,
                            md_deltanet_is_exact(d.c, parts[i])};
    md_products(r, r->h, hidden, r->n, p, 4);
    md_convolve(r, layer, d.qkv, d.convolved, wide, (int)(2 * d.kd + d.vd));
    bs_pool_run(r->pool, run_head, &d, d.c->dn_v_heads);
    md_products(r, d.out, wide, r->n, &p[4], 1);
}
