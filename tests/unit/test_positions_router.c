/* Rotary tables of every scaling against numbers of an independent program, and every rule of a
 * router on cases small enough to check by hand. */
#include "model/inside.h"
#include "model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- positions -------------------------------------------------------------------------------- */

enum { DIMS = 16 };

static const struct {
    const char *name, *scaling;
    double frequency[DIMS / 2];
    double scale; /* of cos and sin */
} tables[] = {
    {"default",
     "{\"rope_type\":\"default\"}",
     {1, 0.316227766017, 0.1, 0.0316227766017, 0.01, 0.00316227766017, 0.001, 0.000316227766017},
     1},
    {"linear",
     "{\"type\":\"linear\",\"factor\":4}",
     {0.25, 0.0790569415042, 0.025, 0.00790569415042, 0.0025, 0.000790569415042, 0.00025,
      7.90569415042e-05},
     1},
    {"llama3",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"original_max_position_embeddings\":512,"
     "\"low_freq_factor\":1,\"high_freq_factor\":4}",
     {1.0, 0.316227766017, 0.1, 0.0184966754014, 0.00125, 0.000395284707521, 0.000125,
      3.95284707521e-05},
     1},
    {"yarn, DeepSeek's factors",
     "{\"type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":64,\"mscale\":0.707,"
     "\"mscale_all_dim\":0.5}",
     {1.0, 0.213453742061, 0.035, 0.000790569415042, 0.00025, 7.90569415042e-05, 2.5e-05,
      7.90569415042e-06},
     1.064468903941252},
    {"yarn, ends not rounded",
     "{\"rope_type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":64,"
     "\"truncate\":false}",
     {1.0, 0.163290246395, 0.0032738196595, 0.000790569415042, 0.00025, 7.90569415042e-05, 2.5e-05,
      7.90569415042e-06},
     1.3688879454113936},
    {"longrope",
     "{\"type\":\"longrope\",\"original_max_position_embeddings\":64,"
     "\"short_factor\":[1,1,1,1,1,1,1,1],\"long_factor\":[1,1.3,1.6,1.9,2.2,2.5,2.8,3.1]}",
     {1.0, 0.243252127705, 0.0625, 0.0166435666325, 0.00454545454545, 0.00126491106407,
      0.000357142857143, 0.00010200895678},
     1.224744871391589},
    {"Hunyuan's alpha",
     "{\"type\":\"dynamic\",\"alpha\":1000,\"factor\":1}",
     {1.0, 0.117876863479, 0.0138949549437, 0.00163789370695, 0.000193069772888, 2.27584592607e-05,
      2.68269579528e-06, 3.16227766017e-07},
     1},
};

static md_arch *read_config(const char *scaling)
{
    json_t *c = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f}", "model_type",
                          "mixtral", "hidden_size", 64, "num_hidden_layers", 1, "vocab_size", 9,
                          "num_attention_heads", 4, "num_key_value_heads", 4, "num_local_experts",
                          4, "num_experts_per_tok", 2, "intermediate_size", 32,
                          "max_position_embeddings", 512, "rope_theta", 10000.0);
    json_object_set_new(c, "rope_scaling", json_loads(scaling, 0, NULL));
    md_arch *a = calloc(1, sizeof *a);
    fm_error err = {0};
    if (md_config_read(a, c, "config.json", false, &err)) fail_msg("%s", err.message);
    json_decref(c);
    return a;
}

static void every_scaling(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        md_arch *a = read_config(tables[i].scaling);
        assert_int_equal(a->rope.dims, DIMS);
        double f[DIMS / 2];
        float cos_[DIMS / 2], sin_[DIMS / 2];
        md_rope_frequencies(&a->rope, f);
        md_rope_angles(&a->rope, f, 9004, cos_, sin_);
        for (int k = 0; k < DIMS / 2; k++) {
            double want = tables[i].frequency[k], angle = 9004 * f[k];
            if (fabs(f[k] - want) > 1e-10 * want)
                fail_msg("%s: pair %d turns by %.12g, not %.12g", tables[i].name, k, f[k], want);
            assert_true(fabs(cos_[k] - tables[i].scale * cos(angle)) < 1e-6);
            assert_true(fabs(sin_[k] - tables[i].scale * sin(angle)) < 1e-6);
        }
        free(a);
    }
}

static void yarn_scales_latent_attention(void **unused)
{
    (void)unused;
    json_t *c = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i, s:{s:s,s:i,s:i,s:f}}",
                          "model_type", "deepseek_v3", "hidden_size", 64, "num_hidden_layers", 1,
                          "vocab_size", 9, "num_attention_heads", 4, "kv_lora_rank", 32,
                          "qk_nope_head_dim", 24, "qk_rope_head_dim", 8, "v_head_dim", 16,
                          "n_routed_experts", 4, "num_experts_per_tok", 2, "moe_intermediate_size",
                          32, "rope_scaling", "type", "yarn", "factor", 40,
                          "original_max_position_embeddings", 64, "mscale_all_dim", 0.5);
    md_arch *a = calloc(1, sizeof *a);
    fm_error err = {0};
    if (md_config_read(a, c, "config.json", false, &err)) fail_msg("%s", err.message);
    assert_true(fabs(a->attention_scale - 1.4029075244788534 / sqrt(32)) < 1e-6);
    free(a);
    json_decref(c);
}

/* --- routers ---------------------------------------------------------------------------------- */

static void route(const md_router *y, const float *logits, const float *bias, int n, int k,
                  int *experts, float *weights)
{
    float scores[32], scratch[64];
    memcpy(scores, logits, (size_t)n * sizeof *scores);
    md_route(kn_isa_best(), y, scores, bias, n, k, scratch, experts, weights);
}

static void expect(const int *experts, const float *weights, int k, const int *want_experts,
                   const double *want_weights)
{
    for (int i = 0; i < k; i++) {
        assert_int_equal(experts[i], want_experts[i]);
        if (fabs(weights[i] - want_weights[i]) > 2e-6)
            fail_msg("weight %d is %.8f, not %.8f", i, weights[i], want_weights[i]);
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void softmax_with_and_without_sum(void **unused)
{
    (void)unused;
    static const float logits[] = {1, 3, 2, 3};
    int e[2];
    float w[2];
    double sum = exp(1) + 2 * exp(3) + exp(2);
    md_router y = {.scale = 1};
    route(&y, logits, NULL, 4, 2, e, w);
    expect(e, w, 2, (int[]){1, 3}, (double[]){exp(3) / sum, exp(3) / sum}); /* a tie: lower first */
    y.normalise = true;
    y.scale = 2.5f;
    route(&y, logits, NULL, 4, 2, e, w);
    expect(e, w, 2, (int[]){1, 3}, (double[]){1.25, 1.25});
    route(&y, logits, NULL, 4, 1, e, w);
    expect(e, w, 1, (int[]){1}, (double[]){2.5});
    y.not_single = true;
    route(&y, logits, NULL, 4, 1, e, w);
    expect(e, w, 1, (int[]){1}, (double[]){2.5 * exp(3) / sum});
}

static void chosen_by_biased_weighted_by_plain(void **unused)
{
    (void)unused;
    static const float logits[] = {2, 1, 0, -1}, bias[] = {-1, 0, 0, 1};
    int e[2];
    float w[2];
    md_router y = {.score = MD_SCORE_SIGMOID, .bias = true, .normalise = true, .scale = 1};
    route(&y, logits, bias, 4, 2, e, w);
    double a = sigmoid(-1), b = sigmoid(1);
    expect(e, w, 2, (int[]){3, 1}, (double[]){a / (a + b), b / (a + b)});
}

/* Two groups of three: the second wins by the sum of its two best, though the best expert of all
 * is in the first. Losers count as 0, so with negative biases one of them can be chosen. */
static void groups(void **unused)
{
    (void)unused;
    static const float logits[] = {3, -4, -4, 1, 1, -9};
    static const float low[] = {0, 0, 0, 0, 0, -1};
    int e[3];
    float w[3];
    md_router y = {.score = MD_SCORE_SIGMOID,
                   .group_rule = MD_GROUP_TOP2_SUM,
                   .n_group = 2,
                   .topk_group = 1,
                   .scale = 1};
    route(&y, logits, NULL, 6, 2, e, w);
    expect(e, w, 2, (int[]){3, 4}, (double[]){sigmoid(1), sigmoid(1)});
    route(&y, logits, low, 6, 3, e, w);
    expect(e, w, 3, (int[]){3, 4, 0}, (double[]){sigmoid(1), sigmoid(1), sigmoid(3)});
    y.group_rule = MD_GROUP_MAX;
    route(&y, logits, NULL, 6, 1, e, w);
    expect(e, w, 1, (int[]){0}, (double[]){sigmoid(3)});
}

static void sparsemixer(void **unused)
{
    (void)unused;
    /* 2.00 and 1.98 are within 2 percent of each other, 1.0 is not */
    static const float logits[] = {1.0f, 2.0f, 1.98f, 0.5f};
    int e[2];
    float w[2];
    md_router y = {.sparsemixer = 0.01f, .scale = 1};
    route(&y, logits, NULL, 4, 2, e, w);
    double first = 1 / (1 + exp(1.98 - 2.0));
    expect(e, w, 2, (int[]){1, 2}, (double[]){first, 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scaling),
        cmocka_unit_test(yarn_scales_latent_attention),
        cmocka_unit_test(softmax_with_and_without_sum),
        cmocka_unit_test(chosen_by_biased_weighted_by_plain),
        cmocka_unit_test(groups),
        cmocka_unit_test(sparsemixer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
