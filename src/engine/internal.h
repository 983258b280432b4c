/* internal.h - what the files of the engine room share.
 *
 *   engine.c     open, close, accessors          request.c    submit, cancel, lives of choices
 *   scheduler.c  en_step: slots, batch, forward  deliver.c    a token: sampling, text, events
 *   prefix.c     reuse of computed prefixes      snapshots.c  recurrent states kept for reuse
 *   warm.c       profiles, saved states, predictive mode
 *   prepared.c   packed store and tuned settings
 *   planner.c, machine.c, sampler.c, score.c, stats.c, settings.c (generation_config.json)
 *
 * A request has n choices. A choice waits, gets a slot (a model state), feeds its prompt, then
 * feeds each token it drew until it is finished. A slot without a choice keeps its tokens: the
 * state is the first tier of the prefix cache. */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

#include "base/buf.h"
#include "engine/engine.h"
#include "engine/warm.h"
#include "experts/measure.h"
#include "text/chat.h"

#include <pthread.h>

enum {
    EN_SNAPSHOTS = 16, /* recurrent states kept a conversation at most */
    EN_BLOCK = 512,    /* prompt positions at multiples of this are worth a snapshot */
    EN_TAIL = 64,      /* and the last multiple of this before the prompt's end */
    EN_MIN_REUSE = 8,  /* a shorter prefix is recomputed */
    EN_MAX_WATCHERS = 4,
    EN_MAX_STOP_IDS = 64,
    EN_MAX_TEXT = 4096, /* bytes of one stop string at most */
};

typedef struct en_snapshot {
    int length; /* tokens seen */
    void *bytes;
} en_snapshot;

/* Tokens whose effect is computed, and the snapshots taken on the way, in rising order. */
typedef struct en_history {
    uint64_t scope;
    int32_t *ids;
    int n;
    en_snapshot snapshot[EN_SNAPSHOTS];
    int n_snapshots;
    uint64_t last_use; /* engine's step number */
} en_history;

typedef struct en_slot {
    md_state *state;
    en_history history; /* history.n == md_state_length(state) */
    en_choice *user;    /* NULL: idle */
} en_slot;

/* A conversation that lost its slot: its KV cache as bytes. */
typedef struct en_stored {
    en_history history;
    void *kv;
    uint64_t kv_bytes;
    struct en_stored *next; /* latest used first */
} en_stored;

/* Shared by the choices of one request; freed with the last. All pointers are own copies. */
typedef struct en_shared {
    uint64_t id;
    int choices_left;
    en_request set;
    bool cancelled;   /* under engine->lock */
    double submitted; /* bs_now() */
    struct en_shared *next;
} en_shared;

typedef enum en_phase { EN_WAITING, EN_PROMPT, EN_ANSWER, EN_OVER } en_phase;

struct en_choice {
    en_shared *request;
    int index;
    en_phase phase;
    en_slot *slot;
    int32_t next; /* EN_ANSWER: drawn, not yet fed */
    en_sampler *sampler;
    tx_stream *stream; /* NULL without tokenizer */
    bs_buf held;       /* text that may be the start of a stop string, or is not given out yet */
    const char *stop_seen; /* the stop string that ended it */
    en_request_stats stats;
    double started, first_token, last_token;
    int fed;                /* prompt tokens whose effect is in the slot's state */
    int row;                /* of this pass's logits; -1: none */
    int feeding;            /* tokens in this pass; 0: not in it */
    bool holding;           /* computed but not given out (warm.h) */
    en_choice *next_choice; /* list */
};

typedef struct en_watcher {
    md_route_fn *fn;
    void *arg;
} en_watcher;

typedef struct en_totals {
    uint64_t prompt_tokens, cached_tokens, tokens, requests, steps;
    double ttft_s;                /* of the last request that had a first token */
    uint64_t prompt_fed, decoded; /* tokens of steps with, and without, a prompt chunk */
    double prompt_s, decode_s;    /* their time */
    uint64_t decode_bytes;        /* read from files in steps without a prompt chunk */
    uint64_t decode_moved;        /* md_pass_traffic of those steps */
} en_totals;

struct en_engine {
    en_options options;
    en_plan plan;
    md_model *model;
    tx_tokenizer *tokenizer;
    tx_chat *chat;
    en_sampling sampling; /* generation_config.json */
    bs_pool *pool;
    xp_cache *experts;
    md_run *run;
    float *logits; /* [max_logits][vocab] */
    size_t logits_bytes;
    void *sampling_scratch;
    float *raw; /* [vocab]: a row as the model gave it, while a mask or bias changes the original */
    en_logprob top[EN_MAX_TOP];
    md_token *batch; /* [max_tokens] */
    en_slot *slots;  /* [parallel] */
    int turn;        /* which prompt goes first: round robin */
    double load_ms;
    bs_buf notes;     /* NUL-separated */
    xp_tuning tuning; /* what `tune` stored for this machine and disk */

    /* prefix cache */
    en_stored *stored;
    uint64_t snapshot_bytes;

    en_watcher watchers[EN_MAX_WATCHERS];
    en_warm *warm; /* NULL: the model has no routed experts */

    /* Choices in order of arrival that the engine's thread works on. */
    en_choice *active;

    /* Guards what follows. The engine's thread alone writes the statistics and prefix_used, so it
     * reads them without; they are written under the lock for en_get_stats in other threads. */
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool awake;           /* en_wake was called */
    en_choice *arrived;   /* submitted, not yet seen by en_step; in order */
    int waiting, running; /* choices */
    en_shared *live;      /* every request that is not over */
    uint64_t last_id;
    en_totals totals;
    uint64_t prefix_used; /* bytes of stored conversations and snapshots */
    md_mass mass;
    xp_stats expert_stats, expert_base; /* after the last step; when statistics were reset */
    double disk_rate, memory_rate;
};

/* deliver.c. Both return false when the choice is over. */
bool en_deliver_logits(en_engine *e, en_choice *c, float *logits);
void en_finish_choice(en_engine *e, en_choice *c, en_finish finish, const fm_error *error);
bool en_report_prompt(en_engine *e, en_choice *c);

/* request.c */
void en_take_arrivals(en_engine *e);
void en_apply_cancels(en_engine *e);
void en_drop_finished(en_engine *e);

/* scheduler.c */
void en_release_slot(en_engine *e, en_choice *c);
/* Sampler and text stream as for a choice that has drawn nothing. */
fm_status en_prepare_choice(en_engine *e, en_choice *c, fm_error *err);
/* A forward pass for the statistics; state_traffic: md_state_traffic of its answers. */
void en_count_pass(en_engine *e, int prompt_tokens, int answers, uint64_t state_traffic,
                   double seconds);

/* prefix.c. Give the choice a slot that already holds as much of its prompt as can be reused;
 * false when none is free. */
bool en_take_slot(en_engine *e, en_choice *c);
void en_clear_slot(en_engine *e, en_slot *slot);
/* Memory of the prefix cache is taken, and given back. */
void en_prefix_take(en_engine *e, uint64_t bytes);
void en_prefix_give(en_engine *e, uint64_t bytes);
bool en_prefix_init(en_engine *e);
void en_prefix_free(en_engine *e);
bool en_drop_oldest_stored(en_engine *e); /* false: none left */
void en_free_stored(en_engine *e, en_stored *s);

/* snapshots.c: positions worth one, and the memory for them. en_next_cut: prompt tokens from
 * `from` that may be fed before a snapshot is due (or all of them). */
int en_next_cut(const en_engine *e, const en_choice *c, int from, int most);
bool en_snapshot_due(const en_engine *e, const en_choice *c);
void en_take_snapshot(en_engine *e, en_slot *slot);
void en_drop_snapshots(en_engine *e, en_history *h, int beyond);
/* False: the memory cannot be had. keep: the conversation that it is for. */
bool en_make_room(en_engine *e, en_history *keep, uint64_t bytes);
/* live: the state stands at the history's end, so that all of it needs no snapshot. */
int en_usable_prefix(const en_engine *e, const en_history *h, int common, bool live,
                     const void **snapshot);

/* settings.c */
fm_status en_read_sampling(const char *dir, en_sampling *out, fm_error *err);

/* prepared.c: after md_open, before the plan. */
fm_status en_find_prepared(en_engine *e, fm_error *err);

#endif
