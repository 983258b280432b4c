/* planned.c - how a checkpoint would be stored, told by its config alone. */
#include "model/schema.h"

#include "base/error.h"

#include <string.h>

static const json_t *quantisation_of(const json_t *config)
{
    const json_t *q = json_object_get(config, "quantization");
    if (json_is_object(q)) return q;
    q = json_object_get(config, "quantization_config");
    return json_is_object(q) && !json_object_get(q, "quant_method") ? q : NULL;
}

static const char *const modes[] = {"affine", "mxfp4", "nvfp4", "mxfp8"};

static bool is_one_of(const json_t *v, const int *allowed, int n)
{
    for (int i = 0; i < n; i++)
        if (json_is_integer(v) && json_integer_value(v) == allowed[i]) return true;
    return false;
}

/* One dict of the section: the whole, or a module's own. */
static fm_status check_dict(const json_t *q, const char *where, const char *path, fm_error *err)
{
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {16, 32, 64, 128};
    const json_t *b = json_object_get(q, "bits"), *g = json_object_get(q, "group_size");
    const json_t *mode = json_object_get(q, "mode");
    const char *wrong = NULL;
    if (b && !is_one_of(b, bits, 6)) wrong = "bits";
    if (g && !json_is_null(g) && !is_one_of(g, groups, 4)) wrong = "group_size";
    for (size_t i = 0; mode && i < sizeof modes / sizeof *modes; i++)
        if (json_is_string(mode) && !strcmp(json_string_value(mode), modes[i])) mode = NULL;
    if (mode) wrong = "mode";
    if (!wrong) return FM_OK;
    return fm_fail(err, FM_E_FORMAT, "%s: %.200s: %s is none of the values that exist", path, where,
                   wrong);
}

fm_status md_check_quantisation(const json_t *config, const char *path, fm_error *err)
{
    const json_t *q = quantisation_of(config);
    fm_status status = q ? check_dict(q, "quantization", path, err) : FM_OK;
    const char *module;
    json_t *own;
    json_object_foreach((json_t *)q, module, own) if (json_is_object(own) && !status) status =
        check_dict(own, module, path, err);
    return status;
}

static kn_format float_format(const json_t *config)
{
    const json_t *text = md_config_text(config);
    const char *type = json_string_value(json_object_get(text, "torch_dtype"));
    if (!type) type = json_string_value(json_object_get(text, "dtype"));
    if (type && !strcmp(type, "float32")) return KN_F32;
    if (type && !strcmp(type, "float16")) return KN_F16;
    return KN_BF16;
}

static int int_of(const json_t *q, const char *name, int fallback)
{
    const json_t *v = json_object_get(q, name);
    json_int_t n = json_integer_value(v);
    return json_is_integer(v) && n > 0 && n <= 1024 ? (int)n : fallback;
}

static void set_mode(kn_mat *m, const char *mode)
{
    m->format = KN_AFFINE;
    if (!mode) return;
    if (!strcmp(mode, "mxfp4")) *m = (kn_mat){.format = KN_MXFP4, .bits = 4, .group = 32};
    if (!strcmp(mode, "nvfp4")) *m = (kn_mat){.format = KN_NVFP4, .bits = 4, .group = 16};
    if (!strcmp(mode, "mxfp8")) *m = (kn_mat){.format = KN_MXFP8, .bits = 8, .group = 32};
}

kn_mat md_planned_format(const json_t *config, const md_spec *spec)
{
    const json_t *q = quantisation_of(config);
    kn_mat m = {.format = float_format(config)}, plain = m;
    if (q && spec->kind != MD_VECTOR && spec->bits != MD_BITS_NEVER) {
        const json_t *own = json_object_get(q, spec->name);
        m.bits = int_of(q, "bits", 4);
        m.group = int_of(q, "group_size", 64);
        set_mode(&m, json_string_value(json_object_get(q, "mode")));
        if (json_is_object(own)) {
            m.bits = int_of(own, "bits", 4);
            m.group = int_of(own, "group_size", 64);
            set_mode(&m, json_string_value(json_object_get(own, "mode")));
        }
        if (json_is_false(own) || spec->cols % m.group) m = plain;
    }
    m.scale_type = plain.format;
    m.rows = spec->rows;
    m.cols = spec->cols;
    m.row_bytes = kn_row_bytes(m.format, m.bits, m.cols);
    m.scale_row_bytes = m.group ? kn_scale_row_bytes(m.format, m.scale_type, m.group, m.cols) : 0;
    return m;
}

uint64_t md_stored_bytes(const md_spec *spec, const kn_mat *format, size_t float_bytes)
{
    uint64_t count = spec->count ? (uint64_t)spec->count : 1, rows = (uint64_t)spec->rows;
    uint64_t one =
        format->row_bytes + (format->format == KN_AFFINE ? 2 : 1) * format->scale_row_bytes;
    if (spec->keeps_f32) float_bytes = sizeof(float);
    if (spec->kind == MD_VECTOR) one = float_bytes * (spec->cols ? (uint64_t)spec->cols : 1);
    else if (spec->bias) one += float_bytes;
    return count * rows * one;
}

static xp_part nowhere(size_t bytes)
{
    return (xp_part){.file = -1, .bytes = bytes};
}

void md_planned_experts(const md_arch *c, const md_schema *s, const json_t *config, int moe_layer,
                        xp_layer *out)
{
    *out = (xp_layer){.n_experts = c->n_experts};
    for (size_t i = 0; i < s->n; i++) {
        const md_spec *spec = &s->spec[i];
        if (spec->kind != MD_EXPERTS || spec->moe_layer != moe_layer) continue;
        int p = (int)(spec->part[0] - MD_EXPERT_GATE);
        kn_mat m = md_planned_format(config, spec);
        if (m.format != KN_AFFINE)
            m.scale_type = KN_F32; /* says nothing; as ts_find_matrix has it */
        out->shape[p] = m;
        out->top_k = c->layer[spec->layer].top_k;
        out->part[p][XP_CODES] = nowhere((size_t)m.rows * m.row_bytes);
        out->part[p][XP_SCALES] = nowhere((size_t)m.rows * m.scale_row_bytes);
        if (m.format == KN_AFFINE) out->part[p][XP_BIASES] = out->part[p][XP_SCALES];
    }
}
