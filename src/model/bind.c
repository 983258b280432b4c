/* bind.c - every tensor of the schema found in the store, and its place in memory. */
#include "model/inside.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

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

static size_t code_bytes(const md_binding *b)
{
    return (size_t)b->m.count * (size_t)b->m.shape.rows * b->m.shape.row_bytes;
}

/* One of scales and biases. */
static size_t scale_bytes(const md_binding *b)
{
    return b->m.scales ? (size_t)b->m.scales->bytes : 0;
}

static size_t bias_rows(const md_spec *s)
{
    return (size_t)(s->count ? s->count : 1) * (size_t)s->rows;
}

static size_t vector_floats(const md_spec *s)
{
    return (size_t)s->rows * (size_t)(s->cols ? s->cols : 1);
}

/* --- finding ---------------------------------------------------------------------------------- */

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
    b->bytes = rounded(code_bytes(b)) + 2 * rounded(scale_bytes(b)) +
               (b->bias ? rounded(bias_rows(s) * sizeof(float)) : 0);
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
    b->bytes = rounded(vector_floats(s) * sizeof(float));
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

/* --- reading ---------------------------------------------------------------------------------- */

/* One of the threads that load. */
typedef struct loader {
    md_model *m;
    unsigned char *scratch; /* for re-ordering rows */
    size_t scratch_bytes;
    fm_error *err;
} loader;

/* Read `bytes` of t as rows of row_bytes, re-ordered. */
static fm_status read_rows(loader *l, const md_spec *s, const ts_tensor *t, size_t row_bytes,
                           unsigned char *dst)
{
    md_model *m = l->m;
    if (!t) return FM_OK;
    if (s->order == MD_ORDER_PLAIN) return ts_read(m->store, t, 0, t->bytes, dst, l->err);
    if (t->bytes > l->scratch_bytes) {
        bs_pages_free(l->scratch, l->scratch_bytes);
        l->scratch_bytes = t->bytes;
        l->scratch = bs_pages_alloc(t->bytes);
        if (!l->scratch) return fm_fail_nomem(l->err, s->name);
    }
    fm_status status = ts_read(m->store, t, 0, t->bytes, l->scratch, l->err);
    for (int i = 0; i < s->rows && !status; i++)
        memcpy(dst + (size_t)i * row_bytes,
               l->scratch + (size_t)md_source_row(&m->config, s->order, i) * row_bytes, row_bytes);
    return status;
}

static md_weights *weights_of(md_model *m, const md_spec *s)
{
    return s->layer < 0 ? &m->globals : &m->layers[s->layer].w;
}

/* The read matrix becomes the spec's parts. */
static void place_parts(md_model *m, const md_binding *b, const float *bias)
{
    const md_spec *s = b->spec;
    md_weights *w = weights_of(m, s);
    size_t row = 0;
    for (int p = 0; p < s->n_parts; p++) {
        kn_mat *mat = &w->mat[s->part[p]];
        *mat = b->m.shape;
        mat->rows = (int)b->m.count * s->part_rows[p];
        mat->w = (const unsigned char *)mat->w + row * mat->row_bytes;
        if (mat->scales)
            mat->scales = (const unsigned char *)mat->scales + row * mat->scale_row_bytes;
        if (mat->biases)
            mat->biases = (const unsigned char *)mat->biases + row * mat->scale_row_bytes;
        if (bias) w->bias[s->part[p]] = bias + row;
        row += (size_t)s->part_rows[p];
    }
}

enum { AT_ONCE = 1024 }; /* values that are looked at without a branch, several at a time */

/* Is an exponent all ones (infinite, or not a number)? */
static bool any_infinite_16(const unsigned char *p, size_t n, uint16_t exponent)
{
    for (size_t i = 0; i < n; i += AT_ONCE) {
        uint16_t v[AT_ONCE] = {0}, found = 0;
        memcpy(v, p + i * sizeof *v, (n - i < AT_ONCE ? n - i : AT_ONCE) * sizeof *v);
        for (int k = 0; k < AT_ONCE; k++) found |= (v[k] & exponent) == exponent;
        if (found) return true;
    }
    return false;
}

static bool any_infinite_32(const unsigned char *p, size_t n, uint32_t exponent)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + i * sizeof v, sizeof v);
        if ((v & exponent) == exponent) return true;
    }
    return false;
}

static fm_status check_scales(const md_binding *b, fm_error *err)
{
    const kn_mat *m = &b->m.shape;
    if (m->format != KN_AFFINE && m->format != KN_F8_BLOCK) return FM_OK;
    const void *both[2] = {m->scales, m->biases};
    for (int k = 0; k < 2; k++) {
        if (!both[k]) continue;
        bool bad = m->scale_type == KN_F32
                       ? any_infinite_32(both[k], scale_bytes(b) / 4, 0x7f800000)
                       : any_infinite_16(both[k], scale_bytes(b) / 2,
                                         m->scale_type == KN_F16 ? 0x7c00 : 0x7f80);
        if (bad)
            return fm_fail(err, FM_E_NUMERIC, "%s: a scale is not a finite number", b->spec->name);
    }
    return FM_OK;
}

static fm_status load_bias(loader *l, const md_binding *b, float *dst)
{
    const md_spec *s = b->spec;
    size_t n = bias_rows(s);
    fm_status status = ts_read_floats(l->m->store, b->bias, n, dst, l->err);
    if (status || s->order == MD_ORDER_PLAIN) return status;
    float *stored = bs_malloc(n * sizeof *stored);
    if (!stored) return fm_fail_nomem(l->err, s->name);
    memcpy(stored, dst, n * sizeof *stored);
    for (int i = 0; i < s->rows; i++) dst[i] = stored[md_source_row(&l->m->config, s->order, i)];
    bs_free(stored);
    return FM_OK;
}

static fm_status load_matrix(loader *l, md_binding *b)
{
    md_model *m = l->m;
    kn_mat *shape = &b->m.shape;
    unsigned char *at = m->arena + b->offset;
    shape->w = at;
    at += rounded(code_bytes(b));
    if (b->m.scales) shape->scales = at;
    at += rounded(scale_bytes(b));
    if (b->m.biases) shape->biases = at;
    at += rounded(scale_bytes(b));
    fm_status status = read_rows(l, b->spec, b->m.codes, shape->row_bytes, (void *)shape->w);
    if (!status)
        status = read_rows(l, b->spec, b->m.scales, shape->scale_row_bytes, (void *)shape->scales);
    if (!status)
        status = read_rows(l, b->spec, b->m.biases, shape->scale_row_bytes, (void *)shape->biases);
    if (!status) status = check_scales(b, l->err);
    if (!status && b->bias) status = load_bias(l, b, (float *)at);
    if (!status) place_parts(m, b, b->bias ? (float *)at : NULL);
    return status;
}

static fm_status load_vector(loader *l, const md_binding *b)
{
    const md_spec *s = b->spec;
    if (!b->vec) return FM_OK;
    float *v = (float *)(l->m->arena + b->offset);
    size_t n = vector_floats(s);
    fm_status status = ts_read_floats(l->m->store, b->vec, n, v, l->err);
    if (status) return status;
    if (s->plus_one && l->m->layout.raw_norms)
        for (size_t i = 0; i < n; i++) v[i] += 1;
    if (s->vec == MD_A_LOG) /* every recurrence wants -exp(A_log) */
        for (size_t i = 0; i < n; i++) v[i] = -kn_expf(v[i]);
    weights_of(l->m, s)->vec[s->vec] = v;
    return FM_OK;
}

static fm_status load_expert_bias(loader *l, const md_binding *b)
{
    float *at = (float *)(l->m->arena + b->offset);
    if (!b->bias) return FM_OK;
    weights_of(l->m, b->spec)->bias[b->spec->part[0]] = at;
    return md_load_expert_bias(l->m, b, at, l->err);
}

static fm_status load_binding(loader *l, md_binding *b)
{
    return b->spec->kind == MD_VECTOR    ? load_vector(l, b)
           : b->spec->kind == MD_EXPERTS ? load_expert_bias(l, b)
                                         : load_matrix(l, b);
}

/* While one thread waits for the disk, another copies and looks for numbers that are none. */
enum { LOADERS = 4 };

typedef struct loading {
    md_model *m;
    loader loader[LOADERS];
    md_progress_fn *progress;
    void *progress_arg;
    _Atomic size_t done;
    pthread_mutex_t lock;
    _Atomic int failed; /* the first binding, in their order, that could not be loaded */
    fm_status status;
    fm_error err;
} loading;

static void load_one(void *arg, int index, int worker)
{
    loading *all = arg;
    if (index > all->failed) return;
    loader *l = &all->loader[worker];
    md_binding *b = &all->m->bindings[index];
    fm_error why;
    l->m = all->m;
    l->err = &why;
    fm_status status = load_binding(l, b);
    size_t done = (all->done += b->bytes);
    if (all->progress && worker == 0) all->progress(all->progress_arg, done, all->m->arena_bytes);
    if (!status) return;
    pthread_mutex_lock(&all->lock);
    if (index < all->failed) {
        all->failed = index;
        all->status = status;
        all->err = why;
    }
    pthread_mutex_unlock(&all->lock);
}

fm_status md_load(md_model *m, md_progress_fn *progress, void *arg, fm_error *err)
{
    if (!m->store)
        return fm_fail(err, FM_E_ARGUMENT, "%s: there are no weights beside this config", m->path);
    if (m->loaded) return FM_OK;
    if (!m->arena) m->arena = bs_pages_alloc(m->arena_bytes);
    if (!m->arena) return fm_fail_nomem(err, "loading the resident weights");
    loading all = {.m = m,
                   .progress = progress,
                   .progress_arg = arg,
                   .lock = PTHREAD_MUTEX_INITIALIZER,
                   .failed = (int)m->n_bindings};
    bs_pool *pool = NULL;
    fm_status status = bs_pool_create(LOADERS, &pool, err);
    if (status) return status;
    bs_pool_run(pool, load_one, &all, (int)m->n_bindings);
    bs_pool_destroy(pool);
    for (int i = 0; i < LOADERS; i++)
        bs_pages_free(all.loader[i].scratch, all.loader[i].scratch_bytes);
    pthread_mutex_destroy(&all.lock);
    if (all.status && err) *err = all.err;
    if (all.status) return all.status;
    if (m->layout.tied) m->globals.mat[MD_HEAD] = m->globals.mat[MD_EMBED];
    m->loaded = true;
    if (progress) progress(arg, m->arena_bytes, m->arena_bytes);
    return FM_OK;
}
