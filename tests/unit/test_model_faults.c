/* What goes wrong under a model: memory that runs out at every single allocation, files that shrink
 * while open, numbers that are none. Each is an error with a message; nothing leaks (ASan runs
 * this too) and what can go on goes on, bit for bit. */
#include "model/model.h"

#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TOKENS = 6, CONTEXT = 16, VOCAB = 53 };

static const int ids[TOKENS] = {3, 14, 15, 9, 26, 5};

typedef struct world {
    char folder[64], weights[96];
    bs_buf file; /* the weights as they were */
} world;

static void copy_in(world *w, const char *fixture, const char *name)
{
    char from[200], to[200];
    bs_buf text = {0};
    snprintf(from, sizeof from, "tests/fixtures/families/%s/%s", fixture, name);
    snprintf(to, sizeof to, "%s/%s", w->folder, name);
    assert_int_equal(bs_read_file(from, 1 << 24, &text, NULL), FM_OK);
    assert_int_equal(bs_write_file(to, text.data, text.length, NULL), FM_OK);
    bs_buf_free(&text);
}

static void set_up(world *w, const char *fixture)
{
    *w = (world){.folder = "/tmp/test_model_faults_XXXXXX"};
    assert_non_null(mkdtemp(w->folder));
    copy_in(w, fixture, "config.json");
    copy_in(w, fixture, "model.safetensors");
    snprintf(w->weights, sizeof w->weights, "%s/model.safetensors", w->folder);
    assert_int_equal(bs_read_file(w->weights, 1 << 24, &w->file, NULL), FM_OK);
}

static void put_back(const world *w)
{
    int fd = open(w->weights, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(bs_write_full(fd, w->weights, w->file.data, w->file.length, NULL), FM_OK);
    close(fd);
}

static void tear_down(world *w)
{
    char config[96];
    snprintf(config, sizeof config, "%s/config.json", w->folder);
    unlink(config);
    unlink(w->weights);
    rmdir(w->folder);
    bs_buf_free(&w->file);
}

typedef struct rig {
    md_model *model;
    xp_cache *cache;
    md_state *state;
    md_run *run;
} rig;

static void close_rig(rig *g)
{
    md_run_destroy(g->run);
    md_state_destroy(g->state);
    xp_close(g->cache);
    md_close(g->model);
    *g = (rig){0};
}

static fm_status open_rig(const world *w, rig *g, fm_error *err)
{
    *g = (rig){0};
    md_options options = {.isa = kn_isa_best()};
    xp_options x = {.capacity = 0, .io = XP_IO_PREAD};
    fm_status status = md_open(w->folder, &options, &g->model, err);
    if (!status) assert_int_equal(md_describe(g->model)->vocab, VOCAB);
    if (!status) status = md_load(g->model, NULL, NULL, err);
    if (!status) status = xp_open(md_expert_source(g->model), &x, &g->cache, err);
    if (!status) status = md_state_create(g->model, CONTEXT, &g->state, err);
    if (!status) status = md_run_create(g->model, g->cache, NULL, TOKENS, 1, &g->run, err);
    return status;
}

static fm_status step(rig *g, int first, int n, float *logits, fm_error *err)
{
    md_token tokens[TOKENS];
    for (int i = 0; i < n; i++) tokens[i] = (md_token){ids[first + i], g->state, i == n - 1};
    return md_forward(g->run, tokens, n, n > 1, logits, err);
}

static void every_allocation_may_fail(void **unused)
{
    (void)unused;
    world w;
    set_up(&w, "mlx_qwen3_5_moe");
    int failures = 0;
    for (uint64_t nth = 1;; nth++) {
        rig g;
        fm_error err = {0};
        bs_mem_fail_at(nth, true);
        fm_status status = open_rig(&w, &g, &err);
        float logits[VOCAB];
        if (!status) status = step(&g, 0, TOKENS, logits, &err);
        bs_mem_fail_at(0, false);
        close_rig(&g);
        assert_int_equal(bs_pages_in_use(), 0);
        if (!status) break;
        if (status != FM_E_NOMEM) fail_msg("allocation %d: %s", (int)nth, err.message);
        assert_true(err.message[0] != 0);
        failures++;
    }
    assert_true(failures > 30);
    tear_down(&w);
}

/* Attention alone: the state is as it was before the failed step. */
static void a_file_that_shrinks(void **unused)
{
    (void)unused;
    world w;
    set_up(&w, "mlx_mixtral");
    rig g;
    fm_error err = {0};
    float want[VOCAB], got[VOCAB];
    assert_int_equal(open_rig(&w, &g, NULL), FM_OK);
    assert_int_equal(step(&g, 0, 4, want, NULL), FM_OK);
    assert_int_equal(step(&g, 4, 2, want, NULL), FM_OK);
    md_state_reset(g.state);
    assert_int_equal(step(&g, 0, 4, got, NULL), FM_OK);
    assert_int_equal(truncate(w.weights, 5000), 0);
    assert_int_equal(step(&g, 4, 2, got, &err), FM_E_IO);
    assert_non_null(strstr(err.message, "model.safetensors"));
    assert_int_equal(md_state_length(g.state), 4);
    put_back(&w);
    assert_int_equal(step(&g, 4, 2, got, NULL), FM_OK);
    assert_memory_equal(want, got, sizeof want);
    close_rig(&g);
    tear_down(&w);
}

/* A recurrent state that has moved on cannot be taken back: it is empty afterwards, and says so. */
static void a_recurrent_state_is_reset(void **unused)
{
    (void)unused;
    world w;
    set_up(&w, "mlx_qwen3_5_moe");
    rig g;
    fm_error err = {0};
    float want[VOCAB], got[VOCAB];
    assert_int_equal(open_rig(&w, &g, NULL), FM_OK);
    assert_int_equal(step(&g, 0, TOKENS, want, NULL), FM_OK);
    md_state_reset(g.state);
    assert_int_equal(step(&g, 0, 4, got, NULL), FM_OK);
    assert_int_equal(truncate(w.weights, 5000), 0);
    assert_int_equal(step(&g, 4, 2, got, &err), FM_E_IO);
    assert_non_null(strstr(err.message, "state was lost"));
    assert_int_equal(md_state_length(g.state), 0);
    put_back(&w);
    assert_int_equal(step(&g, 0, TOKENS, got, NULL), FM_OK);
    assert_memory_equal(want, got, sizeof want);
    close_rig(&g);
    tear_down(&w);
}

/* The bytes of one tensor become 0xff: NaN in every float type. */
static void poison(const world *w, const md_model *m, const char *name)
{
    const ts_tensor *t = ts_find(md_store(m), name);
    assert_non_null(t);
    int fd = open(w->weights, O_WRONLY);
    for (uint64_t i = 0; i < t->bytes; i++)
        assert_int_equal(pwrite(fd, "\xff", 1, (off_t)(t->offset + i)), 1);
    close(fd);
}

static void numbers_that_are_none(void **unused)
{
    (void)unused;
    static const char *const resident[] = {"model.norm.weight", "model.embed_tokens.scales",
                                           "model.embed_tokens.biases"};
    world w;
    set_up(&w, "mlx_qwen3_moe");
    rig g;
    fm_error err = {0};
    float logits[VOCAB];
    for (size_t i = 0; i < sizeof resident / sizeof *resident; i++) {
        assert_int_equal(open_rig(&w, &g, NULL), FM_OK);
        poison(&w, g.model, resident[i]);
        close_rig(&g);
        assert_int_equal(open_rig(&w, &g, &err), FM_E_NUMERIC);
        assert_non_null(strstr(err.message, "model."));
        close_rig(&g);
        put_back(&w);
    }
    assert_int_equal(open_rig(&w, &g, NULL), FM_OK);
    poison(&w, g.model, "model.layers.0.mlp.switch_mlp.down_proj.scales");
    assert_int_equal(step(&g, 0, TOKENS, logits, &err), FM_E_NUMERIC);
    assert_int_equal(md_state_length(g.state), 0);
    close_rig(&g);
    tear_down(&w);
}

/* Several threads load; the message is that of the first bad tensor, as if one did. */
static void the_first_bad_tensor_is_named(void **unused)
{
    (void)unused;
    static const char *const bad[] = {"model.embed_tokens.biases", "model.norm.weight",
                                      "model.layers.0.input_layernorm.weight",
                                      "model.layers.1.input_layernorm.weight"};
    world w;
    set_up(&w, "mlx_qwen3_moe");
    rig g;
    assert_int_equal(open_rig(&w, &g, NULL), FM_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) poison(&w, g.model, bad[i]);
    close_rig(&g);
    for (int i = 0; i < 200; i++) {
        fm_error err = {0};
        assert_int_equal(open_rig(&w, &g, &err), FM_E_NUMERIC);
        assert_non_null(strstr(err.message, "model.embed_tokens"));
        close_rig(&g);
    }
    tear_down(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),     cmocka_unit_test(a_file_that_shrinks),
        cmocka_unit_test(a_recurrent_state_is_reset),    cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(the_first_bad_tensor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
