/* reader_uring.c - the Linux backend: reads queued to the kernel by the engine's own thread, no
 * thread of ours in between.
 *
 * Everything happens in the calling thread: submit queues, poll and wait_any look at completions
 * and start what waits, all of it in one call of the kernel. Few fly at a time: many would share
 * the disk's rate and all land late together, and nothing could be computed meanwhile. Hinted jobs
 * start only while no demanded one is queued or flying. A read is named to the kernel by its
 * job's address plus its index (jobs are aligned to 16, a job has fewer reads). Registered buffers
 * are left out on purpose: docs/FINDINGS.md. */
#include "experts/reader_backend.h"

#include "base/mem.h"

#include <errno.h>
#include <string.h>

#ifdef HAVE_LIBURING
#include <liburing.h>

/* Completions are seen when we ask; the thread that computes need not be interrupted for them. */
#if defined(IORING_SETUP_COOP_TASKRUN) && defined(IORING_SETUP_TASKRUN_FLAG)
#define QUIETLY (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG)
#else
#define QUIETLY 0
#endif

enum { ENTRIES = 256, DEFAULT_DEPTH = 64 };

/* Reads in flight: as many bytes as keep a fast disk busy until we look again, but never one read
 * alone, after which it would rest. Hints make way sooner. */
enum { FEWEST = 2, DEMAND_BYTES = 8 << 20, HINT_BYTES = 4 << 20 };

typedef struct ring {
    xp_reader *reader;
    struct io_uring uring;
    xp_queue demand, hints;
    int depth;
    int flying, flying_hints; /* reads in the kernel */
    size_t flying_bytes;
    int active; /* jobs not finished */
} ring;

_Static_assert(XP_MAX_READS < 16, "a read's index must fit into the low bits of its job's address");

/* Hand one read to the kernel; false when there is no room. */
static bool start_read(ring *r, xp_job *job, int index)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    if (!sqe) return false;
    xp_next_read n = xp_reader_next(r->reader, job, index);
    io_uring_prep_read(sqe, n.fd, n.memory, (unsigned)n.bytes, n.offset);
    /* Pages for a new slot are found, and cleared, by a thread of the kernel, not by ours. */
    if (job->untouched) sqe->flags |= IOSQE_ASYNC;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)job | (uint64_t)index);
    r->flying++;
    r->flying_bytes += n.bytes;
    if (job->hint) r->flying_hints++;
    return true;
}

static bool may_start(const ring *r, bool hint)
{
    if (hint && r->flying != r->flying_hints) return false;
    return r->flying < FEWEST || r->flying_bytes < (hint ? HINT_BYTES : DEMAND_BYTES);
}

static void start_queued(ring *r)
{
    while (r->flying < r->depth) {
        bool demand = r->demand.first != NULL;
        xp_queue *q = demand ? &r->demand : &r->hints;
        xp_job *job = q->first;
        if (!job || !may_start(r, !demand)) break;
        if (!start_read(r, job, job->started)) break;
        if (++job->started == job->n_reads) xp_queue_remove(q, job);
    }
    if (io_uring_sq_ready(&r->uring)) io_uring_submit(&r->uring);
}

static void finish_read(ring *r, xp_job *job, bool complete, const fm_error *error)
{
    if (!complete && !job->failed) {
        job->failed = true;
        job->error = *error;
    }
    if (++job->finished < job->n_reads) return;
    r->active--;
    atomic_store(&job->state, job->failed ? XP_JOB_FAILED : XP_JOB_DONE);
}

static void reap(ring *r)
{
    struct io_uring_cqe *cqe;
    while (!io_uring_peek_cqe(&r->uring, &cqe)) {
        uint64_t data = io_uring_cqe_get_data64(cqe);
        long result = xp_reader_inject(r->reader, cqe->res);
        io_uring_cqe_seen(&r->uring, cqe);
        xp_job *job = (xp_job *)(uintptr_t)(data & ~(uint64_t)15);
        int index = (int)(data & 15);
        bool again;
        fm_error error;
        r->flying--;
        r->flying_bytes -= xp_reader_next(r->reader, job, index).bytes;
        if (job->hint) r->flying_hints--;
        bool complete = xp_reader_account(r->reader, job, index, result, &again, &error);
        /* Room is certain: this read's own entry has just become free. */
        if (again) start_read(r, job, index);
        else finish_read(r, job, complete, &error);
    }
}

static void ring_poll(void *self)
{
    ring *r = self;
    if (!r->active) return;
    reap(r);
    start_queued(r);
}

static void ring_submit(void *self, xp_job *job)
{
    ring *r = self;
    xp_queue_push(job->hint ? &r->hints : &r->demand, job);
    r->active++;
}

static bool ring_cancel(void *self, xp_job *job)
{
    ring *r = self;
    if (job->started || !(xp_queue_remove(&r->hints, job) || xp_queue_remove(&r->demand, job)))
        return false;
    r->active--;
    atomic_store(&job->state, XP_JOB_FREE);
    return true;
}

static void ring_promote(void *self, xp_job *job)
{
    ring *r = self;
    if (!xp_queue_remove(&r->hints, job)) return;
    xp_queue_push(&r->demand, job);
    start_queued(r);
}

static bool any_ready(xp_job *const *jobs, int n)
{
    bool waiting = false;
    for (int i = 0; i < n; i++) {
        if (!jobs[i]) continue;
        if (atomic_load(&jobs[i]->state) != XP_JOB_QUEUED) return true;
        waiting = true;
    }
    return !waiting;
}

static void ring_wait_any(void *self, xp_job *const *jobs, int n)
{
    ring *r = self;
    for (;;) {
        ring_poll(r);
        if (any_ready(jobs, n)) return;
        struct io_uring_cqe *cqe;
        io_uring_wait_cqe(&r->uring, &cqe); /* EINTR: looked at again */
    }
}

/* What flies still writes into the slots: wait for it, start nothing more. */
static void ring_close(void *self)
{
    ring *r = self;
    r->demand = r->hints = (xp_queue){0};
    while (r->flying) {
        struct io_uring_cqe *cqe;
        if (io_uring_wait_cqe(&r->uring, &cqe)) continue;
        io_uring_cqe_seen(&r->uring, cqe);
        r->flying--;
    }
    io_uring_queue_exit(&r->uring);
    bs_free(r);
}

static const xp_backend ring_backend = {ring_close,   ring_submit, ring_cancel,
                                        ring_promote, ring_poll,   ring_wait_any};

static bool can_read(struct io_uring *uring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool yes = probe && io_uring_opcode_supported(probe, IORING_OP_READ);
    io_uring_free_probe(probe);
    return yes;
}

fm_status xp_uring_open(xp_reader *reader, const xp_backend **backend, void **self, fm_error *err)
{
    ring *r = bs_calloc(1, sizeof *r);
    if (!r) return fm_fail_nomem(err, "io_uring");
    r->reader = reader;
    int want = reader->options.depth > 0 ? reader->options.depth : DEFAULT_DEPTH;
    r->depth = want < ENTRIES ? want : ENTRIES;
    int problem = -io_uring_queue_init(ENTRIES, &r->uring, QUIETLY);
    if (problem == EINVAL) problem = -io_uring_queue_init(ENTRIES, &r->uring, 0); /* before 5.19 */
    if (!problem && !can_read(&r->uring)) {
        io_uring_queue_exit(&r->uring);
        problem = ENOSYS;
    }
    if (problem) {
        bs_free(r);
        fm_fail_errno(err, problem, "io_uring is refused by this system (use --io pread or auto)");
        return err ? err->code = FM_E_UNSUPPORTED : FM_E_UNSUPPORTED;
    }
    *backend = &ring_backend;
    *self = r;
    return FM_OK;
}

#else

fm_status xp_uring_open(xp_reader *reader, const xp_backend **backend, void **self, fm_error *err)
{
    (void)reader, (void)backend, (void)self;
    return fm_fail(err, FM_E_UNSUPPORTED,
                   "this build has no io_uring (use --io pread or auto, or install liburing and "
                   "build again)");
}

#endif
