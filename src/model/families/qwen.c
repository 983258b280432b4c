/* Qwen: from plain GQA to gated delta nets. */
#include "model/families/families.h"

const md_family md_qwen2_moe = {
    .model_type = "qwen2_moe",
    .names = {.shared = "mlp.shared_expert", .shared_switch = "mlp.shared_expert_gate"},
    .bias = MD_BIAS_QKV,
    .moe_rule = MD_MOE_STEP,
    .shared_rule = MD_SHARED_WIDTH,
    .shared_field = "shared_expert_intermediate_size",
    .never_tied = true,
    .defaults = (const md_default[]){{"rope_theta", 1e6}, {NULL, 0}},
};

const md_family md_qwen3_moe = {
    .model_type = "qwen3_moe",
    .bias = MD_BIAS_CONFIG,
    .qk_norm = MD_QK_HEAD,
    .moe_rule = MD_MOE_STEP,
    .normalise = MD_NORM_CONFIG,
    .router_8bit = true,
    .defaults = (const md_default[]){{"rope_theta", 1e6}, {NULL, 0}},
};

/* The text part; images are not read. */
const md_family md_qwen3_vl_moe = {
    .model_type = "qwen3_vl_moe",
    .aliases = "qwen3_vl_moe_text",
    .names = {.prefix = "language_model.model."},
    .bias = MD_BIAS_CONFIG,
    .qk_norm = MD_QK_HEAD,
    .transposed_raw = true,
    .moe_rule = MD_MOE_STEP,
    .normalise = MD_NORM_CONFIG,
    .router_8bit = true,
    .defaults = (const md_default[]){{"rope_theta", 5e6}, {"norm_topk_prob", 1}, {NULL, 0}},
};

const md_family md_qwen3_next = {
    .model_type = "qwen3_next",
    .names = {.mixer = "linear_attn",
              .shared = "mlp.shared_expert",
              .shared_switch = "mlp.shared_expert_gate"},
    .second = MD_DELTANET,
    .mixer_rule = MD_MIX_INTERVAL,
    .reads_layer_types = true,
    .bias = MD_BIAS_CONFIG,
    .qk_norm = MD_QK_HEAD,
    .output_gate = true,
    .plus_one_norms = true,
    .moe_rule = MD_MOE_STEP,
    .shared_rule = MD_SHARED_WIDTH,
    .shared_field = "shared_expert_intermediate_size",
    .normalise = MD_NORM_CONFIG,
    .router_8bit = true,
    .switch_8bit = true,
    .defaults = (const md_default[]){{"partial_rotary_factor", 0.25}, {NULL, 0}},
};

const md_family md_qwen3_5_moe = {
    .model_type = "qwen3_5_moe",
    .aliases = "qwen3_5_moe_text qwen3_5 qwen3_5_text",
    .names = {.prefix = "language_model.model.",
              .mixer = "linear_attn",
              .shared = "mlp.shared_expert",
              .shared_switch = "mlp.shared_expert_gate"},
    .second = MD_DELTANET,
    .mixer_rule = MD_MIX_INTERVAL,
    .reads_layer_types = true,
    .bias = MD_BIAS_CONFIG,
    .qk_norm = MD_QK_HEAD,
    .output_gate = true,
    .flat_delta = true,
    .plus_one_norms = true,
    .moe_rule = MD_MOE_ALL,
    .shared_rule = MD_SHARED_WIDTH,
    .shared_field = "shared_expert_intermediate_size",
    .normalise = MD_NORM_CONFIG,
    .router_8bit = true,
    .switch_8bit = true,
    .defaults =
        (const md_default[]){
            {"hidden_size", 4096},
            {"intermediate_size", 14336},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"vocab_size", 151936},
            {"max_position_embeddings", 131072},
            {"linear_num_value_heads", 64},
            {"linear_num_key_heads", 16},
            {"linear_key_head_dim", 192},
            {"linear_value_head_dim", 128},
            {"linear_conv_kernel_dim", 4},
            {"num_experts", 0},
            {"norm_topk_prob", 1},
            {"rope_theta", 100000},
            {"partial_rotary_factor", 0.25},
            {NULL, 0},
        },
};
