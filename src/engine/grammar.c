#include "engine/grammar_build.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void gb_fail(gb *b, fm_status code, const char *format, ...)
{
    if (b->status) return;
    b->status = code;
    if (!b->err) return;
    va_list args;
    va_start(args, format);
    b->err->code = code;
    vsnprintf(b->err->message, sizeof b->err->message, format, args);
    va_end(args);
}

/* Make room for one more element of `size` bytes; false sets the sticky error. */
static bool grow(gb *b, void **array, int count, int *capacity, size_t size, int limit)
{
    if (b->status) return false;
    if (count < *capacity) return true;
    if (count >= limit) {
        gb_fail(b, FM_E_LIMIT, "the schema is too large: it needs more than %d states", limit);
        return false;
    }
    int wanted = *capacity ? *capacity * 2 : 256;
    void *grown = bs_realloc(*array, (size_t)wanted, size);
    if (!grown) {
        gb_fail(b, FM_E_NOMEM, "out of memory while compiling a grammar");
        return false;
    }
    *array = grown;
    *capacity = wanted;
    return true;
}

int gb_state(gb *b)
{
    if (!grow(b, (void **)&b->first, b->n_states, &b->cap_states, sizeof *b->first, GB_MAX_STATES))
        return 0;
    b->first[b->n_states] = -1;
    return b->n_states++;
}

int gb_new_rule(gb *b)
{
    int start = gb_state(b), final = gb_state(b);
    if (!grow(b, (void **)&b->rules, b->n_rules, &b->cap_rules, sizeof *b->rules, GB_MAX_RULES))
        return 0;
    b->rules[b->n_rules] = (gb_rule){start, final};
    return b->n_rules++;
}

static void add_edge(gb *b, int from, gb_edge edge)
{
    if (!grow(b, (void **)&b->edges, b->n_edges, &b->cap_edges, sizeof *b->edges,
              4 * GB_MAX_STATES))
        return;
    edge.next = b->first[from];
    b->first[from] = b->n_edges;
    b->edges[b->n_edges++] = edge;
}

void gb_eps(gb *b, int from, int to)
{
    add_edge(b, from, (gb_edge){.kind = GB_EPS, .target = to});
}

void gb_bytes(gb *b, int from, int lo, int hi, int to)
{
    add_edge(b, from,
             (gb_edge){.kind = GB_BYTES, .lo = (uint8_t)lo, .hi = (uint8_t)hi, .target = to});
}

void gb_call(gb *b, int from, int rule, int to)
{
    add_edge(b, from, (gb_edge){.kind = GB_CALL, .rule = rule, .target = to});
}

void gb_repeat(gb *b, int from, int rule, int min, int max, int to)
{
    for (int i = 0; i < min; i++) {
        int next = gb_state(b);
        gb_call(b, from, rule, next);
        from = next;
    }
    if (max < 0) {
        int loop = gb_state(b);
        gb_eps(b, from, loop);
        gb_call(b, loop, rule, loop);
        gb_eps(b, loop, to);
        return;
    }
    for (int i = min; i < max; i++) {
        int next = gb_state(b);
        gb_eps(b, from, to);
        gb_call(b, from, rule, next);
        from = next;
    }
    gb_eps(b, from, to);
}

void gb_literal(gb *b, int from, const char *bytes, size_t n, int to)
{
    if (n == 0) gb_eps(b, from, to);
    for (size_t i = 0; i < n; i++) {
        int next = i + 1 == n ? to : gb_state(b);
        gb_bytes(b, from, (uint8_t)bytes[i], (uint8_t)bytes[i], next);
        from = next;
    }
}

/* --- Unicode ---------------------------------------------------------------------------------- */

static int utf8_encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* lo..hi have the same encoded length. Cut where the range is not a product of byte ranges. */
static void utf8_range(gb *b, int from, const uint8_t *lo, const uint8_t *hi, int n, int to)
{
    if (n == 1) {
        gb_bytes(b, from, lo[0], hi[0], to);
        return;
    }
    static const uint8_t least[3] = {0x80, 0x80, 0x80}, most[3] = {0xBF, 0xBF, 0xBF};
    if (lo[0] == hi[0]) {
        int next = gb_state(b);
        gb_bytes(b, from, lo[0], lo[0], next);
        utf8_range(b, next, lo + 1, hi + 1, n - 1, to);
        return;
    }
    int first = lo[0], last = hi[0];
    if (memcmp(lo + 1, least, (size_t)n - 1) != 0) {
        int next = gb_state(b);
        gb_bytes(b, from, first, first, next);
        utf8_range(b, next, lo + 1, most, n - 1, to);
        first++;
    }
    if (memcmp(hi + 1, most, (size_t)n - 1) != 0) {
        int next = gb_state(b);
        gb_bytes(b, from, last, last, next);
        utf8_range(b, next, least, hi + 1, n - 1, to);
        last--;
    }
    if (first <= last) {
        int next = gb_state(b);
        gb_bytes(b, from, first, last, next);
        utf8_range(b, next, least, most, n - 1, to);
    }
}

/* A control character, quote or backslash has to be escaped in JSON. */
static void escaped_codepoint(gb *b, int from, uint32_t c, int to)
{
    static const char from_c[] = "\"\\\b\f\n\r\t", to_c[] = "\"\\bfnrt";
    char text[8];
    const char *at = c ? strchr(from_c, (int)c) : NULL;
    if (at) snprintf(text, sizeof text, "\\%c", to_c[at - from_c]);
    else snprintf(text, sizeof text, "\\u%04x", (unsigned)c & 0xffff);
    gb_literal(b, from, text, strlen(text), to);
}

void gb_codepoints(gb *b, int from, uint32_t lo, uint32_t hi, bool json, int to)
{
    static const uint32_t cuts[][2] = {
        {0x00, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    if (json && lo < 1) lo = 1; /* \u0000 is refused by many parsers */
    if (json) {
        for (uint32_t c = lo; c <= hi && c < 0x80; c++)
            if (c < 0x20 || c == '"' || c == '\\') escaped_codepoint(b, from, c, to);
    }
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        uint32_t a = lo > cuts[i][0] ? lo : cuts[i][0], z = hi < cuts[i][1] ? hi : cuts[i][1];
        if (a > z) continue;
        if (i == 0 && json) {
            static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7F}};
            for (int k = 0; k < 3; k++) {
                uint32_t p = a > plain[k][0] ? a : plain[k][0];
                uint32_t q = z < plain[k][1] ? z : plain[k][1];
                if (p <= q) gb_bytes(b, from, (int)p, (int)q, to);
            }
            continue;
        }
        uint8_t low[4], high[4];
        int n = utf8_encode(a, low);
        utf8_encode(z, high);
        utf8_range(b, from, low, high, n, to);
    }
}

void gb_until(gb *b, int from, const char *marker, int to)
{
    int n = (int)strlen(marker);
    if (n == 0 || n > 64) {
        gb_fail(b, FM_E_ARGUMENT, "a marker must have 1 to 64 bytes");
        return;
    }
    int at[65];
    at[0] = gb_state(b);
    for (int i = 1; i < n; i++) at[i] = gb_state(b);
    at[n] = to;
    gb_eps(b, from, at[0]);
    for (int i = 0; i < n; i++)
        for (int c = 1; c < 256; c++) { /* Knuth-Morris-Pratt: the longest prefix that goes on */
            int k = i + 1;
            for (; k > 0; k--)
                if ((uint8_t)marker[k - 1] == c &&
                    !strncmp(marker, marker + i - k + 1, (size_t)k - 1))
                    break;
            gb_bytes(b, at[i], c, c, at[k]);
        }
}

/* --- the rules that all grammars share ---------------------------------------------------------
 */

static void build_ws(gb *b, int from, int to)
{
    gb_eps(b, from, to);
    gb_bytes(b, from, ' ', ' ', to);
    int line = gb_state(b);
    gb_bytes(b, from, '\n', '\n', line);
    for (int i = 0; i < 20; i++) {
        int next = gb_state(b);
        gb_eps(b, line, to);
        gb_bytes(b, line, ' ', ' ', next);
        line = next;
    }
    gb_eps(b, line, to);
}

static void hex_digits(gb *b, int from, const char *classes, int to)
{
    /* One letter a digit: x any, n not zero, d 0-7, c not D, s 8-B, l C-F; others literal. */
    for (; *classes; classes++) {
        int next = classes[1] ? gb_state(b) : to;
        switch (*classes) {
        case 'x':
            gb_bytes(b, from, '0', '9', next);
            gb_bytes(b, from, 'a', 'f', next);
            gb_bytes(b, from, 'A', 'F', next);
            break;
        case 'n':
            gb_bytes(b, from, '1', '9', next);
            gb_bytes(b, from, 'a', 'f', next);
            gb_bytes(b, from, 'A', 'F', next);
            break;
        case 'd': gb_bytes(b, from, '0', '7', next); break;
        case 'c':
            gb_bytes(b, from, '1', '9', next);
            gb_bytes(b, from, 'a', 'c', next);
            gb_bytes(b, from, 'e', 'f', next);
            gb_bytes(b, from, 'A', 'C', next);
            gb_bytes(b, from, 'E', 'F', next);
            break;
        case 'D':
            gb_bytes(b, from, 'd', 'd', next);
            gb_bytes(b, from, 'D', 'D', next);
            break;
        case 's':
            gb_bytes(b, from, '8', '9', next);
            gb_bytes(b, from, 'a', 'b', next);
            gb_bytes(b, from, 'A', 'B', next);
            break;
        case 'l':
            gb_bytes(b, from, 'c', 'f', next);
            gb_bytes(b, from, 'C', 'F', next);
            break;
        default: gb_bytes(b, from, (uint8_t)*classes, (uint8_t)*classes, next);
        }
        from = next;
    }
}

static void build_char(gb *b, int from, int to)
{
    gb_bytes(b, from, 0x20, 0x21, to);
    gb_bytes(b, from, 0x23, 0x5B, to);
    gb_bytes(b, from, 0x5D, 0x7F, to);
    gb_codepoints(b, from, 0x80, 0x10FFFF, false, to);
    int escape = gb_state(b), u = gb_state(b);
    gb_bytes(b, from, '\\', '\\', escape);
    for (const char *p = "\"\\/bfnrt"; *p; p++) gb_bytes(b, escape, *p, *p, to);
    gb_bytes(b, escape, 'u', 'u', u);
    /* Not U+0000 and no lone surrogate: strict parsers refuse both. */
    static const char *const codes[] = {"cxxx", "0nxx", "00nx", "000n", "Ddxx", "Dsxx\\uDlxx"};
    for (int i = 0; i < 6; i++) hex_digits(b, u, codes[i], to);
}

static void build_digits(gb *b, int from, int least, int most, int to)
{
    for (int i = 0; i < most; i++) {
        int next = gb_state(b);
        if (i >= least) gb_eps(b, from, to);
        gb_bytes(b, from, '0', '9', next);
        from = next;
    }
    gb_eps(b, from, to);
}

static void build_integer(gb *b, int from, int to)
{
    int digits = gb_state(b), more = gb_state(b);
    gb_eps(b, from, digits);
    gb_bytes(b, from, '-', '-', digits);
    gb_bytes(b, digits, '0', '0', to);
    gb_bytes(b, digits, '1', '9', more);
    build_digits(b, more, 0, 14, to); /* 15 digits are exact in a double and fit every parser */
}

static void build_number(gb *b, int from, int to)
{
    int whole = gb_state(b), point = gb_state(b), fraction = gb_state(b);
    int exponent = gb_state(b), sign = gb_state(b);
    gb_builtin_call(b, from, GB_INTEGER, whole);
    gb_eps(b, whole, fraction);
    gb_bytes(b, whole, '.', '.', point);
    build_digits(b, point, 1, 15, fraction);
    gb_eps(b, fraction, to);
    gb_bytes(b, fraction, 'e', 'e', exponent);
    gb_bytes(b, fraction, 'E', 'E', exponent);
    gb_eps(b, exponent, sign);
    gb_bytes(b, exponent, '+', '+', sign);
    gb_bytes(b, exponent, '-', '-', sign);
    build_digits(b, sign, 1, 2, to);
}

static void build_string(gb *b, int from, int to)
{
    int inside = gb_state(b);
    gb_bytes(b, from, '"', '"', inside);
    gb_builtin_call(b, inside, GB_CHAR, inside);
    gb_bytes(b, inside, '"', '"', to);
}

static void build_value(gb *b, int from, int to)
{
    static const gb_builtin kinds[] = {GB_STRING, GB_NUMBER, GB_OBJECT, GB_ARRAY};
    for (int i = 0; i < 4; i++) gb_builtin_call(b, from, kinds[i], to);
    gb_literal(b, from, "true", 4, to);
    gb_literal(b, from, "false", 5, to);
    gb_literal(b, from, "null", 4, to);
}

/* '{' ws [ member (',' ws member)* ] ws '}', and the same for arrays without the key. */
static void build_container(gb *b, int from, bool object, int to)
{
    int open = gb_state(b), first = gb_state(b), after = gb_state(b), comma = gb_state(b);
    int close = gb_state(b), value = gb_state(b);
    gb_bytes(b, from, object ? '{' : '[', object ? '{' : '[', open);
    gb_builtin_call(b, open, GB_WS, first);
    gb_bytes(b, first, object ? '}' : ']', object ? '}' : ']', to);
    if (object) {
        int key = gb_state(b), colon = gb_state(b);
        gb_builtin_call(b, first, GB_STRING, key);
        gb_bytes(b, key, ':', ':', colon);
        gb_builtin_call(b, colon, GB_WS, value);
    } else {
        gb_eps(b, first, value);
    }
    gb_builtin_call(b, value, GB_VALUE, after);
    gb_bytes(b, after, ',', ',', comma);
    /* After a comma a value must follow, so the way back skips the closing bracket. */
    int again = gb_state(b);
    gb_builtin_call(b, comma, GB_WS, again);
    if (object) {
        int key = gb_state(b), colon = gb_state(b);
        gb_builtin_call(b, again, GB_STRING, key);
        gb_bytes(b, key, ':', ':', colon);
        gb_builtin_call(b, colon, GB_WS, value);
    } else {
        gb_eps(b, again, value);
    }
    gb_builtin_call(b, after, GB_WS, close);
    gb_bytes(b, close, object ? '}' : ']', object ? '}' : ']', to);
}

int gb_builtin_rule(gb *b, gb_builtin which)
{
    if (b->builtin[which]) return b->builtin[which] - 1;
    int rule = gb_new_rule(b);
    if (b->status) return 0;
    b->builtin[which] = rule + 1;
    int from = b->rules[rule].start, to = b->rules[rule].final;
    switch (which) {
    case GB_WS: build_ws(b, from, to); break;
    case GB_CHAR: build_char(b, from, to); break;
    case GB_UTF8: gb_codepoints(b, from, 1, 0x10FFFF, false, to); break;
    case GB_STRING: build_string(b, from, to); break;
    case GB_INTEGER: build_integer(b, from, to); break;
    case GB_NUMBER: build_number(b, from, to); break;
    case GB_VALUE: build_value(b, from, to); break;
    case GB_OBJECT: build_container(b, from, true, to); break;
    case GB_ARRAY: build_container(b, from, false, to); break;
    case GB_BUILTINS: break;
    }
    return rule;
}

void gb_builtin_call(gb *b, int from, gb_builtin which, int to)
{
    gb_call(b, from, gb_builtin_rule(b, which), to);
}
