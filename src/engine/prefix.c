/* Reuse of computed prefixes. Tier one: the states in the slots, idle or busy. Tier two: stored
 * conversations, KV cache as bytes, bounded by the plan's prefix memory. A prefix is shared only
 * within one scope. At least one token of a prompt is always computed: its logits are needed. */
#include "engine/internal.h"

#include "base/mem.h"

#include <string.h>

/* A conversation shorter than this is not worth keeping when its slot is taken. */
enum { LEAST_STORED = 32 };

typedef struct found {
    int length; /* tokens that can be reused */
    const void *snapshot;
    en_slot *slot; /* one of these holds them */
    en_stored *stored;
} found;

bool en_prefix_init(en_engine *e)
{
    e->snapshot_bytes = md_snapshot_bytes(e->model);
    for (int i = 0; i < e->options.parallel; i++) {
        e->slots[i].history.ids =
            bs_calloc((size_t)e->plan.context, sizeof *e->slots[i].history.ids);
        if (!e->slots[i].history.ids) return false;
    }
    return true;
}

void en_prefix_take(en_engine *e, uint64_t bytes)
{
    pthread_mutex_lock(&e->lock);
    e->prefix_used += bytes;
    pthread_mutex_unlock(&e->lock);
}

void en_prefix_give(en_engine *e, uint64_t bytes)
{
    pthread_mutex_lock(&e->lock);
    e->prefix_used -= bytes;
    pthread_mutex_unlock(&e->lock);
}

void en_free_stored(en_engine *e, en_stored *s)
{
    en_drop_snapshots(e, &s->history, -1);
    bs_pages_free(s->kv, s->kv_bytes);
    en_prefix_give(e, s->kv_bytes + (uint64_t)s->history.n * sizeof *s->history.ids);
    bs_free(s->history.ids);
    bs_free(s);
}

bool en_drop_oldest_stored(en_engine *e)
{
    en_stored **at = &e->stored;
    if (!*at) return false;
    while ((*at)->next) at = &(*at)->next;
    en_stored *oldest = *at;
    *at = NULL;
    en_free_stored(e, oldest);
    return true;
}

void en_prefix_free(en_engine *e)
{
    while (en_drop_oldest_stored(e)) {
    }
    for (int i = 0; e->slots && i < e->options.parallel; i++) {
        en_drop_snapshots(e, &e->slots[i].history, -1);
        bs_free(e->slots[i].history.ids);
    }
}

void en_clear_slot(en_engine *e, en_slot *slot)
{
    en_drop_snapshots(e, &slot->history, -1);
    md_state_reset(slot->state);
    slot->history.n = 0;
}

static int common_prefix(const en_history *h, const en_request *r)
{
    int most = r->n_prompt - 1 < h->n ? r->n_prompt - 1 : h->n;
    int n = 0;
    while (n < most && h->ids[n] == r->prompt[n]) n++;
    return n;
}

/* The longest reusable prefix anywhere; idle slots win ties, they cost no copy. */
static found look_up(en_engine *e, const en_request *r)
{
    found best = {0};
    const void *snapshot;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < e->options.parallel; i++) {
            en_slot *slot = &e->slots[i];
            if (!slot->user != !pass || slot->history.scope != r->scope) continue;
            int n = common_prefix(&slot->history, r);
            n = en_usable_prefix(e, &slot->history, n, true, &snapshot);
            if (n > best.length) best = (found){n, snapshot, slot, NULL};
        }
    for (en_stored *s = e->stored; s; s = s->next) {
        if (s->history.scope != r->scope) continue;
        int n = common_prefix(&s->history, r);
        n = en_usable_prefix(e, &s->history, n, false, &snapshot);
        if (n > best.length) best = (found){n, snapshot, NULL, s};
    }
    if (best.length < EN_MIN_REUSE) best = (found){0};
    return best;
}

static en_slot *least_useful_idle(en_engine *e, const en_slot *but)
{
    en_slot *best = NULL;
    for (int i = 0; i < e->options.parallel; i++) {
        en_slot *slot = &e->slots[i];
        if (slot->user || slot == but) continue;
        if (!best || (best->history.n && !slot->history.n) ||
            (!best->history.n == !slot->history.n &&
             slot->history.last_use < best->history.last_use))
            best = slot;
    }
    return best;
}

/* The conversation in a slot that is about to be taken moves to the second tier, if it fits. */
static void store(en_engine *e, en_slot *slot)
{
    en_history *h = &slot->history;
    if (!e->options.keep_prefixes || h->n < LEAST_STORED) return;
    if (e->snapshot_bytes) en_take_snapshot(e, slot);
    if (e->snapshot_bytes && !h->n_snapshots) return;
    uint64_t kv_bytes = md_kv_bytes(e->model, h->n);
    uint64_t ids_bytes = (uint64_t)h->n * sizeof *h->ids;
    if (!en_make_room(e, h, kv_bytes + ids_bytes)) return;
    en_stored *s = bs_calloc(1, sizeof *s);
    int32_t *ids = bs_malloc(ids_bytes);
    void *kv = kv_bytes ? bs_pages_alloc(kv_bytes) : NULL;
    if (!s || !ids || (kv_bytes && !kv)) {
        bs_free(s);
        bs_free(ids);
        bs_pages_free(kv, kv_bytes);
        return;
    }
    if (kv_bytes) md_kv_export(slot->state, h->n, kv);
    memcpy(ids, h->ids, ids_bytes);
    *s = (en_stored){.history = *h, .kv = kv, .kv_bytes = kv_bytes, .next = e->stored};
    s->history.ids = ids;
    h->n_snapshots = 0; /* they belong to the stored one now */
    en_prefix_take(e, kv_bytes + ids_bytes);
    e->stored = s;
}

/* Go back to the first n tokens in place. */
static void rewind_slot(en_engine *e, en_slot *slot, int n, const void *snapshot)
{
    en_history *h = &slot->history;
    if (n < h->n && snapshot) md_snapshot_restore(slot->state, n, snapshot);
    else if (n < h->n && !md_state_truncate(slot->state, n)) n = 0;
    if (!n) {
        en_clear_slot(e, slot);
        return;
    }
    h->n = n;
    en_drop_snapshots(e, h, n);
}

/* Bring the found prefix into an empty slot. The prefix's own snapshots stay where they are. */
static void copy_prefix(en_engine *e, en_slot *to, const found *f)
{
    const en_history *from = f->slot ? &f->slot->history : &f->stored->history;
    if (f->slot) {
        if (md_state_copy(to->state, f->slot->state, f->length, f->snapshot, NULL)) {
            en_clear_slot(e, to);
            return;
        }
    } else {
        /* All of it comes back, then the state is cut: the bytes of a KV cache are one piece. */
        md_kv_import(to->state, from->n, f->stored->kv);
        if (f->snapshot) md_snapshot_restore(to->state, f->length, f->snapshot);
        else if (!md_state_truncate(to->state, f->length)) {
            en_clear_slot(e, to);
            return;
        }
    }
    memcpy(to->history.ids, from->ids, (size_t)f->length * sizeof *from->ids);
    to->history.n = f->length;
}

bool en_take_slot(en_engine *e, en_choice *c)
{
    const en_request *r = &c->request->set;
    en_slot *slot = least_useful_idle(e, NULL);
    if (!slot) return false;
    found f = {0};
    if (!r->no_cache && (e->options.keep_prefixes || r->n > 1)) f = look_up(e, r);
    bool idle = f.slot && !f.slot->user;
    en_slot *other = idle ? least_useful_idle(e, f.slot) : NULL;
    if (idle && (f.length * 2 >= f.slot->history.n || !other)) {
        slot = f.slot;
        rewind_slot(e, slot, f.length, f.snapshot);
    } else {
        if (idle) slot = other;
        if (f.stored) f.stored->history.last_use = e->totals.steps;
        /* Storing may evict: what was found must outlive it, so it is looked up again. */
        store(e, slot);
        en_clear_slot(e, slot);
        if (f.length) f = look_up(e, r);
        if (f.length && f.slot != slot) copy_prefix(e, slot, &f);
    }
    slot->history.scope = r->scope;
    slot->history.last_use = e->totals.steps;
    slot->user = c;
    c->slot = slot;
    return true;
}

void en_forget_prefixes(en_engine *e, uint64_t scope, bool all)
{
    for (en_stored **at = &e->stored; *at;) {
        en_stored *s = *at;
        if (all || s->history.scope == scope) {
            *at = s->next;
            en_free_stored(e, s);
        } else {
            at = &s->next;
        }
    }
    for (int i = 0; i < e->options.parallel; i++) {
        en_slot *slot = &e->slots[i];
        if (!slot->user && (all || slot->history.scope == scope)) en_clear_slot(e, slot);
    }
}
