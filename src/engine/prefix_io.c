/* Cached conversations as bytes, for a store on disk. Layout, little-endian as the machine writes
 * it: header, ids, KV cache, snapshots (length, bytes). A checksum over all and a fingerprint of
 * model and settings guard against foreign and damaged files. */
#include "engine/internal.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct header {
    char magic[8];
    uint64_t fingerprint, bytes, checksum; /* checksum: of everything after the header */
    int32_t n_ids, n_snapshots;
} header;

static const char magic[8] = "fmkv001";

static uint64_t mix(uint64_t hash, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (; n; n--, p++) hash = (hash ^ *p) * 0x100000001b3u;
    return hash ^ (hash >> 32);
}

/* What a state depends on: the checkpoint's table of contents and config, and how we compute. */
static uint64_t fingerprint(en_engine *e)
{
    uint64_t hash = mix(0xcbf29ce484222325u, FM_VERSION, strlen(FM_VERSION));
    char *config = json_dumps(md_config(e->model), JSON_SORT_KEYS | JSON_COMPACT);
    if (config) hash = mix(hash, config, strlen(config));
    free(config);
    const ts_store *store = md_store(e->model);
    for (size_t i = 0; store && i < ts_count(store); i++) {
        const ts_tensor *t = ts_at(store, i);
        hash = mix(hash, t->name, strlen(t->name));
        hash = mix(hash, &t->offset, sizeof t->offset);
        hash = mix(hash, &t->bytes, sizeof t->bytes);
    }
    for (int i = 0; store && i < ts_file_count(store); i++) {
        uint64_t bytes = ts_file_bytes(store, i);
        hash = mix(hash, &bytes, sizeof bytes);
    }
    int32_t how[] = {KN_ARITHMETIC, e->options.kv_bits, (int32_t)e->options.precision,
                     e->options.mlx_router};
    return mix(hash, how, sizeof how);
}

/* The i-th conversation by last use, idle slots and stored ones together; *slot tells which kind.
 */
static en_history *nth(en_engine *e, int i, en_slot **slot, en_stored **stored)
{
    int n_slots = e->options.parallel, n_stored = 0;
    for (en_stored *s = e->stored; s; s = s->next) n_stored++;
    for (int rank = 0, total = n_slots + n_stored; rank < total; rank++) {
        en_stored *s = e->stored;
        for (int k = n_slots; rank >= n_slots && k < rank; k++) s = s->next;
        en_history *h = rank < n_slots ? &e->slots[rank].history : &s->history;
        if (rank < n_slots && (e->slots[rank].user || !h->n)) continue;
        int newer = 0;
        for (int o = 0; o < n_slots; o++)
            newer += !e->slots[o].user && e->slots[o].history.n &&
                     (e->slots[o].history.last_use > h->last_use ||
                      (e->slots[o].history.last_use == h->last_use && o < rank));
        int at = n_slots;
        for (en_stored *o = e->stored; o; o = o->next, at++)
            newer += o->history.last_use > h->last_use ||
                     (o->history.last_use == h->last_use && at < rank);
        if (newer != i) continue;
        *slot = rank < n_slots ? &e->slots[rank] : NULL;
        *stored = rank < n_slots ? NULL : s;
        return h;
    }
    return NULL;
}

static uint64_t export_bytes(const en_engine *e, const en_history *h, int snapshots)
{
    return sizeof(header) + (uint64_t)h->n * sizeof(int32_t) + md_kv_bytes(e->model, h->n) +
           (uint64_t)snapshots * (sizeof(int32_t) + e->snapshot_bytes);
}

/* An idle slot's live recurrent state goes along as one more snapshot. */
static bool has_live_state(const en_engine *e, const en_history *h, const en_slot *slot)
{
    return slot && e->snapshot_bytes &&
           !(h->n_snapshots && h->snapshot[h->n_snapshots - 1].length == h->n);
}

bool en_prefix_info(en_engine *e, int i, en_prefix_entry *out)
{
    en_slot *slot;
    en_stored *stored;
    en_history *h = nth(e, i, &slot, &stored);
    if (!h) return false;
    *out = (en_prefix_entry){h->scope, h->ids, h->n,
                             export_bytes(e, h, h->n_snapshots + has_live_state(e, h, slot))};
    return true;
}

bool en_prefix_borrow(en_engine *e, uint64_t bytes)
{
    if (!en_make_room(e, NULL, bytes)) return false;
    en_prefix_take(e, bytes);
    return true;
}

void en_prefix_return(en_engine *e, uint64_t bytes)
{
    en_prefix_give(e, bytes);
}

fm_status en_prefix_export(en_engine *e, int i, void *out, fm_error *err)
{
    en_slot *slot;
    en_stored *stored;
    en_history *h = nth(e, i, &slot, &stored);
    if (!h) return fm_fail(err, FM_E_NOT_FOUND, "there is no cached conversation %d", i);
    bool live = has_live_state(e, h, slot);
    int32_t snapshots = h->n_snapshots + live;
    char *p = (char *)out + sizeof(header);
    memcpy(p, h->ids, (size_t)h->n * sizeof *h->ids);
    p += (size_t)h->n * sizeof *h->ids;
    uint64_t kv_bytes = md_kv_bytes(e->model, h->n);
    if (slot) md_kv_export(slot->state, h->n, p);
    else if (kv_bytes) memcpy(p, stored->kv, kv_bytes);
    p += kv_bytes;
    for (int s = 0; s < snapshots; s++) {
        int32_t length = s < h->n_snapshots ? h->snapshot[s].length : h->n;
        memcpy(p, &length, sizeof length);
        p += sizeof length;
        if (s < h->n_snapshots) memcpy(p, h->snapshot[s].bytes, e->snapshot_bytes);
        else md_snapshot_take(slot->state, p);
        p += e->snapshot_bytes;
    }
    header head = {.fingerprint = fingerprint(e),
                   .bytes = export_bytes(e, h, snapshots),
                   .n_ids = h->n,
                   .n_snapshots = snapshots};
    memcpy(head.magic, magic, sizeof magic);
    head.checksum = mix(0, (char *)out + sizeof head, head.bytes - sizeof head);
    memcpy(out, &head, sizeof head);
    return FM_OK;
}

static fm_status check_import(en_engine *e, const header *head, const char *data, size_t bytes,
                              fm_error *err)
{
    if (memcmp(head->magic, magic, sizeof magic) || head->bytes != bytes || head->n_ids < 1 ||
        head->n_snapshots < 0 || head->n_snapshots > EN_SNAPSHOTS + 1)
        return fm_fail(err, FM_E_FORMAT, "saved conversation: damaged or cut short");
    if (head->fingerprint != fingerprint(e))
        return fm_fail(err, FM_E_STALE,
                       "saved conversation: made by another model, version or setting");
    if (head->n_ids > e->plan.context)
        return fm_fail(err, FM_E_LIMIT, "saved conversation: %d tokens, the context has %d",
                       head->n_ids, e->plan.context);
    en_history h = {.n = head->n_ids};
    if (export_bytes(e, &h, head->n_snapshots) != bytes ||
        head->checksum != mix(0, data + sizeof *head, bytes - sizeof *head))
        return fm_fail(err, FM_E_FORMAT, "saved conversation: damaged or cut short");
    if (e->snapshot_bytes && !head->n_snapshots)
        return fm_fail(err, FM_E_FORMAT, "saved conversation: has no recurrent state");
    return FM_OK;
}

/* Snapshots of the bytes at p into s; false when out of memory or out of order. */
static bool read_snapshots(en_engine *e, en_stored *s, const char *p, int n)
{
    int before = 0;
    int skip = n > EN_SNAPSHOTS ? n - EN_SNAPSHOTS : 0;
    for (int i = 0; i < n; i++) {
        int32_t length;
        memcpy(&length, p, sizeof length);
        p += sizeof length;
        if (length <= before || length > s->history.n) return false;
        before = length;
        if (i >= skip) {
            void *bytes = bs_pages_alloc(e->snapshot_bytes);
            if (!bytes) return false;
            memcpy(bytes, p, e->snapshot_bytes);
            en_prefix_take(e, e->snapshot_bytes);
            s->history.snapshot[s->history.n_snapshots++] = (en_snapshot){length, bytes};
        }
        p += e->snapshot_bytes;
    }
    return true;
}

fm_status en_prefix_import(en_engine *e, uint64_t scope, const void *data, size_t bytes,
                           fm_error *err)
{
    header head;
    if (bytes < sizeof head)
        return fm_fail(err, FM_E_FORMAT, "saved conversation: damaged or cut short");
    memcpy(&head, data, sizeof head);
    fm_status status = check_import(e, &head, data, bytes, err);
    if (status) return status;
    if (!en_make_room(e, NULL, bytes - sizeof head))
        return fm_fail(err, FM_E_LIMIT,
                       "saved conversation: %zu bytes are more than the prefix cache has", bytes);
    const char *p = (const char *)data + sizeof head;
    size_t ids_bytes = (size_t)head.n_ids * sizeof(int32_t);
    uint64_t kv_bytes = md_kv_bytes(e->model, head.n_ids);
    en_stored *s = bs_calloc(1, sizeof *s);
    int32_t *ids = bs_malloc(ids_bytes);
    void *kv = kv_bytes ? bs_pages_alloc(kv_bytes) : NULL;
    if (!s || !ids || (kv_bytes && !kv)) {
        bs_free(s);
        bs_free(ids);
        bs_pages_free(kv, kv_bytes);
        return fm_fail_nomem(err, "loading a saved conversation");
    }
    memcpy(ids, p, ids_bytes);
    if (kv_bytes) memcpy(kv, p + ids_bytes, kv_bytes);
    *s = (en_stored){
        .history = {.scope = scope, .ids = ids, .n = head.n_ids, .last_use = e->totals.steps},
        .kv = kv,
        .kv_bytes = kv_bytes};
    en_prefix_take(e, kv_bytes + ids_bytes);
    if (!read_snapshots(e, s, p + ids_bytes + kv_bytes, head.n_snapshots)) {
        en_free_stored(e, s);
        return fm_fail(err, FM_E_FORMAT, "saved conversation: damaged or too large for memory");
    }
    s->next = e->stored;
    e->stored = s;
    return FM_OK;
}
