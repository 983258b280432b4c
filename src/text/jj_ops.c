/* Operators, with Python's rules for which types they take. Integers are exact in 64 bits; a result
 * outside them is an error, never a wrong number. */
#include "text/jj.h"

#include <math.h>
#include <string.h>

static const char *op_text(int op)
{
    switch (op) {
    case JJT_ADD: return "+";
    case JJT_SUB: return "-";
    case JJT_MUL: return "*";
    case JJT_DIV: return "/";
    case JJT_FLOORDIV: return "//";
    case JJT_MOD: return "%";
    default: return "** or pow()";
    }
}

static jj_value wrong_types(jj *c, int op, jj_value x, jj_value y)
{
    if (x.type == JJ_UNDEFINED || y.type == JJ_UNDEFINED)
        return jj_fail_undefined(c, x.type == JJ_UNDEFINED ? x : y);
    return jj_fail(c, "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op),
                   jj_type_name(x), jj_type_name(y));
}

static jj_value too_big(jj *c)
{
    return jj_fail(c, "an integer of more than 64 bits");
}

static jj_value int_power(jj *c, int64_t x, int64_t y)
{
    if (y < 0)
        return x ? jj_float(pow((double)x, (double)y))
                 : jj_fail(c, "0.0 cannot be raised to a negative power");
    int64_t result = 1;
    for (; y; y >>= 1) {
        if (y & 1 && __builtin_mul_overflow(result, x, &result)) return too_big(c);
        if (y > 1 && __builtin_mul_overflow(x, x, &x)) return too_big(c);
    }
    return jj_int(result);
}

static jj_value int_division(jj *c, int op, int64_t x, int64_t y)
{
    if (!y) return jj_fail(c, "division by zero");
    if (op == JJT_DIV) return jj_float((double)x / (double)y);
    if (x == INT64_MIN && y == -1) return op == JJT_MOD ? jj_int(0) : too_big(c);
    int64_t q = x / y, r = x % y;
    if (r && (r < 0) != (y < 0)) q--, r += y;
    return jj_int(op == JJT_MOD ? r : q);
}

static jj_value int_op(jj *c, int op, int64_t x, int64_t y)
{
    int64_t r;
    bool overflow;
    if (op == JJT_POW) return int_power(c, x, y);
    if (op == JJT_ADD) overflow = __builtin_add_overflow(x, y, &r);
    else if (op == JJT_SUB) overflow = __builtin_sub_overflow(x, y, &r);
    else if (op == JJT_MUL) overflow = __builtin_mul_overflow(x, y, &r);
    else return int_division(c, op, x, y);
    return overflow ? too_big(c) : jj_int(r);
}

static jj_value float_op(jj *c, int op, double x, double y)
{
    switch (op) {
    case JJT_ADD: return jj_float(x + y);
    case JJT_SUB: return jj_float(x - y);
    case JJT_MUL: return jj_float(x * y);
    case JJT_POW: return jj_float(pow(x, y));
    default: break;
    }
    if (y == 0) return jj_fail(c, "float division by zero");
    if (op == JJT_DIV) return jj_float(x / y);
    double r = fmod(x, y);
    if (r != 0 && (r < 0) != (y < 0)) r += y;
    if (op == JJT_MOD) return jj_float(r == 0 ? copysign(0, y) : r);
    return jj_float(floor((x - r) / y + 0.5));
}

static jj_value repeat(jj *c, jj_value v, int64_t times)
{
    if (times < 0) times = 0;
    if (v.type == JJ_STRING) {
        jj_out out = {0};
        for (int64_t i = 0; i < times && v.u.s->n && jj_step(c); i++) jj_out_str(c, &out, v.u.s);
        return jj_out_value(c, &out);
    }
    jj_list *list = jj_new_list(c, 0);
    for (int64_t i = 0; i < times && v.u.list->n && jj_step(c); i++)
        for (size_t j = 0; j < v.u.list->n; j++) jj_append(c, list, v.u.list->items[j]);
    return jj_list_value(v.type, list);
}

static const jj_str *escaped(jj *c, const jj_str *s)
{
    static const char special[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    jj_out out = {0};
    size_t done = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *at = s->s[i] ? strchr(special, s->s[i]) : NULL;
        if (!at) continue;
        jj_out_part(c, &out, s, done, i);
        jj_out_text(c, &out, to[at - special], strlen(to[at - special]),
                    jj_str_content(s, i, i + 1));
        done = i + 1;
    }
    jj_out_part(c, &out, s, done, s->n);
    return jj_out_value(c, &out).u.s;
}

jj_value jj_mark_safe(jj *c, const jj_str *s)
{
    jj_str *copy = jj_get(c, sizeof *copy);
    if (!copy) return jj_string_value(s);
    *copy = *s;
    copy->safe = true;
    return jj_string_value(copy);
}

jj_value jj_escape(jj *c, jj_value v)
{
    const jj_str *s = jj_str_of(c, v);
    return s->safe ? jj_string_value(s) : jj_mark_safe(c, escaped(c, s));
}

static jj_value add_strings(jj *c, const jj_str *x, const jj_str *y)
{
    if (!x->safe && !y->safe) return jj_string_value(jj_concat_str(c, x, y));
    if (!x->safe) x = escaped(c, x);
    if (!y->safe) y = escaped(c, y);
    return jj_mark_safe(c, jj_concat_str(c, x, y));
}

static jj_value add_lists(jj *c, jj_value x, jj_value y)
{
    jj_list *list = jj_new_list(c, x.u.list->n + y.u.list->n);
    for (size_t i = 0; i < x.u.list->n; i++) jj_append(c, list, x.u.list->items[i]);
    for (size_t i = 0; i < y.u.list->n; i++) jj_append(c, list, y.u.list->items[i]);
    return jj_list_value(x.type, list);
}

static bool repeatable(jj_value v)
{
    return v.type == JJ_STRING || v.type == JJ_LIST || v.type == JJ_TUPLE;
}

jj_value jj_binary(jj *c, int op, jj_value x, jj_value y)
{
    int64_t i, j;
    if (c->failed) return x;
    bool xi = jj_as_int(x, &i), yi = jj_as_int(y, &j);
    if (xi && yi) return int_op(c, op, i, j);
    if (jj_is_number(x) && jj_is_number(y))
        return float_op(c, op, jj_as_double(x), jj_as_double(y));
    if (op == JJT_ADD && x.type == JJ_STRING && y.type == JJ_STRING)
        return add_strings(c, x.u.s, y.u.s);
    if (op == JJT_ADD && x.type == y.type && (x.type == JJ_LIST || x.type == JJ_TUPLE))
        return add_lists(c, x, y);
    if (op == JJT_MUL && repeatable(x) && yi) return repeat(c, x, j);
    if (op == JJT_MUL && repeatable(y) && xi) return repeat(c, y, i);
    if (op == JJT_MOD && x.type == JJ_STRING) return jj_percent(c, x.u.s, y);
    return wrong_types(c, op, x, y);
}

jj_value jj_unary(jj *c, int op, jj_value x)
{
    int64_t i;
    if (c->failed) return x;
    if (jj_as_int(x, &i))
        return op != JJT_SUB ? jj_int(i) : i == INT64_MIN ? too_big(c) : jj_int(-i);
    if (x.type == JJ_FLOAT) return jj_float(op == JJT_SUB ? -x.u.f : x.u.f);
    if (x.type == JJ_UNDEFINED) return jj_fail_undefined(c, x);
    return jj_fail(c, "bad operand type for unary %s: '%s'", op_text(op), jj_type_name(x));
}
