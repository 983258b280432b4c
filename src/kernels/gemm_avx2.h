/* gemm_avx2.h - integer products of many vectors, as gemm_avx512.h does it: codes of 16 rows and
 * 256 columns are turned once into a panel in which a register holds two columns of eight rows. */

enum {
    PANEL_ROWS = 2 * ROWS,
    PANEL_COLS = 4 * CHUNK,
    GEMM_TOKENS = 128,
    GEMM_TILE = 5,
    GEMM_SMALL = 2
};

typedef struct panel {
    __m256i codes[2][PANEL_COLS / 2]; /* half the rows; chunk * 32 + vector * 8 + lane */
    turned scales[2];                 /* its (at most 8) groups */
    float total[GEMM_TOKENS][PANEL_ROWS];
} panel;

INLINE void pack_rows(panel *p, int half, const kn_mat *w, int row, int last, int c0, int n_cols,
                      int bits)
{
    for (int c = 0; c < n_cols; c += CHUNK) {
        __m256i v[ROWS][4];
        int bytes = (n_cols - c < CHUNK ? n_cols - c : CHUNK) * bits / 8;
        for (int i = 0; i < ROWS; i++) {
            size_t at = (size_t)(row + i < last ? row + i : last) * w->row_bytes;
            unpack_chunk((const uint8_t *)w->w + at + (size_t)(c0 + c) * (size_t)bits / 8, bytes,
                         bits, v[i]);
        }
        for (int j = 0; j < 4; j++) {
            __m256i *out = p->codes[half] + c / 2 + 8 * j;
            for (int i = 0; i < ROWS; i++) out[i] = v[i][j];
            transpose_8x8(out);
        }
    }
    turn_scales(w, row, last, c0 / w->group, n_cols / w->group, &p->scales[half]);
}

static void pack_half(panel *p, int half, const kn_mat *w, int row, int last, int c0, int n_cols)
{
    switch (w->bits) {
    case 2: pack_rows(p, half, w, row, last, c0, n_cols, 2); return;
    case 3: pack_rows(p, half, w, row, last, c0, n_cols, 3); return;
    case 4: pack_rows(p, half, w, row, last, c0, n_cols, 4); return;
    case 5: pack_rows(p, half, w, row, last, c0, n_cols, 5); return;
    case 6: pack_rows(p, half, w, row, last, c0, n_cols, 6); return;
    default: pack_rows(p, half, w, row, last, c0, n_cols, 8);
    }
}

/* Where a group's registers lie: `parts` runs of `run`, the first at `start`, `skip` apart. A
 * chunk's vectors are whole column ranges in natural order, but every group's columns run through
 * all four vectors when codes are nibbles. */
typedef struct group_place {
    int start, parts, run, skip;
} group_place;

static inline group_place place_of(int group, int g, int bits)
{
    int column = g * group, chunk = column / CHUNK * 32;
    if (group >= CHUNK) return (group_place){chunk, group / CHUNK, 32, 32};
    if (bits == 4) return (group_place){chunk + column % CHUNK / 8, 4, 4, 8};
    return (group_place){chunk + column % CHUNK / 2, 1, 16, 0};
}

/* All groups of the panel for n tokens from t on; arguments as in gemm_avx512.h. */
INLINE void panel_tokens(panel *p, int t, int n, const char *x, const char *step, const char *sum,
                         size_t record, int group, int n_groups, int bits)
{
    for (int g = 0; g < n_groups; g++) {
        __m256i dot[2][GEMM_TILE];
        group_place place = place_of(group, g, bits);
        UNROLL for (int i = 0; i < n; i++) dot[0][i] = dot[1][i] = _mm256_setzero_si256();
        for (int part = 0; part < place.parts; part++) {
            int start = place.start + part * place.skip;
            const __m256i *w0 = p->codes[0] + start, *w1 = p->codes[1] + start;
            const char *at = x_chunk(x, start / 32, bits) + start % 32 * 4;
            for (int k = 0; k < place.run; k++, at += 4) {
                __m256i a = w0[k], b = w1[k];
                UNROLL for (int i = 0; i < n; i++)
                {
                    int two;
                    memcpy(&two, at + (size_t)i * record, sizeof two);
                    __m256i v = _mm256_set1_epi32(two);
                    dot[0][i] = _mm256_add_epi32(dot[0][i], _mm256_madd_epi16(a, v));
                    dot[1][i] = _mm256_add_epi32(dot[1][i], _mm256_madd_epi16(b, v));
                }
            }
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            float s, b, *total = p->total[t + i];
            memcpy(&s, step + (size_t)i * record + (size_t)g * sizeof s, sizeof s);
            memcpy(&b, sum + (size_t)i * record + (size_t)g * sizeof b, sizeof b);
            UNROLL for (int r = 0; r < 2; r++) _mm256_store_ps(
                total + ROWS * r, add_group(_mm256_load_ps(total + ROWS * r), dot[r][i],
                                            p->scales[r].scale[g], p->scales[r].bias[g], s, b));
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
        if (n == GEMM_TILE)
            panel_tokens(p, t, GEMM_TILE, x, step, sum, layout->bytes, w->group, groups, w->bits);
        else if (n == GEMM_SMALL)
            panel_tokens(p, t, GEMM_SMALL, x, step, sum, layout->bytes, w->group, groups, w->bits);
        else panel_tokens(p, t, 1, x, step, sum, layout->bytes, w->group, groups, w->bits);
    }
}

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
