/* Normalizers: each reads a text and writes the next one. Where it matters which bytes are content,
 * a flag a byte travels with the text; what is made of several bytes is content when any of them
 * is. */
#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

typedef struct emitter {
    tk_work *w;
    bs_buf *out, *out_flags;
    const char *s;
    size_t n;
    const uint8_t *flags; /* of s, or NULL */
} emitter;

static void flag(emitter *e, size_t n, bool content)
{
    if (!e->flags || !bs_buf_reserve(e->out_flags, n)) return;
    memset(e->out_flags->data + e->out_flags->length, content, n);
    e->out_flags->length += n;
}

/* Append text that stands for s[from..to). */
static void emit(emitter *e, const char *text, size_t n, size_t from, size_t to)
{
    bs_buf_append(e->out, text, n);
    if (e->flags) flag(e, n, to > from && memchr(e->flags + from, 1, to - from));
}

static void emit_char(emitter *e, uint32_t c, size_t from, size_t to)
{
    char text[4];
    emit(e, text, (size_t)tx_utf8_put(c, text), from, to);
}

static void copy(emitter *e, size_t from, size_t to)
{
    bs_buf_append(e->out, e->s + from, to - from);
    if (e->flags) bs_buf_append(e->out_flags, e->flags + from, to - from);
}

/* --- Unicode forms -------------------------------------------------------------------------------
 */

/* Characters that NFC leaves alone whatever stands beside them; may say no to some that are. */
static bool nfc_stable(uint32_t c)
{
    if (c < 0x300) return true;
    if ((c >= 0x400 && c <= 0x45F) || (c >= 0x1EA0 && c <= 0x1EF9) ||
        (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A1 && c <= 0x30FA) ||
        (c >= 0x3400 && c <= 0x9FFF))
        return true;
    if (c >= 0x1160 && c <= 0x11FF) return false;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    bool second = p->comb_index != UINT16_MAX && p->comb_index >= 0x8000;
    bool decomposes = p->decomp_seqindex != UINT16_MAX && !p->decomp_type;
    return !p->combining_class && !second && !decomposes;
}

typedef struct points {
    utf8proc_int32_t *data;
    size_t n, capacity;
} points;

static bool points_reserve(points *p, size_t more)
{
    if (p->n + more <= p->capacity) return true;
    size_t capacity = p->capacity ? p->capacity * 2 : 256;
    while (capacity < p->n + more) capacity *= 2;
    utf8proc_int32_t *data = bs_realloc(p->data, capacity, sizeof *data);
    if (!data) return false;
    p->data = data;
    p->capacity = capacity;
    return true;
}

static unsigned class_of(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class;
}

/* Stable sort of a run of marks by combining class: counted, for a run may be megabytes long. */
static bool order_marks(utf8proc_int32_t *c, size_t n)
{
    size_t start[257] = {0};
    bool sorted = true;
    for (size_t i = 1; i < n; i++) sorted = sorted && class_of(c[i - 1]) <= class_of(c[i]);
    if (sorted) return true;
    utf8proc_int32_t *copy_of = bs_realloc(NULL, n, sizeof *copy_of);
    if (!copy_of) return false;
    memcpy(copy_of, c, n * sizeof *c);
    for (size_t i = 0; i < n; i++) start[class_of(c[i]) + 1]++;
    for (int i = 0; i < 256; i++) start[i + 1] += start[i];
    for (size_t i = 0; i < n; i++) c[start[class_of(copy_of[i])]++] = copy_of[i];
    bs_free(copy_of);
    return true;
}

static bool order_all(points *p)
{
    for (size_t i = 0; i < p->n; i++) {
        size_t from = i;
        while (i < p->n && class_of(p->data[i])) i++;
        if (i - from > 1 && !order_marks(p->data + from, i - from)) return false;
    }
    return true;
}

static bool decompose(points *p, const char *s, size_t n, int options)
{
    for (size_t i = 0; i < n;) {
        int k, last = 0;
        if (!points_reserve(p, 32)) return false;
        utf8proc_int32_t c = (utf8proc_int32_t)tx_utf8_get(s + i, &k);
        utf8proc_ssize_t got = utf8proc_decompose_char(c, p->data + p->n, 32, options, &last);
        if (got < 0 || got > 32) return false;
        p->n += (size_t)got;
        i += (size_t)k;
    }
    return true;
}

/* s[from..to) through the full algorithm. */
static void form_slowly(emitter *e, size_t from, size_t to, int options)
{
    points p = {0};
    bool ok = decompose(&p, e->s + from, to - from, options) && order_all(&p);
    if (ok && options & UTF8PROC_COMPOSE) {
        utf8proc_ssize_t n =
            utf8proc_normalize_utf32(p.data, (utf8proc_ssize_t)p.n, options | UTF8PROC_STABLE);
        ok = n >= 0;
        p.n = ok ? (size_t)n : 0;
    }
    for (size_t i = 0; ok && i < p.n; i++) emit_char(e, (uint32_t)p.data[i], from, to);
    if (!ok) e->out->failed = true;
    bs_free(p.data);
}

/* ASCII is its own form, so a chunk from one ASCII character to the next can be done alone. */
static void form(emitter *e, tk_norm_kind kind)
{
    int options = UTF8PROC_STABLE |
                  (kind == TK_NFC || kind == TK_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                  (kind == TK_NFKC || kind == TK_NFKD ? UTF8PROC_COMPAT : 0);
    size_t i = 0, n = e->n;
    while (i < n) {
        size_t from = i;
        while (i < n && (unsigned char)e->s[i] < 0x80) i++;
        size_t base = i > from && i < n ? i - 1 : i; /* the character that marks may join */
        copy(e, from, base);
        bool stable = kind == TK_NFC;
        for (int k; i < n && (unsigned char)e->s[i] >= 0x80; i += (size_t)k) {
            uint32_t c = tx_utf8_get(e->s + i, &k);
            stable = stable && nfc_stable(c);
        }
        if (stable) copy(e, base, i);
        else if (base < i) form_slowly(e, base, i, options);
    }
}

/* --- the others ----------------------------------------------------------------------------------
 */

static void prepend(emitter *e, const tk_norm *norm)
{
    emit(e, norm->text, norm->n_text, 0, 0);
    copy(e, 0, e->n);
}

static fm_status replace(emitter *e, const tk_norm *norm)
{
    tk_regex_state state = {0};
    size_t done = 0, at = 0;
    fm_status status = FM_OK;
    while (at <= e->n) {
        bool found;
        size_t start = 0, end = 0;
        if (norm->regex) {
            status =
                tk_regex_find(norm->regex, &state, e->s, e->n, at, &found, &start, &end, e->w->err);
        } else {
            const char *hit =
                norm->n_find ? memmem(e->s + at, e->n - at, norm->find, norm->n_find) : NULL;
            found = hit != NULL;
            if (hit) end = (start = (size_t)(hit - e->s)) + norm->n_find;
        }
        if (status || !found) break;
        copy(e, done, start);
        emit(e, norm->text, norm->n_text, start, end);
        done = at = end;
        if (end == start) at += start < e->n ? (size_t)tx_utf8_size((unsigned char)e->s[start]) : 1;
    }
    tk_regex_state_free(&state);
    if (!status) copy(e, done, e->n);
    return status;
}

static void strip(emitter *e, const tk_norm *norm)
{
    size_t from = 0, to = e->n;
    int k;
    while (norm->left && from < to && tx_is_space(tx_utf8_get(e->s + from, &k))) from += (size_t)k;
    while (norm->right && to > from) {
        size_t last = to - 1;
        while (((unsigned char)e->s[last] & 0xC0) == 0x80) last--;
        if (!tx_is_space(tx_utf8_get(e->s + last, &k))) break;
        to = last;
    }
    copy(e, from, to);
}

static void lower_one(emitter *e, uint32_t c, size_t from, size_t to)
{
    if (c == 0x130) emit(e, "i\xCC\x87", 3, from, to);
    else emit_char(e, tx_lower(c), from, to);
}

static void each_char(emitter *e, const tk_norm *norm)
{
    for (size_t i = 0, k; i < e->n; i += k) {
        int size;
        uint32_t c = tx_utf8_get(e->s + i, &size);
        k = (size_t)size;
        if (norm->kind == TK_LOWERCASE) lower_one(e, c, i, i + k);
        else if (norm->kind == TK_STRIP_ACCENTS) {
            bool mark = norm->left ? utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN
                                   : tx_class(c) & TX_M;
            if (!mark) copy(e, i, i + k);
        } else
            for (size_t j = 0; j < k; j++)
                emit_char(e, tx_byte_to_char((uint8_t)e->s[i + j]), i, i + k);
    }
}

/* SentencePiece's nmt: control characters go, the odd spaces become plain ones. */
static void nmt(emitter *e)
{
    for (size_t i = 0, k; i < e->n; i += k) {
        int size;
        uint32_t c = tx_utf8_get(e->s + i, &size);
        k = (size_t)size;
        if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
            c == 0x9F)
            continue;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
        if (space) emit_char(e, ' ', i, i + k);
        else copy(e, i, i + k);
    }
}

static bool is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void bert(emitter *e, const tk_norm *norm)
{
    for (size_t i = 0, k; i < e->n; i += k) {
        int size;
        uint32_t c = tx_utf8_get(e->s + i, &size);
        k = (size_t)size;
        int category = utf8proc_category((utf8proc_int32_t)c);
        bool control = c != '\t' && c != '\n' && c != '\r' &&
                       (category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
                        category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_CO);
        if (norm->clean && (!c || c == 0xFFFD || control)) continue;
        if (norm->clean && tx_is_space(c)) c = ' ';
        bool alone = norm->chinese && is_cjk(c);
        if (alone) emit_char(e, ' ', i, i + k);
        emit_char(e, c, i, i + k);
        if (alone) emit_char(e, ' ', i, i + k);
    }
}

static fm_status run(emitter *e, const tk_norm *norm)
{
    switch (norm->kind) {
    case TK_NFC:
    case TK_NFD:
    case TK_NFKC:
    case TK_NFKD: form(e, norm->kind); break;
    case TK_PREPEND: prepend(e, norm); break;
    case TK_REPLACE: return replace(e, norm);
    case TK_STRIP: strip(e, norm); break;
    case TK_LOWERCASE:
    case TK_STRIP_ACCENTS:
    case TK_NORM_BYTES: each_char(e, norm); break;
    case TK_BERT: bert(e, norm); break;
    case TK_NMT: nmt(e); break;
    }
    return FM_OK;
}

/* Would this step return the text unchanged? Only a quick yes counts. */
static bool is_identity(const tk_norm *norm, const char *s, size_t n)
{
    if (norm->kind == TK_REPLACE && !norm->regex)
        return !norm->n_find || !memmem(s, n, norm->find, norm->n_find);
    if (norm->kind > TK_NFKD) return false;
    unsigned char limit = norm->kind == TK_NFC ? 0xCC : 0x80; /* U+0300 starts with 0xCC */
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t eight;
        memcpy(&eight, s + i, 8);
        if (eight & 0x8080808080808080u) break;
    }
    while (i < n && (unsigned char)s[i] < limit) i++;
    return i == n;
}

fm_status tk_normalize(tk_work *w, const char *s, size_t n, const uint8_t *flags, const char **out,
                       size_t *n_out, const uint8_t **flags_out)
{
    int side = 0;
    for (int i = 0; i < w->t->n_norms && n; i++) {
        const tk_norm *norm = &w->t->norms[i];
        if (is_identity(norm, s, n)) continue;
        emitter e = {w, &w->norm[side], &w->flags[side], s, n, flags};
        e.out->length = e.out_flags->length = 0;
        fm_status status = run(&e, norm);
        if (status) return status;
        if (e.out->failed || e.out_flags->failed || !bs_buf_reserve(e.out, 0))
            return fm_fail_nomem(w->err, "normalising a text");
        s = e.out->data;
        n = e.out->length;
        if (flags) flags = (const uint8_t *)e.out_flags->data;
        side = !side;
    }
    *out = s;
    *n_out = n;
    *flags_out = flags;
    return FM_OK;
}
