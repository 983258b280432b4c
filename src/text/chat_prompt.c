/* From a request's messages to a prompt. */
#include "text/chat.h"

#include "base/mem.h"

#include <string.h>

/* --- messages
 * ---------------------------------------------------------------------------------------------- */

/* [{"type":"text","text":..}, ...] -> one string. */
static fm_status join_parts(const json_t *parts, json_t **out, fm_error *err)
{
    bs_buf text = {0};
    size_t i;
    const json_t *part;
    fm_status status = FM_OK;
    json_array_foreach((json_t *)parts, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *s = json_is_string(part) ? part : json_object_get(part, "text");
        if (type && strcmp(type, "text") && strcmp(type, "input_text") &&
            strcmp(type, "output_text"))
            status = fm_fail(err, FM_E_UNSUPPORTED,
                             "a message has content of type '%s'; only text is supported", type);
        else if (!json_is_string(s))
            status = fm_fail(err, FM_E_ARGUMENT, "a part of a message's content has no text");
        else if (!bs_buf_append(&text, json_string_value(s), json_string_length(s)))
            status = fm_fail_nomem(err, "reading messages");
        if (status) break;
    }
    if (!status && !(*out = json_stringn(text.data ? text.data : "", text.length)))
        status = fm_fail_nomem(err, "reading messages");
    bs_buf_free(&text);
    return status;
}

/* Arguments that came as a JSON text become the object that templates expect. */
static bool parse_arguments(json_t *message)
{
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *f = json_object_get(call, "function");
        const json_t *arguments = json_object_get(f, "arguments");
        if (!json_is_string(arguments)) continue;
        size_t n = json_string_length(arguments);
        json_t *v =
            n ? json_loadb(json_string_value(arguments), n, JSON_ALLOW_NUL, NULL) : json_object();
        if (v && json_object_set_new(f, "arguments", v)) return false;
    }
    return true;
}

static fm_status one_message(json_t *message, size_t i, fm_error *err)
{
    json_t *content = json_object_get(message, "content"), *joined = NULL;
    if (!json_is_object(message))
        return fm_fail(err, FM_E_ARGUMENT, "messages[%zu] is not an object", i);
    if (!json_is_string(json_object_get(message, "role")))
        return fm_fail(err, FM_E_ARGUMENT, "messages[%zu] has no role", i);
    fm_status status = FM_OK;
    if (json_is_array(content)) status = join_parts(content, &joined, err);
    else if (!content || json_is_null(content)) joined = json_string("");
    else if (!json_is_string(content))
        return fm_fail(err, FM_E_ARGUMENT, "messages[%zu].content is neither a string nor a list",
                       i);
    else joined = json_incref(content);
    if (status) return status;
    if (!joined || json_object_set_new(message, "content", joined) || !parse_arguments(message))
        return fm_fail_nomem(err, "reading messages");
    return FM_OK;
}

static fm_status read_messages(const json_t *messages, json_t **out, fm_error *err)
{
    size_t i;
    json_t *message;
    if (!json_is_array(messages)) return fm_fail(err, FM_E_ARGUMENT, "messages is not a list");
    *out = json_deep_copy((json_t *)messages);
    if (!*out) return fm_fail_nomem(err, "reading messages");
    json_array_foreach(*out, i, message)
    {
        fm_status status = one_message(message, i, err);
        if (status) return status;
    }
    return FM_OK;
}

static fm_status make_context(const tx_chat *c, const tx_chat_request *q, json_t **out,
                              fm_error *err)
{
    json_t *context = *out = json_object(), *messages = NULL;
    if (!context) return fm_fail_nomem(err, "reading messages");
    fm_status status = read_messages(q->messages, &messages, err);
    bool thinks = q->enable_thinking < 0 ? tx_chat_can_think(c) : q->enable_thinking > 0;
    bool ok = !status && !json_object_set(context, "messages", messages);
    json_decref(messages);
    if (status) return status;
    if (q->tools && json_array_size(q->tools))
        ok = ok && !json_object_set(context, "tools", q->tools);
    if (q->documents) ok = ok && !json_object_set(context, "documents", q->documents);
    ok = ok && !json_object_set_new(context, "add_generation_prompt",
                                    json_boolean(q->add_generation_prompt));
    ok = ok && !json_object_set_new(context, "enable_thinking", json_boolean(thinks));
    if (q->extra) ok = ok && !json_object_update(context, q->extra);
    return ok ? FM_OK : fm_fail_nomem(err, "reading messages");
}

/* --- what was rendered
 * ----------------------------------------------------------------------------------------- */

static void cut(tx_rendered *r, size_t n)
{
    size_t at = 0, k = 0;
    for (; k < r->n_segments && at + r->segments[k].length <= n; k++) at += r->segments[k].length;
    if (k < r->n_segments && at < n) r->segments[k++].length = n - at;
    r->n_segments = k;
    r->text.length = n;
    r->text.data[n] = 0;
}

/* Where the last occurrence of `what` ends, or 0. markup: only those written by the template. */
static size_t last_end(const tx_rendered *r, const char *what, size_t n, bool markup)
{
    for (size_t at = r->text.length; n && at >= n; at--) {
        if (memcmp(r->text.data + at - n, what, n)) continue;
        bool content = false;
        size_t start = 0;
        for (size_t k = 0; k < r->n_segments && start < at; start += r->segments[k++].length)
            content = content || (r->segments[k].content && start + r->segments[k].length > at - n);
        if (!markup || !content) return at;
    }
    return 0;
}

/* The prompt ends where the last message's content does. */
static fm_status end_with_last(const json_t *messages, tx_rendered *r, fm_error *err)
{
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const json_t *content = json_object_get(last, "content");
    if (!json_is_string(content))
        return fm_fail(err, FM_E_ARGUMENT, "the last message has no text to go on with");
    const char *s = json_string_value(content);
    size_t n = json_string_length(content), full = n;
    while (n && strchr(" \t\r\n", s[n - 1])) n--;
    while (n && strchr(" \t\r\n", *s)) s++, n--, full--;
    size_t end = last_end(r, s, n, false);
    if (!end)
        return fm_fail(err, FM_E_ARGUMENT,
                       "the template changes the last message, so it cannot be gone on with");
    bool spaces = r->text.length - end >= full - n && !memcmp(r->text.data + end, s + n, full - n);
    cut(r, spaces ? end + full - n : end);
    return FM_OK;
}

static void look_at(const tx_chat *c, const json_t *context, const tx_rendered *r, tx_prompt *out)
{
    size_t open = last_end(r, "<think>", 7, true), close = last_end(r, "</think>", 8, true);
    size_t open2 = last_end(r, "[THINK]", 7, true), close2 = last_end(r, "[/THINK]", 8, true);
    out->starts_in_reasoning = open > close || open2 > close2;
    out->tool_format = tx_tool_format_of(tx_chat_source(c, context));
}

fm_status tx_chat_prompt(const tx_chat *c, const tx_chat_request *q, tx_prompt *out, fm_error *err)
{
    tx_rendered r = {0};
    json_t *context = NULL;
    if (q->continue_final && q->add_generation_prompt)
        return fm_fail(err, FM_E_ARGUMENT,
                       "a message is gone on with or a new one begun, not both");
    fm_status status = make_context(c, q, &context, err);
    if (!status) status = tx_chat_render(c, context, &r, err);
    if (!status && q->continue_final)
        status = end_with_last(json_object_get(context, "messages"), &r, err);
    if (!status) status = tx_chat_encode(c, &r, &out->ids, err);
    if (!status) {
        look_at(c, context, &r, out);
        out->text = r.text;
        out->segments = r.segments;
        out->n_segments = r.n_segments;
        r.text = (bs_buf){0};
        r.segments = NULL;
    } else if (status == FM_E_FORMAT) {
        fm_prefix(err, "the chat template does not take these messages");
        if (err) err->code = FM_E_ARGUMENT;
        status = FM_E_ARGUMENT;
    }
    tx_rendered_free(&r);
    json_decref(context);
    return status;
}

void tx_prompt_free(tx_prompt *p)
{
    tx_ids_free(&p->ids);
    bs_buf_free(&p->text);
    bs_free(p->segments);
    *p = (tx_prompt){0};
}
