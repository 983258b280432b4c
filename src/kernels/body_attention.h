/* body_attention.h - cached keys and values, and softmax attention over them in blocks. */

/* Every element type in runs of 32: KN_KV_I8 keeps 32 codes, then their scale as a half. */
enum { KV_RUN = 32, KV_RUN_I8 = KV_RUN + 2 };

static void kv_store_run_i8(char *dst, const float *src, int m)
{
    v16 a = v_load_n(src, m < 16 ? m : 16), b = v_load_n(src + 16, m > 16 ? m - 16 : 0);
    float top = v_highest(v_max(v_abs(a), v_abs(b)));
    uint16_t half = kn_f32_f16(top / 127.0f);
    float step = kn_f16_f32(half), codes[KV_RUN];
    v16 inverse = v_set1(step > 0 ? 1.0f / step : 0), limit = v_set1(127), low = v_set1(-127);
    v_store(codes, v_max(low, v_min(limit, v_round(v_mul(a, inverse)))));
    v_store(codes + 16, v_max(low, v_min(limit, v_round(v_mul(b, inverse)))));
    for (int i = 0; i < m; i++) dst[i] = (char)(codes[i] == codes[i] ? (int)codes[i] : 0);
    memcpy(dst + m, &half, sizeof half);
}

static void kv_store(kn_kv_type type, void *dst, const float *src, int dim)
{
    char *out = dst;
    if (type == KN_KV_F32) {
        memcpy(out, src, (size_t)dim * sizeof *src);
    } else if (type == KN_KV_F16) {
        int i = 0;
        for (; i + 16 <= dim; i += 16) v_store_f16(out + 2 * i, v_load(src + i));
        for (; i < dim; i++) {
            uint16_t h = kn_f32_f16(src[i]);
            memcpy(out + 2 * i, &h, sizeof h);
        }
    } else {
        for (int i = 0; i < dim; i += KV_RUN, out += KV_RUN_I8)
            kv_store_run_i8(out, src + i, dim - i < KV_RUN ? dim - i : KV_RUN);
    }
}

static void kv_load_run_i8(float *dst, const char *src, int m)
{
    float step = kn_f16_f32(kn_read16(src + m));
    if (m == KV_RUN) {
        v16 s = v_set1(step);
        v_store(dst, v_mul(s, v_load_i8(src)));
        v_store(dst + 16, v_mul(s, v_load_i8(src + 16)));
        return;
    }
    for (int i = 0; i < m; i++) dst[i] = step * (float)(signed char)src[i];
}

static void kv_load(kn_kv_type type, float *dst, const void *src, int dim)
{
    const char *in = src;
    if (type == KN_KV_F32) {
        memcpy(dst, in, (size_t)dim * sizeof *dst);
    } else if (type == KN_KV_F16) {
        int i = 0;
        for (; i + 16 <= dim; i += 16) v_store(dst + i, v_load_f16(in + 2 * i));
        for (; i < dim; i++) dst[i] = kn_f16_f32(kn_read16(in + 2 * i));
    } else {
        for (int i = 0; i < dim; i += KV_RUN, in += KV_RUN_I8)
            kv_load_run_i8(dst + i, in, dim - i < KV_RUN ? dim - i : KV_RUN);
    }
}

enum { ATT_HEADS = 16 }; /* a pass */

/* Scores of one block for every head: s[h][position % block]; absent positions get -inf, so that
 * they weigh nothing. */
static void block_scores(float s[][KN_ATT_BLOCK], const float *q, size_t q_stride, int n,
                         const kn_attention *a, int base, int lo, int hi)
{
    float key[KN_ATT_MAX_DIM];
    for (int h = 0; h < n; h++)
        for (int j = 0; j < KN_ATT_BLOCK; j++) s[h][j] = -INFINITY;
    for (int p = lo; p < hi; p++) {
        kv_load(a->type, key, (const char *)a->k + (size_t)p * a->k_stride, a->k_dim);
        for (int h = 0; h < n; h++)
            s[h][p - base] = a->scale * dot(q + (size_t)h * q_stride, key, a->k_dim);
    }
}

static void block_values(float *out, size_t out_stride, float s[][KN_ATT_BLOCK], int n,
                         const kn_attention *a, int base, int lo, int hi)
{
    float value[KN_ATT_MAX_DIM];
    for (int p = lo; p < hi; p++) {
        kv_load(a->type, value, (const char *)a->v + (size_t)p * a->v_stride, a->v_dim);
        for (int h = 0; h < n; h++)
            axpy(out + (size_t)h * out_stride, s[h][p - base], value, a->v_dim);
    }
}

static void attend_some(float *out, size_t out_stride, const float *q, size_t q_stride, int n,
                        const kn_attention *a, const float *sink)
{
    float max[ATT_HEADS], sum[ATT_HEADS], s[ATT_HEADS][KN_ATT_BLOCK];
    for (int h = 0; h < n; h++) {
        max[h] = sink ? sink[h] : -INFINITY;
        sum[h] = sink ? 1.0f : 0.0f;
        memset(out + (size_t)h * out_stride, 0, (size_t)a->v_dim * sizeof *out);
    }
    for (int base = a->begin - a->begin % KN_ATT_BLOCK; base < a->end; base += KN_ATT_BLOCK) {
        int lo = base > a->begin ? base : a->begin;
        int hi = base + KN_ATT_BLOCK < a->end ? base + KN_ATT_BLOCK : a->end;
        block_scores(s, q, q_stride, n, a, base, lo, hi);
        for (int h = 0; h < n; h++) {
            float top = highest(s[h], KN_ATT_BLOCK);
            if (top > max[h]) {
                float shrink = exp_one(max[h] - top);
                max[h] = top;
                sum[h] *= shrink;
                scale(out + (size_t)h * out_stride, shrink, a->v_dim);
            }
            sum[h] += exp_below(s[h], KN_ATT_BLOCK, max[h]);
        }
        block_values(out, out_stride, s, n, a, base, lo, hi);
    }
    for (int h = 0; h < n; h++) scale(out + (size_t)h * out_stride, 1.0f / sum[h], a->v_dim);
}

static void attend_group(float *out, size_t out_stride, const float *q, size_t q_stride, int n,
                         const kn_attention *a)
{
    for (int h = 0; h < n; h += ATT_HEADS)
        attend_some(out + (size_t)h * out_stride, out_stride, q + (size_t)h * q_stride, q_stride,
                    n - h < ATT_HEADS ? n - h : ATT_HEADS, a, a->sink ? a->sink + h : NULL);
}
