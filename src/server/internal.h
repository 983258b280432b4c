/* internal.h - what the files of this room share.
 *
 * A request lives from its first header to the end of its answer. It is held by HTTP (until
 * libmicrohttpd is done with it) and by whoever works on it (the reader thread, then the engine
 * until each choice has had its last event): `refs`. `lock` guards the answer: the worker appends
 * to `out`, HTTP takes from it; a connection without anything to do is suspended and woken. */
#ifndef SERVER_INTERNAL_H
#define SERVER_INTERNAL_H

#include "base/buf.h"
#include "server/fields.h"
#include "server/server.h"

#include <jansson.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct sv_server sv_server;
typedef struct sv_request sv_request;
typedef struct sv_conn sv_conn;
typedef struct sv_gen sv_gen;

/* --- routes -------------------------------------------------------------------------------------
 */

/* How an interface words its errors. */
typedef enum sv_dialect { SV_OPENAI, SV_ANTHROPIC, SV_PLAIN } sv_dialect;

/* Called in the HTTP thread for GET (body NULL; must not block), in the reader thread for POST.
 * Must lead to sv_answer, sv_refuse or a stream. */
typedef void sv_handler(sv_request *r, json_t *body);

typedef struct sv_route {
    const char *method, *path;
    sv_handler *handler;
    sv_dialect dialect;
    bool open; /* answered without an API key */
} sv_route;

extern const sv_route sv_routes[]; /* ended by a NULL path */

/* --- a request ----------------------------------------------------------------------------------
 */

enum { SV_MAX_PENDING = 4 << 20 }; /* bytes a client may leave unread before it is cut off */

struct sv_request {
    sv_server *server;
    sv_conn *conn;
    struct MHD_Connection *mhd; /* HTTP thread; NULL once it is done (under lock) */
    const sv_route *route;
    sv_dialect dialect;
    char id[32]; /* of the answer, without prefix */
    uint64_t scope;
    bs_buf body;
    size_t body_counted; /* part of server->body_bytes */
    bool head, too_large, dispatched;
    atomic_bool is_map; /* a watcher of the live map */
    double started;
    long created; /* Unix time */

    pthread_mutex_t lock; /* all below */
    int refs;
    bool suspended, ready, streaming, finished, broken, gone;
    int status, retry_after;
    const char *content_type;
    const char *cache_control;
    bs_buf out;
    size_t sent;
    double last_output;
    uint64_t engine_id; /* 0: nothing runs */
    sv_gen *gen;        /* owned; worker's side */
    const char *ping;   /* text that keeps a silent stream alive */

    sv_request *next, *prev; /* all requests, under server->lock */
    sv_request *queued;      /* reader's queue, under server->lock */
};

sv_request *sv_request_new(sv_server *s, struct MHD_Connection *mhd, const char *method);
void sv_hold(sv_request *r);
void sv_drop(sv_request *r);

/* The whole answer. json is consumed; NULL is "out of memory". */
void sv_answer(sv_request *r, int status, json_t *json);
void sv_answer_text(sv_request *r, int status, const char *content_type, const char *text,
                    size_t n);
void sv_refuse(sv_request *r, const sv_error *e);

/* A stream of server-sent events: begin, any number of events, end. An event with name NULL has
 * data only. json is consumed. sv_stream_write appends raw text. A reader that lags behind too far
 * is cut off: then false, and the work should end. */
void sv_stream_begin(sv_request *r, const char *ping);
bool sv_stream_event(sv_request *r, const char *name, json_t *json);
bool sv_stream_write(sv_request *r, const char *text);
void sv_stream_end(sv_request *r);

/* The client has gone or fell too far behind. */
bool sv_is_gone(sv_request *r);

/* The body of an error in the interface's own shape; the caller owns it. */
json_t *sv_error_json(sv_dialect dialect, const sv_error *e);

/* --- the server ---------------------------------------------------------------------------------
 */

struct sv_conn {
    int fd;
    _Atomic double deadline; /* closed then unless it gets on; 0: it is being answered */
    sv_conn *next, *prev;
};

typedef struct sv_map sv_map;

struct sv_server {
    en_engine *engine;
    const sv_options *options;
    struct MHD_Daemon *daemon;
    _Atomic bool running;
    char remark[200]; /* libmicrohttpd's last, from before it ran */
    char model_name[128];
    long started;

    pthread_mutex_t lock; /* lists, queue */
    pthread_cond_t work;
    sv_conn *conns;
    sv_request *requests;
    sv_request *queue, **queue_end;
    bool stopping;
    atomic_bool draining;
    uint64_t body_bytes;

    sv_map *map;
    struct en_kvstore *kv;  /* NULL: conversations are not kept; engine's thread */
    struct en_vocab *vocab; /* for grammars, made when first needed by the reader thread */
    pthread_t reader, runner;
    bool reader_runs, runner_runs;
    atomic_uint_fast64_t n_requests, n_errors, n_refused, n_connections, n_cancelled;
    atomic_uint_fast64_t open_connections, next_id;
};

/* http.c */
fm_status sv_http_start(sv_server *s, fm_error *err);
void sv_http_stop(sv_server *s);
const char *sv_header(sv_request *r, const char *name);

/* watch.c: time limits, clients that went away, pings. Called a few times a second. */
void sv_watch(sv_server *s);
sv_conn *sv_conn_open(sv_server *s, int fd);
void sv_conn_close(sv_server *s, sv_conn *c);

/* auth.c */
bool sv_authorised(sv_server *s, struct MHD_Connection *mhd, uint64_t *scope);
const char *sv_allowed_origin(sv_server *s, struct MHD_Connection *mhd);
bool sv_host_allowed(sv_server *s, struct MHD_Connection *mhd);
bool sv_origin_allowed(sv_server *s, struct MHD_Connection *mhd);

/* info.c, map.c, page.c */
sv_handler sv_get_models, sv_get_model, sv_get_health, sv_get_metrics, sv_get_props, sv_get_map;
sv_handler sv_get_page, sv_get_style, sv_get_script, sv_get_icon;
fm_status sv_map_create(sv_server *s, fm_error *err);
void sv_map_destroy(sv_server *s);
void sv_map_sample(sv_server *s); /* the engine's thread, after each step */
void sv_map_send(sv_server *s);   /* to the watchers, from sv_watch */

/* The APIs. */
sv_handler sv_post_chat, sv_post_completions, sv_post_responses, sv_post_messages;
sv_handler sv_post_count_tokens, sv_post_tokenize, sv_post_detokenize;

/* One log line. */
__attribute__((format(printf, 2, 3))) void sv_log(sv_server *s, const char *format, ...);

#endif
