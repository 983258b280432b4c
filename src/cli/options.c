#include "cli/options.h"

#include "cli/cli.h"
#include "engine/planner.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const cli_option help_option = {"help", 'h', CLI_FLAG, NULL, 0, 0, "this text"};

static const cli_option *find_option(const cli_spec *spec, const char *name, size_t n)
{
    if (n == 4 && !strncmp(name, "help", 4)) return &help_option;
    for (int g = 0; g < CLI_MAX_GROUPS && spec->groups[g]; g++)
        for (const cli_option *o = spec->groups[g]->options; o->name; o++)
            if (strlen(o->name) == n && !strncmp(o->name, name, n)) return o;
    return NULL;
}

static const cli_option *find_letter(const cli_spec *spec, char letter)
{
    if (letter == 'h') return &help_option;
    for (int g = 0; g < CLI_MAX_GROUPS && spec->groups[g]; g++)
        for (const cli_option *o = spec->groups[g]->options; o->name; o++)
            if (o->letter == letter) return o;
    return NULL;
}

/* How many letters differ, roughly: enough to guess what was meant. */
static int distance(const char *a, const char *b)
{
    size_t n = strlen(b);
    int row[64];
    if (n >= 63) return 99;
    for (size_t j = 0; j <= n; j++) row[j] = (int)j;
    for (size_t i = 1; *a; i++, a++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int change = diagonal + (*a != b[j - 1]);
            diagonal = row[j];
            int least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            row[j] = change < least + 1 ? change : least + 1;
        }
    }
    return row[n];
}

static int unknown_option(const cli_args *a, const char *argument)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(argument + 2, "="), argument + 2);
    const char *nearest = NULL;
    int best = 3;
    for (int g = 0; g < CLI_MAX_GROUPS && a->spec->groups[g]; g++)
        for (const cli_option *o = a->spec->groups[g]->options; o->name; o++) {
            int d = distance(name, o->name);
            if (d < best) best = d, nearest = o->name;
        }
    fprintf(stderr, "flash-moe %s: no option '%s'", a->verb, argument);
    if (nearest) fprintf(stderr, "; did you mean --%s?", nearest);
    fprintf(stderr, " (flash-moe %s --help lists them)\n", a->verb);
    return 2;
}

static int choice_index(const char *choices, const char *text)
{
    size_t n = strlen(text);
    int index = 0;
    for (const char *at = choices;; at++, index++) {
        size_t length = strcspn(at, "|");
        if (length == n && !strncmp(at, text, n)) return index;
        /* A choice written in capitals stands for any number: "off|auto|N". */
        if (length == 1 && *at == 'N' && n && strspn(text, "0123456789") == n && n < 10)
            return index;
        at += length;
        if (!*at) return -1;
    }
}

static bool number_fits(const cli_option *o, double x)
{
    return (o->low == 0 && o->high == 0) || (x >= o->low && x <= o->high);
}

/* NULL when the text is a value of the option, else what is expected. */
static const char *check_value(const cli_option *o, const char *text)
{
    char *end;
    uint64_t bytes;
    switch (o->kind) {
    case CLI_INT: {
        errno = 0;
        long long n = strtoll(text, &end, 10);
        bool ok = *text && !*end && !errno && n >= INT32_MIN && n <= INT32_MAX;
        return ok && number_fits(o, (double)n) ? NULL : "a whole number";
    }
    case CLI_NUMBER: {
        double x = strtod(text, &end);
        return *text && !*end && x == x && number_fits(o, x) ? NULL : "a number";
    }
    case CLI_SIZE:
        return en_parse_size(text, &bytes, NULL) ? "a size such as 8G, 512M or 1.5GB" : NULL;
    case CLI_CHOICE: return choice_index(o->value, text) < 0 ? "one of" : NULL;
    default: return NULL;
    }
}

static int wrong_value(const cli_args *a, const cli_option *o, const char *text,
                       const char *expected, const char *from)
{
    fprintf(stderr, "flash-moe %s: %s%s: '%s' is not %s", a->verb, from, o->name, text, expected);
    if (o->kind == CLI_CHOICE) fprintf(stderr, " %s", o->value);
    if ((o->kind == CLI_INT || o->kind == CLI_NUMBER) && (o->low != 0 || o->high != 0)) {
        if (o->high >= INT32_MAX) fprintf(stderr, ", %g or more", o->low);
        else fprintf(stderr, " from %g to %g", o->low, o->high);
    }
    fputs("\n", stderr);
    return 2;
}

static int add_value(cli_args *a, const cli_option *o, const char *text, const char *from)
{
    const char *expected = check_value(o, text);
    if (expected) return wrong_value(a, o, text, expected, from);
    if (a->n_values == CLI_MAX_VALUES) {
        fprintf(stderr, "flash-moe %s: too many options\n", a->verb);
        return 2;
    }
    a->value[a->n_values++] = (cli_value){o, text};
    return -1;
}

/* --name, --name VALUE, --name=VALUE. *i moves past what was used. */
static int parse_long(cli_args *a, int argc, char **argv, int *i)
{
    const char *argument = argv[*i], *equals = strchr(argument, '=');
    size_t n = equals ? (size_t)(equals - argument) - 2 : strlen(argument) - 2;
    const cli_option *o = find_option(a->spec, argument + 2, n);
    if (!o) return unknown_option(a, argument);
    if (o->kind == CLI_FLAG) {
        if (!equals) return add_value(a, o, "", "--");
        fprintf(stderr, "flash-moe %s: --%s takes no value\n", a->verb, o->name);
        return 2;
    }
    if (equals) return add_value(a, o, equals + 1, "--");
    if (*i + 1 < argc) return add_value(a, o, argv[++*i], "--");
    fprintf(stderr, "flash-moe %s: --%s needs a value (%s)\n", a->verb, o->name, o->value);
    return 2;
}

/* -x, -x VALUE, -xVALUE, and flags together: -xyz. */
static int parse_short(cli_args *a, int argc, char **argv, int *i)
{
    for (const char *at = argv[*i] + 1; *at; at++) {
        const cli_option *o = find_letter(a->spec, *at);
        if (!o) {
            fprintf(stderr, "flash-moe %s: no option '-%c' (flash-moe %s --help lists them)\n",
                    a->verb, *at, a->verb);
            return 2;
        }
        if (o->kind != CLI_FLAG) {
            if (at[1]) return add_value(a, o, at + 1, "--");
            if (*i + 1 < argc) return add_value(a, o, argv[++*i], "--");
            fprintf(stderr, "flash-moe %s: -%c needs a value (%s)\n", a->verb, *at, o->value);
            return 2;
        }
        int status = add_value(a, o, "", "--");
        if (status >= 0) return status;
    }
    return -1;
}

static void environment_name(const char *option, char *out, size_t size)
{
    int n = snprintf(out, size, "FLASH_MOE_%s", option);
    for (int i = 0; i < n; i++) out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* What was not given on the command line may stand in the environment. */
static int read_environment(cli_args *a)
{
    for (int g = 0; g < CLI_MAX_GROUPS && a->spec->groups[g]; g++) {
        if (!a->spec->groups[g]->from_environment) continue;
        for (const cli_option *o = a->spec->groups[g]->options; o->name; o++) {
            char name[96];
            environment_name(o->name, name, sizeof name);
            const char *text = getenv(name);
            if (!text || !*text || cli_has(a, o->name)) continue;
            if (o->kind == CLI_FLAG && !strcmp(text, "0")) continue;
            int status = add_value(a, o, o->kind == CLI_FLAG ? "" : text, "environment FLASH_MOE_");
            if (status >= 0) return status;
        }
    }
    return -1;
}

static int check_positionals(const cli_args *a)
{
    const cli_spec *spec = a->spec;
    if (a->n_positionals >= spec->least && a->n_positionals <= spec->most) return -1;
    if (a->n_positionals > spec->most)
        fprintf(stderr, "flash-moe %s: '%s' is one argument too many", a->verb,
                a->positional[spec->most]);
    else fprintf(stderr, "flash-moe %s: an argument is missing", a->verb);
    fprintf(stderr, "\nusage: flash-moe %s %s [options]\n", a->verb, spec->arguments);
    return 2;
}

int cli_parse(const cli_spec *spec, int argc, char **argv, cli_args *out)
{
    *out = (cli_args){.verb = argv[0], .spec = spec};
    int status = -1;
    bool only_positionals = false;
    for (int i = 1; i < argc && status < 0; i++) {
        const char *argument = argv[i];
        if (only_positionals || argument[0] != '-' || !argument[1]) {
            if (out->n_positionals < CLI_MAX_POSITIONALS)
                out->positional[out->n_positionals++] = argument;
        } else if (!strcmp(argument, "--")) {
            only_positionals = true;
        } else {
            status = argument[1] == '-' ? parse_long(out, argc, argv, &i)
                                        : parse_short(out, argc, argv, &i);
        }
    }
    if (status >= 0) return status;
    if (cli_has(out, "help")) {
        for (const cli_verb *v = cli_verbs; v->name; v++)
            if (v->spec == spec) cli_print_help(v, stdout);
        return 0;
    }
    status = read_environment(out);
    return status >= 0 ? status : check_positionals(out);
}

static const cli_value *last_value(const cli_args *a, const char *name)
{
    for (int i = a->n_values - 1; i >= 0; i--)
        if (!strcmp(a->value[i].option->name, name)) return &a->value[i];
    return NULL;
}

bool cli_has(const cli_args *a, const char *name)
{
    return last_value(a, name) != NULL;
}

const char *cli_text(const cli_args *a, const char *name, const char *otherwise)
{
    const cli_value *v = last_value(a, name);
    return v ? v->text : otherwise;
}

int cli_int(const cli_args *a, const char *name, int otherwise)
{
    const cli_value *v = last_value(a, name);
    return v ? (int)strtol(v->text, NULL, 10) : otherwise;
}

double cli_number(const cli_args *a, const char *name, double otherwise)
{
    const cli_value *v = last_value(a, name);
    return v ? strtod(v->text, NULL) : otherwise;
}

uint64_t cli_size(const cli_args *a, const char *name, uint64_t otherwise)
{
    const cli_value *v = last_value(a, name);
    uint64_t bytes = otherwise;
    if (v) en_parse_size(v->text, &bytes, NULL);
    return bytes;
}

int cli_choice(const cli_args *a, const char *name, int otherwise)
{
    const cli_value *v = last_value(a, name);
    return v ? choice_index(v->option->value, v->text) : otherwise;
}

const char *cli_nth(const cli_args *a, const char *name, int k)
{
    for (int i = 0; i < a->n_values; i++)
        if (!strcmp(a->value[i].option->name, name) && k-- == 0) return a->value[i].text;
    return NULL;
}

const char *cli_positional(const cli_args *a, int i)
{
    return i < a->n_positionals ? a->positional[i] : NULL;
}

const char *cli_model_name(const cli_args *a)
{
    const char *named = cli_text(a, "model", NULL);
    return named ? named : cli_positional(a, 0);
}

int cli_fail(const fm_error *err)
{
    fprintf(stderr, "flash-moe: %s\n", err->message);
    return err->code == FM_E_CANCELLED ? 130 : 1;
}
