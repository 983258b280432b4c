/* flash-moe detokenize: token ids to text. */
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/text_common.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: flash-moe detokenize [MODEL | --tokenizer DIR|FILE] [--skip-special] < IDS\n"
    "       flash-moe detokenize --json < LINES     [ids] -> \"text\"\n\n"
    "Prints the text of ids, which are separated by spaces, commas or newlines.\n"
    "  --skip-special    leave special tokens out\n"
    "  --json            a JSON value a line in and out\n";

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

static int answer(const tx_tokenizer *t, const cli_text_options *o, const tx_ids *ids)
{
    bs_buf text = {0};
    fm_error err;
    fm_status status = tx_decode(t, ids->data, ids->length, o->skip_special, &text, &err);
    if (!status && o->json) {
        json_t *v = json_stringn(text.data ? text.data : "", text.length);
        cli_print_json(v);
        json_decref(v);
    } else if (!status) {
        fwrite(text.data ? text.data : "", 1, text.length, stdout);
        putchar('\n');
    }
    bs_buf_free(&text);
    return status ? cli_text_fail(&err) : 0;
}

static int all(const tx_tokenizer *t, const cli_text_options *o)
{
    bs_buf in = {0};
    tx_ids ids = {0};
    fm_error err;
    int rc = 0;
    if (o->json) {
        while (!rc && cli_read_line(&in)) {
            if (!in.length) continue;
            ids.length = 0;
            rc = json_ids(&in, &ids, &err) ? cli_text_fail(&err) : answer(t, o, &ids);
        }
    } else {
        cli_read_all(&in);
        rc = plain_ids(in.data ? in.data : "", &ids, &err) ? cli_text_fail(&err) : answer(t, o, &ids);
    }
    tx_ids_free(&ids);
    bs_buf_free(&in);
    return rc;
}

int cmd_detokenize(int argc, char **argv)
{
    cli_text_options o;
    tx_tokenizer *t = NULL;
    fm_error err;
    if (!cli_text_options_parse(argc, argv, usage, &o)) return 2;
    if (o.help) return 0;
    if (!cli_text_find_tokenizer(&o)) return 1;
    int rc = tx_tokenizer_open(o.tokenizer, &t, &err) ? cli_text_fail(&err) : all(t, &o);
    tx_tokenizer_free(t);
    cli_text_options_free(&o);
    return rc;
}
