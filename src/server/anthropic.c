/* anthropic.c - /v1/messages and /v1/messages/count_tokens. */
#include "server/generate.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* --- the conversation ----------------------------------------------------------------------------
 */

/* Some clients put a line here that changes with every request; kept, it would spoil every reuse of
 * the conversation's beginning, and it is not meant for the model. */
static bool is_billing_note(const json_t *block)
{
    const char *text = json_string_value(json_object_get(block, "text"));
    return text && !strncmp(text, "x-anthropic-billing-header:", 27);
}

static json_t *system_message(const json_t *system, sv_error *e)
{
    if (!system || json_is_null(system)) return NULL;
    json_t *kept = NULL;
    if (json_is_array(system)) {
        kept = json_array();
        size_t i;
        json_t *block;
        json_array_foreach(system, i, block) if (!is_billing_note(block))
            json_array_append(kept, block);
    }
    json_t *text = sv_text_of(kept ? kept : system, "system", e);
    json_decref(kept);
    if (!text) return NULL;
    if (json_string_length(text) == 0) {
        json_decref(text);
        return NULL;
    }
    return json_pack("{s:s, s:o}", "role", "system", "content", text);
}

static void add_text(bs_buf *text, const json_t *piece)
{
    if (text->length) bs_buf_putc(text, '\n');
    bs_buf_append(text, json_string_value(piece), json_string_length(piece));
}

static void add_call(json_t *calls, const json_t *block, sv_error *e)
{
    json_t *name = json_object_get(block, "name"), *input = json_object_get(block, "input");
    if (!json_is_string(name))
        sv_error_set(e, 400, "messages", "messages: a tool_use block has no name");
    else
        json_array_append_new(calls, json_pack("{s:O?, s:s, s:{s:O, s:o}}", "id",
                                               json_object_get(block, "id"), "type", "function",
                                               "function", "name", name, "arguments",
                                               input ? json_incref(input) : json_object()));
}

/* One message of blocks becomes tool results first, then what is left of it. */
static void convert_blocks(json_t *out, const char *role, const json_t *blocks, sv_error *e)
{
    bs_buf text = {0}, thinking = {0};
    json_t *calls = json_array();
    size_t i;
    json_t *block;
    json_array_foreach(blocks, i, block)
    {
        const char *type = json_string_value(json_object_get(block, "type"));
        if (!type) {
            sv_error_set(e, 400, "messages", "messages: a content block has no type");
        } else if (!strcmp(type, "text")) {
            add_text(&text, json_object_get(block, "text"));
        } else if (!strcmp(type, "thinking")) {
            add_text(&thinking, json_object_get(block, "thinking"));
        } else if (!strcmp(type, "tool_use")) {
            add_call(calls, block, e);
        } else if (!strcmp(type, "tool_result")) {
            json_t *content = sv_text_of(json_object_get(block, "content"), "messages", e);
            json_array_append_new(out, json_pack("{s:s, s:O?, s:o}", "role", "tool", "tool_call_id",
                                                 json_object_get(block, "tool_use_id"), "content",
                                                 content ? content : json_string("")));
        } else if (strcmp(type, "redacted_thinking") != 0) {
            sv_error_set(e, 400, "messages", "messages: this model reads text only, not '%.40s'",
                         type);
        }
    }
    bool any =
        text.length || json_array_size(calls) || thinking.length || (json_array_size(blocks) == 0);
    if (any) {
        json_t *m = json_pack("{s:s, s:s%}", "role", role, "content", text.data ? text.data : "",
                              text.length);
        if (json_array_size(calls)) json_object_set(m, "tool_calls", calls);
        if (thinking.length)
            json_object_set_new(m, "reasoning_content",
                                json_stringn(thinking.data, thinking.length));
        json_array_append_new(out, m);
    }
    json_decref(calls);
    bs_buf_free(&text);
    bs_buf_free(&thinking);
}

static json_t *to_openai(const json_t *body, sv_error *e)
{
    json_t *messages = json_object_get(body, "messages"), *out = json_array();
    json_t *system = system_message(json_object_get(body, "system"), e);
    if (system) json_array_append_new(out, system);
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        sv_error_set(e, 400, "messages", "messages: must be a list that is not empty");
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        json_t *content = json_object_get(m, "content");
        static const char *const roles[] = {"user", "assistant", "system", NULL};
        if (e->status) break;
        if (!sv_one_of(role, roles))
            sv_error_set(e, 400, "messages", "messages.%zu.role: '%.40s' is not known", i,
                         role ? role : "");
        else if (json_is_string(content))
            json_array_append_new(out, json_pack("{s:s, s:O}", "role", role, "content", content));
        else if (json_is_array(content)) convert_blocks(out, role, content, e);
        else
            sv_error_set(e, 400, "messages", "messages.%zu.content: must be a string or a list", i);
    }
    json_t *normal = e->status ? NULL : sv_normal_messages(out, e);
    json_decref(out);
    return normal;
}

/* --- the answer ----------------------------------------------------------------------------------
 */

static const char *stop_reason(const sv_choice *c)
{
    if (sv_count_calls(c) > 0 && c->finish != EN_FINISH_LENGTH) return "tool_use";
    if (c->finish == EN_FINISH_LENGTH) return "max_tokens";
    return c->stop ? "stop_sequence" : "end_turn";
}

static json_t *usage(const sv_gen *g)
{
    return json_pack("{s:i, s:i, s:i, s:i}", "input_tokens",
                     g->stats.prompt_tokens - g->stats.cached_tokens, "cache_creation_input_tokens",
                     0, "cache_read_input_tokens", g->stats.cached_tokens, "output_tokens",
                     sv_total_tokens(g));
}

static void begin(sv_request *r)
{
    json_t *message = json_pack(
        "{s:s+, s:s, s:s, s:s, s:[], s:n, s:n, s:{s:i, s:i, s:i, s:i}}", "id", "msg_", r->id,
        "type", "message", "role", "assistant", "model", r->server->model_name, "content",
        "stop_reason", "stop_sequence", "usage", "input_tokens", (int)r->gen->ids.length,
        "cache_creation_input_tokens", 0, "cache_read_input_tokens", 0, "output_tokens", 0);
    sv_stream_event(r, "message_start",
                    json_pack("{s:s, s:o}", "type", "message_start", "message", message));
    sv_stream_write(r, "event: ping\ndata: {\"type\": \"ping\"}\n\n");
}

static int block_index(const sv_choice *c, const sv_block *b)
{
    return (int)(b - c->blocks);
}

static void open(sv_request *r, sv_choice *c, sv_block *b)
{
    json_t *block;
    if (b->kind == SV_CALL)
        block = json_pack("{s:s, s:s+, s:s, s:{}}", "type", "tool_use", "id", "toolu_", b->id,
                          "name", b->name, "input");
    else if (b->kind == SV_REASONING)
        block = json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", "");
    else block = json_pack("{s:s, s:s}", "type", "text", "text", "");
    sv_stream_event(r, "content_block_start",
                    json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index",
                              block_index(c, b), "content_block", block));
}

static void send_delta(sv_request *r, sv_choice *c, sv_block *b, json_t *delta)
{
    sv_stream_event(r, "content_block_delta",
                    json_pack("{s:s, s:i, s:o}", "type", "content_block_delta", "index",
                              block_index(c, b), "delta", delta));
}

static void grow(sv_request *r, sv_choice *c, sv_block *b, const char *text, size_t n)
{
    static const char *const types[] = {"thinking_delta", "text_delta", "input_json_delta"};
    static const char *const keys[] = {"thinking", "text", "partial_json"};
    send_delta(r, c, b, json_pack("{s:s, s:s%}", "type", types[b->kind], keys[b->kind], text, n));
}

static void close_block(sv_request *r, sv_choice *c, sv_block *b)
{
    if (b->kind == SV_REASONING)
        send_delta(r, c, b,
                   json_pack("{s:s, s:s}", "type", "signature_delta", "signature", "local"));
    sv_stream_event(
        r, "content_block_stop",
        json_pack("{s:s, s:i}", "type", "content_block_stop", "index", block_index(c, b)));
}

static void finish(sv_request *r, sv_choice *c)
{
    sv_stream_event(r, "message_delta",
                    json_pack("{s:s, s:{s:s, s:s?}, s:o, s:o, s:o}", "type", "message_delta",
                              "delta", "stop_reason", stop_reason(c), "stop_sequence", c->stop,
                              "usage", usage(r->gen), "timings", sv_timings(r->gen), "x_moe",
                              sv_x_moe(r->gen)));
}

static void end(sv_request *r)
{
    sv_stream_event(r, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static void fail(sv_request *r, const sv_error *e)
{
    sv_stream_event(r, "error", sv_error_json(SV_ANTHROPIC, e));
}

static json_t *block_json(const sv_block *b)
{
    const char *text = b->text.data ? b->text.data : "";
    if (b->kind == SV_CALL) {
        json_t *input = json_loadb(text, b->text.length, 0, NULL);
        return json_pack("{s:s, s:s+, s:s, s:o}", "type", "tool_use", "id", "toolu_", b->id, "name",
                         b->name, "input", input ? input : json_object());
    }
    if (b->kind == SV_REASONING)
        return json_pack("{s:s, s:s%, s:s}", "type", "thinking", "thinking", text, b->text.length,
                         "signature", "local");
    return json_pack("{s:s, s:s%}", "type", "text", "text", text, b->text.length);
}

static json_t *whole(sv_request *r)
{
    sv_gen *g = r->gen;
    sv_choice *c = &g->choices[0];
    json_t *content = json_array();
    for (int i = 0; i < c->n_blocks; i++) json_array_append_new(content, block_json(&c->blocks[i]));
    return json_pack("{s:s+, s:s, s:s, s:s, s:o, s:s, s:s?, s:o, s:o, s:o}", "id", "msg_", r->id,
                     "type", "message", "role", "assistant", "model", r->server->model_name,
                     "content", content, "stop_reason", stop_reason(c), "stop_sequence", c->stop,
                     "usage", usage(g), "timings", sv_timings(g), "x_moe", sv_x_moe(g));
}

static const sv_api api = {
    .ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    .begin = begin,
    .open = open,
    .grow = grow,
    .close = close_block,
    .finish = finish,
    .end = end,
    .fail = fail,
    .whole = whole,
};

/* --- the requests
 * --------------------------------------------------------------------------------- */

static void read_thinking(sv_gen *g, const json_t *body, sv_error *e)
{
    json_t *thinking = NULL;
    sv_get_object(body, "thinking", &thinking, e);
    const char *type = json_string_value(json_object_get(thinking, "type"));
    static const char *const on[] = {"enabled", "adaptive", NULL};
    if (thinking && !sv_one_of(type, on) && (!type || strcmp(type, "disabled") != 0))
        sv_error_set(e, 400, "thinking", "thinking.type must be enabled, adaptive or disabled");
    g->thinking = sv_one_of(type, on);
}

/* What counting and answering share: messages, tools, template. */
static void read_conversation(sv_gen *g, const json_t *body, sv_error *e)
{
    json_t *choice = NULL;
    bool single = false;
    read_thinking(g, body, e);
    if (!e->status) g->messages = to_openai(body, e);
    g->tools = sv_normal_tools(json_object_get(body, "tools"), e);
    sv_get_object(body, "tool_choice", &choice, e);
    sv_read_tool_choice(g, choice, e);
    sv_get_bool(choice, "disable_parallel_tool_use", &single, e);
    g->parallel_calls = !single;
    const json_t *last = json_array_get(g->messages, json_array_size(g->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    g->continue_final = role && !strcmp(role, "assistant"); /* the client began the answer */
    const json_t *format = json_object_get(json_object_get(body, "output_config"), "format");
    sv_read_response_format(g, format ? format : json_object_get(body, "output_format"), e);
}

void sv_post_messages(sv_request *r, json_t *body)
{
    sv_error e = {0};
    sv_gen *g = sv_gen_new(r, &api, body);
    if (!g) {
        sv_error_set(&e, 500, NULL, "out of memory");
        sv_refuse(r, &e);
        return;
    }
    sv_gen_fields(g, body, "stop_sequences", &e);
    if (!json_object_get(body, "max_tokens"))
        sv_error_set(&e, 400, "max_tokens", "max_tokens: field required");
    sv_get_int(body, "max_tokens", 1, 1 << 30, &g->max_tokens, &e);
    read_conversation(g, body, &e);
    sv_gen_prepare(g, &e);
    sv_gen_start(g, &e);
    if (e.status) sv_refuse(r, &e);
}

void sv_post_count_tokens(sv_request *r, json_t *body)
{
    sv_error e = {0};
    sv_gen *g = sv_gen_new(r, &api, body);
    if (!g) sv_error_set(&e, 500, NULL, "out of memory");
    if (g) read_conversation(g, body, &e);
    if (g) sv_gen_prepare(g, &e);
    if (e.code && !strcmp(e.code, "context_length_exceeded")) e = (sv_error){0};
    if (e.status) sv_refuse(r, &e);
    else sv_answer(r, 200, json_pack("{s:i}", "input_tokens", (int)g->ids.length));
}
