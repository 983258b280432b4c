/* attend.c - attention over parts of the cached positions, and their joining. */
#include "kernels/table.h"

#include <string.h>

enum { HEADS = 16 }; /* a pass over the cache */

static int first_part(const kn_attention *a)
{
    return a->begin / KN_ATT_PART;
}

static int parts_end(const kn_attention *a)
{
    return (a->end - 1) / KN_ATT_PART + 1;
}

bool kn_attend_part(kn_isa isa, int part, float *out, size_t out_stride, kn_softmax_state *soft,
                    const float *q, size_t q_stride, int n, const kn_attention *a)
{
    if (part < first_part(a) || part >= parts_end(a)) return false;
    kn_attention some = *a;
    int begin = part * KN_ATT_PART, end = begin + KN_ATT_PART;
    if (begin > a->begin) some.begin = begin, some.sink = NULL;
    if (end < a->end) some.end = end;
    kn_table_of(isa)->attend_part(out, out_stride, soft, q, q_stride, n, &some);
    return true;
}

void kn_attend_join(kn_isa isa, float *out, const float *parts, size_t apart,
                    const kn_softmax_state *soft, size_t soft_apart, const kn_attention *a)
{
    const kn_table *table = kn_table_of(isa);
    int p = first_part(a);
    kn_softmax_state all = soft[(size_t)p * soft_apart];
    memcpy(out, parts + (size_t)p * apart, (size_t)a->v_dim * sizeof *out);
    while (++p < parts_end(a))
        table->attend_more(out, &all, parts + (size_t)p * apart, &soft[(size_t)p * soft_apart],
                           a->v_dim);
    table->scale(out, 1.0f / all.sum, a->v_dim);
}

/* At most HEADS heads, part after part. */
static void attend_heads(kn_isa isa, float *out, size_t out_stride, const float *q, size_t q_stride,
                         int n, const kn_attention *a)
{
    const kn_table *table = kn_table_of(isa);
    kn_softmax_state soft[HEADS], more_soft[HEADS];
    float more[HEADS * KN_ATT_MAX_DIM];
    size_t width = (size_t)a->v_dim;
    int part = first_part(a);
    kn_attend_part(isa, part, out, out_stride, soft, q, q_stride, n, a);
    while (++part < parts_end(a)) {
        kn_attend_part(isa, part, more, width, more_soft, q, q_stride, n, a);
        for (int h = 0; h < n; h++)
            table->attend_more(out + (size_t)h * out_stride, &soft[h], more + (size_t)h * width,
                               &more_soft[h], a->v_dim);
    }
    for (int h = 0; h < n; h++)
        table->scale(out + (size_t)h * out_stride, 1.0f / soft[h].sum, a->v_dim);
}

void kn_attend_group(kn_isa isa, float *out, size_t out_stride, const float *q, size_t q_stride,
                     int n, const kn_attention *a)
{
    kn_attention some = *a;
    for (int h = 0; h < n; h += HEADS) {
        some.sink = a->sink ? a->sink + h : NULL;
        attend_heads(isa, out + (size_t)h * out_stride, out_stride, q + (size_t)h * q_stride,
                     q_stride, n - h < HEADS ? n - h : HEADS, &some);
    }
}

void kn_attend(kn_isa isa, float *out, const float *q, const kn_attention *a)
{
    kn_attend_group(isa, out, (size_t)a->v_dim, q, (size_t)a->k_dim, 1, a);
}
