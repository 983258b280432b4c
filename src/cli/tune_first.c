/* The first use of a disk measures it, so that nobody has to know of `tune` to run well. Only the
 * trial of prefetching is left to it: that one decodes, and takes its time. */
#include "cli/tune.h"

#include "base/mem.h"
#include "cli/common.h"
#include "engine/planner.h"

#include <unistd.h>

static const cli_option options[] = {
    {"no-tune", 0, CLI_FLAG, NULL, 0, 0,
     "do not measure the disk and memory at the first use of a disk"},
    {0},
};
const cli_group cli_group_tune = {"Tuning", options, true};

/* A disk answers small reads at another rate: what a toy's experts measure would mislead. */
enum { LEAST_RECORD = 256 << 10 };
/* Memory is measured with a block of 1 GiB, which must not push others out. */
static const uint64_t LEAST_MEMORY = (uint64_t)2 << 30;
static const double SECONDS = 0.25; /* for each of five depths, and twice for memory */

static bool may_measure(const cli_args *a, uint64_t memory)
{
    bool offered = false;
    for (int i = 0; i < CLI_MAX_GROUPS && a->spec->groups[i]; i++)
        offered |= a->spec->groups[i] == &cli_group_tune;
    if (!offered || cli_has(a, "no-tune") || !isatty(STDERR_FILENO)) return false;
    en_machine m;
    en_machine_read(0, &m);
    return m.available_bytes >= LEAST_MEMORY && (!memory || memory >= LEAST_MEMORY);
}

static void say_nothing(const char *what)
{
    (void)what;
}

static fm_status measure_and_store(cli_tune *t, fm_error *err)
{
    fprintf(stderr, "first use of this disk: measuring it and memory for about 3 s (--no-tune: "
                    "not)... ");
    fflush(stderr);
    fm_status status = cli_tune_measure(t, err);
    if (!status)
        fprintf(stderr, "%.2f and %.1f GB/s", t->found.disk_bytes_s * 1e-9,
                t->found.memory_bytes_s * 1e-9);
    fputc('\n', stderr);
    return status ? status : xp_tuning_save(t->file, &t->found, NULL, err);
}

fm_status cli_tune_first(const cli_args *a, const char *folder, uint64_t memory, fm_error *err)
{
    xp_tuning known;
    if (!may_measure(a, memory) || xp_tuning_load(folder, &known)) return FM_OK;
    cli_tune t = {.folder = folder, .seconds = SECONDS, .say = say_nothing};
    fm_error why;
    fm_status status = cli_tune_find(&t, &why); /* the engine will tell what is wrong with it */
    if (!status && t.record_bytes >= LEAST_RECORD && !xp_tuning_load(t.file, &known) &&
        measure_and_store(&t, &why))
        fprintf(stderr, "note: not measured or not stored: %s\n", why.message);
    cli_tune_free(&t);
    return cli_interrupted() ? fm_fail(err, FM_E_CANCELLED, "interrupted") : FM_OK;
}
