/* config.h - config.json as one struct, checked: after md_config_read every number in it is inside
 * its range and they agree with each other, so that no later code asks again. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "model/family.h"

#include <jansson.h>

enum { MD_MAX_LAYERS = 1024, MD_MAX_EXPERTS = 65536, MD_MAX_TOP_K = 64, MD_MAX_GROUPS = 1024 };

typedef enum md_rope_kind {
    MD_ROPE_DEFAULT,
    MD_ROPE_LINEAR,
    MD_ROPE_LLAMA3,
    MD_ROPE_YARN,
    MD_ROPE_LONG,
} md_rope_kind;

/* Rotary positions; see rope.c for what each kind does with the numbers. */
typedef struct md_rope_config {
    md_rope_kind kind;
    kn_rope_layout layout;
    int dims; /* rotated elements of a head, even; 0: no positions */
    double theta, factor;
    double original; /* original_max_position_embeddings */
    double low_freq, high_freq;
    double beta_fast, beta_slow, mscale, mscale_all_dim;
    bool truncate;           /* yarn: round the ramp's ends to whole dimensions */
    double attention_factor; /* longrope: multiplies cos and sin */
    double long_factor[256]; /* longrope: one a pair */
} md_rope_config;

/* One layer: which blocks, how wide. */
typedef struct md_layer_config {
    md_mixer mixer;
    bool moe;
    bool rope;        /* attention: positions rotate */
    int kv_from;      /* attention: the layer whose k and v projections are used; own index */
    int window;       /* attention: positions seen, 0 all */
    int top_k;        /* MoE */
    int expert_width; /* MoE: I */
    int shared_width; /* MoE: 0 none */
    int dense_width;  /* F, of layers without experts */
} md_layer_config;

typedef struct md_arch {
    const md_family *family;
    md_names names; /* the family's, holes filled */
    char model_type[48];
    int hidden, n_layers, vocab, max_context;
    bool tied;
    float norm_eps;
    float embed_scale, residual_scale, logit_scale; /* logits are multiplied by logit_scale */

    /* attention; MLA uses n_heads, qk_nope, qk_rope, v_dim, q_lora, kv_lora */
    int n_heads, n_kv_heads, head_dim;
    bool q_bias, k_bias, v_bias, o_bias;
    md_qk_norm qk_norm;
    float attention_scale;
    md_rope_config rope;
    int q_lora, kv_lora, qk_nope, qk_rope, v_dim;
    float lora_norm_eps;

    /* gated delta net */
    int dn_k_heads, dn_v_heads, dn_k_dim, dn_v_dim;
    int conv_width; /* of the delta net and of both Mambas */

    /* Mamba: inner width, state size, dt rank (1); heads, head width, groups (2) */
    int ssm_inner, ssm_state, ssm_dt_rank, ssm_heads, ssm_head_dim, ssm_groups;
    bool ssm_conv_bias, ssm_proj_bias;
    float ssm_dt_min, ssm_dt_max;

    /* experts */
    int n_experts; /* 0: no layer has any */
    md_router router;
    bool expert_bias;                 /* the experts' projections have biases */
    bool mlp_bias;                    /* dense and shared projections have biases */
    float swiglu_alpha, swiglu_limit; /* clamped SwiGLU when limit > 0 */

    md_layer_config layer[MD_MAX_LAYERS];
} md_arch;

/* `json` is the whole config.json object, `path` names it in errors. Only an unknown model_type
 * or an option that no block here implements is FM_E_UNSUPPORTED; wrong values are FM_E_FORMAT. */
fm_status md_config_read(md_arch *c, const json_t *json, const char *path, bool mlx_router,
                         fm_error *err);

/* The object that holds the language model's fields: text_config where there is one. */
const json_t *md_config_text(const json_t *json);

#endif
