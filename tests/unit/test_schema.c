/* What config.json alone says: bytes of the named models, and which configs are refused. */
#include "model/model.h"
#include "model/schema.h"

#include "base/file.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Bytes of the converted checkpoints: experts, everything else, KV of a token at 16 bit, and the
 * recurrent state with 16-bit convolution inputs (here they are 32-bit: the state is compared
 * without them). From the tensor index of the real Qwen3.5-397B, else from the architectures. */
static const struct {
    const char *config;
    uint64_t expert, experts, others, kv;
} known[] = {
    {"Qwen3-Coder-Next", 1769472, 43486543872, 1357516288, 24576},
    {"Qwen3-30B-A3B", 2654208, 16307453952, 873459712, 98304},
    {"Mixtral-8x7B", 99090432, 25367150592, 903553024, 131072},
    {"GLM-4.7-Flash", 5308416, 15627976704, 1224225792, 54144},
    {"OLMoE-1B-7B", 3538944, 3623878656, 268341248, 131072},
    {"Qwen3.5-397B-A17B", 7077888, 217432719360, 5516028032, 30720},
    {"DeepSeek-V3", 24772608, 367823683584, 9783169024, 70272},
    {"Qwen3.5-35B-A3B", 1769472, 18119393280, 1389396096, 20480},
    {"Qwen3-235B-A22B", 10616832, 127741722624, 4524235776, 192512},
    {"GLM-4.5-Air", 9732096, 56056872960, 4082948608, 188416},
    {"MiniMax-M2", 7962624, 126382768128, 2280849408, 253952},
    {"DeepSeek-V2-Lite", 4866048, 8097103872, 742874112, 31104},
};

static void bytes_of_named_models(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char path[200];
        snprintf(path, sizeof path, "configs/%s.json", known[i].config);
        md_options options = {.kv_type = KN_KV_F16};
        md_model *m;
        fm_error err = {0};
        if (md_open_config(path, &options, &m, &err)) fail_msg("%s", err.message);
        md_arch *c = calloc(1, sizeof *c);
        md_schema s;
        assert_int_equal(md_config_read(c, md_config(m), path, false, &err), FM_OK);
        assert_int_equal(md_schema_build(c, md_layout_of(c), &s, &err), FM_OK);
        uint64_t experts = 0, others = 0;
        for (size_t k = 0; k < s.n; k++) {
            kn_mat format = md_planned_format(md_config(m), &s.spec[k]);
            uint64_t bytes = md_stored_bytes(&s.spec[k], &format, 2);
            if (s.spec[k].kind == MD_EXPERTS) experts += bytes;
            else others += bytes;
        }
        const md_info *info = md_describe(m);
        if (experts != known[i].experts || others != known[i].others ||
            info->expert_bytes != known[i].expert || info->experts_bytes != known[i].experts ||
            info->kv_bytes_per_token != known[i].kv)
            fail_msg("%s: expert %llu, experts %llu, others %llu (%+lld), kv %llu", known[i].config,
                     (unsigned long long)info->expert_bytes, (unsigned long long)experts,
                     (unsigned long long)others, (long long)(others - known[i].others),
                     (unsigned long long)info->kv_bytes_per_token);
        md_schema_free(&s);
        free(c);
        md_close(m);
    }
}

/* Recurrent states count twice (36 layers of 32 heads of 128 x 128 and three inputs of the
 * convolution's 8192 channels), cached rows once, those outside of a window not at all. */
static void traffic_of_states(void **unused)
{
    (void)unused;
    static const struct {
        const char *config;
        uint64_t recurrent, full_row, window_row;
        int window;
    } known[] = {
        {"Qwen3-Coder-Next", 36 * (32 * 128 * 128 + 3 * 8192) * 4, 24576, 0, 0},
        {"GLM-4.7-Flash", 0, 54144, 0, 0},
        {"gpt-oss-20b", 0, 12 * 2048, 12 * 2048, 128},
    };
    static const int positions[] = {0, 127, 128, 4000};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char path[200];
        snprintf(path, sizeof path, "configs/%s.json", known[i].config);
        md_options options = {.kv_type = KN_KV_F16};
        md_model *m;
        fm_error err = {0};
        if (md_open_config(path, &options, &m, &err)) fail_msg("%s", err.message);
        for (size_t k = 0; k < sizeof positions / sizeof *positions; k++) {
            uint64_t rows = (uint64_t)positions[k] + 1, most = (uint64_t)known[i].window;
            uint64_t expected = 2 * known[i].recurrent + rows * known[i].full_row +
                                (rows < most ? rows : most) * known[i].window_row;
            assert_int_equal(md_state_traffic(m, positions[k]), expected);
        }
        const md_info *info = md_describe(m);
        assert_int_equal(md_pass_traffic(m, 7, 99),
                         info->decode_read_bytes + 7 * info->expert_bytes + 99);
        md_close(m);
    }
}

/* --- refusals --------------------------------------------------------------------------------- */

static const char base[] =
    "{\"model_type\":\"qwen3_moe\",\"hidden_size\":64,\"num_hidden_layers\":2,"
    "\"intermediate_size\":96,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":16,"
    "\"num_experts\":6,\"num_experts_per_tok\":3,\"decoder_sparse_step\":1,\"mlp_only_layers\":[],"
    "\"moe_intermediate_size\":32,\"rms_norm_eps\":1e-6,\"vocab_size\":97,\"rope_theta\":10000,"
    "\"norm_topk_prob\":true,\"max_position_embeddings\":512}";

static fm_status open_text_with(md_options options, const char *text, fm_error *err)
{
    char path[] = "/tmp/test_schema_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(bs_write_full(fd, path, text, strlen(text), NULL), FM_OK);
    close(fd);
    md_model *m = NULL;
    fm_status status = md_open_config(path, &options, &m, err);
    unlink(path);
    md_close(m);
    return status;
}

static fm_status open_text(const char *text, fm_error *err)
{
    return open_text_with((md_options){0}, text, err);
}

/* The base config with one field set to a JSON text, or taken away (NULL). */
static char *with(const char *field, const char *value)
{
    json_t *c = json_loads(base, 0, NULL);
    if (value) json_object_set_new(c, field, json_loads(value, JSON_DECODE_ANY, NULL));
    else json_object_del(c, field);
    char *text = json_dumps(c, 0);
    json_decref(c);
    return text;
}

static void wrong_configs_are_refused(void **unused)
{
    (void)unused;
    static const struct {
        const char *field, *value;
        fm_status status;
    } wrong[] = {
        {"num_hidden_layers", "0", FM_E_FORMAT},
        {"num_hidden_layers", "1000000", FM_E_FORMAT},
        {"num_hidden_layers", "-1", FM_E_FORMAT},
        {"num_hidden_layers", "1.5", FM_E_FORMAT},
        {"num_hidden_layers", "\"two\"", FM_E_FORMAT},
        {"num_hidden_layers", NULL, FM_E_FORMAT},
        {"hidden_size", "-64", FM_E_FORMAT},
        {"hidden_size", "1e300", FM_E_FORMAT},
        {"hidden_size", NULL, FM_E_FORMAT},
        {"vocab_size", "0", FM_E_FORMAT},
        {"num_attention_heads", "0", FM_E_FORMAT},
        {"num_key_value_heads", "3", FM_E_FORMAT},
        {"head_dim", "0", FM_E_FORMAT},
        {"head_dim", "15", FM_E_FORMAT},
        {"head_dim", "100000", FM_E_FORMAT},
        {"num_experts", "-6", FM_E_FORMAT},
        {"num_experts", "2", FM_E_FORMAT},
        {"num_experts", NULL, FM_E_FORMAT},
        {"num_experts_per_tok", "7", FM_E_FORMAT},
        {"num_experts_per_tok", "0", FM_E_FORMAT},
        {"num_experts_per_tok", NULL, FM_E_FORMAT},
        {"moe_intermediate_size", "0", FM_E_FORMAT},
        {"decoder_sparse_step", "0", FM_E_FORMAT},
        {"mlp_only_layers", "3", FM_E_FORMAT},
        {"rope_theta", "0", FM_E_FORMAT},
        {"rope_theta", "-1", FM_E_FORMAT},
        {"rms_norm_eps", "0", FM_E_FORMAT},
        {"rms_norm_eps", "-1", FM_E_FORMAT},
        {"norm_topk_prob", "1", FM_E_FORMAT},
        {"quantization", "{\"group_size\":0,\"bits\":4}", FM_E_FORMAT},
        {"quantization", "{\"group_size\":64,\"bits\":-4}", FM_E_FORMAT},
        {"quantization", "{\"group_size\":64,\"bits\":7}", FM_E_FORMAT},
        {"quantization", "{\"group_size\":64,\"bits\":4,\"mode\":\"magic\"}", FM_E_FORMAT},
        {"quantization", "{\"bits\":4,\"quantization\":{\"bits\":0}}", FM_E_FORMAT},
        {"rope_scaling", "{\"type\":\"spiral\",\"factor\":2}", FM_E_UNSUPPORTED},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":0}", FM_E_FORMAT},
        {"rope_scaling", "{\"type\":\"longrope\"}", FM_E_FORMAT},
        {"rope_scaling", "7", FM_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fm_error err = {0};
        char *text = with(wrong[i].field, wrong[i].value);
        fm_status status = open_text(text, &err);
        if (status != wrong[i].status ||
            (!strstr(err.message, wrong[i].field) && strcmp(wrong[i].field, "rope_scaling") &&
             strcmp(wrong[i].field, "num_experts") && strcmp(wrong[i].field, "head_dim")))
            fail_msg("%s = %s: %s: %s", wrong[i].field, wrong[i].value ? wrong[i].value : "(none)",
                     fm_status_name(status), err.message);
        free(text);
    }
    assert_int_equal(open_text(base, NULL), FM_OK);
}

static void types_and_options_are_named(void **unused)
{
    (void)unused;
    fm_error err = {0};
    assert_int_equal(open_text("{\"model_type\":\"gpt2\"}", &err), FM_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "\"gpt2\""));
    for (int i = 0; md_family_at(i); i++)
        assert_non_null(strstr(err.message, md_family_at(i)->model_type));
    assert_int_equal(open_text("{}", &err), FM_E_FORMAT);
    assert_non_null(strstr(err.message, "model_type"));
    assert_int_equal(open_text("[1]", &err), FM_E_FORMAT);
    assert_int_equal(open_text("{\"model_type\":\"qwen3_moe\",", &err), FM_E_FORMAT);
    assert_int_equal(open_text("{\"model_type\":\"deepseek_v3\",\"topk_method\":\"greedy\"}", &err),
                     FM_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "topk_method"));
}

static void rope_parameters_stand_in_either_place(void **unused)
{
    (void)unused;
    static const char *const texts[] = {
        "{\"rope_theta\":5000,\"partial_rotary_factor\":0.5}",
        "{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5000,"
        "\"partial_rotary_factor\":0.5}}",
        "{\"rope_theta\":1,\"rope_parameters\":{\"full_attention\":{\"rope_theta\":5000,"
        "\"partial_rotary_factor\":0.5},\"sliding_attention\":{\"rope_theta\":7}}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *c = json_loads(base, 0, NULL), *own = json_loads(texts[i], 0, NULL);
        json_object_del(c, "rope_theta");
        json_object_update(c, own);
        md_arch *a = calloc(1, sizeof *a);
        fm_error err = {0};
        if (md_config_read(a, c, "config.json", false, &err)) fail_msg("%s", err.message);
        assert_true(a->rope.theta == 5000);
        assert_int_equal(a->rope.dims, 8);
        free(a);
        json_decref(own);
        json_decref(c);
    }
}

/* Eight-bit caches keep runs of 32; latent attention's values must end with one. */
static void a_latent_that_eight_bits_cannot_hold(void **unused)
{
    (void)unused;
    bs_buf text = {0};
    fm_error err = {0};
    assert_int_equal(
        bs_read_file("tests/fixtures/families/mlx_kimi_k2/config.json", 1 << 20, &text, NULL),
        FM_OK);
    json_t *config = json_loadb((const char *)text.data, text.length, 0, NULL);
    bs_buf_free(&text);
    for (int rank = 32; rank <= 48; rank += 16) {
        json_object_set_new(config, "kv_lora_rank", json_integer(rank));
        char *json = json_dumps(config, 0);
        assert_int_equal(open_text_with((md_options){.kv_type = KN_KV_F16}, json, &err), FM_OK);
        assert_int_equal(open_text_with((md_options){.kv_type = KN_KV_I8}, json, &err),
                         rank == 32 ? FM_OK : FM_E_UNSUPPORTED);
        free(json);
    }
    assert_non_null(strstr(err.message, "kv_lora_rank is 48"));
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_named_models),
        cmocka_unit_test(traffic_of_states),
        cmocka_unit_test(wrong_configs_are_refused),
        cmocka_unit_test(types_and_options_are_named),
        cmocka_unit_test(rope_parameters_stand_in_either_place),
        cmocka_unit_test(a_latent_that_eight_bits_cannot_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
