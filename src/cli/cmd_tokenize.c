/* flash-moe tokenize: text to token ids. */
#include "base/file.h"
#include "cli/cli.h"
#include "cli/text_common.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: flash-moe tokenize [MODEL | --tokenizer DIR|FILE] [-p TEXT | -f FILE | < FILE]\n"
    "       flash-moe tokenize --json < LINES     {\"text\":..,\"special\":bool} -> [ids]\n\n"
    "Prints the ids of a text, separated by spaces.\n"
    "  --special    add what the model's post-processor adds (BOS)\n"
    "  --json       a JSON value a line in and out\n";

static int print_ids(const tx_ids *ids, bool json)
{
    if (json) putchar('[');
    for (size_t i = 0; i < ids->length; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", (int)ids->data[i]);
    puts(json ? "]" : "");
    return 0;
}

static int one_text(const tx_tokenizer *t, const cli_text_options *o)
{
    bs_buf text = {0};
    tx_ids ids = {0};
    fm_error err;
    fm_status status = FM_OK;
    if (o->text) bs_buf_puts(&text, o->text);
    else if (o->file) status = bs_read_file(o->file, SIZE_MAX / 2, &text, &err);
    else if (!cli_read_all(&text)) status = fm_fail(&err, FM_E_IO, "cannot read the text from stdin");
    if (!status)
        status = tx_encode(t, text.data ? text.data : "", text.length, o->special ? TX_ADD_SPECIAL : 0, &ids, &err);
    int rc = status ? cli_text_fail(&err) : print_ids(&ids, false);
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
    else if (!json_is_string(text)) status = fm_fail(err, FM_E_FORMAT, "the line has no \"text\" string");
    else
        status = tx_encode(t, json_string_value(text), json_string_length(text), special ? TX_ADD_SPECIAL : 0, ids, err);
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
        rc = line(t, &in, &ids, &err) ? cli_text_fail(&err) : print_ids(&ids, true);
    }
    tx_ids_free(&ids);
    bs_buf_free(&in);
    return rc;
}

int cmd_tokenize(int argc, char **argv)
{
    cli_text_options o;
    tx_tokenizer *t = NULL;
    fm_error err;
    if (!cli_text_options_parse(argc, argv, usage, &o)) return 2;
    if (o.help) return 0;
    if (!cli_text_find_tokenizer(&o)) return 1;
    int rc = tx_tokenizer_open(o.tokenizer, &t, &err) ? cli_text_fail(&err) : o.json ? lines(t) : one_text(t, &o);
    tx_tokenizer_free(t);
    cli_text_options_free(&o);
    return rc;
}
