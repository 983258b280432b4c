/* cache.h - the inside of an xp_cache, shared by cache.c, open.c, fill.c and fixed.c. */
#ifndef EXPERTS_CACHE_H
#define EXPERTS_CACHE_H

#include "experts/fixed.h"
#include "experts/pack.h"
#include "experts/pressure.h"
#include "experts/reader.h"
#include "experts/residency.h"

enum { XP_MAX_GUESSES = 32, XP_MAX_FILLS = 4, XP_MAX_JOBS = 256 };

/* A slot is empty (the residency knows), flying (job), loaded, or failed (none of these: its read
 * went wrong and a ticket still holds it). */
typedef struct xp_slot {
    char *memory;
    size_t bytes;
    xp_job *job;
    bool loaded;
    bool touched; /* its memory was read into before: the kernel has given it pages */
    bool guess;   /* read because of a hint, not asked for yet */
} xp_slot;

/* Experts of a layer to be read into empty slots when no demand waits (xp_preload). */
typedef struct xp_fill_list {
    int *experts; /* [n], of which those before `next` are done with */
    int n, next, capacity;
} xp_fill_list;

typedef struct xp_fills {
    xp_fill_list *lists;      /* [n_layers]; NULL before anything was wanted */
    int left;                 /* in all lists */
    int flying[XP_MAX_FILLS]; /* slots being read */
    int n_flying;
} xp_fills;

/* What the fixed set missed since the last refresh: picks an expert, [n_layers][most]. */
typedef struct xp_wanted {
    xp_fixed fixed;
    uint32_t *picks;
    int most;      /* experts of the largest layer */
    int *stand_in; /* [n_layers] resident expert shown for a missing one; -1: none */
    int *rank;     /* [most] scratch */
    uint64_t requests, misses;
} xp_wanted;

struct xp_cache {
    xp_source source;
    xp_options options;
    xp_pack *pack;        /* NULL: the original files */
    bool *unchecked;      /* [all experts] packed: the record's checksum was not looked at yet */
    size_t *first_record; /* [n_layers] index of a layer's expert 0 in there */
    bool lazy;            /* capacity 0: nothing stays */
    xp_residency *residency;
    xp_reader *reader;
    xp_slot *slots;
    int n_slots;
    char *memory;
    size_t memory_bytes;
    xp_job *jobs;                /* [XP_MAX_JOBS], those in state XP_JOB_FREE are free */
    int guesses[XP_MAX_GUESSES]; /* slots of the last hint whose reads may still fly */
    int n_guesses;
    uint64_t reads_before; /* when this step began */
    bool idle;             /* the step before this one read nothing */
    int *scratch_slots;    /* [most experts of a layer] */
    bool *scratch_hits;
    xp_fills fills;
    xp_wanted wanted;
    xp_pressure pressure;
    uint64_t given_back; /* bytes of slots that were returned to the system */
    xp_stats stats;
};

/* Begin a read of an expert into a slot that the residency has given to it. */
void xp_read_into(xp_cache *cache, int slot, int layer, int expert, bool hint);
/* If the slot's read has ended, note how. */
void xp_settle(xp_cache *cache, int slot);
/* Stop or await the slot's read. */
void xp_finish_read(xp_cache *cache, int slot);

/* fill.c: start what may be started now, for the layer that is computed next and those behind it;
 * give all back. */
void xp_fill_step(xp_cache *cache, int next_layer);
void xp_fill_close(xp_cache *cache);

/* fixed.c: xp_acquire while the set is fixed; give all back. */
void xp_acquire_fixed(xp_cache *cache, int layer, const int *experts, const int *picks, int n,
                      xp_ticket *tickets);
void xp_fixed_close(xp_cache *cache);

/* How many slots each layer gets (shares[n_layers]); FM_E_BUDGET below the floor. */
fm_status xp_share_slots(const xp_source *source, const xp_options *options, int *shares,
                         fm_error *err);

#endif
