#include "cli/bench_rates.h"

#include "base/file.h"
#include "base/mem.h"
#include "experts/measure.h"
#include "experts/pack.h"

char *cli_rates_file(const char *folder, const md_model *model)
{
    char *dir = xp_pack_find(folder), *path = dir ? bs_path_join(dir, "layer-000.pack") : NULL;
    bs_free(dir);
    const ts_store *store = md_store(model);
    if (path || !store) return path;
    int best = 0;
    for (int f = 1; f < ts_file_count(store); f++)
        if (ts_file_bytes(store, f) > ts_file_bytes(store, best)) best = f;
    return bs_strdup(ts_file_path(store, best));
}

static fm_status measure_disk(const char *folder, double *out, fm_error *err)
{
    md_options o = {.isa = kn_isa_best()};
    md_model *model;
    fm_status status = md_open(folder, &o, &model, err);
    if (status) return status;
    char *path = cli_rates_file(folder, model);
    xp_disk_probe probe = {.path = path,
                           .record_bytes = (size_t)md_describe(model)->expert_bytes,
                           .depth = 4,
                           .seconds = 0.7};
    xp_disk_rate disk = {0};
    status = path ? xp_measure_disk(&probe, &disk, err) : fm_fail_nomem(err, "bench");
    bs_free(path);
    md_close(model);
    *out = disk.bytes_s;
    return status;
}

fm_status cli_rates_measure(const char *folder, int threads, cli_rates *out, fm_error *err)
{
    bs_pool *pool;
    *out = (cli_rates){0};
    fm_status status = measure_disk(folder, &out->disk, err);
    if (status) return status;
    status = bs_pool_create(threads, &pool, err);
    if (status) return status;
    status = xp_measure_memory(pool, 0.5, &out->memory, err);
    bs_pool_destroy(pool);
    return status;
}

/* Fewer would in part come out of a large L3. */
enum { LEAST_EXPERTS = 1 << 28 };

fm_status cli_rates_measure_experts(en_engine *engine, cli_rates *rates, fm_error *err)
{
    return xp_measure_experts(en_experts(engine), en_pool(engine), 0.5, LEAST_EXPERTS,
                              &rates->experts, err);
}

cli_rates cli_rates_mean(const cli_rates *rates, int n)
{
    cli_rates sum = {0};
    for (int i = 0; i < n; i++) {
        sum.disk += rates[i].disk / n;
        sum.memory += rates[i].memory / n;
        sum.experts += rates[i].experts / n;
    }
    return sum;
}

void cli_rates_bound(const cli_rates *rates, double expert_bytes, en_stats *stats)
{
    double memory = rates->memory, all = stats->memory_bytes_per_token;
    if (rates->experts > 0 && memory > 0 && stats->tokens) {
        double uses = (double)(stats->expert_hits + stats->expert_misses) / (double)stats->tokens;
        double experts = uses * expert_bytes < all ? uses * expert_bytes : all;
        memory = all / (experts / rates->experts + (all - experts) / memory);
    }
    en_reckon_bound(stats, rates->disk, memory);
}
