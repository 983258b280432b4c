/* strips_avx512.h - what strips_x86.h is made of: a register is a strip. */

typedef __m512 strip_floats;
typedef __m512i strip_sums;
enum { STRIP_PARTS = 1 };
#define STRIP_TILE 8

INLINE __m512 no_floats(void)
{
    return _mm512_setzero_ps();
}

INLINE __m512 to_floats(__m512i sums)
{
    return _mm512_cvtepi32_ps(sums);
}

INLINE void store_floats(float *to, __m512 v)
{
    _mm512_storeu_ps(to, v);
}

/* Scales, or biases, of the sixteen rows of a strip. */
INLINE __m512 row_floats(const char *p, kn_format type)
{
    if (type == KN_F32) return _mm512_loadu_ps(p);
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    if (type == KN_F16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

/* Eight columns of a strip, the even and the odd ones; returns what comes behind. */
INLINE const char *load_eight(const char *codes, int bits, __m512i *even, __m512i *odd)
{
    _mm_prefetch(codes + KN_STRIP_AHEAD, _MM_HINT_T0);
    *even = _mm512_loadu_si512(codes);
    if (bits == 4) {
        split_nibbles(*even, even, odd);
        return codes + 64;
    }
    _mm_prefetch(codes + KN_STRIP_AHEAD + 64, _MM_HINT_T0);
    *odd = _mm512_loadu_si512(codes + 64);
    return codes + 128;
}

/* Where column c of activations begins. */
INLINE const char *strip_x(const char *x, int c, int bits)
{
    (void)bits;
    return x + (size_t)(c / CHUNK) * X_CHUNK_BYTES + c % CHUNK / 2;
}

/* sum += q times the same four bytes in every lane. gcc would neither read those bytes as part of
 * the instruction nor keep sums where they are. */
INLINE __m512i add_four(__m512i sum, __m512i q, const char *four)
{
    const int *x = (const int *)(const void *)four;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(q), "m"(*x));
    return sum;
}

/* dot[i] = sum(q X) of `group` columns of the strip at `codes` and vector i of m, whose codes are
 * `record` bytes apart. m, group and bits are constants. */
INLINE void strip_dots(__m512i dot[][STRIP_PARTS], int m, const char *codes, const char *x,
                       size_t record, int group, int bits)
{
    __m512i part[STRIP_TILE][2]; /* of each plane */
    UNROLL for (int i = 0; i < m; i++) part[i][0] = part[i][1] = _mm512_setzero_si512();
    for (int lane = 0; lane < group / 8; lane++, x += 4) {
        __m512i even, odd;
        codes = load_eight(codes, bits, &even, &odd);
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
        {
            const char *plane = x + (size_t)i * record + 64 * j;
            part[i][j] = add_four(part[i][j], even, plane);
            part[i][j] = add_four(part[i][j], odd, plane + X_PLANE_BYTES);
        }
    }
    UNROLL for (int i = 0; i < m; i++) dot[i][0] =
        _mm512_add_epi32(_mm512_slli_epi32(part[i][0], 8), part[i][1]);
}
