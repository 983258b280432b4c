/* pack_quantised.c - packing with other codes: every expert is turned into floats, row by row, and
 * quantised (MLX affine), the rows of a matrix side by side. */
#include "experts/pack.h"

#include "base/mem.h"

#include <stdatomic.h>

enum { ROWS_A_TASK = 16 };

typedef struct quantiser {
    xp_layer *layers; /* as they will be */
    int n_layers;
    bs_pool *pool;
    float *rows; /* [threads][columns] */
    size_t columns;
    char *codes; /* codes, scales and biases of one expert */
} quantiser;

/* --- shapes ----------------------------------------------------------------------------------- */

/* Scales of the type that MLX would give them: the weights' own. */
static kn_format scale_type_of(const kn_mat *m)
{
    switch (m->format) {
    case KN_F32: return KN_F32;
    case KN_F16: return KN_F16;
    case KN_AFFINE: return m->scale_type;
    default: return KN_BF16;
    }
}

static fm_status quantised_layer(const xp_layer *from, int index, int bits, int group, xp_layer *to,
                                 fm_error *err)
{
    *to = *from;
    if (!from->part[XP_UP][XP_CODES].bytes)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "MoE layer %d: transposed experts cannot be quantised", index);
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        kn_mat *m = &to->shape[p];
        if (m->cols % group)
            return fm_fail(err, FM_E_ARGUMENT,
                           "MoE layer %d: %d columns cannot be cut into groups of %d", index,
                           m->cols, group);
        *m = (kn_mat){.format = KN_AFFINE,
                      .bits = bits,
                      .group = group,
                      .scale_type = scale_type_of(m),
                      .rows = m->rows,
                      .cols = m->cols};
        m->row_bytes = kn_row_bytes(KN_AFFINE, bits, m->cols);
        m->scale_row_bytes = kn_scale_row_bytes(KN_AFFINE, m->scale_type, group, m->cols);
        size_t rows = (size_t)m->rows;
        to->part[p][XP_CODES] = (xp_part){.bytes = rows * m->row_bytes};
        to->part[p][XP_SCALES] = (xp_part){.bytes = rows * m->scale_row_bytes};
        to->part[p][XP_BIASES] = to->part[p][XP_SCALES];
    }
    return FM_OK;
}

static fm_status plan(const xp_source *source, int bits, int group, quantiser *q, fm_error *err)
{
    q->n_layers = source->n_layers;
    q->layers = bs_calloc((size_t)source->n_layers, sizeof *q->layers);
    fm_status status = q->layers ? FM_OK : fm_fail_nomem(err, "quantising");
    for (int l = 0; l < source->n_layers && !status; l++)
        status = quantised_layer(&source->layers[l], l, bits, group, &q->layers[l], err);
    return status;
}

fm_status xp_quantised_bytes(const xp_source *source, int bits, int group, uint64_t *bytes,
                             fm_error *err)
{
    quantiser q = {0};
    fm_status status = plan(source, bits, group, &q, err);
    *bytes = 0;
    for (int l = 0; l < q.n_layers && !status; l++) {
        size_t at[XP_PROJECTIONS][XP_PARTS];
        *bytes += (uint64_t)q.layers[l].n_experts * xp_record_layout(&q.layers[l], at);
    }
    bs_free(q.layers);
    return status;
}

/* --- one expert ------------------------------------------------------------------------------- */

typedef struct conversion {
    const quantiser *q;
    const kn_mat *from, *to;
    char *codes, *scales, *biases;
    _Atomic bool broken;
} conversion;

static void convert_rows(void *arg, int index, int worker)
{
    conversion *c = arg;
    float *row = c->q->rows + (size_t)worker * c->q->columns;
    int begin = index * ROWS_A_TASK, end = begin + ROWS_A_TASK;
    for (int r = begin; r < end && r < c->to->rows; r++) {
        size_t codes = (size_t)r * c->to->row_bytes, scales = (size_t)r * c->to->scale_row_bytes;
        kn_dequant_row(c->from, r, row);
        float sum = 0;
        for (int i = 0; i < c->to->cols; i++) sum += row[i] * 0;
        if (sum != 0) atomic_store(&c->broken, true); /* NaN: one of them is not finite */
        kn_quantise_row(row, c->to, c->codes + codes, c->scales + scales, c->biases + scales);
    }
}

static fm_status convert(void *arg, int layer, int expert, const xp_expert *view,
                         const void *part[XP_PROJECTIONS][XP_PARTS], fm_error *err)
{
    const quantiser *q = arg;
    const xp_layer *to = &q->layers[layer];
    char *at = q->codes;
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        conversion c = {.q = q, .from = &view->m[p], .to = &to->shape[p]};
        c.codes = at;
        c.scales = c.codes + to->part[p][XP_CODES].bytes;
        c.biases = c.scales + to->part[p][XP_SCALES].bytes;
        at = c.biases + to->part[p][XP_BIASES].bytes;
        part[p][XP_CODES] = c.codes;
        part[p][XP_SCALES] = c.scales;
        part[p][XP_BIASES] = c.biases;
        bs_pool_run(q->pool, convert_rows, &c, (c.to->rows + ROWS_A_TASK - 1) / ROWS_A_TASK);
        if (c.broken)
            return fm_fail(err, FM_E_NUMERIC,
                           "expert %d of MoE layer %d: a weight is not a finite number", expert,
                           layer);
    }
    return FM_OK;
}

/* --- all of them ------------------------------------------------------------------------------ */

static fm_status take_memory(quantiser *q, fm_error *err)
{
    size_t most = 0;
    for (int l = 0; l < q->n_layers; l++) {
        size_t bytes = 0;
        for (int p = 0; p < XP_PROJECTIONS; p++) {
            const xp_layer *layer = &q->layers[l];
            for (int s = XP_CODES; s <= XP_BIASES; s++) bytes += layer->part[p][s].bytes;
            if ((size_t)layer->shape[p].cols > q->columns)
                q->columns = (size_t)layer->shape[p].cols;
        }
        if (bytes > most) most = bytes;
    }
    q->rows = bs_calloc((size_t)bs_pool_threads(q->pool) * q->columns, sizeof *q->rows);
    q->codes = bs_malloc(most);
    return q->rows && q->codes ? FM_OK : fm_fail_nomem(err, "quantising");
}

fm_status xp_pack_quantised(const xp_source *source, int bits, int group, bs_pool *pool,
                            const char *dir, xp_pack_progress *progress, void *arg, fm_error *err)
{
    quantiser q = {.pool = pool};
    fm_status status = plan(source, bits, group, &q, err);
    if (!status) status = take_memory(&q, err);
    xp_pack_form form = {.layers = q.layers, .convert = convert, .arg = &q};
    if (!status) status = xp_pack_all(source, &form, dir, progress, arg, err);
    bs_free(q.layers);
    bs_free(q.rows);
    bs_free(q.codes);
    return status;
}
