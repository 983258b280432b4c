/* What a pull needs that does not keep the files it fetches. */
#include "hub/pull.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fm_status read_range(hb_client *client, const hb_survey *s, const char *file,
                            uint64_t offset, void *dst, size_t n, fm_error *err)
{
    char range[64];
    hb_meta meta;
    hb_reply reply;
    fm_status status = hb_file_meta(client, s->commit, file, &meta, err);
    if (status) return status;
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)offset,
             (unsigned long long)(offset + n - 1));
    hb_query query = {.url = meta.url, .range = range, .max_body = n};
    status = hb_request(client, &query, &reply, err);
    hb_meta_free(&meta);
    if (status) return fm_prefix(err, "%s/%s", s->id.repo, file);
    if (reply.status >= 300)
        status = hb_fail_status(client, reply.status, &reply.headers, file, err);
    else if (reply.status != 206 || reply.headers.range_start != offset || reply.body.length != n)
        status = fm_fail(err, FM_E_NETWORK, "%s/%s: the server sent another range than asked",
                         s->id.repo, file);
    else memcpy(dst, reply.body.data, n);
    hb_reply_free(&reply);
    return status;
}

fm_status hb_read_at(const hb_config *c, const hb_survey *s, size_t file, uint64_t offset,
                     void *dst, size_t n, const hb_hooks *hooks, fm_error *err)
{
    hb_client client;
    if (!n) return FM_OK;
    fm_status status = hb_client_open(c, s->id.repo, hooks, &client, err);
    if (status) return status;
    status = read_range(&client, s, s->files[file].name, offset, dst, n, err);
    hb_client_close(&client);
    return status;
}

/* Does any link in the folder lead to the blob? */
static bool folder_links_to(const char *folder, const char *etag)
{
    char target[PATH_MAX];
    DIR *dir = opendir(folder);
    bool found = false;
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof target - 1);
        if (n <= 0) continue;
        target[n] = 0;
        const char *slash = strrchr(target, '/');
        found = slash && !strcmp(slash + 1, etag);
    }
    if (dir) closedir(dir);
    return found;
}

static bool is_linked_anywhere(const hb_repo *repo, const char *etag)
{
    char *path = bs_sprintf("%s/snapshots", repo->root);
    DIR *dir = path ? opendir(path) : NULL;
    bool found = !dir; /* when in doubt it stays */
    for (struct dirent *e; dir && !found && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        char *snapshot = bs_sprintf("%s/%s", path, e->d_name);
        found = !snapshot || folder_links_to(snapshot, etag);
        bs_free(snapshot);
    }
    if (dir) closedir(dir);
    bs_free(path);
    return found;
}

/* Files that no snapshot links to: only an unfinished pull can have left them. */
static uint64_t loose_bytes(const hb_repo *repo)
{
    uint64_t bytes = 0;
    char *path = bs_sprintf("%s/blobs", repo->root);
    DIR *dir = path ? opendir(path) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode) ||
            is_linked_anywhere(repo, e->d_name))
            continue;
        uint64_t taken = (uint64_t)st.st_blocks * 512; /* a part is a file with holes */
        bytes += taken < (uint64_t)st.st_size ? taken : (uint64_t)st.st_size;
    }
    if (dir) closedir(dir);
    bs_free(path);
    return bytes;
}

fm_status hb_need_space(const hb_config *c, const hb_survey *s, uint64_t bytes, fm_error *err)
{
    hb_repo repo;
    fm_status status = hb_repo_open(c, s->id.repo, &repo, err);
    if (status) return status;
    uint64_t loose = loose_bytes(&repo);
    status = hb_repo_need_space(&repo, bytes > loose ? bytes - loose : 0, err);
    hb_repo_close(&repo);
    return status;
}

fm_status hb_release(const hb_config *c, const hb_survey *s, const char *path, fm_error *err)
{
    hb_repo repo;
    int lock = -1;
    const char *slash = strrchr(path, '/'), *etag = slash ? slash + 1 : path;
    fm_status status = hb_repo_open(c, s->id.repo, &repo, err);
    if (status) return status;
    char *blob = hb_repo_blob(&repo, etag);
    if (!blob) status = fm_fail_nomem(err, "releasing a file");
    /* Under the lock nobody can begin to link it; a busy one is wanted by another pull. */
    if (!status && !strcmp(blob, path) && !hb_repo_try_lock(&repo, etag, &lock, NULL) &&
        !is_linked_anywhere(&repo, etag) && unlink(blob) && errno != ENOENT)
        status = hb_fail_write(err, errno, blob);
    hb_repo_unlock(lock);
    bs_free(blob);
    hb_repo_close(&repo);
    return status;
}

fm_status hb_packed_folder(const hb_config *c, const hb_survey *s, char **out, fm_error *err)
{
    hb_repo repo;
    fm_status status = hb_repo_open(c, s->id.repo, &repo, err);
    if (status) return status;
    *out = hb_repo_packed(&repo, s->commit);
    hb_repo_close(&repo);
    return *out ? FM_OK : fm_fail_nomem(err, "naming the packed model");
}
