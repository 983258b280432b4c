/* What Python would say of a value: its truth, equality, order, length, elements. */
#include "text/jj.h"
#include "text/unicode.h"

#include <math.h>
#include <string.h>

const char *jj_type_name(jj_value v)
{
    switch (v.type) {
    case JJ_UNDEFINED: return "Undefined";
    case JJ_NONE: return "NoneType";
    case JJ_BOOL: return "bool";
    case JJ_INT: return "int";
    case JJ_FLOAT: return "float";
    case JJ_STRING: return v.u.s->safe ? "Markup" : "str";
    case JJ_LIST: return "list";
    case JJ_TUPLE: return "tuple";
    case JJ_DICT: return "dict";
    case JJ_RANGE: return "range";
    case JJ_VIEW: return v.u.list->kind;
    case JJ_ITERATOR: return "generator";
    case JJ_NAMESPACE: return "Namespace";
    case JJ_LOOP: return "LoopContext";
    case JJ_MACRO: return "Macro";
    case JJ_BUILTIN: return "function";
    case JJ_METHOD: return "builtin_function_or_method";
    case JJ_OBJECT: return v.u.object->kind == JJ_CYCLER ? "Cycler" : "Joiner";
    }
    return "object";
}

bool jj_is_number(jj_value v)
{
    return v.type == JJ_INT || v.type == JJ_FLOAT || v.type == JJ_BOOL;
}

double jj_as_double(jj_value v)
{
    return v.type == JJ_FLOAT  ? v.u.f
           : v.type == JJ_INT  ? (double)v.u.i
           : v.type == JJ_BOOL ? v.u.b
                               : 0;
}

bool jj_as_int(jj_value v, int64_t *out)
{
    if (v.type != JJ_INT && v.type != JJ_BOOL) return false;
    *out = v.type == JJ_INT ? v.u.i : v.u.b;
    return true;
}

bool jj_truth(jj *c, jj_value v)
{
    (void)c;
    switch (v.type) {
    case JJ_UNDEFINED:
    case JJ_NONE: return false;
    case JJ_BOOL: return v.u.b;
    case JJ_INT: return v.u.i != 0;
    case JJ_FLOAT: return v.u.f != 0;
    case JJ_STRING: return v.u.s->n != 0;
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_VIEW: return v.u.list->n != 0;
    case JJ_DICT: return v.u.dict->n != 0;
    case JJ_RANGE: return v.u.range->n != 0;
    default: return true;
    }
}

static int compare_int_double(int64_t i, double f)
{
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    int64_t whole = (int64_t)f;
    if (i != whole) return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

/* Neither may be NaN. */
static int compare_numbers(jj_value x, jj_value y)
{
    int64_t i, j;
    bool xi = jj_as_int(x, &i), yi = jj_as_int(y, &j);
    if (xi && yi) return i < j ? -1 : i > j;
    if (xi) return compare_int_double(i, y.u.f);
    if (yi) return -compare_int_double(j, x.u.f);
    return x.u.f < y.u.f ? -1 : x.u.f > y.u.f;
}

static bool is_nan(jj_value v)
{
    return v.type == JJ_FLOAT && isnan(v.u.f);
}

static int compare_strings(const jj_str *x, const jj_str *y)
{
    size_t n = x->n < y->n ? x->n : y->n;
    int r = n ? memcmp(x->s, y->s, n) : 0; /* UTF-8 sorts as code points do */
    return r ? (r < 0 ? -1 : 1) : x->n < y->n ? -1 : x->n > y->n;
}

static bool equal_lists(jj *c, const jj_list *x, const jj_list *y)
{
    if (x->n != y->n) return false;
    for (size_t i = 0; i < x->n; i++)
        if (!jj_equal(c, x->items[i], y->items[i])) return false;
    return true;
}

static bool equal_dicts(jj *c, const jj_dict *x, const jj_dict *y)
{
    if (x->n != y->n) return false;
    for (size_t i = 0; i < x->n; i++) {
        const jj_value *other = jj_dict_find(c, y, x->entries[i].key);
        if (!other || !jj_equal(c, x->entries[i].value, *other)) return false;
    }
    return true;
}

static bool equal_same_type(jj *c, jj_value x, jj_value y)
{
    switch (x.type) {
    case JJ_UNDEFINED:
    case JJ_NONE: return true;
    case JJ_STRING: return x.u.s->n == y.u.s->n && !memcmp(x.u.s->s, y.u.s->s, x.u.s->n);
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_VIEW: return x.u.list == y.u.list || equal_lists(c, x.u.list, y.u.list);
    case JJ_DICT: return x.u.dict == y.u.dict || equal_dicts(c, x.u.dict, y.u.dict);
    case JJ_RANGE:
        return x.u.range->n == y.u.range->n &&
               (!x.u.range->n || (x.u.range->start == y.u.range->start &&
                                  (x.u.range->n == 1 || x.u.range->step == y.u.range->step)));
    default: return x.u.list == y.u.list; /* the same object */
    }
}

bool jj_equal(jj *c, jj_value x, jj_value y)
{
    if (c->failed || ++c->depth > TX_TEMPLATE_MAX_DEPTH) {
        jj_fail_status(c, FM_E_LIMIT, "values are nested too deeply");
        return false;
    }
    bool same = jj_is_number(x) && jj_is_number(y)
                    ? !is_nan(x) && !is_nan(y) && !compare_numbers(x, y)
                : x.type == y.type ? equal_same_type(c, x, y)
                                   : false;
    c->depth--;
    return same;
}

int jj_order(jj *c, jj_value x, jj_value y)
{
    if (c->failed) return 0;
    if (jj_is_number(x) && jj_is_number(y))
        return is_nan(x) || is_nan(y) ? 2 : compare_numbers(x, y);
    if (x.type == JJ_STRING && y.type == JJ_STRING) return compare_strings(x.u.s, y.u.s);
    if (x.type == y.type && (x.type == JJ_LIST || x.type == JJ_TUPLE)) {
        const jj_list *a = x.u.list, *b = y.u.list;
        for (size_t i = 0; i < a->n && i < b->n; i++)
            if (!jj_equal(c, a->items[i], b->items[i]))
                return jj_order(c, a->items[i], b->items[i]);
        return a->n < b->n ? -1 : a->n > b->n;
    }
    if (x.type == JJ_UNDEFINED || y.type == JJ_UNDEFINED)
        jj_fail_undefined(c, x.type == JJ_UNDEFINED ? x : y);
    else
        jj_fail(c, "'<' not supported between instances of '%s' and '%s'", jj_type_name(x),
                jj_type_name(y));
    return 0;
}

static bool list_contains(jj *c, const jj_list *list, size_t from, jj_value item)
{
    for (size_t i = from; i < list->n; i++)
        if (jj_equal(c, list->items[i], item)) return true;
    return false;
}

static bool range_contains(const jj_range *r, jj_value item)
{
    int64_t i;
    if (item.type == JJ_FLOAT && item.u.f == floor(item.u.f) && fabs(item.u.f) < 1e15)
        i = (int64_t)item.u.f;
    else if (!jj_as_int(item, &i)) return false;
    int64_t last = r->start + (r->n - 1) * r->step;
    if (!r->n || (r->step > 0 ? i < r->start || i > last : i > r->start || i < last)) return false;
    return (i - r->start) % r->step == 0;
}

bool jj_contains(jj *c, jj_value container, jj_value item)
{
    switch (container.type) {
    case JJ_UNDEFINED: return false;
    case JJ_STRING:
        if (item.type == JJ_STRING)
            return !item.u.s->n ||
                   memmem(container.u.s->s, container.u.s->n, item.u.s->s, item.u.s->n);
        jj_fail(c, "'in <string>' requires string as left operand, not %s", jj_type_name(item));
        return false;
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_VIEW: return list_contains(c, container.u.list, 0, item);
    case JJ_ITERATOR: {
        size_t at = container.u.iterator->at;
        container.u.iterator->at = container.u.iterator->list->n;
        return list_contains(c, container.u.iterator->list, at, item);
    }
    case JJ_DICT: return jj_dict_find(c, container.u.dict, item) != NULL;
    case JJ_RANGE: return range_contains(container.u.range, item);
    default:
        jj_fail(c, "argument of type '%s' is not iterable", jj_type_name(container));
        return false;
    }
}

int64_t jj_length(jj *c, jj_value v)
{
    switch (v.type) {
    case JJ_UNDEFINED: return 0;
    case JJ_STRING: return (int64_t)tx_utf8_count(v.u.s->s, v.u.s->n);
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_VIEW: return (int64_t)v.u.list->n;
    case JJ_DICT: return (int64_t)v.u.dict->n;
    case JJ_RANGE: return v.u.range->n;
    case JJ_LOOP: return (int64_t)v.u.loop->items->n;
    default: jj_fail(c, "object of type '%s' has no len()", jj_type_name(v)); return 0;
    }
}

static jj_list *characters(jj *c, const jj_str *s)
{
    jj_list *list = jj_new_list(c, 0);
    for (size_t i = 0, k; i < s->n && !c->failed; i += k) {
        k = (size_t)tx_utf8_size((unsigned char)s->s[i]);
        jj_append(c, list, jj_string_value(jj_slice_str(c, s, i, i + k)));
    }
    return list;
}

jj_list *jj_iterate(jj *c, jj_value v)
{
    jj_list *list;
    switch (v.type) {
    case JJ_UNDEFINED: return jj_new_list(c, 0);
    case JJ_LIST:
    case JJ_TUPLE:
    case JJ_VIEW: return v.u.list;
    case JJ_STRING: return characters(c, v.u.s);
    case JJ_DICT:
        list = jj_new_list(c, v.u.dict->n);
        for (size_t i = 0; i < v.u.dict->n; i++) jj_append(c, list, v.u.dict->entries[i].key);
        return list;
    case JJ_RANGE:
        list = jj_new_list(c, (size_t)v.u.range->n);
        for (int64_t i = 0; i < v.u.range->n && !c->failed; i++)
            jj_append(c, list, jj_int(v.u.range->start + i * v.u.range->step));
        return list;
    case JJ_ITERATOR: {
        jj_iterator *it = v.u.iterator;
        list = jj_new_list(c, it->list->n - it->at);
        while (it->at < it->list->n && !c->failed) jj_append(c, list, it->list->items[it->at++]);
        return list;
    }
    default: jj_fail(c, "'%s' object is not iterable", jj_type_name(v)); return jj_new_list(c, 0);
    }
}
