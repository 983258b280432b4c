/* grammar_finish.c - from a builder to a finished grammar: the root, and the checks that make the
 * promise "never a dead end" true. */
#include "engine/grammar_build.h"

#include "base/mem.h"

#include <string.h>

enum { NEVER = 1 << 29 };

/* --- the root ----------------------------------------------------------------------------------
 */

static void build_call(gb *b, int from, const en_tool *tool, const en_call_format *f, int to)
{
    int name = gb_state(b), args = gb_state(b), end = gb_state(b), named = gb_state(b);
    gb_literal(b, from, f->before_name, strlen(f->before_name), name);
    gb_literal(b, name, tool->name, strlen(tool->name), named);
    gb_literal(b, named, f->before_args, strlen(f->before_args), args);
    if (f->param_open) gb_schema_tags(b, args, tool->parameters, f, end);
    else if (tool->parameters) gb_schema(b, args, tool->parameters, end);
    else gb_builtin_call(b, args, GB_OBJECT, end);
    gb_literal(b, end, f->after_args, strlen(f->after_args), to);
}

static void optional(gb *b, int from, const char *text, int to)
{
    gb_literal(b, from, text ? text : "", text ? strlen(text) : 0, to);
}

static void build_calls(gb *b, int from, const en_grammar_spec *spec, int to)
{
    const en_call_format *f = &spec->call;
    int call = gb_new_rule(b), first = gb_state(b), done = gb_state(b);
    for (int i = 0; i < spec->n_tools && !b->status; i++)
        build_call(b, b->rules[call].start, &spec->tools[i], f, b->rules[call].final);
    optional(b, from, f->list_open, first);
    gb_call(b, first, call, done);
    optional(b, done, f->list_close, to);
    if (!spec->many_calls) return;
    int next = gb_state(b);
    optional(b, done, f->between, next);
    gb_call(b, next, call, done);
}

static void build_root(gb *b, const en_grammar_spec *spec)
{
    int from = b->rules[0].start, to = b->rules[0].final;
    if (spec->free_until) {
        int after = gb_state(b), ready = gb_state(b), blank = gb_state(b);
        gb_until(b, from, spec->free_until, after);
        gb_eps(b, after, ready);
        gb_bytes(b, after, '\n', '\n', blank);
        gb_eps(b, blank, ready);
        gb_bytes(b, blank, '\n', '\n', ready);
        from = ready;
    }
    if (spec->n_tools > 0) {
        build_calls(b, from, spec, to);
    } else if (spec->schema) {
        gb_schema(b, from, spec->schema, to);
    } else {
        gb_builtin_call(b, from, GB_OBJECT, to);
    }
}

/* --- the checks --------------------------------------------------------------------------------
 */

/* need[s] = least over the ways from s to the end of its rule of the deepest stack on that way. A
 * call needs one more than its rule. Values only fall, so repeating until nothing changes ends. */
static void compute_need(en_grammar *g)
{
    for (int s = 0; s < g->n_states; s++) g->need[s] = g->final[s] ? 0 : NEVER;
    for (bool changed = true; changed;) {
        changed = false;
        for (int s = g->n_states - 1; s >= 0; s--) {
            for (int e = g->first[s]; e < g->first[s + 1]; e++) {
                const gb_edge *edge = &g->edges[e];
                int32_t cost = g->need[edge->target];
                if (edge->kind == GB_CALL) {
                    int32_t inner = g->need[g->rules[edge->rule].start] + 1;
                    if (inner > cost) cost = inner;
                }
                if (cost < g->need[s] && cost < GB_MAX_STACK) {
                    g->need[s] = cost;
                    changed = true;
                }
            }
        }
    }
}

typedef struct walk {
    const en_grammar *g;
    bool *nullable;  /* [n_rules] */
    uint8_t *colour; /* [n_rules] 0 new, 1 on the path, 2 done */
    int32_t *seen;   /* [n_states] number of the last walk that passed here */
    int32_t walks;
    int32_t *stack; /* [n_states] states to visit; shared, each level uses its own part */
} walk;

/* Collect the states of a rule reachable without a byte; returns their number in w->stack[base..].
 */
static int reach(walk *w, int rule, int base)
{
    int n = 0, i = 0;
    int32_t *list = w->stack + base;
    w->walks++;
    list[n++] = w->g->rules[rule].start;
    w->seen[list[0]] = w->walks;
    while (i < n) {
        int s = list[i++];
        for (int e = w->g->first[s]; e < w->g->first[s + 1]; e++) {
            const gb_edge *edge = &w->g->edges[e];
            bool passes =
                edge->kind == GB_EPS || (edge->kind == GB_CALL && w->nullable[edge->rule]);
            if (passes && w->seen[edge->target] != w->walks) {
                w->seen[edge->target] = w->walks;
                list[n++] = edge->target;
            }
        }
    }
    return n;
}

static void compute_nullable(walk *w)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (int r = 0; r < w->g->n_rules; r++) {
            if (w->nullable[r]) continue;
            reach(w, r, 0);
            if (w->seen[w->g->rules[r].final] == w->walks) w->nullable[r] = changed = true;
        }
    }
}

/* A rule that can come back to itself before it has consumed a byte would expand for ever. States
 * belong to one rule each, so the lists of all rules fit side by side in the stack. */
static bool left_recursive(walk *w, int rule, int base, int depth)
{
    if (depth > GB_MAX_STACK) return true;
    w->colour[rule] = 1;
    int n = reach(w, rule, base);
    for (int i = 0; i < n; i++) {
        int s = w->stack[base + i];
        for (int e = w->g->first[s]; e < w->g->first[s + 1]; e++) {
            const gb_edge *edge = &w->g->edges[e];
            if (edge->kind != GB_CALL || w->colour[edge->rule] == 2) continue;
            if (w->colour[edge->rule] == 1 || left_recursive(w, edge->rule, base + n, depth + 1))
                return true;
        }
    }
    w->colour[rule] = 2;
    return false;
}

static fm_status check(en_grammar *g, fm_error *err)
{
    compute_need(g);
    if (g->need[g->rules[g->root].start] >= GB_MAX_STACK)
        return fm_fail(err, FM_E_FORMAT,
                       "no finite value can satisfy the schema: a required part "
                       "refers to itself or a range is empty");
    walk w = {.g = g,
              .nullable = bs_calloc((size_t)g->n_rules, sizeof(bool)),
              .colour = bs_calloc((size_t)g->n_rules, 1),
              .seen = bs_calloc((size_t)g->n_states + 1, sizeof(int32_t)),
              .stack = bs_malloc(((size_t)g->n_states + 1) * sizeof(int32_t))};
    fm_status status = FM_OK;
    if (!w.nullable || !w.colour || !w.seen || !w.stack) {
        status = fm_fail_nomem(err, "checking a grammar");
    } else {
        compute_nullable(&w);
        for (int r = 0; r < g->n_rules && !status; r++)
            if (w.colour[r] == 0 && left_recursive(&w, r, 0, 0))
                status = fm_fail(err, FM_E_FORMAT,
                                 "the schema refers to itself without any content in between");
    }
    bs_free(w.nullable);
    bs_free(w.colour);
    bs_free(w.seen);
    bs_free(w.stack);
    return status;
}

/* Edges of a state side by side, in the order they were added. */
static fm_status freeze(gb *b, en_grammar *g, fm_error *err)
{
    size_t states = (size_t)b->n_states + 1;
    g->edges = bs_calloc((size_t)b->n_edges + 1, sizeof *g->edges);
    g->first = bs_calloc(states, sizeof *g->first);
    g->need = bs_calloc(states, sizeof *g->need);
    g->final = bs_calloc(states, sizeof *g->final);
    if (!g->edges || !g->first || !g->need || !g->final)
        return fm_fail_nomem(err, "compiling a grammar");
    int n = 0;
    for (int s = 0; s < b->n_states; s++) {
        g->first[s] = n;
        int count = 0;
        for (int e = b->first[s]; e >= 0; e = b->edges[e].next) count++;
        n += count;
        int at = n;
        for (int e = b->first[s]; e >= 0; e = b->edges[e].next) g->edges[--at] = b->edges[e];
    }
    g->first[b->n_states] = n;
    g->n_edges = n;
    g->n_states = b->n_states;
    g->n_rules = b->n_rules;
    g->rules = b->rules;
    b->rules = NULL;
    for (int r = 0; r < g->n_rules; r++) g->final[g->rules[r].final] = true;
    return FM_OK;
}

fm_status en_grammar_create(const en_grammar_spec *spec, en_grammar **out, fm_error *err)
{
    gb b = {.err = err};
    en_grammar *g = bs_calloc(1, sizeof *g);
    if (!g) return fm_fail_nomem(err, "compiling a grammar");
    gb_new_rule(&b);
    if (!b.status) build_root(&b, spec);
    fm_status status = b.status;
    if (!status) status = freeze(&b, g, err);
    if (!status) status = check(g, err);
    bs_free(b.edges);
    bs_free(b.first);
    bs_free(b.rules);
    if (status) en_grammar_destroy(g);
    else *out = g;
    return status;
}

void en_grammar_destroy(en_grammar *g)
{
    if (!g) return;
    bs_free(g->edges);
    bs_free(g->first);
    bs_free(g->need);
    bs_free(g->final);
    bs_free(g->rules);
    bs_free(g);
}
