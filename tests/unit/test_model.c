/* The bundled model against the reference outputs in its folder, and the promises of model.h:
 * no cut of a prompt, no company in a batch, no budget and no thread count changes a bit. */
#include "model/model.h"

#include "base/mem.h"
#include "experts/fixed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const folder = "models/flash-moe-tiny";

typedef struct fixture {
    md_model *model;
    xp_cache *cache;
    bs_pool *pool;
    md_run *run;
    int vocab;
} fixture;

enum { MOST = 64 };

static void set_up(fixture *f, int threads, int capacity)
{
    fm_error err = {0};
    md_options options = {.isa = kn_isa_best(), .kv_type = KN_KV_F16};
    assert_int_equal(md_open(folder, &options, &f->model, &err), FM_OK);
    assert_int_equal(md_load(f->model, NULL, NULL, &err), FM_OK);
    assert_int_equal(bs_pool_create(threads, &f->pool, &err), FM_OK);
    xp_options x = {.capacity = capacity};
    assert_int_equal(xp_open(md_expert_source(f->model), &x, &f->cache, &err), FM_OK);
    assert_int_equal(md_run_create(f->model, f->cache, f->pool, MOST, MOST, &f->run, &err), FM_OK);
    f->vocab = md_describe(f->model)->vocab;
}

static void tear_down(fixture *f)
{
    md_run_destroy(f->run);
    xp_close(f->cache);
    bs_pool_destroy(f->pool);
    md_close(f->model);
}

static md_state *new_state(const fixture *f)
{
    md_state *s;
    assert_int_equal(md_state_create(f->model, 100, &s, NULL), FM_OK);
    return s;
}

/* Feed ids in chunks and return the logits of every position. */
static float *feed(fixture *f, md_state *s, const int *ids, int n, int chunk)
{
    float *logits = calloc((size_t)n * (size_t)f->vocab, sizeof *logits);
    fm_error err = {0};
    for (int t = 0; t < n; t += chunk) {
        md_token tokens[MOST];
        int m = n - t < chunk ? n - t : chunk;
        for (int i = 0; i < m; i++) tokens[i] = (md_token){ids[t + i], s, true};
        fm_status status =
            md_forward(f->run, tokens, m, m > 1, logits + (size_t)t * (size_t)f->vocab, &err);
        if (status) fail_msg("%s", err.message);
    }
    return logits;
}

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static int read_ids(const json_t *list, int *out)
{
    int n = (int)json_array_size(list);
    assert_true(n <= MOST);
    for (int i = 0; i < n; i++) out[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

static void matches_the_reference(void **unused)
{
    (void)unused;
    fixture f;
    set_up(&f, 2, 16);
    json_t *all = json_load_file("models/flash-moe-tiny/reference.json", 0, NULL);
    const json_t *one = json_array_get(all, 0), *last = json_object_get(one, "last_logits");
    int ids[MOST], greedy[MOST], n = read_ids(json_object_get(one, "ids"), ids);
    read_ids(json_object_get(one, "greedy"), greedy);
    md_state *s = new_state(&f);
    float *logits = feed(&f, s, ids, n, n), *row = logits + (size_t)(n - 1) * (size_t)f.vocab;
    double worst = 0, scale = 0;
    for (int v = 0; v < f.vocab; v++) {
        double want = json_number_value(json_array_get(last, (size_t)v));
        worst = fmax(worst, fabs(row[v] - want));
        scale = fmax(scale, fabs(want));
    }
    assert_true(worst < 1e-3 * scale);
    int next = argmax(row, f.vocab);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(next, greedy[i]);
        float *more = feed(&f, s, &next, 1, 1);
        next = argmax(more, f.vocab);
        free(more);
    }
    free(logits);
    json_decref(all);
    md_state_destroy(s);
    tear_down(&f);
}

static const int prompt[] = {1, 540, 201, 3044, 415, 263, 2795, 1019, 263, 1807, 90, 324};
enum { PROMPT = sizeof prompt / sizeof *prompt };

static void no_cut_changes_a_bit(void **unused)
{
    (void)unused;
    fixture f;
    set_up(&f, 2, 64);
    md_state *s = new_state(&f);
    size_t bytes = (size_t)PROMPT * (size_t)f.vocab * sizeof(float);
    float *whole = feed(&f, s, prompt, PROMPT, PROMPT);
    for (int chunk = 1; chunk < PROMPT; chunk += 4) {
        md_state_reset(s);
        float *cut = feed(&f, s, prompt, PROMPT, chunk);
        assert_memory_equal(whole, cut, bytes);
        free(cut);
    }
    tear_down(&f);
    set_up(&f, 1, 4); /* other budget, other threads */
    md_state *other = new_state(&f);
    float *small = feed(&f, other, prompt, PROMPT, 7);
    assert_memory_equal(whole, small, bytes);
    free(small);
    free(whole);
    md_state_destroy(s);
    md_state_destroy(other);
    tear_down(&f);
}

static void no_company_changes_a_bit(void **unused)
{
    (void)unused;
    fixture f;
    set_up(&f, 2, 64);
    md_state *a = new_state(&f), *b = new_state(&f), *alone = new_state(&f);
    float *whole = feed(&f, alone, prompt, PROMPT, PROMPT);
    float *head = feed(&f, a, prompt, 8, 8), *other = feed(&f, b, prompt + 3, 5, 5);
    md_token tokens[6];
    for (int i = 0; i < 2; i++) tokens[i] = (md_token){prompt[8 + i], b, false};
    for (int i = 0; i < 4; i++) tokens[2 + i] = (md_token){prompt[8 + i], a, true};
    float *tail = calloc(4 * (size_t)f.vocab, sizeof *tail);
    assert_int_equal(md_forward(f.run, tokens, 6, true, tail, NULL), FM_OK);
    assert_memory_equal(tail, whole + 8 * (size_t)f.vocab, 4 * (size_t)f.vocab * sizeof *tail);
    free(whole);
    free(head);
    free(other);
    free(tail);
    md_state_destroy(a);
    md_state_destroy(b);
    md_state_destroy(alone);
    tear_down(&f);
}

static void snapshots_and_copies_go_back(void **unused)
{
    (void)unused;
    fixture f;
    set_up(&f, 2, 64);
    md_state *s = new_state(&f), *copy = new_state(&f);
    float *head = feed(&f, s, prompt, 6, 6);
    void *snapshot = malloc((size_t)md_snapshot_bytes(f.model));
    md_snapshot_take(s, snapshot);
    float *first = feed(&f, s, prompt + 6, 6, 6);
    size_t bytes = 6 * (size_t)f.vocab * sizeof(float);
    assert_false(md_state_truncate(s, 6));
    assert_false(md_state_truncate(s, 13)); /* there are twelve */
    assert_true(md_state_truncate(s, 12));
    md_snapshot_restore(s, 6, snapshot);
    float *again = feed(&f, s, prompt + 6, 6, 3);
    assert_memory_equal(first, again, bytes);
    assert_int_equal(md_state_copy(copy, s, 6, NULL, NULL), FM_E_ARGUMENT);
    assert_int_equal(md_state_copy(copy, s, 6, snapshot, NULL), FM_OK);
    float *third = feed(&f, copy, prompt + 6, 6, 2);
    assert_memory_equal(first, third, bytes);
    unsigned char *kv = malloc((size_t)md_kv_bytes(f.model, 6));
    md_kv_export(s, 6, kv);
    md_state_reset(copy);
    md_kv_import(copy, 6, kv);
    md_snapshot_restore(copy, 6, snapshot);
    float *fourth = feed(&f, copy, prompt + 6, 6, 6);
    assert_memory_equal(first, fourth, bytes);
    free(kv);
    free(head);
    free(first);
    free(again);
    free(third);
    free(fourth);
    free(snapshot);
    md_state_destroy(s);
    md_state_destroy(copy);
    tear_down(&f);
}

static void watch_nothing(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    (void)layer, (void)token, (void)experts, (void)weights, (void)top_k;
    ++*(int *)arg;
}

/* Feed the prompt at once, logits wanted of tokens `first` and `second` only; how many picks. */
static uint64_t feed_wanting(fixture *f, md_state *s, int first, int second, float *logits)
{
    md_token tokens[PROMPT];
    md_mass before, after;
    fm_error err = {0};
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (md_token){prompt[i], s, i == first || i == second};
    md_state_reset(s);
    md_run_mass(f->run, &before);
    if (md_forward(f->run, tokens, PROMPT, true, logits, &err)) fail_msg("%s", err.message);
    md_run_mass(f->run, &after);
    return after.picks - before.picks;
}

/* In the last layer a token whose logits nobody wants asks for no expert, unless routes are
 * watched; and nothing that follows can tell. */
static void what_nobody_wants_is_left_out(void **unused)
{
    (void)unused;
    enum { TOP_K = 4, LAYERS = 8, FIRST = 4 };
    fixture f;
    set_up(&f, 2, 16);
    md_state *s = new_state(&f);
    size_t row = (size_t)f.vocab;
    float *whole = feed(&f, s, prompt, PROMPT, PROMPT), *two = calloc(2 * row, sizeof *two);
    float *next = feed(&f, s, prompt, 1, 1);
    int seen = 0;
    for (int watched = 0; watched < 2; watched++) {
        uint64_t rest = PROMPT * TOP_K * (LAYERS - 1);
        if (watched) md_run_watch_routes(f.run, watch_nothing, &seen);
        assert_int_equal(feed_wanting(&f, s, FIRST, PROMPT - 1, two),
                         rest + TOP_K * (watched ? PROMPT : 2));
        assert_memory_equal(two, whole + FIRST * row, row * sizeof *two);
        assert_memory_equal(two + row, whole + (PROMPT - 1) * row, row * sizeof *two);
        assert_int_equal(feed_wanting(&f, s, -1, -1, NULL), rest + TOP_K * (watched ? PROMPT : 0));
        float *again = feed(&f, s, prompt, 1, 1);
        assert_memory_equal(again, next, row * sizeof *again);
        free(again);
    }
    assert_int_equal(seen, (2 * PROMPT + 1) * LAYERS);
    free(next);
    free(two);
    free(whole);
    md_state_destroy(s);
    tear_down(&f);
}

static void refuses_what_cannot_be(void **unused)
{
    (void)unused;
    fixture f;
    set_up(&f, 1, 8);
    md_state *s;
    assert_int_equal(md_state_create(f.model, 2, &s, NULL), FM_OK);
    fm_error err = {0};
    float *logits = calloc((size_t)f.vocab, sizeof *logits);
    md_token tokens[3] = {{1, s, false}, {540, s, false}, {201, s, true}};
    assert_int_equal(md_forward(f.run, tokens, 3, true, logits, &err), FM_E_LIMIT);
    tokens[0].id = f.vocab;
    assert_int_equal(md_forward(f.run, tokens, 1, true, logits, &err), FM_E_ARGUMENT);
    tokens[0].id = -1;
    assert_int_equal(md_forward(f.run, tokens, 1, true, logits, &err), FM_E_ARGUMENT);
    tokens[0] = (md_token){1, s, true};
    assert_int_equal(md_forward(f.run, tokens, 1, true, NULL, &err), FM_E_ARGUMENT);
    assert_int_equal(md_state_length(s), 0);
    free(logits);
    md_state_destroy(s);
    tear_down(&f);
}

/* The seed's lossy modes: with everything resident they are exact; with part of it, what is dropped
 * is counted, and after a refresh with room for all the text is exact again. */
static void a_fixed_set_is_lossy_and_says_so(void **unused)
{
    (void)unused;
    static const int ids[12] = {1, 300, 17, 45, 999, 2048, 77, 5, 600, 4000, 31, 8};
    fixture f;
    set_up(&f, 1, 64);
    md_state *s = new_state(&f);
    md_mass mass;
    float *exact = feed(&f, s, ids, 12, 12); /* reads what the prompt needs, nothing else */
    md_run_mass(f.run, &mass);
    assert_true(mass.dropped == 0 && mass.picks == 12 * 4 * 8);
    for (xp_fixed fixed = XP_FIXED_SKIP; fixed <= XP_FIXED_SUBSTITUTE; fixed++) {
        assert_int_equal(xp_set_fixed(f.cache, fixed, NULL), FM_OK);
        md_state_reset(s);
        float *same = feed(&f, s, ids, 12, 5);
        assert_memory_equal(same, exact, 12 * (size_t)f.vocab * sizeof(float));
        free(same);
        static const int other[6] = {7000, 123, 4567, 2345, 890, 6001};
        md_state_reset(s);
        float *lossy = feed(&f, s, other, 6, 6);
        for (int i = 0; i < 6 * f.vocab; i++) assert_true(isfinite(lossy[i]));
        free(lossy);
    }
    md_run_mass(f.run, &mass);
    assert_true(mass.dropped > 0 && mass.dropped < mass.routed);
    assert_true(mass.dropped_picks > 0 && mass.dropped_picks < mass.picks);
    xp_refresh_stats r;
    assert_int_equal(xp_refresh(f.cache, 64, 64, &r, NULL), FM_OK);
    assert_true(r.swaps > 0);
    assert_int_equal(xp_set_fixed(f.cache, XP_FIXED_OFF, NULL), FM_OK);
    md_state_reset(s);
    float *again = feed(&f, s, ids, 12, 1);
    assert_memory_equal(again, exact, 12 * (size_t)f.vocab * sizeof(float));
    free(again);
    free(exact);
    md_state_destroy(s);
    tear_down(&f);
}

static void router_only_reads_nothing(void **unused)
{
    (void)unused;
    static const int ids[4] = {1, 300, 17, 45};
    fixture f;
    set_up(&f, 1, 16);
    md_state *s = new_state(&f);
    md_run_router_only(f.run, true);
    free(feed(&f, s, ids, 4, 4));
    xp_stats stats;
    xp_get_stats(f.cache, &stats);
    assert_int_equal(stats.bytes_read, 0);
    md_state_destroy(s);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_reference),
        cmocka_unit_test(a_fixed_set_is_lossy_and_says_so),
        cmocka_unit_test(router_only_reads_nothing),
        cmocka_unit_test(no_cut_changes_a_bit),
        cmocka_unit_test(no_company_changes_a_bit),
        cmocka_unit_test(snapshots_and_copies_go_back),
        cmocka_unit_test(what_nobody_wants_is_left_out),
        cmocka_unit_test(refuses_what_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
