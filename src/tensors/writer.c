/* A safetensors file as a stream. The header is known once all tensors are declared, so it goes
 * first and the data behind it, and nothing is held. */
#include "tensors/tensors.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct ts_writer {
    char *path, *temp;
    int fd;
    bs_buf header;  /* the JSON, without its closing brace until the data begins */
    bool streaming; /* the header is out */
    uint64_t declared, written;
};

fm_status ts_writer_open(const char *path, ts_writer **out, fm_error *err)
{
    ts_writer *w = bs_calloc(1, sizeof *w);
    if (!w) return fm_fail_nomem(err, path);
    w->fd = -1;
    w->path = bs_strdup(path);
    w->temp = bs_sprintf("%s.tmp.%ld", path, (long)getpid());
    bs_buf_puts(&w->header, "{\"__metadata__\":{\"format\":\"mlx\"}");
    if (!w->path || !w->temp || w->header.failed) {
        ts_writer_abort(w);
        return fm_fail_nomem(err, path);
    }
    w->fd = open(w->temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        int problem = errno;
        ts_writer_abort(w);
        return fm_fail_errno(err, problem, "%s: cannot create", path);
    }
    *out = w;
    return FM_OK;
}

static void put_name(bs_buf *b, const char *name)
{
    bs_buf_putc(b, '"');
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        if (c == '"' || c == '\\') bs_buf_printf(b, "\\%c", c);
        else if (c < 0x20) bs_buf_printf(b, "\\u%04x", c);
        else bs_buf_putc(b, (char)c);
    }
    bs_buf_putc(b, '"');
}

fm_status ts_writer_declare(ts_writer *w, const char *name, ts_type type, int n_dims,
                            const int64_t *shape, fm_error *err)
{
    uint64_t bytes = ts_type_bytes(type), end;
    bool fits = n_dims >= 0 && n_dims <= TS_MAX_DIMS && !w->streaming;
    for (int i = 0; fits && i < n_dims; i++)
        fits = shape[i] >= 0 && !__builtin_mul_overflow(bytes, (uint64_t)shape[i], &bytes);
    if (!fits || __builtin_add_overflow(w->declared, bytes, &end) || end > INT64_MAX)
        return fm_fail(err, FM_E_ARGUMENT, "%s: tensor %.200s cannot be declared", w->path, name);
    bs_buf_putc(&w->header, ',');
    put_name(&w->header, name);
    bs_buf_printf(&w->header, ":{\"dtype\":\"%s\",\"shape\":[", ts_type_name(type));
    for (int i = 0; i < n_dims; i++)
        bs_buf_printf(&w->header, "%s%lld", i ? "," : "", (long long)shape[i]);
    bs_buf_printf(&w->header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->declared,
                  (unsigned long long)end);
    w->declared = end;
    return w->header.failed ? fm_fail_nomem(err, w->path) : FM_OK;
}

/* Spaces after the JSON make the data begin at a multiple of 8, as the format advises. */
static fm_status begin_data(ts_writer *w, fm_error *err)
{
    unsigned char length[8];
    w->streaming = true;
    bs_buf_putc(&w->header, '}');
    while (w->header.length % sizeof length && !w->header.failed) bs_buf_putc(&w->header, ' ');
    if (w->header.failed) return fm_fail_nomem(err, w->path);
    for (size_t i = 0; i < sizeof length; i++)
        length[i] = (unsigned char)(w->header.length >> (8 * i));
    fm_status status = bs_write_full(w->fd, w->path, length, sizeof length, err);
    if (!status) status = bs_write_full(w->fd, w->path, w->header.data, w->header.length, err);
    return status;
}

fm_status ts_writer_write(ts_writer *w, const void *data, size_t n, fm_error *err)
{
    fm_status status = w->streaming ? FM_OK : begin_data(w, err);
    if (status) return status;
    if (n > w->declared - w->written)
        return fm_fail(err, FM_E_ARGUMENT, "%s: more data than the declared tensors take", w->path);
    status = bs_write_full(w->fd, w->path, data, n, err);
    if (!status) w->written += n;
    return status;
}

static fm_status commit(ts_writer *w, fm_error *err)
{
    fm_status status = w->streaming ? FM_OK : begin_data(w, err);
    if (status) return status;
    if (w->written != w->declared)
        return fm_fail(err, FM_E_ARGUMENT, "%s: %llu bytes of the declared %llu were written",
                       w->path, (unsigned long long)w->written, (unsigned long long)w->declared);
    int problem = fsync(w->fd) ? errno : 0;
    if (close(w->fd) && !problem) problem = errno;
    w->fd = -1;
    if (!problem && rename(w->temp, w->path)) problem = errno;
    if (problem) return fm_fail_errno(err, problem, "%s: cannot write", w->path);
    bs_sync_folder_of(w->path);
    return FM_OK;
}

fm_status ts_writer_finish(ts_writer *w, fm_error *err)
{
    fm_status status = commit(w, err);
    ts_writer_abort(w); /* after the rename there is no temporary file left to remove */
    return status;
}

void ts_writer_abort(ts_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temp) unlink(w->temp);
    bs_buf_free(&w->header);
    bs_free(w->temp);
    bs_free(w->path);
    bs_free(w);
}
