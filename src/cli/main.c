#include "cli/cli.h"
#include "cli/options.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static int overview(FILE *out)
{
    cli_print_overview(out);
    return out == stdout ? 0 : 2;
}

static const cli_verb *find_verb(const char *name)
{
    for (const cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(v->name, name)) return v;
    return NULL;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* beyond a file size limit a write fails and the failure is told */
    if (argc < 2) return overview(stderr);
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        const cli_verb *of = argc > 2 ? find_verb(argv[2]) : NULL;
        if (!of || !of->spec) return overview(stdout);
        cli_print_help(of, stdout);
        return 0;
    }
    if (!strcmp(name, "--version")) name = "version";
    const cli_verb *verb = find_verb(name);
    if (verb) return verb->run(argc - 1, argv + 1);
    fprintf(stderr, "flash-moe: no verb '%s'; see flash-moe --help\n", name);
    return 2;
}
