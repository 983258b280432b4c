#include "server/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void sv_error_set(sv_error *e, int status, const char *param, const char *format, ...)
{
    if (e->status) return;
    va_list args;
    va_start(args, format);
    e->status = status;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
}

void sv_error_from(sv_error *e, const fm_error *err)
{
    int status = 500;
    switch (err->code) {
    case FM_E_ARGUMENT:
    case FM_E_FORMAT:
    case FM_E_UNSUPPORTED:
    case FM_E_LIMIT: status = 400; break;
    case FM_E_BUSY:
    case FM_E_CANCELLED: status = 503; break;
    default: break;
    }
    if (status == 503 && !e->status) e->retry_after = 1;
    sv_error_set(e, status, NULL, "%s", err->message);
}

/* The value of key, or NULL when absent, null or an error has been met. */
static const json_t *field(const json_t *o, const char *key, const sv_error *e)
{
    const json_t *v = e->status ? NULL : json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

void sv_get_bool(const json_t *o, const char *key, bool *out, sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    if (!json_is_boolean(v)) sv_error_set(e, 400, key, "%s must be true or false", key);
    else *out = json_is_true(v);
}

void sv_get_int(const json_t *o, const char *key, long low, long high, long *out, sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    double x = json_number_value(v);
    if (!json_is_number(v) || x != floor(x))
        sv_error_set(e, 400, key, "%s must be a whole number", key);
    else if (!(x >= (double)low && x <= (double)high))
        sv_error_set(e, 400, key, "%s must lie between %ld and %ld", key, low, high);
    else *out = json_is_integer(v) ? (long)json_integer_value(v) : (long)x;
}

void sv_get_float(const json_t *o, const char *key, double low, double high, float *out,
                  sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    double x = json_number_value(v);
    if (!json_is_number(v)) sv_error_set(e, 400, key, "%s must be a number", key);
    else if (!(x >= low && x <= high))
        sv_error_set(e, 400, key, "%s must lie between %g and %g", key, low, high);
    else *out = (float)x;
}

void sv_get_string(const json_t *o, const char *key, const char **out, sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    if (!json_is_string(v)) sv_error_set(e, 400, key, "%s must be a string", key);
    else *out = json_string_value(v);
}

void sv_get_array(const json_t *o, const char *key, json_t **out, sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    if (!json_is_array(v)) sv_error_set(e, 400, key, "%s must be a list", key);
    else *out = (json_t *)v;
}

void sv_get_object(const json_t *o, const char *key, json_t **out, sv_error *e)
{
    const json_t *v = field(o, key, e);
    if (!v) return;
    if (!json_is_object(v)) sv_error_set(e, 400, key, "%s must be an object", key);
    else *out = (json_t *)v;
}

bool sv_one_of(const char *name, const char *const *list)
{
    for (; name && *list; list++)
        if (!strcmp(name, *list)) return true;
    return false;
}
