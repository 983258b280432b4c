/* Requests come in and go: submit and cancel from any thread, choices taken over by the engine's.
 */
#include "engine/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

en_request en_request_default(const en_engine *e)
{
    return (en_request){.max_tokens = -1, .n = 1, .sampling = e->sampling, .logprobs = -1};
}

static void free_shared(en_shared *s)
{
    if (!s) return;
    for (int i = 0; s->set.stop && i < s->set.n_stop; i++) bs_free((char *)s->set.stop[i]);
    bs_free((void *)s->set.stop);
    bs_free((void *)s->set.prompt);
    bs_free((void *)s->set.bias);
    bs_free((void *)s->set.stop_ids);
    bs_free(s);
}

static fm_status check_counts(const en_request *r, fm_error *err)
{
    if (!r->on_event) return fm_fail(err, FM_E_ARGUMENT, "request: on_event is missing");
    if (!r->prompt || r->n_prompt < 1)
        return fm_fail(err, FM_E_ARGUMENT, "request: the prompt is empty");
    if (r->n < 1 || r->n > EN_MAX_CHOICES)
        return fm_fail(err, FM_E_ARGUMENT, "request: n is %d, not 1 to %d", r->n, EN_MAX_CHOICES);
    if (r->logprobs < -1 || r->logprobs > EN_MAX_TOP)
        return fm_fail(err, FM_E_ARGUMENT, "request: logprobs is %d, not -1 to %d", r->logprobs,
                       EN_MAX_TOP);
    if (r->n_stop < 0 || r->n_stop > EN_MAX_STOPS)
        return fm_fail(err, FM_E_ARGUMENT, "request: %d stop strings, at most %d are taken",
                       r->n_stop, EN_MAX_STOPS);
    if (r->n_stop_ids < 0 || r->n_stop_ids > EN_MAX_STOP_IDS)
        return fm_fail(err, FM_E_ARGUMENT, "request: %d stop ids, at most %d are taken",
                       r->n_stop_ids, EN_MAX_STOP_IDS);
    return FM_OK;
}

static fm_status check_request(const en_engine *e, const en_request *r, fm_error *err)
{
    fm_status status = check_counts(r, err);
    if (!status) status = en_sampling_check(&r->sampling, err);
    if (status) return status;
    int vocab = md_describe(e->model)->vocab;
    for (int i = 0; i < r->n_stop; i++) {
        size_t n = r->stop[i] ? strlen(r->stop[i]) : 0;
        if (n < 1 || n > EN_MAX_TEXT)
            return fm_fail(err, FM_E_ARGUMENT, "request: stop string %d is %s", i + 1,
                           n ? "too long" : "empty");
        if (!e->tokenizer)
            return fm_fail(err, FM_E_UNSUPPORTED,
                           "request: stop strings need a tokenizer, this model folder has none");
    }
    for (int i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return fm_fail(err, FM_E_ARGUMENT,
                           "request: prompt token %d is %d, the vocabulary has 0 to %d", i,
                           r->prompt[i], vocab - 1);
    if (r->n_prompt >= e->plan.context)
        return fm_fail(err, FM_E_LIMIT,
                       "the prompt has %d tokens; with room for one token of answer the context of "
                       "%d is exceeded (give a larger --context)",
                       r->n_prompt, e->plan.context);
    en_sampler *probe; /* checks the biases */
    status = en_sampler_create(&r->sampling, vocab, r->bias, r->n_bias, &probe, err);
    if (!status) en_sampler_free(probe);
    return status;
}

static void *copy_array(const void *from, int n, size_t size, bool *failed)
{
    if (n < 1) return NULL;
    void *to = bs_calloc((size_t)n, size);
    if (to) memcpy(to, from, (size_t)n * size);
    else *failed = true;
    return to;
}

static en_shared *copy_request(const en_request *r)
{
    en_shared *s = bs_calloc(1, sizeof *s);
    if (!s) return NULL;
    bool failed = false;
    s->set = *r;
    s->set.prompt = copy_array(r->prompt, r->n_prompt, sizeof *r->prompt, &failed);
    s->set.bias = copy_array(r->bias, r->n_bias, sizeof *r->bias, &failed);
    s->set.stop_ids = copy_array(r->stop_ids, r->n_stop_ids, sizeof *r->stop_ids, &failed);
    char **stops = r->n_stop ? bs_calloc((size_t)r->n_stop, sizeof *stops) : NULL;
    failed |= r->n_stop && !stops;
    for (int i = 0; stops && i < r->n_stop; i++) {
        stops[i] = bs_strdup(r->stop[i]);
        failed |= !stops[i];
    }
    s->set.stop = (const char *const *)stops;
    if (!failed) return s;
    free_shared(s);
    return NULL;
}

/* All choices of a request as a list; NULL when out of memory. */
static en_choice *make_choices(en_shared *s)
{
    en_choice *first = NULL;
    for (int i = s->set.n - 1; i >= 0; i--) {
        en_choice *c = bs_calloc(1, sizeof *c);
        if (!c) {
            while (first) {
                en_choice *next = first->next_choice;
                bs_free(first);
                first = next;
            }
            return NULL;
        }
        c->request = s;
        c->index = i;
        c->row = -1;
        c->stats.prompt_tokens = s->set.n_prompt;
        c->next_choice = first;
        first = c;
    }
    s->choices_left = s->set.n;
    return first;
}

static void append(en_choice **list, en_choice *more)
{
    while (*list) list = &(*list)->next_choice;
    *list = more;
}

fm_status en_submit(en_engine *e, const en_request *r, uint64_t *id, fm_error *err)
{
    fm_status status = check_request(e, r, err);
    if (status) return status;
    en_shared *s = copy_request(r);
    en_choice *choices = s ? make_choices(s) : NULL;
    if (!choices) {
        free_shared(s);
        return fm_fail_nomem(err, "taking a request");
    }
    s->submitted = bs_now();

    pthread_mutex_lock(&e->lock);
    if (e->waiting > 0 && e->waiting + r->n > e->options.queue) {
        int waiting = e->waiting;
        pthread_mutex_unlock(&e->lock);
        while (choices) {
            en_choice *next = choices->next_choice;
            bs_free(choices);
            choices = next;
        }
        free_shared(s);
        return fm_fail(err, FM_E_BUSY, "%d answers are waiting already; try again later", waiting);
    }
    s->id = ++e->last_id;
    if (id) *id = s->id;
    s->next = e->live;
    e->live = s;
    append(&e->arrived, choices);
    e->waiting += r->n;
    e->totals.requests++;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
    return FM_OK;
}

void en_cancel(en_engine *e, uint64_t id)
{
    pthread_mutex_lock(&e->lock);
    for (en_shared *s = e->live; s; s = s->next)
        if (s->id == id) s->cancelled = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
}

void en_take_arrivals(en_engine *e)
{
    pthread_mutex_lock(&e->lock);
    en_choice *arrived = e->arrived;
    e->arrived = NULL;
    pthread_mutex_unlock(&e->lock);
    append(&e->active, arrived);
}

void en_apply_cancels(en_engine *e)
{
    for (en_choice *c = e->active; c; c = c->next_choice) {
        if (c->phase == EN_OVER) continue;
        pthread_mutex_lock(&e->lock);
        bool cancelled = c->request->cancelled;
        pthread_mutex_unlock(&e->lock);
        if (cancelled) en_finish_choice(e, c, EN_FINISH_CANCELLED, NULL);
    }
}

static void unlink_live(en_engine *e, en_shared *s)
{
    pthread_mutex_lock(&e->lock);
    for (en_shared **at = &e->live; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_mutex_unlock(&e->lock);
}

static void free_choice(en_engine *e, en_choice *c)
{
    en_sampler_free(c->sampler);
    tx_stream_free(c->stream);
    bs_buf_free(&c->held);
    if (--c->request->choices_left == 0) {
        unlink_live(e, c->request);
        free_shared(c->request);
    }
    bs_free(c);
}

void en_drop_finished(en_engine *e)
{
    for (en_choice **at = &e->active; *at;) {
        en_choice *c = *at;
        if (c->phase != EN_OVER) {
            at = &c->next_choice;
            continue;
        }
        *at = c->next_choice;
        free_choice(e, c);
    }
}
