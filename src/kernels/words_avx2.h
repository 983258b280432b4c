/* words_avx2.h - integer products with the 16-bit multiplications of plain AVX2.
 *
 * vpmaddubsw multiplies bytes, but its sums of two products must fit 16 bits: only those of
 * four-bit codes are sure to. For all other widths, and for many vectors, activations are kept a
 * second time, as words behind the bytes of their chunk. Of eight columns those lie side by side
 * that are four apart (0 4 1 5 2 6 3 7): so two masked codes of four bits make a pair of words. */

enum { X_WORDS = X_BYTES, X_CHUNK_BYTES = X_WORDS + 2 * CHUNK, CHUNK_VECTORS = CHUNK / 2 };

#define PAIRED_WORDS 0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i, in_chunk = c % CHUNK;
        char *at = dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES;
        __m256i words = store_planes(at, in_chunk, v_load(codes + i));
        words = _mm256_shuffle_epi8(words, _mm256_setr_epi8(PAIRED_WORDS, PAIRED_WORDS));
        _mm256_storeu_si256((__m256i *)(void *)(at + X_WORDS + 2 * in_chunk), words);
    }
}

/* 64 codes, not of four bits, as four vectors of 16-bit lanes. */
INLINE void unpack_words(const uint8_t *p, int bits, __m256i *v)
{
    UNROLL for (int j = 0; j < 4; j++) v[j] = sixteen_codes(p, j, bits, 8, 4, 1);
}

/* sum(q X) of 64 four-bit codes, by lane. x: the four vectors. */
INLINE __m256i nibble_sums(__m256i even, __m256i odd, const __m256i *x)
{
    __m256i part[2];
    UNROLL for (int j = 0; j < 2; j++) part[j] = _mm256_add_epi16(
        _mm256_maddubs_epi16(even, x[2 * j]), _mm256_maddubs_epi16(odd, x[2 * j + 1]));
    return _mm256_add_epi32(_mm256_madd_epi16(part[0], _mm256_set1_epi16(256)),
                            _mm256_madd_epi16(part[1], _mm256_set1_epi16(1)));
}

/* sum(v x) of 64 words, by lane; a lane of the result is never of two groups. */
INLINE __m256i word_sums(const __m256i *v, const __m256i *x, int group)
{
    __m256i first = _mm256_add_epi32(_mm256_madd_epi16(v[0], x[0]), _mm256_madd_epi16(v[1], x[1]));
    __m256i other = _mm256_add_epi32(_mm256_madd_epi16(v[2], x[2]), _mm256_madd_epi16(v[3], x[3]));
    if (group > 32) return _mm256_add_epi32(first, other);
    return _mm256_add_epi32(_mm256_permute2x128_si256(first, other, 0x20),
                            _mm256_permute2x128_si256(first, other, 0x31));
}

/* A chunk's activations as row_sum() takes them. */
INLINE void load_x(const char *x, int bits, __m256i *v)
{
    const char *at = bits == 4 ? x : x + X_WORDS;
    UNROLL for (int i = 0; i < 4; i++) v[i] = load_vector(at + 32 * i);
}

/* One row's chunk as row_sum() takes it. */
INLINE void unpack_row(const uint8_t *codes, int bits, __m256i *v)
{
    if (bits == 4) split_nibbles(load_vector(codes), &v[0], &v[1]);
    else unpack_words(codes, bits, v);
}

/* sum(q X) of one row's chunk, by lane. */
INLINE __m256i row_sum(const __m256i *v, int bits, int group, const __m256i *x)
{
    return bits == 4 ? nibble_sums(v[0], v[1], x) : word_sums(v, x, group);
}

/* Lane i of eight rows in a chunk of the panel, four-bit codes: four pairs of words. */
INLINE void pack_lane(__m256i *chunk, int i, __m256i v)
{
    const __m256i mask = _mm256_set1_epi32(0x000f000f);
    UNROLL for (int k = 0; k < 4; k++) chunk[4 * i + k] =
        _mm256_and_si256(_mm256_srli_epi32(v, 4 * k), mask);
}

/* Bytes of four columns as two vectors of words. */
INLINE void bytes_to_words(__m256i v, __m256i *first, __m256i *other)
{
    *first = _mm256_and_si256(v, _mm256_set1_epi16(255));
    *other = _mm256_srli_epi16(v, 8);
}

/* The same of eight-bit codes, the even columns and the odd ones. */
INLINE void pack_bytes(__m256i *chunk, int i, const __m256i *v)
{
    __m256i *pairs = chunk + 4 * i;
    bytes_to_words(v[0], &pairs[0], &pairs[2]);
    bytes_to_words(v[1], &pairs[1], &pairs[3]);
}

/* A chunk of eight rows in a panel (panel_avx2.h): pairs of words. */
INLINE void pack_chunk(__m256i *out, const uint8_t *const *rows, size_t offset, int bytes, int bits)
{
    __m256i v[ROWS][4];
    for (int i = 0; i < ROWS; i++) {
        uint8_t copy[CHUNK];
        const uint8_t *p = whole_chunk(rows[i] + offset, bytes, bits, copy);
        if (bits == 4) v[i][0] = load_vector(p);
        else unpack_words(p, bits, v[i]);
    }
    for (int j = 0; j < (bits == 4 ? 1 : 4); j++) {
        __m256i turned[ROWS];
        for (int i = 0; i < ROWS; i++) turned[i] = v[i][j];
        transpose_8x8(turned);
        for (int i = 0; i < ROWS; i++) {
            if (bits == 4) pack_lane(out, i, turned[i]);
            else out[8 * j + i] = turned[i];
        }
    }
}
