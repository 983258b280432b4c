/* download.h - a pull at the terminal: the question before it, the progress during it. */
#ifndef CLI_DOWNLOAD_H
#define CLI_DOWNLOAD_H

#include "hub/hub.h"

/* "26.7 MB", "1.0 kB", "12 B": three digits, decimal units as the hub shows them. */
typedef struct cli_size_text {
    char text[24];
} cli_size_text;
cli_size_text cli_format_size(uint64_t bytes);

/* Both ends are a terminal, so a question can be asked. */
bool cli_can_ask(void);

/* Ask on stderr, read one line from stdin; only y or yes is a yes. */
bool cli_ask(const char *question);

/* Survey with Ctrl-C caught. */
fm_status cli_survey(const hb_config *c, const hb_id *id, hb_survey *out, fm_error *err);

/* The small files that a survey names beside config.json: some megabytes, without a question. */
fm_status cli_download_texts(const hb_config *c, hb_survey *s, fm_error *err);

/* Print the forecast and ask, unless yes is given or nothing is missing. FM_E_CANCELLED when the
 * answer is no; without a terminal an error that names `command`, the whole command line that would
 * do it. */
fm_status cli_confirm_download(const hb_survey *s, bool yes, const char *command, fm_error *err);

/* Confirm, then download with progress. FM_E_CANCELLED also when Ctrl-C comes. sink: where weights
 * go instead of the cache, or NULL. */
fm_status cli_download(const hb_config *c, hb_survey *s, bool yes, const char *command,
                       const hb_sink *sink, fm_error *err);

#endif
