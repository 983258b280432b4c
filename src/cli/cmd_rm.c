#include "cli/cli.h"
#include "cli/download.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>

static const cli_option rm_options[] = {
    {"yes", 'y', CLI_FLAG, NULL, 0, 0, "do not ask"},
    {0},
};
static const cli_group rm_group = {"Remove", rm_options, false};

const cli_spec spec_rm = {
    .arguments = "ORG/NAME...",
    .least = 1,
    .most = CLI_MAX_POSITIONALS,
    .about = "Remove models from the hub cache, with all their revisions and unfinished downloads.",
    .examples = "flash-moe rm org/name\n",
    .groups = {&rm_group},
};

static uint64_t size_of(const hb_config *c, const char *repo)
{
    hb_model *models;
    size_t n;
    uint64_t bytes = 0;
    if (hb_list(c, &models, &n, NULL)) return 0;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(models[i].repo, repo)) bytes = models[i].bytes;
    hb_list_free(models, n);
    return bytes;
}

static fm_status remove_one(const hb_config *c, const char *text, bool yes, fm_error *err)
{
    hb_id id;
    char question[512];
    fm_status status = hb_parse_id(text, &id, err);
    if (status) return status;
    if (strchr(text, '@'))
        return fm_fail(err, FM_E_ARGUMENT,
                       "%s: a model is removed with all its revisions; name it "
                       "without @",
                       text);
    uint64_t bytes = size_of(c, id.repo);
    snprintf(question, sizeof question, "remove %s (%s)?", id.repo, cli_format_size(bytes).text);
    if (!yes && !cli_can_ask())
        return fm_fail(err, FM_E_ARGUMENT, "%s: without a terminal to ask on, --yes is needed",
                       id.repo);
    if (!yes && !cli_ask(question)) return fm_fail(err, FM_E_CANCELLED, "%s was kept", id.repo);
    status = hb_remove(c, id.repo, err);
    if (!status) fprintf(stderr, "removed %s, %s freed\n", id.repo, cli_format_size(bytes).text);
    return status;
}

int cmd_rm(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_rm, argc, argv, &args);
    if (ended >= 0) return ended;
    hb_config config;
    fm_error err;
    if (hb_config_from_env(&config, &err)) return cli_fail(&err);
    int exit_status = 0;
    for (int i = 0; cli_positional(&args, i); i++)
        if (remove_one(&config, cli_positional(&args, i), cli_has(&args, "yes"), &err))
            exit_status = cli_fail(&err);
    hb_config_free(&config);
    return exit_status;
}
