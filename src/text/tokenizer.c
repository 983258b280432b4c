/* The small public functions; opening is in tk_load.c, the work in tk_encode.c and tk_decode.c. */
#include "text/tokenizer.h"

#include "base/file.h"
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

bool tx_ids_push(tx_ids *ids, int32_t id)
{
    if (ids->length == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 64;
        int32_t *data = bs_realloc(ids->data, capacity, sizeof *data);
        if (!data) return false;
        ids->data = data;
        ids->capacity = capacity;
    }
    ids->data[ids->length++] = id;
    return true;
}

void tx_ids_free(tx_ids *ids)
{
    bs_free(ids->data);
    *ids = (tx_ids){0};
}

fm_status tx_tokenizer_open(const char *path, tx_tokenizer **out, fm_error *err)
{
    tx_tokenizer *t = bs_calloc(1, sizeof *t);
    if (!t) return fm_fail_nomem(err, "opening a tokenizer");
    fm_status status = tk_load(path, t, err);
    if (status) {
        tx_tokenizer_free(t);
        return status;
    }
    *out = t;
    return FM_OK;
}

static void free_steps(tx_tokenizer *t)
{
    for (int i = 0; i < t->n_norms; i++) {
        bs_free(t->norms[i].text);
        bs_free(t->norms[i].find);
        tk_regex_free(t->norms[i].regex);
    }
    for (int i = 0; i < t->n_pres; i++) {
        bs_free(t->pres[i].text);
        tk_regex_free(t->pres[i].regex);
    }
    for (int i = 0; i < t->n_decs; i++) {
        bs_free(t->decs[i].text);
        bs_free(t->decs[i].find);
        tk_regex_free(t->decs[i].regex);
    }
}

void tk_clear(tx_tokenizer *t)
{
    if (t->block) { /* the tables lie in it */
        bs_pages_free(t->block, t->block_bytes);
    } else {
        tk_vocab_free(&t->vocab);
        bs_free(t->bpe.slots);
        bs_free(t->bpe.result);
        bs_free(t->placed);
    }
    bs_free(t->bpe.prefix);
    bs_free(t->bpe.suffix);
    bs_free((void *)t->bpe.whole);
    bs_free(t->unigram.scores);
    free_steps(t);
    for (size_t i = 0; i < t->n_added; i++) bs_free(t->added[i].text);
    bs_free(t->added);
    tk_trie_free(&t->plain);
    tk_trie_free(&t->normalized);
    bs_free(t->before);
    bs_free(t->after);
    memset(t, 0, sizeof *t);
}

void tx_tokenizer_free(tx_tokenizer *t)
{
    if (!t) return;
    tk_clear(t);
    bs_free(t);
}

size_t tx_vocab_size(const tx_tokenizer *t)
{
    return t->vocab.n;
}

static const tk_token *token_of(const tx_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->vocab.n) return NULL;
    const tk_token *token = &t->vocab.tokens[id];
    return token->flags & TK_PRESENT ? token : NULL;
}

bool tx_token_text(const tx_tokenizer *t, int32_t id, bs_buf *out)
{
    const tk_token *token = token_of(t, id);
    if (!token) return false;
    const char *s = t->vocab.pool.data + token->offset;
    if (!(token->flags & TK_RAW)) return bs_buf_append(out, s, token->length);
    for (uint32_t i = 0; i < token->length; i++)
        tx_utf8_append(out, tx_byte_to_char((uint8_t)s[i]));
    return !out->failed;
}

/* U+2581 is a space where some decoder says so. */
static bool underline_is_space(const tx_tokenizer *t)
{
    for (int i = 0; i < t->n_decs; i++) {
        const tk_dec *d = &t->decs[i];
        const char *from = d->kind == TK_DEC_METASPACE ? d->text
                           : d->kind == TK_DEC_REPLACE ? d->find
                                                       : NULL;
        if (from && !strcmp(from, "\xE2\x96\x81")) return true;
    }
    return false;
}

bool tx_token_bytes(const tx_tokenizer *t, int32_t id, bs_buf *out)
{
    const tk_token *token = token_of(t, id);
    if (!token) return false;
    const char *s = t->vocab.pool.data + token->offset, *end = s + token->length;
    if (token->flags & (TK_RAW | TK_ADDED)) return bs_buf_append(out, s, token->length);
    const int32_t *bytes = t->model == TK_BPE ? t->bpe.fallback : t->unigram.fallback;
    for (int b = 0; b < 256; b++)
        if (bytes[b] == id) return bs_buf_putc(out, (char)b);
    bool spaces = underline_is_space(t);
    while (s < end) {
        bool space = spaces && end - s >= 3 && !memcmp(s, "\xE2\x96\x81", 3);
        bs_buf_append(out, space ? " " : s, 1);
        s += space ? 3 : 1;
    }
    return !out->failed;
}

int32_t tk_model_id(const tx_tokenizer *t, const char *text, size_t n)
{
    bs_buf raw = {0};
    int32_t id = -1;
    if (t->raw && tk_unmap(text, n, &raw) && raw.length)
        id = tk_vocab_find(&t->vocab, raw.data, raw.length, true);
    bs_buf_free(&raw);
    return id >= 0 ? id : tk_vocab_find(&t->vocab, text, n, false);
}

int32_t tx_token_id(const tx_tokenizer *t, const char *text, size_t n)
{
    int32_t id = tk_model_id(t, text, n);
    for (size_t i = 0; id < 0 && i < t->n_added; i++) {
        const tk_token *token = &t->vocab.tokens[t->added[i].id];
        if (token->flags & TK_MODEL || token->length != n) continue;
        if (!memcmp(t->vocab.pool.data + token->offset, text, n)) id = t->added[i].id;
    }
    return id;
}

bool tx_token_is_special(const tx_tokenizer *t, int32_t id)
{
    const tk_token *token = token_of(t, id);
    return token && token->flags & TK_SPECIAL;
}

bool tx_token_is_added(const tx_tokenizer *t, int32_t id)
{
    const tk_token *token = token_of(t, id);
    return token && token->flags & TK_ADDED;
}
