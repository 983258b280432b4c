/* Statements, scopes and loops. */
#include "text/jj.h"

#include <string.h>

/* --- variables
 * --------------------------------------------------------------------------------------- */

jj_scope *jj_new_scope(jj *c, jj_scope *outer)
{
    jj_scope *s = jj_get(c, sizeof *s);
    if (s) s->outer = outer;
    return s ? s : outer;
}

void jj_set_var(jj *c, const char *name, jj_value v)
{
    jj_scope *s = c->scope;
    if (c->failed) return;
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->vars[i].name, name)) {
            s->vars[i].value = v;
            return;
        }
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 4;
        jj_var *vars = jj_get(c, capacity * sizeof *vars);
        if (!vars) return;
        if (s->n) memcpy(vars, s->vars, s->n * sizeof *vars);
        s->vars = vars;
        s->capacity = capacity;
    }
    s->vars[s->n++] = (jj_var){name, v};
}

jj_value jj_lookup(jj *c, const char *name)
{
    for (const jj_scope *s = c->scope; s; s = s->outer)
        for (size_t i = 0; i < s->n; i++)
            if (!strcmp(s->vars[i].name, name)) return s->vars[i].value;
    size_t n = strlen(name);
    jj_value *v = jj_dict_find_text(c->context, name, n);
    if (v) return *v;
    const jj_builtin *b = jj_find_builtin(name);
    if (b) return (jj_value){.type = JJ_BUILTIN, .u.builtin = b};
    char *why = jj_get(c, n + 20);
    if (why) {
        why[0] = '\'';
        memcpy(why + 1, name, n);
        strcpy(why + 1 + n, "' is undefined");
    }
    return jj_undefined(why);
}

static void assign_attribute(jj *c, const jj_node *target, jj_value v)
{
    jj_value ns = jj_lookup(c, target->text);
    if (ns.type != JJ_NAMESPACE) {
        jj_fail(c, "cannot assign attribute on non-namespace object");
        return;
    }
    jj_dict_set(c, ns.u.dict, jj_literal(c, target->a->text), v);
}

void jj_assign(jj *c, const jj_node *target, jj_value v)
{
    if (c->failed) return;
    if (target->kind == JJN_NAME) jj_set_var(c, target->text, v);
    else if (target->kind == JJN_NS_REF) assign_attribute(c, target, v);
    else {
        if (v.type == JJ_UNDEFINED) {
            jj_fail_undefined(c, v);
            return;
        }
        jj_list *parts = jj_iterate(c, v);
        if (!c->failed && parts->n != target->items.n)
            jj_fail(c, "%s values to unpack (expected %zu, got %zu)",
                    parts->n < target->items.n ? "not enough" : "too many", target->items.n,
                    parts->n);
        for (size_t i = 0; i < target->items.n && !c->failed; i++)
            jj_assign(c, target->items.items[i], parts->items[i]);
    }
}

/* --- loops
 * -----------------------------------------------------------------------------------------------
 */

/* The elements that pass the loop's filter. */
static jj_list *filtered(jj *c, const jj_node *n, jj_list *all)
{
    jj_list *list = jj_new_list(c, 0);
    for (size_t i = 0; i < all->n && !c->failed; i++) {
        jj_scope *outer = c->scope;
        c->scope = jj_new_scope(c, outer);
        jj_assign(c, n->a, all->items[i]);
        jj_value keep = c->failed ? jj_none() : jj_eval(c, n->c);
        if (!c->failed && jj_truth(c, keep)) jj_append(c, list, all->items[i]);
        c->scope = outer;
    }
    return list;
}

static void run_items(jj *c, const jj_node *n, jj_loop *loop, jj_scope *outer)
{
    for (loop->at = 0; loop->at < loop->items->n && jj_step(c); loop->at++) {
        c->scope = jj_new_scope(c, outer);
        jj_set_var(c, "loop", (jj_value){.type = JJ_LOOP, .u.loop = loop});
        jj_assign(c, n->a, loop->items->items[loop->at]);
        if (!c->failed) jj_exec(c, &n->body);
        c->continued = false;
        if (c->broke) break;
    }
    c->broke = false;
}

/* Run a loop over `iterable` in the scope around it. */
jj_value jj_run_loop(jj *c, const jj_node *n, jj_value iterable, int depth, jj_scope *scope)
{
    jj_scope *kept = c->scope;
    jj_loop *loop = jj_get(c, sizeof *loop);
    if (!loop) return jj_none();
    c->scope = scope;
    jj_list *items = jj_iterate(c, iterable);
    if (n->c && !c->failed) items = filtered(c, n, items);
    *loop = (jj_loop){
        .items = items, .depth = depth, .node = n, .scope = scope, .changed = jj_undefined(NULL)};
    if (!c->failed && items->n) run_items(c, n, loop, scope);
    else if (!c->failed && n->other.n) {
        c->scope = jj_new_scope(c, scope);
        jj_exec(c, &n->other);
    }
    c->scope = kept;
    return jj_none();
}

/* --- statements
 * --------------------------------------------------------------------------------------------- */

static void run_if(jj *c, const jj_node *n)
{
    for (size_t i = 0; i < n->items.n && !c->failed; i++) {
        const jj_node *branch = n->items.items[i];
        jj_value test = branch->a ? jj_eval(c, branch->a) : jj_bool(true);
        if (c->failed || !jj_truth(c, test)) continue;
        jj_exec(c, &branch->body);
        return;
    }
}

/* Run a body in a scope of its own. */
static void run_scope(jj *c, const jj_nodes *body)
{
    jj_scope *outer = c->scope;
    c->scope = jj_new_scope(c, outer);
    jj_exec(c, body);
    c->scope = outer;
}

/* What a body prints, as a string. */
static jj_value captured(jj *c, const jj_nodes *body)
{
    jj_out out = {0}, *kept = c->out;
    c->out = &out;
    run_scope(c, body);
    c->out = kept;
    return jj_out_value(c, &out);
}

/* A block's filters: the innermost has no operand and takes the text. */
static jj_value through_filters(jj *c, const jj_node *filter, jj_value text)
{
    if (!filter || c->failed) return text;
    jj_value v = through_filters(c, filter->a, text);
    return c->failed ? v : jj_apply_filter(c, filter, v);
}

static void run_with(jj *c, const jj_node *n)
{
    jj_scope *outer = c->scope, *inner = jj_new_scope(c, outer);
    for (size_t i = 0; i + 1 < n->items.n && !c->failed; i += 2) {
        c->scope = outer; /* values are those of the outside */
        jj_value v = jj_eval(c, n->items.items[i + 1]);
        c->scope = inner;
        jj_assign(c, n->items.items[i], v);
    }
    c->scope = inner;
    if (!c->failed) jj_exec(c, &n->body);
    c->scope = outer;
}

static bool mentions(const jj_nodes *list, const char *name);

/* Does the tree use a name? A macro only takes varargs, kwargs or caller when its body asks for
 * them. */
static bool node_mentions(const jj_node *n, const char *name)
{
    if (!n) return false;
    if (n->kind == JJN_NAME && !strcmp(n->text, name)) return true;
    return node_mentions(n->a, name) || node_mentions(n->b, name) || node_mentions(n->c, name) ||
           mentions(&n->items, name) || mentions(&n->named, name) || mentions(&n->body, name) ||
           mentions(&n->other, name);
}

static bool mentions(const jj_nodes *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (node_mentions(list->items[i], name)) return true;
    return false;
}

static jj_value make_macro(jj *c, const jj_node *n, const char *name)
{
    jj_macro *m = jj_get(c, sizeof *m);
    if (!m) return jj_none();
    *m = (jj_macro){.name = name,
                    .node = n,
                    .scope = c->scope,
                    .uses_caller = mentions(&n->body, "caller"),
                    .uses_varargs = mentions(&n->body, "varargs"),
                    .uses_kwargs = mentions(&n->body, "kwargs")};
    return (jj_value){.type = JJ_MACRO, .u.macro = m};
}

/* {% call(a) f(x) %}: f is called with `caller`, a macro that renders the body. */
static void run_call_block(jj *c, const jj_node *n)
{
    jj_node call = *n->a, caller = {.kind = JJN_CONST, .line = n->line},
            named = {.kind = JJN_NAMED, .text = "caller"};
    size_t count = call.named.n;
    caller.value = make_macro(c, n, "caller");
    named.a = &caller;
    call.named.items = jj_get(c, (count + 1) * sizeof *call.named.items);
    if (!call.named.items) return;
    if (count) memcpy(call.named.items, n->a->named.items, count * sizeof *call.named.items);
    call.named.items[count] = &named;
    call.named.n = count + 1;
    jj_value v = jj_eval(c, &call);
    if (!c->failed) jj_out_str(c, c->out, jj_str_of(c, v));
}

static void run_output(jj *c, const jj_node *n)
{
    jj_value v = jj_eval(c, n->a);
    if (!c->failed) jj_out_str(c, c->out, jj_str_of(c, v));
}

static void statement(jj *c, const jj_node *n)
{
    jj_value v;
    switch (n->kind) {
    case JJN_TEXT: jj_out_text(c, c->out, n->text, n->n_text, false); break;
    case JJN_OUTPUT: run_output(c, n); break;
    case JJN_IF: run_if(c, n); break;
    case JJN_FOR:
        v = jj_eval(c, n->b);
        if (!c->failed) jj_run_loop(c, n, v, 1, c->scope);
        break;
    case JJN_SET:
        v = jj_eval(c, n->b);
        jj_assign(c, n->a, v);
        break;
    case JJN_SET_BLOCK:
        v = through_filters(c, n->b, captured(c, &n->body));
        jj_assign(c, n->a, v);
        break;
    case JJN_MACRO: jj_set_var(c, n->text, make_macro(c, n, n->text)); break;
    case JJN_CALL_BLOCK: run_call_block(c, n); break;
    case JJN_FILTER_BLOCK:
        v = through_filters(c, n->b, captured(c, &n->body));
        if (!c->failed) jj_out_str(c, c->out, jj_str_of(c, v));
        break;
    case JJN_WITH: run_with(c, n); break;
    case JJN_SCOPE: run_scope(c, &n->body); break;
    case JJN_BREAK: c->broke = true; break;
    case JJN_CONTINUE: c->continued = true; break;
    default: jj_fail(c, "'%s' needs another template, and there is none", n->text);
    }
}

void jj_exec(jj *c, const jj_nodes *body)
{
    if (++c->depth > TX_TEMPLATE_MAX_DEPTH) {
        jj_fail_status(c, FM_E_LIMIT,
                       "the template goes too deep (maximum recursion depth exceeded)");
        return;
    }
    for (size_t i = 0; i < body->n && !c->broke && !c->continued && jj_step(c); i++) {
        c->line = body->items[i]->line;
        statement(c, body->items[i]);
    }
    c->depth--;
}
