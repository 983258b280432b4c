/* reader_pread.c - the portable backend: a few threads that each take one read at a time.
 *
 * Two queues, demand before hints. A job stays at the head of its queue until its last read was
 * started, so the reads of one expert run side by side. All fields of a job except `state` are
 * guarded by the lock. */
#include "experts/reader_backend.h"

#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

enum { DEFAULT_THREADS = 4, MAX_THREADS = 64 };

typedef struct pread_pool {
    xp_reader *reader;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    xp_queue demand, hints;
    bool stop;
    int n_threads;
    pthread_t threads[MAX_THREADS];
} pread_pool;

/* The next read to start, or NULL. */
static xp_job *next_read(pread_pool *p, int *index)
{
    xp_queue *q = p->demand.first ? &p->demand : &p->hints;
    xp_job *job = q->first;
    if (!job) return NULL;
    *index = job->started++;
    if (job->started == job->n_reads) xp_queue_remove(q, job);
    return job;
}

/* Runs without the lock: no other thread touches this read of the job. */
static bool read_range(xp_reader *reader, xp_job *job, int index, fm_error *err)
{
    bool again = true, complete = false;
    while (again && !complete) {
        xp_next_read n = xp_reader_next(reader, job, index);
        ssize_t got = pread(n.fd, n.memory, n.bytes, (off_t)n.offset);
        long result = xp_reader_inject(reader, got < 0 ? -errno : (long)got);
        complete = xp_reader_account(reader, job, index, result, &again, err);
    }
    return complete;
}

static void *worker(void *arg)
{
    pread_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        int index;
        xp_job *job = next_read(p, &index);
        if (!job) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        fm_error error;
        bool complete = read_range(p->reader, job, index, &error);
        pthread_mutex_lock(&p->lock);
        if (!complete) {
            job->failed = true;
            job->error = error;
        }
        if (++job->finished < job->n_reads) continue;
        atomic_store_explicit(&job->state, job->failed ? XP_JOB_FAILED : XP_JOB_DONE,
                              memory_order_release);
        pthread_cond_broadcast(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pool_close(void *self)
{
    pread_pool *p = self;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    bs_free(p);
}

static void pool_submit(void *self, xp_job *job)
{
    pread_pool *p = self;
    pthread_mutex_lock(&p->lock);
    xp_queue_push(job->hint ? &p->hints : &p->demand, job);
    if (job->n_reads > 1) pthread_cond_broadcast(&p->work);
    else pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static bool pool_cancel(void *self, xp_job *job)
{
    pread_pool *p = self;
    pthread_mutex_lock(&p->lock);
    bool taken =
        !job->started && (xp_queue_remove(&p->hints, job) || xp_queue_remove(&p->demand, job));
    if (taken) {
        atomic_store(&job->state, XP_JOB_FREE);
    }
    pthread_mutex_unlock(&p->lock);
    return taken;
}

static void pool_promote(void *self, xp_job *job)
{
    pread_pool *p = self;
    pthread_mutex_lock(&p->lock);
    if (xp_queue_remove(&p->hints, job)) xp_queue_push(&p->demand, job);
    pthread_mutex_unlock(&p->lock);
}

static void pool_poll(void *self)
{
    (void)self; /* the threads publish each job's state themselves */
}

static void pool_wait_any(void *self, xp_job *const *jobs, int n)
{
    pread_pool *p = self;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        bool waiting = false, one_ready = false;
        for (int i = 0; i < n; i++) {
            if (!jobs[i]) continue;
            waiting = true;
            one_ready |= atomic_load(&jobs[i]->state) != XP_JOB_QUEUED;
        }
        if (!waiting || one_ready) break;
        pthread_cond_wait(&p->done, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
}

static const xp_backend pool_backend = {pool_close,   pool_submit, pool_cancel,
                                        pool_promote, pool_poll,   pool_wait_any};

fm_status xp_pread_open(xp_reader *reader, const xp_backend **backend, void **self, fm_error *err)
{
    pread_pool *p = bs_calloc(1, sizeof *p);
    if (!p) return fm_fail_nomem(err, "read threads");
    p->reader = reader;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    int want = reader->options.threads > 0 ? reader->options.threads : DEFAULT_THREADS;
    if (want > MAX_THREADS) want = MAX_THREADS;
    while (p->n_threads < want) {
        int problem = pthread_create(&p->threads[p->n_threads], NULL, worker, p);
        if (problem && !p->n_threads) {
            pool_close(p);
            return fm_fail_errno(err, problem, "cannot start a read thread");
        }
        if (problem) break; /* fewer threads read as well, only less at once */
        p->n_threads++;
    }
    *backend = &pool_backend;
    *self = p;
    return FM_OK;
}
