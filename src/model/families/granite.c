/* Granite: four multipliers, experts of a layer in two tensors; Granite 4 mixes in Mamba-2. */
#include "model/families/families.h"

const md_family md_granitemoe = {
    .model_type = "granitemoe",
    .names = {.moe = "block_sparse_moe", .router = "router.layer"},
    .bias = MD_BIAS_CONFIG,
    .multipliers = true,
    .moe_rule = MD_MOE_ALL,
    .experts_field = "num_local_experts",
    .width_field = "intermediate_size",
    .normalise = MD_NORM_ALWAYS,
    .router_8bit = true,
    .defaults = (const md_default[]){{"tie_word_embeddings", 1}, {NULL, 0}},
};

const md_family md_granitemoehybrid = {
    .model_type = "granitemoehybrid",
    .names = {.moe = "block_sparse_moe",
              .router = "router.layer",
              .mixer = "mamba",
              .shared_fused = "shared_mlp.input_linear",
              .shared_output = "shared_mlp.output_linear"},
    .second = MD_MAMBA2,
    .mixer_rule = MD_MIX_TYPES,
    .reads_layer_types = true,
    .bias = MD_BIAS_CONFIG,
    .multipliers = true,
    .moe_rule = MD_MOE_ALL,
    .experts_field = "num_local_experts",
    .width_field = "intermediate_size",
    .shared_rule = MD_SHARED_WIDTH,
    .shared_field = "shared_intermediate_size",
    .normalise = MD_NORM_ALWAYS,
    .router_8bit = true,
    .defaults =
        (const md_default[]){{"tie_word_embeddings", 1}, {"num_local_experts", 0}, {NULL, 0}},
};
