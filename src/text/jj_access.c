/* v.name, v[key] and v[a:b]. As in Jinja, v.name asks the object's attributes (methods) first and
 * its keys second, v[key] the other way round; what is not there is undefined and says so when it
 * is used. */
#include "text/jj.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static jj_value missing(jj *c, jj_value v, const char *name, size_t n)
{
    size_t size = n + 80;
    char *why = jj_get(c, size);
    if (!why) return jj_undefined(NULL);
    if (v.type == JJ_UNDEFINED) return jj_undefined(v.u.why);
    snprintf(why, size, "'%s%s' has no attribute '%.*s'", jj_type_name(v), " object", (int)n, name);
    return jj_undefined(why);
}

static jj_value no_element(jj *c, jj_value v, jj_value key)
{
    const jj_str *text = jj_repr(c, key).u.s;
    size_t n = text->n < 100 ? text->n : 100, size = n + 80;
    if (key.type == JJ_STRING) return missing(c, v, key.u.s->s, key.u.s->n);
    char *why = jj_get(c, size);
    if (!why) return jj_undefined(NULL);
    snprintf(why, size, "%s object has no element %.*s", jj_type_name(v), (int)n, text->s);
    return jj_undefined(why);
}

static bool is_name(const char *s, size_t n, const char *name)
{
    return strlen(name) == n && !memcmp(s, name, n);
}

/* The mutators of list and dict: the sandbox keeps templates from calling them. */
static bool is_mutator(jj_type type, const char *s, size_t n)
{
    static const char *const list[] = {"append",  "extend", "insert", "pop", "remove",
                                       "reverse", "sort",   "clear",  NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = type == JJ_LIST ? list : type == JJ_DICT ? dict : NULL;
    for (; names && *names; names++)
        if (is_name(s, n, *names)) return true;
    return false;
}

static jj_value loop_cycle_method(jj *c, jj_value v, const char *name, size_t n)
{
    const jj_method_entry *entry = jj_find_method(v.type, name, n);
    jj_method *m = entry ? jj_get(c, sizeof *m) : NULL;
    if (!m) return jj_undefined(NULL);
    *m = (jj_method){v, entry};
    return (jj_value){.type = JJ_METHOD, .u.method = m};
}

static bool loop_attribute(const jj_loop *l, const char *s, size_t n, jj_value *out)
{
    int64_t at = (int64_t)l->at, length = (int64_t)l->items->n;
    if (is_name(s, n, "index")) *out = jj_int(at + 1);
    else if (is_name(s, n, "index0")) *out = jj_int(at);
    else if (is_name(s, n, "revindex")) *out = jj_int(length - at);
    else if (is_name(s, n, "revindex0")) *out = jj_int(length - at - 1);
    else if (is_name(s, n, "first")) *out = jj_bool(at == 0);
    else if (is_name(s, n, "last")) *out = jj_bool(at == length - 1);
    else if (is_name(s, n, "length")) *out = jj_int(length);
    else if (is_name(s, n, "depth")) *out = jj_int(l->depth);
    else if (is_name(s, n, "depth0")) *out = jj_int(l->depth - 1);
    else if (is_name(s, n, "previtem"))
        *out = at ? l->items->items[at - 1] : jj_undefined("there is no previous item");
    else if (is_name(s, n, "nextitem"))
        *out = at + 1 < length ? l->items->items[at + 1] : jj_undefined("there is no next item");
    else return false;
    return true;
}

static bool macro_attribute(jj *c, const jj_macro *m, const char *s, size_t n, jj_value *out)
{
    if (is_name(s, n, "name")) *out = jj_literal(c, m->name);
    else if (is_name(s, n, "caller")) *out = jj_bool(m->uses_caller);
    else if (is_name(s, n, "catch_varargs")) *out = jj_bool(m->uses_varargs);
    else if (is_name(s, n, "catch_kwargs")) *out = jj_bool(m->uses_kwargs);
    else if (is_name(s, n, "arguments")) {
        jj_list *list = jj_new_list(c, m->node->items.n);
        for (size_t i = 0; i < m->node->items.n; i++)
            jj_append(c, list, jj_literal(c, m->node->items.items[i]->text));
        *out = jj_list_value(JJ_TUPLE, list);
    } else return false;
    return true;
}

/* An attribute proper: no key lookup. False: there is none. */
static bool attribute(jj *c, jj_value v, const char *s, size_t n, jj_value *out)
{
    if (v.type == JJ_LOOP && loop_attribute(v.u.loop, s, n, out)) return true;
    if (v.type == JJ_MACRO) return macro_attribute(c, v.u.macro, s, n, out);
    if (v.type == JJ_NAMESPACE) {
        jj_value *found = jj_dict_find_text(v.u.dict, s, n);
        if (found) *out = *found;
        return found != NULL;
    }
    if (v.type == JJ_TUPLE && v.u.list->group &&
        (is_name(s, n, "grouper") || is_name(s, n, "list"))) {
        *out = v.u.list->items[is_name(s, n, "list")];
        return true;
    }
    if (v.type == JJ_OBJECT && v.u.object->kind == JJ_CYCLER && is_name(s, n, "current")) {
        *out = v.u.object->items->items[v.u.object->at];
        return true;
    }
    if (is_mutator(v.type, s, n) || (n > 1 && s[0] == '_' && s[1] == '_')) {
        *out = jj_undefined("access to this attribute is unsafe");
        return true;
    }
    if (jj_find_method(v.type, s, n)) {
        *out = loop_cycle_method(c, v, s, n);
        return true;
    }
    return false;
}

jj_value jj_attribute(jj *c, jj_value v, const char *name, size_t n)
{
    jj_value out;
    if (c->failed) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (attribute(c, v, name, n, &out)) return out;
    if (v.type == JJ_DICT) {
        jj_value *found = jj_dict_find_text(v.u.dict, name, n);
        if (found) return *found;
    }
    return missing(c, v, name, n);
}

static bool at_index(jj *c, jj_value v, int64_t i, jj_value *out)
{
    int64_t n = v.type == JJ_UNDEFINED ? 0 : jj_length(c, v);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return false;
    if (v.type == JJ_RANGE) *out = jj_int(v.u.range->start + i * v.u.range->step);
    else if (v.type == JJ_STRING) {
        size_t from = jj_offset(v.u.s, i);
        *out = jj_string_value(jj_slice_str(
            c, v.u.s, from, from + (size_t)tx_utf8_size((unsigned char)v.u.s->s[from])));
    } else *out = v.u.list->items[i];
    return true;
}

jj_value jj_item(jj *c, jj_value v, jj_value key)
{
    int64_t i;
    jj_value out;
    if (c->failed) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (v.type == JJ_DICT) {
        bool hashable = key.type != JJ_LIST && key.type != JJ_DICT;
        jj_value *found = hashable ? jj_dict_find(c, v.u.dict, key) : NULL;
        if (found) return *found;
    } else if (jj_as_int(key, &i) && (v.type == JJ_LIST || v.type == JJ_TUPLE ||
                                      v.type == JJ_STRING || v.type == JJ_RANGE)) {
        if (at_index(c, v, i, &out)) return out;
    }
    if (key.type == JJ_STRING && attribute(c, v, key.u.s->s, key.u.s->n, &out)) return out;
    return no_element(c, v, key);
}

/* Python's slice.indices: *start, *stop clamped for a step. */
static bool bounds(jj *c, int64_t n, jj_value start, jj_value stop, jj_value step, int64_t out[3])
{
    int64_t by = 1;
    if (step.type != JJ_NONE && !jj_as_int(step, &by))
        return jj_fail(c, "slice indices must be integers or None"), false;
    if (!by) return jj_fail(c, "slice step cannot be zero"), false;
    for (int k = 0; k < 2; k++) {
        jj_value v = k ? stop : start;
        int64_t i;
        if (v.type == JJ_NONE) i = (by > 0) == (k == 0) ? 0 : n, i = by < 0 ? (k ? -1 : n - 1) : i;
        else if (!jj_as_int(v, &i))
            return jj_fail(c, "slice indices must be integers or None"), false;
        else {
            if (i < 0 && (i += n) < 0) i = by < 0 ? -1 : 0;
            if (i >= n) i = by < 0 ? n - 1 : n;
        }
        out[k] = i;
    }
    out[2] = by;
    return true;
}

static jj_value slice_string(jj *c, const jj_str *s, const int64_t b[3])
{
    if (b[2] == 1) {
        size_t from = jj_offset(s, b[0]), to = b[1] > b[0] ? jj_offset(s, b[1]) : from;
        return jj_string_value(jj_slice_str(c, s, from, to));
    }
    jj_list *all = jj_iterate(c, jj_string_value(s));
    jj_out out = {0};
    for (int64_t i = b[0]; b[2] > 0 ? i < b[1] : i > b[1]; i += b[2]) {
        if (i < 0 || (size_t)i >= all->n || c->failed) break;
        jj_out_str(c, &out, all->items[i].u.s);
    }
    return jj_out_value(c, &out);
}

jj_value jj_slice(jj *c, jj_value v, jj_value start, jj_value stop, jj_value step)
{
    int64_t b[3];
    if (c->failed) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (v.type != JJ_STRING && v.type != JJ_LIST && v.type != JJ_TUPLE && v.type != JJ_RANGE)
        return jj_fail(c, "'%s' object cannot be sliced", jj_type_name(v));
    if (!bounds(c, jj_length(c, v), start, stop, step, b)) return v;
    if (v.type == JJ_STRING) return slice_string(c, v.u.s, b);
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, 0);
    for (int64_t i = b[0]; b[2] > 0 ? i < b[1] : i > b[1]; i += b[2]) {
        if (i < 0 || (size_t)i >= from->n || c->failed) break;
        jj_append(c, list, from->items[i]);
        if (b[2] > 0 ? i > INT64_MAX - b[2] : i < INT64_MIN - b[2]) break;
    }
    return jj_list_value(v.type == JJ_TUPLE ? JJ_TUPLE : JJ_LIST, list);
}

jj_value jj_path(jj *c, jj_value v, jj_value path)
{
    if (path.type != JJ_STRING) return jj_item(c, v, path);
    const char *s = path.u.s->s, *end = s + path.u.s->n;
    for (const char *stop; !c->failed; s = stop + 1) {
        stop = memchr(s, '.', (size_t)(end - s));
        if (!stop) stop = end;
        size_t n = (size_t)(stop - s);
        bool number = n && n < 18 && strspn(s, "0123456789") >= n;
        v = number ? jj_item(c, v, jj_int(strtoll(s, NULL, 10)))
                   : jj_item(c, v, jj_wrap(c, s, n, false));
        if (stop == end) break;
    }
    return v;
}
