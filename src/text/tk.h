/* tk.h - the inside of a tokenizer, shared by the tk_*.c files of this room only.
 *
 * Invariants: everything is built by tk_load.c and constant afterwards, but for `whole`, a memo of
 * answers that are the same whoever writes them. Ids are below TK_MAX_IDS, merges below
 * TK_MAX_MERGES, so that a merge packs into 64 bits. */
#ifndef TEXT_TK_H
#define TEXT_TK_H

#include "base/buf.h"
#include "base/error.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdatomic.h>

enum { TK_MAX_IDS = 1 << 21, TK_MAX_MERGES = 1 << 22, TK_MAX_STEPS = 32 };

typedef struct tk_regex tk_regex;
typedef struct tk_regex_state { /* what matching needs, made on first use; one thread's */
    void *match, *context, *stack;
} tk_regex_state;

/* --- vocabulary (tk_vocab.c) -------------------------------------------------------------------
 */

enum {
    TK_PRESENT = 1,
    TK_RAW = 2, /* the bytes are the token's own bytes, GPT-2's characters undone */
    TK_ADDED = 4,
    TK_SPECIAL = 8,
    TK_MODEL = 16, /* in the model's own vocabulary */
};

typedef struct tk_token {
    uint32_t offset, length; /* in the pool */
    uint32_t flags;
} tk_token;

typedef struct tk_vocab {
    tk_token *tokens;
    size_t n, capacity; /* highest id + 1 */
    bs_buf pool;
    uint64_t *slots; /* open addressing: hash's high half, then id + 1; 0 is empty */
    size_t n_slots;
} tk_vocab;

fm_status tk_vocab_add(tk_vocab *v, uint32_t id, const char *text, size_t n, uint32_t flags,
                       const char *path, fm_error *err);
fm_status tk_vocab_index(tk_vocab *v, const char *path, fm_error *err);
uint64_t tk_hash(const char *s, size_t n);
/* Is id a raw token of the model with these bytes? */
bool tk_vocab_is(const tk_vocab *v, int32_t id, const char *s, size_t n);
/* The id of a model token with these bytes; raw tells which of the two kinds. -1: none. */
int32_t tk_vocab_find(const tk_vocab *v, const char *s, size_t n, bool raw);
int32_t tk_vocab_find_hash(const tk_vocab *v, uint64_t hash, const char *s, size_t n, bool raw);
void tk_vocab_free(tk_vocab *v);
/* The model's token of this text, or -1. */
int32_t tk_model_id(const tx_tokenizer *t, const char *text, size_t n);
/* Undo GPT-2's characters: false when s has a character that is not in the table. */
bool tk_unmap(const char *s, size_t n, bs_buf *out);

/* --- models (tk_bpe.c, tk_unigram.c) -----------------------------------------------------------
 */

typedef struct tk_bpe {
    uint64_t *slots; /* left << 43 | right << 22 | rank; all ones is empty */
    size_t n_slots;
    int32_t *result; /* of merge `rank` */
    size_t n_merges;
    int32_t unk, fallback[256]; /* -1: none */
    int32_t byte[256]; /* the token of one byte; where pieces are text, of one ASCII character */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool word_cuts;        /* no merge result has U+2581 behind another character */
    char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix, or NULL */
    _Atomic uint8_t
        *whole; /* by id: 1 the token's text encodes to itself, 2 it does not, 0 unknown */
} tk_bpe;

typedef struct tk_unigram {
    double *scores; /* by id */
    double unk_score;
    int32_t unk, fallback[256];
    bool byte_fallback;
    size_t longest; /* bytes of the longest token */
} tk_unigram;

typedef enum tk_model_kind { TK_BPE, TK_UNIGRAM } tk_model_kind;

/* --- steps -------------------------------------------------------------------------------------
 */

typedef enum tk_norm_kind {
    TK_NFC,
    TK_NFD,
    TK_NFKC,
    TK_NFKD,
    TK_PREPEND,
    TK_REPLACE,
    TK_STRIP,
    TK_LOWERCASE,
    TK_STRIP_ACCENTS,
    TK_NORM_BYTES,
    TK_BERT,
    TK_NMT,
} tk_norm_kind;

typedef struct tk_norm {
    tk_norm_kind kind;
    char *text; /* PREPEND, REPLACE */
    size_t n_text;
    tk_regex *regex; /* REPLACE by pattern */
    char *find;      /* REPLACE by string */
    size_t n_find;
    bool left, right;    /* STRIP */
    bool clean, chinese; /* BERT */
} tk_norm;

typedef enum tk_behavior {
    TK_REMOVED,
    TK_ISOLATED,
    TK_PREVIOUS,
    TK_NEXT,
    TK_CONTIGUOUS,
} tk_behavior;

typedef enum tk_pre_kind {
    TK_SPLIT,
    TK_BYTES,
    TK_METASPACE,
    TK_DIGITS,
    TK_WHITESPACE,
    TK_WHITESPACE_SPLIT,
    TK_PUNCTUATION,
    TK_BERT_PUNCTUATION,
    TK_CHAR_SPLIT,
} tk_pre_kind;

/* A hand-written matcher: the next match in s[0..n) at or after `at`; false when there is none. */
typedef bool tk_matcher(const char *s, size_t n, size_t at, size_t *start, size_t *end);

typedef struct tk_pre {
    tk_pre_kind kind;
    tk_behavior behavior;
    bool invert;
    bool one_by_one;                               /* DIGITS: individual_digits */
    bool add_prefix_space;                         /* BYTES */
    bool use_regex;                                /* BYTES */
    bool cut;                                      /* METASPACE: split */
    enum { TK_NEVER, TK_FIRST, TK_ALWAYS } scheme; /* METASPACE */
    uint32_t character;                            /* CHAR_SPLIT */
    char *text;                                    /* SPLIT by string; METASPACE's replacement */
    size_t n_text;
    tk_matcher *matcher; /* SPLIT, BYTES: the pattern is a well-known one */
    tk_regex *regex;     /* SPLIT by any other pattern */
} tk_pre;

typedef enum tk_dec_kind {
    TK_DEC_BYTES,
    TK_DEC_METASPACE,
    TK_DEC_BYTE_FALLBACK,
    TK_DEC_FUSE,
    TK_DEC_STRIP,
    TK_DEC_REPLACE,
    TK_DEC_WORDPIECE,
    TK_DEC_BPE,
} tk_dec_kind;

typedef struct tk_dec {
    tk_dec_kind kind;
    char *text; /* METASPACE: replacement; STRIP: the character; REPLACE: content */
    size_t n_text;
    char *find; /* REPLACE by string; WORDPIECE: prefix; BPE: suffix */
    size_t n_find;
    tk_regex *regex; /* REPLACE by pattern */
    int start, stop; /* STRIP */
    bool drop_first; /* METASPACE: prepend_scheme is not never; WORDPIECE: cleanup */
} tk_dec;

/* --- added tokens (tk_added.c) -----------------------------------------------------------------
 */

typedef struct tk_added {
    char *text; /* as it is searched for: normalised when it is a normalised one */
    size_t n;
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
} tk_added;

/* A byte trie over one of the two sets. Node 0 is the root. */
typedef struct tk_trie {
    struct tk_trie_node {
        uint32_t first, next;
        int32_t token;
        uint8_t byte;
    } * nodes;
    size_t n, capacity;
    uint32_t root[256]; /* the root's children by byte, 0 is none */
} tk_trie;

struct tx_tokenizer {
    char *path;
    tk_vocab vocab;
    tk_model_kind model;
    tk_bpe bpe;
    tk_unigram unigram;
    bool raw; /* pieces are raw bytes: the last pre-tokenizer is ByteLevel and its table is skipped
               */
    tk_norm norms[TK_MAX_STEPS];
    tk_pre pres[TK_MAX_STEPS];
    tk_dec decs[TK_MAX_STEPS];
    int n_norms, n_pres, n_decs;
    tk_added *added;
    size_t n_added;
    tk_trie plain, normalized; /* added tokens searched in the raw and in the normalised text */
    bool special_normalized; /* the normalised set has special tokens: content flags must survive */
    int32_t *placed;         /* the ids that the file's added tokens got, in its order */
    size_t n_placed;
    char *block; /* tables that were read from a cache file lie in here, else NULL */
    size_t block_bytes;
    int32_t *before, *after; /* the post-processor's ids */
    size_t n_before, n_after;
};

/* --- one call's working memory (tk_encode.c) -----------------------------------------------------
 */

enum { TK_CACHE_SLOTS = 4096, TK_CACHE_IDS = 8, TK_CACHE_BYTES = 30 };

typedef struct tk_cache_entry { /* 64 bytes; count 0 is empty */
    uint8_t length, count;
    char piece[TK_CACHE_BYTES];
    int32_t ids[TK_CACHE_IDS];
} tk_cache_entry;

typedef struct tk_work {
    const tx_tokenizer *t;
    tx_ids *out;
    fm_error *err;
    bs_buf step[TK_MAX_STEPS]; /* text rewritten by pre-tokenizer i */
    bs_buf norm[2], flags[2];  /* normalisation goes to and fro */
    bs_buf lookup;
    int32_t *symbols; /* of the BPE merge */
    size_t n_symbols;
    tk_cache_entry *cache; /* made when the text is long enough to gain from it */
    int misses;
    void *scratch; /* of the Unigram search */
    size_t scratch_size;
    tk_regex_state regex[TK_MAX_STEPS]; /* of pre-tokenizer i */
    const char *origin; /* a piece that starts here stands at the very start of the text */
} tk_work;

fm_status tk_bpe_piece(tk_work *w, const char *s, size_t n);
fm_status tk_unigram_piece(tk_work *w, const char *s, size_t n);
fm_status tk_pre_tokenize(tk_work *w, int step, const char *s, size_t n);

/* Normalise s into *out and *n_out (pointing into s or w->norm). flags: content bytes of s, or
 * NULL; *flags_out likewise. */
fm_status tk_normalize(tk_work *w, const char *s, size_t n, const uint8_t *flags, const char **out,
                       size_t *n_out, const uint8_t **flags_out);

bool tk_trie_add(tk_trie *trie, const char *s, size_t n, int32_t token);
void tk_trie_free(tk_trie *trie);

typedef struct tk_match {
    size_t start, end;
    int32_t token;
} tk_match;

/* The leftmost-longest added token in s at or after `at`. content (or NULL) flags bytes of content,
 * where tokens with blocked[token] are not seen. */
bool tk_trie_find(const tk_trie *trie, const char *s, size_t n, size_t at, const uint8_t *content,
                  const uint8_t *blocked, tk_match *out);

/* --- regular expressions (tk_regex.c) -----------------------------------------------------------
 */

/* Compile a pattern written for Oniguruma (Ruby syntax), as the reference uses it. */
fm_status tk_regex_compile(const char *pattern, size_t n, tk_regex **out, fm_error *err);
void tk_regex_free(tk_regex *r);

/* One search in s at or after `at`. *found tells; a limit that is reached is FM_E_LIMIT. */
fm_status tk_regex_find(const tk_regex *r, tk_regex_state *state, const char *s, size_t n,
                        size_t at, bool *found, size_t *start, size_t *end, fm_error *err);
void tk_regex_state_free(tk_regex_state *state);

/* The translation alone, for tests. */
bool tk_regex_translate(const char *pattern, size_t n, bs_buf *out);

/* The matcher of a well-known pattern, or NULL (tk_split.c). */
tk_matcher *tk_known_pattern(const char *pattern, size_t n);
const char *tk_known_pattern_text(size_t i); /* NULL past the last: for tests */
tk_matcher tk_match_gpt2;

fm_status tk_load(const char *path, tx_tokenizer *t, fm_error *err);
void tk_clear(tx_tokenizer *t); /* give back everything it holds */

#endif
