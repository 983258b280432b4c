#include "model/config.h"

#include "model/fields.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20, MAX_HEADS = 4096, MAX_HEAD_DIM = KN_ATT_MAX_DIM };

const json_t *md_config_text(const json_t *json)
{
    const json_t *text = json_object_get(json, "text_config");
    return json_is_object(text) ? text : json;
}

static void read_common(md_arch *c, md_fields *f)
{
    c->hidden = md_field_int(f, "hidden_size", 1, MAX_WIDTH, MD_REQUIRED);
    c->n_layers = md_field_int(f, "num_hidden_layers", 1, MD_MAX_LAYERS, MD_REQUIRED);
    c->vocab = md_field_int(f, "vocab_size", 1, 1 << 24, MD_REQUIRED);
    c->max_context = md_field_int(f, "max_position_embeddings", 1, 1 << 30, 4096);
    c->norm_eps = (float)md_field_number(f, "rms_norm_eps", 1e-12, 1, 1e-6);
    c->tied = md_field_bool(f, "tie_word_embeddings", false);
    if (c->family->always_tied) c->tied = true;
    if (c->family->never_tied) c->tied = false;
    c->embed_scale = c->residual_scale = c->logit_scale = 1;
    if (c->family->multipliers) {
        c->embed_scale = (float)md_field_number(f, "embedding_multiplier", 1e-6, 1e6, 1);
        c->residual_scale = (float)md_field_number(f, "residual_multiplier", 1e-6, 1e6, 1);
        c->logit_scale = 1 / (float)md_field_number(f, "logits_scaling", 1e-6, 1e6, 1);
    }
    c->mlp_bias = md_field_bool(f, "mlp_bias", false);
    if (c->family->clamped_swiglu) {
        c->swiglu_alpha = 1.702f;
        c->swiglu_limit = (float)md_field_number(f, "swiglu_limit", 1e-3, 1e6, 7);
    }
}

static void read_biases(md_arch *c, md_fields *f)
{
    md_bias_rule rule = c->family->bias;
    bool by_config = md_field_bool(f, "attention_bias", false) ||
                     md_field_bool(f, "use_qkv_bias", false) || md_field_bool(f, "use_bias", false);
    bool qkv = rule == MD_BIAS_QKV || rule == MD_BIAS_ALL ||
               ((rule == MD_BIAS_CONFIG || rule == MD_BIAS_CONFIG_QKV) && by_config);
    c->q_bias = c->k_bias = c->v_bias = qkv;
    c->o_bias = rule == MD_BIAS_ALL || (rule == MD_BIAS_CONFIG && by_config);
}

static void read_attention(md_arch *c, md_fields *f)
{
    c->n_heads = md_field_int(f, "num_attention_heads", 1, MAX_HEADS, MD_REQUIRED);
    c->n_kv_heads = md_field_int(f, "num_key_value_heads", 1, MAX_HEADS, c->n_heads);
    if (c->n_heads % c->n_kv_heads)
        md_field_fail(f, FM_E_FORMAT, "num_key_value_heads",
                      "is %d, it must divide num_attention_heads %d", c->n_kv_heads, c->n_heads);
    bool given = md_field_present(f, "head_dim") && !c->family->ignores_head_dim;
    if (!given && c->hidden % c->n_heads)
        md_field_fail(f, FM_E_FORMAT, "hidden_size", "is %d, not a multiple of the %d heads",
                      c->hidden, c->n_heads);
    c->head_dim = given ? md_field_int(f, "head_dim", 1, MAX_HEAD_DIM, 1) : c->hidden / c->n_heads;
    read_biases(c, f);
    c->qk_norm = c->family->qk_norm;
    const char *field = c->family->qk_norm_field;
    if (field && !md_field_bool(f, field, false)) c->qk_norm = MD_QK_NONE;
    c->attention_scale = (float)(1 / sqrt((double)c->head_dim));
    if (c->family->multipliers)
        c->attention_scale =
            (float)md_field_number(f, "attention_multiplier", 1e-9, 1e6, c->attention_scale);
}

static void read_mla(md_arch *c, md_fields *f)
{
    c->n_heads = md_field_int(f, "num_attention_heads", 1, MAX_HEADS, MD_REQUIRED);
    c->n_kv_heads = 1;
    /* null is a value here: a full-rank query, whatever the family's default */
    bool full_rank = json_is_null(json_object_get(f->json, "q_lora_rank"));
    c->q_lora = full_rank ? 0 : md_field_int(f, "q_lora_rank", 0, MAX_WIDTH, 0);
    c->kv_lora = md_field_int(f, "kv_lora_rank", 1, MAX_WIDTH, MD_REQUIRED);
    c->qk_nope = md_field_int(f, "qk_nope_head_dim", 1, MAX_HEAD_DIM, MD_REQUIRED);
    c->qk_rope = md_field_int(f, "qk_rope_head_dim", 2, MAX_HEAD_DIM, MD_REQUIRED);
    c->v_dim = md_field_int(f, "v_head_dim", 1, MAX_HEAD_DIM, MD_REQUIRED);
    c->head_dim = c->qk_nope + c->qk_rope;
    c->q_bias = c->o_bias = c->k_bias = md_field_bool(f, "attention_bias", false);
    c->lora_norm_eps = c->family->lora_norm_eps > 0 ? (float)c->family->lora_norm_eps : c->norm_eps;
    c->attention_scale = (float)(1 / sqrt((double)c->head_dim));
}

static void read_deltanet(md_arch *c, md_fields *f)
{
    c->dn_v_heads = md_field_int(f, "linear_num_value_heads", 1, MAX_HEADS, MD_REQUIRED);
    c->dn_k_heads = md_field_int(f, "linear_num_key_heads", 1, MAX_HEADS, MD_REQUIRED);
    c->dn_k_dim = md_field_int(f, "linear_key_head_dim", 1, MAX_HEAD_DIM, MD_REQUIRED);
    c->dn_v_dim = md_field_int(f, "linear_value_head_dim", 1, MAX_HEAD_DIM, MD_REQUIRED);
    c->conv_width = md_field_int(f, "linear_conv_kernel_dim", 2, 64, MD_REQUIRED);
    if (c->dn_v_heads % c->dn_k_heads)
        md_field_fail(f, FM_E_FORMAT, "linear_num_value_heads",
                      "is %d, not a multiple of linear_num_key_heads %d", c->dn_v_heads,
                      c->dn_k_heads);
}

static void read_mamba1(md_arch *c, md_fields *f)
{
    int expand = md_field_int(f, "mamba_expand", 1, 64, MD_REQUIRED);
    if (c->hidden > MAX_WIDTH / expand)
        md_field_fail(f, FM_E_FORMAT, "mamba_expand", "makes the layers too wide");
    else c->ssm_inner = expand * c->hidden;
    c->ssm_state = md_field_int(f, "mamba_d_state", 1, 65536, MD_REQUIRED);
    c->conv_width = md_field_int(f, "mamba_d_conv", 2, 64, MD_REQUIRED);
    const json_t *rank = json_object_get(f->json, "mamba_dt_rank");
    c->ssm_dt_rank = json_is_integer(rank)
                         ? md_field_int(f, "mamba_dt_rank", 1, MAX_WIDTH, MD_REQUIRED)
                         : (c->hidden + 15) / 16; /* missing or "auto" */
    c->ssm_conv_bias = md_field_bool(f, "mamba_conv_bias", true);
    c->ssm_proj_bias = md_field_bool(f, "mamba_proj_bias", false);
}

static void read_mamba2(md_arch *c, md_fields *f)
{
    c->ssm_heads = md_field_int(f, "mamba_n_heads", 1, MAX_HEADS, MD_REQUIRED);
    c->ssm_head_dim = md_field_int(f, "mamba_d_head", 1, MAX_HEAD_DIM, MD_REQUIRED);
    c->ssm_groups = md_field_int(f, "mamba_n_groups", 1, MAX_HEADS, MD_REQUIRED);
    c->ssm_state = md_field_int(f, "mamba_d_state", 1, 65536, MD_REQUIRED);
    c->conv_width = md_field_int(f, "mamba_d_conv", 2, 64, MD_REQUIRED);
    c->ssm_conv_bias = md_field_bool(f, "mamba_conv_bias", true);
    c->ssm_proj_bias = md_field_bool(f, "mamba_proj_bias", false);
    if (c->ssm_heads % c->ssm_groups)
        md_field_fail(f, FM_E_FORMAT, "mamba_n_groups", "is %d, it must divide mamba_n_heads %d",
                      c->ssm_groups, c->ssm_heads);
    c->ssm_inner = c->ssm_heads * c->ssm_head_dim;
    /* mlx-lm's default; Hugging Face clips nothing */
    c->ssm_dt_min = 0.001f;
    c->ssm_dt_max = 100;
    const json_t *limit = md_field_array(f, "time_step_limit");
    if (!limit) return;
    c->ssm_dt_min = (float)json_number_value(json_array_get(limit, 0));
    c->ssm_dt_max = (float)json_number_value(json_array_get(limit, 1));
    if (json_is_string(json_array_get(limit, 1))) c->ssm_dt_max = INFINITY; /* "inf" */
    if (!(c->ssm_dt_min >= 0 && c->ssm_dt_max > c->ssm_dt_min))
        md_field_fail(f, FM_E_FORMAT, "time_step_limit", "must be two rising numbers");
}

static bool normalises(const md_family *y, md_fields *f, bool mlx_router)
{
    bool yes = y->normalise == MD_NORM_ALWAYS ||
               (y->normalise == MD_NORM_CONFIG && md_field_bool(f, "norm_topk_prob", false));
    return mlx_router && y->mlx_differs ? !yes : yes;
}

static void read_groups(md_arch *c, md_fields *f)
{
    md_router *r = &c->router;
    const char *method = md_field_string(f, "topk_method", "");
    if (r->group_rule == MD_GROUP_MAX && strcmp(method, "group_limited_greedy"))
        r->group_rule = MD_GROUP_NONE;
    if (r->group_rule == MD_GROUP_NONE) return;
    int most = c->n_experts < MD_MAX_GROUPS ? c->n_experts : MD_MAX_GROUPS;
    r->n_group = md_field_int(f, "n_group", 1, most, 1);
    r->topk_group = md_field_int(f, "topk_group", 1, r->n_group, 1);
    if (r->n_group == 1) r->group_rule = MD_GROUP_NONE;
    else if (c->n_experts % r->n_group ||
             (r->group_rule == MD_GROUP_TOP2_SUM && c->n_experts / r->n_group < 2))
        md_field_fail(f, FM_E_FORMAT, "n_group", "is %d, it does not divide the %d experts",
                      r->n_group, c->n_experts);
}

static void read_experts(md_arch *c, md_fields *f, bool mlx_router)
{
    const md_family *y = c->family;
    const char *experts = y->experts_field ? y->experts_field : "num_experts";
    c->n_experts = md_field_int(f, experts, 0, MD_MAX_EXPERTS, MD_REQUIRED);
    c->router = y->router;
    if (!c->n_experts) return;
    if (c->router.scale == 0) c->router.scale = 1;
    c->router.scale *= (float)md_field_number(f, "routed_scaling_factor", 1e-6, 1e6, 1);
    if (y->scoring_field) {
        const char *score = md_field_string(f, "scoring_func", NULL);
        if (!score) score = md_field_string(f, "score_function", NULL);
        if (score && !strcmp(score, "softmax")) c->router.score = MD_SCORE_SOFTMAX;
        else if (score && !strcmp(score, "sigmoid")) c->router.score = MD_SCORE_SIGMOID;
        else if (score)
            md_field_fail(f, FM_E_UNSUPPORTED, "scoring_func",
                          "\"%s\" is not supported (softmax and sigmoid are)", score);
    }
    read_groups(c, f);
    if (mlx_router) c->router.sparsemixer = 0;
    else if (c->router.sparsemixer > 0)
        c->router.sparsemixer = (float)md_field_number(f, "router_jitter_noise", 1e-6, 1, 0.01);
}

static bool in_list(const json_t *list, int n)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == n) return true;
    return false;
}

static bool has_experts(const md_arch *c, md_fields *f, int n)
{
    if (!c->n_experts) return false;
    switch (c->family->moe_rule) {
    case MD_MOE_ALL: return true;
    case MD_MOE_STEP:
        return !in_list(md_field_array(f, "mlp_only_layers"), n) &&
               (n + 1) % md_field_int(f, "decoder_sparse_step", 1, MD_MAX_LAYERS, 1) == 0;
    case MD_MOE_FIRST_K:
        return n >= md_field_int(f, "first_k_dense_replace", 0, MD_MAX_LAYERS, 0) &&
               n % md_field_int(f, "moe_layer_freq", 1, MD_MAX_LAYERS, 1) == 0;
    case MD_MOE_PERIOD:
        return n % md_field_int(f, "expert_layer_period", 1, MD_MAX_LAYERS, 2) ==
               md_field_int(f, "expert_layer_offset", 0, MD_MAX_LAYERS, 1);
    case MD_MOE_RANGE:
        return n >= md_field_int(f, "moe_layer_start_index", 0, MD_MAX_LAYERS, 0) &&
               n <= md_field_int(f, "moe_layer_end_index", -1, MD_MAX_LAYERS, c->n_layers - 1) &&
               (n + 1) % md_field_int(f, "moe_layer_interval", 1, MD_MAX_LAYERS, 1) == 0;
    }
    return false;
}

static int shared_width(const md_arch *c, md_fields *f, int n)
{
    const md_family *y = c->family;
    const char *field = y->shared_field;
    long width = 0;
    switch (y->shared_rule) {
    case MD_SHARED_NONE: break;
    case MD_SHARED_WIDTH: width = md_field_int(f, field, 0, MAX_WIDTH, 0); break;
    case MD_SHARED_COUNT:
        width = (long)md_field_int(f, field, 0, 1024, 0) * c->layer[n].expert_width;
        break;
    case MD_SHARED_DENSE:
        width = (long)md_field_int_at(f, field, n, 0, 1024, 0) *
                md_field_int(f, "intermediate_size", 1, MAX_WIDTH, MD_REQUIRED);
        break;
    }
    if (width > MAX_WIDTH) md_field_fail(f, FM_E_FORMAT, field, "makes the shared expert too wide");
    return (int)(width > MAX_WIDTH ? 0 : width);
}

static void read_ffn(md_arch *c, md_fields *f, int n)
{
    md_layer_config *l = &c->layer[n];
    const md_family *y = c->family;
    l->moe = has_experts(c, f, n);
    if (!l->moe) {
        l->dense_width = md_field_int(f, "intermediate_size", 1, MAX_WIDTH, MD_REQUIRED);
        if (!c->n_experts && y->names.shared_fused)
            l->dense_width =
                md_field_int(f, "shared_intermediate_size", 1, MAX_WIDTH, l->dense_width);
        return;
    }
    const char *top_k = y->top_k_field ? y->top_k_field : "num_experts_per_tok";
    const char *width = y->width_field ? y->width_field : "moe_intermediate_size";
    if (!md_field_present(f, width) && md_field_present(f, "intermediate_size") &&
        y->shared_rule == MD_SHARED_DENSE)
        width = "intermediate_size"; /* Hunyuan: null means the dense width */
    l->top_k = md_field_int_at(f, top_k, n, 1, MD_MAX_TOP_K, MD_REQUIRED);
    if (l->top_k > c->n_experts && !f->status)
        md_field_fail(f, FM_E_FORMAT, top_k, "is %d, but there are only %d experts", l->top_k,
                      c->n_experts);
    if (c->router.sparsemixer > 0 && l->top_k != 2)
        md_field_fail(f, FM_E_UNSUPPORTED, top_k, "is %d: this router chooses 2", l->top_k);
    int kept = c->n_experts / (c->router.n_group ? c->router.n_group : 1) * c->router.topk_group;
    if (c->router.group_rule != MD_GROUP_NONE && l->top_k > kept)
        md_field_fail(f, FM_E_FORMAT, top_k, "is %d, but topk_group leaves %d experts", l->top_k,
                      kept);
    l->expert_width = md_field_int_at(f, width, n, 1, MAX_WIDTH, MD_REQUIRED);
    l->shared_width = shared_width(c, f, n);
}

static bool is_full_attention(const md_arch *c, md_fields *f, int n)
{
    switch (c->family->mixer_rule) {
    case MD_MIX_ALL: return true;
    case MD_MIX_INTERVAL:
        return (n + 1) % md_field_int(f, "full_attention_interval", 1, MD_MAX_LAYERS, 4) == 0;
    case MD_MIX_PERIOD:
        return n % md_field_int(f, "attn_layer_period", 1, MD_MAX_LAYERS, MD_REQUIRED) ==
               md_field_int(f, "attn_layer_offset", 0, MD_MAX_LAYERS, MD_REQUIRED);
    case MD_MIX_TYPES: break;
    }
    if (!md_field_present(f, "layer_types"))
        md_field_fail(f, FM_E_FORMAT, "layer_types", "is missing");
    return true;
}

static void read_mixer(md_arch *c, md_fields *f, int n)
{
    md_layer_config *l = &c->layer[n];
    const md_family *y = c->family;
    const char *positions = md_field_string(f, "position_embedding_type", "rope");
    l->rope = !y->no_rope && strcmp(positions, "nope") != 0;
    l->kv_from = n;
    if (y->cla && md_field_bool(f, "use_cla", false))
        l->kv_from = n - n % md_field_int(f, "cla_share_factor", 1, MD_MAX_LAYERS, 2);
    const json_t *types = y->reads_layer_types ? md_field_array(f, "layer_types") : NULL;
    if (!types) {
        l->mixer = is_full_attention(c, f, n) ? y->mixer : y->second;
        if (y->windows && n % 2 == 0) /* gpt-oss: every second layer slides */
            l->window = md_field_int(f, "sliding_window", 1, 1 << 30, MD_REQUIRED);
        return;
    }
    const char *type = json_string_value(json_array_get(types, (size_t)n));
    if (!type) md_field_fail(f, FM_E_FORMAT, "layer_types", "has no name for layer %d", n);
    else if (!strcmp(type, "full_attention") || !strcmp(type, "attention")) l->mixer = y->mixer;
    else if (!strcmp(type, "sliding_attention") && y->windows) {
        l->mixer = y->mixer;
        l->window = md_field_int(f, "sliding_window", 1, 1 << 30, MD_REQUIRED);
    } else if ((!strcmp(type, "linear_attention") || !strcmp(type, "mamba")) &&
               y->mixer_rule != MD_MIX_ALL)
        l->mixer = y->second;
    else
        md_field_fail(f, FM_E_UNSUPPORTED, "layer_types",
                      "names \"%s\" for layer %d, which this family does not know", type, n);
}

static bool uses(const md_arch *c, md_mixer mixer)
{
    for (int n = 0; n < c->n_layers; n++)
        if (c->layer[n].mixer == mixer) return true;
    return false;
}

static void check_only(md_fields *f, const md_only *only)
{
    for (; only && only->field; only++) {
        const json_t *v = json_object_get(f->json, only->field);
        if (!v || json_is_null(v)) continue;
        char text[64] = "";
        if (json_is_string(v)) snprintf(text, sizeof text, "%s", json_string_value(v));
        else if (json_is_boolean(v)) strcpy(text, json_is_true(v) ? "true" : "false");
        else if (json_is_number(v)) snprintf(text, sizeof text, "%.12g", json_number_value(v));
        if (strcmp(text, only->value))
            md_field_fail(f, FM_E_UNSUPPORTED, only->field, "\"%s\" is not supported (\"%s\" is)",
                          text, only->value);
    }
}

fm_status md_config_read(md_arch *c, const json_t *json, const char *path, bool mlx_router,
                         fm_error *err)
{
    memset(c, 0, sizeof *c);
    const json_t *text = md_config_text(json);
    const char *type = json_string_value(json_object_get(json, "model_type"));
    if (!type) type = json_string_value(json_object_get(text, "model_type"));
    if (!type) return fm_fail(err, FM_E_FORMAT, "%s: model_type is missing", path);
    fm_status status = md_family_find(type, &c->family, err);
    if (status) return status;
    snprintf(c->model_type, sizeof c->model_type, "%s", c->family->model_type);
    c->names = md_family_names(c->family);
    md_fields f = {.json = text, .path = path, .defaults = c->family->defaults, .err = err};
    check_only(&f, c->family->only);
    read_common(c, &f);
    if (f.status) return f.status;
    for (int n = 0; n < c->n_layers && !f.status; n++) read_mixer(c, &f, n);
    if (uses(c, MD_ATTENTION)) read_attention(c, &f);
    if (uses(c, MD_MLA)) read_mla(c, &f);
    if (uses(c, MD_DELTANET)) read_deltanet(c, &f);
    if (uses(c, MD_MAMBA1)) read_mamba1(c, &f);
    if (uses(c, MD_MAMBA2)) read_mamba2(c, &f);
    if (f.status) return f.status;
    if (uses(c, MD_ATTENTION) || uses(c, MD_MLA)) md_rope_read(c, &f);
    read_experts(c, &f, mlx_router);
    for (int n = 0; n < c->n_layers && !f.status; n++) read_ffn(c, &f, n);
    c->router.normalise = normalises(c->family, &f, mlx_router);
    c->expert_bias = c->family->clamped_swiglu || c->mlp_bias;
    return f.status;
}
