/* What a client may put into a request's JSON, as far as it needs no model: messages in every form,
 * tools, tool_choice, response_format, and the numbers beside them. */
#include "server/generate.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void conversation(const json_t *body, sv_gen *g, sv_error *e)
{
    json_t *messages = sv_normal_messages(json_object_get(body, "messages"), e);
    g->tools = sv_normal_tools(json_object_get(body, "tools"), e);
    sv_read_tool_choice(g, json_object_get(body, "tool_choice"), e);
    sv_read_response_format(g, json_object_get(body, "response_format"), e);
    if (messages && g->tools) {
        json_t *described = sv_messages_with_tools(messages, g->tools);
        if (!json_is_array(described)) abort();
        json_decref(described);
    }
    json_decref(messages);
}

static void constraint(sv_gen *g)
{
    en_grammar *grammar = NULL;
    en_grammar_spec spec = {.schema = g->schema};
    if (g->schema && !en_grammar_create(&spec, &grammar, NULL)) en_grammar_destroy(grammar);
}

static void numbers(const json_t *body, sv_error *e)
{
    long n = 1;
    float x = 0;
    bool b = false;
    sv_get_int(body, "max_tokens", 1, 1 << 30, &n, e);
    sv_get_int(body, "seed", -0x7fffffffffffffff, 0x7fffffffffffffff, &n, e);
    sv_get_float(body, "temperature", 0, 2, &x, e);
    sv_get_bool(body, "stream", &b, e);
    if (!e->status && !(x >= 0 && x <= 2)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *body = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(body)) {
        sv_error e = {0}, more = {0};
        sv_gen g = {0};
        conversation(body, &g, &e);
        if (!e.status) constraint(&g);
        numbers(body, &more);
        json_t *shown = sv_error_json(SV_ANTHROPIC, &e);
        json_decref(shown);
        json_decref(g.tools);
    }
    json_decref(body);
    return 0;
}
