/* Pre-tokenizers. Each step cuts a piece and hands every part to the next step; the last hands
 * it to the model. So a text of any length needs no list of its pieces. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

static fm_status model_piece(tk_work *w, const char *s, size_t n)
{
    return w->t->model == TK_BPE ? tk_bpe_piece(w, s, n) : tk_unigram_piece(w, s, n);
}

static fm_status pass_on(tk_work *w, int step, const char *s, size_t n)
{
    if (!n) return FM_OK;
    return step + 1 < w->t->n_pres ? tk_pre_tokenize(w, step + 1, s, n) : model_piece(w, s, n);
}

/* What to do with matches and the gaps between them. A span waits in `from..to` while a behaviour
 * may still join something to it. */
typedef struct cutter {
    tk_work *w;
    const char *s;
    size_t from, to;
    int step;
    tk_behavior behavior;
    bool pending, previous;
} cutter;

static fm_status flush(cutter *c)
{
    bool pending = c->pending;
    c->pending = false;
    return pending ? pass_on(c->w, c->step, c->s + c->from, c->to - c->from) : FM_OK;
}

static fm_status hold(cutter *c, size_t from, size_t to)
{
    fm_status status = flush(c);
    c->from = from;
    c->to = to;
    c->pending = true;
    return status;
}

/* The next stretch of the piece: a match, or what lies between two. They arrive without gaps. */
static fm_status stretch(cutter *c, size_t from, size_t to, bool match)
{
    bool previous = c->previous;
    c->previous = match;
    switch (c->behavior) {
    case TK_REMOVED: return match ? FM_OK : pass_on(c->w, c->step, c->s + from, to - from);
    case TK_ISOLATED: return pass_on(c->w, c->step, c->s + from, to - from);
    case TK_CONTIGUOUS:
        if (c->pending && match == previous) return c->to = to, FM_OK;
        return hold(c, from, to);
    case TK_PREVIOUS:
        if (c->pending && match && !previous) return c->to = to, FM_OK;
        return hold(c, from, to);
    case TK_NEXT:
        if (c->pending && previous && !match) return c->to = to, flush(c);
        return hold(c, from, to);
    }
    return FM_OK;
}

/* Find the next match of a step's pattern in s at or after `at`. */
static fm_status find(tk_work *w, int step, const char *s, size_t n, size_t at, bool *found,
                      size_t *start, size_t *end)
{
    const tk_pre *p = &w->t->pres[step];
    if (p->matcher) return *found = p->matcher(s, n, at, start, end), FM_OK;
    if (p->regex)
        return tk_regex_find(p->regex, &w->regex[step], s, n, at, found, start, end, w->err);
    const char *hit = at < n ? memmem(s + at, n - at, p->text, p->n_text) : NULL;
    *found = hit != NULL;
    if (hit) *end = (*start = (size_t)(hit - s)) + p->n_text;
    return FM_OK;
}

static fm_status cut_by_pattern(tk_work *w, int step, const char *s, size_t n, tk_behavior behavior,
                                bool invert)
{
    cutter c = {.w = w, .s = s, .step = step, .behavior = behavior};
    size_t at = 0, done = 0, start = 0, end = 0;
    fm_status status = FM_OK;
    while (!status && at <= n) {
        bool found = false;
        status = find(w, step, s, n, at, &found, &start, &end);
        if (status || !found) break;
        if (start > done) status = stretch(&c, done, start, invert);
        if (!status && end > start) status = stretch(&c, start, end, !invert);
        done = end;
        at = end > at || end > start ? end : at;
        if (end == start)
            at = start < n ? start + (size_t)tx_utf8_size((unsigned char)s[start]) : n + 1;
    }
    if (!status && done < n) status = stretch(&c, done, n, invert);
    return status ? status : flush(&c);
}

/* Cut at characters of one kind, each a match of its own. */
typedef bool is_kind(const tk_pre *p, uint32_t c);

static bool kind_digit(const tk_pre *p, uint32_t c)
{
    (void)p;
    return tx_class(c) & TX_N;
}

static bool kind_space(const tk_pre *p, uint32_t c)
{
    (void)p;
    return tx_is_space(c);
}

static bool kind_punctuation(const tk_pre *p, uint32_t c)
{
    (void)p;
    return tx_is_punctuation(c);
}

static bool kind_character(const tk_pre *p, uint32_t c)
{
    return c == p->character;
}

static fm_status cut_by_kind(tk_work *w, int step, const char *s, size_t n, is_kind *is,
                             tk_behavior behavior)
{
    cutter c = {.w = w, .s = s, .step = step, .behavior = behavior};
    size_t done = 0;
    fm_status status = FM_OK;
    for (size_t at = 0; !status && at < n;) {
        int k;
        uint32_t character = tx_utf8_get(s + at, &k);
        if (is(&w->t->pres[step], character)) {
            if (done < at) status = stretch(&c, done, at, false);
            if (!status) status = stretch(&c, at, at + (size_t)k, true);
            done = at + (size_t)k;
        }
        at += (size_t)k;
    }
    if (!status && done < n) status = stretch(&c, done, n, false);
    return status ? status : flush(&c);
}

/* \w+|[^\w\s]+ with everything else removed. */
static fm_status cut_words(tk_work *w, int step, const char *s, size_t n)
{
    enum { SPACE, WORD, OTHER } was = SPACE;
    size_t start = 0, at = 0;
    fm_status status = FM_OK;
    while (!status && at < n) {
        int k;
        uint32_t c = tx_utf8_get(s + at, &k);
        int is = tx_is_word(c) ? WORD : tx_is_space(c) ? SPACE : OTHER;
        if (is != (int)was) {
            if (was != SPACE) status = pass_on(w, step, s + start, at - start);
            start = at;
            was = is;
        }
        at += (size_t)k;
    }
    if (!status && was != SPACE) status = pass_on(w, step, s + start, n - start);
    return status;
}

/* BertPreTokenizer: spaces removed, then punctuation alone. */
static fm_status cut_bert(tk_work *w, int step, const char *s, size_t n)
{
    size_t start = 0;
    fm_status status = FM_OK;
    for (size_t at = 0; !status && at <= n;) {
        int k = 1;
        bool space = at == n || tx_is_space(tx_utf8_get(s + at, &k));
        if (space && at > start)
            status = cut_by_kind(w, step, s + start, at - start, kind_punctuation, TK_ISOLATED);
        at += (size_t)k;
        if (space) start = at;
    }
    return status;
}

/* Spell s in GPT-2's characters. */
static bool spell(bs_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t c = tx_byte_to_char((uint8_t)s[i]);
        if (c < 0x80) bs_buf_putc(out, (char)c);
        else tx_utf8_append(out, c);
    }
    return !out->failed;
}

static fm_status bytes_spelled(tk_work *w, int step, const char *s, size_t n)
{
    bs_buf *spelled = &w->step[step];
    spelled->length = 0;
    if (!spell(spelled, s, n)) return fm_fail_nomem(w->err, "encoding a text");
    return pass_on(w, step, spelled->data, spelled->length);
}

/* ByteLevel. In the last place of a raw tokenizer the bytes go on as they are. */
static fm_status cut_bytes(tk_work *w, int step, const char *s, size_t n)
{
    const tk_pre *p = &w->t->pres[step];
    bs_buf prefixed = {0};
    if (p->add_prefix_space && *s != ' ') {
        bs_buf_putc(&prefixed, ' ');
        if (!bs_buf_append(&prefixed, s, n)) return fm_fail_nomem(w->err, "encoding a text");
        s = prefixed.data;
        n = prefixed.length;
    }
    fm_status status = FM_OK;
    bool spelled = !(w->t->raw && step + 1 == w->t->n_pres);
    if (!p->use_regex) status = spelled ? bytes_spelled(w, step, s, n) : pass_on(w, step, s, n);
    for (size_t at = 0, start, end; p->use_regex && !status && at < n; at = end) {
        if (!tk_match_gpt2(s, n, at, &start, &end)) break;
        status = spelled ? bytes_spelled(w, step, s + start, end - start)
                         : pass_on(w, step, s + start, end - start);
    }
    bs_buf_free(&prefixed);
    return status;
}

static fm_status cut_metaspace(tk_work *w, int step, const char *s, size_t n)
{
    const tk_pre *p = &w->t->pres[step];
    bs_buf *b = &w->step[step];
    b->length = 0;
    bool starts = (n && *s == ' ') || (n >= p->n_text && !memcmp(s, p->text, p->n_text));
    if (!starts && (p->scheme == TK_ALWAYS || (p->scheme == TK_FIRST && s == w->origin)))
        bs_buf_append(b, p->text, p->n_text);
    for (size_t i = 0; i < n;) {
        const char *space = memchr(s + i, ' ', n - i);
        size_t to = space ? (size_t)(space - s) : n;
        bs_buf_append(b, s + i, to - i);
        if (space) bs_buf_append(b, p->text, p->n_text);
        i = to + 1;
    }
    if (b->failed) return fm_fail_nomem(w->err, "encoding a text");
    if (!p->cut) return pass_on(w, step, b->data, b->length);
    return cut_by_pattern(w, step, b->data, b->length, TK_NEXT, false);
}

fm_status tk_pre_tokenize(tk_work *w, int step, const char *s, size_t n)
{
    if (!n) return FM_OK;
    if (step >= w->t->n_pres) return model_piece(w, s, n);
    const tk_pre *p = &w->t->pres[step];
    switch (p->kind) {
    case TK_SPLIT: return cut_by_pattern(w, step, s, n, p->behavior, p->invert);
    case TK_BYTES: return cut_bytes(w, step, s, n);
    case TK_METASPACE: return cut_metaspace(w, step, s, n);
    case TK_DIGITS:
        return cut_by_kind(w, step, s, n, kind_digit, p->one_by_one ? TK_ISOLATED : TK_CONTIGUOUS);
    case TK_WHITESPACE: return cut_words(w, step, s, n);
    case TK_WHITESPACE_SPLIT: return cut_by_kind(w, step, s, n, kind_space, TK_REMOVED);
    case TK_PUNCTUATION: return cut_by_kind(w, step, s, n, kind_punctuation, p->behavior);
    case TK_BERT_PUNCTUATION: return cut_bert(w, step, s, n);
    case TK_CHAR_SPLIT: return cut_by_kind(w, step, s, n, kind_character, TK_REMOVED);
    }
    return FM_OK;
}
