/* Every instruction set of this CPU returns the bits of the portable kernels: random shapes with
 * tails, all formats and groups, both precisions; and a token's bits do not depend on the batch. */
#include "kernels_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void same(const float *got, const float *want, size_t n, kn_isa isa, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (kn_f32_bits(got[i]) == kn_f32_bits(want[i])) continue;
        if (got[i] != got[i] && want[i] != want[i]) continue;
        fail_msg("%s, %s: element %zu of %zu is %.9g, portable has %.9g", what, kn_isa_name(isa), i,
                 n, got[i], want[i]);
    }
}

static void vectors_of(kn_isa isa)
{
    rng r = {11};
    const kn_isa P = KN_ISA_PORTABLE;
    for (int n = 1; n < 150; n++) {
        float *x = random_floats(&r, 150), *w = random_floats(&r, 150), *b = random_floats(&r, 150);
        float got[150], want[150];
        if (n % 5 == 0) x[n / 2] = n % 10 ? NAN : 200;
#define CHECK(call_got, call_want, what)                                                           \
    memcpy(got, b, sizeof got), memcpy(want, b, sizeof want);                                      \
    call_got, call_want, same(got, want, 150, isa, what)
        CHECK(kn_axpy(isa, got, 1.3f, x, n), kn_axpy(P, want, 1.3f, x, n), "axpy");
        CHECK(kn_scale(isa, got, 1.3f, n), kn_scale(P, want, 1.3f, n), "scale");
        CHECK(kn_add(isa, got, x, n), kn_add(P, want, x, n), "add");
        CHECK(kn_mul(isa, got, x, n), kn_mul(P, want, x, n), "mul");
        CHECK(kn_rms_norm(isa, got, x, w, n, 1e-6f), kn_rms_norm(P, want, x, w, n, 1e-6f), "rms");
        CHECK(kn_rms_norm(isa, got, x, NULL, n, 1), kn_rms_norm(P, want, x, NULL, n, 1), "rms");
        CHECK(kn_layer_norm(isa, got, x, w, b, n, 1e-5f), kn_layer_norm(P, want, x, w, b, n, 1e-5f),
              "layer norm");
        CHECK(kn_softmax(isa, got, n), kn_softmax(P, want, n), "softmax");
        CHECK(kn_sigmoid(isa, got, x, n), kn_sigmoid(P, want, x, n), "sigmoid");
        CHECK(kn_silu_mul(isa, got, x, w, n), kn_silu_mul(P, want, x, w, n), "silu mul");
        CHECK(kn_gelu_mul(isa, got, x, w, n), kn_gelu_mul(P, want, x, w, n), "gelu mul");
        CHECK(kn_swiglu_clamped(isa, got, x, w, n, 1.7f, 7),
              kn_swiglu_clamped(P, want, x, w, n, 1.7f, 7), "swiglu clamped");
        CHECK(kn_rope(isa, got, x, w, n & ~1, KN_ROPE_HALF),
              kn_rope(P, want, x, w, n & ~1, KN_ROPE_HALF), "rope half");
        CHECK(kn_rope(isa, got, x, w, n & ~1, KN_ROPE_INTERLEAVED),
              kn_rope(P, want, x, w, n & ~1, KN_ROPE_INTERLEAVED), "rope pairs");
        CHECK(got[0] = kn_dot(isa, x, w, n), want[0] = kn_dot(P, x, w, n), "dot");
#undef CHECK
        for (int i = 0; i < n; i++) {
            float e = x[i] * 20, one = kn_expf(e), s = kn_sigmoidf(x[i]);
            memcpy(got, &e, sizeof e);
            kn_sigmoid(isa, got + 1, x + i, 1);
            same(got + 1, &s, 1, isa, "sigmoid of one");
            float pair[2] = {e, 0};
            if (e <= 0) {
                kn_softmax(isa, pair, 2);
                float sum = one + 1.0f, expected = one * (1.0f / sum);
                same(pair, &expected, 1, isa, "exp of one");
            }
        }
        free(x), free(w), free(b);
    }
}

static void products_of(kn_isa isa)
{
    rng r = {12};
    for (int round = 0; round < 12; round++)
        for (int f = 0; f < N_FORMATS; f++) {
            int group = all_formats[f].group, rows = 1 + rng_below(&r, 70);
            int n = round < 9 ? 1 + round : 1 + rng_below(&r, 70);
            int cols = group ? group * (1 + rng_below(&r, 1200 / group)) : 1 + rng_below(&r, 1200);
            if (group && round % 4 == 0)
                rows = 17, cols = group * (9000 / group); /* several blocks */
            test_mat m = random_mat(&r, all_formats[f].format, all_formats[f].bits, group,
                                    all_formats[f].scale, rows, cols);
            size_t stride = (size_t)cols + 5, total = (size_t)rows * (size_t)n;
            float *x = random_floats(&r, stride * (size_t)n);
            float *got = random_floats(&r, total), *want = random_floats(&r, total);
            if (round == 5) x[(size_t)(n / 2) * stride] = INFINITY;
            for (int p = KN_PRECISION_F32; p <= KN_PRECISION_FAST; p++) {
                char what[80];
                snprintf(what, sizeof what, "product format %d bits %d group %d %dx%d n %d %s",
                         m.m.format, m.m.bits, group, rows, cols, n, p ? "fast" : "f32");
                product(isa, (kn_precision)p, got, &m.m, x, stride, n);
                product(KN_ISA_PORTABLE, (kn_precision)p, want, &m.m, x, stride, n);
                same(got, want, total, isa, what);
            }
            free(x), free(got), free(want), free_mat(&m);
        }
}

/* y of the rows that two tasks compute. */
static void product_in_two(kn_isa isa, kn_precision precision, float *y, const kn_mat *m,
                           const float *x, size_t stride, int n)
{
    int cut = m->rows / 2 / KN_STRIP_ROWS * KN_STRIP_ROWS;
    void *scratch = malloc(kn_act_bytes(n, m->cols));
    kn_act a;
    kn_act_init(&a, isa, x, stride, n, m->cols, m->group, precision, scratch);
    kn_act_prepare(&a, 0, n);
    if (cut) kn_matmul(y, (size_t)m->rows, m, &a, 0, cut, 0, n);
    kn_matmul(y, (size_t)m->rows, m, &a, cut, m->rows, 0, n);
    free(scratch);
}

/* The same matrix as rows and as strips. */
static void strips_of_width(kn_isa isa, int bits)
{
    rng r = {17};
    static const kn_format scales[] = {KN_F32, KN_F16, KN_BF16};
    for (int round = 0; round < 54; round++) {
        int group = 32 << round % 3, rows = KN_STRIP_ROWS * (1 + rng_below(&r, 10));
        int most = round % 9 ? 1200 : bits == 4 ? 9000 : 8192;
        int cols = group * (1 + rng_below(&r, most / group));
        int n = round < 40 ? 1 + round / 3 : 1 + rng_below(&r, 150);
        test_mat m = random_mat(&r, KN_AFFINE, bits, group, scales[round / 3 % 3], rows, cols);
        size_t total = (size_t)rows * (size_t)n, stride = (size_t)cols + 3;
        float *x = random_floats(&r, stride * (size_t)n), *row[2];
        float *got = random_floats(&r, total), *want[2];
        for (size_t i = 0; round % 5 == 4 && i < stride * (size_t)n; i++) /* the fullest sums */
            x[i] = (i / stride & 1 ? -1 : 1) * (i % 7 ? 1 : 32384 / 32512.0f);
        if (round % 5 == 4) memset((void *)(uintptr_t)m.m.w, 0xff, (size_t)rows * m.m.row_bytes);
        for (int p = KN_PRECISION_F32; p <= KN_PRECISION_FAST; p++) {
            want[p] = random_floats(&r, total);
            product(KN_ISA_PORTABLE, (kn_precision)p, want[p], &m.m, x, stride, n);
            row[p] = random_floats(&r, (size_t)cols);
        }
        kn_dequant_row(&m.m, rows - 3, row[0]);
        assert_true(kn_can_strip(&m.m));
        kn_to_strips(&m.m);
        kn_dequant_row(&m.m, rows - 3, row[1]);
        same(row[1], row[0], (size_t)cols, isa, "a strip's row");
        for (int p = KN_PRECISION_F32; p <= KN_PRECISION_FAST; p++) {
            char what[80];
            snprintf(what, sizeof what, "strips, %d bits group %d scales %d %dx%d n %d %s", bits,
                     group, m.m.scale_type, rows, cols, n, p ? "fast" : "f32");
            product_in_two(isa, (kn_precision)p, got, &m.m, x, stride, n);
            same(got, want[p], total, isa, what);
            free(want[p]), free(row[p]);
        }
        free(x), free(got), free_mat(&m);
    }
}

static void strips_of(kn_isa isa)
{
    strips_of_width(isa, 4);
    strips_of_width(isa, 8);
}

/* The largest codes times the largest activations of either sign: the sums of a group must have
 * room for them. Some activations end in the lowest byte there is. */
static void fullest_groups_of(kn_isa isa)
{
    enum { ROWS = 19, COLS = 1024, N = 23 };
    static const int counts[] = {1, 2, 5, N};
    rng r = {16};
    float *x = malloc(N * COLS * sizeof *x), *got = random_floats(&r, N * ROWS);
    for (int t = 0; t < N; t++)
        for (int c = 0; c < COLS; c++)
            x[t * COLS + c] = (t & 1 ? -1 : 1) * (t % 4 < 2 || c % 32 == 0 ? 1 : 32384 / 32512.0f);
    for (int f = 0; f < N_FORMATS; f++) {
        if (all_formats[f].format != KN_AFFINE) continue;
        test_mat m = random_mat(&r, KN_AFFINE, all_formats[f].bits, all_formats[f].group, KN_F32,
                                ROWS, COLS);
        memset((void *)(uintptr_t)m.m.w, 0xff, ROWS * m.m.row_bytes);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            int n = counts[k];
            product(isa, KN_PRECISION_FAST, got, &m.m, x, COLS, n);
            for (int i = 0; i < n * ROWS; i++) {
                float row[COLS];
                double want = 0, size = 0;
                kn_dequant_row(&m.m, i % ROWS, row);
                for (int c = 0; c < COLS; c++) {
                    double term = (double)row[c] * x[i / ROWS * COLS + c];
                    want += term, size += fabs(term);
                }
                if (fabs(got[i] - want) > 1e-4 * size)
                    fail_msg("%s, %d bits, group %d, %d vectors: %g, not %g", kn_isa_name(isa),
                             m.m.bits, m.m.group, n, got[i], want);
            }
        }
        free_mat(&m);
    }
    free(x), free(got);
}

static void batch_is_invisible(kn_isa isa)
{
    rng r = {13};
    for (int f = 0; f < N_FORMATS; f++) {
        enum { ROWS = 145, N = 133 }; /* more than one block of either */
        int rows = ROWS, n = N, cols = 384;
        test_mat m = random_mat(&r, all_formats[f].format, all_formats[f].bits,
                                all_formats[f].group, all_formats[f].scale, rows, cols);
        float *x = random_floats(&r, (size_t)(cols * n)), one[ROWS];
        float *all = random_floats(&r, (size_t)(rows * n));
        for (int p = KN_PRECISION_F32; p <= KN_PRECISION_FAST; p++) {
            product(isa, (kn_precision)p, all, &m.m, x, (size_t)cols, n);
            for (int t = 0; t < n; t++) {
                product(isa, (kn_precision)p, one, &m.m, x + t * cols, (size_t)cols, 1);
                same(one, all + t * rows, (size_t)rows, isa, "one token against a batch");
            }
        }
        free(x), free(all), free_mat(&m);
    }
}

/* A zeroed cache of whole tiles. */
static kn_kv new_cache(kn_kv_type type, kn_kv_what what, int dim, int positions)
{
    return (kn_kv){type, what, dim,
                   calloc((size_t)(positions + KN_KV_TILE), kn_kv_bytes(type, dim))};
}

/* The cache of `positions` as both instruction sets write and read it. */
static kn_kv cache_of(kn_isa isa, rng *r, kn_kv_type type, kn_kv_what what, int dim, int positions)
{
    kn_kv kv = new_cache(type, what, dim, positions), other = new_cache(type, what, dim, positions);
    for (int p = 0; p < positions; p++) {
        float *x = random_floats(r, (size_t)dim), y[2][256];
        kn_kv_store(isa, &kv, p, x);
        kn_kv_store(KN_ISA_PORTABLE, &other, p, x);
        kn_kv_load(isa, &kv, p, y[0]);
        kn_kv_load(KN_ISA_PORTABLE, &kv, p, y[1]);
        same(y[0], y[1], (size_t)dim, isa, "cache load");
        free(x);
    }
    assert_memory_equal(kv.cache, other.cache, kn_kv_bytes(type, dim) * (size_t)positions);
    free(other.cache);
    return kv;
}

static void attention_of(kn_isa isa)
{
    rng r = {14};
    for (int round = 0; round < 60; round++) {
        int n = 1 + rng_below(&r, 20),
            kd = round % 4 ? 8 * (1 + rng_below(&r, 32)) : 1 + rng_below(&r, 99);
        int vd = round % 3 ? kd : 1 + rng_below(&r, kd), end = 1 + rng_below(&r, 300);
        if (round % 12 > 9) end += KN_ATT_PART;
        kn_kv_type type = (kn_kv_type)(round % 3);
        bool shared = round % 5 == 4; /* values: the first columns of the keys */
        size_t count = (size_t)(n * vd), stride = kn_kv_bytes(type, kd);
        kn_kv k = cache_of(isa, &r, type, KN_KEYS, kd, end);
        kn_kv v = cache_of(isa, &r, type, KN_VALUES, vd, end);
        float *q = random_floats(&r, (size_t)(n * kd)), *sink = random_floats(&r, 20);
        float *got = random_floats(&r, count), *want = random_floats(&r, count);
        kn_attention a = {.type = type,
                          .k = k.cache,
                          .v = shared ? k.cache : v.cache,
                          .k_stride = stride,
                          .v_stride = shared ? stride : kn_kv_bytes(type, vd),
                          .k_dim = kd,
                          .v_dim = vd,
                          .begin = round & 1 ? rng_below(&r, end) : 0,
                          .end = end,
                          .scale = 0.3f,
                          .sink = round & 2 ? sink : NULL};
        kn_attend_group(isa, got, (size_t)vd, q, (size_t)kd, n, &a);
        kn_attend_group(KN_ISA_PORTABLE, want, (size_t)vd, q, (size_t)kd, n, &a);
        same(got, want, count, isa, "attention");
        for (int h = 0; h < n; h++, a.sink = a.sink ? a.sink + 1 : NULL) {
            kn_attend(isa, want, q + h * kd, &a);
            same(got + h * vd, want, (size_t)vd, isa, "one head against a group");
        }
        free(k.cache), free(v.cache), free(q), free(sink), free(got), free(want);
    }
}

static void recurrences_of(kn_isa isa)
{
    rng r = {15};
    for (int round = 0; round < 30; round++) {
        int dk = 1 + rng_below(&r, 140), dv = 1 + rng_below(&r, 40), n = dk * dv;
        float *S = random_floats(&r, (size_t)n), *S2 = malloc((size_t)n * sizeof *S);
        float *a = random_floats(&r, 600), *b = random_floats(&r, 600), *c = random_floats(&r, 600);
        float *A = random_floats(&r, (size_t)n), got[40] = {0}, want[40] = {0};
        memcpy(S2, S, (size_t)n * sizeof *S);
        for (int i = 0; i < n; i++) A[i] = -fabsf(A[i]);
#define CHECK(call, what)                                                                          \
    do {                                                                                           \
        kn_isa use = isa;                                                                          \
        float *out = got, *state = S;                                                              \
        call;                                                                                      \
        use = KN_ISA_PORTABLE, out = want, state = S2;                                             \
        call;                                                                                      \
        same(got, want, (size_t)dv, isa, what);                                                    \
        same(S, S2, (size_t)n, isa, what);                                                         \
    } while (0)
        CHECK(kn_delta_step(use, out, state, a, b, c, 0.9f, 0.3f, dk, dv), "delta");
        CHECK(kn_mamba1_step(use, out, state, a, b, A, c, a + 200, b + 200, dk, 0, dv), "mamba 1");
        CHECK(kn_mamba2_step(use, out, state, a, b, c, 0.9f, 0.3f, 2, dv, dk), "mamba 2");
        if (dk >= 4)
            CHECK(kn_conv_step(use, out, a, state, A, round & 1 ? b : NULL, dv, 4, dv / 3, dv),
                  "conv");
#undef CHECK
        free(S), free(S2), free(a), free(b), free(c), free(A);
    }
}

static void each_isa(void (*check)(kn_isa))
{
    static const kn_isa all[] = {KN_ISA_AVX2, KN_ISA_AVX2_VNNI, KN_ISA_AVX512, KN_ISA_NEON};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (kn_isa_available(all[i])) check(all[i]);
}

static void vectors(void **state)
{
    (void)state;
    each_isa(vectors_of);
}

static void products(void **state)
{
    (void)state;
    each_isa(products_of);
}

static void fullest_groups(void **state)
{
    (void)state;
    each_isa(fullest_groups_of);
    fullest_groups_of(KN_ISA_PORTABLE);
}

static void strips(void **state)
{
    (void)state;
    each_isa(strips_of);
    strips_of(KN_ISA_PORTABLE);
}

static void batches(void **state)
{
    (void)state;
    each_isa(batch_is_invisible);
    batch_is_invisible(KN_ISA_PORTABLE);
}

static void attention(void **state)
{
    (void)state;
    each_isa(attention_of);
}

static void recurrences(void **state)
{
    (void)state;
    each_isa(recurrences_of);
}

static void names(void **state)
{
    (void)state;
    kn_isa isa;
    assert_true(kn_isa_parse("auto", &isa) && isa == kn_isa_best() && kn_isa_available(isa));
    assert_true(kn_isa_parse("avx512", &isa) && isa == KN_ISA_AVX512);
    kn_isa avx2 = kn_isa_available(KN_ISA_AVX2_VNNI) ? KN_ISA_AVX2_VNNI : KN_ISA_AVX2;
    assert_true(kn_isa_parse("avx2", &isa) && isa == avx2);
    assert_false(kn_isa_parse("sse9", &isa));
    assert_true(kn_isa_available(KN_ISA_PORTABLE));
    assert_false(kn_isa_available((kn_isa)17));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),          cmocka_unit_test(vectors), cmocka_unit_test(products),
        cmocka_unit_test(fullest_groups), cmocka_unit_test(batches), cmocka_unit_test(attention),
        cmocka_unit_test(recurrences),    cmocka_unit_test(strips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
