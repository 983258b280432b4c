/* jj.h - the inside of the Jinja interpreter, shared by the jj_*.c files of this room only.
 *
 * Rendering works in an arena: values are made, never changed (but for namespaces and the scopes'
 * variables) and all freed together. A function that fails calls jj_fail once and returns anything;
 * callers look at c->failed before they go on with work that matters. */
#ifndef TEXT_JJ_H
#define TEXT_JJ_H

#include "base/buf.h"
#include "base/error.h"
#include "text/template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- arena (jj_arena.c) ------------------------------------------------------------------------
 */

typedef struct jj_arena {
    struct jj_chunk *chunks;
    size_t used, size; /* of the newest chunk */
    size_t total, limit;
} jj_arena;

void *jj_arena_get(jj_arena *a, size_t bytes); /* zeroed, aligned to 16; NULL: no memory or limit */
void jj_arena_free(jj_arena *a);

/* --- values ------------------------------------------------------------------------------------
 */

typedef enum jj_type {
    JJ_UNDEFINED,
    JJ_NONE,
    JJ_BOOL,
    JJ_INT,
    JJ_FLOAT,
    JJ_STRING,
    JJ_LIST,
    JJ_TUPLE,
    JJ_DICT,
    JJ_RANGE,
    JJ_VIEW,     /* dict.items() and its kin: a list that prints by its kind */
    JJ_ITERATOR, /* what map, select, items... give: can be gone through once */
    JJ_NAMESPACE,
    JJ_LOOP,
    JJ_MACRO,
    JJ_BUILTIN,
    JJ_METHOD,
    JJ_OBJECT,
} jj_type;

typedef struct jj_run {
    size_t end; /* bytes before this offset, from the end of the run before it */
    bool content;
} jj_run;

/* A string: UTF-8, and which of its bytes are content. Without runs all are as `content` says. */
typedef struct jj_str {
    const char *s; /* not terminated */
    size_t n;
    const jj_run *runs;
    uint32_t n_runs;
    bool content;
    bool safe; /* markupsafe's Markup */
} jj_str;

typedef struct jj_value jj_value;
typedef struct jj_list jj_list;
typedef struct jj_dict jj_dict;
typedef struct jj_range {
    int64_t start, stop, step, n;
} jj_range;
typedef struct jj_iterator jj_iterator;
typedef struct jj_loop jj_loop;
typedef struct jj_macro jj_macro;
typedef struct jj_method jj_method;
typedef struct jj_builtin jj_builtin;
typedef struct jj_object jj_object;

struct jj_value {
    jj_type type;
    union {
        bool b;
        int64_t i;
        double f;
        const jj_str *s;
        const char *why; /* UNDEFINED: the message that its use gives; may be NULL */
        jj_list *list;   /* LIST, TUPLE, VIEW */
        jj_dict *dict;   /* DICT, NAMESPACE */
        const jj_range *range;
        jj_iterator *iterator;
        jj_loop *loop;
        const jj_macro *macro;
        const jj_method *method;
        const jj_builtin *builtin;
        jj_object *object;
    } u;
};

struct jj_list {
    jj_value *items;
    size_t n, capacity;
    const char *kind; /* VIEW: "dict_items"... */
    bool group;       /* TUPLE: a (grouper, list) of groupby, with those attributes */
};

struct jj_iterator {
    jj_list *list;
    size_t at;
};

typedef struct jj_entry {
    jj_value key, value;
} jj_entry;

struct jj_dict {
    jj_entry *entries; /* in insertion order */
    size_t n, capacity;
    uint32_t *index; /* open addressing, entry + 1; NULL while there are few */
    size_t n_index;
};

/* cycler and joiner: the only other objects with a state. */
struct jj_object {
    enum { JJ_CYCLER, JJ_JOINER } kind;
    jj_list *items;
    size_t at;
    jj_value separator;
};

/* --- syntax tree (jj_parse.c) --------------------------------------------------------------------
 */

typedef enum jj_kind {
    /* expressions */
    JJN_CONST, /* value */
    JJN_NAME,  /* text */
    JJN_LIST,
    JJN_TUPLE,  /* items */
    JJN_DICT,   /* items: key, value, key, value... */
    JJN_UNARY,  /* op a */
    JJN_BINARY, /* a op b */
    JJN_AND,
    JJN_OR,
    JJN_NOT,
    JJN_CONCAT,  /* items joined by ~ */
    JJN_COMPARE, /* a, then items[i] compared with ops in items[i]->op */
    JJN_OPERAND, /* op a: an element of COMPARE */
    JJN_ATTR,    /* a.text */
    JJN_ITEM,    /* a[b] */
    JJN_SLICE,   /* a:b:c, each may be NULL */
    JJN_CALL,    /* a(items, named, *b, **c) */
    JJN_FILTER,  /* a | text(items, named); a NULL: the text of a block */
    JJN_TEST,    /* a is text(items...) */
    JJN_COND,    /* a if b else c; c may be NULL */
    JJN_NAMED,   /* text = a: an element of CALL's named arguments, a macro's parameter */
    /* statements */
    JJN_TEXT,         /* value: template data */
    JJN_OUTPUT,       /* a */
    JJN_IF,           /* items: bodies' conditions (CONST true for else) and b... as COND pairs */
    JJN_FOR,          /* a: target, b: iterable, c: filter or NULL, body, other; flag: recursive */
    JJN_SET,          /* a: target, b: value */
    JJN_SET_BLOCK,    /* a: target, b: filter chain or NULL, body */
    JJN_NS_REF,       /* text.value: a target */
    JJN_MACRO,        /* text, items: NAMED parameters (a NULL: no default), body */
    JJN_CALL_BLOCK,   /* a: the call, items: parameters, body */
    JJN_FILTER_BLOCK, /* b: filter chain, body */
    JJN_WITH,         /* items: targets and values alternating, body */
    JJN_SCOPE,        /* body in a scope of its own: generation, block */
    JJN_BREAK,
    JJN_CONTINUE,
    JJN_FAIL, /* text: an error that comes when it is reached (include, import) */
} jj_kind;

typedef struct jj_node jj_node;

typedef struct jj_nodes {
    jj_node **items;
    size_t n, capacity;
} jj_nodes;

struct jj_node {
    jj_kind kind;
    int op; /* a token */
    int line;
    bool flag;
    jj_node *a, *b, *c;
    jj_nodes items, named, body, other;
    const char *text; /* terminated */
    size_t n_text;
    jj_value value;
    const void *function; /* FILTER, TEST: what is called */
};

struct tx_template {
    char *source;
    size_t n;
    char *name;
    jj_arena arena;
    jj_nodes body;
};

/* --- tokens (jj_lex.c)
 * ----------------------------------------------------------------------------- */

typedef enum jj_token_type {
    JJT_END,
    JJT_DATA,
    JJT_OPEN_VAR,
    JJT_CLOSE_VAR,
    JJT_OPEN_BLOCK,
    JJT_CLOSE_BLOCK,
    JJT_NAME,
    JJT_STRING,
    JJT_INT,
    JJT_FLOAT,
    JJT_ADD,
    JJT_SUB,
    JJT_MUL,
    JJT_DIV,
    JJT_FLOORDIV,
    JJT_MOD,
    JJT_POW,
    JJT_TILDE,
    JJT_EQ,
    JJT_NE,
    JJT_LT,
    JJT_LE,
    JJT_GT,
    JJT_GE,
    JJT_ASSIGN,
    JJT_DOT,
    JJT_COMMA,
    JJT_COLON,
    JJT_SEMICOLON,
    JJT_PIPE,
    JJT_LPAREN,
    JJT_RPAREN,
    JJT_LBRACKET,
    JJT_RBRACKET,
    JJT_LBRACE,
    JJT_RBRACE,
    JJT_IN,
    JJT_NOT_IN, /* made by the parser */
} jj_token_type;

typedef struct jj_token {
    jj_token_type type;
    int line;
    const char *text; /* DATA, NAME, STRING (escapes undone): terminated */
    size_t n;
    int64_t i;
    double f;
} jj_token;

typedef struct jj_tokens {
    jj_token *items;
    size_t n, capacity;
} jj_tokens;

/* All tokens of a source, in the template's arena. */
fm_status jj_lex(tx_template *t, jj_tokens *out, fm_error *err);
fm_status jj_parse(tx_template *t, fm_error *err);

/* "NAME, line N: ..." */
__attribute__((format(printf, 4, 5))) fm_status jj_syntax(const tx_template *t, int line,
                                                          fm_error *err, const char *format, ...);

/* --- interpreter
 * ------------------------------------------------------------------------------------- */

/* Where output goes: the result, or a string in the making. */
typedef struct jj_out {
    bs_buf text;
    jj_run *runs;
    size_t n_runs, capacity;
} jj_out;

typedef struct jj_var {
    const char *name;
    jj_value value;
} jj_var;

/* A scope's variables; lookups go outwards. */
typedef struct jj_scope {
    struct jj_scope *outer;
    jj_var *vars;
    size_t n, capacity;
} jj_scope;

typedef struct jj {
    const tx_template *t;
    jj_arena arena;
    jj_dict *context;
    jj_scope *scope;
    jj_out *out;
    tx_rendered *rendered;
    time_t now;
    fm_error *err;
    fm_status status;
    bool failed;
    bool broke, continued; /* a break or continue on its way to its loop */
    int line, depth;
    int64_t steps;
    jj_list no_list; /* what a failed allocation gives: empty for ever */
    jj_dict no_dict;
} jj;

struct jj_macro {
    const char *name;
    const jj_node *node; /* MACRO or CALL_BLOCK: items are the parameters */
    jj_scope *scope;     /* where it was defined */
    bool uses_caller, uses_varargs, uses_kwargs;
};

struct jj_method {
    jj_value self;
    const struct jj_method_entry *entry;
};

struct jj_loop {
    jj_list *items;
    size_t at; /* index0 */
    int depth; /* from 1 */
    const jj_node *node;
    jj_scope *scope;  /* around the loop, for recursion */
    jj_value changed; /* loop.changed's last value, a tuple; undefined before */
};

/* Arguments of a call. */
typedef struct jj_args {
    jj_value *values;
    size_t n;
    struct jj_named {
        const char *name;
        jj_value value;
    } * named;
    size_t n_named;
} jj_args;

typedef jj_value jj_filter_fn(jj *c, jj_value v, const jj_args *args);
typedef bool jj_test_fn(jj *c, jj_value v, const jj_args *args);
typedef jj_value jj_method_fn(jj *c, jj_value self, const jj_args *args);
typedef jj_value jj_builtin_fn(jj *c, const jj_args *args);

typedef struct jj_method_entry {
    const char *name;
    jj_method_fn *fn;
} jj_method_entry;
struct jj_builtin {
    const char *name;
    jj_builtin_fn *fn;
};
typedef struct jj_filter_entry {
    const char *name;
    jj_filter_fn *fn;
} jj_filter_entry;
typedef struct jj_test_entry {
    const char *name;
    jj_test_fn *fn;
} jj_test_entry;

/* Failure: fills c->err once and sets c->failed. */
__attribute__((format(printf, 2, 3))) jj_value jj_fail(jj *c, const char *format, ...);
jj_value jj_fail_status(jj *c, fm_status status, const char *what);
jj_value jj_fail_undefined(jj *c, jj_value v); /* using an undefined value */

void *jj_get(jj *c, size_t bytes); /* from the arena; NULL after a failure */
bool jj_step(jj *c);               /* counts; false after a failure or at the limit */

/* Constructors */
static inline jj_value jj_none(void)
{
    return (jj_value){.type = JJ_NONE};
}
static inline jj_value jj_bool(bool b)
{
    return (jj_value){.type = JJ_BOOL, .u.b = b};
}
static inline jj_value jj_int(int64_t i)
{
    return (jj_value){.type = JJ_INT, .u.i = i};
}
static inline jj_value jj_float(double f)
{
    return (jj_value){.type = JJ_FLOAT, .u.f = f};
}
static inline jj_value jj_undefined(const char *why)
{
    return (jj_value){.type = JJ_UNDEFINED, .u.why = why};
}
jj_value jj_text(jj *c, const char *s, size_t n, bool content); /* copies */
jj_value jj_literal(jj *c, const char *s);                      /* a constant: not copied */
jj_value jj_wrap(jj *c, const char *s, size_t n, bool content); /* s lives as long as the arena */
jj_list *jj_new_list(jj *c, size_t capacity);
void jj_append(jj *c, jj_list *list, jj_value v);
jj_value jj_list_value(jj_type type, jj_list *list);
jj_value jj_iterator_value(jj *c, jj_list *list);
jj_dict *jj_new_dict(jj *c, size_t capacity);
void jj_dict_set(jj *c, jj_dict *d, jj_value key, jj_value value);
jj_value *jj_dict_find(jj *c, const jj_dict *d, jj_value key); /* NULL: not there */
jj_value *jj_dict_find_text(const jj_dict *d, const char *key, size_t n);
jj_value jj_from_json(jj *c, const json_t *v, bool content, int depth);

/* Strings (jj_string.c): all keep track of content. */
const jj_str *jj_slice_str(jj *c, const jj_str *s, size_t from, size_t to); /* bytes */
const jj_str *jj_concat_str(jj *c, const jj_str *x, const jj_str *y);
bool jj_str_content(const jj_str *s, size_t from, size_t to); /* any content byte there? */
jj_value jj_string_value(const jj_str *s);
bool jj_str_is(const jj_str *s, const char *text);
void jj_out_str(jj *c, jj_out *out, const jj_str *s);
void jj_out_part(jj *c, jj_out *out, const jj_str *s, size_t from, size_t to);
void jj_out_text(jj *c, jj_out *out, const char *s, size_t n, bool content);
jj_value jj_out_value(jj *c, jj_out *out); /* the finished string; frees out */
void jj_out_free(jj_out *out);
size_t jj_offset(const jj_str *s, int64_t character); /* byte offset of the i-th code point */
bool jj_py_space(uint32_t c);
bool jj_is_lower(const jj_str *s); /* str.islower() */
bool jj_is_upper(const jj_str *s);

/* Python's view of values (jj_value.c) */
const char *jj_type_name(jj_value v); /* "str", "int"... */
bool jj_truth(jj *c, jj_value v);
bool jj_equal(jj *c, jj_value x, jj_value y);
int jj_order(jj *c, jj_value x, jj_value y); /* -1, 0, 1; 2 for a NaN; fails for unordered types */
bool jj_contains(jj *c, jj_value container, jj_value item);
int64_t jj_length(jj *c, jj_value v);   /* fails when it has none */
jj_list *jj_iterate(jj *c, jj_value v); /* all elements; consumes an iterator */
bool jj_is_number(jj_value v);          /* int, float or bool */
double jj_as_double(jj_value v);
bool jj_as_int(jj_value v, int64_t *out); /* int or bool */

/* Text of values (jj_repr.c) */
const jj_str *jj_str_of(jj *c, jj_value v); /* str(v) */
jj_value jj_repr(jj *c, jj_value v);
void jj_format_double(double f, char out[40]);

typedef struct jj_json_style {
    int indent; /* -1: one line */
    bool ascii, sort;
    const jj_str *item_separator, *key_separator;
} jj_json_style;
jj_value jj_to_json(jj *c, jj_value v, const jj_json_style *style);

/* Formatting (jj_format.c) */
jj_value jj_percent(jj *c, const jj_str *format, jj_value args);
jj_value jj_str_format(jj *c, const jj_str *format, const jj_args *args);

/* Operators and access (jj_ops.c, jj_access.c) */
jj_value jj_binary(jj *c, int op, jj_value x, jj_value y);
jj_value jj_unary(jj *c, int op, jj_value x);
jj_value jj_mark_safe(jj *c, const jj_str *s);
jj_value jj_escape(jj *c, jj_value v);
jj_value jj_attribute(jj *c, jj_value v, const char *name, size_t n); /* v.name */
jj_value jj_item(jj *c, jj_value v, jj_value key);                    /* v[key] */
jj_value jj_slice(jj *c, jj_value v, jj_value start, jj_value stop, jj_value step);
jj_value jj_path(jj *c, jj_value v,
                 jj_value path); /* the attribute= of filters: "a.b.0" or an int */

/* Evaluation (jj_eval.c, jj_exec.c, jj_call.c) */
jj_value jj_eval(jj *c, const jj_node *n);
void jj_exec(jj *c, const jj_nodes *body);
jj_value jj_call(jj *c, jj_value f, const jj_args *args);
jj_value jj_lookup(jj *c, const char *name);
void jj_set_var(jj *c, const char *name, jj_value v);
jj_scope *jj_new_scope(jj *c, jj_scope *outer);
void jj_assign(jj *c, const jj_node *target, jj_value v);
jj_value jj_run_loop(jj *c, const jj_node *n, jj_value iterable, int depth, jj_scope *scope);
jj_value jj_apply_filter(jj *c, const jj_node *n, jj_value v);
bool jj_apply_test(jj *c, const jj_node *n, jj_value v);

/* Tables. A filter or test by name, or NULL. */
jj_filter_fn *jj_find_filter(const char *name);
jj_test_fn *jj_find_test(const char *name);
const jj_builtin *jj_find_builtin(const char *name);
const jj_method_entry *jj_find_method(jj_type type, const char *name, size_t n);
extern const jj_filter_entry jj_text_filters[], jj_list_filters[];
extern const jj_method_entry jj_string_methods[], jj_string_methods_more[];

/* Put arguments into out[] by position and name ("a,b,c"; an ending '*' of a name: required).
 * Absent ones are JJ_UNDEFINED. Too many, unknown or missing ones fail, naming `what`. */
bool jj_bind(jj *c, const jj_args *args, const char *what, const char *names, jj_value *out);

#endif
