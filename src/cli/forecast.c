#include "cli/forecast.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/resolve.h"
#include "experts/measure.h"

#include <stdio.h>

static double memory_rate(int threads)
{
    bs_pool *pool;
    double rate = 0;
    if (bs_pool_create(threads > 0 ? threads : bs_default_threads(), &pool, NULL)) return 0;
    if (xp_measure_memory(pool, 0.2, &rate, NULL)) rate = 0;
    bs_pool_destroy(pool);
    return rate;
}

/* Reads the checkpoint itself, or before it is there the bundled model. */
static double disk_rate(const md_model *model)
{
    cli_model bundled = {0};
    const ts_store *store = md_store(model);
    char *path = NULL;
    if (store && ts_file_count(store)) path = bs_strdup(ts_file_path(store, 0));
    else if (!cli_resolve_model(NULL, 0, &bundled, NULL))
        path = bs_path_join(bundled.folder, "model-00001-of-00002.safetensors");
    xp_disk_probe probe = {.path = path,
                           .record_bytes = (size_t)md_describe(model)->expert_bytes,
                           .depth = 4,
                           .seconds = 0.3};
    xp_disk_rate rate = {0};
    if (!path || xp_measure_disk(&probe, &rate, NULL)) rate.bytes_s = 0;
    bs_free(path);
    cli_model_free(&bundled);
    return rate.bytes_s;
}

void cli_find_rates(const char *folder, const md_model *model, int threads, en_plan_request *r)
{
    xp_tuning tuning = {0};
    xp_tuning_load(folder, &tuning);
    if (r->disk_bytes_s <= 0) r->disk_bytes_s = tuning.disk_bytes_s;
    if (r->memory_bytes_s <= 0) r->memory_bytes_s = tuning.memory_bytes_s;
    if (r->memory_bytes_s <= 0) r->memory_bytes_s = memory_rate(threads);
    if (r->disk_bytes_s <= 0) r->disk_bytes_s = disk_rate(model);
}

/* The share of experts found in memory when a share of them is kept: the middle of replays of five
 * models' recorded routing under the default policy. A guess before the model is there. */
static double usual_hit_rate(double kept)
{
    static const double at[][2] = {{0, 0},        {0.0625, 0.46}, {0.125, 0.62}, {0.25, 0.77},
                                   {0.375, 0.85}, {0.5, 0.89},    {0.75, 0.95},  {1, 1}};
    size_t i = 1;
    while (i + 1 < sizeof at / sizeof *at && kept > at[i][0]) i++;
    double t = (kept - at[i - 1][0]) / (at[i][0] - at[i - 1][0]);
    return at[i - 1][1] + (at[i][1] - at[i - 1][1]) * (t < 0 ? 0 : t > 1 ? 1 : t);
}

/* Seconds a token are nearly straight between the planner's points, and below the first. */
static double tokens_a_second(const en_plan *p, double hit_rate)
{
    int i = 1;
    if (p->n_forecasts < 2) return 0;
    while (i + 1 < p->n_forecasts && hit_rate > p->forecast[i].hit_rate) i++;
    double a = 1 / p->forecast[i - 1].tok_s, b = 1 / p->forecast[i].tok_s;
    double t = (hit_rate - p->forecast[i - 1].hit_rate) /
               (p->forecast[i].hit_rate - p->forecast[i - 1].hit_rate);
    return 1 / (a + (b - a) * t);
}

static void describe(const md_model *model, const char *folder, cli_forecast *out)
{
    en_plan_request r = {.capacity = -1, .experts = {.capacity = -1}};
    en_plan p;
    fm_error why;
    cli_find_rates(folder, model, 0, &r);
    if (en_make_plan(model, &r, &p, &why)) {
        snprintf(out->text, sizeof out->text, "fits: no: %s", why.message);
        return;
    }
    int n_experts = md_describe(model)->n_experts;
    double kept = p.all_resident || !n_experts ? 1 : (double)p.slots_per_layer / n_experts;
    double speed = tokens_a_second(&p, usual_hit_rate(kept));
    if (speed > 0)
        snprintf(out->text, sizeof out->text, "fits: yes, about %.*f tok/s on this machine",
                 speed < 10 ? 1 : 0, speed);
    else snprintf(out->text, sizeof out->text, "fits: yes");
}

cli_forecast cli_forecast_model(const char *folder)
{
    cli_forecast out = {0};
    fm_error err;
    md_options options = {0};
    md_model *model;
    char *config = bs_path_join(folder, "config.json");
    fm_status status = config ? md_open_config(config, &options, &model, &err)
                              : fm_fail_nomem(&err, "forecasting");
    bs_free(config);
    if (status) {
        snprintf(out.text, sizeof out.text, "cannot be run: %s", err.message);
        return out;
    }
    describe(model, folder, &out);
    md_close(model);
    return out;
}
