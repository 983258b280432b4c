#include "cli/resolve.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUNDLED "flash-moe-tiny"

void cli_model_free(cli_model *m)
{
    bs_free(m->folder);
    bs_free(m->name);
    *m = (cli_model){0};
}

/* The last component, "model" for "/", "." and the like. */
static char *folder_name(const char *folder)
{
    size_t end = strlen(folder);
    while (end && folder[end - 1] == '/') end--;
    size_t start = end;
    while (start && folder[start - 1] != '/') start--;
    if (end == start || folder[start] == '.') return bs_strdup("model");
    return bs_strndup(folder + start, end - start);
}

static fm_status use_folder(const char *folder, cli_model *out, fm_error *err)
{
    out->folder = bs_strdup(folder);
    out->name = folder_name(folder);
    if (out->folder && out->name) return FM_OK;
    cli_model_free(out);
    return fm_fail_nomem(err, "naming the model");
}

static bool has_config(const char *folder)
{
    char *config = bs_path_join(folder, "config.json");
    bool found = config && bs_is_file(config);
    bs_free(config);
    return found;
}

/* The folder the running program lies in, or "" where the system does not tell. */
static void program_folder(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    out[n > 0 ? n : 0] = 0;
    char *slash = strrchr(out, '/');
    *(slash ? slash : out) = 0;
}

static fm_status find_bundled(cli_model *out, fm_error *err)
{
    static const char *const beside[] = {"../models", "../share/flash-moe/models"};
    char program[4096];
    program_folder(program, sizeof program);
    char *found = NULL;
    for (size_t i = 0; i < sizeof beside / sizeof *beside && !found; i++) {
        char *folder = bs_sprintf("%s/%s/" BUNDLED, program, beside[i]);
        if (!folder) return fm_fail_nomem(err, "looking for the bundled model");
        if (has_config(folder))
            found = folder;
        else
            bs_free(folder);
    }
    if (!found && has_config("models/" BUNDLED)) found = bs_strdup("models/" BUNDLED);
    if (!found)
        return fm_fail(err, FM_E_NOT_FOUND,
                       "the bundled model " BUNDLED " is neither beside the program (%s/../models) "
                       "nor in ./models; name a model folder or a hub id (org/name)",
                       program);
    fm_status status = use_folder(found, out, err);
    bs_free(found);
    return status;
}

fm_status cli_resolve_model(const char *model, unsigned flags, cli_model *out, fm_error *err)
{
    (void)flags;
    *out = (cli_model){0};
    if (!model || !*model) model = getenv("FLASH_MOE_MODEL");
    if (!model || !*model) return find_bundled(out, err);
    if (bs_is_dir(model)) return use_folder(model, out, err);
    return fm_fail(err, FM_E_NOT_FOUND, "%s: no such model folder", model);
}
