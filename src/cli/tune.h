/* tune.h - measuring the disk and the memory that a model will run on. */
#ifndef CLI_TUNE_H
#define CLI_TUNE_H

#include "cli/options.h"
#include "experts/measure.h"

enum { CLI_TUNE_DEPTHS = 5 };
extern const int cli_tune_depths[CLI_TUNE_DEPTHS];

typedef struct cli_tune {
    const char *folder; /* of the model */
    double seconds;     /* for each measurement */
    void (*say)(const char *what);
    char *file;          /* to read from */
    size_t record_bytes; /* 0: the model has no experts */
    xp_disk_rate disk[CLI_TUNE_DEPTHS];
    double memory_one; /* one thread */
    xp_tuning found;
} cli_tune;

/* What to read, and in which pieces: one expert of the model. Freed with cli_tune_free. */
fm_status cli_tune_find(cli_tune *t, fm_error *err);
/* Both rates, and the settings that follow from them. */
fm_status cli_tune_measure(cli_tune *t, fm_error *err);
void cli_tune_free(cli_tune *t);

/* --no-tune, for the verbs that measure by themselves. */
extern const cli_group cli_group_tune;

/* At the first use of a disk: measure and store, in about three seconds, when the verb may do so
 * and a person is watching. What fails is told and left. memory: the run's ceiling, 0 for the
 * machine's. FM_E_CANCELLED after Ctrl-C. */
fm_status cli_tune_first(const cli_args *a, const char *folder, uint64_t memory, fm_error *err);

#endif
