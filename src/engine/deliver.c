/* A row of logits becomes a token, text and an event. */
#include "engine/internal.h"

#include "base/clock.h"

#include <string.h>

const char *en_finish_name(en_finish finish)
{
    switch (finish) {
    case EN_RUNNING: return "running";
    case EN_FINISH_STOP: return "stop";
    case EN_FINISH_LENGTH: return "length";
    case EN_FINISH_CANCELLED: return "cancelled";
    case EN_FINISH_ERROR: return "error";
    }
    return "unknown";
}

static void fill_rates(en_choice *c)
{
    en_request_stats *s = &c->stats;
    double start = c->request->submitted;
    if (c->started > 0) s->queue_ms = (c->started - start) * 1e3;
    if (c->first_token <= 0) return;
    s->prefill_ms = (c->first_token - c->started) * 1e3;
    s->ttft_ms = (c->first_token - start) * 1e3;
    s->decode_ms = (c->last_token - c->first_token) * 1e3;
    int computed = s->prompt_tokens - s->cached_tokens;
    s->prefill_tok_s = s->prefill_ms > 0 ? computed / s->prefill_ms * 1e3 : 0;
    s->decode_tok_s = s->tokens > 1 && s->decode_ms > 0 ? (s->tokens - 1) / s->decode_ms * 1e3 : 0;
}

static en_event new_event(en_choice *c, en_event_kind kind)
{
    fill_rates(c);
    return (en_event){.request = c->request->id,
                      .choice = c->index,
                      .kind = kind,
                      .prompt_done = c->fed,
                      .token = -1,
                      .text = "",
                      .stats = &c->stats};
}

/* The callback's wish: false ends the choice. */
static bool tell(en_choice *c, const en_event *event)
{
    return c->request->set.on_event(c->request->set.arg, event);
}

void en_finish_choice(en_engine *e, en_choice *c, en_finish finish, const fm_error *error)
{
    bool waited = c->phase == EN_WAITING;
    c->phase = EN_OVER;
    if (c->slot) en_release_slot(e, c);
    if (c->stream && !c->stop_seen) tx_stream_finish(c->stream, &c->held, NULL);
    en_event event = new_event(c, EN_EVENT_DONE);
    event.finish = finish;
    event.error = error;
    event.stop = c->stop_seen;
    if (!c->stop_seen && c->held.length) {
        event.text = c->held.data;
        event.text_bytes = c->held.length;
    }
    pthread_mutex_lock(&e->lock);
    if (waited) e->waiting--;
    else e->running--;
    pthread_mutex_unlock(&e->lock);
    tell(c, &event);
}

bool en_report_prompt(en_engine *e, en_choice *c)
{
    en_event event = new_event(c, EN_EVENT_PROMPT);
    if (tell(c, &event)) return true;
    en_finish_choice(e, c, EN_FINISH_CANCELLED, NULL);
    return false;
}

static bool is_end(const en_engine *e, const en_request *r, int32_t id)
{
    for (int i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] == id) return true;
    return !r->ignore_end && e->chat && tx_chat_is_eos(e->chat, id);
}

/* Where the first stop string begins in the held text; length if there is none. */
static size_t find_stop(en_choice *c)
{
    const en_request *r = &c->request->set;
    size_t best = c->held.length;
    for (int i = 0; i < r->n_stop; i++) {
        const char *at = memmem(c->held.data, c->held.length, r->stop[i], strlen(r->stop[i]));
        if (!at || (size_t)(at - c->held.data) >= best) continue;
        best = (size_t)(at - c->held.data);
        c->stop_seen = r->stop[i];
    }
    return best;
}

/* How many bytes at the end of the held text may be the beginning of a stop string. */
static size_t undecided(const en_choice *c)
{
    const en_request *r = &c->request->set;
    size_t most = 0;
    for (int i = 0; i < r->n_stop; i++) {
        size_t n = strlen(r->stop[i]) - 1;
        if (n > c->held.length) n = c->held.length;
        for (; n > most; n--)
            if (!memcmp(c->held.data + c->held.length - n, r->stop[i], n)) {
                most = n;
                break;
            }
    }
    return most;
}

/* Send the token with the text that is certain, and keep the rest. */
static bool send_token(en_engine *e, en_choice *c, en_event *event)
{
    size_t ready = c->held.length ? find_stop(c) : 0;
    if (!c->stop_seen && !event->end_token) ready -= ready ? undecided(c) : 0;
    char kept = 0;
    if (ready) {
        kept = c->held.data[ready];
        c->held.data[ready] = 0;
        event->text = c->held.data;
        event->text_bytes = ready;
    }
    bool go_on = tell(c, event);
    if (ready) {
        c->held.data[ready] = kept;
        memmove(c->held.data, c->held.data + ready, c->held.length - ready + 1);
        c->held.length -= ready;
    }
    if (!go_on) en_finish_choice(e, c, EN_FINISH_CANCELLED, NULL);
    return go_on;
}

static fm_status draw(en_engine *e, en_choice *c, float *logits, en_event *event, fm_error *err)
{
    const en_request *r = &c->request->set;
    int vocab = md_describe(e->model)->vocab;
    bool wants_logprobs = r->logprobs >= 0;
    if (wants_logprobs || r->mask.mask) {
        for (int i = 0; i < vocab; i++)
            if (!(logits[i] < (float)1e38 && logits[i] > (float)-1e38))
                return fm_fail(err, FM_E_NUMERIC,
                               "the model gave a logit that is not a number (token %d)", i);
    }
    /* The mask may change the row; the logprob of the drawn token needs it as it was. */
    float base = 0;
    if (wants_logprobs) {
        float p0;
        en_logprobs(logits, vocab, 0, &p0, e->top, r->logprobs);
        base = logits[0] - p0;
        memcpy(e->raw, logits, (size_t)vocab * sizeof *logits);
    }
    if (r->mask.mask && !r->mask.mask(r->mask.arg, c->index, logits, vocab))
        return fm_fail(err, FM_E_ARGUMENT, "the token mask (a grammar) failed");
    fm_status status = en_sampler_pick(c->sampler, logits, e->sampling_scratch, &c->next, err);
    if (!status) status = en_sampler_accept(c->sampler, c->next, true, err);
    if (status) return status;
    event->token = c->next;
    if (wants_logprobs) {
        event->logprob = e->raw[c->next] - base;
        event->top = e->top;
        event->n_top = r->logprobs;
    }
    return FM_OK;
}

static void count_token(en_engine *e, en_choice *c)
{
    c->last_token = bs_now();
    c->stats.tokens++;
    pthread_mutex_lock(&e->lock);
    e->totals.tokens++;
    if (c->stats.tokens == 1) {
        c->first_token = c->last_token;
        e->totals.ttft_s = c->first_token - c->request->submitted;
    }
    pthread_mutex_unlock(&e->lock);
}

static bool fail(en_engine *e, en_choice *c, const fm_error *err)
{
    en_finish_choice(e, c, EN_FINISH_ERROR, err);
    return false;
}

bool en_deliver_logits(en_engine *e, en_choice *c, float *logits)
{
    const en_request *r = &c->request->set;
    fm_error err;
    if (r->on_logits) r->on_logits(r->arg, c->index, logits, md_describe(e->model)->vocab);
    if (r->max_tokens == 0) {
        c->first_token = c->last_token = bs_now();
        en_finish_choice(e, c, EN_FINISH_LENGTH, NULL);
        return false;
    }
    en_event event = {0};
    if (draw(e, c, logits, &event, &err)) return fail(e, c, &err);
    count_token(e, c);
    bool end = is_end(e, r, c->next);
    if (c->holding) { /* an end that is drawn before the set has settled is no end */
        c->phase = EN_ANSWER;
        return true;
    }
    if (!end && c->stream && tx_stream_push(c->stream, c->next, &c->held, &err))
        return fail(e, c, &err);
    en_event out = new_event(c, EN_EVENT_TOKEN);
    out.token = event.token;
    out.end_token = end;
    out.logprob = event.logprob;
    out.top = event.top;
    out.n_top = event.n_top;
    if (!send_token(e, c, &out)) return false;

    bool satisfied = !end && r->mask.accept && !r->mask.accept(r->mask.arg, c->index, c->next);
    bool full = (r->max_tokens > 0 && c->stats.tokens >= r->max_tokens) ||
                r->n_prompt + c->stats.tokens >= e->plan.context;
    if (end || c->stop_seen || satisfied) {
        en_finish_choice(e, c, EN_FINISH_STOP, NULL);
        return false;
    }
    if (full) {
        en_finish_choice(e, c, EN_FINISH_LENGTH, NULL);
        return false;
    }
    c->phase = EN_ANSWER;
    return true;
}
