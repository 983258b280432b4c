/* Reading the bytes of tensors. Weights go into the program's own memory once, so they should not
 * fill the page cache on the way: O_DIRECT through an aligned bounce buffer, or, where a file
 * system refuses that, buffered reads whose pages are dropped behind them. */
#include "tensors/store.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum {
    ALIGN = 4096,
    BOUNCE = 1 << 20,
    DIRECT_MIN = 64 << 10, /* below this the seek dominates and the page cache helps neighbours */
};

#ifdef O_DIRECT
static int open_direct(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
}
#else
static int open_direct(const char *path)
{
    (void)path;
    return -1;
}
#endif

static void drop_pages(int fd, uint64_t offset, uint64_t n)
{
#ifdef POSIX_FADV_DONTNEED
    (void)posix_fadvise(fd, (off_t)offset, (off_t)n, POSIX_FADV_DONTNEED);
#else
    (void)fd, (void)offset, (void)n;
#endif
}

/* Copies what direct reads can give of [offset, offset + n) and returns how much that was: less
 * than n when the file system refuses O_DIRECT, the file ends, or a read fails. The buffered
 * path goes on from there and reports what is wrong, if anything is. */
static uint64_t read_direct(const char *path, uint64_t offset, uint64_t n, char *dst)
{
    uint64_t done = 0;
    int fd = open_direct(path);
    /* From the heap, which hands out the same pages again: fresh ones would be cleared each time. */
    char *memory = fd < 0 ? NULL : bs_malloc(BOUNCE + ALIGN);
    char *bounce = memory ? memory + (ALIGN - (uintptr_t)memory % ALIGN) : NULL;
    while (bounce && done < n) {
        uint64_t at = offset + done, skip = at % ALIGN;
        uint64_t want = skip + (n - done);
        size_t length = want < BOUNCE ? (size_t)((want + ALIGN - 1) / ALIGN * ALIGN) : BOUNCE;
        ssize_t got = pread(fd, bounce, length, (off_t)(at - skip));
        if (got < 0 && errno == EINTR) continue;
        if (got <= (ssize_t)skip) break;
        uint64_t useful = (uint64_t)got - skip;
        if (useful > n - done) useful = n - done;
        memcpy(dst + done, bounce + skip, (size_t)useful);
        done += useful;
    }
    bs_free(memory);
    if (fd >= 0) close(fd);
    return done;
}

static fm_status read_buffered(const ts_file *f, uint64_t offset, uint64_t n, char *dst,
                               fm_error *err)
{
    int fd;
    uint64_t bytes;
    fm_status status = ts_open_file(f->path, &fd, &bytes, err);
    if (status) return status;
    if (bytes != f->bytes)
        status =
            fm_fail(err, FM_E_IO, "%s: had %llu bytes when the model was opened and has %llu now",
                    f->path, (unsigned long long)f->bytes, (unsigned long long)bytes);
    if (!status) status = bs_pread_full(fd, f->path, dst, (size_t)n, offset, err);
    if (!status && n >= DIRECT_MIN) drop_pages(fd, offset, n);
    close(fd);
    return status;
}

fm_status ts_read(const ts_store *store, const ts_tensor *t, uint64_t begin, uint64_t n, void *dst,
                  fm_error *err)
{
    const ts_file *f = &store->files[t->file];
    char *to = dst;
    if (begin > t->bytes || n > t->bytes - begin)
        return fm_fail(err, FM_E_ARGUMENT,
                       "tensor %.200s: bytes %llu to %llu of %llu were asked for", t->name,
                       (unsigned long long)begin, (unsigned long long)(begin + n),
                       (unsigned long long)t->bytes);
    uint64_t offset = t->offset + begin;
    uint64_t done = n >= DIRECT_MIN ? read_direct(f->path, offset, n, to) : 0;
    if (done == n) return FM_OK;
    fm_status status = read_buffered(f, offset + done, n - done, to + done, err);
    return status ? fm_prefix(err, "tensor %.200s", t->name) : FM_OK;
}

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    uint32_t bits;
    float value;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        value = (float)fraction * 0x1p-24f; /* subnormal or zero */
        return sign ? -value : value;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float bfloat_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The 16-bit values stand in the upper half of dst and are widened from the front: the write
 * never overtakes the read. */
static void widen(float *dst, uint64_t count, ts_type type)
{
    const char *raw = (const char *)dst + count * 2;
    for (uint64_t i = 0; i < count; i++) {
        uint16_t h;
        memcpy(&h, raw + i * 2, sizeof h);
        dst[i] = type == TS_F16 ? half_to_float(h) : bfloat_to_float(h);
    }
}

fm_status ts_read_floats(const ts_store *store, const ts_tensor *t, uint64_t count, float *dst,
                         fm_error *err)
{
    char shape[TS_SHAPE_TEXT];
    const char *path = store->files[t->file].path;
    if (t->type != TS_F32 && t->type != TS_F16 && t->type != TS_BF16)
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s is %s where F32, F16 or BF16 belongs",
                       path, t->name, ts_type_name(t->type));
    if (t->bytes / ts_type_bytes(t->type) != count)
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s has shape %s where %llu values belong",
                       path, t->name, ts_shape_text(t->shape, t->n_dims, shape),
                       (unsigned long long)count);
    char *raw = (char *)dst + (t->type == TS_F32 ? 0 : count * 2);
    fm_status status = ts_read(store, t, 0, t->bytes, raw, err);
    if (status) return status;
    if (t->type != TS_F32) widen(dst, count, t->type);
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(dst[i]))
            return fm_fail(err, FM_E_NUMERIC, "%s: tensor %.200s: value %llu is %s", path, t->name,
                           (unsigned long long)i, isnan(dst[i]) ? "NaN" : "infinite");
    return FM_OK;
}
