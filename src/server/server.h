/* server.h - the HTTP server over one engine: OpenAI's and Anthropic's interfaces, metrics, a page.
 *
 * Threads: one for HTTP (libmicrohttpd's, never blocks), one that reads requests (JSON, templates,
 * tokens), the engine's own, and the caller's, which looks after time limits. Whoever sends what,
 * the server answers the others, its memory stays bounded, and a client that goes away ends its
 * request. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "engine/engine.h"

typedef struct sv_options {
    const char *host;            /* an address, default 127.0.0.1 */
    int port;                    /* 0: any free one */
    const char *const *api_keys; /* each request must carry one of these; n_api_keys 0: none */
    int n_api_keys;
    const char *const *origins; /* origins that browsers may call from; "*" all; default none */
    int n_origins;
    const en_sampling *sampling; /* where requests say nothing; NULL: the model's own */
    const char *alias;           /* the model's name in answers; NULL: its folder's */
    const char *kv_dir;          /* conversations are kept here over a restart; NULL: not */
    bool share_prefixes;         /* reuse conversations across API keys */
    bool log_prompts;            /* logs say what was asked and answered */
    bool quiet;                  /* no line a request */
    bool no_page;                /* do not serve the page */
    int max_tokens;              /* most tokens an answer; 0: the context */
    uint64_t max_body;           /* bytes of a request, default 32 MiB */
    int max_connections;         /* default 2048 */
    int read_timeout;            /* seconds to receive a request, default 30 */
    int idle_timeout;            /* seconds between requests of a connection, default 75 */
    int ping_interval;           /* seconds of silence before a stream gets a ping, default 15 */
    int grace;                   /* seconds that running answers have at the end, default 10 */
    void (*ready)(void *arg, const char *url); /* listening; may be NULL */
    void (*log)(void *arg, const char *line);  /* one line, no newline; may be NULL */
    void *arg;
} sv_options;

sv_options sv_options_default(void);

/* Serve until *stop becomes non-zero (a signal handler may set it): 1 finishes what runs, 2 breaks
 * it off. The engine must be idle and belongs to the server meanwhile. */
fm_status sv_serve(en_engine *engine, const sv_options *options, const volatile int *stop,
                   fm_error *err);

#endif
