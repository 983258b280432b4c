/* group_dots_avx2.h - a group's sums with the 16-bit multiplications of plain AVX2.
 *
 * Four vectors and two halves of the panel are eight sums; with one register of each half, one of
 * activations and one of products 12 of 16 are in use. */

#define GEMM_TILE 4

/* sum[i][half] += n pairs of the codes at w (the other half of the panel lies behind) times vector
 * i of m, whose codes are `record` bytes apart. m is a constant. */
INLINE void add_pairs(__m256i sum[][2], int m, const __m256i *w, int n, const char *x,
                      size_t record)
{
    _Pragma("GCC unroll 2") for (int k = 0; k < n; k++, x += 4)
    {
        __m256i a = w[k], b = w[PANEL_CHUNKS * CHUNK_VECTORS + k];
        IN_REGISTERS_2(a, b);
        UNROLL for (int i = 0; i < m; i++)
        {
            __m256i v = four_bytes(x + (size_t)i * record);
            sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(a, v));
            sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(b, v));
        }
    }
}

/* sum[i][half] = sum(q X) of columns [c, c + group) of the panel and vector i of m, whose codes are
 * `record` bytes apart. */
INLINE void group_dots(__m256i sum[][2], int m, const panel *p, unsigned c, int group,
                       const char *codes, size_t record)
{
    int run = group < CHUNK ? group : CHUNK; /* columns of a chunk that belong to one group */
    UNROLL for (int i = 0; i < m; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (unsigned end = c + (unsigned)group; c < end; c += (unsigned)run) {
        const __m256i *w = p->codes[0] + c / CHUNK * CHUNK_VECTORS + c % CHUNK / 2;
        const char *x = codes + c / CHUNK * X_CHUNK_BYTES + X_WORDS + c % CHUNK * 2;
        add_pairs(sum, m, w, run / 2, x, record);
    }
}

/* The same of a strip, for two vectors at most. */
#define STRIP_TILE 2

/* Where column c of activations begins: bytes for four-bit codes, words for eight-bit codes. */
INLINE const char *strip_x(const char *x, int c, int bits)
{
    const char *chunk = x + (size_t)(c / CHUNK) * X_CHUNK_BYTES;
    return bits == 4 ? chunk + c % CHUNK / 2 : chunk + X_WORDS + c % CHUNK * 2;
}

/* Four-bit codes as bytes, since sixteen products of at most 15 * 128 fit 16 bits: those of four
 * lanes. */
INLINE void nibble_dots(__m256i dot[][2], int m, const char *codes, const char *x, size_t record,
                        int group)
{
    for (int c = 0; c < group; c += 32) {
        const char *at = strip_x(x, c, 4);
        __m256i part[STRIP_TILE][2][2]; /* of a plane and half */
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++) part[i][j][0] =
            part[i][j][1] = _mm256_setzero_si256();
        UNROLL for (int lane = 0; lane < 4; lane++, codes += 64, at += 4)
        {
            __m256i q[2][2];
            UNROLL for (int h = 0; h < 2; h++)
            {
                load_eight(codes, h, 4, q[h]);
                split_nibbles(q[h][0], &q[h][0], &q[h][1]);
                IN_REGISTERS_2(q[h][0], q[h][1]);
            }
            UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
            {
                const char *plane = at + (size_t)i * record + X_PLANE * j;
                __m256i even = four_bytes(plane), odd = four_bytes(plane + X_PARITY);
                UNROLL for (int h = 0; h < 2; h++) part[i][j][h] = _mm256_add_epi16(
                    part[i][j][h], _mm256_add_epi16(_mm256_maddubs_epi16(q[h][0], even),
                                                    _mm256_maddubs_epi16(q[h][1], odd)));
                IN_REGISTERS_2(part[i][j][0], part[i][j][1]);
            }
        }
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int h = 0; h < 2; h++) dot[i][h] =
            _mm256_add_epi32(
                dot[i][h],
                _mm256_add_epi32(_mm256_madd_epi16(part[i][0][h], _mm256_set1_epi16(256)),
                                 _mm256_madd_epi16(part[i][1][h], _mm256_set1_epi16(1))));
    }
}

/* Eight-bit codes as words. */
INLINE void byte_dots(__m256i dot[][2], int m, const char *codes, const char *x, size_t record,
                      int group)
{
    for (int c = 0; c < group; c += 8, codes += 128) {
        const char *at = x + c / CHUNK * X_CHUNK_BYTES + c % CHUNK * 2;
        UNROLL for (int h = 0; h < 2; h++)
        {
            __m256i v[2], pairs[4];
            load_eight(codes, h, 8, v);
            pack_bytes(pairs, 0, v);
            UNROLL for (int i = 0; i < m; i++) UNROLL for (int k = 0; k < 4; k++) dot[i][h] =
                _mm256_add_epi32(
                    dot[i][h],
                    _mm256_madd_epi16(pairs[k], four_bytes(at + (size_t)i * record + 4 * k)));
        }
    }
}

/* dot[i][half] = sum(q X) of `group` columns of the strip at `codes`. */
INLINE void strip_dots(__m256i dot[][2], int m, const char *codes, const char *x, size_t record,
                       int group, int bits)
{
    UNROLL for (int i = 0; i < m; i++) dot[i][0] = dot[i][1] = _mm256_setzero_si256();
    if (bits == 4) nibble_dots(dot, m, codes, x, record, group);
    else byte_dots(dot, m, codes, x, record, group);
}
