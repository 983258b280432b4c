#include "cli/tune.h"

#include "base/mem.h"
#include "cli/bench_rates.h"
#include "model/model.h"

const int cli_tune_depths[CLI_TUNE_DEPTHS] = {1, 2, 4, 8, 16};

fm_status cli_tune_find(cli_tune *t, fm_error *err)
{
    md_options o = {.isa = kn_isa_best()};
    md_model *model;
    fm_status status = md_open(t->folder, &o, &model, err);
    if (status) return status;
    t->file = cli_rates_file(t->folder, model);
    t->record_bytes = (size_t)md_describe(model)->expert_bytes;
    md_close(model);
    return t->file ? FM_OK : fm_fail_nomem(err, "tune");
}

/* The smallest depth within 3 % of the best rate: deeper queues only add latency. */
static fm_status tune_disk(cli_tune *t, fm_error *err)
{
    t->say("disk...");
    double best = 0;
    for (int i = 0; i < CLI_TUNE_DEPTHS; i++) {
        xp_disk_probe p = {.path = t->file,
                           .record_bytes = t->record_bytes,
                           .depth = cli_tune_depths[i],
                           .seconds = t->seconds};
        fm_status status = xp_measure_disk(&p, &t->disk[i], err);
        if (status) return status;
        if (t->disk[i].bytes_s > best) best = t->disk[i].bytes_s;
    }
    int i = 0;
    while (t->disk[i].bytes_s < 0.97 * best) i++;
    t->found.disk_bytes_s = best;
    t->found.io_threads = cli_tune_depths[i] < 2 ? 2 : cli_tune_depths[i];
    return FM_OK;
}

static fm_status tune_memory(cli_tune *t, fm_error *err)
{
    t->say("memory...");
    int most = bs_default_threads();
    for (int threads = 1; threads <= most; threads += threads < most ? most - threads : 1) {
        bs_pool *pool;
        double rate;
        fm_status status = bs_pool_create(threads, &pool, err);
        if (status) return status;
        status = xp_measure_memory(pool, t->seconds, &rate, err);
        bs_pool_destroy(pool);
        if (status) return status;
        if (threads == 1) t->memory_one = rate;
        t->found.memory_bytes_s = rate > t->found.memory_bytes_s ? rate : t->found.memory_bytes_s;
    }
    t->found.threads = most;
    return FM_OK;
}

fm_status cli_tune_measure(cli_tune *t, fm_error *err)
{
    t->found = (xp_tuning){.prefetch = -1};
    fm_status status = tune_disk(t, err);
    return status ? status : tune_memory(t, err);
}

void cli_tune_free(cli_tune *t)
{
    bs_free(t->file);
}
