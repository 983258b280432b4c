#include "experts/reader_backend.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef O_DIRECT
#define O_DIRECT 0
#endif

/* A flag that open accepts may still be refused by read: try one block before trusting it. */
static bool direct_works(int fd, char *block)
{
    ssize_t got;
    do got = pread(fd, block, XP_BLOCK, 0);
    while (got < 0 && errno == EINTR);
    return got >= 0;
}

static fm_status open_file(xp_reader *reader, int i, char *block, fm_error *err)
{
    xp_file *f = &reader->files[i];
    f->path = reader->options.paths[i];
    f->fd_buffered = open(f->path, O_RDONLY | O_CLOEXEC);
    if (f->fd_buffered < 0) return fm_fail_errno(err, errno, "%s: cannot open", f->path);
    f->fd = f->fd_buffered;
    struct stat st;
    if (fstat(f->fd, &st)) return fm_fail_errno(err, errno, "%s: cannot stat", f->path);
    if (!S_ISREG(st.st_mode)) return fm_fail(err, FM_E_IO, "%s: is not a regular file", f->path);
    if ((uint64_t)st.st_size < reader->options.file_bytes[i])
        return fm_fail(err, FM_E_IO, "%s: has shrunk to %lld bytes since it was opened", f->path,
                       (long long)st.st_size);
#ifdef POSIX_FADV_RANDOM
    posix_fadvise(f->fd_buffered, 0, 0, POSIX_FADV_RANDOM);
#endif
    if (reader->options.buffered || !O_DIRECT) return FM_OK;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd >= 0 && direct_works(fd, block)) {
        f->fd = fd;
        atomic_store(&f->direct, true);
    } else if (fd >= 0) {
        close(fd);
    }
    return FM_OK;
}

static fm_status open_files(xp_reader *reader, fm_error *err)
{
    int n = reader->options.n_files;
    reader->files = bs_calloc((size_t)n, sizeof *reader->files);
    char *block = bs_pages_alloc(XP_BLOCK);
    fm_status status = FM_OK;
    if (!reader->files || !block) status = fm_fail_nomem(err, "expert reader");
    for (int i = 0; reader->files && i < n; i++)
        reader->files[i].fd = reader->files[i].fd_buffered = -1;
    for (int i = 0; !status && i < n; i++) status = open_file(reader, i, block, err);
    bs_pages_free(block, XP_BLOCK);
    return status;
}

static fm_status open_backend(xp_reader *reader, fm_error *err)
{
    if (reader->options.io != XP_IO_PREAD) {
        reader->io = XP_IO_URING;
        fm_status status = xp_uring_open(reader, &reader->backend, &reader->self,
                                         reader->options.io == XP_IO_AUTO ? NULL : err);
        if (!status || reader->options.io == XP_IO_URING) return status;
    }
    reader->io = XP_IO_PREAD;
    return xp_pread_open(reader, &reader->backend, &reader->self, err);
}

fm_status xp_reader_open(const xp_reader_options *options, xp_reader **out, fm_error *err)
{
    xp_reader *reader = bs_calloc(1, sizeof *reader);
    if (!reader) return fm_fail_nomem(err, "expert reader");
    reader->options = *options;
    fm_status status = open_files(reader, err);
    if (!status) status = open_backend(reader, err);
    if (status) {
        xp_reader_close(reader);
        return status;
    }
    *out = reader;
    return FM_OK;
}

void xp_reader_close(xp_reader *reader)
{
    if (!reader) return;
    if (reader->self) reader->backend->close(reader->self);
    for (int i = 0; reader->files && i < reader->options.n_files; i++) {
        xp_file *f = &reader->files[i];
        if (f->fd >= 0 && f->fd != f->fd_buffered) close(f->fd);
        if (f->fd_buffered >= 0) close(f->fd_buffered);
    }
    bs_free(reader->files);
    bs_free(reader);
}

void xp_reader_submit(xp_reader *reader, xp_job *job)
{
    job->next = NULL;
    job->started = job->finished = 0;
    job->failed = false;
    memset(job->got, 0, sizeof job->got);
    memset(job->retried, 0, sizeof job->retried);
    job->error.code = FM_OK;
    atomic_store(&job->state, XP_JOB_QUEUED);
    reader->backend->submit(reader->self, job);
}

bool xp_reader_cancel(xp_reader *reader, xp_job *job)
{
    return reader->backend->cancel(reader->self, job);
}

void xp_reader_promote(xp_reader *reader, xp_job *job)
{
    reader->backend->promote(reader->self, job);
}

void xp_reader_poll(xp_reader *reader)
{
    reader->backend->poll(reader->self);
}

void xp_reader_wait(xp_reader *reader, const xp_job *job)
{
    xp_job *one = (xp_job *)job;
    reader->backend->wait_any(reader->self, &one, 1);
}

void xp_reader_wait_any(xp_reader *reader, xp_job *const *jobs, int n)
{
    reader->backend->wait_any(reader->self, jobs, n);
}

bool xp_reader_direct(const xp_reader *reader)
{
    for (int i = 0; i < reader->options.n_files; i++)
        if (!atomic_load(&reader->files[i].direct)) return false;
    return true;
}

xp_io xp_reader_io(const xp_reader *reader)
{
    return reader->io;
}

uint64_t xp_reader_bytes(const xp_reader *reader)
{
    return atomic_load(&reader->bytes);
}

uint64_t xp_reader_reads(const xp_reader *reader)
{
    return atomic_load(&reader->reads);
}

void xp_reader_fail_at(xp_reader *reader, uint64_t nth, int error)
{
    atomic_store(&reader->fail_error, error);
    atomic_store(&reader->fail_nth, nth);
}

/* --- for the backends ------------------------------------------------------------------------- */

void xp_queue_push(xp_queue *queue, xp_job *job)
{
    job->next = NULL;
    if (queue->last) queue->last->next = job;
    else queue->first = job;
    queue->last = job;
}

bool xp_queue_remove(xp_queue *queue, xp_job *job)
{
    xp_job *before = NULL;
    for (xp_job *j = queue->first; j; before = j, j = j->next) {
        if (j != job) continue;
        if (before) before->next = j->next;
        else queue->first = j->next;
        if (queue->last == j) queue->last = before;
        return true;
    }
    return false;
}

long xp_reader_inject(xp_reader *reader, long result)
{
    if (!atomic_load_explicit(&reader->fail_nth, memory_order_relaxed)) return result;
    if (atomic_fetch_sub(&reader->fail_nth, 1) != 1) return result;
    int error = atomic_load(&reader->fail_error);
    if (error > 0) return -error;
    return result > XP_BLOCK ? (result / 2) & ~(long)(XP_BLOCK - 1) : result;
}

/* After a short read the next one starts at a whole block again: direct reads must. */
xp_next_read xp_reader_next(xp_reader *reader, const xp_job *job, int index)
{
    const xp_range_read *r = &job->read[index];
    size_t done = job->got[index] & ~(size_t)(XP_BLOCK - 1);
    return (xp_next_read){reader->files[r->file].fd, job->memory + r->at + done, r->bytes - done,
                          r->offset + done};
}

static void fail_read(xp_reader *reader, const xp_job *job, int index, int error, fm_error *err)
{
    const xp_range_read *r = &job->read[index];
    const char *path = reader->files[r->file].path;
    unsigned long long at = r->offset + job->got[index];
    if (error) fm_fail_errno(err, error, "%s: read of an expert at byte %llu", path, at);
    else
        fm_fail(err, FM_E_IO, "%s: ends at byte %llu, %zu more were expected", path, at,
                r->need - job->got[index]);
}

/* Direct reads that a file system refuses late: go on through the page cache, and say so. The
 * descriptor stays the same one, for reads that are in flight. */
static void fall_back(xp_reader *reader, int file)
{
    xp_file *f = &reader->files[file];
    if (!atomic_exchange(&f->direct, false)) return;
    int flags = fcntl(f->fd, F_GETFL);
    if (flags >= 0) fcntl(f->fd, F_SETFL, flags & ~O_DIRECT);
}

bool xp_reader_account(xp_reader *reader, xp_job *job, int index, long result, bool *again,
                       fm_error *err)
{
    const xp_range_read *r = &job->read[index];
    *again = false;
    if (result == -EINTR || result == -EAGAIN) {
        *again = true;
        return false;
    }
    if (result == -EINVAL && !job->retried[index]) {
        fall_back(reader, r->file);
        job->retried[index] = *again = true;
        return false;
    }
    if (result < 0) {
        fail_read(reader, job, index, (int)-result, err);
        return false;
    }
    size_t base = job->got[index] & ~(size_t)(XP_BLOCK - 1);
    atomic_fetch_add_explicit(&reader->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&reader->bytes, (uint64_t)result, memory_order_relaxed);
    size_t before = job->got[index];
    job->got[index] = base + (size_t)result;
    if (job->got[index] >= r->need) return true;
    if (result > 0 && job->got[index] > before) {
        *again = true;
        return false;
    }
    fail_read(reader, job, index, 0, err);
    return false;
}
