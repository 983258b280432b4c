/* en_step: who takes part in the next forward pass, and what comes of it.
 *
 * Every choice that is answering takes part with one token. The rest of the pass goes to prompts,
 * one after the other in turns; while answers are running a prompt chunk is kept short, so that
 * nobody waits long for a next token. */
#include "engine/internal.h"

#include "base/clock.h"

enum {
    SHARE = 4,        /* of the pass that a prompt gets beside running answers */
    LEAST_CHUNK = 16, /* but at least so many tokens */
};

void en_release_slot(en_engine *e, en_choice *c)
{
    en_slot *slot = c->slot;
    c->slot = NULL;
    slot->user = NULL;
    slot->history.last_use = e->totals.steps;
    if (!e->options.keep_prefixes || c->request->set.no_cache) en_clear_slot(e, slot);
}

fm_status en_prepare_choice(en_engine *e, en_choice *c, fm_error *err)
{
    const en_request *r = &c->request->set;
    en_sampling sampling = r->sampling;
    sampling.seed += (uint64_t)c->index;
    en_sampler_free(c->sampler);
    tx_stream_free(c->stream);
    c->sampler = NULL;
    c->stream = NULL;
    fm_status status = en_sampler_create(&sampling, md_describe(e->model)->vocab, r->bias,
                                         r->n_bias, &c->sampler, err);
    for (int i = 0; i < r->n_prompt && !status; i++)
        status = en_sampler_accept(c->sampler, r->prompt[i], false, err);
    if (!status && e->tokenizer)
        status = tx_stream_open(e->tokenizer, !r->keep_special, &c->stream, err);
    return status;
}

/* A later choice of a request waits until the first has computed the prompt that it can copy. */
static bool sibling_computes(const en_engine *e, const en_choice *c)
{
    const en_request *r = &c->request->set;
    for (const en_choice *o = e->active; c->index > 0 && o; o = o->next_choice)
        if (o->request == c->request && o->phase == EN_PROMPT && o->fed < r->n_prompt - 1)
            return true;
    return false;
}

static void admit(en_engine *e)
{
    for (en_choice *c = e->active; c; c = c->next_choice) {
        if (c->phase != EN_WAITING || sibling_computes(e, c)) continue;
        if (!en_take_slot(e, c)) return;
        c->phase = EN_PROMPT;
        c->started = bs_now();
        c->fed = c->stats.cached_tokens = c->slot->history.n;
        pthread_mutex_lock(&e->lock);
        e->waiting--;
        e->running++;
        e->totals.prompt_tokens += (uint64_t)c->stats.prompt_tokens;
        e->totals.cached_tokens += (uint64_t)c->fed;
        pthread_mutex_unlock(&e->lock);
        fm_error err;
        if (en_prepare_choice(e, c, &err) || en_warm_admit(e, c, &err))
            en_finish_choice(e, c, EN_FINISH_ERROR, &err);
    }
}

typedef struct pass {
    int n, rows, prompt_tokens, answers;
    uint64_t state_traffic; /* of the answers */
} pass;

static void add_answers(en_engine *e, pass *p)
{
    for (en_choice *c = e->active; c; c = c->next_choice) {
        c->row = -1;
        c->feeding = 0;
        if (c->phase != EN_ANSWER) continue;
        e->batch[p->n++] = (md_token){c->next, c->slot->state, true};
        c->row = p->rows++;
        c->feeding = 1;
        p->answers++;
        p->state_traffic += md_state_traffic(e->model, md_state_length(c->slot->state));
    }
}

static void add_prompt(en_engine *e, en_choice *c, int room, pass *p)
{
    const en_request *r = &c->request->set;
    int take = en_next_cut(e, c, c->fed, room);
    for (int i = 0; i < take; i++)
        e->batch[p->n++] = (md_token){r->prompt[c->fed + i], c->slot->state, false};
    c->feeding = take;
    p->prompt_tokens += take;
    if (c->fed + take == r->n_prompt) {
        e->batch[p->n - 1].want_logits = true;
        c->row = p->rows++;
    }
}

/* Prompts in turns: the one after the last that went first goes first now. */
static void add_prompts(en_engine *e, pass *p)
{
    int prompts = 0;
    for (en_choice *c = e->active; c; c = c->next_choice) prompts += c->phase == EN_PROMPT;
    if (!prompts) return;
    int room = e->plan.max_tokens - p->n;
    if (p->answers) {
        int share = e->plan.max_tokens / SHARE;
        if (share < LEAST_CHUNK) share = LEAST_CHUNK;
        if (room > share) room = share;
    }
    e->turn = (e->turn + 1) % prompts;
    for (int round = 0; round < 2; round++) {
        int number = 0;
        for (en_choice *c = e->active; c && room > 0; c = c->next_choice) {
            if (c->phase != EN_PROMPT) continue;
            bool first_round = number++ >= e->turn;
            if (first_round != (round == 0)) continue;
            int before = p->n;
            add_prompt(e, c, room, p);
            room -= p->n - before;
        }
    }
}

/* Tokens whose effect the state now holds join the slot's history. */
static void remember(en_engine *e)
{
    for (en_choice *c = e->active; c; c = c->next_choice) {
        if (!c->feeding) continue;
        en_history *h = &c->slot->history;
        const int32_t *ids = c->phase == EN_ANSWER ? &c->next : c->request->set.prompt + c->fed;
        for (int i = 0; i < c->feeding; i++) h->ids[h->n++] = ids[i];
        h->last_use = e->totals.steps;
        if (c->phase == EN_PROMPT) c->fed += c->feeding;
    }
}

static void deliver(en_engine *e)
{
    int vocab = md_describe(e->model)->vocab;
    for (en_choice *c = e->active; c; c = c->next_choice) {
        if (!c->feeding) continue;
        if (c->phase == EN_PROMPT) {
            if (en_snapshot_due(e, c)) en_take_snapshot(e, c->slot);
            if (!en_report_prompt(e, c)) continue;
        }
        if (c->row >= 0) en_deliver_logits(e, c, e->logits + (size_t)c->row * (size_t)vocab);
    }
}

/* A pass that failed: its choices end, and slots whose state was reset are empty. */
static void fail_pass(en_engine *e, const fm_error *err)
{
    for (en_choice *c = e->active; c; c = c->next_choice) {
        if (!c->feeding) continue;
        en_slot *slot = c->slot;
        bool intact = md_state_length(slot->state) == slot->history.n;
        en_finish_choice(e, c, EN_FINISH_ERROR, err);
        if (!intact) en_clear_slot(e, slot);
    }
}

void en_count_pass(en_engine *e, int prompt_tokens, int answers, uint64_t state_traffic,
                   double seconds)
{
    xp_stats now = {0}, before = e->expert_stats;
    if (e->experts) xp_get_stats(e->experts, &now);
    uint64_t experts = now.hits + now.misses - before.hits - before.misses;
    pthread_mutex_lock(&e->lock);
    e->totals.steps++;
    if (prompt_tokens) {
        e->totals.prompt_fed += (uint64_t)prompt_tokens;
        e->totals.prompt_s += seconds;
    } else {
        e->totals.decoded += (uint64_t)answers;
        e->totals.decode_s += seconds;
        e->totals.decode_bytes += now.bytes_read - before.bytes_read;
        e->totals.decode_moved += md_pass_traffic(e->model, experts, state_traffic);
    }
    e->expert_stats = now;
    md_run_mass(e->run, &e->mass);
    pthread_mutex_unlock(&e->lock);
}

int en_step(en_engine *e)
{
    en_take_arrivals(e);
    en_apply_cancels(e);
    en_drop_finished(e);
    admit(e);
    pass p = {0};
    add_answers(e, &p);
    add_prompts(e, &p);
    if (p.n) {
        double start = bs_now();
        fm_error err;
        fm_status status =
            md_forward(e->run, e->batch, p.n, p.prompt_tokens >= XP_PREFILL_FROM, e->logits, &err);
        en_count_pass(e, p.prompt_tokens, p.answers, p.state_traffic, bs_now() - start);
        if (status) {
            fail_pass(e, &err);
        } else {
            remember(e);
            deliver(e);
            if (en_warm_step(e, &err)) fail_pass(e, &err);
        }
    }
    en_drop_finished(e);
    pthread_mutex_lock(&e->lock);
    int left = e->waiting + e->running;
    pthread_mutex_unlock(&e->lock);
    return left;
}

void en_wait(en_engine *e, int ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (ms >= 0) {
        until.tv_sec += ms / 1000;
        until.tv_nsec += (long)(ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
    }
    pthread_mutex_lock(&e->lock);
    int problem = 0;
    while (!e->awake && !e->waiting && !e->running && !problem)
        problem = ms < 0 ? pthread_cond_wait(&e->work, &e->lock)
                         : pthread_cond_timedwait(&e->work, &e->lock, &until);
    e->awake = false;
    pthread_mutex_unlock(&e->lock);
}

void en_wake(en_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->awake = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
}
