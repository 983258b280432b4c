/* Encoding: the raw text is cut at the added tokens that are searched there; the rest is
 * normalised and cut at the others; what remains goes through the pre-tokenizers to the model. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>

typedef struct encoder {
    tk_work work;
    const uint8_t *blocked; /* by added token: a control token, not to be made of content */
} encoder;

static bool word_before(const char *s, size_t at)
{
    if (!at) return false;
    do at--;
    while (at && ((unsigned char)s[at] & 0xC0) == 0x80);
    int k;
    return tx_is_word(tx_utf8_get(s + at, &k));
}

static bool word_after(const char *s, size_t n, size_t at)
{
    int k;
    return at < n && tx_is_word(tx_utf8_get(s + at, &k));
}

static size_t spaces_before(const char *s, size_t at)
{
    while (at) {
        size_t back = at;
        int k;
        do back--;
        while (back && ((unsigned char)s[back] & 0xC0) == 0x80);
        if (!tx_is_space(tx_utf8_get(s + back, &k))) break;
        at = back;
    }
    return at;
}

static size_t spaces_after(const char *s, size_t n, size_t at)
{
    int k;
    while (at < n && tx_is_space(tx_utf8_get(s + at, &k))) at += (size_t)k;
    return at;
}

typedef fm_status rest_fn(encoder *e, const char *s, size_t n, const uint8_t *content);

/* Cut s at the tokens of a trie; ids go out, the rest goes to `rest`. The search goes on behind the
 * token itself, not behind the spaces that it swallows: as in the reference, the next token
 * may stand in those. */
static fm_status cut_at_added(encoder *e, const tk_trie *trie, const char *s, size_t n,
                              const uint8_t *content, rest_fn *rest)
{
    const tx_tokenizer *t = e->work.t;
    size_t at = 0, done = 0;
    tk_match m;
    fm_status status = FM_OK;
    while (!status && tk_trie_find(trie, s, n, at, content, e->blocked, &m)) {
        const tk_added *token = &t->added[m.token];
        at = m.end;
        if (token->single_word && (word_before(s, m.start) || word_after(s, n, m.end))) continue;
        size_t start = m.start, end = m.end;
        if (token->lstrip) {
            start = spaces_before(s, start);
            if (start < done) start = done;
        }
        if (token->rstrip) end = spaces_after(s, n, end);
        if (done < start) status = rest(e, s + done, start - done, content ? content + done : NULL);
        if (!status && !tx_ids_push(e->work.out, token->id))
            status = fm_fail_nomem(e->work.err, "encoding a text");
        done = end;
    }
    if (!status && done < n) status = rest(e, s + done, n - done, content ? content + done : NULL);
    return status;
}

static fm_status model_text(encoder *e, const char *s, size_t n, const uint8_t *content)
{
    (void)content;
    return tk_pre_tokenize(&e->work, 0, s, n);
}

static fm_status normalised_text(encoder *e, const char *s, size_t n, const uint8_t *content)
{
    const char *out;
    size_t n_out;
    const uint8_t *flags;
    bool first = s == e->work.origin;
    bool track = content && e->work.t->special_normalized;
    fm_status status = tk_normalize(&e->work, s, n, track ? content : NULL, &out, &n_out, &flags);
    if (status || !n_out) return status;
    const char *kept = e->work.origin;
    e->work.origin = first ? out : NULL;
    status = cut_at_added(e, &e->work.t->normalized, out, n_out, flags, model_text);
    e->work.origin = kept;
    return status;
}

static void work_free(tk_work *w)
{
    for (int i = 0; i < TK_MAX_STEPS; i++) {
        bs_buf_free(&w->step[i]);
        tk_regex_state_free(&w->regex[i]);
    }
    for (int i = 0; i < 2; i++) {
        bs_buf_free(&w->norm[i]);
        bs_buf_free(&w->flags[i]);
    }
    bs_buf_free(&w->lookup);
    bs_free(w->symbols);
    bs_free(w->cache);
    bs_free(w->scratch);
}

static fm_status push_all(tx_ids *out, const int32_t *ids, size_t n, fm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!tx_ids_push(out, ids[i])) return fm_fail_nomem(err, "encoding a text");
    return FM_OK;
}

/* s is well-formed UTF-8. */
static fm_status encode(const tx_tokenizer *t, const char *s, size_t n, const uint8_t *content,
                        const uint8_t *blocked, unsigned flags, tx_ids *out, fm_error *err)
{
    size_t was = out->length;
    encoder *e = bs_calloc(1, sizeof *e);
    if (!e) return fm_fail_nomem(err, "encoding a text");
    e->work = (tk_work){.t = t, .out = out, .err = err, .origin = s};
    e->blocked = blocked;
    fm_status status = FM_OK;
    if (flags & TX_ADD_SPECIAL) status = push_all(out, t->before, t->n_before, err);
    if (!status && n) status = cut_at_added(e, &t->plain, s, n, content, normalised_text);
    if (!status && flags & TX_ADD_SPECIAL) status = push_all(out, t->after, t->n_after, err);
    if (status) out->length = was;
    work_free(&e->work);
    bs_free(e);
    return status;
}

/* The segments' text made well-formed, and its content bytes flagged. */
static fm_status lay_out(const char *text, const tx_segment *segments, size_t n_segments,
                         bs_buf *clean, bs_buf *flags, fm_error *err)
{
    for (size_t i = 0; i < n_segments; i++) {
        size_t was = clean->length;
        tx_utf8_append_lossy(clean, text, segments[i].length);
        text += segments[i].length;
        if (clean->failed || !bs_buf_reserve(flags, clean->length - was)) break;
        memset(flags->data + flags->length, segments[i].content, clean->length - was);
        flags->length = clean->length;
    }
    return clean->failed || flags->failed ? fm_fail_nomem(err, "encoding a text") : FM_OK;
}

static uint8_t *blocked_tokens(const tx_tokenizer *t, const tx_control *control)
{
    uint8_t *blocked = bs_calloc(t->n_added, 1);
    for (size_t i = 0; blocked && i < t->n_added; i++) {
        blocked[i] = t->added[i].special;
        for (size_t j = 0; control && j < control->n_more; j++)
            if (control->more[j] == t->added[i].id) blocked[i] = 1;
    }
    return blocked;
}

fm_status tx_encode_segments(const tx_tokenizer *t, const char *text, size_t n,
                             const tx_segment *segments, size_t n_segments,
                             const tx_control *control, unsigned flags, tx_ids *out, fm_error *err)
{
    size_t total = 0;
    bool any = false;
    for (size_t i = 0; i < n_segments; i++) {
        if (!bs_add(total, segments[i].length, &total)) total = SIZE_MAX;
        any = any || segments[i].content;
    }
    if (total != n)
        return fm_fail(err, FM_E_ARGUMENT, "segments of %zu bytes for a text of %zu", total, n);
    if (!any) return tx_encode(t, text, n, flags & ~(unsigned)TX_CONTENT, out, err);
    bs_buf clean = {0}, content = {0};
    uint8_t *blocked = blocked_tokens(t, control);
    fm_status status = blocked ? lay_out(text, segments, n_segments, &clean, &content, err)
                               : fm_fail_nomem(err, "encoding a text");
    if (!status)
        status = encode(t, clean.data ? clean.data : "", clean.length, (uint8_t *)content.data,
                        blocked, flags, out, err);
    bs_free(blocked);
    bs_buf_free(&clean);
    bs_buf_free(&content);
    return status;
}

fm_status tx_encode(const tx_tokenizer *t, const char *text, size_t n, unsigned flags, tx_ids *out,
                    fm_error *err)
{
    if (flags & TX_CONTENT) {
        tx_segment all = {n, true};
        return tx_encode_segments(t, text, n, &all, 1, NULL, flags & ~(unsigned)TX_CONTENT, out,
                                  err);
    }
    if (tx_utf8_valid(text, n)) return encode(t, text, n, NULL, NULL, flags, out, err);
    bs_buf clean = {0};
    fm_status status = tx_utf8_append_lossy(&clean, text, n)
                           ? encode(t, clean.data, clean.length, NULL, NULL, flags, out, err)
                           : fm_fail_nomem(err, "encoding a text");
    bs_buf_free(&clean);
    return status;
}
