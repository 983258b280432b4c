/* The router's choices of each token, written when its forward pass is over: the model works layer
 * by layer, the file goes token by token. */
#include "cli/common.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct cli_trace {
    en_engine *engine;
    FILE *out;
    const char *path;
    int n_layers, top_k;
    int *experts; /* [tokens][n_layers][top_k]; -1: no expert */
    int tokens, capacity;
    uint64_t written, step;
    bool failed;
};

static void write_pass(cli_trace *t) {
    size_t row = (size_t)t->n_layers * (size_t)t->top_k;
    for (int i = 0; i < t->tokens; i++) {
        fprintf(t->out, "{\"token\":%llu,\"step\":%llu,\"layers\":[",
                (unsigned long long)t->written++, (unsigned long long)t->step);
        for (int l = 0; l < t->n_layers; l++) {
            const int *e = t->experts + (size_t)i * row + (size_t)l * (size_t)t->top_k;
            fputs(l ? ",[" : "[", t->out);
            for (int k = 0; k < t->top_k && e[k] >= 0; k++) fprintf(t->out, k ? ",%d" : "%d", e[k]);
            fputc(']', t->out);
        }
        fputs("]}\n", t->out);
    }
    if (t->tokens) t->step++;
    t->tokens = 0;
}

static bool grow(cli_trace *t, int token) {
    if (token < t->capacity) return true;
    int capacity = token < 32 ? 64 : token * 2;
    size_t row = (size_t)t->n_layers * (size_t)t->top_k;
    int *more = bs_realloc(t->experts, (size_t)capacity * row, sizeof *more);
    if (!more) return false;
    t->experts = more;
    t->capacity = capacity;
    return true;
}

static void on_route(void *arg, int layer, int token, int *experts, float *weights, int top_k) {
    cli_trace *t = arg;
    (void)weights;
    if (layer == 0 && token == 0) write_pass(t);
    if (top_k > t->top_k || !grow(t, token)) {
        t->failed = true;
        return;
    }
    size_t row = (size_t)t->n_layers * (size_t)t->top_k;
    int *e = t->experts + (size_t)token * row + (size_t)layer * (size_t)t->top_k;
    for (int k = 0; k < t->top_k; k++) e[k] = k < top_k ? experts[k] : -1;
    if (token >= t->tokens) t->tokens = token + 1;
}

fm_status cli_trace_open(en_engine *engine, const char *path, cli_trace **out, fm_error *err) {
    const md_info *info = en_describe(engine);
    cli_trace *t = bs_calloc(1, sizeof *t);
    if (!t) return fm_fail_nomem(err, "opening a trace");
    t->engine = engine;
    t->path = path;
    t->n_layers = info->n_moe_layers;
    t->top_k = info->top_k;
    t->out = fopen(path, "we");
    fm_status status = FM_OK;
    if (!t->out) status = fm_fail_errno(err, errno, "%s: cannot write the trace", path);
    if (!status) status = en_watch_routes(engine, on_route, t, err);
    if (status) {
        if (t->out) fclose(t->out);
        bs_free(t);
        return status;
    }
    *out = t;
    return FM_OK;
}

fm_status cli_trace_close(cli_trace *t, fm_error *err) {
    if (!t) return FM_OK;
    en_unwatch_routes(t->engine, on_route, t);
    write_pass(t);
    bool bad = ferror(t->out) != 0 || t->failed;
    fm_status status = FM_OK;
    if (fclose(t->out) || bad)
        status = fm_fail_errno(err, errno ? errno : EIO, "%s: the trace is incomplete", t->path);
    bs_free(t->experts);
    bs_free(t);
    return status;
}
