/* engine.h - one loaded model answering any number of requests: what the command line, the public
 * API and the server share.
 *
 * A request is a prompt of token ids with its settings and a callback. en_step runs ONE forward
 * pass over everything that is active: the next token of each request that is generating, and a
 * bounded chunk of the prompt of one that is not there yet (taking turns), so that each expert is
 * read and applied once for all of them. A request's tokens are the same, bit for bit, alone or in
 * company, with a reused prefix or without.
 *
 *     en_options o = en_options_default();
 *     o.model = dir;
 *     if (en_open(&o, &engine, &err)) ...
 *     en_request r = en_request_default(engine);
 *     r.prompt = ids; r.n_prompt = n; r.on_event = print; r.arg = ...;
 *     en_submit(engine, &r, &id, &err);
 *     while (en_step(engine) > 0) {}
 *     en_close(engine);
 *
 * Threads. en_submit, en_cancel, en_wake and en_get_stats may be called from any thread at any
 * time, also from callbacks. en_step, en_score and the functions of the section "engine's thread"
 * must be called by one thread at a time (usually one that owns the engine); callbacks run in it,
 * without a lock held, and must not call en_step, en_score or en_close. A server runs
 *     while (!stop) if (en_step(engine) == 0) en_wait(engine, 1000);
 * in one thread. Different engines are independent.
 *
 * Memory. All that an engine will ever hold is reserved or counted at en_open (planner.h); requests
 * beyond `parallel` wait in a queue of bounded length. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/planner.h"
#include "engine/sampler.h"
#include "model/model.h"

typedef struct tx_tokenizer tx_tokenizer; /* text/tokenizer.h */
typedef struct tx_chat tx_chat;           /* text/chat.h */

typedef struct en_engine en_engine;

/* --- opening ---------------------------------------------------------------------------------- */

typedef enum en_mode { EN_EXACT, EN_PREDICTIVE } en_mode;
typedef enum en_on_miss { EN_MISS_SKIP, EN_MISS_SUBSTITUTE } en_on_miss;
typedef enum en_warmup {
    EN_WARMUP_NONE,
    EN_WARMUP_ROUTER,
    EN_WARMUP_FULL,
    EN_WARMUP_HYBRID
} en_warmup;

typedef struct en_options {
    const char *model;     /* a folder; required */
    const char *tokenizer; /* folder or tokenizer.json instead of the model's; NULL: its own */
    bool no_tokenizer;     /* open without one even when it is there (score, bench) */

    uint64_t memory;   /* ceiling on the process; 0: the planner's */
    int capacity;      /* expert slots a layer; -1: by memory */
    int context;       /* tokens a sequence may have; 0: min(model's, 4096) */
    int parallel;      /* sequences computed together; default 1 */
    int queue;         /* requests that may wait beyond those; default 64 */
    int prefill_chunk; /* prompt tokens a step at most; 0: the planner's */
    int max_logits;    /* rows of logits a step; 0: `parallel` (en_score wants its chunk here) */
    uint64_t prefix_memory; /* for conversations kept beyond the `parallel` states; 0: none */
    bool keep_prefixes; /* keep finished conversations for reuse (chat, serve); costs one extra step
                           a prompt on recurrent models */

    int threads; /* 0: bs_default_threads() */
    kn_isa isa;
    kn_precision precision;
    int kv_bits; /* 32, 16 or 8: 16 moves logits by about 5e-4 of the largest, 32 not at all */
    bool mlx_router;

    xp_policy policy;
    xp_io io;
    bool buffered;        /* expert reads through the page cache */
    int prefetch;         /* -1 auto, 0 off, N experts a layer */
    const char *pack_dir; /* packed store; NULL: looked for beside the model; "": never */
    bool lock;            /* mlock weights and slots */

    en_mode mode;
    en_on_miss on_miss;
    int refresh; /* predictive: swaps every N tokens; 0: never; -1: by miss rate */
    en_warmup warmup;
    bool hold;             /* asynchronous warmup: discard tokens until coherent */
    const char *profile;   /* routing profile for pins and start-up */
    int pin_top_k;         /* pins a layer from the profile; -1: unset */
    double pin_threshold;  /* pin experts that this share of prompts used; < 0: unset */
    const char *cache_dir; /* saved cache state is read from and written to here; NULL: none */

    md_progress_fn *progress; /* loading, may be NULL */
    void *progress_arg;
} en_options;

en_options en_options_default(void);

/* Opens, plans, loads. An option that cannot act is an error, never ignored. Budget below the
 * floor: FM_E_BUDGET, the message names the floor. */
fm_status en_open(const en_options *options, en_engine **out, fm_error *err);

/* Finishes nothing: active requests get a last event with EN_FINISH_CANCELLED. NULL is allowed. */
void en_close(en_engine *engine);

/* Constant after en_open; any thread. */
const md_info *en_describe(const en_engine *engine);
const en_plan *en_get_plan(const en_engine *engine);
const en_options *
en_get_options(const en_engine *engine); /* defaults filled in; strings: own copies */
const tx_tokenizer *en_tokenizer(const en_engine *engine); /* NULL: the folder has none */
const tx_chat *en_chat(const en_engine *engine); /* template, end ids; NULL without a tokenizer */
const en_sampling *en_default_sampling(const en_engine *engine); /* generation_config.json */
const char *en_note(const en_engine *engine, int i); /* notes of loading for the user; NULL ends */

/* --- requests --------------------------------------------------------------------------------- */

typedef enum en_finish {
    EN_RUNNING = 0,      /* not the last event */
    EN_FINISH_STOP,      /* end token or stop string */
    EN_FINISH_LENGTH,    /* max_tokens or the context is full */
    EN_FINISH_CANCELLED, /* en_cancel, or the callback said so */
    EN_FINISH_ERROR,     /* see `error` */
} en_finish;

const char *en_finish_name(en_finish finish); /* "stop", "length", "cancelled", "error" */

typedef struct en_request_stats {
    int prompt_tokens,
        cached_tokens; /* of the prompt: all, and those taken from the prefix cache */
    int tokens;        /* generated, end token included */
    double queue_ms;   /* en_submit to the first step with it */
    double prefill_ms; /* first step to the first token's logits */
    double ttft_ms;    /* en_submit to the first token */
    double decode_ms;  /* first token to the last */
    double prefill_tok_s, decode_tok_s; /* 0 when too few tokens to say */
} en_request_stats;

/* One event of one request. Pointers are valid during the callback only. */
typedef enum en_event_kind {
    EN_EVENT_PROMPT, /* a chunk of the prompt was computed: prompt_done of stats.prompt_tokens */
    EN_EVENT_TOKEN,  /* a token was generated; `text` is what may be shown now (may be empty while a
                        character or a possible stop string is incomplete) */
    EN_EVENT_DONE,   /* the last event of this choice: finish, rest of the text, stats. Exactly one
                        a choice, always, whatever happens */
} en_event_kind;

typedef struct en_event {
    uint64_t request;
    int choice; /* 0 .. n-1 */
    en_event_kind kind;
    int prompt_done;
    int32_t token;    /* EN_EVENT_TOKEN */
    bool end_token;   /* token is one of the end ids (its text is never given) */
    const char *text; /* valid UTF-8, NUL-terminated */
    size_t text_bytes;
    float logprob;         /* with logprobs >= 0 */
    const en_logprob *top; /* n_top most probable, falling */
    int n_top;
    en_finish finish;
    const char *stop;      /* EN_FINISH_STOP by a stop string: which; else NULL */
    const fm_error *error; /* EN_FINISH_ERROR */
    const en_request_stats *stats;
} en_event;

/* Return true to go on, false to stop this choice (EN_FINISH_CANCELLED follows at once). */
typedef bool en_event_fn(void *arg, const en_event *event);

/* Grammars and the like, in the engine's thread. mask: set logits[id] to -INFINITY for every token
 * that may not come next; false ends the request with an error. accept: this token was chosen;
 * returning false ends the answer with EN_FINISH_STOP after this token. `choice` tells the choices
 * of one request apart. */
typedef struct en_mask {
    bool (*mask)(void *arg, int choice, float *logits, int vocab);
    bool (*accept)(void *arg, int choice, int32_t token);
    void *arg;
} en_mask;

enum { EN_MAX_STOPS = 64, EN_MAX_TOP = 32, EN_MAX_CHOICES = 128 };

typedef struct en_request {
    const int32_t *prompt; /* at least one token; each within the vocabulary */
    int n_prompt;
    int max_tokens; /* < 0: until the context is full; 0: only compute the prompt */
    int n;          /* choices; choice i draws with seed + i; the prompt is computed once */
    en_sampling sampling;
    const en_bias *bias;
    int n_bias;
    const char *const *stop; /* strings; the answer ends before the first of them */
    int n_stop;
    const int32_t *stop_ids; /* besides the model's end ids */
    int n_stop_ids;
    bool ignore_end;   /* go on after end ids */
    bool keep_special; /* special tokens give their text too */
    int logprobs;      /* -1: none; else that many alternatives a token, at most EN_MAX_TOP */
    en_mask mask;      /* {0}: none */
    void (*on_logits)(void *arg, int choice, const float *logits, int vocab); /* raw; may be NULL */
    uint64_t scope;        /* prefixes are shared only between requests of equal scope (API keys) */
    bool no_cache;         /* neither reuse nor keep a prefix for this one */
    en_event_fn *on_event; /* required */
    void *arg;             /* passed to on_event and on_logits */
} en_request;

/* Greedy or the model's own sampling, max_tokens -1, n 1, no logprobs. */
en_request en_request_default(const en_engine *engine);

/* Everything is copied. FM_E_ARGUMENT names the field; FM_E_LIMIT: prompt + 1 exceeds the context
 * (message with both figures); FM_E_BUSY: the queue is full. *id (may be NULL) is never 0. */
fm_status en_submit(en_engine *engine, const en_request *request, uint64_t *id, fm_error *err);

/* Ends all choices of the request with EN_FINISH_CANCELLED at the next step. Unknown or finished
 * ids are ignored. Safe from signal-handling threads, not from signal handlers. */
void en_cancel(en_engine *engine, uint64_t id);

/* --- engine's thread -------------------------------------------------------------------------- */

/* One forward pass. Returns how many choices are active or waiting after it; 0: nothing to do. An
 * error of one request ends that request; an error of the pass (a read error) ends all of the
 * pass. The engine stays usable. */
int en_step(en_engine *engine);

/* Sleep until there is work, en_wake was called or ms have passed (ms < 0: no limit). */
void en_wait(en_engine *engine, int ms);
void en_wake(en_engine *engine);

/* Logits of all n given tokens: fn gets each position in order. chunk: tokens a forward pass, 0:
 * the default; at most options.max_logits. The engine must be idle. fn returns false to stop early.
 */
typedef bool en_score_fn(void *arg, int position, const float *logits, int vocab);
fm_status en_score(en_engine *engine, const int32_t *ids, int n, int chunk, en_score_fn *fn,
                   void *arg, fm_error *err);

/* The router's choices of every pass (md_route_fn); several watchers may be set, at most 4. */
fm_status en_watch_routes(en_engine *engine, md_route_fn *fn, void *arg, fm_error *err);
void en_unwatch_routes(en_engine *engine, md_route_fn *fn, void *arg);

/* For the live map, profiles, benchmarks: borrowed, engine's thread only. */
xp_cache *en_experts(en_engine *engine);
md_model *en_model(en_engine *engine);
bs_pool *en_pool(en_engine *engine);

/* Forget cached conversations: those of one scope, or all. */
void en_forget_prefixes(en_engine *engine, uint64_t scope, bool all);

/* Cached conversations as bytes, for a store on disk. i counts from 0 in order of last use, latest
 * first; en_prefix_info false: no such. Import validates all before it changes anything; it evicts
 * older conversations to make room. FM_E_STALE: the bytes belong to another model or build. */
typedef struct en_prefix_entry {
    uint64_t scope;
    const int32_t *ids;
    int n_ids;
    uint64_t bytes; /* that en_prefix_export writes */
} en_prefix_entry;
bool en_prefix_info(en_engine *engine, int i, en_prefix_entry *out);
/* Count memory of the caller's, a copy of a conversation, as the prefix cache's. False: no room. */
bool en_prefix_borrow(en_engine *engine, uint64_t bytes);
void en_prefix_return(en_engine *engine, uint64_t bytes);
fm_status en_prefix_export(en_engine *engine, int i, void *out, fm_error *err);
fm_status en_prefix_import(en_engine *engine, uint64_t scope, const void *data, size_t bytes,
                           fm_error *err);

/* --- step by step: the seed's low-level operations (engine idle, engine's thread) ----------------
 */

/* Feed a prompt and `tokens` greedy tokens of its answer, and count the router's picks into
 * counts[n_moe_layers][n_experts] (added to what is there). router_only: no routed expert is
 * computed, fast and roughly right. Leaves no conversation behind. */
fm_status en_count_experts(en_engine *engine, const int32_t *ids, int n, int tokens,
                           bool router_only, uint64_t *counts, fm_error *err);

/* true: from now on the resident set is fixed (LOSSY, as EN_PREDICTIVE); false: exact again. */
fm_status en_fix_experts(en_engine *engine, bool fixed, fm_error *err);

typedef struct en_delta {
    int tokens;                /* greedy tokens after the prompt; the seed: 10 */
    int swaps_a_layer, layers; /* limits; the seed: 10 a layer (fast) or none */
} en_delta;

typedef struct en_delta_stats {
    double discovery_s, total_s;
    uint64_t requests, misses; /* distinct experts a step and layer, since the last refresh */
    int swaps, layers;
} en_delta_stats;

/* Find what a prompt misses in the fixed set, and swap it in. */
fm_status en_delta_warmup(en_engine *engine, const int32_t *ids, int n, const en_delta *how,
                          en_delta_stats *out, fm_error *err);

/* Swap in what was missed since the last call, the most wanted first. */
fm_status en_refresh_experts(en_engine *engine, int swaps_a_layer, int layers, en_delta_stats *out,
                             fm_error *err);

/* --- statistics ------------------------------------------------------------------------------- */

/* Totals since en_open (or en_reset_stats), and what is held. The JSON names of CLI.md. */
typedef struct en_stats {
    double load_ms, ttft_ms;            /* ttft: of the last request */
    double prefill_tok_s, decode_tok_s; /* totals; decode: tokens / time of steps with decodes */
    uint64_t prompt_tokens, cached_tokens, tokens, requests, steps;
    uint64_t expert_hits, expert_misses, prefetch_useful, prefetch_wasted;
    double hit_rate; /* 1 when nothing was asked for */
    uint64_t bytes_read;
    double read_ms_exposed;
    uint64_t budget_bytes, floor_bytes, resident_bytes, slot_bytes, state_bytes, scratch_bytes;
    uint64_t prefix_bytes;   /* held by kept conversations now */
    int slots, shrunk_slots; /* shrunk: given back because memory ran short */
    uint64_t peak_rss_bytes;
    bool direct_io;
    const char *io, *policy, *isa, *mode; /* names */
    int threads;
    double dropped_mass;    /* share of router weight lost to a fixed set; 0 in exact mode */
    uint64_t dropped_picks; /* (token, expert) pairs that it lacked */
    int active, waiting;    /* choices now */
    double memory_bytes_per_token, disk_bytes_per_token; /* what decoding moved on average */
    double bound_tok_s, bound_fraction;                  /* 0: the machine's rates are not known */
} en_stats;

void en_get_stats(en_engine *engine, en_stats *out);
void en_reset_stats(en_engine *engine); /* engine's thread */

/* The stats object of CLI.md; NULL when out of memory. Caller owns it. */
json_t *en_stats_json(const en_stats *stats);

/* The machine's own limit on decoding: the bytes a token must move over the memory bus (weights,
 * states and cached rows: md_pass_traffic; a pass that several requests share divides its weights)
 * and those its misses read from disk, each at the full rate and at the same time. en_get_stats
 * reckons with the rates that `tune` stored; here with others. */
void en_reckon_bound(en_stats *stats, double disk_bytes_s, double memory_bytes_s);

#endif
