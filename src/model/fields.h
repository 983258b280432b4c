/* fields.h - typed access to the fields of a config.json object. The first problem is kept and
 * later calls return harmless values, so a run of reads needs one check at its end. A field counts
 * as missing when it is absent or null; then the family's default is taken, then the fallback. */
#ifndef MODEL_FIELDS_H
#define MODEL_FIELDS_H

#include "model/family.h"

#include <jansson.h>

typedef struct md_fields {
    const json_t *json;
    const char *path; /* of the file, for messages */
    const md_default *defaults;
    fm_status status;
    fm_error *err;
} md_fields;

enum { MD_REQUIRED = -2147483647 }; /* as fallback: the field must be there */

int md_field_int(md_fields *f, const char *name, int min, int max, int fallback);
double md_field_number(md_fields *f, const char *name, double min, double max, double fallback);
bool md_field_bool(md_fields *f, const char *name, bool fallback);
const char *md_field_string(md_fields *f, const char *name, const char *fallback);

/* An int for all layers or an array with one a layer. */
int md_field_int_at(md_fields *f, const char *name, int i, int min, int max, int fallback);

/* The field, NULL when missing; or when it is not of the wanted type, with the error set. */
const json_t *md_field_array(md_fields *f, const char *name);
const json_t *md_field_object(md_fields *f, const char *name);

bool md_field_present(const md_fields *f, const char *name);

/* Record a problem with a field: "config.json: NAME ..." */
__attribute__((format(printf, 4, 5))) void md_field_fail(md_fields *f, fm_status code,
                                                         const char *name, const char *format, ...);
#endif
