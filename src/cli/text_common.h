/* text_common.h - what the text verbs share: the tokenizer they work with, and JSON lines. */
#ifndef CLI_TEXT_COMMON_H
#define CLI_TEXT_COMMON_H

#include "base/buf.h"
#include "cli/common.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>

/* --tokenizer, else the model's folder: allocated. */
fm_status cli_tokenizer_path(const cli_args *a, char **out, fm_error *err);

/* A verb that works with a tokenizer alone: read the arguments, open it, do the work. */
typedef int cli_tokenizer_work(const tx_tokenizer *t, const cli_args *a);
int cli_with_tokenizer(const cli_spec *spec, int argc, char **argv, cli_tokenizer_work *work);

/* The next line of stdin without its newline; false at the end. Lines are cut at '\n' only. */
bool cli_read_line(bs_buf *line);

/* Print a JSON value and a newline. */
void cli_print_json(const json_t *v);

#endif
