/* watch.c - what time does: clients that are too slow to ask, that went away while they waited, or
 * that hear nothing for too long. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <poll.h>
#include <sys/socket.h>

sv_conn *sv_conn_open(sv_server *s, int fd)
{
    sv_conn *c = bs_calloc(1, sizeof *c);
    if (!c) return NULL;
    c->fd = fd;
    c->deadline = bs_now() + s->options->read_timeout;
    pthread_mutex_lock(&s->lock);
    c->next = s->conns;
    if (c->next) c->next->prev = c;
    s->conns = c;
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_add(&s->n_connections, 1);
    atomic_fetch_add(&s->open_connections, 1);
    return c;
}

void sv_conn_close(sv_server *s, sv_conn *c)
{
    if (!c) return;
    pthread_mutex_lock(&s->lock);
    if (c->next) c->next->prev = c->prev;
    if (c->prev) c->prev->next = c->next;
    else s->conns = c->next;
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_sub(&s->open_connections, 1);
    bs_free(c);
}

/* A connection must finish sending its request in time, however slowly it drips: libmicrohttpd's
 * own timeout starts anew with each byte. The socket is shut, not closed; HTTP sees the end. */
static void shut_late(sv_server *s, double now)
{
    for (sv_conn *c = s->conns; c; c = c->next)
        if (c->deadline > 0 && now > c->deadline) {
            shutdown(c->fd, SHUT_RDWR);
            c->deadline = 0;
        }
}

/* Has the other side closed? Asked of requests that wait for the model: HTTP does not look at a
 * suspended connection. */
static bool hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static void look_at(sv_server *s, sv_request *r, double now)
{
    uint64_t cancel = 0;
    pthread_mutex_lock(&r->lock);
    if (r->suspended && r->mhd && !r->gone) {
        if (hung_up(r->conn->fd)) {
            r->gone = true;
            cancel = r->engine_id;
        } else if (r->streaming && r->ping && !r->finished &&
                   now - r->last_output >= s->options->ping_interval) {
            r->last_output = now;
            bs_buf_puts(&r->out, r->ping);
        }
        if (r->gone || r->out.length > r->sent) {
            r->suspended = false;
            MHD_resume_connection(r->mhd);
        }
    }
    pthread_mutex_unlock(&r->lock);
    if (cancel) en_cancel(s->engine, cancel);
}

void sv_watch(sv_server *s)
{
    double now = bs_now();
    sv_map_send(s);
    pthread_mutex_lock(&s->lock);
    shut_late(s, now);
    for (sv_request *r = s->requests; r; r = r->next) look_at(s, r, now);
    pthread_mutex_unlock(&s->lock);
}
