#include "cli/suite.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

const cli_option cli_suite_options[] = {
    {"suite", 0, CLI_CHOICE, "quality|multi-turn|warmup|context|models|batch", 0, 0,
     "one of the suites below instead of plain decoding"},
    {"texts", 0, CLI_FOLDER, "DIR", 0, 0,
     "suite quality: a text file a domain; default bench/texts"},
    {"models", 0, CLI_TEXT, "LIST", 0, 0, "suite models: folders or ids, separated by commas"},
    {0},
};

static const cli_suite suites[] = {
    {"quality", suite_quality}, {"multi-turn", suite_multi_turn}, {"warmup", suite_warmup},
    {"context", suite_context}, {"models", suite_models},         {"batch", suite_batch},
};

int cli_run_suite(const cli_args *a, const char *name)
{
    const cli_suite *suite = suites;
    while (strcmp(suite->name, name)) suite++; /* the option allows no other name */
    cli_plot *plot = bs_calloc(1, sizeof *plot);
    fm_error err;
    cli_catch_signals();
    json_t *rows = plot ? suite->run(a, plot, &err) : NULL;
    if (!plot) fm_fail_nomem(&err, "running a suite");
    const char *svg = cli_text(a, "svg", NULL);
    fm_status status = rows ? FM_OK : err.code;
    if (!status && svg) status = cli_plot_write(plot, svg, &err);
    bs_free(plot);
    if (!status && cli_has(a, "json"))
        cli_put_json(json_pack("{s:s, s:O}", "suite", name, "rows", rows));
    json_decref(rows);
    if (cli_output_status()) return 1;
    return status ? cli_fail(&err) : 0;
}

void suite_answer_free(suite_answer *a)
{
    bs_buf_free(&a->text);
    bs_free(a->tokens);
    *a = (suite_answer){0};
}

static bool on_event(void *arg, const en_event *event)
{
    suite_answer *a = arg;
    if (event->text_bytes) bs_buf_append(&a->text, event->text, event->text_bytes);
    if (event->kind == EN_EVENT_TOKEN && a->n < a->capacity) {
        a->tokens[a->n++] = event->token;
        if (a->n == 20) a->token_20_ms = (bs_now() - a->submitted) * 1e3;
    }
    if (event->kind == EN_EVENT_DONE) {
        a->finish = event->finish;
        if (event->error) a->error = *event->error;
        a->stats = *event->stats;
    }
    return !cli_interrupted();
}

fm_status suite_submit(en_engine *e, const int32_t *ids, int n, int tokens, bool ignore_end,
                       const en_sampling *sampling, suite_answer *out, fm_error *err)
{
    *out = (suite_answer){.capacity = tokens, .submitted = bs_now()};
    out->tokens = bs_calloc((size_t)tokens + 1, sizeof *out->tokens);
    if (!out->tokens) return fm_fail_nomem(err, "running a suite");
    en_request r = en_request_default(e);
    r.sampling = *sampling;
    r.prompt = ids;
    r.n_prompt = n;
    r.max_tokens = tokens;
    r.ignore_end = ignore_end;
    r.on_event = on_event;
    r.arg = out;
    return en_submit(e, &r, NULL, err);
}

fm_status suite_outcome(const suite_answer *a, fm_error *err)
{
    if (a->finish == EN_FINISH_ERROR) {
        if (err) *err = a->error;
        return a->error.code;
    }
    if (a->finish == EN_FINISH_CANCELLED) return fm_fail(err, FM_E_CANCELLED, "interrupted");
    return FM_OK;
}

fm_status suite_answer_to(en_engine *e, const int32_t *ids, int n, int tokens, bool ignore_end,
                          suite_answer *out, fm_error *err)
{
    en_sampling greedy = en_sampling_default();
    fm_status status = suite_submit(e, ids, n, tokens, ignore_end, &greedy, out, err);
    while (!status && en_step(e) > 0) {
    }
    return status ? status : suite_outcome(out, err);
}

void suite_show(const json_t *row)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)row, key, value)
    {
        if (json_is_string(value)) fprintf(stderr, "%s %s  ", key, json_string_value(value));
        if (json_is_real(value)) fprintf(stderr, "%s %.4g  ", key, json_real_value(value));
        if (json_is_integer(value))
            fprintf(stderr, "%s %lld  ", key, (long long)json_integer_value(value));
    }
    fputc('\n', stderr);
}

uint32_t suite_digest(const int32_t *ids, int n)
{
    return bs_crc32c(0, ids, (size_t)n * sizeof *ids);
}
