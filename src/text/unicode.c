#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#define A (TX_L | TX_UPPER)
#define a (TX_L | TX_LOWER)
const uint8_t tx_ascii_class[128] = {
    ['\t'] = TX_SPACE, ['\n'] = TX_SPACE, ['\v'] = TX_SPACE, ['\f'] = TX_SPACE, ['\r'] = TX_SPACE,
    [' '] = TX_SPACE,  ['!'] = TX_P,      ['"'] = TX_P,      ['#'] = TX_P,      ['$'] = TX_S,
    ['%'] = TX_P,      ['&'] = TX_P,      ['\''] = TX_P,     ['('] = TX_P,      [')'] = TX_P,
    ['*'] = TX_P,      ['+'] = TX_S,      [','] = TX_P,      ['-'] = TX_P,      ['.'] = TX_P,
    ['/'] = TX_P,      ['0'] = TX_N,      ['1'] = TX_N,      ['2'] = TX_N,      ['3'] = TX_N,
    ['4'] = TX_N,      ['5'] = TX_N,      ['6'] = TX_N,      ['7'] = TX_N,      ['8'] = TX_N,
    ['9'] = TX_N,      [':'] = TX_P,      [';'] = TX_P,      ['<'] = TX_S,      ['='] = TX_S,
    ['>'] = TX_S,      ['?'] = TX_P,      ['@'] = TX_P,      ['A'] = A,         ['B'] = A,
    ['C'] = A,         ['D'] = A,         ['E'] = A,         ['F'] = A,         ['G'] = A,
    ['H'] = A,         ['I'] = A,         ['J'] = A,         ['K'] = A,         ['L'] = A,
    ['M'] = A,         ['N'] = A,         ['O'] = A,         ['P'] = A,         ['Q'] = A,
    ['R'] = A,         ['S'] = A,         ['T'] = A,         ['U'] = A,         ['V'] = A,
    ['W'] = A,         ['X'] = A,         ['Y'] = A,         ['Z'] = A,         ['['] = TX_P,
    ['\\'] = TX_P,     [']'] = TX_P,      ['^'] = TX_S,      ['_'] = TX_P,      ['`'] = TX_S,
    ['a'] = a,         ['b'] = a,         ['c'] = a,         ['d'] = a,         ['e'] = a,
    ['f'] = a,         ['g'] = a,         ['h'] = a,         ['i'] = a,         ['j'] = a,
    ['k'] = a,         ['l'] = a,         ['m'] = a,         ['n'] = a,         ['o'] = a,
    ['p'] = a,         ['q'] = a,         ['r'] = a,         ['s'] = a,         ['t'] = a,
    ['u'] = a,         ['v'] = a,         ['w'] = a,         ['x'] = a,         ['y'] = a,
    ['z'] = a,         ['{'] = TX_P,      ['|'] = TX_S,      ['}'] = TX_P,      ['~'] = TX_S,
};
#undef A
#undef a

static const uint8_t category_class[30] = {
    [UTF8PROC_CATEGORY_LU] = TX_L | TX_UPPER,
    [UTF8PROC_CATEGORY_LT] = TX_L | TX_UPPER,
    [UTF8PROC_CATEGORY_LL] = TX_L | TX_LOWER,
    [UTF8PROC_CATEGORY_LM] = TX_L,
    [UTF8PROC_CATEGORY_LO] = TX_L,
    [UTF8PROC_CATEGORY_MN] = TX_M,
    [UTF8PROC_CATEGORY_MC] = TX_M,
    [UTF8PROC_CATEGORY_ME] = TX_M,
    [UTF8PROC_CATEGORY_ND] = TX_N,
    [UTF8PROC_CATEGORY_NL] = TX_N,
    [UTF8PROC_CATEGORY_NO] = TX_N,
    [UTF8PROC_CATEGORY_PC] = TX_P,
    [UTF8PROC_CATEGORY_PD] = TX_P,
    [UTF8PROC_CATEGORY_PS] = TX_P,
    [UTF8PROC_CATEGORY_PE] = TX_P,
    [UTF8PROC_CATEGORY_PI] = TX_P,
    [UTF8PROC_CATEGORY_PF] = TX_P,
    [UTF8PROC_CATEGORY_PO] = TX_P,
    [UTF8PROC_CATEGORY_SM] = TX_S,
    [UTF8PROC_CATEGORY_SC] = TX_S,
    [UTF8PROC_CATEGORY_SK] = TX_S,
    [UTF8PROC_CATEGORY_SO] = TX_S,
};

bool tx_is_space(uint32_t c)
{
    if (c < 0x80) return tx_ascii_class[c] & TX_SPACE;
    if (c < 0x2000) return c == 0x85 || c == 0xA0 || c == 0x1680;
    return c <= 0x200A || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint8_t tx_class(uint32_t c)
{
    if (c < 0x80) return tx_ascii_class[c];
    if (tx_is_space(c)) return TX_SPACE;
    unsigned category = (unsigned)utf8proc_category((utf8proc_int32_t)c);
    return category < 30 ? category_class[category] : 0;
}

int tx_utf8_check(const char *text, const char *text_end, bool *cut)
{
    const unsigned char *p = (const unsigned char *)text, *end = (const unsigned char *)text_end;
    if (*p < 0x80) return 1;
    int want = *p >= 0xC2 && *p <= 0xDF   ? 2
               : *p >= 0xE0 && *p <= 0xEF ? 3
               : *p >= 0xF0 && *p <= 0xF4 ? 4
                                          : 0;
    if (!want) return -1;
    unsigned low = *p == 0xE0 ? 0xA0 : *p == 0xF0 ? 0x90 : 0x80;
    unsigned high = *p == 0xED ? 0x9F : *p == 0xF4 ? 0x8F : 0xBF;
    for (int i = 1; i < want; i++, low = 0x80, high = 0xBF) {
        if (p + i == end) return cut ? *cut = true : true, -i;
        if (p[i] < low || p[i] > high) return -i;
    }
    return want;
}

bool tx_utf8_valid(const char *s, size_t n)
{
    const char *end = s + n;
    while (s < end) {
        uint64_t eight;
        while (end - s >= 8 && (memcpy(&eight, s, 8), !(eight & 0x8080808080808080u))) s += 8;
        if (s == end) break;
        int k = tx_utf8_check(s, end, NULL);
        if (k < 0) return false;
        s += k;
    }
    return true;
}

bool tx_utf8_append_lossy(bs_buf *out, const char *s, size_t n)
{
    const char *end = s + n, *good = s;
    while (s < end) {
        int k = tx_utf8_check(s, end, NULL);
        if (k < 0) {
            bs_buf_append(out, good, (size_t)(s - good));
            bs_buf_puts(out, "\xEF\xBF\xBD");
            good = s - k;
        }
        s += k < 0 ? -k : k;
    }
    return bs_buf_append(out, good, (size_t)(end - good));
}

int tx_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) return out[0] = (char)c, 1;
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | c);
    return n;
}

bool tx_utf8_append(bs_buf *out, uint32_t c)
{
    char s[4];
    return bs_buf_append(out, s, (size_t)tx_utf8_put(c, s));
}

size_t tx_utf8_count(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

/* Other_Alphabetic outside L, M and Nl: the circled and squared letters. */
static bool other_alphabetic(uint32_t c)
{
    return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool tx_is_word(uint32_t c)
{
    int category = utf8proc_category((utf8proc_int32_t)c);
    uint8_t k = tx_class(c);
    if (k & (TX_L | TX_M)) return true;
    if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
        category == UTF8PROC_CATEGORY_PC)
        return true;
    return c == 0x200C || c == 0x200D || other_alphabetic(c);
}

bool tx_is_punctuation(uint32_t c)
{
    if (c < 0x80) return tx_ascii_class[c] & (TX_P | TX_S);
    return tx_class(c) & TX_P;
}

bool tx_is_printable(uint32_t c)
{
    if (c == ' ') return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

uint32_t tx_lower(uint32_t c)
{
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

uint32_t tx_upper(uint32_t c)
{
    if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
    return (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
}

/* Cased and case-ignorable, as far as the final sigma asks. */
static bool is_cased(uint32_t c)
{
    return tx_class(c) & (TX_UPPER | TX_LOWER);
}

static bool is_case_ignorable(uint32_t c)
{
    int k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' ||
           c == ':' || c == 0xB7 || c == 0x2019;
}

/* A capital sigma at s[at] ends a word: a cased letter before it, none after. */
static bool sigma_is_final(const char *s, size_t n, size_t at)
{
    bool before = false;
    for (size_t i = at; i > 0;) {
        int k;
        do i--;
        while (i > 0 && ((unsigned char)s[i] & 0xC0) == 0x80);
        uint32_t c = tx_utf8_get(s + i, &k);
        if (is_case_ignorable(c)) continue;
        before = is_cased(c);
        break;
    }
    if (!before) return false;
    for (size_t i = at + 2; i < n;) {
        int k;
        uint32_t c = tx_utf8_get(s + i, &k);
        i += (size_t)k;
        if (!is_case_ignorable(c)) return !is_cased(c);
    }
    return true;
}

bool tx_append_lower(bs_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int k;
        uint32_t c = tx_utf8_get(s + i, &k);
        if (c == 0x130) bs_buf_puts(out, "i\xCC\x87");
        else if (c == 0x3A3) tx_utf8_append(out, sigma_is_final(s, n, i) ? 0x3C2 : 0x3C3);
        else tx_utf8_append(out, tx_lower(c));
        i += (size_t)k;
    }
    return !out->failed;
}

bool tx_append_upper(bs_buf *out, const char *s, size_t n)
{
    static const struct {
        uint32_t c;
        const char *upper;
    } special[] = {
        {0xDF, "SS"},          {0x149, "\xCA\xBCN"},
        {0x1F0, "J\xCC\x8C"},  {0xFB00, "FF"},
        {0xFB01, "FI"},        {0xFB02, "FL"},
        {0xFB03, "FFI"},       {0xFB04, "FFL"},
        {0xFB05, "ST"},        {0xFB06, "ST"},
        {0x1E96, "H\xCC\xB1"}, {0x1E97, "T\xCC\x88"},
        {0x1E98, "W\xCC\x8A"}, {0x1E99, "Y\xCC\x8A"},
        {0x1E9A, "A\xCA\xBE"}, {0x587, "\xD4\xB5\xD5\x92"},
    };
    for (size_t i = 0; i < n;) {
        int k;
        uint32_t c = tx_utf8_get(s + i, &k);
        size_t j = 0, count = sizeof special / sizeof *special;
        while (c >= 0x80 && j < count && special[j].c != c) j++;
        if (c >= 0x80 && j < count) bs_buf_puts(out, special[j].upper);
        else tx_utf8_append(out, tx_upper(c));
        i += (size_t)k;
    }
    return !out->failed;
}

uint32_t tx_byte_to_char(uint8_t b)
{
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD)) return b;
    if (b <= 0x20) return 0x100u + b;
    if (b <= 0xA0) return 0x100u + 33 + (b - 0x7Fu);
    return 0x143; /* 0xAD, the soft hyphen */
}

int tx_char_to_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD)) return (int)c;
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}
