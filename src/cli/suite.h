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

typedef struct cli_suite {
    const char *name;
    /* Rows as a JSON array; plot is filled with lines. NULL with *err set on failure. */
    json_t *(*run)(const cli_args *a, cli_plot *plot, fm_error *err);
} cli_suite;

extern const cli_option cli_suite_options[]; /* --texts --models */

/* Run one by name: table on stderr, --json and --svg as asked for. Returns the exit status. */
int cli_run_suite(const cli_args *a, const char *name);

json_t *suite_quality(const cli_args *a, cli_plot *plot, fm_error *err);
json_t *suite_multi_turn(const cli_args *a, cli_plot *plot, fm_error *err);
json_t *suite_warmup(const cli_args *a, cli_plot *plot, fm_error *err);
json_t *suite_context(const cli_args *a, cli_plot *plot, fm_error *err);
json_t *suite_models(const cli_args *a, cli_plot *plot, fm_error *err);
json_t *suite_batch(const cli_args *a, cli_plot *plot, fm_error *err);

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

/* Print a row as a line of "key value" on stderr, so that a long suite shows that it lives. */
void suite_show(const json_t *row);

/* A digest of token ids: equal digests, equal tokens. */
uint32_t suite_digest(const int32_t *ids, int n);

#endif
