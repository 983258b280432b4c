/* http.c - libmicrohttpd: from bytes on a socket to a request, and back. All callbacks run in its
 * one thread and never wait for anything. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/generate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_LIMIT = 48 * 1024, PENDING_BODIES = 8, SWALLOWED = 8 };

static const char csp[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const char *sv_header(sv_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

/* --- answers ------------------------------------------------------------------------------------
 */

/* Give HTTP what has been written; when there is nothing, sleep until there is. */
static ssize_t read_answer(void *arg, uint64_t position, char *buffer, size_t max)
{
    (void)position;
    sv_request *r = arg;
    pthread_mutex_lock(&r->lock);
    ssize_t n = 0;
    size_t left = r->out.length - r->sent;
    if (r->broken || r->gone) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (left > 0) {
        n = (ssize_t)(left < max ? left : max);
        memcpy(buffer, r->out.data + r->sent, (size_t)n);
        r->sent += (size_t)n;
        if (r->sent == r->out.length) r->sent = r->out.length = 0;
    } else if (r->finished) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}

static void add_headers(sv_request *r, struct MHD_Response *response)
{
    sv_server *s = r->server;
    const char *origin = sv_allowed_origin(s, r->mhd);
    char number[16];
    MHD_add_response_header(response, "Content-Type",
                            r->content_type ? r->content_type : "application/json");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Cache-Control",
                            r->cache_control ? r->cache_control : "no-store");
    MHD_add_response_header(response, "Content-Security-Policy", csp);
    MHD_add_response_header(response, "x-request-id", r->id);
    if (r->retry_after > 0) {
        snprintf(number, sizeof number, "%d", r->retry_after);
        MHD_add_response_header(response, "Retry-After", number);
    }
    if (r->streaming) MHD_add_response_header(response, "X-Accel-Buffering", "no");
    if (r->status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (origin) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
        MHD_add_response_header(response, "Vary", "Origin");
    }
    if (s->draining || r->too_large) MHD_add_response_header(response, "Connection", "close");
}

static enum MHD_Result queue_answer(sv_request *r)
{
    struct MHD_Response *response;
    pthread_mutex_lock(&r->lock);
    if (r->streaming)
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_answer, r, NULL);
    else
        response = MHD_create_response_from_buffer(r->out.length, r->out.data ? r->out.data : "",
                                                   MHD_RESPMEM_PERSISTENT);
    if (response) add_headers(r, response);
    int status = r->status;
    bool lost = r->broken || r->gone;
    pthread_mutex_unlock(&r->lock);
    if (!response || lost) {
        if (response) MHD_destroy_response(response);
        return MHD_NO;
    }
    enum MHD_Result result = MHD_queue_response(r->mhd, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(sv_request *r, int status, const char *format, const char *what)
{
    sv_error e = {0};
    sv_error_set(&e, status, NULL, format, what);
    if (status == 503) e.retry_after = 1;
    sv_refuse(r, &e);
    return queue_answer(r);
}

/* A browser asks before it sends: the answer says what is allowed, without running anything. */
static enum MHD_Result preflight(sv_request *r)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!response) return MHD_NO;
    const char *origin = sv_allowed_origin(r->server, r->mhd);
    if (origin) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
        MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        MHD_add_response_header(response, "Access-Control-Allow-Headers",
                                "Authorization, Content-Type, X-Api-Key, Anthropic-Version, "
                                "Anthropic-Beta, X-Stainless-*, *");
        MHD_add_response_header(response, "Access-Control-Max-Age", "600");
        MHD_add_response_header(response, "Vary", "Origin");
    }
    MHD_add_response_header(response, "Allow", "GET, HEAD, POST, OPTIONS");
    enum MHD_Result result = MHD_queue_response(r->mhd, MHD_HTTP_NO_CONTENT, response);
    MHD_destroy_response(response);
    return result;
}

/* --- requests -----------------------------------------------------------------------------------
 */

static const sv_route *find_route(const char *method, const char *path, bool *path_known)
{
    const char *wanted = !strcmp(method, "HEAD") ? "GET" : method;
    *path_known = false;
    for (const sv_route *route = sv_routes; route->path; route++) {
        size_t n = strlen(route->path);
        bool prefix = route->path[n - 1] == '*';
        if (prefix ? strncmp(path, route->path, n - 1) != 0 : strcmp(path, route->path) != 0)
            continue;
        *path_known = true;
        if (!strcmp(route->method, wanted)) return route;
    }
    return NULL;
}

typedef struct framing {
    int lengths, encodings, hosts;
} framing;

static enum MHD_Result count_framing(void *arg, enum MHD_ValueKind kind, const char *key,
                                     const char *value)
{
    (void)kind;
    (void)value;
    framing *f = arg;
    f->lengths += !strcasecmp(key, "Content-Length");
    f->encodings += !strcasecmp(key, "Transfer-Encoding");
    f->hosts += !strcasecmp(key, "Host");
    return MHD_YES;
}

/* The body's length is said once and in one way, or a proxy and we may read two different requests
 * out of the same bytes. */
static const char *bad_framing(sv_request *r, const char *version, uint64_t *length)
{
    framing f = {0};
    *length = 0;
    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, count_framing, &f);
    if (f.lengths > 1) return "more than one Content-Length";
    if (f.encodings > 1 || (f.encodings && f.lengths))
        return "Content-Length and Transfer-Encoding";
    if (f.hosts > 1) return "more than one Host";
    if (!strcmp(version, "HTTP/1.1") && f.hosts == 0) return "no Host header";
    const char *text = sv_header(r, "Content-Length");
    if (text) {
        if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
            return "an impossible Content-Length";
        *length = strtoull(text, NULL, 10);
    }
    return NULL;
}

/* Everything that the headers alone decide. MHD_YES with *go: take the body. */
static enum MHD_Result first_look(sv_request *r, const char *url, const char *method,
                                  const char *version, bool *go)
{
    sv_server *s = r->server;
    bool path_known;
    uint64_t length;
    r->route = find_route(method, url, &path_known);
    r->dialect = r->route                            ? r->route->dialect
                 : !strncmp(url, "/v1/messages", 12) ? SV_ANTHROPIC
                                                     : SV_OPENAI;
    const char *wrong = bad_framing(r, version, &length);
    r->too_large = true; /* until the body is taken: an answer now ends the connection */
    if (wrong) return refuse(r, 400, "malformed request: %s", wrong);
    if (!sv_host_allowed(s, r->mhd))
        return refuse(r, 403, "this server answers to local names only%s", "");
    if (!strcmp(method, "OPTIONS") && path_known) return preflight(r);
    if (!sv_origin_allowed(s, r->mhd))
        return refuse(r, 403, "pages of this origin may not call this server: see --origin%s", "");
    if (!path_known) return refuse(r, 404, "no such path: %.200s", url);
    if (!r->route) return refuse(r, 405, "method %.16s does not suit this path", method);
    if (!r->route->open && !sv_authorised(s, r->mhd, &r->scope)) {
        atomic_fetch_add(&s->n_refused, 1);
        return refuse(r, 401, "an API key is needed: Authorization: Bearer KEY%s", "");
    }
    if (length > s->options->max_body * SWALLOWED)
        return refuse(r, 413, "the request is larger than this server takes%s", "");
    if (s->draining) return refuse(r, 503, "the server is shutting down%s", "");
    r->too_large =
        length > s->options->max_body; /* read and dropped, so that it hears the answer */
    *go = true;
    return MHD_YES;
}

static void take_body(sv_request *r, const char *data, size_t n)
{
    sv_server *s = r->server;
    if (r->too_large) return;
    pthread_mutex_lock(&s->lock);
    bool room = r->body.length + n <= s->options->max_body &&
                s->body_bytes + n <= s->options->max_body * PENDING_BODIES;
    if (room) {
        s->body_bytes += n;
        r->body_counted += n;
    }
    pthread_mutex_unlock(&s->lock);
    if (!room || !bs_buf_append(&r->body, data, n)) {
        r->too_large = true;
        bs_buf_free(&r->body);
        memset(&r->body, 0, sizeof r->body);
    }
}

/* The request is complete: GET is answered here, the rest by the reader thread. */
static enum MHD_Result dispatch(sv_request *r)
{
    sv_server *s = r->server;
    r->dispatched = true;
    atomic_fetch_add(&s->n_requests, 1);
    r->conn->deadline = 0;
    if (r->too_large) return refuse(r, 413, "the request is larger than this server takes%s", "");
    if (!strcmp(r->route->method, "GET")) {
        r->route->handler(r, NULL);
        return queue_answer(r);
    }
    pthread_mutex_lock(&r->lock);
    r->suspended = true;
    r->refs++; /* the reader's */
    MHD_suspend_connection(r->mhd);
    pthread_mutex_unlock(&r->lock);
    pthread_mutex_lock(&s->lock);
    r->queued = NULL;
    *s->queue_end = r;
    s->queue_end = &r->queued;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return MHD_YES;
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **state)
{
    sv_server *s = arg;
    sv_request *r = *state;
    if (!r) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        sv_conn *conn = info ? info->socket_context : NULL;
        if (!conn || !(r = sv_request_new(s, mhd, method))) return MHD_NO;
        *state = r;
        r->conn = conn;
        conn->deadline = bs_now() + s->options->read_timeout;
        bool go = false;
        return first_look(r, url, method, version, &go);
    }
    if (*n > 0) {
        take_body(r, data, *n);
        *n = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&r->lock);
    bool ready = r->ready, gone = r->gone;
    pthread_mutex_unlock(&r->lock);
    if (gone) return MHD_NO;
    if (ready) return queue_answer(r);
    if (!r->dispatched) return dispatch(r);
    pthread_mutex_lock(&r->lock); /* woken without an answer: sleep again */
    bool still = !r->ready && !r->gone;
    if (still) {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
    }
    pthread_mutex_unlock(&r->lock);
    return still ? MHD_YES : queue_answer(r);
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)mhd;
    sv_request *r = *state;
    if (!r) return;
    *state = NULL;
    pthread_mutex_lock(&r->lock);
    r->mhd = NULL;
    r->suspended = false;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK) r->gone = true;
    uint64_t running = r->gone ? r->engine_id : 0;
    pthread_mutex_unlock(&r->lock);
    if (running) en_cancel(r->server->engine, running);
    r->conn->deadline = bs_now() + r->server->options->idle_timeout;
    sv_gen_log(r);
    sv_drop(r);
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    sv_server *s = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = info ? sv_conn_open(s, info->connect_fd) : NULL;
    } else {
        sv_conn_close(s, *context);
        *context = NULL;
    }
}

/* --- listening ----------------------------------------------------------------------------------
 */

static int open_socket(const char *host, int port, int *bound, fm_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int wrong = getaddrinfo(host, service, &hints, &list);
    if (wrong) {
        fm_fail(err, FM_E_ARGUMENT, "--host %s: %s", host, gai_strerror(wrong));
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 1024)) {
        int saved = errno;
        if (saved == EADDRINUSE)
            fm_fail(err, FM_E_BUSY, "port %d of %s is in use: choose another with --port", port,
                    host);
        else fm_fail_errno(err, saved, "cannot listen on %s port %d", host, port);
        if (fd >= 0) close(fd);
        freeaddrinfo(list);
        return -1;
    }
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    getsockname(fd, (struct sockaddr *)&name, &length);
    *bound = ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                              : ((struct sockaddr_in *)&name)->sin_port);
    freeaddrinfo(list);
    return fd;
}

/* Until the server runs, libmicrohttpd's remarks say why it does not; later they are about broken
 * clients, and of no use to anyone. */
__attribute__((format(printf, 2, 0))) static void remark(void *arg, const char *format,
                                                         va_list args)
{
    sv_server *s = arg;
    if (!s->running) vsnprintf(s->remark, sizeof s->remark, format, args);
}

static void raise_file_limit(int wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= (rlim_t)wanted) return;
    limit.rlim_cur = limit.rlim_max < (rlim_t)wanted ? limit.rlim_max : (rlim_t)wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void start_daemon(sv_server *s, int fd, unsigned how)
{
    const sv_options *o = s->options;
    s->daemon = MHD_start_daemon(
        how | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_PEDANTIC_CHECKS, 0, NULL, NULL,
        on_access, s, MHD_OPTION_EXTERNAL_LOGGER, remark, s, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_LIMIT, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)o->idle_timeout, MHD_OPTION_END);
}

fm_status sv_http_start(sv_server *s, fm_error *err)
{
    const sv_options *o = s->options;
    int port = 0, fd = open_socket(o->host, o->port, &port, err);
    if (fd < 0) return err ? err->code : FM_E_IO;
    raise_file_limit(o->max_connections + 128);
    start_daemon(s, fd, MHD_USE_EPOLL_INTERNAL_THREAD);
    if (!s->daemon)
        start_daemon(s, fd, MHD_USE_POLL_INTERNAL_THREAD); /* epoll is Linux only */
    s->running = true;
    if (!s->daemon) {
        close(fd);
        s->remark[strcspn(s->remark, "\n")] = 0;
        return fm_fail(err, FM_E_IO, "cannot start the HTTP server on port %d: %s", port,
                       s->remark);
    }
    bool v6 = strchr(o->host, ':') != NULL;
    char url[300];
    snprintf(url, sizeof url, "http://%s%s%s:%d", v6 ? "[" : "", o->host, v6 ? "]" : "", port);
    if (o->ready) o->ready(o->arg, url);
    return FM_OK;
}

void sv_http_stop(sv_server *s)
{
    if (s->daemon) MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
}
