/* body_attention_i8.h - attention over a cache of 8-bit codes: products of integers.
 *
 * A score is step * sum over runs of (scale of the run * (query codes . key codes)): the query's
 * codes have 16 bits and one step a head. A block's share of the output is, a run of 32 columns,
 * step * (weight codes . value codes): weights times the values' scales as 16 bits, with one step a
 * block, which is a 32767th of the largest; for each of the runs that share scales once. The sums
 * in () are exact in 32 bits, so no order of theirs shows; the rest is float32, runs and blocks
 * rising. Blocks are cut at absolute positions, longer ones than in float32, because each has its
 * price in the steps of every head and run.
 *
 * Both products are of one form: a line of the cache is 32 pairs of codes, and each pair meets the
 * same two codes of a head. Of keys, a line is two columns of 32 positions; of values, two
 * positions of 32 columns. */

enum { I8_TOP = 32767, I8_RUNS = KN_ATT_MAX_DIM / KV_RUN };
enum { I8_BLOCK = 128, I8_BLOCK_TILES = I8_BLOCK / KN_KV_TILE };
_Static_assert((int64_t)I8_BLOCK *I8_TOP * 127 < INT32_MAX, "a block's sums fit 32 bits");
_Static_assert(KN_ATT_MAX_DIM % KV_RUN == 0, "whole runs");
_Static_assert(KN_ATT_PART % I8_BLOCK == 0, "whole blocks");

typedef int16_t coded_queries[ATT_HEADS][KN_ATT_MAX_DIM];

/* What turns numbers of at most `top` into codes; zero where its inverse would be none. */
static v16 coding_factor(v16 top)
{
    v16 factor = v_div(v_set1(I8_TOP), top);
    return v_select_gt(top, v_set1(1e-30f), factor, v_zero());
}

/* One query; returns the step, 1 for a query of zeros. */
static float code_query(int16_t *codes, const float *q, int dim)
{
    v16 best = v_zero(), limit = v_set1(I8_TOP), low = v_set1(-I8_TOP);
    FOR_LANES(dim) best = v_max(best, v_abs(v_load_n(q + i, m)));
    float top = v_highest(best);
    v16 factor = coding_factor(v_set1(top));
    memset(codes, 0, KN_ATT_MAX_DIM * sizeof *codes);
    FOR_LANES(dim)
    v_store_i16(codes + i, v_max(v_min(v_mul(v_load_n(q + i, m), factor), limit), low));
    return v_first(factor) > 0 ? top / I8_TOP : 1;
}

/* Positions [lo, hi) of a block of a cache, counted from the block's first. */
typedef struct code_block {
    const char *first; /* its first tile */
    size_t apart;      /* from a tile to the next */
    int runs, dim, lo, hi;
    bool turned; /* values that lie as keys do */
    int shared;  /* runs of values with the same scales */
} code_block;

static code_block block_of(const void *cache, size_t stride, int dim, int base,
                           const kn_attention *a)
{
    int hi = a->end - base < I8_BLOCK ? a->end - base : I8_BLOCK;
    return (code_block){.first = (const char *)cache + (size_t)base * stride,
                        .apart = KN_KV_TILE * stride,
                        .runs = (dim + KV_RUN - 1) / KV_RUN,
                        .dim = dim,
                        .lo = a->begin > base ? a->begin - base : 0,
                        .hi = hi};
}

static const char *run_of(const code_block *b, int tile, int run)
{
    return b->first + (size_t)tile * b->apart + run * KV_RUN_TILE;
}

/* The heads of a tile: the largest power of two in n, at most `most`. */
static int tile_heads(int n, int most)
{
    while (most > n) most /= 2;
    return most;
}

/* sum[h][half] += the codes of each pair of the tile at `at` times two of head h, line after line.
 * Fetches what lies `ahead` bytes further, as far as L2: a core that waits for memory at L1 has
 * room for few lines at a time. */
enum { I8_HEADS = VN_LANES == 16 ? 8 : VN_LANES == 1 ? 1 : 2 };
INLINE void add_products(sums sum[][2], int n_heads, const int16_t *codes, size_t codes_apart,
                         const char *at, size_t ahead)
{
    for (int i = 0; i < KV_LINES; i++, at += KV_LINE) {
        __builtin_prefetch(at + ahead, 0, 2);
        pairs first = i_widen(at), second = i_widen(at + KV_LINE / 2);
        UNROLL for (int h = 0; h < n_heads; h++)
        {
            const int16_t *two = codes + (size_t)h * codes_apart + 2 * i;
            sum[h][0] = i_dot(sum[h][0], first, two);
            sum[h][1] = i_dot(sum[h][1], second, two);
        }
    }
    __builtin_prefetch(at + ahead, 0, 2); /* the scales */
}

/* s[h][position] += scale of the position's run * (query codes . key codes). */
INLINE void score_tile_i8(float *s, const int16_t *q, int n_heads, const char *at, bool first,
                          size_t ahead)
{
    sums sum[I8_HEADS][2];
    UNROLL for (int h = 0; h < n_heads; h++) sum[h][0] = sum[h][1] = i_zero();
    add_products(sum, n_heads, q, KN_ATT_MAX_DIM, at, ahead);
    UNROLL for (int half = 0; half < 2; half++)
    {
        v16 scales = v_load_f16(at + KV_CODES + half * KV_LINE / 2);
        UNROLL for (int h = 0; h < n_heads; h++)
        {
            float *to = s + h * I8_BLOCK + 16 * half;
            v16 before = first ? v_zero() : v_load(to);
            v_store(to, v_fma(scales, v_from_sums(sum[h][half]), before));
        }
    }
}

/* One tile's scores of all heads. */
static void score_tile_of(float s[][I8_BLOCK], coded_queries q, int n, const code_block *b,
                          int tile)
{
    size_t ahead = I8_BLOCK_TILES * b->apart;
    for (int run = 0; run < b->runs; run++) {
        const char *at = run_of(b, tile, run);
        for (int h = 0, many; h < n; h += many) {
            float *to = s[h] + KN_KV_TILE * tile;
            const int16_t *codes = q[h] + run * KV_RUN;
            many = tile_heads(n - h, I8_HEADS);
            if (I8_HEADS >= 8 && many == 8) score_tile_i8(to, codes, 8, at, !run, ahead);
            else if (I8_HEADS >= 4 && many == 4) score_tile_i8(to, codes, 4, at, !run, ahead);
            else if (I8_HEADS >= 2 && many == 2) score_tile_i8(to, codes, 2, at, !run, ahead);
            else score_tile_i8(to, codes, 1, at, !run, ahead);
        }
    }
}

/* Scores of a block in steps of their heads. */
static void block_scores_i8(float s[][I8_BLOCK], coded_queries q, int n, const code_block *b)
{
    for (int tile = b->lo / KN_KV_TILE; tile * KN_KV_TILE < b->hi; tile++)
        score_tile_of(s, q, n, b, tile);
    for (int h = 0; h < n && b->hi - b->lo < I8_BLOCK; h++)
        for (int i = 0; i < I8_BLOCK; i++)
            if (i < b->lo || i >= b->hi) s[h][i] = -INFINITY;
}

/* All different scales, zero in missing positions; how many. */
static int block_scales(float scales[][I8_BLOCK], const code_block *b)
{
    bool whole = b->hi - b->lo == I8_BLOCK;
    int n = 0;
    for (int run = 0; run < b->runs; run += b->shared, n++) {
        for (int i = b->lo & -KN_KV_TILE; i < b->hi; i += 16)
            v_store(scales[n] + i, v_load_f16(run_of(b, i / KN_KV_TILE, run) + KV_CODES +
                                              i % KN_KV_TILE * sizeof(uint16_t)));
        for (int i = 0; i < I8_BLOCK && !whole; i++)
            if (i < b->lo || i >= b->hi) scales[n][i] = 0;
    }
    return n;
}

/* Weights times scales become codes with a step each scale and head: their factors and steps. */
typedef struct weight_steps {
    float factor[I8_RUNS * ATT_HEADS], step[I8_RUNS * ATT_HEADS];
} weight_steps;

static void find_steps(weight_steps *w, float s[][I8_BLOCK], int n, float scales[][I8_BLOCK],
                       int n_scales)
{
    v16 top[I8_RUNS * ATT_HEADS];
    for (int j = 0; j < n_scales; j++)
        for (int h = 0; h < n; h++) {
            v16 best = v_zero();
            UNROLL for (int i = 0; i < I8_BLOCK; i += 16) best =
                v_max(best, v_mul(v_load(s[h] + i), v_load(scales[j] + i)));
            top[j * n + h] = best;
        }
    v_highests(w->step, top, n_scales * n);
    FOR_LANES(n_scales * n)
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

/* Turns a tile: its pairs of columns become pairs of positions. Words of two columns and two
 * positions are zipped with those eight lines on, four times; then each word is turned itself. */
typedef uint32_t line_words __attribute__((vector_size(64)));
static void turn_tile(char *out, const char *tile)
{
    line_words a[KV_LINES], b[KV_LINES];
    memcpy(a, tile, sizeof a);
    for (int round = 0; round < 4; round++) {
        UNROLL for (int i = 0; i < KV_LINES / 2; i++)
        {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                               21, 6, 22, 7, 23);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                                   28, 13, 29, 14, 30, 15, 31);
        }
        memcpy(a, b, sizeof a);
    }
    UNROLL for (int i = 0; i < KV_LINES; i++) b[i] =
        (a[i] & 0xff0000ffu) | (a[i] >> 8 & 0xff00u) | (a[i] << 8 & 0xff0000u);
    memcpy(out, b, sizeof b);
}

/* out[h][0 .. columns) += step[h] * (weight codes . value codes of `tiles` tiles from `at` on). */
INLINE void value_tile_i8(float *out, size_t out_stride, const float *step, const int16_t *weights,
                          int n_heads, const char *at, size_t apart, int tiles, int columns,
                          size_t ahead)
{
    sums sum[I8_HEADS][2];
    int m[2] = {columns < 16 ? columns : 16, columns < 16 ? 0 : columns < 32 ? columns - 16 : 16};
    UNROLL for (int h = 0; h < n_heads; h++) sum[h][0] = sum[h][1] = i_zero();
    for (int i = 0; i < tiles; i++, at += apart)
        add_products(sum, n_heads, weights + KN_KV_TILE * i, I8_BLOCK, at, ahead);
    UNROLL for (int h = 0; h < n_heads; h++) UNROLL for (int i = 0; i < 2; i++)
    {
        float *to = out + (size_t)h * out_stride + 16 * i;
        v16 whole = v_from_sums(sum[h][i]);
        v_store_n(to, v_fma(v_set1(step[h]), whole, v_load_n(to, m[i])), m[i]);
    }
}

/* One run of the block's values for all heads. */
static void value_run(float *out, size_t out_stride, int16_t weights[][I8_BLOCK], const float *step,
                      int n, const code_block *b, int run)
{
    _Alignas(64) char turned[I8_BLOCK_TILES * KV_CODES];
    int tile = b->lo / KN_KV_TILE, tiles = (b->hi + KN_KV_TILE - 1) / KN_KV_TILE - tile;
    const char *at = run_of(b, tile, run);
    size_t apart = b->apart, ahead = I8_BLOCK_TILES * apart;
    int columns = b->dim - run * KV_RUN;
    for (int i = 0; i < tiles && b->turned; i++)
        turn_tile(turned + i * KV_CODES, at + (size_t)i * apart);
    if (b->turned) at = turned, apart = KV_CODES, ahead = 0;
    for (int h = 0, many; h < n; h += many) {
        float *o = out + (size_t)h * out_stride;
        const float *st = step + h;
        const int16_t *w = weights[h] + KN_KV_TILE * tile;
        many = tile_heads(n - h, I8_HEADS);
        if (I8_HEADS >= 8 && many == 8)
            value_tile_i8(o, out_stride, st, w, 8, at, apart, tiles, columns, ahead);
        else if (I8_HEADS >= 4 && many == 4)
            value_tile_i8(o, out_stride, st, w, 4, at, apart, tiles, columns, ahead);
        else if (I8_HEADS >= 2 && many == 2)
            value_tile_i8(o, out_stride, st, w, 2, at, apart, tiles, columns, ahead);
        else value_tile_i8(o, out_stride, st, w, 1, at, apart, tiles, columns, ahead);
    }
}

static void block_values_i8(float *out, size_t out_stride, float s[][I8_BLOCK], int n,
                            const code_block *b)
{
    _Alignas(64) float scales[I8_RUNS][I8_BLOCK];
    _Alignas(64) int16_t weights[ATT_HEADS][I8_BLOCK];
    weight_steps w;
    find_steps(&w, s, n, scales, block_scales(scales, b));
    for (int run = 0; run < b->runs; run++) {
        int j = run / b->shared;
        for (int h = 0; h < n && run % b->shared == 0; h++)
            code_weights(weights[h], s[h], scales[j], w.factor[j * n + h]);
        value_run(out + run * KV_RUN, out_stride, weights, w.step + j * n, n, b, run);
    }
}

/* Turns a block's scores into weights, by powers of two: the highest may come out a rounding above
 * 1, and what is absent weighs 2^-126, by a scale of zero. */
static void weigh_block_i8(kn_softmax_state *soft, float *scores, float step, float *out,
                           const kn_attention *a)
{
    raise_max(soft, step * highest(scores, I8_BLOCK), out, a);
    v16 log2_e = v_set1(step * KN_LOG2_E), shift = v_set1(-soft->max * KN_LOG2_E), sum = v_zero();
    UNROLL for (int i = 0; i < I8_BLOCK; i += 16)
    {
        v16 e = v_exp2_below(v_fma(v_load(scores + i), log2_e, shift));
        v_store(scores + i, e);
        sum = v_add(sum, e);
    }
    soft->sum += v_sum(sum);
}

static void attend_some_i8(float *out, size_t out_stride, kn_softmax_state *soft, const float *q,
                           size_t q_stride, int n, const kn_attention *a)
{
    coded_queries codes;
    float step[ATT_HEADS];
    _Alignas(64) float s[ATT_HEADS][I8_BLOCK];
    for (int h = 0; h < n; h++)
        step[h] = a->scale * code_query(codes[h], q + (size_t)h * q_stride, a->k_dim);
    for (int base = a->begin - a->begin % I8_BLOCK; base < a->end; base += I8_BLOCK) {
        code_block keys = block_of(a->k, a->k_stride, a->k_dim, base, a);
        code_block values = block_of(a->v, a->v_stride, a->v_dim, base, a);
        values.turned = a->v == a->k;
        values.shared = values.turned ? 1 : KV_SHARED;
        block_scores_i8(s, codes, n, &keys);
        for (int h = 0; h < n; h++)
            weigh_block_i8(&soft[h], s[h], step[h], out + (size_t)h * out_stride, a);
        block_values_i8(out, out_stride, s, n, &values);
    }
}
