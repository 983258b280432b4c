/* Failure, limits, and the containers that values are made of. */
#include "base/mem.h"
#include "text/jj.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

jj_value jj_fail_status(jj *c, fm_status status, const char *what)
{
    if (!c->failed) {
        c->failed = true;
        c->status = fm_fail(c->err, status, "%s, line %d: %s", c->t->name, c->line, what);
    }
    return jj_undefined(NULL);
}

jj_value jj_fail(jj *c, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return jj_fail_status(c, FM_E_FORMAT, text);
}

jj_value jj_fail_undefined(jj *c, jj_value v)
{
    return jj_fail(c, "%s", v.u.why ? v.u.why : "the value is undefined");
}

bool jj_step(jj *c)
{
    if (c->failed) return false;
    if (++c->steps > TX_TEMPLATE_MAX_STEPS)
        jj_fail_status(c, FM_E_LIMIT, "the template takes too many steps");
    return !c->failed;
}

void *jj_get(jj *c, size_t bytes)
{
    void *p = jj_arena_get(&c->arena, bytes);
    if (p) return p;
    bool limit = bytes > c->arena.limit || c->arena.total > c->arena.limit - bytes - (1 << 20);
    jj_fail_status(c, limit ? FM_E_LIMIT : FM_E_NOMEM,
                   limit ? "the template's values take too much memory" : "out of memory");
    return NULL;
}

/* --- lists
 * ------------------------------------------------------------------------------------------ */

jj_list *jj_new_list(jj *c, size_t capacity)
{
    jj_list *list = jj_get(c, sizeof *list);
    if (!list) return &c->no_list;
    if (capacity && capacity < SIZE_MAX / sizeof *list->items &&
        (list->items = jj_get(c, capacity * sizeof *list->items)))
        list->capacity = capacity;
    return list;
}

void jj_append(jj *c, jj_list *list, jj_value v)
{
    if (c->failed || list == &c->no_list) return;
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        jj_value *items = jj_get(c, capacity * sizeof *items);
        if (!items) return;
        if (list->n) memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->n++] = v;
}

jj_value jj_list_value(jj_type type, jj_list *list)
{
    return (jj_value){.type = type, .u.list = list};
}

jj_value jj_iterator_value(jj *c, jj_list *list)
{
    jj_iterator *it = jj_get(c, sizeof *it);
    if (!it) return jj_undefined(NULL);
    it->list = list;
    return (jj_value){.type = JJ_ITERATOR, .u.iterator = it};
}

/* --- dicts
 * ------------------------------------------------------------------------------------------- */

enum { FEW = 12 };

jj_dict *jj_new_dict(jj *c, size_t capacity)
{
    jj_dict *d = jj_get(c, sizeof *d);
    if (!d) return &c->no_dict;
    if (capacity && capacity < SIZE_MAX / sizeof *d->entries &&
        (d->entries = jj_get(c, capacity * sizeof *d->entries)))
        d->capacity = capacity;
    return d;
}

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h ^ h >> 29;
}

/* Equal keys have equal hashes: 1, 1.0 and True are one key. False: not hashable, after a failure.
 */
static bool hash_key(jj *c, jj_value key, uint64_t *out)
{
    uint64_t h;
    switch (key.type) {
    case JJ_STRING: return *out = hash_bytes(key.u.s->s, key.u.s->n), true;
    case JJ_NONE: return *out = 1, true;
    case JJ_BOOL: return *out = 2 + (uint64_t)key.u.b, true;
    case JJ_INT: return *out = 2 + (uint64_t)key.u.i, true;
    case JJ_FLOAT:
        if (key.u.f >= -9e18 && key.u.f <= 9e18) return *out = 2 + (uint64_t)(int64_t)key.u.f, true;
        return *out = 3, true;
    case JJ_TUPLE:
        *out = 5;
        for (size_t i = 0; i < key.u.list->n; i++) {
            if (!hash_key(c, key.u.list->items[i], &h)) return false;
            *out = *out * 31 + h;
        }
        return true;
    case JJ_LIST:
    case JJ_DICT: jj_fail(c, "unhashable type: '%s'", jj_type_name(key)); return false;
    default: return *out = (uint64_t)(uintptr_t)key.u.list, true;
    }
}

static void index_entry(jj_dict *d, uint64_t hash, size_t entry)
{
    size_t at = hash & (d->n_index - 1);
    while (d->index[at]) at = (at + 1) & (d->n_index - 1);
    d->index[at] = (uint32_t)entry + 1;
}

static void build_index(jj *c, jj_dict *d)
{
    size_t n = 64;
    while (n < d->capacity * 2) n *= 2;
    d->index = jj_get(c, n * sizeof *d->index);
    d->n_index = d->index ? n : 0;
    for (size_t i = 0; d->index && i < d->n; i++) {
        uint64_t hash;
        if (hash_key(c, d->entries[i].key, &hash)) index_entry(d, hash, i);
    }
}

static jj_value *find_hash(jj *c, const jj_dict *d, jj_value key, uint64_t hash)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (jj_equal(c, d->entries[i].key, key)) return &d->entries[i].value;
        return NULL;
    }
    for (size_t at = hash & (d->n_index - 1); d->index[at]; at = (at + 1) & (d->n_index - 1)) {
        jj_entry *e = &d->entries[d->index[at] - 1];
        if (jj_equal(c, e->key, key)) return &e->value;
    }
    return NULL;
}

jj_value *jj_dict_find(jj *c, const jj_dict *d, jj_value key)
{
    uint64_t hash = 0;
    if (!hash_key(c, key, &hash)) return NULL;
    return find_hash(c, d, key, hash);
}

jj_value *jj_dict_find_text(const jj_dict *d, const char *key, size_t n)
{
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            jj_value k = d->entries[i].key;
            if (k.type == JJ_STRING && k.u.s->n == n && !memcmp(k.u.s->s, key, n))
                return &d->entries[i].value;
        }
        return NULL;
    }
    for (size_t at = hash_bytes(key, n) & (d->n_index - 1); d->index[at];
         at = (at + 1) & (d->n_index - 1)) {
        jj_entry *e = &d->entries[d->index[at] - 1];
        if (e->key.type == JJ_STRING && e->key.u.s->n == n && !memcmp(e->key.u.s->s, key, n))
            return &e->value;
    }
    return NULL;
}

void jj_dict_set(jj *c, jj_dict *d, jj_value key, jj_value value)
{
    uint64_t hash = 0;
    if (c->failed || d == &c->no_dict || !hash_key(c, key, &hash)) return;
    jj_value *old = find_hash(c, d, key, hash);
    if (old) {
        *old = value;
        return;
    }
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 8;
        jj_entry *entries = jj_get(c, capacity * sizeof *entries);
        if (!entries) return;
        if (d->n) memcpy(entries, d->entries, d->n * sizeof *entries);
        d->entries = entries;
        d->capacity = capacity;
        d->index = NULL;
    }
    d->entries[d->n++] = (jj_entry){key, value};
    if (d->index) index_entry(d, hash, d->n - 1);
    else if (d->n > FEW) build_index(c, d);
}

/* --- JSON
 * ---------------------------------------------------------------------------------------------- */

/* Roles name who speaks; templates build control tokens of them ('<|' + role + '|>'), so the
 * known ones are markup. Any other role is content like the rest. */
static bool known_role(const char *s)
{
    static const char *const roles[] = {"system",      "user",     "assistant",  "tool",
                                        "developer",   "function", "ipython",    "tool_response",
                                        "observation", "model",    "environment"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(s, roles[i])) return true;
    return false;
}

static jj_value json_object_value(jj *c, const json_t *v, bool content, int depth)
{
    const char *key;
    json_t *item;
    jj_dict *d = jj_new_dict(c, json_object_size(v));
    json_object_foreach((json_t *)v, key, item)
    {
        bool role =
            !strcmp(key, "role") && json_is_string(item) && known_role(json_string_value(item));
        jj_value name = jj_wrap(c, key, strlen(key), content);
        jj_value value = jj_from_json(c, item, content && !role, depth + 1);
        if (c->failed) break;
        jj_dict_set(c, d, name, value);
    }
    return (jj_value){.type = JJ_DICT, .u.dict = d};
}

jj_value jj_from_json(jj *c, const json_t *v, bool content, int depth)
{
    if (depth > 500) return jj_fail_status(c, FM_E_LIMIT, "the context is nested too deeply");
    switch (json_typeof(v)) {
    case JSON_TRUE: return jj_bool(true);
    case JSON_FALSE: return jj_bool(false);
    case JSON_NULL: return jj_none();
    case JSON_INTEGER: return jj_int(json_integer_value(v));
    case JSON_REAL: return jj_float(json_real_value(v));
    case JSON_STRING: return jj_wrap(c, json_string_value(v), json_string_length(v), content);
    case JSON_OBJECT: return json_object_value(c, v, content, depth);
    case JSON_ARRAY: break;
    }
    jj_list *list = jj_new_list(c, json_array_size(v));
    for (size_t i = 0; i < json_array_size(v) && !c->failed; i++)
        jj_append(c, list, jj_from_json(c, json_array_get(v, i), content, depth + 1));
    return jj_list_value(JJ_LIST, list);
}
