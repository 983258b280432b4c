/* tokenizer.h - text to token ids and back, exactly as Hugging Face's `tokenizers` does it.
 *
 * A tokenizer is read from tokenizer.json, or from the older vocab.json + merges.txt. It does not
 * change after it was opened: any number of threads may use one at the same time. Whatever in the
 * file is not known to this build is an error that names it; nothing is skipped.
 *
 * Text is UTF-8 and may hold U+0000. Bytes that are not UTF-8 are taken as U+FFFD.
 *
 * Two kinds of text meet in a prompt: markup, which the chat template writes, and content, which
 * people send. In markup "<|im_end|>" is the control token; in content it is ten ordinary
 * characters. Segments say which is which. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tx_tokenizer tx_tokenizer;

/* A growing list of token ids. Zero-initialise; tx_ids_free gives the memory back. */
typedef struct tx_ids {
    int32_t *data;
    size_t length, capacity;
} tx_ids;

bool tx_ids_push(tx_ids *ids, int32_t id); /* false: out of memory */
void tx_ids_free(tx_ids *ids);

/* path: a model folder or a tokenizer.json. FM_E_NOT_FOUND when a folder has no tokenizer. */
fm_status tx_tokenizer_open(const char *path, tx_tokenizer **out, fm_error *err);
void tx_tokenizer_free(tx_tokenizer *t); /* NULL is fine */

/* Highest id + 1, added tokens included. The model's embedding often has more rows than that. */
size_t tx_vocab_size(const tx_tokenizer *t);

/* The token's text as it stands in the file ("Ġthe", "<0x0A>"); false: no token has this id. */
bool tx_token_text(const tx_tokenizer *t, int32_t id, bs_buf *out);

/* The bytes that the token adds to a text (" the", "\n"): what a stop string or grammar has to
 * match. They may be part of a UTF-8 character. Appends nothing and returns false for an unknown
 * id. */
bool tx_token_bytes(const tx_tokenizer *t, int32_t id, bs_buf *out);

/* The id of exactly this token text, or -1. */
int32_t tx_token_id(const tx_tokenizer *t, const char *text, size_t n);

/* Added token marked special: left out by decode's skip_special. */
bool tx_token_is_special(const tx_tokenizer *t, int32_t id);

/* Added token of any kind. */
bool tx_token_is_added(const tx_tokenizer *t, int32_t id);

enum {
    TX_ADD_SPECIAL = 1, /* what the file's post-processor adds: BOS, in some models EOS */
    TX_CONTENT = 2,     /* the text comes from outside: no control token is recognised in it */
};

/* Append the ids of text[0..n) to out (a failure leaves out as it was). */
fm_status tx_encode(const tx_tokenizer *t, const char *text, size_t n, unsigned flags, tx_ids *out,
                    fm_error *err);

/* One stretch of a text: `length` bytes, all of them content or all markup. */
typedef struct tx_segment {
    size_t length;
    bool content;
} tx_segment;

/* Which strings are control tokens, where the caller knows more than the tokenizer: special tokens
 * always are; `more` lists ids of other added tokens ("<think>", "<tool_call>") that content must
 * not become either. NULL, 0: special ones alone. */
typedef struct tx_control {
    const int32_t *more;
    size_t n_more;
} tx_control;

/* As tx_encode of the whole text, but an added token that is a control token is only recognised
 * where all its bytes are markup. The segments' lengths must add up to n. */
fm_status tx_encode_segments(const tx_tokenizer *t, const char *text, size_t n,
                             const tx_segment *segments, size_t n_segments,
                             const tx_control *control, unsigned flags, tx_ids *out, fm_error *err);

/* Append the text of ids to out. Ids that no token has are left out, as the reference does. */
fm_status tx_decode(const tx_tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                    bs_buf *out, fm_error *err);

/* The streaming decoder: the concatenation of all that push and finish append equals tx_decode of
 * all ids. Only whole UTF-8 characters are appended; text that a later token could still change is
 * held back. One stream belongs to one thread; the tokenizer must outlive it. */
typedef struct tx_stream tx_stream;

fm_status tx_stream_open(const tx_tokenizer *t, bool skip_special, tx_stream **out, fm_error *err);
fm_status tx_stream_push(tx_stream *s, int32_t id, bs_buf *out, fm_error *err);
fm_status tx_stream_finish(tx_stream *s, bs_buf *out, fm_error *err); /* then start anew or free */
void tx_stream_free(tx_stream *s);

#endif
