#include "cli/cli.h"

#include <stddef.h>

const cli_verb cli_verbs[] = {
    {"version", "print the version", cmd_version, &spec_version},
    {"completion", "print a completion script for bash, zsh or fish", cmd_completion,
     &spec_completion},
    {NULL, NULL, NULL, NULL},
};
