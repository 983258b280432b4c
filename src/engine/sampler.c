#include "engine/sampler.h"

#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit;
    int32_t id;
    double p; /* weight */
} candidate;

struct en_sampler {
    en_sampling set;
    int vocab;
    uint64_t draws; /* made so far */
    en_bias *bias;
    int n_bias;
    candidate *list; /* [vocab] and */
    float *weights;  /* [vocab]: the caller's scratch during a pick */

    /* Only with penalties: every token of the sequence, how often each id was generated, and a
     * stamp an id that keeps one pass over the window from punishing an id twice. */
    int32_t *history;
    size_t n_history, history_capacity;
    int32_t *generated, *stamp;
    int32_t round;
    int32_t *distinct; /* the generated ids, each once */
    int n_distinct;
};

en_sampling en_sampling_default(void)
{
    return (en_sampling){
        .top_p = 1.0f, .repeat_penalty = 1.0f, .repeat_last_n = -1, .temperature = 0};
}

static bool within(float x, float low, float high)
{
    return x >= low && x <= high; /* false for NaN */
}

fm_status en_sampling_check(const en_sampling *s, fm_error *err)
{
    const char *field = !within(s->temperature, 0, 100)           ? "temperature (0 to 100)"
                        : s->top_k < 0                            ? "top_k (0 or more)"
                        : !within(s->top_p, 0, 1)                 ? "top_p (0 to 1)"
                        : !within(s->min_p, 0, 1)                 ? "min_p (0 to 1)"
                        : !within(s->repeat_penalty, 0.01f, 100)  ? "repeat_penalty (0.01 to 100)"
                        : !within(s->presence_penalty, -100, 100) ? "presence_penalty (-100 to 100)"
                        : !within(s->frequency_penalty, -100, 100)
                            ? "frequency_penalty (-100 to 100)"
                        : s->repeat_last_n < -1 ? "repeat_last_n (-1 or more)"
                                                : NULL;
    return field ? fm_fail(err, FM_E_ARGUMENT, "sampling: %s is out of range", field) : FM_OK;
}

static bool has_penalties(const en_sampling *s)
{
    return s->repeat_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

static bool take_memory(en_sampler *s, const en_bias *bias, int n_bias)
{
    size_t vocab = (size_t)s->vocab;
    if (n_bias) {
        s->bias = bs_calloc((size_t)n_bias, sizeof *s->bias);
        if (!s->bias) return false;
        memcpy(s->bias, bias, (size_t)n_bias * sizeof *bias);
        s->n_bias = n_bias;
    }
    if (!has_penalties(&s->set)) return true;
    s->generated = bs_calloc(vocab, sizeof *s->generated);
    s->stamp = bs_calloc(vocab, sizeof *s->stamp);
    s->distinct = bs_calloc(vocab, sizeof *s->distinct);
    return s->generated && s->stamp && s->distinct;
}

fm_status en_sampler_create(const en_sampling *set, int vocab, const en_bias *bias, int n_bias,
                            en_sampler **out, fm_error *err)
{
    *out = NULL;
    fm_status status = en_sampling_check(set, err);
    if (status) return status;
    for (int i = 0; i < n_bias; i++) {
        if (bias[i].id < 0 || bias[i].id >= vocab)
            return fm_fail(err, FM_E_ARGUMENT, "logit bias: there is no token %d", bias[i].id);
        if (isnan(bias[i].bias) || bias[i].bias == INFINITY)
            return fm_fail(err, FM_E_ARGUMENT, "logit bias of token %d is not a number",
                           bias[i].id);
    }
    en_sampler *s = bs_calloc(1, sizeof *s);
    if (!s) return fm_fail_nomem(err, "making a sampler");
    s->set = *set;
    s->vocab = vocab;
    if (!take_memory(s, bias, n_bias)) {
        en_sampler_free(s);
        return fm_fail_nomem(err, "making a sampler");
    }
    *out = s;
    return FM_OK;
}

void en_sampler_free(en_sampler *s)
{
    if (!s) return;
    bs_free(s->bias);
    bs_free(s->history);
    bs_free(s->generated);
    bs_free(s->stamp);
    bs_free(s->distinct);
    bs_free(s);
}

fm_status en_sampler_accept(en_sampler *s, int32_t id, bool generated, fm_error *err)
{
    if (!s->stamp || id < 0 || id >= s->vocab) return FM_OK;
    if (s->n_history == s->history_capacity) {
        size_t capacity = s->history_capacity ? s->history_capacity * 2 : 256;
        int32_t *more = bs_realloc(s->history, capacity, sizeof *more);
        if (!more) return fm_fail_nomem(err, "remembering tokens for penalties");
        s->history = more;
        s->history_capacity = capacity;
    }
    s->history[s->n_history++] = id;
    if (generated && s->generated[id]++ == 0) s->distinct[s->n_distinct++] = id;
    return FM_OK;
}

static void apply_penalties(en_sampler *s, float *logits)
{
    for (int i = 0; i < s->n_bias; i++) logits[s->bias[i].id] += s->bias[i].bias;
    if (!s->stamp) return;
    size_t window = s->n_history;
    if (s->set.repeat_last_n >= 0 && window > (size_t)s->set.repeat_last_n)
        window = (size_t)s->set.repeat_last_n;
    s->round++;
    for (size_t i = s->n_history - window; s->set.repeat_penalty != 1 && i < s->n_history; i++) {
        int32_t id = s->history[i];
        if (s->stamp[id] == s->round) continue;
        s->stamp[id] = s->round;
        if (logits[id] > 0) logits[id] /= s->set.repeat_penalty;
        else logits[id] *= s->set.repeat_penalty;
    }
    for (int i = 0; i < s->n_distinct; i++) {
        int32_t id = s->distinct[i];
        logits[id] -= s->set.presence_penalty;
        logits[id] -= s->set.frequency_penalty * (float)s->generated[id];
    }
}

/* The first of the largest logits; -1 when one is NaN or +infinity, -2 when all are -infinity. */
static int32_t arg_max(const float *logits, int n)
{
    int32_t best = -2;
    float top = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (!(logits[i] < INFINITY)) return -1;
        if (logits[i] > top) {
            top = logits[i];
            best = i;
        }
    }
    return best;
}

static bool before(float la, int32_t ia, float lb, int32_t ib)
{
    return la > lb || (la == lb && ia < ib);
}

static int by_rank(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return before(x->logit, x->id, y->logit, y->id) ? -1 : 1;
}

static void sift_down(candidate *heap, int n, int i)
{
    for (;;) {
        int low = i;
        for (int c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++)
            if (before(heap[low].logit, heap[low].id, heap[c].logit, heap[c].id)) low = c;
        if (low == i) return;
        candidate t = heap[i];
        heap[i] = heap[low];
        heap[low] = t;
        i = low;
    }
}

/* The k best of all, unsorted, in a heap whose root is the worst of them. */
static int select_top_k(candidate *list, const float *logits, int vocab, int k)
{
    int n = 0;
    for (int i = 0; i < vocab; i++) {
        if (logits[i] == -INFINITY) continue;
        if (n < k) {
            list[n++] = (candidate){.logit = logits[i], .id = i};
            if (n == k)
                for (int j = k / 2 - 1; j >= 0; j--) sift_down(list, k, j);
        } else if (before(logits[i], i, list[0].logit, list[0].id)) {
            list[0] = (candidate){.logit = logits[i], .id = i};
            sift_down(list, k, 0);
        }
    }
    return n;
}

/* The tokens whose weight is more than `least`. */
static int select_above(candidate *list, const float *logits, const float *weights, int vocab,
                        float least)
{
    int n = 0;
    for (int i = 0; i < vocab; i++)
        if (weights[i] > least)
            list[n++] = (candidate){.logit = logits[i], .id = i, .p = weights[i]};
    return n;
}

/* Weights of the k tokens of a list, the best of which has logit `top`. */
static double weigh(candidate *list, int n, float top, float temperature)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        list[i].p = kn_expf((list[i].logit - top) / temperature);
        sum += list[i].p;
    }
    return sum;
}

/* Weights of the whole vocabulary. */
static void weigh_all(en_sampler *s, const float *logits, float top)
{
    for (int i = 0; i < s->vocab; i++) s->weights[i] = (logits[i] - top) / s->set.temperature;
    kn_softmax(kn_isa_best(), s->weights, s->vocab);
}

static double sum_of(const candidate *list, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += list[i].p;
    return sum;
}

/* Cut a list sorted by rank to the smallest set that holds top_p of `total`. */
static int cut_top_p(const candidate *list, int n, double total, double top_p)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += list[i].p;
        if (sum >= top_p * total) return i + 1;
    }
    return n;
}

/* A number in [0, 1) that depends on the seed and the number of the draw alone (splitmix64). */
static double uniform(uint64_t seed, uint64_t draw)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + (draw + 1) * 0xbf58476d1ce4e5b9u;
    for (int i = 0; i < 2; i++) {
        z += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

/* The tokens that hold top_p may be sought among those above e^-14 of the best one: sorting the
 * whole vocabulary is slow and almost never needed. */
static int list_likely(en_sampler *s, const float *logits, float top_weight, double *total)
{
    *total = 0;
    if (s->set.top_p >= 1) return select_above(s->list, logits, s->weights, s->vocab, 0);
    for (int i = 0; i < s->vocab; i++) *total += s->weights[i];
    int n = select_above(s->list, logits, s->weights, s->vocab, top_weight * 0x1p-20f);
    if (sum_of(s->list, n) >= s->set.top_p * *total) return n;
    return select_above(s->list, logits, s->weights, s->vocab, 0);
}

/* Fill s->list with what may be drawn, with weights; returns how many. */
static int choose_candidates(en_sampler *s, const float *logits, int32_t best)
{
    const en_sampling *set = &s->set;
    double total;
    int n;
    if (set->top_k > 0 && set->top_k < s->vocab) {
        n = select_top_k(s->list, logits, s->vocab, set->top_k);
        total = weigh(s->list, n, logits[best], set->temperature);
    } else {
        weigh_all(s, logits, logits[best]);
        n = list_likely(s, logits, s->weights[best], &total);
    }
    if (set->top_p < 1) {
        qsort(s->list, (size_t)n, sizeof *s->list, by_rank);
        n = cut_top_p(s->list, n, total, set->top_p);
    }
    if (set->min_p > 0) {
        double most = 0;
        int kept = 0;
        for (int i = 0; i < n; i++) most = s->list[i].p > most ? s->list[i].p : most;
        for (int i = 0; i < n; i++)
            if (s->list[i].p >= set->min_p * most) s->list[kept++] = s->list[i];
        n = kept;
    }
    return n;
}

size_t en_sampler_scratch(int vocab)
{
    return (size_t)vocab * (sizeof(candidate) + sizeof(float));
}

fm_status en_sampler_pick(en_sampler *s, float *logits, void *scratch, int32_t *id, fm_error *err)
{
    int32_t best = arg_max(logits, s->vocab);
    if (best == -1)
        return fm_fail(err, FM_E_NUMERIC, "the model gave a logit that is not a number");
    if (s->n_bias || s->stamp) {
        apply_penalties(s, logits);
        best = arg_max(logits, s->vocab);
    }
    if (best < 0)
        return fm_fail(err, FM_E_NUMERIC,
                       "no token may follow: every one is masked or biased away");
    *id = best;
    if (s->set.temperature <= 0) return FM_OK;

    s->list = scratch;
    s->weights = (float *)(s->list + s->vocab);
    int n = choose_candidates(s, logits, best);
    double at = uniform(s->set.seed, s->draws++) * sum_of(s->list, n);
    for (int i = 0; i < n; i++) {
        at -= s->list[i].p;
        if (at < 0) {
            *id = s->list[i].id;
            return FM_OK;
        }
    }
    return FM_OK; /* rounding left a crumb: the best token it is */
}

void en_logprobs(const float *logits, int vocab, int32_t id, float *logprob, en_logprob *top, int n)
{
    float max = -INFINITY;
    for (int i = 0; i < vocab; i++)
        if (logits[i] > max) max = logits[i];
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += kn_expf(logits[i] - max);
    float base = max + kn_logf((float)sum);
    if (logprob) *logprob = logits[id] - base;

    int kept = 0;
    for (int i = 0; i < vocab && n > 0; i++) {
        float p = logits[i] - base;
        if (kept == n && p <= top[n - 1].logprob) continue;
        int at = kept < n ? kept++ : n - 1;
        for (; at > 0 && top[at - 1].logprob < p; at--) top[at] = top[at - 1];
        top[at] = (en_logprob){i, p};
    }
}
