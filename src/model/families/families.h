/* families.h - every family table, one file each; family.c lists them. */
#ifndef MODEL_FAMILIES_FAMILIES_H
#define MODEL_FAMILIES_FAMILIES_H

#include "model/family.h"

extern const md_family md_qwen2_moe, md_qwen3_moe, md_qwen3_vl_moe, md_qwen3_next, md_qwen3_5_moe;
extern const md_family md_mixtral, md_olmoe, md_phimoe, md_minimax;
extern const md_family md_glm4_moe, md_glm4_moe_lite, md_deepseek, md_deepseek_v2, md_deepseek_v3;
extern const md_family md_hunyuan, md_jamba, md_granitemoe, md_granitemoehybrid;
extern const md_family md_gpt_oss, md_dots1, md_ernie4_5_moe, md_bailing_moe, md_klear;

#endif
