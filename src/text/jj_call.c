/* Calling: macros, recursive loops, methods and the global functions. */
#include "text/jj.h"

#include <stdio.h>
#include <string.h>

bool jj_bind(jj *c, const jj_args *args, const char *what, const char *names, jj_value *out)
{
    size_t i = 0;
    size_t used = 0;
    for (const char *p = names; *p && !c->failed; i++) {
        size_t n = strcspn(p, ",");
        bool required = n && p[n - 1] == '*';
        size_t length = n - required;
        out[i] = i < args->n ? args->values[i] : jj_undefined(NULL);
        bool given = i < args->n;
        for (size_t k = 0; k < args->n_named; k++) {
            if (strlen(args->named[k].name) != length || memcmp(args->named[k].name, p, length))
                continue;
            if (given)
                jj_fail(c, "%s() got multiple values for argument '%s'", what, args->named[k].name);
            out[i] = args->named[k].value;
            given = true;
            used++;
        }
        if (required && !given)
            jj_fail(c, "%s() is missing the argument '%.*s'", what, (int)length, p);
        p += n + (p[n] == ',');
    }
    if (!c->failed && args->n > i)
        jj_fail(c, "%s() takes at most %zu arguments, %zu were given", what, i, args->n);
    if (!c->failed && used < args->n_named)
        jj_fail(c, "%s() got an unexpected keyword argument", what);
    return !c->failed;
}

/* --- macros
 * ---------------------------------------------------------------------------------------------- */

static const jj_value *named_argument(const jj_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_named; i++)
        if (!strcmp(args->named[i].name, name)) return &args->named[i].value;
    return NULL;
}

static bool is_parameter(const jj_macro *m, const char *name)
{
    for (size_t i = 0; i < m->node->items.n; i++)
        if (!strcmp(m->node->items.items[i]->text, name)) return true;
    return false;
}

/* Parameters in order; a default may use those before it. */
static void set_parameters(jj *c, const jj_macro *m, const jj_args *args)
{
    const jj_nodes *params = &m->node->items;
    for (size_t i = 0; i < params->n && !c->failed; i++) {
        const jj_node *p = params->items[i];
        const jj_value *named = named_argument(args, p->text);
        char *why;
        jj_value v;
        if (i < args->n && named)
            jj_fail(c, "macro '%s' got two values for its argument '%s'", m->name, p->text);
        if (i < args->n) v = args->values[i];
        else if (named) v = *named;
        else if (p->a) v = jj_eval(c, p->a);
        else {
            size_t size = strlen(p->text) + 40;
            if ((why = jj_get(c, size)))
                snprintf(why, size, "parameter '%s' was not provided", p->text);
            v = jj_undefined(why);
        }
        jj_set_var(c, p->text, v);
    }
}

/* Arguments beyond the parameters: varargs, kwargs and caller when the body uses them, else an
 * error. */
static void set_extra(jj *c, const jj_macro *m, const jj_args *args)
{
    jj_list *varargs = jj_new_list(c, 0);
    jj_dict *kwargs = jj_new_dict(c, 0);
    for (size_t i = m->node->items.n; i < args->n; i++) jj_append(c, varargs, args->values[i]);
    const jj_value *caller = is_parameter(m, "caller") ? NULL : named_argument(args, "caller");
    for (size_t i = 0; i < args->n_named && !c->failed; i++) {
        const char *name = args->named[i].name;
        if (is_parameter(m, name) || (caller && !strcmp(name, "caller"))) continue;
        if (!m->uses_kwargs) jj_fail(c, "macro '%s' takes no keyword argument '%s'", m->name, name);
        jj_dict_set(c, kwargs, jj_literal(c, name), args->named[i].value);
    }
    if (c->failed) return;
    if (varargs->n && !m->uses_varargs) {
        jj_fail(c, "macro '%s' takes not more than %zu argument(s)", m->name, m->node->items.n);
        return;
    }
    if (caller && !m->uses_caller)
        jj_fail(c,
                "macro '%s' was invoked with two values for the special caller argument or does "
                "not use it",
                m->name);
    if (m->uses_varargs) jj_set_var(c, "varargs", jj_list_value(JJ_TUPLE, varargs));
    if (m->uses_kwargs) jj_set_var(c, "kwargs", (jj_value){.type = JJ_DICT, .u.dict = kwargs});
    if (m->uses_caller && !is_parameter(m, "caller"))
        jj_set_var(c, "caller", caller ? *caller : jj_undefined("No caller defined"));
}

static jj_value call_macro(jj *c, const jj_macro *m, const jj_args *args)
{
    jj_out out = {0}, *kept = c->out;
    jj_scope *outer = c->scope;
    c->scope = jj_new_scope(c, m->scope);
    c->out = &out;
    set_parameters(c, m, args);
    set_extra(c, m, args);
    if (!c->failed) jj_exec(c, &m->node->body);
    c->out = kept;
    c->scope = outer;
    return jj_out_value(c, &out);
}

static jj_value call_loop(jj *c, jj_loop *l, const jj_args *args)
{
    jj_value iterable;
    if (!l->node->flag) return jj_fail(c, "the loop is not marked as recursive");
    if (!jj_bind(c, args, "loop", "iterable*", &iterable)) return iterable;
    jj_out out = {0}, *kept = c->out;
    c->out = &out;
    jj_run_loop(c, l->node, iterable, l->depth + 1, l->scope);
    c->out = kept;
    return jj_out_value(c, &out);
}

static jj_value call_joiner(jj *c, jj_object *o)
{
    if (o->at++) return o->separator;
    return jj_literal(c, "");
}

jj_value jj_call(jj *c, jj_value f, const jj_args *args)
{
    if (!jj_step(c)) return f;
    switch (f.type) {
    case JJ_MACRO: return call_macro(c, f.u.macro, args);
    case JJ_LOOP: return call_loop(c, f.u.loop, args);
    case JJ_BUILTIN: return f.u.builtin->fn(c, args);
    case JJ_METHOD: return f.u.method->entry->fn(c, f.u.method->self, args);
    case JJ_UNDEFINED: return jj_fail_undefined(c, f);
    case JJ_OBJECT:
        if (f.u.object->kind == JJ_JOINER) return call_joiner(c, f.u.object);
        /* fall through */
    default: return jj_fail(c, "'%s' object is not callable", jj_type_name(f));
    }
}

/* --- globals
 * -------------------------------------------------------------------------------------------------
 */

static jj_value fn_range(jj *c, const jj_args *args)
{
    jj_value v[3];
    int64_t n[3] = {0, 0, 1};
    if (!jj_bind(c, args, "range", "start*,stop,step", v)) return v[0];
    for (int i = 0; i < 3; i++)
        if ((size_t)i < args->n && !jj_as_int(v[i], &n[i]))
            return v[i].type == JJ_UNDEFINED
                       ? jj_fail_undefined(c, v[i])
                       : jj_fail(c, "'%s' object cannot be interpreted as an integer",
                                 jj_type_name(v[i]));
    if (args->n < 2) n[1] = n[0], n[0] = 0;
    if (!n[2]) return jj_fail(c, "range() arg 3 must not be zero");
    __int128 distance = n[2] > 0 ? (__int128)n[1] - n[0] : (__int128)n[0] - n[1];
    __int128 step = n[2] > 0 ? n[2] : -(__int128)n[2],
             count = distance > 0 ? (distance + step - 1) / step : 0;
    if (count > 100000)
        return jj_fail(c,
                       "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
    jj_range *r = jj_get(c, sizeof *r);
    if (!r) return jj_none();
    *r = (jj_range){n[0], n[1], n[2], (int64_t)count};
    return (jj_value){.type = JJ_RANGE, .u.range = r};
}

/* dict(mapping or pairs, **named); namespace is the same with another type. */
static jj_value make_dict(jj *c, const jj_args *args, jj_type type)
{
    jj_dict *d = jj_new_dict(c, args->n_named);
    if (args->n > 1) return jj_fail(c, "dict expected at most 1 argument, got %zu", args->n);
    if (args->n && args->values[0].type == JJ_DICT) {
        const jj_dict *from = args->values[0].u.dict;
        for (size_t i = 0; i < from->n; i++)
            jj_dict_set(c, d, from->entries[i].key, from->entries[i].value);
    } else if (args->n) {
        jj_list *pairs = jj_iterate(c, args->values[0]);
        for (size_t i = 0; i < pairs->n && !c->failed; i++) {
            jj_list *pair = jj_iterate(c, pairs->items[i]);
            if (c->failed) break;
            if (pair->n != 2)
                jj_fail(c, "dictionary update sequence element #%zu has length %zu; 2 is required",
                        i, pair->n);
            else jj_dict_set(c, d, pair->items[0], pair->items[1]);
        }
    }
    for (size_t i = 0; i < args->n_named; i++)
        jj_dict_set(c, d, jj_literal(c, args->named[i].name), args->named[i].value);
    return (jj_value){.type = type, .u.dict = d};
}

static jj_value fn_dict(jj *c, const jj_args *args)
{
    return make_dict(c, args, JJ_DICT);
}

static jj_value fn_namespace(jj *c, const jj_args *args)
{
    return make_dict(c, args, JJ_NAMESPACE);
}

static jj_value fn_raise(jj *c, const jj_args *args)
{
    jj_value v;
    if (!jj_bind(c, args, "raise_exception", "message*", &v)) return v;
    const jj_str *text = jj_str_of(c, v);
    if (c->failed) return v;
    bs_buf_append(&c->rendered->raised, text->s, text->n);
    c->failed = true;
    c->status = fm_fail(c->err, FM_E_ARGUMENT, "the chat template refuses: %.*s",
                        (int)(text->n < 450 ? text->n : 450), text->s);
    return v;
}

static jj_value fn_strftime(jj *c, const jj_args *args)
{
    jj_value v;
    char format[256], text[1024];
    struct tm tm;
    if (!jj_bind(c, args, "strftime_now", "format*", &v)) return v;
    if (v.type != JJ_STRING)
        return jj_fail(c, "strftime() argument 1 must be str, not %s", jj_type_name(v));
    if (v.u.s->n >= sizeof format) return jj_fail(c, "a time format of more than 255 bytes");
    memcpy(format, v.u.s->s, v.u.s->n);
    format[v.u.s->n] = 0;
    localtime_r(&c->now, &tm);
    size_t n = *format ? strftime(text, sizeof text, format, &tm) : 0;
    return jj_text(c, text, n, false);
}

static jj_value new_object(jj *c, int kind, jj_list *items, jj_value separator)
{
    jj_object *o = jj_get(c, sizeof *o);
    if (!o) return jj_none();
    *o = (jj_object){.kind = kind, .items = items, .separator = separator};
    return (jj_value){.type = JJ_OBJECT, .u.object = o};
}

static jj_value fn_cycler(jj *c, const jj_args *args)
{
    jj_list *items = jj_new_list(c, args->n);
    for (size_t i = 0; i < args->n; i++) jj_append(c, items, args->values[i]);
    if (!items->n) return jj_fail(c, "at least one item has to be provided");
    return new_object(c, JJ_CYCLER, items, jj_none());
}

static jj_value fn_joiner(jj *c, const jj_args *args)
{
    jj_value v;
    if (!jj_bind(c, args, "joiner", "sep", &v)) return v;
    return new_object(c, JJ_JOINER, NULL, v.type == JJ_UNDEFINED ? jj_literal(c, ", ") : v);
}

static const jj_builtin builtins[] = {
    {"range", fn_range},           {"dict", fn_dict},
    {"namespace", fn_namespace},   {"raise_exception", fn_raise},
    {"strftime_now", fn_strftime}, {"cycler", fn_cycler},
    {"joiner", fn_joiner},
};

const jj_builtin *jj_find_builtin(const char *name)
{
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
        if (!strcmp(builtins[i].name, name)) return &builtins[i];
    return NULL;
}
