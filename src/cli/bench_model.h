/* bench_model.h - decoding speed of a model against this machine's bounds. */
#ifndef CLI_BENCH_MODEL_H
#define CLI_BENCH_MODEL_H

#include "cli/options.h"

extern const cli_group cli_group_bench_model;

/* argv as given to the verb: each --compare adds its flags to them. Returns the exit status. */
int cli_bench_model(const cli_args *args, int argc, char **argv);

#endif
