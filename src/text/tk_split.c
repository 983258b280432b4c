/* The split patterns of the well-known tokenizers, matched by hand. Each function says which
 * pattern it is; tests compare every one with PCRE2 on random text. In these patterns the
 * alternatives cover all characters (but DeepSeek's), so a match starts where the last one ended.
 *
 * "\s+(?!\S)|\s+" in words: a run of spaces gives its last character to what follows, unless
 * the text ends there or the run is one character long. */
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

typedef struct text {
    const char *s;
    size_t n;
} text;

/* Class of the character at `at` and where the next one starts; 0 at the end of the text. */
static inline uint8_t class_at(text t, size_t at, size_t *next)
{
    if (at >= t.n) return *next = at, 0;
    unsigned char c = (unsigned char)t.s[at];
    if (c < 0x80) return *next = at + 1, tx_ascii_class[c];
    int k;
    uint32_t code = tx_utf8_get(t.s + at, &k);
    *next = at + (size_t)k;
    return tx_class(code);
}

static inline bool ends(text t, size_t at)
{
    return at >= t.n;
}

/* After at: all characters with one of these class bits. */
static inline size_t run_of(text t, size_t at, uint8_t bits)
{
    size_t next;
    while (class_at(t, at, &next) & bits) at = next;
    return at;
}

/* [^\s...bits]*: characters with none of the bits. */
static inline size_t run_without(text t, size_t at, uint8_t bits)
{
    size_t next;
    while (!ends(t, at) && !(class_at(t, at, &next) & bits)) at = next;
    return at;
}

static inline bool newline(char c)
{
    return c == '\n' || c == '\r';
}

static inline size_t newlines(text t, size_t at)
{
    while (at < t.n && newline(t.s[at])) at++;
    return at;
}

/* \s*[\r\n]+ from at (a space): its end, or 0 when there is no newline in the run. */
static size_t space_newlines(text t, size_t at)
{
    size_t last = 0, next;
    while (class_at(t, at, &next) & TX_SPACE) {
        if (newline(t.s[at])) last = next;
        at = next;
    }
    return last;
}

/* \s+(?!\S)|\s+ from at (a space). */
static size_t space_run(text t, size_t at)
{
    size_t start = at, before = at, next;
    while (class_at(t, at, &next) & TX_SPACE) {
        before = at;
        at = next;
    }
    return ends(t, at) || before == start ? at : before;
}

/* 's|'t|'re|'ve|'m|'ll|'d: its length at `at`, or 0. Folded: any case, and U+017F for s. */
static size_t contraction(text t, size_t at, bool fold)
{
    size_t left = t.n - at;
    if (left < 2 || t.s[at] != '\'') return 0;
    unsigned char c = (unsigned char)t.s[at + 1], d = left > 2 ? (unsigned char)t.s[at + 2] : 0;
    if (fold && c == 0xC5 && d == 0xBF) return 3;
    if (fold && c < 0x80) c |= 32;
    if (fold && d < 0x80) d |= 32;
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    return (c == 'r' && d == 'e') || (c == 'v' && d == 'e') || (c == 'l' && d == 'l') ? 3 : 0;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
bool tk_match_gpt2(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    text t = {s, n};
    if (at >= n) return false;
    *start = at;
    size_t k = contraction(t, at, false), next;
    if (k) return *end = at + k, true;
    size_t first = s[at] == ' ' ? at + 1 : at;
    uint8_t c = class_at(t, first, &next);
    if (c & TX_L) *end = run_of(t, next, TX_L);
    else if (c & TX_N) *end = run_of(t, next, TX_N);
    else if (first < n && !(c & TX_SPACE)) *end = run_without(t, next, TX_SPACE | TX_L | TX_N);
    else *end = space_run(t, at);
    return true;
}

/* The Qwen and Llama 3 family:
 * (?i:'s|...)|[^\r\n\p{L}\p{N}]?LETTER+|\p{N}{1,digits}| ?[^\s LETTER
 * \p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ where LETTER is \p{L}, or [\p{L}\p{M}]. */
static inline bool match_letters(text t, size_t at, int digits, uint8_t letter, size_t *start,
                                 size_t *end)
{
    if (at >= t.n) return false;
    *start = at;
    size_t k = contraction(t, at, true), next, after;
    if (k) return *end = at + k, true;
    uint8_t c = class_at(t, at, &next);
    if (c & letter) return *end = run_of(t, next, letter), true;
    if (!(c & (TX_L | TX_N)) && !newline(t.s[at]) && class_at(t, next, &after) & letter)
        return *end = run_of(t, after, letter), true;
    if (c & TX_N) {
        *end = next;
        while (--digits && class_at(t, *end, &next) & TX_N) *end = next;
        return true;
    }
    size_t first = t.s[at] == ' ' ? at + 1 : at;
    uint8_t d = class_at(t, first, &after), stop = TX_SPACE | TX_N | letter;
    if (!ends(t, first) && !(d & stop))
        return *end = newlines(t, run_without(t, after, stop)), true;
    if ((*end = space_newlines(t, at))) return true;
    *end = space_run(t, at);
    return true;
}

static bool match_qwen2(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    return match_letters((text){s, n}, at, 1, TX_L, start, end);
}

static bool match_llama3(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    return match_letters((text){s, n}, at, 3, TX_L, start, end);
}

static bool match_qwen35(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    return match_letters((text){s, n}, at, 1, TX_L | TX_M, start, end);
}

/* The parts of o200k's letter alternatives, UP = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and
 * LOW = [\p{Ll}\p{Lm}\p{Lo}\p{M}]: from `at`, the end of the match or 0. */
static inline bool is_up(uint8_t c)
{
    return c & (TX_L | TX_M) && !(c & TX_LOWER);
}

static inline bool is_low(uint8_t c)
{
    return c & (TX_L | TX_M) && !(c & TX_UPPER);
}

/* UP*LOW+ */
static size_t up_then_low(text t, size_t at)
{
    size_t next, i = at, after_both = 0;
    uint8_t c;
    for (; is_up(c = class_at(t, i, &next)); i = next)
        if (is_low(c)) after_both = next;
    size_t low = i;
    while (is_low(class_at(t, low, &next))) low = next;
    return low > i ? low : after_both; /* else UP* gives back to the last one that is both */
}

/* UP+LOW*, where UP*LOW+ does not match: all UP-only. */
static size_t up_only(text t, size_t at)
{
    size_t next, i = at;
    while (is_up(class_at(t, i, &next))) i = next;
    return i > at ? i : 0;
}

/* [^\r\n\p{L}\p{N}]?UP*LOW+(?i:'s|..)?|[^\r\n\p{L}\p{N}]?UP+LOW*(?i:'s|..)?|\p{N}{1,3}|
 * ?[^\s\p{L}\p{N}]+[\r\n/]*| \s*[\r\n]+|\s+(?!\S)|\s+ */
static bool match_o200k(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    text t = {s, n};
    if (at >= n) return false;
    *start = at;
    size_t next, after, e = 0;
    uint8_t c = class_at(t, at, &next);
    bool lead = !(c & (TX_L | TX_N)) && !newline(s[at]);
    if (lead) e = up_then_low(t, next);
    if (!e) e = up_then_low(t, at);
    if (!e && lead) e = up_only(t, next);
    if (!e) e = up_only(t, at);
    if (e) return *end = e + contraction(t, e, true), true;
    if (c & TX_N) {
        *end = next;
        for (int i = 1; i < 3 && class_at(t, *end, &next) & TX_N; i++) *end = next;
        return true;
    }
    size_t first = s[at] == ' ' ? at + 1 : at;
    uint8_t d = class_at(t, first, &after), stop = TX_SPACE | TX_L | TX_N;
    if (!ends(t, first) && !(d & stop)) {
        e = run_without(t, after, stop);
        while (e < n && (newline(s[e]) || s[e] == '/')) e++;
        return *end = e, true;
    }
    if ((*end = space_newlines(t, at))) return true;
    *end = space_run(t, at);
    return true;
}

/* \p{N}{1,3} */
static bool match_three_digits(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    text t = {s, n};
    size_t next;
    for (; at < n; at = next)
        if (class_at(t, at, &next) & TX_N) break;
    if (at >= n) return false;
    *start = at;
    *end = next;
    for (int i = 1; i < 3 && class_at(t, *end, &next) & TX_N; i++) *end = next;
    return true;
}

/* [一-龥぀-ゟ゠-ヿ]+ */
static bool match_cjk(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    size_t i = at;
    bool inside = false;
    while (i < n) {
        unsigned char lead = (unsigned char)s[i];
        int k = 1;
        bool cjk = false;
        if (lead >= 0x80) {
            uint32_t c = tx_utf8_get(s + i, &k);
            cjk = (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
        }
        if (cjk && !inside) *start = i;
        if (!cjk && inside) break;
        inside = cjk;
        i += (size_t)k;
    }
    *end = i;
    return inside;
}

/* [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
 * ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ at `at` only: 0 when nothing matches there. */
static size_t deepseek_at(text t, size_t at)
{
    size_t next, after;
    unsigned char b = (unsigned char)t.s[at];
    uint8_t c = class_at(t, at, &next);
    if (b < 0x80 && c & (TX_P | TX_S)) {
        size_t e = at + 1;
        while (e < t.n && ((t.s[e] | 32) >= 'a' && (t.s[e] | 32) <= 'z')) e++;
        if (e > at + 1) return e;
    }
    if (!(c & (TX_L | TX_P | TX_S)) && !newline(t.s[at]) &&
        class_at(t, next, &after) & (TX_L | TX_M))
        return run_of(t, after, TX_L | TX_M);
    if (c & (TX_L | TX_M)) return run_of(t, next, TX_L | TX_M);
    size_t first = b == ' ' ? at + 1 : at;
    if (class_at(t, first, &after) & (TX_P | TX_S))
        return newlines(t, run_of(t, after, TX_P | TX_S));
    if (!(c & TX_SPACE)) return 0;
    size_t e = space_newlines(t, at);
    return e ? e : space_run(t, at);
}

static bool match_deepseek(const char *s, size_t n, size_t at, size_t *start, size_t *end)
{
    text t = {s, n};
    for (; at < n; at += (size_t)tx_utf8_size((unsigned char)s[at]))
        if ((*end = deepseek_at(t, at))) return *start = at, true;
    return false;
}

/* --- recognition
 * ------------------------------------------------------------------------------------ */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K_UP "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_LOW "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_LEAD "[^\\r\\n\\p{L}\\p{N}]?"

static const struct {
    const char *pattern;
    tk_matcher *matcher;
} known[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
     tk_match_gpt2},
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL,
     match_qwen2},
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL,
     match_llama3},
    {CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL,
     match_qwen35},
    {O200K_LEAD O200K_UP "*" O200K_LOW "+" CONTRACTIONS "?|" O200K_LEAD O200K_UP "+" O200K_LOW
                         "*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL,
     match_o200k},
    {"\\p{N}{1,3}", match_three_digits},
    {"[一-龥\xE3\x81\x80-ゟ゠-ヿ]+", match_cjk},
    {"[!\"#$%&'()*+,\\-./"
     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
     "| ?[\\p{P}\\p{S}]+[\\r\\n]*" TAIL,
     match_deepseek},
};

/* Does pattern, its raw newlines and carriage returns read as \n and \r, equal known? */
static bool equals(const char *pattern, size_t n, const char *known_pattern)
{
    const char *k = known_pattern;
    for (size_t i = 0; i < n; i++) {
        if (newline(pattern[i])) {
            if (*k++ != '\\' || *k++ != (pattern[i] == '\n' ? 'n' : 'r')) return false;
        } else if (!pattern[i] || *k++ != pattern[i]) return false;
    }
    return !*k;
}

tk_matcher *tk_known_pattern(const char *pattern, size_t n)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (equals(pattern, n, known[i].pattern)) return known[i].matcher;
    return NULL;
}

const char *tk_known_pattern_text(size_t i)
{
    return i < sizeof known / sizeof *known ? known[i].pattern : NULL;
}
