#include "cli/download.h"

#include "base/clock.h"
#include "cli/forecast.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

cli_size_text cli_format_size(uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    cli_size_text s;
    double x = (double)bytes;
    size_t unit = 0;
    while (x >= 999.5 && unit + 1 < sizeof units / sizeof *units) x /= 1000, unit++;
    snprintf(s.text, sizeof s.text, "%.*f %s", unit && x < 99.95 ? 1 : 0, x, units[unit]);
    return s;
}

bool cli_can_ask(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

bool cli_ask(const char *question)
{
    char answer[64];
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (!fgets(answer, sizeof answer, stdin)) return fputc('\n', stderr), false;
    answer[strcspn(answer, "\r\n")] = 0;
    return !strcasecmp(answer, "y") || !strcasecmp(answer, "yes");
}

/* Ctrl-C sets a flag that the hub looks at; the state before is put back afterwards. */
static volatile sig_atomic_t interrupted;

static void note_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static bool was_interrupted(void *arg)
{
    (void)arg;
    return interrupted;
}

static void catch_interrupts(struct sigaction *before)
{
    struct sigaction catch = {.sa_handler = note_interrupt};
    interrupted = 0;
    sigaction(SIGINT, &catch, before);
}

/* The two lines at the bottom of the terminal. */
typedef struct display {
    bool terminal;
    bool drawn;
    int width;
    double first_time, last_time, rate; /* bytes a second, smoothed over some seconds */
    uint64_t last_received;
} display;

static int terminal_width(void)
{
    struct winsize w;
    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col > 20 ? w.ws_col : 80;
}

/* The mean since the first byte at first, then one that forgets within some seconds. */
static void update_rate(display *d, uint64_t received)
{
    enum { MEMORY_S = 3 };
    double now = bs_now(), passed = now - d->last_time;
    if (passed < 0.05) return;
    if (!received) d->first_time = now;
    double rate = (double)(received - d->last_received) / passed, keep = exp(-passed / MEMORY_S);
    double all = now - d->first_time;
    d->rate = all < MEMORY_S ? (all > 0 ? (double)received / all : 0)
                             : d->rate * keep + rate * (1 - keep);
    d->last_time = now;
    d->last_received = received;
}

static void format_eta(char *out, size_t size, const display *d, const hb_progress *p)
{
    double left = d->rate > 1 ? (double)(p->total_size - p->total_done) / d->rate : -1;
    if (left < 0 || left > 99 * 3600.0) snprintf(out, size, "--");
    else if (left >= 3600)
        snprintf(out, size, "%dh %02dm", (int)(left / 3600), (int)(left / 60) % 60);
    else snprintf(out, size, "%dm %02ds", (int)(left / 60), (int)left % 60);
}

static void format_file(char *out, size_t size, const hb_progress *p)
{
    static const char *const doing[] = {[HB_WAITING] = "another download has it, waiting",
                                        [HB_CHECKING] = "checking what is there",
                                        [HB_FETCHING] = "",
                                        [HB_RETRYING] = "",
                                        [HB_DONE] = "done"};
    double percent = p->file_size ? 100.0 * (double)p->file_done / (double)p->file_size : 100;
    snprintf(out, size, "[%zu/%zu] %s  %s of %s  %.0f%%  %s%s%s", p->index + 1, p->n_files, p->file,
             cli_format_size(p->file_done).text, cli_format_size(p->file_size).text, percent,
             doing[p->phase], p->note ? "trying again: " : "", p->note ? p->note : "");
}

static void show(void *arg, const hb_progress *p)
{
    display *d = arg;
    char file[512], total[256], eta[32];
    if (!d->terminal) return;
    update_rate(d, p->received);
    d->width = terminal_width();
    format_file(file, sizeof file, p);
    format_eta(eta, sizeof eta, d, p);
    snprintf(total, sizeof total, "%s of %s  %.0f%%  %s/s  ETA %s",
             cli_format_size(p->total_done).text, cli_format_size(p->total_size).text,
             p->total_size ? 100.0 * (double)p->total_done / (double)p->total_size : 100.0,
             cli_format_size((uint64_t)d->rate).text, eta);
    /* The cursor rests at the end of the total. The line of a file that is done stays: the next one
     * is drawn over the total. */
    if (d->drawn) fputs("\r\033[A", stderr);
    fprintf(stderr, "\r\033[K%.*s\n\033[K%.*s", d->width - 1, file, d->width - 1, total);
    d->drawn = p->phase != HB_DONE;
    fflush(stderr);
}

fm_status cli_survey(const hb_config *c, const hb_id *id, hb_survey *out, fm_error *err)
{
    struct sigaction before;
    hb_hooks hooks = {.cancelled = was_interrupted};
    catch_interrupts(&before);
    fm_status status = hb_survey_model(c, id, &hooks, out, err);
    sigaction(SIGINT, &before, NULL);
    return status;
}

fm_status cli_download_texts(const hb_config *c, hb_survey *s, fm_error *err)
{
    struct sigaction before;
    hb_hooks hooks = {.cancelled = was_interrupted};
    catch_interrupts(&before);
    fm_status status = hb_pull(c, s, HB_WANT_TEXTS, NULL, &hooks, err);
    sigaction(SIGINT, &before, NULL);
    return status;
}

fm_status cli_confirm_download(const hb_survey *s, bool yes, const char *command, fm_error *err)
{
    char question[1024];
    if (yes || !s->missing_bytes) return FM_OK;
    cli_size_text size = cli_format_size(s->missing_bytes);
    cli_forecast forecast = cli_forecast_model(s->folder);
    if (!cli_can_ask()) {
        fprintf(stderr, "%s: %s\n", s->id.repo, forecast.text);
        return fm_fail(err, FM_E_NOT_FOUND,
                       "%s is not in the cache and %s must be fetched; to do so: %s", s->id.repo,
                       size.text, command);
    }
    snprintf(question, sizeof question, "%s: %s; fetch %s?", s->id.repo, forecast.text, size.text);
    return cli_ask(question) ? FM_OK : fm_fail(err, FM_E_CANCELLED, "nothing was fetched");
}

fm_status cli_download(const hb_config *c, hb_survey *s, bool yes, const char *command,
                       const hb_sink *sink, fm_error *err)
{
    struct sigaction before;
    display d = {.terminal = isatty(STDERR_FILENO)};
    hb_hooks hooks = {.arg = &d, .cancelled = was_interrupted, .progress = show};
    fm_status status = cli_confirm_download(s, yes, command, err);
    if (status) return status;
    catch_interrupts(&before);
    status = hb_pull(c, s, HB_WANT_ALL, sink, &hooks, err);
    sigaction(SIGINT, &before, NULL);
    if (d.last_time > 0) fputc('\n', stderr);
    return status;
}
