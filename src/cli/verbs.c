#include "cli/cli.h"

#include <stddef.h>

const cli_verb cli_verbs[] = {
    {"pull", "download a model from the hub: resumable, verified", cmd_pull, &spec_pull},
    {"list", "list the models in the hub cache", cmd_list, &spec_list},
    {"rm", "remove models from the hub cache", cmd_rm, &spec_rm},
    {"tokenize", "text to token ids", cmd_tokenize, &spec_tokenize},
    {"detokenize", "token ids to text", cmd_detokenize, &spec_detokenize},
    {"bench", "measured speed against this machine's bounds", cmd_bench, &spec_bench},
    {"version", "print the version", cmd_version, &spec_version},
    {"completion", "print a completion script for bash, zsh or fish", cmd_completion,
     &spec_completion},
    {NULL, NULL, NULL, NULL},
};
