#include "hub/pull.h"

#include "base/mem.h"

#include <string.h>
#include <sys/stat.h>

enum { LOCK_POLL_MS = 100, CHECK_BYTES = 16 << 20 };

bool hb_is_linked(const hb_survey *s, const hb_file *file, uint64_t *size)
{
    struct stat st;
    char *path = bs_sprintf("%s/%s", s->folder, file->name);
    bool linked = path && !stat(path, &st) && S_ISREG(st.st_mode);
    if (linked) *size = (uint64_t)st.st_size;
    bs_free(path);
    return linked;
}

static bool blob_is_complete(const char *blob, uint64_t size)
{
    struct stat st;
    return !stat(blob, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == size;
}

static fm_status wait_for_lock(hb_client *client, const hb_repo *repo, const char *etag,
                               hb_reporter *reporter, int *lock, fm_error *err)
{
    for (;;) {
        fm_status status = hb_repo_try_lock(repo, etag, lock, err);
        if (status != FM_E_BUSY) return status;
        hb_report(reporter, HB_WAITING, 0, NULL);
        status = hb_sleep(client, LOCK_POLL_MS, err);
        if (status) return status;
    }
}

/* Hash the part that was there before, in steps short enough to be stopped between. */
static fm_status check_front(hb_client *client, hb_partial *partial, hb_reporter *reporter,
                             fm_error *err)
{
    for (uint64_t left = partial->pieces[0]->length; left;) {
        if (hb_cancelled(client)) return fm_fail(err, FM_E_CANCELLED, "the download was stopped");
        hb_report(reporter, HB_CHECKING, partial->pieces[0]->length - left, NULL);
        fm_status status = hb_partial_check(partial, CHECK_BYTES, &left, err);
        if (status) return status;
    }
    return FM_OK;
}

/* *resumed says how many bytes came from an earlier run. */
static fm_status fill_blob(hb_client *client, const hb_repo *repo, const hb_survey *s,
                           const char *file, const char *blob, hb_meta *meta, hb_reporter *reporter,
                           uint64_t *resumed, fm_error *err)
{
    hb_partial partial;
    fm_status status = hb_partial_open(blob, meta->etag, meta->size, &partial, err);
    if (status) return status;
    *resumed = hb_partial_have(&partial);
    uint64_t missing = meta->size - *resumed;
    if (missing) { /* a piece and its copy in the front exist side by side for a moment */
        uint64_t most = meta->size - missing + client->config->chunk;
        status = hb_repo_need_space(repo, missing + (most < meta->size ? client->config->chunk : 0),
                                    err);
    }
    if (!status) status = check_front(client, &partial, reporter, err);
    if (!status) status = hb_fetch_bytes(client, s->commit, file, meta, &partial, reporter, err);
    if (!status) status = hb_partial_finish(&partial, err);
    hb_partial_close(&partial);
    return status;
}

static fm_status get_blob(hb_client *client, const hb_repo *repo, const hb_survey *s,
                          const char *file, hb_meta *meta, hb_reporter *reporter, char **path,
                          fm_error *err)
{
    char *blob = hb_repo_blob(repo, meta->etag);
    if (!blob) return fm_fail_nomem(err, "naming a blob");
    fm_status status = FM_OK;
    uint64_t resumed = 0;
    if (!blob_is_complete(blob, meta->size)) {
        status = fill_blob(client, repo, s, file, blob, meta, reporter, &resumed, err);
        if (status == FM_E_FORMAT && resumed) /* the old part may be to blame */
            status = fill_blob(client, repo, s, file, blob, meta, reporter, &resumed, err);
        if (status == FM_E_FORMAT || status == FM_E_IO) fm_prefix(err, "%s/%s", s->id.repo, file);
    }
    if (!status && !path) status = hb_repo_link(repo, s->commit, file, meta->etag, err);
    if (!status && path) {
        *path = blob;
        return FM_OK;
    }
    bs_free(blob);
    return status;
}

fm_status hb_get_file(hb_client *client, const hb_repo *repo, const hb_survey *s, hb_file *file,
                      hb_reporter *reporter, char **path, fm_error *err)
{
    hb_reporter silent = {0};
    hb_meta meta;
    if (!reporter) reporter = &silent;
    file->cached = hb_is_linked(s, file, &file->size);
    if (file->cached) {
        if (path && !(*path = bs_sprintf("%s/%s", s->folder, file->name)))
            return fm_fail_nomem(err, "naming a file");
        return FM_OK;
    }
    fm_status status = hb_file_meta(client, s->commit, file->name, &meta, err);
    if (status) return status;
    int lock = -1;
    file->size = reporter->now.file_size = meta.size;
    status = wait_for_lock(client, repo, meta.etag, reporter, &lock, err);
    if (!status) status = get_blob(client, repo, s, file->name, &meta, reporter, path, err);
    file->cached = !status && !path;
    hb_repo_unlock(lock);
    hb_meta_free(&meta);
    return status;
}

static fm_status get_one(hb_client *client, const hb_repo *repo, hb_survey *s, size_t i,
                         const hb_sink *sink, hb_reporter *reporter, fm_error *err)
{
    hb_file *file = &s->files[i];
    if (!sink || !file->weights) return hb_get_file(client, repo, s, file, reporter, NULL, err);
    char *path;
    if (sink->has(sink->arg, i)) return FM_OK;
    fm_status status = hb_get_file(client, repo, s, file, reporter, &path, err);
    if (status) return status;
    status = sink->take(sink->arg, i, path, err);
    bs_free(path);
    return status;
}

static fm_status pull_files(hb_client *client, const hb_repo *repo, hb_survey *s, hb_want want,
                            const hb_sink *sink, fm_error *err)
{
    hb_reporter reporter = {.hooks = client->hooks};
    reporter.now.n_files = s->n_files;
    reporter.now.total_size = s->total_bytes;
    for (size_t i = 0; i < s->n_files; i++) {
        hb_file *file = &s->files[i];
        uint64_t promised = file->size;
        if (file->weights && want == HB_WANT_TEXTS) return FM_OK; /* they come last */
        reporter.now.file = file->name;
        reporter.now.index = i;
        reporter.now.file_size = promised;
        fm_status status = get_one(client, repo, s, i, sink, &reporter, err);
        if (status) return status;
        if (file->size != promised) { /* the list was wrong; the file itself is right */
            s->total_bytes += file->size - promised;
            reporter.now.total_size = s->total_bytes;
        }
        hb_report(&reporter, HB_DONE, file->size, NULL);
        reporter.total_before += file->size;
    }
    s->missing_bytes = 0;
    return hb_repo_write_ref(repo, s->id.revision, s->commit, err);
}

fm_status hb_pull(const hb_config *c, hb_survey *s, hb_want want, const hb_sink *sink,
                  const hb_hooks *hooks, fm_error *err)
{
    hb_client client;
    hb_repo repo;
    fm_status status = hb_repo_open(c, s->id.repo, &repo, err);
    if (status) return status;
    status = hb_client_open(c, s->id.repo, hooks, &client, err);
    if (!status) status = hb_repo_make(&repo, err);
    if (!status && want == HB_WANT_ALL && !sink) {
        uint64_t partial = hb_repo_usage(&repo).partial;
        uint64_t missing = s->missing_bytes > partial ? s->missing_bytes - partial : 0;
        status = hb_repo_need_space(&repo, missing, err);
    }
    if (!status) status = pull_files(&client, &repo, s, want, sink, err);
    hb_client_close(&client);
    hb_repo_close(&repo);
    return status;
}
