#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/plot.h"
#include "experts/simulate.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_CAPACITIES = 32, ARMS = 6 };

/* Each policy with slots fixed a layer and with lending between layers, and the ceiling. */
static const struct {
    const char *name;
    xp_policy policy;
    bool lend;
} arms[ARMS - 1] = {
    {"lfru", XP_LFRU, true},      {"lru", XP_LRU, true},  {"lfru fixed", XP_LFRU, false},
    {"lru fixed", XP_LRU, false}, {"lcp", XP_LCP, false}, /* never lends */
};

static const cli_option simulate_options[] = {
    {"capacity", 0, CLI_TEXT, "N,N...", 0, 0,
     "slots a layer to try; default: eighths of the experts"},
    {"svg", 0, CLI_FILE, "FILE", 0, 0, "draw hit rate against capacity"},
    {"json", 0, CLI_FLAG, NULL, 0, 0, "one JSON object"},
    {0},
};
static const cli_group simulate_group = {"Simulation", simulate_options, false};

const cli_spec spec_simulate = {
    .arguments = "TRACE",
    .least = 1,
    .most = 1,
    .about =
        "Replay recorded routing through the engine's own cache code, for every policy and many "
        "capacities, with Belady's clairvoyant policy as the ceiling. Rates are of decode steps; "
        "\"fixed\" gives each layer the same slots (--capacity), the others lend between layers "
        "(--memory). Traces: those of run --trace, JSON lines {\"layers\": [[ids]...]}, and route "
        "CSV.",
    .examples = "flash-moe run -p 'Hello' --trace hello.jsonl\n"
                "flash-moe simulate hello.jsonl --svg hello.svg\n",
    .groups = {&simulate_group},
};

typedef struct outcome {
    int capacity;
    xp_sim_result arm[ARMS]; /* the last is Belady */
} outcome;

static double rate(const xp_sim_result *r)
{
    uint64_t all = r->decode_hits + r->decode_misses;
    return all ? (double)r->decode_hits / (double)all : 1;
}

static const char *arm_name(int arm)
{
    return arm == ARMS - 1 ? "belady" : arms[arm].name;
}

/* Numbers from "8,16,32", or eighths of the experts from top_k on. */
static int capacities(const xp_trace *t, const char *text, int out[MAX_CAPACITIES])
{
    int n = 0;
    if (!text) {
        for (int i = 1; i <= 8; i++) {
            int c = t->n_experts * i / 8;
            if (c < t->top_k) c = t->top_k;
            if (!n || c > out[n - 1]) out[n++] = c;
        }
        return n;
    }
    while (*text && n < MAX_CAPACITIES) {
        char *end;
        long c = strtol(text, &end, 10);
        if (end == text || c < 1 || c > 1000000 || (*end && *end != ',')) return 0;
        out[n++] = (int)c;
        text = *end ? end + 1 : end;
    }
    return n;
}

static fm_status simulate_one(const xp_trace *t, int capacity, outcome *out, fm_error *err)
{
    out->capacity = capacity;
    for (int a = 0; a < ARMS - 1; a++) {
        xp_sim_options o = {arms[a].policy, capacity, arms[a].lend};
        fm_status status = xp_simulate(t, &o, &out->arm[a], err);
        if (status) return status;
    }
    return xp_simulate_belady(t, capacity, 0, &out->arm[ARMS - 1], err);
}

/* --- output
 * ----------------------------------------------------------------------------------------- */

static void print_table(const xp_trace *t, const outcome *o, int n)
{
    printf("%d tokens in %d steps, %d layers, %d experts, %d a token\n", t->n_tokens, t->n_steps,
           t->n_layers, t->n_experts, t->top_k);
    printf("hit rate of decode steps, %%; in brackets misses / Belady's misses\n\n%8s %7s", "slots",
           "share");
    for (int a = 0; a < ARMS; a++) printf(" %14s", arm_name(a));
    putchar('\n');
    for (int i = 0; i < n; i++) {
        printf("%8d %6.1f%%", o[i].capacity, 100.0 * o[i].capacity / t->n_experts);
        double best = (double)o[i].arm[ARMS - 1].decode_misses;
        for (int a = 0; a < ARMS; a++) {
            double misses = (double)o[i].arm[a].decode_misses;
            printf(" %6.2f (%5.3f)", 100 * rate(&o[i].arm[a]), best > 0 ? misses / best : 1);
        }
        putchar('\n');
    }
}

static void print_json(const xp_trace *t, const outcome *o, int n)
{
    printf("{\"tokens\":%d,\"steps\":%d,\"layers\":%d,\"experts\":%d,\"top_k\":%d,\"results\":[",
           t->n_tokens, t->n_steps, t->n_layers, t->n_experts, t->top_k);
    for (int i = 0; i < n; i++) {
        printf("%s{\"capacity\":%d,\"policies\":{", i ? "," : "", o[i].capacity);
        for (int a = 0; a < ARMS; a++) {
            const xp_sim_result *r = &o[i].arm[a];
            printf("%s\"%s\":{\"hits\":%llu,\"misses\":%llu,\"decode_hits\":%llu,"
                   "\"decode_misses\":%llu,\"hit_rate\":%.6f}",
                   a ? "," : "", arm_name(a), (unsigned long long)r->hits,
                   (unsigned long long)r->misses, (unsigned long long)r->decode_hits,
                   (unsigned long long)r->decode_misses, rate(r));
        }
        fputs("}}", stdout);
    }
    puts("]}");
}

static fm_status draw(const char *path, const xp_trace *t, const outcome *o, int n, fm_error *err)
{
    cli_plot plot = {.title = "Decode hit rate by cache size",
                     .x_label = "slots, share of the experts (%)",
                     .y_label = "hit rate (%)"};
    for (int a = 0; a < ARMS; a++) {
        int line = cli_plot_line(&plot, arm_name(a));
        for (int i = 0; i < n; i++)
            cli_plot_point(&plot, line, 100.0 * o[i].capacity / t->n_experts,
                           100 * rate(&o[i].arm[a]));
    }
    return cli_plot_write(&plot, path, err);
}

static fm_status simulate(const cli_args *args, const xp_trace *t, fm_error *err)
{
    int tries[MAX_CAPACITIES];
    outcome results[MAX_CAPACITIES];
    int n = capacities(t, cli_text(args, "capacity", NULL), tries);
    if (!n) return fm_fail(err, FM_E_ARGUMENT, "--capacity wants numbers like 8,16,32");
    for (int i = 0; i < n; i++) {
        fm_status status = simulate_one(t, tries[i], &results[i], err);
        if (status) return status;
    }
    if (cli_has(args, "json")) print_json(t, results, n);
    else print_table(t, results, n);
    const char *svg = cli_text(args, "svg", NULL);
    return svg ? draw(svg, t, results, n, err) : FM_OK;
}

int cmd_simulate(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_simulate, argc, argv, &args);
    if (ended >= 0) return ended;
    fm_error err;
    xp_trace *trace;
    fm_status status = xp_trace_read(cli_positional(&args, 0), &trace, &err);
    if (status) return cli_fail(&err);
    status = simulate(&args, trace, &err);
    xp_trace_free(trace);
    return status ? cli_fail(&err) : 0;
}
