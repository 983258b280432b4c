/* suite_table.c - a suite's rows as a table, each printed as it comes, so that a long suite shows
 * that it lives. A row with other fields than the one before gets a header of its own. */
#include "cli/download.h"
#include "cli/suite.h"

#include <string.h>

enum { NAME_WIDTH = 26, WIDTH = 10 }; /* WIDTH: any number that cell_of writes */

typedef struct cell {
    char text[32];
} cell;

/* What is no string, by its field's name: sizes have units, digests are hexadecimal. */
static cell cell_of(const char *field, const json_t *value)
{
    cell c = {0};
    double x = json_number_value(value);
    if (json_is_boolean(value))
        snprintf(c.text, sizeof c.text, "%s", json_is_true(value) ? "yes" : "no");
    else if ((strstr(field, "bytes") || strstr(field, "growth")) && x >= 0)
        snprintf(c.text, sizeof c.text, "%s", cli_format_size((uint64_t)x).text);
    else if (!strcmp(field, "digest")) snprintf(c.text, sizeof c.text, "%08llx", (long long)x);
    else {
        bool fine = json_is_real(value) && x < 1000 && x > -1000;
        snprintf(c.text, sizeof c.text, fine ? "%.4g" : "%.0f", x);
    }
    return c;
}

static int width_of(const char *field, const json_t *value, bool first)
{
    int least = first && json_is_string(value) ? NAME_WIDTH : WIDTH;
    int name = (int)strlen(field);
    return name > least ? name : least;
}

static bool same_fields(json_t *a, json_t *b)
{
    void *x = json_object_iter(a), *y = json_object_iter(b);
    while (x && y && !strcmp(json_object_iter_key(x), json_object_iter_key(y)))
        x = json_object_iter_next(a, x), y = json_object_iter_next(b, y);
    return !x && !y;
}

/* Names to the left, numbers to the right. */
static void print_line(FILE *to, json_t *row, bool header)
{
    const char *field;
    json_t *value;
    bool first = true;
    json_object_foreach(row, field, value)
    {
        bool name = json_is_string(value);
        cell c = cell_of(field, value);
        int width = width_of(field, value, first);
        const char *text = header ? field : name ? json_string_value(value) : c.text;
        fprintf(to, "%s%*s", first ? "" : "  ", name ? -width : width, text);
        first = false;
    }
    fputc('\n', to);
    fflush(to);
}

void suite_add(suite_report *r, json_t *row)
{
    json_t *before = json_array_get(r->rows, json_array_size(r->rows) - 1);
    if (!before || !same_fields(before, row)) print_line(r->table, row, true);
    print_line(r->table, row, false);
    json_array_append_new(r->rows, row);
}
