/* model.h - a checkpoint as a function: tokens in, logits out.
 *
 * A family is data (families/): names, switches, constants. The forward pass is written once from
 * blocks. Promise: the logits of a token depend on the weights, the precision and the tokens before
 * it in its own sequence, on nothing else: not on the batch it is computed in, how a prompt is cut
 * into chunks, the number of threads, the ISA, or which experts were in memory. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/error.h"
#include "base/pool.h"
#include "experts/experts.h"
#include "kernels/kernels.h"
#include "tensors/tensors.h"

typedef struct md_model md_model;
typedef struct md_state md_state;

typedef struct md_options {
    kn_isa isa;
    kn_precision precision;
    kn_kv_type kv_type;
    bool mlx_router; /* route as mlx-lm where it differs from Hugging Face (Hunyuan, Jamba, PhiMoE)
                      */
} md_options;

/* What the planner, `inspect` and the statistics want to know. All byte figures are exact. */
typedef struct md_info {
    char family[32];            /* model_type after renaming */
    int n_layers, n_moe_layers; /* all, and those with routed experts */
    int hidden, vocab, n_experts, top_k;
    int max_context;            /* max_position_embeddings */
    uint64_t resident_bytes;    /* memory for all weights that are not routed experts */
    uint64_t decode_read_bytes; /* resident bytes one decode step touches (embedding: one row) */
    uint64_t expert_bytes;      /* one routed expert, largest layer, stored densely */
    uint64_t experts_bytes;     /* all of them */
    uint64_t kv_bytes_per_token;
    uint64_t fixed_state_bytes; /* recurrent state of a sequence */
} md_info;

/* Read config.json and the table of contents; reads no weight. Errors name the field or tensor. */
fm_status md_open(const char *dir, const md_options *options, md_model **out, fm_error *err);

/* From a config.json alone (no checkpoint): md_describe works, md_load does not. */
fm_status md_open_config(const char *config_path, const md_options *options, md_model **out,
                         fm_error *err);
void md_close(md_model *model);

/* Read the resident weights into own memory. progress may be NULL. */
typedef void md_progress_fn(void *arg, uint64_t done, uint64_t total);
fm_status md_load(md_model *model, md_progress_fn *progress, void *arg, fm_error *err);

const md_info *md_describe(const md_model *model);
const xp_source *md_expert_source(const md_model *model); /* NULL without a checkpoint */
/* The number in the transformer of MoE layer i. */
int md_moe_layer(const md_model *model, int i);
const ts_store *md_store(const md_model *model);
const json_t *md_config(const md_model *model);

/* Warnings of loading worth a line on stderr: skipped tensors (vision tower, MTP). NULL at end. */
const char *md_note(const md_model *model, int i);

/* --- a sequence ------------------------------------------------------------------------------- */

/* State for up to `context` tokens: KV caches, recurrent states. Memory is taken at once. */
uint64_t md_state_bytes(const md_model *model, int context);
fm_status md_state_create(const md_model *model, int context, md_state **out, fm_error *err);
void md_state_destroy(md_state *state);
int md_state_length(const md_state *state);  /* tokens it has seen */
int md_state_context(const md_state *state); /* tokens it can hold */
void md_state_reset(md_state *state);

/* Forget all tokens from `length` on; false when there are not so many, or a recurrent layer makes
 * that impossible (use a snapshot): then nothing changed. */
bool md_state_truncate(md_state *state, int length);

/* What cannot be recomputed from a KV cache cut to its length: the recurrent states. Size is 0 for
 * pure attention models. A snapshot taken at length n lets a state whose first n tokens are the
 * same go back to n. */
uint64_t md_snapshot_bytes(const md_model *model);
void md_snapshot_take(const md_state *state, void *out);
void md_snapshot_restore(md_state *state, int length, const void *snapshot);

/* dst becomes a copy of the first `length` tokens of src; for a recurrent model length must be all
 * of src or come with the snapshot taken there (else NULL). */
fm_status md_state_copy(md_state *dst, const md_state *src, int length, const void *snapshot,
                        fm_error *err);

/* Bytes that must cross the memory bus, whatever the program does. Of a sequence whose next token
 * has this position: the recurrent states, read and written back, the cached rows in the window of
 * each attention layer, read, and the token's own row, written. Of a decode pass: the resident
 * weights once, each of its distinct experts once, and its sequences' traffic. */
uint64_t md_state_traffic(const md_model *model, int position);
uint64_t md_pass_traffic(const md_model *model, uint64_t experts, uint64_t states);

/* The KV cache of the first `tokens` positions as bytes, to save and to put back: the sequence has
 * that length then. A recurrent model's state has to be restored besides. */
uint64_t md_kv_bytes(const md_model *model, int tokens);
void md_kv_export(const md_state *state, int tokens, void *out);
void md_kv_import(md_state *state, int tokens, const void *in);

/* --- forward ---------------------------------------------------------------------------------- */

typedef struct md_token {
    int32_t id;
    md_state *state;  /* tokens of one state stand together and in order; it advances by them */
    bool want_logits; /* else the last layer computes what later tokens need of it, no more */
} md_token;

/* What the router chose, a token and MoE layer: may be watched (trace, profile; then no token is
 * left out of the last layer) and, for replays, changed. experts and weights: [top_k]. */
typedef void md_route_fn(void *arg, int moe_layer, int token, int *experts, float *weights,
                         int top_k);

typedef struct md_run md_run; /* scratch for batches of up to max_tokens */

uint64_t md_run_bytes(const md_model *model, int max_tokens, int max_logits);
fm_status md_run_create(const md_model *model, xp_cache *experts, bs_pool *pool, int max_tokens,
                        int max_logits, md_run **out, fm_error *err);
void md_run_destroy(md_run *run);
void md_run_watch_routes(md_run *run, md_route_fn *fn, void *arg);

/* Compute routers and shared experts only, no routed expert: fast, WRONG text, for finding out
 * which experts a prompt is likely to want (the seed's router-only discovery). */
void md_run_router_only(md_run *run, bool on);

/* Router weight that was to be applied, and the part of it that was not because the expert was
 * missing from a fixed resident set (experts/fixed.h); with XP_FIXED_SKIP the others of the token
 * are scaled up so that their sum stays. Since md_run_create. dropped is 0 in exact runs. */
typedef struct md_mass {
    double routed, dropped;
    uint64_t picks, dropped_picks;
} md_mass;
void md_run_mass(const md_run *run, md_mass *out);

/* One forward step over n tokens of any number of sequences (prefill chunks and decode tokens
 * together). logits: [number of want_logits][vocab], in order of the tokens. On error every state
 * of the batch is left as it was before the call where that is possible, and is reset otherwise
 * (recurrent layers); the message says so. NaN logits are FM_E_NUMERIC. `prefill` is passed to the
 * expert cache. */
fm_status md_forward(md_run *run, const md_token *tokens, int n, bool prefill, float *logits,
                     fm_error *err);

#endif
