/* Finding, listing and removing what the cache holds; nothing here reaches the network. */
#include "base/file.h"
#include "base/mem.h"
#include "hub/cache.h"
#include "hub/names.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder of a commit that has what is needed; NULL when none has (or out of memory). */
static char *find_folder(const hb_repo *r, const char *commit, hb_need need)
{
    char *snapshot = hb_repo_snapshot(r, commit), *packed = hb_repo_packed(r, commit);
    char *found = NULL;
    if (snapshot && hb_snapshot_complete(snapshot, need)) found = snapshot;
    else if (packed && need == HB_NEED_WEIGHTS && hb_is_packed(packed)) found = packed;
    if (found != snapshot) bs_free(snapshot);
    if (found != packed) bs_free(packed);
    return found;
}

fm_status hb_find(const hb_config *c, const hb_id *id, hb_need need, char **folder, fm_error *err)
{
    hb_repo repo;
    char commit[HB_HASH_MAX];
    *folder = NULL;
    fm_status status = hb_repo_open(c, id->repo, &repo, err);
    if (status) return status;
    status = hb_repo_read_ref(&repo, id->revision, commit, err);
    if (!status && !(*folder = find_folder(&repo, commit, need)))
        status = fm_fail(err, FM_E_NOT_FOUND, "%s: not all of it is in the cache", id->repo);
    hb_repo_close(&repo);
    return status;
}

static void look_at_commit(const hb_repo *r, const char *commit, hb_model *out)
{
    char *folder = find_folder(r, commit, HB_NEED_WEIGHTS);
    out->complete |= folder != NULL;
    out->packed |= folder && hb_has_pack(folder);
    bs_free(folder);
}

static void look_at_commits(const hb_repo *r, hb_model *out)
{
    char *path = bs_path_join(r->root, "snapshots");
    DIR *dir = path ? opendir(path) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (hb_is_commit(e->d_name)) look_at_commit(r, e->d_name, out);
    if (dir) closedir(dir);
    bs_free(path);
}

static fm_status describe(const hb_config *c, char *repo_name, hb_model *out, fm_error *err)
{
    hb_repo repo;
    fm_status status = hb_repo_open(c, repo_name, &repo, err);
    if (status) return status;
    hb_usage usage = hb_repo_usage(&repo);
    *out = (hb_model){.repo = repo_name,
                      .folder = bs_strdup(repo.root),
                      .bytes = usage.bytes,
                      .partial = usage.partial,
                      .last_used = usage.last_used};
    look_at_commits(&repo, out);
    hb_repo_close(&repo);
    return out->folder ? FM_OK : fm_fail_nomem(err, "listing models");
}

static fm_status add_model(const hb_config *c, const char *folder, hb_model **out, size_t *n,
                           fm_error *err)
{
    char *repo = hb_repo_of_folder(folder);
    if (!repo) return FM_OK;
    hb_model *models = bs_realloc(*out, *n + 1, sizeof *models);
    if (models) *out = models;
    fm_status status =
        models ? describe(c, repo, &models[*n], err) : fm_fail_nomem(err, "listing models");
    if (status) bs_free(repo);
    else ++*n;
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const hb_model *)a)->repo, ((const hb_model *)b)->repo);
}

fm_status hb_list(const hb_config *c, hb_model **out, size_t *n, fm_error *err)
{
    *out = NULL, *n = 0;
    DIR *dir = opendir(c->cache);
    if (!dir && errno == ENOENT) return FM_OK;
    if (!dir) return fm_fail_errno(err, errno, "%s: cannot list", c->cache);
    fm_status status = FM_OK;
    for (struct dirent *e; !status && (e = readdir(dir));)
        status = add_model(c, e->d_name, out, n, err);
    closedir(dir);
    if (*n) qsort(*out, *n, sizeof **out, by_name);
    if (status) hb_list_free(*out, *n), *out = NULL, *n = 0;
    return status;
}

void hb_list_free(hb_model *models, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bs_free(models[i].repo);
        bs_free(models[i].folder);
    }
    bs_free(models);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path) && errno != ENOENT ? errno : 0;
}

/* rm -r that does not follow links. */
static fm_status remove_tree(const char *path, fm_error *err)
{
    int problem = nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (problem < 0) problem = errno;
    if (!problem || problem == ENOENT) return FM_OK;
    return hb_fail_write(err, problem, path);
}

/* Take every lock of the repository; fds is a growing array of them. */
static fm_status lock_all(const hb_repo *r, int **fds, size_t *n, fm_error *err)
{
    DIR *dir = opendir(r->locks);
    fm_status status = FM_OK;
    for (struct dirent *e; dir && !status && (e = readdir(dir));) {
        size_t length = strlen(e->d_name);
        if (length <= 5 || strcmp(e->d_name + length - 5, ".lock") != 0) continue;
        int *more = bs_realloc(*fds, *n + 1, sizeof *more);
        char *etag = bs_strndup(e->d_name, length - 5);
        if (more) *fds = more;
        if (!more || !etag) status = fm_fail_nomem(err, "locking a model");
        else status = hb_repo_try_lock(r, etag, &more[*n], err);
        if (!status) ++*n;
        bs_free(etag);
    }
    if (dir) closedir(dir);
    return status;
}

fm_status hb_remove(const hb_config *c, const char *repo_name, fm_error *err)
{
    hb_repo repo;
    int *locks = NULL;
    size_t n_locks = 0;
    struct stat st;
    fm_status status = hb_repo_open(c, repo_name, &repo, err);
    if (status) return status;
    if (lstat(repo.root, &st))
        status = fm_fail(err, FM_E_NOT_FOUND, "%s is not in the cache %s", repo_name, c->cache);
    if (!status) status = lock_all(&repo, &locks, &n_locks, err);
    if (status == FM_E_BUSY)
        fm_fail(err, FM_E_BUSY, "%s is being downloaded; stop that first", repo_name);
    /* Without its snapshots first, a half-removed model is not taken for a whole one. */
    char *snapshots = bs_path_join(repo.root, "snapshots");
    if (!status && !snapshots) status = fm_fail_nomem(err, "removing a model");
    if (!status) status = remove_tree(snapshots, err);
    if (!status) status = remove_tree(repo.root, err);
    if (!status) status = remove_tree(repo.locks, err);
    for (size_t i = 0; i < n_locks; i++) hb_repo_unlock(locks[i]);
    bs_free(locks);
    bs_free(snapshots);
    hb_repo_close(&repo);
    return status;
}
