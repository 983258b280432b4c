/* messages.c - what a conversation looks like before the template sees it: roles that templates
 * know, content as plain text, arguments as JSON values. */
#include "server/generate.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 20000, MAX_TOOLS = 512 };

/* A string, null (""), or a list of text parts joined. Images and the like are refused by name. New
 * reference, NULL with an error. */
json_t *sv_text_of(const json_t *content, const char *param, sv_error *e)
{
    if (!content || json_is_null(content)) return json_string("");
    if (json_is_string(content)) return json_incref((json_t *)content);
    if (!json_is_array(content)) {
        sv_error_set(e, 400, param, "%s: content must be a string or a list of parts", param);
        return NULL;
    }
    static const char *const texts[] = {"text", "input_text", "output_text", "refusal", NULL};
    bs_buf joined = {0};
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        if (!text) text = json_object_get(part, "refusal");
        if (json_is_string(part)) text = part;
        if (type && !sv_one_of(type, texts)) {
            sv_error_set(e, 400, param, "%s: this model reads text only, not '%.40s'", param, type);
        } else if (!json_is_string(text)) {
            sv_error_set(e, 400, param, "%s: a content part has no text", param);
        } else {
            if (joined.length) bs_buf_putc(&joined, '\n');
            bs_buf_append(&joined, json_string_value(text), json_string_length(text));
        }
    }
    json_t *out = e->status || joined.failed
                      ? NULL
                      : json_stringn(joined.data ? joined.data : "", joined.length);
    if (!out) sv_error_set(e, 500, NULL, "out of memory");
    bs_buf_free(&joined);
    return out;
}

/* Tool calls with arguments as values: templates print them with tojson. */
static json_t *normal_calls(const json_t *calls, sv_error *e)
{
    json_t *out = json_array();
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        json_t *copy = json_deep_copy(call);
        json_t *f = json_object_get(copy, "function");
        const json_t *arguments = json_object_get(f, "arguments");
        if (!json_is_string(json_object_get(f, "name"))) {
            sv_error_set(e, 400, "messages", "messages: a tool call has no function name");
        } else if (json_is_string(arguments)) {
            json_t *value = json_loadb(json_string_value(arguments), json_string_length(arguments),
                                       JSON_DECODE_ANY, NULL);
            if (value) json_object_set_new(f, "arguments", value);
            if (!value && json_string_length(arguments) == 0)
                json_object_set_new(f, "arguments", json_object());
        } else if (!arguments) {
            json_object_set_new(f, "arguments", json_object());
        }
        json_array_append_new(out, copy);
    }
    return out;
}

static json_t *normal_message(const json_t *message, size_t index, sv_error *e)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant",
                                        "tool",   "function",  NULL};
    const char *role = json_string_value(json_object_get(message, "role"));
    if (!json_is_object(message)) {
        sv_error_set(e, 400, "messages", "messages[%zu] must be an object", index);
        return NULL;
    }
    if (!sv_one_of(role, roles)) {
        sv_error_set(e, 400, "messages", "messages[%zu].role '%.40s' is not known", index,
                     role ? role : "");
        return NULL;
    }
    if (!strcmp(role, "developer")) role = "system";
    if (!strcmp(role, "function")) role = "tool";
    json_t *content = sv_text_of(json_object_get(message, "content"), "messages", e);
    json_t *out = json_pack("{s:s, s:o}", "role", role, "content", content);
    if (!out || e->status) {
        json_decref(out);
        return NULL;
    }
    static const char *const kept[] = {"name", "tool_call_id", "reasoning_content", NULL};
    for (int i = 0; kept[i]; i++) {
        json_t *v = json_object_get(message, kept[i]);
        if (json_is_string(v)) json_object_set(out, kept[i], v);
    }
    json_t *reasoning = json_object_get(message, "reasoning");
    if (json_is_string(reasoning) && !json_object_get(out, "reasoning_content"))
        json_object_set(out, "reasoning_content", reasoning);
    json_t *calls = json_object_get(message, "tool_calls");
    if (json_array_size(calls) > 0) json_object_set_new(out, "tool_calls", normal_calls(calls, e));
    return out;
}

json_t *sv_normal_messages(const json_t *messages, sv_error *e)
{
    if (e->status) return NULL;
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        sv_error_set(e, 400, "messages", "messages must be a list that is not empty");
        return NULL;
    }
    if (json_array_size(messages) > MAX_MESSAGES) {
        sv_error_set(e, 400, "messages", "messages may have at most %d entries", MAX_MESSAGES);
        return NULL;
    }
    json_t *out = json_array();
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        json_t *m = e->status ? NULL : normal_message(message, i, e);
        if (m) json_array_append_new(out, m);
    }
    if (!e->status) return out;
    json_decref(out);
    return NULL;
}

static bool good_name(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n >= 1 && n <= 128 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == n;
}

/* Tools in OpenAI's form, from that, from the flat form of the Responses API, or from Anthropic's.
 */
json_t *sv_normal_tools(const json_t *tools, sv_error *e)
{
    if (!tools || json_is_null(tools) || e->status) return NULL;
    if (!json_is_array(tools) || json_array_size(tools) > MAX_TOOLS) {
        sv_error_set(e, 400, "tools", "tools must be a list of at most %d tools", MAX_TOOLS);
        return NULL;
    }
    if (json_array_size(tools) == 0) return NULL;
    json_t *out = json_array();
    size_t i;
    json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        if (!f) f = tool;
        const char *type = json_string_value(json_object_get(tool, "type"));
        const char *name = json_string_value(json_object_get(f, "name"));
        json_t *schema = json_object_get(f, "parameters");
        if (!schema) schema = json_object_get(f, "input_schema");
        json_t *description = json_object_get(f, "description");
        if (type && strcmp(type, "function") != 0 && strcmp(type, "custom") != 0) {
            sv_error_set(e, 400, "tools", "tools[%zu]: type '%.40s' is not offered here", i, type);
            break;
        }
        if (!good_name(name)) {
            sv_error_set(e, 400, "tools",
                         "tools[%zu] needs a name of letters, digits, '_', '-' and '.'", i);
            break;
        }
        if (schema && !json_is_object(schema)) {
            sv_error_set(e, 400, "tools", "tools[%zu]: the parameters must be a JSON Schema", i);
            break;
        }
        json_t *function = json_pack("{s:s}", "name", name);
        if (json_is_string(description)) json_object_set(function, "description", description);
        if (schema) json_object_set(function, "parameters", schema);
        else
            json_object_set_new(function, "parameters",
                                json_pack("{s:s, s:{}}", "type", "object", "properties"));
        json_array_append_new(out,
                              json_pack("{s:s, s:o}", "type", "function", "function", function));
    }
    if (!e->status) return out;
    json_decref(out);
    return NULL;
}

/* --- templates without tools ---------------------------------------------------------------------
 */

static json_t *tool_instructions(const json_t *tools)
{
    bs_buf text = {0};
    bs_buf_puts(&text, "You may call functions. The functions, one a line:\n<tools>\n");
    size_t i;
    json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        char *line = json_dumps(tool, JSON_COMPACT);
        if (line) bs_buf_puts(&text, line);
        bs_buf_putc(&text, '\n');
        free(line);
    }
    bs_buf_puts(&text, "</tools>\nTo call one, write\n<tool_call>\n{\"name\": NAME, \"arguments\": "
                       "OBJECT}\n</tool_call>");
    json_t *out = text.failed ? NULL : json_stringn(text.data, text.length);
    bs_buf_free(&text);
    return out;
}

static json_t *calls_as_text(const json_t *message)
{
    bs_buf text = {0};
    const json_t *content = json_object_get(message, "content");
    bs_buf_append(&text, json_string_value(content), json_string_length(content));
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *f = json_object_get(call, "function");
        json_t *shown = json_pack("{s:O, s:O}", "name", json_object_get(f, "name"), "arguments",
                                  json_object_get(f, "arguments"));
        char *line = shown ? json_dumps(shown, 0) : NULL;
        if (text.length) bs_buf_putc(&text, '\n');
        bs_buf_printf(&text, "<tool_call>\n%s\n</tool_call>", line ? line : "{}");
        free(line);
        json_decref(shown);
    }
    json_t *out = json_pack("{s:s, s:o}", "role", "assistant", "content",
                            json_stringn(text.data ? text.data : "", text.length));
    bs_buf_free(&text);
    return out;
}

static json_t *result_as_text(const json_t *message)
{
    bs_buf text = {0};
    const json_t *content = json_object_get(message, "content");
    bs_buf_puts(&text, "<tool_response>\n");
    bs_buf_append(&text, json_string_value(content), json_string_length(content));
    bs_buf_puts(&text, "\n</tool_response>");
    json_t *out = json_pack("{s:s, s:o}", "role", "user", "content",
                            json_stringn(text.data ? text.data : "", text.length));
    bs_buf_free(&text);
    return out;
}

json_t *sv_messages_with_tools(const json_t *messages, const json_t *tools)
{
    json_t *out = json_array(), *instructions = tool_instructions(tools);
    if (!out || !instructions) {
        json_decref(out);
        json_decref(instructions);
        return NULL;
    }
    size_t i;
    json_t *message;
    const json_t *first = json_array_get(messages, 0);
    bool has_system = !strcmp(json_string_value(json_object_get(first, "role")), "system");
    if (!has_system)
        json_array_append_new(out,
                              json_pack("{s:s, s:O}", "role", "system", "content", instructions));
    json_array_foreach(messages, i, message)
    {
        const char *role = json_string_value(json_object_get(message, "role"));
        if (i == 0 && has_system)
            json_array_append_new(
                out, json_pack("{s:s, s:o}", "role", "system", "content",
                               json_sprintf("%s\n\n%s",
                                            json_string_value(json_object_get(message, "content")),
                                            json_string_value(instructions))));
        else if (!strcmp(role, "tool")) json_array_append_new(out, result_as_text(message));
        else if (json_object_get(message, "tool_calls"))
            json_array_append_new(out, calls_as_text(message));
        else json_array_append(out, message);
    }
    json_decref(instructions);
    return out;
}
