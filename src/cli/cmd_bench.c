/* flash-moe bench: measured speed against this machine's bounds. */
#include "base/pool.h"
#include "cli/bench_kernels.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/suite.h"

#include <stdio.h>

static const cli_option options[] = {
    {"kernels", 0, CLI_FLAG, NULL, 0, 0, "measure the arithmetic alone, no model needed"},
    {"only", 0, CLI_TEXT, "NAME", 0, 0, "kernels whose name holds this text"},
    {"max-tokens", 'n', CLI_INT, "N", 1, 1000000, "tokens an arm"},
    {"svg", 0, CLI_FILE, "FILE", 0, 0, "draw the result"},
    {"json", 0, CLI_FLAG, NULL, 0, 0, "one JSON object on stdout"},
    {0},
};
static const cli_group bench_group = {"Measurement", options, true};
static const cli_group suite_group = {"Suites", cli_suite_options, false};

const cli_spec spec_bench = {
    .arguments = "",
    .about = "Measures bytes and operations a second of each kernel, beside the machine's own\n"
             "streaming read rate.",
    .examples = "  flash-moe bench --kernels\n"
                "  flash-moe bench --kernels --only 4-bit --isa avx2 -t 1\n",
    .groups = {&bench_group, &suite_group, &cli_group_model, &cli_group_engine, &cli_group_seed},
};

int cmd_bench(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_bench, argc, argv, &args);
    if (status >= 0) return status;
    kn_isa isa = KN_ISA_PORTABLE;
    kn_isa_parse(cli_text(&args, "isa", "auto"), &isa);
    if (!kn_isa_available(isa)) {
        fprintf(stderr, "flash-moe: this CPU or build has no %s\n", kn_isa_name(isa));
        return 1;
    }
    if (cli_has(&args, "suite")) return cli_run_suite(&args, cli_text(&args, "suite", ""));
    if (!cli_has(&args, "kernels")) {
        fputs("flash-moe: bench: say --kernels\n", stderr);
        return 2;
    }
    return bench_kernels(isa, cli_int(&args, "threads", bs_default_threads()),
                         cli_text(&args, "only", NULL), cli_has(&args, "json"));
}
