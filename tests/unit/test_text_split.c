/* The hand-written splitters against PCRE2 on random text, and the round trip over random Unicode.
 */
#include "text/tk.h"
#include "text/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static uint64_t seed = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11) % n;
}

/* Characters that the patterns tell apart, and now and then any other. */
static uint32_t random_char(void)
{
    static const uint32_t telling[] = {
        ' ',    ' ',    ' ',    '\n',   '\r',   '\t',   '\'',   's',    'S',    't',
        'r',    'e',    'v',    'l',    'L',    'm',    'd',    'D',    'a',    'B',
        '1',    '2',    '3',    '/',    '.',    '!',    '$',    '_',    '(',    0x17F,
        0xE9,   0xC9,   0x301,  0x4E2D, 0x3042, 0x30A2, 0x660,  0x2167, 0xB2,   0xA0,
        0x85,   0x2003, 0x3000, 0x180E, 0xFEFF, 0x200B, 0x1C5,  0x2B0,  0x5D0,  0x1F600,
        0x20AC, 0xFF5C, 0xE000, 0,      0x7F,   0x903,  0x2028, 0x9FA5, 0x9FA6, 0x30FF,
    };
    if (random_below(12)) return telling[random_below(sizeof telling / sizeof *telling)];
    return random_below(2) ? random_below(0x600)
                           : 0x2000 + random_below(0xC00); /* as old as PCRE2's Unicode */
}

static void random_text(bs_buf *out, uint32_t most)
{
    out->length = 0;
    bs_buf_append(out, "", 0); /* terminated, should nothing follow */
    for (uint32_t n = random_below(most); n; n--) tx_utf8_append(out, random_char());
}

static void splitters_equal_pcre2(void **state)
{
    (void)state;
    bs_buf text = {0};
    for (size_t i = 0; tk_known_pattern_text(i); i++) {
        const char *pattern = tk_known_pattern_text(i);
        tk_matcher *matcher = tk_known_pattern(pattern, strlen(pattern));
        tk_regex *regex;
        tk_regex_state s = {0};
        fm_error err;
        assert_int_equal(tk_regex_compile(pattern, strlen(pattern), &regex, &err), FM_OK);
        for (int round = 0; round < 20000; round++) {
            random_text(&text, 14);
            for (size_t at = 0;;) {
                size_t a = 0, b = 0, c = 0, d = 0;
                bool found, mine = matcher(text.data, text.length, at, &a, &b);
                assert_int_equal(
                    tk_regex_find(regex, &s, text.data, text.length, at, &found, &c, &d, &err),
                    FM_OK);
                if (mine != found || (found && (a != c || b != d)))
                    fail_msg("pattern %zu differs at %zu in '%s': %zu..%zu, PCRE2 %zu..%zu", i, at,
                             text.data, a, b, c, d);
                if (!found) break;
                at = b;
            }
        }
        tk_regex_state_free(&s);
        tk_regex_free(regex);
    }
    bs_buf_free(&text);
}

static void patterns_are_translated(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        size_t start, end;
    } cases[] = {
        {"\\p{N}{1,3}+", "a12345", 1, 6},    /* Ruby: a repeated repetition */
        {"[a-z&&[^aeiou]]+", "aebcd", 2, 5}, /* intersection */
        {"[ab[cd]]+", "xabcd", 1, 5},        /* nested set */
        {"\\h+", "zz1aG", 2, 4},             /* hexadecimal digits */
        {"a$", "a\nb", 0, 1},                /* $ ends a line */
        {"(?m:.)+", "a\nb", 0, 3},           /* (?m) lets the dot match a newline */
        {"\\s", "\xE1\xA0\x8E ", 3, 4},      /* U+180E is no space */
        {"{x}", "a{x}", 1, 4},
        {"\\w+", " 7\xC2\xB2", 1, 4},        /* a superscript is a letter by itself */
        {"[\\w]+", " 7\xC2\xB2", 1, 2},      /* but not in a set */
        {"\\d(?=\\b)", "1\xCC\x81 2", 4, 5}, /* a mark goes on with the word */
        {"\\d\\B", "1 2\xCC\x81", 2, 3},
        {"\\p{Han}", "\xE3\x80\x8A\xE4\xB8\xAD", 3, 6}, /* U+300A only extends the script */
        {"\\p{^Han}+", "\xE4\xB8\xADx", 3, 4},
        {"\\p{Letter}+\\P{Punctuation}", "!ab+", 1, 4},
        {"[[:space:]]", "\xE1\xA0\x8E ", 3, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tk_regex *r;
        tk_regex_state s = {0};
        fm_error err;
        bool found;
        size_t start = 0, end = 0, n = strlen(cases[i].text);
        assert_int_equal(tk_regex_compile(cases[i].pattern, strlen(cases[i].pattern), &r, &err),
                         FM_OK);
        assert_int_equal(tk_regex_find(r, &s, cases[i].text, n, 0, &found, &start, &end, &err),
                         FM_OK);
        assert_true(found);
        assert_int_equal(start, cases[i].start);
        assert_int_equal(end, cases[i].end);
        tk_regex_state_free(&s);
        tk_regex_free(r);
    }
}

/* decode(encode(s)) == NFC(s), streamed or not; a text that is all markup in segments is the same
 * text. */
static void round_trip(void **state)
{
    (void)state;
    tx_tokenizer *t;
    fm_error err;
    bs_buf text = {0}, out = {0}, streamed = {0};
    tx_ids ids = {0}, again = {0};
    tx_stream *stream;
    assert_int_equal(tx_tokenizer_open("models/flash-moe-tiny", &t, &err), FM_OK);
    assert_int_equal(tx_stream_open(t, false, &stream, &err), FM_OK);
    for (int round = 0; round < 4000; round++) {
        random_text(&text, round % 100 ? 60 : 6000);
        if (memchr(text.data, 0, text.length)) continue; /* utf8proc_NFC stops there */
        ids.length = again.length = out.length = streamed.length = 0;
        assert_int_equal(tx_encode(t, text.data, text.length, 0, &ids, &err), FM_OK);
        assert_int_equal(tx_decode(t, ids.data, ids.length, false, &out, &err), FM_OK);
        char *nfc = (char *)utf8proc_NFC((const utf8proc_uint8_t *)text.data);
        assert_int_equal(out.length, strlen(nfc));
        assert_memory_equal(out.data ? out.data : "", nfc, out.length);
        free(nfc);
        for (size_t i = 0; i < ids.length; i++)
            assert_int_equal(tx_stream_push(stream, ids.data[i], &streamed, &err), FM_OK);
        assert_int_equal(tx_stream_finish(stream, &streamed, &err), FM_OK);
        assert_int_equal(streamed.length, out.length);
        assert_memory_equal(streamed.data ? streamed.data : "", out.data ? out.data : "",
                            out.length);
        tx_segment parts[2] = {{0, true}, {text.length, false}};
        assert_int_equal(
            tx_encode_segments(t, text.data, text.length, parts, 2, NULL, 0, &again, &err), FM_OK);
        assert_int_equal(again.length, ids.length);
        assert_memory_equal(again.data, ids.data, ids.length * sizeof *ids.data);
    }
    tx_stream_free(stream);
    tx_tokenizer_free(t);
    tx_ids_free(&ids);
    tx_ids_free(&again);
    bs_buf_free(&text);
    bs_buf_free(&out);
    bs_buf_free(&streamed);
}

/* A megabyte of one letter, of marks, of spaces: nothing takes time that grows faster than the
 * text. */
static void long_runs(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a", " ", "\xCC\x81\xCC\x96", "\n", "1", "\xF0\x9F\x98\x80", "\xE4\xB8\xAD"};
    tx_tokenizer *t;
    fm_error err;
    bs_buf text = {0}, out = {0};
    tx_ids ids = {0};
    assert_int_equal(tx_tokenizer_open("models/flash-moe-tiny", &t, &err), FM_OK);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        text.length = out.length = ids.length = 0;
        while (text.length < 1000000) bs_buf_puts(&text, units[i]);
        assert_int_equal(tx_encode(t, text.data, text.length, 0, &ids, &err), FM_OK);
        assert_int_equal(tx_decode(t, ids.data, ids.length, false, &out, &err), FM_OK);
        assert_int_equal(out.length, text.length);
    }
    tx_ids_free(&ids);
    bs_buf_free(&text);
    bs_buf_free(&out);
    tx_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(splitters_equal_pcre2),
        cmocka_unit_test(patterns_are_translated),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(long_runs),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
