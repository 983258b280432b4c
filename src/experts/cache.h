/* cache.h - the inside of an xp_cache, shared by cache.c, open.c and stats.c. */
#ifndef EXPERTS_CACHE_H
#define EXPERTS_CACHE_H

#include "experts/reader.h"
#include "experts/residency.h"

enum { XP_MAX_GUESSES = 32, XP_MAX_JOBS = 256 };

/* A slot is empty (the residency knows), flying (job), loaded, or failed (none of these: its read
 * went wrong and a ticket still holds it). */
typedef struct xp_slot {
    char *memory;
    xp_job *job;
    bool loaded;
    bool guess; /* read because of a hint, not asked for yet */
} xp_slot;

struct xp_cache {
    xp_source source;
    xp_options options;
    bool lazy; /* capacity 0: nothing stays */
    xp_residency *residency;
    xp_reader *reader;
    xp_slot *slots;
    int n_slots;
    char *memory;
    size_t memory_bytes;
    xp_job *jobs;                /* [XP_MAX_JOBS], those in state XP_JOB_FREE are free */
    int guesses[XP_MAX_GUESSES]; /* slots of the last hint whose reads may still fly */
    int n_guesses;
    int *scratch_slots; /* [most experts of a layer] */
    bool *scratch_hits;
    xp_stats stats;
};

/* How many slots each layer gets (shares[n_layers]); FM_E_BUDGET below the floor. */
fm_status xp_share_slots(const xp_source *source, const xp_options *options, int *shares,
                         fm_error *err);

#endif
