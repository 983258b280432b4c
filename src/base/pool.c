#include "base/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

enum { SPIN_ROUNDS = 20000 };

typedef struct worker {
    bs_pool *pool;
    pthread_t thread;
    int number;
} worker;

struct bs_pool {
    int threads;
    worker *workers; /* threads - 1 of them; the caller is worker 0 */
    bs_task *fn;
    void *arg;
    int n_tasks;
    _Atomic int next;            /* first task nobody has taken yet */
    _Atomic int busy;            /* workers that have not finished the current job */
    _Atomic uint64_t generation; /* grows by one a job: what idle workers watch */
    _Atomic int sleepers;
    _Atomic bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(bs_pool *pool, int number)
{
    int n = pool->n_tasks;
    for (;;) {
        int i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= n) return;
        pool->fn(pool->arg, i, number);
    }
}

/* Wait until the generation differs from `seen`: spin first, then sleep on the condition. */
static uint64_t await_job(bs_pool *pool, uint64_t seen)
{
    uint64_t now;
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while ((now = atomic_load(&pool->generation)) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return now;
}

static void *work(void *arg)
{
    worker *self = arg;
    bs_pool *pool = self->pool;
    uint64_t seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        take_tasks(pool, self->number);
        atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
    }
}

static void announce(bs_pool *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (!atomic_load(&pool->sleepers)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

fm_status bs_pool_create(int threads, bs_pool **out, fm_error *err)
{
    *out = NULL;
    if (threads < 1 || threads > 1024)
        return fm_fail(err, FM_E_ARGUMENT, "%d threads: must be 1 to 1024", threads);
    bs_pool *pool = bs_calloc(1, sizeof *pool);
    if (!pool) return fm_fail_nomem(err, "starting threads");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->threads = 1;
    pool->workers = bs_calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        bs_pool_destroy(pool);
        return fm_fail_nomem(err, "starting threads");
    }
    for (; pool->threads < threads; pool->threads++) {
        worker *w = &pool->workers[pool->threads - 1];
        *w = (worker){.pool = pool, .number = pool->threads};
        int problem = pthread_create(&w->thread, NULL, work, w);
        if (problem) {
            bs_pool_destroy(pool);
            return fm_fail_errno(err, problem, "cannot start thread %d", w->number + 1);
        }
    }
    *out = pool;
    return FM_OK;
}

void bs_pool_destroy(bs_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->stop, true);
    announce(pool);
    for (int i = 0; i + 1 < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bs_free(pool->workers);
    bs_free(pool);
}

int bs_pool_threads(const bs_pool *pool)
{
    return pool ? pool->threads : 1;
}

void bs_pool_run(bs_pool *pool, bs_task *fn, void *arg, int n_tasks)
{
    if (!pool || pool->threads == 1 || n_tasks <= 1) {
        for (int i = 0; i < n_tasks; i++) fn(arg, i, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->n_tasks = n_tasks;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->busy, pool->threads - 1);
    announce(pool);
    take_tasks(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->busy, memory_order_acquire); spins++) {
        if (spins < SPIN_ROUNDS) relax();
        else sched_yield();
    }
}

int bs_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}
