#include "cli/cli.h"

#include <stddef.h>

const cli_verb cli_verbs[] = {
    {"version", "print the version", cmd_version},
    {NULL, NULL, NULL},
};
