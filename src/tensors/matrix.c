/* How a module's matrix is stored: which tensors, which format. The shapes decide; config.json is
 * only asked where it must not be nonsense. */
#include "tensors/store.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 512, F8_BLOCK = 128 };

/* One question to ts_find_matrix and what is found on the way. */
typedef struct query {
    const ts_store *store;
    const json_t *config;
    const char *module;
    int64_t count, rows, cols;
    ts_matrix *out;
    fm_error *err;
} query;

static const ts_tensor *part(const query *q, const char *suffix)
{
    char name[MAX_NAME];
    int n = snprintf(name, sizeof name, "%s%s", q->module, suffix);
    return n < 0 || n >= MAX_NAME ? NULL : ts_find(q->store, name);
}

/* t must be [count][a][b], without count for a plain matrix. */
static fm_status check_shape(const query *q, const ts_tensor *t, int64_t a, int64_t b)
{
    char have[TS_SHAPE_TEXT], want[TS_SHAPE_TEXT];
    int64_t shape[3] = {q->count, a, b};
    const int64_t *wanted = q->count ? shape : shape + 1;
    int n = q->count ? 3 : 2;
    if (t->n_dims == n && !memcmp(t->shape, wanted, (size_t)n * sizeof *wanted)) return FM_OK;
    return fm_fail(q->err, FM_E_FORMAT, "%s: tensor %.150s has shape %s, the model needs %s",
                   q->store->files[t->file].path, t->name, ts_shape_text(t->shape, t->n_dims, have),
                   ts_shape_text(wanted, n, want));
}

static fm_status bad_tensor(const query *q, fm_status code, const ts_tensor *t, const char *what)
{
    char shape[TS_SHAPE_TEXT];
    return fm_fail(q->err, code, "%s: tensor %.150s (%s %s) %s", q->store->files[t->file].path,
                   t->name, ts_type_name(t->type), ts_shape_text(t->shape, t->n_dims, shape), what);
}

static void set_format(const query *q, kn_format format, int bits, int group, kn_format scale_type)
{
    kn_mat *m = &q->out->shape;
    *m = (kn_mat){.format = format,
                  .bits = bits,
                  .group = group,
                  .scale_type = scale_type,
                  .rows = (int)q->rows,
                  .cols = (int)q->cols};
    m->row_bytes = kn_row_bytes(format, bits, m->cols);
    if (q->out->scales) m->scale_row_bytes = kn_scale_row_bytes(format, scale_type, group, m->cols);
}

static bool float_format(ts_type type, kn_format *out)
{
    if (type == TS_F32) *out = KN_F32;
    else if (type == TS_F16) *out = KN_F16;
    else if (type == TS_BF16) *out = KN_BF16;
    else return false;
    return true;
}

/* --- quantised by MLX ------------------------------------------------------------------------- */

static bool known_bits(int64_t bits)
{
    return bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
}

static bool known_group(int64_t group)
{
    return group == 16 || group == 32 || group == 64 || group == 128;
}

/* The config's entry for a module may differ from the shapes (they win), but not be impossible. */
static fm_status check_config(const query *q)
{
    const char *section = "quantization";
    const json_t *all = json_object_get(q->config, section);
    if (!all) all = json_object_get(q->config, section = "quantization_config");
    const json_t *own = json_object_get(all, q->module);
    bool global = !json_is_object(own);
    const json_t *use = global ? all : own;
    const json_t *bits = json_object_get(use, "bits");
    const json_t *group = json_object_get(use, "group_size");
    const char *wrong = bits && !known_bits(json_integer_value(bits))      ? "bits"
                        : group && !known_group(json_integer_value(group)) ? "group_size"
                                                                           : NULL;
    if (!wrong) return FM_OK;
    return fm_fail(q->err, FM_E_FORMAT,
                   "config.json: %s%s%.150s.%s is none of the values that exist", section,
                   global ? "" : ".", global ? "" : q->module, wrong);
}

static fm_status affine(const query *q, int64_t bits, int64_t group)
{
    ts_matrix *m = q->out;
    kn_format scale_type;
    if (!float_format(m->scales->type, &scale_type))
        return bad_tensor(q, FM_E_FORMAT, m->scales, "should be F32, F16 or BF16 beside .biases");
    if (m->biases->type != m->scales->type)
        return bad_tensor(q, FM_E_UNSUPPORTED, m->biases, "is not of the type of its .scales");
    fm_status status = check_shape(q, m->biases, q->rows, q->cols / group);
    if (status) return status;
    if (!known_bits(bits) || group < 32 || !known_group(group))
        return bad_tensor(q, FM_E_UNSUPPORTED, m->codes,
                          "is affine with bits or a group size that do not exist");
    set_format(q, KN_AFFINE, (int)bits, (int)group, scale_type);
    return FM_OK;
}

static fm_status floating(const query *q, int64_t bits, int64_t group)
{
    ts_matrix *m = q->out;
    if (m->scales->type != TS_U8)
        return bad_tensor(q, FM_E_FORMAT, m->scales,
                          "has no .biases beside it (affine) and is not U8 (mxfp4, nvfp4, mxfp8)");
    if (bits == 4 && group == 32) set_format(q, KN_MXFP4, 4, 32, KN_F32);
    else if (bits == 4 && group == 16) set_format(q, KN_NVFP4, 4, 16, KN_F32);
    else if (bits == 8 && group == 32) set_format(q, KN_MXFP8, 8, 32, KN_F32);
    else
        return bad_tensor(q, FM_E_UNSUPPORTED, m->codes,
                          "is neither mxfp4 nor nvfp4 nor mxfp8 by its shape");
    return FM_OK;
}

/* bits and group follow from the last dimensions, since cols is known. */
static fm_status quantised(const query *q)
{
    ts_matrix *m = q->out;
    int n = q->count ? 3 : 2;
    if (m->codes->type != TS_U32)
        return bad_tensor(q, FM_E_UNSUPPORTED, m->codes, "has .scales beside it but is not U32");
    if (m->codes->n_dims != n) return check_shape(q, m->codes, q->rows, q->cols);
    if (m->scales->n_dims != n) return check_shape(q, m->scales, q->rows, q->cols);
    int64_t words = m->codes->shape[n - 1], groups = m->scales->shape[n - 1];
    if (words < 1 || words > q->cols || words * 32 % q->cols)
        return bad_tensor(q, FM_E_FORMAT, m->codes, "has a packed width that fits no bits");
    if (groups < 1 || q->cols % groups)
        return bad_tensor(q, FM_E_FORMAT, m->scales, "has a width that fits no group size");
    fm_status status = check_shape(q, m->codes, q->rows, words);
    if (!status) status = check_shape(q, m->scales, q->rows, groups);
    if (!status) status = check_config(q);
    if (status) return status;
    int64_t bits = words * 32 / q->cols, group = q->cols / groups;
    return m->biases ? affine(q, bits, group) : floating(q, bits, group);
}

/* --- as Hugging Face has it ------------------------------------------------------------------- */

/* gpt-oss: `module`_blocks U8 [count, rows, cols / 32, 16] are mxfp4 codes in the same order. */
static fm_status blocks(const query *q)
{
    ts_matrix *m = q->out;
    const ts_tensor *t = m->codes;
    int d = q->count ? 1 : 0;
    if (t->type != TS_U8 || m->scales->type != TS_U8)
        return bad_tensor(q, FM_E_FORMAT, t, "should be U8, and so its _scales");
    if (q->cols % 32 || t->n_dims != d + 3 || (d && t->shape[0] != q->count) ||
        t->shape[d] != q->rows || t->shape[d + 1] != q->cols / 32 || t->shape[d + 2] != 16)
        return bad_tensor(q, FM_E_FORMAT, t,
                          "does not have the shape of this module's mxfp4 blocks");
    fm_status status = check_shape(q, m->scales, q->rows, q->cols / 32);
    if (!status) set_format(q, KN_MXFP4, 4, 32, KN_F32);
    return status;
}

static fm_status f8_blocks(const query *q)
{
    ts_matrix *m = q->out;
    if (m->codes->type != TS_F8_E4M3)
        return bad_tensor(q, FM_E_UNSUPPORTED, m->codes,
                          "has a .weight_scale_inv but is not F8_E4M3");
    if (m->scales->type != TS_F32)
        return bad_tensor(q, FM_E_UNSUPPORTED, m->scales, "should be F32");
    fm_status status = check_shape(q, m->codes, q->rows, q->cols);
    if (!status)
        status = check_shape(q, m->scales, (q->rows + F8_BLOCK - 1) / F8_BLOCK,
                             (q->cols + F8_BLOCK - 1) / F8_BLOCK);
    if (!status) set_format(q, KN_F8_BLOCK, 0, 0, KN_F32);
    return status;
}

static fm_status plain(const query *q)
{
    kn_format format;
    const ts_tensor *t = q->out->codes;
    if (!float_format(t->type, &format))
        return bad_tensor(q, FM_E_UNSUPPORTED, t,
                          "is not a float tensor and has no .scales: this quantisation is not "
                          "supported; use an MLX conversion or the original weights");
    fm_status status = check_shape(q, t, q->rows, q->cols);
    if (!status) set_format(q, format, 0, 0, KN_F32);
    return status;
}

/* The marks that other quantisers leave beside or instead of `module`.weight. */
static fm_status refuse_others(const query *q)
{
    static const struct {
        const char *suffix, *what;
    } others[] = {
        {".weight_packed", "compressed-tensors"},
        {".qweight", "AWQ or GPTQ"},
        {".weight.absmax", "bitsandbytes"},
        {".weight_scale", "compressed-tensors, ModelOpt or FBGEMM"},
        {".SCB", "bitsandbytes"},
        {".B", "Marlin"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const ts_tensor *t = part(q, others[i].suffix);
        if (!t) continue;
        return fm_fail(q->err, FM_E_UNSUPPORTED,
                       "%s: tensor %.150s: weights quantised by %s are not supported; use an MLX "
                       "conversion or the original weights",
                       q->store->files[t->file].path, t->name, others[i].what);
    }
    return FM_OK;
}

static fm_status find(const query *q)
{
    ts_matrix *m = q->out;
    m->codes = part(q, ".weight");
    m->scales = part(q, ".scales");
    m->biases = part(q, ".biases");
    if (m->codes && m->scales) return quantised(q);
    fm_status status = refuse_others(q);
    if (status) return status;
    m->biases = NULL;
    if (m->codes && (m->scales = part(q, ".weight_scale_inv"))) return f8_blocks(q);
    m->scales = NULL;
    if (m->codes || (m->codes = part(q, ""))) return plain(q);
    m->codes = part(q, "_blocks");
    m->scales = part(q, "_scales");
    if (m->codes && m->scales) return blocks(q);
    return fm_fail(q->err, FM_E_NOT_FOUND, "%s: the tensor %.200s.weight is missing",
                   q->store->files[0].path, q->module);
}

fm_status ts_find_matrix(const ts_store *store, const json_t *config, const char *module,
                         int64_t count, int64_t rows, int64_t cols, ts_matrix *out, fm_error *err)
{
    query q = {store, config, module, count, rows, cols, out, err};
    *out = (ts_matrix){.count = count ? count : 1};
    if (count < 0 || rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return fm_fail(err, FM_E_ARGUMENT, "%.200s: a matrix of %lld x %lld cannot be", module,
                       (long long)rows, (long long)cols);
    fm_status status = find(&q);
    if (status) *out = (ts_matrix){0};
    return status;
}
