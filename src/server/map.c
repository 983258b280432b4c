/* map.c - the live picture: which experts are in memory, which were used, which had to be read.
 *
 * The engine's thread looks at the cache a few times a second while somebody watches; between two
 * looks it notes what the router chose. A look is one line of JSON, the same for all watchers. */
#include "server/internal.h"

#include "base/clock.h"
#include "base/mem.h"
#include "experts/fixed.h"

#include <stdio.h>
#include <string.h>

/* A cell is one character, '0' plus these: plain text inside JSON. */
enum { RESIDENT = 1, PINNED = 2, COMING = 4, HIT = 8, READ = 16 };

enum { EVERY_MS = 100, LAG = 512 << 10 };

struct sv_map {
    pthread_mutex_t lock;
    bs_buf frame; /* the latest event, as it is sent */
    uint64_t number, sent;
    atomic_int watchers;
    /* The engine's thread alone. */
    int n_layers, most;
    uint8_t *used; /* [n_layers][most] HIT and READ since the last look */
    double last;
    bool watching;
};

static const xp_source *source_of(sv_server *s)
{
    return md_expert_source(en_model(s->engine));
}

fm_status sv_map_create(sv_server *s, fm_error *err)
{
    sv_map *m = s->map = bs_calloc(1, sizeof *m);
    if (!m) return fm_fail_nomem(err, "starting the server");
    pthread_mutex_init(&m->lock, NULL);
    const xp_source *source = source_of(s);
    m->n_layers = source ? source->n_layers : 0;
    for (int l = 0; l < m->n_layers; l++)
        if (source->layers[l].n_experts > m->most) m->most = source->layers[l].n_experts;
    m->used = bs_calloc((size_t)m->n_layers * (size_t)m->most + 1, 1);
    return m->used ? FM_OK : fm_fail_nomem(err, "starting the server");
}

void sv_map_destroy(sv_server *s)
{
    if (!s->map) return;
    bs_buf_free(&s->map->frame);
    bs_free(s->map->used);
    pthread_mutex_destroy(&s->map->lock);
    bs_free(s->map);
    s->map = NULL;
}

/* --- the engine's thread -----------------------------------------------------------------------
 */

static void on_route(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    (void)token;
    (void)weights;
    sv_server *s = arg;
    sv_map *m = s->map;
    const xp_cache *cache = en_experts(s->engine);
    for (int i = 0; i < top_k && layer < m->n_layers; i++) {
        if (experts[i] < 0 || experts[i] >= m->most) continue;
        m->used[layer * m->most + experts[i]] |=
            xp_is_resident(cache, layer, experts[i]) ? HIT : READ;
    }
}

/* Watch the router only while somebody looks. */
static void follow_watchers(sv_server *s, bool wanted)
{
    sv_map *m = s->map;
    if (wanted == m->watching) return;
    if (wanted && en_watch_routes(s->engine, on_route, s, NULL)) return;
    if (!wanted) en_unwatch_routes(s->engine, on_route, s);
    m->watching = wanted;
}

static void put_cells(sv_server *s, bs_buf *out)
{
    sv_map *m = s->map;
    const xp_source *source = source_of(s);
    const xp_cache *cache = en_experts(s->engine);
    for (int l = 0; l < m->n_layers; l++) {
        for (int e = 0; e < m->most; e++) {
            uint8_t *used = &m->used[l * m->most + e];
            int cell = *used;
            *used = 0;
            if (e < source->layers[l].n_experts) {
                if (xp_is_resident(cache, l, e)) cell |= RESIDENT;
                if (xp_is_pinned(cache, l, e)) cell |= PINNED;
                if (xp_is_coming(cache, l, e)) cell |= COMING;
            }
            bs_buf_putc(out, (char)('0' + cell));
        }
    }
}

static void put_frame(sv_server *s, bs_buf *out)
{
    sv_map *m = s->map;
    const md_info *info = en_describe(s->engine);
    en_stats st;
    en_get_stats(s->engine, &st);
    bs_buf_printf(out,
                  "data: {\"ms\":%.0f,\"layers\":%d,\"experts\":%d,\"top_k\":%d,\"active\":%d,"
                  "\"waiting\":%d,\"tokens\":%llu,\"prompt_tokens\":%llu,\"cached_tokens\":%llu,"
                  "\"steps\":%llu,\"hits\":%llu,\"misses\":%llu,\"bytes_read\":%llu,"
                  "\"wait_ms\":%.1f,",
                  bs_now() * 1e3, m->n_layers, m->most, info->top_k, st.active, st.waiting,
                  (unsigned long long)st.tokens, (unsigned long long)st.prompt_tokens,
                  (unsigned long long)st.cached_tokens, (unsigned long long)st.steps,
                  (unsigned long long)st.expert_hits, (unsigned long long)st.expert_misses,
                  (unsigned long long)st.bytes_read, st.read_ms_exposed);
    bs_buf_printf(out,
                  "\"expert_bytes\":%llu,\"step_bytes\":%llu,\"slots\":%d,\"slot_bytes\":%llu,"
                  "\"resident_bytes\":%llu,\"state_bytes\":%llu,\"prefix_bytes\":%llu,"
                  "\"budget_bytes\":%llu,\"rss\":%llu,\"map\":\"",
                  (unsigned long long)info->expert_bytes,
                  (unsigned long long)info->decode_read_bytes, st.slots,
                  (unsigned long long)st.slot_bytes, (unsigned long long)st.resident_bytes,
                  (unsigned long long)st.state_bytes, (unsigned long long)st.prefix_bytes,
                  (unsigned long long)st.budget_bytes, (unsigned long long)st.peak_rss_bytes);
    put_cells(s, out);
    bs_buf_puts(out, "\"}\n\n");
}

void sv_map_sample(sv_server *s)
{
    sv_map *m = s->map;
    double now = bs_now();
    bool wanted = atomic_load(&m->watchers) > 0;
    follow_watchers(s, wanted);
    if (!wanted || now - m->last < EVERY_MS / 1e3) return;
    m->last = now;
    pthread_mutex_lock(&m->lock);
    m->frame.length = 0;
    put_frame(s, &m->frame);
    m->number++;
    pthread_mutex_unlock(&m->lock);
}

/* --- the watchers
 * --------------------------------------------------------------------------------- */

void sv_get_map(sv_request *r, json_t *body)
{
    (void)body;
    r->is_map = true;
    sv_stream_begin(r, ": ping\n\n");
    sv_stream_write(r, ": watching\n\n");
    en_wake(r->server->engine);
}

/* Called by the watching thread; counts who is there and sends what is new. A watcher that lags
 * misses pictures. */
void sv_map_send(sv_server *s)
{
    sv_map *m = s->map;
    int watchers = 0;
    pthread_mutex_lock(&s->lock);
    pthread_mutex_lock(&m->lock);
    bool fresh = m->number != m->sent && !m->frame.failed;
    m->sent = m->number;
    for (sv_request *r = s->requests; r; r = r->next) {
        if (!r->is_map) continue;
        pthread_mutex_lock(&r->lock);
        bool there = !r->gone && r->mhd && !r->finished, lags = r->out.length - r->sent > LAG;
        pthread_mutex_unlock(&r->lock);
        watchers += there;
        if (there && fresh && !lags) sv_stream_write(r, m->frame.data);
    }
    atomic_store(&m->watchers, watchers);
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_unlock(&s->lock);
}
