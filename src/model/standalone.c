/* standalone.c - a model folder that keeps its experts in a packed store and nowhere else, as
 * `pull --pack` leaves it: the records of the store are the source. */
#include "model/inside.h"

#include "base/mem.h"

#include <string.h>

/* Only what config.json says may be computed with: [width][hidden] twice, then [hidden][width]. */
static bool fits(const xp_layer *layer, int n_experts, int width, int hidden)
{
    const kn_mat *gate = &layer->shape[XP_GATE], *up = &layer->shape[XP_UP];
    const kn_mat *down = &layer->shape[XP_DOWN];
    return layer->n_experts == n_experts && gate->rows == width && gate->cols == hidden &&
           up->rows == width && up->cols == hidden && down->rows == hidden && down->cols == width;
}

static fm_status take_layers(md_model *m, const char *dir, fm_error *err)
{
    const md_arch *c = &m->config;
    const xp_source *packed = xp_pack_source(m->pack);
    int k = 0;
    for (int n = 0; n < c->n_layers; n++) {
        if (!c->layer[n].moe) continue;
        if (k == packed->n_layers ||
            !fits(&packed->layers[k], c->n_experts, c->layer[n].expert_width, c->hidden))
            return fm_fail(err, FM_E_FORMAT,
                           "%s: MoE layer %d does not have the experts that config.json names", dir,
                           k);
        m->expert_layers[k] = packed->layers[k];
        m->expert_layers[k++].top_k = c->layer[n].top_k;
    }
    if (k != packed->n_layers)
        return fm_fail(err, FM_E_FORMAT, "%s: has %d layers, config.json names %d", dir,
                       packed->n_layers, k);
    m->source.n_layers = k;
    return FM_OK;
}

static fm_status take_files(md_model *m, fm_error *err)
{
    const xp_source *packed = xp_pack_source(m->pack);
    size_t n = (size_t)packed->n_files;
    bs_free((void *)m->source.paths);
    bs_free((void *)m->source.file_bytes);
    char **paths = bs_calloc(n, sizeof *paths);
    uint64_t *bytes = bs_calloc(n, sizeof *bytes);
    m->source.paths = (const char *const *)paths;
    m->source.file_bytes = bytes;
    if (!paths || !bytes) return fm_fail_nomem(err, "opening the packed experts");
    memcpy(paths, packed->paths, n * sizeof *paths);
    memcpy(bytes, packed->file_bytes, n * sizeof *bytes);
    m->source.n_files = packed->n_files;
    return FM_OK;
}

fm_status md_use_packed_experts(md_model *m, fm_error *err)
{
    char *slash = strrchr(m->path, '/');
    char *folder = slash ? bs_strndup(m->path, (size_t)(slash - m->path)) : bs_strdup(".");
    char *dir = folder ? xp_pack_find(folder) : NULL;
    fm_status status = FM_OK;
    if (!dir)
        status = fm_fail(err, FM_E_FORMAT,
                         "%s: the checkpoint has no experts, and no packed store of them lies "
                         "beside it",
                         folder ? folder : m->path);
    m->source.n_layers = 0;
    if (!status) status = xp_pack_open(dir, NULL, &m->pack, err);
    if (!status) status = take_files(m, err);
    if (!status) status = take_layers(m, dir, err);
    bs_free(dir);
    bs_free(folder);
    return status;
}
