#include "model/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void md_field_fail(md_fields *f, fm_status code, const char *name, const char *format, ...)
{
    if (f->status) return;
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f->status = fm_fail(f->err, code, "%s: %s %s", f->path, name, text);
}

static const json_t *find(const md_fields *f, const char *name)
{
    const json_t *v = json_object_get(f->json, name);
    return json_is_null(v) ? NULL : v;
}

static const md_default *find_default(const md_fields *f, const char *name)
{
    for (const md_default *d = f->defaults; d && d->field; d++)
        if (!strcmp(d->field, name)) return d;
    return NULL;
}

bool md_field_present(const md_fields *f, const char *name)
{
    return find(f, name) != NULL;
}

static int checked_int(md_fields *f, const char *name, const json_t *v, int min, int max)
{
    double number = json_number_value(v);
    if (!json_is_number(v) || number != floor(number)) {
        md_field_fail(f, FM_E_FORMAT, name, "must be a whole number");
        return min;
    }
    if (!(number >= min && number <= max)) {
        md_field_fail(f, FM_E_FORMAT, name, "is %.15g, it must be between %d and %d", number, min,
                      max);
        return min;
    }
    return (int)number;
}

int md_field_int(md_fields *f, const char *name, int min, int max, int fallback)
{
    const json_t *v = find(f, name);
    if (v) return checked_int(f, name, v, min, max);
    const md_default *d = find_default(f, name);
    if (d) return (int)d->value;
    if (fallback != MD_REQUIRED) return fallback;
    md_field_fail(f, FM_E_FORMAT, name, "is missing");
    return min;
}

int md_field_int_at(md_fields *f, const char *name, int i, int min, int max, int fallback)
{
    const json_t *v = find(f, name);
    if (!json_is_array(v)) return md_field_int(f, name, min, max, fallback);
    const json_t *item = json_array_get(v, (size_t)i);
    if (item) return checked_int(f, name, item, min, max);
    md_field_fail(f, FM_E_FORMAT, name, "has %zu entries, layer %d has none", json_array_size(v),
                  i);
    return min;
}

double md_field_number(md_fields *f, const char *name, double min, double max, double fallback)
{
    const json_t *v = find(f, name);
    if (!v) {
        const md_default *d = find_default(f, name);
        if (d) return d->value;
        if (fallback != MD_REQUIRED) return fallback;
        md_field_fail(f, FM_E_FORMAT, name, "is missing");
        return min;
    }
    double number = json_number_value(v);
    if (!json_is_number(v)) md_field_fail(f, FM_E_FORMAT, name, "must be a number");
    else if (!(number >= min && number <= max))
        md_field_fail(f, FM_E_FORMAT, name, "is %.15g, it must be between %.15g and %.15g", number,
                      min, max);
    else return number;
    return min;
}

bool md_field_bool(md_fields *f, const char *name, bool fallback)
{
    const json_t *v = find(f, name);
    if (!v) {
        const md_default *d = find_default(f, name);
        return d ? d->value != 0 : fallback;
    }
    if (!json_is_boolean(v)) md_field_fail(f, FM_E_FORMAT, name, "must be true or false");
    return json_is_true(v);
}

const char *md_field_string(md_fields *f, const char *name, const char *fallback)
{
    const json_t *v = find(f, name);
    if (!v) return fallback;
    if (json_is_string(v)) return json_string_value(v);
    md_field_fail(f, FM_E_FORMAT, name, "must be a string");
    return fallback;
}

const json_t *md_field_array(md_fields *f, const char *name)
{
    const json_t *v = find(f, name);
    if (!v || json_is_array(v)) return v;
    md_field_fail(f, FM_E_FORMAT, name, "must be a list");
    return NULL;
}

const json_t *md_field_object(md_fields *f, const char *name)
{
    const json_t *v = find(f, name);
    if (!v || json_is_object(v)) return v;
    md_field_fail(f, FM_E_FORMAT, name, "must be an object");
    return NULL;
}
