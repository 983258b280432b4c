#include "experts/pack_format.h"

#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "experts/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

typedef struct pack_layer {
    int fd; /* of the temporary file; -1: not begun, or finished */
    bool finished;
    bool *have;    /* [n_experts] put whole */
    uint32_t *crc; /* [n_experts] */
} pack_layer;

struct xp_pack_writer {
    char *dir;
    int lock;
    const xp_layer *layers;
    int n_layers;
    pack_layer *state;
    json_t *source, *manifest_layers;
    char *record;
    size_t record_bytes; /* of the largest layer */
};

/* --- beginning
 * --------------------------------------------------------------------------------------- */

static fm_status lock_dir(xp_pack_writer *w, fm_error *err)
{
    char *path = bs_path_join(w->dir, ".lock");
    if (!path) return fm_fail_nomem(err, w->dir);
    fm_status status = FM_OK;
    w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (w->lock < 0) status = fm_fail_errno(err, errno, "%s: cannot create", path);
    else if (flock(w->lock, LOCK_EX | LOCK_NB))
        status = fm_fail(err, FM_E_BUSY, "%s: another process is packing there", w->dir);
    bs_free(path);
    return status;
}

static uint32_t binding_of(const xp_pack_writer *w, int l)
{
    return xp_pack_binding(w->source, json_array_get(w->manifest_layers, (size_t)l));
}

static fm_status begin_layer(xp_pack_writer *w, int l, fm_error *err)
{
    const xp_layer *layer = &w->layers[l];
    pack_layer *s = &w->state[l];
    json_t *o = xp_pack_layer_json(layer, l);
    s->have = bs_calloc((size_t)layer->n_experts, sizeof *s->have);
    s->crc = bs_calloc((size_t)layer->n_experts, sizeof *s->crc);
    if (!o || json_array_append_new(w->manifest_layers, o) || !s->have || !s->crc)
        return fm_fail_nomem(err, w->dir);
    size_t at[XP_PROJECTIONS][XP_PARTS], bytes = xp_record_layout(layer, at);
    if (bytes > w->record_bytes) w->record_bytes = bytes;
    char *path = xp_pack_layer_path(w->dir, l);
    if (!path) return fm_fail_nomem(err, w->dir);
    s->finished = !xp_pack_read_header(path, l, layer, binding_of(w, l), s->crc, NULL);
    bs_free(path);
    return FM_OK;
}

static fm_status begin(xp_pack_writer *w, const char *dir, const xp_source *source, fm_error *err)
{
    w->dir = bs_strdup(dir);
    w->state = bs_calloc((size_t)w->n_layers, sizeof *w->state);
    w->manifest_layers = json_array();
    if (!w->dir || !w->state || !w->manifest_layers) return fm_fail_nomem(err, dir);
    for (int l = 0; l < w->n_layers; l++) w->state[l].fd = -1;
    fm_status status = bs_make_dirs(dir, err);
    if (!status) status = lock_dir(w, err);
    if (status) return status;
    w->source = xp_pack_source_json(source, err);
    if (!w->source) return err ? err->code : FM_E_IO;
    for (int l = 0; !status && l < w->n_layers; l++) status = begin_layer(w, l, err);
    if (status) return status;
    w->record = bs_pages_alloc(w->record_bytes);
    char *manifest = bs_path_join(dir, XP_PACK_MANIFEST);
    if (!w->record || !manifest) status = fm_fail_nomem(err, dir);
    else if (unlink(manifest) && errno != ENOENT)
        status = fm_fail_errno(err, errno, "%s: cannot replace", manifest);
    bs_free(manifest);
    return status;
}

fm_status xp_pack_begin(const char *dir, const xp_layer *layers, int n_layers,
                        const xp_source *source, xp_pack_writer **out, fm_error *err)
{
    xp_pack_writer *w = bs_calloc(1, sizeof *w);
    if (!w) return fm_fail_nomem(err, dir);
    w->lock = -1;
    w->layers = layers;
    w->n_layers = n_layers;
    fm_status status = begin(w, dir, source, err);
    if (status) {
        xp_pack_abort(w);
        return status;
    }
    *out = w;
    return FM_OK;
}

bool xp_pack_has_layer(const xp_pack_writer *w, int layer)
{
    return w->state[layer].finished;
}

/* --- putting
 * ----------------------------------------------------------------------------------------- */

static char *temp_path(const xp_pack_writer *w, int l)
{
    char name[40];
    snprintf(name, sizeof name, "layer-%03d.pack.tmp", l);
    return bs_path_join(w->dir, name);
}

/* All space is taken at once: a full disk shows before the work, not after it. */
static fm_status open_temp(xp_pack_writer *w, int l, fm_error *err)
{
    pack_layer *s = &w->state[l];
    if (s->finished) return fm_fail(err, FM_E_ARGUMENT, "%s: layer %d is finished", w->dir, l);
    if (s->fd >= 0) return FM_OK;
    char *path = temp_path(w, l);
    if (!path) return fm_fail_nomem(err, w->dir);
    size_t at[XP_PROJECTIONS][XP_PARTS];
    uint64_t bytes = xp_pack_records_at(w->layers[l].n_experts) +
                     (uint64_t)w->layers[l].n_experts * xp_record_layout(&w->layers[l], at);
    fm_status status = FM_OK;
    s->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int problem = s->fd < 0 ? errno : posix_fallocate(s->fd, 0, (off_t)bytes);
    if (problem)
        status = fm_fail_errno(err, problem, "%s: cannot take %llu bytes", path,
                               (unsigned long long)bytes);
    bs_free(path);
    return status;
}

static fm_status write_at(xp_pack_writer *w, int l, const char *data, size_t n, uint64_t offset,
                          fm_error *err)
{
    int fd = w->state[l].fd;
    while (n) {
        ssize_t put = pwrite(fd, data, n, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return fm_fail_errno(err, put ? errno : ENOSPC, "%s: cannot write layer %d", w->dir, l);
        data += put;
        n -= (size_t)put;
        offset += (uint64_t)put;
    }
    return FM_OK;
}

static fm_status check_place(const xp_pack_writer *w, int l, int expert, fm_error *err)
{
    if (l >= 0 && l < w->n_layers && expert >= 0 && expert < w->layers[l].n_experts) return FM_OK;
    return fm_fail(err, FM_E_ARGUMENT, "no expert %d of MoE layer %d to pack", expert, l);
}

/* Rows into strips (docs/FORMAT.md). */
static void to_strips(const xp_layer *layer, const size_t at[XP_PROJECTIONS][XP_PARTS],
                      char *record)
{
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        kn_mat m = layer->shape[p];
        if (m.strips || !layer->part[p][XP_CODES].bytes || !kn_can_strip(&m)) continue;
        m.w = record + at[p][XP_CODES];
        m.scales = record + at[p][XP_SCALES];
        m.biases = record + at[p][XP_BIASES];
        kn_to_strips(&m);
    }
}

fm_status xp_pack_put(xp_pack_writer *w, int l, int expert,
                      const void *const part[XP_PROJECTIONS][XP_PARTS], fm_error *err)
{
    fm_status status = check_place(w, l, expert, err);
    if (!status) status = open_temp(w, l, err);
    if (status) return status;
    const xp_layer *layer = &w->layers[l];
    size_t at[XP_PROJECTIONS][XP_PARTS], bytes = xp_record_layout(layer, at);
    memset(w->record, 0, bytes);
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++)
            if (layer->part[p][s].bytes)
                memcpy(w->record + at[p][s], part[p][s], layer->part[p][s].bytes);
    to_strips(layer, at, w->record);
    w->state[l].crc[expert] = bs_crc32c(0, w->record, bytes);
    w->state[l].have[expert] = true;
    uint64_t offset = xp_pack_records_at(layer->n_experts) + (uint64_t)expert * bytes;
    return write_at(w, l, w->record, bytes, offset, err);
}

/* --- finishing
 * --------------------------------------------------------------------------------------- */

static fm_status check_complete(const xp_pack_writer *w, int l, fm_error *err)
{
    const xp_layer *layer = &w->layers[l];
    const pack_layer *s = &w->state[l];
    bool whole = true;
    for (int e = 0; e < layer->n_experts; e++) whole = whole && s->have[e];
    if (whole) return FM_OK;
    return fm_fail(err, FM_E_ARGUMENT, "%s: MoE layer %d is not complete", w->dir, l);
}

/* Everything on the disk, then the name. */
static fm_status seal(xp_pack_writer *w, int l, fm_error *err)
{
    pack_layer *s = &w->state[l];
    size_t n;
    char *header = xp_pack_header_bytes(l, &w->layers[l], binding_of(w, l), s->crc, &n);
    if (!header) return fm_fail_nomem(err, w->dir);
    fm_status status = write_at(w, l, header, n, 0, err);
    bs_free(header);
    if (status) return status;
    char *temp = temp_path(w, l), *path = xp_pack_layer_path(w->dir, l);
    if (!temp || !path) status = fm_fail_nomem(err, w->dir);
    else if (fsync(s->fd) || rename(temp, path))
        status = fm_fail_errno(err, errno, "%s: cannot finish", path);
    bs_free(temp);
    bs_free(path);
    return status;
}

fm_status xp_pack_finish_layer(xp_pack_writer *w, int l, fm_error *err)
{
    pack_layer *s = &w->state[l];
    if (s->finished) return FM_OK;
    fm_status status = check_complete(w, l, err);
    if (!status) status = seal(w, l, err);
    if (status) return status;
    posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
    close(s->fd);
    s->fd = -1;
    s->finished = true;
    return FM_OK;
}

static fm_status write_manifest(const xp_pack_writer *w, fm_error *err)
{
    for (int l = 0; l < w->n_layers; l++)
        if (!w->state[l].finished)
            return fm_fail(err, FM_E_ARGUMENT, "%s: MoE layer %d is not finished", w->dir, l);
    json_t *root = json_pack("{s:s, s:i, s:O, s:O}", "format", XP_PACK_FORMAT, "version",
                             XP_PACK_VERSION, "source", w->source, "layers", w->manifest_layers);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    char *path = bs_path_join(w->dir, XP_PACK_MANIFEST);
    json_decref(root);
    fm_status status =
        text && path ? bs_write_file(path, text, strlen(text), err) : fm_fail_nomem(err, w->dir);
    free(text);
    bs_free(path);
    return status;
}

fm_status xp_pack_finish(xp_pack_writer *w, fm_error *err)
{
    fm_status status = write_manifest(w, err);
    if (!status) {
        char *lock = bs_path_join(w->dir, ".lock");
        if (lock) unlink(lock);
        bs_free(lock);
    }
    xp_pack_abort(w);
    return status;
}

void xp_pack_abort(xp_pack_writer *w)
{
    if (!w) return;
    for (int l = 0; w->state && l < w->n_layers; l++) {
        pack_layer *s = &w->state[l];
        if (s->fd >= 0) {
            char *temp = temp_path(w, l);
            if (temp) unlink(temp);
            bs_free(temp);
            close(s->fd);
        }
        bs_free(s->have);
        bs_free(s->crc);
    }
    if (w->lock >= 0) close(w->lock);
    json_decref(w->source);
    json_decref(w->manifest_layers);
    bs_pages_free(w->record, w->record_bytes);
    bs_free(w->state);
    bs_free(w->dir);
    bs_free(w);
}
