#include "experts/profile.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROFILE_BYTES = 256 << 20 };

fm_status xp_profile_create(const char *model, int n_experts, int n_layers, const int *layer_ids,
                            xp_profile **out, fm_error *err)
{
    *out = NULL;
    if (n_experts < 1 || n_layers < 1)
        return fm_fail(err, FM_E_ARGUMENT, "a profile needs routed experts: %d layers of %d",
                       n_layers, n_experts);
    xp_profile *p = bs_calloc(1, sizeof *p);
    if (!p) return fm_fail_nomem(err, "making a profile");
    *p = (xp_profile){.n_experts = n_experts, .threshold = 0.5};
    p->model = bs_strdup(model ? model : "");
    p->preset = bs_strdup("diverse");
    p->layers = bs_calloc((size_t)n_layers, sizeof *p->layers);
    bool ok = p->model && p->preset && p->layers;
    for (int i = 0; ok && i < n_layers; i++) {
        xp_profile_layer *l = &p->layers[p->n_layers++];
        l->layer = layer_ids[i];
        l->prompts = bs_calloc((size_t)n_experts, sizeof *l->prompts);
        l->tokens = bs_calloc((size_t)n_experts, sizeof *l->tokens);
        ok = l->prompts && l->tokens;
    }
    if (!ok) {
        xp_profile_free(p);
        return fm_fail_nomem(err, "making a profile");
    }
    *out = p;
    return FM_OK;
}

void xp_profile_free(xp_profile *p)
{
    if (!p) return;
    for (int i = 0; i < p->n_layers; i++) {
        bs_free(p->layers[i].prompts);
        bs_free(p->layers[i].tokens);
    }
    bs_free(p->layers);
    bs_free(p->model);
    bs_free(p->preset);
    bs_free(p);
}

/* --- reading ------------------------------------------------------------------------------------
 */

static xp_profile_layer *layer_of(xp_profile *p, int number)
{
    for (int i = 0; i < p->n_layers; i++)
        if (p->layers[i].layer == number) return &p->layers[i];
    return NULL;
}

/* A key that must be a whole number in [0, limit); -1 if it is not. */
static long key_number(const char *key, long limit)
{
    char *end;
    if (*key < '0' || *key > '9') return -1;
    long n = strtol(key, &end, 10);
    return *end || n >= limit ? -1 : n;
}

typedef struct count_sink {
    const char *path, *field;
    int layer, n_experts;
    uint32_t *prompts; /* one of the two */
    uint64_t *tokens;
    json_int_t most;
} count_sink;

static fm_status read_counts(const json_t *counts, const count_sink *to, fm_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)counts, key, value)
    {
        long id = key_number(key, to->n_experts);
        if (id < 0)
            return fm_fail(err, FM_E_STALE,
                           "%s: layer %d counts expert '%s', but the model has %d "
                           "experts: this profile was made for another model",
                           to->path, to->layer, key, to->n_experts);
        json_int_t n = json_integer_value(value);
        if (!json_is_integer(value) || n < 0 || n > to->most)
            return fm_fail(err, FM_E_FORMAT,
                           "%s: layers.%d.%s.%s must be a whole number of at most %lld", to->path,
                           to->layer, to->field, key, (long long)to->most);
        if (to->prompts) to->prompts[id] = (uint32_t)n;
        if (to->tokens) to->tokens[id] = (uint64_t)n;
    }
    return FM_OK;
}

static fm_status read_layers(const char *path, const json_t *layers, xp_profile *p, fm_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)layers, key, value)
    {
        long number = key_number(key, 1 << 20);
        xp_profile_layer *l = number < 0 ? NULL : layer_of(p, (int)number);
        if (!l)
            return fm_fail(err, FM_E_STALE,
                           "%s: layer '%s' is not a layer with routed experts of "
                           "this model: the profile was made for another one",
                           path, key);
        json_t *counts = json_object_get(value, "activation_counts");
        if (!json_is_object(counts))
            return fm_fail(err, FM_E_FORMAT, "%s: layers.%s.activation_counts is missing", path,
                           key);
        count_sink to = {path, "activation_counts", l->layer, p->n_experts, l->prompts,
                         NULL, p->n_prompts};
        fm_status status = read_counts(counts, &to, err);
        json_t *tokens = json_object_get(value, "token_counts");
        to = (count_sink){path, "token_counts", l->layer, p->n_experts, NULL, l->tokens, INT64_MAX};
        if (!status && json_is_object(tokens)) status = read_counts(tokens, &to, err);
        if (status) return status;
    }
    return FM_OK;
}

static fm_status read_head(const char *path, const json_t *root, xp_profile *p, fm_error *err)
{
    json_int_t prompts = json_integer_value(json_object_get(root, "num_prompts"));
    if (prompts < 1 || prompts > INT32_MAX)
        return fm_fail(err, FM_E_FORMAT, "%s: num_prompts must be a number above 0", path);
    json_int_t experts = json_integer_value(json_object_get(root, "num_experts"));
    if (experts && experts != p->n_experts)
        return fm_fail(err, FM_E_STALE,
                       "%s: made for a model of %lld experts a layer, this one has %d", path,
                       (long long)experts, p->n_experts);
    p->n_prompts = (int)prompts;
    double threshold = json_number_value(json_object_get(root, "threshold"));
    if (threshold > 0 && threshold <= 1) p->threshold = threshold;
    json_int_t capacity = json_integer_value(json_object_get(root, "capacity"));
    if (capacity > 0 && capacity <= p->n_experts) p->capacity = (int)capacity;
    const char *model = json_string_value(json_object_get(root, "model"));
    if (model) {
        char *copy = bs_strdup(model);
        if (!copy) return fm_fail_nomem(err, path);
        bs_free(p->model);
        p->model = copy;
    }
    return FM_OK;
}

fm_status xp_profile_read(const char *path, int n_experts, int n_layers, const int *layer_ids,
                          xp_profile **out, fm_error *err)
{
    *out = NULL;
    bs_buf text = {0};
    fm_status status = bs_read_file(path, MAX_PROFILE_BYTES, &text, err);
    if (status) {
        bs_buf_free(&text);
        return status;
    }
    json_error_t problem;
    json_t *root = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &problem);
    bs_buf_free(&text);
    if (!root)
        return fm_fail(err, FM_E_FORMAT, "%s: not valid JSON (line %d): %s", path, problem.line,
                       problem.text);
    xp_profile *p = NULL;
    json_t *layers = json_object_get(root, "layers");
    if (!json_is_object(layers))
        status = fm_fail(err, FM_E_FORMAT, "%s: no object 'layers': not an expert profile", path);
    if (!status) status = xp_profile_create("", n_experts, n_layers, layer_ids, &p, err);
    if (!status) status = read_head(path, root, p, err);
    if (!status) status = read_layers(path, layers, p, err);
    json_decref(root);
    if (status) xp_profile_free(p);
    else *out = p;
    return status;
}

/* --- ranking and pins ---------------------------------------------------------------------------
 */

static bool has_tokens(const xp_profile *p, int i)
{
    for (int e = 0; e < p->n_experts; e++)
        if (p->layers[i].tokens[e]) return true;
    return false;
}

typedef struct ranked {
    uint64_t count;
    int id;
} ranked;

static int by_count_then_id(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

int xp_profile_rank(const xp_profile *p, int i, bool by_tokens, int *ids)
{
    const xp_profile_layer *l = &p->layers[i];
    by_tokens = by_tokens && has_tokens(p, i);
    ranked *r = bs_malloc((size_t)p->n_experts * sizeof *r);
    int used = 0;
    for (int e = 0; e < p->n_experts; e++) {
        uint64_t count = by_tokens ? l->tokens[e] : l->prompts[e];
        used += count > 0;
        if (r) r[e] = (ranked){count, e};
        ids[e] = e;
    }
    if (!r) return 0; /* out of memory: an order by id, nothing known to be used */
    qsort(r, (size_t)p->n_experts, sizeof *r, by_count_then_id);
    for (int e = 0; e < p->n_experts; e++) ids[e] = r[e].id;
    bs_free(r);
    return used;
}

int xp_profile_pins(const xp_profile *p, int i, double threshold, int top_k, unsigned char *pinned)
{
    const xp_profile_layer *l = &p->layers[i];
    int n = 0;
    memset(pinned, 0, (size_t)p->n_experts);
    if (top_k < 0) {
        uint32_t least = (uint32_t)(int)(threshold * p->n_prompts);
        for (int e = 0; e < p->n_experts; e++)
            if (l->prompts[e] && l->prompts[e] >= least) pinned[e] = 1, n++;
        return n;
    }
    int *ids = bs_malloc((size_t)p->n_experts * sizeof *ids);
    if (!ids) return 0;
    int used = xp_profile_rank(p, i, false, ids);
    for (; n < top_k && n < used; n++) pinned[ids[n]] = 1;
    bs_free(ids);
    return n;
}

/* --- writing ------------------------------------------------------------------------------------
 */

static bool set(json_t *object, const char *key, json_t *value)
{
    return !json_object_set_new(object, key, value);
}

static json_t *layer_json(const xp_profile *p, int i)
{
    const xp_profile_layer *l = &p->layers[i];
    json_t *universal = json_array(), *prompts = json_object(), *tokens = json_object();
    json_t *layer = json_object();
    uint32_t least = (uint32_t)(int)(p->threshold * p->n_prompts);
    bool ok = universal && prompts && tokens && layer;
    int unique = 0;
    for (int e = 0; ok && e < p->n_experts; e++) {
        char key[16];
        snprintf(key, sizeof key, "%d", e);
        if (l->prompts[e]) {
            unique++;
            ok = set(prompts, key, json_integer(l->prompts[e]));
            if (ok && l->prompts[e] >= least)
                ok = !json_array_append_new(universal, json_integer(e));
        }
        if (ok && l->tokens[e]) ok = set(tokens, key, json_integer((json_int_t)l->tokens[e]));
    }
    ok = ok && set(layer, "universal", json_incref(universal)) &&
         set(layer, "activation_counts", json_incref(prompts)) &&
         set(layer, "total_unique", json_integer(unique)) &&
         (!json_object_size(tokens) || set(layer, "token_counts", json_incref(tokens)));
    json_decref(universal);
    json_decref(prompts);
    json_decref(tokens);
    if (ok) return layer;
    json_decref(layer);
    return NULL;
}

fm_status xp_profile_write(const xp_profile *p, const char *path, fm_error *err)
{
    json_t *root = json_object(), *layers = json_object();
    bool ok = root && layers && set(root, "model", json_string(p->model)) &&
              set(root, "num_prompts", json_integer(p->n_prompts)) &&
              set(root, "threshold", json_real(p->threshold)) &&
              set(root, "capacity", json_integer(p->capacity)) &&
              set(root, "num_experts", json_integer(p->n_experts)) &&
              set(root, "moe_layers", json_integer(p->n_layers)) &&
              set(root, "prompt_preset", json_string(p->preset)) && set(root, "mix", json_null());
    for (int i = 0; ok && i < p->n_layers; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", p->layers[i].layer);
        json_t *layer = layer_json(p, i);
        ok = layer && set(layers, key, layer);
    }
    ok = ok && set(root, "layers", json_incref(layers));
    char *text = ok ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(layers);
    json_decref(root);
    if (!text) return fm_fail_nomem(err, "writing a profile");
    fm_status status = bs_write_file(path, text, strlen(text), err);
    free(text);
    return status;
}
