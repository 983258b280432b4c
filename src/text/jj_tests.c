/* The tests: `x is NAME`. */
#include "text/jj.h"
#include "text/unicode.h"

#include <string.h>

static bool one(jj *c, const jj_args *args, jj_value *out)
{
    return jj_bind(c, args, "test", "other*", out);
}

static bool none(jj *c, const jj_args *args)
{
    return jj_bind(c, args, "test", "", NULL);
}

#define SIMPLE(name, condition)                                                                    \
    static bool name(jj *c, jj_value v, const jj_args *args)                                       \
    {                                                                                              \
        return none(c, args) && (condition);                                                       \
    }

SIMPLE(is_defined, v.type != JJ_UNDEFINED)
SIMPLE(is_undefined, v.type == JJ_UNDEFINED)
SIMPLE(is_none, v.type == JJ_NONE)
SIMPLE(is_boolean, v.type == JJ_BOOL)
SIMPLE(is_true, v.type == JJ_BOOL && v.u.b)
SIMPLE(is_false, v.type == JJ_BOOL && !v.u.b)
SIMPLE(is_integer, v.type == JJ_INT)
SIMPLE(is_float, v.type == JJ_FLOAT)
SIMPLE(is_number, jj_is_number(v))
SIMPLE(is_string, v.type == JJ_STRING)
SIMPLE(is_mapping, v.type == JJ_DICT)
SIMPLE(is_escaped, v.type == JJ_STRING && v.u.s->safe)
SIMPLE(is_iterable, v.type == JJ_UNDEFINED || (v.type >= JJ_STRING && v.type <= JJ_ITERATOR) ||
                        v.type == JJ_LOOP)
SIMPLE(is_sequence, v.type == JJ_UNDEFINED || (v.type >= JJ_STRING && v.type <= JJ_RANGE))
SIMPLE(is_callable, v.type == JJ_UNDEFINED || v.type == JJ_MACRO || v.type == JJ_BUILTIN ||
                        v.type == JJ_METHOD || v.type == JJ_LOOP ||
                        (v.type == JJ_OBJECT && v.u.object->kind == JJ_JOINER))

static bool remainder_is(jj *c, jj_value v, jj_value by, int64_t want)
{
    jj_value r = jj_binary(c, JJT_MOD, v, by);
    return !c->failed && jj_equal(c, r, jj_int(want));
}

static bool is_even(jj *c, jj_value v, const jj_args *args)
{
    return none(c, args) && remainder_is(c, v, jj_int(2), 0);
}

static bool is_odd(jj *c, jj_value v, const jj_args *args)
{
    return none(c, args) && remainder_is(c, v, jj_int(2), 1);
}

static bool is_divisible(jj *c, jj_value v, const jj_args *args)
{
    jj_value by;
    return one(c, args, &by) && remainder_is(c, v, by, 0);
}

static bool is_equal(jj *c, jj_value v, const jj_args *args)
{
    jj_value other;
    return one(c, args, &other) && jj_equal(c, v, other);
}

static bool is_unequal(jj *c, jj_value v, const jj_args *args)
{
    jj_value other;
    return one(c, args, &other) && !jj_equal(c, v, other);
}

/* -1, 0, 1; 2 when the two have no order (a NaN, or a failure). */
static int order(jj *c, jj_value v, const jj_args *args)
{
    jj_value other;
    int r = one(c, args, &other) ? jj_order(c, v, other) : 2;
    return c->failed ? 2 : r;
}

static bool is_less(jj *c, jj_value v, const jj_args *args)
{
    return order(c, v, args) == -1;
}

static bool is_greater(jj *c, jj_value v, const jj_args *args)
{
    return order(c, v, args) == 1;
}

static bool is_at_most(jj *c, jj_value v, const jj_args *args)
{
    return order(c, v, args) <= 0;
}

static bool is_at_least(jj *c, jj_value v, const jj_args *args)
{
    int r = order(c, v, args);
    return r == 0 || r == 1;
}

static bool is_in(jj *c, jj_value v, const jj_args *args)
{
    jj_value other;
    return one(c, args, &other) && jj_contains(c, other, v);
}

static bool is_same(jj *c, jj_value v, const jj_args *args)
{
    jj_value other;
    if (!one(c, args, &other) || v.type != other.type) return false;
    switch (v.type) {
    case JJ_LIST:
    case JJ_DICT:
    case JJ_NAMESPACE:
    case JJ_TUPLE: return v.u.list == other.u.list;
    default: return jj_equal(c, v, other);
    }
}

/* str.islower() and isupper(): some cased letter, and none of the other case. */
static bool all_case(const jj_str *s, uint8_t want, uint8_t other)
{
    bool any = false;
    for (size_t i = 0; i < s->n;) {
        int k;
        uint8_t class = tx_class(tx_utf8_get(s->s + i, &k));
        if (class & other) return false;
        any = any || class & want;
        i += (size_t)k;
    }
    return any;
}

bool jj_is_lower(const jj_str *s)
{
    return all_case(s, TX_LOWER, TX_UPPER);
}

bool jj_is_upper(const jj_str *s)
{
    return all_case(s, TX_UPPER, TX_LOWER);
}

SIMPLE(is_lower, jj_is_lower(jj_str_of(c, v)))
SIMPLE(is_upper, jj_is_upper(jj_str_of(c, v)))

static bool named(jj *c, jj_value v, char out[64])
{
    (void)c;
    if (v.type != JJ_STRING || v.u.s->n > 63) return false;
    memcpy(out, v.u.s->s, v.u.s->n);
    out[v.u.s->n] = 0;
    return true;
}

static bool is_filter(jj *c, jj_value v, const jj_args *args)
{
    char name[64];
    return none(c, args) && named(c, v, name) && jj_find_filter(name);
}

static bool is_test(jj *c, jj_value v, const jj_args *args)
{
    char name[64];
    return none(c, args) && named(c, v, name) && jj_find_test(name);
}

static const jj_test_entry tests[] = {
    {"defined", is_defined},   {"undefined", is_undefined},
    {"none", is_none},         {"boolean", is_boolean},
    {"true", is_true},         {"false", is_false},
    {"integer", is_integer},   {"float", is_float},
    {"number", is_number},     {"string", is_string},
    {"mapping", is_mapping},   {"escaped", is_escaped},
    {"iterable", is_iterable}, {"sequence", is_sequence},
    {"callable", is_callable}, {"even", is_even},
    {"odd", is_odd},           {"divisibleby", is_divisible},
    {"eq", is_equal},          {"equalto", is_equal},
    {"==", is_equal},          {"ne", is_unequal},
    {"!=", is_unequal},        {"lt", is_less},
    {"lessthan", is_less},     {"<", is_less},
    {"gt", is_greater},        {"greaterthan", is_greater},
    {">", is_greater},         {"le", is_at_most},
    {"<=", is_at_most},        {"ge", is_at_least},
    {">=", is_at_least},       {"in", is_in},
    {"sameas", is_same},       {"lower", is_lower},
    {"upper", is_upper},       {"filter", is_filter},
    {"test", is_test},
};

jj_test_fn *jj_find_test(const char *name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(tests[i].name, name)) return tests[i].fn;
    return NULL;
}
