/* jj_parser.h - between the statement parser (jj_parse.c) and the expression parser
 * (jj_parse_expr.c). A failure sets p->status; the functions then return some node and the callers
 * run out soon. */
#ifndef TEXT_JJ_PARSER_H
#define TEXT_JJ_PARSER_H

#include "text/jj.h"

typedef struct jj_parser {
    tx_template *t;
    fm_error *err;
    const jj_token *at;
    fm_status status;
    jj_node spare; /* what is returned without memory */
    int depth;
    int loops; /* around the statement, in the same function */
    int soft;  /* inside a condition: an unknown filter or test fails only when it is reached */
} jj_parser;

fm_status jjp_fail(jj_parser *p, const char *what);
jj_node *jjp_node(jj_parser *p, jj_kind kind);
void jjp_add(jj_parser *p, jj_nodes *list, jj_node *n);
bool jjp_is(const jj_parser *p, jj_token_type type);
bool jjp_is_name(const jj_parser *p, const char *name);
const jj_token *jjp_next(jj_parser *p);
bool jjp_skip(jj_parser *p, jj_token_type type);
bool jjp_skip_name(jj_parser *p, const char *name);
const jj_token *jjp_expect(jj_parser *p, jj_token_type type, const char *what);
bool jjp_enter(jj_parser *p); /* one level deeper; the caller does p->depth-- */

jj_node *jjp_expression(jj_parser *p);
/* One expression or a tuple of them; conditions: `a if b` is allowed in it; parenthesised: () is a
 * tuple; stop: a name that ends it. */
jj_node *jjp_tuple(jj_parser *p, bool conditions, bool parenthesised, const char *stop);
/* What may be assigned to: a name, a tuple of them, with_namespace also ns.attribute. */
jj_node *jjp_target(jj_parser *p, const char *stop, bool with_namespace);
jj_node *jjp_filters(jj_parser *p, jj_node *node); /* | filter ... after node, which may be NULL */
jj_node *jjp_filter_chain(jj_parser *p);           /* filter | filter ... of a block */

#endif
