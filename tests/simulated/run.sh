#!/bin/sh
# The kernel tests with AVX-512 and AVX-VNNI in software (immintrin.h beside this), for machines
# without them: a few minutes.   tests/simulated/run.sh BUILD-FOLDER   (make check-simulated)
set -eu
build=$1 out=$1/simulated here=tests/simulated
echo '#include <simde/x86/avx512.h>' | ${CC:-cc} -E - > /dev/null 2>&1 || {
    echo "skipped: SIMDe is not installed (Debian: libsimde-dev)"
    exit 77
}
mkdir -p "$out/kernels"
# Some instructions are written as assembly, which only the real CPU understands.
sed 's/__asm__("vpdpwssd.*;/sum = sim_dpwssd(sum, a, _mm512_set1_epi32(both));/' \
    src/kernels/lanes_avx512.h > "$out/kernels/lanes_avx512.h"
sed 's/__asm__("%{vex%} vpdpwssd.*sum\.\(lo\|hi\).*;/sum.\1 = sim256_dpwssd(sum.\1, a.\1, b);/' \
    src/kernels/lanes_avx2.h > "$out/kernels/lanes_avx2.h"
sed 's/__asm__("vpdpbusd.*;/sum = _mm512_dpbusd_epi32(sum, q, _mm512_set1_epi32(*x));/' \
    src/kernels/strips_avx512.h > "$out/kernels/strips_avx512.h"
flags="-O1 -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-strict-aliasing -Wno-psabi"
flags="$flags -I$out -I$here -Isrc -Iinclude -Itests/unit"
isa="-mavx2 -mfma -mf16c -mbmi2"
${CC:-cc} $flags $isa -c src/kernels/table_avx512.c -o "$out/table_avx512.o"
${CC:-cc} $flags $isa -DSIMULATE_AVXVNNI -c src/kernels/table_avx2vnni.c -o "$out/table_avx2vnni.o"
${CC:-cc} $flags '-D__builtin_cpu_supports(name)=1' -c src/kernels/isa.c -o "$out/isa.o"
for test in test_kernels test_kernels_isa; do
    ${CC:-cc} $flags tests/unit/$test.c "$out"/*.o "$build/libflash-moe.a" -o "$out/$test" \
        $(pkg-config --libs cmocka jansson libpcre2-8 libutf8proc) \
        $(pkg-config --libs liburing 2> /dev/null || true) -lpthread -lm
    "$out/$test"
done
