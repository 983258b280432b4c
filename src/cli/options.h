/* options.h - one table of options a verb: parsing, --help, man pages and shell completion all come
 * from it.
 *
 * A verb has a cli_spec: what it takes, which groups of options, what its help teaches. The groups
 * shared by many verbs stand in groups.c. Values are asked for by the option's long name. An option
 * that was not given falls back to the environment variable FLASH_MOE_<NAME> (dashes become
 * underscores) where its group says so. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum cli_kind {
    CLI_FLAG, /* no value */
    CLI_TEXT, /* any text; CLI_FILE, CLI_FOLDER the same with completion of paths */
    CLI_FILE,
    CLI_FOLDER,
    CLI_INT,    /* a whole number in [low, high] */
    CLI_NUMBER, /* a number in [low, high] */
    CLI_SIZE,   /* bytes with a unit */
    CLI_CHOICE, /* one of value, "lfru|lru|lcp" */
} cli_kind;

typedef struct cli_option {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* short form, or 0 */
    cli_kind kind;
    const char *value; /* how help names the value ("N", "SIZE"), or the choices */
    double low, high;  /* CLI_INT, CLI_NUMBER: limits; both 0: none */
    const char *help;
} cli_option;

typedef struct cli_group {
    const char *title; /* "Memory", as help prints it */
    const cli_option *options;
    bool from_environment;
} cli_group;

enum { CLI_MAX_GROUPS = 8, CLI_MAX_POSITIONALS = 64, CLI_MAX_VALUES = 256 };

/* Name and one-line summary of a verb stand in verbs.c. */
typedef struct cli_spec {
    const char *arguments; /* "[MODEL]", as the usage line shows them */
    int least, most;       /* positional arguments */
    const char *about;     /* paragraphs: what it does and when to use it */
    const char *examples;  /* lines "command  # what it does" */
    const cli_group *groups[CLI_MAX_GROUPS];
} cli_spec;

typedef struct cli_value {
    const cli_option *option;
    const char *text; /* "" for a flag */
} cli_value;

typedef struct cli_args {
    const char *verb;
    const cli_spec *spec;
    cli_value value[CLI_MAX_VALUES]; /* as given, in order; options may repeat */
    int n_values;
    const char *positional[CLI_MAX_POSITIONALS];
    int n_positionals;
} cli_args;

/* Parse argv (argv[0] is the verb). Prints help or the mistake. Returns -1 to go on, else the exit
 * status. argv must stay alive. */
int cli_parse(const cli_spec *spec, int argc, char **argv, cli_args *out);

/* By long name; the last one given counts. Values were checked by cli_parse. */
bool cli_has(const cli_args *a, const char *name);
const char *cli_text(const cli_args *a, const char *name, const char *otherwise);
int cli_int(const cli_args *a, const char *name, int otherwise);
double cli_number(const cli_args *a, const char *name, double otherwise);
uint64_t cli_size(const cli_args *a, const char *name, uint64_t otherwise);
int cli_choice(const cli_args *a, const char *name, int otherwise); /* its index in the choices */

/* The k-th value of an option that may repeat (--stop); NULL after the last. */
const char *cli_nth(const cli_args *a, const char *name, int k);
const char *cli_positional(const cli_args *a, int i); /* NULL: not given */

/* MODEL: after -m/--model or the first positional argument; NULL: the bundled one. */
const char *cli_model_name(const cli_args *a);

/* Shared groups. */
extern const cli_group cli_group_model;    /* -m --yes */
extern const cli_group cli_group_engine;   /* memory, threads, cache, precision... */
extern const cli_group cli_group_seed;     /* modes, profiles, warm-up */
extern const cli_group cli_group_sampling; /* --temp --top-k ... */

/* Texts made from the tables. */
struct cli_verb;
void cli_print_overview(FILE *out); /* flash-moe --help */
void cli_print_help(const struct cli_verb *verb, FILE *out);
void cli_print_man(const struct cli_verb *verb, FILE *out); /* NULL: flash-moe(1) */
int cli_print_completion(const char *shell, FILE *out);     /* 0, or 2: no such shell */

/* Print "flash-moe: message" and return the exit status 1 (130 for FM_E_CANCELLED). */
int cli_fail(const fm_error *err);

#endif
