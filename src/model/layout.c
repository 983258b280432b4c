/* layout.c - what the names in the files say about how the checkpoint was made. */
#include "model/inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Where the language model's tensors may hang, and where its head then is. */
static const struct {
    const char *prefix, *head;
} places[] = {
    {"model.", "lm_head"},
    {"language_model.model.", "language_model.lm_head"},
    {"model.language_model.", "lm_head"},
    {"language_model.model.", "lm_head"},
    {"language_model.", "lm_head"},
    {"", "lm_head"},
};

__attribute__((format(printf, 2, 3))) static const ts_tensor *find(const md_model *m,
                                                                   const char *format, ...)
{
    char name[400];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return ts_find(m->store, name);
}

static bool find_prefix(md_model *m)
{
    md_layout *l = &m->layout;
    const char *embed = m->config.names.embed;
    if (find(m, "%s%s.weight", l->prefix, embed) && find(m, "%s.weight", l->head)) return true;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (find(m, "%s%s.weight", places[i].prefix, embed) &&
            find(m, "%s.weight", places[i].head)) {
            l->prefix = places[i].prefix;
            l->head = places[i].head;
            return true;
        }
    l->tied = true; /* no head anywhere */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (find(m, "%s%s.weight", places[i].prefix, embed)) {
            l->prefix = places[i].prefix;
            return true;
        }
    return false;
}

static int first_layer(const md_arch *c, md_mixer mixer)
{
    for (int n = 0; n < c->n_layers; n++)
        if (c->layer[n].mixer == mixer) return n;
    return -1;
}

/* Converted convolutions are [C][K][1], raw ones [C][1][K]; with the raw ones come norms stored as
 * w where 1 + w is meant. */
static bool is_raw(const md_model *m)
{
    int n = first_layer(&m->config, MD_DELTANET);
    if (n < 0) return false;
    const ts_tensor *t =
        find(m, "%slayers.%d.%s.conv1d.weight", m->layout.prefix, n, m->config.names.mixer);
    return t && t->n_dims == 3 && t->shape[2] != 1;
}

static void find_router(md_model *m)
{
    const md_arch *c = &m->config;
    int n = 0;
    while (n < c->n_layers && !c->layer[n].moe) n++;
    const char *name = c->names.router;
    while (n < c->n_layers && *name) {
        int length = (int)strcspn(name, "|");
        if (find(m, "%slayers.%d.%s.%.*s.weight", m->layout.prefix, n, c->names.moe, length,
                 name)) {
            m->layout.router = name;
            m->layout.router_length = length;
            return;
        }
        name += length + (name[length] == '|');
    }
}

fm_status md_find_layout(md_model *m, fm_error *err)
{
    const md_arch *c = &m->config;
    m->layout = md_layout_of(c);
    if (!m->store) return FM_OK;
    if (!find_prefix(m))
        return fm_fail(err, FM_E_FORMAT, "%s: no tensor %s%s.weight in the folder's files",
                       ts_file_path(m->store, 0), m->layout.prefix, c->names.embed);
    if (c->tied) m->layout.tied = true;
    int mla = first_layer(c, MD_MLA);
    if (mla >= 0)
        m->layout.kv_b =
            !find(m, "%slayers.%d.%s.embed_q.weight", m->layout.prefix, mla, c->names.attention);
    m->layout.raw_norms = c->family->plus_one_norms && is_raw(m);
    find_router(m);
    return FM_OK;
}
