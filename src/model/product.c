#include "model/product.h"

#include <string.h>

/* Below this many multiplications a job is not worth waking the others for. */
enum { SMALL_JOB = 1 << 15, TASKS_A_THREAD = 16, PREPARE_ALONE = 8 };

typedef struct job {
    md_run *run;
    md_item *items;
    int n;
} job;

static size_t work_of(const md_item *it)
{
    return (size_t)it->w->rows * (size_t)it->w->cols * (size_t)(it->t1 - it->t0) * (it->up ? 2 : 1);
}

static void add_bias(const md_item *it, float *y, const float *bias, int r0, int r1)
{
    if (!bias) return;
    for (int t = it->t0; t < it->t1; t++) {
        float *row = y + (size_t)t * it->y_stride;
        for (int r = r0; r < r1; r++) row[r] += bias[r];
    }
}

static void run_rows(const md_run *run, const md_item *it, int r0, int r1)
{
    kn_matmul(it->y, it->y_stride, it->w, it->x, r0, r1, it->t0, it->t1);
    add_bias(it, it->y, it->bias, r0, r1);
    if (!it->up) return;
    kn_matmul(it->scratch, it->y_stride, it->up, it->x, r0, r1, it->t0, it->t1);
    add_bias(it, it->scratch, it->up_bias, r0, r1);
    const md_arch *c = &run->model->config;
    for (int t = it->t0; t < it->t1; t++) {
        float *gate = it->y + (size_t)t * it->y_stride + r0;
        const float *up = it->scratch + (size_t)t * it->y_stride + r0;
        if (c->swiglu_limit > 0)
            kn_swiglu_clamped(run->isa, gate, gate, up, r1 - r0, c->swiglu_alpha, c->swiglu_limit);
        else kn_silu_mul(run->isa, gate, gate, up, r1 - r0);
    }
}

static void run_task(void *arg, int index, int worker)
{
    (void)worker;
    const job *j = arg;
    int lo = 0, hi = j->n - 1; /* the last item that begins at or before this task */
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (j->items[mid].first_task <= index) lo = mid;
        else hi = mid - 1;
    }
    const md_item *it = &j->items[lo];
    int r0 = (index - it->first_task) * it->rows_each, r1 = r0 + it->rows_each;
    run_rows(j->run, it, r0, r1 < it->w->rows ? r1 : it->w->rows);
}

void md_run_items(md_run *r, md_item *items, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++) total += work_of(&items[i]);
    bool alone = total < SMALL_JOB || r->threads == 1;
    size_t each = total / (size_t)(r->threads * TASKS_A_THREAD) + 1;
    int tasks = 0;
    for (int i = 0; i < n; i++) {
        md_item *it = &items[i];
        size_t a_row = work_of(it) / (size_t)it->w->rows + 1;
        size_t rows = alone ? (size_t)it->w->rows : each / a_row + 1;
        rows = (rows + KN_ROW_BLOCK - 1) / KN_ROW_BLOCK * KN_ROW_BLOCK;
        if (rows > (size_t)it->w->rows) rows = (size_t)it->w->rows;
        it->rows_each = (int)rows;
        it->first_task = tasks;
        tasks += (it->w->rows + it->rows_each - 1) / it->rows_each;
    }
    job j = {.run = r, .items = items, .n = n};
    bs_pool_run(alone ? NULL : r->pool, run_task, &j, tasks);
}

int md_group_of(const kn_mat *w)
{
    return w->format == KN_AFFINE ? w->group : 0;
}

typedef struct preparing {
    const kn_act *act;
    int n, each;
} preparing;

static void prepare_some(void *arg, int index, int worker)
{
    (void)worker;
    const preparing *p = arg;
    int t0 = index * p->each, t1 = t0 + p->each;
    kn_act_prepare(p->act, t0, t1 < p->n ? t1 : p->n);
}

void md_prepare(md_run *r, kn_act *a, int area, const float *x, size_t stride, int n, int cols,
                int group)
{
    unsigned char *scratch = (unsigned char *)r->act + (size_t)area * r->act_bytes;
    kn_act_init(a, r->isa, x, stride, n, cols, group, r->model->options.precision, scratch);
    preparing p = {.act = a, .n = n, .each = n};
    if (n > PREPARE_ALONE) p.each = (n + r->threads - 1) / r->threads;
    bs_pool_run(r->pool, prepare_some, &p, (n + p.each - 1) / p.each);
}

/* Two group sizes are prepared at a time; more in further jobs. */
void md_products(md_run *r, const float *x, size_t stride, int n, const md_product *p, int count)
{
    bool done[MD_MAX_PRODUCTS] = {0};
    for (;;) {
        md_item items[MD_MAX_PRODUCTS];
        kn_act act[2];
        int n_acts = 0, n_items = 0;
        for (int i = 0; i < count; i++) {
            if (done[i] || !p[i].w->rows) continue;
            int group = p[i].exact ? MD_EXACT_GROUP : md_group_of(p[i].w), a = 0;
            while (a < n_acts && act[a].group != group) a++;
            if (a == 2) continue;
            if (a == n_acts) md_prepare(r, &act[n_acts++], a, x, stride, n, p[i].w->cols, group);
            items[n_items++] = (md_item){.w = p[i].w,
                                         .x = &act[a],
                                         .bias = p[i].bias,
                                         .y = p[i].y,
                                         .y_stride = p[i].y_stride,
                                         .t1 = n};
            done[i] = true;
        }
        if (!n_items) return;
        md_run_items(r, items, n_items);
    }
}
