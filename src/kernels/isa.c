/* isa.c - which instruction sets this CPU has, and the public functions over their tables. */
#include "kernels/quant.h"
#include "kernels/table.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const struct {
    const char *name;
    const kn_table *table; /* NULL: not compiled for this architecture */
} isas[] = {
    [KN_ISA_PORTABLE] = {"portable", &kn_table_portable},
#if defined(__x86_64__)
    [KN_ISA_AVX2] = {"avx2", &kn_table_avx2},
    [KN_ISA_AVX2_VNNI] = {"avx2", &kn_table_avx2vnni},
    [KN_ISA_AVX512] = {"avx512", &kn_table_avx512},
    [KN_ISA_NEON] = {"neon", NULL},
#elif defined(__aarch64__)
    [KN_ISA_AVX2] = {"avx2", NULL},
    [KN_ISA_AVX2_VNNI] = {"avx2", NULL},
    [KN_ISA_AVX512] = {"avx512", NULL},
    [KN_ISA_NEON] = {"neon", &kn_table_neon},
#else
    [KN_ISA_AVX2] = {"avx2", NULL},
    [KN_ISA_AVX2_VNNI] = {"avx2", NULL},
    [KN_ISA_AVX512] = {"avx512", NULL},
    [KN_ISA_NEON] = {"neon", NULL},
#endif
};

enum { N_ISAS = sizeof isas / sizeof *isas };

const kn_table *kn_table_of(kn_isa isa)
{
    return isas[isa].table;
}

const char *kn_isa_name(kn_isa isa)
{
    return isas[isa].name;
}

#if defined(__x86_64__)
/* clang before 16 does not know this name in __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

/* The same for clang before 17: AVX-VNNI, which is not AVX-512's. */
static bool has_avx_vnni(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4;
}

static bool cpu_has(kn_isa isa)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
                __builtin_cpu_supports("bmi2");
    if (isa == KN_ISA_AVX2) return avx2;
    if (isa == KN_ISA_AVX2_VNNI) return avx2 && has_avx_vnni();
    return isa == KN_ISA_AVX512 && avx2 && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi");
}
#else
static bool cpu_has(kn_isa isa)
{
    return isa == KN_ISA_NEON; /* every aarch64 has it; the table is NULL elsewhere */
}
#endif

bool kn_isa_available(kn_isa isa)
{
    if ((int)isa < 0 || (int)isa >= N_ISAS || !isas[isa].table) return false;
    return isa == KN_ISA_PORTABLE || cpu_has(isa);
}

kn_isa kn_isa_best(void)
{
    static const kn_isa order[] = {KN_ISA_AVX512, KN_ISA_AVX2_VNNI, KN_ISA_AVX2, KN_ISA_NEON};
    static _Atomic int known = -1; /* asking the CPU leaves a virtual machine: microseconds */
    if (known >= 0) return (kn_isa)known;
    kn_isa best = KN_ISA_PORTABLE;
    for (size_t i = sizeof order / sizeof *order; i-- > 0;)
        if (kn_isa_available(order[i])) best = order[i];
    known = (int)best;
    return best;
}

bool kn_isa_parse(const char *name, kn_isa *out)
{
    if (!strcmp(name, "auto")) {
        *out = kn_isa_best();
        return true;
    }
    for (int i = 0; i < N_ISAS; i++) {
        if (strcmp(name, isas[i].name)) continue;
        *out = (kn_isa)i;
        if (*out == KN_ISA_AVX2 && kn_isa_available(KN_ISA_AVX2_VNNI)) *out = KN_ISA_AVX2_VNNI;
        return true;
    }
    return false;
}

float kn_dot(kn_isa isa, const float *a, const float *b, int n)
{
    return isas[isa].table->dot(a, b, n);
}

void kn_axpy(kn_isa isa, float *y, float a, const float *x, int n)
{
    isas[isa].table->axpy(y, a, x, n);
}

void kn_scale(kn_isa isa, float *y, float a, int n)
{
    isas[isa].table->scale(y, a, n);
}

void kn_add(kn_isa isa, float *y, const float *x, int n)
{
    isas[isa].table->add(y, x, n);
}

void kn_mul(kn_isa isa, float *y, const float *x, int n)
{
    isas[isa].table->mul(y, x, n);
}

void kn_rms_norm(kn_isa isa, float *y, const float *x, const float *w, int n, float eps)
{
    isas[isa].table->rms_norm(y, x, w, n, eps);
}

void kn_layer_norm(kn_isa isa, float *y, const float *x, const float *w, const float *b, int n,
                   float eps)
{
    isas[isa].table->layer_norm(y, x, w, b, n, eps);
}

void kn_softmax(kn_isa isa, float *x, int n)
{
    isas[isa].table->softmax(x, n);
}

void kn_sigmoid(kn_isa isa, float *y, const float *x, int n)
{
    isas[isa].table->sigmoid(y, x, n);
}

void kn_silu_mul(kn_isa isa, float *y, const float *gate, const float *up, int n)
{
    isas[isa].table->silu_mul(y, gate, up, n);
}

void kn_swiglu_clamped(kn_isa isa, float *y, const float *gate, const float *up, int n, float alpha,
                       float limit)
{
    isas[isa].table->swiglu_clamped(y, gate, up, n, alpha, limit);
}

void kn_gelu_mul(kn_isa isa, float *y, const float *gate, const float *up, int n)
{
    isas[isa].table->gelu_mul(y, gate, up, n);
}

void kn_rope(kn_isa isa, float *x, const float *cos, const float *sin, int dims,
             kn_rope_layout layout)
{
    isas[isa].table->rope(x, cos, sin, dims, layout);
}

size_t kn_kv_bytes(kn_kv_type type, int dim)
{
    size_t n = (size_t)dim;
    if (type == KN_KV_I8) return (n + 31) / 32 * (32 + sizeof(uint16_t));
    return n * (type == KN_KV_F32 ? 4 : 2);
}

void kn_kv_store(kn_isa isa, const kn_kv *kv, int position, const float *src)
{
    isas[isa].table->kv_store(kv, position, src);
}

void kn_kv_load(kn_isa isa, const kn_kv *kv, int position, float *dst)
{
    isas[isa].table->kv_load(kv, position, dst);
}

void kn_conv_step(kn_isa isa, float *out, const float *in, float *state, const float *w,
                  const float *bias, int channels, int kc, int c0, int c1)
{
    isas[isa].table->conv_step(out, in, state, w, bias, channels, kc, c0, c1);
}

void kn_delta_step(kn_isa isa, float *out, float *S, const float *q, const float *k, const float *v,
                   float decay, float beta, int dk, int dv)
{
    isas[isa].table->delta_step(out, S, q, k, v, decay, beta, dk, dv);
}

void kn_mamba1_step(kn_isa isa, float *out, float *S, const float *x, const float *dt,
                    const float *A, const float *B, const float *C, const float *D, int ds, int c0,
                    int c1)
{
    isas[isa].table->mamba1_step(out, S, x, dt, A, B, C, D, ds, c0, c1);
}

void kn_mamba2_step(kn_isa isa, float *out, float *S, const float *x, const float *B,
                    const float *C, float decay, float dt, float D, int dh, int n)
{
    isas[isa].table->mamba2_step(out, S, x, B, C, decay, dt, D, dh, n);
}

void kn_act_init(kn_act *a, kn_isa isa, const float *x, size_t stride, int n, int cols, int group,
                 kn_precision precision, void *scratch)
{
    uintptr_t aligned = ((uintptr_t)scratch + 63) & ~(uintptr_t)63;
    *a = (kn_act){x, stride, n, cols, group, precision, isa, (void *)aligned};
}

static size_t round_64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

kn_act_layout kn_act_layout_of(const kn_act *a)
{
    int groups = a->group ? a->cols / a->group : 0, padded = (a->cols + 127) & ~127;
    kn_act_layout l = {.groups = groups, .padded_cols = padded};
    l.sum = round_64((size_t)groups * sizeof(float));
    l.codes = 2 * l.sum;
    l.bytes = l.codes + (size_t)padded * 4; /* the widest arrangement's */
    return l;
}

size_t kn_act_bytes(int n, int cols)
{
    kn_act a = {.cols = cols, .group = 32};
    return kn_act_layout_of(&a).bytes * (size_t)n + 64;
}

bool kn_is_integer_product(const kn_act *a, const kn_mat *w)
{
    return a->precision == KN_PRECISION_FAST && w->format == KN_AFFINE && a->group == w->group;
}

/* What act_prepare writes: only groups that integer products exist for. */
void kn_act_prepare(const kn_act *a, int t0, int t1)
{
    bool known_group = a->group == 32 || a->group == 64 || a->group == 128;
    if (a->precision == KN_PRECISION_FAST && known_group)
        isas[a->isa].table->act_prepare(a, t0, t1);
}

bool kn_likes_strips(kn_isa isa, kn_precision precision)
{
    return isas[isa].table->strips && precision == KN_PRECISION_FAST;
}

/* Strips for products that know rows only. */
static void product_in_rows(const kn_table *table, float *y, size_t y_stride, const kn_mat *w,
                            const kn_act *a, int row0, int row1, int t0, int t1)
{
    kn_strip_rows rows;
    for (int r = row0; r < row1; r += KN_STRIP_ROWS) {
        kn_mat strip = kn_rows_of_strip(w, r, KN_STRIP_ROWS, &rows);
        table->matmul(y + r, y_stride, &strip, a, 0, KN_STRIP_ROWS, t0, t1);
    }
}

void kn_matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
               int t0, int t1)
{
    const kn_table *table = isas[a->isa].table;
    if (w->strips && !(table->strips && kn_is_integer_product(a, w)))
        product_in_rows(table, y, y_stride, w, a, row0, row1, t0, t1);
    else table->matmul(y, y_stride, w, a, row0, row1, t0, t1);
}
