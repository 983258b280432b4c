#include "cli/text_common.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/resolve.h"

#include <stdio.h>

fm_status cli_tokenizer_path(const cli_args *a, char **out, fm_error *err)
{
    const char *given = cli_text(a, "tokenizer", NULL);
    cli_model model = {0};
    fm_status status = FM_OK;
    if (!given) status = cli_resolve_model(cli_model_name(a), CLI_RESOLVE_TEXTS, &model, err);
    if (!status && !(*out = bs_strdup(given ? given : model.folder)))
        status = fm_fail_nomem(err, "naming the tokenizer");
    cli_model_free(&model);
    return status;
}

int cli_with_tokenizer(const cli_spec *spec, int argc, char **argv, cli_tokenizer_work *work)
{
    cli_args args;
    tx_tokenizer *t = NULL;
    char *path = NULL;
    fm_error err;
    int rc = cli_parse(spec, argc, argv, &args);
    if (rc >= 0) return rc;
    fm_status status = cli_tokenizer_path(&args, &path, &err);
    if (!status) status = tx_tokenizer_open(path, &t, &err);
    rc = status ? cli_fail(&err) : work(t, &args);
    tx_tokenizer_free(t);
    bs_free(path);
    return rc;
}

bool cli_read_line(bs_buf *line)
{
    int c;
    line->length = 0;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n')
        if (!bs_buf_putc(line, (char)c)) return false;
    return c != EOF || line->length;
}

void cli_print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    putchar('\n');
}
