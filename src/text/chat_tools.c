/* Tool calls in the formats of the model families. Which of them a block is in is seen from the
 * block itself where formats share their outer markers. */
#include "text/chat_tools.h"

#include "base/json_pull.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *s, *end;
} span;

typedef struct reader {
    tx_tool_format format;
    const json_t *tools;
    tx_calls *calls;
    bool nomem;
} reader;

#define SEP "\xEF\xBD\x9C" /* U+FF5C, DeepSeek's bar */
#define LOW "\xE2\x96\x81" /* U+2581 */
#define DS_CALL "<" SEP "tool" LOW "call" LOW "begin" SEP ">"
#define DS_CALL_END "<" SEP "tool" LOW "call" LOW "end" SEP ">"
#define DS_SEP "<" SEP "tool" LOW "sep" SEP ">"

void tx_calls_free(tx_calls *calls)
{
    for (size_t i = 0; i < calls->n; i++) {
        bs_free(calls->items[i].name);
        bs_free(calls->items[i].arguments);
    }
    bs_free(calls->items);
    *calls = (tx_calls){0};
}

static span of(const char *s, size_t n)
{
    return (span){s, s + n};
}

static size_t length(span t)
{
    return (size_t)(t.end - t.s);
}

static span trimmed(span t)
{
    while (t.s < t.end && strchr(" \t\r\n", *t.s) && *t.s) t.s++;
    while (t.end > t.s && strchr(" \t\r\n", t.end[-1]) && t.end[-1]) t.end--;
    return t;
}

static const char *find(span t, const char *what)
{
    return memmem(t.s, length(t), what, strlen(what));
}

/* The text up to `mark`, which is passed in *t too; false: it is not there. */
static bool take_until(span *t, const char *mark, span *out)
{
    const char *hit = find(*t, mark);
    if (!hit) return false;
    *out = (span){t->s, hit};
    t->s = hit + strlen(mark);
    return true;
}

static bool begins(span t, const char *what)
{
    return length(t) >= strlen(what) && !memcmp(t.s, what, strlen(what));
}

static bool add(reader *r, span name, const char *arguments, size_t n)
{
    name = trimmed(name);
    if (!length(name) || memchr(name.s, 0, length(name))) return false;
    tx_call *items = bs_realloc(r->calls->items, r->calls->n + 1, sizeof *items);
    if (items) r->calls->items = items;
    tx_call call = {bs_strndup(name.s, length(name)), bs_malloc(n + 1)};
    if (!items || !call.name || !call.arguments) {
        bs_free(call.name);
        bs_free(call.arguments);
        r->nomem = true;
        return false;
    }
    memcpy(call.arguments, arguments, n);
    call.arguments[n] = 0;
    r->calls->items[r->calls->n++] = call;
    return true;
}

/* --- JSON
 * ------------------------------------------------------------------------------------------------
 */

/* Is this one JSON object, and nothing else? */
static bool is_object(span t)
{
    bs_json j;
    t = trimmed(t);
    bs_json_init(&j, t.s, length(t));
    bs_json_event e = bs_json_next(&j);
    bool ok = e == BS_JSON_OBJECT;
    while (ok && e > BS_JSON_DONE) e = bs_json_next(&j);
    bs_json_free(&j);
    return ok && e == BS_JSON_DONE;
}

/* Arguments as they stand: an object, a string that holds one, or nothing. */
static bool add_raw(reader *r, span name, span raw)
{
    raw = trimmed(raw);
    if (!length(raw) || (length(raw) == 4 && !memcmp(raw.s, "null", 4)))
        return add(r, name, "{}", 2);
    if (*raw.s != '"') return is_object(raw) && add(r, name, raw.s, length(raw));
    bs_json j;
    bs_json_init(&j, raw.s, length(raw));
    bool ok = bs_json_next(&j) == BS_JSON_STRING;
    span inner = ok ? trimmed(of(j.text, j.length)) : raw;
    ok = ok && (length(inner) ? is_object(inner) && add(r, name, inner.s, length(inner))
                              : add(r, name, "{}", 2));
    bs_json_free(&j);
    return ok;
}

/* {"name":.., "arguments":..}, perhaps inside {"function":..}; the cursor stands behind its '{'. */
static bool json_call(reader *r, bs_json *j, int depth)
{
    bs_buf name = {0};
    span arguments = {"{}", NULL};
    bool ok = true, nested = false;
    bs_json_event e;
    arguments.end = arguments.s + 2;
    while (ok && (e = bs_json_next(j)) == BS_JSON_KEY) {
        const char *start;
        size_t n;
        if (bs_json_is(j, "name") || bs_json_is(j, "tool_name")) {
            ok = bs_json_next(j) == BS_JSON_STRING;
            name.length = 0;
            if (ok && !bs_buf_append(&name, j->text, j->length)) r->nomem = true, ok = false;
        } else if (bs_json_is(j, "arguments") || bs_json_is(j, "parameters")) {
            ok = bs_json_skip(j, &start, &n);
            if (ok) arguments = of(start, n);
        } else if (bs_json_is(j, "function") && depth < 2 && j->at < j->end) {
            bs_json_event inner = bs_json_next(j);
            if (inner == BS_JSON_OBJECT) ok = nested = json_call(r, j, depth + 1);
            else if (inner == BS_JSON_STRING) ok = bs_buf_append(&name, j->text, j->length);
            else ok = false;
        } else ok = bs_json_skip(j, NULL, NULL);
    }
    ok = ok && e == BS_JSON_OBJECT_END &&
         (nested || add_raw(r, of(name.data ? name.data : "", name.length), arguments));
    bs_buf_free(&name);
    return ok;
}

/* One call or a list of them. */
static bool json_calls(reader *r, span t)
{
    bs_json j;
    t = trimmed(t);
    bs_json_init(&j, t.s, length(t));
    bs_json_event e = bs_json_next(&j);
    bool ok = e == BS_JSON_OBJECT || e == BS_JSON_ARRAY;
    if (e == BS_JSON_OBJECT) ok = json_call(r, &j, 0);
    while (ok && e == BS_JSON_ARRAY) {
        bs_json_event item = bs_json_next(&j);
        if (item == BS_JSON_ARRAY_END) break;
        ok = item == BS_JSON_OBJECT && json_call(r, &j, 0);
    }
    ok = ok && bs_json_next(&j) == BS_JSON_DONE && r->calls->n;
    bs_json_free(&j);
    return ok;
}

/* --- values by the tool's schema
 * ------------------------------------------------------------------------------ */

static const json_t *schema_of(const json_t *tools, span name, span parameter)
{
    size_t i;
    const json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *f =
            json_object_get(tool, "function") ? json_object_get(tool, "function") : tool;
        const char *text = json_string_value(json_object_get(f, "name"));
        if (!text || strlen(text) != length(name) || memcmp(text, name.s, length(name))) continue;
        const json_t *p = json_object_get(f, "parameters") ? json_object_get(f, "parameters")
                                                           : json_object_get(f, "input_schema");
        return json_object_getn(json_object_get(p, "properties"), parameter.s, length(parameter));
    }
    return NULL;
}

/* Does a schema allow this type? */
static bool allows(const json_t *schema, const char *type, int depth)
{
    static const char *const unions[] = {"anyOf", "oneOf", "allOf"};
    const json_t *t = json_object_get(schema, "type"), *item;
    size_t i;
    if (depth > 8) return false;
    if (json_is_string(t)) return !strcmp(json_string_value(t), type);
    json_array_foreach((json_t *)t, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), type)) return true;
    }
    for (int u = 0; u < 3; u++)
        json_array_foreach((json_t *)json_object_get(schema, unions[u]), i, item)
        {
            if (allows(item, type, depth + 1)) return true;
        }
    json_array_foreach((json_t *)json_object_get(schema, "enum"), i, item)
    {
        if (!t && json_is_string(item) && !strcmp(type, "string")) return true;
    }
    return false;
}

/* A value's text as JSON: a string where the schema says so (or where it is no JSON). */
static json_t *typed(reader *r, span name, span parameter, span text)
{
    const json_t *schema = schema_of(r->tools, name, parameter);
    span t = trimmed(text);
    bool null = length(t) == 4 && !memcmp(t.s, "null", 4);
    bool as_text = schema ? allows(schema, "string", 0) && !(null && allows(schema, "null", 0))
                          : r->format == TX_TOOLS_QWEN_XML;
    json_t *v = as_text ? NULL : json_loadb(t.s, length(t), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!v && !as_text && length(t) == 4 && !memcmp(t.s, "True", 4)) v = json_true();
    if (!v && !as_text && length(t) == 5 && !memcmp(t.s, "False", 5)) v = json_false();
    return v ? v : json_stringn(text.s, length(text));
}

static bool add_object(reader *r, span name, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15));
    bool ok = text && add(r, name, text, strlen(text));
    if (!text) r->nomem = true;
    free(text);
    json_decref(object);
    return ok;
}

static bool set(reader *r, json_t *object, span key, json_t *v)
{
    if (v && !json_object_setn_new(object, key.s, length(key), v)) return true;
    r->nomem = true;
    return false;
}

/* One newline at either end belongs to the layout. */
static span without_newlines(span t)
{
    if (t.s < t.end && *t.s == '\n') t.s++;
    if (t.end > t.s && t.end[-1] == '\n') t.end--;
    return t;
}

/* --- XML-like formats
 * ---------------------------------------------------------------------------------------- */

/* <function=NAME> <parameter=KEY>VALUE</parameter> ... </function> */
static bool qwen_call(reader *r, span *t)
{
    span name, body, key, value;
    if (!take_until(t, ">", &name)) return false;
    if (!take_until(t, "</function>", &body)) body = *t, t->s = t->end;
    json_t *object = json_object();
    bool ok = object != NULL;
    const char *next;
    while (ok && (next = find(body, "<parameter="))) {
        body.s = next + strlen("<parameter=");
        ok = take_until(&body, ">", &key);
        const char *stop = find(body, "</parameter>"), *other = find(body, "<parameter=");
        value = (span){body.s, stop && (!other || stop < other) ? stop : other ? other : body.end};
        body.s = value.end;
        key = trimmed(key);
        ok = ok && set(r, object, key, typed(r, trimmed(name), key, without_newlines(value)));
    }
    if (ok) return add_object(r, name, object);
    json_decref(object);
    return false;
}

/* NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value> ... */
static bool glm_call(reader *r, span t)
{
    span name = t, key, value, skipped;
    const char *first = find(t, "<arg_key>"), *sep = find(t, "<tool_sep>");
    if (sep && (!first || sep < first)) first = sep;
    name.end = first ? first : t.end;
    t.s = name.end;
    name = trimmed(name);
    json_t *object = json_object();
    bool ok = object != NULL;
    while (ok && take_until(&t, "<arg_key>", &skipped)) {
        ok = take_until(&t, "</arg_key>", &key) && take_until(&t, "<arg_value>", &skipped);
        if (ok && !take_until(&t, "</arg_value>", &value)) value = t, t.s = t.end;
        key = trimmed(key);
        ok = ok && set(r, object, key, typed(r, name, key, value));
    }
    if (ok) return add_object(r, name, object);
    json_decref(object);
    return false;
}

/* An attribute's value in a tag: name="x" or name=x. */
static bool attribute(span tag, const char *name, span *out)
{
    const char *at = find(tag, name);
    if (!at) return false;
    at += strlen(name);
    char quote = at < tag.end && (*at == '"' || *at == '\'') ? *at++ : 0;
    const char *stop = at;
    while (stop < tag.end && (quote ? *stop != quote : *stop != ' ')) stop++;
    *out = (span){at, stop};
    return true;
}

/* <invoke name="NAME"> <parameter name="KEY">VALUE</parameter> ... </invoke>, each tag with a
 * prefix. */
static bool invoke_calls(reader *r, span t, const char *prefix)
{
    char open[32], close[32], p_open[32], p_close[32];
    span tag, body, skipped, name, key, value, kind;
    strcat(strcpy(open, "<"), prefix), strcat(open, "invoke ");
    strcat(strcpy(close, "</"), prefix), strcat(close, "invoke>");
    strcat(strcpy(p_open, "<"), prefix), strcat(p_open, "parameter ");
    strcat(strcpy(p_close, "</"), prefix), strcat(p_close, "parameter>");
    while (take_until(&t, open, &skipped)) {
        if (!take_until(&t, ">", &tag) || !attribute(tag, "name=", &name)) return false;
        if (!take_until(&t, close, &body)) body = t, t.s = t.end;
        json_t *object = json_object();
        bool ok = object != NULL;
        while (ok && take_until(&body, p_open, &skipped)) {
            ok = take_until(&body, ">", &tag) && attribute(tag, "name=", &key) &&
                 take_until(&body, p_close, &value);
            bool text = ok && attribute(tag, "string=", &kind) && begins(kind, "true");
            if (!ok) break;
            if (!text) value = without_newlines(value);
            ok = set(r, object, key,
                     text ? json_stringn(value.s, length(value)) : typed(r, name, key, value));
        }
        if (!ok) {
            json_decref(object);
            return false;
        }
        if (!add_object(r, name, object)) return false;
    }
    return r->calls->n > 0;
}

/* --- names beside JSON
 * ------------------------------------------------------------------------------------------ */

/* ```json {..} ``` or {..} */
static span unfenced(span t)
{
    t = trimmed(t);
    if (!begins(t, "```")) return t;
    t.s += 3;
    while (t.s < t.end && *t.s != '\n' && *t.s != '{') t.s++;
    if (t.end - t.s >= 3 && !memcmp(t.end - 3, "```", 3)) t.end -= 3;
    return trimmed(t);
}

/* DeepSeek: "function<sep>NAME\n```json\n{..}\n```" (V3) or "NAME<sep>{..}" (V3.1), each between
 * begin and end. */
static bool deepseek_calls(reader *r, span t)
{
    span skipped, call, kind;
    while (take_until(&t, DS_CALL, &skipped)) {
        if (!take_until(&t, DS_CALL_END, &call)) call = t, t.s = t.end;
        if (!take_until(&call, DS_SEP, &kind)) return false;
        const char *brace = find(call, "{"), *fence = find(call, "```");
        span name = trimmed(kind);
        if (fence && (!brace || fence < brace)) {
            name = trimmed((span){call.s, fence});
            call.s = fence;
        }
        if (!add_raw(r, name, unfenced(call))) return false;
    }
    return r->calls->n > 0;
}

/* "functions.NAME:0<|tool_call_argument_begin|>{..}" */
static bool kimi_calls(reader *r, span t)
{
    span skipped, call, name;
    while (take_until(&t, "<|tool_call_begin|>", &skipped)) {
        if (!take_until(&t, "<|tool_call_end|>", &call)) call = t, t.s = t.end;
        if (!take_until(&call, "<|tool_call_argument_begin|>", &name)) return false;
        name = trimmed(name);
        if (begins(name, "functions.")) name.s += strlen("functions.");
        const char *colon = memrchr(name.s, ':', length(name));
        if (colon) name.end = colon;
        if (!add_raw(r, name, call)) return false;
    }
    return r->calls->n > 0;
}

/* Mistral: a JSON list, or NAME[ARGS]{..} and NAME[CALL_ID]id[ARGS]{..}, with [TOOL_CALLS] between
 * calls. */
static bool mistral_calls(reader *r, span t)
{
    t = trimmed(t);
    if (t.s < t.end && (*t.s == '[' || *t.s == '{')) return json_calls(r, t);
    while (length(t)) {
        span call = t, name;
        if (!take_until(&t, "[TOOL_CALLS]", &call)) t.s = t.end;
        if (!take_until(&call, "[ARGS]", &name)) {
            const char *brace = find(call, "{");
            if (!brace) return false;
            name = (span){call.s, brace};
            call.s = brace;
        }
        const char *id = find(name, "[CALL_ID]");
        if (id) name.end = id;
        if (!add_raw(r, name, call)) return false;
    }
    return r->calls->n > 0;
}

/* What stands between <tool_call> and </tool_call>, in any of the formats that use those. */
static bool one_block(reader *r, span t)
{
    t = trimmed(t);
    const char *function = find(t, "<function=");
    if (begins(t, "{") || begins(t, "[")) return json_calls(r, t);
    if (function && !find((span){t.s, function}, "<arg_key>")) {
        span rest = t, skipped;
        while (take_until(&rest, "<function=", &skipped))
            if (!qwen_call(r, &rest)) return false;
        return r->calls->n > 0;
    }
    const char *fence = find(t, "```"), *key = find(t, "<arg_key>");
    if (fence && !key) return add_raw(r, (span){t.s, fence}, unfenced((span){fence, t.end}));
    const char *brace = find(t, "{");
    if (brace && !key) return add_raw(r, (span){t.s, brace}, (span){brace, t.end});
    return glm_call(r, t);
}

/* Hunyuan's <tool_calls>: a JSON list, or <tool_call> blocks. */
static bool block_list(reader *r, span t)
{
    span skipped, block;
    if (!find(t, "<tool_call>")) return one_block(r, t);
    while (take_until(&t, "<tool_call>", &skipped)) {
        if (!take_until(&t, "</tool_call>", &block)) block = t, t.s = t.end;
        if (!one_block(r, block)) return false;
    }
    return r->calls->n > 0;
}

fm_status tx_read_calls(tx_tool_format format, const char *text, size_t n, const json_t *tools,
                        tx_calls *calls, bool *ok, fm_error *err)
{
    reader r = {.format = format, .tools = tools, .calls = calls};
    span t = of(text, n);
    *calls = (tx_calls){0};
    switch (format) {
    case TX_TOOLS_DEEPSEEK:
        *ok = find(t, "<" SEP "DSML" SEP "invoke ") ? invoke_calls(&r, t, SEP "DSML" SEP)
                                                    : deepseek_calls(&r, t);
        break;
    case TX_TOOLS_MISTRAL: *ok = mistral_calls(&r, t); break;
    case TX_TOOLS_MINIMAX: *ok = invoke_calls(&r, t, ""); break;
    case TX_TOOLS_KIMI: *ok = kimi_calls(&r, t); break;
    default: *ok = block_list(&r, t); break;
    }
    if (*ok) return FM_OK;
    tx_calls_free(calls);
    return r.nomem ? fm_fail_nomem(err, "reading a tool call") : FM_OK;
}
