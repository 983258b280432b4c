#include "tensors/json_scan.h"

#include <string.h>

bool ts_json_fail(ts_json *j, const char *problem)
{
    if (!j->problem) j->problem = problem;
    return false;
}

char ts_json_peek(ts_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r'))
        j->at++;
    return j->at < j->end ? *j->at : 0;
}

bool ts_json_take(ts_json *j, char c)
{
    if (j->problem || ts_json_peek(j) != c || j->at >= j->end) return false;
    j->at++;
    return true;
}

bool ts_json_expect(ts_json *j, char c)
{
    if (ts_json_take(j, c)) return true;
    return ts_json_fail(j, j->at >= j->end ? "ends too early" : "is not well-formed JSON");
}

bool ts_json_next(ts_json *j, char close, bool *first)
{
    if (ts_json_take(j, close)) return false;
    if (*first) {
        *first = false;
        return !j->problem;
    }
    return ts_json_expect(j, ',');
}

static bool hex4(ts_json *j, uint32_t *out)
{
    uint32_t v = 0;
    if (j->end - j->at < 4) return ts_json_fail(j, "ends too early");
    for (int i = 0; i < 4; i++) {
        char c = *j->at++;
        uint32_t digit;
        if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A') + 10;
        else return ts_json_fail(j, "has a bad \\u escape");
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* After "\u". An escape is longer than what it stands for, so writing in place is safe. */
static bool unicode_escape(ts_json *j, char **to)
{
    uint32_t c, low;
    if (!hex4(j, &c)) return false;
    if (c >= 0xd800 && c < 0xdc00) {
        if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u')
            return ts_json_fail(j, "has half a surrogate pair");
        j->at += 2;
        if (!hex4(j, &low)) return false;
        if (low < 0xdc00 || low > 0xdfff) return ts_json_fail(j, "has half a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xdc00 && c < 0xe000) {
        return ts_json_fail(j, "has half a surrogate pair");
    }
    if (!c) return ts_json_fail(j, "has a string with a NUL in it");
    *to = put_utf8(*to, c);
    return true;
}

static bool escape(ts_json *j, char **to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    if (j->at >= j->end) return ts_json_fail(j, "ends too early");
    char c = *j->at++;
    if (c == 'u') return unicode_escape(j, to);
    const char *known = c ? strchr(from, c) : NULL;
    if (!known) return ts_json_fail(j, "has an unknown escape");
    *(*to)++ = into[known - from];
    return true;
}

bool ts_json_string(ts_json *j, char **out, size_t *length)
{
    if (!ts_json_expect(j, '"')) return false;
    char *start = j->at, *to = j->at;
    while (j->at < j->end) {
        char c = *j->at++;
        if (c == '"') {
            *to = 0; /* at the closing quote or before it */
            *out = start;
            *length = (size_t)(to - start);
            return true;
        }
        if ((unsigned char)c < 0x20) return ts_json_fail(j, "has a control character in a string");
        if (c != '\\') *to++ = c;
        else if (!escape(j, &to)) return false;
    }
    return ts_json_fail(j, "ends inside a string");
}

bool ts_json_uint(ts_json *j, uint64_t *out)
{
    uint64_t v = 0;
    char c = ts_json_peek(j);
    if (j->problem) return false;
    if (c == '-') return ts_json_fail(j, "has a negative number where a size belongs");
    if (c < '0' || c > '9')
        return ts_json_fail(j, "has something else where a whole number belongs");
    for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++) {
        uint64_t digit = (uint64_t)(*j->at - '0');
        if (v > (INT64_MAX - digit) / 10) return ts_json_fail(j, "has a number above 2^63");
        v = v * 10 + digit;
    }
    if (j->at < j->end && (*j->at == '.' || *j->at == 'e' || *j->at == 'E'))
        return ts_json_fail(j, "has a fraction where a whole number belongs");
    *out = v;
    return true;
}

/* Numbers and the three words; what they mean does not matter to a reader that skips them. */
static bool skip_scalar(ts_json *j)
{
    char *start = j->at;
    while (j->at < j->end && *j->at && strchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", *j->at))
        j->at++;
    return j->at > start || ts_json_fail(j, "is not well-formed JSON");
}

static bool skip_at(ts_json *j, int depth)
{
    char *s;
    size_t n;
    char open = ts_json_peek(j);
    if (j->problem) return false;
    if (open == '"') return ts_json_string(j, &s, &n);
    if (open != '{' && open != '[') return skip_scalar(j);
    if (depth >= TS_JSON_DEPTH) return ts_json_fail(j, "is nested too deeply");
    j->at++;
    bool first = true;
    while (ts_json_next(j, open == '{' ? '}' : ']', &first)) {
        if (open == '{' && (!ts_json_string(j, &s, &n) || !ts_json_expect(j, ':'))) return false;
        if (!skip_at(j, depth + 1)) return false;
    }
    return !j->problem;
}

bool ts_json_skip(ts_json *j)
{
    return skip_at(j, 0);
}
