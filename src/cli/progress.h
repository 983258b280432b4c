/* progress.h - a line that tells how far a long job of bytes is: done, rate, time left. Only on a
 * terminal; one line is rewritten in place. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdint.h>

typedef struct cli_progress {
    const char *what; /* "packing" */
    double began, shown;
    uint64_t first; /* done when it began: a resumed job is not that fast */
    int active;     /* a line stands there */
} cli_progress;

void cli_progress_begin(cli_progress *p, const char *what);
/* Has the shape of the library's progress callbacks. */
void cli_progress_show(void *progress, uint64_t done, uint64_t total);
void cli_progress_end(cli_progress *p);

#endif
