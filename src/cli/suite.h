/* suite.h - `bench --suite NAME`: the questions that users of the seed measured, answered on a
 * model in one process, as JSON, a table and a plot.
 *
 * - quality: what the lossy modes cost: perplexity, KL and repetition by share of resident experts
 * - multi-turn: 20 turns: memory, speed, repetition, misses, and a digest that no budget changes
 * - warmup: cold, profile and saved-state starts, the predictive warmups, and a change of domain
 * - context: speed and memory as the context grows
 * - models: the same short run over several models
 * - batch: 1, 2, 4 and 8 sequences at once: speed, bytes read a token, and the answers of one alone
 */
#ifndef CLI_SUITE_H
#define CLI_SUITE_H

#include "base/buf.h"
#include "cli/common.h"
#include "cli/options.h"
#include "cli/plot.h"

#include <stdio.h>

/* What a suite found. */
typedef struct suite_report {
    json_t *rows;
    FILE *table; /* where rows are shown as they come: stderr when stdout gets JSON */
    cli_plot plot;
} suite_report;

typedef fm_status suite_fn(const cli_args *a, suite_report *r, fm_error *err);

extern const cli_option cli_suite_options[]; /* --texts --models */

/* Run one by name; --json and --svg as asked for. Returns the exit status. */
int cli_run_suite(const cli_args *a, const char *name);

suite_fn suite_quality, suite_multi_turn, suite_warmup, suite_context, suite_models, suite_batch;

/* --- what suites share --------------------------------------------------------------------------
 */

typedef struct suite_answer {
    bs_buf text;
    int32_t *tokens; /* [capacity] */
    int n, capacity;
    en_finish finish;
    fm_error error;
    en_request_stats stats;
    double token_20_ms; /* from submit to the 20th token, 0: shorter */
    double submitted;
} suite_answer;

void suite_answer_free(suite_answer *a);

/* Ask for an answer of at most `tokens` tokens; the caller takes the steps. When they are done:
 * whether it failed or was interrupted. */
fm_status suite_submit(en_engine *e, const int32_t *ids, int n, int tokens, bool ignore_end,
                       const en_sampling *sampling, suite_answer *out, fm_error *err);
fm_status suite_outcome(const suite_answer *a, fm_error *err);

/* One greedy answer of at most `tokens` tokens, going on after end tokens if ignore_end. */
fm_status suite_answer_to(en_engine *e, const int32_t *ids, int n, int tokens, bool ignore_end,
                          suite_answer *out, fm_error *err);

/* The row is shown, and is the report's from now on: suite_table.c. */
void suite_add(suite_report *r, json_t *row);

/* A digest of token ids: equal digests, equal tokens. */
uint32_t suite_digest(const int32_t *ids, int n);

#endif
