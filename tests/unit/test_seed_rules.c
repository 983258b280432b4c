/* The seed's numbers, as computed by its own code. */
#include "engine/quality.h"
#include "engine/seed_rules.h"
#include "experts/allocate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void capacity_by_working_set(void **state)
{
    (void)state;
    assert_int_equal(en_select_capacity(1.4, 24, 48, 1.77), 184);
    assert_int_equal(en_select_capacity(1.4, 48, 48, 1.77), 392);
    assert_int_equal(en_select_capacity(1.4, 8, 48, 1.77), 48);
    assert_int_equal(en_select_capacity(5, 8, 48, 1.77), 8);
    assert_int_equal(en_select_capacity(20, 24, 48, 1.77), 0);
    assert_int_equal(en_select_capacity(1.358, 25.77, 48, 1.77), 200);
    assert_int_equal(en_select_capacity(0, 1000, 1, 0.001), 512);
    assert_int_equal(en_select_capacity(1.4, 22.9, 48, 1.77), 176);
    assert_int_equal(en_select_capacity(1.4, 24, 48, 0), 0);
}

static void capacity_by_ram(void **state)
{
    (void)state;
    assert_int_equal(en_select_capacity_by_ram(1.4, 34.36, 48, 1.69), 208);
    assert_int_equal(en_select_capacity_by_ram(1.4, 51.54, 48, 1.69), 320);
    assert_int_equal(en_select_capacity_by_ram(1.4, 68.72, 48, 1.69), 440);
    assert_int_equal(en_select_capacity_by_ram(1.4, 137.4, 48, 1.69), 512);
}

static void guard(void **state)
{
    (void)state;
    assert_int_equal(en_guard_capacity(208, 1.36, 34.36, 48, 1.69), 208);
    assert_int_equal(en_guard_capacity(344, 1.36, 34.36, 48, 1.69), 344);
    assert_int_equal(en_guard_capacity(360, 1.36, 34.36, 48, 1.69), 344);
    assert_int_equal(en_guard_capacity(64, 40, 34.36, 48, 1.69), 0);
}

static void refresh(void **state)
{
    (void)state;
    static const struct {
        int tokens;
        double rate;
        int no_swap, low, interval, layers;
    } rows[] = {
        {1, 1.0, 0, 0, 1, 48},    {50, .15, 0, 0, 2, 24}, {60, .09, 0, 0, 3, 16},
        {120, .09, 4, 0, 8, 8},   {60, .14, 4, 0, 4, 12}, {120, .07, 0, 6, 12, 8},
        {120, .04, 5, 12, 20, 8}, {60, .4, 9, 12, 1, 48},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        en_refresh r =
            en_refresh_policy(rows[i].tokens, rows[i].rate, rows[i].no_swap, rows[i].low);
        assert_int_equal(r.interval, rows[i].interval);
        assert_int_equal(r.layers, rows[i].layers);
    }
}

static void near(double got, double want, double tolerance)
{
    if (got < want - tolerance || got > want + tolerance) fail_msg("%g is not %g", got, want);
}

static void allocation(void **state)
{
    (void)state;
    uint64_t counts[2][64];
    for (int e = 0; e < 64; e++) counts[0][e] = e < 4 ? 100 : 1, counts[1][e] = 10;
    int slots[2], moves;
    double miss[2];
    assert_int_equal(xp_allocate(counts[0], 2, 64, 40, 4, slots, miss, &moves, NULL), 0);
    assert_int_equal(slots[0], 4);
    assert_int_equal(slots[1], 36);
    assert_int_equal(moves, 16);
    near(miss[0], .1304, 1e-4);
    near(miss[1], .4375, 1e-9);

    for (int e = 0; e < 64; e++) counts[0][e] = 10;
    assert_int_equal(xp_allocate(counts[0], 2, 64, 64, 8, slots, miss, &moves, NULL), 0);
    assert_int_equal(slots[0], 32);
    assert_int_equal(slots[1], 32);
    assert_int_equal(moves, 0);

    assert_int_equal(xp_allocate(counts[0], 1, 64, 4, 4, slots, miss, &moves, NULL), 0);
    near(miss[0], .9375, 1e-9);
    /* More slots than experts: every layer full, nothing missed. */
    assert_int_equal(xp_allocate(counts[0], 2, 8, 64, 16, slots, miss, NULL, NULL), 0);
    assert_int_equal(slots[0], 8);
    near(miss[1], 0, 0);
    assert_int_equal(xp_allocate(counts[0], 0, 8, 64, 16, slots, miss, NULL, NULL), FM_E_ARGUMENT);
}

static void allocation_by_seen(void **state)
{
    (void)state;
    int slots[3], seen[3] = {100, 200, 300};
    xp_allocate_by_seen(seen, 3, 512, 600, 32, slots);
    assert_int_equal(slots[0] + slots[1] + slots[2], 600);
    assert_int_equal(slots[1], 200);
    xp_allocate_by_seen(seen, 3, 64, 600, 32, slots);
    for (int l = 0; l < 3; l++) assert_int_equal(slots[l], 64);
}

static void repetition(void **state)
{
    (void)state;
    char text[4096] = "";
    for (int i = 0; i < 100; i++) strcat(text, "mkdir -p ");
    near(en_rep_tail(text, strlen(text)), 0.111, 1e-3);
    near(en_rep_words(text, strlen(text)), 1 - 2.0 / 197, 1e-9);
    near(en_rep_tail("ab", 2), 0, 0);
    near(en_rep_words("one two three", 13), 0, 0);
    near(en_rep_words("a b c d e f g h", 15), 0, 0);
    near(en_rep_tail("\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0", 12), 1, 0);

    int tokens[50];
    for (int i = 0; i < 50; i++) tokens[i] = i < 20 ? 1000 + i : i % 3;
    near(en_rep_loop(tokens, 50, 16, 3), 30.0 / 50, 1e-9);
    for (int i = 0; i < 50; i++) tokens[i] = i;
    near(en_rep_loop(tokens, 50, 16, 3), 0, 0);
}

static void divergence(void **state)
{
    (void)state;
    float p[3] = {0, 0, 0}, q[3] = {5, 5, 5}, r[3] = {0, 0.69314718f, -1e30f};
    near(en_kl(p, q, 3), 0, 1e-12);
    near(en_log_prob(p, 3, 1), -1.0986123, 1e-6);
    near(en_kl(r, p, 3), 1.0986123 - 0.6365142, 1e-6); /* log 3 - H(1/3, 2/3) */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capacity_by_working_set),
        cmocka_unit_test(capacity_by_ram),
        cmocka_unit_test(guard),
        cmocka_unit_test(refresh),
        cmocka_unit_test(allocation),
        cmocka_unit_test(allocation_by_seen),
        cmocka_unit_test(repetition),
        cmocka_unit_test(divergence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
