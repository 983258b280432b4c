/* bytes_avx2vnni.h - integer products with AVX-VNNI: vpdpbusd adds four products of bytes to 32
 * bits, so that codes of every width are multiplied as bytes. */

enum { X_CHUNK_BYTES = X_BYTES, CHUNK_VECTORS = CHUNK / 4 };

static void store_codes(char *dst, int c0, const float *codes, int n)
{
    for (int i = 0; i < n; i += 16) {
        int c = c0 + i;
        store_planes(dst + (size_t)(c / CHUNK) * X_CHUNK_BYTES, c % CHUNK, v_load(codes + i));
    }
}

/* A chunk of codes by parity. */
INLINE void unpack_chunk(const uint8_t *p, int bits, __m256i *even, __m256i *odd)
{
    if (bits == 4) {
        split_nibbles(load_vector(p), even, odd);
        return;
    }
    __m256i v[4]; /* in the lower half even ones, in the upper half odd ones */
    UNROLL for (int j = 0; j < 4; j++) v[j] = sixteen_codes(p, j, bits, 1, 2, 4);
    __m256i a = _mm256_packus_epi16(v[0], v[1]), b = _mm256_packus_epi16(v[2], v[3]);
    *even = _mm256_permute2x128_si256(a, b, 0x20);
    *odd = _mm256_permute2x128_si256(a, b, 0x31);
}

/* A chunk's activations as row_sum() takes them. */
INLINE void load_x(const char *x, int bits, __m256i *v)
{
    (void)bits;
    UNROLL for (int i = 0; i < 4; i++) v[i] = load_vector(x + 32 * i);
}

/* sum += plane k of x times the codes */
INLINE __m256i products(__m256i sum, __m256i even, __m256i odd, const __m256i *x, int k)
{
    return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, even, x[2 * k]), odd, x[2 * k + 1]);
}

/* One row's chunk as row_sum() takes it. */
INLINE void unpack_row(const uint8_t *codes, int bits, __m256i *v)
{
    unpack_chunk(codes, bits, &v[0], &v[1]);
}

/* sum(q X) of one row's chunk, by lane. */
INLINE __m256i row_sum(const __m256i *v, int bits, int group, const __m256i *x)
{
    (void)bits, (void)group;
    __m256i h = products(_mm256_setzero_si256(), v[0], v[1], x, 0);
    return products(_mm256_slli_epi32(h, 8), v[0], v[1], x, 1);
}

/* Lane i of eight rows in a chunk of the panel, four-bit codes: the even columns, then the odd. */
INLINE void pack_lane(__m256i *chunk, int i, __m256i v)
{
    split_nibbles(v, &chunk[i], &chunk[ROWS + i]);
}

/* The same of eight-bit codes: the even columns, and the odd ones. */
INLINE void pack_bytes(__m256i *chunk, int i, const __m256i *v)
{
    chunk[i] = v[0], chunk[ROWS + i] = v[1];
}

/* A chunk of eight rows in a panel (panel_avx2.h): the even columns, then the odd ones. */
INLINE void pack_chunk(__m256i *out, const uint8_t *const *rows, size_t offset, int bytes, int bits)
{
    __m256i even[ROWS], odd[ROWS];
    UNROLL for (int i = 0; i < ROWS; i++)
    {
        uint8_t copy[CHUNK];
        const uint8_t *p = whole_chunk(rows[i] + offset, bytes, bits, copy);
        if (bits == 4) even[i] = load_vector(p);
        else unpack_chunk(p, bits, &even[i], &odd[i]);
    }
    transpose_8x8(even);
    if (bits == 4) { /* half as much to turn while they are packed */
        UNROLL for (int i = 0; i < ROWS; i++) pack_lane(out, i, even[i]);
        return;
    }
    transpose_8x8(odd);
    UNROLL for (int i = 0; i < ROWS; i++) out[i] = even[i], out[ROWS + i] = odd[i];
}
