/* gemm_avx2.h - integer products of many vectors: panel by panel.
 *
 * All rows of a block go over some columns before the next come, as many as leave the activations
 * in the second level of cache beside the block's results. */

enum { BLOCK_PANELS = 8, GEMM_ROWS = BLOCK_PANELS * PANEL_ROWS };

/* Columns [c0, c1) of at most PANEL_ROWS rows, added to what the columns before them gave. */
static void panel_rows(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                       int n_tokens, int c0, int c1, int row, int n_rows)
{
    int last = row + n_rows - 1;
    for (int c = c0; c < c1; c += PANEL_COLS) {
        int n_cols = c1 - c < PANEL_COLS ? c1 - c : PANEL_COLS;
        size_t ahead = c + PANEL_COLS < c1
                           ? (size_t)PANEL_COLS * (size_t)w->bits / 8
                           : PANEL_ROWS * w->row_bytes - (size_t)(c - c0) * (size_t)w->bits / 8;
        pack_half(p, 0, w, row, last, c, n_cols, ahead);
        if (n_rows > ROWS) pack_half(p, 1, w, row + ROWS, last, c, n_cols, ahead);
        else empty_half(p, 1);
        panel_columns(p, w, layout, first, n_tokens, c, n_cols);
    }
}

static int at_most(int n, int most)
{
    return n < most ? n : most;
}

/* All columns of at most GEMM_ROWS rows. */
static void block_rows(float *y, size_t y_stride, const kn_mat *w, const kn_act_layout *layout,
                       const char *first, int n_tokens, int row, int n_rows)
{
    _Alignas(64) float total[BLOCK_PANELS][GEMM_TOKENS][PANEL_ROWS];
    _Alignas(64) panel p;
    int step = PANEL_COLS * (GEMM_TOKENS / n_tokens);
    for (int c = 0; c < w->cols; c += step)
        for (int i = 0; i * PANEL_ROWS < n_rows; i++) {
            p.total = total[i];
            if (!c) memset(p.total, 0, (size_t)n_tokens * sizeof p.total[0]);
            panel_rows(&p, w, layout, first, n_tokens, c, c + at_most(w->cols - c, step),
                       row + i * PANEL_ROWS, at_most(n_rows - i * PANEL_ROWS, PANEL_ROWS));
        }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < n_rows; r += PANEL_ROWS)
            v_store_n(y + (size_t)t * y_stride + row + r, v_load(total[r / PANEL_ROWS][t]),
                      at_most(n_rows - r, PANEL_ROWS));
}

static void gemm_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                         int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    for (int t = t0; t < t1; t += GEMM_TOKENS)
        for (int r = row0; r < row1; r += GEMM_ROWS)
            block_rows(y + (size_t)t * y_stride, y_stride, w, &layout,
                       (const char *)a->prepared + (size_t)t * layout.bytes,
                       at_most(t1 - t, GEMM_TOKENS), r, at_most(row1 - r, GEMM_ROWS));
}
