#include "text/jj_text_ops.h"

#include "text/unicode.h"

#include <string.h>

const jj_str *jj_arg_str(jj *c, jj_value v, const jj_str *absent)
{
    if (v.type == JJ_STRING) return v.u.s;
    if (v.type != JJ_UNDEFINED && v.type != JJ_NONE)
        jj_fail(c, "must be str, not %s", jj_type_name(v));
    return absent;
}

int64_t jj_arg_int(jj *c, jj_value v, int64_t absent)
{
    int64_t i = absent;
    if (v.type == JJ_UNDEFINED || v.type == JJ_NONE) return absent;
    if (!jj_as_int(v, &i))
        jj_fail(c, "'%s' object cannot be interpreted as an integer", jj_type_name(v));
    return i;
}

/* Change the case of s[from..to); a run of content at a time, so that what belongs to whom stays
 * known. */
static void cased(jj *c, jj_out *out, const jj_str *s, size_t from, size_t to, bool upper)
{
    bs_buf text = {0};
    uint32_t i = 0;
    while (from < to && !c->failed) {
        size_t end = to;
        bool content = s->content;
        for (; i < s->n_runs && s->runs[i].end <= from; i++) {
        }
        if (s->n_runs)
            end = s->runs[i].end < to ? s->runs[i].end : to, content = s->runs[i].content;
        text.length = 0;
        bool ok = upper ? tx_append_upper(&text, s->s + from, end - from)
                        : tx_append_lower(&text, s->s + from, end - from);
        if (!ok) jj_fail_status(c, FM_E_NOMEM, "out of memory");
        else jj_out_text(c, out, text.data ? text.data : "", text.length, content);
        from = end;
    }
    bs_buf_free(&text);
}

static jj_value finish(jj *c, jj_out *out, const jj_str *like)
{
    jj_value v = jj_out_value(c, out);
    return like->safe ? jj_mark_safe(c, v.u.s) : v;
}

jj_value jj_upper(jj *c, const jj_str *s)
{
    jj_out out = {0};
    cased(c, &out, s, 0, s->n, true);
    return finish(c, &out, s);
}

jj_value jj_lower(jj *c, const jj_str *s)
{
    jj_out out = {0};
    cased(c, &out, s, 0, s->n, false);
    return finish(c, &out, s);
}

jj_value jj_capitalize(jj *c, const jj_str *s)
{
    jj_out out = {0};
    size_t first = jj_offset(s, 1);
    cased(c, &out, s, 0, first, true);
    cased(c, &out, s, first, s->n, false);
    return finish(c, &out, s);
}

jj_value jj_title(jj *c, const jj_str *s)
{
    jj_out out = {0};
    bool inside = false;
    for (size_t i = 0, k; i < s->n && !c->failed; i += k) {
        int size;
        uint32_t ch = tx_utf8_get(s->s + i, &size);
        k = (size_t)size;
        cased(c, &out, s, i, i + k, !inside);
        inside = tx_class(ch) & TX_L;
    }
    return finish(c, &out, s);
}

static bool stripped(uint32_t ch, const jj_str *chars)
{
    if (!chars) return jj_py_space(ch);
    for (size_t i = 0; i < chars->n;) {
        int k;
        if (tx_utf8_get(chars->s + i, &k) == ch) return true;
        i += (size_t)k;
    }
    return false;
}

jj_value jj_strip(jj *c, const jj_str *s, const jj_str *chars, int sides)
{
    size_t from = 0, to = s->n;
    int k;
    while (sides & 1 && from < to && stripped(tx_utf8_get(s->s + from, &k), chars))
        from += (size_t)k;
    while (sides & 2 && to > from) {
        size_t last = to - 1;
        while (last > from && ((unsigned char)s->s[last] & 0xC0) == 0x80) last--;
        if (!stripped(tx_utf8_get(s->s + last, &k), chars)) break;
        to = last;
    }
    return jj_string_value(jj_slice_str(c, s, from, to));
}

/* replace('', x): before every character and at the end. */
static jj_value replace_empty(jj *c, const jj_str *s, const jj_str *new_text, int64_t count)
{
    jj_out out = {0};
    for (size_t i = 0, k; i <= s->n && !c->failed; i += k) {
        if (count-- != 0) jj_out_str(c, &out, new_text);
        else count = 0;
        k = i < s->n ? (size_t)tx_utf8_size((unsigned char)s->s[i]) : 1;
        if (i < s->n) jj_out_part(c, &out, s, i, i + k);
    }
    return jj_out_value(c, &out);
}

jj_value jj_replace(jj *c, const jj_str *s, const jj_str *old, const jj_str *new_text,
                    int64_t count)
{
    if (!old->n) return replace_empty(c, s, new_text, count < 0 ? INT64_MAX : count);
    jj_out out = {0};
    size_t at = 0;
    while (count != 0 && !c->failed) {
        const char *hit = memmem(s->s + at, s->n - at, old->s, old->n);
        if (!hit) break;
        size_t from = (size_t)(hit - s->s);
        jj_out_part(c, &out, s, at, from);
        jj_out_str(c, &out, new_text);
        at = from + old->n;
        if (count > 0) count--;
    }
    if (!at) {
        jj_out_free(&out);
        return jj_string_value(s);
    }
    jj_out_part(c, &out, s, at, s->n);
    return jj_out_value(c, &out);
}

static size_t line_break(const jj_str *s, size_t i)
{
    int k;
    uint32_t ch = tx_utf8_get(s->s + i, &k);
    if (ch == '\r') return i + 1 < s->n && s->s[i + 1] == '\n' ? 2 : 1;
    bool is = (ch >= '\n' && ch <= '\f') || (ch >= 0x1C && ch <= 0x1E) || ch == 0x85 ||
              ch == 0x2028 || ch == 0x2029;
    return is ? (size_t)k : 0;
}

jj_list *jj_split_lines(jj *c, const jj_str *s, bool keep_ends)
{
    jj_list *list = jj_new_list(c, 0);
    size_t from = 0;
    for (size_t i = 0; i < s->n && !c->failed;) {
        size_t n = line_break(s, i);
        if (n) {
            jj_append(c, list, jj_string_value(jj_slice_str(c, s, from, keep_ends ? i + n : i)));
            from = i + n;
        }
        i += n ? n : (size_t)tx_utf8_size((unsigned char)s->s[i]);
    }
    if (from < s->n) jj_append(c, list, jj_string_value(jj_slice_str(c, s, from, s->n)));
    return list;
}

jj_value jj_join(jj *c, const jj_str *separator, const jj_list *list, bool strict)
{
    jj_out out = {0};
    for (size_t i = 0; i < list->n && !c->failed; i++) {
        if (strict && list->items[i].type != JJ_STRING)
            jj_fail(c, "sequence item %zu: expected str instance, %s found", i,
                    jj_type_name(list->items[i]));
        if (i) jj_out_str(c, &out, separator);
        jj_out_str(c, &out, jj_str_of(c, list->items[i]));
    }
    return jj_out_value(c, &out);
}

jj_value jj_justify(jj *c, const jj_str *s, int64_t width, const jj_str *fill, char align)
{
    int64_t n = (int64_t)tx_utf8_count(s->s, s->n), room = width > n ? width - n : 0;
    /* str.center puts the odd one on the left when the width is odd */
    int64_t left = align == '>' ? room : align == '<' ? 0 : room / 2 + (room & width & 1);
    jj_out out = {0};
    if (fill && tx_utf8_count(fill->s, fill->n) != 1)
        return jj_fail(c, "The fill character must be exactly one character long");
    for (int64_t i = 0; i < left && !c->failed; i++)
        jj_out_text(c, &out, fill ? fill->s : " ", fill ? fill->n : 1, false);
    jj_out_str(c, &out, s);
    for (int64_t i = left; i < room && !c->failed; i++)
        jj_out_text(c, &out, fill ? fill->s : " ", fill ? fill->n : 1, false);
    return jj_out_value(c, &out);
}
