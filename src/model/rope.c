#include "model/rope.h"

#include <math.h>
#include <string.h>

/* A view of the rope fields: rope_parameters (one dict a layer type in some files) first, then
 * rope_scaling, then the top level. */
typedef struct places {
    md_fields inner, outer;
} places;

static double number(places *p, const char *name, double min, double max, double fallback)
{
    if (p->inner.json && md_field_present(&p->inner, name))
        return md_field_number(&p->inner, name, min, max, fallback);
    return fallback;
}

static places find_places(md_fields *f)
{
    places p = {.outer = *f, .inner = *f};
    const json_t *dict = md_field_object(f, "rope_parameters");
    const json_t *by_type = json_object_get(dict, "full_attention");
    if (json_is_object(by_type)) dict = by_type;
    if (!dict) dict = md_field_object(f, "rope_scaling");
    p.inner.json = dict;
    p.inner.defaults = NULL;
    return p;
}

static double theta_of(places *p, md_fields *f)
{
    if (p->inner.json && md_field_present(&p->inner, "rope_theta"))
        return md_field_number(&p->inner, "rope_theta", 1.0001, 1e12, MD_REQUIRED);
    return md_field_number(f, "rope_theta", 1.0001, 1e12, 10000);
}

static double fraction_of(places *p, md_fields *f)
{
    if (p->inner.json && md_field_present(&p->inner, "partial_rotary_factor"))
        return md_field_number(&p->inner, "partial_rotary_factor", 1e-6, 1, 1);
    return md_field_number(f, "partial_rotary_factor", 1e-6, 1, 1);
}

static int dims_of(md_arch *c, places *p, md_fields *f)
{
    if (c->family->mixer == MD_MLA) return c->qk_rope;
    if (c->family->no_rope) return 0;
    if (md_field_present(f, "rotary_dim"))
        return md_field_int(f, "rotary_dim", 2, c->head_dim, MD_REQUIRED);
    return (int)(c->head_dim * fraction_of(p, f));
}

static void read_yarn(md_rope_config *r, places *p)
{
    r->kind = MD_ROPE_YARN;
    r->original = number(p, "original_max_position_embeddings", 1, 1e9, 4096);
    r->beta_fast = number(p, "beta_fast", 1e-3, 1e6, 32);
    r->beta_slow = number(p, "beta_slow", 1e-3, 1e6, 1);
    r->mscale = number(p, "mscale", 0, 1e3, 1);
    r->mscale_all_dim = number(p, "mscale_all_dim", 0, 1e3, 0);
    const json_t *truncate = json_object_get(p->inner.json, "truncate");
    r->truncate = !json_is_false(truncate);
}

static void read_longrope(md_rope_config *r, const md_arch *c, places *p, md_fields *f)
{
    r->kind = MD_ROPE_LONG;
    const json_t *list = md_field_array(&p->inner, "long_factor");
    if (!list || json_array_size(list) != (size_t)r->dims / 2) {
        md_field_fail(f, FM_E_FORMAT, "long_factor", "must be a list of %d numbers", r->dims / 2);
        return;
    }
    for (int i = 0; i < r->dims / 2; i++) {
        r->long_factor[i] = json_number_value(json_array_get(list, (size_t)i));
        if (!(r->long_factor[i] > 0))
            md_field_fail(f, FM_E_FORMAT, "long_factor", "has an entry that is not above 0");
    }
    double original = number(p, "original_max_position_embeddings", 1, 1e9, 0);
    if (original == 0)
        original = md_field_number(f, "original_max_position_embeddings", 2, 1e9, 4096);
    r->original = original;
    double ratio = c->max_context / original;
    double natural = ratio <= 1 ? 1 : sqrt(1 + log(ratio) / log(original));
    r->attention_factor = number(p, "long_mscale", 1e-3, 1e3, natural);
}

static void read_scaling(md_arch *c, places *p, md_fields *f)
{
    md_rope_config *r = &c->rope;
    const char *type = md_field_string(&p->inner, "rope_type", NULL);
    if (!type) type = md_field_string(&p->inner, "type", "default");
    r->factor = number(p, "factor", 1e-3, 1e6, 1);
    if (!strcmp(type, "default") || !strcmp(type, "mrope")) return;
    if (!strcmp(type, "linear")) r->kind = MD_ROPE_LINEAR;
    else if (!strcmp(type, "yarn") || !strcmp(type, "deepseek_yarn")) read_yarn(r, p);
    else if (!strcmp(type, "longrope") || !strcmp(type, "su")) read_longrope(r, c, p, f);
    else if (!strcmp(type, "llama3")) {
        r->kind = MD_ROPE_LLAMA3;
        r->original = number(p, "original_max_position_embeddings", 1, 1e9, 8192);
        r->low_freq = number(p, "low_freq_factor", 1e-6, 1e6, 1);
        r->high_freq = number(p, "high_freq_factor", 1e-6, 1e6, 4);
        if (r->high_freq <= r->low_freq)
            md_field_fail(f, FM_E_FORMAT, "high_freq_factor", "must be above low_freq_factor");
    } else if (!strcmp(type, "dynamic")) {
        /* Hunyuan writes its fixed alpha here. Without alpha, dynamic scaling changes nothing up to
         * max_position_embeddings, and no context is longer than that. */
        double alpha = number(p, "alpha", 1e-3, 1e9, 1);
        if (r->dims > 2) r->theta *= pow(alpha, (double)r->dims / (r->dims - 2));
        r->factor = 1;
    } else md_field_fail(f, FM_E_UNSUPPORTED, "rope_scaling", "type \"%s\" is not supported", type);
}

/* Hugging Face and mlx-lm agree: MLA's scores are multiplied by the square of yarn's factor. */
static void scale_mla(md_arch *c)
{
    const md_rope_config *r = &c->rope;
    if (c->family->mixer != MD_MLA || r->kind != MD_ROPE_YARN) return;
    if (r->mscale_all_dim <= 0 || r->factor <= 1) return;
    double m = 0.1 * r->mscale_all_dim * log(r->factor) + 1;
    c->attention_scale = (float)(m * m / sqrt((double)c->head_dim));
}

void md_rope_read(md_arch *c, md_fields *f)
{
    md_rope_config *r = &c->rope;
    places p = find_places(f);
    r->layout = c->family->interleaved_rope ? KN_ROPE_INTERLEAVED : KN_ROPE_HALF;
    r->factor = r->attention_factor = 1;
    r->theta = theta_of(&p, f);
    r->dims = dims_of(c, &p, f);
    if (r->dims % 2 || r->dims > 512)
        md_field_fail(f, FM_E_FORMAT, "partial_rotary_factor",
                      "leaves %d rotated dimensions, it must be an even number up to 512", r->dims);
    if (!f->status && !p.inner.status && p.inner.json && r->dims) read_scaling(c, &p, f);
    if (p.inner.status && !f->status) f->status = p.inner.status;
    scale_mla(c);
}

/* --- tables ----------------------------------------------------------------------------------- */

/* yarn: pairs that turn often keep their frequency, those that turn less than once are stretched
 * by the factor, a ramp between. */
static void yarn_frequencies(const md_rope_config *r, double *out)
{
    double log_theta = 2 * log(r->theta), two_pi = 2 * 3.14159265358979323846;
    double low = r->dims * log(r->original / (r->beta_fast * two_pi)) / log_theta;
    double high = r->dims * log(r->original / (r->beta_slow * two_pi)) / log_theta;
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    if (low < 0) low = 0;
    if (high > r->dims - 1) high = r->dims - 1;
    if (low == high) high += 0.001;
    for (int i = 0; i < r->dims / 2; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        out[i] = out[i] * (1 - ramp) + out[i] / r->factor * ramp;
    }
}

static void llama3_frequencies(const md_rope_config *r, double *out)
{
    double two_pi = 2 * 3.14159265358979323846;
    for (int i = 0; i < r->dims / 2; i++) {
        double wavelength = two_pi / out[i];
        if (wavelength < r->original / r->high_freq) continue;
        if (wavelength > r->original / r->low_freq) {
            out[i] /= r->factor;
            continue;
        }
        double smooth = (r->original / wavelength - r->low_freq) / (r->high_freq - r->low_freq);
        out[i] *= (1 - smooth) / r->factor + smooth;
    }
}

void md_rope_frequencies(const md_rope_config *r, double *out)
{
    for (int i = 0; i < r->dims / 2; i++) out[i] = pow(r->theta, -2.0 * i / r->dims);
    if (r->kind == MD_ROPE_YARN) yarn_frequencies(r, out);
    if (r->kind == MD_ROPE_LLAMA3) llama3_frequencies(r, out);
    for (int i = 0; i < r->dims / 2; i++) {
        if (r->kind == MD_ROPE_LINEAR) out[i] /= r->factor;
        if (r->kind == MD_ROPE_LONG) out[i] /= r->long_factor[i];
    }
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double rotated_scale(const md_rope_config *r)
{
    if (r->kind == MD_ROPE_YARN)
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    return r->attention_factor;
}

void md_rope_angles(const md_rope_config *r, const double *frequencies, int position,
                    float *cos_out, float *sin_out)
{
    double scale = rotated_scale(r);
    for (int i = 0; i < r->dims / 2; i++) {
        double angle = position * frequencies[i];
        cos_out[i] = (float)(scale * cos(angle));
        sin_out[i] = (float)(scale * sin(angle));
    }
}
