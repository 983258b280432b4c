/* json_pull.h - a pull parser for JSON: one event a call, no tree, no recursion, no allocation but
 * one scratch buffer for strings that hold escapes. For files of megabytes of which we keep arrays
 * of our own; small documents are better served by jansson.
 *
 * Strict RFC 8259 syntax; strings must be valid UTF-8 and may hold U+0000; lone surrogate escapes
 * are refused. Nesting is limited to BS_JSON_DEPTH. */
#ifndef BASE_JSON_PULL_H
#define BASE_JSON_PULL_H

#include "base/buf.h"
#include "base/error.h"

#include <stdint.h>

enum { BS_JSON_DEPTH = 256 };

typedef enum bs_json_event {
    BS_JSON_ERROR = -1,
    BS_JSON_DONE, /* the top-level value is complete and only white space follows */
    BS_JSON_OBJECT,
    BS_JSON_OBJECT_END,
    BS_JSON_ARRAY,
    BS_JSON_ARRAY_END,
    BS_JSON_KEY,
    BS_JSON_STRING,
    BS_JSON_NUMBER, /* text/length hold its characters */
    BS_JSON_TRUE,
    BS_JSON_FALSE,
    BS_JSON_NULL,
} bs_json_event;

typedef struct bs_json {
    const char *begin, *at, *end;
    const char *text; /* of a KEY, STRING or NUMBER; valid until the next call; not terminated */
    size_t length;
    const char *what;   /* after an ERROR: what is wrong */
    bs_json_event last; /* the event that was returned last */
    int depth;
    bool is_object[BS_JSON_DEPTH];
    bool expect_key, after_value, started;
    bs_buf scratch;
} bs_json;

void bs_json_init(bs_json *j, const char *data, size_t n);
void bs_json_free(bs_json *j);
bs_json_event bs_json_next(bs_json *j);

/* After a KEY: its value is passed over. Inside objects and arrays only brackets and strings are
 * looked at, so what is skipped is not known to be well-formed. *start and *length (may be NULL)
 * get its bytes. False on an error, as BS_JSON_ERROR. */
bool bs_json_skip(bs_json *j, const char **start, size_t *length);

/* Is the current key or string exactly this? */
bool bs_json_is(const bs_json *j, const char *text);

/* The current NUMBER as an integer in [0, max]; false when it is anything else. */
bool bs_json_uint(const bs_json *j, uint64_t max, uint64_t *out);

/* Fill err: "PATH: byte N: WHAT". Returns FM_E_FORMAT, or FM_E_NOMEM when that was the reason. */
fm_status bs_json_fail(const bs_json *j, const char *path, fm_error *err);

#endif
