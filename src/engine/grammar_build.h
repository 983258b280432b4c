/* grammar_build.h - building the automaton: used by the schema and regex compilers only.
 *
 * A rule is a small non-deterministic automaton with one start and one final state. Edges are a
 * byte range, nothing (eps), or a call: run another rule, then go on at the target. Builders take
 * the state to leave from and the state to arrive at, so pieces join without copying. Errors stick
 * in the builder: after the first failure all calls do nothing and return state 0. */
#ifndef ENGINE_GRAMMAR_BUILD_H
#define ENGINE_GRAMMAR_BUILD_H

#include "engine/grammar.h"

enum { GB_MAX_STATES = 400000, GB_MAX_RULES = 20000, GB_MAX_STACK = 200 };

typedef enum gb_kind { GB_BYTES, GB_EPS, GB_CALL } gb_kind;

typedef struct gb_edge {
    uint8_t kind, lo, hi;
    int32_t target;
    int32_t rule; /* GB_CALL */
    int32_t next; /* while building: the next edge of the same state */
} gb_edge;

typedef struct gb_rule {
    int32_t start, final;
} gb_rule;

/* Rules that every grammar shares, made when first used. */
typedef enum gb_builtin {
    GB_WS,     /* nothing, one space, or a newline with indentation: white space stays bounded */
    GB_CHAR,   /* one character inside a JSON string, escaped or not */
    GB_UTF8,   /* one well-formed code point of several bytes */
    GB_STRING, /* a whole JSON string */
    GB_INTEGER,
    GB_NUMBER,
    GB_VALUE, /* any JSON value */
    GB_OBJECT,
    GB_ARRAY,
    GB_BUILTINS
} gb_builtin;

typedef struct gb {
    gb_edge *edges;
    int32_t *first; /* [n_states] newest edge of the state, -1 none */
    gb_rule *rules;
    int n_edges, n_states, n_rules;
    int cap_edges, cap_states, cap_rules;
    int builtin[GB_BUILTINS]; /* rule + 1, 0 = not made yet */
    fm_status status;
    fm_error *err;
} gb;

int gb_state(gb *b);
int gb_new_rule(gb *b);
void gb_eps(gb *b, int from, int to);
void gb_bytes(gb *b, int from, int lo, int hi, int to);
void gb_call(gb *b, int from, int rule, int to);
/* The rule min..max times; max -1: any number. */
void gb_repeat(gb *b, int from, int rule, int min, int max, int to);
int gb_builtin_rule(gb *b, gb_builtin which);
void gb_builtin_call(gb *b, int from, gb_builtin which, int to);
void gb_literal(gb *b, int from, const char *bytes, size_t n, int to);

/* A code point as UTF-8, as it may stand in a JSON string (json) or raw. */
void gb_codepoints(gb *b, int from, uint32_t lo, uint32_t hi, bool json, int to);

/* Text without `marker` in it, then the marker. */
void gb_until(gb *b, int from, const char *marker, int to);

/* A decimal number within bounds; digits-only strings from the schema. whole: integers only. */
typedef struct gb_bound {
    bool set, exclusive;
    double value;
} gb_bound;
void gb_number_range(gb *b, int from, gb_bound min, gb_bound max, bool whole, int to);

/* The value of a "pattern" keyword between the quotes of a JSON string. */
void gb_pattern(gb *b, int from, const char *pattern, const char *where, int to);

/* A JSON Schema as one value. */
void gb_schema(gb *b, int from, const json_t *schema, int to);

/* A tool's arguments as tags (en_call_format.param_open). */
void gb_schema_tags(gb *b, int from, const json_t *schema, const en_call_format *format, int to);

__attribute__((format(printf, 3, 4))) void gb_fail(gb *b, fm_status code, const char *format, ...);

/* The finished automaton. need[s]: the least stack growth with which the rule can be finished from
 * s; a matcher never enters a state it has no room to leave. Edges of state s are
 * edges[first[s]] .. edges[first[s + 1] - 1]. */
struct en_grammar {
    gb_edge *edges;
    int32_t *first;
    int32_t *need;
    bool *final; /* of its rule */
    gb_rule *rules;
    int n_states, n_edges, n_rules, root;
};

#endif
