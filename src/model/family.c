#include "model/family.h"

#include "base/error.h"
#include "model/families/families.h"

#include <string.h>

static const md_family *const families[] = {
    &md_qwen2_moe,   &md_qwen3_moe,   &md_qwen3_vl_moe,
    &md_qwen3_next,  &md_qwen3_5_moe, &md_mixtral,
    &md_olmoe,       &md_glm4_moe,    &md_glm4_moe_lite,
    &md_deepseek,    &md_deepseek_v2, &md_deepseek_v3,
    &md_hunyuan,     &md_jamba,       &md_phimoe,
    &md_minimax,     &md_granitemoe,  &md_granitemoehybrid,
    &md_gpt_oss,     &md_dots1,       &md_ernie4_5_moe,
    &md_bailing_moe, &md_klear,
};

enum { N_FAMILIES = sizeof families / sizeof *families };

const md_family *md_family_at(int i)
{
    return i >= 0 && i < N_FAMILIES ? families[i] : NULL;
}

/* Is `word` one of the blank-separated words of `list`? */
static bool in_words(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (list && *list) {
        size_t length = strcspn(list, " ");
        if (length == n && !memcmp(list, word, n)) return true;
        list += length + (list[length] == ' ');
    }
    return false;
}

fm_status md_family_find(const char *model_type, const md_family **out, fm_error *err)
{
    char known[400] = "";
    for (int i = 0; i < N_FAMILIES; i++) {
        const md_family *y = families[i];
        if (!strcmp(y->model_type, model_type) || in_words(y->aliases, model_type)) {
            *out = y;
            return FM_OK;
        }
        if (i) strcat(known, " ");
        strcat(known, y->model_type);
    }
    return fm_fail(err, FM_E_UNSUPPORTED, "model_type \"%.60s\" is not known; known are: %s",
                   model_type, known);
}

static void fill(const char **name, const char *common)
{
    if (!*name) *name = common;
}

md_names md_family_names(const md_family *family)
{
    md_names n = family->names;
    fill(&n.prefix, "model.");
    fill(&n.embed, "embed_tokens");
    fill(&n.final_norm, "norm");
    fill(&n.head, "lm_head");
    fill(&n.in_norm, "input_layernorm");
    fill(&n.post_norm, "post_attention_layernorm");
    fill(&n.attention, "self_attn");
    fill(&n.q, "q_proj");
    fill(&n.k, "k_proj");
    fill(&n.v, "v_proj");
    fill(&n.o, "o_proj");
    fill(&n.q_norm, "q_norm");
    fill(&n.k_norm, "k_norm");
    fill(&n.mlp, "mlp");
    fill(&n.moe, "mlp");
    fill(&n.router, "gate");
    fill(&n.router_bias, "gate.e_score_correction_bias");
    fill(&n.stacked, "switch_mlp");
    fill(&n.each, "experts");
    fill(&n.proj[0], "gate_proj");
    fill(&n.proj[1], "up_proj");
    fill(&n.proj[2], "down_proj");
    return n;
}
