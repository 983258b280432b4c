/* flash-moe detokenize: token ids to text. */
#include "cli/cli.h"
#include "cli/text_common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {"tokenizer", 0, CLI_FILE, "DIR|FILE", 0, 0, "this tokenizer instead of the model's"},
    {"file", 'f', CLI_FILE, "FILE", 0, 0, "read the ids from a file; default: stdin"},
    {"skip-special", 0, CLI_FLAG, NULL, 0, 0, "leave special tokens out"},
    {"json", 0, CLI_FLAG, NULL, 0, 0, "a JSON value a line: [ids] in, \"text\" out"},
    {0},
};
static const cli_group text_group = {"Text", options, false};

const cli_spec spec_detokenize = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Prints the text of token ids, which are separated by spaces, commas or newlines.",
    .examples = "  echo 42 2781 2925 | flash-moe detokenize\n",
    .groups = {&cli_group_model, &text_group},
};

static fm_status put_id(tx_ids *ids, long long id, fm_error *err)
{
    if (id < 0 || id > INT32_MAX) return fm_fail(err, FM_E_FORMAT, "%lld is no token id", id);
    return tx_ids_push(ids, (int32_t)id) ? FM_OK : fm_fail_nomem(err, "reading ids");
}

static fm_status plain_ids(const char *s, tx_ids *ids, fm_error *err)
{
    fm_status status = FM_OK;
    while (!status && *(s += strspn(s, " \t\r\n,[]"))) {
        char *end;
        long long id = strtoll(s, &end, 10);
        if (end == s) return fm_fail(err, FM_E_FORMAT, "'%.20s' is no token id", s);
        status = put_id(ids, id, err);
        s = end;
    }
    return status;
}

static fm_status json_ids(const bs_buf *line, tx_ids *ids, fm_error *err)
{
    json_error_t why;
    json_t *v = json_loadb(line->data, line->length, JSON_DECODE_ANY, &why), *id;
    fm_status status = FM_OK;
    size_t i;
    if (!v) status = fm_fail(err, FM_E_FORMAT, "not JSON: %s", why.text);
    else if (!json_is_array(v)) status = fm_fail(err, FM_E_FORMAT, "the line is no array of ids");
    json_array_foreach(v, i, id)
    {
        if (!status) status = put_id(ids, json_is_integer(id) ? json_integer_value(id) : -1, err);
    }
    json_decref(v);
    return status;
}

static int answer(const tx_tokenizer *t, const cli_args *a, const tx_ids *ids)
{
    bs_buf text = {0};
    fm_error err;
    bool skip = cli_has(a, "skip-special"), json = cli_has(a, "json");
    fm_status status = tx_decode(t, ids->data, ids->length, skip, &text, &err);
    if (!status && json) {
        json_t *v = json_stringn(text.data ? text.data : "", text.length);
        cli_print_json(v);
        json_decref(v);
    } else if (!status) {
        fwrite(text.data ? text.data : "", 1, text.length, stdout);
        putchar('\n');
    }
    bs_buf_free(&text);
    return status ? cli_fail(&err) : 0;
}

static int all(const tx_tokenizer *t, const cli_args *a)
{
    bs_buf in = {0};
    tx_ids ids = {0};
    fm_error err;
    int rc = 0;
    while (cli_has(a, "json") && !rc && cli_read_line(&in)) {
        if (!in.length) continue;
        ids.length = 0;
        rc = json_ids(&in, &ids, &err) ? cli_fail(&err) : answer(t, a, &ids);
    }
    if (!cli_has(a, "json")) {
        fm_status status = cli_read_input(cli_text(a, "file", NULL), &in, &err);
        if (!status) status = plain_ids(in.data ? in.data : "", &ids, &err);
        rc = status ? cli_fail(&err) : answer(t, a, &ids);
    }
    tx_ids_free(&ids);
    bs_buf_free(&in);
    return rc;
}

int cmd_detokenize(int argc, char **argv)
{
    return cli_with_tokenizer(&spec_detokenize, argc, argv, all);
}
