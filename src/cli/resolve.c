#include "cli/resolve.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/download.h"
#include "hub/hub.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
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
        if (has_config(folder)) found = folder;
        else bs_free(folder);
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

/* Not in the cache: survey, and unless a config is enough, ask and download. */
static fm_status fetch_model(const hb_config *c, const hb_id *id, const char *typed, unsigned flags,
                             char **folder, fm_error *err)
{
    hb_survey survey;
    char *command = bs_sprintf("flash-moe pull %s --yes", typed);
    fm_status status = command ? cli_survey(c, id, &survey, err) : fm_fail_nomem(err, typed);
    if (!status) {
        if (flags & CLI_RESOLVE_TEXTS) status = cli_download_texts(c, &survey, err);
        else if (!(flags & CLI_RESOLVE_CONFIG))
            status = cli_download(c, &survey, flags & CLI_RESOLVE_YES, command, NULL, err);
        if (!status) {
            *folder = survey.folder;
            survey.folder = NULL;
        }
        hb_survey_free(&survey);
    }
    bs_free(command);
    return status;
}

static fm_status use_hub_model(const char *typed, unsigned flags, cli_model *out, fm_error *err)
{
    hb_id id;
    hb_config config;
    fm_status status = hb_parse_id(typed, &id, err);
    if (status) return status;
    status = hb_config_from_env(&config, err);
    if (status) return status;
    hb_need need = flags & CLI_RESOLVE_CONFIG  ? HB_NEED_CONFIG
                   : flags & CLI_RESOLVE_TEXTS ? HB_NEED_TEXTS
                                               : HB_NEED_WEIGHTS;
    status = hb_find(&config, &id, need, &out->folder, err);
    if (status == FM_E_NOT_FOUND)
        status = fetch_model(&config, &id, typed, flags, &out->folder, err);
    hb_config_free(&config);
    if (!status && !(out->name = bs_strdup(id.repo))) status = fm_fail_nomem(err, typed);
    if (status) cli_model_free(out);
    return status;
}

fm_status cli_resolve_model(const char *model, unsigned flags, cli_model *out, fm_error *err)
{
    *out = (cli_model){0};
    if (!model || !*model) model = getenv("FLASH_MOE_MODEL");
    if (!model || !*model) return find_bundled(out, err);
    if (bs_is_dir(model)) return use_folder(model, out, err);
    if (hb_is_id(model)) return use_hub_model(model, flags, out, err);
    return fm_fail(err, FM_E_NOT_FOUND,
                   "'%s' is neither a model folder nor a hub id (org/name or org/name@revision)",
                   model);
}

/* "qwen3-coder-next-4bit" is Qwen3-Coder-Next.json: case does not count, nor does the usual suffix.
 */
static bool names_config(const char *file, const char *name)
{
    size_t n = strlen(name), suffix = sizeof "-4bit" - 1;
    if (n > suffix && !strcasecmp(name + n - suffix, "-4bit")) n -= suffix;
    return !strncasecmp(file, name, n) && !strcmp(file + n, ".json");
}

static char *config_in(const char *folder, const char *name)
{
    char *path = NULL;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && !path && (e = readdir(d));)
        if (names_config(e->d_name, name)) path = bs_path_join(folder, e->d_name);
    if (d) closedir(d);
    return path;
}

/* configs/NAME.json beside the program or in the current folder; NULL: not there. */
static char *named_config(const char *name)
{
    static const char *const beside[] = {"../configs", "../share/flash-moe/configs"};
    char program[4096], *found = NULL;
    program_folder(program, sizeof program);
    for (size_t i = 0; i < sizeof beside / sizeof *beside && !found; i++) {
        char *folder = bs_sprintf("%s/%s", program, beside[i]);
        if (folder) found = config_in(folder, name);
        bs_free(folder);
    }
    return found ? found : config_in("configs", name);
}

fm_status cli_find_config(const char *typed, char **out, fm_error *err)
{
    if (bs_is_file(typed)) *out = bs_strdup(typed);
    else if (bs_is_dir(typed)) *out = bs_path_join(typed, "config.json");
    else if (!strchr(typed, '/') && (*out = named_config(typed))) return FM_OK;
    else
        return fm_fail(
            err, FM_E_NOT_FOUND,
            "'%s' is neither a config.json nor a folder with one nor a name from configs/", typed);
    return *out ? FM_OK : fm_fail_nomem(err, typed);
}

fm_status cli_resolve_described(const char *typed, char **out, fm_error *err)
{
    cli_model model;
    if (typed && *typed && !bs_is_dir(typed) && (bs_is_file(typed) || !strchr(typed, '/')))
        return cli_find_config(typed, out, err);
    fm_status status = cli_resolve_model(typed, CLI_RESOLVE_CONFIG, &model, err);
    if (status) return status;
    *out = model.folder;
    model.folder = NULL;
    cli_model_free(&model);
    return FM_OK;
}
