/* The portable kernels against plain float64 arithmetic. */
#include "kernels_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const kn_isa P = KN_ISA_PORTABLE;

static void near(double got, double want, double tolerance, const char *what)
{
    if (fabs(got - want) <= tolerance) return;
    fail_msg("%s: got %.9g, want %.9g (tolerance %g)", what, got, want, tolerance);
}

static void numbers(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) { /* half -> float -> half is the identity */
        float f = kn_f16_f32((uint16_t)h);
        if (f != f) continue;
        assert_int_equal(kn_f32_f16(f), h);
        assert_true(kn_f32_bits(f) >> 31 == h >> 15);
    }
    assert_int_equal(kn_f32_f16(65519.0f), 0x7bff);
    assert_int_equal(kn_f32_f16(65520.0f), 0x7c00);
    assert_int_equal(kn_f32_f16(0x1p-25f), 0);
    assert_int_equal(kn_f32_f16(0x1.8p-25f), 1);
    near(kn_e4m3_f32(0x7f), 480, 0, "e4m3 0x7f");
    near(kn_e4m3_f32(0x81), -0x1p-9, 0, "e4m3 smallest");
    near(kn_e4m3_f32(0x38), 1, 0, "e4m3 one");
    near(kn_e8m0_f32(0), 0x1p-127, 0, "e8m0 0");
    near(kn_e8m0_f32(130), 8, 0, "e8m0 130");
    near(kn_e2m1_f32(15), -6, 0, "e2m1 15");
}

static void codes_of_every_width(void **state)
{
    (void)state;
    uint8_t stream[64] = {0};
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (size_t i = 0; i < 6; i++) {
        int bits = widths[i];
        memset(stream, 0, sizeof stream);
        for (int c = 0; c < 32; c++)
            for (int b = 0; b < bits; b++)
                if ((unsigned)(c * 7 + 3) >> b & 1)
                    stream[(c * bits + b) / 8] |= 1 << (c * bits + b) % 8;
        for (int c = 0; c < 32; c++)
            assert_int_equal(kn_read_code(stream, bits, (size_t)c),
                             (c * 7 + 3) & ((1 << bits) - 1));
    }
}

/* The far edge and zero are exact but for the rounding of scale and bias, all else is nearer than
 * a step (half of one, where the exact edge does not cut the other one off). */
static void quantised_rows(void **state)
{
    (void)state;
    enum { COLS = 128 };
    float x[COLS], back[COLS];
    uint8_t codes[COLS], scales[4 * COLS / 32], biases[4 * COLS / 32];
    static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    for (int k = 0; k < 6 * 3; k++) {
        kn_mat m = {.format = KN_AFFINE,
                    .bits = widths[k / 3],
                    .group = groups[k % 3],
                    .scale_type = KN_F32,
                    .rows = 1,
                    .cols = COLS,
                    .w = codes,
                    .scales = scales,
                    .biases = biases};
        m.row_bytes = kn_row_bytes(KN_AFFINE, m.bits, COLS);
        m.scale_row_bytes = kn_scale_row_bytes(KN_AFFINE, KN_F32, m.group, COLS);
        for (int i = 0; i < COLS; i++) x[i] = (float)((i * 37 + k * 11) % 101 - 30) * 0.013f;
        x[5] = 0;
        kn_quantise_row(x, &m, codes, scales, biases);
        kn_dequant_row(&m, 0, back);
        near(back[5], 0, 1e-6, "zero");
        for (int i = 0; i < COLS; i++) {
            float step;
            memcpy(&step, scales + 4 * (i / m.group), sizeof step);
            near(back[i], x[i], fabs(step), "quantised");
        }
        for (int i = 0; i < COLS; i++)
            x[i] = 0.25f; /* one value: the least step, no division by 0 */
        kn_quantise_row(x, &m, codes, scales, biases);
        kn_dequant_row(&m, 0, back);
        near(back[7], 0.25, 1e-6, "constant");
    }
}

static void exponentials(void **state)
{
    (void)state;
    for (double x = -86.5; x < 88.7; x += 0.00731) {
        float f = (float)x;
        near(kn_expf(f) / exp(f), 1, 2.4e-7, "exp");
        near(kn_sigmoidf(f), 1 / (1 + exp(-f)), 3e-7, "sigmoid");
        if (x < 50) near(kn_softplusf(f) / log1p(exp(f)), 1, 6e-7, "softplus");
    }
    for (double x = 1e-30; x < 1e30; x *= 1.0137) {
        float f = (float)x;
        near(kn_logf(f), log(f), 1.3e-7 * (fabs(log(f)) + 0.4), "log");
    }
    assert_true(kn_expf(100) == INFINITY && kn_expf(-100) == 0 && kn_expf(0) == 1);
    assert_true(kn_expf(NAN) != kn_expf(NAN));
    assert_true(kn_logf(0) == -INFINITY && kn_logf(-1) != kn_logf(-1) && kn_logf(1) == 0);
    assert_true(kn_siluf(0) == 0);
}

static double dot64(const float *a, const float *b, int n, double *size)
{
    double sum = 0;
    *size = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)a[i] * b[i];
        *size += fabs((double)a[i] * b[i]);
    }
    return sum;
}

/* Kept conversations are gone on with only by the arithmetic that computed them. When one of these
 * digests of results changes, raise KN_ARITHMETIC and put the new one beside it. */
enum { DIGESTS_OF = 5 };
static const uint32_t digest_of_products = 0x0b96a4fau, digest_of_attention = 0x03083459u;

static const uint32_t empty_hash = 2166136261u;

static uint32_t mix_floats(uint32_t hash, const float *x, int n)
{
    const unsigned char *byte = (const unsigned char *)x;
    for (size_t i = 0; i < (size_t)n * sizeof *x; i++) hash = (hash ^ byte[i]) * 16777619u;
    return hash;
}

static void products(void **state)
{
    (void)state;
    rng r = {1};
    uint32_t hash = empty_hash;
    for (int f = 0; f < N_FORMATS; f++) {
        int rows = 1 + rng_below(&r, 20), n = 1 + rng_below(&r, 5);
        int cols = all_formats[f].group ? 128 * (1 + rng_below(&r, 6)) : 1 + rng_below(&r, 700);
        test_mat m = random_mat(&r, all_formats[f].format, all_formats[f].bits,
                                all_formats[f].group, all_formats[f].scale, rows, cols);
        size_t stride = (size_t)cols + 3;
        float *x = random_floats(&r, stride * (size_t)n), *w = random_floats(&r, (size_t)cols);
        float *exact = random_floats(&r, (size_t)(rows * n));
        float *fast = random_floats(&r, (size_t)(rows * n));
        product(P, KN_PRECISION_F32, exact, &m.m, x, stride, n);
        product(P, KN_PRECISION_FAST, fast, &m.m, x, stride, n);
        hash = mix_floats(mix_floats(hash, exact, rows * n), fast, rows * n);
        for (int row = 0; row < rows; row++) {
            kn_dequant_row(&m.m, row, w);
            for (int t = 0; t < n; t++) {
                double size, want = dot64(w, x + (size_t)t * stride, cols, &size);
                near(exact[t * rows + row], want, 4e-6 * size + 1e-30, "float32 product");
                near(fast[t * rows + row], want, 6e-5 * size + 1e-30, "integer product");
            }
        }
        free(x), free(w), free(exact), free(fast), free_mat(&m);
    }
    assert_int_equal(KN_ARITHMETIC, DIGESTS_OF);
    assert_int_equal(hash, digest_of_products);
}

static void norms_and_softmax(void **state)
{
    (void)state;
    rng r = {2};
    for (int n = 1; n < 70; n += 3) {
        float *x = random_floats(&r, (size_t)n), *w = random_floats(&r, (size_t)n);
        float *b = random_floats(&r, (size_t)n), y[70];
        double squares = 0, mean = 0, variance = 0, total = 0, top = -1e30;
        for (int i = 0; i < n; i++) squares += (double)x[i] * x[i], mean += (double)x[i] / n;
        for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
        kn_rms_norm(P, y, x, w, n, 1e-6f);
        for (int i = 0; i < n; i++)
            near(y[i], w[i] * x[i] / sqrt(squares / n + 1e-6), 1e-5, "rms norm");
        kn_layer_norm(P, y, x, w, b, n, 1e-5f);
        for (int i = 0; i < n; i++)
            near(y[i], w[i] * (x[i] - mean) / sqrt(variance + 1e-5) + b[i], 1e-4, "layer norm");
        for (int i = 0; i < n; i++) top = fmax(top, x[i]);
        for (int i = 0; i < n; i++) total += exp(x[i] - top);
        memcpy(y, x, (size_t)n * sizeof *y);
        kn_softmax(P, y, n);
        for (int i = 0; i < n; i++) near(y[i], exp(x[i] - top) / total, 1e-6, "softmax");
        kn_silu_mul(P, y, x, w, n);
        for (int i = 0; i < n; i++) near(y[i], x[i] / (1 + exp(-x[i])) * w[i], 2e-5, "silu mul");
        kn_gelu_mul(P, y, x, w, n);
        for (int i = 0; i < n; i++) {
            double g = x[i], t = tanh(0.7978845608 * (g + 0.044715 * g * g * g));
            near(y[i], 0.5 * g * (1 + t) * w[i], 2e-5 * (1 + fabs(g * w[i])), "gelu mul");
        }
        kn_swiglu_clamped(P, y, x, w, n, 1.702f, 7);
        for (int i = 0; i < n; i++) {
            double g = fmin(x[i], 7), u = fmax(fmin(w[i], 7), -7);
            near(y[i], (u + 1) * g / (1 + exp(-1.702 * g)), 2e-5 * (1 + fabs(g * u)), "swiglu");
        }
        free(x), free(w), free(b);
    }
}

static void rope(void **state)
{
    (void)state;
    float half[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, pairs[10];
    float c[4] = {0.6f, 0.8f, 1, 0}, s[4] = {0.8f, 0.6f, 0, 1};
    memcpy(pairs, half, sizeof half);
    kn_rope(P, half, c, s, 8, KN_ROPE_HALF);
    kn_rope(P, pairs, c, s, 8, KN_ROPE_INTERLEAVED);
    near(half[0], 1 * 0.6 - 5 * 0.8, 1e-6, "half a");
    near(half[4], 1 * 0.8 + 5 * 0.6, 1e-6, "half b");
    near(half[7], 4, 1e-6, "half quarter turn");
    near(pairs[0], 1 * 0.6 - 2 * 0.8, 1e-6, "pair a");
    near(pairs[1], 1 * 0.8 + 2 * 0.6, 1e-6, "pair b");
    near(half[8] + pairs[9], 19, 0, "untouched");
}

static void top_k(void **state)
{
    (void)state;
    float s[8] = {1, 5, NAN, 5, 2, -1, 5, 2};
    int index[8];
    kn_top_k(s, 8, 5, index);
    static const int want[8] = {1, 3, 6, 4, 7, 0, 5, 2};
    assert_memory_equal(index, want, 5 * sizeof(int));
    kn_top_k(s, 8, 8, index);
    assert_memory_equal(index, want, sizeof want);
}

static void attention(void **state)
{
    (void)state;
    rng r = {3};
    for (int round = 0; round < 40; round++) {
        int kd = 1 + rng_below(&r, 150), vd = 1 + rng_below(&r, kd), end = 1 + rng_below(&r, 300);
        int begin = round & 1 ? rng_below(&r, end) : 0;
        float *k = random_floats(&r, (size_t)(kd * end)),
              *v = random_floats(&r, (size_t)(vd * end));
        float *q = random_floats(&r, (size_t)kd), out[150], sink = 0.3f;
        kn_attention a = {KN_KV_F32, k,     v,   (size_t)kd * 4, (size_t)vd * 4,          kd,
                          vd,        begin, end, 0.2f,           round & 2 ? &sink : NULL};
        kn_attend(P, out, q, &a);
        double total = a.sink ? exp(sink - 40) : 0, want[150] = {0};
        for (int p = begin; p < end; p++) {
            double size, e = exp(0.2 * dot64(q, k + p * kd, kd, &size) - 40);
            total += e;
            for (int i = 0; i < vd; i++) want[i] += e * v[p * vd + i];
        }
        for (int i = 0; i < vd; i++) near(out[i], want[i] / total, 1e-3, "attention");
        free(k), free(v), free(q);
    }
}

/* A cache of whole tiles, filled with what may lie in memory. */
static kn_kv new_cache(kn_kv_type type, kn_kv_what what, int dim, int positions)
{
    size_t bytes = kn_kv_bytes(type, dim) * (size_t)(positions + KN_KV_TILE);
    kn_kv kv = {type, what, dim, malloc(bytes)};
    memset(kv.cache, 0xff, bytes);
    return kv;
}

/* Attention over eight bits in integers, against float32 over the numbers that they stand for:
 * values of their own, or the first columns of the keys. */
static void attention_of_codes(void **state)
{
    (void)state;
    rng r = {13};
    uint32_t hash = empty_hash;
    for (int round = 0; round < 40; round++) {
        int dim = 1 + rng_below(&r, 150), end = 1 + rng_below(&r, 400), begin = rng_below(&r, end);
        if (round % 8 == 7) end += KN_ATT_PART;
        bool shared = round & 1;
        int v_dim = shared ? 1 + rng_below(&r, dim) : dim;
        size_t bytes = kn_kv_bytes(KN_KV_I8, dim), row = (size_t)dim * sizeof(float);
        kn_kv keys = new_cache(KN_KV_I8, KN_KEYS, dim, end);
        kn_kv values = new_cache(KN_KV_I8, KN_VALUES, dim, end);
        float *x = random_floats(&r, (size_t)(2 * dim * end)), *q = random_floats(&r, (size_t)dim);
        float *k = x, *v = shared ? x : x + dim * end, got[150], want[150];
        for (int p = 0; p < end; p++) {
            kn_kv_store(P, &keys, p, k + p * dim);
            kn_kv_load(P, &keys, p, k + p * dim);
            if (shared) continue;
            kn_kv_store(P, &values, p, v + p * dim);
            kn_kv_load(P, &values, p, v + p * dim);
        }
        void *from = shared ? keys.cache : values.cache;
        kn_attention a = {KN_KV_I8, keys.cache, from, bytes, bytes, dim,
                          v_dim,    begin,      end,  0.02f, NULL};
        kn_attention b = {KN_KV_F32, k, v, row, row, dim, v_dim, begin, end, 0.02f, NULL};
        kn_attend(P, got, q, &a);
        kn_attend(P, want, q, &b);
        for (int i = 0; i < v_dim; i++) near(got[i], want[i], 2e-3, "attention over codes");
        hash = mix_floats(mix_floats(hash, got, v_dim), want, v_dim);
        free(keys.cache), free(values.cache), free(x), free(q);
    }
    assert_int_equal(KN_ARITHMETIC, DIGESTS_OF);
    assert_int_equal(hash, digest_of_attention);
}

/* Parts by themselves, joined, are what one call computes. */
static void attention_in_parts(void **state)
{
    (void)state;
    enum { HEADS = 3, DIM = 24, END = 3 * KN_ATT_PART - 7, PARTS = 3 };
    rng r = {21};
    float *x = random_floats(&r, (size_t)(END * DIM)), q[HEADS * DIM], sinks[HEADS] = {1, 2, 3};
    for (int i = 0; i < HEADS * DIM; i++) q[i] = x[i];
    static const int begins[] = {0, 5, KN_ATT_PART, KN_ATT_PART + 100, END - 1};
    for (int round = 0; round < 10; round++) {
        kn_attention a = {KN_KV_F32,
                          x,
                          x,
                          DIM * 4,
                          DIM * 4,
                          DIM,
                          DIM,
                          begins[round / 2],
                          END,
                          0.3f,
                          round & 1 ? sinks : NULL};
        float want[HEADS * DIM], got[DIM], parts[PARTS][HEADS * DIM];
        kn_softmax_state soft[PARTS][HEADS];
        kn_attend_group(P, want, DIM, q, DIM, HEADS, &a);
        for (int p = PARTS - 1; p >= 0; p--)
            assert_int_equal(kn_attend_part(P, p, parts[p], DIM, soft[p], q, DIM, HEADS, &a),
                             a.begin < (p + 1) * KN_ATT_PART);
        for (int h = 0; h < HEADS; h++) {
            kn_attend_join(P, got, parts[0] + h * DIM, HEADS * DIM, soft[0] + h, HEADS, &a);
            assert_memory_equal(got, want + h * DIM, sizeof got);
        }
        assert_false(kn_attend_part(P, PARTS, parts[0], DIM, soft[0], q, DIM, HEADS, &a));
    }
    free(x);
}

static void cache_types(void **state)
{
    (void)state;
    rng r = {4};
    for (int dim = 1; dim < 100; dim++)
        for (int type = KN_KV_F32; type <= KN_KV_I8; type++) {
            enum { POSITIONS = KN_KV_TILE + 3 };
            kn_kv kv = new_cache((kn_kv_type)type, dim % 2 ? KN_KEYS : KN_VALUES, dim, POSITIONS);
            float *x = random_floats(&r, (size_t)(dim * POSITIONS)), y[100], top = 0;
            for (int i = 0; i < dim * POSITIONS; i++) top = fmaxf(top, fabsf(x[i]));
            for (int p = POSITIONS - 1; p >= 0; p--) kn_kv_store(P, &kv, p, x + p * dim);
            double tolerance = type == KN_KV_F32 ? 0 : type == KN_KV_F16 ? top * 5e-4 : top * 5e-3;
            for (int p = 0; p < POSITIONS; p++) {
                kn_kv_load(P, &kv, p, y);
                for (int i = 0; i < dim; i++) near(y[i], x[p * dim + i], tolerance, "round trip");
            }
            free(x), free(kv.cache);
        }
}

static void recurrences(void **state)
{
    (void)state;
    rng r = {5};
    int dk = 37, dv = 9;
    float *S = random_floats(&r, (size_t)(dk * dv)), *k = random_floats(&r, (size_t)dk);
    float *q = random_floats(&r, (size_t)dk), *v = random_floats(&r, (size_t)dv), out[40];
    double want_S[9 * 37];
    for (int i = 0; i < dv; i++) {
        double known = 0;
        for (int j = 0; j < dk; j++) known += 0.9 * S[i * dk + j] * k[j];
        for (int j = 0; j < dk; j++)
            want_S[i * dk + j] = 0.9 * S[i * dk + j] + (v[i] - known) * 0.5 * k[j];
    }
    kn_delta_step(P, out, S, q, k, v, 0.9f, 0.5f, dk, dv);
    for (int i = 0; i < dv; i++) {
        double o = 0;
        for (int j = 0; j < dk; j++) {
            near(S[i * dk + j], want_S[i * dk + j], 1e-2, "delta state");
            o += want_S[i * dk + j] * q[j];
        }
        near(out[i], o, 1e-3 * (1 + fabs(o)), "delta output");
    }
    float state2[2 * 20] = {0}, in[20], w[60], bias[20];
    for (int c = 0; c < 20; c++) in[c] = (float)c, bias[c] = 1;
    for (int i = 0; i < 60; i++) w[i] = (float)(i % 3 + 1);
    for (int c = 0; c < 40; c++) state2[c] = (float)(100 + c);
    kn_conv_step(P, out, in, state2, w, bias, 20, 3, 2, 20);
    double sum = 1 + 1 * 105 + 2 * 125 + 3 * 5;
    near(out[5], sum / (1 + exp(-sum)), 1e-4, "convolution");
    near(state2[5], 125, 0, "convolution state");
    near(state2[25], 5, 0, "convolution state");
    near(state2[1], 101, 0, "another thread's channel");
    float s1[3] = {1, 2, 3}, A[3] = {-1, -2, -3}, B[3] = {1, 0, 2}, C[3] = {1, 1, 1};
    float x = 2, dt = 0.5f, D = 3, y;
    kn_mamba1_step(P, &y, s1, &x, &dt, A, B, C, &D, 3, 0, 1);
    near(y, exp(-.5) + 1 + 2 * exp(-1) + 3 * exp(-1.5) + 2 + 6, 1e-5, "mamba 1");
    float s2[3] = {1, 2, 3};
    kn_mamba2_step(P, &y, s2, &x, B, C, 0.5f, 0.25f, 3, 1, 3);
    near(y, 0.5 * 6 + 0.5 * 3 + 6, 1e-5, "mamba 2");
    free(S), free(k), free(q), free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(codes_of_every_width),
        cmocka_unit_test(quantised_rows),
        cmocka_unit_test(exponentials),
        cmocka_unit_test(products),
        cmocka_unit_test(norms_and_softmax),
        cmocka_unit_test(rope),
        cmocka_unit_test(top_k),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_of_codes),
        cmocka_unit_test(attention_in_parts),
        cmocka_unit_test(cache_types),
        cmocka_unit_test(recurrences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
