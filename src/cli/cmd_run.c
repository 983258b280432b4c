#include "cli/cli.h"
#include "cli/common.h"
#include "cli/tune.h"

#include "base/mem.h"
#include "text/chat.h"

#include <string.h>
#include <unistd.h>

static const cli_option own[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", 0, 0, "the prompt"},
    {"file", 'f', CLI_FILE, "FILE", 0, 0, "read the prompt from a file; - for stdin"},
    {"system", 0, CLI_TEXT, "TEXT", 0, 0, "a system message before it"},
    {"raw", 0, CLI_FLAG, NULL, 0, 0, "no chat template: the model goes on with the text"},
    {"max-tokens", 'n', CLI_INT, "N", 0, 100000000,
     "longest answer; default: as the context allows"},
    {"think", 0, CLI_CHOICE, "auto|on|off", 0, 0, "reasoning, for models that can"},
    {"ignore-eos", 0, CLI_FLAG, NULL, 0, 0, "go on after the end of the answer"},
    {0},
};
static const cli_group own_group = {"Prompt", own, false};

const cli_spec spec_run = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Answers one prompt and streams the answer to stdout. The prompt comes from -p, -f or "
             "stdin; it is put into the model's chat template unless --raw is given.",
    .examples = "  flash-moe run -p 'Tell me a story about a fox and a crow.'\n"
                "  flash-moe run --memory 48M --stats -p 'What does grep do?'   # a tight budget\n"
                "  git diff | flash-moe run ~/models/big-moe --system 'Review this patch.'\n"
                "  flash-moe run --temp 0 --json -n 50 --raw -p 'Once upon a time'\n",
    .groups = {&own_group, &cli_group_output, &cli_group_sampling, &cli_group_model,
               &cli_group_engine, &cli_group_seed, &cli_group_tune},
};

typedef struct answer {
    bool json;
    bs_buf text;
    json_t *tokens;
    en_finish finish;
    int prompt_tokens;
    char last; /* character shown */
    fm_error error;
} answer;

static bool on_event(void *arg, const en_event *event)
{
    answer *a = arg;
    bool ok = true;
    if (event->kind == EN_EVENT_TOKEN && a->json)
        ok = !json_array_append_new(a->tokens, json_integer(event->token));
    if (event->text_bytes) {
        a->last = event->text[event->text_bytes - 1];
        ok = a->json ? bs_buf_append(&a->text, event->text, event->text_bytes)
                     : cli_put(event->text, event->text_bytes);
    }
    if (event->kind == EN_EVENT_DONE) {
        a->finish = event->finish;
        a->prompt_tokens = event->stats->prompt_tokens;
        if (event->error) a->error = *event->error;
    }
    return ok;
}

static fm_status read_prompt(const cli_args *args, bs_buf *out, fm_error *err)
{
    const char *text = cli_text(args, "prompt", NULL);
    const char *path = cli_text(args, "file", text ? NULL : "-");
    if (text && !bs_buf_puts(out, text)) return fm_fail_nomem(err, "reading the prompt");
    if (path && !strcmp(path, "-") && isatty(0)) fprintf(stderr, "Type the prompt, then Ctrl-D:\n");
    fm_status status = path ? cli_read_input(path, out, err) : FM_OK;
    if (!status && !out->length) status = fm_fail(err, FM_E_ARGUMENT, "the prompt is empty");
    return status;
}

static json_t *make_messages(const cli_args *args, const bs_buf *prompt)
{
    json_t *messages = json_array();
    const char *system = cli_text(args, "system", NULL);
    if (system)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content",
                                              json_stringn(prompt->data, prompt->length)));
    return messages;
}

/* A template, or raw text. Text that is not UTF-8 is refused here: JSON cannot hold it. */
static fm_status encode(const cli_args *args, const en_engine *engine, const bs_buf *prompt,
                        tx_prompt *out, fm_error *err)
{
    const tx_chat *chat = en_chat(engine);
    if (!chat)
        return fm_fail(
            err, FM_E_UNSUPPORTED,
            "this model folder has no tokenizer: it can only be scored (flash-moe score) "
            "and measured (flash-moe bench)");
    if (cli_has(args, "raw"))
        return tx_chat_raw_prompt(chat, prompt->data, prompt->length, &out->ids, err);
    static const int thinking[] = {-1, 1, 0};
    json_t *messages = make_messages(args, prompt);
    bool whole =
        json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content");
    fm_status status = FM_OK;
    if (!whole) status = fm_fail(err, FM_E_FORMAT, "the prompt is not UTF-8 text");
    tx_chat_request request = {.messages = messages,
                               .add_generation_prompt = true,
                               .enable_thinking = thinking[cli_choice(args, "think", 0)]};
    if (!status) status = tx_chat_prompt(chat, &request, out, err);
    json_decref(messages);
    return status;
}

static fm_status generate(const cli_args *args, en_engine *engine, const tx_ids *ids, answer *a,
                          fm_error *err)
{
    const char *stops[EN_MAX_STOPS];
    int n_stops = 0;
    while (n_stops < EN_MAX_STOPS && (stops[n_stops] = cli_nth(args, "stop", n_stops))) n_stops++;
    en_request r = en_request_default(engine);
    cli_sampling_options(args, &r.sampling);
    r.prompt = ids->data;
    r.n_prompt = (int)ids->length;
    r.max_tokens = cli_int(args, "max-tokens", -1);
    r.stop = stops;
    r.n_stop = n_stops;
    r.ignore_end = cli_has(args, "ignore-eos");
    r.on_event = on_event;
    r.arg = a;
    uint64_t id;
    fm_status status = en_submit(engine, &r, &id, err);
    if (status) return status;
    bool interrupted = false;
    while (en_step(engine) > 0)
        if (cli_interrupted()) {
            interrupted = true;
            en_cancel(engine, id);
        }
    if (a->finish == EN_FINISH_ERROR) {
        *err = a->error;
        return err->code;
    }
    return interrupted ? fm_fail(err, FM_E_CANCELLED, "interrupted") : FM_OK;
}

static bool put_result(en_engine *engine, answer *a)
{
    en_stats stats;
    en_get_stats(engine, &stats);
    return cli_put_json(json_pack("{s:o, s:O, s:i, s:s, s:s, s:o}", "text",
                                  json_stringn(a->text.data ? a->text.data : "", a->text.length),
                                  "tokens", a->tokens, "prompt_tokens", a->prompt_tokens,
                                  "finish_reason", en_finish_name(a->finish), "mode", stats.mode,
                                  "stats", en_stats_json(&stats)));
}

static fm_status run(const cli_args *args, answer *a, fm_error *err)
{
    bs_buf prompt = {0};
    tx_prompt encoded = {0};
    cli_session session = {0};
    en_options o = en_options_default();
    cli_engine_options(args, &o);
    fm_status status = read_prompt(args, &prompt, err);
    if (!status) status = cli_open(args, &o, &session, err);
    if (!status) status = encode(args, session.engine, &prompt, &encoded, err);
    if (!status) status = generate(args, session.engine, &encoded.ids, a, err);
    if (!a->json && a->last && a->last != '\n') cli_put("\n", 1);
    if (a->json && (!status || status == FM_E_CANCELLED)) put_result(session.engine, a);
    if (session.engine && cli_has(args, "stats")) cli_print_stats(session.engine);
    tx_prompt_free(&encoded);
    bs_buf_free(&prompt);
    fm_error also;
    fm_status closed = session.engine ? cli_close(&session, &also) : FM_OK;
    if (!status && closed) {
        *err = also;
        status = closed;
    }
    return status;
}

int cmd_run(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_run, argc, argv, &args);
    if (status >= 0) return status;
    if (cli_has(&args, "prompt") && cli_has(&args, "file")) {
        fprintf(stderr, "flash-moe run: give -p or -f, not both\n");
        return 2;
    }
    cli_catch_signals();
    answer a = {.json = cli_has(&args, "json"), .tokens = json_array()};
    fm_error err;
    fm_status failed = run(&args, &a, &err);
    json_decref(a.tokens);
    bs_buf_free(&a.text);
    if (cli_output_status()) return 1;
    return failed ? cli_fail(&err) : 0;
}
