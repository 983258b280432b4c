#include "cli/cli.h"

#include <stdio.h>

int cmd_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    puts("flash-moe " FM_VERSION);
    return 0;
}
