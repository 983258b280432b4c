/* The expert cache over real files: right bytes whatever the layout, slots, policy and trouble. */
#include "base/mem.h"
#include "experts/cache.h"
#include "experts/measure.h"

#include <errno.h>

#include "experts_world.h"

static xp_options with_capacity(int capacity)
{
    return (xp_options){.capacity = capacity, .policy = XP_LFRU};
}

/* n distinct experts, a few of them favourites. */
static void draw(int *experts, int n)
{
    for (int i = 0; i < n;) {
        unsigned r = next_random();
        experts[i] = (int)(r % 3 ? r / 3 % 5 : r / 3 % EXPERTS);
        bool again = false;
        for (int j = 0; j < i; j++) again |= experts[j] == experts[i];
        i += !again;
    }
}

static fm_status use(xp_cache *c, const world *w, int layer, const int *experts, int n,
                     fm_error *err)
{
    xp_ticket t[EXPERTS];
    fm_status status = xp_acquire(c, layer, experts, NULL, n, t, err);
    if (status) return status;
    bool seen[EXPERTS] = {false};
    for (int i = 0; i < n && !status; i++) {
        int index;
        status = xp_wait(c, t, n, &index, err);
        if (status) break;
        assert_in_range(index, 0, n - 1);
        assert_false(seen[index]);
        seen[index] = true;
        assert_int_equal(t[index].expert, experts[index]);
        check_view(w, &t[index]);
    }
    int index = 0;
    if (!status) {
        assert_int_equal(xp_wait(c, t, n, &index, err), FM_OK);
        assert_int_equal(index, -1);
    }
    xp_release(c, t, n);
    return status;
}

static void run_steps(xp_cache *c, const world *w, int steps)
{
    for (int i = 0; i < steps; i++) {
        xp_begin_step(c, 1, i % 7 == 0);
        for (int l = 0; l < LAYERS; l++) {
            int experts[TOP_K];
            draw(experts, TOP_K);
            fm_error err;
            fm_status status = use(c, w, l, experts, TOP_K, &err);
            if (status) print_message("%s\n", err.message);
            assert_int_equal(status, FM_OK);
            int guess[3];
            draw(guess, 3);
            xp_hint(c, (l + 1) % LAYERS, guess, 3);
        }
    }
}

static void right_bytes(void **state)
{
    const world *w = *state;
    xp_options kinds[] = {with_capacity(0),  with_capacity(TOP_K), with_capacity(7),
                          with_capacity(99), with_capacity(-1),    with_capacity(-1),
                          with_capacity(7),  with_capacity(-1)};
    kinds[4].slot_bytes = xp_floor_bytes(&w->source, &kinds[4]);
    kinds[5].slot_bytes = 2 * kinds[4].slot_bytes + 12345;
    kinds[5].prefetch = 3;
    kinds[6].buffered = true;
    kinds[6].policy = XP_LRU;
    kinds[6].prefetch = 2;
    kinds[7].slot_bytes = kinds[5].slot_bytes;
    kinds[7].policy = XP_LCP;
    kinds[7].io_threads = 1;
    kinds[2].io = kinds[5].io = kinds[6].io = kinds[7].io = XP_IO_PREAD;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        xp_cache *c;
        fm_error err;
        assert_int_equal(xp_open(&w->source, &kinds[k], &c, &err), FM_OK);
        run_steps(c, w, 60);
        xp_stats s;
        xp_get_stats(c, &s);
        assert_int_equal(s.hits + s.misses, 60 * LAYERS * TOP_K);
        assert_true(s.bytes_read > 0 && s.reads >= s.misses);
        if (kinds[k].capacity == 0) assert_int_equal(s.hits, 0);
        if (kinds[k].capacity == 99) assert_true(s.misses <= LAYERS * EXPERTS);
        if (kinds[k].capacity < 0) assert_true(s.slot_bytes <= kinds[k].slot_bytes);
        if (kinds[k].buffered) assert_false(s.direct_io);
        xp_close(c);
    }
}

/* Hints are wanted after a step that read, and not while nothing is missing. */
static void hints_rest_while_nothing_is_missing(void **state)
{
    const world *w = *state;
    xp_options o = with_capacity(99);
    o.prefetch = 2;
    o.prefetch_may_stop = true;
    xp_cache *c;
    fm_error err;
    int experts[1] = {0};
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    for (int step = 0; step < 3; step++) { /* the first one reads */
        xp_begin_step(c, 1, false);
        assert_int_equal(xp_wants_hints(c), step == 1);
        assert_int_equal(use(c, w, 0, experts, 1, &err), FM_OK);
    }
    experts[0] = 1;
    assert_int_equal(use(c, w, 0, experts, 1, &err), FM_OK);
    xp_begin_step(c, 1, false);
    assert_true(xp_wants_hints(c));
    xp_close(c);
}

/* The rate of experts in memory: none without experts, or with fewer than asked for. */
static void experts_are_measured_where_they_lie(void **state)
{
    const world *w = *state;
    xp_options o = with_capacity(6);
    xp_cache *c;
    fm_error err;
    double rate = -1;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    assert_int_equal(xp_measure_experts(c, NULL, 0.01, 0, &rate, &err), FM_OK);
    assert_true(rate == 0);
    run_steps(c, w, 5);
    assert_int_equal(xp_measure_experts(c, NULL, 0.01, 0, &rate, &err), FM_OK);
    assert_true(rate > 1e7 && rate < 1e13);
    assert_int_equal(xp_measure_experts(c, NULL, 0.01, 1 << 28, &rate, &err), FM_OK);
    assert_true(rate == 0);
    run_steps(c, w, 5); /* reading them changed nothing */
    xp_close(c);
}

static void waves_hold_at_most_max_held(void **state)
{
    const world *w = *state;
    xp_options o = with_capacity(6);
    xp_cache *c;
    fm_error err;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    assert_int_equal(xp_max_held(c, 0), 6);
    int e[7] = {0, 1, 2, 3, 4, 5, 6};
    xp_ticket a[7], b[7];
    xp_begin_step(c, 5, true);
    assert_int_equal(xp_acquire(c, 0, e, NULL, 7, a, &err), FM_E_LIMIT);
    assert_int_equal(xp_acquire(c, 0, e, NULL, 3, a, &err), FM_OK);
    assert_int_equal(xp_acquire(c, 0, e + 3, NULL, 3, b, &err), FM_OK);
    xp_ticket more;
    assert_int_equal(xp_acquire(c, 0, e + 6, NULL, 1, &more, &err), FM_E_LIMIT);
    int order[4] = {9, 1, 8, 0}, picks[4] = {90, 10, 80, 1};
    int index;
    for (int i = 0; i < 3; i++) assert_int_equal(xp_wait(c, a, 3, &index, &err), FM_OK);
    xp_order(c, 0, order, picks, 4);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], 9);
    assert_int_equal(picks[3], 80);
    xp_release(c, a, 3);
    assert_true(xp_is_resident(c, 0, 2));
    xp_release(c, b, 3); /* given back while reads may fly */
    assert_int_equal(use(c, w, 0, e + 4, 3, &err), FM_OK);
    xp_close(c);
}

static void bad_requests(void **state)
{
    world *w = *state;
    fm_error err;
    xp_cache *c;
    xp_options o = with_capacity(TOP_K - 1);
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_E_BUDGET);
    o = with_capacity(-1);
    o.slot_bytes = xp_floor_bytes(&w->source, &o) - 1;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_E_BUDGET);
    o = with_capacity(5);
    w->file_bytes[0] -= 40; /* the file table says less than the parts need */
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.message, w->path[0]));
    w->file_bytes[0] += 40;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    xp_ticket t;
    int e = EXPERTS;
    assert_int_equal(xp_acquire(c, 0, &e, NULL, 1, &t, &err), FM_E_ARGUMENT);
    e = -1;
    assert_int_equal(xp_acquire(c, 0, &e, NULL, 1, &t, &err), FM_E_ARGUMENT);
    e = 0;
    assert_int_equal(xp_acquire(c, LAYERS, &e, NULL, 1, &t, &err), FM_E_ARGUMENT);
    xp_close(c);
}

/* Every read in turn fails, is refused or comes back short; the bytes are right or it is an error,
 * and the next use of the same experts works. */
static void failing_reads(void **state)
{
    const world *w = *state;
    const int errors[] = {EIO, EINTR, EINVAL, -1};
    for (int k = 0; k < 8; k++)
        for (int nth = 1; nth <= 12; nth++) {
            int error = errors[k % 4];
            xp_options o = with_capacity(5);
            o.io = k < 4 ? XP_IO_PREAD : XP_IO_AUTO;
            xp_cache *c;
            fm_error err = {0};
            assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
            xp_reader_fail_at(c->reader, (uint64_t)nth, error);
            int e[TOP_K] = {3, 7, 1, 15};
            fm_status status = use(c, w, 1, e, TOP_K, &err);
            assert_int_equal(status, error == EIO ? FM_E_IO : FM_OK);
            if (status) assert_non_null(strstr(err.message, w->path[1]));
            xp_stats s;
            xp_get_stats(c, &s);
            if (error == EINVAL) assert_false(s.direct_io);
            assert_int_equal(use(c, w, 1, e, TOP_K, &err), FM_OK);
            xp_close(c);
        }
}

static void shrinking_file(void **state)
{
    const world *w = *state;
    xp_options o = with_capacity(5);
    xp_cache *c;
    fm_error err;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    assert_int_equal(truncate(w->path[1], 10000), 0);
    int e[2] = {0, 15};
    assert_int_equal(use(c, w, 1, e, 2, &err), FM_E_IO);
    assert_non_null(strstr(err.message, "ends at byte"));
    assert_int_equal(use(c, w, 0, e, 2, &err), FM_OK);
    xp_close(c);
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_E_IO);
    unlink(w->path[1]);
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_E_NOT_FOUND);
}

static void failing_allocations(void **state)
{
    const world *w = *state;
    xp_options o = with_capacity(5);
    fm_status status = FM_E_NOMEM;
    int nth = 1;
    for (; status && nth < 1000; nth++) {
        xp_cache *c;
        fm_error err;
        bs_mem_fail_at((uint64_t)nth, false);
        status = xp_open(&w->source, &o, &c, &err);
        bs_mem_fail_at(0, false);
        if (status) assert_int_equal(status, FM_E_NOMEM);
        else xp_close(c);
    }
    assert_true(nth > 10 && nth < 1000);
}

/* Slots given back are not used again, the rest serves on, and no layer falls below a token's need.
 */
static void shrinking(void **state)
{
    const world *w = *state;
    for (int kind = 0; kind < 2; kind++) {
        xp_options o = with_capacity(kind ? -1 : 10);
        o.slot_bytes = 2 * xp_floor_bytes(&w->source, &o);
        xp_cache *c;
        fm_error err;
        assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
        run_steps(c, w, 20);
        xp_stats before, after;
        xp_get_stats(c, &before);
        assert_int_equal(xp_shrink(c, 0.25), before.slots / 4);
        run_steps(c, w, 20);
        xp_get_stats(c, &after);
        assert_int_equal(after.slots, before.slots - before.slots / 4);
        assert_true(after.slot_bytes < before.slot_bytes);
        xp_shrink(c, 1);
        run_steps(c, w, 20);
        xp_get_stats(c, &after);
        assert_true(after.slots >= LAYERS * TOP_K);
        xp_close(c);
    }
    assert_true(xp_pressure_parse_psi("some avg10=12.50 avg60=1.00\nfull avg10=3") == 12.5);
    assert_true(xp_pressure_parse_psi("") == 0);
    assert_int_equal(xp_pressure_parse_events("low 1\nhigh 2\nmax 30\noom 4\n"), 32);
}

static void policy_keys(void **state)
{
    (void)state;
    /* The seed's vectors at step 200: (f, last) -> P = f * 0.25^((200 - last) / 128). */
    const struct {
        int f, last;
        double p;
    } v[] = {{100, 200, 100}, {5, 198, 4.89286}, {1, 191, 0.907126}, {8, 72, 2.0}, {64, 8, 8.0}};
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            xp_history h[2];
            for (int k = 0; k < 2; k++) {
                int n = k ? j : i;
                xp_clock clock = {.steps = (uint64_t)v[n].last};
                xp_policy_forget(&h[k]);
                for (int u = 0; u < v[n].f; u++) xp_policy_use(XP_LCP, &clock, &h[k], 1, true);
            }
            assert_int_equal(h[0].key < h[1].key - 1e-5, v[i].p < v[j].p - 1e-4);
        }
}

/* Of six reads of `bytes` bytes, how many io_uring starts at once. */
static int started_at_once(xp_reader *reader, char *memory, size_t bytes, bool hint)
{
    xp_job jobs[6] = {0};
    int started = 0;
    for (int i = 0; i < 6; i++) {
        char *to = memory + (size_t)i * bytes;
        jobs[i].n_reads = 1;
        jobs[i].read[0] =
            (xp_range_read){.offset = (uint64_t)i * bytes, .bytes = bytes, .need = bytes};
        jobs[i].memory = to;
        jobs[i].hint = hint;
        xp_reader_submit(reader, &jobs[i]);
    }
    xp_reader_poll(reader);
    for (int i = 5; i >= 0; i--) { /* backwards: waiting starts what is queued */
        if (xp_reader_cancel(reader, &jobs[i])) continue;
        xp_reader_wait(reader, &jobs[i]);
        assert_int_equal(atomic_load(&jobs[i].state), XP_JOB_DONE);
        assert_memory_equal(jobs[i].memory, &(int64_t){i}, sizeof(int64_t));
        started++;
    }
    return started;
}

/* Large reads go to the disk a few at a time, hinted ones fewer, small ones as they come. */
static void few_reads_fly(void **state)
{
    (void)state;
    enum { LARGE = 3 << 20, SMALL = 64 << 10 };
    char path[] = "/tmp/flash-moe-hints.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 6 * LARGE), 0);
    for (int64_t i = 0; i < 6; i++) assert_int_equal(pwrite(fd, &i, sizeof i, i * LARGE), sizeof i);
    xp_reader_options o = {.paths = (const char *[]){path},
                           .file_bytes = (const uint64_t[]){6 * LARGE},
                           .n_files = 1,
                           .io = XP_IO_AUTO};
    xp_reader *reader;
    assert_int_equal(xp_reader_open(&o, &reader, NULL), FM_OK);
    char *memory = aligned_alloc(4096, 6 * LARGE);
    assert_non_null(memory);
    if (xp_reader_io(reader) == XP_IO_URING) {
        assert_int_equal(started_at_once(reader, memory, LARGE, true), 2);
        assert_int_equal(started_at_once(reader, memory, LARGE, false), 3);
        for (int64_t i = 0; i < 6; i++)
            assert_int_equal(pwrite(fd, &i, sizeof i, i * SMALL), sizeof i);
        assert_int_equal(started_at_once(reader, memory, SMALL, true), 6);
        assert_int_equal(started_at_once(reader, memory, SMALL, false), 6);
    }
    xp_reader_close(reader);
    free(memory);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_reads_fly),
        cmocka_unit_test_setup_teardown(hints_rest_while_nothing_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(right_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(experts_are_measured_where_they_lie, set_up, tear_down),
        cmocka_unit_test_setup_teardown(waves_hold_at_most_max_held, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bad_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failing_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shrinking_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failing_allocations, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shrinking, set_up, tear_down),
        cmocka_unit_test(policy_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
