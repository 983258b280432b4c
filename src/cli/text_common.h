/* text_common.h - what the text verbs share: options, JSON lines, where the tokenizer is. */
#ifndef CLI_TEXT_COMMON_H
#define CLI_TEXT_COMMON_H

#include "base/buf.h"
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct cli_text_options {
    const char *tokenizer; /* folder or file, found */
    char *found;           /* allocated when it was looked for */
    const char *file;      /* --file */
    const char *text;      /* -p/--text: allowed for tokenize */
    bool json, skip_special, special, help;
} cli_text_options;

/* Parse the verb's arguments; false after a message on stderr (exit status 2). `usage` is printed for
 * --help. */
bool cli_text_options_parse(int argc, char **argv, const char *usage, cli_text_options *out);

/* Resolve the model: a folder as given, else the bundled one. False after a message (exit status 1). */
bool cli_text_find_tokenizer(cli_text_options *o);
void cli_text_options_free(cli_text_options *o);

/* The next line of stdin without its newline; false at the end. Lines are cut at '\n' only. */
bool cli_read_line(bs_buf *line);

/* All of stdin. */
bool cli_read_all(bs_buf *out);

/* Print a JSON value and a newline. */
void cli_print_json(const json_t *v);

/* "flash-moe: MESSAGE" on stderr; returns 1. */
int cli_text_fail(const fm_error *err);

#endif
