/* bind.c - every tensor of the schema found in the store, and its place in memory. */
#include "model/inside.h"

#include "base/mem.h"

#include <stdio.h>

enum { ALIGN = 64 };

fm_status md_use_tensor(md_model *m, const ts_tensor *t, fm_error *err)
{
    if (!t) return FM_OK;
    if (m->n_used == m->used_capacity) {
        size_t capacity = m->used_capacity ? 2 * m->used_capacity : 1024;
        const ts_tensor **grown = bs_realloc(m->used, capacity, sizeof *grown);
        if (!grown) return fm_fail_nomem(err, "opening the model");
        m->used = grown;
        m->used_capacity = capacity;
    }
    m->used[m->n_used++] = t;
    return FM_OK;
}

static size_t rounded(size_t n)
{
    return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static const ts_tensor *find_bias(const md_model *m, const md_spec *s)
{
    char name[400];
    snprintf(name, sizeof name, "%s.bias", s->name);
    return ts_find(m->store, name);
}

static fm_status bind_bias(md_model *m, md_binding *b, fm_error *err)
{
    const md_spec *s = b->spec;
    b->bias = find_bias(m, s);
    if (!b->bias && s->bias)
        return fm_fail(err, FM_E_FORMAT, "%s: the tensor %s.bias is missing",
                       ts_file_path(m->store, 0), s->name);
    return md_use_tensor(m, b->bias, err);
}

static fm_status bind_matrix(md_model *m, md_binding *b, fm_error *err)
{
    const md_spec *s = b->spec;
    fm_status status =
        ts_find_matrix(m->store, m->json, s->name, s->count, s->rows, s->cols, &b->m, err);
    if (status) return status;
    if (b->m.shape.format == KN_F8_BLOCK && (s->order != MD_ORDER_PLAIN || s->n_parts > 1))
        return fm_fail(err, FM_E_UNSUPPORTED, "%s: 8-bit blocks are not supported for this tensor",
                       s->name);
    status = md_use_tensor(m, b->m.codes, err);
    if (!status) status = md_use_tensor(m, b->m.scales, err);
    if (!status) status = md_use_tensor(m, b->m.biases, err);
    if (!status) status = bind_bias(m, b, err);
    b->codes = rounded((size_t)b->m.count * (size_t)b->m.shape.rows * b->m.shape.row_bytes);
    b->scales = b->m.scales ? rounded((size_t)b->m.scales->bytes) : 0; /* and as much for biases */
    b->floats = b->bias ? (size_t)(s->count ? s->count : 1) * (size_t)s->rows : 0;
    b->bytes = b->codes + 2 * b->scales + rounded(b->floats * sizeof(float));
    return status;
}

static fm_status bind_vector(md_model *m, md_binding *b, fm_error *err)
{
    const md_spec *s = b->spec;
    b->vec = ts_find(m->store, s->name);
    if (!b->vec && s->optional) return FM_OK;
    if (!b->vec)
        return fm_fail(err, FM_E_FORMAT, "%s: the tensor %s is missing", ts_file_path(m->store, 0),
                       s->name);
    b->floats = (size_t)s->rows * (size_t)(s->cols ? s->cols : 1);
    b->bytes = rounded(b->floats * sizeof(float));
    return md_use_tensor(m, b->vec, err);
}

fm_status md_bind(md_model *m, fm_error *err)
{
    m->bindings = bs_calloc(m->schema.n, sizeof *m->bindings);
    if (!m->bindings) return fm_fail_nomem(err, "opening the model");
    size_t offset = 0;
    for (size_t i = 0; i < m->schema.n; i++) {
        const md_spec *s = &m->schema.spec[i];
        if (s->kind == MD_EXPERTS && !s->bias) continue;
        md_binding *b = &m->bindings[m->n_bindings++];
        b->spec = s;
        fm_status status = s->kind == MD_VECTOR    ? bind_vector(m, b, err)
                           : s->kind == MD_EXPERTS ? md_bind_expert_bias(m, b, err)
                                                   : bind_matrix(m, b, err);
        if (status == FM_E_NOT_FOUND && err) err->code = FM_E_FORMAT;
        if (status) return status == FM_E_NOT_FOUND ? FM_E_FORMAT : status;
        b->offset = offset;
        offset += b->bytes;
    }
    m->arena_bytes = offset + 4096;
    return FM_OK;
}
