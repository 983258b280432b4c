/* sampler.h - from logits to the next token.
 *
 * Order, as in llama.cpp and Hugging Face: logit bias and mask, penalties, temperature, top-k,
 * top-p, min-p, then one draw. Reproducible: the same seed, settings and logits give the same
 * tokens on every machine and thread count; each draw depends on (seed, number of the draw) alone.
 * temperature 0 is greedy (penalties and bias still act); equal logits: the lower id wins.
 * Vocabularies of 150,000 tokens cost well under a millisecond. Not thread-safe; one a request. */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct en_bias {
    int32_t id;
    float bias; /* added to the logit; -INFINITY forbids the token */
} en_bias;

/* Fields at their neutral value switch a step off. en_sampling_default() gives greedy. */
typedef struct en_sampling {
    float temperature;    /* 0: greedy; at most 100 */
    int top_k;            /* 0: all */
    float top_p;          /* 1: all */
    float min_p;          /* 0: all; keeps tokens with p >= min_p * p_max */
    float repeat_penalty; /* 1: none; divides positive, multiplies negative logits of seen tokens */
    float presence_penalty;  /* 0: none; subtracted once from every token generated so far */
    float frequency_penalty; /* 0: none; subtracted once for each time a token was generated */
    int repeat_last_n;       /* window of repeat_penalty over prompt and answer; -1: everything */
    uint64_t seed;
} en_sampling;

en_sampling en_sampling_default(void);

/* FM_E_ARGUMENT with the field's name when a value is out of range or not a number. */
fm_status en_sampling_check(const en_sampling *s, fm_error *err);

/* A token and its natural logarithm of probability under the model's own distribution: the softmax
 * of the raw logits, before bias, mask, penalties and temperature. */
typedef struct en_logprob {
    int32_t id;
    float logprob;
} en_logprob;

typedef struct en_sampler en_sampler;

/* bias: n_bias entries, copied; ids outside the vocabulary are FM_E_ARGUMENT. */
fm_status en_sampler_create(const en_sampling *s, int vocab, const en_bias *bias, int n_bias,
                            en_sampler **out, fm_error *err);
void en_sampler_free(en_sampler *sampler);

/* Tell it of a token of the sequence: prompt tokens count for repeat_penalty only, generated ones
 * for all three. */
fm_status en_sampler_accept(en_sampler *sampler, int32_t id, bool generated, fm_error *err);

/* Choose from logits[vocab], which are changed. scratch: en_sampler_scratch(vocab) bytes that many
 * samplers of one thread may share. A NaN, or nothing left to choose from, is FM_E_NUMERIC. Does
 * not accept the token. */
size_t en_sampler_scratch(int vocab);
fm_status en_sampler_pick(en_sampler *sampler, float *logits, void *scratch, int32_t *id,
                          fm_error *err);

/* The logprob of `id` and the `n` most probable tokens, in falling order, of raw logits. */
void en_logprobs(const float *logits, int vocab, int32_t id, float *logprob, en_logprob *top,
                 int n);

#endif
