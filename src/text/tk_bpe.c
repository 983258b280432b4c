/* Byte-pair merging. Among all adjacent pairs the one with the lowest rank is merged first, the
 * leftmost of equal ones; that order is the definition, everything here is a faster way to it:
 *   - a piece that is a token by itself is looked up (and remembered whether merging agrees);
 *   - short pieces are scanned for the lowest rank again and again;
 *   - long pieces keep a heap of pairs;
 *   - very long ones keep a list of positions for each rank instead: time and memory grow with the
 * text. */
#include "text/tk_bpe.h"

#include "base/mem.h"
#include "text/tk.h"
#include "text/unicode.h"

#include <stdio.h>
#include <string.h>

enum { SHORT = 48 };

static size_t pair_slot(const tk_bpe *b, uint64_t key)
{
    uint64_t h = (key >> 22) * 0x9E3779B97F4A7C15u;
    return (h ^ h >> 32) & (b->n_slots - 1);
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 43 | (uint64_t)(uint32_t)right << 22;
}

uint32_t tk_bpe_rank(const tk_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    for (size_t at = pair_slot(b, key); b->slots[at] != TK_NO_MERGE;
         at = (at + 1) & (b->n_slots - 1))
        if (!((b->slots[at] ^ key) >> 22)) return (uint32_t)(b->slots[at] & 0x3FFFFF);
    return TK_NO_RANK;
}

bool tk_bpe_insert(tk_bpe *b, int32_t left, int32_t right, uint32_t rank)
{
    uint64_t key = pair_key(left, right);
    size_t at = pair_slot(b, key);
    for (int probe = 0; b->slots[at] != TK_NO_MERGE; probe++, at = (at + 1) & (b->n_slots - 1)) {
        if (!((b->slots[at] ^ key) >> 22)) break; /* the later of two equal merges counts */
        if (probe == 4096) return false;
    }
    b->slots[at] = key | rank;
    return true;
}

/* --- short pieces --------------------------------------------------------------------------------
 */

static size_t merge_short(const tk_bpe *b, int32_t *ids, size_t n)
{
    uint32_t rank[SHORT];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = tk_bpe_rank(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == TK_NO_RANK) break;
        ids[best] = b->result[rank[best]];
        n--;
        for (size_t i = best + 1; i < n; i++) ids[i] = ids[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) rank[i] = rank[i + 1];
        if (best) rank[best - 1] = tk_bpe_rank(b, ids[best - 1], ids[best]);
        if (best + 1 < n) rank[best] = tk_bpe_rank(b, ids[best], ids[best + 1]);
    }
    return n;
}

/* --- long pieces ---------------------------------------------------------------------------------
 */

typedef struct symbol {
    int32_t id; /* -1: merged away */
    uint32_t prev, next;
} symbol;

enum { NONE = UINT32_MAX };

/* A growing array of the two flavours below; heap keys are rank << 32 | position. */
typedef struct heap {
    uint64_t *keys;
    size_t n, capacity;
} heap;

static bool heap_push(heap *h, uint64_t key)
{
    if (h->n == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 1024;
        uint64_t *keys = bs_realloc(h->keys, capacity, sizeof *keys);
        if (!keys) return false;
        h->keys = keys;
        h->capacity = capacity;
    }
    size_t i = h->n++;
    for (; i && h->keys[(i - 1) / 2] > key; i = (i - 1) / 2) h->keys[i] = h->keys[(i - 1) / 2];
    h->keys[i] = key;
    return true;
}

static uint64_t heap_pop(heap *h)
{
    uint64_t top = h->keys[0], last = h->keys[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->keys[child + 1] < h->keys[child]) child++;
        if (h->keys[child] >= last) break;
        h->keys[i] = h->keys[child];
    }
    h->keys[i] = last;
    return top;
}

static void link_symbols(symbol *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s[i] = (symbol){ids[i], i ? (uint32_t)i - 1 : NONE, i + 1 < n ? (uint32_t)i + 1 : NONE};
}

/* Merge s[at] with its right neighbour when the pair still has this rank. */
static bool merge_at(const tk_bpe *b, symbol *s, uint32_t at, uint32_t rank)
{
    if (s[at].id < 0 || s[at].next == NONE) return false;
    uint32_t right = s[at].next;
    if (tk_bpe_rank(b, s[at].id, s[right].id) != rank) return false;
    s[at].id = b->result[rank];
    s[at].next = s[right].next;
    if (s[right].next != NONE) s[s[right].next].prev = at;
    s[right].id = -1;
    return true;
}

/* The pairs that at now stands in: each goes to `put` with its rank. */
typedef bool put_pair(void *to, uint32_t rank, uint32_t at);

static bool put_neighbours(const tk_bpe *b, const symbol *s, uint32_t at, put_pair *put, void *to)
{
    bool ok = true;
    for (int side = 0; ok && side < 2; side++) {
        uint32_t left = side ? at : s[at].prev;
        if (left == NONE || s[left].next == NONE) continue;
        uint32_t rank = tk_bpe_rank(b, s[left].id, s[s[left].next].id);
        if (rank != TK_NO_RANK) ok = put(to, rank, left);
    }
    return ok;
}

static bool put_all(const tk_bpe *b, const symbol *s, size_t n, put_pair *put, void *to)
{
    bool ok = true;
    for (size_t i = 0; ok && i + 1 < n; i++) {
        uint32_t rank = tk_bpe_rank(b, s[i].id, s[i + 1].id);
        if (rank != TK_NO_RANK) ok = put(to, rank, (uint32_t)i);
    }
    return ok;
}

static bool put_on_heap(void *h, uint32_t rank, uint32_t at)
{
    return heap_push(h, (uint64_t)rank << 32 | at);
}

static bool drain_heap(const tk_bpe *b, symbol *s, heap *h)
{
    bool ok = true;
    while (ok && h->n) {
        uint64_t key = heap_pop(h);
        if (merge_at(b, s, (uint32_t)key, (uint32_t)(key >> 32)))
            ok = put_neighbours(b, s, (uint32_t)key, put_on_heap, h);
    }
    return ok;
}

static bool merge_by_heap(const tk_bpe *b, symbol *s, size_t n)
{
    heap h = {0};
    bool ok = put_all(b, s, n, put_on_heap, &h) && drain_heap(b, s, &h);
    bs_free(h.keys);
    return ok;
}

/* One list of positions a rank; a heap says which rank comes next. */
typedef struct lists {
    uint32_t *head, *tail; /* by rank: node + 1, 0 is none */
    struct node {
        uint32_t at, next;
    } * nodes;
    size_t n, capacity;
    uint32_t free_node; /* node + 1 */
    heap ranks;
    uint32_t *positions; /* of the rank in work */
    size_t n_positions;
} lists;

static bool lists_push(void *to, uint32_t rank, uint32_t at)
{
    lists *l = to;
    uint32_t node = l->free_node;
    if (node) l->free_node = l->nodes[node - 1].next;
    else {
        if (l->n == l->capacity) {
            size_t capacity = l->capacity ? l->capacity * 2 : 4096;
            struct node *nodes = bs_realloc(l->nodes, capacity, sizeof *nodes);
            if (!nodes) return false;
            l->nodes = nodes;
            l->capacity = capacity;
        }
        node = (uint32_t)++l->n;
    }
    l->nodes[node - 1] = (struct node){at, 0};
    if (l->head[rank]) l->nodes[l->tail[rank] - 1].next = node;
    else {
        l->head[rank] = node;
        if (!heap_push(&l->ranks, rank)) return false;
    }
    l->tail[rank] = node;
    return true;
}

static int by_position(const void *x, const void *y)
{
    uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
    return p < q ? -1 : p > q;
}

/* Take the list of a rank, in the order of positions. */
static bool lists_take(lists *l, uint32_t rank)
{
    size_t count = 0, i = 0;
    bool sorted = true;
    for (uint32_t node = l->head[rank]; node; node = l->nodes[node - 1].next) count++;
    uint32_t *positions = bs_realloc(l->positions, count, sizeof *positions);
    if (!positions) return false;
    l->positions = positions;
    for (uint32_t node = l->head[rank], next; node; node = next) {
        next = l->nodes[node - 1].next;
        positions[i] = l->nodes[node - 1].at;
        sorted = sorted && (!i || positions[i - 1] <= positions[i]);
        i++;
        l->nodes[node - 1].next = l->free_node;
        l->free_node = node;
    }
    l->head[rank] = 0;
    l->n_positions = count;
    if (!sorted) qsort(positions, count, sizeof *positions, by_position);
    return true;
}

/* Everything that is listed goes to a heap, and that goes on. */
static bool finish_by_heap(const tk_bpe *b, symbol *s, lists *l)
{
    heap h = {0};
    bool ok = true;
    while (ok && l->ranks.n) {
        uint32_t rank = (uint32_t)heap_pop(&l->ranks);
        for (uint32_t node = l->head[rank]; ok && node; node = l->nodes[node - 1].next)
            ok = put_on_heap(&h, rank, l->nodes[node - 1].at);
        l->head[rank] = 0;
    }
    ok = ok && drain_heap(b, s, &h);
    bs_free(h.keys);
    return ok;
}

/* Merge the pairs of one rank from left to right. When a merge made a pair of a lower rank, that
 * one is next: what is left of this rank goes back into its list, and *put_back counts how much. */
static bool merge_rank(const tk_bpe *b, symbol *s, lists *l, uint32_t rank, size_t *put_back)
{
    if (!lists_take(l, rank)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < l->n_positions; i++) {
        if (!merge_at(b, s, l->positions[i], rank)) continue;
        ok = put_neighbours(b, s, l->positions[i], lists_push, l);
        if (!l->ranks.n || l->ranks.keys[0] > rank) continue;
        *put_back += l->n_positions - i;
        while (ok && ++i < l->n_positions) ok = lists_push(l, rank, l->positions[i]);
    }
    return ok;
}

/* Putting back is rare in real vocabularies; where it is not, the heap takes over. */
static bool merge_by_lists(const tk_bpe *b, symbol *s, size_t n)
{
    lists l = {.head = bs_calloc(b->n_merges, sizeof *l.head),
               .tail = bs_calloc(b->n_merges, sizeof *l.tail)};
    size_t put_back = 0;
    bool ok = l.head && l.tail && put_all(b, s, n, lists_push, &l);
    while (ok && l.ranks.n && put_back < 8 * n)
        ok = merge_rank(b, s, &l, (uint32_t)heap_pop(&l.ranks), &put_back);
    ok = ok && finish_by_heap(b, s, &l);
    bs_free(l.head);
    bs_free(l.tail);
    bs_free(l.nodes);
    bs_free(l.ranks.keys);
    bs_free(l.positions);
    return ok;
}

static fm_status merge_long(tk_work *w, int32_t *ids, size_t *n)
{
    const tk_bpe *b = &w->t->bpe;
    if (*n >= NONE) return fm_fail(w->err, FM_E_LIMIT, "a piece of text of %zu characters", *n);
    symbol *s = bs_realloc(NULL, *n, sizeof *s);
    if (!s) return fm_fail_nomem(w->err, "encoding a text");
    link_symbols(s, ids, *n);
    bool ok = *n > 4096 ? merge_by_lists(b, s, *n) : merge_by_heap(b, s, *n);
    size_t count = 0;
    for (uint32_t i = 0; ok && i != NONE; i = s[i].next) ids[count++] = s[i].id;
    bs_free(s);
    if (!ok) return fm_fail_nomem(w->err, "encoding a text");
    *n = count;
    return FM_OK;
}

/* --- from a piece to its first symbols
 * ------------------------------------------------------------- */

static bool reserve(tk_work *w, size_t n)
{
    if (n <= w->n_symbols) return true;
    size_t want = n < 256 ? 256 : n;
    int32_t *ids = bs_realloc(w->symbols, want, sizeof *ids);
    if (!ids) return false;
    w->symbols = ids;
    w->n_symbols = want;
    return true;
}

/* The id of one character with the model's prefix and suffix around it, where there are any. */
static int32_t character_id(tk_work *w, const char *s, size_t n, bool first, bool last)
{
    const tk_bpe *b = &w->t->bpe;
    bool prefix = b->prefix && !first, suffix = b->suffix && last;
    if (!prefix && !suffix)
        return n == 1 ? b->byte[(uint8_t)*s] : tk_vocab_find(&w->t->vocab, s, n, false);
    w->lookup.length = 0;
    if (prefix) bs_buf_puts(&w->lookup, b->prefix);
    bs_buf_append(&w->lookup, s, n);
    if (suffix) bs_buf_puts(&w->lookup, b->suffix);
    if (w->lookup.failed) return -1;
    return tk_vocab_find(&w->t->vocab, w->lookup.data, w->lookup.length, false);
}

static bool has_fallback(const tk_bpe *b, const char *s, size_t size)
{
    if (!b->byte_fallback) return false;
    for (size_t j = 0; j < size; j++)
        if (b->fallback[(uint8_t)s[j]] < 0) return false;
    return true;
}

/* Fill w->symbols. Unknown characters become their bytes' tokens, or the unknown token (one for a
 * run of them with fuse_unk), or nothing. As in the reference an unknown token waits for the next
 * known character, so bytes that follow it come first. */
static fm_status first_symbols(tk_work *w, const char *s, size_t n, size_t *count)
{
    const tk_bpe *b = &w->t->bpe;
    if (!reserve(w, n + 1)) return fm_fail_nomem(w->err, "encoding a text");
    int32_t *ids = w->symbols;
    size_t k = 0;
    bool unk = false;
    for (size_t i = 0, size; i < n; i += size) {
        size = w->t->raw ? 1 : (size_t)tx_utf8_size((unsigned char)s[i]);
        int32_t id = w->t->raw ? b->byte[(uint8_t)s[i]]
                               : character_id(w, s + i, size, i == 0, i + size == n);
        if (id >= 0) {
            if (unk) ids[k++] = b->unk;
            unk = false;
            ids[k++] = id;
        } else if (!w->t->raw && has_fallback(b, s + i, size)) {
            for (size_t j = 0; j < size; j++) ids[k++] = b->fallback[(uint8_t)s[i + j]];
        } else if (b->unk >= 0) {
            if (unk && !b->fuse_unk) ids[k++] = b->unk;
            unk = true;
        }
    }
    if (unk) ids[k++] = b->unk;
    *count = k;
    return w->lookup.failed ? fm_fail_nomem(w->err, "encoding a text") : FM_OK;
}

static fm_status push(tk_work *w, const int32_t *ids, size_t n)
{
    if (!n) return FM_OK;
    tx_ids *out = w->out;
    if (out->capacity - out->length < n) {
        size_t capacity = out->capacity ? out->capacity * 2 : 64;
        while (capacity < out->length + n) capacity *= 2;
        int32_t *data = bs_realloc(out->data, capacity, sizeof *data);
        if (!data) return fm_fail_nomem(w->err, "encoding a text");
        out->data = data;
        out->capacity = capacity;
    }
    memcpy(out->data + out->length, ids, n * sizeof *ids);
    out->length += n;
    return FM_OK;
}

/* Merge a piece; on return w->symbols holds *n ids. */
static fm_status merge(tk_work *w, const char *s, size_t length, size_t *n)
{
    fm_status status = first_symbols(w, s, length, n);
    if (status || *n < 2) return status;
    if (*n > SHORT) return merge_long(w, w->symbols, n);
    *n = merge_short(&w->t->bpe, w->symbols, *n);
    return FM_OK;
}

/* --- the cache of a call: pieces of more than one token
 * --------------------------------------------- */

static tk_cache_entry *cache_entry(tk_work *w, uint64_t hash)
{
    if (!w->cache) {
        if (++w->misses < 64) return NULL; /* a short text does not repay the memory */
        w->cache = bs_calloc(TK_CACHE_SLOTS, sizeof *w->cache);
        if (!w->cache) return NULL;
    }
    return &w->cache[hash >> 40 & (TK_CACHE_SLOTS - 1)];
}

static fm_status through_cache(tk_work *w, uint64_t hash, const char *s, size_t length)
{
    tk_cache_entry *e = length <= TK_CACHE_BYTES ? cache_entry(w, hash) : NULL;
    if (e && e->count && e->length == length && !memcmp(e->piece, s, length))
        return push(w, e->ids, e->count);
    size_t n;
    fm_status status = merge(w, s, length, &n);
    if (status) return status;
    if (e && n && n <= TK_CACHE_IDS) {
        memcpy(e->piece, s, length);
        memcpy(e->ids, w->symbols, n * sizeof *e->ids);
        e->length = (uint8_t)length;
        e->count = (uint8_t)n;
    }
    return push(w, w->symbols, n);
}

/* The token that is the whole piece: its id when merging gives just that, else -1. */
static fm_status whole_piece(tk_work *w, uint64_t hash, const char *s, size_t length, int32_t *id)
{
    const tk_bpe *b = &w->t->bpe;
    *id = tk_vocab_find_hash(&w->t->vocab, hash, s, length, w->t->raw);
    if (*id < 0 || b->ignore_merges) return FM_OK;
    uint8_t known = atomic_load_explicit(&b->whole[*id], memory_order_relaxed);
    if (!known) {
        size_t n;
        fm_status status = merge(w, s, length, &n);
        if (status) return status;
        known = n == 1 && w->symbols[0] == *id ? 1 : 2;
        atomic_store_explicit(&b->whole[*id], known, memory_order_relaxed);
    }
    if (known == 2) *id = -1;
    return FM_OK;
}

static fm_status one_piece(tk_work *w, const char *s, size_t n)
{
    int32_t id;
    uint64_t hash = tk_hash(s, n);
    fm_status status = whole_piece(w, hash, s, n, &id);
    if (status) return status;
    return id >= 0 ? push(w, &id, 1) : through_cache(w, hash, s, n);
}

/* The end of the word that starts at `from`: the next U+2581 behind another character. */
static size_t word_end(const char *s, size_t n, size_t from)
{
    size_t i = from;
    while (i + 3 <= n && !memcmp(s + i, "\xE2\x96\x81", 3)) i += 3;
    for (;;) {
        const char *p = i < n ? memchr(s + i, 0xE2, n - i) : NULL;
        if (!p) return n;
        i = (size_t)(p - s);
        if (i + 3 <= n && !memcmp(p, "\xE2\x96\x81", 3)) return i;
        i++;
    }
}

fm_status tk_bpe_piece(tk_work *w, const char *s, size_t n)
{
    if (!n) return FM_OK;
    if (!w->t->bpe.word_cuts) return one_piece(w, s, n);
    fm_status status = FM_OK;
    for (size_t from = 0, to; !status && from < n; from = to) {
        to = word_end(s, n, from);
        status = one_piece(w, s + from, to - from);
    }
    return status;
}
