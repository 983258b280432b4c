/* A model folder's table of contents: which files belong to it, all their tensors in one list. */
#include "tensors/store.h"

#include "tensors/json_scan.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 100 * 1000 * 1000, MAX_FILES = 100000 };

static bool is_weight_file(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name), tail = sizeof suffix - 1;
    return n >= 5 + tail && !strncmp(name, "model", 5) && !strcmp(name + n - tail, suffix);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static fm_status add_file(ts_store *store, const char *dir, const char *name, fm_error *err)
{
    if (store->n_files == MAX_FILES)
        return fm_fail(err, FM_E_LIMIT, "%s: more than %d weight files", dir, MAX_FILES);
    ts_file *grown = bs_realloc(store->files, (size_t)store->n_files + 1, sizeof *grown);
    if (!grown) return fm_fail_nomem(err, dir);
    store->files = grown;
    grown[store->n_files] = (ts_file){.path = bs_path_join(dir, name)};
    if (!grown[store->n_files].path) return fm_fail_nomem(err, dir);
    store->n_files++;
    return FM_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const ts_file *)a)->path, ((const ts_file *)b)->path);
}

static fm_status list_files(ts_store *store, const char *dir, fm_error *err)
{
    DIR *d = opendir(dir);
    if (!d) return fm_fail_errno(err, errno, "%s: cannot open the model folder", dir);
    fm_status status = FM_OK;
    for (struct dirent *e; !status && (e = readdir(d));)
        if (is_weight_file(e->d_name)) status = add_file(store, dir, e->d_name, err);
    closedir(d);
    if (status) return status;
    if (!store->n_files)
        return fm_fail(err, FM_E_NOT_FOUND, "%s: holds no weights (no model*.safetensors)", dir);
    qsort(store->files, (size_t)store->n_files, sizeof *store->files, by_path);
    return FM_OK;
}

static bool has_file(const ts_store *store, const char *name)
{
    for (int i = 0; i < store->n_files; i++)
        if (!strcmp(base_name(store->files[i].path), name)) return true;
    return false;
}

static fm_status missing_shard(const char *dir, const char *name, const char *who, fm_error *err)
{
    return fm_fail(err, FM_E_NOT_FOUND,
                   "%s: the shard %.200s is missing (named by %.200s); "
                   "download it again",
                   dir, name, who);
}

/* "model-00002-of-00003.safetensors": are all three there? The name alone tells, index or not. */
static fm_status check_numbers(const ts_store *store, const char *dir, fm_error *err)
{
    for (int i = 0; i < store->n_files; i++) {
        const char *name = base_name(store->files[i].path);
        int number, of, end = 0;
        if (sscanf(name, "model-%5d-of-%5d.safetensors%n", &number, &of, &end) != 2) continue;
        if (!end || name[end] || number < 0 || of < 1) continue;
        for (int k = 1; k <= of; k++) {
            char other[64];
            snprintf(other, sizeof other, "model-%05d-of-%05d.safetensors", k, of);
            if (!has_file(store, other)) return missing_shard(dir, other, name, err);
        }
        return FM_OK; /* the others of this set say the same */
    }
    return FM_OK;
}

/* The object {"tensor": "file", ...} of the index. Equal names mostly follow each other. */
static fm_status check_weight_map(const ts_store *store, const char *dir, const char *path,
                                  ts_json *j, fm_error *err)
{
    const char *last = "";
    bool first = true;
    ts_json_expect(j, '{');
    while (!j->problem && ts_json_next(j, '}', &first)) {
        char *key, *file;
        size_t n;
        if (!ts_json_string(j, &key, &n) || !ts_json_expect(j, ':') ||
            !ts_json_string(j, &file, &n))
            break;
        if (!strcmp(file, last)) continue;
        last = file;
        if (!has_file(store, file)) return missing_shard(dir, file, base_name(path), err);
    }
    return FM_OK;
}

static fm_status check_index_text(const ts_store *store, const char *dir, const char *path,
                                  bs_buf *text, fm_error *err)
{
    ts_json j = {text->data, text->data + text->length, NULL};
    bool first = true;
    fm_status status = FM_OK;
    ts_json_expect(&j, '{');
    while (!status && !j.problem && ts_json_next(&j, '}', &first)) {
        char *key;
        size_t n;
        if (!ts_json_string(&j, &key, &n) || !ts_json_expect(&j, ':')) break;
        if (strcmp(key, "weight_map")) ts_json_skip(&j);
        else status = check_weight_map(store, dir, path, &j, err);
    }
    if (!status && j.problem) return fm_fail(err, FM_E_FORMAT, "%s: the index %s", path, j.problem);
    return status;
}

/* Only the files matter: where each tensor is, the headers themselves tell. */
static fm_status check_index(const ts_store *store, const char *dir, fm_error *err)
{
    char *path = bs_path_join(dir, "model.safetensors.index.json");
    if (!path) return fm_fail_nomem(err, dir);
    fm_status status = FM_OK;
    bs_buf text = {0};
    if (bs_is_file(path)) {
        status = bs_read_file(path, MAX_INDEX, &text, err);
        if (!status) status = check_index_text(store, dir, path, &text, err);
    }
    bs_buf_free(&text);
    bs_free(path);
    return status;
}

/* Empty tensors stand first at their address: they overlap nothing. */
static int by_place(const void *pa, const void *pb)
{
    const ts_tensor *a = pa, *b = pb;
    if (a->file != b->file) return a->file < b->file ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static fm_status check_overlaps(ts_store *store, fm_error *err)
{
    const ts_tensor *t = store->tensors, *last = NULL;
    qsort(store->tensors, store->n_tensors, sizeof *t, by_place);
    for (size_t i = 0; i < store->n_tensors; i++) {
        if (!t[i].bytes) continue;
        bool overlap = last && last->file == t[i].file && last->offset + last->bytes > t[i].offset;
        if (overlap && strcmp(last->name, t[i].name)) /* the same name: told by check_names */
            return fm_fail(err, FM_E_FORMAT, "%s: header: tensors %.150s and %.150s overlap",
                           store->files[t[i].file].path, last->name, t[i].name);
        last = &t[i];
    }
    return FM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ts_tensor *)a)->name, ((const ts_tensor *)b)->name);
}

static fm_status check_names(ts_store *store, fm_error *err)
{
    const ts_tensor *t = store->tensors;
    qsort(store->tensors, store->n_tensors, sizeof *t, by_name);
    for (size_t i = 1; i < store->n_tensors; i++) {
        if (strcmp(t[i - 1].name, t[i].name)) continue;
        const char *a = store->files[t[i - 1].file].path, *b = store->files[t[i].file].path;
        if (t[i - 1].file == t[i].file)
            return fm_fail(err, FM_E_FORMAT, "%s: header: tensor %.200s stands in it twice", a,
                           t[i].name);
        return fm_fail(err, FM_E_FORMAT,
                       "%s: tensor %.200s is also in %s; remove the files that do not belong to "
                       "this model",
                       b, t[i].name, base_name(a));
    }
    return FM_OK;
}

static fm_status fill(ts_store *store, const char *dir, fm_error *err)
{
    fm_status status = list_files(store, dir, err);
    if (!status) status = check_numbers(store, dir, err);
    if (!status) status = check_index(store, dir, err);
    for (int i = 0; !status && i < store->n_files; i++) status = ts_read_header(store, i, err);
    if (status) return status;
    if (!store->n_tensors) return fm_fail(err, FM_E_FORMAT, "%s: holds no tensor", dir);
    status = check_overlaps(store, err);
    return status ? status : check_names(store, err);
}

fm_status ts_open(const char *dir, ts_store **out, fm_error *err)
{
    ts_store *store = bs_calloc(1, sizeof *store);
    if (!store) return fm_fail_nomem(err, dir);
    fm_status status = fill(store, dir, err);
    if (status) ts_close(store);
    else *out = store;
    return status;
}

void ts_close(ts_store *store)
{
    if (!store) return;
    for (int i = 0; i < store->n_files; i++) {
        bs_free(store->files[i].path);
        bs_free(store->files[i].names);
    }
    bs_free(store->files);
    bs_free(store->tensors);
    bs_free(store);
}

size_t ts_count(const ts_store *store)
{
    return store->n_tensors;
}

const ts_tensor *ts_at(const ts_store *store, size_t i)
{
    return &store->tensors[i];
}

const ts_tensor *ts_find(const ts_store *store, const char *name)
{
    ts_tensor key = {.name = name};
    return bsearch(&key, store->tensors, store->n_tensors, sizeof key, by_name);
}

int ts_file_count(const ts_store *store)
{
    return store->n_files;
}

const char *ts_file_path(const ts_store *store, int file)
{
    return store->files[file].path;
}

uint64_t ts_file_bytes(const ts_store *store, int file)
{
    return store->files[file].bytes;
}
