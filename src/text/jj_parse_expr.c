/* Expressions, one function a level of precedence, loosest first. */
#include "text/jj_parser.h"

#include <string.h>

static jj_node *parse_condition(jj_parser *p);
static jj_node *parse_or(jj_parser *p);
static jj_node *parse_primary(jj_parser *p);
static jj_node *parse_unary(jj_parser *p, bool with_filter);
static jj_node *parse_postfix(jj_parser *p, jj_node *n);

jj_node *jjp_expression(jj_parser *p)
{
    return parse_condition(p);
}

static jj_node *parse_condition(jj_parser *p)
{
    if (!jjp_enter(p)) return &p->spare;
    jj_node *n = parse_or(p);
    while (!p->status && jjp_skip_name(p, "if")) {
        jj_node *cond = jjp_node(p, JJN_COND);
        cond->a = n;
        cond->b = parse_or(p);
        if (jjp_skip_name(p, "else")) cond->c = parse_condition(p);
        n = cond;
    }
    p->depth--;
    return n;
}

static jj_node *pair(jj_parser *p, jj_kind kind, int op, jj_node *a, jj_node *b)
{
    jj_node *n = jjp_node(p, kind);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

static jj_node *parse_compare(jj_parser *p);

static jj_node *parse_not(jj_parser *p)
{
    if (!jjp_is_name(p, "not")) return parse_compare(p);
    jjp_next(p);
    if (!jjp_enter(p)) return &p->spare;
    jj_node *n = pair(p, JJN_NOT, 0, parse_not(p), NULL);
    p->depth--;
    return n;
}

static jj_node *parse_and(jj_parser *p)
{
    jj_node *n = parse_not(p);
    while (!p->status && jjp_skip_name(p, "and")) n = pair(p, JJN_AND, 0, n, parse_not(p));
    return n;
}

static jj_node *parse_or(jj_parser *p)
{
    jj_node *n = parse_and(p);
    while (!p->status && jjp_skip_name(p, "or")) n = pair(p, JJN_OR, 0, n, parse_and(p));
    return n;
}

static jj_node *parse_power(jj_parser *p)
{
    jj_node *n = parse_unary(p, true);
    while (!p->status && jjp_skip(p, JJT_POW))
        n = pair(p, JJN_BINARY, JJT_POW, n, parse_unary(p, true));
    return n;
}

static jj_node *parse_product(jj_parser *p)
{
    jj_node *n = parse_power(p);
    while (!p->status && p->at->type >= JJT_MUL && p->at->type <= JJT_MOD) {
        int op = (int)jjp_next(p)->type;
        n = pair(p, JJN_BINARY, op, n, parse_power(p));
    }
    return n;
}

static jj_node *parse_concat(jj_parser *p)
{
    jj_node *n = parse_product(p);
    if (!jjp_is(p, JJT_TILDE)) return n;
    jj_node *all = jjp_node(p, JJN_CONCAT);
    jjp_add(p, &all->items, n);
    while (!p->status && jjp_skip(p, JJT_TILDE)) jjp_add(p, &all->items, parse_product(p));
    return all;
}

static jj_node *parse_sum(jj_parser *p)
{
    jj_node *n = parse_concat(p);
    while (!p->status && (jjp_is(p, JJT_ADD) || jjp_is(p, JJT_SUB))) {
        int op = (int)jjp_next(p)->type;
        n = pair(p, JJN_BINARY, op, n, parse_concat(p));
    }
    return n;
}

/* The comparison operator at the cursor, passed; 0: none. */
static int comparison(jj_parser *p)
{
    if (p->at->type >= JJT_EQ && p->at->type <= JJT_GE) return (int)jjp_next(p)->type;
    if (jjp_skip_name(p, "in")) return JJT_IN;
    if (jjp_is_name(p, "not") && p->at[1].type == JJT_NAME && !strcmp(p->at[1].text, "in")) {
        jjp_next(p);
        jjp_next(p);
        return JJT_NOT_IN;
    }
    return 0;
}

static jj_node *parse_compare(jj_parser *p)
{
    jj_node *n = parse_sum(p), *all = NULL;
    for (int op; !p->status && (op = comparison(p));) {
        if (!all) all = pair(p, JJN_COMPARE, 0, n, NULL);
        jjp_add(p, &all->items, pair(p, JJN_OPERAND, op, parse_sum(p), NULL));
    }
    return all ? all : n;
}

/* --- operands
 * ----------------------------------------------------------------------------------------- */

static jj_node *constant(jj_parser *p, jj_value v)
{
    jj_node *n = jjp_node(p, JJN_CONST);
    n->value = v;
    return n;
}

static jj_node *name(jj_parser *p)
{
    const jj_token *k = jjp_next(p);
    if (!strcmp(k->text, "true") || !strcmp(k->text, "True")) return constant(p, jj_bool(true));
    if (!strcmp(k->text, "false") || !strcmp(k->text, "False")) return constant(p, jj_bool(false));
    if (!strcmp(k->text, "none") || !strcmp(k->text, "None")) return constant(p, jj_none());
    jj_node *n = jjp_node(p, JJN_NAME);
    n->text = k->text;
    return n;
}

/* Adjacent strings are one. */
static jj_node *string(jj_parser *p)
{
    const jj_token *first = p->at;
    size_t total = 0;
    for (const jj_token *k = first; k->type == JJT_STRING; k++) total += k->n;
    char *text = jj_arena_get(&p->t->arena, total + 1);
    jj_str *s = jj_arena_get(&p->t->arena, sizeof *s);
    if (!text || !s) {
        if (!p->status) p->status = fm_fail_nomem(p->err, "reading a template");
        return &p->spare;
    }
    for (size_t at = 0; jjp_is(p, JJT_STRING); at += p->at[-1].n) {
        const jj_token *k = jjp_next(p);
        memcpy(text + at, k->text, k->n);
    }
    *s = (jj_str){.s = text, .n = total};
    return constant(p, (jj_value){.type = JJ_STRING, .u.s = s});
}

static jj_node *list(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_LIST);
    jjp_next(p);
    while (!p->status && !jjp_is(p, JJT_RBRACKET)) {
        if (n->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        if (jjp_is(p, JJT_RBRACKET)) break;
        jjp_add(p, &n->items, jjp_expression(p));
    }
    jjp_expect(p, JJT_RBRACKET, "']' is expected");
    return n;
}

static jj_node *dict(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_DICT);
    jjp_next(p);
    while (!p->status && !jjp_is(p, JJT_RBRACE)) {
        if (n->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        if (jjp_is(p, JJT_RBRACE)) break;
        jjp_add(p, &n->items, jjp_expression(p));
        jjp_expect(p, JJT_COLON, "':' is expected");
        jjp_add(p, &n->items, jjp_expression(p));
    }
    jjp_expect(p, JJT_RBRACE, "'}' is expected");
    return n;
}

static jj_node *parse_primary(jj_parser *p)
{
    jj_node *n;
    switch (p->at->type) {
    case JJT_NAME: return name(p);
    case JJT_STRING: return string(p);
    case JJT_INT: return constant(p, jj_int(jjp_next(p)->i));
    case JJT_FLOAT: return constant(p, jj_float(jjp_next(p)->f));
    case JJT_LBRACKET: return list(p);
    case JJT_LBRACE: return dict(p);
    case JJT_LPAREN:
        jjp_next(p);
        n = jjp_tuple(p, true, true, NULL);
        jjp_expect(p, JJT_RPAREN, "')' is expected");
        return n;
    default: jjp_fail(p, "an expression is expected"); return &p->spare;
    }
}

static bool tuple_ends(const jj_parser *p, const char *stop)
{
    return jjp_is(p, JJT_CLOSE_VAR) || jjp_is(p, JJT_CLOSE_BLOCK) || jjp_is(p, JJT_RPAREN) ||
           jjp_is(p, JJT_END) || (stop && jjp_is_name(p, stop));
}

static jj_node *tuple_of(jj_parser *p, jj_node *(*one)(jj_parser *), bool parenthesised,
                         const char *stop)
{
    jj_node *n = jjp_node(p, JJN_TUPLE);
    bool is_tuple = false;
    while (!p->status) {
        if (n->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        if (tuple_ends(p, stop)) break;
        jjp_add(p, &n->items, one(p));
        if (!jjp_is(p, JJT_COMMA)) break;
        is_tuple = true;
    }
    if (is_tuple) return n;
    if (n->items.n) return n->items.items[0];
    if (!parenthesised) jjp_fail(p, "an expression is expected");
    return n;
}

jj_node *jjp_tuple(jj_parser *p, bool conditions, bool parenthesised, const char *stop)
{
    if (!jjp_enter(p)) return &p->spare;
    jj_node *n = tuple_of(p, conditions ? parse_condition : parse_or, parenthesised, stop);
    p->depth--;
    return n;
}

static bool assignable(const jj_node *n)
{
    if (n->kind == JJN_NAME || n->kind == JJN_NS_REF) return true;
    if (n->kind != JJN_TUPLE) return false;
    for (size_t i = 0; i < n->items.n; i++)
        if (!assignable(n->items.items[i])) return false;
    return true;
}

jj_node *jjp_target(jj_parser *p, const char *stop, bool with_namespace)
{
    if (with_namespace && jjp_is(p, JJT_NAME) && p->at[1].type == JJT_DOT) {
        jj_node *n = jjp_node(p, JJN_NS_REF);
        n->text = jjp_next(p)->text;
        jjp_next(p);
        const jj_token *k = jjp_expect(p, JJT_NAME, "an attribute's name is expected");
        n->a = jjp_node(p, JJN_NAME);
        n->a->text = k->text;
        return n;
    }
    if (!jjp_enter(p)) return &p->spare;
    jj_node *n = tuple_of(p, parse_primary, false, stop);
    p->depth--;
    if (!p->status && !assignable(n)) jjp_fail(p, "this cannot be assigned to");
    return n;
}

/* --- postfixes
 * ---------------------------------------------------------------------------------------- */

static void call_arguments(jj_parser *p, jj_node *n)
{
    jjp_expect(p, JJT_LPAREN, "'(' is expected");
    bool first = true;
    while (!p->status && !jjp_is(p, JJT_RPAREN)) {
        if (!first) jjp_expect(p, JJT_COMMA, "',' is expected");
        if (jjp_is(p, JJT_RPAREN)) break;
        first = false;
        if (jjp_skip(p, JJT_MUL)) {
            if (n->b || n->c) jjp_fail(p, "unexpected '*'");
            n->b = jjp_expression(p);
        } else if (jjp_skip(p, JJT_POW)) {
            if (n->c) jjp_fail(p, "unexpected '**'");
            n->c = jjp_expression(p);
        } else if (jjp_is(p, JJT_NAME) && p->at[1].type == JJT_ASSIGN) {
            if (n->c) jjp_fail(p, "a named argument after '**'");
            jj_node *named = jjp_node(p, JJN_NAMED);
            named->text = jjp_next(p)->text;
            jjp_next(p);
            named->a = jjp_expression(p);
            jjp_add(p, &n->named, named);
        } else {
            if (n->b || n->c || n->named.n) jjp_fail(p, "a positional argument after a named one");
            jjp_add(p, &n->items, jjp_expression(p));
        }
    }
    jjp_expect(p, JJT_RPAREN, "')' is expected");
}

static jj_node *call(jj_parser *p, jj_node *f)
{
    jj_node *n = jjp_node(p, JJN_CALL);
    n->a = f;
    call_arguments(p, n);
    return n;
}

/* One index or slice inside brackets. */
static jj_node *subscript(jj_parser *p)
{
    jj_node *start = jjp_is(p, JJT_COLON) ? NULL : jjp_expression(p);
    if (start && !jjp_is(p, JJT_COLON)) return start;
    jj_node *n = jjp_node(p, JJN_SLICE);
    n->a = start;
    jjp_next(p);
    bool end = jjp_is(p, JJT_RBRACKET) || jjp_is(p, JJT_COMMA);
    if (!end && !jjp_is(p, JJT_COLON)) n->b = jjp_expression(p);
    if (jjp_skip(p, JJT_COLON) && !jjp_is(p, JJT_RBRACKET) && !jjp_is(p, JJT_COMMA))
        n->c = jjp_expression(p);
    return n;
}

static jj_node *subscripts(jj_parser *p, jj_node *n)
{
    jjp_next(p);
    jj_node *all = jjp_node(p, JJN_TUPLE);
    while (!p->status && !jjp_is(p, JJT_RBRACKET)) {
        if (all->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        jjp_add(p, &all->items, subscript(p));
    }
    jjp_expect(p, JJT_RBRACKET, "']' is expected");
    if (!p->status && !all->items.n) jjp_fail(p, "an index is expected");
    return pair(p, JJN_ITEM, 0, n, all->items.n == 1 ? all->items.items[0] : all);
}

static jj_node *attribute(jj_parser *p, jj_node *of)
{
    jjp_next(p);
    if (jjp_is(p, JJT_INT)) return pair(p, JJN_ITEM, 0, of, constant(p, jj_int(jjp_next(p)->i)));
    const jj_token *k = jjp_expect(p, JJT_NAME, "a name or number is expected");
    jj_node *n = pair(p, JJN_ATTR, 0, of, NULL);
    n->text = k->text;
    n->n_text = k->n;
    return n;
}

static jj_node *parse_postfix(jj_parser *p, jj_node *n)
{
    while (!p->status) {
        if (jjp_is(p, JJT_DOT)) n = attribute(p, n);
        else if (jjp_is(p, JJT_LBRACKET)) n = subscripts(p, n);
        else if (jjp_is(p, JJT_LPAREN)) n = call(p, n);
        else break;
    }
    return n;
}

/* A filter's or test's name, dots included. */
static const char *dotted_name(jj_parser *p)
{
    const jj_token *k = jjp_expect(p, JJT_NAME, "a name is expected");
    while (!p->status && jjp_is(p, JJT_DOT)) jjp_fail(p, "no filter or test has a dot in its name");
    return k->text;
}

static jj_node *filter(jj_parser *p, jj_node *of)
{
    jj_node *n = pair(p, JJN_FILTER, 0, of, NULL);
    n->b = NULL;
    n->text = dotted_name(p);
    if (p->status) return n;
    n->function = (const void *)jj_find_filter(n->text);
    if (!n->function && !p->soft)
        p->status = jj_syntax(p->t, n->line, p->err, "no filter named '%s'", n->text);
    if (jjp_is(p, JJT_LPAREN)) call_arguments(p, n);
    return n;
}

jj_node *jjp_filters(jj_parser *p, jj_node *n)
{
    while (!p->status && jjp_skip(p, JJT_PIPE)) n = filter(p, n);
    return n;
}

jj_node *jjp_filter_chain(jj_parser *p)
{
    return jjp_filters(p, filter(p, NULL));
}

static bool test_operand(const jj_parser *p)
{
    switch (p->at->type) {
    case JJT_NAME:
        return !jjp_is_name(p, "else") && !jjp_is_name(p, "or") && !jjp_is_name(p, "and");
    case JJT_STRING:
    case JJT_INT:
    case JJT_FLOAT:
    case JJT_LPAREN:
    case JJT_LBRACKET:
    case JJT_LBRACE: return true;
    default: return false;
    }
}

static jj_node *test(jj_parser *p, jj_node *of)
{
    jjp_next(p);
    bool negated = jjp_skip_name(p, "not");
    jj_node *n = pair(p, JJN_TEST, 0, of, NULL);
    n->text = dotted_name(p);
    if (p->status) return n;
    n->function = (const void *)jj_find_test(n->text);
    if (!n->function && !p->soft)
        p->status = jj_syntax(p->t, n->line, p->err, "no test named '%s'", n->text);
    if (jjp_is(p, JJT_LPAREN)) call_arguments(p, n);
    else if (test_operand(p)) {
        if (jjp_is_name(p, "is")) jjp_fail(p, "tests cannot be chained with 'is'");
        jjp_add(p, &n->items, parse_postfix(p, parse_primary(p)));
    }
    return negated ? pair(p, JJN_NOT, 0, n, NULL) : n;
}

static jj_node *parse_filters_and_tests(jj_parser *p, jj_node *n)
{
    while (!p->status) {
        if (jjp_skip(p, JJT_PIPE)) n = filter(p, n);
        else if (jjp_is_name(p, "is")) n = test(p, n);
        else if (jjp_is(p, JJT_LPAREN)) n = call(p, n);
        else break;
    }
    return n;
}

static jj_node *parse_unary(jj_parser *p, bool with_filter)
{
    jj_node *n;
    if (!jjp_enter(p)) return &p->spare;
    if (jjp_is(p, JJT_SUB) || jjp_is(p, JJT_ADD)) {
        int op = (int)jjp_next(p)->type;
        n = pair(p, JJN_UNARY, op, parse_unary(p, false), NULL);
    } else n = parse_primary(p);
    n = parse_postfix(p, n);
    if (with_filter) n = parse_filters_and_tests(p, n);
    p->depth--;
    return n;
}
