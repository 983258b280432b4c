/* gemm_panel_avx2.h - a panel times many vectors, as gemm_avx512.h does it. The sums of a group are
 * made by group_dots(), which wants to know the group's size at compile time. */

/* All groups of the panel for m vectors from t on. */
INLINE void panel_vectors(panel *p, int t, int m, const some_x *x, int group, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        __m256i dot[GEMM_TILE][2];
        group_dots(dot, m, p, (unsigned)(g * group), group, x->codes, x->record);
        UNROLL for (int i = 0; i < m; i++)
        {
            float step = of_group(x->step, x, i, g), sum = of_group(x->sum, x, i, g);
            float *total = p->total[t + i];
            UNROLL for (int r = 0; r < 2; r++)
            {
                _mm256_store_ps(total + ROWS * r,
                                add_group(_mm256_load_ps(total + ROWS * r),
                                          _mm256_cvtepi32_ps(dot[i][r]), p->scales[r].scale[g],
                                          p->scales[r].bias[g], step, sum));
            }
        }
    }
}

/* Functions of their own: inlined, they leave too few registers to each other. */
#define PANEL_TILE(m, group)                                                                       \
    static __attribute__((noinline)) void panel_##m##_##group(panel *p, int t, const some_x *x,    \
                                                              int n_groups)                        \
    {                                                                                              \
        panel_vectors(p, t, m, x, group, n_groups);                                                \
    }
#define PANEL_TILES(m) PANEL_TILE(m, 32) PANEL_TILE(m, 64) PANEL_TILE(m, 128)
#define PANEL_NAMES(m)                                                                             \
    {                                                                                              \
        panel_##m##_32, panel_##m##_64, panel_##m##_128                                            \
    }
PANEL_TILES(1)
PANEL_TILES(2)
PANEL_TILES(3)
#if GEMM_TILE > 3
PANEL_TILES(4)
#endif

/* Of each number of vectors and each group size. */
typedef void tile_fn(panel *p, int t, const some_x *x, int n_groups);
static tile_fn *const tiles[][3] = {
    PANEL_NAMES(1),
    PANEL_NAMES(2),
    PANEL_NAMES(3),
#if GEMM_TILE > 3
    PANEL_NAMES(4),
#endif
};

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    size_t g0 = (size_t)(c0 / w->group) * sizeof(float);
    for (int t = 0, m; t < n_tokens; t += m) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *codes = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        some_x x = {codes, record + g0, record + layout->sum + g0, layout->bytes};
        int left = n_tokens - t, n_tiles = (left + GEMM_TILE - 1) / GEMM_TILE;
        m = (left + n_tiles - 1) / n_tiles; /* tiles alike: small ones are slow */
        tiles[m - 1][w->group / 64](p, t, &x, n_cols / w->group);
    }
}
