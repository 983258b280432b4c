#include "cli/quantised.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "cli/progress.h"
#include "cli/resident.h"
#include "experts/pack.h"
#include "experts/persist.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* What the folder is being made of; gone when it is complete. */
#define UNFINISHED ".unfinished"

enum { MOST_SMALL = 256 << 20 }; /* bytes of a file that is no weights */

fm_status cli_quantise_sizes(const cli_quantise *q, uint64_t *now, uint64_t *then, fm_error *err)
{
    const xp_source *source = md_expert_source(q->model);
    const md_info *info = md_describe(q->model);
    *now = info->expert_bytes * (uint64_t)info->n_experts * (uint64_t)info->n_moe_layers;
    return xp_quantised_bytes(source, q->bits, q->group, then, err);
}

/* --- beginning -------------------------------------------------------------------------------- */

static bool is_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    bool empty = true;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) empty = false;
    if (dir) closedir(dir);
    return empty;
}

/* Of the files in a folder; 0: there is none. */
static uint64_t bytes_below(const char *folder)
{
    DIR *dir = opendir(folder);
    uint64_t sum = 0;
    struct stat st;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_size;
    if (dir) closedir(dir);
    return sum;
}

/* A new folder, or one that was begun with the same source and codes. */
static fm_status begin(const cli_quantise *q, const char *note, fm_error *err)
{
    char *id = NULL;
    fm_status status = xp_source_id(md_expert_source(q->model), &id, err);
    if (!status) status = bs_make_dirs(q->to, err);
    if (status) return status;
    char *text = bs_sprintf("%s %d %d\n", id, q->bits, q->group);
    bs_free(id);
    if (!text) return fm_fail_nomem(err, q->to);
    bs_buf found = {0};
    if (is_empty(q->to)) {
        status = bs_write_file(note, text, strlen(text), err);
    } else if (bs_read_file(note, 4096, &found, NULL) || found.length != strlen(text) ||
               memcmp(found.data, text, found.length)) {
        status = fm_fail(err, FM_E_ARGUMENT,
                         "%s: not empty, and not what an interrupted run of the same left: give "
                         "another folder",
                         q->to);
    }
    bs_buf_free(&found);
    bs_free(text);
    return status;
}

/* Before anything is written: what an interrupted run of the same left is taken off the need. */
static fm_status check_space(const cli_quantise *q, const char *store, fm_error *err)
{
    uint64_t now, then;
    struct statvfs disk;
    fm_status status = cli_quantise_sizes(q, &now, &then, err);
    if (status || statvfs(q->to, &disk)) return status;
    uint64_t need = then + md_describe(q->model)->resident_bytes;
    uint64_t left = (uint64_t)disk.f_bavail * disk.f_frsize + bytes_below(store);
    if (left >= need) return FM_OK;
    return fm_fail(err, FM_E_IO, "%s: %.2f GB are needed, %.2f GB are free", q->to,
                   (double)need * 1e-9, (double)left * 1e-9);
}

/* --- copying ---------------------------------------------------------------------------------- */

/* The index counts too: it would name shards that are not there. */
static bool is_weights(const char *name)
{
    return strstr(name, ".safetensors") != NULL;
}

static fm_status copy_small(const cli_quantise *q, const char *name, fm_error *err)
{
    char *from = bs_path_join(q->from, name), *to = bs_path_join(q->to, name);
    bs_buf bytes = {0};
    struct stat st;
    fm_status status = from && to ? FM_OK : fm_fail_nomem(err, name);
    if (!status && !stat(from, &st) && S_ISREG(st.st_mode)) {
        status = bs_read_file(from, MOST_SMALL, &bytes, err);
        if (!status) status = bs_write_file(to, bytes.data, bytes.length, err);
    }
    bs_buf_free(&bytes);
    bs_free(from);
    bs_free(to);
    return status;
}

/* config.json, tokenizer, template, ...: all visible files but the weights. */
static fm_status copy_small_files(const cli_quantise *q, fm_error *err)
{
    DIR *dir = opendir(q->from);
    if (!dir) return fm_fail_errno(err, errno, "%s: cannot list", q->from);
    fm_status status = FM_OK;
    for (struct dirent *e; !status && (e = readdir(dir));)
        if (e->d_name[0] != '.' && !is_weights(e->d_name)) status = copy_small(q, e->d_name, err);
    closedir(dir);
    return status;
}

static fm_status copy_resident(const cli_quantise *q, fm_error *err)
{
    const ts_store *store = md_store(q->model);
    bool *is_expert = cli_expert_tensors(q->model);
    fm_status status = is_expert ? FM_OK : fm_fail_nomem(err, q->to);
    for (int f = 0; f < ts_file_count(store) && !status; f++) {
        const char *path = ts_file_path(store, f), *slash = strrchr(path, '/');
        char *to = bs_path_join(q->to, slash ? slash + 1 : path);
        if (!to) status = fm_fail_nomem(err, q->to);
        else if (!bs_is_file(to) && cli_has_resident(q->model, is_expert, f))
            status = cli_copy_resident(q->model, is_expert, f, path, to, err);
        bs_free(to);
    }
    bs_free(is_expert);
    return status;
}

/* --- all of it -------------------------------------------------------------------------------- */

static fm_status quantise_experts(const cli_quantise *q, const char *store, fm_error *err)
{
    bs_pool *pool = NULL;
    fm_status status = bs_pool_create(bs_default_threads(), &pool, err);
    cli_progress p;
    cli_progress_begin(&p, "quantising");
    if (!status)
        status = xp_pack_quantised(md_expert_source(q->model), q->bits, q->group, pool, store,
                                   cli_progress_show, &p, err);
    cli_progress_end(&p);
    bs_pool_destroy(pool);
    return status;
}

fm_status cli_quantise_model(const cli_quantise *q, fm_error *err)
{
    char *note = bs_path_join(q->to, UNFINISHED), *store = bs_path_join(q->to, XP_PACK_NAME);
    fm_status status = note && store ? begin(q, note, err) : fm_fail_nomem(err, q->to);
    if (!status) status = check_space(q, store, err);
    if (!status) status = copy_resident(q, err);
    if (!status) status = quantise_experts(q, store, err);
    if (!status) status = copy_small_files(q, err); /* last: config.json makes it a model */
    if (!status && unlink(note)) status = fm_fail_errno(err, errno, "%s: cannot remove", note);
    bs_free(note);
    bs_free(store);
    return status;
}
