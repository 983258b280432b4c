/* reader.h - asynchronous reads of whole experts into slots.
 *
 * A job is one expert: a few ranges (one when packed) of block-aligned reads. Jobs are submitted
 * and looked at by one thread; the reads run elsewhere (threads, or the kernel through io_uring).
 * Demand jobs start before hinted ones. Files are opened with O_DIRECT where the file system takes
 * it; a file that refuses it is read through the page cache, and xp_reader_direct says so. */
#ifndef EXPERTS_READER_H
#define EXPERTS_READER_H

#include "experts/layout.h"

#include <stdatomic.h>

typedef enum xp_job_state { XP_JOB_FREE, XP_JOB_QUEUED, XP_JOB_DONE, XP_JOB_FAILED } xp_job_state;

/* Filled by the cache, then owned by the reader until it is done or failed. */
typedef struct xp_job {
    _Alignas(16) int n_reads;
    xp_range_read read[XP_MAX_READS];
    char *memory; /* the slot */
    bool hint;
    bool untouched; /* the kernel has to find pages for the slot first, which takes its time */
    int owner;      /* the cache's slot number */
    _Atomic int state;
    fm_error error; /* when it failed */
    /* the backend's */
    struct xp_job *next;
    int started, finished;
    bool failed;
    size_t got[XP_MAX_READS];
    bool retried[XP_MAX_READS];
} xp_job;

typedef struct xp_reader xp_reader;

typedef struct xp_reader_options {
    const char *const *paths;
    const uint64_t *file_bytes;
    int n_files;
    xp_io io;
    bool buffered;
    int threads, depth; /* 0: defaults */
    char *memory;       /* where all slots lie, to register it */
    size_t memory_bytes;
} xp_reader_options;

fm_status xp_reader_open(const xp_reader_options *options, xp_reader **out, fm_error *err);
/* Waits for reads in flight; queued jobs are dropped. The memory must outlive this call. */
void xp_reader_close(xp_reader *reader);

/* Queue a job; what is queued is started by the next poll or wait at the latest. */
void xp_reader_submit(xp_reader *reader, xp_job *job);
/* Take back a job of which no read was started. False: it must be waited for. */
bool xp_reader_cancel(xp_reader *reader, xp_job *job);
/* Move a hinted job that is still queued to the demand queue. */
void xp_reader_promote(xp_reader *reader, xp_job *job);
/* Give completions a chance to be seen; does not block. */
void xp_reader_poll(xp_reader *reader);
/* Block until this job is no longer queued. */
void xp_reader_wait(xp_reader *reader, const xp_job *job);
/* Block until one of the jobs (NULLs are skipped) is no longer queued. */
void xp_reader_wait_any(xp_reader *reader, xp_job *const *jobs, int n);

bool xp_reader_direct(const xp_reader *reader); /* every file is read past the page cache */
xp_io xp_reader_io(const xp_reader *reader);
uint64_t xp_reader_bytes(const xp_reader *reader);
uint64_t xp_reader_reads(const xp_reader *reader);

/* For tests: the nth read from now fails with this errno (EIO...), or, with -1, returns half. */
void xp_reader_fail_at(xp_reader *reader, uint64_t nth, int error);

#endif
