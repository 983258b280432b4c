/* cli.h - the verbs. Each verb is one file cmd_NAME.c with one entry function that returns the
 * exit status: 0 done, 1 it failed, 2 wrong usage, 130 interrupted. Results go to stdout, all else
 * to stderr. argv[0] is the verb. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

typedef int cli_verb_fn(int argc, char **argv);

typedef struct cli_verb {
    const char *name;
    const char *summary; /* one line for `flash-moe --help` */
    cli_verb_fn *run;
    const struct cli_spec *spec; /* options and help (options.h); NULL: the verb parses itself */
} cli_verb;

/* The table of all verbs, ended by a NULL name. */
extern const cli_verb cli_verbs[];

extern const struct cli_spec spec_chat, spec_completion, spec_plan, spec_run, spec_score,
    spec_version;
cli_verb_fn cmd_chat, cmd_completion, cmd_plan, cmd_run, cmd_score, cmd_version;

extern const struct cli_spec spec_list, spec_pull, spec_rm;
cli_verb_fn cmd_list, cmd_pull, cmd_rm;

extern const struct cli_spec spec_tokenize, spec_detokenize;
cli_verb_fn cmd_completion, cmd_version;

extern const struct cli_spec spec_tokenize, spec_detokenize, spec_template;

cli_verb_fn cmd_tokenize, cmd_detokenize, cmd_template;

extern const struct cli_spec spec_serve;
cli_verb_fn cmd_serve;

extern const struct cli_spec spec_bench;
cli_verb_fn cmd_bench;
extern const struct cli_spec spec_pack, spec_simulate, spec_tune;

cli_verb_fn cmd_pack, cmd_simulate, cmd_tune;

extern const struct cli_spec spec_profile;
cli_verb_fn cmd_profile;
extern const struct cli_spec spec_inspect, spec_synth;

cli_verb_fn cmd_inspect, cmd_synth;

#endif
