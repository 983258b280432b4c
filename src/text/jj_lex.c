/* From a template's source to tokens, white space control included. The rules are Jinja's:
 *   - "-" at a tag's edge removes all white space there, "+" keeps all of it;
 *   - otherwise a block's or comment's closing tag swallows one newline behind it (trim_blocks),
 * and the spaces between the start of its line and an opening one go (lstrip_blocks);
 *   - one newline at the end of the source is dropped, and all newlines are '\n'. */
#include "base/mem.h"
#include "text/jj.h"
#include "text/unicode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BRACKETS = 256 };

typedef struct lexer {
    tx_template *t;
    jj_tokens *out;
    fm_error *err;
    const char *p, *end;
    const char *counted; /* lines are counted up to here */
    int line;
    bool line_starting; /* what was read last ended with a newline, or nothing was read yet */
    char brackets[MAX_BRACKETS];
    int n_brackets;
} lexer;

fm_status jj_syntax(const tx_template *t, int line, fm_error *err, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fm_fail(err, FM_E_FORMAT, "%s, line %d: %s", t->name, line, text);
}

bool jj_py_space(uint32_t c)
{
    return (c >= 0x1C && c <= 0x1F) || tx_is_space(c);
}

static int line_at(lexer *l, const char *p)
{
    for (; l->counted < p; l->counted++) l->line += *l->counted == '\n';
    return l->line;
}

static fm_status no_memory(lexer *l)
{
    return fm_fail_nomem(l->err, "reading a template");
}

static const char *copy(lexer *l, const char *s, size_t n)
{
    char *text = jj_arena_get(&l->t->arena, n + 1);
    if (text) memcpy(text, s, n);
    return text;
}

static fm_status push(lexer *l, jj_token token)
{
    if (l->out->n == l->out->capacity) {
        size_t capacity = l->out->capacity ? l->out->capacity * 2 : 256;
        jj_token *items = bs_realloc(l->out->items, capacity, sizeof *items);
        if (!items) return no_memory(l);
        l->out->items = items;
        l->out->capacity = capacity;
    }
    l->out->items[l->out->n++] = token;
    return FM_OK;
}

static const char *skip_space(const char *p, const char *end)
{
    int k;
    while (p < end && jj_py_space(tx_utf8_get(p, &k))) p += k;
    return p;
}

static const char *strip_right(const char *start, const char *end)
{
    while (end > start) {
        const char *last = end - 1;
        int k;
        while (last > start && ((unsigned char)*last & 0xC0) == 0x80) last--;
        if (!jj_py_space(tx_utf8_get(last, &k))) break;
        end = last;
    }
    return end;
}

static fm_status push_data(lexer *l, const char *from, const char *to)
{
    if (from == to) return FM_OK;
    const char *text = copy(l, from, (size_t)(to - from));
    if (!text) return no_memory(l);
    return push(
        l, (jj_token){
               .type = JJT_DATA, .line = line_at(l, from), .text = text, .n = (size_t)(to - from)});
}

/* The end of the data from..to in front of a tag whose sign is given. */
static const char *data_end(const lexer *l, const char *from, const char *to, char sign,
                            bool variable)
{
    if (sign == '-') return strip_right(from, to);
    if (sign == '+' || variable) return to;
    const char *start = to;
    while (start > from && start[-1] != '\n') start--;
    if (start == from && !l->line_starting) return to;
    return skip_space(start, to) == to ? start : to;
}

/* Behind a tag's closing mark ("%}" at p): what its sign or trim_blocks swallow. */
static void after_tag(lexer *l, const char *p, char sign, bool trim)
{
    const char *q = p;
    if (sign == '-') q = skip_space(p, l->end);
    else if (sign != '+' && trim && p < l->end && *p == '\n') q++;
    l->line_starting = q > p && q[-1] == '\n';
    l->p = q;
}

/* Does `{% SIGN word SIGN %}` stand at p? *close gets the place behind it, *sign its closing sign.
 */
static bool is_word_tag(const lexer *l, const char *p, const char *word, char *open, char *sign,
                        const char **close)
{
    size_t n = strlen(word);
    if (l->end - p < 2 || p[0] != '{' || p[1] != '%') return false;
    p += 2;
    *open = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
    p = skip_space(p, l->end);
    if ((size_t)(l->end - p) < n || memcmp(p, word, n)) return false;
    p = skip_space(p + n, l->end);
    *sign = p < l->end && (*p == '-' || *p == '+') ? *p++ : 0;
    if (l->end - p < 2 || p[0] != '%' || p[1] != '}') return false;
    *close = p + 2;
    return true;
}

static fm_status comment(lexer *l, const char *open, const char *start)
{
    const char *p = start;
    for (; l->end - p >= 2; p++)
        if (p[0] == '#' && p[1] == '}') break;
    if (l->end - p < 2) return jj_syntax(l->t, line_at(l, open), l->err, "a comment is not closed");
    char sign = p > start && (p[-1] == '-' || p[-1] == '+') ? p[-1] : 0;
    after_tag(l, p + 2, sign, true);
    return FM_OK;
}

static fm_status raw(lexer *l, const char *open, const char *from, char sign)
{
    const char *p = sign == '-' ? skip_space(from, l->end) : from, *start = p, *close;
    char before, after;
    l->line_starting = p > from && p[-1] == '\n';
    for (; p < l->end; p++)
        if (*p == '{' && is_word_tag(l, p, "endraw", &before, &after, &close)) break;
    if (p == l->end) return jj_syntax(l->t, line_at(l, open), l->err, "a raw block is not closed");
    fm_status status = push_data(l, start, data_end(l, start, p, before, false));
    after_tag(l, close, after, true);
    return status;
}

/* --- inside a tag
 * ----------------------------------------------------------------------------------- */

static const struct {
    char text[3];
    jj_token_type type;
} operators[] = {
    {"//", JJT_FLOORDIV}, {"**", JJT_POW},   {"==", JJT_EQ},       {"!=", JJT_NE},
    {">=", JJT_GE},       {"<=", JJT_LE},    {"+", JJT_ADD},       {"-", JJT_SUB},
    {"*", JJT_MUL},       {"/", JJT_DIV},    {"%", JJT_MOD},       {"~", JJT_TILDE},
    {"<", JJT_LT},        {">", JJT_GT},     {"=", JJT_ASSIGN},    {".", JJT_DOT},
    {",", JJT_COMMA},     {":", JJT_COLON},  {";", JJT_SEMICOLON}, {"|", JJT_PIPE},
    {"(", JJT_LPAREN},    {")", JJT_RPAREN}, {"[", JJT_LBRACKET},  {"]", JJT_RBRACKET},
    {"{", JJT_LBRACE},    {"}", JJT_RBRACE},
};

static fm_status bracket(lexer *l, char c)
{
    static const char pairs[] = "()[]{}";
    const char *at = strchr(pairs, c);
    if (!at) return FM_OK;
    if ((at - pairs) % 2 == 0) {
        if (l->n_brackets == MAX_BRACKETS)
            return fm_fail(l->err, FM_E_LIMIT, "%s, line %d: too many open brackets", l->t->name,
                           line_at(l, l->p));
        l->brackets[l->n_brackets++] = at[1];
        return FM_OK;
    }
    if (!l->n_brackets || l->brackets[--l->n_brackets] != c)
        return jj_syntax(l->t, line_at(l, l->p), l->err, "unexpected '%c'", c);
    return FM_OK;
}

static fm_status operator_token(lexer *l)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        size_t n = strlen(operators[i].text);
        if ((size_t)(l->end - l->p) < n || memcmp(l->p, operators[i].text, n)) continue;
        fm_status status = n == 1 ? bracket(l, *l->p) : FM_OK;
        if (!status)
            status = push(l, (jj_token){.type = operators[i].type, .line = line_at(l, l->p)});
        l->p += n;
        return status;
    }
    return jj_syntax(l->t, line_at(l, l->p), l->err, "unexpected character '%.*s'",
                     tx_utf8_size((unsigned char)*l->p), l->p);
}

/* Digits with single underscores between them. */
static const char *digits(const char *p, const char *end, const char *set)
{
    while (p < end &&
           (strchr(set, *p) && *p ? true : *p == '_' && p + 1 < end && p[1] && strchr(set, p[1])))
        p++;
    return p;
}

static bool decimal(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

static fm_status number(lexer *l)
{
    static const char dec[] = "0123456789";
    const char *p = l->p, *end = l->end, *q;
    char text[400];
    size_t n = 0;
    int base = 10;
    bool is_float = false;
    if (*p == '0' && end - p > 2 && strchr("bBoOxX", p[1])) {
        base = (p[1] | 32) == 'b' ? 2 : (p[1] | 32) == 'o' ? 8 : 16;
        q = digits(p + 2, end,
                   base == 2   ? "01"
                   : base == 8 ? "01234567"
                               : "0123456789abcdefABCDEF");
        p += 2;
    } else {
        q = digits(p, end, dec);
        bool after_dot = l->out->n && l->out->items[l->out->n - 1].type == JJT_DOT;
        if (q < end && *q == '.' && decimal(q + 1, end) && !after_dot)
            q = digits(q + 1, end, dec), is_float = true;
        const char *e = q;
        if (e < end && (*e | 32) == 'e' && !after_dot) {
            e++;
            if (e < end && (*e == '+' || *e == '-')) e++;
            if (decimal(e, end)) q = digits(e, end, dec), is_float = true;
        }
    }
    for (; p < q; p++)
        if (*p != '_' && n < sizeof text - 1) text[n++] = *p;
    text[n] = 0;
    jj_token token = {.type = is_float ? JJT_FLOAT : JJT_INT, .line = line_at(l, l->p)};
    if (is_float) token.f = strtod(text, NULL);
    else {
        unsigned long long v = strtoull(text, NULL, base);
        if (v > INT64_MAX || n > 70)
            return jj_syntax(l->t, token.line, l->err, "an integer of more than 64 bits");
        token.i = (int64_t)v;
    }
    l->p = q;
    return push(l, token);
}

static bool hex_escape(const char **p, const char *end, int n, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++) {
        char c = *p < end ? **p : 0, low = (char)(c | 32);
        if (c >= '0' && c <= '9') v = v * 16 + (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f') v = v * 16 + (uint32_t)(low - 'a' + 10);
        else return false;
        ++*p;
    }
    *out = v;
    return v < 0x110000;
}

/* One escape of Python's unicode-escape at *p, behind the backslash. False: malformed. */
static bool escape(bs_buf *b, const char **p, const char *end)
{
    static const char names[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    char c = *(*p)++;
    const char *simple = c ? strchr(names, c) : NULL;
    uint32_t v = 0;
    if (simple) return bs_buf_putc(b, values[simple - names]);
    if (c == '\n') return true;
    if (c >= '0' && c <= '7') {
        v = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            v = v * 8 + (uint32_t)(*(*p)++ - '0');
        return tx_utf8_append(b, v);
    }
    int n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (!n) return bs_buf_putc(b, '\\') && bs_buf_putc(b, c);
    if (!hex_escape(p, end, n, &v)) return false;
    if (v >= 0xD800 && v < 0xE000) v = 0xFFFD; /* a lone surrogate has no UTF-8 */
    return tx_utf8_append(b, v);
}

static fm_status string(lexer *l)
{
    const char *p = l->p + 1;
    char quote = *l->p;
    int line = line_at(l, l->p);
    bs_buf text = {0};
    bool ok = true;
    while (ok && p < l->end && *p != quote) {
        if (*p == '\\' && p + 1 < l->end) {
            p++;
            ok = escape(&text, &p, l->end);
        } else bs_buf_putc(&text, *p++);
    }
    fm_status status = FM_OK;
    const char *copied = NULL;
    if (!ok && !text.failed)
        status = jj_syntax(l->t, line, l->err, "a malformed escape in a string");
    else if (p >= l->end) status = jj_syntax(l->t, line, l->err, "a string is not closed");
    else if (text.failed || !(copied = copy(l, text.data ? text.data : "", text.length)))
        status = no_memory(l);
    else
        status =
            push(l, (jj_token){.type = JJT_STRING, .line = line, .text = copied, .n = text.length});
    bs_buf_free(&text);
    l->p = p + 1;
    return status;
}

static bool name_char(uint32_t c, bool first)
{
    if (c < 0x80) return c == '_' || tx_ascii_class[c] & (first ? TX_L : TX_L | TX_N);
    return tx_is_word(c);
}

static fm_status name(lexer *l)
{
    const char *p = l->p;
    int k;
    while (p < l->end && name_char(tx_utf8_get(p, &k), false)) p += k;
    size_t n = (size_t)(p - l->p);
    const char *text = copy(l, l->p, n);
    if (!text) return no_memory(l);
    fm_status status =
        push(l, (jj_token){.type = JJT_NAME, .line = line_at(l, l->p), .text = text, .n = n});
    l->p = p;
    return status;
}

/* Is this the tag's end? Then it is passed. A closing mark inside brackets is none. */
static bool closes(lexer *l, bool variable)
{
    if (l->n_brackets) return false;
    const char *p = l->p, *mark = variable ? "}}" : "%}";
    char sign = *p == '-' || (*p == '+' && !variable) ? *p : 0;
    if (sign) p++;
    if (l->end - p < 2 || memcmp(p, mark, 2)) return false;
    after_tag(l, p + 2, sign, !variable);
    return true;
}

static fm_status tag(lexer *l, const char *open, bool variable)
{
    int line = line_at(l, open), k;
    fm_status status =
        push(l, (jj_token){.type = variable ? JJT_OPEN_VAR : JJT_OPEN_BLOCK, .line = line});
    l->n_brackets = 0;
    while (!status) {
        l->p = skip_space(l->p, l->end);
        if (l->p >= l->end) return jj_syntax(l->t, line, l->err, "a tag is not closed");
        if (closes(l, variable))
            return push(
                l, (jj_token){.type = variable ? JJT_CLOSE_VAR : JJT_CLOSE_BLOCK, .line = line});
        if (*l->p == '"' || *l->p == '\'') status = string(l);
        else if (decimal(l->p, l->end)) status = number(l);
        else if (name_char(tx_utf8_get(l->p, &k), true)) status = name(l);
        else status = operator_token(l);
    }
    return status;
}

/* Data up to the next tag, then the tag. */
static fm_status piece(lexer *l)
{
    const char *from = l->p, *p = from, *close;
    char open = 0, sign = 0;
    while (p < l->end &&
           !(*p == '{' && l->end - p > 1 && (p[1] == '{' || p[1] == '%' || p[1] == '#')))
        p++;
    if (p == l->end) {
        l->p = p;
        return push_data(l, from, p);
    }
    bool variable = p[1] == '{',
         is_raw = is_word_tag(l, p, "raw", &open, &sign, &close) && sign != '+';
    if (!is_raw) open = l->end - p > 2 && (p[2] == '-' || p[2] == '+') ? p[2] : 0;
    fm_status status = push_data(l, from, data_end(l, from, p, open, variable));
    if (status) return status;
    if (is_raw) return raw(l, p, close, sign);
    l->p = p + 2 + (open ? 1 : 0);
    return p[1] == '#' ? comment(l, p, l->p) : tag(l, p, variable);
}

/* The source with its newlines made '\n' and the last one dropped, in place. */
static void normalise(tx_template *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        bool cr = t->source[i] == '\r';
        if (cr && i + 1 < t->n && t->source[i + 1] == '\n') i++;
        t->source[n++] = cr ? '\n' : t->source[i];
    }
    if (n && t->source[n - 1] == '\n') n--;
    t->source[n] = 0;
    t->n = n;
}

fm_status jj_lex(tx_template *t, jj_tokens *out, fm_error *err)
{
    normalise(t);
    lexer l = {.t = t,
               .out = out,
               .err = err,
               .p = t->source,
               .end = t->source + t->n,
               .counted = t->source,
               .line = 1,
               .line_starting = true};
    fm_status status = FM_OK;
    while (!status && l.p < l.end) status = piece(&l);
    return status ? status : push(&l, (jj_token){.type = JJT_END, .line = line_at(&l, l.end)});
}
