#include "experts/persist.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VERSION = 2, MAX_STATE_BYTES = 256 << 20 };

void xp_saved_free(xp_saved *s)
{
    if (!s) return;
    for (int i = 0; i < s->n_layers; i++) {
        bs_free(s->layers[i].cached);
        bs_free(s->layers[i].frequency);
        bs_free(s->layers[i].last_active);
        bs_free(s->layers[i].pinned);
    }
    bs_free(s->layers);
    bs_free(s->model_id);
    bs_free(s->prompt);
    bs_free(s);
}

fm_status xp_saved_create(const char *model_id, const char *prompt, int n_experts, int n_layers,
                          const int *layer_ids, xp_saved **out, fm_error *err)
{
    *out = NULL;
    xp_saved *s = bs_calloc(1, sizeof *s);
    if (!s) return fm_fail_nomem(err, "making a cache state");
    s->n_experts = n_experts;
    s->model_id = bs_strdup(model_id);
    s->prompt = bs_strdup(prompt ? prompt : "");
    s->layers = bs_calloc((size_t)n_layers, sizeof *s->layers);
    bool ok = s->model_id && s->prompt && s->layers;
    for (int i = 0; ok && i < n_layers; i++) {
        xp_saved_layer *l = &s->layers[s->n_layers++];
        l->layer = layer_ids[i];
        l->cached = bs_calloc((size_t)n_experts, sizeof *l->cached);
        l->frequency = bs_calloc((size_t)n_experts, sizeof *l->frequency);
        l->last_active = bs_calloc((size_t)n_experts, sizeof *l->last_active);
        l->pinned = bs_calloc((size_t)n_experts, 1);
        ok = l->cached && l->frequency && l->last_active && l->pinned;
    }
    if (!ok) {
        xp_saved_free(s);
        return fm_fail_nomem(err, "making a cache state");
    }
    *out = s;
    return FM_OK;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static bool set(json_t *object, const char *key, json_t *value)
{
    return !json_object_set_new(object, key, value);
}

static bool set_id(json_t *object, int id, json_t *value)
{
    char key[16];
    snprintf(key, sizeof key, "%d", id);
    return set(object, key, value);
}

static json_t *layer_json(const xp_saved *s, const xp_saved_layer *l)
{
    json_t *o = json_object(), *cached = json_array(), *frequency = json_object();
    json_t *last = json_object(), *seen = json_array(), *pinned = json_array();
    bool ok = o && set(o, "cached_ids", cached) && set(o, "frequency", frequency) &&
              set(o, "last_active", last) && set(o, "step", json_integer((json_int_t)l->step)) &&
              set(o, "all_seen", seen) && set(o, "pinned_set", pinned);
    for (int i = 0; ok && i < l->n_cached; i++)
        ok = !json_array_append_new(cached, json_integer(l->cached[i]));
    for (int e = 0; ok && e < s->n_experts; e++) {
        if (l->pinned[e]) ok = !json_array_append_new(pinned, json_integer(e));
        if (!ok || !l->last_active[e]) continue;
        ok = set_id(frequency, e, json_real(l->frequency[e])) &&
             set_id(last, e, json_integer((json_int_t)l->last_active[e])) &&
             !json_array_append_new(seen, json_integer(e));
    }
    if (ok) return o;
    json_decref(o);
    return NULL;
}

fm_status xp_saved_write(const xp_saved *s, const char *path, fm_error *err)
{
    char stamp[32] = "";
    time_t now = time(NULL);
    struct tm parts;
    if (localtime_r(&now, &parts)) strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &parts);
    json_t *root = json_object(), *layers = json_object();
    json_t *meta = json_pack("{s:s, s:i}", "prompt", s->prompt, "capacity", s->capacity);
    bool ok = root && set(root, "version", json_integer(VERSION)) &&
              set(root, "model_id", json_string(s->model_id)) &&
              set(root, "capacity", s->capacity ? json_integer(s->capacity) : json_null()) &&
              set(root, "num_experts", json_integer(s->n_experts)) &&
              set(root, "timestamp", json_string(stamp)) && set(root, "metadata", meta) &&
              set(root, "layers", layers);
    for (int i = 0; ok && i < s->n_layers; i++) {
        json_t *layer = layer_json(s, &s->layers[i]);
        ok = layer && set_id(layers, s->layers[i].layer, layer);
    }
    char *text = ok ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text) return fm_fail_nomem(err, "saving the cache state");
    fm_status status = bs_write_file(path, text, strlen(text), err);
    free(text);
    return status;
}

/* --- reading ------------------------------------------------------------------------------------
 */

typedef struct reading {
    const char *path;
    int n_experts;
    fm_error *err;
} reading;

static bool valid_id(const json_t *value, int n_experts)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 &&
           json_integer_value(value) < n_experts;
}

static fm_status read_ids(const reading *r, const json_t *layer, int number, const char *field,
                          int *ids, int *n, unsigned char *mark)
{
    json_t *list = json_object_get(layer, field), *value;
    size_t i;
    *n = 0;
    if (!json_is_array(list) || json_array_size(list) > (size_t)r->n_experts)
        return fm_fail(r->err, FM_E_FORMAT, "%s: layers.%d.%s must be a list of at most %d experts",
                       r->path, number, field, r->n_experts);
    json_array_foreach(list, i, value)
    {
        int id = valid_id(value, r->n_experts) ? (int)json_integer_value(value) : -1;
        if (id < 0 || mark[id])
            return fm_fail(r->err, FM_E_FORMAT,
                           "%s: layers.%d.%s[%zu] is no expert, or named twice", r->path, number,
                           field, i);
        mark[id] = 1;
        if (ids) ids[(*n)++] = id;
    }
    return FM_OK;
}

static fm_status read_stats(const reading *r, const json_t *layer, xp_saved_layer *l)
{
    json_t *frequency = json_object_get(layer, "frequency");
    json_t *last = json_object_get(layer, "last_active");
    json_t *step = json_object_get(layer, "step");
    if (!json_is_object(frequency) || !json_is_object(last) || !json_is_integer(step) ||
        json_integer_value(step) < 0)
        return fm_fail(r->err, FM_E_FORMAT, "%s: layers.%d lacks frequency, last_active or step",
                       r->path, l->layer);
    l->step = (uint64_t)json_integer_value(step);
    for (int e = 0; e < r->n_experts; e++) {
        char key[16];
        snprintf(key, sizeof key, "%d", e);
        double f = json_number_value(json_object_get(frequency, key));
        json_int_t used = json_integer_value(json_object_get(last, key));
        if (!isfinite(f) || f < 0 || used < 0 || (uint64_t)used > l->step)
            return fm_fail(r->err, FM_E_FORMAT, "%s: layers.%d: impossible counts of expert %d",
                           r->path, l->layer, e);
        l->frequency[e] = f;
        l->last_active[e] = (uint64_t)used;
    }
    return FM_OK;
}

static fm_status read_layer(const reading *r, const json_t *layers, xp_saved_layer *l)
{
    char key[16];
    snprintf(key, sizeof key, "%d", l->layer);
    json_t *layer = json_object_get(layers, key);
    if (!json_is_object(layer))
        return fm_fail(r->err, FM_E_FORMAT, "%s: layer %s is missing", r->path, key);
    unsigned char *mark = bs_calloc((size_t)r->n_experts, 1);
    if (!mark) return fm_fail_nomem(r->err, "reading a cache state");
    int none;
    fm_status status = read_ids(r, layer, l->layer, "cached_ids", l->cached, &l->n_cached, mark);
    bs_free(mark);
    if (!status) status = read_ids(r, layer, l->layer, "pinned_set", NULL, &none, l->pinned);
    return status ? status : read_stats(r, layer, l);
}

static fm_status read_head(const reading *r, const json_t *root, const char *model_id, xp_saved *s)
{
    json_int_t version = json_integer_value(json_object_get(root, "version"));
    if (version != VERSION)
        return fm_fail(r->err, FM_E_STALE,
                       "%s: cache state of version %lld; this program reads "
                       "version %d%s: delete the file and it will be made again",
                       r->path, (long long)version, VERSION,
                       version == 1 ? " (version 1, of mlx-moe, does not say which model it is for)"
                                    : "");
    const char *id = json_string_value(json_object_get(root, "model_id"));
    if (!id || strcmp(id, model_id))
        return fm_fail(r->err, FM_E_STALE, "%s: cache state of another model (%s, this one is %s)",
                       r->path, id ? id : "unnamed", model_id);
    const char *prompt =
        json_string_value(json_object_get(json_object_get(root, "metadata"), "prompt"));
    json_int_t capacity = json_integer_value(json_object_get(root, "capacity"));
    s->capacity = capacity > 0 && capacity <= s->n_experts ? (int)capacity : 0;
    if (!prompt) return FM_OK;
    char *copy = bs_strdup(prompt);
    if (!copy) return fm_fail_nomem(r->err, "reading a cache state");
    bs_free(s->prompt);
    s->prompt = copy;
    return FM_OK;
}

fm_status xp_saved_read(const char *path, const char *model_id, int n_experts, int n_layers,
                        const int *layer_ids, xp_saved **out, fm_error *err)
{
    *out = NULL;
    bs_buf text = {0};
    json_error_t problem;
    json_t *root = NULL;
    xp_saved *s = NULL;
    reading r = {path, n_experts, err};
    fm_status status = bs_read_file(path, MAX_STATE_BYTES, &text, err);
    if (!status) {
        root = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &problem);
        if (!json_is_object(root))
            status = fm_fail(err, FM_E_FORMAT, "%s: not valid JSON (line %d): %s", path,
                             root ? 1 : problem.line, root ? "not an object" : problem.text);
    }
    bs_buf_free(&text);
    if (!status) status = xp_saved_create(model_id, "", n_experts, n_layers, layer_ids, &s, err);
    if (!status) status = read_head(&r, root, model_id, s);
    json_t *layers = json_object_get(root, "layers");
    for (int i = 0; !status && i < n_layers; i++) status = read_layer(&r, layers, &s->layers[i]);
    json_decref(root);
    if (status) xp_saved_free(s);
    else *out = s;
    return status;
}
