/* Python's str(), repr() and json.dumps(). */
#include "text/jj.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* repr(float): the shortest digits that read back the same; an exponent below 1e-4 and from 1e16.
 */
void jj_format_double(double f, char out[40])
{
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char digits[40];
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1);
    if (exponent < -4 || exponent >= 16) {
        *e = 0;
        snprintf(out, 40, "%.25se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    int decimals = precision - exponent;
    snprintf(out, 40, "%.*f", decimals > 0 ? decimals : 1, f);
}

/* repr(str): single quotes unless there are only single ones inside. */
static void repr_string(jj *c, jj_out *out, const jj_str *s)
{
    bool content = jj_str_content(s, 0, s->n);
    char quote = memchr(s->s, '\'', s->n) && !memchr(s->s, '"', s->n) ? '"' : '\'';
    char text[12];
    jj_out_text(c, out, &quote, 1, content);
    for (size_t i = 0; i < s->n && !c->failed;) {
        int k;
        uint32_t ch = tx_utf8_get(s->s + i, &k);
        const char *escape = ch == '\n'   ? "\\n"
                             : ch == '\r' ? "\\r"
                             : ch == '\t' ? "\\t"
                             : ch == '\\' ? "\\\\"
                                          : NULL;
        if (escape) jj_out_text(c, out, escape, 2, content);
        else if (ch == (uint32_t)quote) {
            jj_out_text(c, out, "\\", 1, content);
            jj_out_text(c, out, &quote, 1, content);
        } else if (tx_is_printable(ch)) jj_out_text(c, out, s->s + i, (size_t)k, content);
        else {
            snprintf(text, sizeof text,
                     ch < 0x100     ? "\\x%02x"
                     : ch < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     ch);
            jj_out_text(c, out, text, strlen(text), content);
        }
        i += (size_t)k;
    }
    jj_out_text(c, out, &quote, 1, content);
}

static void put(jj *c, jj_out *out, const char *s)
{
    jj_out_text(c, out, s, strlen(s), false);
}

static void repr_into(jj *c, jj_out *out, jj_value v);

static void repr_list(jj *c, jj_out *out, const jj_list *list, const char *open, const char *close,
                      bool comma)
{
    put(c, out, open);
    for (size_t i = 0; i < list->n && !c->failed; i++) {
        if (i) put(c, out, ", ");
        repr_into(c, out, list->items[i]);
    }
    if (comma && list->n == 1) put(c, out, ",");
    put(c, out, close);
}

static void repr_dict(jj *c, jj_out *out, const jj_dict *d)
{
    put(c, out, "{");
    for (size_t i = 0; i < d->n && !c->failed; i++) {
        if (i) put(c, out, ", ");
        repr_into(c, out, d->entries[i].key);
        put(c, out, ": ");
        repr_into(c, out, d->entries[i].value);
    }
    put(c, out, "}");
}

static void repr_range(jj *c, jj_out *out, const jj_range *r)
{
    char text[100];
    int n =
        snprintf(text, sizeof text, "range(%lld, %lld", (long long)r->start, (long long)r->stop);
    if (r->step != 1)
        n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)r->step);
    snprintf(text + n, sizeof text - (size_t)n, ")");
    put(c, out, text);
}

static void repr_object(jj *c, jj_out *out, jj_value v)
{
    char text[200];
    snprintf(text, sizeof text, v.type == JJ_ITERATOR ? "<%s object>" : "<%s %s>", jj_type_name(v),
             v.type == JJ_MACRO     ? v.u.macro->name
             : v.type == JJ_BUILTIN ? v.u.builtin->name
                                    : "object");
    put(c, out, text);
}

static void repr_scalar(jj *c, jj_out *out, jj_value v)
{
    char text[40];
    if (v.type == JJ_UNDEFINED) put(c, out, "Undefined");
    else if (v.type == JJ_NONE) put(c, out, "None");
    else if (v.type == JJ_BOOL) put(c, out, v.u.b ? "True" : "False");
    else if (v.type == JJ_INT) {
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
        put(c, out, text);
    } else {
        jj_format_double(v.u.f, text);
        put(c, out, text);
    }
}

static void repr_into(jj *c, jj_out *out, jj_value v)
{
    if (c->failed || ++c->depth > TX_TEMPLATE_MAX_DEPTH) {
        jj_fail_status(c, FM_E_LIMIT, "a value is nested too deeply to be printed");
        return;
    }
    switch (v.type) {
    case JJ_STRING:
        if (v.u.s->safe) put(c, out, "Markup(");
        repr_string(c, out, v.u.s);
        if (v.u.s->safe) put(c, out, ")");
        break;
    case JJ_LIST: repr_list(c, out, v.u.list, "[", "]", false); break;
    case JJ_TUPLE: repr_list(c, out, v.u.list, "(", ")", true); break;
    case JJ_VIEW:
        put(c, out, v.u.list->kind);
        repr_list(c, out, v.u.list, "([", "])", false);
        break;
    case JJ_DICT: repr_dict(c, out, v.u.dict); break;
    case JJ_NAMESPACE:
        put(c, out, "<Namespace ");
        repr_dict(c, out, v.u.dict);
        put(c, out, ">");
        break;
    case JJ_RANGE: repr_range(c, out, v.u.range); break;
    case JJ_UNDEFINED:
    case JJ_NONE:
    case JJ_BOOL:
    case JJ_INT:
    case JJ_FLOAT: repr_scalar(c, out, v); break;
    default: repr_object(c, out, v);
    }
    c->depth--;
}

jj_value jj_repr(jj *c, jj_value v)
{
    jj_out out = {0};
    repr_into(c, &out, v);
    return jj_out_value(c, &out);
}

const jj_str *jj_str_of(jj *c, jj_value v)
{
    if (v.type == JJ_STRING) return v.u.s;
    if (v.type == JJ_UNDEFINED) return jj_literal(c, "").u.s;
    return jj_repr(c, v).u.s;
}

/* --- json.dumps
 * ---------------------------------------------------------------------------------------- */

typedef struct json_writer {
    jj *c;
    jj_out *out;
    const jj_json_style *style;
    int level;
} json_writer;

static void json_value(json_writer *w, jj_value v);

static void json_escape(json_writer *w, uint32_t ch, bool content)
{
    char text[16];
    if (ch >= 0x10000) {
        ch -= 0x10000;
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (ch >> 10), 0xDC00 + (ch & 0x3FF));
    } else snprintf(text, sizeof text, "\\u%04x", ch);
    jj_out_text(w->c, w->out, text, strlen(text), content);
}

static void json_string_text(json_writer *w, const jj_str *s)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    bool content = jj_str_content(s, 0, s->n);
    size_t done = 0;
    put(w->c, w->out, "\"");
    for (size_t i = 0; i < s->n && !w->c->failed;) {
        int k;
        uint32_t ch = tx_utf8_get(s->s + i, &k);
        const char *simple = ch && ch < 0x80 ? strchr(from, (int)ch) : NULL;
        if (simple || ch < 0x20 || (w->style->ascii && ch > 0x7E)) {
            jj_out_part(w->c, w->out, s, done, i);
            char pair[2] = {'\\', simple ? to[simple - from] : 0};
            if (simple) jj_out_text(w->c, w->out, pair, 2, content);
            else json_escape(w, ch, content);
            done = i + (size_t)k;
        }
        i += (size_t)k;
    }
    jj_out_part(w->c, w->out, s, done, s->n);
    put(w->c, w->out, "\"");
}

static void json_break(json_writer *w)
{
    if (w->style->indent < 0) return;
    put(w->c, w->out, "\n");
    for (int i = 0; i < w->level * w->style->indent && !w->c->failed; i++) put(w->c, w->out, " ");
}

static void json_list(json_writer *w, const jj_list *list)
{
    put(w->c, w->out, "[");
    w->level++;
    for (size_t i = 0; i < list->n && !w->c->failed; i++) {
        if (i) jj_out_str(w->c, w->out, w->style->item_separator);
        json_break(w);
        json_value(w, list->items[i]);
    }
    w->level--;
    if (list->n) json_break(w);
    put(w->c, w->out, "]");
}

/* A key as json.dumps spells it. */
static const jj_str *json_key(json_writer *w, jj_value key)
{
    if (key.type == JJ_STRING) return key.u.s;
    if (key.type == JJ_NONE) return jj_literal(w->c, "null").u.s;
    if (key.type == JJ_BOOL) return jj_literal(w->c, key.u.b ? "true" : "false").u.s;
    if (jj_is_number(key)) return jj_str_of(w->c, key);
    jj_fail(w->c, "keys must be str, int, float, bool or None, not %s", jj_type_name(key));
    return jj_literal(w->c, "").u.s;
}

/* Entries by key, for sort_keys. */
static jj_entry *sorted_entries(json_writer *w, const jj_dict *d)
{
    jj_entry *e = jj_get(w->c, d->n * sizeof *e);
    for (size_t i = 0; e && i < d->n; i++) {
        size_t j = i;
        for (; j && jj_order(w->c, d->entries[i].key, e[j - 1].key) < 0 && jj_step(w->c); j--)
            e[j] = e[j - 1];
        e[j] = d->entries[i];
    }
    return e;
}

static void json_dict(json_writer *w, const jj_dict *d)
{
    const jj_entry *entries = w->style->sort && d->n ? sorted_entries(w, d) : d->entries;
    put(w->c, w->out, "{");
    w->level++;
    for (size_t i = 0; i < d->n && !w->c->failed; i++) {
        if (i) jj_out_str(w->c, w->out, w->style->item_separator);
        json_break(w);
        json_string_text(w, json_key(w, entries[i].key));
        jj_out_str(w->c, w->out, w->style->key_separator);
        json_value(w, entries[i].value);
    }
    w->level--;
    if (d->n) json_break(w);
    put(w->c, w->out, "}");
}

static void json_value(json_writer *w, jj_value v)
{
    char text[40];
    if (w->c->failed || ++w->c->depth > TX_TEMPLATE_MAX_DEPTH) {
        jj_fail_status(w->c, FM_E_LIMIT, "a value is nested too deeply to be printed");
        return;
    }
    switch (v.type) {
    case JJ_NONE: put(w->c, w->out, "null"); break;
    case JJ_BOOL: put(w->c, w->out, v.u.b ? "true" : "false"); break;
    case JJ_INT: repr_scalar(w->c, w->out, v); break;
    case JJ_FLOAT:
        jj_format_double(v.u.f, text);
        put(w->c, w->out,
            isnan(v.u.f)   ? "NaN"
            : isinf(v.u.f) ? (v.u.f < 0 ? "-Infinity" : "Infinity")
                           : text);
        break;
    case JJ_STRING: json_string_text(w, v.u.s); break;
    case JJ_LIST:
    case JJ_TUPLE: json_list(w, v.u.list); break;
    case JJ_DICT: json_dict(w, v.u.dict); break;
    default: jj_fail(w->c, "Object of type %s is not JSON serializable", jj_type_name(v));
    }
    w->c->depth--;
}

jj_value jj_to_json(jj *c, jj_value v, const jj_json_style *style)
{
    jj_out out = {0};
    json_writer w = {c, &out, style, 0};
    json_value(&w, v);
    return jj_out_value(c, &out);
}
