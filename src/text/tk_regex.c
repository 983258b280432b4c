/* Patterns in tokenizer.json are written for Oniguruma with Ruby's syntax. They run on PCRE2, after
 * a translation of what differs:
 *   \s \S    White_Space (PCRE2's takes U+180E too)
 *   \w \W    letters, marks, decimal and letter numbers, connectors; \b and \B likewise
 *   \h \H    a hexadecimal digit
 *   \p{Han}  the script, not its extensions
 *   (?m)     dot matches newline; ^ and $ are always line anchors
 *   x{n,m}+  a repeated repetition, not a possessive one
 *   [a[bc]]  nested sets, and [a&&[^b]] intersections */
#include "base/mem.h"
#include "text/tk.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define SPACES                                                                                     \
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define NOT_SPACES                                                                                 \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
    "1fff}"                                                                                        \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{"   \
    "10ffff}"
#define WORDS                                                                                      \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{"     \
    "1f169}"                                                                                       \
    "\\x{1f170}-\\x{1f189}"

enum { MAX_NESTING = 32, MAX_PATTERN = 1 << 16 };

struct tk_regex {
    pcre2_code *code;
    bool jit;
};

typedef struct translator {
    const char *p, *end;
    bs_buf *out;
    size_t atom;               /* where the last atom starts in out */
    size_t group[MAX_NESTING]; /* where open groups start in out */
    int depth;
    bool ok;
} translator;

/* Outside of a set Oniguruma also counts the superscripts and fractions of Latin-1 as letters. */
#define LONE_WORDS WORDS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define EDGE(after, else_after)                                                                    \
    "(?:(?<=[" LONE_WORDS "])(?" after "[" LONE_WORDS "])|(?<![" LONE_WORDS "])(?" else_after      \
    "[" LONE_WORDS "]))"

static void put(translator *t, const char *s)
{
    bs_buf_puts(t->out, s);
}

/* PCRE2 takes a script's name for its script extensions, and has no long names for categories. */
static void property(translator *t, char letter)
{
    static const char *const names[] = {"Letter=L",
                                        "Lowercase_Letter=Ll",
                                        "Uppercase_Letter=Lu",
                                        "Mark=M",
                                        "Decimal_Number=Nd",
                                        "Number=N",
                                        "Punctuation=P",
                                        "Symbol=S",
                                        "Separator=Z",
                                        "Other=C"};
    char name[40], script[48];
    size_t n = 0, at = 1, not_it = t->end - t->p > 1 && t->p[1] == '^';
    for (at += not_it; t->p + at < t->end && t->p[at] != '}' && n < sizeof name - 1; at++)
        name[n++] = t->p[at];
    name[n] = 0;
    if (t->p + at >= t->end || t->p[at] != '}') {
        t->ok = false;
        return;
    }
    t->p += at + 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strncmp(names[i], name, n) && names[i][n] == '=') strcpy(name, names[i] + n + 1);
    snprintf(script, sizeof script, "\\p{sc:%s}", name);
    int code;
    PCRE2_SIZE where;
    pcre2_code *known = pcre2_compile((PCRE2_SPTR)script, PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
    pcre2_code_free(known);
    bs_buf_putc(t->out, '\\');
    bs_buf_putc(t->out, letter);
    put(t, not_it ? "{^" : "{");
    put(t, known ? "sc:" : "");
    put(t, name);
    put(t, "}");
}

/* Copy the escape at p (a backslash and what belongs to it), translated. */
static void escape(translator *t, bool in_set)
{
    char c = t->p + 1 < t->end ? t->p[1] : 0;
    const char *words = in_set ? WORDS : LONE_WORDS;
    const char *set = c == 's' ? SPACES : c == 'h' ? "0-9a-fA-F" : c == 'w' ? words : NULL;
    const char *negated = c == 'S' ? SPACES : c == 'H' ? "0-9a-fA-F" : c == 'W' ? words : NULL;
    t->p += 2;
    if (set) {
        if (!in_set) put(t, "[");
        put(t, set);
        if (!in_set) put(t, "]");
    } else if (negated && !in_set) {
        put(t, "[^");
        put(t, negated);
        put(t, "]");
    } else if (c == 'S') put(t, NOT_SPACES);
    else if ((c == 'b' || c == 'B') && !in_set) put(t, c == 'b' ? EDGE("!", "=") : EDGE("=", "!"));
    else if ((c == 'p' || c == 'P') && t->p < t->end && *t->p == '{') property(t, c);
    else if (c == 'W' || c == 'H' || !c)
        t->ok = false; /* [\W] has no short form, and nobody uses it */
    else {
        bs_buf_append(t->out, t->p - 2, 2);
        bool braces =
            (c == 'x' || c == 'u' || c == 'k' || c == 'g') && t->p < t->end && *t->p == '{';
        while (braces && t->p < t->end) {
            bs_buf_putc(t->out, *t->p);
            if (*t->p++ == '}') break;
        }
    }
}

static void set_body(translator *t, int depth);

/* t->p stands on '['. An intersection [A&&[^B]] becomes (?:(?=[^B])[A]), which is one character
 * as well; elsewhere than as the last thing of an outermost set it is refused. */
static void set(translator *t, int depth)
{
    size_t start = t->out->length;
    t->p++;
    put(t, "[");
    if (t->p < t->end && *t->p == '^') {
        put(t, "^");
        t->p++;
    }
    if (t->p < t->end && *t->p == ']') {
        put(t, "\\]");
        t->p++;
    }
    set_body(t, depth);
    put(t, "]");
    while (t->ok && t->end - t->p > 2 && t->p[0] == '&' && t->p[1] == '&' && t->p[2] == '[') {
        if (depth) {
            t->ok = false;
            return;
        }
        bs_buf left = {0};
        bs_buf_append(&left, t->out->data + start, t->out->length - start);
        t->out->length = start;
        put(t, "(?:(?=");
        t->p += 2;
        set(t, 1);
        put(t, ")");
        bs_buf_append(t->out, left.data ? left.data : "", left.length);
        put(t, ")");
        t->ok = t->ok && !left.failed;
        bs_buf_free(&left);
        set_body(t, depth); /* what follows up to the closing bracket must be empty */
    }
    if (t->p < t->end && *t->p == ']') t->p++;
    else t->ok = false;
}

/* Up to, and not past, the closing bracket or '&&'. */
static void set_body(translator *t, int depth)
{
    while (t->ok && t->p < t->end && *t->p != ']') {
        if (t->end - t->p > 1 && t->p[0] == '&' && t->p[1] == '&') return;
        if (*t->p == '\\') escape(t, true);
        else if (*t->p == '[' && t->end - t->p > 1 && t->p[1] == ':') {
            const char *close = memchr(t->p, ']', (size_t)(t->end - t->p));
            if (!close) t->ok = false;
            else if (t->end - t->p > 8 && !memcmp(t->p, "[:space:]", 9)) put(t, SPACES), t->p += 9;
            else bs_buf_append(t->out, t->p, (size_t)(close + 1 - t->p)), t->p = close + 1;
        } else if (*t->p == '[') { /* a union: its members join ours, unless it is negated */
            if (depth >= MAX_NESTING || (t->end - t->p > 1 && t->p[1] == '^')) t->ok = false;
            t->p++;
            set_body(t, depth + 1);
            if (t->p < t->end && *t->p == ']') t->p++;
            else t->ok = false;
        } else bs_buf_putc(t->out, *t->p++);
    }
}

/* "{2}+" repeats the repetition. */
static void braces(translator *t)
{
    const char *close = memchr(t->p, '}', (size_t)(t->end - t->p));
    bool interval =
        close && close > t->p + 1 && strspn(t->p + 1, "0123456789,") == (size_t)(close - t->p - 1);
    if (!interval) {
        put(t, "\\{");
        t->p++;
        return;
    }
    bs_buf_append(t->out, t->p, (size_t)(close + 1 - t->p));
    t->p = close + 1;
    if (t->p == t->end || *t->p != '+') return;
    bs_buf atom = {0};
    bs_buf_append(&atom, t->out->data + t->atom, t->out->length - t->atom);
    t->out->length = t->atom;
    put(t, "(?:");
    bs_buf_append(t->out, atom.data ? atom.data : "", atom.length);
    put(t, ")+");
    t->ok = t->ok && !atom.failed;
    bs_buf_free(&atom);
    t->p++;
}

static void group_open(translator *t)
{
    if (t->depth == MAX_NESTING) {
        t->ok = false;
        return;
    }
    t->group[t->depth++] = t->out->length;
    put(t, "(");
    if (++t->p == t->end || *t->p != '?') return;
    put(t, "?");
    t->p++;
    while (t->p < t->end && strchr("imx-", *t->p)) {
        bs_buf_putc(t->out, *t->p == 'm' ? 's' : *t->p);
        t->p++;
    }
    while (t->p < t->end && strchr("<=!:>", *t->p)) bs_buf_putc(t->out, *t->p++);
}

bool tk_regex_translate(const char *pattern, size_t n, bs_buf *out)
{
    translator t = {.p = pattern, .end = pattern + n, .out = out, .ok = n <= MAX_PATTERN};
    while (t.ok && t.p < t.end) {
        switch (*t.p) {
        case '\\':
            t.atom = out->length;
            escape(&t, false);
            break;
        case '[':
            t.atom = out->length;
            set(&t, 0);
            break;
        case '(': group_open(&t); break;
        case ')':
            if (t.depth) t.atom = t.group[--t.depth];
            else t.ok = false;
            bs_buf_putc(out, *t.p++);
            break;
        case '{': braces(&t); break;
        case '*':
        case '+':
        case '?':
        case '|': bs_buf_putc(out, *t.p++); break;
        default:
            t.atom = out->length;
            do bs_buf_putc(out, *t.p++);
            while (t.p < t.end && ((unsigned char)*t.p & 0xC0) == 0x80);
        }
    }
    return t.ok && !out->failed;
}

fm_status tk_regex_compile(const char *pattern, size_t n, tk_regex **out, fm_error *err)
{
    bs_buf text = {0};
    int code = 0;
    PCRE2_SIZE at = 0;
    tk_regex *r = bs_calloc(1, sizeof *r);
    bool ok = r && tk_regex_translate(pattern, n, &text);
    if (!r || text.failed) {
        bs_free(r);
        bs_buf_free(&text);
        return fm_fail_nomem(err, "reading a pattern");
    }
    if (ok)
        r->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.length,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK |
                                    PCRE2_NEVER_BACKSLASH_C,
                                &code, &at, NULL);
    bs_buf_free(&text);
    if (!r->code) {
        PCRE2_UCHAR why[120] = "it uses what Oniguruma alone knows";
        if (ok) pcre2_get_error_message(code, why, sizeof why);
        bs_free(r);
        return fm_fail(err, FM_E_UNSUPPORTED, "the pattern %.*s: %s", (int)(n < 200 ? n : 200),
                       pattern, (const char *)why);
    }
    r->jit = !pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);
    *out = r;
    return FM_OK;
}

void tk_regex_free(tk_regex *r)
{
    if (r) pcre2_code_free(r->code);
    bs_free(r);
}

static bool make_state(const tk_regex *r, tk_regex_state *state)
{
    state->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    state->context = pcre2_match_context_create(NULL);
    state->stack = pcre2_jit_stack_create(32 * 1024, 1024 * 1024, NULL);
    if (!state->match || !state->context || !state->stack) return false;
    pcre2_set_match_limit(state->context, 10 * 1000 * 1000);
    pcre2_set_heap_limit(state->context, 64 * 1024);
    pcre2_jit_stack_assign(state->context, NULL, state->stack);
    return true;
}

fm_status tk_regex_find(const tk_regex *r, tk_regex_state *state, const char *s, size_t n,
                        size_t at, bool *found, size_t *start, size_t *end, fm_error *err)
{
    if (!state->match && !make_state(r, state)) return fm_fail_nomem(err, "matching a pattern");
    int rc = pcre2_match(r->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, state->match,
                         state->context);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH) return FM_OK;
    if (rc < 0)
        return fm_fail(
            err, rc == PCRE2_ERROR_NOMEMORY ? FM_E_NOMEM : FM_E_LIMIT,
            "the tokenizer's pattern takes too long or too deep on this text (PCRE2 error %d)", rc);
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(state->match);
    *start = ends[0];
    *end = ends[1];
    return FM_OK;
}

void tk_regex_state_free(tk_regex_state *state)
{
    pcre2_match_data_free(state->match);
    pcre2_match_context_free(state->context);
    pcre2_jit_stack_free(state->stack);
    memset(state, 0, sizeof *state);
}
