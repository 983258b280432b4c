/* flash-moe template: render a chat template. */
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/text_common.h"
#include "text/chat.h"
#include "text/template.h"

#include <stdio.h>

static const cli_option options[] = {
    {"tokenizer", 0, CLI_FILE, "DIR|FILE", 0, 0, "the folder whose template it is"},
    {"file", 'f', CLI_FILE, "T.jinja", 0, 0, "this template instead of the model's"},
    {"json", 0, CLI_FLAG, NULL, 0, 0,
     "a context a line: {\"messages\":..,\"tools\":..,...} in, {\"text\":..} or {\"error\":..} "
     "out"},
    {0},
};
static const cli_group text_group = {"Text", options, false};

const cli_spec spec_template = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Renders a model's chat template with the context that is read from stdin as a JSON "
             "object.\n"
             "With --file the object is the whole context; a model's own template is also given "
             "its special\n"
             "tokens, and tools: null, as running it does.",
    .examples = "  echo "
                "'{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"add_generation_prompt\":"
                "true}' | "
                "flash-moe template\n",
    .groups = {&cli_group_model, &text_group},
};

typedef struct source {
    tx_template *file; /* --file, or NULL */
    tx_tokenizer *tokenizer;
    tx_chat *chat;
} source;

static fm_status open_source(const cli_args *a, source *out, fm_error *err)
{
    const char *file = cli_text(a, "file", NULL);
    bs_buf text = {0};
    char *path = NULL;
    fm_status status;
    if (file) {
        status = cli_read_input(file, &text, err);
        if (!status)
            status =
                tx_template_compile(text.data ? text.data : "", text.length, file, &out->file, err);
    } else {
        status = cli_tokenizer_path(a, &path, err);
        if (!status) status = tx_tokenizer_open(path, &out->tokenizer, err);
        if (!status) status = tx_chat_open(path, out->tokenizer, &out->chat, err);
    }
    bs_buf_free(&text);
    bs_free(path);
    return status;
}

static void close_source(source *s)
{
    tx_template_free(s->file);
    tx_chat_free(s->chat);
    tx_tokenizer_free(s->tokenizer);
}

/* {"text":..} or {"error":..} on success; the context itself being unreadable is an error too. */
static json_t *answer(const source *s, const bs_buf *line)
{
    fm_error err = {0};
    json_error_t why;
    tx_rendered out = {0};
    json_t *context = json_loadb(line->data ? line->data : "", line->length, JSON_ALLOW_NUL, &why),
           *v;
    fm_status status =
        context ? FM_OK : fm_fail(&err, FM_E_FORMAT, "not a JSON object: %s", why.text);
    if (!status)
        status = s->file ? tx_template_render(s->file, context, NULL, 0, &out, &err)
                         : tx_chat_render(s->chat, context, &out, &err);
    if (!status) v = json_stringn(out.text.data, out.text.length);
    else if (out.raised.length) v = json_stringn(out.raised.data, out.raised.length);
    else v = json_string(err.message);
    json_t *object =
        json_pack("{s:o}", status ? "error" : "text", v ? v : json_string("malformed text"));
    tx_rendered_free(&out);
    json_decref(context);
    return object;
}

static int lines(const source *s)
{
    bs_buf in = {0};
    while (cli_read_line(&in)) {
        if (!in.length) continue;
        json_t *v = answer(s, &in);
        cli_print_json(v);
        json_decref(v);
    }
    bs_buf_free(&in);
    return 0;
}

static int one(const source *s)
{
    bs_buf in = {0};
    fm_error err;
    if (cli_read_input(NULL, &in, &err)) return cli_fail(&err);
    json_t *v = answer(s, &in);
    const json_t *text = json_object_get(v, "text"), *error = json_object_get(v, "error");
    if (text) fwrite(json_string_value(text), 1, json_string_length(text), stdout);
    else fprintf(stderr, "flash-moe: %s\n", json_string_value(error));
    int rc = text ? 0 : 1;
    json_decref(v);
    bs_buf_free(&in);
    return rc;
}

int cmd_template(int argc, char **argv)
{
    cli_args args;
    source s = {0};
    fm_error err;
    int rc = cli_parse(&spec_template, argc, argv, &args);
    if (rc >= 0) return rc;
    rc = open_source(&args, &s, &err) ? cli_fail(&err)
         : cli_has(&args, "json")     ? lines(&s)
                                      : one(&s);
    close_source(&s);
    return rc;
}
