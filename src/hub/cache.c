#include "hub/cache.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "hub/index.h"
#include "hub/names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

fm_status hb_repo_open(const hb_config *c, const char *repo, hb_repo *out, fm_error *err)
{
    *out = (hb_repo){0};
    char *folder = hb_repo_folder(repo);
    if (folder) {
        out->root = bs_path_join(c->cache, folder);
        out->locks = bs_sprintf("%s/.locks/%s", c->cache, folder);
    }
    bs_free(folder);
    if (out->root && out->locks) return FM_OK;
    hb_repo_close(out);
    return fm_fail_nomem(err, "naming a hub folder");
}

void hb_repo_close(hb_repo *r)
{
    bs_free(r->root);
    bs_free(r->locks);
    *r = (hb_repo){0};
}

fm_status hb_fail_write(fm_error *err, int saved_errno, const char *path)
{
    fm_fail_errno(err, saved_errno, "%s: cannot write", path);
    if (saved_errno == ENOSPC || saved_errno == EDQUOT)
        return fm_prefix(err, "the disk is full; free some space, or set HF_HUB_CACHE to another "
                              "disk; what has arrived is kept");
    if (saved_errno == EROFS || saved_errno == EACCES || saved_errno == EPERM)
        return fm_prefix(err, "the hub cache cannot be written; set HF_HUB_CACHE to a folder that "
                              "can");
    return err ? err->code : FM_E_IO;
}

fm_status hb_repo_make(const hb_repo *r, fm_error *err)
{
    static const char *const parts[] = {"blobs", "snapshots", "refs"};
    fm_status status = bs_make_dirs(r->locks, err);
    for (size_t i = 0; i < sizeof parts / sizeof *parts && !status; i++) {
        char *path = bs_path_join(r->root, parts[i]);
        status = path ? bs_make_dirs(path, err) : fm_fail_nomem(err, "making the hub cache");
        bs_free(path);
    }
    if (status == FM_E_IO)
        fm_prefix(err, "the hub cache cannot be written; set HF_HUB_CACHE to a folder that can");
    return status;
}

char *hb_repo_blob(const hb_repo *r, const char *etag)
{
    return bs_sprintf("%s/blobs/%s", r->root, etag);
}

char *hb_repo_snapshot(const hb_repo *r, const char *commit)
{
    return bs_sprintf("%s/snapshots/%s", r->root, commit);
}

char *hb_repo_packed(const hb_repo *r, const char *commit)
{
    return bs_sprintf("%s/flash-moe/%s", r->root, commit);
}

fm_status hb_repo_read_ref(const hb_repo *r, const char *revision, char commit[HB_HASH_MAX],
                           fm_error *err)
{
    if (hb_is_commit(revision)) {
        snprintf(commit, HB_HASH_MAX, "%s", revision);
        return FM_OK;
    }
    char *path = bs_sprintf("%s/refs/%s", r->root, revision);
    if (!path) return fm_fail_nomem(err, "reading a ref");
    bs_buf text = {0};
    fm_status status = bs_read_file(path, 256, &text, err);
    if (!status) {
        while (text.length && strchr("\r\n ", text.data[text.length - 1]))
            text.data[--text.length] = 0;
        if (hb_is_commit(text.data)) snprintf(commit, HB_HASH_MAX, "%s", text.data);
        else status = fm_fail(err, FM_E_FORMAT, "%s: holds no commit; remove the file", path);
    }
    bs_buf_free(&text);
    bs_free(path);
    return status;
}

/* mkdir -p of the folder that path lies in. */
static fm_status make_parent(const char *path, fm_error *err)
{
    char *parent = bs_strndup(path, (size_t)(strrchr(path, '/') - path));
    fm_status status = parent ? bs_make_dirs(parent, err) : fm_fail_nomem(err, path);
    bs_free(parent);
    return status;
}

fm_status hb_repo_write_ref(const hb_repo *r, const char *revision, const char *commit,
                            fm_error *err)
{
    char now[HB_HASH_MAX];
    if (hb_is_commit(revision)) return FM_OK;
    if (!hb_repo_read_ref(r, revision, now, NULL) && !strcmp(now, commit)) return FM_OK;
    char *path = bs_sprintf("%s/refs/%s", r->root, revision);
    if (!path) return fm_fail_nomem(err, "writing a ref");
    fm_status status = make_parent(path, err);
    if (!status) status = bs_write_file(path, commit, strlen(commit), err);
    bs_free(path);
    return status;
}

/* "../../blobs/<etag>", with one more "../" for each folder inside file. */
static char *link_target(const char *file, const char *etag)
{
    bs_buf b = {0};
    bs_buf_puts(&b, "../../");
    for (const char *p = file; *p; p++)
        if (*p == '/') bs_buf_puts(&b, "../");
    bs_buf_printf(&b, "blobs/%s", etag);
    if (!b.failed) return b.data;
    bs_buf_free(&b);
    return NULL;
}

/* Make path a link to target through a temporary name, so that a reader sees the old or the new. */
static int place_link(const char *target, const char *path)
{
    char now[PATH_MAX], temp[PATH_MAX];
    ssize_t n = readlink(path, now, sizeof now - 1);
    if (n > 0 && (size_t)n == strlen(target) && !memcmp(now, target, (size_t)n)) return 0;
    if (snprintf(temp, sizeof temp, "%s.tmp.%ld", path, (long)getpid()) >= (int)sizeof temp)
        return ENAMETOOLONG;
    unlink(temp);
    if (symlink(target, temp)) return errno;
    if (!rename(temp, path)) return 0;
    int problem = errno;
    unlink(temp);
    return problem;
}

fm_status hb_repo_link(const hb_repo *r, const char *commit, const char *file, const char *etag,
                       fm_error *err)
{
    fm_status status = FM_OK;
    char *path = bs_sprintf("%s/snapshots/%s/%s", r->root, commit, file);
    char *target = link_target(file, etag);
    char *blob = hb_repo_blob(r, etag);
    if (!path || !target || !blob) status = fm_fail_nomem(err, "linking a file");
    if (!status) status = make_parent(path, err);
    if (!status) {
        int problem = place_link(target, path);
        if (problem == EPERM || problem == EOPNOTSUPP || problem == ENOSYS)
            problem = rename(blob, path) ? errno : 0;
        if (problem) status = hb_fail_write(err, problem, path);
    }
    bs_free(path);
    bs_free(target);
    bs_free(blob);
    return status;
}

/* Python's lock library may unlink a lock file when it lets go; a lock on such a file locks
 * nothing, so look again whether the name still leads to what was locked. */
static bool still_there(int fd, const char *path)
{
    struct stat held, named;
    return !fstat(fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

fm_status hb_repo_try_lock(const hb_repo *r, const char *etag, int *fd, fm_error *err)
{
    char *path = bs_sprintf("%s/%s.lock", r->locks, etag);
    if (!path) return fm_fail_nomem(err, "locking a blob");
    fm_status status = FM_E_BUSY;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) {
        status = hb_fail_write(err, errno, path);
    } else if (!flock(*fd, LOCK_EX | LOCK_NB)) {
        if (still_there(*fd, path)) status = FM_OK;
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
        status =
            fm_fail_errno(err, errno, "%s: this file system cannot lock; set HF_HUB_CACHE", path);
    }
    if (status && *fd >= 0) close(*fd);
    if (status) *fd = -1;
    if (status == FM_E_BUSY) fm_fail(err, FM_E_BUSY, "%s: held by another download", path);
    bs_free(path);
    return status;
}

void hb_repo_unlock(int fd)
{
    if (fd >= 0) close(fd);
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && !strcmp(text + n - m, suffix);
}

/* Regular files below an open folder; links are not followed, so nothing counts twice. */
static void add_usage(int fd, int depth, hb_usage *u)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (S_ISDIR(st.st_mode) && depth) {
            int inner =
                openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner >= 0) add_usage(inner, depth - 1, u);
        } else if (S_ISREG(st.st_mode)) {
            uint64_t bytes = (uint64_t)st.st_blocks * 512; /* sparse stubs take next to nothing */
            if (bytes > (uint64_t)st.st_size) bytes = (uint64_t)st.st_size;
            u->bytes += bytes;
            if (ends_with(e->d_name, ".incomplete")) u->partial += bytes;
            if (st.st_atime > u->last_used) u->last_used = st.st_atime;
        }
    }
    closedir(dir);
}

hb_usage hb_repo_usage(const hb_repo *r)
{
    enum { DEEPEST = 8 };
    hb_usage u = {0};
    int fd = open(r->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) add_usage(fd, DEEPEST, &u);
    return u;
}

fm_status hb_repo_need_space(const hb_repo *r, uint64_t bytes, fm_error *err)
{
    struct statvfs fs;
    if (statvfs(r->root, &fs)) return FM_OK; /* the writes themselves will tell */
    uint64_t room;
    if (__builtin_mul_overflow((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &room)) return FM_OK;
    if (bytes <= room) return FM_OK;
    return fm_fail(err, FM_E_IO,
                   "the disk of %s has %.2f GB free and the download needs %.2f GB; free some "
                   "space, or set HF_HUB_CACHE to another disk",
                   r->root, (double)room * 1e-9, (double)bytes * 1e-9);
}

static bool shard_is_there(void *arg, const char *shard)
{
    char *path = hb_is_safe_path(shard) ? bs_path_join(arg, shard) : NULL;
    bool there = path && bs_is_file(path);
    bs_free(path);
    return there;
}

static bool has_any_weights(const char *folder)
{
    DIR *dir = opendir(folder);
    bool found = false;
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        struct stat st;
        found = ends_with(e->d_name, ".safetensors") && !fstatat(dirfd(dir), e->d_name, &st, 0);
    }
    if (dir) closedir(dir);
    return found;
}

static bool has_file(const char *folder, const char *name)
{
    char *path = bs_path_join(folder, name);
    bool found = path && bs_is_file(path);
    bs_free(path);
    return found;
}

bool hb_has_pack(const char *folder)
{
    return has_file(folder, HB_PACK_NAME "/manifest.json");
}

bool hb_is_packed(const char *folder)
{
    return hb_has_pack(folder) && has_file(folder, "config.json"); /* which comes last */
}

/* tokenizer.json, tokenizer.model, or the older pair of vocabulary and merges. */
static bool has_tokenizer(const char *folder)
{
    return has_file(folder, "tokenizer.json") || has_file(folder, "tokenizer.model") ||
           has_file(folder, "vocab.json");
}

bool hb_snapshot_complete(const char *folder, hb_need need)
{
    if (!has_file(folder, "config.json")) return false;
    if (need == HB_NEED_CONFIG) return true;
    if (need == HB_NEED_TEXTS) return has_tokenizer(folder);
    if (!has_file(folder, HB_INDEX_FILE)) return has_any_weights(folder);
    char *index = bs_path_join(folder, HB_INDEX_FILE);
    bool complete =
        index && !hb_index_each_shard(index, shard_is_there, (void *)(uintptr_t)folder, NULL);
    bs_free(index);
    return complete;
}
