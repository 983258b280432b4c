#include "cli/progress.h"

#include "base/clock.h"
#include "cli/download.h"

#include <stdio.h>
#include <unistd.h>

void cli_progress_begin(cli_progress *p, const char *what)
{
    *p = (cli_progress){.what = what, .began = bs_now(), .first = UINT64_MAX};
}

void cli_progress_show(void *progress, uint64_t done, uint64_t total)
{
    cli_progress *p = progress;
    double now = bs_now();
    if (p->first == UINT64_MAX) p->first = done;
    if (!isatty(STDERR_FILENO) || (now - p->shown < 0.2 && done < total)) return;
    double took = now - p->began, rate = took > 0 ? (double)(done - p->first) / took : 0;
    double left = rate > 0 ? (double)(total - done) / rate : 0;
    fprintf(stderr, "\r%s %s of %s", p->what, cli_format_size(done).text,
            cli_format_size(total).text);
    if (rate > 0)
        fprintf(stderr, ", %s/s, %d:%02d left", cli_format_size((uint64_t)rate).text,
                (int)left / 60, (int)left % 60);
    fputs("\x1b[K", stderr);
    fflush(stderr);
    p->shown = now;
    p->active = 1;
}

void cli_progress_end(cli_progress *p)
{
    if (p->active) fputc('\n', stderr);
    p->active = 0;
}
