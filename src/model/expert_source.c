/* expert_source.c - where each expert's bytes are. Stacking never changes values, it only moves
 * rows, so every layout becomes the same description: a range a part, for each expert.
 *
 *   S  MOE.switch_mlp.{gate,up,down}_proj      stacked (converted)
 *   P  MOE.experts.E.{gate,up,down}_proj       one module an expert, float or quantised
 *   G  MOE.experts.gate_up_proj, .down_proj    stacked, gate rows first; gpt-oss: rows alternate
 *   GT the same with every expert's matrices transposed (Qwen3-VL)
 *   L  MOE.input_linear, .output_linear        stacked, gate rows first (Granite)
 *
 * The biases of gpt-oss's experts are small and many: they are resident (expert_bias.c). */
#include "model/inside.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 400 };

typedef struct mapper {
    md_model *m;
    int layer; /* of the model */
    int n_experts, width, hidden;
    char moe[160]; /* "model.layers.3.mlp" */
    xp_layer *out;
    fm_error *err;
} mapper;

static int rows_of(const mapper *x, int p)
{
    return p == XP_DOWN ? x->hidden : x->width;
}

static int cols_of(const mapper *x, int p)
{
    return p == XP_DOWN ? x->width : x->hidden;
}

static const ts_tensor *find(const mapper *x, const char *name, const char *suffix)
{
    char full[NAME];
    int n = snprintf(full, sizeof full, "%s%s", name, suffix);
    return n < 0 || n >= NAME ? NULL : ts_find(x->m->store, full);
}

static bool has(const mapper *x, const char *name)
{
    return find(x, name, ".weight") || find(x, name, "") || find(x, name, "_blocks");
}

static fm_status use_matrix(const mapper *x, const ts_matrix *m)
{
    fm_status status = md_use_tensor(x->m, m->codes, x->err);
    if (!status) status = md_use_tensor(x->m, m->scales, x->err);
    if (!status) status = md_use_tensor(x->m, m->biases, x->err);
    return status;
}

static size_t scale_rows(const kn_mat *m)
{
    return m->format == KN_F8_BLOCK ? (size_t)(m->rows + 127) / 128 : (size_t)m->rows;
}

/* --- stacked ---------------------------------------------------------------------------------- */

/* Rows [first, first + every * rows) of a stacked tensor, taking every `every`-th. */
static xp_part stacked_part(const ts_tensor *t, int64_t count, int first, int every, int rows,
                            size_t row_bytes)
{
    if (!t) return (xp_part){0};
    return (xp_part){.file = t->file,
                     .offset = t->offset + (uint64_t)first * row_bytes,
                     .stride = t->bytes / (uint64_t)count,
                     .bytes = ((size_t)every * (size_t)(rows - 1) + 1) * row_bytes};
}

/* Projection p is the rows [first, ...) of the stacked matrix m. */
static void stacked_projection(mapper *x, int p, const ts_matrix *m, int first, int every)
{
    int rows = rows_of(x, p);
    kn_mat *shape = &x->out->shape[p];
    *shape = m->shape;
    shape->rows = rows;
    shape->row_bytes = (size_t)every * m->shape.row_bytes;
    shape->scale_row_bytes = (size_t)every * m->shape.scale_row_bytes;
    xp_part *part = x->out->part[p];
    part[XP_CODES] = stacked_part(m->codes, m->count, first, every, rows, m->shape.row_bytes);
    part[XP_SCALES] =
        stacked_part(m->scales, m->count, first, every, rows, m->shape.scale_row_bytes);
    part[XP_BIASES] =
        stacked_part(m->biases, m->count, first, every, rows, m->shape.scale_row_bytes);
}

static fm_status map_stacked(mapper *x)
{
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        char name[NAME];
        ts_matrix m;
        snprintf(name, sizeof name, "%s.%s.%s", x->moe, x->m->config.names.stacked, names[p]);
        fm_status status = ts_find_matrix(x->m->store, x->m->json, name, x->n_experts,
                                          rows_of(x, p), cols_of(x, p), &m, x->err);
        if (status) return status;
        stacked_projection(x, p, &m, 0, 1);
        status = use_matrix(x, &m);
        if (status) return status;
    }
    return FM_OK;
}

/* Gate and up in one stacked matrix; alternating rows for gpt-oss. */
static fm_status map_fused(mapper *x, const char *gate_up, const char *down)
{
    bool alternate = x->m->config.family->clamped_swiglu;
    char name[NAME];
    ts_matrix m;
    snprintf(name, sizeof name, "%s.%s", x->moe, gate_up);
    fm_status status = ts_find_matrix(x->m->store, x->m->json, name, x->n_experts, 2 * x->width,
                                      x->hidden, &m, x->err);
    if (!status) status = use_matrix(x, &m);
    if (status) return status;
    stacked_projection(x, XP_GATE, &m, 0, alternate ? 2 : 1);
    stacked_projection(x, XP_UP, &m, alternate ? 1 : x->width, alternate ? 2 : 1);
    snprintf(name, sizeof name, "%s.%s", x->moe, down);
    status = ts_find_matrix(x->m->store, x->m->json, name, x->n_experts, x->hidden, x->width, &m,
                            x->err);
    if (status) return status;
    stacked_projection(x, XP_DOWN, &m, 0, 1);
    return use_matrix(x, &m);
}

/* Transposed experts: gate and up side by side, [in][gate out | up out], are one part; no part is
 * called up. md_layer.transposed tells the forward pass. */
static bool is_transposed(const mapper *x)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.experts.gate_up_proj", x->moe);
    const ts_tensor *t = find(x, name, "");
    return t && t->n_dims == 3 && t->shape[1] == x->hidden && t->shape[2] == 2 * x->width &&
           (x->hidden != 2 * x->width || x->m->config.family->transposed_raw);
}

static void whole_expert(mapper *x, int p, const ts_matrix *m)
{
    x->out->shape[p] = m->shape;
    x->out->part[p][XP_CODES] =
        stacked_part(m->codes, m->count, 0, 1, m->shape.rows, m->shape.row_bytes);
}

static fm_status map_transposed(mapper *x)
{
    char name[NAME];
    ts_matrix gate_up, down;
    snprintf(name, sizeof name, "%s.experts.gate_up_proj", x->moe);
    fm_status status = ts_find_matrix(x->m->store, x->m->json, name, x->n_experts, x->hidden,
                                      2 * x->width, &gate_up, x->err);
    if (status) return status;
    snprintf(name, sizeof name, "%s.experts.down_proj", x->moe);
    status = ts_find_matrix(x->m->store, x->m->json, name, x->n_experts, x->width, x->hidden, &down,
                            x->err);
    if (status) return status;
    if (gate_up.scales || down.scales)
        return fm_fail(x->err, FM_E_UNSUPPORTED, "%s: quantised and transposed is not supported",
                       name);
    whole_expert(x, XP_GATE, &gate_up);
    whole_expert(x, XP_DOWN, &down);
    x->m->layers[x->layer].transposed = true;
    status = use_matrix(x, &gate_up);
    return status ? status : use_matrix(x, &down);
}

/* --- one module an expert --------------------------------------------------------------------- */

static bool same_shape(const kn_mat *a, const kn_mat *b)
{
    return a->format == b->format && a->bits == b->bits && a->group == b->group &&
           a->scale_type == b->scale_type;
}

static fm_status add_range(mapper *x, xp_part *part, int e, const ts_tensor *t, size_t bytes)
{
    if (!t) return FM_OK;
    if (!part->each) {
        part->each = bs_calloc((size_t)x->n_experts, sizeof *part->each);
        if (!part->each) return fm_fail_nomem(x->err, "opening the model");
        part->bytes = bytes;
    }
    ((xp_range *)part->each)[e] = (xp_range){.file = t->file, .offset = t->offset};
    return md_use_tensor(x->m, t, x->err);
}

static fm_status map_one(mapper *x, int p, int e)
{
    char name[NAME];
    ts_matrix m;
    const md_names *n = &x->m->config.names;
    snprintf(name, sizeof name, "%s.%s.%d.%s", x->moe, n->each, e, n->proj[p]);
    fm_status status =
        ts_find_matrix(x->m->store, x->m->json, name, 0, rows_of(x, p), cols_of(x, p), &m, x->err);
    if (status) return status;
    kn_mat *shape = &x->out->shape[p];
    if (!e) *shape = m.shape;
    if (!same_shape(shape, &m.shape))
        return fm_fail(x->err, FM_E_UNSUPPORTED,
                       "%s: stored otherwise than expert 0 of the same layer", name);
    xp_part *part = x->out->part[p];
    size_t codes = (size_t)m.shape.rows * m.shape.row_bytes;
    size_t scales = scale_rows(&m.shape) * m.shape.scale_row_bytes;
    status = add_range(x, &part[XP_CODES], e, m.codes, codes);
    if (!status) status = add_range(x, &part[XP_SCALES], e, m.scales, scales);
    if (!status) status = add_range(x, &part[XP_BIASES], e, m.biases, scales);
    return status;
}

static fm_status map_each(mapper *x)
{
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int e = 0; e < x->n_experts; e++) {
            fm_status status = map_one(x, p, e);
            if (status) return status;
        }
    return FM_OK;
}

/* --- choosing --------------------------------------------------------------------------------- */

static fm_status map_layer(mapper *x)
{
    const md_names *n = &x->m->config.names;
    char name[NAME];
    snprintf(name, sizeof name, "%s.%s.gate_proj", x->moe, n->stacked);
    if (has(x, name)) return map_stacked(x);
    snprintf(name, sizeof name, "%s.%s.0.%s", x->moe, n->each, n->proj[0]);
    if (has(x, name)) return map_each(x);
    if (is_transposed(x)) return map_transposed(x);
    snprintf(name, sizeof name, "%s.experts.gate_up_proj", x->moe);
    if (has(x, name)) return map_fused(x, "experts.gate_up_proj", "experts.down_proj");
    snprintf(name, sizeof name, "%s.input_linear", x->moe);
    if (has(x, name)) return map_fused(x, "input_linear", "output_linear");
    return fm_fail(x->err, FM_E_FORMAT, "%s: no experts found (%s.%s.gate_proj.weight is missing)",
                   ts_file_path(x->m->store, 0), x->moe, n->stacked);
}

static bool has_experts(const mapper *x)
{
    const md_names *n = &x->m->config.names;
    char stacked[NAME], each[NAME], fused[NAME], input[NAME];
    snprintf(stacked, NAME, "%s.%s.gate_proj", x->moe, n->stacked);
    snprintf(each, NAME, "%s.%s.0.%s", x->moe, n->each, n->proj[0]);
    snprintf(fused, NAME, "%s.experts.gate_up_proj", x->moe);
    snprintf(input, NAME, "%s.input_linear", x->moe);
    return has(x, stacked) || has(x, each) || has(x, fused) || has(x, input);
}

static fm_status list_files(md_model *m, fm_error *err)
{
    int n = ts_file_count(m->store);
    const char **paths = bs_calloc((size_t)n, sizeof *paths);
    uint64_t *bytes = bs_calloc((size_t)n, sizeof *bytes);
    m->source.paths = paths;
    m->source.file_bytes = bytes;
    if (!paths || !bytes) return fm_fail_nomem(err, "opening the model");
    m->source.n_files = n;
    for (int i = 0; i < n; i++) {
        paths[i] = ts_file_path(m->store, i);
        bytes[i] = ts_file_bytes(m->store, i);
    }
    return FM_OK;
}

fm_status md_build_expert_source(md_model *m, fm_error *err)
{
    const md_arch *c = &m->config;
    fm_status status = list_files(m, err);
    if (status) return status;
    m->expert_layers = bs_calloc((size_t)m->info.n_moe_layers + 1, sizeof *m->expert_layers);
    if (!m->expert_layers) return fm_fail_nomem(err, "opening the model");
    m->source.layers = m->expert_layers;
    for (int n = 0; n < c->n_layers && !status; n++) {
        if (!c->layer[n].moe) continue;
        mapper x = {.m = m, .layer = n, .err = err, .hidden = c->hidden};
        x.n_experts = c->n_experts;
        x.width = c->layer[n].expert_width;
        x.out = &m->expert_layers[m->source.n_layers++];
        x.out->n_experts = c->n_experts;
        x.out->top_k = c->layer[n].top_k;
        snprintf(x.moe, sizeof x.moe, "%slayers.%d.%s", m->layout.prefix, n, c->names.moe);
        if (m->source.n_layers == 1 && !has_experts(&x)) return md_use_packed_experts(m, err);
        status = map_layer(&x);
    }
    return status;
}

void md_free_expert_source(md_model *m)
{
    for (int n = 0; n < m->source.n_layers; n++)
        for (int p = 0; p < XP_PROJECTIONS; p++)
            for (int part = 0; part < XP_PARTS; part++)
                bs_free((void *)m->expert_layers[n].part[p][part].each);
    bs_free(m->expert_layers);
    bs_free((void *)m->source.paths);
    bs_free((void *)m->source.file_bytes);
    xp_pack_close(m->pack);
}
