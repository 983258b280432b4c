/* router.c - a router's logits become k experts and weights. Ties go to the lower index. */
#include "model/inside.h"

#include <math.h>
#include <string.h>

/* Groups that lose get the score 0 (not -inf): that is the reference's behaviour. */
static void mask_groups(const md_router *y, float *choice, int n_experts, float *scratch)
{
    int size = n_experts / y->n_group;
    float *group = scratch;
    for (int g = 0; g < y->n_group; g++) {
        const float *c = choice + g * size;
        float best = -INFINITY, second = -INFINITY;
        for (int i = 0; i < size; i++) {
            if (c[i] > best) {
                second = best;
                best = c[i];
            } else if (c[i] > second) second = c[i];
        }
        group[g] = y->group_rule == MD_GROUP_MAX ? best : best + second;
    }
    int kept[MD_MAX_GROUPS];
    kn_top_k(group, y->n_group, y->topk_group, kept);
    bool keep[MD_MAX_GROUPS] = {false};
    for (int i = 0; i < y->topk_group; i++) keep[kept[i]] = true;
    for (int e = 0; e < n_experts; e++)
        if (!keep[e / size]) choice[e] = 0;
}

/* PhiMoE: each of the two experts is weighted by a softmax over those logits that come near its
 * own, so each weight is near 1. */
static float masked_softmax(const float *logits, int n, int best, int without, float jitter)
{
    float top = logits[best], sum = 0;
    for (int j = 0; j < n; j++) {
        if (j == without) continue;
        float scale = fabsf(logits[j]) > top ? fabsf(logits[j]) : top;
        if ((top - logits[j]) / scale <= 2 * jitter) sum += kn_expf(logits[j] - top);
    }
    return 1 / sum;
}

static void sparsemixer(const md_router *y, const float *logits, int n, int *experts,
                        float *weights)
{
    kn_top_k(logits, n, 2, experts);
    weights[0] = masked_softmax(logits, n, experts[0], -1, y->sparsemixer);
    weights[1] = masked_softmax(logits, n, experts[1], experts[0], y->sparsemixer);
}

void md_route(kn_isa isa, const md_router *y, float *scores, const float *bias, int n_experts,
              int k, float *scratch, int *experts, float *weights)
{
    if (y->sparsemixer > 0) {
        sparsemixer(y, scores, n_experts, experts, weights);
        return;
    }
    if (y->score == MD_SCORE_SOFTMAX) kn_softmax(isa, scores, n_experts);
    else kn_sigmoid(isa, scores, scores, n_experts);
    const float *choice = scores;
    if (bias || y->group_rule != MD_GROUP_NONE) {
        memcpy(scratch, scores, (size_t)n_experts * sizeof *scores);
        if (bias) kn_add(isa, scratch, bias, n_experts);
        if (y->group_rule != MD_GROUP_NONE) mask_groups(y, scratch, n_experts, scratch + n_experts);
        choice = scratch;
    }
    kn_top_k(choice, n_experts, k, experts);
    float sum = 0;
    for (int i = 0; i < k; i++) {
        weights[i] = scores[experts[i]];
        sum += weights[i];
    }
    bool normalise = y->normalise && !(k == 1 && y->not_single);
    for (int i = 0; i < k; i++) {
        if (normalise) weights[i] /= sum + y->norm_eps;
        weights[i] *= y->scale;
    }
}
