#include "cli/cli.h"
#include "cli/options.h"

#include <stdio.h>

const cli_spec spec_version = {.arguments = "", .about = NULL};

int cmd_version(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_version, argc, argv, &args);
    if (status >= 0) return status;
    puts("flash-moe " FM_VERSION);
    return 0;
}
