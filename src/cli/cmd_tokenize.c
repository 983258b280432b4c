/* flash-moe tokenize: text to token ids. */
#include "cli/cli.h"
#include "cli/text_common.h"

#include <stdio.h>

static const cli_option options[] = {
    {"tokenizer", 0, CLI_FILE, "DIR|FILE", 0, 0, "this tokenizer instead of the model's"},
    {"text", 'p', CLI_TEXT, "TEXT", 0, 0, "the text; default: stdin"},
    {"file", 'f', CLI_FILE, "FILE", 0, 0, "read the text from a file"},
    {"special", 0, CLI_FLAG, NULL, 0, 0, "add what the model's post-processor adds (BOS)"},
    {"json", 0, CLI_FLAG, NULL, 0, 0,
     "a JSON value a line: {\"text\":..,\"special\":bool} in, [ids] out"},
    {0},
};
static const cli_group text_group = {"Text", options, false};

const cli_spec spec_tokenize = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Prints the token ids of a text, as the model's own tokenizer gives them.",
    .examples = "  flash-moe tokenize -p 'Hello, world'\n"
                "  flash-moe tokenize --tokenizer tokenizer.json --json < lines.jsonl\n",
    .groups = {&cli_group_model, &text_group},
};

static int print_ids(const tx_ids *ids, bool json)
{
    if (json) putchar('[');
    for (size_t i = 0; i < ids->length; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", (int)ids->data[i]);
    puts(json ? "]" : "");
    return 0;
}

static int one_text(const tx_tokenizer *t, const cli_args *a)
{
    bs_buf text = {0};
    tx_ids ids = {0};
    fm_error err;
    fm_status status = FM_OK;
    unsigned flags = cli_has(a, "special") ? TX_ADD_SPECIAL : 0;
    if (cli_has(a, "text")) bs_buf_puts(&text, cli_text(a, "text", ""));
    else status = cli_read_input(cli_text(a, "file", NULL), &text, &err);
    if (!status) status = tx_encode(t, text.data ? text.data : "", text.length, flags, &ids, &err);
    int rc = status ? cli_fail(&err) : print_ids(&ids, false);
    tx_ids_free(&ids);
    bs_buf_free(&text);
    return rc;
}

/* One line: a JSON object with the text. */
static fm_status line(const tx_tokenizer *t, const bs_buf *in, tx_ids *ids, fm_error *err)
{
    json_error_t why;
    json_t *v = json_loadb(in->data, in->length, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    const json_t *text = json_is_string(v) ? v : json_object_get(v, "text");
    bool special = json_is_true(json_object_get(v, "special"));
    ids->length = 0;
    fm_status status;
    if (!v) status = fm_fail(err, FM_E_FORMAT, "not JSON: %s", why.text);
    else if (!json_is_string(text))
        status = fm_fail(err, FM_E_FORMAT, "the line has no \"text\" string");
    else
        status = tx_encode(t, json_string_value(text), json_string_length(text),
                           special ? TX_ADD_SPECIAL : 0, ids, err);
    json_decref(v);
    return status;
}

static int lines(const tx_tokenizer *t)
{
    bs_buf in = {0};
    tx_ids ids = {0};
    fm_error err;
    int rc = 0;
    while (!rc && cli_read_line(&in)) {
        if (!in.length) continue;
        rc = line(t, &in, &ids, &err) ? cli_fail(&err) : print_ids(&ids, true);
    }
    tx_ids_free(&ids);
    bs_buf_free(&in);
    return rc;
}

static int tokenize(const tx_tokenizer *t, const cli_args *a)
{
    return cli_has(a, "json") ? lines(t) : one_text(t, a);
}

int cmd_tokenize(int argc, char **argv)
{
    return cli_with_tokenizer(&spec_tokenize, argc, argv, tokenize);
}
