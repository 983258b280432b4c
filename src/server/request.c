/* request.c - the life of a request and its answer. See internal.h for who holds what. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/generate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Ids are random so that they say nothing about other clients; a counter is the fallback. */
static void make_id(sv_server *s, char out[32])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint8_t random[24];
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
        uint64_t n = atomic_fetch_add(&s->next_id, 1) + (uint64_t)bs_now_ns() * 0x9e3779b97f4a7c15u;
        for (size_t i = 0; i < sizeof random; i++, n = n * 6364136223846793005u + 1)
            random[i] = (uint8_t)(n >> 56);
    }
    for (int i = 0; i < 24; i++) out[i] = digits[random[i] % 36];
    out[24] = 0;
}

sv_request *sv_request_new(sv_server *s, struct MHD_Connection *mhd, const char *method)
{
    sv_request *r = bs_calloc(1, sizeof *r);
    if (!r) return NULL;
    r->server = s;
    r->mhd = mhd;
    r->refs = 1;
    r->head = !strcmp(method, "HEAD");
    r->started = r->last_output = bs_now();
    r->created = (long)time(NULL);
    make_id(s, r->id);
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_lock(&s->lock);
    r->next = s->requests;
    if (r->next) r->next->prev = r;
    s->requests = r;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void sv_hold(sv_request *r)
{
    pthread_mutex_lock(&r->lock);
    r->refs++;
    pthread_mutex_unlock(&r->lock);
}

void sv_drop(sv_request *r)
{
    sv_server *s = r->server;
    /* The list's lock is taken first, as in sv_watch, so that nobody finds a dying request. */
    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&r->lock);
    bool last = --r->refs == 0;
    if (last) {
        if (r->next) r->next->prev = r->prev;
        if (r->prev) r->prev->next = r->next;
        else s->requests = r->next;
        s->body_bytes -= r->body_counted;
    }
    pthread_mutex_unlock(&r->lock);
    pthread_mutex_unlock(&s->lock);
    if (!last) return;
    sv_gen_free(r->gen);
    bs_buf_free(&r->body);
    bs_buf_free(&r->out);
    pthread_mutex_destroy(&r->lock);
    bs_free(r);
}

/* Wake the connection so that HTTP looks again. Under r->lock. */
static void wake(sv_request *r)
{
    if (!r->suspended || !r->mhd) return;
    r->suspended = false;
    MHD_resume_connection(r->mhd);
}

void sv_answer_text(sv_request *r, int status, const char *content_type, const char *text, size_t n)
{
    pthread_mutex_lock(&r->lock);
    r->status = status;
    r->content_type = content_type;
    if (!bs_buf_append(&r->out, text, n)) r->broken = true;
    r->ready = r->finished = true;
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

void sv_answer(sv_request *r, int status, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    static const char lost[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\"}}";
    if (text) sv_answer_text(r, status, "application/json", text, strlen(text));
    else sv_answer_text(r, 500, "application/json", lost, sizeof lost - 1);
    free(text);
    json_decref(json);
}

json_t *sv_error_json(sv_dialect dialect, const sv_error *e)
{
    if (dialect == SV_ANTHROPIC) {
        const char *type = e->status == 401   ? "authentication_error"
                           : e->status == 403 ? "permission_error"
                           : e->status == 404 ? "not_found_error"
                           : e->status == 413 ? "request_too_large"
                           : e->status == 503 ? "overloaded_error"
                           : e->status >= 500 ? "api_error"
                                              : "invalid_request_error";
        return json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", type, "message",
                         e->message);
    }
    const char *type = e->status == 401   ? "authentication_error"
                       : e->status == 404 ? "not_found_error"
                       : e->status == 503 ? "overloaded_error"
                       : e->status >= 500 ? "server_error"
                                          : "invalid_request_error";
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", e->message, "type", type,
                     "param", e->param[0] ? e->param : NULL, "code", e->code);
}

void sv_refuse(sv_request *r, const sv_error *e)
{
    atomic_fetch_add(&r->server->n_errors, 1);
    r->retry_after = e->retry_after;
    sv_answer(r, e->status, sv_error_json(r->dialect, e));
}

/* --- streams ------------------------------------------------------------------------------------
 */

void sv_stream_begin(sv_request *r, const char *ping)
{
    pthread_mutex_lock(&r->lock);
    r->status = 200;
    r->content_type = "text/event-stream";
    r->ping = ping;
    r->ready = r->streaming = true;
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

bool sv_stream_write(sv_request *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    if (r->out.length - r->sent > SV_MAX_PENDING) r->broken = r->gone = true;
    if (!r->gone && !bs_buf_puts(&r->out, text)) r->broken = r->gone = true;
    r->last_output = bs_now();
    wake(r);
    bool ok = !r->gone;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

bool sv_stream_event(sv_request *r, const char *name, json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    bs_buf event = {0};
    if (name) bs_buf_printf(&event, "event: %s\n", name);
    bs_buf_puts(&event, "data: ");
    bs_buf_puts(&event, text ? text : "{}");
    bs_buf_puts(&event, "\n\n");
    bool ok = text && !event.failed && sv_stream_write(r, event.data);
    free(text);
    bs_buf_free(&event);
    json_decref(json);
    return ok;
}

void sv_stream_end(sv_request *r)
{
    pthread_mutex_lock(&r->lock);
    r->finished = true;
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

bool sv_is_gone(sv_request *r)
{
    pthread_mutex_lock(&r->lock);
    bool gone = r->gone;
    pthread_mutex_unlock(&r->lock);
    return gone;
}
