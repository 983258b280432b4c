/* openai_chat.c - /v1/chat/completions. */
#include "server/generate.h"

#include "base/mem.h"

#include <string.h>

static json_t *usage(const sv_gen *g)
{
    int out = sv_total_tokens(g);
    return json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i}}", "prompt_tokens", g->stats.prompt_tokens,
                     "completion_tokens", out, "total_tokens", g->stats.prompt_tokens + out,
                     "prompt_tokens_details", "cached_tokens", g->stats.cached_tokens,
                     "completion_tokens_details", "reasoning_tokens", sv_reasoning_tokens(g));
}

/* --- streaming ----------------------------------------------------------------------------------
 */

static void send_chunk(sv_request *r, json_t *choices, json_t *used)
{
    json_t *chunk = json_pack("{s:s+, s:s, s:I, s:s, s:o}", "id", "chatcmpl-", r->id, "object",
                              "chat.completion.chunk", "created", (json_int_t)r->created, "model",
                              r->server->model_name, "choices", choices);
    if (used) {
        json_object_set_new(chunk, "usage", used);
        json_object_set_new(chunk, "timings", sv_timings(r->gen));
        json_object_set_new(chunk, "x_moe", sv_x_moe(r->gen));
    }
    sv_stream_event(r, NULL, chunk);
}

static void send_delta(sv_request *r, sv_choice *c, json_t *delta, const char *finish)
{
    json_t *choice =
        json_pack("{s:i, s:o, s:s?}", "index", c->index, "delta", delta, "finish_reason", finish);
    if (r->gen->top_logprobs >= 0) json_object_set_new(choice, "logprobs", sv_take_logprobs(c));
    send_chunk(r, json_pack("[o]", choice), NULL);
}

static void begin(sv_request *r)
{
    for (int i = 0; i < r->gen->n; i++)
        send_delta(r, &r->gen->choices[i],
                   json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static int call_index(const sv_choice *c, const sv_block *b)
{
    int n = 0;
    for (int i = 0; &c->blocks[i] != b; i++) n += c->blocks[i].kind == SV_CALL;
    return n;
}

static void open(sv_request *r, sv_choice *c, sv_block *b)
{
    if (b->kind != SV_CALL) return;
    send_delta(r, c,
               json_pack("{s:[{s:i, s:s+, s:s, s:{s:s, s:s}}]}", "tool_calls", "index",
                         call_index(c, b), "id", "call_", b->id, "type", "function", "function",
                         "name", b->name, "arguments", ""),
               NULL);
}

static void grow(sv_request *r, sv_choice *c, sv_block *b, const char *text, size_t n)
{
    json_t *piece = json_stringn(text, n);
    if (b->kind == SV_CALL)
        send_delta(r, c,
                   json_pack("{s:[{s:i, s:{s:o}}]}", "tool_calls", "index", call_index(c, b),
                             "function", "arguments", piece),
                   NULL);
    else
        send_delta(r, c,
                   json_pack("{s:o}", b->kind == SV_TEXT ? "content" : "reasoning_content", piece),
                   NULL);
}

static void block_end(sv_request *r, sv_choice *c, sv_block *b)
{
    (void)r;
    (void)c;
    (void)b;
}

static void finish(sv_request *r, sv_choice *c)
{
    send_delta(r, c, json_object(), sv_finish_reason(c));
}

static void end(sv_request *r)
{
    if (r->gen->usage_in_stream) send_chunk(r, json_array(), usage(r->gen));
    sv_stream_write(r, "data: [DONE]\n\n");
}

static void fail(sv_request *r, const sv_error *e)
{
    sv_stream_event(r, NULL, sv_error_json(SV_OPENAI, e));
    sv_stream_write(r, "data: [DONE]\n\n");
}

/* --- in one piece --------------------------------------------------------------------------------
 */

static json_t *message_of(const sv_choice *c)
{
    bs_buf text = {0}, reasoning = {0};
    sv_block_text(c, SV_TEXT, &text);
    sv_block_text(c, SV_REASONING, &reasoning);
    bool calls = sv_count_calls(c) > 0;
    json_t *content = calls && text.length == 0
                          ? json_null()
                          : json_stringn(text.data ? text.data : "", text.length);
    json_t *message =
        json_pack("{s:s, s:o, s:n}", "role", "assistant", "content", content, "refusal");
    if (reasoning.length)
        json_object_set_new(message, "reasoning_content",
                            json_stringn(reasoning.data, reasoning.length));
    json_t *list = calls ? json_array() : NULL;
    for (int i = 0; i < c->n_blocks && calls; i++) {
        const sv_block *b = &c->blocks[i];
        if (b->kind != SV_CALL) continue;
        json_array_append_new(list,
                              json_pack("{s:s+, s:s, s:{s:s, s:s%}}", "id", "call_", b->id, "type",
                                        "function", "function", "name", b->name, "arguments",
                                        b->text.data ? b->text.data : "", b->text.length));
    }
    if (list) json_object_set_new(message, "tool_calls", list);
    bs_buf_free(&text);
    bs_buf_free(&reasoning);
    return message;
}

static json_t *whole(sv_request *r)
{
    sv_gen *g = r->gen;
    json_t *choices = json_array();
    for (int i = 0; i < g->n; i++) {
        sv_choice *c = &g->choices[i];
        json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message",
                                                 message_of(c), "logprobs", sv_take_logprobs(c),
                                                 "finish_reason", sv_finish_reason(c)));
    }
    return json_pack("{s:s+, s:s, s:I, s:s, s:o, s:o, s:s, s:o, s:o}", "id", "chatcmpl-", r->id,
                     "object", "chat.completion", "created", (json_int_t)r->created, "model",
                     r->server->model_name, "choices", choices, "usage", usage(g),
                     "system_fingerprint", "flash-moe-" FM_VERSION, "timings", sv_timings(g),
                     "x_moe", sv_x_moe(g));
}

static const sv_api api = {
    .ping = ": ping\n\n",
    .begin = begin,
    .open = open,
    .grow = grow,
    .close = block_end,
    .finish = finish,
    .end = end,
    .fail = fail,
    .whole = whole,
};

/* --- the request ---------------------------------------------------------------------------------
 */

static void read_logprobs(sv_gen *g, const json_t *body, sv_error *e)
{
    bool wanted = false;
    long top = 0;
    sv_get_bool(body, "logprobs", &wanted, e);
    sv_get_int(body, "top_logprobs", 0, 20, &top, e);
    if (!wanted && top > 0)
        sv_error_set(e, 400, "top_logprobs", "top_logprobs needs logprobs: true");
    if (wanted) g->top_logprobs = top;
}

static void read_reasoning(sv_gen *g, const json_t *body, sv_error *e)
{
    const char *effort = NULL;
    static const char *const known[] = {"none", "minimal", "low", "medium", "high", "xhigh", NULL};
    sv_get_string(body, "reasoning_effort", &effort, e);
    if (effort && !sv_one_of(effort, known))
        sv_error_set(e, 400, "reasoning_effort", "reasoning_effort '%.20s' is not known", effort);
    if (effort) g->thinking = strcmp(effort, "none") != 0;
    sv_get_object(body, "chat_template_kwargs", &g->extra, e);
    json_incref(g->extra);
}

/* A last message of the assistant is gone on with when the client says so (vLLM's two switches). */
static void read_continuation(sv_gen *g, const json_t *body, sv_error *e)
{
    bool go_on = false, prompt = true;
    sv_get_bool(body, "continue_final_message", &go_on, e);
    sv_get_bool(body, "add_generation_prompt", &prompt, e);
    g->continue_final = go_on;
    if (go_on && json_is_true(json_object_get(body, "add_generation_prompt")))
        sv_error_set(e, 400, "continue_final_message",
                     "continue_final_message and add_generation_prompt exclude each other");
}

void sv_post_chat(sv_request *r, json_t *body)
{
    sv_error e = {0};
    sv_gen *g = sv_gen_new(r, &api, body);
    if (!g) {
        sv_error_set(&e, 500, NULL, "out of memory");
        sv_refuse(r, &e);
        return;
    }
    json_t *options = NULL;
    sv_gen_fields(g, body, "stop", &e);
    sv_get_int(body, "max_tokens", 1, 1 << 30, &g->max_tokens, &e);
    sv_get_int(body, "max_completion_tokens", 1, 1 << 30, &g->max_tokens, &e);
    sv_get_int(body, "n", 1, 16, &g->n, &e);
    sv_get_object(body, "stream_options", &options, &e);
    sv_get_bool(options, "include_usage", &g->usage_in_stream, &e);
    sv_get_bool(body, "parallel_tool_calls", &g->parallel_calls, &e);
    read_logprobs(g, body, &e);
    read_reasoning(g, body, &e);
    read_continuation(g, body, &e);
    g->messages = sv_normal_messages(json_object_get(body, "messages"), &e);
    g->tools = sv_normal_tools(json_object_get(body, "tools"), &e);
    sv_read_tool_choice(g, json_object_get(body, "tool_choice"), &e);
    sv_read_response_format(g, json_object_get(body, "response_format"), &e);
    sv_gen_prepare(g, &e);
    sv_gen_start(g, &e);
    if (e.status) sv_refuse(r, &e);
}
