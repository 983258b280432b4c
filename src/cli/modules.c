#include "cli/modules.h"

#include "base/mem.h"
#include "model/schema.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const formats[] = {
    [KN_F32] = "f32",     [KN_F16] = "f16",     [KN_BF16] = "bf16",   [KN_AFFINE] = "affine",
    [KN_MXFP4] = "mxfp4", [KN_NVFP4] = "nvfp4", [KN_MXFP8] = "mxfp8", [KN_F8_BLOCK] = "fp8 blocks",
};

/* The number between two dots becomes a star. */
static void put_pattern(const char *name, char *out, size_t size)
{
    size_t n = 0;
    for (const char *p = name; *p && n + 2 < size; p++) {
        bool number = isdigit((unsigned char)*p) && p > name && p[-1] == '.';
        const char *end = p;
        while (number && isdigit((unsigned char)*end)) end++;
        if (!number || (*end && *end != '.')) {
            out[n++] = *p;
            continue;
        }
        out[n++] = '*';
        p = end - 1;
    }
    out[n] = 0;
}

static void put_format(const kn_mat *m, char *out, size_t size)
{
    int n = snprintf(out, size, "%s", formats[m->format]);
    if (m->format == KN_AFFINE)
        snprintf(out + n, size - (size_t)n, " %d bit, group %d, %s", m->bits, m->group,
                 formats[m->scale_type]);
}

static cli_module describe(const md_model *model, const md_spec *spec)
{
    cli_module x = {.times = 1};
    kn_mat m = md_stored_format(model, spec);
    put_pattern(spec->name, x.pattern, sizeof x.pattern);
    put_format(&m, x.format, sizeof x.format);
    x.bits = m.bits;
    x.group = m.group;
    if (spec->count) x.shape[x.n_dims++] = spec->count;
    x.shape[x.n_dims++] = spec->rows;
    x.shape[x.n_dims++] = spec->cols;
    x.bytes = md_stored_bytes(spec, &m, sizeof(float));
    return x;
}

static bool alike(const cli_module *a, const cli_module *b)
{
    return !strcmp(a->pattern, b->pattern) && !strcmp(a->format, b->format) &&
           !memcmp(a->shape, b->shape, sizeof a->shape);
}

fm_status cli_modules_list(const md_model *model, cli_modules *out, fm_error *err)
{
    const md_schema *s = md_schema_of(model);
    *out = (cli_modules){.module = bs_calloc(s->n + 1, sizeof *out->module)};
    if (!out->module) return fm_fail_nomem(err, "listing the modules");
    for (size_t i = 0; i < s->n; i++) {
        if (s->spec[i].kind == MD_VECTOR) continue;
        cli_module x = describe(model, &s->spec[i]);
        size_t k = 0;
        while (k < out->n && !alike(&out->module[k], &x)) k++;
        if (k == out->n) out->module[out->n++] = x;
        else {
            out->module[k].times++;
            out->module[k].bytes += x.bytes;
        }
    }
    return FM_OK;
}

void cli_modules_free(cli_modules *m)
{
    bs_free(m->module);
    *m = (cli_modules){0};
}
