#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static int usage(FILE *out)
{
    fputs("usage: flash-moe VERB [MODEL] [options]\n\n", out);
    for (const cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-12s %s\n", v->name, v->summary);
    return out == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    if (argc < 2) return usage(stderr);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        return usage(stdout);
    for (const cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(argv[1], v->name)) return v->run(argc - 1, argv + 1);
    fprintf(stderr, "flash-moe: no verb '%s'; see flash-moe --help\n", argv[1]);
    return 2;
}
