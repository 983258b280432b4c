/* common.h - what the verbs that run a model share: opening it, interrupts, output, traces. */
#ifndef CLI_COMMON_H
#define CLI_COMMON_H

#include "base/buf.h"
#include "cli/options.h"
#include "cli/resolve.h"
#include "engine/engine.h"

/* --json, --stats, --trace. */
extern const cli_group cli_group_output;

/* Options given on the command line over those in *out. */
void cli_engine_options(const cli_args *a, en_options *out);
void cli_sampling_options(const cli_args *a, en_sampling *out);

/* A resolved and loaded model. Notes and progress go to stderr. */
typedef struct cli_session {
    cli_model model;
    en_engine *engine;
    struct cli_trace *trace;
} cli_session;

/* Resolve MODEL and open it; o->model is filled in. Starts the trace that --trace asks for. */
fm_status cli_open(const cli_args *a, en_options *o, cli_session *out, fm_error *err);

/* Also finishes the trace: a write error there is an error of the run. */
fm_status cli_close(cli_session *s, fm_error *err);

/* A model that is only looked at: path is a folder (with or without weights) or a config.json. */
fm_status cli_describe(const char *path, const md_options *o, md_model **out, fm_error *err);

/* From now on Ctrl-C only raises a flag (a second one within the same answer ends the program) and
 * a closed pipe is a write error. */
void cli_catch_signals(void);
bool cli_interrupted(void); /* and lower the flag */

/* Write to stdout and flush. False, once and for all, after a write error: cli_output_status then
 * tells of it and returns 1. */
bool cli_put(const char *text, size_t n);
bool cli_output_broken(void);
int cli_output_status(void);

/* One line that a person reads, on stderr; the JSON object, to stdout. */
void cli_print_stats(en_engine *engine);
bool cli_put_json(json_t *value); /* takes the reference; a line */

/* A whole file; "-" or NULL for stdin. */
fm_status cli_read_input(const char *path, bs_buf *out, fm_error *err);

/* Routing as JSON lines (experts/trace.h): what `simulate` and `bench --trace` read. */
typedef struct cli_trace cli_trace;
fm_status cli_trace_open(en_engine *engine, const char *path, cli_trace **out, fm_error *err);
fm_status cli_trace_close(cli_trace *trace, fm_error *err);

#endif
