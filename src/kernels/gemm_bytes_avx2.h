/* gemm_bytes_avx2.h - a panel whose codes are bytes times many vectors, as gemm_avx512.h does it.
 * The sums of a group are made by add_lanes(). */

/* The three sums of a group as one float32, rounded as quant.h says. */
INLINE __m256 planes_dot(const __m256i *sum, int bits)
{
    __m256i upper = _mm256_add_epi32(_mm256_slli_epi32(sum[0], 8), sum[1]);
    if (bits > KN_WHOLE_BITS) return join_sums(upper, sum[2]);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(upper, 4), sum[2]));
}

/* Some vectors at a panel: of the first one the integers at the panel's first column, and what its
 * first group is worth; `record` bytes from vector to vector. */
typedef struct panel_x {
    const char *codes, *step, *sum;
    size_t record;
} panel_x;

/* All groups of the panel for m vectors from t on. */
INLINE void panel_vectors(panel *p, int t, int m, const panel_x *x, int group, int n_groups,
                          int bits)
{
    int run = group < CHUNK ? group / 8 : 8; /* lanes of a chunk that belong to one group */
    for (int g = 0; g < n_groups; g++) {
        __m256i part[GEMM_TILE][6];
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 6; j++) part[i][j] =
            _mm256_setzero_si256();
        for (int c = g * group; c < (g + 1) * group; c += 8 * run) {
            const __m256i *w = p->codes[0] + c / CHUNK * CHUNK_VECTORS + c % CHUNK / 8;
            const char *at = x->codes + c / CHUNK * X_CHUNK_BYTES + c % CHUNK / 2;
            add_lanes(part, m, w, run, at, x->record);
            add_lanes(part, m, w + 8, run, at + X_PARITY, x->record);
        }
        UNROLL for (int i = 0; i < m; i++)
        {
            float step, sum, *total = p->total[t + i];
            size_t at = (size_t)i * x->record + (size_t)g * sizeof step;
            memcpy(&step, x->step + at, sizeof step);
            memcpy(&sum, x->sum + at, sizeof sum);
            UNROLL for (int r = 0; r < 2; r++)
            {
                __m256 dot = planes_dot(part[i] + 3 * r, bits);
                _mm256_store_ps(total + ROWS * r,
                                add_group(_mm256_load_ps(total + ROWS * r), dot,
                                          p->scales[r].scale[g], p->scales[r].bias[g], step, sum));
            }
        }
    }
}

/* Functions of their own: inlined, they leave too few registers to each other. */
static __attribute__((noinline)) void panel_tile(panel *p, int t, const panel_x *x, int group,
                                                 int n_groups, int bits)
{
    panel_vectors(p, t, GEMM_TILE, x, group, n_groups, bits);
}

static __attribute__((noinline)) void panel_vector(panel *p, int t, const panel_x *x, int group,
                                                   int n_groups, int bits)
{
    panel_vectors(p, t, 1, x, group, n_groups, bits);
}

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void bytes_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    size_t g0 = (size_t)(c0 / w->group) * sizeof(float);
    for (int t = 0, m; t < n_tokens; t += m) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *codes = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        panel_x x = {codes, record + g0, record + layout->sum + g0, layout->bytes};
        m = n_tokens - t >= GEMM_TILE ? GEMM_TILE : 1;
        if (m == GEMM_TILE) panel_tile(p, t, &x, w->group, n_cols / w->group, w->bits);
        else panel_vector(p, t, &x, w->group, n_cols / w->group, w->bits);
    }
}
