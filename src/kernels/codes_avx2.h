/* codes_avx2.h - what both kinds of AVX2 integer products share: codes and activations as bytes.
 *
 * Columns go in chunks of 64. Four-bit codes are only shifted and masked, so bytes are kept apart
 * by parity: byte k of a chunk's even vector is column 2 k, of its odd one column 2 k + 1. 32-bit
 * lane l of both belongs to columns 8 l .. 8 l + 7. An activation X = 256 h + m is two
 * planes h and m of two such vectors each. */

enum { CHUNK = 64, X_PARITY = 32, X_PLANE = 64, X_BYTES = 2 * X_PLANE, ROWS = 8, GROUPS = 8 };

/* Sixteen words that fit bytes: the even ones to even[8], the odd ones to odd[8]. */
static inline void store_bytes(__m256i words, char *even, char *odd)
{
    const __m256i pick =
        _mm256_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, 2,
                         6, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
    __m256i both = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(words, pick), order);
    _mm_storel_epi64((__m128i *)(void *)even, _mm256_castsi256_si128(both));
    _mm_storeh_pd((double *)(void *)odd, _mm_castsi128_pd(_mm256_castsi256_si128(both)));
}

/* Sixteen activations, of columns that begin at in_chunk of the chunk at `at`, as bytes; returns
 * them as words. */
static inline __m256i store_planes(char *at, int in_chunk, v16 v)
{
    __m256i lo = _mm256_cvtps_epi32(v.lo), hi = _mm256_cvtps_epi32(v.hi);
    __m256i x = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    __m256i m = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
    __m256i h = _mm256_srai_epi16(_mm256_sub_epi16(x, m), 8);
    char *even = at + in_chunk / 2, *odd = even + X_PARITY;
    store_bytes(h, even, odd);
    store_bytes(m, even + X_PLANE, odd + X_PLANE);
    return x;
}

static inline __m256i load_vector(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* p, or a zero-filled copy if only `bytes` of a chunk are there. */
static inline const uint8_t *whole_chunk(const uint8_t *p, int bytes, int bits, uint8_t *copy)
{
    if (bytes >= CHUNK * bits / 8) return p;
    memset(copy, 0, CHUNK);
    memcpy(copy, p, (size_t)bytes);
    return copy;
}

/* Sixteen codes of a chunk, from code 16 j on, as words: lane i of half l is code
 * l * half + i % 2 * odd + i / 2 * pair. Each is found in two bytes, moved to the top of its lane,
 * and back down. */
#define CODE(l, i) ((l)*half + (i) % 2 * odd + (i) / 2 * pair)
#define TWO_BYTES(l, i) (char)(at + CODE(l, i) * bits / 8), (char)(at + CODE(l, i) * bits / 8 + 1)
#define UPWARDS(l, i) (short)(1 << (16 - bits - CODE(l, i) * bits % 8))
#define EIGHT(f, l) f(l, 0), f(l, 1), f(l, 2), f(l, 3), f(l, 4), f(l, 5), f(l, 6), f(l, 7)
INLINE __m256i sixteen_codes(const uint8_t *chunk, int j, int bits, int half, int odd, int pair)
{
    /* Sixteen bytes hold them; none behind the chunk is read. */
    int begin = 2 * j * bits, most = CHUNK * bits / 8 - 16, from = begin < most ? begin : most;
    int at = begin - from;
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(chunk + from));
    __m256i v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes),
                                    _mm256_setr_epi8(EIGHT(TWO_BYTES, 0), EIGHT(TWO_BYTES, 1)));
    if (bits == 8) return _mm256_and_si256(v, _mm256_set1_epi16(255));
    v = _mm256_mullo_epi16(v, _mm256_setr_epi16(EIGHT(UPWARDS, 0), EIGHT(UPWARDS, 1)));
    return _mm256_srli_epi16(v, 16 - bits);
}
#undef CODE
#undef TWO_BYTES
#undef UPWARDS
#undef EIGHT

static inline void split_nibbles(__m256i raw, __m256i *even, __m256i *odd)
{
    __m256i mask = _mm256_set1_epi8(15);
    *even = _mm256_and_si256(raw, mask);
    *odd = _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask);
}

/* Row i, lane l becomes row l, lane i. */
INLINE void transpose_8x8(__m256i *r)
{
    __m256i t[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = r[i];
        r[i] = _mm256_permute2x128_si256(t[i], r[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(t[i], r[i + 4], 0x31);
    }
}
