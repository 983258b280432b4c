/* grammar_schema.c - JSON Schema to automaton.
 *
 * Known: type (also a list), properties, required, additionalProperties, minProperties and
 * maxProperties of plain maps, items, prefixItems, minItems, maxItems, enum, const, anyOf, oneOf
 * (any one of them), allOf of one, $ref to $defs/definitions (cycles too), minLength, maxLength,
 * pattern, the common formats, minimum, maximum and their exclusive forms. Properties come out in
 * the order of the schema, whatever is optional may be left out. Each $ref target is one rule,
 * which is how cycles cost nothing. */
#include "engine/grammar_build.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_COUNT = 5000, MAX_WHERE = 160 };

typedef struct compiler {
    gb *b;
    const json_t *root;
    json_t *refs; /* "#/..." -> rule number */
    char where[MAX_WHERE];
    int depth;
} compiler;

static void value(compiler *c, int from, const json_t *schema, int to);

static void refuse(compiler *c, const char *key, const char *why)
{
    gb_fail(c->b, FM_E_UNSUPPORTED, "%s: schema keyword '%s' %s", c->where, key, why);
}

static void malformed(compiler *c, const char *key, const char *wanted)
{
    gb_fail(c->b, FM_E_FORMAT, "%s/%s: must be %s", c->where, key, wanted);
}

/* Compile a part of the schema with its place remembered for messages. */
static void part(compiler *c, const char *key, int from, const json_t *schema, int to)
{
    size_t length = strlen(c->where);
    snprintf(c->where + length, sizeof c->where - length, "/%s", key);
    value(c, from, schema, to);
    c->where[length] = 0;
}

/* --- keywords ------------------------------------------------------------------------------------
 */

static bool in_list(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(key, *list)) return true;
    return false;
}

static const char *const annotations[] = {
    "title",      "description", "default",     "examples", "example", "$schema",
    "$id",        "$defs",       "definitions", "$comment", "format",  "readOnly",
    "deprecated", "writeOnly",   "$anchor",     "strict",   NULL};
static const char *const object_keys[] = {"properties",    "required",      "additionalProperties",
                                          "minProperties", "maxProperties", NULL};
static const char *const array_keys[] = {"items", "prefixItems", "minItems", "maxItems", NULL};
static const char *const string_keys[] = {"minLength", "maxLength", "pattern", NULL};
static const char *const number_keys[] = {"minimum", "maximum", "exclusiveMinimum",
                                          "exclusiveMaximum", NULL};
static const char *const whole_keys[] = {"enum", "const", "anyOf", "oneOf", "allOf", "$ref", NULL};

/* Refuse what is not known. Returns the keyword that decides alone (enum, $ref...), or NULL. */
static const char *check_keywords(compiler *c, const json_t *schema)
{
    const char *key, *whole = NULL;
    json_t *unused;
    bool others = false;
    json_object_foreach((json_t *)schema, key, unused)
    {
        if (in_list(key, annotations)) continue;
        if (in_list(key, whole_keys)) {
            if (whole) refuse(c, key, "cannot stand beside another such keyword");
            whole = key;
        } else if (in_list(key, object_keys) || in_list(key, array_keys) ||
                   in_list(key, string_keys) || in_list(key, number_keys)) {
            others = true;
        } else if (strcmp(key, "type") != 0) {
            refuse(c, key, "is not supported");
        }
    }
    if (whole && others && strcmp(whole, "enum") != 0 && strcmp(whole, "const") != 0)
        refuse(c, whole, "cannot stand beside other constraints");
    return whole;
}

/* A non-negative count, or `absent`. */
static int count_of(compiler *c, const json_t *schema, const char *key, int absent)
{
    const json_t *v = json_object_get(schema, key);
    if (!v) return absent;
    json_int_t n = json_is_integer(v) ? json_integer_value(v)
                   : json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) <= MAX_COUNT
                       ? (json_int_t)json_real_value(v)
                       : -1;
    if (n < 0) malformed(c, key, "a whole number, not negative");
    if (n > MAX_COUNT && !strncmp(key, "min", 3)) refuse(c, key, "is too large");
    return n > MAX_COUNT ? -1 : (int)n; /* a maximum beyond that is no limit in practice */
}

/* --- literals
 * ------------------------------------------------------------------------------------- */

static void json_literal(compiler *c, int from, const json_t *v, int to)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) gb_fail(c->b, FM_E_FORMAT, "%s: a constant cannot be written as JSON", c->where);
    else gb_literal(c->b, from, text, strlen(text), to);
    free(text);
}

static void enumeration(compiler *c, int from, const json_t *values, int to)
{
    if (!json_is_array(values) || json_array_size(values) == 0) {
        malformed(c, "enum", "a list that is not empty");
        return;
    }
    for (size_t i = 0; i < json_array_size(values); i++)
        json_literal(c, from, json_array_get(values, i), to);
}

/* --- strings and numbers
 * ---------------------------------------------------------------------------- */

static const char *format_pattern(const char *format)
{
#define DATE "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    static const struct {
        const char *format, *pattern;
    } known[] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        {"ipv4", "^" BYTE "\\." BYTE "\\." BYTE "\\." BYTE "$"},
        {"email", "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,3}@([a-z0-9]([a-z0-9-]{0,30}"
                  "[a-z0-9])?\\.){1,4}[a-z]{2,12}$"},
    };
    for (size_t i = 0; format && i < sizeof known / sizeof *known; i++)
        if (!strcmp(format, known[i].format)) return known[i].pattern;
    return NULL;
#undef DATE
#undef TIME
#undef BYTE
}

static void string(compiler *c, int from, const json_t *schema, int to)
{
    gb *b = c->b;
    const json_t *pattern = json_object_get(schema, "pattern");
    int min = count_of(c, schema, "minLength", 0), max = count_of(c, schema, "maxLength", -1);
    const char *text = json_string_value(pattern);
    if (pattern && !text) malformed(c, "pattern", "a string");
    if (text && (min > 0 || max >= 0))
        refuse(c, "pattern", "cannot stand beside minLength/maxLength");
    if (!text && min == 0 && max < 0)
        text = format_pattern(json_string_value(json_object_get(schema, "format")));
    if (max >= 0 && max < min) malformed(c, "maxLength", "at least minLength");
    if (b->status) return;
    if (!text && min == 0 && max < 0) {
        gb_builtin_call(b, from, GB_STRING, to);
        return;
    }
    int inside = gb_state(b), end = gb_state(b);
    gb_bytes(b, from, '"', '"', inside);
    if (text) gb_pattern(b, inside, text, c->where, end);
    else gb_repeat(c->b, inside, gb_builtin_rule(b, GB_CHAR), min, max, end);
    gb_bytes(b, end, '"', '"', to);
}

static gb_bound bound(compiler *c, const json_t *schema, const char *key, const char *exclusive)
{
    const json_t *v = json_object_get(schema, key), *x = json_object_get(schema, exclusive);
    if (v && !json_is_number(v)) malformed(c, key, "a number");
    if (x && !json_is_number(x)) malformed(c, exclusive, "a number");
    bool lower = !strcmp(key, "minimum");
    if (v && x) { /* the tighter of the two */
        double a = json_number_value(v), e = json_number_value(x);
        if (lower ? e >= a : e <= a) v = NULL;
        else x = NULL;
    }
    if (x) return (gb_bound){true, true, json_number_value(x)};
    return (gb_bound){v != NULL, false, v ? json_number_value(v) : 0};
}

static void number(compiler *c, int from, const json_t *schema, bool whole, int to)
{
    gb_bound min = bound(c, schema, "minimum", "exclusiveMinimum");
    gb_bound max = bound(c, schema, "maximum", "exclusiveMaximum");
    if (!min.set && !max.set) gb_builtin_call(c->b, from, whole ? GB_INTEGER : GB_NUMBER, to);
    else gb_number_range(c->b, from, min, max, whole, to);
}

/* --- arrays
 * ------------------------------------------------------------------------------------------ */

static void array(compiler *c, int from, const json_t *schema, int to)
{
    gb *b = c->b;
    const json_t *items = json_object_get(schema, "items");
    const json_t *prefix = json_object_get(schema, "prefixItems");
    int min = count_of(c, schema, "minItems", 0), max = count_of(c, schema, "maxItems", -1);
    if (prefix && !json_is_array(prefix)) malformed(c, "prefixItems", "a list of schemas");
    if (max >= 0 && max < min) malformed(c, "maxItems", "at least minItems");
    if (json_is_false(items))
        max = max < 0 || max > (int)json_array_size(prefix) ? (int)json_array_size(prefix) : max;
    if (b->status) return;
    int n_prefix = (int)json_array_size(prefix), rest = -1;
    int chain = max >= 0 ? max : (min > n_prefix ? min : n_prefix);
    if (max < 0 || chain > n_prefix) { /* the schema of all items after the prefix: one rule */
        rest = gb_new_rule(b);
        if (b->status) return;
        gb_rule r = b->rules[rest];
        if (items) part(c, "items", r.start, items, r.final);
        else gb_builtin_call(b, r.start, GB_VALUE, r.final);
    }
    int at = gb_state(b), close = gb_state(b);
    gb_bytes(b, from, '[', '[', at);
    for (int i = 0; i < chain && !b->status; i++) {
        int item = gb_state(b), next = gb_state(b), comma = i > 0 ? gb_state(b) : at;
        if (i >= min) gb_eps(b, at, close);
        if (i > 0) gb_bytes(b, at, ',', ',', comma);
        gb_builtin_call(b, comma, GB_WS, item);
        if (i < n_prefix) part(c, "prefixItems", item, json_array_get(prefix, (size_t)i), next);
        else gb_call(b, item, rest, next);
        at = next;
    }
    gb_eps(b, at, close);
    if (max < 0) {
        int item = gb_state(b), comma = gb_state(b), loop = gb_state(b);
        if (chain == 0) gb_builtin_call(b, at, GB_WS, item);
        else gb_eps(b, at, loop);
        gb_call(b, item, rest, loop);
        gb_bytes(b, loop, ',', ',', comma);
        gb_builtin_call(b, comma, GB_WS, item);
        gb_eps(b, loop, close);
    }
    int end = gb_state(b);
    gb_builtin_call(b, close, GB_WS, end);
    gb_bytes(b, end, ']', ']', to);
}

/* --- objects
 * ----------------------------------------------------------------------------------------- */

static bool is_required(const json_t *required, const char *key)
{
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name && !strcmp(name, key)) return true;
    }
    return false;
}

/* A key that is none of the declared ones: follow their spellings as a tree and leave it. Escapes
 * are left out here, since they could spell a declared name in another way. */
static void other_key(compiler *c, int from, const json_t *properties, size_t at,
                      const char *prefix, int to)
{
    gb *b = c->b;
    bool used[256] = {false}, ends = false;
    const char *key;
    json_t *unused;
    json_object_foreach((json_t *)properties, key, unused)
    {
        if (strncmp(key, prefix, at) != 0) continue;
        if (key[at]) used[(uint8_t)key[at]] = true;
        if (!key[at]) ends = true;
    }
    if (!ends) gb_bytes(b, from, '"', '"', to);
    int free_text = gb_state(b);
    for (int ch = 0x20; ch < 0x80; ch++)
        if (!used[ch] && ch != '"' && ch != '\\') gb_bytes(b, from, ch, ch, free_text);
    bool high = false;
    for (int ch = 0x80; ch < 256; ch++) high = high || used[ch];
    if (!high) gb_codepoints(b, from, 0x80, 0x10FFFF, false, free_text);
    gb_builtin_call(b, free_text, GB_CHAR, free_text);
    gb_bytes(b, free_text, '"', '"', to);
    for (int ch = 0x20; ch < 0x80 && !b->status; ch++) {
        if (!used[ch] || ch == '"' || ch == '\\') continue;
        json_object_foreach((json_t *)properties, key, unused)
        {
            if (strncmp(key, prefix, at) != 0 || (uint8_t)key[at] != ch) continue;
            int next = gb_state(b);
            gb_bytes(b, from, ch, ch, next);
            other_key(c, next, properties, at + 1, key, to);
            break;
        }
    }
}

/* key ':' ws, then the caller's value. */
static int after_key(compiler *c, int from)
{
    int colon = gb_state(c->b), value_at = gb_state(c->b);
    gb_bytes(c->b, from, ':', ':', colon);
    gb_builtin_call(c->b, colon, GB_WS, value_at);
    return value_at;
}

/* Members that the schema does not name: any number, from `none` (nothing written yet) or `some`.
 */
static void other_members(compiler *c, const json_t *schema, int none, int some)
{
    gb *b = c->b;
    const json_t *more = json_object_get(schema, "additionalProperties");
    const json_t *properties = json_object_get(schema, "properties");
    int key = gb_state(b), inside = gb_state(b), named = gb_state(b), comma = gb_state(b);
    if (none >= 0) gb_eps(b, none, key);
    gb_bytes(b, some, ',', ',', comma);
    gb_builtin_call(b, comma, GB_WS, key);
    gb_bytes(b, key, '"', '"', inside);
    if (json_object_size(properties) > 0) {
        other_key(c, inside, properties, 0, "", named);
    } else {
        gb_builtin_call(b, inside, GB_CHAR, inside);
        gb_bytes(b, inside, '"', '"', named);
    }
    int at = after_key(c, named);
    if (json_is_object(more)) part(c, "additionalProperties", at, more, some);
    else gb_builtin_call(b, at, GB_VALUE, some);
}

/* A map without named properties: {"a": V, ...}, min..max members. */
static void map(compiler *c, int at, const json_t *schema, int min, int max, int close)
{
    gb *b = c->b;
    const json_t *more = json_object_get(schema, "additionalProperties");
    int member = gb_new_rule(b), key = gb_state(b);
    if (b->status) return;
    gb_rule r = b->rules[member];
    gb_builtin_call(b, r.start, GB_STRING, key);
    int value_at = after_key(c, key);
    if (json_is_object(more)) part(c, "additionalProperties", value_at, more, r.final);
    else gb_builtin_call(b, value_at, GB_VALUE, r.final);
    int following = gb_new_rule(b), comma = gb_state(b), next = gb_state(b), one = gb_state(b);
    if (b->status) return;
    gb_bytes(b, b->rules[following].start, ',', ',', comma);
    gb_builtin_call(b, comma, GB_WS, next);
    gb_call(b, next, member, b->rules[following].final);
    if (min == 0) gb_eps(b, at, close);
    if (max == 0) return;
    gb_call(b, at, member, one);
    gb_repeat(c->b, one, following, min > 0 ? min - 1 : 0, max < 0 ? -1 : max - 1, close);
}

/* The named properties in order. At each one two places: nothing written yet, or something (then
 * a comma is due). Returns through none/some where the list ends; none -1: something must stand. */
static void named_members(compiler *c, const json_t *schema, int *none, int *some)
{
    gb *b = c->b;
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const char *key;
    json_t *child;
    json_object_foreach((json_t *)properties, key, child)
    {
        if (b->status) return;
        int at = gb_state(b), named = gb_state(b), done = gb_state(b);
        bool must = is_required(required, key);
        if (*none >= 0) gb_eps(b, *none, at);
        if (*some >= 0) {
            int comma = gb_state(b);
            gb_bytes(b, *some, ',', ',', comma);
            gb_builtin_call(b, comma, GB_WS, at);
            if (!must) gb_eps(b, *some, done);
        }
        json_t *name = json_string(key);
        json_literal(c, at, name, named);
        json_decref(name);
        part(c, key, after_key(c, named), child, done);
        *some = done;
        if (must) *none = -1;
    }
}

static void object(compiler *c, int from, const json_t *schema, int to)
{
    gb *b = c->b;
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const json_t *more = json_object_get(schema, "additionalProperties");
    int min = count_of(c, schema, "minProperties", 0),
        max = count_of(c, schema, "maxProperties", -1);
    if (properties && !json_is_object(properties)) malformed(c, "properties", "an object");
    if (required && !json_is_array(required)) malformed(c, "required", "a list of names");
    if (more && !json_is_object(more) && !json_is_boolean(more))
        malformed(c, "additionalProperties", "a schema or a boolean");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (!name) malformed(c, "required", "a list of names");
        else if (!json_object_get(properties, name))
            gb_fail(b, FM_E_UNSUPPORTED, "%s/required: '%.60s' is not among the properties",
                    c->where, name);
    }
    if (b->status) return;
    int open = gb_state(b), none = gb_state(b), some = -1, close = gb_state(b), end = gb_state(b);
    gb_bytes(b, from, '{', '{', open);
    gb_builtin_call(b, open, GB_WS, none);
    if (json_object_size(properties) == 0) {
        if (json_is_false(more)) gb_eps(b, none, close);
        else map(c, none, schema, min, max, close);
    } else {
        if (min > 0 || max >= 0)
            refuse(c, min > 0 ? "minProperties" : "maxProperties",
                   "cannot stand beside properties");
        named_members(c, schema, &none, &some);
        if (json_is_object(more) || json_is_true(more)) other_members(c, schema, none, some);
        if (none >= 0) gb_eps(b, none, close);
        if (some >= 0) gb_eps(b, some, close);
    }
    gb_builtin_call(b, close, GB_WS, end);
    gb_bytes(b, end, '}', '}', to);
}

/* --- dispatch
 * ---------------------------------------------------------------------------------------- */

/* "#/$defs/x" with ~0 ~1 unescaped; "#" is the root. */
static const json_t *resolve(compiler *c, const char *ref)
{
    const json_t *at = c->root;
    if (ref[0] != '#' || (ref[1] && ref[1] != '/')) return NULL;
    for (const char *p = ref + 1; *p == '/';) {
        char name[128];
        size_t n = 0;
        for (p++; *p && *p != '/'; p++) {
            if (n + 1 >= sizeof name) return NULL;
            name[n++] = *p == '~' && p[1] == '1' ? '/' : *p;
            if (*p == '~' && (p[1] == '0' || p[1] == '1')) p++;
        }
        name[n] = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(name, NULL, 10))
                               : json_object_get(at, name);
    }
    return at;
}

static void reference(compiler *c, int from, const json_t *ref, int to)
{
    const char *name = json_string_value(ref);
    const json_t *target = name ? resolve(c, name) : NULL;
    if (!target) {
        gb_fail(c->b, FM_E_FORMAT, "%s/$ref: '%.80s' points to nothing in this schema", c->where,
                name ? name : "?");
        return;
    }
    json_t *known = json_object_get(c->refs, name);
    int rule = known ? (int)json_integer_value(known) : gb_new_rule(c->b);
    if (!known && !c->b->status) {
        if (json_object_set_new(c->refs, name, json_integer(rule)))
            gb_fail(c->b, FM_E_NOMEM, "out of memory while compiling a schema");
        gb_rule r = c->b->rules[rule];
        value(c, r.start, target, r.final);
    }
    gb_call(c->b, from, rule, to);
}

static void whole(compiler *c, const char *key, int from, const json_t *schema, int to)
{
    const json_t *v = json_object_get(schema, key);
    if (!strcmp(key, "enum")) {
        enumeration(c, from, v, to);
    } else if (!strcmp(key, "const")) {
        json_literal(c, from, v, to);
    } else if (!strcmp(key, "$ref")) {
        reference(c, from, v, to);
    } else if (!json_is_array(v) || json_array_size(v) == 0) {
        malformed(c, key, "a list of schemas");
    } else if (!strcmp(key, "allOf") && json_array_size(v) > 1) {
        refuse(c, key, "is supported with one entry only");
    } else {
        for (size_t i = 0; i < json_array_size(v) && !c->b->status; i++)
            part(c, key, from, json_array_get(v, i), to);
    }
}

static void typed(compiler *c, const char *type, int from, const json_t *schema, int to)
{
    if (!strcmp(type, "object")) object(c, from, schema, to);
    else if (!strcmp(type, "array")) array(c, from, schema, to);
    else if (!strcmp(type, "string")) string(c, from, schema, to);
    else if (!strcmp(type, "integer") || !strcmp(type, "number"))
        number(c, from, schema, type[0] == 'i', to);
    else if (!strcmp(type, "null")) gb_literal(c->b, from, "null", 4, to);
    else if (!strcmp(type, "boolean")) {
        gb_literal(c->b, from, "true", 4, to);
        gb_literal(c->b, from, "false", 5, to);
    } else {
        gb_fail(c->b, FM_E_FORMAT, "%s/type: '%.40s' is no JSON type", c->where, type);
    }
}

/* A schema without "type" is taken as the type its keywords speak of: what comes out is valid. */
static const char *implied_type(const json_t *schema)
{
    const struct {
        const char *const *keys;
        const char *type;
    } kinds[] = {{object_keys, "object"},
                 {array_keys, "array"},
                 {string_keys, "string"},
                 {number_keys, "number"}};
    for (int i = 0; i < 4; i++)
        for (const char *const *k = kinds[i].keys; *k; k++)
            if (json_object_get(schema, *k)) return kinds[i].type;
    return NULL;
}

static void value(compiler *c, int from, const json_t *schema, int to)
{
    if (c->b->status) return;
    if (json_is_true(schema)) {
        gb_builtin_call(c->b, from, GB_VALUE, to);
        return;
    }
    if (!json_is_object(schema)) {
        gb_fail(c->b, FM_E_FORMAT, "%s: a schema must be an object", c->where);
        return;
    }
    if (c->depth >= MAX_DEPTH) {
        gb_fail(c->b, FM_E_LIMIT, "%s: the schema is nested deeper than %d", c->where, MAX_DEPTH);
        return;
    }
    c->depth++;
    const char *alone = check_keywords(c, schema);
    const json_t *type = json_object_get(schema, "type");
    const char *implied = type ? NULL : implied_type(schema);
    if (c->b->status) {
    } else if (alone) {
        whole(c, alone, from, schema, to);
    } else if (json_is_string(type)) {
        typed(c, json_string_value(type), from, schema, to);
    } else if (json_is_array(type) && json_array_size(type) > 0) {
        for (size_t i = 0; i < json_array_size(type) && !c->b->status; i++) {
            const char *name = json_string_value(json_array_get(type, i));
            typed(c, name ? name : "?", from, schema, to);
        }
    } else if (type) {
        malformed(c, "type", "a name or a list of names");
    } else if (implied) {
        typed(c, implied, from, schema, to);
    } else {
        gb_builtin_call(c->b, from, GB_VALUE, to);
    }
    c->depth--;
}

static bool begin(compiler *c, gb *b, const json_t *schema)
{
    *c = (compiler){.b = b, .root = schema, .refs = json_object(), .where = "#"};
    if (!c->refs) gb_fail(b, FM_E_NOMEM, "out of memory while compiling a schema");
    return c->refs != NULL;
}

void gb_schema(gb *b, int from, const json_t *schema, int to)
{
    compiler c;
    if (begin(&c, b, schema)) value(&c, from, schema, to);
    json_decref(c.refs);
}

/* One property as a tag: strings stand raw up to the closing tag, all else is JSON. */
static void tag(compiler *c, int from, const char *key, const json_t *schema,
                const en_call_format *f, int to)
{
    gb *b = c->b;
    int open = gb_state(b), name = gb_state(b), at = gb_state(b);
    gb_literal(b, from, f->param_open, strlen(f->param_open), open);
    gb_literal(b, open, key, strlen(key), name);
    gb_literal(b, name, f->param_name_end, strlen(f->param_name_end), at);
    const char *type = json_string_value(json_object_get(schema, "type"));
    const json_t *values = json_object_get(schema, "enum");
    int value_end = gb_state(b);
    if (type && !strcmp(type, "string") && !values) {
        gb_until(b, at, f->param_close, to);
        return;
    }
    if (type && !strcmp(type, "string")) {
        for (size_t i = 0; i < json_array_size(values); i++) {
            const char *text = json_string_value(json_array_get(values, i));
            if (text) gb_literal(b, at, text, strlen(text), value_end);
        }
    } else {
        part(c, key, at, schema, value_end);
    }
    gb_literal(b, value_end, f->param_close, strlen(f->param_close), to);
}

void gb_schema_tags(gb *b, int from, const json_t *schema, const en_call_format *format, int to)
{
    compiler c;
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const char *key;
    json_t *child;
    if (!begin(&c, b, schema)) return;
    json_object_foreach((json_t *)properties, key, child)
    {
        int next = gb_state(b);
        tag(&c, from, key, child, format, next);
        if (!is_required(required, key)) gb_eps(b, from, next);
        from = next;
    }
    gb_eps(b, from, to);
    json_decref(c.refs);
}
