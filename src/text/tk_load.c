/* Reading a tokenizer: tokenizer.json, or vocab.json with merges.txt. The vocabulary and merges,
 * which are megabytes, are pulled straight into their tables; the small sections go through
 * jansson. */
#include "text/tk_load.h"
#include "base/file.h"
#include "base/json_pull.h"
#include "base/mem.h"
#include "text/tk_bpe.h"
#include "text/unicode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE = 1 << 30 };

typedef struct range {
    const char *at;
    size_t n;
} range;

typedef struct merge_list {
    int32_t (*ids)[3];
    size_t n, capacity;
} merge_list;

typedef struct loader {
    tx_tokenizer *t;
    const char *path;
    fm_error *err;
    range sections[5]; /* in the order of tk_sections */
    char *type;        /* the model's type, or NULL */
    char *unk_token;
    int64_t unk_id;
    int32_t last_result; /* of the merge that was read last */
    tk_sections parsed;
    bool has_vocab, vocab_is_list, has_merges, skipped_merges;
    merge_list merge_list;
    bs_buf scratch;
} loader;

static fm_status nomem(loader *l)
{
    return fm_fail_nomem(l->err, "reading a tokenizer");
}

/* --- vocabulary
 * ------------------------------------------------------------------------------------ */

static fm_status add_token(loader *l, uint64_t id, const char *text, size_t n)
{
    tx_tokenizer *t = l->t;
    uint32_t flags = TK_MODEL;
    l->scratch.length = 0;
    if (t->raw && tk_unmap(text, n, &l->scratch)) {
        flags |= TK_RAW;
        text = l->scratch.data ? l->scratch.data : "";
        n = l->scratch.length;
    }
    if (l->scratch.failed) return nomem(l);
    return tk_vocab_add(&t->vocab, (uint32_t)id, text, n, flags, l->path, l->err);
}

/* {"text": id, ...} */
static fm_status read_vocab_object(loader *l, bs_json *j)
{
    bs_json_event e;
    fm_status status = FM_OK;
    bs_buf key = {0};
    while (!status && (e = bs_json_next(j)) == BS_JSON_KEY) {
        uint64_t id;
        key.length = 0;
        const char *text = j->text;
        size_t n = j->length;
        if (text == j->scratch.data) { /* an unescaped key; the number comes before we use it */
            bs_buf_append(&key, text, n);
            text = key.data;
        }
        if (key.failed) status = nomem(l);
        else if (bs_json_next(j) != BS_JSON_NUMBER || !bs_json_uint(j, TK_MAX_IDS, &id))
            status = fm_fail(l->err, FM_E_FORMAT,
                             "%s: model.vocab: the id of '%.*s' is not a number below %d", l->path,
                             (int)(n < 100 ? n : 100), text, TK_MAX_IDS);
        else status = add_token(l, id, text, n);
    }
    bs_buf_free(&key);
    if (!status && e != BS_JSON_OBJECT_END) status = bs_json_fail(j, l->path, l->err);
    return status;
}

static bool read_score(bs_json *j, double *out)
{
    char text[64];
    if (bs_json_next(j) != BS_JSON_NUMBER || j->length >= sizeof text) return false;
    memcpy(text, j->text, j->length);
    text[j->length] = 0;
    *out = strtod(text, NULL);
    return true;
}

/* [["text", score], ...] */
static fm_status read_vocab_list(loader *l, bs_json *j)
{
    tk_unigram *u = &l->t->unigram;
    size_t capacity = 0, n = 0;
    double lowest = 0;
    bs_json_event e;
    while ((e = bs_json_next(j)) == BS_JSON_ARRAY) {
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 4096;
            double *scores = bs_realloc(u->scores, capacity, sizeof *scores);
            if (!scores) return nomem(l);
            u->scores = scores;
        }
        if (bs_json_next(j) != BS_JSON_STRING) return bs_json_fail(j, l->path, l->err);
        if (j->length > u->longest) u->longest = j->length;
        fm_status status = add_token(l, n, j->text, j->length);
        if (status) return status;
        if (!read_score(j, &u->scores[n]) || bs_json_next(j) != BS_JSON_ARRAY_END)
            return bs_json_fail(j, l->path, l->err);
        if (!n || u->scores[n] < lowest) lowest = u->scores[n];
        n++;
    }
    u->unk_score = lowest - 10.0;
    return e == BS_JSON_ARRAY_END ? FM_OK : bs_json_fail(j, l->path, l->err);
}

/* --- merges
 * ------------------------------------------------------------------------------------------ */

/* The text behind scratch[from..) as a token: raw when the whole of it is. */
static int32_t find_part(loader *l, const char *s, size_t n)
{
    return tk_vocab_find(&l->t->vocab, s, n, l->t->raw);
}

static fm_status unknown_part(loader *l, const char *what, const char *s, size_t n)
{
    return fm_fail(l->err, FM_E_FORMAT, "%s: model.merges: %s '%.*s' is not in the vocabulary",
                   l->path, what, (int)(n < 100 ? n : 100), s);
}

/* Ids of the two parts and of what they make. Raw tokenizers compare bytes; a text that has none
 * (it is not spelled in GPT-2's characters) is compared as it stands. */
static fm_status merge_ids(loader *l, const char *a, size_t na, const char *b, size_t nb,
                           int32_t ids[3])
{
    bs_buf *s = &l->scratch;
    size_t skip = l->t->bpe.prefix ? strlen(l->t->bpe.prefix) : 0;
    s->length = 0;
    size_t cut = 0;
    bool raw = l->t->raw && tk_unmap(a, na, s) && (cut = s->length, tk_unmap(b, nb, s));
    if (raw) {
        ids[0] = find_part(l, s->data, cut);
        ids[1] = find_part(l, s->data + cut, s->length - cut);
        ids[2] = l->last_result + 1; /* ids mostly follow the order of merges */
        if (!tk_vocab_is(&l->t->vocab, ids[2], s->data, s->length))
            ids[2] = find_part(l, s->data, s->length);
        l->last_result = ids[2];
    } else {
        s->length = 0;
        bs_buf_append(s, a, na);
        bs_buf_append(s, b + (nb > skip ? skip : 0), nb > skip ? nb - skip : nb);
        if (s->failed) return nomem(l);
        ids[0] = tx_token_id(l->t, a, na);
        ids[1] = tx_token_id(l->t, b, nb);
        ids[2] = tx_token_id(l->t, s->data, s->length);
    }
    if (s->failed) return nomem(l);
    if (ids[0] < 0) return unknown_part(l, "part", a, na);
    if (ids[1] < 0) return unknown_part(l, "part", b, nb);
    if (ids[2] < 0) return unknown_part(l, "result", s->data, s->length);
    return FM_OK;
}

static fm_status add_merge(loader *l, merge_list *m, const char *a, size_t na, const char *b,
                           size_t nb)
{
    if (m->n == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 8192;
        int32_t(*ids)[3] = bs_realloc(m->ids, capacity, sizeof *ids);
        if (!ids) return nomem(l);
        m->ids = ids;
        m->capacity = capacity;
    }
    if (m->n == TK_MAX_MERGES - 1)
        return fm_fail(l->err, FM_E_LIMIT, "%s: more than %d merges", l->path, TK_MAX_MERGES - 1);
    return merge_ids(l, a, na, b, nb, m->ids[m->n++]);
}

/* "a b" */
static fm_status add_merge_line(loader *l, merge_list *m, const char *s, size_t n)
{
    const char *space = memchr(s, ' ', n), *end = s + n;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return fm_fail(l->err, FM_E_FORMAT, "%s: merge %zu is not two parts: '%.*s'", l->path, m->n,
                       (int)(n < 100 ? n : 100), s);
    return add_merge(l, m, s, (size_t)(space - s), space + 1, (size_t)(end - space - 1));
}

/* ["a", "b"], the opening bracket read. */
static fm_status add_merge_pair(loader *l, merge_list *m, bs_json *j, bs_buf *first)
{
    if (bs_json_next(j) != BS_JSON_STRING) return bs_json_fail(j, l->path, l->err);
    first->length = 0;
    if (!bs_buf_append(first, j->text, j->length)) return nomem(l);
    if (bs_json_next(j) != BS_JSON_STRING) return bs_json_fail(j, l->path, l->err);
    fm_status status = add_merge(l, m, first->data, first->length, j->text, j->length);
    if (status) return status;
    return bs_json_next(j) == BS_JSON_ARRAY_END ? FM_OK : bs_json_fail(j, l->path, l->err);
}

static fm_status read_merges(loader *l, bs_json *j, merge_list *m)
{
    bs_buf first = {0};
    fm_status status = FM_OK;
    bs_json_event e = BS_JSON_ERROR;
    while (!status) {
        e = bs_json_next(j);
        if (e == BS_JSON_STRING) {
            if (!m->n && j->length >= 8 && !memcmp(j->text, "#version", 8)) continue;
            status = add_merge_line(l, m, j->text, j->length);
        } else if (e == BS_JSON_ARRAY) status = add_merge_pair(l, m, j, &first);
        else break;
    }
    bs_buf_free(&first);
    if (!status && e != BS_JSON_ARRAY_END) status = bs_json_fail(j, l->path, l->err);
    return status;
}

static fm_status read_merges_text(loader *l, const bs_buf *file, merge_list *m)
{
    const char *at = file->data, *end = at + file->length;
    fm_status status = FM_OK;
    while (!status && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (stop > at && stop[-1] == '\r') stop--;
        bool note = stop - at >= 8 && !memcmp(at, "#version", 8);
        if (stop > at && !note) status = add_merge_line(l, m, at, (size_t)(stop - at));
        at = next;
    }
    return status;
}

/* Does the token's text hold U+2581 behind another character? */
static bool has_inner_mark(const tk_vocab *v, int32_t id)
{
    const tk_token *t = &v->tokens[id];
    const char *s = v->pool.data + t->offset, *end = s + t->length, *p = s;
    while (end - p >= 3 && !memcmp(p, "\xE2\x96\x81", 3)) p += 3;
    return end - p >= 3 && memmem(p, (size_t)(end - p), "\xE2\x96\x81", 3);
}

static fm_status build_merges(loader *l, const merge_list *m)
{
    tx_tokenizer *t = l->t;
    tk_bpe *b = &t->bpe;
    size_t n_slots = 64;
    while (n_slots < m->n * 3 / 2) n_slots *= 2;
    b->slots = bs_malloc(n_slots * sizeof *b->slots);
    b->result = bs_realloc(NULL, m->n, sizeof *b->result);
    if (!b->slots || !b->result) return nomem(l);
    memset(b->slots, 0xFF, n_slots * sizeof *b->slots);
    b->n_slots = n_slots;
    b->n_merges = m->n;
    b->word_cuts = !t->raw && !b->prefix && !b->suffix && !b->ignore_merges &&
                   tk_vocab_find(&t->vocab, "\xE2\x96\x81", 3, false) >= 0;
    bool ok = true;
    for (size_t i = 0; ok && i < m->n; i++) {
        const int32_t *ids = m->ids[i];
        ok = tk_bpe_insert(b, ids[0], ids[1], (uint32_t)i);
        b->result[i] = ids[2];
        b->word_cuts = b->word_cuts && !has_inner_mark(&t->vocab, ids[2]);
    }
    return ok ? FM_OK : fm_fail(l->err, FM_E_LIMIT, "%s: too many merges with one hash", l->path);
}

static void find_bytes(const tx_tokenizer *t, int32_t fallback[256], int32_t byte[256])
{
    static const char hex[] = "0123456789ABCDEF";
    for (int i = 0; i < 256; i++) {
        char text[6] = {'<', '0', 'x', hex[i >> 4], hex[i & 15], '>'}, one = (char)i;
        fallback[i] = tx_token_id(t, text, 6);
        if (byte) byte[i] = tk_vocab_find(&t->vocab, &one, 1, t->raw);
    }
}

static fm_status finish_bpe(loader *l, const merge_list *m)
{
    tx_tokenizer *t = l->t;
    tk_bpe *b = &t->bpe;
    find_bytes(t, b->fallback, b->byte);
    b->unk = l->unk_token ? tx_token_id(t, l->unk_token, strlen(l->unk_token)) : -1;
    b->whole = bs_calloc(t->vocab.n, 1);
    if (!b->whole) return nomem(l);
    return build_merges(l, m);
}

/* --- the model section
 * --------------------------------------------------------------------------------- */

static fm_status read_string(loader *l, bs_json *j, char **out)
{
    bs_json_event e = bs_json_next(j);
    if (e == BS_JSON_NULL) return FM_OK;
    if (e != BS_JSON_STRING) return bs_json_fail(j, l->path, l->err);
    bs_free(*out);
    if (!j->length) return *out = NULL, FM_OK;
    *out = bs_strndup(j->text, j->length);
    return *out ? FM_OK : nomem(l);
}

static fm_status read_flag(loader *l, bs_json *j, bool *out)
{
    bs_json_event e = bs_json_next(j);
    if (e != BS_JSON_TRUE && e != BS_JSON_FALSE && e != BS_JSON_NULL)
        return bs_json_fail(j, l->path, l->err);
    *out = e == BS_JSON_TRUE;
    return FM_OK;
}

static fm_status keep_range(loader *l, bs_json *j, range *out)
{
    return bs_json_skip(j, &out->at, &out->n) ? FM_OK : bs_json_fail(j, l->path, l->err);
}

static fm_status read_unk_id(loader *l, bs_json *j)
{
    uint64_t id;
    bs_json_event e = bs_json_next(j);
    if (e == BS_JSON_NULL) return FM_OK;
    if (!bs_json_uint(j, TK_MAX_IDS, &id)) return bs_json_fail(j, l->path, l->err);
    l->unk_id = (int64_t)id;
    return FM_OK;
}

static fm_status refuse_dropout(loader *l, bs_json *j)
{
    bs_json_event e = bs_json_next(j);
    if (e == BS_JSON_NULL || (e == BS_JSON_NUMBER && !strtod(j->text, NULL))) return FM_OK;
    return fm_fail(l->err, FM_E_UNSUPPORTED,
                   "%s: model.dropout: encoding at random is not supported", l->path);
}

static void choose_raw(loader *l)
{
    tx_tokenizer *t = l->t;
    const tk_bpe *b = &t->bpe;
    t->raw = (!l->type || !strcmp(l->type, "BPE")) && t->n_pres &&
             t->pres[t->n_pres - 1].kind == TK_BYTES && !b->prefix && !b->suffix &&
             !b->byte_fallback;
}

/* The tables are read where they stand, when what they depend on came before them (it does in files
 * that tokenizers wrote); else they are left for a second pass. */
static fm_status model_vocab(loader *l, bs_json *j)
{
    if (l->has_vocab) return bs_json_skip(j, NULL, NULL) ? FM_OK : bs_json_fail(j, l->path, l->err);
    choose_raw(l);
    bs_json_event e = bs_json_next(j);
    l->has_vocab = true;
    l->vocab_is_list = e == BS_JSON_ARRAY;
    fm_status status = e == BS_JSON_OBJECT  ? read_vocab_object(l, j)
                       : e == BS_JSON_ARRAY ? read_vocab_list(l, j)
                                            : bs_json_fail(j, l->path, l->err);
    return status ? status : tk_vocab_index(&l->t->vocab, l->path, l->err);
}

static fm_status model_merges(loader *l, bs_json *j)
{
    if (!l->has_vocab || l->vocab_is_list || l->has_merges) {
        l->skipped_merges = l->skipped_merges || !l->has_vocab;
        return bs_json_skip(j, NULL, NULL) ? FM_OK : bs_json_fail(j, l->path, l->err);
    }
    if (bs_json_next(j) != BS_JSON_ARRAY)
        return fm_fail(l->err, FM_E_FORMAT, "%s: model.merges is not a list", l->path);
    l->has_merges = true;
    return read_merges(l, j, &l->merge_list);
}

static fm_status model_key(loader *l, bs_json *j)
{
    tk_bpe *b = &l->t->bpe;
    if (bs_json_is(j, "vocab")) return model_vocab(l, j);
    if (bs_json_is(j, "merges")) return model_merges(l, j);
    if (bs_json_is(j, "type")) return read_string(l, j, &l->type);
    if (bs_json_is(j, "unk_token")) return read_string(l, j, &l->unk_token);
    if (bs_json_is(j, "unk_id")) return read_unk_id(l, j);
    if (bs_json_is(j, "continuing_subword_prefix")) return read_string(l, j, &b->prefix);
    if (bs_json_is(j, "end_of_word_suffix")) return read_string(l, j, &b->suffix);
    if (bs_json_is(j, "fuse_unk")) return read_flag(l, j, &b->fuse_unk);
    if (bs_json_is(j, "byte_fallback")) return read_flag(l, j, &b->byte_fallback);
    if (bs_json_is(j, "ignore_merges")) return read_flag(l, j, &b->ignore_merges);
    if (bs_json_is(j, "dropout")) return refuse_dropout(l, j);
    return bs_json_skip(j, NULL, NULL) ? FM_OK : bs_json_fail(j, l->path, l->err);
}

/* The model section, from its opening brace. */
static fm_status read_model_keys(loader *l, bs_json *j)
{
    bs_json_event e = bs_json_next(j);
    fm_status status = FM_OK;
    if (e != BS_JSON_OBJECT)
        return fm_fail(l->err, FM_E_FORMAT, "%s: model is not an object", l->path);
    while (!status && (e = bs_json_next(j)) == BS_JSON_KEY) status = model_key(l, j);
    return status || e == BS_JSON_OBJECT_END ? status : bs_json_fail(j, l->path, l->err);
}

static fm_status check_type(loader *l)
{
    const char *type = l->type ? l->type : l->vocab_is_list ? "Unigram" : "BPE";
    if (!strcmp(type, "BPE")) return l->t->model = TK_BPE, FM_OK;
    if (!strcmp(type, "Unigram")) return l->t->model = TK_UNIGRAM, FM_OK;
    return fm_fail(l->err, FM_E_UNSUPPORTED,
                   "%s: model type '%s' is not supported (BPE and Unigram are)", l->path, type);
}

static fm_status finish_unigram(loader *l)
{
    tk_unigram *u = &l->t->unigram;
    if (!l->vocab_is_list)
        return fm_fail(l->err, FM_E_FORMAT, "%s: a Unigram vocab is a list", l->path);
    if (l->unk_id >= (int64_t)l->t->vocab.n)
        return fm_fail(l->err, FM_E_FORMAT, "%s: model.unk_id %lld is no token", l->path,
                       (long long)l->unk_id);
    u->unk = (int32_t)l->unk_id;
    u->byte_fallback = l->t->bpe.byte_fallback;
    find_bytes(l->t, u->fallback, NULL);
    return FM_OK;
}

static void forget_tables(loader *l)
{
    tk_vocab_free(&l->t->vocab);
    bs_free(l->t->unigram.scores);
    l->t->unigram.scores = NULL;
    l->t->unigram.longest = 0;
    l->merge_list.n = 0;
    l->has_vocab = l->has_merges = false;
}

/* When a key behind the vocabulary changed how it has to be read, or the merges stood before it:
 * again. */
static fm_status read_model_again(loader *l, range model)
{
    bool was = l->t->raw;
    fm_status status = FM_OK;
    choose_raw(l);
    bool missed = l->skipped_merges && !l->has_merges;
    if (l->t->raw == was && !missed) return FM_OK;
    if (l->t->raw != was) forget_tables(l);
    for (int pass = 0; !status && pass < 2 && (!l->has_vocab || (missed && !l->has_merges));
         pass++) {
        bs_json j;
        bs_json_init(&j, model.at, model.n);
        status = read_model_keys(l, &j);
        bs_json_free(&j);
    }
    return status;
}

static fm_status finish_model(loader *l)
{
    fm_status status = check_type(l);
    if (status) return status;
    if (!l->has_vocab) return fm_fail(l->err, FM_E_FORMAT, "%s: the model has no vocab", l->path);
    if (l->t->model == TK_UNIGRAM) return finish_unigram(l);
    if (l->vocab_is_list)
        return fm_fail(l->err, FM_E_FORMAT, "%s: a BPE vocab is an object", l->path);
    return finish_bpe(l, &l->merge_list);
}

static fm_status read_model(loader *l, bs_json *j)
{
    const char *at = j->at;
    fm_status status = read_model_keys(l, j);
    if (!status) status = read_model_again(l, (range){at, (size_t)(j->at - at)});
    return status ? status : finish_model(l);
}

/* --- the file
 * -------------------------------------------------------------------------------------------- */

static const char *const section_names[] = {"added_tokens", "normalizer", "pre_tokenizer",
                                            "post_processor", "decoder"};

void tk_free_sections(tk_sections *s)
{
    json_decref(s->added_tokens);
    json_decref(s->normalizer);
    json_decref(s->pre_tokenizer);
    json_decref(s->post_processor);
    json_decref(s->decoder);
    *s = (tk_sections){0};
}

static fm_status parse_sections(loader *l, tk_sections *out)
{
    json_t **to[] = {&out->added_tokens, &out->normalizer, &out->pre_tokenizer,
                     &out->post_processor, &out->decoder};
    for (int i = 0; i < 5; i++) {
        json_error_t why;
        range r = l->sections[i];
        if (!r.at) continue;
        json_t *v = json_loadb(r.at, r.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        if (!v)
            return fm_fail(l->err, FM_E_FORMAT, "%s: %s: %s", l->path, section_names[i], why.text);
        if (json_is_null(v)) json_decref(v);
        else *to[i] = v;
    }
    return FM_OK;
}

/* What the model's tables depend on. */
static fm_status prepare(loader *l)
{
    fm_status status = parse_sections(l, &l->parsed);
    return status ? status : tk_read_steps(l->t, &l->parsed, l->path, l->err);
}

/* Is every section there? The model comes last in files that tokenizers wrote. */
static bool all_seen(const loader *l)
{
    for (int i = 0; i < 5; i++)
        if (!l->sections[i].at) return false;
    return true;
}

/* The top level; the model is read at once when the sections stand before it. */
static fm_status read_top(loader *l, bs_json *j, range *model, bool *done)
{
    bs_json_event e = bs_json_next(j);
    fm_status status = FM_OK;
    if (e != BS_JSON_OBJECT)
        return fm_fail(l->err, FM_E_FORMAT, "%s: not a tokenizer: the file is not a JSON object",
                       l->path);
    while (!status && (e = bs_json_next(j)) == BS_JSON_KEY) {
        range unused, *to = bs_json_is(j, "model") ? model : &unused;
        if (to == model && all_seen(l) && !*done) {
            *done = true;
            status = prepare(l);
            if (!status) status = read_model(l, j);
            continue;
        }
        for (int i = 0; i < 5 && !*done; i++)
            if (bs_json_is(j, section_names[i])) to = &l->sections[i];
        status = keep_range(l, j, to);
    }
    if (!status && (e != BS_JSON_OBJECT_END || bs_json_next(j) != BS_JSON_DONE))
        status = bs_json_fail(j, l->path, l->err);
    return status;
}

static fm_status load_json(loader *l, const char *data, size_t n)
{
    range model = {0};
    bool done = false;
    bs_json j;
    bs_json_init(&j, data, n);
    fm_status status = read_top(l, &j, &model, &done);
    bs_json_free(&j);
    if (!status && !done && !model.at)
        status = fm_fail(l->err, FM_E_FORMAT, "%s: not a tokenizer: no model", l->path);
    if (!status && !done) {
        bs_json_init(&j, model.at, model.n);
        status = prepare(l);
        if (!status) status = read_model(l, &j);
        bs_json_free(&j);
    }
    return status ? status : tk_read_added(l->t, &l->parsed, l->path, l->err);
}

static void loader_free(loader *l)
{
    bs_buf_free(&l->scratch);
    bs_free(l->merge_list.ids);
    tk_free_sections(&l->parsed);
    bs_free(l->type);
    bs_free(l->unk_token);
}

/* The file into pages of our own: huge ones where the system has them, for millions of bytes are
 * touched once. *size is 0 when there is nothing to give back. */
static fm_status read_pages(const char *path, char **data, size_t *size, fm_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *size = 0;
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", path);
    fm_status status = FM_OK;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        status = fm_fail(err, FM_E_IO, "%s: is not a regular file", path);
    else if (st.st_size < 1 || st.st_size > MAX_FILE)
        status = fm_fail(err, st.st_size ? FM_E_LIMIT : FM_E_FORMAT,
                         "%s: %lld bytes are no tokenizer", path, (long long)st.st_size);
    else if (!(*data = bs_pages_alloc((size_t)st.st_size))) status = fm_fail_nomem(err, path);
    else {
        *size = (size_t)st.st_size;
        status = bs_pread_full(fd, path, *data, *size, 0, err);
    }
    close(fd);
    return status;
}

static fm_status load_file(const char *path, tx_tokenizer *t, fm_error *err)
{
    loader l = {.t = t, .path = path, .err = err, .unk_id = -1};
    char *data = NULL;
    size_t n;
    uint64_t source[2];
    if (tk_cache_load(path, t, source)) return FM_OK;
    fm_status status = read_pages(path, &data, &n, err);
    if (!status) status = load_json(&l, data, n);
    if (!status && source[0]) tk_cache_save(t, &l.parsed, source);
    if (n) bs_pages_free(data, n);
    loader_free(&l);
    return status;
}

/* The older layout: GPT-2's pipeline around vocab.json and merges.txt. */
static fm_status load_folder_parts(const char *dir, const char *vocab_path, const char *merges_path,
                                   tx_tokenizer *t, fm_error *err)
{
    loader l = {.t = t, .path = vocab_path, .err = err, .unk_id = -1};
    bs_buf vocab = {0}, merges = {0};
    fm_status status = tk_old_layout(dir, &l.parsed, &l.unk_token, err);
    if (!status) status = bs_read_file(vocab_path, MAX_FILE, &vocab, err);
    if (!status) status = bs_read_file(merges_path, MAX_FILE, &merges, err);
    if (!status) status = tk_read_steps(t, &l.parsed, vocab_path, err);
    bs_json j;
    bs_json_init(&j, vocab.data, vocab.length);
    if (!status) status = model_vocab(&l, &j);
    if (!status && bs_json_next(&j) != BS_JSON_DONE) status = bs_json_fail(&j, vocab_path, err);
    bs_json_free(&j);
    if (!status) status = read_merges_text(&l, &merges, &l.merge_list);
    if (!status) status = finish_model(&l);
    if (!status) status = tk_read_added(t, &l.parsed, vocab_path, err);
    bs_buf_free(&vocab);
    bs_buf_free(&merges);
    loader_free(&l);
    return status;
}

static fm_status load_folder(const char *dir, tx_tokenizer *t, fm_error *err)
{
    char *json = bs_path_join(dir, "tokenizer.json"), *vocab = bs_path_join(dir, "vocab.json"),
         *merges = bs_path_join(dir, "merges.txt");
    fm_status status;
    if (!json || !vocab || !merges) status = fm_fail_nomem(err, "opening a tokenizer");
    else if (bs_is_file(json)) status = load_file(json, t, err);
    else if (bs_is_file(vocab) && bs_is_file(merges))
        status = load_folder_parts(dir, vocab, merges, t, err);
    else
        status =
            fm_fail(err, FM_E_NOT_FOUND,
                    "%s: no tokenizer.json and no vocab.json with merges.txt in this "
                    "folder; convert the model's tokenizer with transformers (save_pretrained)",
                    dir);
    bs_free(json);
    bs_free(vocab);
    bs_free(merges);
    return status;
}

fm_status tk_load(const char *path, tx_tokenizer *t, fm_error *err)
{
    return bs_is_dir(path) ? load_folder(path, t, err) : load_file(path, t, err);
}
