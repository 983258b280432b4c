/* inside.h - what the files of this room share: the model, a sequence's state, a run's scratch. */
#ifndef MODEL_INSIDE_H
#define MODEL_INSIDE_H

#include "experts/pack.h"
#include "model/config.h"
#include "model/model.h"
#include "model/schema.h"

/* --- the model -------------------------------------------------------------------------------- */

/* Resident weights of one layer, or of no layer (embedding, head, final norm). A matrix that does
 * not exist has no rows; a bias or vector that does not exist is NULL. */
typedef struct md_weights {
    kn_mat mat[MD_N_MATS];
    const float *bias[MD_N_MATS];
    const float *vec[MD_N_VECS];
} md_weights;

typedef struct md_layer {
    md_weights w;
    const md_layer_config *c;
    int moe_layer;           /* index in the expert source, -1: dense */
    bool transposed;         /* experts are stored [in][out], gate and up side by side */
    size_t recurrent_offset; /* floats, into a state's recurrent part */
    size_t recurrent_floats;
    size_t conv_floats;      /* of these, the convolution's inputs come first */
    size_t kv_offset;        /* bytes a token of the layers before */
    size_t k_bytes, v_bytes; /* of one head and token; v 0: MLA, one shared row */
    int kv_heads;
} md_layer;

/* Where a resident spec's bytes come from and go to. */
typedef struct md_binding {
    const md_spec *spec;
    ts_matrix m;                 /* matrices */
    const ts_tensor *bias, *vec; /* float tensors */
    size_t offset, bytes;        /* in the arena */
    size_t codes, scales;        /* a matrix's room in there: codes, scales, biases, bias */
    size_t floats;               /* of the bias or the vector */
} md_binding;

enum { MD_MAX_NOTES = 8 };

struct md_model {
    md_options options;
    md_arch config;
    json_t *json;
    char *path; /* of config.json */
    ts_store *store;
    md_layout layout;
    md_schema schema;
    md_info info;
    md_weights globals;
    md_layer *layers;
    md_binding *bindings;
    size_t n_bindings;
    unsigned char *arena;
    size_t arena_bytes;
    bool loaded;
    xp_source source;
    xp_layer *expert_layers;
    xp_pack *pack;          /* the source, when the checkpoint itself holds no experts */
    const ts_tensor **used; /* tensors that the model reads, for the notes */
    size_t n_used, used_capacity;
    char *notes[MD_MAX_NOTES + 1];
    int n_notes;
    double *frequencies;               /* rope: [dims / 2] */
    size_t recurrent_floats, kv_bytes; /* of a state; a token */
};

fm_status md_use_tensor(md_model *m, const ts_tensor *t, fm_error *err);

/* layout.c: decide the layout by the names in the store. */
fm_status md_find_layout(md_model *m, fm_error *err);

/* bind.c: find every tensor of the schema; sizes and places, no weights. */
fm_status md_bind(md_model *m, fm_error *err);

/* expert_bias.c: the Linear biases of the experts, resident as [E][rows]. */
fm_status md_bind_expert_bias(md_model *m, md_binding *b, fm_error *err);
fm_status md_load_expert_bias(md_model *m, const md_binding *b, float *dst, fm_error *err);

/* expert_source.c: where each expert's bytes are, for every layout. */
fm_status md_build_expert_source(md_model *m, fm_error *err);
void md_free_expert_source(md_model *m);

/* standalone.c: a folder whose experts lie in its packed store alone. */
fm_status md_use_packed_experts(md_model *m, fm_error *err);

/* attend.c: floats of one part of the positions, all heads of a layer. */
size_t md_part_floats(const md_arch *c);

/* state.c: sizes and offsets of every layer's state. */
void md_plan_state(md_model *m);

/* --- a sequence ------------------------------------------------------------------------------- */

struct md_state {
    const md_model *model;
    int context, length;
    size_t rows;           /* positions that there is room for: whole tiles */
    unsigned char *memory; /* recurrent floats first, then the caches layer after layer */
    size_t bytes;
    unsigned char *kv;
    float *parts; /* sums of attention in parts: attend.c */
    size_t part_floats;
};

static inline float *md_recurrent(const md_state *s, const md_layer *l)
{
    return (float *)s->memory + l->recurrent_offset;
}

/* Position 0 of a head's cached keys or values. */
static inline unsigned char *md_keys(const md_state *s, const md_layer *l, int head)
{
    return s->kv + (l->kv_offset + (size_t)head * l->k_bytes) * s->rows;
}

static inline unsigned char *md_values(const md_state *s, const md_layer *l, int head)
{
    if (!l->v_bytes) return md_keys(s, l, head);
    size_t before = l->kv_offset + (size_t)l->kv_heads * l->k_bytes + (size_t)head * l->v_bytes;
    return s->kv + before * s->rows;
}

/* --- a run ------------------------------------------------------------------------------------ */

/* Tokens of one sequence that stand together in the batch. */
typedef struct md_segment {
    md_state *state;
    int first, count; /* tokens [first, first + count) of the batch */
    int position;     /* of the first one */
} md_segment;

/* A piece of a product job; see product.h. */
typedef struct md_item md_item;

/* y = W^T x for a matrix stored [in][out], columns [first, first + n_out) of it. */
typedef struct md_transposed {
    const kn_mat *w;
    int first, n_out, n; /* n: vectors */
    const float *x;      /* [n][w->rows] x_stride apart */
    float *y;            /* [n][n_out] y_stride apart */
    size_t x_stride, y_stride;
} md_transposed;

struct md_run {
    const md_model *model;
    xp_cache *experts;
    bs_pool *pool;
    kn_isa isa;
    int max_tokens, max_logits, threads;
    md_route_fn *watch;
    void *watch_arg;
    bool router_only;
    md_mass mass;

    unsigned char *memory;
    size_t bytes;

    /* the batch at hand */
    int n;
    md_segment *segments;
    int n_segments;
    int *position;    /* [n] */
    int *segment_of;  /* [n] */
    float *cos, *sin; /* [n][dims / 2] */

    float *x;         /* [n][hidden] residual stream */
    float *h;         /* [n][hidden] normed */
    float *y;         /* [n][hidden] a block's output */
    float *kv_shared; /* [n][2 kv width]: projections that later layers reuse (CLA), or NULL */
    float *work;      /* [n][work_width] the mixer's and dense MLP's own */
    size_t work_width;
    float *private_; /* [threads][private_width] of one worker */
    size_t private_width;
    void *act; /* scratch of prepared activations, two of them */
    size_t act_bytes;
    md_item *items;
    md_transposed *transposed; /* [2 E], where a layer has such experts */
    int max_items;

    /* experts */
    float *scores;                         /* [n][E] */
    int *picks;                            /* [n][k]; -1: this rank is left out */
    float *weights;                        /* [n][k] */
    int *place;                            /* [n][k] row of `outputs` */
    int *order;                            /* [n k] pairs t * k + rank, sorted by expert */
    int *first_of;                         /* [E + 1] where an expert's pairs begin in order */
    int *chosen;                           /* [E] the distinct experts */
    int *chosen_count;                     /* [E] */
    int *ready;                            /* [E] tickets that are computed together */
    xp_ticket *tickets;                    /* [2][E] */
    float *gathered;                       /* [bundle_rows][hidden] */
    float *expert_hidden, *expert_scratch; /* [bundle_rows][I] */
    float *outputs;                        /* [n k][hidden] */
    float *shared_hidden, *shared_scratch; /* [n][Is] */
    float *shared_switch;                  /* [n][1 or 2] */
    float *shared_out;                     /* [n][hidden] */
    int bundle_rows;
};

/* Run fn over tokens, on the pool when there is enough work to share. */
void md_for_tokens(md_run *r, bs_task *fn, void *arg, int n, size_t work_each);

/* h = norm(x) for all tokens of the batch. */
void md_norm_tokens(md_run *r, const md_weights *w, md_vec weight, md_vec bias, const float *x,
                    float *h);

/* Mixers: r->h in, r->y out. mlp and moe: the same. */
void md_attention(md_run *r, int layer);
void md_mla(md_run *r, int layer);
void md_deltanet(md_run *r, int layer);
bool md_deltanet_is_exact(const md_arch *c, md_mat part); /* md_product.exact, of its layers */
void md_mamba1(md_run *r, int layer);
void md_mamba2(md_run *r, int layer);
void md_dense_mlp(md_run *r, int layer);
fm_status md_moe(md_run *r, int layer, fm_error *err);

/* One job for all items. */
void md_run_transposed(md_run *r, const md_transposed *items, int n);

/* Floats a token, and a worker, that each block wants of r->work and r->private_. */
size_t md_attention_work(const md_arch *c);
size_t md_mla_work(const md_arch *c);
size_t md_deltanet_work(const md_arch *c);
size_t md_mamba_work(const md_arch *c);
size_t md_mla_private(const md_arch *c);

/* One token's scores [E] of a router, overwritten, become k experts in falling order of choice
 * and their weights. bias: [E] or NULL; scratch: [2 E]. */
void md_route(kn_isa isa, const md_router *router, float *scores, const float *bias, int n_experts,
              int k, float *scratch, int *experts, float *weights);

/* Causal convolution and silu over all tokens of the batch: in and out are `stride` apart. */
void md_convolve(md_run *r, int layer, const float *in, float *out, size_t stride, int channels);

#endif
