/* Expressions. */
#include "text/jj.h"

#include <string.h>

static jj_value list_of(jj *c, const jj_nodes *items, jj_type type)
{
    jj_list *list = jj_new_list(c, items->n);
    for (size_t i = 0; i < items->n && !c->failed; i++)
        jj_append(c, list, jj_eval(c, items->items[i]));
    return jj_list_value(type, list);
}

static jj_value dict_of(jj *c, const jj_nodes *items)
{
    jj_dict *d = jj_new_dict(c, items->n / 2);
    for (size_t i = 0; i + 1 < items->n && !c->failed; i += 2) {
        jj_value key = jj_eval(c, items->items[i]), value = jj_eval(c, items->items[i + 1]);
        if (!c->failed) jj_dict_set(c, d, key, value);
    }
    return (jj_value){.type = JJ_DICT, .u.dict = d};
}

static jj_value concat(jj *c, const jj_nodes *items)
{
    jj_out out = {0};
    for (size_t i = 0; i < items->n && !c->failed; i++) {
        jj_value v = jj_eval(c, items->items[i]);
        if (!c->failed) jj_out_str(c, &out, jj_str_of(c, v));
    }
    return jj_out_value(c, &out);
}

static bool compare(jj *c, int op, jj_value x, jj_value y)
{
    int order;
    switch (op) {
    case JJT_EQ: return jj_equal(c, x, y);
    case JJT_NE: return !jj_equal(c, x, y);
    case JJT_IN: return jj_contains(c, y, x);
    case JJT_NOT_IN: return !jj_contains(c, y, x);
    default: break;
    }
    order = jj_order(c, x, y);
    if (order == 2) return false; /* NaN */
    return op == JJT_LT   ? order < 0
           : op == JJT_LE ? order <= 0
           : op == JJT_GT ? order > 0
                          : order >= 0;
}

/* a < b < c: each operand once, stopping at the first that does not hold. */
static jj_value comparison(jj *c, const jj_node *n)
{
    jj_value left = jj_eval(c, n->a);
    for (size_t i = 0; i < n->items.n && !c->failed; i++) {
        jj_value right = jj_eval(c, n->items.items[i]->a);
        if (c->failed || !compare(c, n->items.items[i]->op, left, right)) return jj_bool(false);
        left = right;
    }
    return jj_bool(true);
}

/* --- calls
 * ---------------------------------------------------------------------------------------------- */

static void add_named(jj *c, jj_args *a, const char *name, jj_value v)
{
    for (size_t i = 0; i < a->n_named; i++)
        if (!strcmp(a->named[i].name, name)) {
            jj_fail(c, "got multiple values for argument '%s'", name);
            return;
        }
    a->named[a->n_named++] = (struct jj_named){name, v};
}

static char *terminated(jj *c, const jj_str *s)
{
    char *text = jj_get(c, s->n + 1);
    if (text) memcpy(text, s->s, s->n);
    return text;
}

/* Evaluate a call's arguments: items, named, *b, **c. */
static bool arguments(jj *c, const jj_node *n, jj_args *out)
{
    jj_value more = n->b && n->kind != JJN_TEST ? jj_eval(c, n->b) : jj_undefined(NULL);
    jj_value dict = n->c ? jj_eval(c, n->c) : jj_undefined(NULL);
    if (c->failed) return false;
    if (n->c && dict.type != JJ_DICT)
        return jj_fail(c, "argument after ** must be a mapping"), false;
    jj_list *rest = n->b ? jj_iterate(c, more) : NULL;
    size_t n_named = n->named.n + (n->c ? dict.u.dict->n : 0);
    jj_list *values = jj_new_list(c, n->items.n + (rest ? rest->n : 0) + 1);
    for (size_t i = 0; i < n->items.n && !c->failed; i++)
        jj_append(c, values, jj_eval(c, n->items.items[i]));
    for (size_t i = 0; rest && i < rest->n && !c->failed; i++) jj_append(c, values, rest->items[i]);
    *out = (jj_args){.values = values->items, .n = values->n};
    out->named = n_named ? jj_get(c, n_named * sizeof *out->named) : NULL;
    for (size_t i = 0; i < n->named.n && !c->failed; i++)
        add_named(c, out, n->named.items[i]->text, jj_eval(c, n->named.items[i]->a));
    for (size_t i = 0; n->c && i < dict.u.dict->n && !c->failed; i++) {
        jj_entry e = dict.u.dict->entries[i];
        char *name = e.key.type == JJ_STRING ? terminated(c, e.key.u.s) : NULL;
        if (name) add_named(c, out, name, e.value);
        else if (!c->failed) jj_fail(c, "keywords must be strings");
    }
    return !c->failed;
}

jj_value jj_apply_filter(jj *c, const jj_node *n, jj_value v)
{
    jj_args args;
    if (!n->function) return jj_fail(c, "no filter named '%s'", n->text);
    if (!arguments(c, n, &args)) return v;
    return ((jj_filter_fn *)n->function)(c, v, &args);
}

bool jj_apply_test(jj *c, const jj_node *n, jj_value v)
{
    jj_args args;
    if (!n->function) return jj_fail(c, "no test named '%s'", n->text), false;
    if (!arguments(c, n, &args)) return false;
    return ((jj_test_fn *)n->function)(c, v, &args);
}

static jj_value call(jj *c, const jj_node *n)
{
    jj_args args;
    jj_value f = jj_eval(c, n->a);
    if (c->failed || !arguments(c, n, &args)) return f;
    return jj_call(c, f, &args);
}

static jj_value slice_or_item(jj *c, const jj_node *n)
{
    jj_value v = jj_eval(c, n->a);
    if (n->b->kind != JJN_SLICE) {
        jj_value key = jj_eval(c, n->b);
        return jj_item(c, v, key);
    }
    const jj_node *s = n->b;
    jj_value start = s->a ? jj_eval(c, s->a) : jj_none(),
             stop = s->b ? jj_eval(c, s->b) : jj_none();
    jj_value step = s->c ? jj_eval(c, s->c) : jj_none();
    return jj_slice(c, v, start, stop, step);
}

static jj_value condition(jj *c, const jj_node *n)
{
    jj_value test = jj_eval(c, n->b);
    if (c->failed) return test;
    if (jj_truth(c, test)) return jj_eval(c, n->a);
    return n->c
               ? jj_eval(c, n->c)
               : jj_undefined(
                     "the inline if-expression evaluated to false and no else section was defined");
}

static jj_value binary(jj *c, const jj_node *n)
{
    jj_value x = jj_eval(c, n->a), y = jj_eval(c, n->b);
    return jj_binary(c, n->op, x, y);
}

static jj_value logic(jj *c, const jj_node *n)
{
    jj_value x = jj_eval(c, n->a);
    if (c->failed) return x;
    if (n->kind == JJN_NOT) return jj_bool(!jj_truth(c, x));
    return jj_truth(c, x) == (n->kind == JJN_AND) ? jj_eval(c, n->b) : x;
}

static jj_value evaluate(jj *c, const jj_node *n)
{
    switch (n->kind) {
    case JJN_CONST: return n->value;
    case JJN_NAME: return jj_lookup(c, n->text);
    case JJN_LIST: return list_of(c, &n->items, JJ_LIST);
    case JJN_TUPLE: return list_of(c, &n->items, JJ_TUPLE);
    case JJN_DICT: return dict_of(c, &n->items);
    case JJN_UNARY: return jj_unary(c, n->op, jj_eval(c, n->a));
    case JJN_BINARY: return binary(c, n);
    case JJN_AND:
    case JJN_OR:
    case JJN_NOT: return logic(c, n);
    case JJN_CONCAT: return concat(c, &n->items);
    case JJN_COMPARE: return comparison(c, n);
    case JJN_ATTR: return jj_attribute(c, jj_eval(c, n->a), n->text, n->n_text);
    case JJN_ITEM: return slice_or_item(c, n);
    case JJN_CALL: return call(c, n);
    case JJN_FILTER: {
        jj_value v = jj_eval(c, n->a);
        return c->failed ? v : jj_apply_filter(c, n, v);
    }
    case JJN_TEST: {
        jj_value v = jj_eval(c, n->a);
        return c->failed ? v : jj_bool(jj_apply_test(c, n, v));
    }
    case JJN_COND: return condition(c, n);
    default: return jj_fail(c, "a slice stands where none can");
    }
}

jj_value jj_eval(jj *c, const jj_node *n)
{
    if (!jj_step(c)) return jj_undefined(NULL);
    int line = c->line;
    c->line = n->line;
    if (++c->depth > TX_TEMPLATE_MAX_DEPTH)
        return jj_fail_status(c, FM_E_LIMIT,
                              "the template goes too deep (maximum recursion depth exceeded)");
    jj_value v = evaluate(c, n);
    c->depth--;
    if (!c->failed) c->line = line;
    return v;
}
