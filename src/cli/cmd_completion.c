#include "cli/cli.h"
#include "cli/options.h"

#include <string.h>

static const cli_option man_options[] = {
    {"man", 0, CLI_TEXT, "VERB", 0, 0, "print the manual page of a verb, or of flash-moe itself"},
    {0},
};
static const cli_group man_group = {"Manual pages", man_options, false};

const cli_spec spec_completion = {
    .arguments = "bash|zsh|fish",
    .most = 1,
    .about = "Prints a script that lets the shell complete verbs, options and their values.",
    .examples = "  eval \"$(flash-moe completion bash)\"                           # now\n"
                "  flash-moe completion fish > ~/.config/fish/completions/flash-moe.fish\n",
    .groups = {&man_group},
};

static int print_manual(const char *name)
{
    if (!strcmp(name, "flash-moe")) {
        cli_print_man(NULL, stdout);
        return 0;
    }
    for (const cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(v->name, name) && v->spec) {
            cli_print_man(v, stdout);
            return 0;
        }
    fprintf(stderr, "flash-moe completion: no verb '%s'\n", name);
    return 2;
}

int cmd_completion(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_completion, argc, argv, &args);
    if (status >= 0) return status;
    if (cli_has(&args, "man")) return print_manual(cli_text(&args, "man", ""));
    const char *shell = cli_positional(&args, 0);
    status = shell ? cli_print_completion(shell, stdout) : 2;
    if (status) fprintf(stderr, "flash-moe completion: name a shell: bash, zsh or fish\n");
    return status;
}
