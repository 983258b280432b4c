/* grammar.h - sampling that cannot leave a format: which tokens may come next.
 *
 * A grammar is a pushdown automaton over bytes, made from a JSON Schema, from "any JSON object" or
 * from a set of tools. A matcher walks it token by token; its mask says which tokens keep the
 * output a prefix of a valid text. Promises:
 *   - what ends by the end token parses with any JSON parser and obeys the schema;
 *   - the mask is never empty before the end: a path that cannot be finished is never entered;
 *   - a schema keyword that cannot be enforced is refused by name, never ignored (annotations such
 *     as title, description, default and format apart);
 *   - hostile schemas are bounded: depth, states, stack and set sizes have limits.
 * Grammar and vocabulary are immutable and may be shared by threads; a matcher may not. */
#ifndef ENGINE_GRAMMAR_H
#define ENGINE_GRAMMAR_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct en_grammar en_grammar;
typedef struct en_vocab en_vocab;
typedef struct en_matcher en_matcher;

/* One tool a call may name. parameters: a JSON Schema of an object, or NULL for any object. */
typedef struct en_tool {
    const char *name;
    const json_t *parameters;
} en_tool;

/* How a model writes one call: before_name NAME before_args ARGUMENTS after_args, the arguments
 * as one JSON object. When param_open is set they are tags instead, one a property:
 * param_open KEY param_name_end VALUE param_close, with strings raw and all else JSON. */
typedef struct en_call_format {
    const char *before_name, *before_args, *after_args;
    const char *between; /* between two calls */
    const char *param_open, *param_name_end, *param_close;
    const char *list_open, *list_close; /* around all calls; NULL: nothing */
} en_call_format;

/* What the output must be. Exactly one of the three kinds: n_tools > 0 says tool calls; else
 * schema, or any JSON object when it is NULL. */
typedef struct en_grammar_spec {
    const json_t *schema;
    const en_tool *tools;
    int n_tools;
    en_call_format call;
    bool many_calls;
    const char *free_until; /* free text first, up to and with this marker (reasoning); or NULL */
} en_grammar_spec;

/* FM_E_UNSUPPORTED and FM_E_FORMAT name the place in the schema ("#/properties/a/pattern"). */
fm_status en_grammar_create(const en_grammar_spec *spec, en_grammar **out, fm_error *err);
void en_grammar_destroy(en_grammar *grammar);

/* The bytes of token id, *length of them; NULL for tokens that are no text (control tokens). The
 * bytes must stay valid until en_vocab_create has returned. */
typedef const char *en_token_bytes_fn(void *arg, int id, size_t *length);

/* ends: tokens that may come where the text is complete. */
fm_status en_vocab_create(int n_tokens, en_token_bytes_fn *bytes, void *arg, const int32_t *ends,
                          int n_ends, en_vocab **out, fm_error *err);
void en_vocab_destroy(en_vocab *vocab);
int en_vocab_size(const en_vocab *vocab);

/* Both are borrowed and must outlive the matcher. */
fm_status en_matcher_create(const en_grammar *grammar, const en_vocab *vocab, en_matcher **out,
                            fm_error *err);
void en_matcher_destroy(en_matcher *matcher);

/* The mask of the next token: bit id of *bits (word id / 32, bit id % 32), valid until the next
 * call. FM_E_UNSUPPORTED when no token of the vocabulary can spell any allowed byte. */
fm_status en_matcher_mask(en_matcher *matcher, const uint32_t **bits, fm_error *err);

/* Go on by a token that the mask allowed; another one is FM_E_ARGUMENT and changes nothing. */
fm_status en_matcher_accept(en_matcher *matcher, int32_t token, fm_error *err);

/* The same for bytes: false when they leave the grammar (nothing changes). For tests. */
bool en_matcher_accept_bytes(en_matcher *matcher, const char *bytes, size_t n);

/* The text so far is a valid whole; and: nothing but the end can follow. */
bool en_matcher_complete(const en_matcher *matcher);
bool en_matcher_finished(const en_matcher *matcher);

#endif
