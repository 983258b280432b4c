/* bench_model.c - arms (one a --compare, and the plain one) run in turns, round after round, each
 * time opened anew, so that a machine that slows down slows all of them. In each turn: a prompt to
 * warm up, the measured prompt, tokens to warm up, then the measured ones. Rates of disk and memory
 * are measured around each turn, which is held against their mean, and that of the experts in
 * memory when the turn ends. */
#include "cli/bench_model.h"

#include "base/mem.h"
#include "cli/bench_rates.h"
#include "cli/common.h"
#include "cli/plot.h"
#include "cli/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARMS = 12, MAX_ROUNDS = 50, MAX_FLAGS = 64 };

static const cli_option options[] = {
    {"max-tokens", 'n', CLI_INT, "N", 1, 1000000, "tokens measured in each turn (default 64)"},
    {"prompt-tokens", 0, CLI_INT, "N", 1, 1000000, "length of the prompt (default 32)"},
    {"warm", 0, CLI_INT, "N", 0, 1000000,
     "tokens decoded before the measured ones (default 32), after another prompt"},
    {"cold", 0, CLI_FLAG, NULL, 0, 0,
     "measure from the first token on: no prompt before the measured one, --warm 0"},
    {"rounds", 0, CLI_INT, "N", 1, MAX_ROUNDS, "turns of each arm (default 3)"},
    {"compare", 0, CLI_TEXT, "FLAGS", 0, 0,
     "another arm: these flags after the others; may be given several times"},
    {"trace", 0, CLI_FILE, "FILE", 0, 0,
     "take the experts from recorded routing instead of the router's choice"},
    {"svg", 0, CLI_FILE, "FILE", 0, 0, "draw speed and hit rate against the arms' budgets"},
    {0},
};
const cli_group cli_group_bench_model = {"Model", options, false};

typedef struct arm {
    char *flags; /* own copy, cut into words; NULL: the plain arm */
    const char *shown;
    char *argv[MAX_FLAGS];
    cli_args args;
    en_stats turn[MAX_ROUNDS];
    double prefill[MAX_ROUNDS], fraction[MAX_ROUNDS]; /* of the bound */
    cli_rates held[MAX_ROUNDS];                       /* what each turn is held against */
    double expert_bytes;
    int n;
} arm;

typedef struct bench {
    const cli_args *args;
    cli_model model;
    xp_trace *trace;
    arm *arms;
    int n_arms, rounds, tokens, prompt, warm;
    bool cold;
    cli_rates latest; /* of disk and memory */
} bench;

/* --- arms
 * ------------------------------------------------------------------------------------------- */

static bool add_words(arm *a, int *n)
{
    for (char *word = strtok(a->flags, " "); word; word = strtok(NULL, " ")) {
        if (*n == MAX_FLAGS) return false;
        a->argv[(*n)++] = word;
    }
    return true;
}

/* The verb's own arguments with the arm's behind them. */
static int parse_arm(const bench *b, arm *a, const char *flags, int argc, char **argv)
{
    int n = argc < MAX_FLAGS ? argc : MAX_FLAGS;
    memcpy(a->argv, argv, (size_t)n * sizeof *argv);
    a->shown = flags ? flags : "";
    if (flags && (!(a->flags = bs_strdup(flags)) || !add_words(a, &n))) return 2;
    return cli_parse(b->args->spec, n, a->argv, &a->args);
}

static int threads(const bench *b)
{
    return cli_int(b->args, "threads", bs_default_threads());
}

static int make_arms(bench *b, int argc, char **argv)
{
    int n = 0;
    while (cli_nth(b->args, "compare", n)) n++;
    if (n + 1 > MAX_ARMS) {
        fprintf(stderr, "flash-moe bench: at most %d arms\n", MAX_ARMS);
        return 2;
    }
    b->arms = bs_calloc((size_t)n + 1, sizeof *b->arms);
    if (!b->arms) return 1;
    for (int i = 0; i <= n; i++) {
        b->n_arms = i + 1;
        int ended =
            parse_arm(b, &b->arms[i], i ? cli_nth(b->args, "compare", i - 1) : NULL, argc, argv);
        if (ended >= 0) return ended;
    }
    return -1;
}

/* --- a turn
 * ----------------------------------------------------------------------------------------- */

typedef struct progress {
    en_engine *engine;
    int warm, seen;
    en_stats prompt; /* as it was when the warm-up ended */
    fm_error error;
} progress;

static bool on_event(void *arg, const en_event *event)
{
    progress *p = arg;
    if (event->kind == EN_EVENT_TOKEN) p->seen++;
    if (event->kind == EN_EVENT_DONE && event->finish == EN_FINISH_ERROR) p->error = *event->error;
    return true;
}

/* Random ids: a prompt that no cache of any kind has seen. */
static int32_t *make_prompt(int n, int vocab, uint64_t random)
{
    int32_t *ids = bs_calloc((size_t)n, sizeof *ids);
    for (int i = 0; ids && i < n; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        ids[i] = (int32_t)(random % (uint64_t)vocab);
    }
    return ids;
}

static fm_status submit(const bench *b, progress *p, const int32_t *prompt, int max_tokens,
                        fm_error *err)
{
    en_request r = en_request_default(p->engine);
    r.prompt = prompt;
    r.n_prompt = b->prompt;
    r.max_tokens = max_tokens;
    r.sampling = en_sampling_default();
    r.sampling.temperature = 1; /* greedy answers run in circles; each turn draws the same */
    r.sampling.seed = 1;
    r.ignore_end = true;
    r.on_event = on_event;
    r.arg = p;
    return en_submit(p->engine, &r, NULL, err);
}

/* Another prompt of the same length: what it reads, and touches for the first time, is no part of
 * the measured prompt's speed. */
static fm_status warm_up(const bench *b, en_engine *engine, fm_error *err)
{
    progress p = {.engine = engine};
    int32_t *prompt = make_prompt(b->prompt, en_describe(engine)->vocab, 362436069u);
    fm_status status = prompt ? submit(b, &p, prompt, 1, err) : fm_fail_nomem(err, "bench");
    while (!status && en_step(engine) > 0) {
    }
    bs_free(prompt);
    en_reset_stats(engine);
    return status         ? status
           : p.error.code ? fm_fail(err, p.error.code, "%s", p.error.message)
                          : FM_OK;
}

static fm_status generate(const bench *b, en_engine *engine, const int32_t *prompt, en_stats *out,
                          double *prefill, fm_error *err)
{
    progress p = {.engine = engine, .warm = b->warm};
    fm_status status = submit(b, &p, prompt, 1 + b->warm + b->tokens, err);
    if (status) return status;
    en_stats now;
    bool measuring = false;
    while (en_step(engine) > 0) {
        if (measuring || p.seen < 1 + b->warm) continue;
        en_get_stats(engine, &now);
        *prefill = now.prefill_tok_s;
        en_reset_stats(engine);
        measuring = true;
    }
    en_get_stats(engine, out);
    if (p.error.code) return fm_fail(err, p.error.code, "%s", p.error.message);
    return FM_OK;
}

static fm_status turn(const bench *b, arm *a, fm_error *err)
{
    en_options o = en_options_default();
    cli_engine_options(&a->args, &o);
    o.model = b->model.folder;
    o.no_tokenizer = true;
    int need = b->prompt + b->warm + b->tokens + 2;
    if (o.context < need) o.context = need;
    en_engine *engine;
    fm_status status = en_open(&o, &engine, err);
    if (status) return status;
    cli_replay *replay = NULL;
    int32_t *prompt = make_prompt(b->prompt, en_describe(engine)->vocab, 88172645463325252u);
    if (!prompt) status = fm_fail_nomem(err, "bench");
    if (!status && !b->cold) status = warm_up(b, engine, err);
    if (!status && b->trace) status = cli_replay_start(engine, b->trace, &replay, err);
    if (!status) status = generate(b, engine, prompt, &a->turn[a->n], &a->prefill[a->n], err);
    a->expert_bytes = (double)en_describe(engine)->expert_bytes;
    if (!status) status = cli_rates_measure_experts(engine, &a->held[a->n], err);
    cli_replay_stop(replay);
    bs_free(prompt);
    en_close(engine);
    return status;
}

/* The machine's rates change with its neighbours: a turn is held against the mean of what was
 * measured before and after it, without an engine: it takes a GiB. */
static fm_status hold_against_rates(bench *b, arm *a, fm_error *err)
{
    cli_rates before = b->latest, *held = &a->held[a->n];
    fm_status status = cli_rates_measure(b->model.folder, threads(b), &b->latest, err);
    if (status) return status;
    held->disk = (before.disk + b->latest.disk) / 2;
    held->memory = (before.memory + b->latest.memory) / 2;
    cli_rates_bound(held, a->expert_bytes, &a->turn[a->n]);
    a->fraction[a->n] = a->turn[a->n].bound_fraction;
    a->n++;
    return FM_OK;
}

static cli_rates mean_rates(const bench *b)
{
    cli_rates sum = {0};
    for (int i = 0; i < b->n_arms; i++) {
        cli_rates mean = cli_rates_mean(b->arms[i].held, b->arms[i].n);
        sum.disk += mean.disk / b->n_arms;
        sum.memory += mean.memory / b->n_arms;
        sum.experts += mean.experts / b->n_arms;
    }
    return sum;
}

/* --- results
 * ---------------------------------------------------------------------------------------- */

static int by_speed(const void *x, const void *y)
{
    double a = ((const en_stats *)x)->decode_tok_s, b = ((const en_stats *)y)->decode_tok_s;
    return (a > b) - (a < b);
}

static int by_number(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Of sorted turns; of an even number the slower of the two in the middle, so as not to flatter. */
static int middle_of(const arm *a)
{
    return (a->n - 1) / 2;
}

static void sort_turns(bench *b)
{
    for (int i = 0; i < b->n_arms; i++) {
        arm *a = &b->arms[i];
        qsort(a->turn, (size_t)a->n, sizeof *a->turn, by_speed);
        qsort(a->prefill, (size_t)a->n, sizeof *a->prefill, by_number);
        qsort(a->fraction, (size_t)a->n, sizeof *a->fraction, by_number);
        a->turn[middle_of(a)].bound_fraction = a->fraction[middle_of(a)];
    }
}

static double bytes_a_token(const en_stats *s)
{
    return s->tokens ? (double)s->bytes_read / (double)s->tokens : 0;
}

static json_t *arm_json(const arm *a)
{
    const en_stats *middle = &a->turn[middle_of(a)];
    json_t *speeds = json_pack("{s:f, s:f, s:f}", "median", middle->decode_tok_s, "min",
                               a->turn[0].decode_tok_s, "max", a->turn[a->n - 1].decode_tok_s);
    return json_pack("{s:s, s:o, s:f, s:f, s:o}", "flags", a->shown, "decode_tok_s", speeds,
                     "prefill_tok_s", a->prefill[middle_of(a)], "bytes_per_token",
                     bytes_a_token(middle), "stats", en_stats_json(middle));
}

static bool print_json(const bench *b)
{
    cli_rates r = mean_rates(b);
    json_t *root = json_pack("{s:{s:f, s:f, s:f}, s:i, s:i, s:i}", "rates", "disk_bytes_s", r.disk,
                             "memory_bytes_s", r.memory, "expert_bytes_s", r.experts, "rounds",
                             b->rounds, "tokens", b->tokens, "warm_tokens", b->warm);
    json_t *arms = json_array();
    for (int i = 0; i < b->n_arms; i++) json_array_append_new(arms, arm_json(&b->arms[i]));
    if (b->n_arms == 1) json_object_update(root, json_array_get(arms, 0));
    else json_object_set(root, "arms", arms);
    json_decref(arms);
    return cli_put_json(root);
}

static void print_table(const bench *b)
{
    cli_rates r = mean_rates(b);
    printf("disk %.2f GB/s, memory %.1f GB/s, ", r.disk / 1e9, r.memory / 1e9);
    if (r.experts > 0) printf("experts in memory %.1f GB/s, ", r.experts / 1e9);
    printf("%d rounds of %d tokens after %d\n\n", b->rounds, b->tokens, b->warm);
    printf("%8s %15s %8s %9s %7s %9s %9s %8s  %s\n", "tok/s", "(min..max)", "prefill", "bound",
           "of it", "hit rate", "MB/token", "wait ms", "flags");
    for (int i = 0; i < b->n_arms; i++) {
        const arm *a = &b->arms[i];
        const en_stats *s = &a->turn[middle_of(a)];
        char spread[32];
        snprintf(spread, sizeof spread, "(%.2f..%.2f)", a->turn[0].decode_tok_s,
                 a->turn[a->n - 1].decode_tok_s);
        printf("%8.2f %15s %8.1f %9.2f %6.1f%% %8.2f%% %9.1f %8.1f  %s\n", s->decode_tok_s, spread,
               a->prefill[middle_of(a)], s->bound_tok_s, 100 * s->bound_fraction, 100 * s->hit_rate,
               bytes_a_token(s) / 1e6, s->tokens ? s->read_ms_exposed / (double)s->tokens : 0,
               a->shown);
    }
}

static fm_status draw(const bench *b, const char *path, fm_error *err)
{
    cli_plot plot = {.title = "Decoding speed by memory budget",
                     .x_label = "budget (GB)",
                     .y_label = "tokens/s; hit rate in tens of %"};
    int speed = cli_plot_line(&plot, "tokens/s"), bound = cli_plot_line(&plot, "bound");
    int hits = cli_plot_line(&plot, "hit rate");
    for (int i = 0; i < b->n_arms; i++) {
        const en_stats *s = &b->arms[i].turn[middle_of(&b->arms[i])];
        double x = (double)s->budget_bytes / 1e9;
        cli_plot_point(&plot, speed, x, s->decode_tok_s);
        cli_plot_point(&plot, bound, x, s->bound_tok_s);
        cli_plot_point(&plot, hits, x, 10 * s->hit_rate);
    }
    return cli_plot_write(&plot, path, err);
}

static fm_status report(bench *b, fm_error *err)
{
    sort_turns(b);
    const char *svg = cli_text(b->args, "svg", NULL);
    fm_status status = svg ? draw(b, svg, err) : FM_OK;
    if (status) return status;
    if (!cli_has(b->args, "json")) print_table(b);
    else if (!print_json(b)) return fm_fail(err, FM_E_IO, "cannot write the result");
    return FM_OK;
}

/* --- all of it
 * -------------------------------------------------------------------------------------- */

static fm_status run(bench *b, fm_error *err)
{
    fm_status status = cli_rates_measure(b->model.folder, threads(b), &b->latest, err);
    for (int round = 0; round < b->rounds && !status; round++) {
        for (int i = 0; i < b->n_arms && !status; i++) {
            fprintf(stderr, "round %d of %d, arm %d of %d %s\n", round + 1, b->rounds, i + 1,
                    b->n_arms, b->arms[i].shown);
            status = turn(b, &b->arms[i], err);
            if (!status) status = hold_against_rates(b, &b->arms[i], err);
            if (cli_interrupted() && !status) status = fm_fail(err, FM_E_CANCELLED, "interrupted");
        }
    }
    return status ? status : report(b, err);
}

int cli_bench_model(const cli_args *args, int argc, char **argv)
{
    bench b = {.args = args,
               .rounds = cli_int(args, "rounds", 3),
               .tokens = cli_int(args, "max-tokens", 64),
               .prompt = cli_int(args, "prompt-tokens", 32),
               .cold = cli_has(args, "cold"),
               .warm = cli_has(args, "cold") ? 0 : cli_int(args, "warm", 32)};
    fm_error err;
    int ended = make_arms(&b, argc, argv);
    const char *trace = cli_text(args, "trace", NULL);
    fm_status status = FM_OK;
    if (ended < 0 && trace) status = xp_trace_read(trace, &b.trace, &err);
    if (ended < 0 && !status)
        status = cli_resolve_model(cli_model_name(args), cli_has(args, "yes") ? CLI_RESOLVE_YES : 0,
                                   &b.model, &err);
    cli_catch_signals();
    if (ended < 0 && !status) status = run(&b, &err);
    cli_model_free(&b.model);
    xp_trace_free(b.trace);
    for (int i = 0; i < b.n_arms; i++) bs_free(b.arms[i].flags);
    bs_free(b.arms);
    if (ended >= 0) return ended;
    return status ? cli_fail(&err) : 0;
}
