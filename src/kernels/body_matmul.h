/* body_matmul.h - y = W x with float32 activations, every format, every ISA.
 *
 * Result (r, t) is the sixteen-lane dot product of the dequantised row r and x_t. Rows are
 * dequantised in spans into the L1 cache, once for a block of tokens; within the block the lanes
 * of BLOCK_ROWS x TILE_TOKENS results stay in registers for a whole span. Between spans they rest
 * in `lanes`, so cutting changes no sum. The ISA gives VN_LANES,
 * TILE_TOKENS, and dequant_span() with its dequant_plan, what it knows of a matrix beforehand. */

enum { SPAN = 512, BLOCK_ROWS = 4, BLOCK_TOKENS = 48, HALF_TILE = TILE_TOKENS / 2 };

typedef struct f32_block {
    float w[BLOCK_ROWS][SPAN]; /* the rows of the block in this span's columns, zero padded */
    float lanes[BLOCK_ROWS][BLOCK_TOKENS][16];
} f32_block;

/* lanes[r][t0 + i] += w[r] * x[i] for i < m over n columns, a multiple of 16. m is a constant at
 * every call, so that the sums are registers. */
INLINE void tile(f32_block *b, const float *const *x, int t0, int m, int n)
{
    for (int h = 0; h < 16; h += VN_LANES) {
        vn sum[BLOCK_ROWS][TILE_TOKENS];
        UNROLL for (int r = 0; r < BLOCK_ROWS; r++) UNROLL for (int i = 0; i < m; i++) sum[r][i] =
            vn_load(b->lanes[r][t0 + i] + h);
        for (int c = h; c < n; c += 16) {
            vn w[BLOCK_ROWS];
            UNROLL for (int r = 0; r < BLOCK_ROWS; r++) w[r] = vn_load(b->w[r] + c);
            UNROLL for (int i = 0; i < m; i++)
            {
                vn v = vn_load(x[i] + c);
                UNROLL for (int r = 0; r < BLOCK_ROWS; r++) sum[r][i] = vn_fma(w[r], v, sum[r][i]);
            }
        }
        UNROLL for (int r = 0; r < BLOCK_ROWS; r++) UNROLL for (int i = 0; i < m; i++)
            vn_store(b->lanes[r][t0 + i] + h, sum[r][i]);
    }
}

/* Columns [c0, c0 + n) for tokens [t0, t0 + n_tokens). */
static void span_tokens(f32_block *b, const kn_act *a, int t0, int n_tokens, int c0, int n)
{
    int whole = n & ~15, m;
    for (int t = 0; t < n_tokens; t += m) {
        const float *x[TILE_TOKENS];
        m = n_tokens - t;
        m = m >= TILE_TOKENS ? TILE_TOKENS : m >= HALF_TILE ? HALF_TILE : 1;
        for (int i = 0; i < m; i++) x[i] = a->x + (size_t)(t0 + t + i) * a->stride + c0;
        if (m == TILE_TOKENS) tile(b, x, t, TILE_TOKENS, whole);
        else if (m == HALF_TILE) tile(b, x, t, HALF_TILE, whole);
        else tile(b, x, t, 1, whole);
        for (int i = 0; i < m && whole < n; i++) {
            v16 v = v_load_n(x[i] + whole, n - whole);
            for (int r = 0; r < BLOCK_ROWS; r++) {
                float *lanes = b->lanes[r][t + i];
                v_store(lanes, v_fma(v_load(b->w[r] + whole), v, v_load(lanes)));
            }
        }
    }
}

static void f32_rows(const dequant_plan *plan, float *y, size_t y_stride, const kn_mat *w,
                     const kn_act *a, int row, int n_rows, int t0, int n_tokens)
{
    _Alignas(64) f32_block b;
    for (int r = 0; r < BLOCK_ROWS; r++)
        memset(b.lanes[r], 0, (size_t)n_tokens * sizeof b.lanes[r][0]);
    for (int c = 0; c < w->cols; c += SPAN) {
        int n = w->cols - c < SPAN ? w->cols - c : SPAN;
        for (int r = 0; r < BLOCK_ROWS; r++) {
            if (n & 15) memset(b.w[r] + (n & ~15), 0, 16 * sizeof(float));
            if (r < n_rows) dequant_span(plan, w, row + r, c, c + n, b.w[r]);
            else memset(b.w[r], 0, (size_t)n * sizeof(float));
        }
        span_tokens(&b, a, t0, n_tokens, c, n);
    }
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tokens; t++)
            y[(size_t)(t0 + t) * y_stride + (size_t)(row + r)] = v_sum(v_load(b.lanes[r][t]));
}

static void matmul_f32(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                       int row1, int t0, int t1)
{
    dequant_plan plan = dequant_plan_of(w);
    for (int t = t0; t < t1; t += BLOCK_TOKENS) {
        int n_tokens = t1 - t < BLOCK_TOKENS ? t1 - t : BLOCK_TOKENS;
        for (int r = row0; r < row1; r += BLOCK_ROWS)
            f32_rows(&plan, y, y_stride, w, a, r, row1 - r < BLOCK_ROWS ? row1 - r : BLOCK_ROWS, t,
                     n_tokens);
    }
}
