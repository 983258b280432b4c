/* group_dots_avx2.h - a group's sums of four-bit codes with the 16-bit multiplications of plain
 * AVX2: the upper 16 bits of activations as words, the lower four as bytes.
 *
 * Four vectors and two halves of the panel are eight sums; with one register of each half, one of
 * activations and one of products 12 of 16 are in use. */

enum { GEMM_TILE = 4 };

/* sum += two products a 32-bit lane of words, or four a lane of bytes, kept as pairs in 16 bits:
 * these have room for 136 times 2 * 15 * 8. */
INLINE __m256i add_lane(__m256i sum, __m256i codes, __m256i x, bool words)
{
    return words ? _mm256_add_epi32(sum, _mm256_madd_epi16(codes, x))
                 : _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
}

/* sum[i][half] += n lanes of the codes at w (the other half of the panel lies behind) times vector
 * i of m, whose codes are `record` bytes apart. m is a constant. */
INLINE void add_lanes(__m256i sum[][2], int m, const __m256i *w, int n, const char *x,
                      size_t record, bool words)
{
    _Pragma("GCC unroll 2") for (int k = 0; k < n; k++, x += 4)
    {
        __m256i a = w[k], b = w[PANEL_CHUNKS * CHUNK_VECTORS + k];
        IN_REGISTERS_2(a, b);
        UNROLL for (int i = 0; i < m; i++)
        {
            __m256i v = four_bytes(x + (size_t)i * record);
            sum[i][0] = add_lane(sum[i][0], a, v, words);
            sum[i][1] = add_lane(sum[i][1], b, v, words);
        }
    }
}

/* dot[i][half] = sum(q X) of columns [c, c + group) of the panel and vector i of m, whose codes are
 * `record` bytes apart. */
INLINE void group_dots(__m256 dot[][2], int m, const panel *p, unsigned c, int group, int bits,
                       const char *codes, size_t record)
{
    int run = group < CHUNK ? group : CHUNK; /* columns of a chunk that belong to one group */
    __m256i upper[GEMM_TILE][2], lower[GEMM_TILE][2];
    (void)bits;
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < 2; r++) upper[i][r] =
        lower[i][r] = _mm256_setzero_si256();
    for (unsigned at = c, end = c + (unsigned)group; at < end; at += (unsigned)run) {
        const __m256i *w = p->codes[0] + at / CHUNK * CHUNK_VECTORS + at % CHUNK / 2;
        const char *x = codes + at / CHUNK * X_CHUNK_BYTES + X_WORDS + at % CHUNK * 2;
        add_lanes(upper, m, w, run / 2, x, record, true);
    }
    for (unsigned at = c, end = c + (unsigned)group; at < end; at += (unsigned)run) {
        const __m256i *w = p->codes[0] + at / CHUNK * CHUNK_VECTORS + PANEL_BYTES + at % CHUNK / 8;
        const char *x = codes + at / CHUNK * X_CHUNK_BYTES + 2 * X_PLANE + at % CHUNK / 2;
        add_lanes(lower, m, w, run / 8, x, record, false);
        add_lanes(lower, m, w + 8, run / 8, x + X_PARITY, record, false);
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int r = 0; r < 2; r++)
    {
        __m256i l = _mm256_madd_epi16(lower[i][r], _mm256_set1_epi16(1));
        dot[i][r] = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_slli_epi32(upper[i][r], 4), l));
    }
}
