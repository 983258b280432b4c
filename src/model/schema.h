/* schema.h - every tensor a configuration has, said once.
 *
 * md_schema_build walks the layers of a config and lists each tensor of the converted (MLX) layout:
 * its name, shape, role, whether the converter may quantise it and to how many bits. The loader
 * binds by this list, md_open_config counts bytes by it, `inspect` prints it and `synth` writes it:
 *
 *     md_schema s;
 *     status = md_schema_build(config, md_layout_of(config), &s, err);
 *     for (size_t i = 0; i < s.n; i++) ... s.spec[i] ...
 *     md_schema_free(&s);
 *
 * A matrix is the tensor NAME.weight [rows][cols], with NAME.scales and NAME.biases when quantised
 * and NAME.bias [rows] when `bias`; stacked ones (count > 1) have a first dimension count. A vector
 * is the float tensor NAME of exactly that shape. */
#ifndef MODEL_SCHEMA_H
#define MODEL_SCHEMA_H

#include "experts/experts.h"
#include "model/config.h"
#include "model/model.h"

/* Matrices. The first ones belong to no layer. */
typedef enum md_mat {
    MD_EMBED,
    MD_HEAD,
    MD_Q,
    MD_Q_GATE,
    MD_K,
    MD_V,
    MD_O, /* attention */
    MD_Q_A,
    MD_Q_B,
    MD_KV_A,
    MD_KV_B,
    MD_EMBED_Q,
    MD_UNEMBED, /* MLA; MD_Q without q_lora */
    MD_DN_QKV,
    MD_DN_Z,
    MD_DN_B,
    MD_DN_A, /* delta net; out is MD_O */
    MD_SSM_IN,
    MD_SSM_X,
    MD_SSM_DT, /* Mamba; out is MD_O */
    MD_ROUTER,
    MD_SHARED_GATE,
    MD_SHARED_UP,
    MD_SHARED_DOWN,
    MD_SHARED_SWITCH,
    MD_DENSE_GATE,
    MD_DENSE_UP,
    MD_DENSE_DOWN,
    MD_EXPERT_GATE,
    MD_EXPERT_UP,
    MD_EXPERT_DOWN, /* streamed, never resident */
    MD_N_MATS,
} md_mat;

/* Float vectors (and small float tensors). */
typedef enum md_vec {
    MD_IN_NORM,
    MD_IN_NORM_BIAS,
    MD_POST_NORM,
    MD_POST_NORM_BIAS, /* final norm: IN_NORM, layer -1 */
    MD_Q_NORM,
    MD_K_NORM,
    MD_Q_A_NORM,
    MD_KV_A_NORM,
    MD_SINKS,
    MD_CONV,
    MD_CONV_BIAS,
    MD_A_LOG,
    MD_DT_BIAS,
    MD_D,
    MD_MIX_NORM,
    MD_DT_NORM,
    MD_B_NORM,
    MD_C_NORM,
    MD_ROUTER_BIAS,
    MD_N_VECS,
} md_vec;

typedef enum md_kind { MD_MATRIX, MD_VECTOR, MD_EXPERTS } md_kind;

/* Row orders that the loader undoes, so that the forward pass knows one. */
typedef enum md_order {
    MD_ORDER_PLAIN,
    MD_ORDER_QUERY_GATE, /* a head: its query, its gate */
    MD_ORDER_QKVZ,       /* a key head: q, k, its value heads' v, their z */
    MD_ORDER_BA,         /* a key head: its value heads' b, their a */
} md_order;

/* Bits that the converter gives a matrix by default. */
enum { MD_BITS_NEVER = 0, MD_BITS_GLOBAL = -1 }; /* else 8, at group 64 */

typedef struct md_spec {
    char *name;
    md_kind kind;
    int layer, moe_layer; /* -1: none */
    int64_t count;        /* stacked matrices; 0: a plain one */
    int rows, cols;       /* vector: shape is [rows], or [rows][cols] with cols > 0 */
    bool conv;            /* vector of shape [rows][cols][1] */
    int bits;
    bool bias;      /* NAME.bias goes with it */
    bool optional;  /* may be absent */
    bool keeps_f32; /* the converter leaves it float32 */
    bool plus_one;  /* a raw checkpoint stores w - 1 */
    md_order order;
    int n_parts;
    md_mat part[3]; /* which matrices its rows become, in this order, after un-ordering */
    int part_rows[3];
    md_vec vec;
} md_spec;

typedef struct md_schema {
    md_spec *spec;
    size_t n, capacity;
} md_schema;

/* What the files decide, not the config. */
typedef struct md_layout {
    const char *prefix, *head; /* "model." and "lm_head" or longer */
    bool kv_b;                 /* MLA: kv_b_proj whole instead of embed_q and unembed_out */
    bool tied;                 /* logits use the embedding */
    bool raw_norms;            /* norms of plus_one specs are stored as w - 1 */
    const char *router;        /* of the alternatives a family names */
    int router_length;
} md_layout;

/* The layout that the converter writes. */
md_layout md_layout_of(const md_arch *c);

fm_status md_schema_build(const md_arch *c, md_layout layout, md_schema *out, fm_error *err);
void md_schema_free(md_schema *s);

/* Which stored row is row i of the un-ordered matrix. */
int md_source_row(const md_arch *c, md_order order, int i);

/* Bits, group sizes and modes of config.json's quantization are values that exist. */
fm_status md_check_quantisation(const json_t *config, const char *path, fm_error *err);

/* How a quantised or float tensor is stored, told by config.json alone: the format, bits and group
 * for a spec's matrix. `quantization` with its overrides counts, as in a converted checkpoint;
 * without it torch_dtype does. */
kn_mat md_planned_format(const json_t *config, const md_spec *spec);

/* Of an opened model: what it is made of, and how an entry of its schema is stored (as found in the
 * files; without a checkpoint as planned). */
const md_arch *md_arch_of(const md_model *model);
const md_schema *md_schema_of(const md_model *model);
kn_mat md_stored_format(const md_model *model, const md_spec *spec);

/* The experts of MoE layer `moe_layer` as the config plans them: shapes and sizes of all parts, in
 * no file (-1). Linear biases are resident and no part of them. `synth --packed` writes by it. */
void md_planned_experts(const md_arch *c, const md_schema *s, const json_t *config, int moe_layer,
                        xp_layer *out);

/* Bytes of the spec's weights as stored: codes, scales, biases, bias. */
uint64_t md_stored_bytes(const md_spec *spec, const kn_mat *format, size_t float_bytes);

#endif
