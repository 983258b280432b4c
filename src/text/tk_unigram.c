/* Unigram: the most probable cut of a piece into tokens. best[i] is the best way to write the first
 * i bytes; a character that no token starts with costs the unknown score. Sums are doubles, in the
 * reference's order, and the first of equals stays. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

typedef struct cell {
    double score;
    int64_t start; /* -1: not reached */
    int32_t id;
} cell;

static fm_status reserve(tk_work *w, size_t bytes)
{
    if (bytes <= w->scratch_size) return FM_OK;
    void *p = bs_realloc(w->scratch, bytes, 1);
    if (!p) return fm_fail_nomem(w->err, "encoding a text");
    w->scratch = p;
    w->scratch_size = bytes;
    return FM_OK;
}

static void offer(cell *c, double score, size_t start, int32_t id)
{
    if (c->start < 0 || score > c->score) *c = (cell){score, (int64_t)start, id};
}

/* Try every token that starts at `at`. */
static void extend(const tx_tokenizer *t, cell *best, const char *s, size_t n, size_t at)
{
    const tk_unigram *u = &t->unigram;
    size_t first = (size_t)tx_utf8_size((unsigned char)s[at]), longest = n - at;
    bool single = false;
    if (longest > u->longest) longest = u->longest;
    for (size_t k = 1; k <= longest; k++) {
        if (k < longest && ((unsigned char)s[at + k] & 0xC0) == 0x80) continue;
        int32_t id = tk_vocab_find(&t->vocab, s + at, k, t->raw);
        if (id < 0) continue;
        offer(&best[at + k], u->scores[id] + best[at].score, at, id);
        single = single || k == first;
    }
    if (!single) offer(&best[at + first], u->unk_score + best[at].score, at, u->unk);
}

/* A stretch that no token is: its bytes' tokens, or the unknown token. */
static fm_status put_unknown(tk_work *w, const char *s, size_t n)
{
    const tk_unigram *u = &w->t->unigram;
    bool all = u->byte_fallback;
    for (size_t i = 0; all && i < n; i++) all = u->fallback[(uint8_t)s[i]] >= 0;
    for (size_t i = 0; all && i < n; i++)
        if (!tx_ids_push(w->out, u->fallback[(uint8_t)s[i]]))
            return fm_fail_nomem(w->err, "encoding a text");
    if (all) return FM_OK;
    if (u->unk < 0)
        return fm_fail(w->err, FM_E_FORMAT,
                       "the text has a character that this Unigram model "
                       "does not know, and the tokenizer has no unk_id");
    return tx_ids_push(w->out, u->unk) ? FM_OK : fm_fail_nomem(w->err, "encoding a text");
}

fm_status tk_unigram_piece(tk_work *w, const char *s, size_t n)
{
    const tx_tokenizer *t = w->t;
    fm_status status = n ? reserve(w, (n + 1) * (sizeof(cell) + sizeof(size_t))) : FM_OK;
    if (status || !n) return status;
    cell *best = w->scratch;
    size_t *starts = (size_t *)(best + n + 1), count = 0; /* of the pieces, last first */
    for (size_t i = 0; i <= n; i++) best[i] = (cell){0, i ? -1 : 0, -1};
    for (size_t at = 0; at < n; at += (size_t)tx_utf8_size((unsigned char)s[at]))
        extend(t, best, s, n, at);
    bool open = false; /* the piece behind is unknown: a run of unknown characters is one */
    for (size_t at = n; at; at = (size_t)best[at].start) {
        bool unknown = t->unigram.unk >= 0 && best[at].id == t->unigram.unk;
        if (!(unknown && open)) count++;
        starts[count - 1] = (size_t)best[at].start;
        open = unknown;
    }
    for (size_t end; !status && count; count--) {
        size_t start = starts[count - 1];
        end = count > 1 ? starts[count - 2] : n;
        int32_t id = tk_vocab_find(&t->vocab, s + start, end - start, t->raw);
        if (id < 0) status = put_unknown(w, s + start, end - start);
        else if (!tx_ids_push(w->out, id)) status = fm_fail_nomem(w->err, "encoding a text");
    }
    return status;
}
