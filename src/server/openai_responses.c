/* openai_responses.c - /v1/responses, without stored state: each request carries its conversation.
 */
#include "server/generate.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the conversation
 * ----------------------------------------------------------------------------- */

/* function_call items that follow each other (or an assistant's message) are one turn. */
static void add_call(json_t *out, const json_t *item, sv_error *e)
{
    json_t *name = json_object_get(item, "name"), *arguments = json_object_get(item, "arguments");
    if (!json_is_string(name)) {
        sv_error_set(e, 400, "input", "input: a function_call has no name");
        return;
    }
    json_t *last = json_array_get(out, json_array_size(out) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant") != 0) {
        last = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
        json_array_append_new(out, last);
    }
    json_t *calls = json_object_get(last, "tool_calls");
    if (!calls) {
        calls = json_array();
        json_object_set_new(last, "tool_calls", calls);
    }
    json_array_append_new(calls, json_pack("{s:O?, s:s, s:{s:O, s:O?}}", "id",
                                           json_object_get(item, "call_id"), "type", "function",
                                           "function", "name", name, "arguments", arguments));
}

static void add_item(json_t *out, json_t *item, sv_error *e)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!type || !strcmp(type, "message")) {
        json_array_append(out, item);
    } else if (!strcmp(type, "function_call")) {
        add_call(out, item, e);
    } else if (!strcmp(type, "function_call_output")) {
        json_array_append_new(out, json_pack("{s:s, s:O?, s:O?}", "role", "tool", "tool_call_id",
                                             json_object_get(item, "call_id"), "content",
                                             json_object_get(item, "output")));
    } else if (strcmp(type, "reasoning") != 0 && strcmp(type, "item_reference") != 0) {
        sv_error_set(e, 400, "input", "input: items of type '%.40s' are not known here", type);
    }
}

static json_t *to_messages(const json_t *body, sv_error *e)
{
    json_t *input = json_object_get(body, "input"), *out = json_array();
    const char *instructions = NULL;
    sv_get_string(body, "instructions", &instructions, e);
    if (instructions && *instructions)
        json_array_append_new(out,
                              json_pack("{s:s, s:s}", "role", "system", "content", instructions));
    if (json_is_string(input)) {
        json_array_append_new(out, json_pack("{s:s, s:O}", "role", "user", "content", input));
    } else if (json_is_array(input) && json_array_size(input) > 0) {
        size_t i;
        json_t *item;
        json_array_foreach(input, i, item) if (!e->status) add_item(out, item, e);
    } else {
        sv_error_set(e, 400, "input", "input must be a string or a list that is not empty");
    }
    json_t *normal = e->status ? NULL : sv_normal_messages(out, e);
    json_decref(out);
    return normal;
}

/* --- items of the answer
 * --------------------------------------------------------------------------- */

static json_t *item_json(const sv_block *b, bool done)
{
    const char *status = done ? "completed" : "in_progress";
    const char *text = done && b->text.data ? b->text.data : "";
    size_t n = done ? b->text.length : 0;
    if (b->kind == SV_CALL)
        return json_pack("{s:s+, s:s, s:s, s:s+, s:s, s:s%}", "id", "fc_", b->id, "type",
                         "function_call", "status", status, "call_id", "call_", b->id, "name",
                         b->name, "arguments", text, n);
    if (b->kind == SV_REASONING)
        return json_pack("{s:s+, s:s, s:s, s:[], s:[{s:s, s:s%}]}", "id", "rs_", b->id, "type",
                         "reasoning", "status", status, "summary", "content", "type",
                         "reasoning_text", "text", text, n);
    json_t *part =
        json_pack("{s:s, s:s%, s:[]}", "type", "output_text", "text", text, n, "annotations");
    return json_pack("{s:s+, s:s, s:s, s:s, s:o}", "id", "msg_", b->id, "type", "message", "role",
                     "assistant", "status", status, "content",
                     done ? json_pack("[o]", part) : (json_decref(part), json_array()));
}

static json_t *copy_or_null(const json_t *body, const char *key)
{
    json_t *v = json_object_get(body, key);
    return v ? json_incref(v) : json_null();
}

static json_t *response_json(sv_request *r, const char *status)
{
    sv_gen *g = r->gen;
    const sv_choice *c = &g->choices[0];
    bool over = strcmp(status, "in_progress") != 0;
    json_t *output = json_array();
    for (int i = 0; over && i < c->n_blocks; i++)
        json_array_append_new(output, item_json(&c->blocks[i], true));
    json_t *used = json_null();
    if (over) {
        int out = sv_total_tokens(g);
        used =
            json_pack("{s:i, s:{s:i}, s:i, s:{s:i}, s:i}", "input_tokens", g->stats.prompt_tokens,
                      "input_tokens_details", "cached_tokens", g->stats.cached_tokens,
                      "output_tokens", out, "output_tokens_details", "reasoning_tokens",
                      sv_reasoning_tokens(g), "total_tokens", g->stats.prompt_tokens + out);
    }
    json_t *why = !strcmp(status, "incomplete") ? json_pack("{s:s}", "reason", "max_output_tokens")
                                                : json_null();
    json_t *tools = json_object_get(g->input, "tools");
    json_t *json = json_pack(
        "{s:s+, s:s, s:I, s:s, s:s, s:o, s:o, s:n, s:o, s:b, s:f, s:f}", "id", "resp_", r->id,
        "object", "response", "created_at", (json_int_t)r->created, "status", status, "model",
        r->server->model_name, "output", output, "usage", used, "error", "incomplete_details", why,
        "parallel_tool_calls", g->parallel_calls, "temperature", (double)g->sampling.temperature,
        "top_p", (double)g->sampling.top_p);
    json_object_set_new(json, "instructions", copy_or_null(g->input, "instructions"));
    json_object_set_new(json, "max_output_tokens", copy_or_null(g->input, "max_output_tokens"));
    json_object_set_new(json, "metadata", copy_or_null(g->input, "metadata"));
    json_object_set_new(json, "previous_response_id", json_null());
    json_object_set_new(json, "reasoning", copy_or_null(g->input, "reasoning"));
    json_object_set_new(json, "store", json_false());
    json_object_set_new(json, "tools", tools ? json_incref(tools) : json_array());
    json_t *choice = json_object_get(g->input, "tool_choice");
    json_object_set_new(json, "tool_choice", choice ? json_incref(choice) : json_string("auto"));
    if (over) {
        json_object_set_new(json, "timings", sv_timings(g));
        json_object_set_new(json, "x_moe", sv_x_moe(g));
    }
    return json;
}

/* --- streaming
 * -------------------------------------------------------------------------------------- */

/* Every event carries its type and a running number. Consumes json. */
static void send_event(sv_request *r, const char *type, json_t *json)
{
    json_object_set_new(json, "type", json_string(type));
    json_object_set_new(json, "sequence_number", json_integer(r->gen->sequence++));
    sv_stream_event(r, type, json);
}

static int index_of(const sv_choice *c, const sv_block *b)
{
    return (int)(b - c->blocks);
}

static void begin(sv_request *r)
{
    send_event(r, "response.created",
               json_pack("{s:o}", "response", response_json(r, "in_progress")));
    send_event(r, "response.in_progress",
               json_pack("{s:o}", "response", response_json(r, "in_progress")));
}

static const char *prefix_of(const sv_block *b)
{
    return b->kind == SV_CALL ? "fc_" : b->kind == SV_REASONING ? "rs_" : "msg_";
}

static json_t *place(const sv_choice *c, const sv_block *b)
{
    json_t *json =
        json_pack("{s:s+, s:i}", "item_id", prefix_of(b), b->id, "output_index", index_of(c, b));
    if (b->kind != SV_CALL) json_object_set_new(json, "content_index", json_integer(0));
    return json;
}

static void open(sv_request *r, sv_choice *c, sv_block *b)
{
    send_event(
        r, "response.output_item.added",
        json_pack("{s:i, s:o}", "output_index", index_of(c, b), "item", item_json(b, false)));
    if (b->kind != SV_TEXT) return;
    json_t *json = place(c, b);
    json_object_set_new(
        json, "part",
        json_pack("{s:s, s:s, s:[]}", "type", "output_text", "text", "", "annotations"));
    send_event(r, "response.content_part.added", json);
}

static void grow(sv_request *r, sv_choice *c, sv_block *b, const char *text, size_t n)
{
    static const char *const types[] = {"response.reasoning_text.delta",
                                        "response.output_text.delta",
                                        "response.function_call_arguments.delta"};
    json_t *json = place(c, b);
    json_object_set_new(json, "delta", json_stringn(text, n));
    if (b->kind == SV_TEXT) json_object_set_new(json, "logprobs", json_array());
    send_event(r, types[b->kind], json);
}

static void close_block(sv_request *r, sv_choice *c, sv_block *b)
{
    static const char *const types[] = {"response.reasoning_text.done", "response.output_text.done",
                                        "response.function_call_arguments.done"};
    json_t *json = place(c, b);
    json_object_set_new(json, b->kind == SV_CALL ? "arguments" : "text",
                        json_stringn(b->text.data ? b->text.data : "", b->text.length));
    if (b->kind == SV_TEXT) json_object_set_new(json, "logprobs", json_array());
    if (b->kind == SV_CALL) json_object_set_new(json, "name", json_string(b->name));
    send_event(r, types[b->kind], json);
    if (b->kind == SV_TEXT) {
        json = place(c, b);
        json_object_set_new(json, "part",
                            json_pack("{s:s, s:s%, s:[]}", "type", "output_text", "text",
                                      b->text.data ? b->text.data : "", b->text.length,
                                      "annotations"));
        send_event(r, "response.content_part.done", json);
    }
    send_event(r, "response.output_item.done",
               json_pack("{s:i, s:o}", "output_index", index_of(c, b), "item", item_json(b, true)));
}

static void finish(sv_request *r, sv_choice *c)
{
    (void)r;
    (void)c;
}

static const char *final_status(const sv_gen *g)
{
    return g->choices[0].finish == EN_FINISH_LENGTH ? "incomplete" : "completed";
}

static void end(sv_request *r)
{
    const char *status = final_status(r->gen);
    char type[40];
    snprintf(type, sizeof type, "response.%s", status);
    send_event(r, type, json_pack("{s:o}", "response", response_json(r, status)));
}

static void fail(sv_request *r, const sv_error *e)
{
    json_t *json = response_json(r, "failed");
    json_object_set_new(json, "error",
                        json_pack("{s:s, s:s}", "code", "server_error", "message", e->message));
    send_event(r, "response.failed", json_pack("{s:o}", "response", json));
}

static json_t *whole(sv_request *r)
{
    return response_json(r, final_status(r->gen));
}

static const sv_api api = {
    .ping = ": ping\n\n",
    .begin = begin,
    .open = open,
    .grow = grow,
    .close = close_block,
    .finish = finish,
    .end = end,
    .fail = fail,
    .whole = whole,
};

/* --- the request
 * ------------------------------------------------------------------------------------- */

static void read_options(sv_gen *g, const json_t *body, sv_error *e)
{
    json_t *reasoning = NULL, *text = NULL;
    const char *previous = NULL, *effort = NULL;
    bool background = false;
    sv_get_object(body, "reasoning", &reasoning, e);
    sv_get_string(reasoning, "effort", &effort, e);
    if (effort) g->thinking = strcmp(effort, "none") != 0;
    sv_get_object(body, "text", &text, e);
    sv_read_response_format(g, json_object_get(text, "format"), e);
    sv_get_string(body, "previous_response_id", &previous, e);
    sv_get_bool(body, "background", &background, e);
    sv_get_bool(body, "parallel_tool_calls", &g->parallel_calls, e);
    if (previous)
        sv_error_set(e, 400, "previous_response_id",
                     "this server keeps no responses: send the whole conversation as input");
    if (background) sv_error_set(e, 400, "background", "background responses are not offered");
    if (json_object_get(body, "conversation") &&
        !json_is_null(json_object_get(body, "conversation")))
        sv_error_set(e, 400, "conversation", "this server keeps no conversations");
}

void sv_post_responses(sv_request *r, json_t *body)
{
    sv_error e = {0};
    sv_gen *g = sv_gen_new(r, &api, body);
    if (!g) {
        sv_error_set(&e, 500, NULL, "out of memory");
        sv_refuse(r, &e);
        return;
    }
    sv_gen_fields(g, body, "stop", &e);
    sv_get_int(body, "max_output_tokens", 1, 1 << 30, &g->max_tokens, &e);
    read_options(g, body, &e);
    if (!e.status) g->messages = to_messages(body, &e);
    g->tools = sv_normal_tools(json_object_get(body, "tools"), &e);
    sv_read_tool_choice(g, json_object_get(body, "tool_choice"), &e);
    sv_gen_prepare(g, &e);
    sv_gen_start(g, &e);
    if (e.status) sv_refuse(r, &e);
}
