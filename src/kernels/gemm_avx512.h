/* gemm_avx512.h - integer products of many vectors.
 *
 * Codes of 32 rows and 512 columns are turned once into a panel in which a register holds four
 * columns of sixteen rows, the even or the odd ones of eight, so that a group's sum is complete in
 * its lane and nothing is added across lanes. A panel serves up to GEMM_TOKENS vectors. The sums
 * and the one rounding step a group (add_group) are those of the matrix-vector kernel, in the same
 * order. */

enum { PANEL_ROWS = 2 * ROWS, PANEL_COLS = 4 * CHUNK, GEMM_TOKENS = 128, GEMM_TILE = 5 };

typedef struct panel {
    __m512i codes[2][PANEL_COLS / 4]; /* half the rows; chunk * 32 + plane * 16 + lane */
    turned scales[2];                 /* of its (at most 16) groups, group g at g % GROUPS */
    float total[GEMM_TOKENS][PANEL_ROWS];
} panel;

/* A chunk of sixteen rows, turned: sixteen lanes of A, then of B. */
INLINE void turn_chunk(__m512i *out, const uint8_t *const *rows, size_t offset, present there,
                       const unpacker *u, int bits)
{
    __m512i a[ROWS], b[ROWS];
    if (bits == 4) { /* half as much to turn while they are packed */
        UNROLL for (int i = 0; i < ROWS; i++) a[i] =
            _mm512_maskz_loadu_epi8(there.first, rows[i] + offset);
        transpose_16x16(a);
        UNROLL for (int l = 0; l < 16; l++) split_nibbles(a[l], &out[l], &out[16 + l]);
        return;
    }
    UNROLL for (int i = 0; i < ROWS; i++)
        unpack_chunk(rows[i] + offset, there, bits, u, &a[i], &b[i]);
    transpose_16x16(a);
    transpose_16x16(b);
    UNROLL for (int l = 0; l < 16; l++) out[l] = a[l], out[16 + l] = b[l];
}

/* What comes after a panel, PANEL_ROWS pieces of `bytes` bytes: fetched half while this one is
 * packed, half while it is first multiplied, since in one go they would wait for each other. */
typedef struct following {
    const char *first;
    size_t row_bytes;
    int bytes;
} following;

INLINE void fetch_rows(const following *f, int from, int to)
{
    for (int r = from; r < to; r++)
        for (int b = 0; b < f->bytes; b += 64)
            _mm_prefetch(f->first + (size_t)r * f->row_bytes + b, _MM_HINT_T0);
}

INLINE void pack_rows(panel *p, int half, const kn_mat *w, const unpacker *u, int row, int last,
                      int c0, int n_cols, const following *next, int bits)
{
    enum { ROWS_A_CHUNK = ROWS / 2 / (PANEL_COLS / CHUNK) };
    const uint8_t *rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (const uint8_t *)w->w + (size_t)(row + i < last ? row + i : last) * w->row_bytes;
    for (int c = 0, r = half * ROWS / 2; c < n_cols; c += CHUNK, r += ROWS_A_CHUNK) {
        fetch_rows(next, r, r + ROWS_A_CHUNK);
        turn_chunk(p->codes[half] + c / 4, rows, (size_t)(c0 + c) * (size_t)bits / 8,
                   present_of((n_cols - c) * bits / 8, bits), u, bits);
    }
    /* As many as can be turned at once, for the panels beside this one too. */
    int all = w->cols / w->group, turn = turned_groups(w);
    for (int g = c0 / w->group, end = g + n_cols / w->group; g < end; g++)
        if (g % turn == 0)
            turn_scales(w, row, last, g, all - g < turn ? all - g : turn, &p->scales[half],
                        g % GROUPS);
}

/* The same of a strip, whose rows are turned already. Scales of all groups wait as pack_rows() has
 * them. */
static void pack_strip(panel *p, int half, const kn_mat *w, int row, int c0, int n_cols)
{
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes +
                        (size_t)(c0 / 8 * w->bits) * KN_STRIP_ROWS;
    for (int c = 0; c < n_cols; c += 8) {
        __m512i *chunk = p->codes[half] + c / CHUNK * 32 + c % CHUNK / 8;
        codes = load_eight(codes, w->bits, chunk, chunk + 16);
    }
    size_t strip = KN_STRIP_ROWS * kn_float_bytes(w->scale_type);
    for (int g = c0 / w->group, end = g + n_cols / w->group; g < end; g++) {
        size_t at = (size_t)row * w->scale_row_bytes + (size_t)g * strip;
        p->scales[half].scale[g % GROUPS] = row_floats((const char *)w->scales + at, w->scale_type);
        p->scales[half].bias[g % GROUPS] = row_floats((const char *)w->biases + at, w->scale_type);
    }
}

static void pack_half(panel *p, int half, const kn_mat *w, const unpacker *u, int row, int last,
                      int c0, int n_cols, const following *next)
{
    if (w->strips) {
        pack_strip(p, half, w, row, c0, n_cols);
        return;
    }
    switch (w->bits) {
    case 2: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 2); return;
    case 3: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 3); return;
    case 4: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 4); return;
    case 5: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 5); return;
    case 6: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 6); return;
    default: pack_rows(p, half, w, u, row, last, c0, n_cols, next, 8);
    }
}

/* The same four bytes in every lane. */
static inline __m512i four_bytes(const char *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* Some vectors at a panel, from its first column and group on. */
typedef struct panel_x {
    some_x x;
    int g0; /* that group's number in the row */
} panel_x;

/* Add the products of n lanes of the panel at w, whose other half lies behind. sum[half][plane]. m
 * is a constant. */
INLINE void add_lanes(__m512i sum[2][2][GEMM_TILE], int m, const __m512i *w, int n, const char *x,
                      size_t record)
{
    for (int k = 0; k < n; k++, x += 4) {
        __m512i a = _mm512_load_si512(w + k), b = _mm512_load_si512(w + PANEL_COLS / 4 + k);
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
        {
            __m512i v = four_bytes(x + (size_t)i * record + 64 * j);
            sum[0][j][i] = _mm512_dpbusd_epi32(sum[0][j][i], a, v);
            sum[1][j][i] = _mm512_dpbusd_epi32(sum[1][j][i], b, v);
        }
    }
}

/* All groups of the panel for m vectors from t on. m is a constant. */
INLINE void panel_vectors(panel *p, int t, int m, const panel_x *x, int group, int n_groups,
                          const following *next)
{
    int run = group / 8; /* lanes a plane that belong to one group */
    for (int g = 0; g < n_groups; g++) {
        __m512i part[2][2][GEMM_TILE];
        int chunk = g * group / CHUNK, lane = g * group % CHUNK / 8;
        const __m512i *w = p->codes[0] + chunk * 32 + lane;
        const char *codes = x->x.codes + chunk * X_CHUNK_BYTES + lane * 4;
        UNROLL for (int j = 0; j < 2; j++) UNROLL for (int i = 0; i < m; i++) part[0][j][i] =
            part[1][j][i] = _mm512_setzero_si512();
        for (int plane = 0; plane < 2; plane++)
            add_lanes(part, m, w + 16 * plane, run, codes + X_PLANE_BYTES * plane, x->x.record);
        if (next) fetch_rows(next, ROWS + ROWS * g / n_groups, ROWS + ROWS * (g + 1) / n_groups);
        int at_scale = (x->g0 + g) % GROUPS;
        UNROLL for (int i = 0; i < m; i++)
        {
            float step = of_group(x->x.step, &x->x, i, g), sum = of_group(x->x.sum, &x->x, i, g);
            float *total = p->total[t + i];
            UNROLL for (int r = 0; r < 2; r++)
            {
                __m512i h = _mm512_slli_epi32(part[r][0][i], 8);
                __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(h, part[r][1][i]));
                _mm512_store_ps(total + ROWS * r,
                                add_group(_mm512_load_ps(total + ROWS * r), dot,
                                          p->scales[r].scale[at_scale], p->scales[r].bias[at_scale],
                                          step, sum));
            }
        }
    }
}

#define PANEL_TILE(name, m)                                                                        \
    static __attribute__((noinline)) void name(panel *p, int t, const panel_x *x, int group,       \
                                               int n_groups, const following *next)                \
    {                                                                                              \
        panel_vectors(p, t, m, x, group, n_groups, next);                                          \
    }
PANEL_TILE(panel_tile_1, 1)
PANEL_TILE(panel_tile_2, 2)
PANEL_TILE(panel_tile_3, 3)
PANEL_TILE(panel_tile_4, 4)
PANEL_TILE(panel_tile_5, GEMM_TILE)

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols, const following *next)
{
    typedef void tile_fn(panel *, int, const panel_x *, int, int, const following *);
    static tile_fn *const tiles[] = {NULL,         panel_tile_1, panel_tile_2,
                                     panel_tile_3, panel_tile_4, panel_tile_5};
    size_t g0 = (size_t)(c0 / w->group) * sizeof(float);
    for (int t = 0, m; t < n_tokens; t += m) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *codes = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        panel_x x = {{codes, record + g0, record + layout->sum + g0, layout->bytes}, c0 / w->group};
        int left = n_tokens - t, n_tiles = (left + GEMM_TILE - 1) / GEMM_TILE;
        m = (left + n_tiles - 1) / n_tiles; /* tiles alike, as a tile of one is slow */
        tiles[m](p, t, &x, w->group, n_cols / w->group, t ? NULL : next);
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
        bool is_last = c + PANEL_COLS >= w->cols;
        size_t at = is_last ? (size_t)(row + PANEL_ROWS) * w->row_bytes
                            : (size_t)row * w->row_bytes + (size_t)((c + PANEL_COLS) * w->bits / 8);
        following next = {(const char *)w->w + at, w->row_bytes, PANEL_COLS * w->bits / 8};
        pack_half(&p, 0, w, u, row, last, c, n_cols, &next);
        if (n_rows > ROWS) pack_half(&p, 1, w, u, row + ROWS, last, c, n_cols, &next);
        else memset(p.codes[1], 0, sizeof p.codes[1]), memset(&p.scales[1], 0, sizeof p.scales[1]);
        panel_columns(&p, w, layout, first, n_tokens, c, n_cols, w->strips ? NULL : &next);
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
