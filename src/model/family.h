/* family.h - what a model family is: data. Names of tensors, which blocks, which switches, which
 * defaults for missing fields of config.json. No family has code of its own in the forward pass;
 * docs/ADDING_A_FAMILY.md shows how to add one. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include "base/error.h"
#include "kernels/kernels.h"

#include <stdbool.h>

typedef enum md_mixer {
    MD_ATTENTION, /* grouped-query attention, one block with flags */
    MD_MLA,       /* multi-head latent attention */
    MD_DELTANET,  /* gated delta net */
    MD_MAMBA1,
    MD_MAMBA2,
} md_mixer;

typedef enum md_qk_norm {
    MD_QK_NONE,
    MD_QK_HEAD,      /* each head, before the rotation */
    MD_QK_HEAD_POST, /* each head, after the rotation */
    MD_QK_FULL,      /* all heads together, before the rotation */
} md_qk_norm;

typedef enum md_bias_rule {
    MD_BIAS_NONE,
    MD_BIAS_CONFIG,     /* q, k, v, o where attention_bias is true */
    MD_BIAS_CONFIG_QKV, /* the same without o */
    MD_BIAS_QKV,        /* q, k, v always */
    MD_BIAS_ALL,        /* q, k, v, o always */
} md_bias_rule;

/* Which layers have experts. */
typedef enum md_moe_rule {
    MD_MOE_ALL,
    MD_MOE_STEP,    /* not in mlp_only_layers and (N + 1) % decoder_sparse_step == 0 */
    MD_MOE_FIRST_K, /* N >= first_k_dense_replace and N % moe_layer_freq == 0 */
    MD_MOE_PERIOD,  /* N % expert_layer_period == expert_layer_offset */
    MD_MOE_RANGE,   /* moe_layer_start_index .. end_index, every moe_layer_interval-th */
} md_moe_rule;

/* Which layers are full attention; the others have the family's second mixer. `layer_types` of
 * the config, where the family reads it, comes first. */
typedef enum md_mixer_rule {
    MD_MIX_ALL,
    MD_MIX_INTERVAL, /* (N + 1) % full_attention_interval == 0 */
    MD_MIX_PERIOD,   /* N % attn_layer_period == attn_layer_offset */
    MD_MIX_TYPES,    /* layer_types only */
} md_mixer_rule;

typedef enum md_shared_rule {
    MD_SHARED_NONE,
    MD_SHARED_WIDTH, /* width = shared_expert_intermediate_size or shared_intermediate_size */
    MD_SHARED_COUNT, /* width = expert width * n_shared_experts (or its alias) */
    MD_SHARED_DENSE, /* width = intermediate_size * num_shared_expert (int or list) */
} md_shared_rule;

typedef enum md_score { MD_SCORE_SOFTMAX, MD_SCORE_SIGMOID } md_score;
typedef enum md_group_rule { MD_GROUP_NONE, MD_GROUP_TOP2_SUM, MD_GROUP_MAX } md_group_rule;

/* How logits of the router become k experts and their weights; see router.c. */
typedef struct md_router {
    md_score score;
    md_group_rule group_rule;
    int n_group, topk_group;
    bool bias;        /* chosen by score + correction bias, weighted by the score alone */
    bool linear_bias; /* the router is a Linear with a bias */
    bool normalise;   /* weights / (their sum + norm_eps) */
    bool not_single;  /* a single chosen expert is not normalised */
    float norm_eps, scale;
    float sparsemixer; /* > 0: PhiMoE's two masked softmaxes with this jitter */
} md_router;

/* Where the router's switches come from. */
typedef enum md_normalise_rule {
    MD_NORM_NEVER,
    MD_NORM_ALWAYS,
    MD_NORM_CONFIG, /* norm_topk_prob */
} md_normalise_rule;

/* Module names. NULL takes the common one, written behind. Paths are relative to what is said. */
typedef struct md_names {
    const char *prefix;     /* "model." */
    const char *embed;      /* embed_tokens, below prefix */
    const char *final_norm; /* norm, below prefix */
    const char *head;       /* lm_head, with the prefix's outer part ("language_model.") */
    const char *in_norm;    /* input_layernorm, below the layer */
    const char *post_norm;  /* post_attention_layernorm */
    const char *attention;  /* self_attn */
    const char *q, *k, *v, *o, *q_norm, *k_norm; /* below attention: q_proj ... */
    const char *qkv;           /* one fused matrix (q, then k, then v); no default */
    const char *mixer;         /* linear_attn or mamba */
    const char *mlp;           /* mlp: dense layers */
    const char *moe;           /* mlp */
    const char *router;        /* gate, below moe */
    const char *router_bias;   /* gate.e_score_correction_bias, below moe */
    const char *stacked;       /* switch_mlp, below moe */
    const char *each;          /* experts, below moe: raw layouts */
    const char *proj[3];       /* gate_proj up_proj down_proj of one raw expert */
    const char *shared;        /* below the layer: mlp.shared_expert */
    const char *shared_switch; /* below the layer: mlp.shared_expert_gate; no default. One row: the
                                  shared expert times its sigmoid; see shared_mix for two */
    const char *shared_fused;  /* below the layer: one matrix gate|up, and its output; no default */
    const char *shared_output;
} md_names;

typedef struct md_default {
    const char *field;
    double value;
} md_default;

/* A field that may only have this value (a string, "true"/"false" or a number as text). */
typedef struct md_only {
    const char *field, *value;
} md_only;

typedef struct md_family {
    const char *model_type; /* ours, as `inspect` prints it */
    const char *aliases;    /* further values of model_type, separated by blanks */
    md_names names;

    md_mixer mixer, second; /* second: of layers that the rule does not make attention */
    md_mixer_rule mixer_rule;
    bool reads_layer_types;
    bool windows; /* layer_types' sliding_attention takes sliding_window */

    bool layer_norm; /* LayerNorm with biases instead of RMS */
    md_bias_rule bias;
    md_qk_norm qk_norm;
    const char *qk_norm_field; /* a boolean that switches qk_norm on and off; NULL: always */
    bool output_gate;          /* q_proj holds a sigmoid gate beside each head's query */
    bool sinks;
    bool interleaved_rope;
    bool no_rope;          /* or position_embedding_type "nope" */
    bool ignores_head_dim; /* head_dim is always hidden / heads */
    bool kv_b_kept;        /* MLA: the converter keeps kv_b_proj whole */
    double lora_norm_eps;  /* MLA: eps of the two inner norms; 0: rms_norm_eps */
    bool flat_delta;       /* delta net: split projections in plain order (Qwen3.5) */
    bool plus_one_norms;   /* raw checkpoints store w where 1 + w is meant */
    bool multipliers;      /* Granite's embedding, residual, attention, logits factors */
    bool head_bias;        /* lm_head has a bias */
    bool always_tied;
    bool never_tied;     /* tie_word_embeddings is ignored */
    bool clamped_swiglu; /* gpt-oss: interleaved raw rows, biases, clamp */
    bool cla;            /* cross-layer sharing of k and v projections */
    bool transposed_raw; /* raw stacked experts are [in][out]; told by the shape unless square */

    md_moe_rule moe_rule;
    const char *experts_field, *top_k_field, *width_field; /* NULL: num_experts,
                                                   num_experts_per_tok, moe_intermediate_size */
    md_shared_rule shared_rule;
    bool shared_mix; /* the switch has two rows: softmax weighs routed and shared experts */
    const char *shared_field;
    md_router router;
    md_normalise_rule normalise;
    bool mlx_differs;   /* mlx-lm normalises exactly where this family's rule does not */
    bool scoring_field; /* scoring_func says softmax or sigmoid */
    bool router_float;  /* the converter never quantises the router */
    bool router_8bit, switch_8bit;

    const md_default *defaults; /* ends with a NULL field */
    const md_only *only;        /* ends with a NULL field */
} md_family;

/* The family of a config's model_type; unknown: FM_E_UNSUPPORTED with the list of known ones. */
fm_status md_family_find(const char *model_type, const md_family **out, fm_error *err);

/* All families, NULL at the end of the list. */
const md_family *md_family_at(int i);

/* The family's names with the common ones in the holes. */
md_names md_family_names(const md_family *family);

#endif
