/* Logits of given tokens, chunk by chunk: the yardstick for exactness. */
#include "base/clock.h"
#include "engine/internal.h"

static fm_status check_score(const en_engine *e, const int32_t *ids, int n, int *chunk,
                             fm_error *err)
{
    int vocab = md_describe(e->model)->vocab;
    if (n < 1) return fm_fail(err, FM_E_ARGUMENT, "no token to score");
    if (n > e->plan.context)
        return fm_fail(err, FM_E_LIMIT, "%d tokens are more than the context of %d", n,
                       e->plan.context);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return fm_fail(err, FM_E_ARGUMENT, "token %d is %d, the vocabulary has 0 to %d", i,
                           ids[i], vocab - 1);
    int most =
        e->options.max_logits < e->plan.max_tokens ? e->options.max_logits : e->plan.max_tokens;
    if (*chunk > most)
        return fm_fail(err, FM_E_LIMIT, "a chunk of %d tokens: the engine was opened for %d",
                       *chunk, most);
    if (*chunk < 1) *chunk = most;
    return FM_OK;
}

fm_status en_score(en_engine *e, const int32_t *ids, int n, int chunk, en_score_fn *fn, void *arg,
                   fm_error *err)
{
    fm_status status = check_score(e, ids, n, &chunk, err);
    if (status) return status;
    en_slot *slot = &e->slots[0];
    if (slot->user) return fm_fail(err, FM_E_BUSY, "the engine is answering a request");
    int vocab = md_describe(e->model)->vocab;
    en_clear_slot(e, slot);
    bool go_on = true;
    for (int at = 0; at < n && !status && go_on; at += chunk) {
        int take = n - at < chunk ? n - at : chunk;
        for (int i = 0; i < take; i++) e->batch[i] = (md_token){ids[at + i], slot->state, true};
        double start = bs_now();
        status = md_forward(e->run, e->batch, take, take >= XP_PREFILL_FROM, e->logits, err);
        en_count_pass(e, take, 0, 0, bs_now() - start);
        pthread_mutex_lock(&e->lock);
        e->totals.prompt_tokens += (uint64_t)take;
        pthread_mutex_unlock(&e->lock);
        for (int i = 0; i < take && !status && go_on; i++)
            go_on = fn(arg, at + i, e->logits + (size_t)i * (size_t)vocab, vocab);
    }
    en_clear_slot(e, slot);
    return status;
}
