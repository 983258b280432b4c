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
    if (!given) status = cli_resolve_model(cli_model_name(a), CLI_RESOLVE_CONFIG, &model, err);
    if (!status && !(*out = bs_strdup(given ? given : model.folder)))
        status = fm_fail_nomem(err, "naming the tokenizer");
    cli_model_free(&model);
    return status;
}

bool cli_read_line(bs_buf *line)
{
    int c;
    line->length = 0;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n')
        if (!bs_buf_putc(line, (char)c)) return false;
    return c != EOF || line->length;
}

fm_status cli_read_input(const char *file, bs_buf *out, fm_error *err)
{
    char chunk[65536];
    size_t n;
    if (file) return bs_read_file(file, SIZE_MAX / 2, out, err);
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        if (!bs_buf_append(out, chunk, n)) return fm_fail_nomem(err, "reading stdin");
    return ferror(stdin) ? fm_fail(err, FM_E_IO, "stdin: cannot read") : FM_OK;
}

void cli_print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    putchar('\n');
}
