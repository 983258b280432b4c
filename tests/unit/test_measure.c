/* Rates are plausible numbers; what tune stores comes back on this machine and on no other. */
#include "base/mem.h"
#include "cli/bench_rates.h"
#include "experts/measure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_measure.XXXXXX");
    return mkdtemp(dir) && !setenv("XDG_CONFIG_HOME", dir, 1) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char name[100];
    snprintf(name, sizeof name, "%s/flash-moe/tune.json", dir);
    unlink(name);
    snprintf(name, sizeof name, "%s/flash-moe", dir);
    rmdir(name);
    snprintf(name, sizeof name, "%s/data", dir);
    unlink(name);
    return rmdir(dir);
}

static void rates(void **state)
{
    (void)state;
    char path[100];
    snprintf(path, sizeof path, "%s/data", dir);
    FILE *f = fopen(path, "wb");
    char block[4096] = {1};
    for (int i = 0; i < 256; i++) assert_int_equal(fwrite(block, 1, sizeof block, f), sizeof block);
    fclose(f);
    xp_disk_probe probe = {.path = path, .record_bytes = 60000, .depth = 3, .seconds = 0.02};
    xp_disk_rate rate;
    fm_error err;
    assert_int_equal(xp_measure_disk(&probe, &rate, &err), FM_OK);
    assert_true(rate.bytes_s > 1e5 && rate.latency_s > 0);
    probe.record_bytes = 2 << 20;
    assert_int_equal(xp_measure_disk(&probe, &rate, &err), FM_E_ARGUMENT);
    probe.path = "/nonexistent/file";
    assert_int_equal(xp_measure_disk(&probe, &rate, &err), FM_E_NOT_FOUND);
    double memory;
    assert_int_equal(xp_measure_memory(NULL, 0.01, &memory, &err), FM_OK);
    assert_true(memory > 1e8 && memory < 1e13);
}

/* Half of a token's bytes are experts, which come in at half of memory's rate. */
static void experts_count_at_their_own_rate(void **state)
{
    (void)state;
    en_stats s = {.decode_tok_s = 4, .memory_bytes_per_token = 1e9, .tokens = 10};
    s.expert_hits = 40, s.expert_misses = 10;
    cli_rates r = {.disk = 1e9, .memory = 1e10, .experts = 5e9};
    cli_rates_bound(&r, 1e8, &s); /* 0.05 s for all else, 0.1 s for experts */
    assert_float_equal(s.bound_tok_s, 1 / 0.15, 1e-4);
    assert_float_equal(s.bound_fraction, 0.6, 1e-4);
    cli_rates_bound(&r, 1e12, &s); /* never more than all there is */
    assert_float_equal(s.bound_tok_s, 5, 1e-4);
    r.experts = 0;
    cli_rates_bound(&r, 1e8, &s);
    assert_float_equal(s.bound_tok_s, 10, 1e-4);
}

static void stored(void **state)
{
    (void)state;
    xp_tuning t;
    assert_false(xp_tuning_load(dir, &t));
    assert_int_equal(t.prefetch, -1);
    t = (xp_tuning){1.5e9, 3e10, 2, 4, -1};
    char *where = NULL;
    fm_error err;
    assert_int_equal(xp_tuning_save(dir, &t, &where, &err), FM_OK);
    assert_int_equal(strncmp(where, dir, strlen(dir)), 0);
    xp_tuning back;
    assert_true(xp_tuning_load(dir, &back));
    assert_true(back.disk_bytes_s == 1.5e9 && back.io_threads == 4 && back.prefetch == -1);
    t.prefetch = 0;
    assert_int_equal(xp_tuning_save(dir, &t, NULL, &err), FM_OK);
    assert_true(xp_tuning_load(dir, &back));
    assert_int_equal(back.prefetch, 0);
    FILE *f = fopen(where, "wb");
    fputs("{\"machine\": \"another\", \"disks\": {}}", f);
    fclose(f);
    assert_false(xp_tuning_load(dir, &back));
    f = fopen(where, "wb");
    fputs("{broken", f);
    fclose(f);
    assert_false(xp_tuning_load(dir, &back));
    bs_free(where);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rates, set_up, tear_down),
        cmocka_unit_test(experts_count_at_their_own_rate),
        cmocka_unit_test_setup_teardown(stored, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
