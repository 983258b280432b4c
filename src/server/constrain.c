/* constrain.c - tool_choice and response_format as grammars, and the grammar as a mask on logits.
 */
#include "server/generate.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- what is asked -------------------------------------------------------------------------------
 */

static bool has_tool(const sv_gen *g, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach(g->tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        if (!strcmp(json_string_value(json_object_get(f, "name")), name)) return true;
    }
    return false;
}

/* "auto" | "none" | "required" (Anthropic: "any") | {"type":"function","function":{"name":..}} |
 * {"type":"function"|"tool","name":..}. */
void sv_read_tool_choice(sv_gen *g, const json_t *choice, sv_error *e)
{
    if (!choice || json_is_null(choice) || e->status) return;
    const char *word = json_string_value(choice);
    const char *name = json_string_value(json_object_get(choice, "name"));
    if (json_is_object(choice)) {
        word = json_string_value(json_object_get(choice, "type"));
        const char *inner =
            json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
        if (inner) name = inner;
    }
    static const char *const needed[] = {"required", "any", "function", "tool", NULL};
    if (word && !strcmp(word, "auto")) {
        g->tool_choice = SV_TOOLS_AUTO;
    } else if (word && !strcmp(word, "none")) {
        g->tool_choice = SV_TOOLS_NONE;
    } else if (sv_one_of(word, needed)) {
        g->tool_choice = SV_TOOLS_REQUIRED;
        bool named = !strcmp(word, "function") || !strcmp(word, "tool");
        if (!g->tools) sv_error_set(e, 400, "tool_choice", "tool_choice needs tools");
        else if (named && (!name || !has_tool(g, name)))
            sv_error_set(e, 400, "tool_choice",
                         "tool_choice names '%.64s', which is not among the "
                         "tools",
                         name ? name : "");
        else if (named) g->tool_name = name;
    } else {
        sv_error_set(e, 400, "tool_choice",
                     "tool_choice must be auto, none, required or name a function");
    }
}

/* {"type":"text"|"json_object"|"json_schema", "json_schema":{"schema":..}}, or the flat form of the
 * Responses API with "schema" beside "type". */
void sv_read_response_format(sv_gen *g, const json_t *format, sv_error *e)
{
    if (!format || json_is_null(format) || e->status) return;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!type) {
        sv_error_set(e, 400, "response_format", "response_format must be an object with a type");
    } else if (!strcmp(type, "json_object")) {
        g->json_output = true;
    } else if (!strcmp(type, "json_schema")) {
        const json_t *inner = json_object_get(format, "json_schema");
        g->schema = json_object_get(inner ? inner : format, "schema");
        if (!json_is_object(g->schema))
            sv_error_set(e, 400, "response_format",
                         "response_format.json_schema.schema must be a JSON Schema");
    } else if (strcmp(type, "text") != 0) {
        sv_error_set(e, 400, "response_format",
                     "response_format.type must be text, json_object or json_schema");
    }
}

/* --- the grammar
 * ---------------------------------------------------------------------------------- */

/* How each family writes calls, for calls that are forced; *many: whether several can be. */
static bool call_format(tx_tool_format format, en_call_format *out, bool *many)
{
    *many = true;
    switch (format) {
    case TX_TOOLS_HERMES:
        *out = (en_call_format){.before_name = "<tool_call>\n{\"name\": \"",
                                .before_args = "\", \"arguments\": ",
                                .after_args = "}\n</tool_call>",
                                .between = "\n"};
        return true;
    case TX_TOOLS_QWEN_XML:
        *out = (en_call_format){.before_name = "<tool_call>\n<function=",
                                .before_args = ">\n",
                                .after_args = "</function>\n</tool_call>",
                                .between = "\n",
                                .param_open = "<parameter=",
                                .param_name_end = ">\n",
                                .param_close = "\n</parameter>\n"};
        return true;
    case TX_TOOLS_GLM:
        *out = (en_call_format){.before_name = "<tool_call>",
                                .before_args = "\n",
                                .after_args = "</tool_call>",
                                .between = "\n",
                                .param_open = "<arg_key>",
                                .param_name_end = "</arg_key>\n<arg_value>",
                                .param_close = "</arg_value>\n"};
        return true;
    case TX_TOOLS_MINIMAX:
        *out = (en_call_format){.before_name = "<minimax:tool_call>\n<invoke name=\"",
                                .before_args = "\">\n",
                                .after_args = "</invoke>\n</minimax:tool_call>",
                                .between = "\n",
                                .param_open = "<parameter name=\"",
                                .param_name_end = "\">",
                                .param_close = "</parameter>\n"};
        return true;
    case TX_TOOLS_MISTRAL:
        *out = (en_call_format){.list_open = "[TOOL_CALLS][",
                                .before_name = "{\"name\": \"",
                                .before_args = "\", \"arguments\": ",
                                .after_args = "}",
                                .between = ", ",
                                .list_close = "]"};
        return true;
    case TX_TOOLS_HUNYUAN:
        *out = (en_call_format){.list_open = "<tool_calls>[",
                                .before_name = "{\"name\": \"",
                                .before_args = "\", \"arguments\": ",
                                .after_args = "}",
                                .between = ", ",
                                .list_close = "]</tool_calls>"};
        return true;
    case TX_TOOLS_GRANITE:
        *out = (en_call_format){.list_open = "<|tool_call|>[",
                                .before_name = "{\"name\": \"",
                                .before_args = "\", \"arguments\": ",
                                .after_args = "}",
                                .between = ", ",
                                .list_close = "]"};
        return true;
    case TX_TOOLS_DEEPSEEK:
        *out = (en_call_format){.list_open = "<｜tool▁calls▁begin｜>",
                                .before_name = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                                .before_args = "\n```json\n",
                                .after_args = "\n```<｜tool▁call▁end｜>",
                                .between = "\n",
                                .list_close = "<｜tool▁calls▁end｜>"};
        return true;
    case TX_TOOLS_KIMI:
        *many = false; /* each call carries its number */
        *out = (en_call_format){.before_name =
                                    "<|tool_calls_section_begin|><|tool_call_begin|>functions.",
                                .before_args = ":0<|tool_call_argument_begin|>",
                                .after_args = "<|tool_call_end|><|tool_calls_section_end|>"};
        return true;
    case TX_TOOLS_HARMONY: /* not constrained: its header names the function */
    case TX_TOOLS_NONE: break;
    }
    return false;
}

/* Which special tokens are text of a call's form (and so may be written): those that occur in it.
 */
typedef struct token_reader {
    const tx_tokenizer *tokenizer;
    bs_buf all; /* bytes of the tokens asked for so far; offsets stay, the data may move */
    size_t *offset, *length;
} token_reader;

static bool in_call_form(const char *text)
{
    for (int f = TX_TOOLS_HERMES; f <= TX_TOOLS_GRANITE; f++) {
        en_call_format form;
        bool many;
        if (!call_format((tx_tool_format)f, &form, &many)) continue;
        const char *const parts[] = {form.before_name, form.before_args, form.after_args,
                                     form.param_open,  form.param_close, form.param_name_end,
                                     form.list_open,   form.list_close};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (parts[i] && strstr(parts[i], text)) return true;
    }
    return !strcmp(text, "</think>");
}

static const char *token_bytes(void *arg, int id, size_t *length)
{
    token_reader *t = arg;
    *length = t->length[id];
    return t->length[id] ? t->all.data + t->offset[id] : NULL;
}

static bool read_tokens(token_reader *t, const tx_chat *chat, int vocab)
{
    t->offset = bs_calloc((size_t)vocab, sizeof *t->offset);
    t->length = bs_calloc((size_t)vocab, sizeof *t->length);
    if (!t->offset || !t->length) return false;
    for (int id = 0; id < vocab; id++) {
        size_t at = t->all.length;
        if (tx_chat_is_eos(chat, id) || !tx_token_bytes(t->tokenizer, id, &t->all)) continue;
        if (t->all.failed) return false;
        bool text = !tx_token_is_special(t->tokenizer, id) ||
                    (t->all.length > at && in_call_form(t->all.data + at));
        if (!text) {
            t->all.length = at;
            continue;
        }
        t->offset[id] = at;
        t->length[id] = t->all.length - at;
    }
    return true;
}

/* Made once, in the reader thread. */
static bool make_vocab(sv_server *s, sv_error *e)
{
    if (s->vocab) return true;
    const tx_chat *chat = en_chat(s->engine);
    fm_error err = {0};
    fm_status status = FM_OK;
    if (!chat) {
        sv_error_set(e, 400, NULL, "constrained output needs the model's tokenizer");
        return false;
    }
    size_t n_ends;
    const int32_t *ends = tx_chat_eos_ids(chat, &n_ends);
    int vocab = en_describe(s->engine)->vocab;
    token_reader t = {.tokenizer = en_tokenizer(s->engine)};
    if (!read_tokens(&t, chat, vocab))
        status = fm_fail(&err, FM_E_NOMEM, "out of memory while indexing the vocabulary");
    else status = en_vocab_create(vocab, token_bytes, &t, ends, (int)n_ends, &s->vocab, &err);
    if (status) sv_error_from(e, &err);
    bs_buf_free(&t.all);
    bs_free(t.offset);
    bs_free(t.length);
    return status == FM_OK;
}

static void constrain_tools(sv_gen *g, en_grammar_spec *spec, sv_error *e)
{
    bool many;
    if (!call_format(g->tool_format, &spec->call, &many)) {
        sv_error_set(e, 400, "tool_choice", "this model's template writes no tool calls");
        return;
    }
    spec->many_calls = many && g->parallel_calls && !g->tool_name;
    size_t n = json_array_size(g->tools);
    en_tool *tools = bs_calloc(n + 1, sizeof *tools);
    if (!tools) {
        sv_error_set(e, 500, NULL, "out of memory");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *f = json_object_get(json_array_get(g->tools, i), "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        if (g->tool_name && strcmp(g->tool_name, name) != 0) continue;
        tools[spec->n_tools++] = (en_tool){name, json_object_get(f, "parameters")};
    }
    spec->tools = tools;
}

void sv_constrain(sv_gen *g, sv_error *e)
{
    bool tools = g->tool_choice == SV_TOOLS_REQUIRED;
    if (!tools && !g->json_output && !g->schema) return;
    en_grammar_spec spec = {.schema = g->schema};
    if (g->starts_in_reasoning) spec.free_until = "</think>";
    if (tools) constrain_tools(g, &spec, e);
    fm_error err = {0};
    if (!e->status && make_vocab(g->request->server, e) &&
        en_grammar_create(&spec, &g->grammar, &err)) {
        sv_error_from(e, &err);
        snprintf(e->param, sizeof e->param, "%s", tools ? "tools" : "response_format");
    }
    bs_free((void *)spec.tools);
}

/* --- in the engine's thread
 * ------------------------------------------------------------------------- */

bool sv_mask(void *arg, int choice, float *logits, int vocab)
{
    sv_gen *g = arg;
    sv_choice *c = &g->choices[choice];
    const uint32_t *bits;
    if (en_matcher_mask(c->matcher, &bits, &c->error)) return false;
    int known = en_vocab_size(g->request->server->vocab);
    for (int id = 0; id < vocab; id++)
        if (id >= known || !(bits[id / 32] >> (id % 32) & 1)) logits[id] = -INFINITY;
    return true;
}

bool sv_accept(void *arg, int choice, int32_t token)
{
    sv_gen *g = arg;
    sv_choice *c = &g->choices[choice];
    if (en_matcher_accept(c->matcher, token, &c->error)) return false;
    return !en_matcher_finished(c->matcher);
}
