/* Traces are read as written, and the simulator counts what the live cache counts. */
#include "experts/simulate.h"

#include "experts_world.h"

static char path[64];

static int set_up_trace(void **state)
{
    snprintf(path, sizeof path, "/tmp/test_simulate.%d", (int)getpid());
    return set_up(state);
}

static int tear_down_trace(void **state)
{
    unlink(path);
    return tear_down(state);
}

/* TOP_K distinct experts, some layers with favourites. */
static void draw(int layer, int *experts)
{
    for (int i = 0; i < TOP_K;) {
        unsigned r = next_random();
        experts[i] = (int)(r % 4 <= (unsigned)layer ? r / 4 % 6 : r / 4 % EXPERTS);
        bool again = false;
        for (int j = 0; j < i; j++) again |= experts[j] == experts[i];
        i += !again;
    }
}

enum { PASSES = 90, MOST_TOKENS = 18 };

static int tokens_of(int pass)
{
    return pass % 30 == 0 ? MOST_TOKENS : pass % 7 == 3 ? 3 : 1;
}

/* Ask for the union of a pass as the model does: in one wave, or in waves of half of what fits. */
static void use_union(xp_cache *c, int layer, const int *picks, int n_tokens)
{
    int count[EXPERTS] = {0}, experts[EXPERTS], counts[EXPERTS], n = 0;
    for (int i = 0; i < n_tokens * TOP_K; i++) count[picks[i]]++;
    for (int e = 0; e < EXPERTS; e++)
        if (count[e]) {
            experts[n] = e;
            counts[n++] = count[e];
        }
    int held = xp_max_held(c, layer), wave = n <= held ? n : held / 2, index;
    if (n > held) xp_order(c, layer, experts, counts, n);
    xp_ticket a[EXPERTS], b[EXPERTS], *now = a, *next = b;
    fm_error err;
    int here = n < wave ? n : wave;
    assert_int_equal(xp_acquire(c, layer, experts, counts, here, now, &err), FM_OK);
    for (int from = 0; from < n;) {
        int after = from + here, more = n - after < wave ? n - after : wave;
        if (more)
            assert_int_equal(
                xp_acquire(c, layer, experts + after, counts + after, more, next, &err), FM_OK);
        for (int i = 0; i < here; i++) assert_int_equal(xp_wait(c, now, here, &index, &err), FM_OK);
        xp_release(c, now, here);
        xp_ticket *swap = now;
        now = next;
        next = swap;
        from = after;
        here = more;
    }
}

static void run_live(const world *w, const xp_options *o, xp_stats *out)
{
    xp_cache *c;
    xp_recorder *r;
    fm_error err;
    assert_int_equal(xp_open(&w->source, o, &c, &err), FM_OK);
    assert_int_equal(xp_recorder_open(path, LAYERS, TOP_K, &r, &err), FM_OK);
    for (int pass = 0; pass < PASSES; pass++) {
        int n = tokens_of(pass);
        xp_begin_step(c, n, n >= XP_PREFILL_FROM);
        for (int l = 0; l < LAYERS; l++) {
            int picks[MOST_TOKENS * TOP_K];
            for (int t = 0; t < n; t++) {
                draw(l, picks + t * TOP_K);
                xp_recorder_route(r, l, t, picks + t * TOP_K, NULL, TOP_K);
            }
            use_union(c, l, picks, n);
        }
    }
    xp_get_stats(c, out);
    xp_close(c);
    assert_int_equal(xp_recorder_close(r, &err), FM_OK);
}

static void agrees_with_the_live_cache(void **state)
{
    const world *w = *state;
    for (int policy = XP_LFRU; policy <= XP_LCP; policy++)
        for (int capacity = TOP_K; capacity <= EXPERTS; capacity += 3)
            for (int lend = 0; lend < 2; lend++) {
                xp_options o = {.policy = (xp_policy)policy, .capacity = lend ? -1 : capacity};
                xp_options one = {.capacity = 1};
                for (int l = 0; l < LAYERS; l++)
                    o.slot_bytes += xp_slot_bytes(&w->source, l, &one) * (uint64_t)capacity;
                xp_stats live;
                run_live(w, &o, &live);
                xp_trace *t;
                fm_error err;
                assert_int_equal(xp_trace_read(path, &t, &err), FM_OK);
                assert_int_equal(t->n_steps, PASSES);
                xp_sim_options s = {(xp_policy)policy, capacity, lend};
                xp_sim_result sim, best;
                assert_int_equal(xp_simulate(t, &s, &sim, &err), FM_OK);
                assert_int_equal(sim.hits, live.hits);
                assert_int_equal(sim.misses, live.misses);
                assert_int_equal(xp_simulate_belady(t, capacity, 0, &best, &err), FM_OK);
                assert_int_equal(best.hits + best.misses, sim.hits + sim.misses);
                if (!lend) assert_true(best.misses <= sim.misses);
                xp_trace_free(t);
            }
}

static void put(const char *text)
{
    FILE *f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
}

static void formats(void **state)
{
    (void)state;
    xp_trace *t;
    fm_error err;
    put("{\"tok\":1,\"layers\":[[5,2],[0,1]]}\n{\"tok\":2,\"layers\":[[3],[1,4]]}\n");
    assert_int_equal(xp_trace_read(path, &t, &err), FM_OK);
    assert_int_equal(t->n_steps, 2);
    assert_int_equal(t->n_experts, 6);
    assert_int_equal(xp_trace_picks(t, 1, 0)[1], -1);
    assert_int_equal(xp_trace_picks(t, 1, 1)[1], 4);
    xp_trace_free(t);
    put("# x n_layer=2 n_expert=8 n_expert_used=1\nturn,phase,step,layer,slot,expert,w\n"
        "0,0,0,0,0,3,1\n0,0,1,0,0,4,1\n0,0,0,1,0,5,1\n0,0,1,1,0,6,1\n0,1,2,0,0,7,1\n0,1,2,1,0,1,1\n"
        "0,1,3,0,0,2,1\n");
    assert_int_equal(xp_trace_read(path, &t, &err), FM_OK);
    assert_int_equal(t->n_tokens, 4);
    assert_int_equal(t->n_steps, 3);
    assert_true(t->steps[0].prefill && t->steps[0].n == 2 && !t->steps[1].prefill);
    assert_int_equal(xp_trace_picks(t, 1, 1)[0], 6);
    xp_trace_free(t);
    static const char *const wrong[] = {"",
                                        "hello\n",
                                        "{\"layers\":3}\n",
                                        "{\"layers\":[[1],[2]]}\n{\"layers\":[[1]]}\n",
                                        "{\"layers\":[[-1]]}\n",
                                        "{\"layers\":[[99999999]]}\n",
                                        "{\"layers\":[[1]]}\n{broken\n",
                                        "# n_layer=2 n_expert=8 n_expert_used=1\n0,0,1,0,0,3,1\n",
                                        "# n_layer=2 n_expert=8 n_expert_used=1\n0,1,0,2,0,3,1\n",
                                        "# n_layer=2 n_expert=8 n_expert_used=1\n0,1\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        put(wrong[i]);
        assert_int_equal(xp_trace_read(path, &t, &err), FM_E_FORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(agrees_with_the_live_cache, set_up_trace, tear_down_trace),
        cmocka_unit_test_setup_teardown(formats, set_up_trace, tear_down_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
