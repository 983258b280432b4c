/* The values. Big matrices get random codes straight from a counter and scales that keep the
 * activations near size one; layer outputs are small, so that the residual stream stays what the
 * embedding put there. Embeddings are sqrt(skew) c + sqrt(1 - skew) r: what all tokens share makes
 * some experts popular and keeps them so from token to token. The head is orthogonal to c, or
 * greedy decoding would repeat one token for ever. Embeddings, head and routers are made value by
 * value and then quantised. */
#include "cli/synth.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The i-th word of the stream of a key. */
static uint64_t word(uint64_t key, uint64_t i)
{
    return mix(key + i * 0x9e3779b97f4a7c15u);
}

static uint64_t name_key(uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u ^ mix(seed);
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return mix(h);
}

static uint64_t row_key(uint64_t name, uint64_t row)
{
    return name ^ mix(row + 0x632be59bd9b4e019u);
}

/* Uniform, mean 0, variance 1. */
static float uniform(uint64_t w)
{
    return (float)((int32_t)(w >> 32)) * (0x1p-31f * 1.7320508f);
}

float *sy_common_direction(uint64_t seed, int hidden)
{
    float *c = bs_malloc((size_t)hidden * sizeof *c);
    if (!c) return NULL;
    uint64_t key = name_key(seed, "common direction");
    double square = 0;
    for (int i = 0; i < hidden; i++) {
        c[i] = uniform(word(key, (uint64_t)i));
        square += (double)c[i] * c[i];
    }
    float norm = (float)sqrt((double)hidden / square);
    for (int i = 0; i < hidden; i++) c[i] *= norm;
    return c;
}

/* --- single numbers as stored ------------------------------------------------------------------
 */

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static uint16_t half_of(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;
    int exponent = (int)(u >> 23 & 255) - 112;
    if (exponent >= 31) return (uint16_t)(sign | 0x7bff);
    if (exponent <= 0) return (uint16_t)(sign | (uint32_t)(fabsf(f) * 0x1p24f + 0.5f));
    uint32_t rounded = ((uint32_t)exponent << 23 | (u & 0x7fffff)) + 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | rounded >> 13);
}

static void put_float(unsigned char *dst, ts_type type, size_t i, float f)
{
    uint32_t u = bits_of(f);
    uint16_t h = type == TS_F16 ? half_of(f) : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    if (type == TS_F32) memcpy(dst + 4 * i, &u, 4);
    else memcpy(dst + 2 * i, &h, 2);
}

static float e4m3_value(int code)
{
    int e = code >> 3 & 15, m = code & 7;
    return e ? ldexpf(1 + (float)m / 8, e - 7) : ldexpf((float)m, -9);
}

/* The largest E4M3 number that is not above x, as a code from 1 to 0x7e. */
static int e4m3_floor(float x)
{
    int code = 0x7e;
    while (code > 1 && e4m3_value(code) > x) code--;
    return code;
}

static int nearest_e2m1(float x)
{
    static const float edge[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
    int code = 0;
    while (code < 7 && fabsf(x) > edge[code]) code++;
    return code | (x < 0 ? 8 : 0);
}

static int nearest_e4m3(float x)
{
    int code = e4m3_floor(fabsf(x));
    if (code < 0x7e && fabsf(x) - e4m3_value(code) > e4m3_value(code + 1) - fabsf(x)) code++;
    return code | (x < 0 ? 0x80 : 0);
}

/* --- how large
 * ------------------------------------------------------------------------------------ */

static bool by_value(const md_spec *s)
{
    return s->part[0] == MD_EMBED || s->part[0] == MD_HEAD || s->part[0] == MD_ROUTER;
}

static float deviation(const md_spec *s)
{
    double plain = 1 / sqrt((double)s->cols);
    switch (s->part[0]) {
    case MD_EMBED: return 1;
    case MD_ROUTER: return (float)(1.5 * plain);
    case MD_O: return (float)(0.05 * plain);
    case MD_EXPERT_DOWN:
    case MD_SHARED_DOWN:
    case MD_DENSE_DOWN: return (float)(0.1 * plain);
    default: return (float)plain;
    }
}

/* Deviation of uniformly drawn codes, in steps of the scale. */
static float code_deviation(const kn_mat *m)
{
    if (m->format == KN_AFFINE) return (float)((1 << m->bits) / sqrt(12.0));
    return m->format == KN_MXFP8 ? 112 : 2.93f;
}

/* The scale at which a by-value matrix is quantised: its values reach three deviations. */
static float value_scale(const md_spec *s, const kn_mat *m)
{
    if (m->format == KN_AFFINE) return 6 * deviation(s) / (float)((1 << m->bits) - 1);
    return 3 * deviation(s) / (m->format == KN_MXFP8 ? 448 : 6);
}

static float group_scale(const md_spec *s, const kn_mat *m, uint64_t w)
{
    if (by_value(s)) return exp2f(roundf(log2f(value_scale(s, m)) * 4) / 4);
    float scale = exp2f(roundf(log2f(deviation(s) / code_deviation(m)))) * 4 / 3;
    if (m->format != KN_AFFINE) return scale;
    scale *= (float)(8 + (w & 7)) / 16;
    return w & 8 ? -scale : scale;
}

static int e8m0_code(float scale)
{
    return 127 + (int)floorf(log2f(scale) + 0.5f);
}

/* --- rows
 * ----------------------------------------------------------------------------------------- */

static void fill_scales(const sy_tensor *t, uint64_t key, unsigned char *dst)
{
    const kn_mat *m = &t->format;
    size_t n = (size_t)(t->spec->cols / m->group);
    for (size_t g = 0; g < n; g++) {
        float scale = group_scale(t->spec, m, word(key, ~g));
        if (t->part == SY_BIASES) scale *= -0.5f * (float)((1 << m->bits) - 1);
        if (m->format == KN_AFFINE) put_float(dst, t->type, g, scale);
        else dst[g] = (unsigned char)(m->format == KN_NVFP4 ? e4m3_floor(scale) : e8m0_code(scale));
    }
}

static void fill_floats(const sy_tensor *t, uint64_t key, unsigned char *dst)
{
    float d = deviation(t->spec);
    for (int i = 0; i < t->spec->cols; i++)
        put_float(dst, t->type, (size_t)i, d * uniform(word(key, (uint64_t)i)));
}

static void fill_codes(const sy_tensor *t, uint64_t key, unsigned char *dst)
{
    uint64_t n = t->row_bytes, i = 0;
    for (; i * 8 + 8 <= n; i++) {
        uint64_t w = word(key, i);
        memcpy(dst + i * 8, &w, 8);
    }
    uint64_t w = word(key, i);
    memcpy(dst + i * 8, &w, (size_t)(n - i * 8));
    if (t->format.format != KN_MXFP8) return;
    for (uint64_t k = 0; k < n; k++) /* E4M3's 0x7f stands for no number */
        if ((dst[k] & 0x7f) == 0x7f) dst[k] ^= 1;
}

/* Elements [begin, begin + n) of a row of an embedding, head or router, before it is quantised:
 * along * c + free * random. */
static void values(const sy_plan *p, uint64_t key, float along, float free_part, int begin, int n,
                   float *out)
{
    for (int i = 0; i < n; i++)
        out[i] =
            along * p->common[begin + i] + free_part * uniform(word(key, (uint64_t)(begin + i)));
}

/* How much of c the random row of a head holds, to be taken out. */
static float along_common(const sy_plan *p, const md_spec *s, uint64_t key)
{
    float dot = 0;
    for (int i = 0; i < s->cols; i++) dot += uniform(word(key, (uint64_t)i)) * p->common[i];
    return -dot / (float)s->cols;
}

static void affine_codes(const float *x, int n, float scale, int bits, unsigned char *codes)
{
    int most = (1 << bits) - 1;
    float inverse = 1 / scale, offset = 0.5f * (float)most + 0.5f;
    for (int i = 0; i < n; i++) {
        int q = (int)(x[i] * inverse + offset);
        codes[i] = (unsigned char)(q < 0 ? 0 : q > most ? most : q);
    }
}

static void codes_of(const kn_mat *m, const float *x, int n, float scale, unsigned char *codes)
{
    if (m->format == KN_AFFINE) affine_codes(x, n, scale, m->bits, codes);
    for (int i = 0; i < n && m->format != KN_AFFINE; i++)
        codes[i] = (unsigned char)(m->format == KN_MXFP8 ? nearest_e4m3(x[i] / scale)
                                                         : nearest_e2m1(x[i] / scale));
}

/* n codes, n a multiple of 8, as one little-endian bit stream; returns its end. */
static unsigned char *pack_codes(const unsigned char *codes, int n, int bits, unsigned char *dst)
{
    for (int i = 0; i < n; i += 8) {
        uint64_t w = 0;
        for (int k = 7; k >= 0; k--) w = w << bits | codes[i + k];
        memcpy(dst, &w, (size_t)bits); /* 8 codes are `bits` bytes */
        dst += bits;
    }
    return dst;
}

/* The scale as it will be read back. */
static float stored_scale(const md_spec *s, const kn_mat *m)
{
    float scale = group_scale(s, m, 0);
    if (m->format == KN_NVFP4) return e4m3_value(e4m3_floor(scale));
    return m->format == KN_AFFINE ? scale : ldexpf(1, e8m0_code(scale) - 127);
}

static void fill_values(const sy_plan *p, const sy_tensor *t, uint64_t key, unsigned char *dst)
{
    enum { CHUNK = 1024 };
    const kn_mat *m = &t->format;
    const md_spec *s = t->spec;
    float d = deviation(s), share = (float)p->skew, x[CHUNK];
    unsigned char codes[CHUNK];
    float along = s->part[0] == MD_EMBED  ? sqrtf(share)
                  : s->part[0] == MD_HEAD ? d * along_common(p, s, key)
                                          : 0;
    float free_part = s->part[0] == MD_EMBED ? sqrtf(1 - share) : d;
    float scale = m->group ? stored_scale(s, m) : 1;
    for (int begin = 0; begin < s->cols; begin += CHUNK) {
        int n = s->cols - begin < CHUNK ? s->cols - begin : CHUNK;
        values(p, key, along, free_part, begin, n, x);
        if (m->group) {
            codes_of(m, x, n, scale, codes);
            dst = pack_codes(codes, n, m->bits, dst);
        } else {
            for (int i = 0; i < n; i++) put_float(dst, t->type, (size_t)i, x[i]);
            dst += (size_t)n * ts_type_bytes(t->type);
        }
    }
}

/* Norms are ones; recurrences forget at different speeds; biases are nothing. */
static float vector_value(const md_spec *s, uint64_t w)
{
    switch (s->vec) {
    case MD_CONV: return 0.5f * uniform(w);
    case MD_A_LOG: return 1.4f + 0.8f * uniform(w);
    case MD_DT_BIAS: return -2 + uniform(w);
    case MD_IN_NORM:
    case MD_POST_NORM:
    case MD_Q_NORM:
    case MD_K_NORM:
    case MD_Q_A_NORM:
    case MD_KV_A_NORM:
    case MD_MIX_NORM:
    case MD_DT_NORM:
    case MD_B_NORM:
    case MD_C_NORM:
    case MD_D: return 1;
    default: return 0;
    }
}

static void fill_vector(const sy_tensor *t, uint64_t key, unsigned char *dst)
{
    size_t n = (size_t)(t->row_bytes / ts_type_bytes(t->type));
    for (size_t i = 0; i < n; i++)
        put_float(dst, t->type, i, t->part == SY_BIAS ? 0 : vector_value(t->spec, word(key, i)));
}

void sy_fill(const sy_plan *p, const sy_tensor *t, uint64_t row, uint64_t n, void *dst)
{
    unsigned char *to = dst;
    uint64_t name = name_key(p->seed, t->spec->name);
    for (uint64_t r = row; r < row + n; r++, to += t->row_bytes) {
        uint64_t key = row_key(name, r);
        if (t->part == SY_VECTOR || t->part == SY_BIAS) fill_vector(t, key, to);
        else if (t->part != SY_CODES) fill_scales(t, key, to);
        else if (by_value(t->spec)) fill_values(p, t, key, to);
        else if (!t->format.group) fill_floats(t, key, to);
        else fill_codes(t, key, to);
    }
}
