/* serve.c - the routes, the threads, and their beginning and end. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/grammar.h"
#include "engine/kvstore.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const sv_route sv_routes[] = {
    {"POST", "/v1/chat/completions", sv_post_chat, SV_OPENAI, false},
    {"POST", "/chat/completions", sv_post_chat, SV_OPENAI, false},
    {"POST", "/v1/completions", sv_post_completions, SV_OPENAI, false},
    {"POST", "/v1/responses", sv_post_responses, SV_OPENAI, false},
    {"POST", "/v1/messages", sv_post_messages, SV_ANTHROPIC, false},
    {"POST", "/v1/messages/count_tokens", sv_post_count_tokens, SV_ANTHROPIC, false},
    {"POST", "/tokenize", sv_post_tokenize, SV_OPENAI, false},
    {"POST", "/detokenize", sv_post_detokenize, SV_OPENAI, false},
    {"GET", "/v1/models", sv_get_models, SV_OPENAI, false},
    {"GET", "/v1/models/*", sv_get_model, SV_OPENAI, false},
    {"GET", "/v1/x/experts", sv_get_map, SV_OPENAI, false},
    {"GET", "/props", sv_get_props, SV_OPENAI, false},
    {"GET", "/metrics", sv_get_metrics, SV_PLAIN, false},
    {"GET", "/health", sv_get_health, SV_PLAIN, true},
    {"GET", "/", sv_get_page, SV_PLAIN, true},
    {"GET", "/style.css", sv_get_style, SV_PLAIN, true},
    {"GET", "/app.js", sv_get_script, SV_PLAIN, true},
    {"GET", "/markdown.js", sv_get_script, SV_PLAIN, true},
    {"GET", "/map.js", sv_get_script, SV_PLAIN, true},
    {"GET", "/icon.svg", sv_get_icon, SV_PLAIN, true},
    {"GET", "/favicon.ico", sv_get_icon, SV_PLAIN, true},
    {NULL, NULL, NULL, SV_PLAIN, false},
};

sv_options sv_options_default(void)
{
    return (sv_options){.host = "127.0.0.1",
                        .port = 8080,
                        .max_body = 32u << 20,
                        .max_connections = 2048,
                        .read_timeout = 30,
                        .idle_timeout = 75,
                        .ping_interval = 15,
                        .grace = 10};
}

void sv_log(sv_server *s, const char *format, ...)
{
    if (!s->options->log) return;
    char line[9000];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    /* What clients send must not forge lines of their own. */
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
    s->options->log(s->options->arg, line);
}

/* --- the reader: JSON, templates, tokens
 * ------------------------------------------------------------ */

static void read_request(sv_request *r)
{
    sv_error e = {0};
    json_error_t wrong;
    json_t *body = json_loadb(r->body.data ? r->body.data : "", r->body.length,
                              JSON_REJECT_DUPLICATES, &wrong);
    if (!body && r->body.length == 0)
        sv_error_set(&e, 400, NULL, "the request has no body: send a JSON object");
    else if (!body)
        sv_error_set(&e, 400, NULL, "the body is not valid JSON: %s (line %d, column %d)",
                     wrong.text, wrong.line, wrong.column);
    else if (!json_is_object(body)) sv_error_set(&e, 400, NULL, "the body must be a JSON object");
    pthread_mutex_lock(&r->server->lock);
    r->server->body_bytes -= r->body_counted;
    r->body_counted = 0;
    pthread_mutex_unlock(&r->server->lock);
    bs_buf_free(&r->body);
    r->body = (bs_buf){0};
    if (e.status) sv_refuse(r, &e);
    else r->route->handler(r, body);
    json_decref(body);
}

static void *run_reader(void *arg)
{
    sv_server *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->queue && !s->stopping) pthread_cond_wait(&s->work, &s->lock);
        sv_request *r = s->queue;
        if (r) {
            s->queue = r->queued;
            if (!s->queue) s->queue_end = &s->queue;
        }
        pthread_mutex_unlock(&s->lock);
        if (!r) return NULL;
        if (!sv_is_gone(r)) read_request(r);
        sv_drop(r);
    }
}

/* --- the engine's thread
 * ------------------------------------------------------------------------------ */

static void keep_conversations(sv_server *s)
{
    fm_error err;
    if (s->kv && en_kv_tend(s->kv, &err))
        sv_log(s, "conversations are not saved any more: %s", err.message);
}

static void *run_engine(void *arg)
{
    sv_server *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        bool stop = s->stopping;
        pthread_mutex_unlock(&s->lock);
        int busy = en_step(s->engine);
        sv_map_sample(s);
        keep_conversations(s);
        if (busy > 0) continue;
        if (stop) return NULL;
        en_wait(s->engine, 500);
    }
}

/* --- beginning and end
 * ----------------------------------------------------------------------------------- */

static bool anything_runs(sv_server *s)
{
    bool any = false;
    pthread_mutex_lock(&s->lock);
    for (sv_request *r = s->requests; r && !any; r = r->next) {
        pthread_mutex_lock(&r->lock);
        any = r->gen;
        pthread_mutex_unlock(&r->lock);
    }
    any = any || s->queue;
    pthread_mutex_unlock(&s->lock);
    return any;
}

static void cancel_all(sv_server *s)
{
    pthread_mutex_lock(&s->lock);
    for (sv_request *r = s->requests; r; r = r->next) {
        pthread_mutex_lock(&r->lock);
        if (r->engine_id) en_cancel(s->engine, r->engine_id);
        if (r->streaming && !r->gen) r->finished = true; /* the map's streams */
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void nap(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* New requests are refused, running ones may finish within the time of grace. */
static void drain(sv_server *s, const volatile int *stop)
{
    double end = bs_now() + s->options->grace;
    pthread_mutex_lock(&s->lock);
    s->draining = true;
    pthread_mutex_unlock(&s->lock);
    MHD_socket fd = MHD_quiesce_daemon(s->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
    while (anything_runs(s) && bs_now() < end && *stop < 2) {
        sv_watch(s);
        nap(20);
    }
    cancel_all(s);
    for (int i = 0; i < 250 && anything_runs(s); i++) {
        sv_watch(s);
        nap(20);
    }
}

/* libmicrohttpd must not be stopped while a connection is suspended: wake all and let them end. */
static void wake_all(sv_server *s)
{
    pthread_mutex_lock(&s->lock);
    for (sv_request *r = s->requests; r; r = r->next) {
        pthread_mutex_lock(&r->lock);
        r->gone = true;
        if (r->suspended && r->mhd) {
            r->suspended = false;
            MHD_resume_connection(r->mhd);
        }
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void stop_threads(sv_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->reader_runs) pthread_join(s->reader, NULL);
    cancel_all(s);
    en_wake(s->engine);
    if (s->runner_runs) pthread_join(s->runner, NULL);
    wake_all(s);
    sv_http_stop(s);
}

static void name_model(sv_server *s)
{
    const char *name = s->options->alias;
    char folder[4096];
    if (!name) {
        snprintf(folder, sizeof folder, "%s", en_get_options(s->engine)->model);
        size_t n = strlen(folder);
        while (n > 1 && folder[n - 1] == '/') folder[--n] = 0;
        const char *slash = strrchr(folder, '/');
        name = slash ? slash + 1 : folder;
        /* A snapshot in the hub's cache is named by its commit: the model's name stands above. */
        const char *hub = strstr(folder, "/models--");
        if (hub) {
            char *end = strchr((char *)hub + 1, '/');
            if (end) *end = 0;
            name = hub + 9;
        }
    }
    snprintf(s->model_name, sizeof s->model_name, "%.*s", (int)sizeof s->model_name - 1, name);
    char *dashes = s->options->alias ? NULL : strstr(s->model_name, "--");
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
}

static fm_status start(sv_server *s, fm_error *err)
{
    fm_status status = sv_map_create(s, err);
    if (!status && s->options->kv_dir) {
        int restored = 0;
        status = en_kv_open(s->engine, s->options->kv_dir, &s->kv, &restored, err);
        if (!status && restored) sv_log(s, "%d conversations restored", restored);
    }
    if (status) return status;
    s->reader_runs = pthread_create(&s->reader, NULL, run_reader, s) == 0;
    s->runner_runs = pthread_create(&s->runner, NULL, run_engine, s) == 0;
    if (!s->reader_runs || !s->runner_runs)
        return fm_fail(err, FM_E_NOMEM, "cannot start a thread");
    return sv_http_start(s, err);
}

fm_status sv_serve(en_engine *engine, const sv_options *options, const volatile int *stop,
                   fm_error *err)
{
    sv_server *s = bs_calloc(1, sizeof *s);
    if (!s) return fm_fail_nomem(err, "starting the server");
    s->engine = engine;
    s->options = options;
    s->started = (long)time(NULL);
    s->queue_end = &s->queue;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    name_model(s);
    signal(SIGPIPE, SIG_IGN);
    fm_status status = start(s, err);
    while (!status && !*stop) {
        sv_watch(s);
        nap(100);
    }
    if (!status) drain(s, stop);
    stop_threads(s);
    int kept = 0;
    fm_status closed = en_kv_close(s->kv, &kept, status ? NULL : err);
    if (!status) status = closed;
    if (!status && kept) sv_log(s, "%d conversations saved", kept);
    sv_map_destroy(s);
    en_vocab_destroy(s->vocab);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    bs_free(s);
    return status;
}
