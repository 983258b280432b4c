/* Starts, and the same short run over several models. */
#include "cli/suite.h"

#include "base/clock.h"
#include "base/mem.h"
#include "experts/experts.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STARTED = 20, GENERAL = 50, PROMPT = 16 };

/* Prompts for any vocabulary, and of different things. */
static const int32_t prompt[PROMPT] = {1, 40, 77, 13, 60, 5, 91, 22, 8, 54, 33, 70, 19, 3, 46, 88};
static const int32_t before[PROMPT] = {95, 17, 52, 81, 36, 9,  64, 28,
                                       73, 41, 14, 99, 57, 25, 83, 6};

typedef struct start {
    const char *name;
    en_mode mode;
    en_warmup warmup;
    bool profile, state;
    bool another_first; /* answer another prompt before: the cache is full of what that one used */
} start;

/* What the answer to `prompt` cost; `spent` seconds went by before it was asked for. */
static json_t *start_row(const start *s, en_engine *engine, double spent, fm_error *err)
{
    suite_answer answer = {0};
    json_t *row = NULL;
    if (!suite_answer_to(engine, prompt, PROMPT, STARTED, true, &answer, err)) {
        en_stats stats;
        en_get_stats(engine, &stats);
        row = json_pack("{s:s, s:f, s:f, s:f, s:f, s:I}", "start", s->name, "open_s", spent,
                        "first_token_s", spent + answer.stats.ttft_ms / 1e3, "token_20_s",
                        spent + answer.token_20_ms / 1e3, "hit_rate", stats.hit_rate, "bytes_read",
                        (json_int_t)stats.bytes_read);
    }
    suite_answer_free(&answer);
    return row;
}

static fm_status answer_another(en_engine *engine, fm_error *err)
{
    suite_answer answer = {0};
    fm_status status = suite_answer_to(engine, before, PROMPT, STARTED, true, &answer, err);
    suite_answer_free(&answer);
    en_reset_stats(engine);
    return status;
}

static json_t *one_start(const cli_args *a, en_options *o, const start *s, fm_error *err)
{
    cli_session session;
    double begin = bs_now();
    if (cli_open(a, o, &session, err)) return NULL;
    double opened = bs_now() - begin;
    json_t *row = NULL;
    if (!s->another_first) row = start_row(s, session.engine, opened, err);
    else if (!answer_another(session.engine, err)) row = start_row(s, session.engine, 0, err);
    cli_close(&session, NULL);
    return row;
}

static const start starts[] = {
    {"cold", EN_EXACT, EN_WARMUP_NONE, false, false, false},
    {"profile", EN_EXACT, EN_WARMUP_NONE, true, false, false},
    {"saved state, first", EN_EXACT, EN_WARMUP_NONE, false, true,
     false}, /* writes what the next reads */
    {"saved state, again", EN_EXACT, EN_WARMUP_NONE, false, true, false},
    {"predictive, router", EN_PREDICTIVE, EN_WARMUP_ROUTER, false, false, false},
    {"predictive, hybrid", EN_PREDICTIVE, EN_WARMUP_HYBRID, false, false, false},
    {"predictive, full", EN_PREDICTIVE, EN_WARMUP_FULL, false, false, false},
    {"another domain", EN_EXACT, EN_WARMUP_NONE, false, false, true},
    {"another domain, predictive", EN_PREDICTIVE, EN_WARMUP_HYBRID, false, false, true},
};
enum { STARTS = sizeof starts / sizeof *starts };

/* The folder holds saved states and nothing else. */
static void remove_states(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *entry; d && (entry = readdir(d));) unlinkat(dirfd(d), entry->d_name, 0);
    if (d) closedir(d);
    if (rmdir(dir)) fprintf(stderr, "note: %s is left behind\n", dir);
}

fm_status suite_warmup(const cli_args *a, suite_report *r, fm_error *err)
{
    char dir[] = "/tmp/flash-moe-suite-XXXXXX";
    bool own_dir = !cli_has(a, "cache-dir");
    if (own_dir && !mkdtemp(dir)) return fm_fail(err, FM_E_IO, "%s: cannot make a folder", dir);
    cli_plot *plot = &r->plot;
    plot->title = "Starts";
    plot->x_label = "start (in order of the table)";
    plot->y_label = "seconds";
    int first = cli_plot_line(plot, "first token"), twentieth = cli_plot_line(plot, "20 tokens");
    int i = 0;
    for (; i < STARTS; i++) {
        const start *s = &starts[i];
        en_options o = en_options_default();
        cli_engine_options(a, &o);
        if (s->profile && !o.profile) continue; /* needs --profile */
        if (!s->profile) o.profile = NULL, o.pin_top_k = -1, o.pin_threshold = -1;
        o.cache_dir = !s->state ? NULL : own_dir ? dir : o.cache_dir;
        o.mode = s->mode;
        o.warmup = s->warmup;
        o.no_tokenizer = true;
        json_t *row = one_start(a, &o, s, err);
        if (!row) break;
        cli_plot_point(plot, first, i, json_number_value(json_object_get(row, "first_token_s")));
        cli_plot_point(plot, twentieth, i, json_number_value(json_object_get(row, "token_20_s")));
        suite_add(r, row);
    }
    if (own_dir) remove_states(dir);
    return i == STARTS ? FM_OK : err->code;
}

/* --- models
 * ------------------------------------------------------------------------------------------ */

static json_t *one_model(const cli_args *a, const char *name, fm_error *err)
{
    cli_model model;
    en_engine *e = NULL;
    suite_answer answer = {0};
    json_t *row = NULL;
    if (cli_resolve_model(name, cli_has(a, "yes") ? CLI_RESOLVE_YES : 0, &model, err)) return NULL;
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    o.model = model.folder;
    o.no_tokenizer = true;
    if (!en_open(&o, &e, err) && !suite_answer_to(e, prompt, PROMPT, GENERAL, true, &answer, err)) {
        en_stats s;
        en_get_stats(e, &s);
        row = json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:I, s:I, s:f}", "model", model.name,
                        "family", en_describe(e)->family, "experts", en_describe(e)->n_experts,
                        "top_k", en_describe(e)->top_k, "tok_s", s.decode_tok_s, "hit_rate",
                        s.hit_rate, "floor_bytes", (json_int_t)s.floor_bytes, "peak_rss_bytes",
                        (json_int_t)s.peak_rss_bytes, "dropped_mass", s.dropped_mass);
    }
    suite_answer_free(&answer);
    en_close(e);
    cli_model_free(&model);
    return row;
}

fm_status suite_models(const cli_args *a, suite_report *r, fm_error *err)
{
    const char *list = cli_text(a, "models", NULL);
    char *copy = bs_strdup(list ? list : ""), *at = copy;
    cli_plot *plot = &r->plot;
    fm_status status = FM_OK;
    if (!copy || !*copy) status = fm_fail(err, FM_E_ARGUMENT, "name the models: --models A,B,...");
    plot->title = "The same run over several models";
    plot->x_label = "model (in order of the table)";
    plot->y_label = "tokens/s";
    int line = cli_plot_line(plot, "decode");
    for (char *name; !status && (name = strsep(&at, ","));) {
        json_t *row = *name ? one_model(a, name, err) : NULL;
        if (*name && !row) status = err->code;
        if (!row) continue;
        cli_plot_point(plot, line, (double)json_array_size(r->rows),
                       json_number_value(json_object_get(row, "tok_s")));
        suite_add(r, row);
    }
    bs_free(copy);
    return status;
}
