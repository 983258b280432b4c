#include "model/schema.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct builder {
    const md_arch *c;
    md_layout layout;
    md_schema *out;
    int layer, moe_layer;
    bool failed;
    md_spec lost; /* what add() returns after a failure: written to, never read */
} builder;

static md_spec *add(builder *b, md_kind kind, char *name)
{
    md_schema *s = b->out;
    if (!name) b->failed = true;
    if (!b->failed && s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 256;
        md_spec *grown = bs_realloc(s->spec, capacity, sizeof *grown);
        if (!grown) b->failed = true;
        else {
            s->spec = grown;
            s->capacity = capacity;
        }
    }
    if (b->failed) {
        bs_free(name);
        return &b->lost;
    }
    md_spec *spec = &s->spec[s->n++];
    *spec = (md_spec){
        .name = name, .kind = kind, .layer = b->layer, .moe_layer = -1, .bits = MD_BITS_GLOBAL};
    return spec;
}

/* "model.layers.3.self_attn.q_proj"; module NULL: directly below the layer. */
static char *layer_name(const builder *b, const char *module, const char *name)
{
    return bs_sprintf("%slayers.%d.%s%s%s", b->layout.prefix, b->layer, module ? module : "",
                      module ? "." : "", name);
}

static md_spec *matrix(builder *b, const char *module, const char *name, md_mat role, int rows,
                       int cols)
{
    md_spec *s = add(b, MD_MATRIX, layer_name(b, module, name));
    s->rows = rows;
    s->cols = cols;
    s->part[0] = role;
    s->part_rows[0] = rows;
    s->n_parts = 1;
    return s;
}

static md_spec *vector(builder *b, const char *module, const char *name, md_vec role, int rows)
{
    md_spec *s = add(b, MD_VECTOR, layer_name(b, module, name));
    s->rows = rows;
    s->vec = role;
    s->bits = MD_BITS_NEVER;
    return s;
}

static void part(md_spec *s, md_mat role, int rows)
{
    s->part_rows[s->n_parts - 1] -= rows;
    s->part[s->n_parts] = role;
    s->part_rows[s->n_parts] = rows;
    s->n_parts++;
}

/* The norm NAME.weight, and NAME.bias where the family has LayerNorms. */
static void norm(builder *b, const char *module, const char *name, md_vec role, int n,
                 bool plus_one)
{
    char path[160];
    snprintf(path, sizeof path, "%s.weight", name);
    vector(b, module, path, role, n)->plus_one = plus_one && b->c->family->plus_one_norms;
}

static void layer_norm(builder *b, const char *name, md_vec role, md_vec bias)
{
    norm(b, NULL, name, role, b->c->hidden, true);
    if (!b->c->family->layer_norm) return;
    char path[160];
    snprintf(path, sizeof path, "%s.bias", name);
    vector(b, NULL, path, bias, b->c->hidden);
}

/* --- mixers ----------------------------------------------------------------------------------- */

static void add_attention(builder *b)
{
    const md_arch *c = b->c;
    const md_names *n = &c->names;
    const char *m = n->attention;
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    bool owns_kv = c->layer[b->layer].kv_from == b->layer;
    if (n->qkv) {
        md_spec *s = matrix(b, m, n->qkv, MD_Q, q + 2 * kv, c->hidden);
        part(s, MD_K, 2 * kv);
        part(s, MD_V, kv);
        s->bias = c->q_bias;
    } else {
        md_spec *s = matrix(b, m, n->q, MD_Q, c->family->output_gate ? 2 * q : q, c->hidden);
        s->bias = c->q_bias;
        if (c->family->output_gate) {
            s->order = MD_ORDER_QUERY_GATE;
            part(s, MD_Q_GATE, q);
        }
        if (owns_kv) {
            matrix(b, m, n->k, MD_K, kv, c->hidden)->bias = c->k_bias;
            matrix(b, m, n->v, MD_V, kv, c->hidden)->bias = c->v_bias;
        }
    }
    matrix(b, m, n->o, MD_O, c->hidden, q)->bias = c->o_bias;
    if (c->qk_norm != MD_QK_NONE) {
        bool full = c->qk_norm == MD_QK_FULL;
        norm(b, m, n->q_norm, MD_Q_NORM, full ? q : c->head_dim, true);
        norm(b, m, n->k_norm, MD_K_NORM, full ? kv : c->head_dim, true);
    }
    if (c->family->sinks) vector(b, m, "sinks", MD_SINKS, c->n_heads);
}

static void add_mla(builder *b)
{
    const md_arch *c = b->c;
    const char *m = c->names.attention;
    int q = c->n_heads * (c->qk_nope + c->qk_rope);
    if (c->q_lora) {
        matrix(b, m, "q_a_proj", MD_Q_A, c->q_lora, c->hidden)->bias = c->q_bias;
        norm(b, m, "q_a_layernorm", MD_Q_A_NORM, c->q_lora, false);
        matrix(b, m, "q_b_proj", MD_Q_B, q, c->q_lora);
    } else matrix(b, m, "q_proj", MD_Q, q, c->hidden);
    matrix(b, m, "kv_a_proj_with_mqa", MD_KV_A, c->kv_lora + c->qk_rope, c->hidden)->bias =
        c->k_bias;
    norm(b, m, "kv_a_layernorm", MD_KV_A_NORM, c->kv_lora, false);
    if (b->layout.kv_b)
        matrix(b, m, "kv_b_proj", MD_KV_B, c->n_heads * (c->qk_nope + c->v_dim), c->kv_lora);
    else {
        matrix(b, m, "embed_q", MD_EMBED_Q, c->kv_lora, c->qk_nope)->count = c->n_heads;
        matrix(b, m, "unembed_out", MD_UNEMBED, c->v_dim, c->kv_lora)->count = c->n_heads;
    }
    matrix(b, m, "o_proj", MD_O, c->hidden, c->n_heads * c->v_dim)->bias = c->o_bias;
}

static void add_conv(builder *b, int channels, bool bias)
{
    md_spec *s = vector(b, b->c->names.mixer, "conv1d.weight", MD_CONV, channels);
    s->cols = b->c->conv_width;
    s->conv = true;
    if (bias) vector(b, b->c->names.mixer, "conv1d.bias", MD_CONV_BIAS, channels);
}

static void add_deltanet(builder *b)
{
    const md_arch *c = b->c;
    const char *m = c->names.mixer;
    int kd = c->dn_k_heads * c->dn_k_dim, vd = c->dn_v_heads * c->dn_v_dim, nv = c->dn_v_heads;
    if (c->family->flat_delta) {
        matrix(b, m, "in_proj_qkv", MD_DN_QKV, 2 * kd + vd, c->hidden);
        matrix(b, m, "in_proj_z", MD_DN_Z, vd, c->hidden);
        matrix(b, m, "in_proj_b", MD_DN_B, nv, c->hidden);
        matrix(b, m, "in_proj_a", MD_DN_A, nv, c->hidden);
    } else {
        md_spec *qkvz = matrix(b, m, "in_proj_qkvz", MD_DN_QKV, 2 * kd + 2 * vd, c->hidden);
        qkvz->order = MD_ORDER_QKVZ;
        part(qkvz, MD_DN_Z, vd);
        md_spec *ba = matrix(b, m, "in_proj_ba", MD_DN_B, 2 * nv, c->hidden);
        ba->order = MD_ORDER_BA;
        part(ba, MD_DN_A, nv);
    }
    add_conv(b, 2 * kd + vd, false);
    vector(b, m, "A_log", MD_A_LOG, nv)->keeps_f32 = c->family->flat_delta;
    vector(b, m, "dt_bias", MD_DT_BIAS, nv);
    norm(b, m, "norm", MD_MIX_NORM, c->dn_v_dim, false);
    matrix(b, m, "out_proj", MD_O, c->hidden, vd);
}

static void add_mamba1(builder *b)
{
    const md_arch *c = b->c;
    const char *m = c->names.mixer;
    int di = c->ssm_inner, ds = c->ssm_state, dr = c->ssm_dt_rank;
    matrix(b, m, "in_proj", MD_SSM_IN, 2 * di, c->hidden)->bias = c->ssm_proj_bias;
    add_conv(b, di, c->ssm_conv_bias);
    matrix(b, m, "x_proj", MD_SSM_X, dr + 2 * ds, di);
    matrix(b, m, "dt_proj", MD_SSM_DT, di, dr)->bias = true;
    vector(b, m, "A_log", MD_A_LOG, di)->cols = ds;
    vector(b, m, "D", MD_D, di);
    norm(b, m, "dt_layernorm", MD_DT_NORM, dr, false);
    norm(b, m, "b_layernorm", MD_B_NORM, ds, false);
    norm(b, m, "c_layernorm", MD_C_NORM, ds, false);
    matrix(b, m, "out_proj", MD_O, c->hidden, di)->bias = c->ssm_proj_bias;
}

static void add_mamba2(builder *b)
{
    const md_arch *c = b->c;
    const char *m = c->names.mixer;
    int di = c->ssm_inner, channels = di + 2 * c->ssm_groups * c->ssm_state, nh = c->ssm_heads;
    matrix(b, m, "in_proj", MD_SSM_IN, di + channels + nh, c->hidden)->bias = c->ssm_proj_bias;
    add_conv(b, channels, c->ssm_conv_bias);
    vector(b, m, "A_log", MD_A_LOG, nh);
    vector(b, m, "D", MD_D, nh);
    vector(b, m, "dt_bias", MD_DT_BIAS, nh);
    norm(b, m, "norm", MD_MIX_NORM, di, false);
    matrix(b, m, "out_proj", MD_O, c->hidden, di)->bias = c->ssm_proj_bias;
}

/* --- feed-forward ----------------------------------------------------------------------------- */

static void add_dense(builder *b)
{
    const md_arch *c = b->c;
    int width = c->layer[b->layer].dense_width;
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    for (int p = 0; p < 3; p++)
        matrix(b, c->names.mlp, names[p], MD_DENSE_GATE + p, p == 2 ? c->hidden : width,
               p == 2 ? width : c->hidden)
            ->bias = c->mlp_bias;
}

static void add_shared(builder *b)
{
    const md_arch *c = b->c;
    const md_names *n = &c->names;
    int width = c->layer[b->layer].shared_width;
    if (!width) return;
    if (n->shared_fused) {
        part(matrix(b, NULL, n->shared_fused, MD_SHARED_GATE, 2 * width, c->hidden), MD_SHARED_UP,
             width);
        matrix(b, NULL, n->shared_output, MD_SHARED_DOWN, c->hidden, width);
        return;
    }
    matrix(b, n->shared, "gate_proj", MD_SHARED_GATE, width, c->hidden);
    matrix(b, n->shared, "up_proj", MD_SHARED_UP, width, c->hidden);
    matrix(b, n->shared, "down_proj", MD_SHARED_DOWN, c->hidden, width);
    if (!n->shared_switch) return;
    md_spec *s = matrix(b, NULL, n->shared_switch, MD_SHARED_SWITCH, c->family->shared_mix ? 2 : 1,
                        c->hidden);
    s->bits = c->family->switch_8bit ? 8 : MD_BITS_GLOBAL;
    s->bias = c->family->shared_mix;
}

static void add_moe(builder *b)
{
    const md_arch *c = b->c;
    const md_names *n = &c->names;
    char router[96];
    snprintf(router, sizeof router, "%.*s", b->layout.router_length, b->layout.router);
    md_spec *s = matrix(b, n->moe, router, MD_ROUTER, c->n_experts, c->hidden);
    s->bits = c->family->router_float ? MD_BITS_NEVER : c->family->router_8bit ? 8 : MD_BITS_GLOBAL;
    s->bias = c->router.linear_bias;
    if (c->router.bias) {
        md_spec *bias = vector(b, n->moe, n->router_bias, MD_ROUTER_BIAS, c->n_experts);
        bias->optional = c->router.score == MD_SCORE_SOFTMAX;
        bias->keeps_f32 = true;
    }
    int width = c->layer[b->layer].expert_width;
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    for (int p = 0; p < 3; p++) {
        char path[96];
        snprintf(path, sizeof path, "%s.%s", n->stacked, names[p]);
        s = matrix(b, n->moe, path, MD_EXPERT_GATE + p, p == 2 ? c->hidden : width,
                   p == 2 ? width : c->hidden);
        s->kind = MD_EXPERTS;
        s->count = c->n_experts;
        s->moe_layer = b->moe_layer;
        s->bias = c->expert_bias;
    }
    b->moe_layer++;
    add_shared(b);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void add_layer(builder *b)
{
    const md_arch *c = b->c;
    layer_norm(b, c->names.in_norm, MD_IN_NORM, MD_IN_NORM_BIAS);
    switch (c->layer[b->layer].mixer) {
    case MD_ATTENTION: add_attention(b); break;
    case MD_MLA: add_mla(b); break;
    case MD_DELTANET: add_deltanet(b); break;
    case MD_MAMBA1: add_mamba1(b); break;
    case MD_MAMBA2: add_mamba2(b); break;
    }
    layer_norm(b, c->names.post_norm, MD_POST_NORM, MD_POST_NORM_BIAS);
    if (c->layer[b->layer].moe) add_moe(b);
    else add_dense(b);
}

static md_spec *global_matrix(builder *b, char *name, md_mat role)
{
    md_spec *s = add(b, MD_MATRIX, name);
    s->rows = b->c->vocab;
    s->cols = b->c->hidden;
    s->part[0] = role;
    s->part_rows[0] = s->rows;
    s->n_parts = 1;
    return s;
}

static void add_final_norm(builder *b)
{
    const md_arch *c = b->c;
    const char *p = b->layout.prefix, *n = c->names.final_norm;
    md_spec *s = add(b, MD_VECTOR, bs_sprintf("%s%s.weight", p, n));
    *s = (md_spec){.name = s->name, .kind = MD_VECTOR, .layer = -1, .moe_layer = -1};
    s->rows = c->hidden;
    s->vec = MD_IN_NORM;
    s->plus_one = c->family->plus_one_norms;
    if (!c->family->layer_norm) return;
    s = add(b, MD_VECTOR, bs_sprintf("%s%s.bias", p, n));
    *s = (md_spec){.name = s->name, .kind = MD_VECTOR, .layer = -1, .moe_layer = -1};
    s->rows = c->hidden;
    s->vec = MD_IN_NORM_BIAS;
}

md_layout md_layout_of(const md_arch *c)
{
    md_layout l = {.prefix = c->names.prefix, .head = c->names.head, .tied = c->tied};
    if (!strcmp(l.prefix, "language_model.model.")) l.head = "language_model.lm_head";
    l.kv_b = c->family->kv_b_kept;
    l.router = c->names.router;
    l.router_length = (int)strcspn(l.router, "|");
    return l;
}

fm_status md_schema_build(const md_arch *c, md_layout layout, md_schema *out, fm_error *err)
{
    *out = (md_schema){0};
    builder b = {.c = c, .layout = layout, .out = out, .layer = -1};
    global_matrix(&b, bs_sprintf("%s%s", layout.prefix, c->names.embed), MD_EMBED);
    for (b.layer = 0; b.layer < c->n_layers && !b.failed; b.layer++) add_layer(&b);
    b.layer = -1;
    add_final_norm(&b);
    if (!layout.tied)
        global_matrix(&b, bs_strdup(layout.head), MD_HEAD)->bias = c->family->head_bias;
    if (!b.failed) return FM_OK;
    md_schema_free(out);
    return fm_fail_nomem(err, "listing the model's tensors");
}

void md_schema_free(md_schema *s)
{
    for (size_t i = 0; i < s->n; i++) bs_free(s->spec[i].name);
    bs_free(s->spec);
    *s = (md_schema){0};
}

static int qkvz_row(const md_arch *c, int i)
{
    int dk = c->dn_k_dim, r = c->dn_v_heads / c->dn_k_heads, dv = c->dn_v_dim;
    int kd = c->dn_k_heads * dk, vd = c->dn_v_heads * dv, block = 2 * dk + 2 * r * dv;
    if (i < kd) return i / dk * block + i % dk;
    i -= kd;
    if (i < kd) return i / dk * block + dk + i % dk;
    i -= kd;
    int z = i >= vd;
    if (z) i -= vd;
    return i / (r * dv) * block + 2 * dk + z * r * dv + i % (r * dv);
}

int md_source_row(const md_arch *c, md_order order, int i)
{
    int hd = c->head_dim, half = c->n_heads * hd, gate = i >= half;
    switch (order) {
    case MD_ORDER_PLAIN: return i;
    case MD_ORDER_QKVZ: return qkvz_row(c, i);
    case MD_ORDER_QUERY_GATE:
        if (gate) i -= half;
        return i / hd * 2 * hd + gate * hd + i % hd;
    case MD_ORDER_BA: break;
    }
    int r = c->dn_v_heads / c->dn_k_heads, a = i >= c->dn_v_heads;
    if (a) i -= c->dn_v_heads;
    return i / r * 2 * r + a * r + i % r;
}
