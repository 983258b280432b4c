/* expert_bias.c - the Linear biases of a layer's experts: a few rows each, so they are kept in
 * memory and cost no reads. Converted: MOE.experts.gate_proj.bias [E][rows]. Raw gpt-oss:
 * MOE.experts.gate_up_proj_bias [E][2 I] with gate and up alternating, and down_proj_bias. */
#include "model/inside.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static size_t all_rows(const md_spec *s)
{
    return (size_t)s->count * (size_t)s->rows;
}

/* The raw tensor that holds gate and up, or down. */
static const ts_tensor *find_fused(const md_model *m, const md_spec *s)
{
    char name[400];
    bool down = s->part[0] == MD_EXPERT_DOWN;
    snprintf(name, sizeof name, "%slayers.%d.%s.experts.%s_proj_bias", m->layout.prefix, s->layer,
             m->config.names.moe, down ? "down" : "gate_up");
    return ts_find(m->store, name);
}

static bool is_alternating(const md_binding *b)
{
    return b->spec->part[0] != MD_EXPERT_DOWN && b->bias->n_dims == 2 &&
           b->bias->shape[1] == 2 * (int64_t)b->spec->rows;
}

fm_status md_bind_expert_bias(md_model *m, md_binding *b, fm_error *err)
{
    const md_spec *s = b->spec;
    char name[400];
    snprintf(name, sizeof name, "%s.bias", s->name);
    b->bias = ts_find(m->store, name);
    if (!b->bias) b->bias = find_fused(m, s);
    if (!b->bias && !m->config.family->clamped_swiglu) return FM_OK; /* mlp_bias without any */
    if (!b->bias)
        return fm_fail(err, FM_E_FORMAT, "%s: the tensor %s is missing", ts_file_path(m->store, 0),
                       name);
    if (b->bias->n_dims != 2 || b->bias->shape[0] != s->count ||
        (b->bias->shape[1] != s->rows && !is_alternating(b)))
        return fm_fail(err, FM_E_FORMAT, "%s: tensor %s does not have the shape of this bias",
                       ts_file_path(m->store, b->bias->file), b->bias->name);
    b->bytes = (all_rows(s) * sizeof(float) + 63) & ~(size_t)63;
    return md_use_tensor(m, b->bias, err);
}

fm_status md_load_expert_bias(md_model *m, const md_binding *b, float *dst, fm_error *err)
{
    const md_spec *s = b->spec;
    size_t n = all_rows(s);
    if (!is_alternating(b)) return ts_read_floats(m->store, b->bias, n, dst, err);
    float *both = bs_malloc(2 * n * sizeof *both);
    if (!both) return fm_fail_nomem(err, b->bias->name);
    fm_status status = ts_read_floats(m->store, b->bias, 2 * n, both, err);
    size_t odd = s->part[0] == MD_EXPERT_UP;
    for (size_t i = 0; i < n && !status; i++) dst[i] = both[2 * i + odd];
    bs_free(both);
    return status;
}
