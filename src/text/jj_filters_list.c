/* Filters on sequences and mappings. */
#include "text/jj_text_ops.h"

#include <string.h>

static bool absent(jj_value v)
{
    return v.type == JJ_UNDEFINED || v.type == JJ_NONE;
}

static jj_value default_filter(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "default", "default_value,boolean", a)) return v;
    if (v.type != JJ_UNDEFINED && !(jj_truth(c, a[1]) && !jj_truth(c, v))) return v;
    return a[0].type == JJ_UNDEFINED ? jj_literal(c, "") : a[0];
}

static jj_value length(jj *c, jj_value v, const jj_args *args)
{
    return jj_bind(c, args, "length", "", NULL) ? jj_int(jj_length(c, v)) : v;
}

static jj_value first(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "first", "", NULL)) return v;
    if (v.type == JJ_ITERATOR) { /* takes one element only */
        jj_iterator *it = v.u.iterator;
        return it->at < it->list->n ? it->list->items[it->at++]
                                    : jj_undefined("No first item, sequence was empty.");
    }
    jj_list *list = jj_iterate(c, v);
    return list->n ? list->items[0] : jj_undefined("No first item, sequence was empty.");
}

static jj_value last(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "last", "", NULL)) return v;
    if (v.type == JJ_ITERATOR) return jj_fail(c, "'generator' object is not reversible");
    jj_list *list = jj_iterate(c, v);
    return list->n ? list->items[list->n - 1] : jj_undefined("No last item, sequence was empty.");
}

static jj_value list_filter(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "list", "", NULL)) return v;
    return jj_list_value(JJ_LIST, jj_iterate(c, v));
}

/* The attribute= of a filter, applied to an element; without one the element itself. */
static jj_value by_attribute(jj *c, jj_value v, jj_value attribute)
{
    return absent(attribute) ? v : jj_path(c, v, attribute);
}

static jj_value join(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "join", "d,attribute", a)) return v;
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, from->n);
    for (size_t i = 0; i < from->n && !c->failed; i++)
        jj_append(c, list, by_attribute(c, from->items[i], a[1]));
    const jj_str *d = a[0].type == JJ_UNDEFINED ? jj_literal(c, "").u.s : jj_str_of(c, a[0]);
    return jj_join(c, d, list, false);
}

static jj_value reverse(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "reverse", "", NULL)) return v;
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, from->n);
    for (size_t i = from->n; i-- > 0 && !c->failed;) jj_append(c, list, from->items[i]);
    if (v.type == JJ_STRING) return jj_join(c, jj_literal(c, "").u.s, list, false);
    return v.type == JJ_ITERATOR ? jj_list_value(JJ_LIST, list) : jj_iterator_value(c, list);
}

static jj_value sum(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "sum", "attribute,start", a)) return v;
    jj_value total = a[1].type == JJ_UNDEFINED ? jj_int(0) : a[1];
    jj_list *list = jj_iterate(c, v);
    for (size_t i = 0; i < list->n && !c->failed; i++)
        total = jj_binary(c, JJT_ADD, total, by_attribute(c, list->items[i], a[0]));
    return total;
}

/* --- order
 * ----------------------------------------------------------------------------------------------------
 */

static jj_value key_of(jj *c, jj_value v, bool case_sensitive)
{
    return v.type == JJ_STRING && !case_sensitive ? jj_lower(c, v.u.s) : v;
}

typedef struct keyed {
    jj_value key, item;
} keyed;

/* Stable merge sort; reverse keeps equal elements in their order, as Python does. */
static void merge_sort(jj *c, keyed *a, keyed *spare, size_t n, bool reverse)
{
    if (n < 2 || !jj_step(c)) return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    merge_sort(c, a, spare, half, reverse);
    merge_sort(c, a + half, spare, n - half, reverse);
    while (i < half && j < n && !c->failed) {
        bool take_right =
            reverse ? jj_order(c, a[i].key, a[j].key) == -1 : jj_order(c, a[j].key, a[i].key) == -1;
        spare[k++] = take_right ? a[j++] : a[i++];
    }
    while (i < half) spare[k++] = a[i++];
    while (j < n) spare[k++] = a[j++];
    memcpy(a, spare, k * sizeof *a);
}

static jj_list *sorted(jj *c, keyed *items, size_t n, bool reverse)
{
    keyed *spare = n ? jj_get(c, n * sizeof *spare) : NULL;
    jj_list *list = jj_new_list(c, n);
    if (spare) merge_sort(c, items, spare, n, reverse);
    for (size_t i = 0; spare && i < n; i++) jj_append(c, list, items[i].item);
    return list;
}

/* The sort key by "a,b.c". It is a list also for one attribute, as in Jinja: lists compare equal
 * elements first, so that two that have no order (None, undefined) do not fail. */
static jj_value sort_key(jj *c, jj_value v, jj_value attribute, bool case_sensitive)
{
    jj_list *keys = jj_new_list(c, 1);
    if (attribute.type != JJ_STRING) {
        jj_append(c, keys, key_of(c, by_attribute(c, v, attribute), case_sensitive));
        return jj_list_value(JJ_LIST, keys);
    }
    const jj_str *s = attribute.u.s;
    for (size_t at = 0; at <= s->n && !c->failed;) {
        const char *comma = memchr(s->s + at, ',', s->n - at);
        size_t to = comma ? (size_t)(comma - s->s) : s->n;
        jj_value part = jj_path(c, v, jj_string_value(jj_slice_str(c, s, at, to)));
        jj_append(c, keys, key_of(c, part, case_sensitive));
        at = to + 1;
    }
    return jj_list_value(JJ_LIST, keys);
}

static keyed *with_keys(jj *c, const jj_list *list, jj_value attribute, bool case_sensitive)
{
    keyed *items = list->n ? jj_get(c, list->n * sizeof *items) : NULL;
    for (size_t i = 0; items && i < list->n && !c->failed; i++)
        items[i] = (keyed){sort_key(c, list->items[i], attribute, case_sensitive), list->items[i]};
    return items;
}

static jj_value sort(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "sort", "reverse,case_sensitive,attribute", a)) return v;
    jj_list *from = jj_iterate(c, v);
    keyed *items = with_keys(c, from, a[2], jj_truth(c, a[1]));
    if (!items) return jj_list_value(JJ_LIST, jj_new_list(c, 0));
    return jj_list_value(JJ_LIST, sorted(c, items, from->n, jj_truth(c, a[0])));
}

static jj_value extreme(jj *c, jj_value v, const jj_args *args, int wanted, const char *name)
{
    jj_value a[2];
    if (!jj_bind(c, args, name, "case_sensitive,attribute", a)) return v;
    jj_list *list = jj_iterate(c, v);
    keyed *items = with_keys(c, list, a[1], jj_truth(c, a[0]));
    size_t best = 0;
    if (!items) return jj_undefined("No aggregated item, sequence was empty.");
    for (size_t i = 1; i < list->n && !c->failed; i++)
        if (jj_order(c, items[i].key, items[best].key) == wanted) best = i;
    return items[best].item;
}

static jj_value max(jj *c, jj_value v, const jj_args *args)
{
    return extreme(c, v, args, 1, "max");
}

static jj_value min(jj *c, jj_value v, const jj_args *args)
{
    return extreme(c, v, args, -1, "min");
}

static jj_value unique(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "unique", "case_sensitive,attribute", a)) return v;
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, 0);
    jj_dict *seen = jj_new_dict(c, 0);
    for (size_t i = 0; i < from->n && !c->failed; i++) {
        jj_value key = key_of(c, by_attribute(c, from->items[i], a[1]), jj_truth(c, a[0]));
        if (c->failed || jj_dict_find(c, seen, key)) continue;
        jj_dict_set(c, seen, key, jj_none());
        jj_append(c, list, from->items[i]);
    }
    return jj_iterator_value(c, list);
}

/* Sorted by the attribute, then cut where it changes: (grouper, list) tuples. */
static jj_value groupby(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "groupby", "attribute*,default,case_sensitive", a)) return v;
    jj_list *from = jj_iterate(c, v), *groups = jj_new_list(c, 0);
    keyed *items = from->n ? jj_get(c, from->n * sizeof *items) : NULL;
    bool case_sensitive = jj_truth(c, a[2]);
    for (size_t i = 0; items && i < from->n && !c->failed; i++) {
        jj_value key = jj_path(c, from->items[i], a[0]);
        if (key.type == JJ_UNDEFINED && !absent(a[1])) key = a[1];
        items[i] = (keyed){key_of(c, key, case_sensitive), from->items[i]};
    }
    jj_list *ordered = items ? sorted(c, items, from->n, false) : from;
    jj_value current = jj_none();
    jj_list *members = NULL;
    for (size_t i = 0; i < ordered->n && !c->failed; i++) {
        if (!members || !jj_equal(c, current, items[i].key)) {
            current = items[i].key;
            members = jj_new_list(c, 0);
            jj_list *pair = jj_new_list(c, 2);
            jj_value name = jj_path(c, ordered->items[i], a[0]);
            jj_append(c, pair, name.type == JJ_UNDEFINED && !absent(a[1]) ? a[1] : name);
            jj_append(c, pair, jj_list_value(JJ_LIST, members));
            if (!c->failed) pair->group = true;
            jj_append(c, groups, jj_list_value(JJ_TUPLE, pair));
        }
        jj_append(c, members, ordered->items[i]);
    }
    return jj_list_value(JJ_LIST, groups);
}

/* --- mappings
 * ----------------------------------------------------------------------------------------------------
 */

static jj_value pair_of(jj *c, jj_entry e)
{
    jj_list *pair = jj_new_list(c, 2);
    jj_append(c, pair, e.key);
    jj_append(c, pair, e.value);
    return jj_list_value(JJ_TUPLE, pair);
}

static jj_value items_filter(jj *c, jj_value v, const jj_args *args)
{
    if (!jj_bind(c, args, "items", "", NULL)) return v;
    if (v.type == JJ_UNDEFINED) return jj_iterator_value(c, jj_new_list(c, 0));
    if (v.type != JJ_DICT) return jj_fail(c, "Can only get item pairs from a mapping.");
    jj_list *list = jj_new_list(c, v.u.dict->n);
    for (size_t i = 0; i < v.u.dict->n; i++) jj_append(c, list, pair_of(c, v.u.dict->entries[i]));
    return jj_iterator_value(c, list);
}

static jj_value dictsort(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "dictsort", "case_sensitive,by,reverse", a)) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    if (v.type != JJ_DICT)
        return jj_fail(c, "'%s' object has no attribute 'items'", jj_type_name(v));
    const jj_str *by = jj_arg_str(c, a[1], jj_literal(c, "key").u.s);
    bool value = jj_str_is(by, "value");
    if (!value && !jj_str_is(by, "key"))
        return jj_fail(c, "You can only sort by either \"key\" or \"value\"");
    const jj_dict *d = v.u.dict;
    keyed *items = d->n ? jj_get(c, d->n * sizeof *items) : NULL;
    for (size_t i = 0; items && i < d->n && !c->failed; i++) {
        jj_entry e = d->entries[i];
        items[i] = (keyed){key_of(c, value ? e.value : e.key, jj_truth(c, a[0])), pair_of(c, e)};
    }
    return jj_list_value(JJ_LIST,
                         items ? sorted(c, items, d->n, jj_truth(c, a[2])) : jj_new_list(c, 0));
}

static jj_value attr(jj *c, jj_value v, const jj_args *args)
{
    jj_value name;
    if (!jj_bind(c, args, "attr", "name*", &name)) return v;
    if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
    const jj_str *s = jj_str_of(c, name);
    jj_value hidden = v; /* attributes only: the keys of a dict are not looked at */
    if (v.type == JJ_DICT) hidden.u.dict = jj_new_dict(c, 0);
    jj_value out = jj_attribute(c, hidden, s->s, s->n);
    if (v.type == JJ_DICT && out.type == JJ_METHOD) return jj_attribute(c, v, s->s, s->n);
    return out;
}

/* --- map, select, reject
 * -------------------------------------------------------------------------------------------- */

static const char *function_name(jj *c, jj_value v, char out[64])
{
    if (v.type != JJ_STRING || v.u.s->n > 63) {
        jj_fail(c, "a filter's or test's name is expected");
        return NULL;
    }
    memcpy(out, v.u.s->s, v.u.s->n);
    out[v.u.s->n] = 0;
    return out;
}

/* As in Jinja a false value, None too, has no elements here, and the arguments are not looked at.
 */
static jj_value nothing(jj *c)
{
    return jj_iterator_value(c, jj_new_list(c, 0));
}

static jj_value map_attribute(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    jj_list *list = jj_new_list(c, 0);
    if (!jj_bind(c, args, "map", "attribute*,default", a)) return v;
    jj_list *from = jj_iterate(c, v);
    for (size_t i = 0; i < from->n && !c->failed; i++) {
        jj_value item = jj_path(c, from->items[i], a[0]);
        jj_append(c, list, item.type == JJ_UNDEFINED && !absent(a[1]) ? a[1] : item);
    }
    return jj_iterator_value(c, list);
}

static jj_value map(jj *c, jj_value v, const jj_args *args)
{
    char name[64];
    if (!jj_truth(c, v)) return nothing(c);
    if (!args->n && args->n_named && !strcmp(args->named[0].name, "attribute"))
        return map_attribute(c, v, args);
    if (!args->n) {
        for (size_t i = 0; i < args->n_named; i++)
            if (!strcmp(args->named[i].name, "attribute")) return map_attribute(c, v, args);
        return jj_fail(c, "map requires a filter argument");
    }
    if (!function_name(c, args->values[0], name)) return v;
    jj_filter_fn *fn = jj_find_filter(name);
    if (!fn) return jj_fail(c, "No filter named '%s'.", name);
    jj_args rest = *args;
    rest.values++;
    rest.n--;
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, from->n);
    for (size_t i = 0; i < from->n && jj_step(c); i++)
        jj_append(c, list, fn(c, from->items[i], &rest));
    return jj_iterator_value(c, list);
}

static jj_value choose(jj *c, jj_value v, const jj_args *args, bool by_attr, bool wanted)
{
    char name[64];
    size_t used = by_attr ? 1 : 0;
    if (!jj_truth(c, v)) return nothing(c);
    if (args->n < used) return jj_fail(c, "Missing parameter for attribute name");
    jj_test_fn *test = NULL;
    jj_args rest = *args;
    if (args->n > used) {
        if (!function_name(c, args->values[used], name)) return v;
        if (!(test = jj_find_test(name))) return jj_fail(c, "No test named '%s'.", name);
        used++;
    }
    rest.values += used;
    rest.n -= used;
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, 0);
    for (size_t i = 0; i < from->n && jj_step(c); i++) {
        jj_value item = by_attr ? jj_path(c, from->items[i], args->values[0]) : from->items[i];
        if (c->failed) break;
        bool holds = test ? test(c, item, &rest) : jj_truth(c, item);
        if (holds == wanted) jj_append(c, list, from->items[i]);
    }
    return jj_iterator_value(c, list);
}

static jj_value select_filter(jj *c, jj_value v, const jj_args *args)
{
    return choose(c, v, args, false, true);
}

static jj_value reject(jj *c, jj_value v, const jj_args *args)
{
    return choose(c, v, args, false, false);
}

static jj_value selectattr(jj *c, jj_value v, const jj_args *args)
{
    return choose(c, v, args, true, true);
}

static jj_value rejectattr(jj *c, jj_value v, const jj_args *args)
{
    return choose(c, v, args, true, false);
}

/* --- batch, slice
 * ------------------------------------------------------------------------------------------------------
 */

static jj_value batch(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "batch", "linecount*,fill_with", a)) return v;
    int64_t n = jj_arg_int(c, a[0], 0);
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, 0), *row = NULL;
    if (n < 1 || n > 1000000) return jj_fail(c, "batch needs a number of elements");
    for (size_t i = 0; i < from->n && !c->failed; i++) {
        if (!row || row->n == (size_t)n)
            jj_append(c, list, jj_list_value(JJ_LIST, row = jj_new_list(c, 0)));
        jj_append(c, row, from->items[i]);
    }
    while (row && !absent(a[1]) && row->n < (size_t)n && !c->failed) jj_append(c, row, a[1]);
    return jj_iterator_value(c, list);
}

static jj_value slice(jj *c, jj_value v, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "slice", "slices*,fill_with", a)) return v;
    int64_t n = jj_arg_int(c, a[0], 0);
    jj_list *from = jj_iterate(c, v), *list = jj_new_list(c, 0);
    if (n < 1 || n > 1000000) return jj_fail(c, "slice needs a number of slices");
    size_t each = from->n / (size_t)n, more = from->n % (size_t)n, at = 0;
    for (size_t i = 0; i < (size_t)n && !c->failed; i++) {
        jj_list *row = jj_new_list(c, each + 1);
        for (size_t k = 0; k < each + (i < more); k++) jj_append(c, row, from->items[at++]);
        if (!absent(a[1]) && i >= more) jj_append(c, row, a[1]);
        jj_append(c, list, jj_list_value(JJ_LIST, row));
    }
    return jj_iterator_value(c, list);
}

static jj_value pprint(jj *c, jj_value v, const jj_args *args)
{
    return jj_bind(c, args, "pprint", "", NULL) ? jj_repr(c, v) : v;
}

const jj_filter_entry jj_list_filters[] = {
    {"default", default_filter},
    {"d", default_filter},
    {"length", length},
    {"count", length},
    {"first", first},
    {"last", last},
    {"list", list_filter},
    {"join", join},
    {"reverse", reverse},
    {"sum", sum},
    {"sort", sort},
    {"max", max},
    {"min", min},
    {"unique", unique},
    {"groupby", groupby},
    {"items", items_filter},
    {"dictsort", dictsort},
    {"attr", attr},
    {"map", map},
    {"select", select_filter},
    {"reject", reject},
    {"selectattr", selectattr},
    {"rejectattr", rejectattr},
    {"batch", batch},
    {"slice", slice},
    {"pprint", pprint},
    {NULL, NULL},
};

jj_filter_fn *jj_find_filter(const char *name)
{
    const jj_filter_entry *tables[] = {jj_text_filters, jj_list_filters};
    for (int t = 0; t < 2; t++)
        for (const jj_filter_entry *e = tables[t]; e->name; e++)
            if (!strcmp(e->name, name)) return e->fn;
    return NULL;
}
