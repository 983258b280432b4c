/* "%s" % x and "{}".format(x). What is formatted keeps being content; the format's own text keeps
 * what it is. */
#include "text/jj.h"
#include "text/unicode.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WIDTH = 100000 };

typedef struct spec {
    char fill[5];
    char align; /* '<' '>' '^' '=' or 0 */
    char sign;  /* '+' ' ' or '-' */
    bool alternate, comma, underscore, left, zero;
    int64_t width, precision; /* precision -1: none */
    char type;                /* 0: none */
} spec;

static void pad(jj *c, jj_out *out, const char *fill, int64_t times)
{
    for (int64_t i = 0; i < times && !c->failed; i++)
        jj_out_text(c, out, fill, strlen(fill), false);
}

/* s within a width; `otherwise` is the alignment when none is asked for. */
static void put_aligned(jj *c, jj_out *out, const jj_str *s, const spec *f, char otherwise)
{
    int64_t n = (int64_t)tx_utf8_count(s->s, s->n), room = f->width > n ? f->width - n : 0;
    const char *fill = f->fill[0] ? f->fill : " ";
    char align = f->align ? f->align : otherwise;
    int64_t before = align == '>' || align == '=' ? room : align == '^' ? room / 2 : 0;
    size_t sign = align == '=' && s->n && strchr("+- ", s->s[0]) ? 1 : 0;
    jj_out_part(c, out, s, 0, sign);
    pad(c, out, fill, before);
    jj_out_part(c, out, s, sign, s->n);
    pad(c, out, fill, room - before);
}

/* Thousands separators in the digits before the point. */
static void group(char *text, size_t size, char mark)
{
    char copy[512];
    size_t start = strspn(text, "+- "), digits = strspn(text + start, "0123456789"), n = 0;
    if (strlen(text) + digits / 3 >= size || strlen(text) + digits / 3 >= sizeof copy) return;
    for (size_t i = 0; text[i]; i++) {
        bool inside = i > start && i < start + digits;
        if (inside && (start + digits - i) % 3 == 0) copy[n++] = mark;
        copy[n++] = text[i];
    }
    copy[n] = 0;
    memcpy(text, copy, n + 1);
}

static void sign_of(char *to, bool negative, const spec *f)
{
    to[0] = negative ? '-' : f->sign == '+' || f->sign == ' ' ? f->sign : 0;
    to[1] = 0;
}

/* An integer in base 2, 8, 10 or 16. */
static void int_text(char *out, size_t size, int64_t v, const spec *f, char type)
{
    char digits[70], sign[2];
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10, n = 0;
    const char *set = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do digits[n++] = set[u % (uint64_t)base];
    while (u /= (uint64_t)base);
    while (n < f->precision && n < 60) digits[n++] = '0';
    sign_of(sign, v < 0, f);
    const char *prefix = !f->alternate || base == 10 ? ""
                         : type == 'x'               ? "0x"
                         : type == 'X'               ? "0X"
                         : type == 'o'               ? "0o"
                                                     : "0b";
    size_t at = (size_t)snprintf(out, size, "%s%s", sign, prefix);
    while (n && at + 1 < size) out[at++] = digits[--n];
    out[at] = 0;
}

static void float_text(char *out, size_t size, double v, const spec *f, char type)
{
    char format[16], sign[2];
    int precision = f->precision < 0 ? 6 : f->precision > 300 ? 300 : (int)f->precision;
    sign_of(sign, signbit(v) && !isnan(v), f);
    if (isnan(v) || isinf(v)) {
        snprintf(out, size, "%s%s", sign, isnan(v) ? "nan" : "inf");
        return;
    }
    bool percent = type == '%';
    snprintf(format, sizeof format, "%s%%%s.*%c", "%s", f->alternate ? "#" : "",
             percent ? 'f' : type);
    int n = snprintf(out, size, format, sign, precision, fabs(v) * (percent ? 100 : 1));
    if (percent && n >= 0 && (size_t)n + 1 < size) strcpy(out + n, "%");
}

/* --- %
 * --------------------------------------------------------------------------------------------------
 */

typedef struct percent {
    jj *c;
    jj_out *out;
    const jj_str *format;
    jj_value args;
    size_t at, next; /* in the format; of the arguments */
} percent;

static jj_value next_argument(percent *p)
{
    bool tuple = p->args.type == JJ_TUPLE;
    size_t n = tuple ? p->args.u.list->n : 1;
    if (p->next >= n) return jj_fail(p->c, "not enough arguments for format string");
    return tuple ? p->args.u.list->items[p->next++] : (p->next++, p->args);
}

static char peek(const percent *p)
{
    return p->at < p->format->n ? p->format->s[p->at] : 0;
}

static int64_t number(percent *p)
{
    int64_t n = 0, star;
    if (peek(p) == '*') {
        p->at++;
        return jj_as_int(next_argument(p), &star) ? star : (jj_fail(p->c, "* wants int"), 0);
    }
    while (isdigit((unsigned char)peek(p)) && n < MAX_WIDTH)
        n = n * 10 + (p->format->s[p->at++] - '0');
    if (n >= MAX_WIDTH) jj_fail(p->c, "a width of more than %d", MAX_WIDTH);
    return n;
}

static jj_value keyed_argument(percent *p)
{
    size_t from = ++p->at;
    while (p->at < p->format->n && p->format->s[p->at] != ')') p->at++;
    if (p->at >= p->format->n) return jj_fail(p->c, "incomplete format key");
    if (p->args.type != JJ_DICT) return jj_fail(p->c, "format requires a mapping");
    jj_value *v = jj_dict_find_text(p->args.u.dict, p->format->s + from, p->at - from);
    p->at++;
    if (!v) return jj_fail(p->c, "KeyError: '%.*s'", (int)(p->at - 1 - from), p->format->s + from);
    p->next = 1;
    return *v;
}

static void put_number(percent *p, jj_value v, spec *f, char type)
{
    char text[512];
    int64_t i;
    if (strchr("diuoxX", type)) {
        if (v.type == JJ_FLOAT && strchr("diu", type) && fabs(v.u.f) < 9e18) i = (int64_t)v.u.f;
        else if (!jj_as_int(v, &i)) {
            jj_fail(p->c, "%%%c format: a number is required, not %s", type, jj_type_name(v));
            return;
        }
        int_text(text, sizeof text, i, f, type);
    } else {
        if (!jj_is_number(v)) {
            jj_fail(p->c, "must be real number, not %s", jj_type_name(v));
            return;
        }
        float_text(text, sizeof text, jj_as_double(v), f, type);
    }
    if (f->zero && !f->left) f->align = '=', strcpy(f->fill, "0");
    put_aligned(p->c, p->out, jj_text(p->c, text, strlen(text), false).u.s, f, '>');
}

static void put_text(percent *p, jj_value v, const spec *f, char type)
{
    const jj_str *s = type == 'r' || type == 'a' ? jj_repr(p->c, v).u.s : jj_str_of(p->c, v);
    if (f->precision >= 0) s = jj_slice_str(p->c, s, 0, jj_offset(s, f->precision));
    put_aligned(p->c, p->out, s, f, '>');
}

static void put_char(percent *p, jj_value v, const spec *f)
{
    char text[4];
    int64_t i;
    if (v.type == JJ_STRING && tx_utf8_count(v.u.s->s, v.u.s->n) == 1)
        put_aligned(p->c, p->out, v.u.s, f, '>');
    else if (jj_as_int(v, &i) && i >= 0 && i < 0x110000 && (i < 0xD800 || i > 0xDFFF)) {
        size_t n = (size_t)tx_utf8_put((uint32_t)i, text);
        put_aligned(p->c, p->out, jj_text(p->c, text, n, true).u.s, f, '>');
    } else jj_fail(p->c, "%%c requires int or char");
}

/* One directive, behind its '%'. */
static void directive(percent *p)
{
    spec f = {.precision = -1};
    jj_value keyed = jj_undefined(NULL);
    bool has_key = peek(p) == '(';
    if (has_key) keyed = keyed_argument(p);
    for (char c; (c = peek(p)) && strchr("-+ 0#", c); p->at++) {
        if (c == '-') f.left = true;
        else if (c == '0') f.zero = true;
        else if (c == '#') f.alternate = true;
        else if (f.sign != '+') f.sign = c;
    }
    f.width = number(p);
    if (f.width < 0) f.left = true, f.width = -f.width;
    if (f.left) f.align = '<';
    if (peek(p) == '.') {
        p->at++;
        f.precision = number(p);
    }
    while (peek(p) && strchr("hlL", peek(p))) p->at++;
    char type = peek(p);
    p->at++;
    if (p->c->failed) return;
    if (type == '%') {
        jj_out_text(p->c, p->out, "%", 1, false);
        return;
    }
    if (!type || !strchr("diuoxXeEfFgGcrsa", type)) {
        jj_fail(p->c, type ? "unsupported format character '%c'" : "incomplete format%c", type);
        return;
    }
    jj_value v = has_key ? keyed : next_argument(p);
    if (p->c->failed) return;
    if (strchr("rsa", type)) put_text(p, v, &f, type);
    else if (type == 'c') put_char(p, v, &f);
    else put_number(p, v, &f, type);
}

jj_value jj_percent(jj *c, const jj_str *format, jj_value args)
{
    jj_out out = {0};
    percent p = {.c = c, .out = &out, .format = format, .args = args};
    while (p.at < format->n && !c->failed) {
        const char *mark = memchr(format->s + p.at, '%', format->n - p.at);
        size_t to = mark ? (size_t)(mark - format->s) : format->n;
        jj_out_part(c, &out, format, p.at, to);
        p.at = to + 1;
        if (mark) directive(&p);
    }
    bool unused = args.type == JJ_TUPLE
                      ? p.next < args.u.list->n
                      : p.next == 0 && args.type != JJ_DICT && args.type != JJ_LIST;
    if (unused) jj_fail(c, "not all arguments converted during string formatting");
    return jj_out_value(c, &out);
}

/* --- str.format
 * -------------------------------------------------------------------------------------------- */

typedef struct formatter {
    jj *c;
    jj_out *out;
    const jj_args *args;
    int64_t next;
    int depth;
} formatter;

static bool parse_spec(formatter *m, const char *s, size_t n, spec *f)
{
    size_t at = 0, k = n ? (size_t)tx_utf8_size((unsigned char)s[0]) : 0;
    *f = (spec){.precision = -1};
    if (n > k && k && strchr("<>^=", s[k])) {
        memcpy(f->fill, s, k);
        f->align = s[k];
        at = k + 1;
    } else if (n && strchr("<>^=", s[0])) f->align = s[at++];
    if (at < n && strchr("+- ", s[at])) f->sign = s[at++];
    if (at < n && s[at] == '#') f->alternate = true, at++;
    if (at < n && s[at] == '0') {
        f->zero = true;
        if (!f->fill[0]) strcpy(f->fill, "0");
        at++;
    }
    for (; at < n && isdigit((unsigned char)s[at]) && f->width < MAX_WIDTH; at++)
        f->width = f->width * 10 + (s[at] - '0');
    if (at < n && s[at] == ',') f->comma = true, at++;
    else if (at < n && s[at] == '_') f->underscore = true, at++;
    if (at + 1 < n && s[at] == '.' && isdigit((unsigned char)s[at + 1]))
        for (at++, f->precision = 0;
             at < n && isdigit((unsigned char)s[at]) && f->precision < MAX_WIDTH; at++)
            f->precision = f->precision * 10 + (s[at] - '0');
    if (at < n) f->type = s[at++];
    if (at == n && f->width < MAX_WIDTH && f->precision < MAX_WIDTH) return true;
    jj_fail(m->c, "Invalid format specifier '%.*s'", (int)(n < 50 ? n : 50), s);
    return false;
}

static void format_number(formatter *m, jj_value v, spec *f)
{
    char text[512], type = f->type;
    int64_t i;
    bool is_int = jj_as_int(v, &i), as_float = !is_int || (type && strchr("eEfFgG%", type));
    if (as_float && (!type || type == 'n')) {
        if (f->precision >= 0) float_text(text, sizeof text, jj_as_double(v), f, 'g');
        else {
            jj_format_double(fabs(jj_as_double(v)), text + 1);
            char sign[2];
            sign_of(sign, signbit(jj_as_double(v)), f);
            if (*sign) text[0] = *sign;
            else memmove(text, text + 1, strlen(text + 1) + 1);
        }
    } else if (as_float) float_text(text, sizeof text, jj_as_double(v), f, type);
    else if (f->precision >= 0) {
        jj_fail(m->c, "Precision not allowed in integer format specifier");
        return;
    } else int_text(text, sizeof text, i, f, type ? type : 'd');
    if (f->comma || f->underscore) group(text, sizeof text, f->comma ? ',' : '_');
    if (f->zero && !f->align) f->align = '=';
    put_aligned(m->c, m->out, jj_text(m->c, text, strlen(text), false).u.s, f, '>');
}

static void format_value(formatter *m, jj_value v, const char *s, size_t n)
{
    spec f;
    if (!n) {
        jj_out_str(m->c, m->out, jj_str_of(m->c, v));
        return;
    }
    if (!parse_spec(m, s, n, &f)) return;
    bool number_type = f.type && strchr("bcdeEfFgGnoxX%", f.type);
    if (jj_is_number(v) && (v.type != JJ_BOOL || number_type)) {
        if (f.type && !number_type)
            jj_fail(m->c, "Unknown format code '%c' for object of type '%s'", f.type,
                    jj_type_name(v));
        else if (v.type == JJ_FLOAT && f.type && strchr("bcdoxX", f.type))
            jj_fail(m->c, "Unknown format code '%c' for object of type 'float'", f.type);
        else format_number(m, v, &f);
        return;
    }
    if (v.type != JJ_STRING && v.type != JJ_BOOL) {
        jj_fail(m->c, "unsupported format string passed to %s.__format__", jj_type_name(v));
        return;
    }
    if ((f.type && f.type != 's') || f.sign || f.align == '=' || f.comma) {
        jj_fail(m->c, "Unknown format code for object of type 'str'");
        return;
    }
    const jj_str *text = jj_str_of(m->c, v);
    if (f.precision >= 0) text = jj_slice_str(m->c, text, 0, jj_offset(text, f.precision));
    put_aligned(m->c, m->out, text, &f, '<');
}

/* "0", "name" or "" (the next one). */
static jj_value argument(formatter *m, const char *s, size_t n)
{
    int64_t i = -1;
    if (!n) {
        if (m->next < 0)
            return jj_fail(
                m->c, "cannot switch from manual field specification to automatic field numbering");
        i = m->next++;
    } else if (n < 10 && strspn(s, "0123456789") >= n) {
        if (m->next > 0)
            return jj_fail(
                m->c, "cannot switch from automatic field numbering to manual field specification");
        m->next = -1;
        i = strtoll(s, NULL, 10);
    }
    if (i >= 0) {
        if ((size_t)i < m->args->n) return m->args->values[i];
        return jj_fail(m->c, "Replacement index %lld out of range for positional args tuple",
                       (long long)i);
    }
    for (size_t k = 0; k < m->args->n_named; k++)
        if (strlen(m->args->named[k].name) == n && !memcmp(m->args->named[k].name, s, n))
            return m->args->named[k].value;
    return jj_fail(m->c, "KeyError: '%.*s'", (int)(n < 80 ? n : 80), s);
}

/* name.attr[key]... */
static jj_value field(formatter *m, const char *s, size_t n)
{
    size_t at = 0;
    while (at < n && s[at] != '.' && s[at] != '[') at++;
    jj_value v = argument(m, s, at);
    while (at < n && !m->c->failed) {
        size_t from = ++at;
        if (s[from - 1] == '.') {
            while (at < n && s[at] != '.' && s[at] != '[') at++;
            v = jj_attribute(m->c, v, s + from, at - from);
        } else {
            while (at < n && s[at] != ']') at++;
            bool digits =
                at > from && at - from < 10 && strspn(s + from, "0123456789") >= at - from;
            v = jj_item(m->c, v,
                        digits ? jj_int(strtoll(s + from, NULL, 10))
                               : jj_wrap(m->c, s + from, at - from, false));
            at++;
        }
        if (v.type == JJ_UNDEFINED && !m->c->failed) jj_fail_undefined(m->c, v);
    }
    return v;
}

static void format_text(formatter *m, const jj_str *f);

/* {field!conversion:spec}, braces off; the spec may hold fields itself. */
static void replacement(formatter *m, const jj_str *f, size_t from, size_t to)
{
    size_t end = from, depth = 0;
    while (end < to && (depth || (f->s[end] != ':' && f->s[end] != '!'))) {
        depth += f->s[end] == '[';
        depth -= f->s[end] == ']' && depth;
        end++;
    }
    jj_value v = field(m, f->s + from, end - from);
    if (m->c->failed) return;
    if (end < to && f->s[end] == '!') {
        char kind = end + 1 < to ? f->s[end + 1] : 0;
        if (kind == 'r' || kind == 'a') v = jj_repr(m->c, v);
        else if (kind == 's') v = jj_string_value(jj_str_of(m->c, v));
        else jj_fail(m->c, "Unknown conversion specifier");
        end += 2;
    }
    const jj_str *s = jj_slice_str(m->c, f, end < to ? end + 1 : to, to);
    if (s->n && memchr(s->s, '{', s->n)) {
        jj_out spec_text = {0};
        formatter inner = {m->c, &spec_text, m->args, m->next, m->depth + 1};
        if (inner.depth > 2) jj_fail(m->c, "Max string recursion exceeded");
        else format_text(&inner, s);
        m->next = inner.next;
        s = jj_out_value(m->c, &spec_text).u.s;
    }
    if (!m->c->failed) format_value(m, v, s->s, s->n);
}

static void format_text(formatter *m, const jj_str *f)
{
    for (size_t at = 0; at < f->n && !m->c->failed;) {
        size_t to = at;
        while (to < f->n && f->s[to] != '{' && f->s[to] != '}') to++;
        jj_out_part(m->c, m->out, f, at, to);
        if (to == f->n) return;
        if (to + 1 < f->n && f->s[to + 1] == f->s[to]) {
            jj_out_part(m->c, m->out, f, to, to + 1);
            at = to + 2;
            continue;
        }
        if (f->s[to] == '}') {
            jj_fail(m->c, "Single '}' encountered in format string");
            return;
        }
        size_t depth = 1, end = to + 1;
        for (; end < f->n && depth; end++) depth += (f->s[end] == '{') - (f->s[end] == '}');
        if (depth) {
            jj_fail(m->c, "expected '}' before end of string");
            return;
        }
        replacement(m, f, to + 1, end - 1);
        at = end;
    }
}

jj_value jj_str_format(jj *c, const jj_str *format, const jj_args *args)
{
    jj_out out = {0};
    formatter m = {.c = c, .out = &out, .args = args};
    format_text(&m, format);
    return jj_out_value(c, &out);
}
