/* gemm_avx512.h - integer products of many vectors.
 *
 * Codes of 32 rows and 512 columns are turned once into a panel in which a register holds four
 * neighbouring columns of sixteen rows, so that a group's sum is complete in its lane and nothing
 * is added across lanes. A panel serves up to GEMM_TOKENS vectors. The sums and the one rounding
 * step a group (add_group) are those of the matrix-vector kernel, in the same order. */

enum {
    PANEL_ROWS = 2 * ROWS,
    PANEL_COLS = 4 * CHUNK,
    GEMM_TOKENS = 128,
    GEMM_TILE = 4,
    GEMM_SMALL = 2
};

typedef struct panel {
    __m512i codes[2][PANEL_COLS / 4]; /* half the rows; chunk * 32 + plane * 16 + lane */
    turned scales[2];                 /* its (at most 16) groups */
    float total[GEMM_TOKENS][PANEL_ROWS];
} panel;

INLINE void pack_rows(panel *p, int half, const kn_mat *w, const unpacker *u, int row, int last,
                      int c0, int n_cols, int bits)
{
    for (int c = 0; c < n_cols; c += CHUNK) {
        __m512i a[ROWS], b[ROWS];
        present there = present_of((n_cols - c) * bits / 8, bits);
        for (int i = 0; i < ROWS; i++) {
            size_t at = (size_t)(row + i < last ? row + i : last) * w->row_bytes;
            const uint8_t *codes = (const uint8_t *)w->w + at + (size_t)(c0 + c) * (size_t)bits / 8;
            unpack_chunk(codes, there, bits, u, &a[i], &b[i]);
        }
        transpose_16x16(a);
        transpose_16x16(b);
        __m512i *out = p->codes[half] + c / 4;
        for (int l = 0; l < 16; l++) out[l] = a[l], out[16 + l] = b[l];
    }
    for (int g = 0, n = n_cols / w->group, turn = turned_groups(w); g < n; g += turn)
        turn_scales(w, row, last, c0 / w->group + g, n - g < turn ? n - g : turn, &p->scales[half],
                    g);
}

static void pack_half(panel *p, int half, const kn_mat *w, const unpacker *u, int row, int last,
                      int c0, int n_cols)
{
    switch (w->bits) {
    case 2: pack_rows(p, half, w, u, row, last, c0, n_cols, 2); return;
    case 3: pack_rows(p, half, w, u, row, last, c0, n_cols, 3); return;
    case 4: pack_rows(p, half, w, u, row, last, c0, n_cols, 4); return;
    case 5: pack_rows(p, half, w, u, row, last, c0, n_cols, 5); return;
    case 6: pack_rows(p, half, w, u, row, last, c0, n_cols, 6); return;
    default: pack_rows(p, half, w, u, row, last, c0, n_cols, 8);
    }
}

/* The same four bytes in every lane. */
static inline __m512i four_bytes(const char *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* All groups of the panel for n tokens from t on. x: the first token's codes at the panel's first
 * column; step, sum: its first group; `record`: distance from token to token. n is a constant. */
INLINE void panel_tokens(panel *p, int t, int n, const char *x, const char *step, const char *sum,
                         size_t record, int group, int n_groups)
{
    int run = group / 8; /* lanes a plane that belong to one group */
    for (int g = 0; g < n_groups; g++) {
        __m512i part[2][2][GEMM_TILE];
        int chunk = g * group / CHUNK, lane = g * group % CHUNK / 8;
        UNROLL for (int j = 0; j < 2; j++) UNROLL for (int i = 0; i < n; i++) part[0][j][i] =
            part[1][j][i] = _mm512_setzero_si512();
        for (int plane = 0; plane < 2; plane++) {
            const __m512i *w0 = p->codes[0] + chunk * 32 + plane * 16 + lane;
            const __m512i *w1 = p->codes[1] + chunk * 32 + plane * 16 + lane;
            const char *at = x + chunk * X_CHUNK_BYTES + plane * X_PLANE_BYTES + lane * 4;
            for (int k = 0; k < run; k++, at += 4) {
                __m512i a = _mm512_load_si512(w0 + k), b = _mm512_load_si512(w1 + k);
                UNROLL for (int i = 0; i < n; i++) UNROLL for (int j = 0; j < 2; j++)
                {
                    __m512i v = four_bytes(at + (size_t)i * record + 64 * j);
                    part[0][j][i] = _mm512_dpbusd_epi32(part[0][j][i], a, v);
                    part[1][j][i] = _mm512_dpbusd_epi32(part[1][j][i], b, v);
                }
            }
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            float s, b, *total = p->total[t + i];
            memcpy(&s, step + (size_t)i * record + (size_t)g * sizeof s, sizeof s);
            memcpy(&b, sum + (size_t)i * record + (size_t)g * sizeof b, sizeof b);
            UNROLL for (int r = 0; r < 2; r++)
            {
                __m512i h = _mm512_slli_epi32(part[r][0][i], 8);
                __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(h, part[r][1][i]));
                _mm512_store_ps(total + ROWS * r,
                                add_group(_mm512_load_ps(total + ROWS * r), dot,
                                          p->scales[r].scale[g], p->scales[r].bias[g], s, b));
            }
        }
    }
}

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    size_t g0 = (size_t)(c0 / w->group) * sizeof(float);
    for (int t = 0, n; t < n_tokens; t += n) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *x = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        const char *step = record + g0, *sum = record + layout->sum + g0;
        int left = n_tokens - t, groups = n_cols / w->group;
        n = left >= GEMM_TILE ? GEMM_TILE : left >= GEMM_SMALL ? GEMM_SMALL : 1;
        size_t bytes = layout->bytes;
        if (n == GEMM_TILE) panel_tokens(p, t, GEMM_TILE, x, step, sum, bytes, w->group, groups);
        else if (n == GEMM_SMALL)
            panel_tokens(p, t, GEMM_SMALL, x, step, sum, bytes, w->group, groups);
        else panel_tokens(p, t, 1, x, step, sum, bytes, w->group, groups);
    }
}

static void panel_rows(float *y, size_t y_stride, const kn_mat *w, const unpacker *u,
                       const kn_act_layout *layout, const char *first, int n_tokens, int row,
                       int n_rows)
{
    _Alignas(64) panel p;
    int last = row + n_rows - 1;
    memset(p.total, 0, (size_t)n_tokens * sizeof p.total[0]);
    for (int c = 0; c < w->cols; c += PANEL_COLS) {
        int n_cols = w->cols - c < PANEL_COLS ? w->cols - c : PANEL_COLS;
        pack_half(&p, 0, w, u, row, last, c, n_cols);
        if (n_rows > ROWS) pack_half(&p, 1, w, u, row + ROWS, last, c, n_cols);
        else memset(p.codes[1], 0, sizeof p.codes[1]), memset(&p.scales[1], 0, sizeof p.scales[1]);
        panel_columns(&p, w, layout, first, n_tokens, c, n_cols);
    }
    for (int t = 0; t < n_tokens; t++) {
        float *out = y + (size_t)t * y_stride + row;
        v_store_n(out, v_load(p.total[t]), n_rows < ROWS ? n_rows : ROWS);
        if (n_rows > ROWS) v_store_n(out + ROWS, v_load(p.total[t] + ROWS), n_rows - ROWS);
    }
}

static void gemm_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                         int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    unpacker u = unpacker_of(w->bits);
    for (int t = t0; t < t1; t += GEMM_TOKENS) {
        const char *first = (const char *)a->prepared + (size_t)t * layout.bytes;
        int n_tokens = t1 - t < GEMM_TOKENS ? t1 - t : GEMM_TOKENS;
        for (int r = row0; r < row1; r += PANEL_ROWS)
            panel_rows(y + (size_t)t * y_stride, y_stride, w, &u, &layout, first, n_tokens, r,
                       row1 - r < PANEL_ROWS ? row1 - r : PANEL_ROWS);
    }
}
