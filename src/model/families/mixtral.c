/* Mixtral and the families that took its tensor names: w1 is the gate, w3 up, w2 down. */
#include "model/families/families.h"

#define MIXTRAL_NAMES .moe = "block_sparse_moe", .proj = {"w1", "w3", "w2"}

const md_family md_mixtral = {
    .model_type = "mixtral",
    .names = {MIXTRAL_NAMES},
    .ignores_head_dim = true,
    .moe_rule = MD_MOE_ALL,
    .experts_field = "num_local_experts",
    .width_field = "intermediate_size",
    .normalise = MD_NORM_ALWAYS,
    .defaults =
        (const md_default[]){
            {"vocab_size", 32000},
            {"hidden_size", 4096},
            {"intermediate_size", 14336},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"num_experts_per_tok", 2},
            {"num_key_value_heads", 8},
            {"num_local_experts", 8},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 1e6},
            {NULL, 0},
        },
};

const md_family md_phimoe = {
    .model_type = "phimoe",
    .names = {MIXTRAL_NAMES},
    .layer_norm = true,
    .bias = MD_BIAS_ALL,
    .head_bias = true,
    .ignores_head_dim = true,
    .moe_rule = MD_MOE_ALL,
    .experts_field = "num_local_experts",
    .width_field = "intermediate_size",
    .router = {.sparsemixer = 0.01f},
    .normalise = MD_NORM_ALWAYS,
    .defaults =
        (const md_default[]){
            {"vocab_size", 32064},
            {"hidden_size", 4096},
            {"intermediate_size", 6400},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"max_position_embeddings", 131072},
            {"num_local_experts", 16},
            {"num_experts_per_tok", 2},
            {"rope_theta", 10000},
            {NULL, 0},
        },
};

/* MiniMax-M2. Hugging Face's own "minimax" (Text-01, lightning attention) is another model: its
 * attn_type_list names linear layers and is refused. */
const md_family md_minimax = {
    .model_type = "minimax",
    .aliases = "minimax_m2",
    .names = {MIXTRAL_NAMES, .router_bias = "e_score_correction_bias"},
    .qk_norm = MD_QK_FULL,
    .qk_norm_field = "use_qk_norm",
    .moe_rule = MD_MOE_ALL,
    .experts_field = "num_local_experts",
    .width_field = "intermediate_size",
    .router = {.score = MD_SCORE_SIGMOID, .bias = true, .norm_eps = 1e-20f},
    .normalise = MD_NORM_ALWAYS,
    .router_8bit = true,
    .defaults = (const md_default[]){{"use_qk_norm", 1}, {NULL, 0}},
    .only = (const md_only[]){{"scoring_func", "sigmoid"},
                              {"qk_norm_type", "per_layer"},
                              {"shared_intermediate_size", "0"},
                              {NULL, NULL}},
};

const md_family md_olmoe = {
    .model_type = "olmoe",
    .bias = MD_BIAS_CONFIG,
    .qk_norm = MD_QK_FULL,
    .moe_rule = MD_MOE_ALL,
    .width_field = "intermediate_size",
    .normalise = MD_NORM_CONFIG,
    .defaults = (const md_default[]){{"tie_word_embeddings", 1}, {NULL, 0}},
    .only = (const md_only[]){{"clip_qkv", "null"}, {NULL, NULL}},
};
