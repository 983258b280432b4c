#include "cli/text_common.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char bundled[] = "models/flash-moe-tiny";

static bool wrong(const char *verb, const char *what, const char *arg)
{
    fprintf(stderr, "flash-moe %s: %s '%s'; see flash-moe %s --help\n", verb, what, arg, verb);
    return false;
}

bool cli_text_options_parse(int argc, char **argv, const char *usage, cli_text_options *o)
{
    *o = (cli_text_options){0};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], **value = NULL;
        if (!strcmp(a, "--help") || !strcmp(a, "-h")) {
            o->help = true;
            return fputs(usage, stdout), true;
        }
        if (!strcmp(a, "--tokenizer") || !strcmp(a, "-m") || !strcmp(a, "--model")) value = &o->tokenizer;
        else if (!strcmp(a, "--file") || !strcmp(a, "-f")) value = &o->file;
        else if (!strcmp(a, "--text") || !strcmp(a, "-p")) value = &o->text;
        else if (!strcmp(a, "--json")) o->json = true;
        else if (!strcmp(a, "--skip-special")) o->skip_special = true;
        else if (!strcmp(a, "--special")) o->special = true;
        else if (*a == '-') return wrong(argv[0], "unknown option", a);
        else if (o->tokenizer) return wrong(argv[0], "unexpected argument", a);
        else o->tokenizer = a;
        if (value && ++i == argc) return wrong(argv[0], "a value is missing after", a);
        if (value) *value = argv[i];
    }
    return true;
}

/* Beside the working directory, then beside the program: build/flash-moe stands in the project. */
static char *find_bundled(void)
{
    char program[4096];
    if (bs_is_dir(bundled)) return bs_strdup(bundled);
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    for (int up = 0; n > 0 && up < 3; up++) {
        program[n] = 0;
        char *slash = strrchr(program, '/');
        if (!slash) break;
        n = slash - program;
        *slash = 0;
        char *path = bs_path_join(program, bundled);
        if (path && bs_is_dir(path)) return path;
        bs_free(path);
    }
    return NULL;
}

bool cli_text_find_tokenizer(cli_text_options *o)
{
    if (o->tokenizer) return true;
    o->tokenizer = o->found = find_bundled();
    if (!o->found) fputs("flash-moe: the bundled model is not here; name one with --tokenizer DIR\n", stderr);
    return o->found != NULL;
}

void cli_text_options_free(cli_text_options *o)
{
    bs_free(o->found);
}

bool cli_read_line(bs_buf *line)
{
    int c;
    line->length = 0;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n')
        if (!bs_buf_putc(line, (char)c)) return false;
    return c != EOF || line->length;
}

bool cli_read_all(bs_buf *out)
{
    char chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        if (!bs_buf_append(out, chunk, n)) return false;
    return !ferror(stdin);
}

void cli_print_json(const json_t *v)
{
    json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    putchar('\n');
}

int cli_text_fail(const fm_error *err)
{
    fprintf(stderr, "flash-moe: %s\n", err->message);
    return 1;
}
