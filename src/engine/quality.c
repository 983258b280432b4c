#include "engine/quality.h"

#include "base/mem.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TAIL_CHARACTERS = 200, WORDS_A_GRAM = 4 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The last TAIL_CHARACTERS code points; malformed bytes count as characters of their own. */
static int tail_characters(const char *text, size_t bytes, uint32_t *out)
{
    size_t start = bytes;
    int n = 0;
    while (start > 0 && n < TAIL_CHARACTERS) {
        start--;
        if (((unsigned char)text[start] & 0xC0) != 0x80) n++;
    }
    int length = 0;
    for (size_t i = start; i < bytes && length < TAIL_CHARACTERS; length++) {
        uint32_t c = (unsigned char)text[i++];
        while (i < bytes && ((unsigned char)text[i] & 0xC0) == 0x80)
            c = c << 8 | (unsigned char)text[i++]; /* any injective number will do */
        out[length] = c;
    }
    return length;
}

double en_rep_tail(const char *text, size_t bytes)
{
    uint32_t c[TAIL_CHARACTERS];
    int n = tail_characters(text, bytes, c), most = 0;
    for (int i = 0; i + 2 < n; i++) {
        int count = 0;
        for (int j = 0; j + 2 < n; j++)
            count += c[i] == c[j] && c[i + 1] == c[j + 1] && c[i + 2] == c[j + 2];
        if (count > most) most = count;
    }
    return n < 3 ? 0 : (double)most / (n - 2);
}

static uint64_t hash_word(const char *s, size_t n)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h;
}

static size_t hash_words(const char *text, size_t bytes, uint64_t *out)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        while (i < bytes && isspace((unsigned char)text[i])) i++;
        size_t start = i;
        while (i < bytes && !isspace((unsigned char)text[i])) i++;
        if (i > start) out[n++] = hash_word(text + start, i - start);
    }
    return n;
}

double en_rep_words(const char *text, size_t bytes)
{
    uint64_t *h = bs_malloc((bytes / 2 + 2) * sizeof *h);
    if (!h) return -1;
    size_t words = hash_words(text, bytes, h);
    if (words < WORDS_A_GRAM) {
        bs_free(h);
        return 0;
    }
    size_t grams = words - WORDS_A_GRAM + 1, distinct = 1;
    for (size_t i = 0; i < grams; i++) {
        uint64_t g = 0;
        for (int k = 0; k < WORDS_A_GRAM; k++) g = (g ^ h[i + (size_t)k]) * 0x9E3779B97F4A7C15u;
        h[i] = g; /* gram i needs words i.. only, so it may replace word i */
    }
    qsort(h, grams, sizeof *h, by_value);
    for (size_t i = 1; i < grams; i++) distinct += h[i] != h[i - 1];
    bs_free(h);
    return 1.0 - (double)distinct / (double)grams;
}

double en_rep_loop(const int *tokens, int n, int max_period, int repeats)
{
    int longest = 0;
    for (int period = 1; period <= max_period && period * repeats <= n; period++) {
        int length = period;
        while (length < n && tokens[n - 1 - length] == tokens[n - 1 - length + period]) length++;
        if (length >= period * repeats && length > longest) longest = length;
    }
    return n ? (double)longest / n : 0;
}

static double log_sum_exp(const float *x, int n)
{
    double most = x[0], sum = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > most) most = x[i];
    for (int i = 0; i < n; i++) sum += exp(x[i] - most);
    return most + log(sum);
}

double en_log_prob(const float *logits, int n, int id)
{
    return logits[id] - log_sum_exp(logits, n);
}

double en_kl(const float *p, const float *q, int n)
{
    double lp = log_sum_exp(p, n), lq = log_sum_exp(q, n), sum = 0;
    for (int i = 0; i < n; i++) sum += exp(p[i] - lp) * ((p[i] - lp) - (q[i] - lq));
    return sum < 0 ? 0 : sum;
}
