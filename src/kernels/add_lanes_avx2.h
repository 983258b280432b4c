/* add_lanes_avx2.h - a group's sums of four-bit codes with the 16-bit multiplications of plain
 * AVX2. */

enum { GEMM_TILE = 1 };

/* part[i][half * 3 + plane] += n lanes of the codes at w (the other half of the
 * panel lies behind) times the one vector. Sums of n <= 8 lanes, of at most
 * 2 * 15 * 128 each, fit 16 bits. */
INLINE void add_lanes(__m256i part[][6], int m, const __m256i *w, int n, const char *x,
                      size_t record)
{
    __m256i words[6];
    (void)m, (void)record;
    UNROLL for (int j = 0; j < 6; j++) words[j] = _mm256_setzero_si256();
    for (int k = 0; k < n; k++, x += 4) {
        __m256i a = w[k], b = w[PANEL_CHUNKS * CHUNK_VECTORS + k];
        IN_REGISTERS_2(a, b);
        UNROLL for (int j = 0; j < 3; j++)
        {
            __m256i v = four_bytes(x + 32 * j);
            words[j] = _mm256_add_epi16(words[j], _mm256_maddubs_epi16(a, v));
            words[3 + j] = _mm256_add_epi16(words[3 + j], _mm256_maddubs_epi16(b, v));
        }
        IN_REGISTERS_6(words);
    }
    UNROLL for (int j = 0; j < 6; j++) part[0][j] =
        _mm256_add_epi32(part[0][j], _mm256_madd_epi16(words[j], _mm256_set1_epi16(1)));
}
