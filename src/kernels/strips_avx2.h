/* strips_avx2.h - what strips_x86.h is made of: a register is half a strip. */

typedef __m256 strip_floats;
typedef __m256i strip_sums;
enum { STRIP_PARTS = 2 };

INLINE __m256 no_floats(void)
{
    return _mm256_setzero_ps();
}

INLINE __m256 to_floats(__m256i sums)
{
    return _mm256_cvtepi32_ps(sums);
}

INLINE void store_floats(float *to, __m256 v)
{
    _mm256_storeu_ps(to, v);
}
