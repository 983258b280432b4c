/* flash-moe bench: measured speed against this machine's bounds. */
#include "base/pool.h"
#include "cli/bench_kernels.h"
#include "cli/bench_model.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/suite.h"

#include <stdio.h>

static const cli_option kernel_options[] = {
    {"kernels", 0, CLI_FLAG, NULL, 0, 0, "measure the arithmetic alone, no model needed"},
    {"only", 0, CLI_TEXT, "NAME", 0, 0, "kernels whose name holds this text"},
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "one JSON object on stdout"},
    {0},
};
static const cli_group kernel_group = {"Kernels and output", kernel_options, true};
static const cli_group suite_group = {"Suites", cli_suite_options, false};

const cli_spec spec_bench = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "Decodes with random prompts and prints tokens/s beside the machine's own bound: the "
        "slower of bytes over the memory bus (weights, recurrent states read and written, cached "
        "rows) at the memory rate and missed bytes at the disk rate, all measured in the same "
        "run; experts count at the rate that they are read at where they lie, one by one. Arms run "
        "in turns, so that they can be compared on a machine that is not quiet. With --kernels: "
        "bytes and operations a second of each kernel.",
    .examples = "flash-moe bench --memory 8G MODEL\n"
                "flash-moe bench MODEL --memory 4G --compare '--memory 8G' --svg memory.svg\n"
                "flash-moe bench MODEL --compare '--prefetch 4' --compare '--buffered' --json\n"
                "flash-moe bench MODEL --trace routing.jsonl\n"
                "flash-moe bench --suite batch --capacity 51 MODEL\n"
                "flash-moe bench --kernels --only 4-bit --isa avx2 -t 1\n",
    .groups = {&cli_group_model, &cli_group_bench_model, &cli_group_engine, &cli_group_seed,
               &suite_group, &kernel_group},
};

static int kernels(const cli_args *args)
{
    kn_isa isa = KN_ISA_PORTABLE;
    kn_isa_parse(cli_text(args, "isa", "auto"), &isa);
    if (!kn_isa_available(isa)) {
        fprintf(stderr, "flash-moe: this CPU or build has no %s\n", kn_isa_name(isa));
        return 1;
    }
    return bench_kernels(isa, cli_int(args, "threads", bs_default_threads()),
                         cli_text(args, "only", NULL), cli_has(args, "json"));
}

int cmd_bench(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_bench, argc, argv, &args);
    if (ended >= 0) return ended;
    if (cli_has(&args, "suite")) return cli_run_suite(&args, cli_text(&args, "suite", ""));
    return cli_has(&args, "kernels") ? kernels(&args) : cli_bench_model(&args, argc, argv);
}
