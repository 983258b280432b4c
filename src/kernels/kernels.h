/* kernels.h - the arithmetic: pure functions over plain memory.
 *
 * Promise: for every function here, every instruction set returns the same bits as the portable C
 * version, for every shape, tails included. Two rules give that: sums have one fixed order (below)
 * and nothing depends on how a caller cuts the work (rows of a product, tokens of a batch, heads).
 * So a token's bits never depend on which other tokens are computed with it.
 *
 * Order of sums in float32: SIXTEEN lanes; element i is added to lane i % 16 with fma in rising
 * i; the lanes are then added as a tree: l and l+8, l+4, l+2, l+1. Tails are padded with zeros.
 *
 * Matrix products take their activations prepared (kn_act), because a quantised product shares per
 * group work (sums, or 16-bit integers) between all rows and all matrices that read the same x.
 *
 * Pointers to weights may have any alignment: experts lie in slots as they lie in the file. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows with every change that moves a bit of any result: states that were computed otherwise are
 * not gone on with. */
enum { KN_ARITHMETIC = 5 };

/* --- instruction sets ----------------------------------------------------------------------- */

typedef enum kn_isa {
    KN_ISA_PORTABLE,
    KN_ISA_AVX2,
    KN_ISA_AVX2_VNNI, /* what the name "avx2" means where the CPU has AVX-VNNI */
    KN_ISA_AVX512,
    KN_ISA_NEON
} kn_isa;

const char *kn_isa_name(kn_isa isa);              /* as --isa takes it: both AVX2s are "avx2" */
bool kn_isa_parse(const char *name, kn_isa *out); /* "auto" gives the best one here */
bool kn_isa_available(kn_isa isa);                /* does this CPU have it? */
kn_isa kn_isa_best(void);

/* How activations are multiplied. */
typedef enum kn_precision {
    KN_PRECISION_F32,  /* activations stay float32 */
    KN_PRECISION_FAST, /* activations as integers a group, the same on every ISA; docs/FINDINGS.md
                        */
} kn_precision;

/* --- matrices ------------------------------------------------------------------------------- */

typedef enum kn_format {
    KN_F32,      /* w: float [rows][cols] */
    KN_F16,      /* w: IEEE half */
    KN_BF16,     /* w: bfloat16 */
    KN_AFFINE,   /* MLX affine, bits 2 3 4 5 6 8, group 32 64 128: value = scale * code + bias */
    KN_MXFP4,    /* E2M1 codes, E8M0 scale a group of 32 */
    KN_NVFP4,    /* E2M1 codes, E4M3 scale a group of 16 */
    KN_MXFP8,    /* E4M3 codes, E8M0 scale a group of 32 */
    KN_F8_BLOCK, /* E4M3, one float32 scale a 128x128 block (raw DeepSeek, MiniMax); scales: float
                    [ceil(rows/128)][ceil(cols/128)] */
} kn_format;

/* y = W x, W row-major [rows][cols]. Borrowed memory; layouts in docs of MLX quantisation: each
 * row's codes are one little-endian bit stream, lowest bit first; scales and biases are
 * [rows][cols / group]. */
typedef struct kn_mat {
    kn_format format;
    int bits, group;      /* KN_AFFINE and the floating modes; 0 otherwise */
    kn_format scale_type; /* KN_AFFINE: type of scales and biases: KN_F32, KN_F16 or KN_BF16 */
    int rows, cols;
    bool strips;            /* rows lie in strips (below) instead of one after another */
    size_t row_bytes;       /* distance from one row's codes to the next (row stride of w) */
    size_t scale_row_bytes; /* the same for scales and biases */
    const void *w, *scales, *biases; /* biases NULL where the format has none */
} kn_mat;

/* Bytes of one row of codes, and of one row of scales (= of biases), stored densely. */
size_t kn_row_bytes(kn_format format, int bits, int cols);
size_t kn_scale_row_bytes(kn_format format, kn_format scale_type, int group, int cols);

/* Strips: KN_STRIP_ROWS rows side by side, as products want to meet them. Of a strip's codes come
 * the first four bytes of each row, then the next four of each, and so on (of eight-bit codes the
 * even four of the first eight, then the odd four); of its scales, and of its biases, the first of
 * each row, then the second. Every strip takes as many bytes as its rows did, so it begins where
 * its first row would, at w + row * row_bytes. A product's row0 and row1 are multiples of
 * KN_STRIP_ROWS then. The bits of all results are the same. */
enum { KN_STRIP_ROWS = 16 };

/* Could it lie in strips? KN_AFFINE of four or eight bits, whole strips, dense rows of at most
 * 8192 bytes. */
bool kn_can_strip(const kn_mat *m);

/* Are products of these faster with strips? (Where they are not, they are slower.) */
bool kn_likes_strips(kn_isa isa, kn_precision precision);

/* Turn the rows of m into strips, in place: its memory must be writable. */
void kn_to_strips(kn_mat *m);

/* One row as float32 (embedding lookup, repacking, tests): out[cols]. */
void kn_dequant_row(const kn_mat *m, int row, float *out);

/* One row of floats as KN_AFFINE: shape gives bits, group, scale_type and cols (a multiple of
 * group). codes: kn_row_bytes, scales and biases: kn_scale_row_bytes. The codes are those of
 * mlx.core.quantize: made with the scale before it is rounded to scale_type. */
void kn_quantise_row(const float *x, const kn_mat *shape, void *codes, void *scales, void *biases);

/* --- activations ---------------------------------------------------------------------------- */

/* n vectors x of `cols` floats (stride floats apart), prepared for products with matrices of one
 * group size (the group of a KN_AFFINE matrix, 0 for all other formats; a mismatch is not wrong, it
 * computes in float32). Points into caller's scratch; x must stay alive too. */
typedef struct kn_act {
    const float *x;
    size_t stride;
    int n, cols, group;
    kn_precision precision;
    kn_isa isa;
    void *prepared;
} kn_act;

/* Scratch bytes that kn_act_prepare needs, at any group and precision. */
size_t kn_act_bytes(int n, int cols);

/* Tokens are independent: [t0, t1) may be prepared by different threads after kn_act_init. */
void kn_act_init(kn_act *a, kn_isa isa, const float *x, size_t stride, int n, int cols, int group,
                 kn_precision precision, void *scratch);
void kn_act_prepare(const kn_act *a, int t0, int t1);

/* y[t * y_stride + r] = row r of W . x_t, for r in [row0, row1), t in [t0, t1). Picks the
 * matrix-vector or the blocked matrix-matrix loop by t1 - t0; the bits are the same. */
void kn_matmul(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0, int row1,
               int t0, int t1);

/* A good number of rows a task: multiples of this keep cache lines and vector blocks whole. */
enum { KN_ROW_BLOCK = 32 };

/* --- vectors (float32, fixed order as above) -------------------------------------------------- */

float kn_dot(kn_isa isa, const float *a, const float *b, int n);
void kn_axpy(kn_isa isa, float *y, float a, const float *x, int n); /* y = fma(a, x, y) */
void kn_scale(kn_isa isa, float *y, float a, int n);
void kn_add(kn_isa isa, float *y, const float *x, int n);
void kn_mul(kn_isa isa, float *y, const float *x, int n);

/* y = w * x / sqrt(mean(x^2) + eps); w may be NULL (all ones). y may be x. */
void kn_rms_norm(kn_isa isa, float *y, const float *x, const float *w, int n, float eps);
void kn_layer_norm(kn_isa isa, float *y, const float *x, const float *w, const float *b, int n,
                   float eps);

/* Our own exp and what follows from it: one polynomial, fixed order, <= 2 ulp. */
float kn_expf(float x);
float kn_logf(float x);
float kn_sigmoidf(float x);
float kn_siluf(float x);
float kn_softplusf(float x);                  /* log(1 + exp(x)) */
void kn_softmax(kn_isa isa, float *x, int n); /* in place; max subtracted */
void kn_sigmoid(kn_isa isa, float *y, const float *x, int n);
void kn_silu_mul(kn_isa isa, float *y, const float *gate, const float *up, int n);
/* gpt-oss: (clip(up,-l,l)+1) * g * sigmoid(alpha*g), g = min(gate, l). */
void kn_swiglu_clamped(kn_isa isa, float *y, const float *gate, const float *up, int n, float alpha,
                       float limit);
void kn_gelu_mul(kn_isa isa, float *y, const float *gate, const float *up, int n); /* tanh form */

/* Rotate pairs of one head in place. Half layout: (i, i+dims/2); interleaved: (2i, 2i+1). cos and
 * sin: float[dims/2]. Only the first `dims` elements rotate. */
typedef enum kn_rope_layout { KN_ROPE_HALF, KN_ROPE_INTERLEAVED } kn_rope_layout;
void kn_rope(kn_isa isa, float *x, const float *cos, const float *sin, int dims,
             kn_rope_layout layout);

/* The k largest of n scores, in falling order; equal scores: the lower index first. NaN never
 * wins. k <= n. */
void kn_top_k(const float *scores, int n, int k, int *index);

/* --- attention -------------------------------------------------------------------------------- */

typedef enum kn_kv_type { KN_KV_F32, KN_KV_F16, KN_KV_I8 } kn_kv_type;

/* The cached keys, or values, of one head: position after position as rows, but KN_KV_I8 in tiles
 * of KN_KV_TILE positions, which keep their codes as the products of attention want to meet them
 * (body_attention.h), one float16 scale a position and 32 columns of keys, or 128 of values. So
 * memory for KN_KV_I8 is for whole tiles, and begins on a cache line. Positions may be stored by
 * several threads at once. */
enum { KN_KV_TILE = 32 };
typedef enum kn_kv_what { KN_KEYS, KN_VALUES } kn_kv_what;
typedef struct kn_kv {
    kn_kv_type type;
    kn_kv_what what;
    int dim;
    void *cache; /* position 0 */
} kn_kv;

size_t kn_kv_bytes(kn_kv_type type, int dim); /* of one position */
void kn_kv_store(kn_isa isa, const kn_kv *kv, int position, const float *src);
void kn_kv_load(kn_isa isa, const kn_kv *kv, int position, float *dst);

/* One query of one head over cached positions [begin, end): out[v_dim] = softmax(scale * q.k +
 * sink?) v, online softmax in blocks cut at ABSOLUTE positions (multiples of KN_ATT_BLOCK; of twice
 * as many over KN_KV_I8, whose products are of integers), so the bits depend on the positions
 * alone. Positions take `k_stride` / `v_stride` bytes each. sink: an extra logit that takes part in
 * the denominator only (NULL: none). MLA passes the latent, cached as keys, as both k and v. k_dim
 * may exceed v_dim; both at most KN_ATT_MAX_DIM. */
enum { KN_ATT_BLOCK = 64, KN_ATT_MAX_DIM = 1024 };
typedef struct kn_attention {
    kn_kv_type type;
    const void *k, *v;
    size_t k_stride, v_stride;
    int k_dim, v_dim;
    int begin, end;
    float scale;
    const float *sink;
} kn_attention;
void kn_attend(kn_isa isa, float *out, const float *q, const kn_attention *a);

/* The n query heads that share this KV head (and the same [begin, end)): the cache is read once.
 * q: [n][k_dim] q_stride floats apart, out: [n][v_dim] out_stride floats apart; a->sink, where
 * given, holds n logits. The same bits as n calls of kn_attend. */
void kn_attend_group(kn_isa isa, float *out, size_t out_stride, const float *q, size_t q_stride,
                     int n, const kn_attention *a);

/* The same in parts, for several threads: each part of KN_ATT_PART positions, cut at absolute ones,
 * has an online softmax of its own, and parts are joined in rising order, here as in
 * kn_attend_group. kn_attend_part gives the weighted sum of values, not divided by soft->sum; it
 * does nothing and returns false where [begin, end) has no position of the part. */
enum { KN_ATT_PART = 2048 };
typedef struct kn_softmax_state {
    float max, sum; /* the highest score so far, and the sum of exp(score - max) */
} kn_softmax_state;
bool kn_attend_part(kn_isa isa, int part, float *out, size_t out_stride, kn_softmax_state *soft,
                    const float *q, size_t q_stride, int n, const kn_attention *a);

/* out[v_dim] of one head from its parts in [begin, end), which are `apart` floats apart; part p has
 * its softmax at soft[p * soft_apart]. */
void kn_attend_join(kn_isa isa, float *out, const float *parts, size_t apart,
                    const kn_softmax_state *soft, size_t soft_apart, const kn_attention *a);

/* --- recurrences: one token a call, prefill calls it token after token ------------------------ */

/* Causal depthwise convolution of width kc over channels [c0, c1), then silu. state holds the last
 * kc-1 inputs as [kc-1][channels], oldest first, and is moved on. w: [channels][kc]; bias may be
 * NULL. in and out: [channels]. */
void kn_conv_step(kn_isa isa, float *out, const float *in, float *state, const float *w,
                  const float *bias, int channels, int kc, int c0, int c1);

/* Gated delta rule, one value head: S[dv][dk] <- decay S; d = (v - S k) beta; S += d k^T; out = S
 * q. q and k are already normalised and scaled. */
void kn_delta_step(kn_isa isa, float *out, float *S, const float *q, const float *k, const float *v,
                   float decay, float beta, int dk, int dv);

/* Mamba-1, channels [c0, c1): S[di][ds] <- exp(dt_d A[d]) S + dt_d x_d B; out_d = S_d.C + D_d x_d.
 * A is -exp(A_log), [di][ds]. */
void kn_mamba1_step(kn_isa isa, float *out, float *S, const float *x, const float *dt,
                    const float *A, const float *B, const float *C, const float *D, int ds, int c0,
                    int c1);

/* Mamba-2, one head: S[dh][n] <- decay S + dt x B^T; out = S C + D x. */
void kn_mamba2_step(kn_isa isa, float *out, float *S, const float *x, const float *B,
                    const float *C, float decay, float dt, float D, int dh, int n);

#endif
