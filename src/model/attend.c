/* attend.c - softmax attention of a batch: which thread takes what.
 *
 * A job is made of tasks: some heads of one token. Where a batch has fewer than keep all threads
 * evenly busy, and each token is a sequence of its own (decode), a task is cut into the parts of
 * KN_ATT_PART positions that kn_attend_group would join all the same: the same bits. Their sums
 * wait in the sequence's own memory, a part after the other: [heads][dim], then the softmaxes. */
#include "model/attend.h"

/* Tasks a thread that even out what one takes longer than another. */
enum { TASKS_A_THREAD = 4 };

size_t md_part_floats(const md_arch *c)
{
    int dim = c->kv_lora > c->head_dim ? c->kv_lora : c->head_dim;
    size_t floats = (size_t)c->n_heads * ((size_t)dim + sizeof(kn_softmax_state) / sizeof(float));
    return (floats + 1) & ~(size_t)1; /* so that softmaxes stand a whole number of them apart */
}

static float *part_sums(const md_heads *h, int part)
{
    return h->state->parts + (size_t)part * h->state->part_floats + h->first * h->k.v_dim;
}

static kn_softmax_state *part_softmax(const md_run *r, const md_heads *h, int part)
{
    size_t behind = (size_t)r->model->config.n_heads * (size_t)h->k.v_dim;
    float *sums = h->state->parts + (size_t)part * h->state->part_floats;
    return (kn_softmax_state *)(void *)(sums + behind) + h->first;
}

typedef struct attending {
    const md_attention_job *job;
    md_run *r;
    int n_parts;
} attending;

static void attend_task(void *arg, int index, int worker)
{
    (void)worker;
    const attending *a = arg;
    md_heads h = a->job->heads(a->job->arg, index);
    kn_attend_group(a->r->isa, h.out, (size_t)h.k.v_dim, h.q, (size_t)h.k.k_dim, h.n, &h.k);
    if (a->job->finish) a->job->finish(a->job->arg, index);
}

static void attend_part(void *arg, int index, int worker)
{
    (void)worker;
    const attending *a = arg;
    md_heads h = a->job->heads(a->job->arg, index / a->n_parts);
    int part = index % a->n_parts;
    kn_attend_part(a->r->isa, part, part_sums(&h, part), (size_t)h.k.v_dim,
                   part_softmax(a->r, &h, part), h.q, (size_t)h.k.k_dim, h.n, &h.k);
}

static void join_task(void *arg, int index, int worker)
{
    (void)worker;
    const attending *a = arg;
    md_heads h = a->job->heads(a->job->arg, index);
    size_t apart = h.state->part_floats;
    for (int i = 0; i < h.n; i++)
        kn_attend_join(a->r->isa, h.out + i * h.k.v_dim, part_sums(&h, 0) + i * h.k.v_dim, apart,
                       part_softmax(a->r, &h, 0) + i,
                       apart * sizeof(float) / sizeof(kn_softmax_state), &h.k);
    if (a->job->finish) a->job->finish(a->job->arg, index);
}

/* Into how many parts tasks are worth cutting. */
static int parts_worth(const md_run *r, int n_tasks)
{
    int last = 0;
    if (r->threads == 1 || n_tasks >= TASKS_A_THREAD * r->threads) return 1;
    for (int i = 0; i < r->n_segments; i++) {
        const md_segment *s = &r->segments[i];
        if (s->count > 1) return 1;
        if (s->position > last) last = s->position;
    }
    return last / KN_ATT_PART + 1;
}

void md_attend(md_run *r, const md_attention_job *job)
{
    attending a = {.job = job, .r = r, .n_parts = parts_worth(r, job->n_tasks)};
    if (a.n_parts == 1) {
        bs_pool_run(r->pool, attend_task, &a, job->n_tasks);
        return;
    }
    bs_pool_run(r->pool, attend_part, &a, job->n_tasks * a.n_parts);
    bs_pool_run(r->pool, join_task, &a, job->n_tasks);
}
