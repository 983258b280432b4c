/* load.c - the resident weights, read to the places that bind.c gave them. */
#include "model/inside.h"

#include "base/mem.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* One of the threads that load. */
typedef struct loader {
    md_model *m;
    unsigned char *scratch; /* for re-ordering rows */
    size_t scratch_bytes;
    fm_error *err;
} loader;

/* Read t, rows of row_bytes, re-ordered. */
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

/* Is it read row by row, or multiplied in float32 at every precision? */
static bool wants_rows(const md_model *m, const md_spec *s, md_mat part)
{
    if (s->layer < 0) return part == MD_EMBED && !m->layout.tied;
    bool delta = m->config.layer[s->layer].mixer == MD_DELTANET;
    return part == MD_KV_B || (delta && md_deltanet_is_exact(&m->config, part));
}

/* Other products go through strips where they like them. */
static bool in_strips(const md_model *m, const md_spec *s, int p, const kn_mat *mat)
{
    return kn_likes_strips(m->options.isa, m->options.precision) &&
           s->part_rows[p] % KN_STRIP_ROWS == 0 && kn_can_strip(mat) &&
           !wants_rows(m, s, s->part[p]);
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
        if (in_strips(m, s, p, mat)) kn_to_strips(mat);
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
                       ? any_infinite_32(both[k], b->m.scales->bytes / 4, 0x7f800000)
                       : any_infinite_16(both[k], b->m.scales->bytes / 2,
                                         m->scale_type == KN_F16 ? 0x7c00 : 0x7f80);
        if (bad)
            return fm_fail(err, FM_E_NUMERIC, "%s: a scale is not a finite number", b->spec->name);
    }
    return FM_OK;
}

static fm_status load_bias(loader *l, const md_binding *b, float *dst)
{
    const md_spec *s = b->spec;
    size_t n = b->floats;
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
    at += b->codes;
    if (b->m.scales) shape->scales = at;
    at += b->scales;
    if (b->m.biases) shape->biases = at;
    at += b->scales;
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
    size_t n = b->floats;
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
    size_t done = atomic_fetch_add(&all->done, b->bytes) + b->bytes;
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
