#include "base/mem.h"
#include "cli/cli.h"
#include "cli/download.h"
#include "cli/options.h"
#include "cli/pull_pack.h"

#include <stdio.h>
#include <string.h>

static const cli_option pull_options[] = {
    {"pack", 0, CLI_FLAG, NULL, 0, 0,
     "pack each shard as it arrives and keep only the packed model: never twice on disk"},
    {"yes", 'y', CLI_FLAG, NULL, 0, 0, "do not ask before the download"},
    {0},
};
static const cli_group pull_group = {"Pull", pull_options, false};

const cli_spec spec_pull = {
    .arguments = "ORG/NAME[@REVISION]",
    .least = 1,
    .most = 1,
    .about =
        "Download a model from the Hugging Face hub into its cache, and print its folder. What an\n"
        "earlier pull or Python's huggingface_hub has fetched is not fetched again; every file is\n"
        "verified. A pull that was stopped goes on where it was.\n\n"
        "HF_HUB_CACHE or HF_HOME: where models are kept. HF_TOKEN: for private and gated models.\n"
        "HF_ENDPOINT: a mirror. HF_HUB_OFFLINE=1: never ask the hub.",
    .examples = "flash-moe pull mlx-community/Qwen3-30B-A3B-4bit  # asks, then downloads\n"
                "flash-moe pull org/name@v1.0 --yes  # a revision, without a question\n"
                "flash-moe pull org/name --pack  # for streaming from this disk only\n",
    .groups = {&pull_group},
};

/* Into the hub cache, as Python would. */
static fm_status pull_whole(const hb_config *c, hb_survey *s, bool yes, const char *command,
                            fm_error *err)
{
    fm_status status = cli_download(c, s, yes, command, NULL, err);
    if (!status) puts(s->folder);
    return status;
}

/* Into the packed store. */
static fm_status pull_packed(const hb_config *c, hb_survey *s, bool yes, const char *command,
                             fm_error *err)
{
    char *folder;
    cli_packer *packer = NULL;
    fm_status status = hb_packed_folder(c, s, &folder, err);
    if (status) return status;
    if (!hb_is_packed(folder)) {
        status = cli_confirm_download(s, yes, command, err);
        if (!status) status = cli_packer_open(c, s, NULL, &packer, err);
        if (!status) {
            hb_sink sink = cli_packer_sink(packer);
            status = cli_download(c, s, true, command, &sink, err);
        }
        if (!status) status = cli_packer_finish(packer, err);
        cli_packer_close(packer);
    }
    if (!status) puts(folder);
    bs_free(folder);
    return status;
}

static fm_status pull(const hb_id *id, bool pack, bool yes, fm_error *err)
{
    hb_config config;
    hb_survey survey;
    fm_status status = hb_config_from_env(&config, err);
    if (status) return status;
    bool main_revision = !strcmp(id->revision, "main");
    char *command = bs_sprintf("flash-moe pull %s%s%s%s --yes", id->repo, main_revision ? "" : "@",
                               main_revision ? "" : id->revision, pack ? " --pack" : "");
    status = command ? cli_survey(&config, id, &survey, err) : fm_fail_nomem(err, "pulling");
    if (!status) {
        status = (pack ? pull_packed : pull_whole)(&config, &survey, yes, command, err);
        hb_survey_free(&survey);
    }
    bs_free(command);
    hb_config_free(&config);
    return status;
}

int cmd_pull(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_pull, argc, argv, &args);
    if (ended >= 0) return ended;
    hb_id id;
    fm_error err;
    if (hb_parse_id(cli_positional(&args, 0), &id, &err)) return cli_fail(&err), 2;
    return pull(&id, cli_has(&args, "pack"), cli_has(&args, "yes"), &err) ? cli_fail(&err) : 0;
}
