/* From a config to the list of tensors: the model's own schema, the formats that the config's
 * quantization section asks for, dealt out to shards as the converter does. */
#include "cli/synth.h"

#include "base/file.h"
#include "base/mem.h"

#include <string.h>

enum { MAX_CONFIG = 16 << 20 };
static const uint64_t SHARD_BYTES = 5ull << 30;

/* --- the config
 * ----------------------------------------------------------------------------------- */

static fm_status read_config(const char *path, json_t **out, fm_error *err)
{
    bs_buf text = {0};
    json_error_t problem;
    fm_status status = bs_read_file(path, MAX_CONFIG, &text, err);
    if (!status) {
        *out = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &problem);
        if (!*out)
            status = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, problem.line, problem.text);
    }
    bs_buf_free(&text);
    return status;
}

/* The keys of the quantization section that are settings, not modules. */
static json_t *settings(const sy_request *r, const json_t *old)
{
    json_t *q = json_object();
    const json_t *bits = json_object_get(old, "bits"), *group = json_object_get(old, "group_size");
    const json_t *mode = json_object_get(old, "mode");
    const char *text = r->mode ? r->mode : json_string_value(mode);
    bool affine = !text || !strcmp(text, "affine");
    int b = r->bits ? r->bits : json_is_integer(bits) ? (int)json_integer_value(bits) : 4;
    int g = r->group ? r->group : json_is_integer(group) ? (int)json_integer_value(group) : 64;
    if (!affine) {
        b = !strcmp(text, "mxfp8") ? 8 : 4;
        g = !strcmp(text, "nvfp4") ? 16 : 32;
    }
    json_object_set_new(q, "group_size", json_integer(g));
    json_object_set_new(q, "bits", json_integer(b));
    json_object_set_new(q, "mode", json_string(affine ? "affine" : text));
    return q;
}

/* Bits, group or mode asked for: a new section, with the converter's 8-bit routers. */
static fm_status requantise(const sy_request *r, sy_plan *p, fm_error *err)
{
    const json_t *old = json_object_get(p->config, "quantization");
    json_t *q = settings(r, old);
    for (size_t i = 0; i < p->schema.n; i++)
        if (p->schema.spec[i].bits == 8)
            json_object_set_new(q, p->schema.spec[i].name,
                                json_pack("{s:i, s:i}", "group_size", 64, "bits", 8));
    json_object_del(p->config, "quantization_config");
    if (json_object_set_new(p->config, "quantization", q)) return fm_fail_nomem(err, r->path);
    return FM_OK;
}

static fm_status set_layers(const sy_request *r, sy_plan *p, fm_error *err)
{
    if (!r->layers) return FM_OK;
    json_t *text = (json_t *)md_config_text(p->config);
    if (json_object_set_new(text, "num_hidden_layers", json_integer(r->layers)))
        return fm_fail_nomem(err, r->path);
    return FM_OK;
}

/* --- tensors
 * -------------------------------------------------------------------------------------- */

static ts_type type_of(kn_format format)
{
    return format == KN_F32 ? TS_F32 : format == KN_F16 ? TS_F16 : TS_BF16;
}

static ts_type code_type(kn_format format)
{
    return format == KN_F32 || format == KN_F16 || format == KN_BF16 ? type_of(format) : TS_U32;
}

static sy_tensor tensor(const md_spec *spec, sy_part part, const kn_mat *format, ts_type type,
                        int64_t last)
{
    sy_tensor t = {.spec = spec, .part = part, .format = *format, .type = type};
    if (spec->count) t.shape[t.n_dims++] = spec->count;
    t.shape[t.n_dims++] = spec->rows;
    if (last) t.shape[t.n_dims++] = last;
    if (spec->conv) t.shape[t.n_dims++] = 1;
    t.rows = (uint64_t)(spec->count ? spec->count : 1) * (uint64_t)spec->rows;
    t.row_bytes = (uint64_t)(last ? last : 1) * ts_type_bytes(type);
    return t;
}

/* The name of a vector stands in the schema, of a matrix its module's. */
int sy_parts_of(const sy_plan *p, const md_spec *spec, sy_tensor out[4])
{
    kn_mat m = md_planned_format(p->config, spec);
    ts_type plain = type_of(m.scale_type), codes = code_type(m.format);
    int n = 0;
    if (spec->kind == MD_VECTOR) {
        out[n++] = tensor(spec, SY_VECTOR, &m, spec->keeps_f32 ? TS_F32 : plain, spec->cols);
        return n;
    }
    int64_t words = (int64_t)(m.row_bytes / ts_type_bytes(codes));
    out[n++] = tensor(spec, SY_CODES, &m, codes, words);
    if (m.group) {
        ts_type scales = m.format == KN_AFFINE ? plain : TS_U8;
        out[n++] = tensor(spec, SY_SCALES, &m, scales, spec->cols / m.group);
        if (m.format == KN_AFFINE)
            out[n++] = tensor(spec, SY_BIASES, &m, scales, spec->cols / m.group);
    }
    if (spec->bias) out[n++] = tensor(spec, SY_BIAS, &m, plain, 0);
    return n;
}

char *sy_name(const sy_tensor *t)
{
    static const char *const suffix[] = {".weight", ".scales", ".biases", ".bias", ""};
    return bs_sprintf("%s%s", t->spec->name, suffix[t->part]);
}

static bool add(sy_plan *p, const sy_tensor *t, uint64_t *in_shard)
{
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 1024;
        sy_tensor *grown = bs_realloc(p->tensor, capacity, sizeof *grown);
        if (!grown) return false;
        p->tensor = grown;
        p->capacity = capacity;
    }
    uint64_t bytes = t->rows * t->row_bytes;
    if (*in_shard && *in_shard + bytes > SHARD_BYTES) {
        p->n_shards++;
        *in_shard = 0;
    }
    *in_shard += bytes;
    p->bytes += bytes;
    p->tensor[p->n] = *t;
    p->tensor[p->n++].shard = p->n_shards - 1;
    return true;
}

static fm_status list_tensors(sy_plan *p, fm_error *err)
{
    uint64_t in_shard = 0;
    p->n_shards = 1;
    for (size_t i = 0; i < p->schema.n; i++) {
        const md_spec *spec = &p->schema.spec[i];
        sy_tensor parts[4];
        int n = sy_parts_of(p, spec, parts);
        for (int k = 0; k < n; k++) {
            if (p->packed && spec->kind == MD_EXPERTS && parts[k].part != SY_BIAS)
                p->expert_bytes += parts[k].rows * parts[k].row_bytes;
            else if (!add(p, &parts[k], &in_shard))
                return fm_fail_nomem(err, "listing the tensors");
        }
    }
    return FM_OK;
}

fm_status sy_plan_make(const sy_request *r, sy_plan *p, fm_error *err)
{
    *p = (sy_plan){.seed = r->seed, .skew = r->skew, .packed = r->packed};
    fm_status status = read_config(r->path, &p->config, err);
    if (!status) status = set_layers(r, p, err);
    if (!status) status = md_config_read(&p->arch, p->config, r->path, false, err);
    if (!status) status = md_schema_build(&p->arch, md_layout_of(&p->arch), &p->schema, err);
    if (!status && (r->bits || r->group || r->mode)) status = requantise(r, p, err);
    if (!status) status = list_tensors(p, err);
    if (!status) {
        p->common = sy_common_direction(r->seed, p->arch.hidden);
        if (!p->common) status = fm_fail_nomem(err, r->path);
    }
    if (status) sy_plan_free(p);
    return status;
}

void sy_plan_free(sy_plan *p)
{
    json_decref(p->config);
    md_schema_free(&p->schema);
    bs_free(p->tensor);
    bs_free(p->common);
    *p = (sy_plan){0};
}
