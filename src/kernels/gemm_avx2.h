/* gemm_avx2.h - integer products of many vectors: panel by panel. */

static void panel_rows(float *y, size_t y_stride, const kn_mat *w, const kn_act_layout *layout,
                       const char *first, int n_tokens, int row, int n_rows)
{
    _Alignas(64) panel p;
    int last = row + n_rows - 1;
    memset(p.total, 0, (size_t)n_tokens * sizeof p.total[0]);
    for (int c = 0; c < w->cols; c += PANEL_COLS) {
        int n_cols = w->cols - c < PANEL_COLS ? w->cols - c : PANEL_COLS;
        pack_half(&p, 0, w, row, last, c, n_cols);
        if (n_rows > ROWS) pack_half(&p, 1, w, row + ROWS, last, c, n_cols);
        else memset(p.codes[1], 0, sizeof p.codes[1]), memset(&p.scales[1], 0, sizeof p.scales[1]);
        panel_columns(&p, w, layout, first, n_tokens, c, n_cols);
    }
    for (int t = 0; t < n_tokens; t++)
        v_store_n(y + (size_t)t * y_stride + row, v_load(p.total[t]), n_rows);
}

static void gemm_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                         int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    for (int t = t0; t < t1; t += GEMM_TOKENS) {
        const char *first = (const char *)a->prepared + (size_t)t * layout.bytes;
        int n_tokens = t1 - t < GEMM_TOKENS ? t1 - t : GEMM_TOKENS;
        for (int r = row0; r < row1; r += PANEL_ROWS)
            panel_rows(y + (size_t)t * y_stride, y_stride, w, &layout, first, n_tokens, r,
                       row1 - r < PANEL_ROWS ? row1 - r : PANEL_ROWS);
    }
}
