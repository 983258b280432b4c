#include "text/template.h"

#include "base/mem.h"
#include "text/jj.h"
#include "text/unicode.h"

#include <string.h>

fm_status tx_template_compile(const char *source, size_t n, const char *name, tx_template **out,
                              fm_error *err)
{
    if (n > TX_TEMPLATE_MAX_SOURCE)
        return fm_fail(err, FM_E_LIMIT, "a template of %zu bytes, the limit is %d", n,
                       TX_TEMPLATE_MAX_SOURCE);
    if (!tx_utf8_valid(source, n))
        return fm_fail(err, FM_E_FORMAT, "%s: not UTF-8", name ? name : "template");
    tx_template *t = bs_calloc(1, sizeof *t);
    if (!t) return fm_fail_nomem(err, "reading a template");
    t->source = bs_malloc(n + 1);
    t->name = bs_strdup(name ? name : "template");
    t->arena.limit = TX_TEMPLATE_MAX_MEMORY;
    fm_status status = FM_OK;
    if (!t->source || !t->name) status = fm_fail_nomem(err, "reading a template");
    else {
        memcpy(t->source, source, n);
        t->n = n;
        status = jj_parse(t, err);
    }
    if (status) tx_template_free(t);
    else *out = t;
    return status;
}

void tx_template_free(tx_template *t)
{
    if (!t) return;
    jj_arena_free(&t->arena);
    bs_free(t->source);
    bs_free(t->name);
    bs_free(t);
}

const char *tx_template_source(const tx_template *t)
{
    return t->source;
}

void tx_rendered_free(tx_rendered *r)
{
    bs_buf_free(&r->text);
    bs_buf_free(&r->raised);
    bs_free(r->segments);
    *r = (tx_rendered){0};
}

static bool is_trusted(const char *key, const char *const *trusted)
{
    for (; trusted && *trusted; trusted++)
        if (!strcmp(*trusted, key)) return true;
    return false;
}

static void read_context(jj *c, const json_t *context, const char *const *trusted)
{
    const char *key;
    json_t *v;
    c->context = jj_new_dict(c, json_object_size(context));
    json_object_foreach((json_t *)context, key, v)
    {
        jj_value name = jj_wrap(c, key, strlen(key), true);
        jj_dict_set(c, c->context, name, jj_from_json(c, v, !is_trusted(key, trusted), 0));
    }
}

/* The printed text and its runs become the result. */
static void hand_over(jj *c, jj_out *out)
{
    tx_rendered *r = c->rendered;
    r->segments = bs_realloc(NULL, out->n_runs, sizeof *r->segments);
    if (!r->segments) {
        jj_fail_status(c, FM_E_NOMEM, "out of memory");
        return;
    }
    size_t start = 0;
    for (size_t i = 0; i < out->n_runs; start = out->runs[i++].end)
        r->segments[i] = (tx_segment){out->runs[i].end - start, out->runs[i].content};
    r->n_segments = r->capacity = out->n_runs;
    r->text = out->text;
    out->text = (bs_buf){0};
}

fm_status tx_template_render(const tx_template *t, const json_t *context,
                             const char *const *trusted, time_t now, tx_rendered *out,
                             fm_error *err)
{
    jj_out text = {0};
    *out = (tx_rendered){0};
    if (!json_is_object(context))
        return fm_fail(err, FM_E_ARGUMENT, "a template's context must be an object");
    jj *c = bs_calloc(1, sizeof *c);
    if (!c) return fm_fail_nomem(err, "rendering a template");
    c->t = t;
    c->arena.limit = TX_TEMPLATE_MAX_MEMORY;
    c->rendered = out;
    c->out = &text;
    c->err = err;
    c->line = 1;
    c->now = now ? now : time(NULL);
    c->scope = jj_new_scope(c, NULL);
    read_context(c, context, trusted);
    if (!c->failed && bs_buf_reserve(&text.text, 0)) jj_exec(c, &t->body);
    if (!c->failed) hand_over(c, &text);
    fm_status status = c->failed ? c->status : FM_OK;
    jj_out_free(&text);
    jj_arena_free(&c->arena);
    bs_free(c);
    return status;
}
