/* model.c - opening, closing, describing. */
#include "model/inside.h"
#include "model/rope.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 16 << 20 };

static fm_status read_json(md_model *m, fm_error *err)
{
    bs_buf text = {0};
    fm_status status = bs_read_file(m->path, MAX_CONFIG, &text, err);
    if (status) {
        bs_buf_free(&text);
        return status;
    }
    json_error_t problem;
    m->json = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, &problem);
    bs_buf_free(&text);
    if (!m->json)
        return fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", m->path, problem.line, problem.text);
    if (!json_is_object(m->json))
        return fm_fail(err, FM_E_FORMAT, "%s: is not a JSON object", m->path);
    return FM_OK;
}

static fm_status make_layers(md_model *m, fm_error *err)
{
    const md_arch *c = &m->config;
    m->layers = bs_calloc((size_t)c->n_layers, sizeof *m->layers);
    m->frequencies = bs_calloc((size_t)c->rope.dims / 2 + 1, sizeof *m->frequencies);
    if (!m->layers || !m->frequencies) return fm_fail_nomem(err, "opening the model");
    md_rope_frequencies(&c->rope, m->frequencies);
    for (int n = 0; n < c->n_layers; n++) {
        m->layers[n].c = &c->layer[n];
        m->layers[n].moe_layer = c->layer[n].moe ? m->info.n_moe_layers++ : -1;
    }
    md_plan_state(m);
    return FM_OK;
}

/* --- figures ---------------------------------------------------------------------------------- */

static uint64_t align_64(uint64_t n)
{
    return (n + 63) & ~(uint64_t)63;
}

/* By the schema and config.json alone. */
static void count_planned(md_model *m)
{
    md_info *info = &m->info;
    uint64_t embed = 0;
    for (size_t i = 0; i < m->schema.n; i++) {
        const md_spec *s = &m->schema.spec[i];
        kn_mat format = md_planned_format(m->json, s);
        uint64_t bytes = md_stored_bytes(s, &format, sizeof(float));
        if (s->kind == MD_EXPERTS) info->experts_bytes += bytes;
        else info->resident_bytes += align_64(bytes);
        if (s->kind == MD_MATRIX && s->part[0] == MD_EMBED) embed = bytes;
    }
    info->decode_read_bytes =
        info->resident_bytes - (m->layout.tied ? 0 : embed - embed / (uint64_t)m->config.vocab);
    for (size_t i = 0; i + 2 < m->schema.n; i++) {
        uint64_t expert = 0;
        for (size_t p = 0; p < 3 && m->schema.spec[i].part[0] == MD_EXPERT_GATE &&
                           m->schema.spec[i].kind == MD_EXPERTS;
             p++) {
            kn_mat format = md_planned_format(m->json, &m->schema.spec[i + p]);
            expert += md_stored_bytes(&m->schema.spec[i + p], &format, sizeof(float)) /
                      (uint64_t)m->config.n_experts;
        }
        if (expert > info->expert_bytes) info->expert_bytes = expert;
    }
}

static void count_real(md_model *m)
{
    md_info *info = &m->info;
    info->resident_bytes = info->decode_read_bytes = m->arena_bytes;
    for (size_t i = 0; i < m->n_bindings && !m->layout.tied; i++) {
        const md_binding *b = &m->bindings[i];
        if (b->spec->kind == MD_MATRIX && b->spec->part[0] == MD_EMBED)
            info->decode_read_bytes -= b->bytes - b->bytes / (uint64_t)m->config.vocab;
    }
    for (int n = 0; n < m->source.n_layers; n++) {
        uint64_t expert = 0;
        for (int p = 0; p < XP_PROJECTIONS; p++)
            for (int k = 0; k < XP_PARTS; k++) expert += m->source.layers[n].part[p][k].bytes;
        info->experts_bytes += expert * (uint64_t)m->source.layers[n].n_experts;
        if (expert > info->expert_bytes) info->expert_bytes = expert;
    }
}

static void describe(md_model *m)
{
    md_info *info = &m->info;
    const md_arch *c = &m->config;
    snprintf(info->family, sizeof info->family, "%s", c->family->model_type);
    info->n_layers = c->n_layers;
    info->hidden = c->hidden;
    info->vocab = c->vocab;
    info->n_experts = c->n_experts;
    for (int n = 0; n < c->n_layers; n++)
        if (c->layer[n].top_k > info->top_k) info->top_k = c->layer[n].top_k;
    info->max_context = c->max_context;
    info->kv_bytes_per_token = m->kv_bytes;
    info->fixed_state_bytes = m->recurrent_floats * sizeof(float);
    if (m->store) count_real(m);
    else count_planned(m);
}

/* --- notes ------------------------------------------------------------------------------------ */

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const ts_tensor *const *)a,
              y = (uintptr_t) * (const ts_tensor *const *)b;
    return x < y ? -1 : x > y;
}

static const char *kind_of(const md_model *m, const char *name)
{
    if (strstr(name, "visual") || strstr(name, "vision")) return "of a vision tower";
    const char *layer = strstr(name, "layers.");
    if (strstr(name, "mtp.") || (layer && atoi(layer + 7) >= m->config.n_layers))
        return "for multi-token prediction";
    return "that this model does not use";
}

/* One note a kind of tensor that nothing reads: how many, how many bytes, the first name. */
static fm_status note_unused(md_model *m, fm_error *err)
{
    enum { KINDS = 3 };
    struct {
        const char *kind, *first;
        uint64_t bytes;
        int n;
    } found[KINDS] = {0};
    qsort(m->used, m->n_used, sizeof *m->used, by_address);
    for (size_t i = 0; i < ts_count(m->store); i++) {
        const ts_tensor *t = ts_at(m->store, i);
        if (bsearch(&t, m->used, m->n_used, sizeof *m->used, by_address)) continue;
        if (strstr(t->name, "inv_freq")) continue;
        const char *kind = kind_of(m, t->name);
        int k = 0;
        while (found[k].kind && strcmp(found[k].kind, kind)) k++;
        found[k].kind = kind;
        if (!found[k].n++) found[k].first = t->name;
        found[k].bytes += t->bytes;
    }
    for (int k = 0; k < KINDS && found[k].kind; k++) {
        m->notes[m->n_notes] = bs_sprintf("skipped %d tensor%s %s (%llu bytes; the first is %s)",
                                          found[k].n, found[k].n > 1 ? "s" : "", found[k].kind,
                                          (unsigned long long)found[k].bytes, found[k].first);
        if (!m->notes[m->n_notes++]) return fm_fail_nomem(err, "opening the model");
    }
    return FM_OK;
}

const char *md_note(const md_model *model, int i)
{
    return i >= 0 && i < model->n_notes ? model->notes[i] : NULL;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Latent attention takes values from the front of its cached vectors; with eight bits they are kept
 * in runs of 32 with a scale, and the front must end with a run. */
static fm_status check_cache_type(const md_model *m, fm_error *err)
{
    int rank = m->config.kv_lora;
    if (m->options.kv_type != KN_KV_I8 || rank % 32 == 0) return FM_OK;
    return fm_fail(err, FM_E_UNSUPPORTED,
                   "%s: kv_lora_rank is %d, not a multiple of 32: its cache cannot have 8 bits "
                   "(--kv-bits 16 or 32)",
                   m->path, rank);
}

static fm_status open_all(md_model *m, const char *dir, fm_error *err)
{
    fm_status status = read_json(m, err);
    if (!status) status = md_config_read(&m->config, m->json, m->path, m->options.mlx_router, err);
    if (!status) status = md_check_quantisation(m->json, m->path, err);
    if (!status) status = check_cache_type(m, err);
    if (!status && dir) status = ts_open(dir, &m->store, err);
    if (!status) status = make_layers(m, err);
    if (!status) status = md_find_layout(m, err);
    if (!status) status = md_schema_build(&m->config, m->layout, &m->schema, err);
    if (!status && dir) status = md_bind(m, err);
    if (!status && dir) status = md_build_expert_source(m, err);
    if (!status && dir) status = note_unused(m, err);
    if (!status) describe(m);
    return status;
}

static fm_status open_model(char *path, const char *dir, const md_options *options, md_model **out,
                            fm_error *err)
{
    *out = NULL;
    md_model *m = path ? bs_calloc(1, sizeof *m) : NULL;
    if (!m) {
        bs_free(path);
        return fm_fail_nomem(err, "opening the model");
    }
    m->options = *options;
    m->path = path;
    fm_status status = open_all(m, dir, err);
    if (status) {
        md_close(m);
        return status;
    }
    *out = m;
    return FM_OK;
}

fm_status md_open(const char *dir, const md_options *options, md_model **out, fm_error *err)
{
    return open_model(bs_path_join(dir, "config.json"), dir, options, out, err);
}

fm_status md_open_config(const char *config_path, const md_options *options, md_model **out,
                         fm_error *err)
{
    return open_model(bs_strdup(config_path), NULL, options, out, err);
}

void md_close(md_model *m)
{
    if (!m) return;
    bs_pages_free(m->arena, m->arena_bytes);
    md_free_expert_source(m);
    md_schema_free(&m->schema);
    for (int i = 0; i < m->n_notes; i++) bs_free(m->notes[i]);
    ts_close(m->store);
    json_decref(m->json);
    bs_free(m->bindings);
    bs_free(m->layers);
    bs_free(m->frequencies);
    bs_free(m->used);
    bs_free(m->path);
    bs_free(m);
}

const md_info *md_describe(const md_model *model)
{
    return &model->info;
}

const xp_source *md_expert_source(const md_model *model)
{
    return model->store ? &model->source : NULL;
}

int md_moe_layer(const md_model *model, int i)
{
    int n = 0;
    while (model->layers[n].moe_layer != i) n++;
    return n;
}

const ts_store *md_store(const md_model *model)
{
    return model->store;
}

const json_t *md_config(const md_model *model)
{
    return model->json;
}

const md_arch *md_arch_of(const md_model *model)
{
    return &model->config;
}

const md_schema *md_schema_of(const md_model *model)
{
    return &model->schema;
}

kn_mat md_stored_format(const md_model *model, const md_spec *spec)
{
    if (!model->store) return md_planned_format(model->json, spec);
    if (spec->kind == MD_EXPERTS)
        return model->source.layers[spec->moe_layer].shape[spec->part[0] - MD_EXPERT_GATE];
    for (size_t i = 0; i < model->n_bindings; i++)
        if (model->bindings[i].spec == spec) return model->bindings[i].m.shape;
    return (kn_mat){0};
}
