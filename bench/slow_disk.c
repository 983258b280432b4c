/* slow_disk.c - a folder once more, behind a disk of a chosen rate: to measure as on a slower one.
 *
 *     make slow-disk
 *     build/slow_disk /fast/folder /mount/point 1.0 [LATENCY_US]    # GB/s; until umount; as root
 *
 * A read-only FUSE file system (libfuse 3). Reads are served one after the other at that rate, as a
 * disk does: a request waits for those before it, then bytes / rate. What its own copying costs
 * comes out of that time, and is paid by its own threads: give it cores that the engine does not
 * use. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_READ = 1 << 20 };

static char source[PATH_MAX];
static double rate;               /* bytes a nanosecond */
static long long latency = 80000; /* ns */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long long busy_until;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* When a read of n bytes that arrives now is done. */
static long long queue_read(size_t n)
{
    pthread_mutex_lock(&lock);
    long long now = now_ns();
    if (busy_until < now) busy_until = now;
    busy_until += (long long)((double)n / rate);
    long long done = busy_until + latency;
    pthread_mutex_unlock(&lock);
    return done;
}

static void wait_until(long long when)
{
    struct timespec t = {when / 1000000000, when % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static const char *real_path(const char *path, char *out)
{
    snprintf(out, PATH_MAX, "%s%s", source, path);
    return out;
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    char real[PATH_MAX];
    (void)fi;
    return stat(real_path(path, real), st) ? -errno : 0;
}

static int do_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    char real[PATH_MAX];
    (void)offset, (void)fi, (void)flags;
    DIR *dir = opendir(real_path(path, real));
    if (!dir) return -errno;
    for (struct dirent *e; (e = readdir(dir));) fill(out, e->d_name, NULL, 0, 0);
    closedir(dir);
    return 0;
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
    char real[PATH_MAX];
    int fd = open(real_path(path, real), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int do_read(const char *path, char *out, size_t n, off_t offset, struct fuse_file_info *fi)
{
    (void)path;
    prctl(PR_SET_TIMERSLACK, 1000);
    long long done = queue_read(n);
    ssize_t got = pread((int)fi->fh, out, n, offset);
    if (got < 0) return -errno;
    wait_until(done);
    return (int)got;
}

static int do_release(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    return close((int)fi->fh) ? -errno : 0;
}

static void *start(struct fuse_conn_info *conn, struct fuse_config *config)
{
    (void)config;
    conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
    conn->max_read = MAX_READ;
    return NULL;
}

static const struct fuse_operations operations = {.init = start,
                                                  .getattr = do_getattr,
                                                  .readdir = do_readdir,
                                                  .open = do_open,
                                                  .read = do_read,
                                                  .release = do_release};

int main(int argc, char **argv)
{
    if (argc < 4 || !realpath(argv[1], source) || (rate = atof(argv[3])) <= 0) {
        fprintf(stderr, "usage: slow_disk FOLDER MOUNT_POINT GB_A_SECOND [LATENCY_US]\n");
        return 2;
    }
    if (argc > 4) latency = 1000LL * atoll(argv[4]);
    char *args[] = {argv[0], "-f", argv[2], "-o", "ro,allow_other,max_read=1048576,max_threads=64",
                    NULL};
    return fuse_main(5, args, &operations, NULL);
}
