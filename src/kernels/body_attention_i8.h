/* body_attention_i8.h - attention over a cache of 8-bit codes: products of integers.
 *
 * A score is step * sum over runs of (scale of the run * (query codes . key codes)): the query's
 * codes have 16 bits and one step a head. A block's share of the output is, a run of 32 columns,
 * step * (weight codes . value codes): weights times the runs' scales as 16 bits, with one step a
 * block, which is a 32767th of the largest. The sums in () are exact in 32 bits, so no order of
 * theirs shows; the rest is float32, runs and blocks rising. Blocks are cut at absolute positions,
 * longer ones than in float32, because each has its price in the steps of every head and run. */

enum { I8_TOP = 32767, I8_RUNS = KN_ATT_MAX_DIM / KV_RUN };
enum { I8_BLOCK = 128, I8_BLOCK_TILES = I8_BLOCK / 16 };
_Static_assert((int64_t)I8_BLOCK *I8_TOP * 127 < INT32_MAX, "a block's sums fit 32 bits");
_Static_assert(KN_ATT_MAX_DIM % KV_RUN == 0, "whole runs");

typedef int16_t coded_queries[ATT_HEADS][KN_ATT_MAX_DIM];

/* What turns numbers of at most `top` into codes; zero where its inverse would be none. */
static v16 coding_factor(v16 top)
{
    v16 factor = v_div(v_set1(I8_TOP), top);
    return v_select_gt(top, v_set1(1e-30f), factor, v_zero());
}

/* One query, its runs' codes in the order of i_turn; returns the step. */
static float code_query(int16_t *codes, const float *q, int dim)
{
    v16 best = v_zero(), limit = v_set1(I8_TOP), low = v_set1(-I8_TOP);
    FOR_LANES(dim) best = v_max(best, v_abs(v_load_n(q + i, m)));
    float top = v_highest(best);
    v16 factor = coding_factor(v_set1(top));
    memset(codes, 0, KN_ATT_MAX_DIM * sizeof *codes);
    FOR_LANES(dim)
    {
        int16_t some[16];
        v_store_i16(some, v_max(v_min(v_mul(v_load_n(q + i, m), factor), limit), low));
        for (int j = 0; j < 16; j++) codes[i + (j & ~3) + (j & 1) * 2 + (j >> 1 & 1)] = some[j];
    }
    return top / I8_TOP;
}

/* Rows [lo, hi) of a block, counted from its first position. */
typedef struct block_rows {
    const char *row0;
    size_t stride;
    int dim, runs, lo, hi;
} block_rows;

static block_rows rows_of(const void *rows, size_t stride, int dim, int base, const kn_attention *a)
{
    int hi = a->end - base < I8_BLOCK ? a->end - base : I8_BLOCK;
    return (block_rows){
        (const char *)rows + (size_t)base * stride, stride, dim, (dim + KV_RUN - 1) / KV_RUN,
        a->begin > base ? a->begin - base : 0,      hi};
}

/* Sixteen scales, one in each row. */
INLINE void gather_sixteen(uint16_t *half, const char *at, size_t stride)
{
    UNROLL for (int i = 0; i < 16; i++) half[i] = kn_read16(at + (size_t)i * stride);
}

/* The scales of all runs, zero in missing rows. They are gathered at once: a vector load right
 * behind the stores of its elements would wait for them. */
static void gather_scales(float scales[][I8_BLOCK], const block_rows *b)
{
    uint16_t half[I8_RUNS][I8_BLOCK];
    if (b->hi - b->lo < I8_BLOCK) memset(half, 0, (size_t)b->runs * sizeof *half);
    for (int run = 0; run < b->runs; run++) {
        int end = (run + 1) * KV_RUN < b->dim ? (run + 1) * KV_RUN : b->dim, i = b->lo;
        const char *at = b->row0 + end + run * (KV_RUN_I8 - KV_RUN);
        for (; i + 16 <= b->hi; i += 16)
            gather_sixteen(half[run] + i, at + (size_t)i * b->stride, b->stride);
        for (; i < b->hi; i++) half[run][i] = kn_read16(at + (size_t)i * b->stride);
    }
    for (int run = 0; run < b->runs; run++)
        for (int i = 0; i < I8_BLOCK; i += 16) v_store(scales[run] + i, v_load_f16(half[run] + i));
}

/* One run of all rows of the block: as it lies, or, where rows or columns are missing, in `buffer`
 * with zeros instead. */
typedef struct code_rows {
    const char *first;
    size_t stride;
    const char *ahead; /* what to fetch meanwhile: this run's share of the next block */
} code_rows;

static code_rows run_rows(const block_rows *b, int run, char buffer[I8_BLOCK * KV_RUN])
{
    const char *codes = b->row0 + run * KV_RUN_I8;
    const char *ahead = b->row0 + I8_BLOCK * (b->stride + (size_t)(run * KV_RUN_I8));
    int columns = b->dim - run * KV_RUN;
    if (b->hi - b->lo == I8_BLOCK && columns >= KV_RUN) return (code_rows){codes, b->stride, ahead};
    memset(buffer, 0, I8_BLOCK * KV_RUN);
    for (int i = b->lo; i < b->hi; i++)
        memcpy(buffer + i * KV_RUN, codes + (size_t)i * b->stride,
               (size_t)(columns < KV_RUN ? columns : KV_RUN));
    return (code_rows){buffer, KV_RUN, ahead};
}

/* The heads of a tile: the largest power of two in n, at most `most`. */
static int tile_heads(int n, int most)
{
    while (most > n) most /= 2;
    return most;
}

/* s[h][position] += scale of the position's run * (query codes . key codes), for n_heads heads and
 * I8_TILES times sixteen positions. Fetches `ahead`, a line each `step`: memory likes it even. */
enum { I8_HEADS = VN_LANES == 1 ? 1 : 4, I8_TILES = VN_LANES == 16 ? 4 : 1 };
INLINE void score_tile_i8(float *s, const int16_t *q, int n_heads, const pairs *keys,
                          const float *scales, bool first, const char *ahead, int step)
{
    sums sum[I8_HEADS][I8_TILES];
    UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int t = 0; t < I8_TILES; t++) sum[h][t] =
        i_zero();
    for (int i = 0; i < KV_RUN / 2; i++, ahead += step) {
        __builtin_prefetch(ahead);
        UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int t = 0; t < I8_TILES; t++)
            sum[h][t] = i_dot(sum[h][t], keys[16 * t + i], q + h * KN_ATT_MAX_DIM + 2 * i);
    }
    UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int t = 0; t < I8_TILES; t++)
    {
        float *at = s + h * I8_BLOCK + 16 * t;
        v16 before = first ? v_zero() : v_load(at);
        v_store(at, v_fma(v_load(scales + 16 * t), v_from_sums(sum[h][t]), before));
    }
}

/* One run's part of the scores of all heads. */
static void score_run(float s[][I8_BLOCK], coded_queries q, int n, const block_rows *b, int run,
                      const float *scales)
{
    enum { BYTES = I8_TILES * 16 * KV_RUN_I8, STEPS = KV_RUN / 2 };
    pairs keys[I8_TILES * 16];
    char buffer[I8_BLOCK * KV_RUN];
    code_rows rows = run_rows(b, run, buffer);
    for (int t = b->lo / 16 / I8_TILES * I8_TILES; t * 16 < b->hi; t += I8_TILES) {
        const char *ahead = rows.ahead + t * (16 * KV_RUN_I8);
        for (int i = 0; i < I8_TILES; i++)
            i_turn(keys + 16 * i, rows.first + (size_t)(16 * (t + i)) * rows.stride, rows.stride);
        for (int h = 0, many; h < n; h += many) {
            float *at = s[h] + 16 * t;
            const int16_t *codes = q[h] + run * KV_RUN;
            const char *fetch = ahead + BYTES * h / n;
            many = tile_heads(n - h, I8_HEADS);
            int step = BYTES * many / n / STEPS;
            if (I8_HEADS >= 4 && many == 4)
                score_tile_i8(at, codes, 4, keys, scales + 16 * t, !run, fetch, step);
            else if (I8_HEADS >= 2 && many == 2)
                score_tile_i8(at, codes, 2, keys, scales + 16 * t, !run, fetch, step);
            else score_tile_i8(at, codes, 1, keys, scales + 16 * t, !run, fetch, step);
        }
    }
}

static void block_scores_i8(float s[][I8_BLOCK], coded_queries q, const float *step, int n,
                            const block_rows *b)
{
    _Alignas(64) float scales[I8_RUNS][I8_BLOCK];
    gather_scales(scales, b);
    for (int run = 0; run < b->runs; run++) score_run(s, q, n, b, run, scales[run]);
    for (int h = 0; h < n; h++) scale(s[h], step[h], I8_BLOCK);
    for (int h = 0; h < n && b->hi - b->lo < I8_BLOCK; h++)
        for (int i = 0; i < I8_BLOCK; i++)
            if (i < b->lo || i >= b->hi) s[h][i] = -INFINITY;
}

/* Weights times scales become codes with a step each run and head: their factors and steps. */
typedef struct weight_steps {
    float factor[I8_RUNS * ATT_HEADS], step[I8_RUNS * ATT_HEADS];
} weight_steps;

static void find_steps(weight_steps *w, float s[][I8_BLOCK], int n, float scales[][I8_BLOCK],
                       int runs)
{
    v16 top[I8_RUNS * ATT_HEADS];
    for (int run = 0; run < runs; run++)
        for (int h = 0; h < n; h++) {
            v16 best = v_zero();
            UNROLL for (int i = 0; i < I8_BLOCK; i += 16) best =
                v_max(best, v_mul(v_load(s[h] + i), v_load(scales[run] + i)));
            top[run * n + h] = best;
        }
    v_highests(w->step, top, runs * n);
    FOR_LANES(runs * n)
    {
        v16 best = v_load_n(w->step + i, m);
        v_store_n(w->factor + i, coding_factor(best), m);
        v_store_n(w->step + i, v_mul(best, v_set1(1.0f / I8_TOP)), m);
    }
}

INLINE void code_weights(int16_t *codes, const float *weights, const float *scales, float factor)
{
    v16 all = v_set1(factor);
    UNROLL for (int i = 0; i < I8_BLOCK; i += 16)
        v_store_i16(codes + i, v_mul(v_mul(v_load(weights + i), v_load(scales + i)), all));
}

/* out[h][0 .. columns) += step[h] * (weight codes . value codes of rows [row, last)). */
enum { I8_VALUE_HEADS = VN_LANES == 16 ? 8 : VN_LANES == 1 ? 1 : 2 };
INLINE void value_tile_i8(float *out, size_t out_stride, const float *step, const int16_t *weights,
                          int n_heads, code_rows rows, int row, int last, int columns,
                          const char *ahead, int ahead_step)
{
    sums sum[I8_VALUE_HEADS][2];
    int m[2] = {columns < 16 ? columns : 16, columns < 16 ? 0 : columns < 32 ? columns - 16 : 16};
    UNROLL for (int h = 0; h < n_heads; h++) sum[h][0] = sum[h][1] = i_zero();
    const char *at = rows.first + (size_t)row * rows.stride;
    for (; row < last; row += 2, at += 2 * rows.stride, ahead += ahead_step) {
        pairs values[2];
        __builtin_prefetch(ahead);
        i_pair(values, at, at + rows.stride);
        UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int i = 0; i < 2; i++) sum[h][i] =
            i_dot(sum[h][i], values[i], weights + h * I8_BLOCK + row);
    }
    UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int i = 0; i < 2; i++)
    {
        float *to = out + (size_t)h * out_stride + 16 * i;
        v16 whole = v_from_sums(sum[h][i]);
        v_store_n(to, v_fma(v_set1(step[h]), whole, v_load_n(to, m[i])), m[i]);
    }
}

/* One run of the block's values for all heads. */
static void value_run(float *out, size_t out_stride, int16_t weights[][I8_BLOCK], const float *step,
                      int n, const block_rows *b, int run)
{
    enum { BYTES = I8_BLOCK * KV_RUN_I8, STEPS = I8_BLOCK / 2 };
    char buffer[I8_BLOCK * KV_RUN];
    code_rows rows = run_rows(b, run, buffer);
    int lo = b->lo & ~1, hi = (b->hi + 1) & ~1, columns = b->dim - run * KV_RUN;
    for (int h = 0, many; h < n; h += many) {
        float *o = out + (size_t)h * out_stride;
        const float *st = step + h;
        const int16_t *w = weights[h];
        const char *fetch = rows.ahead + BYTES * h / n;
        many = tile_heads(n - h, I8_VALUE_HEADS);
        int by = BYTES * many / n / STEPS;
        if (I8_VALUE_HEADS >= 8 && many == 8)
            value_tile_i8(o, out_stride, st, w, 8, rows, lo, hi, columns, fetch, by);
        else if (I8_VALUE_HEADS >= 4 && many == 4)
            value_tile_i8(o, out_stride, st, w, 4, rows, lo, hi, columns, fetch, by);
        else if (I8_VALUE_HEADS >= 2 && many == 2)
            value_tile_i8(o, out_stride, st, w, 2, rows, lo, hi, columns, fetch, by);
        else value_tile_i8(o, out_stride, st, w, 1, rows, lo, hi, columns, fetch, by);
    }
}

static void block_values_i8(float *out, size_t out_stride, float s[][I8_BLOCK], int n,
                            const block_rows *b)
{
    _Alignas(64) float scales[I8_RUNS][I8_BLOCK];
    _Alignas(64) int16_t weights[ATT_HEADS][I8_BLOCK];
    weight_steps w;
    gather_scales(scales, b);
    find_steps(&w, s, n, scales, b->runs);
    for (int run = 0; run < b->runs; run++) {
        for (int h = 0; h < n; h++)
            code_weights(weights[h], s[h], scales[run], w.factor[run * n + h]);
        value_run(out + run * KV_RUN, out_stride, weights, w.step + run * n, n, b, run);
    }
}

static void attend_some_i8(float *out, size_t out_stride, const float *q, size_t q_stride, int n,
                           const kn_attention *a, const float *sink)
{
    softmax_state soft[ATT_HEADS];
    coded_queries codes;
    float step[ATT_HEADS];
    _Alignas(64) float s[ATT_HEADS][I8_BLOCK];
    for (int h = 0; h < n; h++) {
        start_softmax(&soft[h], out + (size_t)h * out_stride, a, sink ? sink + h : NULL);
        step[h] = a->scale * code_query(codes[h], q + (size_t)h * q_stride, a->k_dim);
    }
    for (int base = a->begin - a->begin % I8_BLOCK; base < a->end; base += I8_BLOCK) {
        block_rows keys = rows_of(a->k, a->k_stride, a->k_dim, base, a);
        block_rows values = rows_of(a->v, a->v_stride, a->v_dim, base, a);
        block_scores_i8(s, codes, step, n, &keys);
        for (int h = 0; h < n; h++)
            weigh_block(&soft[h], s[h], I8_BLOCK, out + (size_t)h * out_stride, a);
        block_values_i8(out, out_stride, s, n, &values);
    }
    for (int h = 0; h < n; h++) scale(out + (size_t)h * out_stride, 1.0f / soft[h].sum, a->v_dim);
}
