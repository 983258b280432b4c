/* quality.h - measures of text and of distributions: the seed's repetition metrics, one that sees
 * sentence loops, and the divergence between two models' next-token distributions. */
#ifndef ENGINE_QUALITY_H
#define ENGINE_QUALITY_H

#include <stddef.h>

/* Rep@N of the seed: among the last 200 characters (code points) of UTF-8 text, the count of the
 * most frequent 3-gram of characters / (length - 2). An endless loop of period p scores about 1/p,
 * so small values do not exclude loops. 0 for fewer than 3 characters; -1 when out of memory. */
double en_rep_tail(const char *text, size_t bytes);

/* 1 - distinct / all of the word 4-grams (words split at white space) of the whole text. */
double en_rep_words(const char *text, size_t bytes);

/* What neither sees: the share of tokens that lie in the longest exact loop at the end of the
 * sequence (a block of period <= max_period repeated at least `repeats` times). 0: no loop. */
double en_rep_loop(const int *tokens, int n, int max_period, int repeats);

/* KL(p || q) in nats of two rows of logits. Adds up in double. */
double en_kl(const float *p_logits, const float *q_logits, int n);

/* log softmax(logits)[id], in double. */
double en_log_prob(const float *logits, int n, int id);

#endif
