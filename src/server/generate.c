#include "server/generate.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- life ---------------------------------------------------------------------------------------
 */

sv_gen *sv_gen_new(sv_request *r, const sv_api *api, json_t *input)
{
    sv_gen *g = bs_calloc(1, sizeof *g);
    if (!g) return NULL;
    g->request = r;
    g->api = api;
    g->input = json_incref(input);
    const en_sampling *own = r->server->options->sampling;
    g->sampling = own ? *own : *en_default_sampling(r->server->engine);
    g->max_tokens = -1;
    g->n = 1;
    g->top_logprobs = -1;
    g->thinking = -1;
    g->parallel_calls = true;
    pthread_mutex_lock(&r->lock);
    r->gen = g;
    pthread_mutex_unlock(&r->lock);
    return g;
}

static void free_choice(sv_choice *c)
{
    for (int i = 0; i < c->n_blocks; i++) {
        bs_free(c->blocks[i].name);
        bs_buf_free(&c->blocks[i].text);
    }
    bs_free(c->blocks);
    bs_free(c->stop);
    json_decref(c->logprobs);
    tx_reply_free(c->reply);
    en_matcher_destroy(c->matcher);
}

void sv_gen_free(sv_gen *g)
{
    if (!g) return;
    for (int i = 0; g->choices && i < g->n; i++) free_choice(&g->choices[i]);
    bs_free(g->choices);
    bs_free(g->bias);
    json_decref(g->input);
    json_decref(g->messages);
    json_decref(g->tools);
    json_decref(g->extra);
    tx_ids_free(&g->ids);
    en_grammar_destroy(g->grammar);
    bs_free(g);
}

/* --- fields -------------------------------------------------------------------------------------
 */

static void read_stops(sv_gen *g, const json_t *body, const char *key, sv_error *e)
{
    const json_t *v = json_object_get(body, key);
    if (!v || json_is_null(v)) return;
    if (json_is_string(v)) {
        if (json_string_length(v) > 0) g->stops[g->n_stops++] = json_string_value(v);
        return;
    }
    if (!json_is_array(v)) {
        sv_error_set(e, 400, key, "%s must be a string or a list of strings", key);
        return;
    }
    if (json_array_size(v) > EN_MAX_STOPS) {
        sv_error_set(e, 400, key, "%s may have at most %d entries", key, EN_MAX_STOPS);
        return;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *item = json_array_get(v, i);
        if (!json_is_string(item) || json_string_length(item) > 1000)
            sv_error_set(e, 400, key, "%s must hold strings of at most 1000 bytes", key);
        else if (json_string_length(item) > 0) g->stops[g->n_stops++] = json_string_value(item);
    }
}

static void read_bias(sv_gen *g, const json_t *body, sv_error *e)
{
    json_t *map = NULL;
    sv_get_object(body, "logit_bias", &map, e);
    if (!map || e->status) return;
    int vocab = en_describe(g->request->server->engine)->vocab;
    if (json_object_size(map) > 4096) {
        sv_error_set(e, 400, "logit_bias", "logit_bias may have at most 4096 entries");
        return;
    }
    g->bias = bs_calloc(json_object_size(map) + 1, sizeof *g->bias);
    if (!g->bias) {
        sv_error_set(e, 500, NULL, "out of memory");
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        char *end;
        long id = strtol(key, &end, 10);
        double bias = json_number_value(value);
        if (*end || end == key || id < 0 || id >= vocab)
            sv_error_set(e, 400, "logit_bias", "logit_bias: '%.20s' is no token id below %d", key,
                         vocab);
        else if (!json_is_number(value) || !(fabs(bias) <= 100))
            sv_error_set(e, 400, "logit_bias", "logit_bias values must lie between -100 and 100");
        else g->bias[g->n_bias++] = (en_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    }
}

void sv_gen_fields(sv_gen *g, const json_t *body, const char *stop_key, sv_error *e)
{
    long top_k = g->sampling.top_k, seed = -1;
    sv_get_float(body, "temperature", 0, 2, &g->sampling.temperature, e);
    sv_get_float(body, "top_p", 0, 1, &g->sampling.top_p, e);
    sv_get_int(body, "top_k", -1, 1000000, &top_k, e);
    sv_get_float(body, "min_p", 0, 1, &g->sampling.min_p, e);
    sv_get_float(body, "presence_penalty", -2, 2, &g->sampling.presence_penalty, e);
    sv_get_float(body, "frequency_penalty", -2, 2, &g->sampling.frequency_penalty, e);
    sv_get_float(body, "repeat_penalty", 0.1, 10, &g->sampling.repeat_penalty, e);
    sv_get_float(body, "repetition_penalty", 0.1, 10, &g->sampling.repeat_penalty, e);
    sv_get_int(body, "seed", -0x7fffffffffffffff, 0x7fffffffffffffff, &seed, e);
    sv_get_bool(body, "stream", &g->stream, e);
    g->sampling.top_k = top_k < 0 ? 0 : (int)top_k;
    if (g->sampling.top_p <= 0) g->sampling.top_p = 1e-6f; /* 0: the best token alone */
    if (json_is_number(json_object_get(body, "seed"))) g->sampling.seed = (uint64_t)seed;
    else g->sampling.seed = (uint64_t)bs_now_ns() * 0x9e3779b97f4a7c15u;
    read_stops(g, body, stop_key, e);
    read_bias(g, body, e);
}

/* --- preparing ----------------------------------------------------------------------------------
 */

static void render(sv_gen *g, const tx_chat *chat, json_t *messages, json_t *tools,
                   tx_prompt *prompt, sv_error *e)
{
    fm_error err = {0};
    tx_chat_request q = {.messages = messages,
                         .tools = tools,
                         .extra = g->extra,
                         .add_generation_prompt = !g->continue_final,
                         .continue_final = g->continue_final,
                         .enable_thinking = g->thinking};
    if (tx_chat_prompt(chat, &q, prompt, &err)) sv_error_from(e, &err);
}

static void apply_template(sv_gen *g, sv_error *e)
{
    const tx_chat *chat = en_chat(g->request->server->engine);
    if (!chat || !tx_chat_has_template(chat)) {
        sv_error_set(e, 400, NULL, "this model has no chat template: use /v1/completions");
        return;
    }
    bool tools = g->tools && g->tool_choice != SV_TOOLS_NONE;
    tx_prompt prompt = {0};
    render(g, chat, g->messages, tools ? g->tools : NULL, &prompt, e);
    if (!e->status && tools && prompt.tool_format == TX_TOOLS_NONE) {
        tx_prompt_free(&prompt);
        prompt = (tx_prompt){0};
        json_t *described = sv_messages_with_tools(g->messages, g->tools);
        if (!described) sv_error_set(e, 500, NULL, "out of memory");
        else render(g, chat, described, NULL, &prompt, e);
        prompt.tool_format = TX_TOOLS_HERMES;
        json_decref(described);
    }
    if (!e->status) {
        g->tool_format = tools ? prompt.tool_format : TX_TOOLS_NONE;
        g->starts_in_reasoning = prompt.starts_in_reasoning;
        g->ids = prompt.ids;
        prompt.ids = (tx_ids){0};
    }
    tx_prompt_free(&prompt);
}

void sv_gen_prepare(sv_gen *g, sv_error *e)
{
    if (g->messages && !e->status) apply_template(g, e);
    if (!e->status) sv_constrain(g, e);
    if (e->status) return;
    int context = en_get_options(g->request->server->engine)->context;
    if (g->ids.length == 0) {
        sv_error_set(e, 400, NULL, "the prompt is empty");
    } else if (g->ids.length >= (size_t)context) {
        e->code = "context_length_exceeded";
        sv_error_set(e, 400, NULL,
                     "the prompt has %zu tokens; this server's context holds %d, the answer "
                     "included",
                     g->ids.length, context);
    }
}

/* --- blocks -------------------------------------------------------------------------------------
 */

static void close_block(sv_request *r, sv_choice *c)
{
    if (!c->open) return;
    c->open = false;
    if (r->gen->stream) r->gen->api->close(r, c, &c->blocks[c->n_blocks - 1]);
}

static sv_block *open_block(sv_request *r, sv_choice *c, sv_block_kind kind, const char *name)
{
    close_block(r, c);
    sv_block *grown = bs_realloc(c->blocks, (size_t)c->n_blocks + 1, sizeof *grown);
    if (!grown) return NULL;
    c->blocks = grown;
    sv_block *b = &c->blocks[c->n_blocks];
    *b = (sv_block){.kind = kind, .name = name ? bs_strdup(name) : NULL};
    snprintf(b->id, sizeof b->id, "%.20s%d%c%d", r->id, c->index, 'x', c->n_blocks);
    c->n_blocks++;
    c->open = true;
    if (r->gen->stream) r->gen->api->open(r, c, b);
    return b;
}

static fm_status on_delta(void *arg, const tx_delta *delta, fm_error *err)
{
    sv_choice *c = arg;
    sv_request *r = c->gen->request;
    sv_block_kind kind = delta->kind == TX_DELTA_TOOL_CALL   ? SV_CALL
                         : delta->kind == TX_DELTA_REASONING ? SV_REASONING
                                                             : SV_TEXT;
    if (delta->length == 0 && kind != SV_CALL) return FM_OK;
    sv_block *b = c->open ? &c->blocks[c->n_blocks - 1] : NULL;
    if (!b || b->kind != kind || kind == SV_CALL) b = open_block(r, c, kind, delta->name);
    if (!b || !bs_buf_append(&b->text, delta->text, delta->length))
        return fm_fail_nomem(err, "an answer");
    if (c->gen->stream) c->gen->api->grow(r, c, b, delta->text, delta->length);
    if (kind == SV_CALL) {
        close_block(r, c);
        if (!c->gen->parallel_calls) c->cut = true;
    }
    return FM_OK;
}

/* --- log probabilities --------------------------------------------------------------------------
 */

static json_t *token_json(sv_gen *g, int32_t id, float logprob)
{
    const tx_tokenizer *t = en_tokenizer(g->request->server->engine);
    bs_buf bytes = {0};
    if (t) tx_token_bytes(t, id, &bytes);
    json_t *list = json_array();
    for (size_t i = 0; i < bytes.length; i++)
        json_array_append_new(list, json_integer((unsigned char)bytes.data[i]));
    json_t *text = json_stringn(bytes.data ? bytes.data : "", bytes.length);
    if (!text) text = json_string("\xef\xbf\xbd"); /* part of a character */
    bs_buf_free(&bytes);
    double shown = logprob < -9999 ? -9999.0 : (double)logprob;
    return json_pack("{s:o, s:f, s:o, s:i}", "token", text, "logprob", shown, "bytes", list, "id",
                     (int)id);
}

static void add_logprob(sv_gen *g, sv_choice *c, const en_event *event)
{
    json_t *item = token_json(g, event->token, event->logprob), *top = json_array();
    for (int i = 0; i < event->n_top && i < g->top_logprobs; i++)
        json_array_append_new(top, token_json(g, event->top[i].id, event->top[i].logprob));
    json_object_set_new(item, "top_logprobs", top);
    if (!c->logprobs) c->logprobs = json_array();
    json_array_append_new(c->logprobs, item);
}

json_t *sv_take_logprobs(sv_choice *c)
{
    if (!c->logprobs) return json_null();
    json_t *list = c->logprobs;
    c->logprobs = NULL;
    return json_pack("{s:o}", "content", list);
}

/* --- the engine's events ------------------------------------------------------------------------
 */

static void note_failure(sv_choice *c, const fm_error *err)
{
    c->gen->failed = true;
    if (!c->error.code && err) c->error = *err;
}

static void finish_all(sv_gen *g)
{
    sv_request *r = g->request;
    sv_error e = {0};
    for (int i = 0; i < g->n; i++)
        if (g->choices[i].finish == EN_FINISH_ERROR) sv_error_from(&e, &g->choices[i].error);
        else if (g->choices[i].finish == EN_FINISH_CANCELLED && !g->choices[i].cut)
            sv_error_set(&e, 503, NULL, "the request was cancelled");
    atomic_store(&g->settled, true);
    if (e.status) {
        if (e.status < 500) e.status = 500; /* accepted before: no longer the client's fault */
        if (g->stream) {
            atomic_fetch_add(&r->server->n_errors, 1);
            g->api->fail(r, &e);
            sv_stream_end(r);
        } else {
            sv_refuse(r, &e);
        }
    } else if (g->stream) {
        g->api->end(r);
        sv_stream_end(r);
    } else {
        sv_answer(r, 200, g->api->whole(r));
    }
    pthread_mutex_lock(&r->lock);
    r->engine_id = 0;
    pthread_mutex_unlock(&r->lock);
}

static void finish_choice(sv_gen *g, sv_choice *c, const en_event *event)
{
    sv_request *r = g->request;
    fm_error err = {0};
    if (c->reply && tx_reply_finish(c->reply, &err)) note_failure(c, &err);
    close_block(r, c);
    c->done = true;
    c->finish = g->failed && c->error.code ? EN_FINISH_ERROR : event->finish;
    if (event->error) note_failure(c, event->error);
    if (event->stop) c->stop = bs_strdup(event->stop);
    c->tokens = event->stats->tokens;
    en_get_stats(r->server->engine, &g->after);
    if (c->index == 0) g->stats = *event->stats;
    bool good = c->finish == EN_FINISH_STOP || c->finish == EN_FINISH_LENGTH || c->cut;
    if (g->stream && good) g->api->finish(r, c);
    if (c->finish == EN_FINISH_CANCELLED && !c->cut) atomic_fetch_add(&r->server->n_cancelled, 1);
    if (++g->n_done == g->n) {
        finish_all(g);
        sv_drop(r);
    }
}

/* Before any text has come, the prompt says where the answer begins. */
static bool is_thinking(const sv_choice *c)
{
    if (!c->n_blocks) return c->reply && c->gen->starts_in_reasoning;
    return c->open && c->blocks[c->n_blocks - 1].kind == SV_REASONING;
}

static bool on_event(void *arg, const en_event *event)
{
    sv_gen *g = arg;
    sv_choice *c = &g->choices[event->choice];
    fm_error err = {0};
    if (event->kind == EN_EVENT_PROMPT) return !sv_is_gone(g->request);
    if (event->kind == EN_EVENT_TOKEN && g->top_logprobs >= 0 && !event->end_token)
        add_logprob(g, c, event);
    if (event->text_bytes > 0 && !c->error.code) {
        fm_status status;
        if (c->reply) {
            status = tx_reply_push_text(c->reply, event->text, event->text_bytes, &err);
        } else {
            tx_delta delta = {TX_DELTA_CONTENT, event->text, event->text_bytes, NULL, 0};
            status = on_delta(c, &delta, &err);
        }
        if (status) note_failure(c, &err);
    }
    if (event->kind == EN_EVENT_TOKEN && !event->end_token) c->reasoning_tokens += is_thinking(c);
    if (event->kind == EN_EVENT_DONE) {
        finish_choice(g, c, event);
        return true;
    }
    return !c->cut && !c->error.code && !sv_is_gone(g->request);
}

/* --- starting -----------------------------------------------------------------------------------
 */

static void make_choices(sv_gen *g, sv_error *e)
{
    fm_error err = {0};
    g->choices = bs_calloc((size_t)g->n, sizeof *g->choices);
    if (!g->choices) {
        sv_error_set(e, 500, NULL, "out of memory");
        return;
    }
    for (int i = 0; i < g->n && !e->status; i++) {
        sv_choice *c = &g->choices[i];
        c->gen = g;
        c->index = i;
        fm_status status = FM_OK;
        if (g->messages)
            status = tx_reply_open_text(g->tool_format, g->starts_in_reasoning, g->tools, on_delta,
                                        c, &c->reply, &err);
        if (!status && g->grammar)
            status = en_matcher_create(g->grammar, g->request->server->vocab, &c->matcher, &err);
        if (status) sv_error_from(e, &err);
    }
}

void sv_gen_start(sv_gen *g, sv_error *e)
{
    sv_request *r = g->request;
    sv_server *s = r->server;
    fm_error err = {0};
    if (!e->status) make_choices(g, e);
    if (e->status) return;
    en_request q = en_request_default(s->engine);
    long most = s->options->max_tokens;
    q.prompt = g->ids.data;
    q.n_prompt = (int)g->ids.length;
    q.max_tokens =
        (int)(most > 0 && (g->max_tokens < 0 || g->max_tokens > most) ? most : g->max_tokens);
    q.n = (int)g->n;
    q.sampling = g->sampling;
    q.bias = g->bias;
    q.n_bias = g->n_bias;
    q.stop = g->stops;
    q.n_stop = g->n_stops;
    q.ignore_end = g->ignore_end;
    q.keep_special = g->messages != NULL; /* markers of calls and reasoning may be special tokens */
    q.logprobs = (int)g->top_logprobs;
    q.scope = r->scope;
    q.on_event = on_event;
    q.arg = g;
    if (g->grammar) q.mask = (en_mask){sv_mask, sv_accept, g};
    en_get_stats(s->engine, &g->before);
    sv_hold(r); /* the engine's, until the last choice is done */
    if (g->stream) g->api->begin(r);
    uint64_t id = 0;
    if (en_submit(s->engine, &q, &id, &err)) {
        sv_error_from(e, &err);
        pthread_mutex_lock(&r->lock);
        r->out.length = r->sent = 0; /* the beginning of a stream that will not be */
        pthread_mutex_unlock(&r->lock);
        sv_drop(r);
        return;
    }
    pthread_mutex_lock(&r->lock);
    bool gone = r->gone;
    if (!atomic_load(&g->settled)) r->engine_id = id;
    pthread_mutex_unlock(&r->lock);
    if (gone) en_cancel(s->engine, id);
    if (g->stream) sv_stream_begin(r, g->api->ping);
}

/* --- what answers say of themselves --------------------------------------------------------------
 */

int sv_count_calls(const sv_choice *c)
{
    int n = 0;
    for (int i = 0; i < c->n_blocks; i++) n += c->blocks[i].kind == SV_CALL;
    return n;
}

const char *sv_finish_reason(const sv_choice *c)
{
    if (sv_count_calls(c) > 0 && c->finish != EN_FINISH_LENGTH) return "tool_calls";
    return c->finish == EN_FINISH_LENGTH ? "length" : "stop";
}

int sv_total_tokens(const sv_gen *g)
{
    int n = 0;
    for (int i = 0; i < g->n; i++) n += g->choices[i].tokens;
    return n;
}

int sv_reasoning_tokens(const sv_gen *g)
{
    int n = 0;
    for (int i = 0; i < g->n; i++) n += g->choices[i].reasoning_tokens;
    return n;
}

void sv_block_text(const sv_choice *c, sv_block_kind kind, bs_buf *out)
{
    for (int i = 0; i < c->n_blocks; i++)
        if (c->blocks[i].kind == kind && c->blocks[i].text.length)
            bs_buf_append(out, c->blocks[i].text.data, c->blocks[i].text.length);
}

json_t *sv_timings(const sv_gen *g)
{
    const en_request_stats *s = &g->stats;
    return json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "prompt_n",
                     s->prompt_tokens - s->cached_tokens, "cache_n", s->cached_tokens,
                     "predicted_n", sv_total_tokens(g), "queue_ms", s->queue_ms, "prompt_ms",
                     s->prefill_ms, "ttft_ms", s->ttft_ms, "predicted_ms", s->decode_ms,
                     "prompt_per_second", s->prefill_tok_s, "predicted_per_second",
                     s->decode_tok_s);
}

/* The engine's totals while this request ran; requests beside it are counted with it. */
json_t *sv_x_moe(const sv_gen *g)
{
    uint64_t hits = g->after.expert_hits - g->before.expert_hits;
    uint64_t misses = g->after.expert_misses - g->before.expert_misses;
    return json_pack("{s:I, s:I, s:f, s:I, s:f, s:s}", "expert_hits", (json_int_t)hits,
                     "expert_misses", (json_int_t)misses, "hit_rate",
                     hits + misses ? (double)hits / (double)(hits + misses) : 1.0, "bytes_read",
                     (json_int_t)(g->after.bytes_read - g->before.bytes_read), "read_ms_exposed",
                     g->after.read_ms_exposed - g->before.read_ms_exposed, "mode",
                     g->after.mode ? g->after.mode : "exact");
}

void sv_gen_log(sv_request *r)
{
    sv_server *s = r->server;
    if (s->options->quiet || !r->route) return;
    double ms = (bs_now() - r->started) * 1e3;
    pthread_mutex_lock(&r->lock);
    sv_gen *g = r->gen;
    pthread_mutex_unlock(&r->lock);
    if (!g || !atomic_load(&g->settled)) {
        sv_log(s, "%s %s %d %.1f ms%s", r->route->method, r->route->path, r->status, ms,
               r->gone ? " (client gone)" : "");
        return;
    }
    sv_log(s,
           "%s %s %d %.1f ms: prompt %d (%d cached) in %.0f ms, %d tokens at %.1f tok/s, %s", //
           r->route->method, r->route->path, r->status, ms, g->stats.prompt_tokens,
           g->stats.cached_tokens, g->stats.prefill_ms, sv_total_tokens(g), g->stats.decode_tok_s,
           en_finish_name(g->choices[0].finish));
    if (!s->options->log_prompts) return;
    bs_buf text = {0};
    sv_block_text(&g->choices[0], SV_TEXT, &text);
    char *messages = g->messages ? json_dumps(g->messages, JSON_COMPACT) : NULL;
    sv_log(s, "  asked: %.4000s", messages ? messages : "(raw prompt)");
    sv_log(s, "  answered: %.4000s", text.data ? text.data : "");
    free(messages);
    bs_buf_free(&text);
}
