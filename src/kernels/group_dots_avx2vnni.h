/* group_dots_avx2vnni.h - a group's sums with AVX-VNNI.
 *
 * Three vectors, two halves of the panel and two planes are twelve sums; with one register of each
 * half and one of activations 15 of 16 are in use. */

#define GEMM_TILE 3

/* part[i][half * 2 + plane] += n lanes of the codes at w (the other half of the
 * panel lies behind) times vector i of m. m is a constant. */
INLINE void add_lanes(__m256i part[][4], int m, const __m256i *w, int n, const char *x,
                      size_t record)
{
    for (int k = 0; k < n; k++, x += 4) {
        __m256i a = w[k], b = w[PANEL_CHUNKS * CHUNK_VECTORS + k];
        IN_REGISTERS_2(a, b);
        UNROLL for (int i = 0; i < m; i++)
        {
            UNROLL for (int j = 0; j < 2; j++)
            {
                __m256i v = four_bytes(x + (size_t)i * record + X_PLANE * j);
                part[i][j] = _mm256_dpbusd_avx_epi32(part[i][j], a, v);
                part[i][2 + j] = _mm256_dpbusd_avx_epi32(part[i][2 + j], b, v);
            }
        }
        UNROLL for (int i = 0; i < m; i++) IN_REGISTERS_4(part[i]);
    }
}

/* sum[i][half] = sum(q X) of columns [c, c + group) of the panel and vector i of m, whose codes are
 * `record` bytes apart. */
INLINE void group_dots(__m256i sum[][2], int m, const panel *p, unsigned c, int group,
                       const char *codes, size_t record)
{
    int run = group < CHUNK ? group / 8 : 8; /* lanes of a chunk that belong to one group */
    __m256i part[GEMM_TILE][4];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 4; j++) part[i][j] =
        _mm256_setzero_si256();
    for (unsigned end = c + (unsigned)group; c < end; c += 8 * (unsigned)run) {
        const __m256i *w = p->codes[0] + c / CHUNK * CHUNK_VECTORS + c % CHUNK / 8;
        const char *x = codes + c / CHUNK * X_CHUNK_BYTES + c % CHUNK / 2;
        add_lanes(part, m, w, run, x, record);
        add_lanes(part, m, w + 8, run, x + X_PARITY, record);
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < 2; r++) sum[i][r] =
        _mm256_add_epi32(_mm256_slli_epi32(part[i][2 * r], 8), part[i][2 * r + 1]);
}

#define STRIP_TILE 4

/* Where column c of activations begins. */
INLINE const char *strip_x(const char *x, int c, int bits)
{
    (void)bits;
    return x + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK / 2;
}

/* dot[i][half] = sum(q X) of `group` columns of the strip at `codes`. */
INLINE void strip_dots(__m256i dot[][2], int m, const char *codes, const char *x, size_t record,
                       int group, int bits)
{
    __m256i part[STRIP_TILE][4]; /* plane * 2 + half */
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 4; j++) part[i][j] =
        _mm256_setzero_si256();
    for (int c = 0; c < group; c += 8, codes += 16 * bits) {
        const char *at = strip_x(x, c, bits);
        __m256i q[2][2];
        UNROLL for (int h = 0; h < 2; h++)
        {
            load_eight(codes, h, bits, q[h]);
            if (bits == 4) split_nibbles(q[h][0], &q[h][0], &q[h][1]);
            IN_REGISTERS_2(q[h][0], q[h][1]);
        }
        UNROLL for (int i = 0; i < m; i++)
        {
            UNROLL for (int j = 0; j < 2; j++)
            {
                const char *plane = at + (size_t)i * record + X_PLANE * j;
                __m256i even = four_bytes(plane), odd = four_bytes(plane + X_PARITY);
                UNROLL for (int h = 0; h < 2; h++) part[i][2 * j + h] = _mm256_dpbusd_avx_epi32(
                    _mm256_dpbusd_avx_epi32(part[i][2 * j + h], q[h][0], even), q[h][1], odd);
            }
            IN_REGISTERS_4(part[i]);
        }
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int h = 0; h < 2; h++) dot[i][h] =
        _mm256_add_epi32(_mm256_slli_epi32(part[i][h], 8), part[i][2 + h]);
}
