/* resolve.h - from what the user typed to a model folder. */
#ifndef CLI_RESOLVE_H
#define CLI_RESOLVE_H

#include "base/error.h"

typedef struct cli_model {
    char *folder; /* holds config.json and, unless CLI_RESOLVE_CONFIG or _TEXTS, all weights */
    char *name;   /* "org/name" for a hub model, else the folder's last component */
} cli_model;

enum {
    CLI_RESOLVE_YES = 1,    /* --yes: download without asking */
    CLI_RESOLVE_CONFIG = 2, /* config.json is enough (plan): no weights are fetched */
    CLI_RESOLVE_TEXTS = 4,  /* the same, with tokenizer and template (tokenize, template) */
};

/* model is
 *   a folder        used as it is;
 *   org/name[@rev]  looked up in the hub cache; when absent, the download is offered on a terminal,
 *                   done with CLI_RESOLVE_YES, and otherwise an error that names the command;
 *   NULL or ""      $FLASH_MOE_MODEL (one of the two above), else the bundled model, searched next
 *                   to the program and in the current folder.
 * Progress and the question go to stderr. On success out is filled and must be given to
 * cli_model_free; on failure it is empty. FM_E_CANCELLED when the user says no. */
fm_status cli_resolve_model(const char *model, unsigned flags, cli_model *out, fm_error *err);
/* The config.json that a name stands for: a .json file itself, a folder's config.json, or one of
 * the named models of configs/ (searched like the bundled model). *out is freed with bs_free. */
fm_status cli_find_config(const char *typed, char **out, fm_error *err);

/* For verbs that only look at a model: what cli_resolve_model takes, of which a config.json is
 * enough, or what cli_find_config takes. *out: a folder or a file, freed with bs_free. */
fm_status cli_resolve_described(const char *typed, char **out, fm_error *err);
void cli_model_free(cli_model *m);

#endif
