/* jj_text_ops.h - operations on strings that filters and methods share. All keep track of content.
 */
#ifndef TEXT_JJ_TEXT_OPS_H
#define TEXT_JJ_TEXT_OPS_H

#include "text/jj.h"

jj_value jj_upper(jj *c, const jj_str *s);
jj_value jj_lower(jj *c, const jj_str *s);
jj_value jj_capitalize(jj *c, const jj_str *s);
jj_value jj_title(jj *c, const jj_str *s); /* str.title() */

/* strip: sides 1 left, 2 right, 3 both; chars NULL: white space. */
jj_value jj_strip(jj *c, const jj_str *s, const jj_str *chars, int sides);

/* Replace the first `count` occurrences; negative: all. An empty `old` stands between all
 * characters. */
jj_value jj_replace(jj *c, const jj_str *s, const jj_str *old, const jj_str *new_text,
                    int64_t count);

/* str.splitlines(). */
jj_list *jj_split_lines(jj *c, const jj_str *s, bool keep_ends);

jj_value jj_join(jj *c, const jj_str *separator, const jj_list *list,
                 bool strict); /* strict: only strings */

/* Justify within `width` characters: align is '<', '>' or '^'. */
jj_value jj_justify(jj *c, const jj_str *s, int64_t width, const jj_str *fill, char align);

/* The argument as a string, int or bool; `absent` when it was not given. Wrong types fail. */
const jj_str *jj_arg_str(jj *c, jj_value v, const jj_str *absent);
int64_t jj_arg_int(jj *c, jj_value v, int64_t absent);

#endif
