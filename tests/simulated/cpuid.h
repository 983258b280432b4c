/* cpuid.h - a CPU that has everything, AVX-VNNI too; see immintrin.h beside this. */
#include_next <cpuid.h>
#define __get_cpuid_count(leaf, subleaf, a, b, c, d)                                               \
    ((void)(leaf), (void)(subleaf), *(b) = *(c) = *(d) = 0, *(a) = ~0u)
