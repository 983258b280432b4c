/* body_attention.h - cached keys and values, and softmax attention over them in blocks. */

/* KN_KV_I8: a tile of KN_KV_TILE positions is, a run of 32 columns, a line of codes for each two
 * columns (keys) or two positions (values), then a line of the positions' scales, as halves.
 * Columns that fill up the last run are zero. Of values KV_SHARED runs have the same scales: they
 * are multiplied into the weights, so that weights have to be coded for each of them. */
enum { KV_RUN = 32, KV_LINE = 64, KV_LINES = KN_KV_TILE / 2 };
enum { KV_SHARED = 4 };
enum { KV_CODES = KV_LINES * KV_LINE, KV_RUN_TILE = KV_CODES + KV_LINE };
_Static_assert((int)KV_RUN == (int)KN_KV_TILE, "keys and values have tiles of one shape");

/* Where one position's codes and scale of a run lie: code i at codes[i / 2 * apart + i % 2 * next].
 */
typedef struct kv_place {
    char *codes, *scale;
    int apart, next;
} kv_place;

static kv_place kv_place_of(const kn_kv *kv, int position, int run)
{
    int runs = (kv->dim + KV_RUN - 1) / KV_RUN, i = position % KN_KV_TILE;
    char *tile = (char *)kv->cache +
                 ((size_t)(position / KN_KV_TILE) * (size_t)runs + (size_t)run) * KV_RUN_TILE;
    char *scale = tile + KV_CODES + (size_t)i * sizeof(uint16_t);
    if (kv->what == KN_KEYS) return (kv_place){tile + 2 * i, scale, KV_LINE, 1};
    return (kv_place){tile + i / 2 * KV_LINE + i % 2, scale, 4, 2};
}

/* The scale of m numbers, as it is kept. */
static uint16_t kv_scale(const float *src, int m)
{
    v16 top = v_zero();
    for (int i = 0; i < m; i += 16)
        top = v_max(top, v_abs(v_load_n(src + i, m - i < 16 ? m - i : 16)));
    return kn_f32_f16(v_highest(top) / 127.0f);
}

static void kv_store_run(kv_place to, const float *src, int m, uint16_t scale)
{
    v16 a = v_load_n(src, m < 16 ? m : 16), b = v_load_n(src + 16, m > 16 ? m - 16 : 0);
    float step = kn_f16_f32(scale), codes[KV_RUN];
    v16 inverse = v_set1(step > 0 ? 1.0f / step : 0), limit = v_set1(127), low = v_set1(-127);
    v_store(codes, v_max(low, v_min(limit, v_round(v_mul(a, inverse)))));
    v_store(codes + 16, v_max(low, v_min(limit, v_round(v_mul(b, inverse)))));
    for (int i = 0; i < KV_RUN; i++)
        to.codes[i / 2 * to.apart + i % 2 * to.next] =
            (char)(codes[i] == codes[i] ? (int)codes[i] : 0);
    memcpy(to.scale, &scale, sizeof scale);
}

static void kv_load_run(float *dst, kv_place from, int m)
{
    float step = kn_f16_f32(kn_read16(from.scale));
    for (int i = 0; i < m; i++)
        dst[i] = step * (float)(signed char)from.codes[i / 2 * from.apart + i % 2 * from.next];
}

static int run_width(int dim, int i)
{
    return dim - i < KV_RUN ? dim - i : KV_RUN;
}

static void kv_store_codes(const kn_kv *kv, int position, const float *src)
{
    int shared = kv->what == KN_VALUES ? KV_SHARED * KV_RUN : KV_RUN;
    uint16_t scale = 0;
    for (int i = 0; i < kv->dim; i += KV_RUN) {
        if (i % shared == 0) scale = kv_scale(src + i, kv->dim - i < shared ? kv->dim - i : shared);
        kv_store_run(kv_place_of(kv, position, i / KV_RUN), src + i, run_width(kv->dim, i), scale);
    }
}

static void kv_store(const kn_kv *kv, int position, const float *src)
{
    char *out = (char *)kv->cache + (size_t)position * kn_kv_bytes(kv->type, kv->dim);
    int dim = kv->dim;
    if (kv->type == KN_KV_F32) {
        memcpy(out, src, (size_t)dim * sizeof *src);
    } else if (kv->type == KN_KV_F16) {
        int i = 0;
        for (; i + 16 <= dim; i += 16) v_store_f16(out + 2 * i, v_load(src + i));
        for (; i < dim; i++) {
            uint16_t h = kn_f32_f16(src[i]);
            memcpy(out + 2 * i, &h, sizeof h);
        }
    } else {
        kv_store_codes(kv, position, src);
    }
}

/* A row of a cache in rows. */
static void kv_load_row(kn_kv_type type, float *dst, const char *in, int dim)
{
    if (type == KN_KV_F32) {
        memcpy(dst, in, (size_t)dim * sizeof *dst);
    } else {
        int i = 0;
        for (; i + 16 <= dim; i += 16) v_store(dst + i, v_load_f16(in + 2 * i));
        for (; i < dim; i++) dst[i] = kn_f16_f32(kn_read16(in + 2 * i));
    }
}

static void kv_load(const kn_kv *kv, int position, float *dst)
{
    const char *row = (char *)kv->cache + (size_t)position * kn_kv_bytes(kv->type, kv->dim);
    if (kv->type != KN_KV_I8) kv_load_row(kv->type, dst, row, kv->dim);
    else
        for (int i = 0; i < kv->dim; i += KV_RUN)
            kv_load_run(dst + i, kv_place_of(kv, position, i / KV_RUN), run_width(kv->dim, i));
}

/* ATT_HEADS heads a pass. Positions are taken ATT_ROWS at a time: as float32 they stay in the L1
 * cache while all heads read them. */
enum { ATT_HEADS = 16, ATT_ROWS = 16, ATT_AHEAD = 8192 };

typedef struct float_rows {
    const float *first;
    size_t stride; /* floats */
} float_rows;

/* Rows [p, p + n) as float32: where they lie, or in `buffer`. What follows them is fetched. */
static float_rows load_rows(kn_kv_type type, const void *rows, size_t stride, int dim, int p, int n,
                            float *buffer)
{
    const char *first = (const char *)rows + (size_t)p * stride;
    for (size_t i = 0; i < (size_t)n * stride; i += 64) __builtin_prefetch(first + ATT_AHEAD + i);
    if (type == KN_KV_F32)
        return (float_rows){(const float *)(const void *)first, stride / sizeof(float)};
    for (int i = 0; i < n; i++)
        kv_load_row(type, buffer + i * dim, first + (size_t)i * stride, dim);
    return (float_rows){buffer, (size_t)dim};
}

/* s[h][i] = scale * dot(q_h, row i) for n_heads heads, a constant. dim: whole lanes. */
enum { SCORE_HEADS = VN_LANES == 16 ? 4 : 2, SCORE_ROWS = SCORE_HEADS };
INLINE void score_tile(float *s, const float *q, size_t q_stride, int n_heads, float_rows rows,
                       int dim, float scale)
{
    v16 sum[SCORE_HEADS * SCORE_ROWS];
    _Alignas(64) float dots[16];
    UNROLL for (int i = 0; i < n_heads * SCORE_ROWS; i++) sum[i] = v_zero();
    for (int d = 0; d < dim; d += 16) {
        v16 row[SCORE_ROWS];
        UNROLL for (int i = 0; i < SCORE_ROWS; i++) row[i] =
            v_load(rows.first + (size_t)i * rows.stride + d);
        UNROLL for (int h = 0; h < n_heads; h++)
        {
            v16 a = v_load(q + (size_t)h * q_stride + d);
            UNROLL for (int i = 0; i < SCORE_ROWS; i++) sum[h * SCORE_ROWS + i] =
                v_fma(a, row[i], sum[h * SCORE_ROWS + i]);
        }
    }
    v_sums(dots, sum, n_heads * SCORE_ROWS);
    v_store(dots, v_mul(v_set1(scale), v_load_n(dots, n_heads * SCORE_ROWS)));
    UNROLL for (int h = 0; h < n_heads; h++)
        memcpy(s + h * KN_ATT_BLOCK, dots + h * SCORE_ROWS, SCORE_ROWS * sizeof *s);
}

/* Scores of `count` positions for every head: s[h][0 .. count). */
static void row_scores(float *s, const float *q, size_t q_stride, int n, const kn_attention *a,
                       float_rows rows, int count)
{
    int tiled = a->k_dim % 16 ? 0 : count / SCORE_ROWS * SCORE_ROWS, many;
    for (int h = 0; h < n; h += many, s += many * KN_ATT_BLOCK, q += (size_t)many * q_stride) {
        many = n - h >= SCORE_HEADS ? SCORE_HEADS : 1;
        for (int i = 0; i < tiled; i += SCORE_ROWS) {
            float_rows some = {rows.first + (size_t)i * rows.stride, rows.stride};
            if (many == 1) score_tile(s + i, q, q_stride, 1, some, a->k_dim, a->scale);
            else score_tile(s + i, q, q_stride, SCORE_HEADS, some, a->k_dim, a->scale);
        }
        for (int i = tiled; i < count; i++)
            for (int j = 0; j < many; j++)
                s[j * KN_ATT_BLOCK + i] =
                    a->scale *
                    dot(q + (size_t)j * q_stride, rows.first + (size_t)i * rows.stride, a->k_dim);
    }
}

/* Scores of one block for every head: s[h][position % block]; absent positions get -inf, so that
 * they weigh nothing. */
static void block_scores(float s[][KN_ATT_BLOCK], const float *q, size_t q_stride, int n,
                         const kn_attention *a, int base, int lo, int hi)
{
    _Alignas(64) float buffer[ATT_ROWS * KN_ATT_MAX_DIM];
    for (int h = 0; h < n && hi - lo < KN_ATT_BLOCK; h++)
        for (int j = 0; j < KN_ATT_BLOCK; j++) s[h][j] = -INFINITY;
    for (int p = lo; p < hi; p += ATT_ROWS) {
        int count = hi - p < ATT_ROWS ? hi - p : ATT_ROWS;
        float_rows rows = load_rows(a->type, a->k, a->k_stride, a->k_dim, p, count, buffer);
        row_scores(&s[0][p - base], q, q_stride, n, a, rows, count);
    }
}

/* out[h][0 .. VALUE_LANES) += s[h][i] * row i, in rising i, for VALUE_HEADS heads. */
enum { VALUE_HEADS = 4, VALUE_VECTORS = VN_LANES == 16 ? 4 : 2 };
enum { VALUE_LANES = VALUE_VECTORS * VN_LANES };
INLINE void value_tile(float *out, size_t out_stride, const float *s, float_rows rows, int count)
{
    vn sum[VALUE_HEADS][VALUE_VECTORS];
    UNROLL for (int h = 0; h < VALUE_HEADS; h++) UNROLL for (int v = 0; v < VALUE_VECTORS; v++)
        sum[h][v] = vn_load(out + (size_t)h * out_stride + v * VN_LANES);
    for (int i = 0; i < count; i++) {
        vn row[VALUE_VECTORS];
        UNROLL for (int v = 0; v < VALUE_VECTORS; v++) row[v] =
            vn_load(rows.first + (size_t)i * rows.stride + v * VN_LANES);
        UNROLL for (int h = 0; h < VALUE_HEADS; h++)
        {
            vn weight = vn_set1(s[h * KN_ATT_BLOCK + i]);
            UNROLL for (int v = 0; v < VALUE_VECTORS; v++) sum[h][v] =
                vn_fma(weight, row[v], sum[h][v]);
        }
    }
    UNROLL for (int h = 0; h < VALUE_HEADS; h++) UNROLL for (int v = 0; v < VALUE_VECTORS; v++)
        vn_store(out + (size_t)h * out_stride + v * VN_LANES, sum[h][v]);
}

static void block_values(float *out, size_t out_stride, float s[][KN_ATT_BLOCK], int n,
                         const kn_attention *a, int base, int lo, int hi)
{
    _Alignas(64) float buffer[ATT_ROWS * KN_ATT_MAX_DIM];
    for (int p = lo; p < hi; p += ATT_ROWS) {
        int count = hi - p < ATT_ROWS ? hi - p : ATT_ROWS, h = 0;
        float_rows rows = load_rows(a->type, a->v, a->v_stride, a->v_dim, p, count, buffer);
        for (; h + VALUE_HEADS <= n; h += VALUE_HEADS) {
            float *o = out + (size_t)h * out_stride;
            int d = 0;
            for (; d + VALUE_LANES <= a->v_dim; d += VALUE_LANES)
                value_tile(o + d, out_stride, &s[h][p - base],
                           (float_rows){rows.first + d, rows.stride}, count);
            for (int j = 0; d < a->v_dim && j < VALUE_HEADS * count; j++)
                axpy(o + (size_t)(j / count) * out_stride + d,
                     s[h + j / count][p - base + j % count],
                     rows.first + (size_t)(j % count) * rows.stride + d, a->v_dim - d);
        }
        for (; h < n; h++)
            for (int i = 0; i < count; i++)
                axpy(out + (size_t)h * out_stride, s[h][p - base + i],
                     rows.first + (size_t)i * rows.stride, a->v_dim);
    }
}

static void start_softmax(kn_softmax_state *soft, float *out, const kn_attention *a,
                          const float *sink)
{
    *soft = (kn_softmax_state){sink ? *sink : -INFINITY, sink ? 1.0f : 0.0f};
    memset(out, 0, (size_t)a->v_dim * sizeof *out);
}

/* The maximum covers more scores, `top` the highest; what came before is scaled down where it is
 * raised. */
static void raise_max(kn_softmax_state *soft, float top, float *out, const kn_attention *a)
{
    if (!(top > soft->max)) return;
    float shrink = exp_one(soft->max - top);
    soft->max = top;
    soft->sum *= shrink;
    scale(out, shrink, a->v_dim);
}

/* Turns n scores into weights. */
static void weigh_block(kn_softmax_state *soft, float *scores, int n, float *out,
                        const kn_attention *a)
{
    raise_max(soft, highest(scores, n), out, a);
    soft->sum += exp_below(scores, n, soft->max);
}

#include "kernels/body_attention_i8.h"

static void attend_some(float *out, size_t out_stride, kn_softmax_state *soft, const float *q,
                        size_t q_stride, int n, const kn_attention *a)
{
    _Alignas(64) float s[ATT_HEADS][KN_ATT_BLOCK];
    for (int base = a->begin - a->begin % KN_ATT_BLOCK; base < a->end; base += KN_ATT_BLOCK) {
        int lo = base > a->begin ? base : a->begin;
        int hi = base + KN_ATT_BLOCK < a->end ? base + KN_ATT_BLOCK : a->end;
        block_scores(s, q, q_stride, n, a, base, lo, hi);
        for (int h = 0; h < n; h++)
            weigh_block(&soft[h], s[h], KN_ATT_BLOCK, out + (size_t)h * out_stride, a);
        block_values(out, out_stride, s, n, a, base, lo, hi);
    }
}

static void attend_part(float *out, size_t out_stride, kn_softmax_state *soft, const float *q,
                        size_t q_stride, int n, const kn_attention *a)
{
    for (int h = 0; h < n; h++)
        start_softmax(&soft[h], out + (size_t)h * out_stride, a, a->sink ? a->sink + h : NULL);
    for (int h = 0; h < n; h += ATT_HEADS) {
        int some = n - h < ATT_HEADS ? n - h : ATT_HEADS;
        const float *query = q + (size_t)h * q_stride;
        float *o = out + (size_t)h * out_stride;
        if (a->type == KN_KV_I8) attend_some_i8(o, out_stride, soft + h, query, q_stride, some, a);
        else attend_some(o, out_stride, soft + h, query, q_stride, some, a);
    }
}

/* out and soft go on to the positions of `more`, which lie behind theirs. */
static void attend_more(float *out, kn_softmax_state *soft, const float *more,
                        const kn_softmax_state *more_soft, int v_dim)
{
    float top = soft->max > more_soft->max ? soft->max : more_soft->max;
    float mine = exp_one(soft->max - top), its = exp_one(more_soft->max - top);
    scale(out, mine, v_dim);
    axpy(out, its, more, v_dim);
    *soft = (kn_softmax_state){top, mine * soft->sum + its * more_soft->sum};
}
