/* attend.h - softmax attention of a batch over the threads of the pool. */
#ifndef MODEL_ATTEND_H
#define MODEL_ATTEND_H

#include "model/inside.h"

/* Heads [first, first + n) of one token: queries and results one head after the other. */
typedef struct md_heads {
    kn_attention k;
    const float *q; /* [n][k.k_dim] */
    float *out;     /* [n][k.v_dim] */
    int first, n;
    const md_state *state;
} md_heads;

typedef struct md_attention_job {
    md_heads (*heads)(const void *arg, int index);
    void (*finish)(const void *arg, int index); /* called when a task has its result; or NULL */
    const void *arg;
    int n_tasks;
} md_attention_job;
void md_attend(md_run *r, const md_attention_job *job);

#endif
