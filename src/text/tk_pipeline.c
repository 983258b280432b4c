/* The small sections of tokenizer.json: normalizers, pre-tokenizers, decoders, added tokens and the
 * post-processor. An unknown type or setting is an error that names it. */
#include "base/file.h"
#include "base/mem.h"
#include "text/tk_load.h"
#include "text/unicode.h"

#include <string.h>

typedef struct reader {
    tx_tokenizer *t;
    const char *path, *section;
    fm_error *err;
    int depth;
    uint8_t *seen; /* a bit an id: an added token has it */
} reader;

static fm_status nomem(reader *r)
{
    return fm_fail_nomem(r->err, "reading a tokenizer");
}

static fm_status wrong(reader *r, const char *type, const char *field)
{
    return fm_fail(r->err, FM_E_FORMAT, "%s: %s %s: '%s' is missing or of a wrong kind", r->path,
                   r->section, type, field);
}

static const char *type_of(const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    return type ? type : "";
}

static fm_status unknown(reader *r, const json_t *v)
{
    return fm_fail(r->err, FM_E_UNSUPPORTED, "%s: %s type '%s' is not supported", r->path,
                   r->section, type_of(v));
}

static bool is(const json_t *v, const char *type)
{
    return !strcmp(type_of(v), type);
}

static bool flag(const json_t *v, const char *name, bool otherwise)
{
    const json_t *f = json_object_get(v, name);
    return json_is_boolean(f) ? json_is_true(f) : otherwise;
}

/* A string field with its length: an allocated copy. */
static fm_status text(reader *r, const json_t *v, const char *name, char **out, size_t *n)
{
    const json_t *f = json_object_get(v, name);
    if (!json_is_string(f)) return wrong(r, type_of(v), name);
    *n = json_string_length(f);
    *out = bs_malloc(*n + 1);
    if (!*out) return nomem(r);
    memcpy(*out, json_string_value(f), *n + 1);
    return FM_OK;
}

/* {"String": ..} or {"Regex": ..} */
static fm_status pattern(reader *r, const json_t *v, char **find, size_t *n_find, tk_regex **regex,
                         tk_matcher **matcher)
{
    const json_t *p = json_object_get(v, "pattern"), *re = json_object_get(p, "Regex");
    if (!re) return text(r, p, "String", find, n_find);
    if (!json_is_string(re)) return wrong(r, type_of(v), "pattern");
    const char *s = json_string_value(re);
    size_t n = json_string_length(re);
    if (matcher && (*matcher = tk_known_pattern(s, n))) return FM_OK;
    fm_status status = tk_regex_compile(s, n, regex, r->err);
    return status ? fm_prefix(r->err, "%s: %s", r->path, r->section) : FM_OK;
}

/* Each element of a list section, "Sequence" opened up. */
typedef fm_status one_fn(reader *r, const json_t *v);

static fm_status each(reader *r, const json_t *v, const char *list, one_fn *one)
{
    if (!v || json_is_null(v)) return FM_OK;
    if (!json_is_object(v))
        return fm_fail(r->err, FM_E_FORMAT, "%s: %s is not an object", r->path, r->section);
    if (!is(v, "Sequence")) return one(r, v);
    const json_t *items = json_object_get(v, list);
    if (!json_is_array(items)) return wrong(r, "Sequence", list);
    if (r->depth == 16)
        return fm_fail(r->err, FM_E_LIMIT, "%s: %s is nested too deeply", r->path, r->section);
    r->depth++;
    fm_status status = FM_OK;
    size_t i;
    const json_t *item;
    json_array_foreach((json_t *)items, i, item)
    {
        if (!status) status = each(r, item, list, one);
    }
    r->depth--;
    return status;
}

static fm_status full(reader *r, int n)
{
    return n < TK_MAX_STEPS ? FM_OK
                            : fm_fail(r->err, FM_E_LIMIT, "%s: %s: more than %d steps", r->path,
                                      r->section, TK_MAX_STEPS);
}

/* --- normalizers
 * -------------------------------------------------------------------------------------- */

static fm_status add_norm(reader *r, tk_norm_kind kind, tk_norm **out)
{
    fm_status status = full(r, r->t->n_norms);
    if (status) return status;
    tk_norm *n = *out = &r->t->norms[r->t->n_norms++];
    n->kind = kind;
    return FM_OK;
}

/* BertNormalizer is up to four steps. */
static fm_status bert_normalizer(reader *r, const json_t *v)
{
    tk_norm *n;
    bool lower = flag(v, "lowercase", true), accents = flag(v, "strip_accents", lower);
    fm_status status = add_norm(r, TK_BERT, &n);
    if (status) return status;
    n->clean = flag(v, "clean_text", true);
    n->chinese = flag(v, "handle_chinese_chars", true);
    if (accents && !(status = add_norm(r, TK_NFD, &n))) {
        status = add_norm(r, TK_STRIP_ACCENTS, &n);
        if (!status) n->left = true; /* nonspacing marks only */
    }
    if (!status && lower) status = add_norm(r, TK_LOWERCASE, &n);
    return status;
}

static fm_status normalizer(reader *r, const json_t *v)
{
    static const struct {
        const char *type;
        tk_norm_kind kind;
    } simple[] = {
        {"NFC", TK_NFC},
        {"NFD", TK_NFD},
        {"NFKC", TK_NFKC},
        {"NFKD", TK_NFKD},
        {"Nmt", TK_NMT},
        {"Lowercase", TK_LOWERCASE},
        {"StripAccents", TK_STRIP_ACCENTS},
        {"ByteLevel", TK_NORM_BYTES},
    };
    tk_norm *n;
    fm_status status;
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (is(v, simple[i].type)) return add_norm(r, simple[i].kind, &n);
    if (is(v, "Prepend"))
        return (status = add_norm(r, TK_PREPEND, &n)) ? status
                                                      : text(r, v, "prepend", &n->text, &n->n_text);
    if (is(v, "Strip")) {
        if ((status = add_norm(r, TK_STRIP, &n))) return status;
        n->left = flag(v, "strip_left", true);
        n->right = flag(v, "strip_right", true);
        return FM_OK;
    }
    if (is(v, "Replace")) {
        if ((status = add_norm(r, TK_REPLACE, &n))) return status;
        status = pattern(r, v, &n->find, &n->n_find, &n->regex, NULL);
        return status ? status : text(r, v, "content", &n->text, &n->n_text);
    }
    return is(v, "BertNormalizer") ? bert_normalizer(r, v) : unknown(r, v);
}

/* --- pre-tokenizers
 * ------------------------------------------------------------------------------------ */

static fm_status behavior(reader *r, const json_t *v, tk_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = json_string_value(json_object_get(v, "behavior"));
    if (!name && is(v, "Punctuation")) return *out = TK_ISOLATED, FM_OK;
    for (int i = 0; name && i < 5; i++)
        if (!strcmp(name, names[i])) return *out = (tk_behavior)i, FM_OK;
    return wrong(r, type_of(v), "behavior");
}

static fm_status metaspace_text(reader *r, const json_t *v, char **out, size_t *n)
{
    if (json_object_get(v, "replacement")) return text(r, v, "replacement", out, n);
    *n = 3;
    return (*out = bs_strdup("\xE2\x96\x81")) ? FM_OK : nomem(r);
}

/* prepend_scheme, or its forerunner add_prefix_space. */
static fm_status metaspace_scheme(reader *r, const json_t *v, int *out)
{
    const char *name = json_string_value(json_object_get(v, "prepend_scheme"));
    bool prefix = flag(v, "add_prefix_space", true);
    if (!name) return *out = prefix ? TK_ALWAYS : TK_NEVER, FM_OK;
    *out = !strcmp(name, "always") ? TK_ALWAYS : !strcmp(name, "first") ? TK_FIRST : TK_NEVER;
    if (*out == TK_NEVER && strcmp(name, "never")) return wrong(r, "Metaspace", "prepend_scheme");
    if (!prefix && *out != TK_NEVER) return wrong(r, "Metaspace", "add_prefix_space");
    return FM_OK;
}

static fm_status metaspace(reader *r, const json_t *v, tk_pre *p)
{
    int scheme = TK_ALWAYS;
    fm_status status = metaspace_text(r, v, &p->text, &p->n_text);
    if (!status) status = metaspace_scheme(r, v, &scheme);
    p->kind = TK_METASPACE;
    p->scheme = scheme;
    p->cut = flag(v, "split", true);
    return status;
}

static fm_status pre_tokenizer(reader *r, const json_t *v)
{
    static const struct {
        const char *type;
        tk_pre_kind kind;
    } simple[] = {
        {"Digits", TK_DIGITS},
        {"Whitespace", TK_WHITESPACE},
        {"WhitespaceSplit", TK_WHITESPACE_SPLIT},
        {"Punctuation", TK_PUNCTUATION},
        {"BertPreTokenizer", TK_BERT_PUNCTUATION},
        {"ByteLevel", TK_BYTES},
    };
    fm_status status = full(r, r->t->n_pres);
    if (status) return status;
    tk_pre *p = &r->t->pres[r->t->n_pres++];
    p->one_by_one = flag(v, "individual_digits", false);
    p->add_prefix_space = flag(v, "add_prefix_space", true);
    p->use_regex = flag(v, "use_regex", true);
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++) {
        if (!is(v, simple[i].type)) continue;
        p->kind = simple[i].kind;
        return p->kind == TK_PUNCTUATION ? behavior(r, v, &p->behavior) : FM_OK;
    }
    if (is(v, "Metaspace")) return metaspace(r, v, p);
    if (is(v, "CharDelimiterSplit")) {
        int k;
        p->kind = TK_CHAR_SPLIT;
        status = text(r, v, "delimiter", &p->text, &p->n_text);
        if (!status) p->character = tx_utf8_get(p->text, &k);
        return status;
    }
    if (!is(v, "Split")) return unknown(r, v);
    p->kind = TK_SPLIT;
    p->invert = flag(v, "invert", false);
    status = behavior(r, v, &p->behavior);
    return status ? status : pattern(r, v, &p->text, &p->n_text, &p->regex, &p->matcher);
}

/* --- decoders
 * ---------------------------------------------------------------------------------------------- */

static fm_status strip_decoder(reader *r, const json_t *v, tk_dec *d)
{
    d->kind = TK_DEC_STRIP;
    d->start = (int)json_integer_value(json_object_get(v, "start"));
    d->stop = (int)json_integer_value(json_object_get(v, "stop"));
    if (d->start < 0 || d->stop < 0) return wrong(r, "Strip", "start");
    fm_status status = text(r, v, "content", &d->text, &d->n_text);
    return status || d->n_text ? status : wrong(r, "Strip", "content");
}

static fm_status metaspace_decoder(reader *r, const json_t *v, tk_dec *d)
{
    int scheme = TK_ALWAYS;
    d->kind = TK_DEC_METASPACE;
    fm_status status = metaspace_text(r, v, &d->text, &d->n_text);
    if (!status) status = metaspace_scheme(r, v, &scheme);
    d->drop_first = scheme != TK_NEVER;
    return status || d->n_text ? status : wrong(r, "Metaspace", "replacement");
}

static fm_status decoder(reader *r, const json_t *v)
{
    fm_status status = full(r, r->t->n_decs);
    if (status) return status;
    tk_dec *d = &r->t->decs[r->t->n_decs++];
    if (is(v, "ByteLevel")) return d->kind = TK_DEC_BYTES, FM_OK;
    if (is(v, "ByteFallback")) return d->kind = TK_DEC_BYTE_FALLBACK, FM_OK;
    if (is(v, "Fuse")) return d->kind = TK_DEC_FUSE, FM_OK;
    if (is(v, "Strip")) return strip_decoder(r, v, d);
    if (is(v, "Metaspace")) return metaspace_decoder(r, v, d);
    if (is(v, "WordPiece")) {
        d->kind = TK_DEC_WORDPIECE;
        d->drop_first = flag(v, "cleanup", true);
        return text(r, v, "prefix", &d->find, &d->n_find);
    }
    if (is(v, "BPEDecoder")) {
        d->kind = TK_DEC_BPE;
        return text(r, v, "suffix", &d->find, &d->n_find);
    }
    if (!is(v, "Replace")) return unknown(r, v);
    d->kind = TK_DEC_REPLACE;
    status = pattern(r, v, &d->find, &d->n_find, &d->regex, NULL);
    return status ? status : text(r, v, "content", &d->text, &d->n_text);
}

fm_status tk_read_steps(tx_tokenizer *t, const tk_sections *s, const char *path, fm_error *err)
{
    reader r = {.t = t, .path = path, .err = err};
    r.section = "normalizer";
    fm_status status = each(&r, s->normalizer, "normalizers", normalizer);
    r.section = "pre_tokenizer";
    if (!status) status = each(&r, s->pre_tokenizer, "pretokenizers", pre_tokenizer);
    r.section = "decoder";
    if (!status) status = each(&r, s->decoder, "decoders", decoder);
    return status;
}

/* --- post-processors
 * ------------------------------------------------------------------------------------------ */

static bool append(int32_t **list, size_t *n, int32_t id)
{
    int32_t *grown = bs_realloc(*list, *n + 1, sizeof *grown);
    if (!grown) return false;
    grown[(*n)++] = id;
    *list = grown;
    return true;
}

/* A later processor's tokens stand outside those of an earlier one. */
static bool wrap(tx_tokenizer *t, const tx_ids *before, const tx_ids *after)
{
    bool ok = true;
    for (size_t i = 0; ok && i < before->length; i++) {
        ok = append(&t->before, &t->n_before, 0);
        if (!ok) break;
        memmove(t->before + i + 1, t->before + i, (t->n_before - 1 - i) * sizeof *t->before);
        t->before[i] = before->data[i];
    }
    for (size_t i = 0; ok && i < after->length; i++)
        ok = append(&t->after, &t->n_after, after->data[i]);
    return ok;
}

/* One piece of a template: the ids of a special token, or the text itself. */
static fm_status template_piece(reader *r, const json_t *v, const json_t *piece, tx_ids *before,
                                tx_ids *after, bool *seen)
{
    const json_t *special = json_object_get(piece, "SpecialToken");
    if (!special) {
        if (!json_object_get(piece, "Sequence") || *seen)
            return wrong(r, "TemplateProcessing", "single");
        return *seen = true, FM_OK;
    }
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *token = name ? json_object_get(json_object_get(v, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(token, "ids"), *id;
    if (!json_is_array(ids)) return wrong(r, "TemplateProcessing", "special_tokens");
    size_t i;
    json_array_foreach((json_t *)ids, i, id)
    {
        json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
        if (n < 0 || n >= TK_MAX_IDS) return wrong(r, "TemplateProcessing", "special_tokens");
        if (!tx_ids_push(*seen ? after : before, (int32_t)n)) return nomem(r);
    }
    return FM_OK;
}

static fm_status template_processing(reader *r, const json_t *v, tx_ids *before, tx_ids *after)
{
    const json_t *single = json_object_get(v, "single"), *piece;
    bool seen = false;
    size_t i;
    if (!json_is_array(single)) return wrong(r, "TemplateProcessing", "single");
    json_array_foreach((json_t *)single, i, piece)
    {
        fm_status status = template_piece(r, v, piece, before, after, &seen);
        if (status) return status;
    }
    return seen ? FM_OK : wrong(r, "TemplateProcessing", "single");
}

static fm_status pair_id(reader *r, const json_t *v, const char *name, tx_ids *to)
{
    const json_t *id = json_array_get(json_object_get(v, name), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= TK_MAX_IDS)
        return wrong(r, type_of(v), name);
    return tx_ids_push(to, (int32_t)json_integer_value(id)) ? FM_OK : nomem(r);
}

static fm_status post_processor(reader *r, const json_t *v)
{
    tx_ids before = {0}, after = {0};
    fm_status status;
    if (is(v, "ByteLevel")) return FM_OK; /* trims offsets, which nobody sees here */
    if (is(v, "TemplateProcessing")) status = template_processing(r, v, &before, &after);
    else if (is(v, "BertProcessing") || is(v, "RobertaProcessing")) {
        status = pair_id(r, v, "cls", &before);
        if (!status) status = pair_id(r, v, "sep", &after);
    } else status = unknown(r, v);
    if (!status && !wrap(r->t, &before, &after)) status = nomem(r);
    tx_ids_free(&before);
    tx_ids_free(&after);
    return status;
}

/* --- added tokens
 * ------------------------------------------------------------------------------------------- */

/* Put the token into the table, or mark the model's own token of that text. An id is the model's,
 * else the next free one; as in the reference, what the file says it should be does not count. */
static fm_status place(reader *r, const char *s, size_t n, size_t n_model, int32_t *highest,
                       bool special, int32_t *id)
{
    tk_vocab *v = &r->t->vocab;
    *id = tx_token_id(r->t, s, n);
    if (*id < 0) {
        bs_buf raw = {0};
        *id = *highest >= (int32_t)n_model && n_model ? *highest + 1 : (int32_t)n_model;
        while ((size_t)*id < v->n && v->tokens[*id].flags & TK_PRESENT) ++*id;
        bool is_raw = r->t->raw && tk_unmap(s, n, &raw) && raw.length;
        fm_status status = raw.failed ? nomem(r)
                                      : tk_vocab_add(v, (uint32_t)*id, is_raw ? raw.data : s,
                                                     is_raw ? raw.length : n, is_raw ? TK_RAW : 0,
                                                     r->path, r->err);
        bs_buf_free(&raw);
        if (status) return status;
    }
    v->tokens[*id].flags |= TK_ADDED | (special ? TK_SPECIAL : 0);
    if (*id > *highest) *highest = *id;
    return FM_OK;
}

/* The id of added token i: from the cache, or placed now. */
static fm_status find_id(reader *r, size_t i, const char *s, size_t n, size_t n_model,
                         int32_t *highest, bool special, int32_t *id)
{
    tx_tokenizer *t = r->t;
    if (!t->block) {
        fm_status status = place(r, s, n, n_model, highest, special, id);
        if (!status) t->placed[i] = *id;
        return status;
    }
    *id = t->placed[i];
    bool known = *id >= 0 && (size_t)*id < t->vocab.n && t->vocab.tokens[*id].flags & TK_ADDED;
    return known ? FM_OK : fm_fail(r->err, FM_E_STALE, "%s: wrong ids", r->path);
}

static fm_status added_token(reader *r, size_t at, const json_t *v, size_t n_model,
                             int32_t *highest)
{
    const json_t *content = json_object_get(v, "content");
    if (!json_is_string(content)) return wrong(r, "token", "content");
    const char *s = json_string_value(content);
    size_t n = json_string_length(content);
    if (!n) return FM_OK;
    bool special = flag(v, "special", false);
    tk_added a = {.special = special,
                  .n = n,
                  .lstrip = flag(v, "lstrip", false),
                  .rstrip = flag(v, "rstrip", false),
                  .single_word = flag(v, "single_word", false),
                  .normalized = flag(v, "normalized", !special)};
    fm_status status = find_id(r, at, s, n, n_model, highest, special, &a.id);
    if (status) return status;
    tk_added *to = NULL; /* an earlier one of the same id is replaced */
    bool repeated = r->seen[a.id >> 3] & 1 << (a.id & 7);
    r->seen[a.id >> 3] |= (uint8_t)(1 << (a.id & 7));
    for (size_t i = 0; repeated && !to && i < r->t->n_added; i++)
        if (r->t->added[i].id == a.id) to = &r->t->added[i];
    if (to) bs_free(to->text);
    else to = &r->t->added[r->t->n_added++];
    *to = a;
    to->text = bs_malloc(n + 1);
    if (!to->text) return nomem(r);
    memcpy(to->text, s, n + 1);
    return FM_OK;
}

/* What a normalised token is searched as. */
static fm_status normalise_token(reader *r, tk_added *a)
{
    tk_work w = {.t = r->t, .err = r->err};
    const char *out;
    size_t n;
    const uint8_t *flags;
    fm_status status = tk_normalize(&w, a->text, a->n, NULL, &out, &n, &flags);
    char *copy = status ? NULL : bs_malloc(n + 1);
    if (copy) {
        memcpy(copy, out, n);
        copy[n] = 0;
        bs_free(a->text);
        a->text = copy;
        a->n = n;
    } else if (!status) status = nomem(r);
    for (int i = 0; i < 2; i++) {
        bs_buf_free(&w.norm[i]);
        bs_buf_free(&w.flags[i]);
    }
    return status;
}

static fm_status build_tries(reader *r)
{
    tx_tokenizer *t = r->t;
    fm_status status = FM_OK;
    for (int special = 1; special >= 0;
         special--) { /* special tokens come first: of equal texts they win */
        for (size_t i = 0; !status && i < t->n_added; i++) {
            tk_added *a = &t->added[i];
            if (a->special != (bool)special) continue;
            if (a->normalized && t->n_norms) status = normalise_token(r, a);
            if (a->normalized && special) t->special_normalized = true;
            if (!status &&
                !tk_trie_add(a->normalized ? &t->normalized : &t->plain, a->text, a->n, (int32_t)i))
                status = nomem(r);
        }
    }
    return status;
}

static size_t count_model(const tk_vocab *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++) n += (v->tokens[i].flags & TK_MODEL) != 0;
    return n;
}

fm_status tk_read_added(tx_tokenizer *t, const tk_sections *s, const char *path, fm_error *err)
{
    reader r = {.t = t, .path = path, .err = err, .section = "added_tokens"};
    size_t n_model = count_model(&t->vocab), i;
    int32_t highest = -1;
    fm_status status = FM_OK;
    const json_t *v;
    if (s->added_tokens && !json_is_array(s->added_tokens))
        return fm_fail(err, FM_E_FORMAT, "%s: added_tokens is not a list", path);
    t->added = bs_calloc(json_array_size(s->added_tokens), sizeof *t->added);
    if (!t->block) {
        t->n_placed = json_array_size(s->added_tokens);
        t->placed = bs_calloc(t->n_placed, sizeof *t->placed);
    }
    r.seen = bs_calloc(TK_MAX_IDS / 8, 1);
    if (!t->added || !t->placed || !r.seen) {
        bs_free(r.seen);
        return nomem(&r);
    }
    json_array_foreach(s->added_tokens, i, v)
    {
        if (!status) status = added_token(&r, i, v, n_model, &highest);
    }
    bs_free(r.seen);
    if (!status) status = build_tries(&r);
    r.section = "post_processor";
    return status ? status : each(&r, s->post_processor, "processors", post_processor);
}
