/* openai_completions.c - /v1/completions: raw text on, no template. */
#include "server/generate.h"

#include "base/mem.h"

#include <string.h>

static json_t *usage(const sv_gen *g)
{
    int out = sv_total_tokens(g);
    return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", g->stats.prompt_tokens,
                     "completion_tokens", out, "total_tokens", g->stats.prompt_tokens + out,
                     "prompt_tokens_details", "cached_tokens", g->stats.cached_tokens);
}

/* The older form of log probabilities: parallel lists. */
static json_t *old_logprobs(sv_choice *c)
{
    json_t *taken = sv_take_logprobs(c), *content = json_object_get(taken, "content");
    if (!content) return taken;
    json_t *tokens = json_array(), *values = json_array(), *tops = json_array();
    json_t *offsets = json_array();
    size_t i, k, offset = 0;
    json_t *item, *top;
    json_array_foreach(content, i, item)
    {
        json_t *map = json_object();
        json_array_append(tokens, json_object_get(item, "token"));
        json_array_append(values, json_object_get(item, "logprob"));
        json_array_foreach(json_object_get(item, "top_logprobs"), k, top) json_object_set(
            map, json_string_value(json_object_get(top, "token")), json_object_get(top, "logprob"));
        json_array_append_new(tops, map);
        json_array_append_new(offsets, json_integer((json_int_t)offset));
        offset += json_string_length(json_object_get(item, "token"));
    }
    json_decref(taken);
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", values,
                     "top_logprobs", tops, "text_offset", offsets);
}

static json_t *envelope(sv_request *r, json_t *choices)
{
    return json_pack("{s:s+, s:s, s:I, s:s, s:o}", "id", "cmpl-", r->id, "object",
                     "text_completion", "created", (json_int_t)r->created, "model",
                     r->server->model_name, "choices", choices);
}

static void send_text(sv_request *r, sv_choice *c, const char *text, size_t n, const char *finish)
{
    json_t *choice = json_pack("{s:i, s:o, s:s?}", "index", c->index, "text", json_stringn(text, n),
                               "finish_reason", finish);
    json_object_set_new(choice, "logprobs",
                        r->gen->top_logprobs >= 0 ? old_logprobs(c) : json_null());
    sv_stream_event(r, NULL, envelope(r, json_pack("[o]", choice)));
}

static const char *prompt_text(const sv_gen *g, size_t *n)
{
    const json_t *p = json_object_get(g->input, "prompt");
    if (json_is_array(p) && json_is_string(json_array_get(p, 0))) p = json_array_get(p, 0);
    *n = json_string_length(p);
    return json_is_string(p) ? json_string_value(p) : "";
}

static void begin(sv_request *r)
{
    size_t n;
    const char *text = prompt_text(r->gen, &n);
    for (int i = 0; r->gen->echo && i < r->gen->n; i++)
        send_text(r, &r->gen->choices[i], text, n, NULL);
}

static void block_event(sv_request *r, sv_choice *c, sv_block *b)
{
    (void)r;
    (void)c;
    (void)b;
}

static void grow(sv_request *r, sv_choice *c, sv_block *b, const char *text, size_t n)
{
    (void)b;
    send_text(r, c, text, n, NULL);
}

static void finish(sv_request *r, sv_choice *c)
{
    send_text(r, c, "", 0, sv_finish_reason(c));
}

static void end(sv_request *r)
{
    if (r->gen->usage_in_stream) {
        json_t *chunk = envelope(r, json_array());
        json_object_set_new(chunk, "usage", usage(r->gen));
        json_object_set_new(chunk, "timings", sv_timings(r->gen));
        json_object_set_new(chunk, "x_moe", sv_x_moe(r->gen));
        sv_stream_event(r, NULL, chunk);
    }
    sv_stream_write(r, "data: [DONE]\n\n");
}

static void fail(sv_request *r, const sv_error *e)
{
    sv_stream_event(r, NULL, sv_error_json(SV_OPENAI, e));
    sv_stream_write(r, "data: [DONE]\n\n");
}

static json_t *whole(sv_request *r)
{
    sv_gen *g = r->gen;
    json_t *choices = json_array();
    for (int i = 0; i < g->n; i++) {
        bs_buf text = {0};
        size_t n;
        const char *prompt = prompt_text(g, &n);
        if (g->echo) bs_buf_append(&text, prompt, n);
        sv_block_text(&g->choices[i], SV_TEXT, &text);
        json_array_append_new(choices,
                              json_pack("{s:i, s:s%, s:o, s:s}", "index", i, "text",
                                        text.data ? text.data : "", text.length, "logprobs",
                                        old_logprobs(&g->choices[i]), "finish_reason",
                                        sv_finish_reason(&g->choices[i])));
        bs_buf_free(&text);
    }
    json_t *out = envelope(r, choices);
    json_object_set_new(out, "usage", usage(g));
    json_object_set_new(out, "timings", sv_timings(g));
    json_object_set_new(out, "x_moe", sv_x_moe(g));
    return out;
}

static const sv_api api = {
    .ping = ": ping\n\n",
    .begin = begin,
    .open = block_event,
    .grow = grow,
    .close = block_event,
    .finish = finish,
    .end = end,
    .fail = fail,
    .whole = whole,
};

static void take_ids(sv_gen *g, const json_t *list, sv_error *e)
{
    int vocab = en_describe(g->request->server->engine)->vocab;
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= vocab) {
            sv_error_set(e, 400, "prompt", "prompt[%zu] is no token id below %d", i, vocab);
            return;
        }
        if (!tx_ids_push(&g->ids, (int32_t)id)) {
            sv_error_set(e, 500, NULL, "out of memory");
            return;
        }
    }
}

/* A string, a list with one string, or a list of token ids. */
static void read_prompt(sv_gen *g, const json_t *prompt, sv_error *e)
{
    const tx_chat *chat = en_chat(g->request->server->engine);
    fm_error err = {0};
    if (e->status) return;
    if (json_is_array(prompt) && json_array_size(prompt) == 1 &&
        !json_is_integer(json_array_get(prompt, 0)))
        prompt = json_array_get(prompt, 0);
    if (json_is_array(prompt) && json_is_integer(json_array_get(prompt, 0))) {
        take_ids(g, prompt, e);
    } else if (!json_is_string(prompt)) {
        sv_error_set(e, 400, "prompt",
                     "prompt must be a string or a list of token ids (one prompt a request)");
    } else if (!chat) {
        sv_error_set(e, 400, "prompt", "this model has no tokenizer: send token ids");
    } else if (tx_chat_raw_prompt(chat, json_string_value(prompt), json_string_length(prompt),
                                  &g->ids, &err)) {
        sv_error_from(e, &err);
    }
}

void sv_post_completions(sv_request *r, json_t *body)
{
    sv_error e = {0};
    sv_gen *g = sv_gen_new(r, &api, body);
    if (!g) {
        sv_error_set(&e, 500, NULL, "out of memory");
        sv_refuse(r, &e);
        return;
    }
    json_t *options = NULL;
    const char *suffix = NULL;
    g->max_tokens = 16; /* this interface's own default */
    sv_gen_fields(g, body, "stop", &e);
    sv_get_int(body, "max_tokens", 1, 1 << 30, &g->max_tokens, &e);
    sv_get_int(body, "n", 1, 16, &g->n, &e);
    sv_get_int(body, "logprobs", 0, 20, &g->top_logprobs, &e);
    sv_get_bool(body, "echo", &g->echo, &e);
    sv_get_bool(body, "ignore_eos", &g->ignore_end, &e);
    sv_get_string(body, "suffix", &suffix, &e);
    sv_get_object(body, "stream_options", &options, &e);
    sv_get_bool(options, "include_usage", &g->usage_in_stream, &e);
    if (suffix && *suffix)
        sv_error_set(&e, 400, "suffix", "suffix is not supported: this server only continues text");
    sv_read_response_format(g, json_object_get(body, "response_format"), &e);
    read_prompt(g, json_object_get(body, "prompt"), &e);
    sv_gen_prepare(g, &e);
    sv_gen_start(g, &e);
    if (e.status) sv_refuse(r, &e);
}

/* --- tokens -------------------------------------------------------------------------------------
 */

void sv_post_tokenize(sv_request *r, json_t *body)
{
    sv_error e = {0};
    const char *content = NULL;
    bool special = false;
    fm_error err = {0};
    tx_ids ids = {0};
    const tx_tokenizer *t = en_tokenizer(r->server->engine);
    sv_get_string(body, "content", &content, &e);
    sv_get_bool(body, "add_special", &special, &e);
    if (!content) sv_error_set(&e, 400, "content", "content must be a string");
    if (!t) sv_error_set(&e, 400, NULL, "this model has no tokenizer");
    if (!e.status && tx_encode(t, content, json_string_length(json_object_get(body, "content")),
                               special ? TX_ADD_SPECIAL : 0, &ids, &err))
        sv_error_from(&e, &err);
    json_t *list = json_array();
    for (size_t i = 0; i < ids.length; i++) json_array_append_new(list, json_integer(ids.data[i]));
    tx_ids_free(&ids);
    if (!e.status) {
        sv_answer(r, 200, json_pack("{s:o}", "tokens", list));
        return;
    }
    json_decref(list);
    sv_refuse(r, &e);
}

void sv_post_detokenize(sv_request *r, json_t *body)
{
    sv_error e = {0};
    json_t *list = NULL;
    fm_error err = {0};
    bs_buf text = {0};
    const tx_tokenizer *t = en_tokenizer(r->server->engine);
    sv_get_array(body, "tokens", &list, &e);
    if (!list) sv_error_set(&e, 400, "tokens", "tokens must be a list of token ids");
    if (!t) sv_error_set(&e, 400, NULL, "this model has no tokenizer");
    tx_ids ids = {0};
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id > INT32_MAX || !tx_ids_push(&ids, (int32_t)id))
            sv_error_set(&e, 400, "tokens", "tokens[%zu] is no token id", i);
    }
    if (!e.status && tx_decode(t, ids.data, ids.length, false, &text, &err))
        sv_error_from(&e, &err);
    if (e.status) sv_refuse(r, &e);
    else sv_answer(r, 200, json_pack("{s:s%}", "content", text.data ? text.data : "", text.length));
    tx_ids_free(&ids);
    bs_buf_free(&text);
}
