/* Filters on text and numbers. */
#include "text/jj_text_ops.h"
#include "text/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_FILTER(name, expression)                                                              \
    static jj_value name(jj *c, jj_value v, const jj_args *args)                                   \
    {                                                                                              \
        if (!jj_bind(c, args, #name, "", NULL)) return v;                                          \
        const jj_str *s = jj_str_of(c, v);                                                         \
        return expression;                                                                         \
    }

TEXT_FILTER(upper, jj_upper(c, s))
TEXT_FILTER(lower, jj_lower(c, s))
TEXT_FILTER(capitalize, jj_capitalize(c, s))
TEXT_FILTER(string, jj_string_value(s))
TEXT_FILTER(safe, jj_mark_safe(c, s))
TEXT_FILTER(escape, ((void)s, jj_escape(c, v)))
TEXT_FILTER(forceescape, jj_escape(c, jj_text(c, s->s, s->n, jj_str_content(s, 0, s->n))))

/* Jinja's own title: words start behind "-", white space and opening brackets only. */
static jj_value title(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "title", "", NULL)) return v;
    const jj_str *s = jj_str_of(c, v);
    jj_out out = {0};
    bool inside = false;
    for (size_t i = 0, k; i < s->n && !c->failed; i += k) {
        int size;
        uint32_t ch = tx_utf8_get(s->s + i, &size);
        k = (size_t)size;
        const jj_str *part = jj_slice_str(c, s, i, i + k);
        jj_out_str(c, &out, (inside ? jj_lower(c, part) : jj_upper(c, part)).u.s);
        inside = !(jj_py_space(ch) || (ch < 0x80 && ch && strchr("-({[<", (int)ch)));
    }
    return jj_out_value(c, &out);
}

static jj_value trim(jj *c, jj_value v, const jj_args *args)
{
    jj_value chars;
    if (!jj_bind(c, args, "trim", "chars", &chars)) return v;
    return jj_strip(c, jj_str_of(c, v), jj_arg_str(c, chars, NULL), 3);
}

static jj_value replace(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "replace", "old*,new*,count", a)) return v;
    return jj_replace(c, jj_str_of(c, v), jj_str_of(c, a[0]), jj_str_of(c, a[1]),
                      jj_arg_int(c, a[2], -1));
}

static jj_value center(jj *c, jj_value v, const jj_args *args)
{
    jj_value width;
    if (!jj_bind(c, args, "center", "width", &width)) return v;
    return jj_justify(c, jj_str_of(c, v), jj_arg_int(c, width, 80), NULL, '^');
}

static jj_value truncate(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[4];
    if (!jj_bind(c, args, "truncate", "length,killwords,end,leeway", a)) return v;
    jj_length(c, v); /* an error for what has none */
    const jj_str *s = jj_str_of(c, v), *end = jj_arg_str(c, a[2], jj_literal(c, "...").u.s);
    int64_t length = jj_arg_int(c, a[0], 255), leeway = jj_arg_int(c, a[3], 5);
    int64_t n = (int64_t)tx_utf8_count(s->s, s->n),
            kept = length - (int64_t)tx_utf8_count(end->s, end->n);
    if (kept < 0) return jj_fail(c, "expected length >= the length of the end mark");
    if (n <= length || n - length <= leeway) return jj_string_value(s);
    size_t cut = jj_offset(s, kept);
    if (!jj_truth(c, a[1])) {
        size_t space = cut;
        while (space && s->s[space - 1] != ' ') space--;
        if (space) cut = space - 1;
    }
    return jj_string_value(jj_concat_str(c, jj_slice_str(c, s, 0, cut), end));
}

static jj_value indent(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "indent", "width,first,blank", a)) return v;
    if (v.type != JJ_STRING) return jj_fail(c, "cannot indent '%s'", jj_type_name(v));
    const jj_str *s = v.u.s, *by;
    if (a[0].type == JJ_STRING) by = a[0].u.s;
    else {
        int64_t n = jj_arg_int(c, a[0], 4);
        by = jj_justify(c, jj_literal(c, "").u.s, n, NULL, '<').u.s;
    }
    const jj_str *newline = jj_literal(c, "\n").u.s;
    bool blank = jj_truth(c, a[2]);
    jj_list *lines = jj_split_lines(c, jj_concat_str(c, s, newline), false);
    jj_out out = {0};
    if (jj_truth(c, a[1])) jj_out_str(c, &out, by);
    for (size_t i = 0; i < lines->n && !c->failed; i++) {
        if (i) jj_out_str(c, &out, newline);
        if (i && (blank || lines->items[i].u.s->n)) jj_out_str(c, &out, by);
        jj_out_str(c, &out, lines->items[i].u.s);
    }
    return jj_out_value(c, &out);
}

static jj_value format(jj *c, jj_value v, const jj_args *args)
{
    if (args->n && args->n_named)
        return jj_fail(c, "can't handle positional and keyword arguments at the same time");
    jj_value with;
    if (args->n_named) {
        jj_dict *d = jj_new_dict(c, args->n_named);
        for (size_t i = 0; i < args->n_named; i++)
            jj_dict_set(c, d, jj_literal(c, args->named[i].name), args->named[i].value);
        with = (jj_value){.type = JJ_DICT, .u.dict = d};
    } else {
        jj_list *list = jj_new_list(c, args->n);
        for (size_t i = 0; i < args->n; i++) jj_append(c, list, args->values[i]);
        with = jj_list_value(JJ_TUPLE, list);
    }
    return jj_percent(c, jj_str_of(c, v), with);
}

static jj_value wordcount(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "wordcount", "", NULL)) return v;
    const jj_str *s = jj_str_of(c, v);
    int64_t n = 0;
    bool inside = false;
    for (size_t i = 0; i < s->n;) {
        int k;
        bool word = tx_is_word(tx_utf8_get(s->s + i, &k));
        n += word && !inside;
        inside = word;
        i += (size_t)k;
    }
    return jj_int(n);
}

static jj_value urlencode(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "urlencode", "", NULL)) return v;
    const jj_str *s = jj_str_of(c, v);
    jj_out out = {0};
    char text[4];
    for (size_t i = 0; i < s->n && !c->failed; i++) {
        unsigned char b = (unsigned char)s->s[i];
        bool plain = b < 0x80 && (tx_ascii_class[b] & (TX_L | TX_N) || (b && strchr("_.-~/", b)));
        if (plain) jj_out_part(c, &out, s, i, i + 1);
        else {
            snprintf(text, sizeof text, "%%%02X", b);
            jj_out_text(c, &out, text, 3, jj_str_content(s, i, i + 1));
        }
    }
    return jj_out_value(c, &out);
}

/* Tags and comments go, white space is folded. */
static jj_value striptags(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "striptags", "", NULL)) return v;
    const jj_str *s = jj_str_of(c, v);
    jj_out out = {0};
    size_t done = 0;
    for (size_t i = 0; i < s->n;) {
        const char *end = s->s[i] != '<' ? NULL
                          : s->n - i > 3 && !memcmp(s->s + i, "<!--", 4)
                              ? memmem(s->s + i, s->n - i, "-->", 3)
                              : memchr(s->s + i, '>', s->n - i);
        if (end) {
            jj_out_part(c, &out, s, done, i);
            done = i = (size_t)(end - s->s) + (*end == '-' ? 3 : 1);
        } else i++;
    }
    jj_out_part(c, &out, s, done, s->n);
    jj_value bare = jj_out_value(c, &out), words;
    jj_args none = {0};
    const jj_method_entry *split = jj_find_method(JJ_STRING, "split", 5);
    words = split->fn(c, bare, &none);
    return c->failed ? v : jj_join(c, jj_literal(c, " ").u.s, words.u.list, false);
}

/* --- numbers
 * ------------------------------------------------------------------------------------------------
 */

/* Python's int(text, base) and float(text): surrounding space, a sign, underscores between digits.
 */
static bool clean_number(const jj_str *s, char *out, size_t size)
{
    size_t from = 0, to = s->n, n = 0;
    int k;
    while (from < to && jj_py_space(tx_utf8_get(s->s + from, &k))) from += (size_t)k;
    while (to > from && (unsigned char)s->s[to - 1] <= ' ') to--;
    for (size_t i = from; i < to; i++) {
        char ch = s->s[i];
        if (ch == '_') {
            bool between = i > from && i + 1 < to && s->s[i - 1] != '_' && s->s[i + 1] != '_';
            if (!between) return false;
            continue;
        }
        if (n + 1 >= size || (unsigned char)ch >= 0x80 || ch == ' ' || !ch) return false;
        out[n++] = ch;
    }
    out[n] = 0;
    return n > 0;
}

static bool parse_int(const jj_str *s, int base, int64_t *out)
{
    char text[128], *end;
    if (base < 2 || base > 36 || !clean_number(s, text, sizeof text)) return false;
    char *digits = text + (*text == '-' || *text == '+');
    if (base == 16 && digits[0] == '0' && (digits[1] | 32) == 'x')
        memmove(digits, digits + 2, strlen(digits) - 1);
    else if ((base == 8 && digits[0] == '0' && (digits[1] | 32) == 'o') ||
             (base == 2 && digits[0] == '0' && (digits[1] | 32) == 'b'))
        memmove(digits, digits + 2, strlen(digits) - 1);
    if (*digits == '-' || *digits == '+' || !*digits || ((digits[1] | 32) == 'x' && base == 16))
        return false;
    long long v = strtoll(text, &end, base);
    *out = v;
    return !*end;
}

static bool parse_float(const jj_str *s, double *out)
{
    char text[400], *end;
    if (!clean_number(s, text, sizeof text) || strpbrk(text, "xXpP(")) return false;
    *out = strtod(text, &end);
    return !*end;
}

static bool to_double(jj_value v, double *out)
{
    if (v.type == JJ_STRING) return parse_float(v.u.s, out);
    *out = jj_as_double(v);
    return jj_is_number(v);
}

static jj_value to_int(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    int64_t i;
    double f;
    if (!jj_bind(c, args, "int", "default,base", a)) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (jj_as_int(v, &i)) return jj_int(i);
    if (v.type == JJ_STRING && parse_int(v.u.s, (int)jj_arg_int(c, a[1], 10), &i)) return jj_int(i);
    if (to_double(v, &f) && fabs(f) < 9.2e18) return jj_int((int64_t)f);
    return a[0].type == JJ_UNDEFINED ? jj_int(0) : a[0];
}

static jj_value to_float(jj *c, jj_value v, const jj_args *args)
{
    jj_value otherwise;
    double f;
    if (!jj_bind(c, args, "float", "default", &otherwise)) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (to_double(v, &f)) return jj_float(f);
    return otherwise.type == JJ_UNDEFINED ? jj_float(0) : otherwise;
}

static jj_value absolute(jj *c, jj_value v, const jj_args *args)
{
    int64_t i;
    if (!jj_bind(c, args, "abs", "", NULL)) return v;
    if (jj_as_int(v, &i)) return i < 0 ? jj_unary(c, JJT_SUB, v) : jj_int(i);
    if (v.type == JJ_FLOAT) return jj_float(fabs(v.u.f));
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    return jj_fail(c, "bad operand type for abs(): '%s'", jj_type_name(v));
}

static jj_value round_common(jj_value v, int64_t precision)
{
    char text[400];
    int64_t i;
    if (jj_as_int(v, &i) && precision >= 0) return jj_int(i);
    double f = jj_as_double(v);
    if (isnan(f) || isinf(f) || precision > 300) return v;
    if (precision < 0) {
        double scale = pow(10, (double)-precision);
        f = nearbyint(f / scale) * scale;
        return jj_as_int(v, &i) ? jj_int((int64_t)f) : jj_float(f);
    }
    snprintf(text, sizeof text, "%.*f", (int)precision,
             f); /* rounds the exact value, halves to even */
    return jj_float(strtod(text, NULL));
}

static jj_value round_filter(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "round", "precision,method", a)) return v;
    int64_t precision = jj_arg_int(c, a[0], 0);
    const jj_str *method = jj_arg_str(c, a[1], jj_literal(c, "common").u.s);
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (!jj_is_number(v))
        return jj_fail(c, "type %s doesn't define __round__ method", jj_type_name(v));
    if (jj_str_is(method, "common")) return round_common(v, precision);
    double scale = pow(10, (double)precision), f = jj_as_double(v) * scale;
    if (jj_str_is(method, "ceil")) return jj_float(ceil(f) / scale);
    if (jj_str_is(method, "floor")) return jj_float(floor(f) / scale);
    return jj_fail(c, "method must be common, ceil or floor");
}

static jj_value filesize(jj *c, jj_value v, const jj_args *args)
{
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    jj_value a;
    double f;
    char text[80];
    if (!jj_bind(c, args, "filesizeformat", "binary", &a)) return v;
    if (!to_double(v, &f)) return jj_fail(c, "could not convert to a number of bytes");
    double base = jj_truth(c, a) ? 1024 : 1000, unit = base;
    if (f == 1) return jj_literal(c, "1 Byte");
    if (f < base) snprintf(text, sizeof text, "%d Bytes", (int)f);
    else {
        int i = 0;
        while (i < 7 && f >= unit * base) unit *= base, i++;
        snprintf(text, sizeof text, "%.1f %s", f / unit, base == 1024 ? binary[i] : decimal[i]);
    }
    return jj_text(c, text, strlen(text), false);
}

/* --- JSON
 * ----------------------------------------------------------------------------------------------------
 */

static bool json_separators(jj *c, jj_value v, jj_json_style *style)
{
    if (v.type == JJ_UNDEFINED || v.type == JJ_NONE) return true;
    jj_list *pair = jj_iterate(c, v);
    if (c->failed || pair->n != 2) return jj_fail(c, "separators must be two strings"), false;
    style->item_separator = jj_arg_str(c, pair->items[0], style->item_separator);
    style->key_separator = jj_arg_str(c, pair->items[1], style->key_separator);
    return !c->failed;
}

static jj_value tojson(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[4];
    if (!jj_bind(c, args, "tojson", "ensure_ascii,indent,separators,sort_keys", a)) return v;
    jj_json_style style = {.indent = -1, .ascii = jj_truth(c, a[0]), .sort = jj_truth(c, a[3])};
    if (a[1].type == JJ_STRING) style.indent = (int)a[1].u.s->n;
    else if (a[1].type != JJ_UNDEFINED && a[1].type != JJ_NONE) {
        int64_t n = jj_arg_int(c, a[1], 0);
        style.indent = n < 0 ? 0 : n > 1000 ? 1000 : (int)n;
    }
    style.item_separator = jj_literal(c, style.indent < 0 ? ", " : ",").u.s;
    style.key_separator = jj_literal(c, ": ").u.s;
    if (!json_separators(c, a[2], &style)) return v;
    return jj_to_json(c, v, &style);
}

const jj_filter_entry jj_text_filters[] = {
    {"upper", upper},
    {"lower", lower},
    {"capitalize", capitalize},
    {"title", title},
    {"string", string},
    {"safe", safe},
    {"escape", escape},
    {"e", escape},
    {"forceescape", forceescape},
    {"trim", trim},
    {"replace", replace},
    {"center", center},
    {"truncate", truncate},
    {"indent", indent},
    {"format", format},
    {"wordcount", wordcount},
    {"urlencode", urlencode},
    {"striptags", striptags},
    {"int", to_int},
    {"float", to_float},
    {"abs", absolute},
    {"round", round_filter},
    {"filesizeformat", filesize},
    {"tojson", tojson},
    {NULL, NULL},
};
