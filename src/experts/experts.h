/* experts.h - where experts live, how they are read, which stay in memory.
 *
 * The model sees five calls: xp_acquire, xp_ready, xp_wait, xp_release, xp_hint. It knows nothing
 * of files or slots; this room knows nothing of the arithmetic. Promises:
 *   - a missing expert is read, never skipped, never replaced: what xp_acquire gave a ticket for
 *     either becomes usable, bit for bit as in the file, or the call fails with the file's name;
 *   - the memory taken is fixed at xp_open and never exceeded;
 *   - a demand read goes before every hinted one; an expert in use is never evicted;
 *   - nothing relies on the page cache (O_DIRECT where the file system takes it; xp_stats says).
 * All calls come from one thread at a time (the engine's); reads run in threads of this room. */
#ifndef EXPERTS_EXPERTS_H
#define EXPERTS_EXPERTS_H

#include "base/error.h"
#include "base/pool.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdint.h>

/* --- where the bytes are: made by the model from the checkpoint's names ---------------------- */

enum { XP_GATE, XP_UP, XP_DOWN, XP_PROJECTIONS };           /* order in a record: order of use */
enum { XP_CODES, XP_SCALES, XP_BIASES, XP_BIAS, XP_PARTS }; /* XP_BIAS: the Linear bias [rows] */

typedef struct xp_range {
    int file;
    uint64_t offset;
} xp_range;

/* One part of one projection for all experts of a layer: expert e's bytes are at
 * offset + e * stride of `file`, or at each[e] when `each` is set (one tensor an expert). */
typedef struct xp_part {
    int file;
    uint64_t offset, stride;
    const xp_range *each;
    size_t bytes; /* 0: the part does not exist */
} xp_part;

typedef struct xp_layer {
    int n_experts, top_k;
    kn_mat shape[XP_PROJECTIONS]; /* pointers NULL; row strides as in the file */
    kn_format bias_type;          /* of XP_BIAS */
    xp_part part[XP_PROJECTIONS][XP_PARTS];
} xp_layer;

/* MoE layers are numbered 0..n_layers-1 here, dense layers not counted. All borrowed from the
 * model, which outlives the cache. */
typedef struct xp_source {
    int n_layers;
    const xp_layer *layers;
    int n_files;
    const char *const *paths;
    const uint64_t *file_bytes;
} xp_source;

/* One expert in memory, valid between acquire and release. bias[p] is NULL or float32 [rows]. */
typedef struct xp_expert {
    kn_mat m[XP_PROJECTIONS];
    const float *bias[XP_PROJECTIONS];
} xp_expert;

/* --- opening ---------------------------------------------------------------------------------- */

typedef enum xp_policy { XP_LFRU, XP_LRU, XP_LCP } xp_policy;
typedef enum xp_io { XP_IO_AUTO, XP_IO_URING, XP_IO_PREAD } xp_io;

typedef struct xp_options {
    uint64_t slot_bytes; /* memory for slots in all; used when capacity < 0 */
    int capacity; /* slots a layer, fixed; 0: read every time (the seed's lazy); -1: automatic */
    xp_policy policy;
    xp_io io;
    bool buffered;          /* through the page cache instead of O_DIRECT */
    int prefetch;           /* hinted experts a layer at most; 0 or less: off */
    bool prefetch_may_stop; /* stop by itself when it reads more for nothing than it saves */
    int io_threads;         /* 0: the default, or what `tune` stored */
    const char *pack_dir;   /* a packed store to read instead of the original files, or NULL */
    bool lock;              /* mlock the slots */
    bs_pool *pool;          /* checks packed records with the caller, between its jobs; or NULL */
} xp_options;

typedef struct xp_cache xp_cache;

/* Bytes of one slot of a layer (codes, scales, biases, padding for direct reads), and the least
 * slot memory with which one token of every layer can run. */
uint64_t xp_slot_bytes(const xp_source *source, int layer, const xp_options *options);
uint64_t xp_floor_bytes(const xp_source *source, const xp_options *options);

fm_status xp_open(const xp_source *source, const xp_options *options, xp_cache **out,
                  fm_error *err);
void xp_close(xp_cache *cache);

/* --- the five calls ------------------------------------------------------------------------- */

typedef struct xp_ticket {
    int layer, expert;
    int slot;       /* of this room */
    bool hit;       /* was resident when asked for */
    bool missing;   /* fixed set only (fixed.h): not resident, will not be read */
    bool taken;     /* xp_ready or xp_wait has handed it out */
    xp_expert view; /* valid once taken */
} xp_ticket;

/* How many distinct experts of a layer may be held by tickets at once. A caller with more (a
 * prefill chunk) works in waves; half of this per wave leaves room to read the next wave ahead. */
int xp_max_held(const xp_cache *cache, int layer);

/* From how many prompt tokens on a step is a prefill to the cache. */
enum { XP_PREFILL_FROM = 16 };

/* A forward step begins: `tokens` tokens advance the policies' clock; prefill says that what is
 * read now must not flush the decode set. */
void xp_begin_step(xp_cache *cache, int tokens, bool prefill);

/* Put experts that are in memory first, otherwise keeping the order; picks (may be NULL) moves
 * along. A caller that works in waves calls it once before the first: what is there is then used
 * before later waves can evict it. */
void xp_order(const xp_cache *cache, int layer, int *experts, int *picks, int n);

/* Ask for n distinct experts of a layer; picks[i] says how many tokens of the step chose
 * experts[i] (for the policies' counts; NULL: one each). Hits are usable at once, misses are
 * submitted. Fills n tickets. On error nothing is held. */
fm_status xp_acquire(xp_cache *cache, int layer, const int *experts, const int *picks, int n,
                     xp_ticket *tickets, fm_error *err);

/* The index of a ticket that can be computed now and was not handed out yet, or -1. */
int xp_ready(xp_cache *cache, xp_ticket *tickets, int n);

/* The same, waiting for a read if none is ready. -1 in *index when all were handed out. A failed
 * read is reported here. */
fm_status xp_wait(xp_cache *cache, xp_ticket *tickets, int n, int *index, fm_error *err);

/* Give all tickets back; reads still flying are finished or dropped first. */
void xp_release(xp_cache *cache, xp_ticket *tickets, int n);

/* Experts that the layer will probably want, best first. They are read once no demanded read is
 * left, and taken back when the layer has its picks before they were started. May do nothing. */
void xp_hint(xp_cache *cache, int layer, const int *experts, int n);
bool xp_wants_hints(const xp_cache *cache);

bool xp_is_resident(const xp_cache *cache, int layer, int expert);
bool xp_is_coming(const xp_cache *cache, int layer, int expert); /* its read is under way */

/* --- statistics ------------------------------------------------------------------------------- */

typedef struct xp_stats {
    uint64_t hits, misses; /* distinct experts asked for a step and layer */
    uint64_t prefetch_useful, prefetch_wasted;
    uint64_t bytes_read, reads; /* from the files, all of it: demand, hints, padding */
    uint64_t exposed_ns;        /* time xp_wait stood still */
    uint64_t slot_bytes;        /* memory held for slots */
    int slots;
    int shrunk_slots; /* given back because memory ran short (pressure.h) */
    bool direct_io;
    xp_io io;
    xp_policy policy;
} xp_stats;

void xp_get_stats(const xp_cache *cache, xp_stats *out);

#endif
