/* add_lanes_avx2vnni.h - a group's sums with AVX-VNNI.
 *
 * Two vectors, two halves of the panel and three planes are twelve sums; with one register of each
 * half and one of activations 15 of 16 are in use. */

enum { GEMM_TILE = 2 };

/* part[i][half * 3 + plane] += n lanes of the codes at w (the other half of the
 * panel lies behind) times vector i of m. m is a constant. */
INLINE void add_lanes(__m256i part[][6], int m, const __m256i *w, int n, const char *x,
                      size_t record)
{
    for (int k = 0; k < n; k++, x += 4) {
        __m256i a = w[k], b = w[PANEL_CHUNKS * CHUNK_VECTORS + k];
        IN_REGISTERS_2(a, b);
        UNROLL for (int i = 0; i < m; i++)
        {
            UNROLL for (int j = 0; j < 3; j++)
            {
                __m256i v = four_bytes(x + (size_t)i * record + 32 * j);
                part[i][j] = _mm256_dpbusd_avx_epi32(part[i][j], a, v);
                part[i][3 + j] = _mm256_dpbusd_avx_epi32(part[i][3 + j], b, v);
            }
        }
        UNROLL for (int i = 0; i < m; i++) IN_REGISTERS_6(part[i]);
    }
}
