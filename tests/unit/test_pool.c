/* The thread pool: every task once, results of one job seen by the next, no CPU between jobs. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 1000 };

typedef struct counts {
    int ran[MOST];
    int previous[MOST]; /* plain memory: a race would be seen by TSan, a lost write by the sum */
    int threads;
    _Atomic int wrong_worker;
} counts;

static void count(void *arg, int index, int worker)
{
    counts *c = arg;
    if (worker < 0 || worker >= c->threads) atomic_fetch_add(&c->wrong_worker, 1);
    c->ran[index]++;
    c->previous[MOST - 1 - index] += 1 + c->ran[index] - c->ran[index];
}

static void every_task_once(void **state)
{
    (void)state;
    fm_error err;
    for (int threads = 1; threads <= 5; threads++) {
        bs_pool *pool;
        counts c = {.threads = threads};
        assert_int_equal(bs_pool_create(threads, &pool, &err), FM_OK);
        assert_int_equal(bs_pool_threads(pool), threads);
        int expected[MOST] = {0};
        for (int job = 0; job < 3000; job++) {
            int n = job % 50 ? job % 7 : job % MOST;
            bs_pool_run(pool, count, &c, n);
            for (int i = 0; i < n; i++) expected[i]++;
        }
        for (int i = 0; i < MOST; i++) {
            assert_int_equal(c.ran[i], expected[i]);
            assert_int_equal(c.previous[MOST - 1 - i], expected[i]);
        }
        assert_int_equal(c.wrong_worker, 0);
        bs_pool_destroy(pool);
    }
    counts alone = {.threads = 1};
    bs_pool_run(NULL, count, &alone, 3);
    assert_int_equal(alone.ran[2], 1);
}

static void slow(void *arg, int index, int worker)
{
    (void)worker;
    if (index == 0) usleep(20000); /* long enough for the caller to fall asleep */
    ((int *)arg)[index] = 1;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void sleeps_when_idle(void **state)
{
    (void)state;
    bs_pool *pool;
    fm_error err;
    assert_int_equal(bs_pool_create(4, &pool, &err), FM_OK);
    for (int i = 0; i < 5; i++) {
        int done[8] = {0}, sum = 0;
        bs_pool_run(pool, slow, done, 8);
        for (int k = 0; k < 8; k++) sum += done[k];
        assert_int_equal(sum, 8);
    }
    usleep(50000);
    double before = cpu_seconds();
    usleep(300000);
    assert_true(cpu_seconds() - before < 0.03);
    bs_pool_destroy(pool);
}

static void bad_starts(void **state)
{
    (void)state;
    bs_pool *pool;
    fm_error err;
    assert_int_equal(bs_pool_create(0, &pool, &err), FM_E_ARGUMENT);
    assert_int_equal(bs_pool_create(5000, &pool, &err), FM_E_ARGUMENT);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bs_mem_fail_at(nth, false);
        assert_int_equal(bs_pool_create(2, &pool, &err), FM_E_NOMEM);
        assert_null(pool);
    }
    bs_mem_fail_at(0, false);
    bs_pool_destroy(NULL);
    int n = bs_default_threads();
    assert_true(n >= 1 && n <= sysconf(_SC_NPROCESSORS_CONF));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_once),
        cmocka_unit_test(sleeps_when_idle),
        cmocka_unit_test(bad_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
