/* state.c - what a sequence carries: recurrent states (float32) and key-value caches.
 *
 * One block of memory: the recurrent states of all layers, then each attention layer's cache,
 * head after head, then what attention in parts needs. */
#include "model/inside.h"

#include "base/mem.h"

#include <string.h>

static void plan_layer(const md_model *m, md_layer *l)
{
    const md_arch *c = &m->config;
    kn_kv_type type = m->options.kv_type;
    size_t channels = 0, memory = 0;
    switch (l->c->mixer) {
    case MD_ATTENTION:
        l->kv_heads = c->n_kv_heads;
        l->k_bytes = l->v_bytes = kn_kv_bytes(type, c->head_dim);
        break;
    case MD_MLA:
        l->kv_heads = 1;
        l->k_bytes = kn_kv_bytes(type, c->kv_lora + c->qk_rope);
        break;
    case MD_DELTANET:
        channels = (size_t)(2 * c->dn_k_heads * c->dn_k_dim + c->dn_v_heads * c->dn_v_dim);
        memory = (size_t)c->dn_v_heads * (size_t)c->dn_v_dim * (size_t)c->dn_k_dim;
        break;
    case MD_MAMBA1:
        channels = (size_t)c->ssm_inner;
        memory = (size_t)c->ssm_inner * (size_t)c->ssm_state;
        break;
    case MD_MAMBA2:
        channels = (size_t)(c->ssm_inner + 2 * c->ssm_groups * c->ssm_state);
        memory = (size_t)c->ssm_inner * (size_t)c->ssm_state;
        break;
    }
    l->conv_floats = channels * (size_t)(c->conv_width ? c->conv_width - 1 : 0);
    l->recurrent_floats = l->conv_floats + memory;
}

void md_plan_state(md_model *m)
{
    for (int n = 0; n < m->config.n_layers; n++) {
        md_layer *l = &m->layers[n];
        plan_layer(m, l);
        l->recurrent_offset = m->recurrent_floats;
        l->kv_offset = m->kv_bytes;
        m->recurrent_floats += l->recurrent_floats;
        m->kv_bytes += (size_t)l->kv_heads * (l->k_bytes + l->v_bytes);
    }
}

/* Positions in whole tiles, as all caches are laid out, copied and written. */
static uint64_t whole_tiles(int positions)
{
    return ((uint64_t)positions + KN_KV_TILE - 1) / KN_KV_TILE * KN_KV_TILE;
}

static uint64_t whole_lines(uint64_t bytes)
{
    return (bytes + 63) & ~(uint64_t)63;
}

static size_t recurrent_bytes(const md_model *m)
{
    return (size_t)whole_lines(m->recurrent_floats * sizeof(float));
}

static uint64_t parts_bytes(const md_model *m, int context)
{
    if (!m->kv_bytes) return 0;
    uint64_t parts = ((uint64_t)context + KN_ATT_PART - 1) / KN_ATT_PART;
    return parts * md_part_floats(&m->config) * sizeof(float);
}

uint64_t md_state_bytes(const md_model *model, int context)
{
    return recurrent_bytes(model) + whole_lines(model->kv_bytes * whole_tiles(context)) +
           parts_bytes(model, context) + 64;
}

fm_status md_state_create(const md_model *model, int context, md_state **out, fm_error *err)
{
    *out = NULL;
    if (context < 1)
        return fm_fail(err, FM_E_ARGUMENT, "a context of %d tokens: must be at least 1", context);
    md_state *s = bs_calloc(1, sizeof *s);
    if (!s) return fm_fail_nomem(err, "making room for a sequence");
    s->model = model;
    s->context = context;
    s->rows = (size_t)whole_tiles(context);
    s->bytes = (size_t)md_state_bytes(model, context);
    s->memory = bs_pages_alloc(s->bytes);
    if (!s->memory) {
        bs_free(s);
        return fm_fail(err, FM_E_NOMEM, "out of memory for a context of %d tokens", context);
    }
    s->kv = s->memory + recurrent_bytes(model);
    s->parts = (float *)(void *)(s->kv + whole_lines(model->kv_bytes * whole_tiles(context)));
    s->part_floats = md_part_floats(&model->config);
    *out = s;
    return FM_OK;
}

void md_state_destroy(md_state *state)
{
    if (!state) return;
    bs_pages_free(state->memory, state->bytes);
    bs_free(state);
}

int md_state_length(const md_state *state)
{
    return state->length;
}

int md_state_context(const md_state *state)
{
    return state->context;
}

void md_state_reset(md_state *state)
{
    state->length = 0;
    memset(state->memory, 0, recurrent_bytes(state->model));
}

bool md_state_truncate(md_state *state, int length)
{
    if (length < 0 || length > state->length) return false;
    if (length == state->length) return true;
    if (!length) md_state_reset(state);
    else if (state->model->recurrent_floats) return false;
    state->length = length;
    return true;
}

/* --- what decoding moves ---------------------------------------------------------------------- */

uint64_t md_state_traffic(const md_model *model, int position)
{
    uint64_t bytes = 2 * model->recurrent_floats * sizeof(float);
    for (int n = 0; n < model->config.n_layers; n++) {
        const md_layer *l = &model->layers[n];
        int rows = position + 1, window = l->c->window;
        if (window && rows > window) rows = window;
        bytes += (uint64_t)rows * (uint64_t)l->kv_heads * (l->k_bytes + l->v_bytes);
    }
    return bytes;
}

uint64_t md_pass_traffic(const md_model *model, uint64_t experts, uint64_t states)
{
    return model->info.decode_read_bytes + experts * model->info.expert_bytes + states;
}

/* --- snapshots and copies --------------------------------------------------------------------- */

uint64_t md_snapshot_bytes(const md_model *model)
{
    return model->recurrent_floats * sizeof(float);
}

void md_snapshot_take(const md_state *state, void *out)
{
    memcpy(out, state->memory, (size_t)md_snapshot_bytes(state->model));
}

void md_snapshot_restore(md_state *state, int length, const void *snapshot)
{
    memcpy(state->memory, snapshot, (size_t)md_snapshot_bytes(state->model));
    state->length = length;
}

typedef void cache_fn(void *arg, unsigned char *cache, size_t bytes, size_t before);

/* Call fn for every cache of the state; `bytes`: of a position; `before`: of the caches before. */
static void each_cache(const md_state *s, cache_fn *fn, void *arg)
{
    size_t before = 0;
    for (int n = 0; n < s->model->config.n_layers; n++) {
        const md_layer *l = &s->model->layers[n];
        for (int v = 0; v < (l->v_bytes ? 2 : 1); v++)
            for (int head = 0; head < l->kv_heads; head++) {
                size_t bytes = v ? l->v_bytes : l->k_bytes;
                fn(arg, v ? md_values(s, l, head) : md_keys(s, l, head), bytes, before);
                before += bytes;
            }
    }
}

uint64_t md_kv_bytes(const md_model *model, int tokens)
{
    return (uint64_t)model->kv_bytes * whole_tiles(tokens);
}

typedef struct transfer {
    size_t positions;
    unsigned char *out;
    const unsigned char *in;
} transfer;

static void export_cache(void *arg, unsigned char *cache, size_t bytes, size_t before)
{
    const transfer *t = arg;
    memcpy(t->out + before * t->positions, cache, t->positions * bytes);
}

static void import_cache(void *arg, unsigned char *cache, size_t bytes, size_t before)
{
    const transfer *t = arg;
    memcpy(cache, t->in + before * t->positions, t->positions * bytes);
}

void md_kv_export(const md_state *state, int tokens, void *out)
{
    transfer t = {.positions = (size_t)whole_tiles(tokens), .out = out};
    each_cache(state, export_cache, &t);
}

void md_kv_import(md_state *state, int tokens, const void *in)
{
    transfer t = {.positions = (size_t)whole_tiles(tokens), .in = in};
    each_cache(state, import_cache, &t);
    state->length = tokens;
}

fm_status md_state_copy(md_state *dst, const md_state *src, int length, const void *snapshot,
                        fm_error *err)
{
    const md_model *m = src->model;
    if (dst->model != m || length < 0 || length > src->length || length > dst->context)
        return fm_fail(err, FM_E_ARGUMENT, "cannot copy %d tokens of a sequence of %d", length,
                       src->length);
    if (m->recurrent_floats && !snapshot && length != src->length)
        return fm_fail(err, FM_E_ARGUMENT,
                       "copying a part of a recurrent model's sequence needs a snapshot");
    size_t positions = (size_t)whole_tiles(length);
    for (int n = 0; n < m->config.n_layers; n++) {
        const md_layer *l = &m->layers[n];
        for (int h = 0; h < l->kv_heads; h++) {
            memcpy(md_keys(dst, l, h), md_keys(src, l, h), positions * l->k_bytes);
            if (l->v_bytes)
                memcpy(md_values(dst, l, h), md_values(src, l, h), positions * l->v_bytes);
        }
    }
    memcpy(dst->memory, snapshot ? snapshot : src->memory, (size_t)md_snapshot_bytes(m));
    dst->length = length;
    return FM_OK;
}
