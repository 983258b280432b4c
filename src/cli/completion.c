/* Shell completion scripts, written from the option tables. */
#include "cli/cli.h"
#include "cli/options.h"

#include <string.h>

typedef void visit_fn(FILE *out, const cli_verb *verb, const cli_option *o);

static void each_option(FILE *out, const cli_verb *verb, visit_fn *fn)
{
    for (int g = 0; verb->spec && g < CLI_MAX_GROUPS && verb->spec->groups[g]; g++)
        for (const cli_option *o = verb->spec->groups[g]->options; o->name; o++) fn(out, verb, o);
}

static void print_choices(FILE *out, const char *choices)
{
    for (; *choices; choices++) fputc(*choices == '|' ? ' ' : *choices, out);
}

static void bash_word(FILE *out, const cli_verb *verb, const cli_option *o)
{
    (void)verb;
    fprintf(out, " --%s", o->name);
}

static void bash_value(FILE *out, const cli_verb *verb, const cli_option *o)
{
    if (o->kind == CLI_CHOICE) {
        fprintf(out, "    %s,--%s) COMPREPLY=($(compgen -W \"", verb->name, o->name);
        print_choices(out, o->value);
        fprintf(out, "\" -- \"$word\")); return ;;\n");
    } else if (o->kind == CLI_FILE || o->kind == CLI_FOLDER) {
        fprintf(out, "    %s,--%s) COMPREPLY=($(compgen -%c -- \"$word\")); return ;;\n",
                verb->name, o->name, o->kind == CLI_FILE ? 'f' : 'd');
    } else if (o->kind != CLI_FLAG) {
        fprintf(out, "    %s,--%s) return ;;\n", verb->name, o->name);
    }
}

static void bash(FILE *out)
{
    fputs("# flash-moe completion for bash: eval \"$(flash-moe completion bash)\"\n"
          "_flash_moe() {\n  local word=\"${COMP_WORDS[COMP_CWORD]}\" verb=\"${COMP_WORDS[1]}\"\n"
          "  COMPREPLY=()\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "    COMPREPLY=($(compgen -W \"",
          out);
    for (const cli_verb *v = cli_verbs; v->name; v++) fprintf(out, "%s ", v->name);
    fputs("--help\" -- \"$word\")); return\n  fi\n"
          "  case \"$verb,${COMP_WORDS[COMP_CWORD-1]}\" in\n",
          out);
    for (const cli_verb *v = cli_verbs; v->name; v++) each_option(out, v, bash_value);
    fputs("  esac\n  local options=\"--help\"\n  case \"$verb\" in\n", out);
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, "    %s) options=\"--help", v->name);
        each_option(out, v, bash_word);
        fputs("\" ;;\n", out);
    }
    fputs("  esac\n  case \"$word\" in\n"
          "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
          "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n  esac\n}\n"
          "complete -o filenames -F _flash_moe flash-moe\n",
          out);
}

/* Text inside single quotes: quotes, colons and brackets mean something to zsh. */
static void quote(FILE *out, const char *text, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'') fputs("'\\''", out);
        else fprintf(out, strchr(special, *text) ? "\\%c" : "%c", *text);
    }
}

static void zsh_option(FILE *out, const cli_verb *verb, const cli_option *o)
{
    (void)verb;
    fprintf(out, " \\\n        '--%s[", o->name);
    quote(out, o->help, "[]\\");
    fputc(']', out);
    if (o->kind == CLI_CHOICE) {
        fprintf(out, ":%s:(", o->name);
        print_choices(out, o->value);
        fputc(')', out);
    } else if (o->kind == CLI_FILE || o->kind == CLI_FOLDER) {
        fprintf(out, ":%s:_files%s", o->name, o->kind == CLI_FOLDER ? " -/" : "");
    } else if (o->kind != CLI_FLAG) {
        fprintf(out, ":%s:", o->value);
    }
    fputc('\'', out);
}

static void zsh(FILE *out)
{
    fputs("#compdef flash-moe\n# flash-moe completion for zsh: "
          "flash-moe completion zsh > \"${fpath[1]}/_flash-moe\"\n"
          "_flash_moe() {\n  if (( CURRENT == 2 )); then\n    local -a verbs=(\n",
          out);
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, "      '%s:", v->name);
        quote(out, v->summary, ":\\");
        fputs("'\n", out);
    }
    fputs("    )\n    _describe verb verbs\n    return\n  fi\n  local verb=$words[2]\n"
          "  shift words; (( CURRENT-- ))\n  case $verb in\n",
          out);
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, "    %s) _arguments '--help[this text]'", v->name);
        each_option(out, v, zsh_option);
        fputs(" '*:file:_files' ;;\n", out);
    }
    fputs("  esac\n}\n_flash_moe \"$@\"\n", out);
}

static void fish_option(FILE *out, const cli_verb *verb, const cli_option *o)
{
    fprintf(out, "complete -c flash-moe -n '__fish_seen_subcommand_from %s' -l %s", verb->name,
            o->name);
    if (o->letter) fprintf(out, " -s %c", o->letter);
    if (o->kind == CLI_CHOICE) {
        fputs(" -x -a '", out);
        print_choices(out, o->value);
        fputc('\'', out);
    } else if (o->kind == CLI_FILE || o->kind == CLI_FOLDER) {
        fputs(" -r -F", out);
    } else if (o->kind != CLI_FLAG) {
        fputs(" -x", out);
    }
    fputs(" -d '", out);
    for (const char *c = o->help; *c; c++) fprintf(out, *c == '\'' ? "\\%c" : "%c", *c);
    fputs("'\n", out);
}

static void fish(FILE *out)
{
    fputs("# flash-moe completion for fish: flash-moe completion fish | source\n", out);
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, "complete -c flash-moe -n __fish_use_subcommand -f -a %s -d '", v->name);
        for (const char *c = v->summary; *c; c++) fprintf(out, *c == '\'' ? "\\%c" : "%c", *c);
        fputs("'\n", out);
        each_option(out, v, fish_option);
    }
}

int cli_print_completion(const char *shell, FILE *out)
{
    if (!strcmp(shell, "bash")) bash(out);
    else if (!strcmp(shell, "zsh")) zsh(out);
    else if (!strcmp(shell, "fish")) fish(out);
    else return 2;
    return 0;
}
