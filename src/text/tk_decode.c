/* Decoding runs the file's decoders as a chain of small machines, one token at a time, so that a
 * whole text and a stream go the same way. Between the stages flows a list of tokens; a token may
 * come in several pieces, the first of which says that it starts one. A stage that cannot
 * know yet what a later token changes keeps it back until it does, at the latest at the end. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

typedef struct stage {
    const tk_dec *dec;
    bs_buf held;  /* BYTES: a cut character; BYTE_FALLBACK: the run's bytes; STRIP: what may be the
                     end */
    bs_buf built; /* REPLACE, METASPACE: the token as it goes on */
    size_t skipped;  /* STRIP: leading characters dropped from the token */
    size_t n_tokens; /* started in this stage so far */
    bool at_head;    /* STRIP: nothing of the token has been kept yet */
    bool open;       /* BYTE_FALLBACK: the token that is passing is not a byte */
    tk_regex_state regex;
} stage;

struct tx_stream {
    const tx_tokenizer *t;
    bool skip_special, any;
    bs_buf *out;
    fm_error *err;
    bs_buf text, spelled;
    stage stages[TK_MAX_STEPS];
};

static fm_status send(tx_stream *s, int to, const char *text, size_t n, bool starts);

static fm_status no_memory(tx_stream *s)
{
    return fm_fail_nomem(s->err, "decoding");
}

/* --- ByteLevel: one token of text from all the bytes
 * -------------------------------------------------- */

static fm_status bytes_out(tx_stream *s, int i, bool at_end)
{
    stage *g = &s->stages[i];
    const char *p = g->held.data, *end = p + g->held.length;
    const char *good = p;
    fm_status status = FM_OK;
    bool cut = false;
    while (!status && p < end && !cut) {
        int k = tx_utf8_check(p, end, &cut);
        if (cut && !at_end) break;
        cut = false;
        if (k > 0) {
            p += k;
            continue;
        }
        status = send(s, i + 1, good, (size_t)(p - good), !g->n_tokens++);
        if (!status) status = send(s, i + 1, "\xEF\xBF\xBD", 3, false);
        good = p -= k;
    }
    if (!status && p > good) status = send(s, i + 1, good, (size_t)(p - good), !g->n_tokens++);
    size_t rest = (size_t)(end - p);
    if (rest) memmove(g->held.data, p, rest);
    g->held.length = rest;
    return status;
}

static fm_status stage_bytes(tx_stream *s, int i, const char *text, size_t n)
{
    stage *g = &s->stages[i];
    if (!tk_unmap(text, n, &g->held) && !bs_buf_append(&g->held, text, n)) return no_memory(s);
    return g->held.length ? bytes_out(s, i, false) : FM_OK;
}

/* --- ByteFallback: a run of <0xNN> is text when all of it is, else a U+FFFD for each
 * ------------------- */

static int byte_of(const char *text, size_t n)
{
    int v = 0;
    if (n != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
    for (int i = 3; i < 5; i++) {
        char c = text[i], l = (char)(c | 32);
        if (i == 3 && c == '+') continue; /* as Rust reads numbers */
        if (c >= '0' && c <= '9') v = v * 16 + c - '0';
        else if (l >= 'a' && l <= 'f') v = v * 16 + l - 'a' + 10;
        else return -1;
    }
    return v;
}

static fm_status run_out(tx_stream *s, int i)
{
    stage *g = &s->stages[i];
    size_t n = g->held.length;
    fm_status status = FM_OK;
    g->held.length = 0;
    if (!n) return FM_OK;
    if (tx_utf8_valid(g->held.data, n)) return send(s, i + 1, g->held.data, n, true);
    while (!status && n--) status = send(s, i + 1, "\xEF\xBF\xBD", 3, true);
    return status;
}

static fm_status stage_byte_fallback(tx_stream *s, int i, const char *text, size_t n, bool starts)
{
    int byte = starts ? byte_of(text, n) : -1;
    if (byte >= 0) return bs_buf_putc(&s->stages[i].held, (char)byte) ? FM_OK : no_memory(s);
    fm_status status = run_out(s, i);
    return status ? status : send(s, i + 1, text, n, starts);
}

/* --- Strip: leading and trailing characters of each token
 * ------------------------------------------------ */

/* What waits at the end of a token is dropped up to `stop` times, when the token is over. */
static fm_status strip_end(tx_stream *s, int i)
{
    stage *g = &s->stages[i];
    size_t size = g->dec->n_text, cut = (size_t)g->dec->stop * size;
    size_t n = g->held.length > cut ? g->held.length - cut : 0;
    g->held.length = 0;
    return n ? send(s, i + 1, g->held.data, n, false) : FM_OK;
}

static fm_status stage_strip(tx_stream *s, int i, const char *text, size_t n, bool starts)
{
    stage *g = &s->stages[i];
    const char *c = g->dec->text;
    size_t size = g->dec->n_text, at = 0;
    fm_status status = FM_OK;
    if (starts) {
        if (g->n_tokens++) status = strip_end(s, i);
        if (!status) status = send(s, i + 1, "", 0, true);
        g->skipped = 0;
        g->at_head = true;
    }
    while (g->at_head && g->skipped < (size_t)g->dec->start && n - at >= size &&
           !memcmp(text + at, c, size)) {
        at += size;
        g->skipped++;
    }
    if (at < n) g->at_head = false;
    size_t tail = n;
    while (g->dec->stop && tail - at >= size && !memcmp(text + tail - size, c, size)) tail -= size;
    if (!status && tail > at && g->held.length) {
        status = send(s, i + 1, g->held.data, g->held.length, false);
        g->held.length = 0;
    }
    if (!status && tail > at) status = send(s, i + 1, text + at, tail - at, false);
    if (!status && n > tail && !bs_buf_append(&g->held, text + tail, n - tail)) return no_memory(s);
    return status;
}

/* --- Replace
 * ---------------------------------------------------------------------------------------------- */

static fm_status replaced(tx_stream *s, int i, const char *text, size_t n, bool starts)
{
    stage *g = &s->stages[i];
    const tk_dec *d = g->dec;
    size_t at = 0, done = 0;
    fm_status status = FM_OK;
    g->built.length = 0;
    while (at <= n) {
        size_t start = 0, end = 0;
        bool found;
        if (d->regex)
            status = tk_regex_find(d->regex, &g->regex, text, n, at, &found, &start, &end, s->err);
        else {
            const char *hit = d->n_find ? memmem(text + at, n - at, d->find, d->n_find) : NULL;
            found = hit != NULL;
            if (hit) end = (start = (size_t)(hit - text)) + d->n_find;
        }
        if (status || !found) break;
        bs_buf_append(&g->built, text + done, start - done);
        bs_buf_append(&g->built, d->text, d->n_text);
        done = at = end;
        if (end == start) at += start < n ? (size_t)tx_utf8_size((unsigned char)text[start]) : 1;
    }
    if (status) return status;
    if (!bs_buf_append(&g->built, text + done, n - done)) return no_memory(s);
    return send(s, i + 1, g->built.data, g->built.length, starts);
}

/* A token in one piece is replaced at once; one that is still growing (behind Fuse or ByteLevel)
 * only when what is looked for is one character, which no piece cuts. Else the whole token is
 * awaited. */
static fm_status stage_replace(tx_stream *s, int i, const char *text, size_t n, bool starts)
{
    stage *g = &s->stages[i];
    const tk_dec *d = g->dec;
    bool grows = i > 0 && (d[-1].kind == TK_DEC_FUSE || d[-1].kind == TK_DEC_BYTES);
    bool one =
        !d->regex && d->n_find && (size_t)tx_utf8_size((unsigned char)d->find[0]) == d->n_find;
    if (!grows || one) return replaced(s, i, text, n, starts);
    return bs_buf_append(&g->held, text, n) ? FM_OK : no_memory(s);
}

/* --- Metaspace, WordPiece, BPEDecoder
 * ------------------------------------------------------------------- */

static fm_status stage_metaspace(tx_stream *s, int i, const char *text, size_t n, bool starts)
{
    stage *g = &s->stages[i];
    const tk_dec *d = g->dec;
    if (starts) g->n_tokens++;
    bool drop = g->n_tokens == 1 && d->drop_first;
    g->built.length = 0;
    for (size_t at = 0; at < n;) {
        const char *hit = memmem(text + at, n - at, d->text, d->n_text);
        size_t to = hit ? (size_t)(hit - text) : n;
        bs_buf_append(&g->built, text + at, to - at);
        if (hit && !drop) bs_buf_putc(&g->built, ' ');
        at = to + (hit ? d->n_text : 0);
    }
    if (!bs_buf_reserve(&g->built, 0)) return no_memory(s);
    return send(s, i + 1, g->built.data, g->built.length, starts);
}

static const char *const cleanups[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                          {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                          {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                          {" 've", "'ve"}, {" 're", "'re"}};

static bool clean_up(bs_buf *text)
{
    for (size_t i = 0; i < sizeof cleanups / sizeof *cleanups; i++) {
        const char *find = cleanups[i][0], *put = cleanups[i][1];
        bs_buf next = {0};
        const char *at = text->data, *end = at + text->length, *hit;
        while ((hit = memmem(at, (size_t)(end - at), find, strlen(find)))) {
            bs_buf_append(&next, at, (size_t)(hit - at));
            bs_buf_puts(&next, put);
            at = hit + strlen(find);
        }
        if (!bs_buf_append(&next, at, (size_t)(end - at))) return bs_buf_free(&next), false;
        bs_buf_free(text);
        *text = next;
    }
    return true;
}

static fm_status stage_wordpiece(tx_stream *s, int i, const char *text, size_t n)
{
    stage *g = &s->stages[i];
    const tk_dec *d = g->dec;
    bs_buf piece = {0};
    if (g->n_tokens++) {
        if (n >= d->n_find && !memcmp(text, d->find, d->n_find)) text += d->n_find, n -= d->n_find;
        else bs_buf_putc(&piece, ' ');
    }
    bs_buf_append(&piece, text, n);
    fm_status status = piece.failed || (d->drop_first && !clean_up(&piece))
                           ? no_memory(s)
                           : send(s, i + 1, piece.data, piece.length, true);
    bs_buf_free(&piece);
    return status;
}

/* The suffix that ends a word is a space, but nothing in the last token: one token is kept back. */
static fm_status suffix_out(tx_stream *s, int i, bool last)
{
    stage *g = &s->stages[i];
    const tk_dec *d = g->dec;
    fm_status status = send(s, i + 1, "", 0, true);
    const char *text = g->held.data, *end = text + g->held.length, *hit;
    while (!status && d->n_find && (hit = memmem(text, (size_t)(end - text), d->find, d->n_find))) {
        status = send(s, i + 1, text, (size_t)(hit - text), false);
        if (!status && !last) status = send(s, i + 1, " ", 1, false);
        text = hit + d->n_find;
    }
    if (!status) status = send(s, i + 1, text, (size_t)(end - text), false);
    g->held.length = 0;
    return status;
}

static fm_status stage_suffix(tx_stream *s, int i, const char *text, size_t n)
{
    stage *g = &s->stages[i];
    fm_status status = g->n_tokens++ ? suffix_out(s, i, false) : FM_OK;
    if (status) return status;
    return bs_buf_append(&g->held, text, n) ? FM_OK : no_memory(s);
}

/* --- the chain
 * ---------------------------------------------------------------------------------------------- */

static fm_status send(tx_stream *s, int to, const char *text, size_t n, bool starts)
{
    if (to == s->t->n_decs) {
        if (!s->t->n_decs && starts && s->any) bs_buf_putc(s->out, ' ');
        s->any = true;
        return bs_buf_append(s->out, text, n) ? FM_OK : no_memory(s);
    }
    stage *g = &s->stages[to];
    if (!n && !starts) return FM_OK;
    switch (g->dec->kind) {
    case TK_DEC_BYTES: return stage_bytes(s, to, text, n);
    case TK_DEC_METASPACE: return stage_metaspace(s, to, text, n, starts);
    case TK_DEC_BYTE_FALLBACK: return stage_byte_fallback(s, to, text, n, starts);
    case TK_DEC_FUSE: return send(s, to + 1, text, n, !g->n_tokens++);
    case TK_DEC_STRIP: return stage_strip(s, to, text, n, starts);
    case TK_DEC_REPLACE: return stage_replace(s, to, text, n, starts);
    case TK_DEC_WORDPIECE: return stage_wordpiece(s, to, text, n);
    case TK_DEC_BPE: return stage_suffix(s, to, text, n);
    }
    return FM_OK;
}

/* The list of tokens is over for stage i. */
static fm_status close_stage(tx_stream *s, int i)
{
    stage *g = &s->stages[i];
    fm_status status = FM_OK;
    switch (g->dec->kind) {
    case TK_DEC_BYTES: status = g->held.length ? bytes_out(s, i, true) : FM_OK; break;
    case TK_DEC_BYTE_FALLBACK: status = run_out(s, i); break;
    case TK_DEC_STRIP: status = strip_end(s, i); break;
    case TK_DEC_BPE: status = g->n_tokens ? suffix_out(s, i, true) : FM_OK; break;
    case TK_DEC_REPLACE:
        if (g->held.length) status = replaced(s, i, g->held.data, g->held.length, true);
        break;
    default: break;
    }
    g->held.length = 0;
    g->n_tokens = 0;
    return status;
}

static fm_status push(tx_stream *s, int32_t id)
{
    const tk_vocab *v = &s->t->vocab;
    if (id < 0 || (size_t)id >= v->n || !(v->tokens[id].flags & TK_PRESENT)) return FM_OK;
    const tk_token *token = &v->tokens[id];
    if (s->skip_special && token->flags & TK_SPECIAL) return FM_OK;
    const char *text = v->pool.data + token->offset;
    size_t n = token->length;
    if (token->flags &
        TK_RAW) { /* kept as bytes: straight into a ByteLevel stage, spelled for any other */
        if (s->t->n_decs && s->stages[0].dec->kind == TK_DEC_BYTES) {
            if (!bs_buf_append(&s->stages[0].held, text, n)) return no_memory(s);
            return n ? bytes_out(s, 0, false) : FM_OK;
        }
        s->spelled.length = 0;
        if (!tx_token_text(s->t, id, &s->spelled)) return no_memory(s);
        text = s->spelled.data ? s->spelled.data : "";
        n = s->spelled.length;
    }
    return send(s, 0, text, n, true);
}

static void stream_start(tx_stream *s, const tx_tokenizer *t, bool skip_special)
{
    memset(s, 0, sizeof *s);
    s->t = t;
    s->skip_special = skip_special;
    for (int i = 0; i < t->n_decs; i++) s->stages[i].dec = &t->decs[i];
}

static void stream_clear(tx_stream *s)
{
    for (int i = 0; i < TK_MAX_STEPS; i++) {
        bs_buf_free(&s->stages[i].held);
        bs_buf_free(&s->stages[i].built);
        tk_regex_state_free(&s->stages[i].regex);
    }
    bs_buf_free(&s->spelled);
}

fm_status tx_stream_open(const tx_tokenizer *t, bool skip_special, tx_stream **out, fm_error *err)
{
    tx_stream *s = bs_malloc(sizeof *s);
    if (!s) return fm_fail_nomem(err, "starting to decode");
    stream_start(s, t, skip_special);
    *out = s;
    return FM_OK;
}

fm_status tx_stream_push(tx_stream *s, int32_t id, bs_buf *out, fm_error *err)
{
    s->out = out;
    s->err = err;
    return push(s, id);
}

fm_status tx_stream_finish(tx_stream *s, bs_buf *out, fm_error *err)
{
    fm_status status = FM_OK;
    s->out = out;
    s->err = err;
    for (int i = 0; !status && i < s->t->n_decs; i++) status = close_stage(s, i);
    s->any = false;
    return status;
}

void tx_stream_free(tx_stream *s)
{
    if (!s) return;
    stream_clear(s);
    bs_free(s);
}

fm_status tx_decode(const tx_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                    bs_buf *out, fm_error *err)
{
    tx_stream *s = NULL;
    size_t was = out->length;
    fm_status status = tx_stream_open(t, skip_special, &s, err);
    if (status) return status;
    for (size_t i = 0; !status && i < n; i++) status = tx_stream_push(s, ids[i], out, err);
    if (!status) status = tx_stream_finish(s, out, err);
    if (status) out->length = was;
    tx_stream_free(s);
    return status;
}
