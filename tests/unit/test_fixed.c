/* Preloading, pins, saved states and the fixed resident set. */
#include "base/mem.h"
#include "experts/fixed.h"

#include "experts_world.h"

static xp_cache *open_cache(const world *w, int capacity, xp_policy policy)
{
    xp_cache *c = NULL;
    xp_options o = {.capacity = capacity, .policy = policy};
    assert_int_equal(xp_open(&w->source, &o, &c, NULL), 0);
    return c;
}

/* Acquire, check the bytes of what is handed out, release. Returns how many were. */
static int use(xp_cache *c, const world *w, int layer, const int *experts, int n)
{
    xp_ticket t[EXPERTS];
    int handed = 0, index;
    xp_begin_step(c, 1, false);
    assert_int_equal(xp_acquire(c, layer, experts, NULL, n, t, NULL), 0);
    for (;; handed++) {
        assert_int_equal(xp_wait(c, t, n, &index, NULL), 0);
        if (index < 0) break;
        if (!t[index].missing) check_view(w, &t[index]);
    }
    xp_release(c, t, n);
    return handed;
}

static xp_stats stats_of(const xp_cache *c)
{
    xp_stats s;
    xp_get_stats(c, &s);
    return s;
}

static void preload_fills_empty_slots_only(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, 6, XP_LFRU);
    static const int first[4] = {0, 1, 2, 3}, wanted[8] = {9, 10, 0, 11, 12, 13, 14, 15};
    use(c, w, 0, first, 4);
    assert_int_equal(xp_preload(c, 0, wanted, 8, NULL), 0);
    assert_int_equal(xp_preload_finish(c, NULL), 0);
    assert_int_equal(xp_preload_pending(c), 0);
    for (int i = 0; i < 4; i++) assert_true(xp_is_resident(c, 0, first[i]));
    assert_true(xp_is_resident(c, 0, 9) && xp_is_resident(c, 0, 10));
    assert_false(xp_is_resident(c, 0, 11));
    uint64_t misses = stats_of(c).misses;
    static const int now[4] = {9, 10, 0, 1};
    assert_int_equal(use(c, w, 0, now, 4), 4);
    assert_int_equal(stats_of(c).misses, misses);
    xp_close(c);
}

static void preload_goes_on_in_the_background(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, EXPERTS, XP_LFRU);
    int all[EXPERTS];
    for (int e = 0; e < EXPERTS; e++) all[e] = e;
    for (int l = 0; l < LAYERS; l++) assert_int_equal(xp_preload(c, l, all, EXPERTS, NULL), 0);
    for (int i = 0; xp_preload_pending(c) && i < 100000; i++) {
        use(c, w, i % LAYERS, all + i % 12, 4);
        usleep(100);
    }
    assert_int_equal(xp_preload_pending(c), 0);
    for (int l = 0; l < LAYERS; l++) assert_int_equal(use(c, w, l, all, EXPERTS), EXPERTS);
    xp_close(c);
}

static int begun(const xp_cache *c, int layer, const int *experts, int n)
{
    int found = 0;
    for (int i = 0; i < n; i++)
        found += xp_is_resident(c, layer, experts[i]) || xp_is_coming(c, layer, experts[i]);
    return found;
}

/* What is read ahead is of use soon: the layer that comes next goes first, its best experts first.
 */
static void preload_begins_with_the_next_layer(void **state)
{
    enum { THIS = LAYERS - 2, NEXT, N = 12 };
    const world *w = *state;
    xp_cache *c = open_cache(w, EXPERTS, XP_LFRU);
    static const int now[2] = {0, 1}, wanted[N] = {15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4};
    for (int l = 0; l < LAYERS; l++) assert_int_equal(xp_preload(c, l, wanted, N, NULL), 0);
    do { /* each release looks again; the next layer being through, they begin anew with the first
          */
        int index = 0;
        xp_ticket t[2];
        assert_int_equal(xp_acquire(c, THIS, now, NULL, 2, t, NULL), 0);
        while (index >= 0) assert_int_equal(xp_wait(c, t, 2, &index, NULL), 0);
        xp_release(c, t, 2);
        assert_int_equal(begun(c, NEXT, wanted, 1), 1);
        assert_true(!begun(c, 0, wanted, N) || begun(c, NEXT, wanted, N) == N);
        assert_true(!begun(c, THIS, wanted, N) || begun(c, 0, wanted, N) == N);
    } while (xp_preload_pending(c));
    for (int l = 0; l < LAYERS; l++) assert_int_equal(begun(c, l, wanted, N), N);
    xp_close(c);
}

static void pins_stay(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, 6, XP_LFRU);
    static const int universal[3] = {7, 8, 9};
    assert_int_equal(xp_pin(c, 1, universal, 3), 2); /* top_k of 4 must stay free */
    assert_true(xp_is_pinned(c, 1, 7) && xp_is_pinned(c, 1, 8) && !xp_is_pinned(c, 1, 9));
    assert_int_equal(xp_max_held(c, 1), 4);
    assert_int_equal(xp_preload(c, 1, universal, 2, NULL), 0);
    assert_int_equal(xp_preload_finish(c, NULL), 0);
    for (int round = 0; round < 50; round++) {
        int picks[4];
        for (int i = 0; i < 4; i++) picks[i] = (round * 3 + i * 5) % EXPERTS;
        use(c, w, 1, picks, 4);
        assert_true(xp_is_resident(c, 1, 7) && xp_is_resident(c, 1, 8));
    }
    assert_int_equal(xp_pin(c, 1, NULL, 0), 0);
    assert_int_equal(xp_max_held(c, 1), 6);
    xp_close(c);
}

static void learned(xp_cache *c, const world *w)
{
    static const int often[4] = {2, 5, 11, 13}, once[4] = {1, 3, 4, 6};
    for (int l = 0; l < LAYERS; l++) {
        use(c, w, l, once, 4);
        for (int i = 0; i < 5; i++) use(c, w, l, often, 4);
    }
}

static void a_saved_state_comes_back_in_order(void **state)
{
    const world *w = *state;
    static const int ids[LAYERS] = {0, 1, 2};
    for (xp_policy policy = XP_LFRU; policy <= XP_LCP; policy++) {
        xp_saved *saved;
        assert_int_equal(xp_saved_create("m", "", EXPERTS, LAYERS, ids, &saved, NULL), 0);
        xp_cache *c = open_cache(w, 8, policy);
        learned(c, w);
        for (int l = 0; l < LAYERS; l++) xp_export(c, l, &saved->layers[l]);
        xp_close(c);
        assert_int_equal(saved->layers[1].n_cached, 8);

        c = open_cache(w, 5, policy); /* fewer slots: the best come back */
        for (int l = 0; l < LAYERS; l++)
            assert_int_equal(xp_import(c, l, &saved->layers[l], NULL), 0);
        assert_int_equal(xp_preload_finish(c, NULL), 0);
        static const int often[4] = {2, 5, 11, 13}, fresh[4] = {8, 9, 10, 12};
        for (int i = 0; i < 4; i++) assert_true(xp_is_resident(c, 2, often[i]));
        uint64_t misses = stats_of(c).misses;
        use(c, w, 2, often, 4);
        assert_int_equal(stats_of(c).misses, misses);
        use(c, w, 2, fresh, 4);
        xp_close(c);
        xp_saved_free(saved);
    }
}

static void fixed_set_reads_nothing(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, 6, XP_LFRU);
    static const int known[4] = {0, 1, 2, 3}, mixed[4] = {2, 8, 3, 9};
    use(c, w, 0, known, 4);
    uint64_t bytes = stats_of(c).bytes_read;
    assert_int_equal(xp_set_fixed(c, XP_FIXED_SKIP, NULL), 0);
    assert_int_equal(use(c, w, 0, mixed, 4), 2); /* the two missing are never handed out */
    assert_int_equal(xp_set_fixed(c, XP_FIXED_SUBSTITUTE, NULL), 0);
    assert_int_equal(use(c, w, 0, mixed, 4), 4); /* here a stand-in is */
    assert_int_equal(use(c, w, 1, mixed, 4), 0); /* nothing resident: nothing to show */
    assert_int_equal(stats_of(c).bytes_read, bytes);

    xp_refresh_stats r;
    assert_int_equal(xp_refresh(c, 10, 12, &r, NULL), 0);
    assert_int_equal(r.requests, 12);
    assert_int_equal(r.misses, 8);
    assert_int_equal(r.layers, 2);
    assert_true(xp_is_resident(c, 0, 8) && xp_is_resident(c, 0, 9));
    assert_int_equal(use(c, w, 1, mixed, 4), 4);
    assert_int_equal(xp_set_fixed(c, XP_FIXED_OFF, NULL), 0);
    assert_int_equal(use(c, w, 2, known, 4), 4); /* exact again */
    xp_close(c);
}

static void refresh_follows_demand_and_pins(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, 5, XP_LFRU);
    static const int known[4] = {0, 1, 2, 3}, often[2] = {8, 4}, rare[3] = {9, 10, 11};
    use(c, w, 0, known, 4);
    static const int pin[1] = {0};
    assert_int_equal(xp_pin(c, 0, pin, 1), 1);
    assert_int_equal(xp_set_fixed(c, XP_FIXED_SKIP, NULL), 0);
    for (int i = 0; i < 30; i++) use(c, w, 0, often, 2);
    use(c, w, 0, rare, 3);
    xp_refresh_stats r;
    assert_int_equal(xp_refresh(c, 2, 12, &r, NULL), 0);
    assert_int_equal(r.swaps, 2); /* the limit a layer */
    assert_true(xp_is_resident(c, 0, 8) && xp_is_resident(c, 0, 4));
    assert_false(xp_is_resident(c, 0, 9));
    assert_int_equal(xp_refresh(c, 10, 12, &r, NULL), 0); /* what was left is still wanted */
    assert_true(r.swaps > 0 && xp_is_resident(c, 0, 9));
    assert_true(xp_is_resident(c, 0, 0)); /* pinned, though idle longest */
    xp_close(c);
}

static void refusals(void **state)
{
    const world *w = *state;
    xp_cache *c = open_cache(w, 0, XP_LFRU);
    assert_int_equal(xp_set_fixed(c, XP_FIXED_SKIP, NULL), FM_E_ARGUMENT);
    assert_int_equal(xp_refresh(c, 1, 1, NULL, NULL), FM_E_ARGUMENT);
    static const int pin[1] = {0};
    assert_int_equal(xp_pin(c, 0, pin, 1), 0);
    xp_close(c);
    c = open_cache(w, 6, XP_LFRU);
    for (int n = 1; n < 10; n++) {
        bs_mem_fail_at((uint64_t)n, false);
        fm_status status = xp_set_fixed(c, XP_FIXED_SKIP, NULL);
        bs_mem_fail_at(0, false);
        if (!status) break;
        assert_int_equal(status, FM_E_NOMEM);
        assert_int_equal(use(c, w, 0, (const int[]){1, 2}, 2), 2); /* still exact */
    }
    xp_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(preload_fills_empty_slots_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(preload_goes_on_in_the_background, set_up, tear_down),
        cmocka_unit_test_setup_teardown(preload_begins_with_the_next_layer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pins_stay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_saved_state_comes_back_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fixed_set_reads_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refresh_follows_demand_and_pins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refusals, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
