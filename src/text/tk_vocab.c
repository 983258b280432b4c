/* The token table and its hash index. Model tokens are found by their bytes; a token whose text
 * is spelled in GPT-2's characters is kept as the bytes it stands for (TK_RAW), so that
 * encoding never has to spell a text in those characters. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

enum { MAX_PROBES = 4096 }; /* more means that somebody chose the words to collide */

static uint64_t mix(uint64_t x, uint64_t y)
{
    __uint128_t m = (__uint128_t)x * y;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t load(const char *s, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, s, n);
    return v;
}

uint64_t tk_hash(const char *s, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ n;
    while (n > 16) {
        h = mix(load(s, 8) ^ h, load(s + 8, 8) ^ 0xD6E8FEB86659FD93u);
        s += 16;
        n -= 16;
    }
    uint64_t x = 0, y = 0;
    if (n >= 8) x = load(s, 8), y = load(s + n - 8, 8);
    else if (n >= 4) x = load(s, 4), y = load(s + n - 4, 4);
    else if (n)
        x = (uint64_t)(uint8_t)s[0] << 16 | (uint64_t)(uint8_t)s[n / 2] << 8 | (uint8_t)s[n - 1];
    return mix(x ^ h, y ^ 0xA0761D6478BD642Fu);
}

fm_status tk_vocab_add(tk_vocab *v, uint32_t id, const char *text, size_t n, uint32_t flags,
                       const char *path, fm_error *err)
{
    if (id >= TK_MAX_IDS - 1)
        return fm_fail(err, FM_E_LIMIT, "%s: token id %u, the limit is %d", path, id,
                       TK_MAX_IDS - 2);
    if (n > (1u << 30) || v->pool.length > (1u << 30))
        return fm_fail(err, FM_E_LIMIT, "%s: more than 1 GiB of tokens", path);
    if (id >= v->capacity) {
        size_t capacity = v->capacity ? v->capacity * 2 : 4096;
        while (capacity <= id) capacity *= 2;
        tk_token *tokens = bs_realloc(v->tokens, capacity, sizeof *tokens);
        if (!tokens) return fm_fail_nomem(err, "reading the vocabulary");
        memset(tokens + v->capacity, 0, (capacity - v->capacity) * sizeof *tokens);
        v->tokens = tokens;
        v->capacity = capacity;
    }
    tk_token *token = &v->tokens[id];
    if (token->flags & TK_PRESENT)
        return fm_fail(err, FM_E_FORMAT, "%s: two tokens have the id %u", path, id);
    *token = (tk_token){(uint32_t)v->pool.length, (uint32_t)n, flags | TK_PRESENT};
    if (!bs_buf_append(&v->pool, text, n)) return fm_fail_nomem(err, "reading the vocabulary");
    if (id >= v->n) v->n = id + 1;
    return FM_OK;
}

static bool same(const tk_vocab *v, uint32_t id, const char *s, size_t n, bool raw)
{
    const tk_token *token = &v->tokens[id];
    return token->length == n && !(token->flags & TK_RAW) == !raw &&
           !memcmp(v->pool.data + token->offset, s, n);
}

bool tk_vocab_is(const tk_vocab *v, int32_t id, const char *s, size_t n)
{
    if (id < 0 || (size_t)id >= v->n) return false;
    const uint32_t wanted = TK_MODEL | TK_RAW;
    return (v->tokens[id].flags & wanted) == wanted && same(v, (uint32_t)id, s, n, true);
}

/* Slot: the hash's high half, then id + 1. */
static uint64_t slot_of(uint64_t hash, uint32_t id)
{
    return (hash & 0xFFFFFFFF00000000u) | (id + 1);
}

fm_status tk_vocab_index(tk_vocab *v, const char *path, fm_error *err)
{
    size_t n_slots = 256;
    while (n_slots < v->n * 3 / 2) n_slots *= 2;
    v->slots = bs_calloc(n_slots, sizeof *v->slots);
    if (!v->slots) return fm_fail_nomem(err, "indexing the vocabulary");
    v->n_slots = n_slots;
    for (uint32_t id = 0; id < v->n; id++) {
        const tk_token *token = &v->tokens[id];
        if (!(token->flags & TK_MODEL)) continue;
        uint64_t hash = tk_hash(v->pool.data + token->offset, token->length);
        size_t at = hash & (n_slots - 1);
        for (int probe = 0; v->slots[at]; probe++, at = (at + 1) & (n_slots - 1))
            if (probe == MAX_PROBES)
                return fm_fail(err, FM_E_LIMIT, "%s: too many tokens with one hash", path);
        v->slots[at] = slot_of(hash, id);
    }
    return FM_OK;
}

int32_t tk_vocab_find_hash(const tk_vocab *v, uint64_t hash, const char *s, size_t n, bool raw)
{
    if (!v->n_slots) return -1;
    for (size_t at = hash & (v->n_slots - 1); v->slots[at]; at = (at + 1) & (v->n_slots - 1)) {
        uint64_t slot = v->slots[at];
        if ((slot ^ hash) >> 32) continue;
        uint32_t id = (uint32_t)slot - 1;
        if (same(v, id, s, n, raw)) return (int32_t)id;
    }
    return -1;
}

int32_t tk_vocab_find(const tk_vocab *v, const char *s, size_t n, bool raw)
{
    return tk_vocab_find_hash(v, tk_hash(s, n), s, n, raw);
}

void tk_vocab_free(tk_vocab *v)
{
    bs_free(v->tokens);
    bs_free(v->slots);
    bs_buf_free(&v->pool);
    memset(v, 0, sizeof *v);
}

bool tk_unmap(const char *s, size_t n, bs_buf *out)
{
    size_t was = out->length;
    for (size_t i = 0; i < n;) {
        size_t run = i;
        while (run < n && s[run] >= 0x21 && s[run] <= 0x7E) run++;
        bs_buf_append(out, s + i, run - i);
        if ((i = run) == n) break;
        int k, byte = tx_char_to_byte(tx_utf8_get(s + i, &k));
        if (byte < 0) return out->length = was, false;
        bs_buf_putc(out, (char)byte);
        i += (size_t)k;
    }
    return !out->failed;
}
