#include "cli/cli.h"
#include "cli/common.h"
#include "cli/tune.h"

#include "base/file.h"
#include "base/mem.h"
#include "text/chat.h"

#include <editline/readline.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_option own[] = {
    {"system", 0, CLI_TEXT, "TEXT", 0, 0, "a system message"},
    {"max-tokens", 'n', CLI_INT, "N", 0, 100000000,
     "longest answer; default: as the context allows"},
    {"think", 0, CLI_CHOICE, "auto|on|off", 0, 0, "reasoning, for models that can"},
    {"load", 0, CLI_FILE, "FILE", 0, 0, "go on with a conversation that /save wrote"},
    {"stats", 0, CLI_FLAG, NULL, 0, 0, "a line of statistics after each answer"},
    {"trace", 0, CLI_FILE, "FILE", 0, 0, "record the router's choices as JSON lines"},
    {0},
};
static const cli_group own_group = {"Chat", own, false};

const cli_spec spec_chat = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "A conversation in the terminal. Earlier turns stay computed: only what is new is read "
        "by the model. Ctrl-C stops an answer, Ctrl-D or /quit leaves. A line that ends with a "
        "backslash goes on in the next one.",
    .examples = "  flash-moe chat\n"
                "  flash-moe chat ~/models/big-moe --memory 12G --system 'You are brief.'\n",
    .groups = {&own_group, &cli_group_sampling, &cli_group_model, &cli_group_engine,
               &cli_group_seed, &cli_group_tune},
};

static const char help_text[] =
    "/help           this text\n"
    "/clear          forget the conversation\n"
    "/system [TEXT]  set the system message and start anew; without TEXT: show it\n"
    "/stats          speed, reads and memory so far\n"
    "/save FILE      write the conversation as JSON\n"
    "/load FILE      go on with a saved conversation\n"
    "/quit           leave (Ctrl-D does the same)\n"
    "Ctrl-C stops an answer. End a line with \\ to go on in the next.\n";

typedef struct chat {
    const cli_args *args;
    cli_session session;
    json_t *messages;
    en_sampling sampling;
    bool terminal, color;
    char *history_file;

    /* the answer that is being written */
    tx_reply *reply;
    bs_buf content, reasoning;
    bool in_reasoning, failed;
    char last;
    en_finish finish;
    fm_error error;
} chat;

/* --- messages ----------------------------------------------------------------------------------
 */

static const char *system_text(const chat *c)
{
    json_t *first = json_array_get(c->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    return role && !strcmp(role, "system") ? json_string_value(json_object_get(first, "content"))
                                           : NULL;
}

static void start_anew(chat *c, const char *system)
{
    json_t *messages = json_array();
    if (system && *system)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_decref(c->messages);
    c->messages = messages;
}

static fm_status save(const chat *c, const char *path, fm_error *err)
{
    json_t *all = json_pack("{s:s, s:O}", "model", c->session.model.name, "messages", c->messages);
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    fm_status status =
        text ? bs_write_file(path, text, strlen(text), err) : fm_fail_nomem(err, path);
    free(text);
    return status;
}

static bool is_message(const json_t *m)
{
    return json_is_string(json_object_get(m, "role")) &&
           json_is_string(json_object_get(m, "content"));
}

static fm_status load(chat *c, const char *path, fm_error *err)
{
    bs_buf text = {0};
    fm_status status = bs_read_file(path, 64 << 20, &text, err);
    if (status) return status;
    json_error_t why;
    json_t *all = json_loadb(text.data, text.length, 0, &why);
    bs_buf_free(&text);
    if (!all) return fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    json_t *messages = json_object_get(all, "messages");
    bool good = json_is_array(messages);
    for (size_t i = 0; good && i < json_array_size(messages); i++)
        good = is_message(json_array_get(messages, i));
    if (good) {
        json_decref(c->messages);
        c->messages = json_incref(messages);
    } else {
        status = fm_fail(err, FM_E_FORMAT,
                         "%s: is not a saved conversation (an object with \"messages\")", path);
    }
    json_decref(all);
    return status;
}

/* --- an answer ----------------------------------------------------------------------------------
 */

static void show(chat *c, const char *text, size_t n)
{
    if (!n) return;
    c->last = text[n - 1];
    if (!cli_put(text, n)) c->failed = true;
}

static fm_status on_delta(void *arg, const tx_delta *d, fm_error *err)
{
    chat *c = arg;
    bool thinks = d->kind == TX_DELTA_REASONING;
    if (c->color && thinks != c->in_reasoning) show(c, thinks ? "\033[2m" : "\033[0m", 4);
    if (!thinks && c->in_reasoning) show(c, "\n", 1);
    c->in_reasoning = thinks;
    if (d->kind == TX_DELTA_TOOL_CALL) return FM_OK;
    show(c, d->text, d->length);
    return bs_buf_append(thinks ? &c->reasoning : &c->content, d->text, d->length)
               ? FM_OK
               : fm_fail_nomem(err, "keeping the answer");
}

static bool on_event(void *arg, const en_event *event)
{
    chat *c = arg;
    if (event->text_bytes &&
        tx_reply_push_text(c->reply, event->text, event->text_bytes, &c->error))
        c->failed = true;
    if (event->kind == EN_EVENT_DONE) {
        if (!c->failed && tx_reply_finish(c->reply, &c->error)) c->failed = true;
        c->finish = event->finish;
        if (event->error) c->error = *event->error;
    }
    return !c->failed;
}

static fm_status make_prompt(chat *c, tx_prompt *prompt, fm_error *err)
{
    static const int thinking[] = {-1, 1, 0};
    tx_chat_request request = {.messages = c->messages,
                               .add_generation_prompt = true,
                               .enable_thinking = thinking[cli_choice(c->args, "think", 0)]};
    fm_status status = tx_chat_prompt(en_chat(c->session.engine), &request, prompt, err);
    if (!status && (int)prompt->ids.length >= en_get_plan(c->session.engine)->context)
        status =
            fm_fail(err, FM_E_LIMIT,
                    "the conversation has %zu tokens, the context %d: /clear it, or start with "
                    "a larger --context",
                    prompt->ids.length, en_get_plan(c->session.engine)->context);
    return status;
}

static fm_status generate(chat *c, const tx_prompt *prompt, fm_error *err)
{
    en_engine *engine = c->session.engine;
    const char *stops[EN_MAX_STOPS];
    int n_stops = 0;
    while (n_stops < EN_MAX_STOPS && (stops[n_stops] = cli_nth(c->args, "stop", n_stops)))
        n_stops++;
    en_request r = en_request_default(engine);
    r.sampling = c->sampling;
    c->sampling.seed++;
    r.prompt = prompt->ids.data;
    r.n_prompt = (int)prompt->ids.length;
    r.max_tokens = cli_int(c->args, "max-tokens", -1);
    r.stop = stops;
    r.n_stop = n_stops;
    r.on_event = on_event;
    r.arg = c;
    uint64_t id;
    fm_status status = en_submit(engine, &r, &id, err);
    if (status) return status;
    cli_interrupted();
    while (en_step(engine) > 0)
        if (cli_interrupted()) en_cancel(engine, id);
    if (c->finish == EN_FINISH_ERROR || c->failed) {
        *err = c->error;
        return err->code ? err->code : FM_E_IO;
    }
    return FM_OK;
}

/* Ask the model to answer what stands in the conversation; what it says joins it. */
static fm_status answer(chat *c, fm_error *err)
{
    tx_prompt prompt = {0};
    c->content.length = c->reasoning.length = 0;
    c->in_reasoning = c->failed = false;
    c->last = 0;
    fm_status status = make_prompt(c, &prompt, err);
    if (!status)
        status =
            tx_reply_open(en_chat(c->session.engine), &prompt, NULL, on_delta, c, &c->reply, err);
    if (!status) status = generate(c, &prompt, err);
    tx_reply_free(c->reply);
    c->reply = NULL;
    tx_prompt_free(&prompt);
    if (c->color && c->in_reasoning) cli_put("\033[0m", 4);
    if (c->last && c->last != '\n') cli_put("\n", 1);
    if (status) return status;
    if (c->finish == EN_FINISH_CANCELLED) fputs("(stopped)\n", stderr);
    if (c->finish == EN_FINISH_LENGTH)
        fputs("(the answer was cut at the limit of tokens)\n", stderr);
    json_t *message =
        json_pack("{s:s, s:o}", "role", "assistant", "content",
                  json_stringn(c->content.data ? c->content.data : "", c->content.length));
    if (message && c->reasoning.length)
        json_object_set_new(message, "reasoning_content",
                            json_stringn(c->reasoning.data, c->reasoning.length));
    json_array_append_new(c->messages, message);
    if (cli_has(c->args, "stats")) cli_print_stats(c->session.engine);
    return FM_OK;
}

static void say(chat *c, const char *text)
{
    json_t *content = json_string(text);
    if (!content) {
        fputs("flash-moe: that is not UTF-8 text\n", stderr);
        return;
    }
    size_t before = json_array_size(c->messages);
    json_array_append_new(c->messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    fm_error err;
    if (answer(c, &err)) {
        fprintf(stderr, "flash-moe: %s\n", err.message);
        json_array_remove(c->messages, before);
    }
}

/* --- commands ------------------------------------------------------------------------------------
 */

static void file_command(chat *c, const char *path, bool saving)
{
    fm_error err;
    if (!*path) fprintf(stderr, "give a file: %s FILE\n", saving ? "/save" : "/load");
    else if (saving ? save(c, path, &err) : load(c, path, &err))
        fprintf(stderr, "flash-moe: %s\n", err.message);
    else
        fprintf(stderr, "%s %zu messages\n", saving ? "saved" : "loaded",
                json_array_size(c->messages));
}

/* Returns false to leave. */
static bool command(chat *c, char *line)
{
    char *rest = line + strcspn(line, " \t");
    if (*rest) *rest++ = 0;
    rest += strspn(rest, " \t");
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit") || !strcmp(line, "/bye")) return false;
    if (!strcmp(line, "/help")) {
        fputs(help_text, stderr);
    } else if (!strcmp(line, "/clear")) {
        char *system = system_text(c) ? bs_strdup(system_text(c)) : NULL;
        start_anew(c, system);
        bs_free(system);
        fputs("cleared\n", stderr);
    } else if (!strcmp(line, "/system") && !*rest) {
        fprintf(stderr, "%s\n", system_text(c) ? system_text(c) : "(no system message)");
    } else if (!strcmp(line, "/system")) {
        start_anew(c, rest);
        fputs("a new conversation begins\n", stderr);
    } else if (!strcmp(line, "/stats")) {
        cli_print_stats(c->session.engine);
    } else if (!strcmp(line, "/save") || !strcmp(line, "/load")) {
        file_command(c, rest, !strcmp(line, "/save"));
    } else {
        fprintf(stderr, "no command %s; /help lists them\n", line);
    }
    return true;
}

/* --- lines
 * ---------------------------------------------------------------------------------------- */

/* $XDG_STATE_HOME/flash-moe/history; NULL: no home to keep it in. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *dir = NULL;
    if (state && *state == '/') dir = bs_sprintf("%s/flash-moe", state);
    else if (home && *home == '/') dir = bs_sprintf("%s/.local/state/flash-moe", home);
    char *path = dir && !bs_make_dirs(dir, NULL) ? bs_path_join(dir, "history") : NULL;
    bs_free(dir);
    return path;
}

/* One line without its end; NULL at the end of the input. *again: interrupted, ask once more. */
static char *read_line(const chat *c, const char *prompt, bool *again)
{
    *again = false;
    char *line = NULL;
    if (c->terminal) {
        line = readline(prompt);
        if (!line && cli_interrupted()) {
            *again = true;
            fputs("\n(Ctrl-D or /quit leaves)\n", stderr);
        }
        return line;
    }
    size_t capacity = 0;
    ssize_t n = getline(&line, &capacity, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    if (n && line[n - 1] == '\n') line[n - 1] = 0;
    return line;
}

/* What the person says: lines joined where they end with a backslash. False at the end. */
static bool read_turn(const chat *c, bs_buf *out)
{
    out->length = 0;
    for (;;) {
        bool again;
        char *line = read_line(c, out->length ? "... " : ">>> ", &again);
        if (!line && !again) return out->length > 0;
        if (again) {
            out->length = 0;
            continue;
        }
        size_t n = strlen(line);
        bool more = n && line[n - 1] == '\\';
        bs_buf_append(out, line, more ? n - 1 : n);
        if (more) bs_buf_putc(out, '\n');
        if (c->terminal && n) add_history(line);
        free(line);
        if (!more) return true;
    }
}

static void talk(chat *c)
{
    bs_buf turn = {0};
    while (!cli_output_broken() && read_turn(c, &turn)) {
        char *text = turn.data ? turn.data : "";
        text += strspn(text, " \t\n");
        if (!*text) continue;
        if (*text != '/') say(c, text);
        else if (!command(c, text)) break;
    }
    bs_buf_free(&turn);
}

static void start_terminal(chat *c)
{
    c->terminal = isatty(0) && isatty(1);
    c->color = c->terminal && !getenv("NO_COLOR");
    if (!c->terminal) return;
    setlocale(LC_CTYPE, ""); /* the line editor asks it how characters are written */
    rl_initialize();
    using_history();
    stifle_history(1000);
    c->history_file = history_path();
    if (c->history_file) read_history(c->history_file);
    fprintf(stderr, "%s. /help lists commands, Ctrl-C stops an answer, Ctrl-D leaves.\n",
            c->session.model.name);
}

static void end_terminal(chat *c)
{
    if (c->history_file) write_history(c->history_file);
    if (c->terminal) fputc('\n', stderr);
    bs_free(c->history_file);
}

static fm_status open_chat(chat *c, fm_error *err)
{
    en_options o = en_options_default();
    o.keep_prefixes = true;
    cli_engine_options(c->args, &o);
    fm_status status = cli_open(c->args, &o, &c->session, err);
    if (status) return status;
    const tx_chat *text = en_chat(c->session.engine);
    if (!text || !tx_chat_has_template(text))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "this model has no chat template: use flash-moe run --raw");
    c->sampling = *en_default_sampling(c->session.engine);
    cli_sampling_options(c->args, &c->sampling);
    start_anew(c, cli_text(c->args, "system", NULL));
    const char *saved = cli_text(c->args, "load", NULL);
    return saved ? load(c, saved, err) : FM_OK;
}

int cmd_chat(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_chat, argc, argv, &args);
    if (status >= 0) return status;
    cli_catch_signals();
    chat c = {.args = &args};
    fm_error err, also;
    fm_status failed = open_chat(&c, &err);
    if (!failed) {
        start_terminal(&c);
        talk(&c);
        end_terminal(&c);
    }
    json_decref(c.messages);
    bs_buf_free(&c.content);
    bs_buf_free(&c.reasoning);
    fm_status closed = cli_close(&c.session, &also);
    if (failed) return cli_fail(&err);
    if (closed) return cli_fail(&also);
    return cli_output_status();
}
