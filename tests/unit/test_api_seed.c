/* The seed's step-by-step operations through the public headers. */
#include "flash_moe_seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 8, EXPERTS = 64, TOP_K = 4 };

static fm_model *open_model(fm_options o)
{
    fm_error err = {0};
    fm_model *m = NULL;
    o.context = 256;
    o.threads = 1;
    if (fm_model_open("models/flash-moe-tiny", &o, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static bool collect(void *arg, const fm_token *t)
{
    strcat(arg, t->text);
    return true;
}

static void write_on(fm_model *m, const char *text, char *out)
{
    fm_session *s;
    fm_error err = {0};
    fm_generation g = fm_generation_default(m);
    g.temperature = 0;
    g.max_tokens = 12;
    g.ignore_end = true;
    *out = 0;
    assert_int_equal(fm_session_open(m, &s, NULL), FM_OK);
    assert_int_equal(fm_session_text(s, text, NULL), FM_OK);
    if (fm_session_generate(s, &g, collect, out, NULL, &err)) fail_msg("%s", err.message);
    fm_session_close(s);
}

static fm_statistics statistics(fm_model *m)
{
    fm_statistics s;
    fm_model_statistics(m, &s);
    return s;
}

static void discovery_counts_picks(void **state)
{
    (void)state;
    fm_model *m = open_model(fm_options_default());
    static uint64_t exact[LAYERS][EXPERTS], fast[LAYERS][EXPERTS];
    memset(exact, 0, sizeof exact);
    memset(fast, 0, sizeof fast);
    assert_int_equal(fm_model_discover(m, "def main():", 5, false, exact[0], NULL), FM_OK);
    uint64_t bytes = statistics(m).bytes_read;
    assert_int_equal(fm_model_discover(m, "def main():", 5, true, fast[0], NULL), FM_OK);
    assert_int_equal(statistics(m).bytes_read, bytes); /* no expert was read for it */
    for (int l = 0; l < LAYERS; l++) {
        uint64_t a = 0, b = 0;
        for (int e = 0; e < EXPERTS; e++) a += exact[l][e], b += fast[l][e];
        assert_int_equal(a, b);
        assert_int_equal(a % TOP_K, 0);
        assert_true(a > 5 * TOP_K);
    }
    int slots[LAYERS];
    double miss[LAYERS];
    assert_int_equal(fm_allocate_slots(exact[0], LAYERS, EXPERTS, 128, 4, slots, miss, NULL),
                     FM_OK);
    int sum = 0;
    for (int l = 0; l < LAYERS; l++) sum += slots[l];
    assert_int_equal(sum, 128);
    fm_model_close(m);
}

static void fix_warm_and_free(void **state)
{
    (void)state;
    fm_options o = fm_options_default();
    o.capacity = 20;
    fm_model *m = open_model(o);
    char exact[400], lossy[400], again[400];
    const char *text = "Once upon a time there was a king who";
    write_on(m, text, exact);
    assert_string_equal(statistics(m).mode, "exact");
    fm_delta d;
    assert_int_equal(fm_model_delta_warmup(m, text, 10, 0, &d, NULL), FM_E_ARGUMENT);

    assert_int_equal(fm_model_fix(m, true, NULL), FM_OK);
    write_on(m, "def main():\n    return", lossy);
    fm_statistics s = statistics(m);
    assert_string_equal(s.mode, "predictive");
    assert_true(s.dropped_mass > 0 && s.dropped_picks > 0);
    assert_int_equal(fm_model_delta_warmup(m, "def main():\n    return", 10, 0, &d, NULL), FM_OK);
    assert_true(d.swaps > 0 && d.layers > 0 && d.misses <= d.requests);
    assert_true(d.total_s >= d.discovery_s && d.discovery_s > 0);
    assert_int_equal(fm_model_refresh(m, 10, 12, NULL, NULL), FM_OK);

    assert_int_equal(fm_model_fix(m, false, NULL), FM_OK);
    write_on(m, text, again);
    assert_string_equal(again, exact);
    fm_model_close(m);
}

static void options_are_checked(void **state)
{
    (void)state;
    fm_options o = fm_options_default();
    fm_model *m;
    fm_error err;
    o.mode = "fast";
    assert_int_equal(fm_model_open("models/flash-moe-tiny", &o, &m, &err), FM_E_ARGUMENT);
    assert_non_null(strstr(err.message, "exact or predictive"));
    o.mode = NULL;
    o.hold = true;
    assert_int_equal(fm_model_open("models/flash-moe-tiny", &o, &m, &err), FM_E_ARGUMENT);
    o = fm_options_default();
    o.mode = "predictive";
    o.capacity = 16;
    o.warmup = "router";
    m = open_model(o);
    char text[400];
    write_on(m, "The cat", text);
    assert_true(statistics(m).dropped_mass > 0);
    fm_model_close(m);
    assert_int_equal(fm_select_capacity(1.4, 24, 48, 1.77), 184);
    assert_int_equal(fm_select_capacity_by_ram(1.4, 34.36, 48, 1.69), 208);
    assert_int_equal(fm_guard_capacity(360, 1.36, 34.36, 48, 1.69), 344);
    int slots[2];
    fm_allocate_slots_by_seen((const int[]){100, 300}, 2, 512, 400, 32, slots);
    assert_true(slots[0] == 100 && slots[1] == 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(discovery_counts_picks),
        cmocka_unit_test(fix_warm_and_free),
        cmocka_unit_test(options_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
