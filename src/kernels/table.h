/* table.h - inside the room: what an instruction set must provide. One table an ISA, filled in
 * table_<isa>.c by compiling the same bodies (body_*.h) over that ISA's lanes (lanes_<isa>.h).
 * The functions are those of kernels.h without the first argument. */
#ifndef KERNELS_TABLE_H
#define KERNELS_TABLE_H

#include "kernels/kernels.h"

/* For functions whose arguments are constants at each call, and loops over registers. */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef struct kn_table {
    float (*dot)(const float *, const float *, int);
    void (*axpy)(float *, float, const float *, int);
    void (*scale)(float *, float, int);
    void (*add)(float *, const float *, int);
    void (*mul)(float *, const float *, int);
    void (*rms_norm)(float *, const float *, const float *, int, float);
    void (*layer_norm)(float *, const float *, const float *, const float *, int, float);
    void (*softmax)(float *, int);
    void (*sigmoid)(float *, const float *, int);
    void (*silu_mul)(float *, const float *, const float *, int);
    void (*swiglu_clamped)(float *, const float *, const float *, int, float, float);
    void (*gelu_mul)(float *, const float *, const float *, int);
    void (*rope)(float *, const float *, const float *, int, kn_rope_layout);
    void (*kv_store)(const kn_kv *, int, const float *);
    void (*kv_load)(const kn_kv *, int, float *);
    void (*attend_part)(float *, size_t, kn_softmax_state *, const float *, size_t, int,
                        const kn_attention *);
    void (*attend_more)(float *, kn_softmax_state *, const float *, const kn_softmax_state *, int);
    void (*conv_step)(float *, const float *, float *, const float *, const float *, int, int, int,
                      int);
    void (*delta_step)(float *, float *, const float *, const float *, const float *, float, float,
                       int, int);
    void (*mamba1_step)(float *, float *, const float *, const float *, const float *,
                        const float *, const float *, const float *, int, int, int);
    void (*mamba2_step)(float *, float *, const float *, const float *, const float *, float, float,
                        float, int, int);
    void (*act_prepare)(const kn_act *, int, int);
    void (*matmul)(float *, size_t, const kn_mat *, const kn_act *, int, int, int, int);
    bool strips; /* matmul takes strips where the product is of integers */
} kn_table;

const kn_table *kn_table_of(kn_isa isa);
extern const kn_table kn_table_portable;
#if defined(__x86_64__)
extern const kn_table kn_table_avx2, kn_table_avx2vnni, kn_table_avx512;
#elif defined(__aarch64__)
extern const kn_table kn_table_neon;
#endif

#endif
