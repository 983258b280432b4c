/* synth.h - inside the verb synth: what is written (synth_plan.c) and with which values
 * (synth_fill.c). Any row of any tensor can be made by itself, from the seed and the tensor's
 * name, so nothing is ever held. */
#ifndef CLI_SYNTH_H
#define CLI_SYNTH_H

#include "model/schema.h"
#include "tensors/tensors.h"

typedef enum sy_part { SY_CODES, SY_SCALES, SY_BIASES, SY_BIAS, SY_VECTOR } sy_part;

/* One tensor of the checkpoint: a part of a schema entry. Its rows are numbered through, expert e
 * of a stacked matrix from e * rows on. */
typedef struct sy_tensor {
    const md_spec *spec;
    sy_part part;
    kn_mat format; /* of the matrix it belongs to */
    ts_type type;
    int n_dims;
    int64_t shape[4];
    uint64_t row_bytes, rows;
    int shard;
} sy_tensor;

typedef struct sy_plan {
    json_t *config; /* as it will be written */
    md_arch arch;
    md_schema schema;
    sy_tensor *tensor;
    size_t n, capacity;
    int n_shards;
    uint64_t bytes;        /* of all tensors */
    uint64_t expert_bytes; /* of these, in the packed store */
    uint64_t seed;
    double skew;
    bool packed;
    float *common; /* [hidden]: the direction all embeddings share */
} sy_plan;

typedef struct sy_request {
    const char *path; /* of config.json */
    int layers;       /* 0: as in the config */
    int bits, group;  /* 0: as in the config */
    const char *mode; /* NULL: as in the config */
    uint64_t seed;
    double skew; /* share of the router's input that is the same for all tokens, 0 to below 1 */
    bool packed; /* experts go into a packed store */
} sy_request;

fm_status sy_plan_make(const sy_request *r, sy_plan *out, fm_error *err);
void sy_plan_free(sy_plan *p);

/* The parts of one schema entry: returns how many were put into out[4]. */
int sy_parts_of(const sy_plan *p, const md_spec *spec, sy_tensor out[4]);

/* "model.layers.0.mlp.gate.scales"; allocated. */
char *sy_name(const sy_tensor *t);

/* Rows [row, row + n) of the tensor into dst, n * row_bytes bytes. */
void sy_fill(const sy_plan *p, const sy_tensor *t, uint64_t row, uint64_t n, void *dst);

/* The common direction; NULL when out of memory. */
float *sy_common_direction(uint64_t seed, int hidden);

#endif
