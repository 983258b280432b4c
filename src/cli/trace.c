/* trace.c - --trace: the engine's routes into a recorder. */
#include "cli/common.h"

#include "base/mem.h"
#include "experts/trace.h"

struct cli_trace {
    en_engine *engine;
    xp_recorder *recorder;
};

static void on_route(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    cli_trace *t = arg;
    xp_recorder_route(t->recorder, layer, token, experts, weights, top_k);
}

fm_status cli_trace_open(en_engine *engine, const char *path, cli_trace **out, fm_error *err)
{
    const md_info *info = en_describe(engine);
    cli_trace *t = bs_calloc(1, sizeof *t);
    if (!t) return fm_fail_nomem(err, "opening a trace");
    t->engine = engine;
    fm_status status = xp_recorder_open(path, info->n_moe_layers, info->top_k, &t->recorder, err);
    if (!status) status = en_watch_routes(engine, on_route, t, err);
    if (status) {
        xp_recorder_close(t->recorder, NULL);
        bs_free(t);
        return status;
    }
    *out = t;
    return FM_OK;
}

fm_status cli_trace_close(cli_trace *t, fm_error *err)
{
    if (!t) return FM_OK;
    en_unwatch_routes(t->engine, on_route, t);
    fm_status status = xp_recorder_close(t->recorder, err);
    bs_free(t);
    return status;
}
