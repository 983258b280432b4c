/* unicode.h - UTF-8 and character properties (Unicode as utf8proc knows it). */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the split patterns ask of a character. Letters have one of the case bits or none. */
enum {
    TX_L = 1,       /* \p{L} */
    TX_N = 2,       /* \p{N} */
    TX_M = 4,       /* \p{M} */
    TX_P = 8,       /* \p{P} */
    TX_S = 16,      /* \p{S} */
    TX_SPACE = 32,  /* White_Space, which is \s */
    TX_UPPER = 64,  /* \p{Lu} \p{Lt} */
    TX_LOWER = 128, /* \p{Ll} */
};

extern const uint8_t tx_ascii_class[128];

/* The class bits of any code point. */
uint8_t tx_class(uint32_t c);

/* Decode the character at p (p < end, well-formed UTF-8); *n gets its length. */
static inline uint32_t tx_utf8_get(const char *p, int *n)
{
    const unsigned char *s = (const unsigned char *)p;
    if (s[0] < 0x80) return *n = 1, s[0];
    if (s[0] < 0xE0) return *n = 2, (s[0] & 31u) << 6 | (s[1] & 63u);
    if (s[0] < 0xF0) return *n = 3, (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
    return *n = 4, (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u);
}

/* Length of the character that starts with this byte of well-formed UTF-8. */
static inline int tx_utf8_size(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The well-formed character at p: its length. Otherwise minus the length of the longest start of
 * one (at least -1), which stands for one U+FFFD. *cut: the text ends inside a character that is
 * good so far. */
int tx_utf8_check(const char *p, const char *end, bool *cut);

bool tx_utf8_valid(const char *s, size_t n);

/* Append s with every malformed stretch as U+FFFD. */
bool tx_utf8_append_lossy(bs_buf *out, const char *s, size_t n);

int tx_utf8_put(uint32_t c, char out[4]);
bool tx_utf8_append(bs_buf *out, uint32_t c);

/* Code points in s[0..n). */
size_t tx_utf8_count(const char *s, size_t n);

bool tx_is_space(uint32_t c);       /* White_Space */
bool tx_is_word(uint32_t c);        /* \w of Rust's regex: Alphabetic, M, Nd, Pc, joiners */
bool tx_is_punctuation(uint32_t c); /* P*, and ASCII's symbols */
bool tx_is_printable(uint32_t c);   /* Python's str.isprintable */
uint32_t tx_lower(uint32_t c);
uint32_t tx_upper(uint32_t c);
bool tx_append_lower(bs_buf *out, const char *s, size_t n); /* str.lower(), final sigma included */
bool tx_append_upper(bs_buf *out, const char *s, size_t n); /* str.upper(), ß -> SS included */

/* GPT-2's table: every byte has a printable character. */
uint32_t tx_byte_to_char(uint8_t byte);
int tx_char_to_byte(uint32_t c); /* -1: not in the table */

#endif
