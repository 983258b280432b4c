/* grammar_match.c - walking a grammar: sets of (state, stack) pairs, made and remembered as they
 * are met, and the masks over the vocabulary.
 *
 * A stack is a list of return states; equal stacks are one node. A set of pairs is a "place";
 * equal sets are one place, so the walk becomes a deterministic automaton that is built only where
 * the text goes. Steps and masks are kept per place. When the tables grow past their limit all is
 * forgotten but the current place. */
#include "engine/grammar_build.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_SET = 4096, /* pairs in one place */
    SET_TABLE = 4 * MAX_SET,
    MAX_EFFORT = 100000000, /* pairs looked at for one mask: a hostile schema may not stall all */
    MAX_PLACES = 8192,      /* remembered before a flush */
    MAX_NODES = 1 << 16,    /* stack nodes before a flush */
    MAX_MASKS = 128,
    MAX_TOKEN = 256, /* longer tokens are never offered */
    NONE = -1,
    UNKNOWN = -2,
};

/* --- the vocabulary: tokens in byte order, with what each shares with the one before -----------
 */

struct en_vocab {
    int n_tokens, n_sorted, words, n_ends;
    int32_t *ends;
    int32_t *order;   /* [n_sorted] token ids */
    int32_t *rank;    /* [n_tokens] place in order, NONE for tokens without bytes */
    uint16_t *common; /* [n_sorted] bytes shared with the token before in order */
    uint16_t *length;
    uint32_t *offset;
    uint8_t *bytes;
};

typedef struct sort_item {
    const char *bytes;
    size_t length;
    int32_t id;
} sort_item;

static int by_bytes(const void *a, const void *b)
{
    const sort_item *x = a, *y = b;
    size_t n = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->bytes, y->bytes, n);
    if (order) return order;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static fm_status fill_vocab(en_vocab *v, const sort_item *items, size_t total, fm_error *err)
{
    size_t n = (size_t)v->n_sorted + 1;
    v->order = bs_malloc(n * sizeof *v->order);
    v->rank = bs_malloc((size_t)v->n_tokens * sizeof *v->rank);
    v->common = bs_malloc(n * sizeof *v->common);
    v->length = bs_malloc(n * sizeof *v->length);
    v->offset = bs_malloc(n * sizeof *v->offset);
    v->bytes = bs_malloc(total + 1);
    if (!v->order || !v->rank || !v->common || !v->length || !v->offset || !v->bytes)
        return fm_fail_nomem(err, "indexing the vocabulary");
    size_t at = 0;
    for (int id = 0; id < v->n_tokens; id++) v->rank[id] = NONE;
    for (int i = 0; i < v->n_sorted; i++) {
        size_t shared = 0;
        while (i > 0 && shared < items[i].length && shared < items[i - 1].length &&
               items[i].bytes[shared] == items[i - 1].bytes[shared])
            shared++;
        v->order[i] = items[i].id;
        v->rank[items[i].id] = i;
        v->common[i] = (uint16_t)shared;
        v->length[i] = (uint16_t)items[i].length;
        v->offset[i] = (uint32_t)at;
        memcpy(v->bytes + at, items[i].bytes, items[i].length);
        at += items[i].length;
    }
    return FM_OK;
}

fm_status en_vocab_create(int n_tokens, en_token_bytes_fn *bytes, void *arg, const int32_t *ends,
                          int n_ends, en_vocab **out, fm_error *err)
{
    if (n_tokens < 1 || n_ends < 0) return fm_fail(err, FM_E_ARGUMENT, "an empty vocabulary");
    en_vocab *v = bs_calloc(1, sizeof *v);
    sort_item *items = bs_calloc((size_t)n_tokens, sizeof *items);
    fm_status status = FM_OK;
    size_t total = 0;
    if (v) v->ends = bs_calloc((size_t)n_ends + 1, sizeof *v->ends);
    if (!v || !items || !v->ends) {
        status = fm_fail_nomem(err, "indexing the vocabulary");
    } else {
        v->n_tokens = n_tokens;
        v->words = (n_tokens + 31) / 32;
        v->n_ends = n_ends;
        if (n_ends) memcpy(v->ends, ends, (size_t)n_ends * sizeof *ends);
        for (int id = 0; id < n_tokens; id++) {
            sort_item item = {.id = id};
            item.bytes = bytes(arg, id, &item.length);
            if (!item.bytes || item.length == 0 || item.length > MAX_TOKEN) continue;
            items[v->n_sorted++] = item;
            total += item.length;
        }
        qsort(items, (size_t)v->n_sorted, sizeof *items, by_bytes);
        status = fill_vocab(v, items, total, err);
    }
    bs_free(items);
    if (status) en_vocab_destroy(v);
    else *out = v;
    return status;
}

void en_vocab_destroy(en_vocab *v)
{
    if (!v) return;
    bs_free(v->ends);
    bs_free(v->order);
    bs_free(v->rank);
    bs_free(v->common);
    bs_free(v->length);
    bs_free(v->offset);
    bs_free(v->bytes);
    bs_free(v);
}

int en_vocab_size(const en_vocab *v)
{
    return v->n_tokens;
}

/* --- tables -------------------------------------------------------------------------------------
 */

typedef struct node {
    int32_t state, parent, depth; /* return to state; parent node or NONE */
} node;

typedef struct pair {
    int32_t state, stack; /* stack: node or NONE */
} pair;

typedef struct place {
    int32_t first, n; /* pairs[first .. first + n) */
    int32_t *step;    /* [256] next place, NONE, UNKNOWN; made when first used */
    int32_t mask;     /* into masks, NONE */
    bool complete;    /* the text may end here */
    bool more;        /* a byte may follow */
} place;

struct en_matcher {
    const en_grammar *g;
    const en_vocab *v;
    node *nodes;
    pair *pairs;
    place *places;
    int32_t *node_table, *place_table; /* open addressing, index + 1, 0 empty */
    int n_nodes, n_pairs, n_places, cap_pairs;
    int32_t here;
    pair *work; /* [MAX_SET] the set being made */
    int n_work;
    uint64_t *set_table; /* [SET_TABLE] stamp << 32 | index into work */
    uint32_t stamp;
    int64_t effort;
    bool work_complete, overflow, nomem;
    uint32_t *masks; /* [MAX_MASKS][words] */
    int n_masks;
};

enum { NODE_TABLE = 2 * MAX_NODES, PLACE_TABLE = 4 * MAX_PLACES };

static uint32_t mix(uint32_t h, uint32_t x)
{
    h ^= x + 0x9e3779b9u + (h << 6) + (h >> 2);
    return h * 0x85ebca6bu ^ h >> 15;
}

/* The node (state, parent), made if new. NONE sets overflow. */
static int32_t push(en_matcher *m, int32_t state, int32_t parent)
{
    uint32_t h = mix(mix(1, (uint32_t)state), (uint32_t)parent) % NODE_TABLE;
    while (m->node_table[h]) {
        int32_t i = m->node_table[h] - 1;
        if (m->nodes[i].state == state && m->nodes[i].parent == parent) return i;
        h = (h + 1) % NODE_TABLE;
    }
    if (m->n_nodes == MAX_NODES) {
        m->overflow = true;
        return NONE;
    }
    m->nodes[m->n_nodes] = (node){state, parent, parent == NONE ? 1 : m->nodes[parent].depth + 1};
    m->node_table[h] = m->n_nodes + 1;
    return m->n_nodes++;
}

static int depth_of(const en_matcher *m, int32_t stack)
{
    return stack == NONE ? 0 : m->nodes[stack].depth;
}

/* Begin a new set. */
static void clear_set(en_matcher *m)
{
    m->n_work = 0;
    if (++m->stamp == 0) {
        memset(m->set_table, 0, SET_TABLE * sizeof *m->set_table);
        m->stamp = 1;
    }
}

/* Add a pair to the set being made, unless there or without room to be finished. */
static void add(en_matcher *m, int32_t state, int32_t stack)
{
    if (depth_of(m, stack) + m->g->need[state] > GB_MAX_STACK) return;
    if (++m->effort > MAX_EFFORT || m->n_work == MAX_SET) {
        m->overflow = true;
        return;
    }
    uint32_t h = mix(mix(7, (uint32_t)state), (uint32_t)stack) % SET_TABLE;
    for (; m->set_table[h] >> 32 == m->stamp; h = (h + 1) % SET_TABLE) {
        const pair *p = &m->work[(uint32_t)m->set_table[h]];
        if (p->state == state && p->stack == stack) return;
    }
    m->set_table[h] = (uint64_t)m->stamp << 32 | (uint32_t)m->n_work;
    m->work[m->n_work++] = (pair){state, stack};
}

static int by_pair(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return x->stack < y->stack ? -1 : x->stack > y->stack;
}

/* Close the set under eps, calls and returns, then keep only pairs that have a byte edge. */
static void close_set(en_matcher *m)
{
    const en_grammar *g = m->g;
    m->work_complete = false;
    for (int i = 0; i < m->n_work && !m->overflow; i++) {
        pair p = m->work[i];
        if (g->final[p.state]) {
            if (p.stack == NONE) m->work_complete = true;
            else add(m, m->nodes[p.stack].state, m->nodes[p.stack].parent);
        }
        for (int e = g->first[p.state]; e < g->first[p.state + 1]; e++) {
            const gb_edge *edge = &g->edges[e];
            if (edge->kind == GB_EPS) {
                add(m, edge->target, p.stack);
            } else if (edge->kind == GB_CALL &&
                       depth_of(m, p.stack) + 1 + g->need[g->rules[edge->rule].start] <=
                           GB_MAX_STACK &&
                       depth_of(m, p.stack) + g->need[edge->target] <= GB_MAX_STACK) {
                int32_t stack = push(m, edge->target, p.stack);
                if (stack != NONE) add(m, g->rules[edge->rule].start, stack);
            }
        }
    }
    int kept = 0;
    for (int i = 0; i < m->n_work; i++) {
        bool bytes = false;
        int s = m->work[i].state;
        for (int e = g->first[s]; e < g->first[s + 1] && !bytes; e++)
            bytes = g->edges[e].kind == GB_BYTES;
        if (bytes) m->work[kept++] = m->work[i];
    }
    m->n_work = kept;
    qsort(m->work, (size_t)kept, sizeof *m->work, by_pair);
}

/* The place of the set in work, made if new; NONE on overflow or when the set is dead. */
static int32_t find_place(en_matcher *m)
{
    close_set(m);
    if (m->overflow || (m->n_work == 0 && !m->work_complete)) return NONE;
    uint32_t h = m->work_complete;
    for (int i = 0; i < m->n_work; i++)
        h = mix(mix(h, (uint32_t)m->work[i].state), (uint32_t)m->work[i].stack);
    h %= PLACE_TABLE;
    while (m->place_table[h]) {
        const place *p = &m->places[m->place_table[h] - 1];
        if (p->n == m->n_work && p->complete == m->work_complete &&
            !memcmp(m->pairs + p->first, m->work, (size_t)p->n * sizeof(pair)))
            return m->place_table[h] - 1;
        h = (h + 1) % PLACE_TABLE;
    }
    if (m->n_places == MAX_PLACES) {
        m->overflow = true;
        return NONE;
    }
    if (m->n_pairs + m->n_work > m->cap_pairs) {
        int wanted = 2 * m->cap_pairs + m->n_work;
        pair *grown = bs_realloc(m->pairs, (size_t)wanted, sizeof *grown);
        if (!grown) {
            m->nomem = m->overflow = true;
            return NONE;
        }
        m->pairs = grown;
        m->cap_pairs = wanted;
    }
    memcpy(m->pairs + m->n_pairs, m->work, (size_t)m->n_work * sizeof(pair));
    m->places[m->n_places] = (place){.first = m->n_pairs,
                                     .n = m->n_work,
                                     .mask = NONE,
                                     .complete = m->work_complete,
                                     .more = m->n_work > 0};
    m->n_pairs += m->n_work;
    m->place_table[h] = m->n_places + 1;
    return m->n_places++;
}

static int32_t step(en_matcher *m, int32_t from, uint8_t byte)
{
    place *p = &m->places[from];
    if (!p->step) {
        p->step = bs_malloc(256 * sizeof *p->step);
        if (!p->step) {
            m->nomem = m->overflow = true;
            return NONE;
        }
        for (int c = 0; c < 256; c++) p->step[c] = UNKNOWN;
    }
    if (p->step[byte] != UNKNOWN) return p->step[byte];
    clear_set(m);
    for (int i = 0; i < p->n; i++) {
        pair at = m->pairs[p->first + i];
        for (int e = m->g->first[at.state]; e < m->g->first[at.state + 1]; e++) {
            const gb_edge *edge = &m->g->edges[e];
            if (edge->kind == GB_BYTES && edge->lo <= byte && byte <= edge->hi)
                add(m, edge->target, at.stack);
        }
    }
    int32_t to = m->n_work ? find_place(m) : NONE;
    if (!m->overflow) m->places[from].step[byte] = to;
    return to;
}

/* Forget all but the current place. Stacks are copied node by node, root first. */
static int32_t copy_stack(en_matcher *m, const node *old, int32_t stack)
{
    int32_t chain[GB_MAX_STACK + 1];
    int n = 0;
    for (int32_t s = stack; s != NONE && n <= GB_MAX_STACK; s = old[s].parent) chain[n++] = s;
    int32_t made = NONE;
    while (n > 0) made = push(m, old[chain[--n]].state, made);
    return made;
}

static bool flush(en_matcher *m)
{
    node *old = m->nodes;
    node *fresh = bs_malloc(MAX_NODES * sizeof *fresh);
    if (!fresh) return false;
    m->nodes = fresh;
    m->n_nodes = 0;
    memset(m->node_table, 0, NODE_TABLE * sizeof *m->node_table);
    memset(m->place_table, 0, PLACE_TABLE * sizeof *m->place_table);
    place here = m->places[m->here];
    for (int i = 0; i < m->n_places; i++) bs_free(m->places[i].step);
    m->n_places = 0;
    m->overflow = m->nomem = false;
    m->n_work = 0;
    for (int i = 0; i < here.n; i++) {
        pair p = m->pairs[here.first + i];
        m->work[m->n_work++] = (pair){p.state, copy_stack(m, old, p.stack)};
    }
    bs_free(old);
    qsort(m->work, (size_t)m->n_work, sizeof *m->work, by_pair);
    memcpy(m->pairs, m->work, (size_t)m->n_work * sizeof(pair));
    m->n_pairs = m->n_work;
    m->n_masks = 0;
    here.first = 0;
    here.step = NULL;
    here.mask = NONE;
    m->places[0] = here; /* not in the table: at worst the same set is made once more */
    m->n_places = 1;
    m->here = 0;
    return !m->overflow;
}

/* --- the walk ------------------------------------------------------------------------------------
 */

fm_status en_matcher_create(const en_grammar *grammar, const en_vocab *vocab, en_matcher **out,
                            fm_error *err)
{
    en_matcher *m = bs_calloc(1, sizeof *m);
    if (!m) return fm_fail_nomem(err, "starting a grammar");
    m->g = grammar;
    m->v = vocab;
    m->cap_pairs = 4096;
    m->nodes = bs_malloc(MAX_NODES * sizeof *m->nodes);
    m->pairs = bs_malloc((size_t)m->cap_pairs * sizeof *m->pairs);
    m->places = bs_malloc(MAX_PLACES * sizeof *m->places);
    m->node_table = bs_calloc(NODE_TABLE, sizeof *m->node_table);
    m->place_table = bs_calloc(PLACE_TABLE, sizeof *m->place_table);
    m->work = bs_malloc(MAX_SET * sizeof *m->work);
    m->set_table = bs_calloc(SET_TABLE, sizeof *m->set_table);
    if (vocab) m->masks = bs_calloc((size_t)MAX_MASKS * (size_t)vocab->words, sizeof *m->masks);
    fm_status status = FM_OK;
    if (!m->nodes || !m->pairs || !m->places || !m->node_table || !m->place_table || !m->work ||
        !m->set_table || (vocab && !m->masks)) {
        status = fm_fail_nomem(err, "starting a grammar");
    } else {
        clear_set(m);
        add(m, grammar->rules[grammar->root].start, NONE);
        m->here = find_place(m);
        if (m->here == NONE)
            status = fm_fail(err, FM_E_LIMIT, "the schema has too many alternatives at one place");
    }
    if (status) en_matcher_destroy(m);
    else *out = m;
    return status;
}

void en_matcher_destroy(en_matcher *m)
{
    if (!m) return;
    for (int i = 0; i < m->n_places; i++) bs_free(m->places[i].step);
    bs_free(m->nodes);
    bs_free(m->pairs);
    bs_free(m->places);
    bs_free(m->node_table);
    bs_free(m->place_table);
    bs_free(m->work);
    bs_free(m->set_table);
    bs_free(m->masks);
    bs_free(m);
}

/* Try all tokens in byte order. at[d] is the place after d bytes of the current token; a token
 * that shares only dead bytes with the one before is passed over without a look. */
static bool fill_mask(en_matcher *m, uint32_t *mask)
{
    const en_vocab *v = m->v;
    int32_t at[MAX_TOKEN + 1];
    bool any = false;
    m->effort = 0;
    int alive = 0; /* bytes of the token before that could be walked */
    memset(mask, 0, (size_t)v->words * sizeof *mask);
    at[0] = m->here;
    for (int i = 0; i < v->n_sorted; i++) {
        if (v->common[i] > alive) continue; /* dies at the same byte */
        const uint8_t *bytes = v->bytes + v->offset[i];
        int d = v->common[i];
        for (; d < v->length[i]; d++) {
            at[d + 1] = step(m, at[d], bytes[d]);
            if (m->overflow) return false;
            if (at[d + 1] == NONE) break;
        }
        alive = d;
        if (d == v->length[i]) {
            mask[v->order[i] / 32] |= 1u << (v->order[i] % 32);
            any = true;
        }
    }
    if (m->places[m->here].complete)
        for (int i = 0; i < v->n_ends; i++)
            if (v->ends[i] >= 0 && v->ends[i] < v->n_tokens) {
                mask[v->ends[i] / 32] |= 1u << (v->ends[i] % 32);
                any = true;
            }
    return any;
}

fm_status en_matcher_mask(en_matcher *m, const uint32_t **bits, fm_error *err)
{
    place *p = &m->places[m->here];
    if (p->mask == NONE) {
        if (m->n_masks == MAX_MASKS) {
            for (int i = 0; i < m->n_places; i++) m->places[i].mask = NONE;
            m->n_masks = 0;
        }
        uint32_t *mask = m->masks + (size_t)m->n_masks * (size_t)m->v->words;
        bool any = fill_mask(m, mask);
        if (m->overflow && flush(m)) {
            mask = m->masks;
            any = fill_mask(m, mask);
        }
        if (m->nomem) return fm_fail_nomem(err, "walking a grammar");
        if (m->overflow)
            return fm_fail(err, FM_E_LIMIT, "the schema has too many alternatives at one place");
        if (!any)
            return fm_fail(err, FM_E_UNSUPPORTED,
                           "no token of this model's vocabulary can go on in the required format");
        m->places[m->here].mask = m->n_masks++;
    }
    *bits = m->masks + (size_t)m->places[m->here].mask * (size_t)m->v->words;
    return FM_OK;
}

bool en_matcher_accept_bytes(en_matcher *m, const char *bytes, size_t n)
{
    int32_t at = m->here;
    m->effort = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t next = step(m, at, (uint8_t)bytes[i]);
        if (m->overflow) {
            m->here = at; /* keep what was reached through the flush, and try once more */
            if (!flush(m)) return false;
            at = m->here;
            next = step(m, at, (uint8_t)bytes[i]);
            if (m->overflow) return false;
        }
        if (next == NONE) return false;
        at = next;
    }
    m->here = at;
    return true;
}

fm_status en_matcher_accept(en_matcher *m, int32_t token, fm_error *err)
{
    const uint32_t *bits;
    fm_status status = en_matcher_mask(m, &bits, err);
    if (status) return status;
    if (token < 0 || token >= m->v->n_tokens || !(bits[token / 32] >> (token % 32) & 1))
        return fm_fail(err, FM_E_ARGUMENT, "token %d is not allowed here", (int)token);
    for (int i = 0; i < m->v->n_ends; i++)
        if (m->v->ends[i] == token) return FM_OK;
    int i = m->v->rank[token];
    if (!en_matcher_accept_bytes(m, (const char *)m->v->bytes + m->v->offset[i], m->v->length[i]))
        return fm_fail(err, FM_E_LIMIT, "the schema has too many alternatives at one place");
    return FM_OK;
}

bool en_matcher_complete(const en_matcher *m)
{
    return m->places[m->here].complete;
}

bool en_matcher_finished(const en_matcher *m)
{
    return m->places[m->here].complete && !m->places[m->here].more;
}
