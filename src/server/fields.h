/* fields.h - what a request may say: typed, bounded fields out of JSON, with errors that name them.
 *
 * The first error sticks in sv_error and later reads do nothing, so a parser reads all fields and
 * checks once. A field that is absent or null leaves *out as it was. */
#ifndef SERVER_FIELDS_H
#define SERVER_FIELDS_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct sv_error {
    int status;       /* HTTP status; 0: no error */
    const char *code; /* "context_length_exceeded", or NULL */
    int retry_after;  /* seconds, 0: no header */
    char param[64];   /* the field, "" when none */
    char message[560];
} sv_error;

/* Set the error unless there is one. */
__attribute__((format(printf, 4, 5))) void sv_error_set(sv_error *e, int status, const char *param,
                                                        const char *format, ...);

/* From a library error: arguments and limits are the client's fault (400), a full queue is 503. */
void sv_error_from(sv_error *e, const fm_error *err);

void sv_get_bool(const json_t *o, const char *key, bool *out, sv_error *e);
void sv_get_int(const json_t *o, const char *key, long low, long high, long *out, sv_error *e);
void sv_get_float(const json_t *o, const char *key, double low, double high, float *out,
                  sv_error *e);
void sv_get_string(const json_t *o, const char *key, const char **out, sv_error *e);
void sv_get_array(const json_t *o, const char *key, json_t **out, sv_error *e);  /* borrowed */
void sv_get_object(const json_t *o, const char *key, json_t **out, sv_error *e); /* borrowed */

/* Is `name` in a NULL-ended list? */
bool sv_one_of(const char *name, const char *const *list);

#endif
