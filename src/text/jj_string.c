/* Strings that remember which of their bytes are content. */
#include "base/mem.h"
#include "text/jj.h"
#include "text/unicode.h"

#include <string.h>

jj_value jj_string_value(const jj_str *s)
{
    return (jj_value){.type = JJ_STRING, .u.s = s};
}

static const jj_str empty = {.s = ""};

static const jj_str *make(jj *c, jj_str with)
{
    jj_str *s = jj_get(c, sizeof *s);
    if (!s) return &empty;
    *s = with;
    return s;
}

jj_value jj_wrap(jj *c, const char *s, size_t n, bool content)
{
    return jj_string_value(make(c, (jj_str){.s = s, .n = n, .content = content}));
}

jj_value jj_literal(jj *c, const char *s)
{
    return jj_wrap(c, s, strlen(s), false);
}

jj_value jj_text(jj *c, const char *s, size_t n, bool content)
{
    char *copy = jj_get(c, n + 1);
    if (!copy) return jj_string_value(&empty);
    if (n) memcpy(copy, s, n);
    return jj_wrap(c, copy, n, content);
}

bool jj_str_is(const jj_str *s, const char *text)
{
    return s->n == strlen(text) && !memcmp(s->s, text, s->n);
}

bool jj_str_content(const jj_str *s, size_t from, size_t to)
{
    if (!s->n_runs) return s->content && to > from;
    size_t start = 0;
    for (uint32_t i = 0; i < s->n_runs && start < to; start = s->runs[i++].end)
        if (s->runs[i].content && s->runs[i].end > from) return to > from;
    return false;
}

const jj_str *jj_slice_str(jj *c, const jj_str *s, size_t from, size_t to)
{
    if (from == 0 && to == s->n) return s;
    if (from >= to) return make(c, (jj_str){.s = "", .content = s->content});
    jj_str part = {.s = s->s + from, .n = to - from, .content = s->content};
    if (!s->n_runs) return make(c, part);
    jj_run *runs = jj_get(c, s->n_runs * sizeof *runs);
    if (!runs) return &empty;
    for (uint32_t i = 0; i < s->n_runs; i++) {
        size_t end = s->runs[i].end;
        if (end <= from) continue;
        runs[part.n_runs++] = (jj_run){(end < to ? end : to) - from, s->runs[i].content};
        if (end >= to) break;
    }
    part.runs = runs;
    part.content = runs[0].content;
    if (part.n_runs == 1) part.n_runs = 0;
    return make(c, part);
}

const jj_str *jj_concat_str(jj *c, const jj_str *x, const jj_str *y)
{
    if (!x->n && !x->safe) return y;
    if (!y->n) return x;
    jj_out out = {0};
    jj_out_str(c, &out, x);
    jj_out_str(c, &out, y);
    return jj_out_value(c, &out).u.s;
}

/* Byte offset of the i-th character; negative i and those past the end are clamped. */
size_t jj_offset(const jj_str *s, int64_t character)
{
    size_t at = 0;
    while (character-- > 0 && at < s->n) at += (size_t)tx_utf8_size((unsigned char)s->s[at]);
    return at < s->n ? at : s->n;
}

/* --- output
 * ---------------------------------------------------------------------------------------------- */

static bool add_run(jj_out *out, size_t n, bool content)
{
    if (!n) return true;
    size_t end = out->text.length;
    if (out->n_runs && out->runs[out->n_runs - 1].content == content)
        return out->runs[out->n_runs - 1].end = end, true;
    if (out->n_runs == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 16;
        jj_run *runs = bs_realloc(out->runs, capacity, sizeof *runs);
        if (!runs) return false;
        out->runs = runs;
        out->capacity = capacity;
    }
    out->runs[out->n_runs++] = (jj_run){end, content};
    return true;
}

void jj_out_text(jj *c, jj_out *out, const char *s, size_t n, bool content)
{
    if (c->failed) return;
    if (n > TX_TEMPLATE_MAX_OUTPUT - out->text.length)
        jj_fail_status(c, FM_E_LIMIT, "the template makes more text than is allowed");
    else if (!bs_buf_append(&out->text, s, n) || !add_run(out, n, content))
        jj_fail_status(c, FM_E_NOMEM, "out of memory");
}

void jj_out_part(jj *c, jj_out *out, const jj_str *s, size_t from, size_t to)
{
    if (!s->n_runs) {
        if (to > from) jj_out_text(c, out, s->s + from, to - from, s->content);
        return;
    }
    for (uint32_t i = 0; i < s->n_runs && from < to; i++) {
        size_t end = s->runs[i].end < to ? s->runs[i].end : to;
        if (end <= from) continue;
        jj_out_text(c, out, s->s + from, end - from, s->runs[i].content);
        from = end;
    }
}

void jj_out_str(jj *c, jj_out *out, const jj_str *s)
{
    jj_out_part(c, out, s, 0, s->n);
}

void jj_out_free(jj_out *out)
{
    bs_buf_free(&out->text);
    bs_free(out->runs);
    *out = (jj_out){0};
}

jj_value jj_out_value(jj *c, jj_out *out)
{
    jj_str s = {.s = "", .n = out->text.length};
    char *text = s.n && !c->failed ? jj_get(c, s.n) : NULL;
    if (text) {
        memcpy(text, out->text.data, s.n);
        s.s = text;
        s.content = out->runs[0].content;
        jj_run *runs = out->n_runs > 1 ? jj_get(c, out->n_runs * sizeof *runs) : NULL;
        if (runs) {
            memcpy(runs, out->runs, out->n_runs * sizeof *runs);
            s.runs = runs;
            s.n_runs = (uint32_t)out->n_runs;
        }
    } else s.n = 0;
    jj_out_free(out);
    return jj_string_value(make(c, s));
}
