/* json_scan.h - a pull reader over JSON text in memory, for this room's files only: safetensors
 * headers of 10^5 entries and the shard index, which a tree of nodes would make slow and large.
 *
 * It allocates nothing. Strings are unescaped in place, so the text is used up by reading it. The
 * first mistake sets `problem` (an English fragment) and every later call fails. Input is hostile:
 * nothing is read at or past `end`, and skipped values nest at most TS_JSON_DEPTH deep. */
#ifndef TENSORS_JSON_SCAN_H
#define TENSORS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TS_JSON_DEPTH = 32 };

typedef struct ts_json {
    char *at, *end;
    const char *problem;
} ts_json;

/* The next character that is not white space, not taken; 0 at the end. */
char ts_json_peek(ts_json *j);

/* Take c if it is next. ts_json_expect makes its absence a problem. */
bool ts_json_take(ts_json *j, char c);
bool ts_json_expect(ts_json *j, char c);

/* A string, unescaped and ended by a NUL inside the text; a NUL within it is a problem. */
bool ts_json_string(ts_json *j, char **out, size_t *length);

/* A whole number from 0 to 2^63 - 1: no sign, fraction or exponent. */
bool ts_json_uint(ts_json *j, uint64_t *out);

/* Pass over any value. */
bool ts_json_skip(ts_json *j);

/* Steps through an object or array after its opening bracket: true while there is another member
 * (a comma was taken between two), false at `close` or on a problem. Start with *first true. */
bool ts_json_next(ts_json *j, char close, bool *first);

/* Records the problem unless there is one already; always false. */
bool ts_json_fail(ts_json *j, const char *problem);

#endif
