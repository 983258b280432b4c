#include "base/mem.h"
#include "cli/cli.h"
#include "cli/download.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/quantised.h"
#include "cli/resolve.h"
#include "experts/pack.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

static const cli_option pack_options[] = {
    {"output", 'o', CLI_FOLDER, "DIR", 0, 0,
     "where the store goes; default: MODEL/flash-moe.pack, or the cache folder when MODEL cannot "
     "be "
     "written"},
    {"bits", 0, CLI_CHOICE, "2|3|4|5|6|8", 0, 0,
     "quantise the experts: a new model folder at -o, which answers otherwise than MODEL does"},
    {"group-size", 0, CLI_CHOICE, "32|64|128", 0, 0,
     "with --bits: weights that share a scale; default 64"},
    {"dry-run", 0, CLI_FLAG, NULL, 0, 0, "with --bits: say how large it would become"},
    {"verify", 0, CLI_FLAG, NULL, 0, 0, "read every record of a store and compare its checksum"},
    {0},
};
static const cli_group pack_group = {"Pack", pack_options, false};

const cli_spec spec_pack = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "Write the packed expert store: each expert in one aligned, checksummed record, read by "
        "one direct read instead of nine. The answers stay the same, bit for bit. The store is "
        "found by itself when the model is opened, and refused when the model's files change. "
        "An interrupted run goes on where it was.\n\n"
        "With --bits the experts of a float checkpoint, or of one with more bits, are quantised "
        "on the way (MLX affine) into a new model folder; everything else is copied. Fewer bits "
        "read faster and answer worse: compare with `flash-moe score`.",
    .examples = "flash-moe pack ~/models/Qwen3-30B-A3B-4bit\n"
                "flash-moe pack MODEL -o /fast/disk/store  # then: run MODEL --pack-dir ...\n"
                "flash-moe pack MODEL --verify\n"
                "flash-moe pack Qwen3-30B-A3B-bf16 --bits 4 --group-size 64 -o q30-4bit\n"
                "flash-moe pack q30-4bit --bits 2 --dry-run\n",
    .groups = {&cli_group_model, &pack_group},
};

static fm_status verify(const char *dir, const xp_source *source, fm_error *err)
{
    xp_pack *pack;
    fm_status status = xp_pack_open(dir, source, &pack, err);
    if (status) return status;
    cli_progress p;
    cli_progress_begin(&p, "verifying");
    status = xp_pack_verify(pack, cli_progress_show, &p, err);
    cli_progress_end(&p);
    xp_pack_close(pack);
    if (!status) fprintf(stderr, "%s: every record is sound\n", dir);
    return status;
}

static fm_status write_store(const char *dir, const xp_source *source, fm_error *err)
{
    fprintf(stderr, "packing into %s\n", dir);
    cli_progress p;
    cli_progress_begin(&p, "packing");
    fm_status status = xp_pack_all(source, NULL, dir, cli_progress_show, &p, err);
    cli_progress_end(&p);
    if (!status) printf("%s\n", dir);
    return status;
}

static fm_status quantise(const cli_args *args, const char *folder, const md_model *model,
                          fm_error *err)
{
    cli_quantise q = {.model = model,
                      .from = folder,
                      .to = cli_text(args, "output", NULL),
                      .bits = atoi(cli_text(args, "bits", "4")),
                      .group = atoi(cli_text(args, "group-size", "64"))};
    uint64_t now, then;
    fm_status status = cli_quantise_sizes(&q, &now, &then, err);
    if (status) return status;
    fprintf(stderr, "experts: %.2f GB now, %.2f GB with %d bits in groups of %d\n",
            (double)now * 1e-9, (double)then * 1e-9, q.bits, q.group);
    if (cli_has(args, "dry-run")) return FM_OK;
    if (!q.to)
        return fm_fail(err, FM_E_ARGUMENT, "--bits makes a new model: say where with -o DIR");
    status = cli_quantise_model(&q, err);
    if (!status) printf("%s\n", q.to);
    return status;
}

static fm_status pack_folder(const cli_args *args, const char *folder, fm_error *err)
{
    md_options options = {.isa = kn_isa_best()};
    md_model *model;
    fm_status status = md_open(folder, &options, &model, err);
    if (status) return status;
    const xp_source *source = md_expert_source(model);
    bool has_experts = source && source->n_layers > 0;
    if (has_experts && cli_has(args, "bits")) {
        status = quantise(args, folder, model, err);
        md_close(model);
        return status;
    }
    const char *given = cli_text(args, "output", NULL);
    char *dir = given ? bs_strdup(given) : cli_has(args, "verify") ? xp_pack_find(folder) : NULL;
    if (!has_experts) status = fm_fail(err, FM_E_UNSUPPORTED, "%s: has no experts to pack", folder);
    else if (!dir && cli_has(args, "verify"))
        status = fm_fail(err, FM_E_NOT_FOUND, "%s: has no packed store: run flash-moe pack first",
                         folder);
    else if (!dir) status = xp_pack_default_dir(folder, &dir, err);
    if (!status)
        status = cli_has(args, "verify") ? verify(dir, source, err) : write_store(dir, source, err);
    bs_free(dir);
    md_close(model);
    return status;
}

int cmd_pack(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_pack, argc, argv, &args);
    if (ended >= 0) return ended;
    if ((cli_has(&args, "group-size") || cli_has(&args, "dry-run")) && !cli_has(&args, "bits")) {
        fprintf(stderr, "flash-moe pack: --group-size and --dry-run go with --bits\n");
        return 2;
    }
    if (cli_has(&args, "verify") && cli_has(&args, "bits")) {
        fprintf(stderr, "flash-moe pack: --verify and --bits do not go together\n");
        return 2;
    }
    fm_error err;
    cli_model found;
    fm_status status = cli_resolve_model(cli_model_name(&args), 0, &found, &err);
    if (status) return cli_fail(&err);
    status = pack_folder(&args, found.folder, &err);
    cli_model_free(&found);
    return status ? cli_fail(&err) : 0;
}
