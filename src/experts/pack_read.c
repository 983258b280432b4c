#include "experts/pack_format.h"

#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct xp_pack {
    xp_source source;
    xp_layer *layers;
    char **paths;
    uint64_t *file_bytes;
    uint32_t **crc; /* [layer][expert] */
};

/* --- opening
 * ---------------------------------------------------------------------------------------- */

static fm_status read_manifest(const char *dir, json_t **out, fm_error *err)
{
    char *path = bs_path_join(dir, XP_PACK_MANIFEST);
    if (!path) return fm_fail_nomem(err, dir);
    bs_buf text = {0};
    json_error_t problem;
    fm_status status = bs_read_file(path, XP_PACK_MAX_MANIFEST, &text, err);
    json_t *root = NULL;
    if (!status) {
        root = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &problem);
        const char *format = json_string_value(json_object_get(root, "format"));
        if (!root)
            status = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, problem.line, problem.text);
        else if (!format || strcmp(format, XP_PACK_FORMAT))
            status = fm_fail(err, FM_E_FORMAT, "%s: not the manifest of a packed store", path);
        else if (json_integer_value(json_object_get(root, "version")) != XP_PACK_VERSION)
            status = fm_fail(err, FM_E_STALE, "%s: of another version: pack again", path);
    }
    bs_buf_free(&text);
    bs_free(path);
    if (status) json_decref(root);
    else *out = root;
    return status;
}

/* Is the source still what it was? Names the first file that differs. */
static fm_status check_source(const json_t *stored, const xp_source *source, const char *dir,
                              fm_error *err)
{
    if (!source) {
        if (json_is_null(stored)) return FM_OK;
        return fm_fail(err, FM_E_STALE, "%s: belongs to a checkpoint that is not there", dir);
    }
    if (json_is_null(stored)) return FM_OK; /* stands alone */
    json_t *now = xp_pack_source_json(source, err);
    if (!now) return err ? err->code : FM_E_IO;
    fm_status status = FM_OK;
    const json_t *old = json_object_get(stored, "files"), *new = json_object_get(now, "files");
    if (json_array_size(old) != json_array_size(new))
        status = fm_fail(err, FM_E_STALE, "%s: made from %zu files, the model has %zu: pack again",
                         dir, json_array_size(old), json_array_size(new));
    for (size_t i = 0; !status && i < json_array_size(new); i++)
        if (!json_equal(json_array_get(old, i), json_array_get(new, i)))
            status = fm_fail(err, FM_E_STALE, "%s: %s has changed since it was packed: pack again",
                             dir, source->paths[i]);
    json_decref(now);
    return status;
}

static fm_status open_layer(xp_pack *p, const char *dir, const json_t *source, const json_t *o,
                            int l, fm_error *err)
{
    xp_layer shape;
    fm_status status = xp_pack_parse_layer(o, dir, &shape, err);
    if (status) return status;
    p->paths[l] = xp_pack_layer_path(dir, l);
    p->crc[l] = bs_calloc((size_t)shape.n_experts, sizeof **p->crc);
    if (!p->paths[l] || !p->crc[l]) return fm_fail_nomem(err, dir);
    size_t at[XP_PROJECTIONS][XP_PARTS];
    p->file_bytes[l] = xp_pack_records_at(shape.n_experts) +
                       (uint64_t)shape.n_experts * xp_record_layout(&shape, at);
    xp_pack_packed_layer(&shape, l, &p->layers[l]);
    return xp_pack_read_header(p->paths[l], l, &shape, xp_pack_binding(source, o), p->crc[l], err);
}

static fm_status same_layers(const json_t *layers, const xp_source *source, const char *dir,
                             fm_error *err)
{
    if (json_array_size(layers) != (size_t)source->n_layers)
        return fm_fail(err, FM_E_STALE, "%s: has %zu layers, the model %d: pack again", dir,
                       json_array_size(layers), source->n_layers);
    for (int l = 0; l < source->n_layers; l++)
        if (!xp_pack_same_layer(&source->layers[l], l, json_array_get(layers, (size_t)l)))
            return fm_fail(
                err, FM_E_STALE,
                "%s: MoE layer %d has other shapes or formats than the model: pack again", dir, l);
    return FM_OK;
}

/* A store that was quantised on the way has its own formats; then only the count must agree. */
static fm_status open_layers(xp_pack *p, const char *dir, const json_t *root,
                             const xp_source *source, fm_error *err)
{
    const json_t *layers = json_object_get(root, "layers");
    size_t n = json_array_size(layers);
    if (n < 1 || n > 100000) return fm_fail(err, FM_E_FORMAT, "%s: manifest without layers", dir);
    p->layers = bs_calloc(n, sizeof *p->layers);
    p->paths = bs_calloc(n, sizeof *p->paths);
    p->file_bytes = bs_calloc(n, sizeof *p->file_bytes);
    p->crc = bs_calloc(n, sizeof *p->crc);
    if (!p->layers || !p->paths || !p->file_bytes || !p->crc) return fm_fail_nomem(err, dir);
    p->source =
        (xp_source){(int)n, p->layers, (int)n, (const char *const *)p->paths, p->file_bytes};
    fm_status status = source ? same_layers(layers, source, dir, err) : FM_OK;
    const json_t *from = json_object_get(root, "source");
    for (size_t l = 0; !status && l < n; l++)
        status = open_layer(p, dir, from, json_array_get(layers, l), (int)l, err);
    return status;
}

fm_status xp_pack_open(const char *dir, const xp_source *source, xp_pack **out, fm_error *err)
{
    json_t *root = NULL;
    fm_status status = read_manifest(dir, &root, err);
    if (status) return status;
    xp_pack *p = bs_calloc(1, sizeof *p);
    if (!p) status = fm_fail_nomem(err, dir);
    if (!status) status = check_source(json_object_get(root, "source"), source, dir, err);
    if (!status) status = open_layers(p, dir, root, source, err);
    json_decref(root);
    if (status) xp_pack_close(p);
    else *out = p;
    return status;
}

void xp_pack_close(xp_pack *p)
{
    if (!p) return;
    for (int l = 0; l < p->source.n_layers; l++) {
        if (p->paths) bs_free(p->paths[l]);
        if (p->crc) bs_free(p->crc[l]);
    }
    bs_free(p->layers);
    bs_free(p->paths);
    bs_free(p->file_bytes);
    bs_free(p->crc);
    bs_free(p);
}

const xp_source *xp_pack_source(const xp_pack *p)
{
    return &p->source;
}

/* --- checking
 * --------------------------------------------------------------------------------------- */

fm_status xp_pack_check(const xp_pack *p, int layer, int expert, const void *record, bs_pool *pool,
                        fm_error *err)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    size_t bytes = xp_record_layout(&p->layers[layer], at);
    if (bs_crc32c_on(pool, record, bytes) == p->crc[layer][expert]) return FM_OK;
    return fm_fail(
        err, FM_E_FORMAT,
        "%s: the record of expert %d is damaged (bad checksum): delete the file and pack "
        "again",
        p->paths[layer], expert);
}

static fm_status verify_layer(const xp_pack *p, int l, char *record, size_t bytes, uint64_t *done,
                              uint64_t total, xp_pack_progress *progress, void *arg, fm_error *err)
{
    int fd = open(p->paths[l], O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", p->paths[l]);
    uint64_t at = xp_pack_records_at(p->layers[l].n_experts);
    fm_status status = FM_OK;
    for (int e = 0; !status && e < p->layers[l].n_experts; e++) {
        uint64_t offset = at + (uint64_t)e * bytes;
        status = bs_pread_full(fd, p->paths[l], record, bytes, offset, err);
        if (!status) status = xp_pack_check(p, l, e, record, NULL, err);
        posix_fadvise(fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
        *done += bytes;
        if (progress) progress(arg, *done, total);
    }
    close(fd);
    return status;
}

fm_status xp_pack_verify(const xp_pack *p, xp_pack_progress *progress, void *arg, fm_error *err)
{
    uint64_t total = 0, done = 0;
    size_t at[XP_PROJECTIONS][XP_PARTS];
    for (int l = 0; l < p->source.n_layers; l++)
        total += (uint64_t)p->layers[l].n_experts * xp_record_layout(&p->layers[l], at);
    fm_status status = FM_OK;
    for (int l = 0; !status && l < p->source.n_layers; l++) {
        size_t bytes = xp_record_layout(&p->layers[l], at);
        char *record = bs_pages_alloc(bytes);
        if (!record) return fm_fail_nomem(err, "pack verification");
        status = verify_layer(p, l, record, bytes, &done, total, progress, arg, err);
        bs_pages_free(record, bytes);
    }
    return status;
}

/* --- places
 * ----------------------------------------------------------------------------------------- */

/* $XDG_CACHE_HOME/flash-moe/packs/<folder's name>-<checksum of its full path> */
static char *cache_place(const char *model_dir)
{
    char full[PATH_MAX];
    if (!realpath(model_dir, full)) return NULL;
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *slash = strrchr(full, '/');
    uint32_t crc = bs_crc32c(0, full, strlen(full));
    if (xdg && *xdg == '/')
        return bs_sprintf("%s/flash-moe/packs/%s-%08x", xdg, slash ? slash + 1 : full, crc);
    return bs_sprintf("%s/.cache/flash-moe/packs/%s-%08x", home && *home ? home : "/tmp",
                      slash ? slash + 1 : full, crc);
}

static bool has_manifest(const char *dir)
{
    char *path = dir ? bs_path_join(dir, XP_PACK_MANIFEST) : NULL;
    bool there = path && bs_is_file(path);
    bs_free(path);
    return there;
}

char *xp_pack_find(const char *model_dir)
{
    char *places[2] = {bs_path_join(model_dir, XP_PACK_NAME), cache_place(model_dir)};
    char *found = NULL;
    for (int i = 0; i < 2; i++) {
        if (!found && has_manifest(places[i])) found = places[i];
        else bs_free(places[i]);
    }
    return found;
}

fm_status xp_pack_default_dir(const char *model_dir, char **out, fm_error *err)
{
    *out = access(model_dir, W_OK) ? cache_place(model_dir) : bs_path_join(model_dir, XP_PACK_NAME);
    return *out ? FM_OK : fm_fail(err, FM_E_NOT_FOUND, "%s: no such folder", model_dir);
}
