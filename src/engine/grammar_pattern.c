/* grammar_pattern.c - the regular expressions of JSON Schema's "pattern", as far as an automaton
 * can follow them: literals, classes, groups, alternatives, repetition, anchors at the ends.
 * Look-around, back references and word boundaries are refused by name.
 *
 * A parsed piece is built straight into the automaton between two states; a repeated piece is a
 * rule of its own, called as often as needed. */
#include "engine/grammar_build.h"

#include "base/mem.h"

#include <string.h>

enum { MAX_DEPTH = 50, MAX_REPEAT = 2000, MAX_RANGES = 512 };

typedef struct parser {
    gb *b;
    const char *p, *end;
    const char *where;
    int depth;
} parser;

static void alternatives(parser *s, int from, int to);

static void refuse(parser *s, const char *what)
{
    gb_fail(s->b, FM_E_UNSUPPORTED, "%s/pattern: %s is not supported", s->where, what);
}

static void malformed(parser *s, const char *what)
{
    gb_fail(s->b, FM_E_FORMAT, "%s/pattern: %s", s->where, what);
}

/* --- sets of code points ------------------------------------------------------------------------
 */

typedef struct set {
    uint32_t lo[MAX_RANGES], hi[MAX_RANGES];
    int n;
} set;

static void set_add(parser *s, set *x, uint32_t lo, uint32_t hi)
{
    if (lo > hi) {
        malformed(s, "a class range is reversed");
    } else if (x->n == MAX_RANGES) {
        refuse(s, "a class of so many ranges");
    } else {
        x->lo[x->n] = lo;
        x->hi[x->n++] = hi;
    }
}

static void set_add_class(parser *s, set *x, char letter)
{
    static const struct {
        char letter;
        uint32_t r[8];
    } classes[] = {
        {'d', {'0', '9', 1, 0}},
        {'D', {1, '0' - 1, '9' + 1, 0x10FFFF, 1, 0}},
        {'w', {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}},
        {'s', {'\t', '\r', ' ', ' ', 1, 0}},
        {'S', {1, 8, 14, 31, 33, 0x10FFFF, 1, 0}},
    };
    if (letter == 'W') {
        set_add(s, x, 1, '0' - 1);
        set_add(s, x, '9' + 1, 'A' - 1);
        set_add(s, x, 'Z' + 1, '_' - 1);
        set_add(s, x, '`', '`');
        set_add(s, x, 'z' + 1, 0x10FFFF);
        return;
    }
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (classes[i].letter == letter)
            for (int k = 0; k < 8 && classes[i].r[k] <= classes[i].r[k + 1]; k += 2)
                set_add(s, x, classes[i].r[k], classes[i].r[k + 1]);
}

static void set_invert(parser *s, set *x)
{
    set out = {.n = 0};
    uint32_t next = 1;
    for (;;) { /* the lowest range that reaches beyond what is covered */
        int best = -1;
        for (int i = 0; i < x->n; i++)
            if (x->hi[i] >= next && (best < 0 || x->lo[i] < x->lo[best])) best = i;
        if (best < 0) break;
        if (x->lo[best] > next) set_add(s, &out, next, x->lo[best] - 1);
        next = x->hi[best] + 1;
    }
    if (next <= 0x10FFFF) set_add(s, &out, next, 0x10FFFF);
    *x = out;
}

static void set_build(parser *s, const set *x, int from, int to)
{
    for (int i = 0; i < x->n; i++) gb_codepoints(s->b, from, x->lo[i], x->hi[i], true, to);
}

/* --- characters ---------------------------------------------------------------------------------
 */

static uint32_t literal(parser *s)
{
    uint8_t c = (uint8_t)*s->p++;
    int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : c >= 0xC0 ? 1 : 0;
    uint32_t code = more == 3 ? c & 7 : more == 2 ? c & 15 : more == 1 ? c & 31 : c;
    for (; more > 0 && s->p < s->end; more--) code = code << 6 | ((uint8_t)*s->p++ & 63);
    return code;
}

static uint32_t hex(parser *s, int digits)
{
    uint32_t code = 0;
    for (int i = 0; i < digits; i++) {
        char c = s->p < s->end ? *s->p++ : 0;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0) {
            malformed(s, "bad hexadecimal escape");
            return 0;
        }
        code = code << 4 | (uint32_t)v;
    }
    return code;
}

/* After a backslash. A class goes into *x; a single character is also returned in *one. */
static void escape(parser *s, set *x, uint32_t *one)
{
    static const char from[] = "nrtfv", to[] = "\n\r\t\f\v";
    *one = UINT32_MAX;
    if (s->p == s->end) {
        malformed(s, "ends with a backslash");
        return;
    }
    char c = *s->p;
    const char *control = c ? strchr(from, c) : NULL;
    if (c && strchr("dDwWsS", c)) {
        s->p++;
        set_add_class(s, x, c);
        return;
    }
    if ((c >= '1' && c <= '9') || c == 'k') {
        refuse(s, "a back reference");
    } else if (c == 'b' || c == 'B') {
        refuse(s, "a word boundary");
    } else if (c == 'p' || c == 'P') {
        refuse(s, "a Unicode property");
    } else if (control) {
        s->p++;
        *one = (uint8_t)to[control - from];
    } else if (c == 'u' || c == 'x') {
        s->p++;
        *one = hex(s, c == 'u' ? 4 : 2);
    } else {
        *one = literal(s);
    }
    if (*one != UINT32_MAX) set_add(s, x, *one, *one);
}

static void class(parser *s, int from, int to)
{
    set *x = bs_calloc(1, sizeof *x);
    if (!x) {
        gb_fail(s->b, FM_E_NOMEM, "out of memory while compiling a pattern");
        return;
    }
    bool invert = s->p < s->end && *s->p == '^';
    if (invert) s->p++;
    while (!s->b->status && s->p < s->end && *s->p != ']') {
        uint32_t lo, hi;
        if (*s->p == '\\') {
            s->p++;
            escape(s, x, &lo);
        } else {
            lo = literal(s);
            set_add(s, x, lo, lo);
        }
        bool range = s->p + 1 < s->end && s->p[0] == '-' && s->p[1] != ']';
        if (!range || lo == UINT32_MAX) continue;
        s->p++;
        if (*s->p == '\\') {
            s->p++;
            escape(s, x, &hi);
        } else {
            hi = literal(s);
        }
        if (hi != UINT32_MAX) set_add(s, x, lo, hi);
    }
    if (s->p == s->end) malformed(s, "a class is not closed");
    else s->p++;
    if (invert) set_invert(s, x);
    if (!s->b->status) set_build(s, x, from, to);
    bs_free(x);
}

/* --- pieces -------------------------------------------------------------------------------------
 */

static void group(parser *s, int from, int to)
{
    if (s->p < s->end && *s->p == '?') {
        if (s->p + 1 < s->end && s->p[1] == ':') s->p += 2;
        else refuse(s, "look-around or a named group");
    }
    alternatives(s, from, to);
    if (s->p < s->end && *s->p == ')') s->p++;
    else malformed(s, "a group is not closed");
}

static void atom(parser *s, int from, int to)
{
    set x = {.n = 0};
    uint32_t one;
    char c = *s->p++;
    switch (c) {
    case '(': group(s, from, to); return;
    case '[': class(s, from, to); return;
    case '.':
        set_add(s, &x, 1, '\n' - 1);
        set_add(s, &x, '\n' + 1, 0x10FFFF);
        break;
    case '\\': escape(s, &x, &one); break;
    case '*':
    case '+':
    case '?': malformed(s, "nothing to repeat"); return;
    case '^':
    case '$': refuse(s, "an anchor inside"); return;
    default:
        s->p--;
        one = literal(s);
        set_add(s, &x, one, one);
    }
    set_build(s, &x, from, to);
}

static bool number(parser *s, int *out)
{
    const char *start = s->p;
    long v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if ((v = v * 10 + (*s->p - '0')) > MAX_REPEAT) v = MAX_REPEAT + 1;
    *out = (int)v;
    return s->p > start;
}

/* {n}, {n,}, {n,m}; anything else is a literal brace. max -1: no limit. */
static bool counted(parser *s, int *min, int *max)
{
    const char *start = s->p++;
    if (number(s, min)) {
        *max = *min;
        if (s->p < s->end && *s->p == ',') {
            s->p++;
            if (!number(s, max)) *max = -1;
        }
        if (s->p < s->end && *s->p == '}') {
            s->p++;
            if (*min > MAX_REPEAT || *max > MAX_REPEAT) refuse(s, "so large a repetition");
            if (*max >= 0 && *max < *min) malformed(s, "a repetition is reversed");
            return true;
        }
    }
    s->p = start;
    return false;
}

static bool quantifier(parser *s, int *min, int *max)
{
    if (s->p == s->end) return false;
    *min = 0;
    *max = -1;
    switch (*s->p) {
    case '*': s->p++; break;
    case '+':
        s->p++;
        *min = 1;
        break;
    case '?':
        s->p++;
        *max = 1;
        break;
    case '{':
        if (!counted(s, min, max)) return false;
        break;
    default: return false;
    }
    if (s->p < s->end && *s->p == '?') s->p++; /* lazy: the same language */
    return true;
}

/* Each atom is built as a rule, since a quantifier is seen only after it. A repeated piece that can
 * be empty would loop for ever: the finishing check does not count such loops as content, so the
 * matcher's sets of states, where each stands once, end them. */
static void sequence(parser *s, int from, int to)
{
    while (!s->b->status && s->p < s->end && *s->p != '|' && *s->p != ')') {
        if (*s->p == '$' && s->p + 1 == s->end) break;
        int rule = gb_new_rule(s->b), next = gb_state(s->b), min, max;
        if (s->b->status) return;
        atom(s, s->b->rules[rule].start, s->b->rules[rule].final);
        if (quantifier(s, &min, &max)) gb_repeat(s->b, from, rule, min, max, next);
        else gb_call(s->b, from, rule, next);
        from = next;
    }
    gb_eps(s->b, from, to);
}

static void alternatives(parser *s, int from, int to)
{
    if (++s->depth > MAX_DEPTH) refuse(s, "nesting so deep");
    while (!s->b->status) {
        sequence(s, from, to);
        if (s->p == s->end || *s->p != '|') break;
        s->p++;
    }
    s->depth--;
}

void gb_pattern(gb *b, int from, const char *pattern, const char *where, int to)
{
    parser s = {.b = b, .p = pattern, .end = pattern + strlen(pattern), .where = where};
    bool top_level_choice = false;
    int depth = 0;
    for (const char *p = s.p; p < s.end; p++) {
        if (*p == '\\' && p + 1 < s.end) p++;
        else if (*p == '(' || *p == '[') depth++;
        else if (*p == ')' || *p == ']') depth--;
        else if (*p == '|' && depth == 0) top_level_choice = true;
    }
    bool starts = s.p < s.end && *s.p == '^';
    bool stops = s.end - s.p >= 1 && s.end[-1] == '$' && (s.end - s.p < 2 || s.end[-2] != '\\');
    if (top_level_choice && (starts || stops)) {
        refuse(&s, "an anchor beside a top-level '|' (put the choice in a group)");
        return;
    }
    int begin = gb_state(b), end = gb_state(b);
    gb_eps(b, from, begin);
    if (starts) s.p++;
    else gb_builtin_call(b, begin, GB_CHAR, begin);
    alternatives(&s, begin, end);
    if (s.p < s.end && *s.p == '$') s.p++;
    if (!b->status && s.p != s.end) malformed(&s, "an unmatched ')'");
    if (!stops) gb_builtin_call(b, end, GB_CHAR, end);
    gb_eps(b, end, to);
}
