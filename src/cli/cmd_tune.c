/* flash-moe tune: what this machine can do, and which settings suit it, stored for later runs. */
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/resolve.h"
#include "cli/tune.h"

#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>

static const cli_option tune_options[] = {
    {"seconds", 0, CLI_NUMBER, "S", 0.05, 60, "time for each measurement (default 0.5)"},
    {"no-prefetch", 0, CLI_FLAG, NULL, 0, 0, "leave out the trial of prefetching, which decodes"},
    {"dry-run", 0, CLI_FLAG, NULL, 0, 0, "measure and print, store nothing"},
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "one JSON object"},
    {0},
};
static const cli_group tune_group = {"Tuning", tune_options, false};

const cli_spec spec_tune = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "Measures the disk that holds MODEL with reads of one expert at several depths, and "
        "memory with one thread and more; tries whether prefetching pays. The result is kept for "
        "this machine and disk, and every later run, plan and bench uses it. Run it on a quiet "
        "machine, and again after a change of disk, memory or kernel.",
    .examples = "flash-moe tune\nflash-moe tune /fast/disk/model\n",
    .groups = {&cli_group_model, &tune_group},
};

enum { ROUNDS = 3, PROMPT = 16, WARM = 24, TOKENS = 24 };

static void say(const char *what)
{
    fprintf(stderr, "%s\n", what);
}

static void say_nothing(const char *what)
{
    (void)what;
}

/* --- prefetch
 * --------------------------------------------------------------------------------------- */

static bool keep_error(void *arg, const en_event *event)
{
    fm_error *err = arg;
    if (event->kind == EN_EVENT_DONE && event->finish == EN_FINISH_ERROR) *err = *event->error;
    return true;
}

static fm_status decode(en_engine *engine, int tokens, fm_error *err)
{
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (i * 977 + 13) % en_describe(engine)->vocab;
    fm_error problem = {0};
    en_request r = en_request_default(engine);
    r.prompt = prompt;
    r.n_prompt = PROMPT;
    r.max_tokens = tokens;
    r.sampling.temperature = 1;
    r.sampling.seed = 1;
    r.ignore_end = true;
    r.on_event = keep_error;
    r.arg = &problem;
    fm_status status = en_submit(engine, &r, NULL, err);
    while (!status && en_step(engine) > 0) {
    }
    return problem.code ? fm_fail(err, problem.code, "%s", problem.message) : status;
}

/* Tokens a second with a quarter of the experts in memory, where prefetching has a chance. */
static fm_status speed(const cli_tune *t, int prefetch, double *tok_s, fm_error *err)
{
    en_options o = en_options_default();
    o.model = t->folder;
    o.no_tokenizer = true;
    o.prefetch = prefetch;
    o.context = 2 * PROMPT + WARM + TOKENS;
    en_engine *engine;
    md_options options = {.isa = kn_isa_best()};
    md_model *model;
    fm_status status = md_open(t->folder, &options, &model, err);
    if (status) return status;
    const md_info *info = md_describe(model);
    o.capacity = info->n_experts / 4 > info->top_k ? info->n_experts / 4 : info->top_k;
    md_close(model);
    status = en_open(&o, &engine, err);
    if (status) return status;
    status = decode(engine, WARM, err);
    en_reset_stats(engine);
    if (!status) status = decode(engine, TOKENS, err);
    en_stats s;
    en_get_stats(engine, &s);
    *tok_s = s.decode_tok_s;
    en_close(engine);
    return status;
}

/* Off and on in turns; on only when its best turn beats the best without by 3 %. */
static fm_status tune_prefetch(cli_tune *t, double *gain, fm_error *err)
{
    enum { HINTS = 4 };
    double best[2] = {0};
    t->say("prefetching...");
    for (int round = 0; round < ROUNDS; round++)
        for (int on = 0; on < 2; on++) {
            double tok_s;
            fm_status status = speed(t, on ? HINTS : 0, &tok_s, err);
            if (status) return status;
            if (tok_s > best[on]) best[on] = tok_s;
        }
    *gain = best[0] > 0 ? best[1] / best[0] - 1 : 0;
    t->found.prefetch = *gain > 0.03 ? HINTS : 0;
    return FM_OK;
}

/* --- results
 * ---------------------------------------------------------------------------------------- */

static void print_json(const cli_tune *t, double gain)
{
    printf("{\"record_bytes\":%zu,\"disk\":[", t->record_bytes);
    for (int i = 0; i < CLI_TUNE_DEPTHS; i++)
        printf("%s{\"depth\":%d,\"bytes_s\":%.0f,\"latency_ms\":%.3f}", i ? "," : "",
               cli_tune_depths[i], t->disk[i].bytes_s, t->disk[i].latency_s * 1e3);
    printf("],\"direct_io\":%s,\"memory_bytes_s\":%.0f,\"memory_one_thread\":%.0f,\"threads\":%d,"
           "\"io_threads\":%d,\"prefetch\":%d,\"prefetch_gain\":%.4f}\n",
           t->disk[0].direct_io ? "true" : "false", t->found.memory_bytes_s, t->memory_one,
           t->found.threads, t->found.io_threads, t->found.prefetch, gain);
}

static void print_text(const cli_tune *t, double gain)
{
    printf("disk, random reads of %zu bytes%s:\n", t->record_bytes,
           t->disk[0].direct_io ? "" : " (through the page cache: the rate means little)");
    for (int i = 0; i < CLI_TUNE_DEPTHS; i++)
        printf("  depth %2d  %6.2f GB/s  %8.2f ms\n", cli_tune_depths[i], t->disk[i].bytes_s / 1e9,
               t->disk[i].latency_s * 1e3);
    printf("memory: %.1f GB/s with one thread, %.1f with %d\n", t->memory_one / 1e9,
           t->found.memory_bytes_s / 1e9, t->found.threads);
    printf("settings: %d read threads, %d compute threads", t->found.io_threads, t->found.threads);
    if (t->found.prefetch >= 0)
        printf(", prefetch %s (%+.1f %%)", t->found.prefetch ? "4" : "off", 100 * gain);
    putchar('\n');
}

static fm_status run(const cli_args *args, cli_tune *t, fm_error *err)
{
    double gain = 0; /* when not tried */
    fm_status status = cli_tune_find(t, err);
    if (!t->record_bytes) t->record_bytes = 1 << 20;
    if (!status) status = cli_tune_measure(t, err);
    if (!status && !cli_has(args, "no-prefetch")) status = tune_prefetch(t, &gain, err);
    if (status) return status;
    bool json = cli_has(args, "json");
    if (json) print_json(t, gain);
    else print_text(t, gain);
    if (cli_has(args, "dry-run")) return FM_OK;
    char *where = NULL;
    status = xp_tuning_save(t->file, &t->found, &where, err);
    if (!status && !json) printf("stored in %s\n", where);
    bs_free(where);
    return status;
}

int cmd_tune(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_tune, argc, argv, &args);
    if (ended >= 0) return ended;
    fm_error err;
    cli_model found;
    fm_status status = cli_resolve_model(cli_model_name(&args), 0, &found, &err);
    if (status) return cli_fail(&err);
    cli_tune t = {.folder = found.folder,
                  .seconds = cli_number(&args, "seconds", 0.5),
                  .say = cli_has(&args, "json") ? say_nothing : say};
    status = run(&args, &t, &err);
    cli_tune_free(&t);
    cli_model_free(&found);
    return status ? cli_fail(&err) : 0;
}
