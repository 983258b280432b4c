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

/* A job is published as one word: the number of its tasks above the next one to take. Whoever moves
 * `next` on with a compare-and-swap owns that task, and as long as a task is not done the caller
 * does not return, so fn and arg stand still for it. Nobody waits for a worker that took nothing: a
 * worker that the system has put aside costs no time. */
struct bs_pool {
    int threads;
    worker *workers; /* threads - 1 of them; the caller is worker 0 */
    bs_task *fn;
    void *arg;
    _Atomic uint64_t job;
    _Atomic int done; /* tasks of the job that have finished */
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

static bool has_tasks(uint64_t job)
{
    return (uint32_t)job < job >> 32;
}

static void take_tasks(bs_pool *pool, int number)
{
    uint64_t job = atomic_load_explicit(&pool->job, memory_order_acquire);
    while (has_tasks(job)) {
        if (!atomic_compare_exchange_weak_explicit(&pool->job, &job, job + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        pool->fn(pool->arg, (int)(uint32_t)job, number);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
        job = atomic_load_explicit(&pool->job, memory_order_acquire);
    }
}

static bool idle(bs_pool *pool)
{
    return !has_tasks(atomic_load(&pool->job)) && !atomic_load(&pool->stop);
}

/* Wait until there is something to do: spin first, then sleep on the condition. */
static void await_job(bs_pool *pool)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (!idle(pool)) return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (idle(pool)) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *arg)
{
    worker *self = arg;
    for (;;) {
        await_job(self->pool);
        if (atomic_load(&self->pool->stop)) return NULL;
        take_tasks(self->pool, self->number);
    }
}

static void wake_sleepers(bs_pool *pool)
{
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
    wake_sleepers(pool);
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
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    atomic_store(&pool->job, (uint64_t)n_tasks << 32);
    wake_sleepers(pool);
    take_tasks(pool, 0);
    for (int spins = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < n_tasks; spins++) {
        if (spins < SPIN_ROUNDS) relax();
        else sched_yield();
    }
}

int bs_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}
