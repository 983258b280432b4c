/* gemm_avx2.h - integer products of many vectors, as gemm_avx512.h does it: codes of 16 rows and
 * 256 columns are turned once into a panel. A register holds, of eight rows, four bytes of four-bit
 * codes (four columns, all even or all odd, see integer_avx2.h) or two 16-bit words of other codes.
 */

enum { PANEL_ROWS = 2 * ROWS, PANEL_COLS = 4 * CHUNK, GEMM_TOKENS = 128 };

typedef struct panel {
    __m256i codes[2]
                 [PANEL_COLS / 2]; /* half the rows; chunk * 32 + lane (+ 8: odd), or + word pair */
    turned scales[2];              /* its (at most 8) groups */
    float total[GEMM_TOKENS][PANEL_ROWS];
} panel;

/* One chunk of eight rows: two planes of nibbles, or 32 pairs of words. */
INLINE void pack_chunk(__m256i *out, const uint8_t *const *rows, size_t offset, int bytes, int bits)
{
    __m256i v[ROWS][4];
    for (int i = 0; i < ROWS; i++) {
        uint8_t copy[CHUNK];
        const uint8_t *p = whole_chunk(rows[i] + offset, bytes, bits, copy);
        if (bits == 4) v[i][0] = load_vector(p);
        else unpack_words(p, bits, v[i]);
    }
    for (int j = 0; j < (bits == 4 ? 1 : 4); j++) {
        __m256i turned[ROWS];
        for (int i = 0; i < ROWS; i++) turned[i] = v[i][j];
        transpose_8x8(turned);
        for (int i = 0; i < ROWS; i++) {
            if (bits == 4) split_nibbles(turned[i], &out[i], &out[8 + i]);
            else out[8 * j + i] = turned[i];
        }
    }
}

INLINE void pack_rows(panel *p, int half, const kn_mat *w, int row, int last, int c0, int n_cols,
                      int bits)
{
    const uint8_t *rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (const uint8_t *)w->w + (size_t)(row + i < last ? row + i : last) * w->row_bytes;
    for (int c = 0; c < n_cols; c += CHUNK) {
        int bytes = (n_cols - c < CHUNK ? n_cols - c : CHUNK) * bits / 8;
        pack_chunk(p->codes[half] + c / 2, rows, (size_t)(c0 + c) * (size_t)bits / 8, bytes, bits);
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

static inline __m256i four_bytes(const char *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* sum[r] += 32 columns of four-bit codes, from lane `lane` of a chunk on. Eight products of at most
 * 2 * 15 * 128 fit 16 bits. */
INLINE void nibbles_32(const panel *p, int chunk, int lane, const char *x, __m256i *sum)
{
    __m256i part[2][3];
    UNROLL for (int j = 0; j < 3; j++) part[0][j] = part[1][j] = _mm256_setzero_si256();
    for (int odd = 0; odd < 2; odd++) {
        const __m256i *w0 = p->codes[0] + chunk * 32 + odd * 8 + lane;
        const __m256i *w1 = p->codes[1] + chunk * 32 + odd * 8 + lane;
        const char *at = x + odd * 96 + lane * 4;
        for (int k = 0; k < 4; k++) { /* unrolled, the sums would not stay in registers */
            __m256i a = w0[k], b = w1[k];
            UNROLL for (int j = 0; j < 3; j++)
            {
                __m256i v = four_bytes(at + 4 * k + 32 * j);
                part[0][j] = _mm256_add_epi16(part[0][j], _mm256_maddubs_epi16(a, v));
                part[1][j] = _mm256_add_epi16(part[1][j], _mm256_maddubs_epi16(b, v));
            }
        }
    }
    UNROLL for (int r = 0; r < 2; r++)
    {
        __m256i h = _mm256_madd_epi16(part[r][0], _mm256_set1_epi16(4096));
        __m256i m = _mm256_madd_epi16(part[r][1], _mm256_set1_epi16(16));
        __m256i l = _mm256_madd_epi16(part[r][2], _mm256_set1_epi16(1));
        sum[r] = _mm256_add_epi32(sum[r], _mm256_add_epi32(_mm256_add_epi32(h, m), l));
    }
}

/* upper[r], lower[r] += n word pairs from pair `first` of a chunk on. */
INLINE void words(const panel *p, int chunk, int first, int n, const char *x, __m256i *upper,
                  __m256i *lower)
{
    const char *at = x + NIBBLES + first * 4;
    const __m256i *w0 = p->codes[0] + chunk * 32 + first, *w1 = p->codes[1] + chunk * 32 + first;
    __m256i u0 = upper[0], u1 = upper[1], l0 = lower[0], l1 = lower[1];
    for (int k = 0; k < n; k++, at += 4) {
        __m256i u = four_bytes(at), l = four_bytes(at + 2 * CHUNK);
        u0 = _mm256_add_epi32(u0, _mm256_madd_epi16(w0[k], u));
        u1 = _mm256_add_epi32(u1, _mm256_madd_epi16(w1[k], u));
        l0 = _mm256_add_epi32(l0, _mm256_madd_epi16(w0[k], l));
        l1 = _mm256_add_epi32(l1, _mm256_madd_epi16(w1[k], l));
    }
    upper[0] = u0, upper[1] = u1, lower[0] = l0, lower[1] = l1;
}

/* All groups of the panel for token t, whose codes at the panel's first column are at x. */
INLINE void panel_token(panel *p, int t, const char *x, const float *step, const float *sum,
                        int group, int n_groups, int bits)
{
    for (int g = 0; g < n_groups; g++) {
        __m256i upper[2], lower[2];
        upper[0] = upper[1] = lower[0] = lower[1] = _mm256_setzero_si256();
        for (int c = g * group; c < (g + 1) * group; c += 32) {
            int chunk = c / CHUNK, in_chunk = c % CHUNK;
            const char *at = x + (size_t)chunk * X_CHUNK_BYTES;
            if (bits == 4) nibbles_32(p, chunk, in_chunk / 8, at, upper);
            else words(p, chunk, in_chunk / 2, 16, at, upper, lower);
        }
        float *total = p->total[t];
        UNROLL for (int r = 0; r < 2; r++)
        {
            if (bits != 4 && bits <= KN_WHOLE_BITS)
                upper[r] = _mm256_add_epi32(_mm256_slli_epi32(upper[r], 4), lower[r]);
            _mm256_store_ps(total + ROWS * r,
                            add_group(_mm256_load_ps(total + ROWS * r),
                                      group_dot(upper[r], lower[r], bits), p->scales[r].scale[g],
                                      p->scales[r].bias[g], step[g], sum[g]));
        }
    }
}

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    int groups = n_cols / w->group;
    for (int t = 0; t < n_tokens; t++) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *x = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        const float *step = (const float *)(const void *)record + c0 / w->group;
        const float *sum = (const float *)(const void *)(record + layout->sum) + c0 / w->group;
        if (w->bits == 4) panel_token(p, t, x, step, sum, w->group, groups, 4);
        else if (w->bits <= KN_WHOLE_BITS) panel_token(p, t, x, step, sum, w->group, groups, 5);
        else panel_token(p, t, x, step, sum, w->group, groups, 8);
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
