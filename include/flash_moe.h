/* flash_moe.h - run Mixture-of-Experts language models larger than memory, from C.
 *
 * Only the experts that the model's router selects are read from disk; how many stay in memory
 * decides the speed and never the result: the same prompt gives the same tokens, bit for bit, at
 * any budget, thread count or cache policy.
 *
 * The shortest program (examples/one_call.c):
 *
 *     fm_error err;
 *     char *answer = flash_generate("models/flash-moe-tiny", "Tell me about the fox.", 100, &err);
 *     if (answer) puts(answer); else fprintf(stderr, "%s\n", err.message);
 *     flash_free(answer);
 *
 * The usual one (examples/chat.c): open a model once, open a session for each conversation, feed
 * it, generate with a callback a token:
 *
 *     fm_options o = fm_options_default();
 *     o.memory_bytes = 8ull << 30;
 *     fm_model_open("path/to/model", &o, &model, &err);
 *     fm_session_open(model, &session, &err);
 *     fm_session_message(session, "user", "Tell me a story.", &err);
 *     fm_session_generate(session, NULL, on_token, arg, &result, &err);
 *     fm_session_close(session);
 *     fm_model_close(model);
 *
 * Errors. Functions that can fail return an fm_status (flash_moe_error.h): FM_OK, or a negative
 * code with one English sentence in *err (which may be NULL). The library never prints, never exits
 * and never aborts on bad input.
 *
 * Threads. One model may be used by any number of threads at once, each with its own session: their
 * tokens are computed together, and each expert is read once for all. One session belongs to one
 * thread at a time; only fm_session_stop may be called from any thread, at any time, also from
 * callbacks. Callbacks run in one of the threads that are inside fm_session_generate (with several
 * sessions not always the session's own), one at a time, and must not call anything of this header
 * but fm_session_stop. Close sessions before their model.
 *
 * Memory. fm_options.memory_bytes is a ceiling on the resident set of the whole process as it
 * stands when the model is opened, what the program itself holds then included. It is refused with
 * FM_E_BUDGET, naming the floor, when the model cannot run in it. */
#ifndef FLASH_MOE_H
#define FLASH_MOE_H

#include "flash_moe_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLASH_MOE_VERSION "0.1.0"

/* The version of the library that is linked, as FLASH_MOE_VERSION is of this header. */
const char *flash_version(void);

/* Gives back what a function of this header returned as `char *` or `int32_t *`. NULL is fine. */
void flash_free(void *p);

/* --- models ---------------------------------------------------------------------------------- */

typedef struct fm_model fm_model;

/* Take one from fm_options_default() and change what you need. */
typedef struct fm_options {
    uint64_t memory_bytes; /* ceiling on the process; 0: what the machine allows */
    int capacity;          /* experts kept a layer instead of by memory; -1: by memory */
    int context;           /* tokens a session may have; 0: min(the model's, 4096) */
    int parallel;          /* sessions computed together; more of them wait. Each takes the memory
                              of a context. Default 1 */
    uint64_t prefix_bytes; /* memory for conversations of sessions that are not generating; what
                              does not fit is computed again, with the same result. Default 0 */
    int threads;           /* compute threads; 0: the physical cores */
    const char *policy;    /* "lfru" (default), "lru", "lcp" */
    const char *io;        /* "auto" (default), "uring", "pread" */
    const char *isa;       /* "auto" (default), "portable", "avx2", "avx512", "neon" */
    const char *precision; /* "f32" or "fast"; NULL: this build's default */
    int kv_bits;           /* attention cache: 32 (default), 16 or 8 */
    int prefetch;          /* experts read ahead a layer; 0 off, -1 automatic (default), which
                              is off in the lossy modes */
    bool lock;             /* lock the memory (mlock) */
    const char *pack_dir;  /* packed store; NULL: looked for, "": none */
    /* What is resident before it is asked for. Changes speed only. */
    const char *profile;   /* routing profile (flash-moe profile); NULL: none */
    int pin_top_k;         /* pin its most used experts, so many a layer; -1: unset */
    double pin_threshold;  /* or those that this share of its prompts used; < 0: unset */
    const char *cache_dir; /* the cache's state is read here and written on close; NULL: none */

    /* The seed's LOSSY mode; flash_moe_seed.h. Default: exact. */
    const char *mode;    /* "exact" or "predictive": only what is in memory is used */
    const char *on_miss; /* "skip" (default) or "substitute" */
    const char *warmup;  /* "none" (default), "router", "full", "hybrid" */
    int refresh; /* swap missed experts in every so many tokens; 0: never, -1: by miss rate */
    bool hold;   /* hold an answer back until the set has settled, then begin it anew */

    /* Progress of loading; may be NULL. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
} fm_options;

fm_options fm_options_default(void);

/* dir: a model folder (config.json, *.safetensors, tokenizer.json). options may be NULL. */
fm_status fm_model_open(const char *dir, const fm_options *options, fm_model **out, fm_error *err);
void fm_model_close(fm_model *model); /* NULL is fine */

typedef struct fm_info {
    const char *family; /* "qwen3_next"; lives as long as the model */
    int layers, moe_layers, experts, experts_per_token, hidden, vocabulary, context;
    bool has_tokenizer, has_chat_template;
    uint64_t resident_bytes; /* weights that every token uses */
    uint64_t expert_bytes;   /* one expert */
    uint64_t experts_bytes;  /* all of them, on disk */
    uint64_t floor_bytes;    /* smallest memory_bytes that runs */
    uint64_t budget_bytes;   /* the ceiling that is kept */
} fm_info;

void fm_model_info(const fm_model *model, fm_info *out);

/* Text to ids and back. The result is to be given to flash_free; NULL on failure. With `special`
 * control tokens in the text ("<|im_end|>") become what they name; without, they are plain text. */
int32_t *fm_model_tokenize(const fm_model *model, const char *text, bool special, int *n,
                           fm_error *err);
char *fm_model_detokenize(const fm_model *model, const int32_t *ids, int n, fm_error *err);

/* --- sessions ----------------------------------------------------------------------------------
 */

/* A conversation or a growing text. */
typedef struct fm_session fm_session;

fm_status fm_session_open(fm_model *model, fm_session **out, fm_error *err);
void fm_session_close(fm_session *session); /* NULL is fine */

/* Feed. A session is either a chat (messages, put into the model's template) or a text (raw text
 * and ids, one after the other); mixing is FM_E_ARGUMENT. Nothing is computed yet. */
fm_status fm_session_message(fm_session *session, const char *role, const char *content,
                             fm_error *err);
fm_status fm_session_text(fm_session *session, const char *text, fm_error *err);
fm_status fm_session_tokens(fm_session *session, const int32_t *ids, int n, fm_error *err);

/* Forget everything that was fed and generated. */
void fm_session_clear(fm_session *session);

/* How many tokens the session holds: fed as text or ids and generated; of a chat, those of its last
 * prompt and answer. */
int fm_session_length(const fm_session *session);

/* --- generating ----------------------------------------------------------------------------------
 */

/* Take one from fm_generation_default(): the model's own sampling. */
typedef struct fm_generation {
    int max_tokens;          /* -1: until the answer or the context ends */
    float temperature;       /* 0: greedy, always the most probable token */
    int top_k;               /* 0: all */
    float top_p;             /* 1: all */
    float min_p;             /* 0: all */
    float repeat_penalty;    /* 1: none */
    float presence_penalty;  /* 0: none */
    float frequency_penalty; /* 0: none */
    uint64_t seed;           /* the same seed gives the same answer; default 0 */
    const char *const *stop; /* the answer ends before the first of these */
    int n_stop;
    bool ignore_end; /* go on after the model's end token */
} fm_generation;

fm_generation fm_generation_default(const fm_model *model);

/* One token. text is what may be shown now: whole UTF-8 characters, often several tokens' worth or
 * nothing; NUL-terminated, valid during the call. id -1: no token, only the rest of the text at
 * the end. Return false to stop. */
typedef struct fm_token {
    int32_t id;
    const char *text;
    size_t text_bytes;
} fm_token;
typedef bool fm_token_fn(void *arg, const fm_token *token);

typedef struct fm_result {
    const char *finish_reason; /* "stop", "length" or "cancelled"; a constant */
    int prompt_tokens;         /* of the whole prompt */
    int reused_tokens;         /* of those, what was computed before */
    int tokens;                /* generated */
    double first_token_ms;
    double prefill_tok_s, decode_tok_s;
} fm_result;

/* Goes on with what the session holds; what is generated joins it (in a chat: as the assistant's
 * message). generation NULL: the default. on_token and result may be NULL. After FM_OK or being
 * stopped the session can be fed and generate again; after an error it is as it was before. */
fm_status fm_session_generate(fm_session *session, const fm_generation *generation,
                              fm_token_fn *on_token, void *arg, fm_result *result, fm_error *err);

/* End the session's running generation after its current token; it returns FM_OK with finish_reason
 * "cancelled". Without a running one: does nothing. Any thread. */
void fm_session_stop(fm_session *session);

/* Everything in one call: open dir, answer the prompt greedily through the chat template (or as raw
 * text where there is none), close. NULL on failure; else to be given to flash_free. The seed's
 * flash_generate(model_name, prompt, max_tokens). */
char *flash_generate(const char *dir, const char *prompt, int max_tokens, fm_error *err);

/* --- statistics ----------------------------------------------------------------------------------
 */

/* Totals of a model since it was opened. */
typedef struct fm_statistics {
    double load_ms, first_token_ms; /* the latter of the last answer */
    double prefill_tok_s, decode_tok_s;
    uint64_t tokens, prompt_tokens, reused_tokens;
    uint64_t expert_hits, expert_misses; /* experts that were in memory when asked for, or not */
    uint64_t bytes_read;                 /* from the model's files, for experts */
    double read_ms_exposed;              /* time that computing stood still for reads */
    uint64_t budget_bytes, peak_rss_bytes, slot_bytes;
    int slots; /* experts that memory has room for */
    bool direct_io;
    const char *mode;       /* "exact" or "predictive"; a constant */
    double dropped_mass;    /* share of router weight that the predictive mode dropped; else 0 */
    uint64_t dropped_picks; /* the (token, expert) pairs behind it */
} fm_statistics;

/* Any thread. */
void fm_model_statistics(fm_model *model, fm_statistics *out);

/* All of them as a JSON object, as `flash-moe run --json` prints it. flash_free; NULL: no memory.
 */
char *fm_model_statistics_json(fm_model *model);

#ifdef __cplusplus
}
#endif
#endif
