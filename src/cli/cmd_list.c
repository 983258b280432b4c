#include "cli/cli.h"
#include "cli/download.h"
#include "cli/options.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const cli_option list_options[] = {
    {"json", 0, CLI_FLAG, NULL, 0, 0, "one JSON object a line"},
    {0},
};
static const cli_group list_group = {"List", list_options, false};

const cli_spec spec_list = {
    .arguments = "",
    .about =
        "The models in the hub cache: size on disk, whole, packed or partial, day of the last use.",
    .examples = "flash-moe list\n",
    .groups = {&list_group},
};

static void print_json(const hb_model *m)
{
    /* names are of the hub's alphabet and the folder is made of them and of the cache's path */
    printf("{\"model\":\"%s\",\"bytes\":%llu,\"partial_bytes\":%llu,\"complete\":%s,"
           "\"packed\":%s,\"last_used\":%lld}\n",
           m->repo, (unsigned long long)m->bytes, (unsigned long long)m->partial,
           m->complete ? "true" : "false", m->packed ? "true" : "false", (long long)m->last_used);
}

static void print_line(const hb_model *m, int width)
{
    char when[32] = "never";
    struct tm day;
    time_t used = (time_t)m->last_used;
    if (m->last_used && localtime_r(&used, &day)) strftime(when, sizeof when, "%Y-%m-%d", &day);
    printf("%-*s  %9s  %-10s  %s\n", width, m->repo, cli_format_size(m->bytes).text,
           !m->complete ? "partial"
           : m->packed  ? "packed"
                        : "complete",
           when);
}

static void print_all(const hb_model *models, size_t n, bool json)
{
    int width = 5;
    for (size_t i = 0; i < n; i++)
        if ((int)strlen(models[i].repo) > width) width = (int)strlen(models[i].repo);
    if (!json && n) printf("%-*s  %9s  %-10s  %s\n", width, "MODEL", "SIZE", "STATE", "LAST USED");
    for (size_t i = 0; i < n; i++) {
        if (json) print_json(&models[i]);
        else print_line(&models[i], width);
    }
}

int cmd_list(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_list, argc, argv, &args);
    if (ended >= 0) return ended;
    hb_config config;
    hb_model *models = NULL;
    size_t n = 0;
    fm_error err;
    fm_status status = hb_config_from_env(&config, &err);
    if (status) return cli_fail(&err);
    status = hb_list(&config, &models, &n, &err);
    if (!status) {
        print_all(models, n, cli_has(&args, "json"));
        if (!n) fprintf(stderr, "no models in %s\n", config.cache);
        hb_list_free(models, n);
    }
    hb_config_free(&config);
    return status ? cli_fail(&err) : 0;
}
