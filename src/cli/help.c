/* What the option tables look like to a reader: --help and man pages. */
#include "cli/cli.h"
#include "cli/options.h"

#include <string.h>

enum { WIDTH = 96, INDENT = 30 };

/* Print text in lines of WIDTH, each but the first indented. `at`: columns used already. */
static void wrap(FILE *out, const char *text, int indent, int at)
{
    while (*text) {
        size_t n = strcspn(text, " \n");
        if (at + (int)n > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        }
        fprintf(out, "%.*s", (int)n, text);
        at += (int)n;
        text += n;
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
            text++;
        } else if (*text == ' ') {
            fputc(' ', out);
            at++;
            text++;
        }
    }
    fputc('\n', out);
}

static void print_option(const cli_option *o, FILE *out)
{
    char left[128];
    int n;
    if (o->letter) n = snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name);
    else n = snprintf(left, sizeof left, "      --%s", o->name);
    if (o->kind != CLI_FLAG) n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->value);
    if (n < INDENT - 1) fprintf(out, "%-*s", INDENT, left);
    else fprintf(out, "%s\n%*s", left, INDENT, "");
    wrap(out, o->help, INDENT, INDENT);
}

void cli_print_help(const cli_verb *verb, FILE *out)
{
    const cli_spec *spec = verb->spec;
    fprintf(out, "flash-moe %s - %s\n\nusage: flash-moe %s%s%s [options]\n\n", verb->name,
            verb->summary, verb->name, *spec->arguments ? " " : "", spec->arguments);
    if (spec->about) {
        wrap(out, spec->about, 0, 0);
        fputc('\n', out);
    }
    if (spec->examples) fprintf(out, "Examples:\n%s\n", spec->examples);
    bool environment = false;
    for (int g = 0; g < CLI_MAX_GROUPS && spec->groups[g]; g++) {
        fprintf(out, "%s:\n", spec->groups[g]->title);
        for (const cli_option *o = spec->groups[g]->options; o->name; o++) print_option(o, out);
        fputc('\n', out);
        environment |= spec->groups[g]->from_environment;
    }
    fprintf(out, "  -h, --help                  this text\n");
    if (environment)
        fprintf(out,
                "\nEngine and sampling options may also stand in the environment: --memory as "
                "FLASH_MOE_MEMORY.\nSizes: K M G T are powers of 1024, KB MB GB TB of 1000.\n");
}

/* roff: backslashes and leading dots and quotes mean something. */
static void print_roff(const char *text, FILE *out)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\'')) fputs("\\&", out);
        if (*text == '\\') fputs("\\e", out);
        else if (*text == '-') fputs("\\-", out);
        else fputc(*text, out);
        start = *text == '\n';
    }
    fputc('\n', out);
}

static void man_title(const char *verb, const char *summary, FILE *out)
{
    fputs(".TH FLASH-MOE", out);
    for (const char *c = verb; *c; c++) fputc(*c >= 'a' && *c <= 'z' ? *c - 32 : *c, out);
    fputs(" 1 \"\" \"flash-moe " FM_VERSION "\" \"flash-moe\"\n.SH NAME\n", out);
    fprintf(out, "flash\\-moe%s \\- ", verb);
    print_roff(summary, out);
}

static void man_overview(FILE *out)
{
    man_title("", "run Mixture-of-Experts language models larger than memory", out);
    fputs(".SH SYNOPSIS\n.B flash\\-moe\n.I VERB [MODEL] [options]\n.SH VERBS\n", out);
    for (const cli_verb *v = cli_verbs; v->name; v++) {
        fprintf(out, ".TP\n.BR flash\\-moe\\-%s (1)\n", v->name);
        print_roff(v->summary, out);
    }
    fputs(".SH EXIT STATUS\n0 done, 1 it failed, 2 wrong usage, 130 interrupted.\n", out);
}

void cli_print_man(const cli_verb *verb, FILE *out)
{
    if (!verb) {
        man_overview(out);
        return;
    }
    const cli_spec *spec = verb->spec;
    char name[64];
    snprintf(name, sizeof name, "-%s", verb->name);
    man_title(name, verb->summary, out);
    fprintf(out, ".SH SYNOPSIS\n.B flash\\-moe %s\n.I %s [options]\n", verb->name, spec->arguments);
    if (spec->about) {
        fprintf(out, ".SH DESCRIPTION\n");
        print_roff(spec->about, out);
    }
    fprintf(out, ".SH OPTIONS\n");
    for (int g = 0; g < CLI_MAX_GROUPS && spec->groups[g]; g++) {
        fprintf(out, ".SS %s\n", spec->groups[g]->title);
        for (const cli_option *o = spec->groups[g]->options; o->name; o++) {
            fprintf(out, ".TP\n");
            if (o->letter) fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
            fprintf(out, "\\fB\\-\\-%s\\fR", o->name);
            if (o->kind != CLI_FLAG) fprintf(out, " \\fI%s\\fR", o->value);
            fputc('\n', out);
            print_roff(o->help, out);
        }
    }
    if (spec->examples) {
        fprintf(out, ".SH EXAMPLES\n.nf\n");
        print_roff(spec->examples, out);
        fprintf(out, ".fi\n");
    }
    fprintf(out, ".SH SEE ALSO\n.BR flash\\-moe (1)\n");
}

void cli_print_overview(FILE *out)
{
    fputs("flash-moe runs Mixture-of-Experts language models larger than memory: only the experts\n"
          "that the router picks are read from disk, and the answer is exact at any budget.\n\n"
          "usage: flash-moe VERB [MODEL] [options]\n\n",
          out);
    for (const cli_verb *v = cli_verbs; v->name; v++)
        fprintf(out, "  %-12s %s\n", v->name, v->summary);
    fputs("\nFirst steps:\n"
          "  flash-moe run -p 'Tell me about the fox'     # the bundled model answers\n"
          "  flash-moe chat                               # talk to it\n"
          "  flash-moe plan MODEL --memory 8G             # would it fit, how fast would it be?\n\n"
          "flash-moe VERB --help explains a verb and its options. MODEL is a folder or a Hugging "
          "Face\n"
          "id (org/name); without one the bundled model is used.\n",
          out);
}
