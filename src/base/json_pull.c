#include "base/json_pull.h"

#include <string.h>

static const char no_memory[] = "out of memory";

void bs_json_init(bs_json *j, const char *data, size_t n)
{
    memset(j, 0, sizeof *j);
    j->begin = j->at = data ? data : ""; /* an empty buffer has none */
    j->end = j->begin + n;
}

void bs_json_free(bs_json *j)
{
    bs_buf_free(&j->scratch);
}

static bs_json_event fail(bs_json *j, const char *what)
{
    if (!j->what) j->what = what;
    return j->last = BS_JSON_ERROR;
}

static void skip_space(bs_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

/* Length of the well-formed UTF-8 character at p (2 to 4 bytes), or 0. */
static int utf8_length(const unsigned char *p, const unsigned char *end)
{
    size_t left = (size_t)(end - p);
#define TAIL(i) ((p[i] & 0xC0) == 0x80)
    if (p[0] >= 0xC2 && p[0] <= 0xDF) return left >= 2 && TAIL(1) ? 2 : 0;
    if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        if (left < 3 || !TAIL(1) || !TAIL(2)) return 0;
        if (p[0] == 0xE0 && p[1] < 0xA0) return 0;
        return p[0] == 0xED && p[1] > 0x9F ? 0 : 3;
    }
    if (p[0] < 0xF0 || p[0] > 0xF4 || left < 4 || !TAIL(1) || !TAIL(2) || !TAIL(3)) return 0;
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;
    return p[0] == 0xF4 && p[1] > 0x8F ? 0 : 4;
#undef TAIL
}

static bool hex4(const char *p, const char *end, unsigned *out)
{
    unsigned v = 0;
    if (end - p < 4) return false;
    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i], lower = c | 32;
        if (c >= '0' && c <= '9') v = v * 16 + c - '0';
        else if (lower >= 'a' && lower <= 'f') v = v * 16 + lower - 'a' + 10;
        else return false;
    }
    *out = v;
    return true;
}

static bool put_utf8(bs_buf *b, unsigned c)
{
    char s[4];
    if (c < 0x80) return bs_buf_putc(b, (char)c);
    if (c < 0x800) {
        s[0] = (char)(0xC0 | c >> 6);
        s[1] = (char)(0x80 | (c & 63));
        return bs_buf_append(b, s, 2);
    }
    if (c < 0x10000) {
        s[0] = (char)(0xE0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 63));
        s[2] = (char)(0x80 | (c & 63));
        return bs_buf_append(b, s, 3);
    }
    s[0] = (char)(0xF0 | c >> 18);
    s[1] = (char)(0x80 | (c >> 12 & 63));
    s[2] = (char)(0x80 | (c >> 6 & 63));
    s[3] = (char)(0x80 | (c & 63));
    return bs_buf_append(b, s, 4);
}

/* j->at stands behind a backslash. */
static bool unescape(bs_json *j)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    unsigned c, low;
    if (j->at >= j->end) return fail(j, "a string is not closed"), false;
    char kind = *j->at++;
    const char *simple = kind ? strchr(names, kind) : NULL;
    if (simple) return bs_buf_putc(&j->scratch, values[simple - names]);
    if (kind != 'u' || !hex4(j->at, j->end, &c))
        return fail(j, "a wrong escape in a string"), false;
    j->at += 4;
    if (c >= 0xDC00 && c <= 0xDFFF) return fail(j, "a lone surrogate in a string"), false;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u' ||
            !hex4(j->at + 2, j->end, &low) || low < 0xDC00 || low > 0xDFFF)
            return fail(j, "a lone surrogate in a string"), false;
        j->at += 6;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    return put_utf8(&j->scratch, c);
}

/* Pass over plain characters; true when a quote or backslash is reached. */
static bool plain_run(bs_json *j)
{
    const unsigned char *p = (const unsigned char *)j->at, *end = (const unsigned char *)j->end;
    while (p < end && *p != '"' && *p != '\\') {
        int n = *p < 0x20 ? 0 : *p < 0x80 ? 1 : utf8_length(p, end);
        if (!n)
            return fail(j, *p < 0x20 ? "a control character in a string" : "invalid UTF-8"), false;
        p += n;
    }
    j->at = (const char *)p;
    return p < end ? true : (fail(j, "a string is not closed"), false);
}

static bool string(bs_json *j)
{
    const char *start = ++j->at;
    if (!plain_run(j)) return false;
    if (*j->at == '"') {
        j->text = start;
        j->length = (size_t)(j->at++ - start);
        return true;
    }
    j->scratch.length = 0;
    for (;;) {
        bs_buf_append(&j->scratch, start, (size_t)(j->at - start));
        if (*j->at++ == '"') break;
        if (!unescape(j)) return fail(j, no_memory), false;
        start = j->at;
        if (!plain_run(j)) return false;
    }
    if (j->scratch.failed) return fail(j, no_memory), false;
    j->text = j->scratch.data;
    j->length = j->scratch.length;
    return true;
}

static const char *digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

static bs_json_event number(bs_json *j)
{
    const char *p = j->at, *end = j->end, *d;
    if (p < end && *p == '-') p++;
    d = digits(p, end);
    if (d == p || (*p == '0' && d - p > 1)) return fail(j, "not a value");
    p = d;
    if (p < end && *p == '.') {
        d = digits(p + 1, end);
        if (d == p + 1) return fail(j, "a wrong number");
        p = d;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        d = digits(p, end);
        if (d == p) return fail(j, "a wrong number");
        p = d;
    }
    j->text = j->at;
    j->length = (size_t)(p - j->at);
    j->at = p;
    j->after_value = true;
    return j->last = BS_JSON_NUMBER;
}

static bs_json_event word(bs_json *j, const char *name, bs_json_event event)
{
    size_t n = strlen(name);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, name, n)) return fail(j, "not a value");
    j->at += n;
    j->after_value = true;
    return j->last = event;
}

static bs_json_event open_container(bs_json *j, bool object)
{
    if (j->depth == BS_JSON_DEPTH) return fail(j, "nested too deeply");
    j->is_object[j->depth++] = object;
    j->at++;
    j->after_value = false;
    j->expect_key = object;
    return j->last = object ? BS_JSON_OBJECT : BS_JSON_ARRAY;
}

static bs_json_event close_container(bs_json *j)
{
    bool object = j->is_object[--j->depth];
    j->at++;
    j->after_value = true;
    j->expect_key = false;
    return j->last = object ? BS_JSON_OBJECT_END : BS_JSON_ARRAY_END;
}

static bs_json_event value(bs_json *j)
{
    j->expect_key = false;
    switch (*j->at) {
    case '{': return open_container(j, true);
    case '[': return open_container(j, false);
    case 't': return word(j, "true", BS_JSON_TRUE);
    case 'f': return word(j, "false", BS_JSON_FALSE);
    case 'n': return word(j, "null", BS_JSON_NULL);
    case '"':
        if (!string(j)) return BS_JSON_ERROR;
        j->after_value = true;
        return j->last = BS_JSON_STRING;
    default: return number(j);
    }
}

static bs_json_event key(bs_json *j)
{
    if (*j->at != '"') return fail(j, "a key is expected");
    if (!string(j)) return BS_JSON_ERROR;
    skip_space(j);
    if (j->at >= j->end || *j->at != ':') return fail(j, "':' is expected");
    j->at++;
    j->expect_key = false;
    return j->last = BS_JSON_KEY;
}

bs_json_event bs_json_next(bs_json *j)
{
    if (j->what) return BS_JSON_ERROR;
    skip_space(j);
    if (!j->depth && j->started)
        return j->at < j->end ? fail(j, "text after the end") : (j->last = BS_JSON_DONE);
    if (j->at >= j->end) return fail(j, "the file ends too early");
    j->started = true;
    if (!j->depth) return value(j);
    bool object = j->is_object[j->depth - 1];
    char closing = object ? '}' : ']';
    if (j->after_value) {
        if (*j->at == closing) return close_container(j);
        if (*j->at != ',') return fail(j, "',' or a closing bracket is expected");
        j->at++;
        j->after_value = false;
        skip_space(j);
        if (j->at >= j->end) return fail(j, "the file ends too early");
        return object ? key(j) : value(j);
    }
    if ((j->last == BS_JSON_OBJECT || j->last == BS_JSON_ARRAY) && *j->at == closing)
        return close_container(j);
    return object && j->expect_key ? key(j) : value(j);
}

/* Behind the container that opens at p: brackets are counted, strings passed over, nothing else is
 * looked at. NULL: it does not close. */
static const char *container_end(const char *p, const char *end)
{
    for (int depth = 0; p < end; p++) {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++)
                if (*p == '\\') p++;
        } else if (*p == '{' || *p == '[') depth++;
        else if ((*p == '}' || *p == ']') && !--depth) return p + 1;
    }
    return NULL;
}

bool bs_json_skip(bs_json *j, const char **start, size_t *length)
{
    skip_space(j);
    const char *from = j->at;
    if (j->what || j->last != BS_JSON_KEY || from >= j->end)
        return fail(j, "a value is expected"), false;
    if (*from == '{' || *from == '[') {
        const char *end = container_end(from, j->end);
        if (!end) return fail(j, "the file ends too early"), false;
        j->at = end;
        j->after_value = true;
        j->last = BS_JSON_NULL;
    } else if (bs_json_next(j) <= BS_JSON_DONE) return false;
    if (start) *start = from;
    if (length) *length = (size_t)(j->at - from);
    return true;
}

bool bs_json_is(const bs_json *j, const char *text)
{
    return strlen(text) == j->length && !memcmp(text, j->text, j->length);
}

bool bs_json_uint(const bs_json *j, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (j->last != BS_JSON_NUMBER) return false;
    for (size_t i = 0; i < j->length; i++) {
        unsigned d = (unsigned char)j->text[i] - '0';
        if (d > 9 || v > (max - d) / 10) return false;
        v = v * 10 + d;
    }
    *out = v;
    return v <= max;
}

fm_status bs_json_fail(const bs_json *j, const char *path, fm_error *err)
{
    const char *what = j->what ? j->what : "not what was expected here";
    return fm_fail(err, what == no_memory ? FM_E_NOMEM : FM_E_FORMAT, "%s: JSON, byte %zu: %s",
                   path, (size_t)(j->at - j->begin), what);
}
