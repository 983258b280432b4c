/* How a module is stored: shapes decide, config.json may only not be absurd, foreign formats are
 * named. */
#include "base/mem.h"
#include "tensors/tensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_TENSORS = 4 };

typedef struct declared {
    const char *name;
    ts_type type;
    int n_dims;
    int64_t shape[4];
} declared;

typedef struct test_case {
    declared tensors[MAX_TENSORS];
    const char *config;
    int64_t count, rows, cols;
    fm_status status;
    kn_format format; /* when status is FM_OK */
    int bits, group;
    size_t row_bytes, scale_row_bytes;
    const char *message; /* when it is not */
} test_case;

#define AFFINE(words, groups, type)                                                                \
    {                                                                                              \
        {"m.weight", TS_U32, 2, {6, words}}, {"m.scales", type, 2, {6, groups}},                   \
        {                                                                                          \
            "m.biases", type, 2,                                                                   \
            {                                                                                      \
                6, groups                                                                          \
            }                                                                                      \
        }                                                                                          \
    }
#define FLOATING(words, groups)                                                                    \
    {                                                                                              \
        {"m.weight", TS_U32, 2, {6, words}},                                                       \
        {                                                                                          \
            "m.scales", TS_U8, 2,                                                                  \
            {                                                                                      \
                6, groups                                                                          \
            }                                                                                      \
        }                                                                                          \
    }

static const test_case good[] = {
    {{{"m.weight", TS_BF16, 2, {6, 40}}}, "{}", 0, 6, 40, 0, KN_BF16, 0, 0, 80, 0, NULL},
    {{{"m.weight", TS_F32, 3, {3, 6, 40}}}, "{}", 3, 6, 40, 0, KN_F32, 0, 0, 160, 0, NULL},
    {{{"m", TS_F16, 3, {3, 6, 40}}}, "{}", 3, 6, 40, 0, KN_F16, 0, 0, 80, 0, NULL},
    {AFFINE(16, 2, TS_F16), "{}", 0, 6, 128, 0, KN_AFFINE, 4, 64, 64, 4, NULL},
    {AFFINE(8, 4, TS_BF16), "{}", 0, 6, 128, 0, KN_AFFINE, 2, 32, 32, 8, NULL},
    {AFFINE(12, 1, TS_F32), "{}", 0, 6, 128, 0, KN_AFFINE, 3, 128, 48, 4, NULL},
    {AFFINE(20, 1, TS_F32), "{}", 0, 6, 128, 0, KN_AFFINE, 5, 128, 80, 4, NULL},
    {AFFINE(24, 1, TS_F32), "{}", 0, 6, 128, 0, KN_AFFINE, 6, 128, 96, 4, NULL},
    {AFFINE(32, 1, TS_F32), "{}", 0, 6, 128, 0, KN_AFFINE, 8, 128, 128, 4, NULL},
    /* the config is wrong about this module, or does not know that it is quantised: shapes win */
    {AFFINE(16, 2, TS_F16), "{\"quantization\":{\"bits\":8,\"group_size\":32}}", 0, 6, 128, 0,
     KN_AFFINE, 4, 64, 64, 4, NULL},
    {AFFINE(16, 2, TS_F16), "{\"quantization\":{\"bits\":4,\"group_size\":64,\"m\":false}}", 0, 6,
     128, 0, KN_AFFINE, 4, 64, 64, 4, NULL},
    {AFFINE(32, 2, TS_F16),
     "{\"quantization\":{\"bits\":4,\"group_size\":32,\"mode\":\"mxfp4\",\"m\":{\"group_size\":64,"
     "\"bits\":8}}}",
     0, 6, 128, 0, KN_AFFINE, 8, 64, 128, 4, NULL},
    {FLOATING(16, 4), "{}", 0, 6, 128, 0, KN_MXFP4, 4, 32, 64, 4, NULL},
    {FLOATING(16, 8), "{}", 0, 6, 128, 0, KN_NVFP4, 4, 16, 64, 8, NULL},
    {FLOATING(32, 4), "{}", 0, 6, 128, 0, KN_MXFP8, 8, 32, 128, 4, NULL},
    {{{"m_blocks", TS_U8, 4, {3, 6, 4, 16}}, {"m_scales", TS_U8, 3, {3, 6, 4}}},
     "{}",
     3,
     6,
     128,
     0,
     KN_MXFP4,
     4,
     32,
     64,
     4,
     NULL},
    {{{"m.weight", TS_F8_E4M3, 2, {6, 300}}, {"m.weight_scale_inv", TS_F32, 2, {1, 3}}},
     "{}",
     0,
     6,
     300,
     0,
     KN_F8_BLOCK,
     0,
     0,
     300,
     12,
     NULL},
};

static const test_case bad[] = {
    {{{"x", TS_F32, 2, {6, 40}}},
     "{}",
     0,
     6,
     40,
     FM_E_NOT_FOUND,
     0,
     0,
     0,
     0,
     0,
     "the tensor m.weight is missing"},
    {{{"m.weight", TS_F32, 2, {40, 6}}},
     "{}",
     0,
     6,
     40,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "tensor m.weight has shape [40, 6], the model needs [6, 40]"},
    {{{"m.weight", TS_F32, 2, {6, 40}}},
     "{}",
     5,
     6,
     40,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "has shape [6, 40], the model needs [5, 6, 40]"},
    {{{"m.weight", TS_I8, 2, {6, 40}}},
     "{}",
     0,
     6,
     40,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "tensor m.weight (I8 [6, 40]) is not a float tensor"},
    {{{"m.weight", TS_F8_E4M3, 2, {6, 40}}},
     "{}",
     0,
     6,
     40,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "F8_E4M3"},
    {AFFINE(16, 2, TS_F16), "{}", 0, 7, 128, FM_E_FORMAT, 0, 0, 0, 0, 0,
     "has shape [6, 16], the model needs [7, 16]"},
    {AFFINE(15, 2, TS_F16), "{}", 0, 6, 128, FM_E_FORMAT, 0, 0, 0, 0, 0, "fits no bits"},
    {AFFINE(28, 2, TS_F16), "{}", 0, 6, 128, FM_E_UNSUPPORTED, 0, 0, 0, 0, 0, "do not exist"},
    {AFFINE(4, 2, TS_F16), "{}", 0, 6, 128, FM_E_UNSUPPORTED, 0, 0, 0, 0, 0, "do not exist"},
    {AFFINE(16, 0, TS_F16), "{}", 0, 6, 128, FM_E_FORMAT, 0, 0, 0, 0, 0, "fits no group size"},
    {AFFINE(16, 3, TS_F16), "{}", 0, 6, 128, FM_E_FORMAT, 0, 0, 0, 0, 0, "fits no group size"},
    {AFFINE(16, 8, TS_F16), "{}", 0, 6, 128, FM_E_UNSUPPORTED, 0, 0, 0, 0, 0, "do not exist"},
    {AFFINE(16, 2, TS_U8), "{}", 0, 6, 128, FM_E_FORMAT, 0, 0, 0, 0, 0, "beside .biases"},
    {{{"m.weight", TS_U32, 2, {6, 16}},
      {"m.scales", TS_F16, 2, {6, 2}},
      {"m.biases", TS_F16, 2, {6, 1}}},
     "{}",
     0,
     6,
     128,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "m.biases has shape [6, 1], the model needs [6, 2]"},
    {{{"m.weight", TS_U32, 2, {6, 16}},
      {"m.scales", TS_F16, 2, {6, 2}},
      {"m.biases", TS_BF16, 2, {6, 2}}},
     "{}",
     0,
     6,
     128,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "not of the type of its .scales"},
    {{{"m.weight", TS_U32, 2, {6, 16}}, {"m.scales", TS_F16, 2, {6, 2}}},
     "{}",
     0,
     6,
     128,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "m.scales (F16 [6, 2]) has no .biases"},
    {FLOATING(32, 8), "{}", 0, 6, 128, FM_E_UNSUPPORTED, 0, 0, 0, 0, 0, "neither mxfp4 nor nvfp4"},
    {AFFINE(16, 2, TS_F16), "{\"quantization\":{\"bits\":4,\"group_size\":0}}", 0, 6, 128,
     FM_E_FORMAT, 0, 0, 0, 0, 0, "config.json: quantization.group_size"},
    {AFFINE(16, 2, TS_F16), "{\"quantization_config\":{\"bits\":\"4\"}}", 0, 6, 128, FM_E_FORMAT, 0,
     0, 0, 0, 0, "config.json: quantization_config.bits"},
    {AFFINE(16, 2, TS_F16), "{\"quantization\":{\"m\":{\"bits\":7}}}", 0, 6, 128, FM_E_FORMAT, 0, 0,
     0, 0, 0, "config.json: quantization.m.bits"},
    {{{"m.weight", TS_F8_E4M3, 2, {6, 300}}, {"m.weight_scale_inv", TS_F32, 2, {1, 2}}},
     "{}",
     0,
     6,
     300,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "has shape [1, 2], the model needs [1, 3]"},
    {{{"m.weight_packed", TS_I32, 2, {6, 16}}},
     "{}",
     0,
     6,
     128,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "m.weight_packed: weights quantised by compressed-tensors are not supported"},
    {{{"m.qweight", TS_I32, 2, {16, 6}}, {"m.scales", TS_F16, 2, {1, 6}}},
     "{}",
     0,
     6,
     128,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "AWQ or GPTQ"},
    {{{"m.weight", TS_U8, 2, {6, 64}}, {"m.weight.absmax", TS_F32, 1, {6}}},
     "{}",
     0,
     6,
     128,
     FM_E_UNSUPPORTED,
     0,
     0,
     0,
     0,
     0,
     "bitsandbytes"},
    {{{"m_blocks", TS_U8, 4, {3, 6, 3, 16}}, {"m_scales", TS_U8, 3, {3, 6, 4}}},
     "{}",
     3,
     6,
     128,
     FM_E_FORMAT,
     0,
     0,
     0,
     0,
     0,
     "mxfp4 blocks"},
    {{{"m.weight", TS_F32, 2, {6, 40}}}, "{}", 0, 0, 40, FM_E_ARGUMENT, 0, 0, 0, 0, 0, "0 x 40"},
    {{{"m.weight", TS_F32, 2, {6, 40}}},
     "{}",
     0,
     6,
     1ll << 40,
     FM_E_ARGUMENT,
     0,
     0,
     0,
     0,
     0,
     "cannot be"},
};

static char dir[] = "/tmp/fm-matrix-XXXXXX";

static ts_store *make(const test_case *t)
{
    static const char zeros[8192];
    char path[100];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ts_writer *w;
    assert_int_equal(ts_writer_open(path, &w, NULL), FM_OK);
    size_t bytes = 0;
    for (const declared *d = t->tensors; d < t->tensors + MAX_TENSORS && d->name; d++) {
        size_t n = ts_type_bytes(d->type);
        for (int i = 0; i < d->n_dims; i++) n *= (size_t)d->shape[i];
        assert_int_equal(ts_writer_declare(w, d->name, d->type, d->n_dims, d->shape, NULL), FM_OK);
        bytes += n;
    }
    assert_int_equal(ts_writer_write(w, zeros, bytes, NULL), FM_OK);
    assert_int_equal(ts_writer_finish(w, NULL), FM_OK);
    ts_store *store;
    assert_int_equal(ts_open(dir, &store, NULL), FM_OK);
    return store;
}

static void test_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const test_case *t = &good[i];
        ts_store *store = make(t);
        json_t *config = json_loads(t->config, 0, NULL);
        ts_matrix m;
        fm_error err = {0};
        if (ts_find_matrix(store, config, "m", t->count, t->rows, t->cols, &m, &err))
            fail_msg("case %zu: %s", i, err.message);
        assert_int_equal(m.shape.format, t->format);
        assert_int_equal(m.shape.bits, t->bits);
        assert_int_equal(m.shape.group, t->group);
        assert_int_equal(m.shape.rows, t->rows);
        assert_int_equal(m.shape.cols, t->cols);
        assert_int_equal(m.shape.row_bytes, t->row_bytes);
        assert_int_equal(m.shape.scale_row_bytes, t->scale_row_bytes);
        assert_int_equal(m.count, t->count ? t->count : 1);
        assert_int_equal(m.codes->bytes, (uint64_t)m.count * t->row_bytes * (uint64_t)t->rows);
        assert_int_equal(!!m.biases, t->format == KN_AFFINE);
        json_decref(config);
        ts_close(store);
    }
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const test_case *t = &bad[i];
        ts_store *store = make(t);
        json_t *config = json_loads(t->config, 0, NULL);
        ts_matrix m;
        fm_error err = {0};
        fm_status status = ts_find_matrix(store, config, "m", t->count, t->rows, t->cols, &m, &err);
        if (status != t->status || !strstr(err.message, t->message))
            fail_msg("case %zu: status %d, \"%s\"", i, status, err.message);
        assert_null(m.codes);
        json_decref(config);
        ts_close(store);
    }
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
