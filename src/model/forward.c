/* forward.c - one step: tokens of many sequences through all layers, then the wanted logits. */
#include "model/product.h"
#include "model/rope.h"

#include <math.h>
#include <string.h>

enum { ALONE_BELOW = 1 << 14 };

void md_for_tokens(md_run *r, bs_task *fn, void *arg, int n, size_t work_each)
{
    bs_pool_run((size_t)n * work_each < ALONE_BELOW ? NULL : r->pool, fn, arg, n);
}

/* --- the batch -------------------------------------------------------------------------------- */

static fm_status add_segment(md_run *r, md_state *state, int first, fm_error *err)
{
    for (int s = 0; s < r->n_segments; s++)
        if (r->segments[s].state == state)
            return fm_fail(err, FM_E_ARGUMENT, "the tokens of a sequence must stand together");
    if (state->model != r->model)
        return fm_fail(err, FM_E_ARGUMENT, "the sequence belongs to another model");
    r->segments[r->n_segments++] =
        (md_segment){.state = state, .first = first, .position = state->length};
    return FM_OK;
}

static fm_status take_batch(md_run *r, const md_token *tokens, int n, const float *logits,
                            fm_error *err)
{
    int wanted = 0;
    if (n < 1 || n > r->max_tokens)
        return fm_fail(err, FM_E_ARGUMENT, "%d tokens in a step that takes up to %d", n,
                       r->max_tokens);
    r->n = n;
    r->n_segments = 0;
    for (int t = 0; t < n; t++) {
        md_state *state = tokens[t].state;
        if (tokens[t].id < 0 || tokens[t].id >= r->model->config.vocab)
            return fm_fail(err, FM_E_ARGUMENT, "token id %d is outside the vocabulary of %d",
                           tokens[t].id, r->model->config.vocab);
        if (!t || state != tokens[t - 1].state) {
            fm_status status = add_segment(r, state, t, err);
            if (status) return status;
        }
        md_segment *g = &r->segments[r->n_segments - 1];
        r->position[t] = g->position + g->count++;
        r->segment_of[t] = r->n_segments - 1;
        wanted += tokens[t].want_logits;
        if (r->position[t] >= state->context)
            return fm_fail(err, FM_E_LIMIT, "the context of %d tokens is full", state->context);
    }
    if (wanted > r->max_logits || (wanted && !logits))
        return fm_fail(err, FM_E_ARGUMENT, "logits of %d tokens wanted, at most %d were announced",
                       wanted, r->max_logits);
    return FM_OK;
}

typedef struct embedding {
    md_run *r;
    const md_token *tokens;
} embedding;

static void embed_token(void *arg, int t, int worker)
{
    (void)worker;
    const embedding *e = arg;
    md_run *r = e->r;
    const md_arch *c = &r->model->config;
    float *x = r->x + (size_t)t * (size_t)c->hidden;
    kn_dequant_row(&r->model->globals.mat[MD_EMBED], e->tokens[t].id, x);
    if (c->embed_scale != 1) kn_scale(r->isa, x, c->embed_scale, c->hidden);
    size_t half = (size_t)c->rope.dims / 2;
    if (half)
        md_rope_angles(&c->rope, r->model->frequencies, r->position[t], r->cos + (size_t)t * half,
                       r->sin + (size_t)t * half);
}

/* --- norms and residuals ---------------------------------------------------------------------- */

typedef struct norming {
    md_run *r;
    const float *weight, *bias, *x;
    float *h;
} norming;

static void norm_token(void *arg, int t, int worker)
{
    (void)worker;
    const norming *g = arg;
    const md_arch *c = &g->r->model->config;
    size_t at = (size_t)t * (size_t)c->hidden;
    if (c->family->layer_norm)
        kn_layer_norm(g->r->isa, g->h + at, g->x + at, g->weight, g->bias, c->hidden, c->norm_eps);
    else kn_rms_norm(g->r->isa, g->h + at, g->x + at, g->weight, c->hidden, c->norm_eps);
}

void md_norm_tokens(md_run *r, const md_weights *w, md_vec weight, md_vec bias, const float *x,
                    float *h)
{
    norming g = {r, w->vec[weight], w->vec[bias], x, h};
    md_for_tokens(r, norm_token, &g, r->n, 4 * (size_t)r->model->config.hidden);
}

static void add_token(void *arg, int t, int worker)
{
    (void)worker;
    const md_run *r = arg;
    const md_arch *c = &r->model->config;
    size_t at = (size_t)t * (size_t)c->hidden;
    kn_axpy(r->isa, r->x + at, c->residual_scale, r->y + at, c->hidden);
}

static void add_residual(md_run *r)
{
    md_for_tokens(r, add_token, r, r->n, (size_t)r->model->config.hidden);
}

/* --- layers ----------------------------------------------------------------------------------- */

/* From the last mixer on, tokens whose logits nobody wants are done with: their cache rows and
 * states stand. The others move up. */
static void drop_unwanted(md_run *r, const md_token *tokens)
{
    size_t hidden = (size_t)r->model->config.hidden;
    int n = 0;
    for (int t = 0; t < r->n; t++) {
        if (!tokens[t].want_logits) continue;
        memmove(r->x + (size_t)n++ * hidden, r->x + (size_t)t * hidden, hidden * sizeof(float));
    }
    r->n = n;
}

static fm_status run_layer(md_run *r, const md_token *tokens, int n, fm_error *err)
{
    const md_layer *l = &r->model->layers[n];
    bool last = n + 1 == r->model->config.n_layers;
    md_norm_tokens(r, &l->w, MD_IN_NORM, MD_IN_NORM_BIAS, r->x, r->h);
    switch (l->c->mixer) {
    case MD_ATTENTION: md_attention(r, n); break;
    case MD_MLA: md_mla(r, n); break;
    case MD_DELTANET: md_deltanet(r, n); break;
    case MD_MAMBA1: md_mamba1(r, n); break;
    case MD_MAMBA2: md_mamba2(r, n); break;
    }
    add_residual(r);
    if (last && !r->watch) drop_unwanted(r, tokens); /* a watcher sees all routes */
    if (!r->n) return FM_OK;
    md_norm_tokens(r, &l->w, MD_POST_NORM, MD_POST_NORM_BIAS, r->x, r->h);
    if (l->moe_layer >= 0) {
        fm_status status = md_moe(r, n, err);
        if (status) return status;
    } else md_dense_mlp(r, n);
    add_residual(r);
    if (last && r->watch) drop_unwanted(r, tokens);
    return FM_OK;
}

/* --- logits ----------------------------------------------------------------------------------- */

/* Has any of n floats all exponent bits set (NaN or infinity)? In blocks, so that it vectorises:
 * vocabularies are large and this runs once a token. */
static bool has_broken(const float *x, int n)
{
    enum { BLOCK = 16 };
    uint32_t found[BLOCK] = {0};
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        uint32_t bits[BLOCK];
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < BLOCK; k++) found[k] |= (bits[k] & 0x7f800000u) == 0x7f800000u;
    }
    for (; i < n; i++) found[0] |= !isfinite(x[i]);
    uint32_t any = 0;
    for (int k = 0; k < BLOCK; k++) any |= found[k];
    return any != 0;
}

static fm_status check_logits(const md_run *r, const float *logits, int rows, fm_error *err)
{
    size_t vocab = (size_t)r->model->config.vocab;
    for (int i = 0; i < rows; i++)
        if (has_broken(logits + (size_t)i * vocab, (int)vocab))
            return fm_fail(err, FM_E_NUMERIC, "the model computed a logit that is not a number");
    return FM_OK;
}

/* Of the tokens that are left: those whose logits are wanted. */
static fm_status compute_logits(md_run *r, float *logits, fm_error *err)
{
    const md_model *m = r->model;
    const md_arch *c = &m->config;
    if (!r->n) return FM_OK;
    md_norm_tokens(r, &m->globals, MD_IN_NORM, MD_IN_NORM_BIAS, r->x, r->h);
    md_product head = {&m->globals.mat[MD_HEAD], m->globals.bias[MD_HEAD], logits, (size_t)c->vocab,
                       false};
    md_products(r, r->h, (size_t)c->hidden, r->n, &head, 1);
    if (c->logit_scale != 1)
        for (int i = 0; i < r->n; i++)
            kn_scale(r->isa, logits + (size_t)i * (size_t)c->vocab, c->logit_scale, c->vocab);
    return check_logits(r, logits, r->n, err);
}

/* --- the step --------------------------------------------------------------------------------- */

/* Rows of caches beyond a sequence's length mean nothing, but a recurrent state that has moved on
 * cannot be taken back. */
static fm_status abandon(md_run *r, fm_status status, fm_error *err)
{
    if (!r->model->recurrent_floats) return status;
    bool lost = false;
    for (int s = 0; s < r->n_segments; s++) {
        lost |= r->segments[s].state->length > 0;
        md_state_reset(r->segments[s].state);
    }
    if (lost) fm_prefix(err, "the sequence's state was lost");
    return status;
}

fm_status md_forward(md_run *r, const md_token *tokens, int n, bool prefill, float *logits,
                     fm_error *err)
{
    const md_arch *c = &r->model->config;
    if (!r->model->loaded) return fm_fail(err, FM_E_ARGUMENT, "the model's weights are not loaded");
    fm_status status = take_batch(r, tokens, n, logits, err);
    if (status) return status;
    if (r->experts) xp_begin_step(r->experts, n, prefill); /* no cache: no layer has experts */
    embedding e = {r, tokens};
    md_for_tokens(r, embed_token, &e, n, 8 * (size_t)c->hidden);
    for (int layer = 0; layer < c->n_layers && !status; layer++)
        status = run_layer(r, tokens, layer, err);
    if (!status) status = compute_logits(r, logits, err);
    if (status) return abandon(r, status, err);
    for (int s = 0; s < r->n_segments; s++) r->segments[s].state->length += r->segments[s].count;
    return FM_OK;
}
