#include "experts/layout.h"

#include "base/mem.h"

#include <string.h>

typedef struct piece {
    xp_range from;
    size_t bytes;
    int projection, part;
} piece;

static xp_range where(const xp_part *part, int expert)
{
    if (part->each) return part->each[expert];
    return (xp_range){part->file, part->offset + (uint64_t)expert * part->stride};
}

static bool comes_before(const piece *a, const piece *b)
{
    if (a->from.file != b->from.file) return a->from.file < b->from.file;
    return a->from.offset < b->from.offset;
}

/* The existing parts of an expert in order of their place on disk. */
static int pieces_of(const xp_layer *layer, int expert, piece out[XP_MAX_READS])
{
    int n = 0;
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++) {
            const xp_part *part = &layer->part[p][s];
            if (!part->bytes) continue;
            piece new = {where(part, expert), part->bytes, p, s};
            int i = n++;
            for (; i > 0 && comes_before(&new, &out[i - 1]); i--) out[i] = out[i - 1];
            out[i] = new;
        }
    return n;
}

static uint64_t block_down(uint64_t x)
{
    return x & ~(uint64_t)(XP_BLOCK - 1);
}

static uint64_t block_up(uint64_t x)
{
    return block_down(x + XP_BLOCK - 1);
}

void xp_place(const xp_layer *layer, int expert, xp_placement *out)
{
    piece pieces[XP_MAX_READS];
    int n = pieces_of(layer, expert, pieces);
    memset(out, 0, sizeof *out);
    for (int i = 0; i < n; i++) {
        const piece *p = &pieces[i];
        uint64_t end = p->from.offset + p->bytes;
        xp_range_read *r = out->n_reads ? &out->read[out->n_reads - 1] : NULL;
        /* One read with the piece before it, when this one starts in or right behind its blocks. */
        if (!r || r->file != p->from.file || p->from.offset > r->offset + r->bytes) {
            size_t at = r ? r->at + r->bytes : 0;
            r = &out->read[out->n_reads++];
            *r = (xp_range_read){p->from.file, block_down(p->from.offset), 0, 0, at};
        }
        if (end - r->offset > r->need) r->need = (size_t)(end - r->offset);
        r->bytes = (size_t)block_up(r->need);
        out->at[p->projection][p->part] = r->at + (size_t)(p->from.offset - r->offset);
        out->bytes = r->at + r->bytes;
    }
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        if (!layer->part[p][XP_BIAS].bytes) continue;
        out->float_bias[p] = out->bytes;
        out->bytes += block_up((uint64_t)layer->shape[p].rows * sizeof(float));
    }
}

static const float *bias_of(const xp_layer *layer, const xp_placement *place, int p, char *slot)
{
    if (!layer->part[p][XP_BIAS].bytes) return NULL;
    char *raw = slot + place->at[p][XP_BIAS];
    kn_mat row = {.format = layer->bias_type, .rows = 1, .cols = layer->shape[p].rows, .w = raw};
    float *out = (float *)(slot + place->float_bias[p]);
    kn_dequant_row(&row, 0, out);
    return out;
}

void xp_view(const xp_layer *layer, int expert, char *slot, xp_expert *out)
{
    xp_placement place;
    xp_place(layer, expert, &place);
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        kn_mat *m = &out->m[p];
        *m = layer->shape[p];
        const xp_part *part = layer->part[p];
        m->w = part[XP_CODES].bytes ? slot + place.at[p][XP_CODES] : NULL;
        m->scales = part[XP_SCALES].bytes ? slot + place.at[p][XP_SCALES] : NULL;
        m->biases = part[XP_BIASES].bytes ? slot + place.at[p][XP_BIASES] : NULL;
        out->bias[p] = bias_of(layer, &place, p, slot);
    }
}

/* Does every expert lie in its blocks as expert 0 does? True for packed records. */
static bool all_alike(const xp_layer *layer)
{
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++) {
            const xp_part *part = &layer->part[p][s];
            if (part->bytes && (part->each || part->stride % XP_BLOCK)) return false;
        }
    return true;
}

size_t xp_layer_slot_bytes(const xp_layer *layer)
{
    if (all_alike(layer)) {
        xp_placement place;
        xp_place(layer, 0, &place);
        return place.bytes;
    }
    size_t sum = 0;
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        for (int s = 0; s < XP_PARTS; s++) /* wherever a part starts in its first block */
            if (layer->part[p][s].bytes) sum += block_up(layer->part[p][s].bytes) + XP_BLOCK;
        if (layer->part[p][XP_BIAS].bytes)
            sum += block_up((uint64_t)layer->shape[p].rows * sizeof(float));
    }
    return sum;
}

static fm_status check_part(const xp_source *source, int l, const xp_part *part, fm_error *err)
{
    const xp_layer *layer = &source->layers[l];
    for (int e = 0; e < layer->n_experts; e++) {
        uint64_t skip, end;
        if (!part->each && (__builtin_mul_overflow((uint64_t)e, part->stride, &skip) ||
                            __builtin_add_overflow(part->offset, skip, &skip)))
            return fm_fail(err, FM_E_FORMAT, "MoE layer %d: expert %d lies beyond 2^64", l, e);
        xp_range r = where(part, e);
        if (r.file < 0 || r.file >= source->n_files)
            return fm_fail(err, FM_E_FORMAT, "MoE layer %d: expert %d is in no known file", l, e);
        if (__builtin_add_overflow(r.offset, part->bytes, &end) || end > source->file_bytes[r.file])
            return fm_fail(err, FM_E_FORMAT,
                           "%s: expert %d of MoE layer %d ends at byte %llu, the file at %llu",
                           source->paths[r.file], e, l, (unsigned long long)end,
                           (unsigned long long)source->file_bytes[r.file]);
    }
    return FM_OK;
}

fm_status xp_check_source(const xp_source *source, fm_error *err)
{
    if (source->n_layers < 1) return fm_fail(err, FM_E_ARGUMENT, "the model has no MoE layer");
    for (int l = 0; l < source->n_layers; l++) {
        const xp_layer *layer = &source->layers[l];
        if (layer->n_experts < 1 || layer->top_k < 1 || layer->top_k > layer->n_experts)
            return fm_fail(err, FM_E_FORMAT, "MoE layer %d: %d experts, %d of them a token", l,
                           layer->n_experts, layer->top_k);
        for (int p = 0; p < XP_PROJECTIONS; p++)
            for (int s = 0; s < XP_PARTS; s++) {
                if (!layer->part[p][s].bytes) continue;
                fm_status status = check_part(source, l, &layer->part[p][s], err);
                if (status) return status;
            }
    }
    return FM_OK;
}
