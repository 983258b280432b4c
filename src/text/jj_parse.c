/* From tokens to a syntax tree, statement by statement as Jinja2's own parser does. Expressions are
 * in jj_parse_expr.c. */
#include "base/mem.h"
#include "text/jj_parser.h"

#include <string.h>

fm_status jjp_fail(jj_parser *p, const char *what)
{
    if (!p->status) {
        const jj_token *k = p->at;
        p->status = k->type == JJT_NAME
                        ? jj_syntax(p->t, k->line, p->err, "%s near '%s'", what, k->text)
                        : jj_syntax(p->t, k->line, p->err, "%s", what);
    }
    return p->status;
}

jj_node *jjp_node(jj_parser *p, jj_kind kind)
{
    jj_node *n = jj_arena_get(&p->t->arena, sizeof *n);
    if (!n) {
        if (!p->status) p->status = fm_fail_nomem(p->err, "reading a template");
        return &p->spare;
    }
    n->kind = kind;
    n->line = p->at->line;
    return n;
}

void jjp_add(jj_parser *p, jj_nodes *list, jj_node *n)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        jj_node **items = jj_arena_get(&p->t->arena, capacity * sizeof *items);
        if (!items) {
            if (!p->status) p->status = fm_fail_nomem(p->err, "reading a template");
            return;
        }
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = n;
}

bool jjp_is(const jj_parser *p, jj_token_type type)
{
    return p->at->type == type;
}

bool jjp_is_name(const jj_parser *p, const char *name)
{
    return p->at->type == JJT_NAME && !strcmp(p->at->text, name);
}

const jj_token *jjp_next(jj_parser *p)
{
    const jj_token *k = p->at;
    if (k->type != JJT_END) p->at++;
    return k;
}

bool jjp_skip(jj_parser *p, jj_token_type type)
{
    return jjp_is(p, type) ? jjp_next(p), true : false;
}

bool jjp_skip_name(jj_parser *p, const char *name)
{
    return jjp_is_name(p, name) ? jjp_next(p), true : false;
}

const jj_token *jjp_expect(jj_parser *p, jj_token_type type, const char *what)
{
    if (!jjp_is(p, type)) jjp_fail(p, what);
    return jjp_next(p);
}

bool jjp_enter(jj_parser *p)
{
    if (++p->depth > TX_TEMPLATE_MAX_NESTING && !p->status)
        p->status = fm_fail(p->err, FM_E_LIMIT, "%s, line %d: nested more than %d deep", p->t->name,
                            p->at->line, TX_TEMPLATE_MAX_NESTING);
    return !p->status;
}

/* --- statements
 * --------------------------------------------------------------------------------------- */

static void parse_body(jj_parser *p, jj_nodes *out, const char *const *ends, const char *opener);

static void close_block(jj_parser *p)
{
    jjp_expect(p, JJT_CLOSE_BLOCK, "the end of the tag is expected");
}

/* A body up to {% END %}, which is passed. */
static void body_until(jj_parser *p, jj_nodes *out, const char *end, const char *opener)
{
    const char *ends[] = {end, NULL};
    close_block(p);
    parse_body(p, out, ends, opener);
    jjp_next(p);
}

/* Bodies that are functions of their own in Jinja: loops around do not reach in. */
static void function_body(jj_parser *p, jj_nodes *out, const char *end, const char *opener)
{
    int loops = p->loops, soft = p->soft;
    p->loops = p->soft = 0;
    body_until(p, out, end, opener);
    p->loops = loops;
    p->soft = soft;
}

static jj_node *parse_for(jj_parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    jj_node *n = jjp_node(p, JJN_FOR);
    n->a = jjp_target(p, "in", false);
    if (!jjp_skip_name(p, "in")) jjp_fail(p, "'in' is expected");
    n->b = jjp_tuple(p, false, false, "recursive");
    if (jjp_skip_name(p, "if")) n->c = jjp_expression(p);
    n->flag = jjp_skip_name(p, "recursive");
    close_block(p);
    int soft = p->soft;
    p->soft = 0;
    p->loops++;
    parse_body(p, &n->body, ends, "for");
    p->loops--;
    p->soft = soft;
    if (jjp_skip_name(p, "else")) body_until(p, &n->other, "endfor", "for");
    else jjp_next(p);
    return n;
}

/* items: COND nodes, a the condition (NULL for else); the body of the COND is its `body`. */
static jj_node *parse_if(jj_parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    jj_node *n = jjp_node(p, JJN_IF);
    p->soft++;
    for (bool more = true; more && !p->status;) {
        jj_node *branch = jjp_node(p, JJN_COND);
        branch->a = jjp_tuple(p, false, false, NULL);
        jjp_add(p, &n->items, branch);
        close_block(p);
        parse_body(p, &branch->body, ends, "if");
        more = jjp_is_name(p, "elif");
        if (more) jjp_next(p);
    }
    if (jjp_skip_name(p, "else")) {
        jj_node *branch = jjp_node(p, JJN_COND);
        jjp_add(p, &n->items, branch);
        body_until(p, &branch->body, "endif", "if");
    } else jjp_next(p);
    p->soft--;
    return n;
}

static jj_node *parse_set(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_SET);
    n->a = jjp_target(p, NULL, true);
    if (jjp_skip(p, JJT_ASSIGN)) {
        n->b = jjp_tuple(p, true, false, NULL);
        return n;
    }
    n->kind = JJN_SET_BLOCK;
    n->b = jjp_filters(p, NULL);
    body_until(p, &n->body, "endset", "set");
    return n;
}

/* (a, b=1) */
static void parse_signature(jj_parser *p, jj_node *n)
{
    jjp_expect(p, JJT_LPAREN, "'(' is expected");
    bool defaults = false;
    while (!p->status && !jjp_is(p, JJT_RPAREN)) {
        if (n->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        jj_node *parameter = jjp_node(p, JJN_NAMED);
        parameter->text = jjp_expect(p, JJT_NAME, "a parameter's name is expected")->text;
        if (jjp_skip(p, JJT_ASSIGN)) {
            parameter->a = jjp_expression(p);
            defaults = true;
        } else if (defaults) jjp_fail(p, "a parameter without a default follows one that has one");
        jjp_add(p, &n->items, parameter);
    }
    jjp_expect(p, JJT_RPAREN, "')' is expected");
}

static jj_node *parse_macro(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_MACRO);
    n->text = jjp_expect(p, JJT_NAME, "a macro's name is expected")->text;
    parse_signature(p, n);
    function_body(p, &n->body, "endmacro", "macro");
    return n;
}

static jj_node *parse_call_block(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_CALL_BLOCK);
    if (jjp_is(p, JJT_LPAREN)) parse_signature(p, n);
    n->a = jjp_expression(p);
    if (!p->status && n->a->kind != JJN_CALL) jjp_fail(p, "a call is expected");
    function_body(p, &n->body, "endcall", "call");
    return n;
}

static jj_node *parse_filter_block(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_FILTER_BLOCK);
    n->b = jjp_filter_chain(p);
    body_until(p, &n->body, "endfilter", "filter");
    return n;
}

static jj_node *parse_with(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_WITH);
    while (!p->status && !jjp_is(p, JJT_CLOSE_BLOCK)) {
        if (n->items.n) jjp_expect(p, JJT_COMMA, "',' is expected");
        jjp_add(p, &n->items, jjp_target(p, NULL, false));
        jjp_expect(p, JJT_ASSIGN, "'=' is expected");
        jjp_add(p, &n->items, jjp_expression(p));
    }
    body_until(p, &n->body, "endwith", "with");
    return n;
}

static jj_node *parse_print(jj_parser *p)
{
    jj_node *n = jjp_node(p, JJN_OUTPUT);
    n->a = jjp_tuple(p, true, false, NULL);
    return n;
}

/* {% print a, b %} prints one after the other. */
static jj_node *print_all(jj_parser *p)
{
    jj_node *n = parse_print(p);
    if (p->status || n->a->kind != JJN_TUPLE) return n;
    n->a->kind = JJN_CONCAT;
    return n;
}

/* generation, block and autoescape only give their body a scope. */
static jj_node *parse_scope(jj_parser *p, const char *word)
{
    jj_node *n = jjp_node(p, JJN_SCOPE);
    const char *const ends[] = {!strcmp(word, "block") ? "endblock" : "endautoescape", NULL};
    if (!strcmp(word, "generation")) {
        function_body(p, &n->body, "endgeneration", word);
        return n;
    }
    if (!strcmp(word, "block")) jjp_expect(p, JJT_NAME, "a block's name is expected");
    else jjp_expression(p);
    while (jjp_skip_name(p, "scoped") || jjp_skip_name(p, "required")) {
    }
    close_block(p);
    parse_body(p, &n->body, ends, word);
    jjp_next(p);
    if (!strcmp(word, "block")) jjp_skip(p, JJT_NAME);
    return n;
}

/* Templates that stand in other files: there are none, which is an error only where they are asked
 * for. */
static jj_node *parse_foreign(jj_parser *p, const char *word)
{
    jj_node *n = jjp_node(p, JJN_FAIL);
    n->text = word;
    while (!p->status && !jjp_is(p, JJT_CLOSE_BLOCK) && !jjp_is(p, JJT_END)) jjp_next(p);
    return n;
}

static jj_node *parse_jump(jj_parser *p, jj_kind kind)
{
    if (!p->loops) jjp_fail(p, "break or continue outside of a loop");
    return jjp_node(p, kind);
}

static jj_node *parse_statement(jj_parser *p)
{
    const char *word = jjp_expect(p, JJT_NAME, "a tag's name is expected")->text;
    if (p->status) return NULL;
    if (!strcmp(word, "for")) return parse_for(p);
    if (!strcmp(word, "if")) return parse_if(p);
    if (!strcmp(word, "set")) return parse_set(p);
    if (!strcmp(word, "macro")) return parse_macro(p);
    if (!strcmp(word, "call")) return parse_call_block(p);
    if (!strcmp(word, "filter")) return parse_filter_block(p);
    if (!strcmp(word, "with")) return parse_with(p);
    if (!strcmp(word, "print")) return print_all(p);
    if (!strcmp(word, "break")) return parse_jump(p, JJN_BREAK);
    if (!strcmp(word, "continue")) return parse_jump(p, JJN_CONTINUE);
    if (!strcmp(word, "generation") || !strcmp(word, "block") || !strcmp(word, "autoescape"))
        return parse_scope(p, word);
    if (!strcmp(word, "include") || !strcmp(word, "import") || !strcmp(word, "from") ||
        !strcmp(word, "extends"))
        return parse_foreign(p, word);
    if (!p->status) p->status = jj_syntax(p->t, p->at->line, p->err, "unknown tag '%s'", word);
    return NULL;
}

static bool at_end(const jj_parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jjp_is_name(p, *ends)) return true;
    return false;
}

/* Up to a tag whose name is in `ends`; p stands on that name then. NULL: to the end of the source.
 */
static void parse_body(jj_parser *p, jj_nodes *out, const char *const *ends, const char *opener)
{
    bool ended = false;
    if (!jjp_enter(p)) return;
    while (!p->status && !ended) {
        const jj_token *k = jjp_next(p);
        if (k->type == JJT_DATA) {
            jj_node *n = jjp_node(p, JJN_TEXT);
            n->text = k->text;
            n->n_text = k->n;
            jjp_add(p, out, n);
        } else if (k->type == JJT_OPEN_VAR) {
            jj_node *n = jjp_node(p, JJN_OUTPUT);
            n->a = jjp_tuple(p, true, false, NULL);
            jjp_expect(p, JJT_CLOSE_VAR, "the end of the print tag is expected");
            jjp_add(p, out, n);
        } else if (k->type == JJT_OPEN_BLOCK) {
            if (at_end(p, ends)) ended = true;
            else {
                jj_node *n = parse_statement(p);
                if (n) jjp_add(p, out, n);
                close_block(p);
            }
        } else {
            ended = true;
            if (ends && !p->status)
                p->status = jj_syntax(p->t, k->line, p->err, "the tag '%s' is not closed", opener);
        }
    }
    p->depth--;
}

fm_status jj_parse(tx_template *t, fm_error *err)
{
    jj_tokens tokens = {0};
    fm_status status = jj_lex(t, &tokens, err);
    jj_parser p = {.t = t, .err = err, .at = tokens.items};
    if (!status) {
        parse_body(&p, &t->body, NULL, NULL);
        status = p.status;
    }
    bs_free(tokens.items);
    return status;
}
