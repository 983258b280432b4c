/* bench_rates.h - the rates of disk and memory that a benchmark's turn is held against. */
#ifndef CLI_BENCH_RATES_H
#define CLI_BENCH_RATES_H

#include "engine/engine.h"

/* Bytes a second. experts: of the experts in memory, read where they lie (measure.h); 0: unknown,
 * then memory stands for them too. */
typedef struct cli_rates {
    double disk, memory, experts;
} cli_rates;

/* A big file with experts of the model in it: a layer of the packed store, or the checkpoint's
 * largest file. To be freed with bs_free; NULL: no memory. */
char *cli_rates_file(const char *folder, const md_model *model);

/* Disk and memory; threads: those that compute. Takes about a second. */
fm_status cli_rates_measure(const char *folder, int threads, cli_rates *out, fm_error *err);

/* rates->experts, from an engine between two steps. Takes about half a second. */
fm_status cli_rates_measure_experts(en_engine *engine, cli_rates *rates, fm_error *err);

cli_rates cli_rates_mean(const cli_rates *rates, int n);

/* Reckons the bound and what was reached of it: experts at their rate, all else at memory's. */
void cli_rates_bound(const cli_rates *rates, double expert_bytes, en_stats *stats);

#endif
