/* The methods of str that need more than one line; the others and the tables are in
 * jj_methods_more.c. */
#include "text/jj_text_ops.h"
#include "text/unicode.h"

#include <string.h>

#include "text/jj_methods.h"

/* The part of s that start and end (Python's slice indices) leave: byte offsets. */
static bool window(jj *c, const jj_str *s, jj_value start, jj_value end, size_t *from, size_t *to)
{
    int64_t n = (int64_t)tx_utf8_count(s->s, s->n);
    int64_t a = jj_arg_int(c, start, 0), b = jj_arg_int(c, end, n);
    if (a < 0) a = a + n < 0 ? 0 : a + n;
    if (b < 0) b = b + n < 0 ? 0 : b + n;
    if (a > n || a > b) return false;
    *from = jj_offset(s, a);
    *to = jj_offset(s, b);
    return !c->failed;
}

/* --- split
 * ------------------------------------------------------------------------------------------------
 */

static jj_value piece(jj *c, const jj_str *s, size_t from, size_t to)
{
    return jj_string_value(jj_slice_str(c, s, from, to));
}

static size_t skip_spaces(const jj_str *s, size_t at, bool spaces)
{
    int k;
    while (at < s->n && jj_py_space(tx_utf8_get(s->s + at, &k)) == spaces) at += (size_t)k;
    return at;
}

static jj_list *split_spaces(jj *c, const jj_str *s, int64_t limit)
{
    jj_list *list = jj_new_list(c, 0);
    for (size_t at = skip_spaces(s, 0, true); at < s->n && !c->failed;) {
        if (limit-- == 0) {
            jj_append(c, list, jj_strip(c, jj_slice_str(c, s, at, s->n), NULL, 2));
            break;
        }
        size_t to = skip_spaces(s, at, false);
        jj_append(c, list, piece(c, s, at, to));
        at = skip_spaces(s, to, true);
    }
    return list;
}

static jj_list *split_at(jj *c, const jj_str *s, const jj_str *separator, int64_t limit)
{
    jj_list *list = jj_new_list(c, 0);
    size_t at = 0;
    while (limit-- != 0 && !c->failed) {
        const char *hit = memmem(s->s + at, s->n - at, separator->s, separator->n);
        if (!hit) break;
        jj_append(c, list, piece(c, s, at, (size_t)(hit - s->s)));
        at = (size_t)(hit - s->s) + separator->n;
    }
    jj_append(c, list, piece(c, s, at, s->n));
    return list;
}

jj_value jjm_split(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "split", "sep,maxsplit", a)) return self;
    const jj_str *separator = jj_arg_str(c, a[0], NULL);
    int64_t limit = jj_arg_int(c, a[1], -1);
    if (c->failed) return self;
    if (separator && !separator->n) return jj_fail(c, "empty separator");
    return jj_list_value(JJ_LIST, separator ? split_at(c, self.u.s, separator, limit)
                                            : split_spaces(c, self.u.s, limit));
}

static void turn(jj_list *list)
{
    for (size_t i = 0; i < list->n / 2; i++) {
        jj_value v = list->items[i];
        list->items[i] = list->items[list->n - 1 - i];
        list->items[list->n - 1 - i] = v;
    }
}

static const char *last_of(const jj_str *s, size_t from, size_t to, const jj_str *what)
{
    for (size_t at = to; at >= from + what->n; at--)
        if (!memcmp(s->s + at - what->n, what->s, what->n)) return s->s + at - what->n;
    return NULL;
}

static size_t word_start(const jj_str *s, size_t at, bool spaces)
{
    while (at) {
        size_t back = at - 1;
        int k;
        while (back && ((unsigned char)s->s[back] & 0xC0) == 0x80) back--;
        if (jj_py_space(tx_utf8_get(s->s + back, &k)) != spaces) break;
        at = back;
    }
    return at;
}

jj_value jjm_rsplit(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[2];
    if (!jj_bind(c, args, "rsplit", "sep,maxsplit", a)) return self;
    const jj_str *separator = jj_arg_str(c, a[0], NULL), *s = self.u.s;
    int64_t limit = jj_arg_int(c, a[1], -1);
    if (c->failed) return self;
    if (separator && !separator->n) return jj_fail(c, "empty separator");
    jj_list *list = jj_new_list(c, 0);
    size_t to = separator ? s->n : word_start(s, s->n, true), lead = skip_spaces(s, 0, true);
    while (!c->failed && (separator || to > lead)) {
        const char *hit = separator && limit != 0 ? last_of(s, 0, to, separator) : NULL;
        if (separator && !hit) break;
        if (!separator && limit == 0) break;
        limit--;
        size_t from = separator ? (size_t)(hit - s->s) + separator->n : word_start(s, to, false);
        jj_append(c, list, piece(c, s, from, to));
        to = separator ? (size_t)(hit - s->s) : word_start(s, from, true);
    }
    if (separator) jj_append(c, list, piece(c, s, 0, to));
    else if (to > lead) jj_append(c, list, piece(c, s, 0, to));
    if (!c->failed) turn(list);
    return jj_list_value(JJ_LIST, list);
}

static jj_value partition(jj *c, jj_value self, const jj_args *args, bool right)
{
    jj_value a;
    if (!jj_bind(c, args, "partition", "sep*", &a)) return self;
    const jj_str *separator = jj_arg_str(c, a, NULL), *s = self.u.s;
    if (!separator) return jj_fail(c, "must be str, not %s", jj_type_name(a));
    if (!separator->n) return jj_fail(c, "empty separator");
    const char *hit =
        right ? last_of(s, 0, s->n, separator) : memmem(s->s, s->n, separator->s, separator->n);
    size_t at = hit ? (size_t)(hit - s->s) : 0;
    jj_list *list = jj_new_list(c, 3);
    jj_value empty = jj_literal(c, "");
    jj_append(c, list, hit ? piece(c, s, 0, at) : right ? empty : self);
    jj_append(c, list, hit ? jj_string_value(separator) : empty);
    jj_append(c, list, hit ? piece(c, s, at + separator->n, s->n) : right ? self : empty);
    return jj_list_value(JJ_TUPLE, list);
}

jj_value jjm_partition(jj *c, jj_value self, const jj_args *args)
{
    return partition(c, self, args, false);
}

jj_value jjm_rpartition(jj *c, jj_value self, const jj_args *args)
{
    return partition(c, self, args, true);
}

/* --- find
 * ----------------------------------------------------------------------------------------------------
 */

/* The index in characters, or -1. */
static int64_t find(jj *c, jj_value self, const jj_args *args, bool right)
{
    jj_value a[3];
    size_t from = 0, to = 0;
    if (!jj_bind(c, args, "find", "sub*,start,end", a)) return -1;
    const jj_str *what = jj_arg_str(c, a[0], NULL), *s = self.u.s;
    if (!what) jj_fail(c, "must be str, not %s", jj_type_name(a[0]));
    if (c->failed || !window(c, s, a[1], a[2], &from, &to)) return -1;
    const char *hit = right       ? last_of(s, from, to, what)
                      : to < from ? NULL
                                  : memmem(s->s + from, to - from, what->s, what->n);
    return hit ? (int64_t)tx_utf8_count(s->s, (size_t)(hit - s->s)) : -1;
}

jj_value jjm_find(jj *c, jj_value self, const jj_args *args)
{
    return jj_int(find(c, self, args, false));
}

jj_value jjm_rfind(jj *c, jj_value self, const jj_args *args)
{
    return jj_int(find(c, self, args, true));
}

static jj_value found(jj *c, int64_t at)
{
    return at < 0 ? jj_fail(c, "substring not found") : jj_int(at);
}

jj_value jjm_index(jj *c, jj_value self, const jj_args *args)
{
    return found(c, find(c, self, args, false));
}

jj_value jjm_rindex(jj *c, jj_value self, const jj_args *args)
{
    return found(c, find(c, self, args, true));
}

jj_value jjm_count(jj *c, jj_value self, const jj_args *args)
{
    jj_value a[3];
    size_t from = 0, to = 0;
    int64_t n = 0;
    if (!jj_bind(c, args, "count", "sub*,start,end", a)) return self;
    const jj_str *what = jj_arg_str(c, a[0], NULL), *s = self.u.s;
    if (!what) return jj_fail(c, "must be str, not %s", jj_type_name(a[0]));
    if (!window(c, s, a[1], a[2], &from, &to)) return jj_int(0);
    if (!what->n) return jj_int((int64_t)tx_utf8_count(s->s + from, to - from) + 1);
    for (const char *hit; (hit = memmem(s->s + from, to - from, what->s, what->n)); n++)
        from = (size_t)(hit - s->s) + what->n;
    return jj_int(n);
}

/* startswith and endswith: a string or a tuple of them. */
static jj_value at_edge(jj *c, jj_value self, const jj_args *args, bool end)
{
    jj_value a[3];
    size_t from = 0, to = 0;
    if (!jj_bind(c, args, end ? "endswith" : "startswith", "prefix*,start,end", a)) return self;
    bool tuple = a[0].type == JJ_TUPLE;
    size_t count = tuple ? a[0].u.list->n : 1;
    if (!window(c, self.u.s, a[1], a[2], &from, &to)) return jj_bool(false);
    for (size_t i = 0; i < count; i++) {
        jj_value v = tuple ? a[0].u.list->items[i] : a[0];
        if (v.type == JJ_UNDEFINED) return jj_fail_undefined(c, v);
        if (v.type != JJ_STRING)
            return jj_fail(c, "first arg must be str or a tuple of str, not %s", jj_type_name(v));
        size_t n = v.u.s->n;
        if (n <= to - from && !memcmp(self.u.s->s + (end ? to - n : from), v.u.s->s, n))
            return jj_bool(true);
    }
    return jj_bool(false);
}

jj_value jjm_startswith(jj *c, jj_value self, const jj_args *args)
{
    return at_edge(c, self, args, false);
}

jj_value jjm_endswith(jj *c, jj_value self, const jj_args *args)
{
    return at_edge(c, self, args, true);
}

static jj_value without(jj *c, jj_value self, const jj_args *args, bool end)
{
    jj_value a;
    if (!jj_bind(c, args, end ? "removesuffix" : "removeprefix", "text*", &a)) return self;
    const jj_str *what = jj_arg_str(c, a, NULL), *s = self.u.s;
    if (!what) return jj_fail(c, "must be str, not %s", jj_type_name(a));
    size_t n = what->n;
    if (n > s->n || memcmp(s->s + (end ? s->n - n : 0), what->s, n)) return self;
    return end ? piece(c, s, 0, s->n - n) : piece(c, s, n, s->n);
}

jj_value jjm_removeprefix(jj *c, jj_value self, const jj_args *args)
{
    return without(c, self, args, false);
}

jj_value jjm_removesuffix(jj *c, jj_value self, const jj_args *args)
{
    return without(c, self, args, true);
}

/* --- the rest
 * ----------------------------------------------------------------------------------------------------
 */

static jj_value justified(jj *c, jj_value self, const jj_args *args, char align)
{
    jj_value a[2];
    if (!jj_bind(c, args, "just", "width*,fillchar", a)) return self;
    return jj_justify(c, self.u.s, jj_arg_int(c, a[0], 0), jj_arg_str(c, a[1], NULL), align);
}

jj_value jjm_ljust(jj *c, jj_value self, const jj_args *args)
{
    return justified(c, self, args, '<');
}

jj_value jjm_rjust(jj *c, jj_value self, const jj_args *args)
{
    return justified(c, self, args, '>');
}

jj_value jjm_center(jj *c, jj_value self, const jj_args *args)
{
    return justified(c, self, args, '^');
}

jj_value jjm_zfill(jj *c, jj_value self, const jj_args *args)
{
    jj_value a;
    if (!jj_bind(c, args, "zfill", "width*", &a)) return self;
    const jj_str *s = self.u.s;
    size_t sign = s->n && (s->s[0] == '-' || s->s[0] == '+');
    jj_value digits = jj_justify(c, jj_slice_str(c, s, sign, s->n),
                                 jj_arg_int(c, a, 0) - (int64_t)sign, jj_literal(c, "0").u.s, '>');
    return jj_string_value(jj_concat_str(c, jj_slice_str(c, s, 0, sign), digits.u.s));
}

jj_value jjm_splitlines(jj *c, jj_value self, const jj_args *args)
{
    jj_value keep;
    if (!jj_bind(c, args, "splitlines", "keepends", &keep)) return self;
    return jj_list_value(JJ_LIST, jj_split_lines(c, self.u.s, jj_truth(c, keep)));
}

jj_value jjm_swapcase(jj *c, jj_value self, const jj_args *args)
{
    if (!jj_bind(c, args, "swapcase", "", NULL)) return self;
    jj_out out = {0};
    const jj_str *s = self.u.s;
    for (size_t i = 0, k; i < s->n && !c->failed; i += k) {
        int size;
        uint8_t class = tx_class(tx_utf8_get(s->s + i, &size));
        k = (size_t)size;
        const jj_str *part = jj_slice_str(c, s, i, i + k);
        jj_out_str(c, &out, (class & TX_UPPER ? jj_lower(c, part) : jj_upper(c, part)).u.s);
    }
    return jj_out_value(c, &out);
}

jj_value jjm_expandtabs(jj *c, jj_value self, const jj_args *args)
{
    jj_value a;
    if (!jj_bind(c, args, "expandtabs", "tabsize", &a)) return self;
    int64_t size = jj_arg_int(c, a, 8), column = 0;
    const jj_str *s = self.u.s;
    jj_out out = {0};
    for (size_t i = 0, k; i < s->n && !c->failed; i += k) {
        k = (size_t)tx_utf8_size((unsigned char)s->s[i]);
        if (s->s[i] == '\t') {
            int64_t n = size > 0 ? size - column % size : 0;
            column += n;
            while (n-- > 0 && !c->failed) jj_out_text(c, &out, " ", 1, jj_str_content(s, i, i + 1));
            continue;
        }
        column = s->s[i] == '\n' || s->s[i] == '\r' ? 0 : column + 1;
        jj_out_part(c, &out, s, i, i + k);
    }
    return jj_out_value(c, &out);
}
