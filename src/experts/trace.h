/* trace.h - recorded routing: which experts each token's router picked in each MoE layer.
 *
 * Written as JSON lines, one a token:
 *     {"tok": 17, "step": 3, "phase": "prefill", "layers": [[ids] ...], "weights": [[w] ...]}
 * tok counts tokens; tokens of one forward pass share `step`; layers in order of MoE layers, each
 * with the token's experts in router order. Reading accepts those, lines without step, phase and
 * weights (each token a step of its own), and the CSV of route traces
 * (turn,phase,step,layer,slot,expert,...; phase 0 is the prompt, read as one step). */
#ifndef EXPERTS_TRACE_H
#define EXPERTS_TRACE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct xp_trace_step {
    int first, n; /* its tokens */
    bool prefill;
} xp_trace_step;

typedef struct xp_trace {
    int n_layers, n_experts, top_k; /* n_experts: one more than the largest id, or the header's */
    int n_tokens, n_steps;
    int32_t *picks; /* [n_tokens][n_layers][top_k]; -1: none */
    xp_trace_step *steps;
} xp_trace;

fm_status xp_trace_read(const char *path, xp_trace **out, fm_error *err);
void xp_trace_free(xp_trace *trace);
const int32_t *xp_trace_picks(const xp_trace *trace, int token, int layer); /* [top_k] */

/* --- recording -------------------------------------------------------------------------------- */

typedef struct xp_recorder xp_recorder;

fm_status xp_recorder_open(const char *path, int n_layers, int top_k, xp_recorder **out,
                           fm_error *err);
/* A router's choice. token counts from 0 in each forward pass; the first layer's token 0 starts a
 * new pass. A pass of XP_PREFILL_FROM tokens or more counts as prefill. Failures are kept for the
 * close. */
void xp_recorder_route(xp_recorder *recorder, int layer, int token, const int *experts,
                       const float *weights, int top_k);
/* Writes the last pass and closes. Frees the recorder, also on error. */
fm_status xp_recorder_close(xp_recorder *recorder, fm_error *err);

#endif
