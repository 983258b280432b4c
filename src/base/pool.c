#include "base/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A pause is about 20 ns, so idle threads spin for some 0.2 ms before they sleep: longer than the
 * gaps between the jobs of one token, shorter than anything a user would call idle. */
enum { SPIN_ROUNDS = 10000, CACHE_LINE = 64, HALF = 32 };

/* Each thread begins with its own run of consecutive tasks, so that each reads one linear stream of
 * weights; a thread that is through helps the others. A run is one word, end << 32 | next: claiming
 * is one addition, and a word that is used up stays so whatever a late thread adds. That is why the
 * caller need not wait for threads that had nothing to do, and why fn and arg, read after a claim,
 * are always those of the job that the task belongs to. */
typedef struct run {
    _Alignas(CACHE_LINE) _Atomic uint64_t word;
} run;

typedef struct worker {
    bs_pool *pool;
    pthread_t thread;
    int number;
} worker;

struct bs_pool {
    int threads, started; /* wanted; running, the caller counted */
    worker *workers;      /* threads - 1 of them; the caller is worker 0 */
    run *runs;            /* one a thread */
    void *memory;         /* what to free */
    bs_task *fn;
    void *arg;
    _Alignas(CACHE_LINE) _Atomic int remaining; /* tasks of this job that are not done */
    _Atomic bool caller_sleeps;
    _Alignas(CACHE_LINE) _Atomic uint64_t
        generation; /* grows by one a job: what idle workers watch */
    _Atomic int sleepers;
    _Atomic bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* All that is left of one run; returns how many tasks that were. */
static int take_run(bs_pool *pool, run *r, int number)
{
    int taken = 0;
    for (;; taken++) {
        uint64_t seen = atomic_load_explicit(&r->word, memory_order_relaxed);
        if ((uint32_t)seen >= seen >> HALF) return taken;
        seen = atomic_fetch_add_explicit(&r->word, 1, memory_order_acquire);
        if ((uint32_t)seen >= seen >> HALF) return taken;
        pool->fn(pool->arg, (int)(uint32_t)seen, number);
    }
}

static void take_tasks(bs_pool *pool, int number)
{
    int taken = 0;
    for (int i = 0; i < pool->threads; i++)
        taken += take_run(pool, &pool->runs[(number + i) % pool->threads], number);
    if (!taken) return;
    int before = atomic_fetch_sub(&pool->remaining, taken);
    if (before != taken || !atomic_load(&pool->caller_sleeps)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
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

static void await_done(bs_pool *pool)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (!atomic_load_explicit(&pool->remaining, memory_order_acquire)) return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->remaining)) pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
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

/* Pool and runs in one block, each on cache lines of its own. */
static bs_pool *allocate(int threads)
{
    size_t n = (size_t)threads;
    void *memory = bs_calloc(1, sizeof(bs_pool) + n * sizeof(run) + CACHE_LINE);
    worker *workers = bs_calloc(n, sizeof *workers);
    if (!memory || !workers) {
        bs_free(memory);
        bs_free(workers);
        return NULL;
    }
    uintptr_t at = ((uintptr_t)memory + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1);
    bs_pool *pool = (bs_pool *)at;
    pool->memory = memory;
    pool->threads = threads;
    pool->started = 1;
    pool->workers = workers;
    pool->runs = (run *)(pool + 1);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    return pool;
}

fm_status bs_pool_create(int threads, bs_pool **out, fm_error *err)
{
    *out = NULL;
    if (threads < 1 || threads > 1024)
        return fm_fail(err, FM_E_ARGUMENT, "%d threads: must be 1 to 1024", threads);
    bs_pool *pool = allocate(threads);
    if (!pool) return fm_fail_nomem(err, "starting threads");
    for (; pool->started < threads; pool->started++) {
        worker *w = &pool->workers[pool->started - 1];
        *w = (worker){.pool = pool, .number = pool->started};
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
    for (int i = 0; i + 1 < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bs_free(pool->workers);
    bs_free(pool->memory);
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
    atomic_store(&pool->remaining, n_tasks);
    uint64_t threads = (uint64_t)pool->threads, n = (uint64_t)n_tasks;
    for (uint64_t i = 0; i < threads; i++) {
        uint64_t first = n * i / threads, end = n * (i + 1) / threads;
        atomic_store_explicit(&pool->runs[i].word, end << HALF | first, memory_order_release);
    }
    announce(pool);
    take_tasks(pool, 0);
    await_done(pool);
}
