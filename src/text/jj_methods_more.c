/* Short methods of str, those of dict, list, tuple, loop and cycler, and the tables of all. */
#include "text/jj_methods.h"
#include "text/jj_text_ops.h"
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#define METHOD(name, expression)                                                                   \
    static jj_value name(jj *c, jj_value self, const jj_args *args)                                \
    {                                                                                              \
        if (!jj_bind(c, args, #name, "", NULL)) return self;                                       \
        return expression;                                                                         \
    }

METHOD(upper, jj_upper(c, self.u.s))
METHOD(lower, jj_lower(c, self.u.s))
METHOD(title, jj_title(c, self.u.s))
METHOD(capitalize, jj_capitalize(c, self.u.s))
METHOD(islower_, jj_bool(jj_is_lower(self.u.s)))
METHOD(isupper_, jj_bool(jj_is_upper(self.u.s)))

static jj_value casefold(jj *c, jj_value self, const jj_args *args)
{
    if (!jj_bind(c, args, "casefold", "", NULL)) return self;
    jj_value lowered = jj_lower(c, self.u.s);
    return jj_replace(c, lowered.u.s, jj_literal(c, "\xC3\x9F").u.s, jj_literal(c, "ss").u.s, -1);
}

static jj_value stripped(jj *c, jj_value self, const jj_args *args, int sides)
{
    jj_value chars;
    if (!jj_bind(c, args, "strip", "chars", &chars)) return self;
    return jj_strip(c, self.u.s, jj_arg_str(c, chars, NULL), sides);
}

static jj_value strip(jj *c, jj_value self, const jj_args *args)
{
    return stripped(c, self, args, 3);
}

static jj_value lstrip(jj *c, jj_value self, const jj_args *args)
{
    return stripped(c, self, args, 1);
}

static jj_value rstrip(jj *c, jj_value self, const jj_args *args)
{
    return stripped(c, self, args, 2);
}

static jj_value replace(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "replace", "old*,new*,count", a)) return self;
    for (int i = 0; i < 2; i++)
        if (a[i].type != JJ_STRING)
            return jj_fail(c, "replace() argument %d must be str, not %s", i + 1,
                           jj_type_name(a[i]));
    return jj_replace(c, self.u.s, a[0].u.s, a[1].u.s, jj_arg_int(c, a[2], -1));
}

static jj_value join(jj *c, jj_value self, const jj_args *args)
{
    jj_value list;
    if (!jj_bind(c, args, "join", "iterable*", &list)) return self;
    return jj_join(c, self.u.s, jj_iterate(c, list), true);
}

static jj_value format(jj *c, jj_value self, const jj_args *args)
{
    return jj_str_format(c, self.u.s, args);
}

static jj_value format_map(jj *c, jj_value self, const jj_args *args)
{
    jj_value map;
    if (!jj_bind(c, args, "format_map", "mapping*", &map)) return self;
    if (map.type != JJ_DICT) return jj_fail(c, "format_map() needs a mapping");
    jj_args named = {.named = jj_get(c, (map.u.dict->n + 1) * sizeof *named.named)};
    for (size_t i = 0; named.named && i < map.u.dict->n && !c->failed; i++) {
        jj_entry e = map.u.dict->entries[i];
        if (e.key.type != JJ_STRING) continue;
        char *name = jj_get(c, e.key.u.s->n + 1);
        if (!name) break;
        memcpy(name, e.key.u.s->s, e.key.u.s->n);
        named.named[named.n_named++] = (struct jj_named){name, e.value};
    }
    return jj_str_format(c, self.u.s, &named);
}

/* --- str.isX
 * ------------------------------------------------------------------------------------------------
 */

typedef bool char_fn(uint32_t c);

static bool all_chars(const jj_str *s, char_fn *is)
{
    for (size_t i = 0; i < s->n;) {
        int k;
        if (!is(tx_utf8_get(s->s + i, &k))) return false;
        i += (size_t)k;
    }
    return s->n > 0;
}

static bool letter(uint32_t c)
{
    return tx_class(c) & TX_L;
}

static bool decimal(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

static bool digit(uint32_t c) /* decimals, and the superscripts and circled ones */
{
    return decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0x2070 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) ||
           (c >= 0x2474 && c <= 0x247C) || (c >= 0x2488 && c <= 0x2490) ||
           (c >= 0x2776 && c <= 0x277E) || (c >= 0x2780 && c <= 0x2788) ||
           (c >= 0x278A && c <= 0x2792);
}

static bool numeric(uint32_t c)
{
    return tx_class(c) & TX_N;
}

static bool letter_or_number(uint32_t c)
{
    return tx_class(c) & (TX_L | TX_N);
}

static bool ascii(uint32_t c)
{
    return c < 0x80;
}

static bool identifier_char(uint32_t c)
{
    return c == '_' || tx_is_word(c);
}

METHOD(isalpha_, jj_bool(all_chars(self.u.s, letter)))
METHOD(isdecimal, jj_bool(all_chars(self.u.s, decimal)))
METHOD(isdigit_, jj_bool(all_chars(self.u.s, digit)))
METHOD(isnumeric, jj_bool(all_chars(self.u.s, numeric)))
METHOD(isalnum_, jj_bool(all_chars(self.u.s, letter_or_number)))
METHOD(isspace_, jj_bool(all_chars(self.u.s, jj_py_space)))
METHOD(isascii, jj_bool(!self.u.s->n || all_chars(self.u.s, ascii)))
METHOD(isprintable, jj_bool(!self.u.s->n || all_chars(self.u.s, tx_is_printable)))
METHOD(isidentifier,
       jj_bool(all_chars(self.u.s, identifier_char) && !numeric((unsigned char)self.u.s->s[0])))

static jj_value istitle(jj *c, jj_value self, const jj_args *args)
{
    bool inside = false, any = false;
    if (!jj_bind(c, args, "istitle", "", NULL)) return self;
    for (size_t i = 0; i < self.u.s->n;) {
        int k;
        uint8_t class = tx_class(tx_utf8_get(self.u.s->s + i, &k));
        if ((class & TX_UPPER && inside) || (class & TX_LOWER && !inside)) return jj_bool(false);
        inside = class & (TX_UPPER | TX_LOWER);
        any = any || inside;
        i += (size_t)k;
    }
    return jj_bool(any);
}

/* --- dict
 * ------------------------------------------------------------------------------------------------------
 */

static jj_value view(jj *c, const jj_dict *d, const char *kind)
{
    jj_list *list = jj_new_list(c, d->n);
    for (size_t i = 0; i < d->n && !c->failed; i++) {
        jj_value v = d->entries[i].value;
        if (kind[5] == 'k') v = d->entries[i].key;
        else if (kind[5] == 'i') {
            jj_list *pair = jj_new_list(c, 2);
            jj_append(c, pair, d->entries[i].key);
            jj_append(c, pair, v);
            v = jj_list_value(JJ_TUPLE, pair);
        }
        jj_append(c, list, v);
    }
    if (!c->failed) list->kind = kind;
    return jj_list_value(JJ_VIEW, list);
}

METHOD(items, view(c, self.u.dict, "dict_items"))
METHOD(keys, view(c, self.u.dict, "dict_keys"))
METHOD(values, view(c, self.u.dict, "dict_values"))
METHOD(copy, self)

static jj_value get(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[2];
    if (args->n_named) return jj_fail(c, "dict.get() takes no keyword arguments");
    if (!jj_bind(c, args, "get", "key*,default", a)) return self;
    jj_value *v = jj_dict_find(c, self.u.dict, a[0]);
    return v ? *v : args->n > 1 ? a[1] : jj_none();
}

/* --- list, tuple, range
 * ------------------------------------------------------------------------------------------ */

static jj_value list_index(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[3];
    if (!jj_bind(c, args, "index", "value*,start,stop", a)) return self;
    jj_list *list = jj_iterate(c, self);
    int64_t n = (int64_t)list->n, from = jj_arg_int(c, a[1], 0), to = jj_arg_int(c, a[2], n);
    if (from < 0) from = from + n < 0 ? 0 : from + n;
    if (to < 0) to += n;
    for (int64_t i = from; i < n && i < to && !c->failed; i++)
        if (jj_equal(c, list->items[i], a[0])) return jj_int(i);
    return jj_fail(c, "the value is not in the %s", jj_type_name(self));
}

static jj_value list_count(jj *c, jj_value self, const jj_args *args)
{
    jj_value a;
    int64_t n = 0;
    if (!jj_bind(c, args, "count", "value*", &a)) return self;
    jj_list *list = jj_iterate(c, self);
    for (size_t i = 0; i < list->n && !c->failed; i++) n += jj_equal(c, list->items[i], a);
    return jj_int(n);
}

/* --- loop, cycler
 * --------------------------------------------------------------------------------------------------
 */

static jj_value cycle(jj *c, jj_value self, const jj_args *args)
{
    if (!args->n) return jj_fail(c, "no items for cycling given");
    return args->values[self.u.loop->at % args->n];
}

static jj_value changed(jj *c, jj_value self, const jj_args *args)
{
    jj_loop *l = self.u.loop;
    jj_list *now = jj_new_list(c, args->n);
    for (size_t i = 0; i < args->n; i++) jj_append(c, now, args->values[i]);
    jj_value v = jj_list_value(JJ_TUPLE, now);
    bool same = l->changed.type == JJ_TUPLE && jj_equal(c, l->changed, v);
    l->changed = v;
    return jj_bool(!same);
}

static jj_value cycler_next(jj *c, jj_value self, const jj_args *args)
{
    jj_object *o = self.u.object;
    if (!jj_bind(c, args, "next", "", NULL)) return self;
    jj_value v = o->items->items[o->at];
    o->at = (o->at + 1) % o->items->n;
    return v;
}

static jj_value cycler_reset(jj *c, jj_value self, const jj_args *args)
{
    if (!jj_bind(c, args, "reset", "", NULL)) return self;
    self.u.object->at = 0;
    return jj_none();
}

/* --- tables
 * --------------------------------------------------------------------------------------------------------
 */

static const jj_method_entry string_methods[] = {
    {"split", jjm_split},
    {"strip", strip},
    {"lstrip", lstrip},
    {"rstrip", rstrip},
    {"startswith", jjm_startswith},
    {"endswith", jjm_endswith},
    {"replace", replace},
    {"upper", upper},
    {"lower", lower},
    {"title", title},
    {"capitalize", capitalize},
    {"find", jjm_find},
    {"rfind", jjm_rfind},
    {"index", jjm_index},
    {"rindex", jjm_rindex},
    {"count", jjm_count},
    {"join", join},
    {"format", format},
    {"format_map", format_map},
    {"rsplit", jjm_rsplit},
    {"splitlines", jjm_splitlines},
    {"partition", jjm_partition},
    {"rpartition", jjm_rpartition},
    {"removeprefix", jjm_removeprefix},
    {"removesuffix", jjm_removesuffix},
    {"ljust", jjm_ljust},
    {"rjust", jjm_rjust},
    {"center", jjm_center},
    {"zfill", jjm_zfill},
    {"swapcase", jjm_swapcase},
    {"casefold", casefold},
    {"expandtabs", jjm_expandtabs},
    {"isalpha", isalpha_},
    {"isdigit", isdigit_},
    {"isdecimal", isdecimal},
    {"isnumeric", isnumeric},
    {"isalnum", isalnum_},
    {"isspace", isspace_},
    {"islower", islower_},
    {"isupper", isupper_},
    {"istitle", istitle},
    {"isascii", isascii},
    {"isprintable", isprintable},
    {"isidentifier", isidentifier},
    {NULL, NULL},
};
static const jj_method_entry dict_methods[] = {
    {"items", items}, {"keys", keys}, {"values", values},
    {"get", get},     {"copy", copy}, {NULL, NULL},
};
static const jj_method_entry list_methods[] = {
    {"index", list_index},
    {"count", list_count},
    {"copy", copy},
    {NULL, NULL},
};
static const jj_method_entry tuple_methods[] = {
    {"index", list_index},
    {"count", list_count},
    {NULL, NULL},
};
static const jj_method_entry loop_methods[] = {
    {"cycle", cycle}, {"changed", changed}, {NULL, NULL}};
static const jj_method_entry cycler_methods[] = {
    {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};

const jj_method_entry *jj_find_method(jj_type type, const char *name, size_t n)
{
    const jj_method_entry *e = type == JJ_STRING                      ? string_methods
                               : type == JJ_DICT                      ? dict_methods
                               : type == JJ_LIST                      ? list_methods
                               : type == JJ_TUPLE || type == JJ_RANGE ? tuple_methods
                               : type == JJ_LOOP                      ? loop_methods
                               : type == JJ_OBJECT                    ? cycler_methods
                                                                      : NULL;
    for (; e && e->name; e++)
        if (strlen(e->name) == n && !memcmp(e->name, name, n)) return e;
    return NULL;
}
