/* The compute pool: each index once, results ready on return, workers that come late do no harm. */
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 300 };

typedef struct count {
    _Atomic int times[MOST];
    _Atomic int wrong;
    int threads;
} count;

static void mark(void *arg, int index, int worker)
{
    count *c = arg;
    if (index < 0 || index >= MOST || worker < 0 || worker >= c->threads) atomic_store(&c->wrong, 1);
    else atomic_fetch_add(&c->times[index], 1);
}

static void each_index_once(void **unused)
{
    (void)unused;
    for (int threads = 1; threads <= 5; threads++) {
        bs_pool *pool;
        assert_int_equal(bs_pool_create(threads, &pool, NULL), FM_OK);
        assert_int_equal(bs_pool_threads(pool), threads);
        for (int round = 0; round < 2000; round++) {
            count c = {.threads = threads};
            int n = round % MOST;
            bs_pool_run(pool, mark, &c, n);
            assert_int_equal(c.wrong, 0);
            for (int i = 0; i < MOST; i++) assert_int_equal(c.times[i], i < n);
        }
        bs_pool_destroy(pool);
    }
}

static void without_a_pool_the_caller_works(void **unused)
{
    (void)unused;
    count c = {.threads = 1};
    bs_pool_run(NULL, mark, &c, 7);
    for (int i = 0; i < 7; i++) assert_int_equal(c.times[i], 1);
    bs_pool *pool;
    fm_error err;
    assert_int_equal(bs_pool_create(0, &pool, &err), FM_E_ARGUMENT);
    assert_null(pool);
    bs_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_index_once),
        cmocka_unit_test(without_a_pool_the_caller_works),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
