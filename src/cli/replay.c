#include "cli/replay.h"

#include "base/mem.h"

struct cli_replay {
    en_engine *engine;
    const xp_trace *trace;
    int n_experts;     /* of the model */
    int prompt_tokens; /* of the trace: they come first in it */
    int position;      /* of the pass's first token, since the start */
    int pass_tokens;
};

static int prompt_length(const xp_trace *t)
{
    return t->n_steps && t->steps[0].prefill ? t->steps[0].n : 0;
}

/* The trace's token for a position: positions run through the prompt once, then round and round
 * through what was decoded. */
static int token_at(const cli_replay *r, int position)
{
    int decoded = r->trace->n_tokens - r->prompt_tokens;
    if (decoded < 1) return position % r->trace->n_tokens;
    return position < r->prompt_tokens ? position
                                       : r->prompt_tokens + (position - r->prompt_tokens) % decoded;
}

static void on_route(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    cli_replay *r = arg;
    if (layer == 0 && token == 0) {
        r->position += r->pass_tokens;
        r->pass_tokens = 0;
    }
    if (token >= r->pass_tokens) r->pass_tokens = token + 1;
    const xp_trace *t = r->trace;
    const int32_t *picks = xp_trace_picks(t, token_at(r, r->position + token), layer % t->n_layers);
    int n = 0;
    for (int i = 0; i < top_k; i++) {
        experts[i] = i < t->top_k && picks[i] >= 0
                         ? (int)((int64_t)picks[i] * r->n_experts / t->n_experts)
                         : -1;
        n += experts[i] >= 0;
    }
    for (int i = 0; i < top_k; i++) weights[i] = experts[i] >= 0 ? 1.0f / (float)n : 0;
}

fm_status cli_replay_start(en_engine *engine, const xp_trace *trace, cli_replay **out,
                           fm_error *err)
{
    const md_info *info = en_describe(engine);
    if (trace->n_experts > info->n_experts)
        return fm_fail(err, FM_E_ARGUMENT, "the trace has %d experts a layer, the model only %d",
                       trace->n_experts, info->n_experts);
    cli_replay *r = bs_calloc(1, sizeof *r);
    if (!r) return fm_fail_nomem(err, "replaying a trace");
    *r = (cli_replay){.engine = engine,
                      .trace = trace,
                      .n_experts = info->n_experts,
                      .prompt_tokens = prompt_length(trace)};
    fm_status status = en_watch_routes(engine, on_route, r, err);
    if (status) bs_free(r);
    else *out = r;
    return status;
}

void cli_replay_stop(cli_replay *r)
{
    if (!r) return;
    en_unwatch_routes(r->engine, on_route, r);
    bs_free(r);
}
