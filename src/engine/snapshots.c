/* Recurrent states cannot be rolled back: snapshots taken at chosen positions of a prompt let a
 * conversation return there. They live in the prefix cache's memory, which never grows: old stored
 * conversations go first, then snapshots that are close to another one. */
#include "engine/internal.h"

#include "base/mem.h"

#include <string.h>

static bool wants_snapshots(const en_engine *e, const en_choice *c)
{
    const en_request *r = &c->request->set;
    return e->snapshot_bytes && !r->no_cache && (e->options.keep_prefixes || r->n > 1);
}

/* The next position after `from` that is worth a snapshot. Before the last token, because it has to
 * be computed again when the same prompt comes back; a little earlier, because templates write the
 * end of a prompt differently once it is followed by an answer; and at long regular distances, for
 * prompts that share their beginning only. */
static int next_position(const en_choice *c, int from)
{
    int n = c->request->set.n_prompt;
    int regular = (from / EN_BLOCK + 1) * EN_BLOCK;
    int tail = (n - 9) / EN_TAIL * EN_TAIL;
    int last = n - 1;
    int next = regular < last ? regular : last;
    if (tail > from && tail < next) next = tail;
    return next;
}

int en_next_cut(const en_engine *e, const en_choice *c, int from, int most)
{
    int left = c->request->set.n_prompt - from;
    if (left > most) left = most;
    if (!wants_snapshots(e, c)) return left;
    int distance = next_position(c, from) - from;
    return distance > 0 && distance < left ? distance : left;
}

bool en_snapshot_due(const en_engine *e, const en_choice *c)
{
    int before = c->fed - c->feeding;
    return wants_snapshots(e, c) && c->fed == next_position(c, before) &&
           c->fed < c->request->set.n_prompt;
}

static void free_snapshot(en_engine *e, en_history *h, int i)
{
    bs_pages_free(h->snapshot[i].bytes, e->snapshot_bytes);
    en_prefix_give(e, e->snapshot_bytes);
    h->n_snapshots--;
    memmove(&h->snapshot[i], &h->snapshot[i + 1],
            (size_t)(h->n_snapshots - i) * sizeof h->snapshot[0]);
}

void en_drop_snapshots(en_engine *e, en_history *h, int beyond)
{
    while (h->n_snapshots && h->snapshot[h->n_snapshots - 1].length > beyond)
        free_snapshot(e, h, h->n_snapshots - 1);
}

/* Drop the snapshot whose neighbours are closest; the last two stay unless `all` may go. */
static bool thin(en_engine *e, en_history *h, bool all)
{
    int n = all ? h->n_snapshots : h->n_snapshots - 2;
    if (n < 1) return false;
    int best = 0, least = -1;
    for (int i = 0; i < n; i++) {
        int before = i ? h->snapshot[i - 1].length : 0;
        int after = i + 1 < h->n_snapshots ? h->snapshot[i + 1].length : h->n;
        if (least < 0 || after - before < least) {
            least = after - before;
            best = i;
        }
    }
    free_snapshot(e, h, best);
    return true;
}

/* The idle slot whose conversation is oldest and has a snapshot to give. */
static en_history *oldest_idle(en_engine *e, const en_history *keep)
{
    en_history *oldest = NULL;
    for (int i = 0; i < e->options.parallel; i++) {
        en_history *h = &e->slots[i].history;
        if (e->slots[i].user || h == keep || !h->n_snapshots) continue;
        if (!oldest || h->last_use < oldest->last_use) oldest = h;
    }
    return oldest;
}

bool en_make_room(en_engine *e, en_history *keep, uint64_t bytes)
{
    if (bytes > e->plan.prefix_bytes) return false;
    while (e->prefix_used + bytes > e->plan.prefix_bytes) {
        if (en_drop_oldest_stored(e)) continue;
        en_history *idle = oldest_idle(e, keep);
        if (idle ? !thin(e, idle, true) : !(keep && thin(e, keep, false))) return false;
    }
    return true;
}

void en_take_snapshot(en_engine *e, en_slot *slot)
{
    en_history *h = &slot->history;
    if (h->n_snapshots && h->snapshot[h->n_snapshots - 1].length == h->n) return;
    if (h->n_snapshots == EN_SNAPSHOTS) thin(e, h, false);
    if (!en_make_room(e, h, e->snapshot_bytes)) return;
    void *bytes = bs_pages_alloc(e->snapshot_bytes);
    if (!bytes) return;
    md_snapshot_take(slot->state, bytes);
    en_prefix_take(e, e->snapshot_bytes);
    h->snapshot[h->n_snapshots++] = (en_snapshot){h->n, bytes};
}

int en_usable_prefix(const en_engine *e, const en_history *h, int common, bool live,
                     const void **snapshot)
{
    *snapshot = NULL;
    if (!e->snapshot_bytes || (live && common == h->n)) return common;
    for (int i = h->n_snapshots - 1; i >= 0; i--)
        if (h->snapshot[i].length <= common) {
            *snapshot = h->snapshot[i].bytes;
            return h->snapshot[i].length;
        }
    return 0;
}
