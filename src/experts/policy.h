/* policy.h - what an expert's presence in memory is worth.
 *
 * Every policy gives an expert one number, its key, which changes only when the expert is used:
 * the resident expert with the smallest key is the next victim. That works because decay is the
 * same for all: with a score s that halves every h tokens, s * 2^(-age/h) orders experts as
 * log2(s) + last/h does, and the latter does not move while the expert is idle.
 *   lfru  a count that halves every XP_HALF_LIFE tokens: frequency and recency in one
 *   lru   the last step
 *   lcp   the seed's formula: uses * 0.25^(steps since the last use / 128), forgotten on eviction
 * The engine and the simulator share this code. */
#ifndef EXPERTS_POLICY_H
#define EXPERTS_POLICY_H

#include "experts/experts.h"

enum { XP_HALF_LIFE = 16 };

typedef struct xp_clock {
    double tokens;   /* lfru's time: tokens that advanced it, this step included */
    double advance;  /* how far this step moved it */
    uint64_t steps;  /* lru's and lcp's time */
    int step_tokens; /* tokens of this step */
    bool prefill;
} xp_clock;

/* What a policy knows of an expert; zero-initialise with xp_policy_forget. */
typedef struct xp_history {
    double key;
    uint32_t uses; /* lcp */
    uint32_t last; /* step of the last use; 0: never */
} xp_history;

/* A step begins. Prefill moves lfru's clock by at most two half-lives, however long the prompt:
 * what decode had collected fades but is not wiped out. */
void xp_clock_step(xp_clock *clock, int tokens, bool prefill);

/* The expert is used in this step by `picks` of the step's tokens. */
void xp_policy_use(xp_policy policy, const xp_clock *clock, xp_history *h, int picks,
                   bool resident);

/* The expert was evicted. */
void xp_policy_evicted(xp_policy policy, xp_history *h);
void xp_policy_forget(xp_history *h);

/* What a history is worth now as a plain count (lfru, lcp: the decayed uses; lru: 1), and a history
 * that is worth `count` after `idle` steps without use: how a saved state leaves and enters. */
double xp_policy_count(xp_policy policy, const xp_clock *clock, const xp_history *h);
xp_history xp_policy_restore(xp_policy policy, const xp_clock *clock, double count, uint64_t idle);

/* By how much another layer's expert must be worth less before a layer takes its slot: the key's
 * loss in two half-lives. */
double xp_policy_lending_margin(xp_policy policy);

const char *xp_policy_name(xp_policy policy);
bool xp_policy_parse(const char *name, xp_policy *out);

#endif
