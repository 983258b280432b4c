/* suite_batch.c - several sequences at once: what sharing a step's weights and experts gives. The
 * same eight unrelated sequences are decoded in groups of 1, 2, 4 and 8, round after round. */
#include "cli/suite.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 8, USUAL_TOKENS = 64, USUAL_PROMPT = 16, USUAL_ROUNDS = 3, MAX_ROUNDS = 50 };

static const int at_once[] = {1, 2, 4, 8};
enum { ARMS = sizeof at_once / sizeof *at_once };

/* What decoding took: prompts are computed before it begins. */
typedef struct tally {
    double seconds, waited_ms;
    uint64_t tokens, steps, hits, misses, bytes;
} tally;

typedef struct batch {
    en_engine *engine;
    int32_t *prompts; /* [SEQUENCES][prompt] */
    int prompt, tokens, rounds;
    uint32_t alone[SEQUENCES]; /* digests of the answers, each computed alone */
    tally arm[ARMS][MAX_ROUNDS];
} batch;

static void add_difference(tally *t, const en_stats *from, const en_stats *to)
{
    t->tokens += to->tokens - from->tokens;
    t->steps += to->steps - from->steps;
    t->hits += to->expert_hits - from->expert_hits;
    t->misses += to->expert_misses - from->expert_misses;
    t->bytes += to->bytes_read - from->bytes_read;
    t->waited_ms += to->read_ms_exposed - from->read_ms_exposed;
}

static bool all_have_begun(const suite_answer *answers, int n)
{
    for (int i = 0; i < n; i++)
        if (!answers[i].n) return false;
    return true;
}

/* Sequences first .. first + n - 1 together; their digests. */
static fm_status decode_group(const batch *b, int first, int n, tally *t, uint32_t *digests,
                              fm_error *err)
{
    suite_answer answers[SEQUENCES] = {0};
    fm_status status = FM_OK;
    for (int i = 0; i < n && !status; i++) {
        en_sampling s = en_sampling_default();
        s.temperature = 1; /* greedy answers run in circles */
        s.seed = (uint64_t)(first + i);
        status = suite_submit(b->engine, b->prompts + (first + i) * b->prompt, b->prompt,
                              b->tokens + 1, true, &s, &answers[i], err);
    }
    int left = 1; /* where one was refused, those before it are still answered: they write here */
    while (left > 0 && !all_have_begun(answers, n)) left = en_step(b->engine);
    en_stats before, after;
    en_get_stats(b->engine, &before);
    double begin = bs_now();
    while (left > 0) left = en_step(b->engine);
    t->seconds += bs_now() - begin;
    en_get_stats(b->engine, &after);
    add_difference(t, &before, &after);
    for (int i = 0; i < n; i++) {
        if (!status) status = suite_outcome(&answers[i], err);
        digests[i] = suite_digest(answers[i].tokens, answers[i].n);
        suite_answer_free(&answers[i]);
    }
    return status;
}

/* All sequences, n at a time. The first pass of all is alone and sets the digests. */
static fm_status decode_all(batch *b, int n, bool is_first, tally *t, fm_error *err)
{
    for (int first = 0; first < SEQUENCES; first += n) {
        uint32_t digests[SEQUENCES];
        fm_status status = decode_group(b, first, n, t, digests, err);
        if (status) return status;
        for (int i = 0; i < n; i++) {
            if (is_first) b->alone[first + i] = digests[i];
            if (digests[i] != b->alone[first + i])
                return fm_fail(err, FM_E_NUMERIC,
                               "sequence %d, %d at once: the answer differs from the same alone",
                               first + i, n);
        }
    }
    return FM_OK;
}

static fm_status decode_rounds(batch *b, fm_error *err)
{
    tally warm = {0};
    fm_status status = decode_all(b, 1, true, &warm, err);
    for (int round = 0; round < b->rounds && !status; round++)
        for (int arm = 0; arm < ARMS && !status; arm++)
            status = decode_all(b, at_once[arm], false, &b->arm[arm][round], err);
    return status;
}

/* --- rows ------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef double figure_fn(const tally *t, const tally *alone);

static double tok_s(const tally *t, const tally *alone)
{
    (void)alone;
    return (double)t->tokens / t->seconds;
}

static double gain(const tally *t, const tally *alone)
{
    return tok_s(t, NULL) / tok_s(alone, NULL);
}

static double hit_rate(const tally *t, const tally *alone)
{
    (void)alone;
    uint64_t asked = t->hits + t->misses;
    return asked ? (double)t->hits / (double)asked : 1;
}

static double bytes_per_token(const tally *t, const tally *alone)
{
    (void)alone;
    return (double)t->bytes / (double)t->tokens;
}

static double wait_share(const tally *t, const tally *alone)
{
    (void)alone;
    return t->waited_ms / 1e3 / t->seconds;
}

static double step_ms(const tally *t, const tally *alone)
{
    (void)alone;
    return t->seconds * 1e3 / (double)t->steps;
}

/* The median over the rounds. */
static double median(const batch *b, int arm, figure_fn *figure)
{
    double x[MAX_ROUNDS];
    for (int i = 0; i < b->rounds; i++) x[i] = figure(&b->arm[arm][i], &b->arm[0][i]);
    qsort(x, (size_t)b->rounds, sizeof *x, by_size);
    return (x[b->rounds / 2] + x[(b->rounds - 1) / 2]) / 2;
}

static json_t *batch_row(const batch *b, int arm)
{
    uint32_t digest = suite_digest((const int32_t *)b->alone, SEQUENCES);
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "at_once", at_once[arm], "tok_s",
                     median(b, arm, tok_s), "gain", median(b, arm, gain), "hit_rate",
                     median(b, arm, hit_rate), "bytes_per_token", median(b, arm, bytes_per_token),
                     "wait_share", median(b, arm, wait_share), "step_ms", median(b, arm, step_ms),
                     "digest", (json_int_t)digest);
}

static void report(const batch *b, suite_report *r)
{
    cli_plot *plot = &r->plot;
    plot->title = "Sequences decoded at once";
    plot->x_label = "sequences";
    plot->y_label = "tokens/s, all together";
    int line = cli_plot_line(plot, "decode");
    for (int arm = 0; arm < ARMS; arm++) {
        suite_add(r, batch_row(b, arm));
        cli_plot_point(plot, line, at_once[arm], median(b, arm, tok_s));
    }
}

fm_status suite_batch(const cli_args *a, suite_report *r, fm_error *err)
{
    cli_session session;
    batch *b = bs_calloc(1, sizeof *b);
    if (!b) return fm_fail_nomem(err, "running a suite");
    b->prompt = cli_int(a, "prompt-tokens", USUAL_PROMPT);
    b->tokens = cli_int(a, "max-tokens", USUAL_TOKENS);
    b->rounds = cli_int(a, "rounds", USUAL_ROUNDS);
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    o.no_tokenizer = true;
    o.parallel = SEQUENCES;
    if (o.context < b->prompt + b->tokens + 2) o.context = b->prompt + b->tokens + 2;
    fm_status status = cli_open(a, &o, &session, err);
    if (!status) {
        int n = SEQUENCES * b->prompt, vocab = en_describe(session.engine)->vocab;
        b->engine = session.engine;
        b->prompts = bs_calloc((size_t)n, sizeof *b->prompts);
        for (int i = 0; b->prompts && i < n; i++)
            b->prompts[i] = (int32_t)((i * 104729L + 17) % vocab);
        status = b->prompts ? decode_rounds(b, err) : fm_fail_nomem(err, "running a suite");
        if (!status) report(b, r);
        bs_free(b->prompts);
        cli_close(&session, NULL);
    }
    bs_free(b);
    return status;
}
