/* reader_backend.h - what reader.c and its two backends share. */
#ifndef EXPERTS_READER_BACKEND_H
#define EXPERTS_READER_BACKEND_H

#include "experts/reader.h"

typedef struct xp_file {
    const char *path;
    int fd; /* the one to read with */
    int fd_buffered;
    _Atomic bool direct;
} xp_file;

/* Jobs that wait, in order. A backend has two: what was demanded goes before what was hinted. */
typedef struct xp_queue {
    xp_job *first, *last;
} xp_queue;

void xp_queue_push(xp_queue *queue, xp_job *job);
bool xp_queue_remove(xp_queue *queue, xp_job *job); /* false: not in it */

typedef struct xp_backend {
    void (*close)(void *self);
    void (*submit)(void *self, xp_job *job);
    bool (*cancel)(void *self, xp_job *job);
    void (*promote)(void *self, xp_job *job);
    void (*poll)(void *self);
    void (*wait_any)(void *self, xp_job *const *jobs, int n);
} xp_backend;

struct xp_reader {
    xp_reader_options options;
    xp_file *files;
    xp_io io;
    const xp_backend *backend;
    void *self; /* the backend's state */
    _Atomic uint64_t bytes, reads;
    _Atomic uint64_t fail_nth; /* fault injection: 0 off */
    _Atomic int fail_error;
};

fm_status xp_pread_open(xp_reader *reader, const xp_backend **backend, void **self, fm_error *err);

/* FM_E_UNSUPPORTED: not in this build, or the kernel (or a sandbox) refuses it. */
fm_status xp_uring_open(xp_reader *reader, const xp_backend **backend, void **self, fm_error *err);

/* What a read came back with (bytes, or -errno): true when this read is complete. On false, either
 * *again is set and the rest (from got on) must be read, or err is filled. */
bool xp_reader_account(xp_reader *reader, xp_job *job, int index, long result, bool *again,
                       fm_error *err);

/* Where and how to go on: the block-aligned remainder of a read. */
typedef struct xp_next_read {
    int fd;
    char *memory;
    size_t bytes;
    uint64_t offset;
} xp_next_read;
xp_next_read xp_reader_next(xp_reader *reader, const xp_job *job, int index);

/* The result that fault injection wants instead of `result`, if any. */
long xp_reader_inject(xp_reader *reader, long result);

#endif
