/* group_dots_avx2.h - a group's sums of four-bit codes with the 16-bit multiplications of plain
 * AVX2. */

enum { GEMM_TILE = 1 };

/* words[half * 3 + plane] = the sum of 8 lanes of the codes at w (the other half of the panel lies
 * behind) times the vector at x, n lanes of even columns and then of odd ones where n is 4. Sums of
 * 8 lanes, of at most 2 * 15 * 128 each, fit 16 bits. */
INLINE void eight_lanes(__m256i *words, const __m256i *w, int n, const char *x)
{
    UNROLL for (int k = 0; k < 8; k++)
    {
        const __m256i *at = w + k % n + (k < n ? 0 : 8);
        const char *xk = x + 4 * (k % n) + (k < n ? 0 : X_PARITY);
        __m256i a = at[0], b = at[PANEL_CHUNKS * CHUNK_VECTORS];
        UNROLL for (int j = 0; j < 3; j++)
        {
            __m256i v = four_bytes(xk + 32 * j);
            __m256i p = _mm256_maddubs_epi16(a, v), q = _mm256_maddubs_epi16(b, v);
            words[j] = k ? _mm256_add_epi16(words[j], p) : p;
            words[3 + j] = k ? _mm256_add_epi16(words[3 + j], q) : q;
        }
        IN_REGISTERS_6(words);
    }
}

/* sum += the whole 20-bit products of a half's words */
INLINE __m256i whole_words(__m256i sum, const __m256i *words)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(words[0], _mm256_set1_epi16(4096)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(words[1], _mm256_set1_epi16(16)));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(words[2], _mm256_set1_epi16(1)));
}

/* dot[half] = sum(q X) of columns [c, c + group) of the panel. */
INLINE void group_dots(__m256 dot[][2], int m, const panel *p, unsigned c, int group, int bits,
                       const char *codes, size_t record)
{
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, words[6];
    (void)m, (void)record, (void)bits;
    for (unsigned end = c + (unsigned)group; c < end; c += CHUNK) {
        const __m256i *w = p->codes[0] + c / CHUNK * CHUNK_VECTORS + c % CHUNK / 8;
        const char *x = codes + c / CHUNK * X_CHUNK_BYTES + c % CHUNK / 2;
        if (__builtin_constant_p(group) && group == 32) {
            eight_lanes(words, w, 4, x);
        } else {
            eight_lanes(words, w, 8, x);
            UNROLL for (int r = 0; r < 2; r++) sum[r] = whole_words(sum[r], words + 3 * r);
            eight_lanes(words, w + 8, 8, x + X_PARITY);
        }
        UNROLL for (int r = 0; r < 2; r++) sum[r] = whole_words(sum[r], words + 3 * r);
    }
    UNROLL for (int r = 0; r < 2; r++) dot[0][r] = _mm256_cvtepi32_ps(sum[r]);
}
