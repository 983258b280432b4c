/* pack_all.c - packing a whole checkpoint: the expert cache reads, the pack writer writes. */
#include "experts/pack.h"

#include "experts/cache.h"

typedef struct pack_job {
    const xp_source *source;
    const xp_pack_form *form; /* NULL: as the experts are */
    xp_pack_writer *writer;
    xp_pack_progress *progress;
    void *arg;
    uint64_t done, total;
} pack_job;

enum { WAVE = 8, MOST_MEMORY = 256 << 20 };

static uint64_t layer_bytes(const xp_layer *layer)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    return (uint64_t)layer->n_experts * xp_record_layout(layer, at);
}

/* The bytes as they are in the file (a view has Linear biases converted). */
static void raw_parts(const xp_cache *cache, const xp_ticket *t,
                      const void *part[XP_PROJECTIONS][XP_PARTS])
{
    xp_placement place;
    xp_place(&cache->source.layers[t->layer], t->expert, &place);
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++)
            part[p][s] = cache->slots[t->slot].memory + place.at[p][s];
}

static fm_status put_wave(pack_job *j, int layer, xp_cache *cache, int first, int n, fm_error *err)
{
    int experts[WAVE];
    xp_ticket tickets[WAVE];
    for (int i = 0; i < n; i++) experts[i] = first + i;
    fm_status status = xp_acquire(cache, 0, experts, NULL, n, tickets, err);
    if (status) return status;
    for (int i = 0; i < n && !status; i++) {
        int index;
        status = xp_wait(cache, tickets, n, &index, err);
        if (status) break;
        const void *part[XP_PROJECTIONS][XP_PARTS];
        raw_parts(cache, &tickets[index], part);
        if (j->form)
            status = j->form->convert(j->form->arg, layer, experts[index], &tickets[index].view,
                                      part, err);
        if (!status) status = xp_pack_put(j->writer, layer, experts[index], part, err);
    }
    xp_release(cache, tickets, n);
    return status;
}

/* One layer through a cache of its own, a few experts at a time. */
static fm_status put_layer(pack_job *j, int l, fm_error *err)
{
    xp_layer layer = j->source->layers[l];
    xp_source one = *j->source;
    one.n_layers = 1;
    one.layers = &layer;
    xp_options o = {.capacity = 0};
    uint64_t slot = xp_slot_bytes(&one, 0, &o);
    int n = slot < MOST_MEMORY / WAVE ? WAVE : (int)(MOST_MEMORY / slot);
    layer.top_k = n < 1 ? 1 : n < layer.n_experts ? n : layer.n_experts;
    xp_cache *cache;
    fm_status status = xp_open(&one, &o, &cache, err);
    if (status) return status;
    for (int e = 0; e < layer.n_experts && !status; e += layer.top_k) {
        int left = layer.n_experts - e;
        status = put_wave(j, l, cache, e, left < layer.top_k ? left : layer.top_k, err);
        uint64_t done = j->done + layer_bytes(&layer) * (uint64_t)e / (uint64_t)layer.n_experts;
        if (j->progress) j->progress(j->arg, done, j->total);
    }
    xp_close(cache);
    return status ? status : xp_pack_finish_layer(j->writer, l, err);
}

fm_status xp_pack_layer(xp_pack_writer *w, const xp_source *source, int layer, fm_error *err)
{
    pack_job j = {.source = source, .writer = w};
    return xp_pack_has_layer(w, layer) ? FM_OK : put_layer(&j, layer, err);
}

static fm_status put_all(pack_job *j, fm_error *err)
{
    fm_status status = FM_OK;
    for (int l = 0; l < j->source->n_layers; l++) j->total += layer_bytes(&j->source->layers[l]);
    for (int l = 0; l < j->source->n_layers && !status; l++) {
        if (!xp_pack_has_layer(j->writer, l)) status = put_layer(j, l, err);
        j->done += layer_bytes(&j->source->layers[l]);
        if (j->progress && !status) j->progress(j->arg, j->done, j->total);
    }
    return status;
}

fm_status xp_pack_all(const xp_source *source, const xp_pack_form *form, const char *dir,
                      xp_pack_progress *progress, void *arg, fm_error *err)
{
    xp_pack *finished;
    if (!form && !xp_pack_open(dir, source, &finished, NULL)) {
        xp_pack_close(finished);
        return FM_OK;
    }
    pack_job j = {.source = source, .form = form, .progress = progress, .arg = arg};
    fm_status status = xp_pack_begin(dir, form ? form->layers : source->layers, source->n_layers,
                                     form ? NULL : source, &j.writer, err);
    if (status) return status;
    status = put_all(&j, err);
    if (!status) return xp_pack_finish(j.writer, err);
    xp_pack_abort(j.writer);
    return status;
}
