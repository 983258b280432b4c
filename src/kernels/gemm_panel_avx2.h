/* gemm_panel_avx2.h - a panel times many vectors, as gemm_avx512.h does it. The sums of a group are
 * made by group_dots(), which wants to know the group's size at compile time. */

/* Some vectors at a panel: of the first one the integers at the panel's first column, and what its
 * first group is worth; `record` bytes from vector to vector. */
typedef struct panel_x {
    const char *codes, *step, *sum;
    size_t record;
} panel_x;

/* All groups of the panel for m vectors from t on. */
INLINE void panel_vectors(panel *p, int t, int m, const panel_x *x, int group, int n_groups)
{
    for (int g = 0; g < n_groups; g++) {
        __m256i dot[GEMM_TILE][2];
        group_dots(dot, m, p, (unsigned)(g * group), group, x->codes, x->record);
        UNROLL for (int i = 0; i < m; i++)
        {
            float step, sum, *total = p->total[t + i];
            size_t at = (size_t)i * x->record + (size_t)g * sizeof step;
            memcpy(&step, x->step + at, sizeof step);
            memcpy(&sum, x->sum + at, sizeof sum);
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
#define PANEL_TILE(name, m, group)                                                                 \
    static __attribute__((noinline)) void name(panel *p, int t, const panel_x *x, int n_groups)    \
    {                                                                                              \
        panel_vectors(p, t, m, x, group, n_groups);                                                \
    }
PANEL_TILE(panel_tile_32, GEMM_TILE, 32)
PANEL_TILE(panel_tile_64, GEMM_TILE, 64)
PANEL_TILE(panel_tile_128, GEMM_TILE, 128)
PANEL_TILE(panel_vector_32, 1, 32)
PANEL_TILE(panel_vector_64, 1, 64)
PANEL_TILE(panel_vector_128, 1, 128)

static void panel_some(panel *p, int t, int m, const panel_x *x, int group, int n_groups)
{
    if (m == GEMM_TILE) {
        if (group == 32) panel_tile_32(p, t, x, n_groups);
        else if (group == 64) panel_tile_64(p, t, x, n_groups);
        else panel_tile_128(p, t, x, n_groups);
    } else {
        if (group == 32) panel_vector_32(p, t, x, n_groups);
        else if (group == 64) panel_vector_64(p, t, x, n_groups);
        else panel_vector_128(p, t, x, n_groups);
    }
}

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    size_t g0 = (size_t)(c0 / w->group) * sizeof(float);
    for (int t = 0, m; t < n_tokens; t += m) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *codes = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        panel_x x = {codes, record + g0, record + layout->sum + g0, layout->bytes};
        m = n_tokens - t >= GEMM_TILE ? GEMM_TILE : 1;
        panel_some(p, t, m, &x, w->group, n_cols / w->group);
    }
}
