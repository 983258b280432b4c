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

static const struct {
    const char *name;
    suite_fn *run;
} suites[] = {
    {"quality", suite_quality}, {"multi-turn", suite_multi_turn}, {"warmup", suite_warmup},
    {"context", suite_context}, {"models", suite_models},         {"batch", suite_batch},
};

int cli_run_suite(const cli_args *a, const char *name)
{
    int i = 0;
    while (strcmp(suites[i].name, name)) i++; /* the option allows no other name */
    bool json = cli_has(a, "json");
    suite_report r = {.rows = json_array(), .table = json ? stderr : stdout};
    fm_error err;
    cli_catch_signals();
    fm_status status = r.rows ? suites[i].run(a, &r, &err) : fm_fail_nomem(&err, "running a suite");
    const char *svg = cli_text(a, "svg", NULL);
    if (!status && svg) status = cli_plot_write(&r.plot, svg, &err);
    if (!status && json) cli_put_json(json_pack("{s:s, s:O}", "suite", name, "rows", r.rows));
    json_decref(r.rows);
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

uint32_t suite_digest(const int32_t *ids, int n)
{
    return bs_crc32c(0, ids, (size_t)n * sizeof *ids);
}
