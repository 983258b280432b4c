/* The public API over the engine. Sessions hold what was fed; the engine's prefix cache holds what
 * was computed. Whoever generates takes turns stepping the engine for all. */
#include "engine/api.h"
#include "base/mem.h"
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

struct fm_session {
    fm_model *model;
    tx_ids ids;       /* a text: all of it; a chat: the last prompt and answer */
    json_t *messages; /* a chat; NULL: not one (yet) */

    pthread_mutex_t lock; /* guards running */
    uint64_t running;     /* the engine's request, 0: none */

    /* the generation that is under way; touched under model->step */
    fm_token_fn *on_token;
    void *arg;
    bs_buf text;
    size_t before; /* tokens of the prompt */
    bool done;
    en_finish finish;
    fm_error error;
    en_request_stats stats;
};

const char *flash_version(void)
{
    return FM_VERSION;
}

void flash_free(void *p)
{
    bs_free(p);
}

fm_options fm_options_default(void)
{
    return (fm_options){.capacity = -1,
                        .parallel = 1,
                        .kv_bits = 32,
                        .prefetch = -1,
                        .pin_top_k = -1,
                        .pin_threshold = -1};
}

/* --- options -----------------------------------------------------------------------------------
 */

static int pick(const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!text || !strcmp(text, names[i])) return i;
    return -1;
}

static fm_status translate(const fm_options *o, en_options *out, fm_error *err)
{
    static const char *const policies[] = {"lfru", "lru", "lcp"};
    static const char *const ios[] = {"auto", "uring", "pread"};
    static const char *const precisions[] = {"f32", "fast"};
    int policy = pick(o->policy, policies, 3), io = pick(o->io, ios, 3);
    static const char *const modes[] = {"exact", "predictive"};
    static const char *const misses[] = {"skip", "substitute"};
    static const char *const warmups[] = {"none", "router", "full", "hybrid"};
    int mode = pick(o->mode, modes, 2), miss = pick(o->on_miss, misses, 2);
    int warmup = pick(o->warmup, warmups, 4);
    int precision = o->precision ? pick(o->precision, precisions, 2) : (int)out->precision;
    if (policy < 0) return fm_fail(err, FM_E_ARGUMENT, "policy '%s': lfru, lru or lcp", o->policy);
    if (io < 0) return fm_fail(err, FM_E_ARGUMENT, "io '%s': auto, uring or pread", o->io);
    if (precision < 0)
        return fm_fail(err, FM_E_ARGUMENT, "precision '%s': f32 or fast", o->precision);
    if (mode < 0) return fm_fail(err, FM_E_ARGUMENT, "mode '%s': exact or predictive", o->mode);
    if (miss < 0)
        return fm_fail(err, FM_E_ARGUMENT, "on_miss '%s': skip or substitute", o->on_miss);
    if (warmup < 0)
        return fm_fail(err, FM_E_ARGUMENT, "warmup '%s': none, router, full or hybrid", o->warmup);
    if (!kn_isa_parse(o->isa ? o->isa : "auto", &out->isa))
        return fm_fail(err, FM_E_ARGUMENT, "isa '%s': auto, portable, avx2, avx512 or neon",
                       o->isa);
    out->memory = o->memory_bytes;
    out->capacity = o->capacity;
    out->context = o->context;
    out->parallel = o->parallel;
    out->queue = 1 << 20; /* every waiting one is a thread of the caller's */
    out->prefix_memory = o->prefix_bytes;
    out->keep_prefixes = mode == EN_EXACT;
    out->mode = (en_mode)mode;
    out->on_miss = (en_on_miss)miss;
    out->warmup = (en_warmup)warmup;
    out->refresh = o->refresh;
    out->hold = o->hold;
    out->profile = o->profile;
    out->pin_top_k = o->pin_top_k;
    out->pin_threshold = o->pin_threshold;
    out->cache_dir = o->cache_dir;
    out->threads = o->threads;
    out->policy = (xp_policy)policy;
    out->io = (xp_io)io;
    out->precision = (kn_precision)precision;
    out->kv_bits = o->kv_bits;
    out->prefetch = o->prefetch;
    out->lock = o->lock;
    out->pack_dir = o->pack_dir;
    out->progress = o->progress;
    out->progress_arg = o->progress_arg;
    return FM_OK;
}

/* --- models -------------------------------------------------------------------------------------
 */

fm_status fm_model_open(const char *dir, const fm_options *options, fm_model **out, fm_error *err)
{
    *out = NULL;
    fm_options defaults = fm_options_default();
    en_options o = en_options_default();
    fm_status status = translate(options ? options : &defaults, &o, err);
    if (status) return status;
    o.model = dir;
    fm_model *m = bs_calloc(1, sizeof *m);
    if (!m) return fm_fail_nomem(err, "opening a model");
    status = en_open(&o, &m->engine, err);
    if (status) {
        bs_free(m);
        return status;
    }
    pthread_mutex_init(&m->step, NULL);
    *out = m;
    return FM_OK;
}

void fm_model_close(fm_model *m)
{
    if (!m) return;
    en_close(m->engine);
    pthread_mutex_destroy(&m->step);
    bs_free(m);
}

void fm_model_info(const fm_model *m, fm_info *out)
{
    const md_info *info = en_describe(m->engine);
    const en_plan *plan = en_get_plan(m->engine);
    const tx_chat *chat = en_chat(m->engine);
    *out = (fm_info){.family = info->family,
                     .layers = info->n_layers,
                     .moe_layers = info->n_moe_layers,
                     .experts = info->n_experts,
                     .experts_per_token = info->top_k,
                     .hidden = info->hidden,
                     .vocabulary = info->vocab,
                     .context = plan->context,
                     .has_tokenizer = en_tokenizer(m->engine) != NULL,
                     .has_chat_template = chat && tx_chat_has_template(chat),
                     .resident_bytes = info->resident_bytes,
                     .expert_bytes = info->expert_bytes,
                     .experts_bytes = info->experts_bytes,
                     .floor_bytes = plan->floor_bytes,
                     .budget_bytes = plan->budget_bytes};
}

static fm_status need_tokenizer(const fm_model *m, fm_error *err)
{
    if (en_tokenizer(m->engine)) return FM_OK;
    return fm_fail(err, FM_E_UNSUPPORTED, "this model folder has no tokenizer");
}

int32_t *fm_model_tokenize(const fm_model *m, const char *text, bool special, int *n, fm_error *err)
{
    tx_ids ids = {0};
    *n = 0;
    if (need_tokenizer(m, err)) return NULL;
    unsigned flags = special ? TX_ADD_SPECIAL : TX_CONTENT;
    if (tx_encode(en_tokenizer(m->engine), text, strlen(text), flags, &ids, err)) {
        tx_ids_free(&ids);
        return NULL;
    }
    *n = (int)ids.length;
    if (!ids.data && !(ids.data = bs_malloc(sizeof *ids.data))) fm_fail_nomem(err, "tokenizing");
    return ids.data;
}

char *fm_model_detokenize(const fm_model *m, const int32_t *ids, int n, fm_error *err)
{
    bs_buf text = {0};
    if (need_tokenizer(m, err)) return NULL;
    if (n < 0 || tx_decode(en_tokenizer(m->engine), ids, (size_t)n, false, &text, err)) {
        bs_buf_free(&text);
        return NULL;
    }
    if (!text.data && !bs_buf_reserve(&text, 1)) {
        fm_fail_nomem(err, "detokenizing");
        return NULL;
    }
    text.data[text.length] = 0;
    return text.data;
}

/* --- sessions ------------------------------------------------------------------------------------
 */

fm_status fm_session_open(fm_model *m, fm_session **out, fm_error *err)
{
    *out = NULL;
    fm_session *s = bs_calloc(1, sizeof *s);
    if (!s) return fm_fail_nomem(err, "opening a session");
    s->model = m;
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return FM_OK;
}

void fm_session_clear(fm_session *s)
{
    json_decref(s->messages);
    s->messages = NULL;
    s->ids.length = 0;
}

void fm_session_close(fm_session *s)
{
    if (!s) return;
    fm_session_clear(s);
    tx_ids_free(&s->ids);
    bs_buf_free(&s->text);
    pthread_mutex_destroy(&s->lock);
    bs_free(s);
}

int fm_session_length(const fm_session *s)
{
    return (int)s->ids.length;
}

fm_status fm_session_message(fm_session *s, const char *role, const char *content, fm_error *err)
{
    const tx_chat *chat = en_chat(s->model->engine);
    if (!chat || !tx_chat_has_template(chat))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "this model has no chat template: feed it text (fm_session_text)");
    if (!s->messages && s->ids.length)
        return fm_fail(err, FM_E_ARGUMENT, "the session holds raw text already: no messages in it");
    if (!s->messages) s->messages = json_array();
    json_t *message = json_pack("{s:s, s:s}", "role", role, "content", content);
    if (!message) return fm_fail(err, FM_E_FORMAT, "a message's role or content is not UTF-8");
    if (json_array_append_new(s->messages, message)) return fm_fail_nomem(err, "keeping a message");
    return FM_OK;
}

static fm_status not_a_chat(const fm_session *s, fm_error *err)
{
    if (!s->messages) return FM_OK;
    return fm_fail(err, FM_E_ARGUMENT, "the session is a chat: feed it messages");
}

fm_status fm_session_text(fm_session *s, const char *text, fm_error *err)
{
    fm_status status = not_a_chat(s, err);
    if (!status) status = need_tokenizer(s->model, err);
    if (status) return status;
    if (!s->ids.length)
        return tx_chat_raw_prompt(en_chat(s->model->engine), text, strlen(text), &s->ids, err);
    return tx_encode(en_tokenizer(s->model->engine), text, strlen(text), 0, &s->ids, err);
}

static fm_status push_tokens(fm_session *s, const int32_t *ids, size_t n, fm_error *err)
{
    size_t before = s->ids.length;
    for (size_t i = 0; i < n; i++)
        if (!tx_ids_push(&s->ids, ids[i])) {
            s->ids.length = before;
            return fm_fail_nomem(err, "keeping tokens");
        }
    return FM_OK;
}

fm_status fm_session_tokens(fm_session *s, const int32_t *ids, int n, fm_error *err)
{
    fm_status status = not_a_chat(s, err);
    int vocabulary = en_describe(s->model->engine)->vocab;
    for (int i = 0; i < n && !status; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            status = fm_fail(err, FM_E_ARGUMENT, "token %d is %d, the vocabulary has 0 to %d", i,
                             ids[i], vocabulary - 1);
    return status ? status : push_tokens(s, ids, n > 0 ? (size_t)n : 0, err);
}

/* --- generating
 * ----------------------------------------------------------------------------------- */

fm_generation fm_generation_default(const fm_model *m)
{
    const en_sampling *s = en_default_sampling(m->engine);
    return (fm_generation){.max_tokens = -1,
                           .temperature = s->temperature,
                           .top_k = s->top_k,
                           .top_p = s->top_p,
                           .min_p = s->min_p,
                           .repeat_penalty = s->repeat_penalty};
}

static bool on_event(void *arg, const en_event *e)
{
    fm_session *s = arg;
    bool go_on = true;
    if (e->kind == EN_EVENT_TOKEN) go_on = tx_ids_push(&s->ids, e->token);
    if (e->text_bytes) go_on &= bs_buf_append(&s->text, e->text, e->text_bytes);
    bool tells = e->kind == EN_EVENT_TOKEN || (e->kind == EN_EVENT_DONE && e->text_bytes);
    if (tells && s->on_token) {
        fm_token token = {e->token, e->text, e->text_bytes};
        go_on &= s->on_token(s->arg, &token);
    }
    if (e->kind == EN_EVENT_DONE) {
        s->done = true;
        s->finish = e->finish;
        s->stats = *e->stats;
        if (e->error) s->error = *e->error;
    }
    return go_on;
}

/* The prompt of a chat: its messages through the template. */
static fm_status render(fm_session *s, fm_error *err)
{
    if (!s->messages) return FM_OK;
    tx_prompt prompt = {0};
    tx_chat_request r = {
        .messages = s->messages, .add_generation_prompt = true, .enable_thinking = -1};
    fm_status status = tx_chat_prompt(en_chat(s->model->engine), &r, &prompt, err);
    s->ids.length = 0;
    if (!status) status = push_tokens(s, prompt.ids.data, prompt.ids.length, err);
    tx_prompt_free(&prompt);
    return status;
}

static en_request make_request(fm_session *s, const fm_generation *g)
{
    en_request r = en_request_default(s->model->engine);
    r.prompt = s->ids.data;
    r.n_prompt = (int)s->ids.length;
    r.max_tokens = g->max_tokens;
    r.sampling.temperature = g->temperature;
    r.sampling.top_k = g->top_k;
    r.sampling.top_p = g->top_p;
    r.sampling.min_p = g->min_p;
    r.sampling.repeat_penalty = g->repeat_penalty;
    r.sampling.presence_penalty = g->presence_penalty;
    r.sampling.frequency_penalty = g->frequency_penalty;
    r.sampling.seed = g->seed;
    r.stop = g->stop;
    r.n_stop = g->n_stop;
    r.ignore_end = g->ignore_end;
    r.on_event = on_event;
    r.arg = s;
    return r;
}

static void set_running(fm_session *s, uint64_t request)
{
    pthread_mutex_lock(&s->lock);
    s->running = request;
    pthread_mutex_unlock(&s->lock);
}

void fm_session_stop(fm_session *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->running) en_cancel(s->model->engine, s->running);
    pthread_mutex_unlock(&s->lock);
}

static void step_until_done(fm_session *s)
{
    fm_model *m = s->model;
    bool done = false;
    while (!done) {
        pthread_mutex_lock(&m->step);
        if (!s->done) en_step(m->engine);
        done = s->done;
        pthread_mutex_unlock(&m->step);
    }
}

/* The answer joins a chat as a message. */
static fm_status keep_answer(fm_session *s, fm_error *err)
{
    if (!s->messages) return FM_OK;
    json_t *content = json_stringn(s->text.data ? s->text.data : "", s->text.length);
    json_t *message =
        content ? json_pack("{s:s, s:o}", "role", "assistant", "content", content) : NULL;
    if (!message || json_array_append_new(s->messages, message))
        return fm_fail_nomem(err, "keeping the answer");
    return FM_OK;
}

static void fill_result(const fm_session *s, fm_result *out)
{
    if (!out) return;
    *out = (fm_result){.finish_reason = en_finish_name(s->finish),
                       .prompt_tokens = s->stats.prompt_tokens,
                       .reused_tokens = s->stats.cached_tokens,
                       .tokens = s->stats.tokens,
                       .first_token_ms = s->stats.ttft_ms,
                       .prefill_tok_s = s->stats.prefill_tok_s,
                       .decode_tok_s = s->stats.decode_tok_s};
}

fm_status fm_session_generate(fm_session *s, const fm_generation *generation, fm_token_fn *on_token,
                              void *arg, fm_result *result, fm_error *err)
{
    fm_generation usual = fm_generation_default(s->model);
    fm_status status = render(s, err);
    if (status) return status;
    s->on_token = on_token;
    s->arg = arg;
    s->text.length = 0;
    s->before = s->ids.length;
    s->done = false;
    en_request r = make_request(s, generation ? generation : &usual);
    uint64_t id;
    status = en_submit(s->model->engine, &r, &id, err);
    if (status) return status;
    set_running(s, id);
    step_until_done(s);
    set_running(s, 0);
    if (s->finish == EN_FINISH_ERROR) {
        s->ids.length = s->before;
        if (err) *err = s->error;
        return s->error.code;
    }
    fill_result(s, result);
    return keep_answer(s, err);
}

char *flash_generate(const char *dir, const char *prompt, int max_tokens, fm_error *err)
{
    fm_model *m = NULL;
    fm_session *s = NULL;
    char *answer = NULL;
    fm_status status = fm_model_open(dir, NULL, &m, err);
    if (!status) status = fm_session_open(m, &s, err);
    if (!status) {
        const tx_chat *chat = en_chat(m->engine);
        status = chat && tx_chat_has_template(chat) ? fm_session_message(s, "user", prompt, err)
                                                    : fm_session_text(s, prompt, err);
    }
    if (!status) {
        fm_generation g = fm_generation_default(m);
        g.temperature = 0;
        g.max_tokens = max_tokens;
        status = fm_session_generate(s, &g, NULL, NULL, NULL, err);
    }
    if (!status) {
        answer = bs_strndup(s->text.data ? s->text.data : "", s->text.length);
        if (!answer) fm_fail_nomem(err, "keeping the answer");
    }
    fm_session_close(s);
    fm_model_close(m);
    return answer;
}

/* --- statistics
 * ------------------------------------------------------------------------------------ */

void fm_model_statistics(fm_model *m, fm_statistics *out)
{
    en_stats s;
    en_get_stats(m->engine, &s);
    *out = (fm_statistics){.load_ms = s.load_ms,
                           .first_token_ms = s.ttft_ms,
                           .prefill_tok_s = s.prefill_tok_s,
                           .decode_tok_s = s.decode_tok_s,
                           .tokens = s.tokens,
                           .prompt_tokens = s.prompt_tokens,
                           .reused_tokens = s.cached_tokens,
                           .expert_hits = s.expert_hits,
                           .expert_misses = s.expert_misses,
                           .bytes_read = s.bytes_read,
                           .read_ms_exposed = s.read_ms_exposed,
                           .budget_bytes = s.budget_bytes,
                           .peak_rss_bytes = s.peak_rss_bytes,
                           .slot_bytes = s.slot_bytes,
                           .slots = s.slots,
                           .direct_io = s.direct_io,
                           .mode = s.mode,
                           .dropped_mass = s.dropped_mass,
                           .dropped_picks = s.dropped_picks};
}

char *fm_model_statistics_json(fm_model *m)
{
    en_stats s;
    en_get_stats(m->engine, &s);
    json_t *object = en_stats_json(&s);
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    char *own = text ? bs_strdup(text) : NULL;
    free(text);
    return own;
}
