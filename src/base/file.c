#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fm_status read_all(int fd, const char *path, size_t max_bytes, bs_buf *out, fm_error *err)
{
    struct stat st;
    if (fstat(fd, &st)) return fm_fail_errno(err, errno, "%s: cannot stat", path);
    if (S_ISDIR(st.st_mode)) return fm_fail(err, FM_E_IO, "%s: is a folder, not a file", path);
    if (!S_ISREG(st.st_mode)) return fm_fail(err, FM_E_IO, "%s: is not a regular file", path);
    if ((uint64_t)st.st_size > max_bytes)
        return fm_fail(err, FM_E_LIMIT, "%s: %lld bytes, more than the limit of %zu", path,
                       (long long)st.st_size, max_bytes);
    out->length = 0;
    if (!bs_buf_reserve(out, (size_t)st.st_size)) return fm_fail_nomem(err, path);
    fm_status status = bs_pread_full(fd, path, out->data, (size_t)st.st_size, 0, err);
    if (status) return status;
    out->length = (size_t)st.st_size;
    out->data[out->length] = 0;
    return FM_OK;
}

fm_status bs_read_file(const char *path, size_t max_bytes, bs_buf *out, fm_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", path);
    fm_status status = read_all(fd, path, max_bytes, out, err);
    close(fd);
    return status;
}

fm_status bs_pread_full(int fd, const char *path, void *dst, size_t n, uint64_t offset,
                        fm_error *err)
{
    char *p = dst;
    while (n) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return fm_fail_errno(err, errno, "%s: read at byte %llu", path,
                                 (unsigned long long)offset);
        if (got == 0)
            return fm_fail(err, FM_E_IO, "%s: ends at byte %llu, %zu more were expected", path,
                           (unsigned long long)offset, n);
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return FM_OK;
}

/* 0 or the errno. */
static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return errno;
        p += put;
        n -= (size_t)put;
    }
    return 0;
}

fm_status bs_write_full(int fd, const char *path, const void *data, size_t n, fm_error *err)
{
    int problem = write_all(fd, data, n);
    return problem ? fm_fail_errno(err, problem, "%s: cannot write", path) : FM_OK;
}

void bs_sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir =
        slash ? bs_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : bs_strdup(".");
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd); /* some file systems refuse this; the rename itself has already happened */
        close(fd);
    }
    bs_free(dir);
}

static fm_status replace(const char *path, const void *data, size_t n, mode_t mode, fm_error *err)
{
    char *temp = bs_sprintf("%s.tmp.%ld", path, (long)getpid());
    if (!temp) return fm_fail_nomem(err, path);
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    int problem = fd < 0 ? errno : write_all(fd, data, n);
    if (!problem && fsync(fd)) problem = errno;
    if (fd >= 0 && close(fd) && !problem) problem = errno;
    if (!problem && rename(temp, path)) problem = errno;
    if (problem && fd >= 0) unlink(temp);
    bs_free(temp);
    if (problem) return fm_fail_errno(err, problem, "%s: cannot write", path);
    bs_sync_folder_of(path);
    return FM_OK;
}

fm_status bs_write_file(const char *path, const void *data, size_t n, fm_error *err)
{
    return replace(path, data, n, 0666, err);
}

fm_status bs_write_private(const char *path, const void *data, size_t n, fm_error *err)
{
    return replace(path, data, n, 0600, err);
}

char *bs_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return bs_sprintf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

int bs_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int bs_is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

fm_status bs_make_dirs(const char *path, fm_error *err)
{
    char *copy = bs_strdup(path);
    if (!copy) return fm_fail_nomem(err, path);
    fm_status status = FM_OK;
    for (char *p = copy + 1; !status; p++) {
        if (*p && *p != '/') continue;
        char kept = *p;
        *p = 0;
        if (mkdir(copy, 0777) && errno != EEXIST)
            status = fm_fail_errno(err, errno, "%s: cannot make the folder", copy);
        *p = kept;
        if (!kept) break;
    }
    bs_free(copy);
    return status;
}
