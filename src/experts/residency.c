#include "experts/residency.h"

#include "base/mem.h"

#include <string.h>

typedef struct slot {
    int layer, expert; /* -1: empty */
    int pins;
    bool busy, guess;
    int place;      /* index in its layer's list */
    uint64_t order; /* when it was filled: the older goes first among equals */
} slot;

typedef struct layer {
    xp_res_layer is;
    xp_history *history; /* [n_experts] */
    int *slot_of;        /* [n_experts] */
    int *held;           /* slots that hold this layer's experts */
    int n_held;
    bool *kept; /* [n_experts] never a victim */
    int n_kept;
    int victim; /* the cheapest of them, -1: none; valid unless stale */
    bool stale;
} layer;

typedef struct size_class {
    int *empty; /* a stack of empty slots */
    int n_empty, n_slots;
} size_class;

struct xp_residency {
    int n_layers, n_slots, n_classes;
    layer *layers;
    slot *slots;
    size_class *classes;
    xp_policy policy;
    xp_clock clock;
    bool lend;
    uint64_t fills;
};

static fm_status create_layer(layer *l, const xp_res_layer *is, int class_slots, fm_error *err)
{
    l->is = *is;
    size_t n = (size_t)is->n_experts;
    l->history = bs_calloc(n, sizeof *l->history);
    l->slot_of = bs_calloc(n, sizeof *l->slot_of);
    int room = is->n_experts < class_slots ? is->n_experts : class_slots;
    l->held = bs_calloc((size_t)room, sizeof *l->held);
    l->kept = bs_calloc(n, sizeof *l->kept);
    if (!l->history || !l->slot_of || !l->held || !l->kept)
        return fm_fail_nomem(err, "expert residency");
    for (size_t e = 0; e < n; e++) {
        l->slot_of[e] = -1;
        xp_policy_forget(&l->history[e]);
    }
    l->victim = -1;
    return FM_OK;
}

/* Slots of a class stand together, classes in rising order. */
static fm_status create_slots(xp_residency *r, fm_error *err)
{
    r->slots = bs_calloc((size_t)r->n_slots, sizeof *r->slots);
    if (!r->slots) return fm_fail_nomem(err, "expert residency");
    int next = r->n_slots;
    for (int c = r->n_classes - 1; c >= 0; c--) {
        size_class *k = &r->classes[c];
        k->empty = bs_calloc((size_t)k->n_slots, sizeof *k->empty);
        if (!k->empty) return fm_fail_nomem(err, "expert residency");
        for (int i = 0; i < k->n_slots; i++) {
            r->slots[--next] = (slot){.layer = -1, .expert = -1};
            k->empty[k->n_empty++] = next; /* popped in rising order */
        }
    }
    return FM_OK;
}

static fm_status create_parts(xp_residency *r, const xp_res_layer *layers, fm_error *err)
{
    r->layers = bs_calloc((size_t)r->n_layers, sizeof *r->layers);
    r->classes = bs_calloc((size_t)r->n_layers, sizeof *r->classes);
    if (!r->layers || !r->classes) return fm_fail_nomem(err, "expert residency");
    for (int i = 0; i < r->n_layers; i++) {
        int c = layers[i].size_class;
        if (c < 0 || c >= r->n_layers || layers[i].slots < 0)
            return fm_fail(err, FM_E_ARGUMENT, "layer %d: bad size class or share", i);
        if (c >= r->n_classes) r->n_classes = c + 1;
        r->classes[c].n_slots += layers[i].slots;
        r->n_slots += layers[i].slots;
    }
    for (int i = 0; i < r->n_layers; i++) {
        int slots = r->classes[layers[i].size_class].n_slots;
        fm_status status = create_layer(&r->layers[i], &layers[i], slots, err);
        if (status) return status;
    }
    return create_slots(r, err);
}

fm_status xp_res_create(const xp_res_layer *layers, int n_layers, xp_policy policy, bool lend,
                        xp_residency **out, fm_error *err)
{
    xp_residency *r = bs_calloc(1, sizeof *r);
    if (!r) return fm_fail_nomem(err, "expert residency");
    r->n_layers = n_layers;
    r->policy = policy;
    r->lend = lend && policy != XP_LCP; /* the seed's policy forgets, so it cannot compare layers */
    fm_status status = create_parts(r, layers, err);
    if (status) {
        xp_res_destroy(r);
        return status;
    }
    *out = r;
    return FM_OK;
}

void xp_res_destroy(xp_residency *r)
{
    if (!r) return;
    for (int i = 0; r->layers && i < r->n_layers; i++) {
        bs_free(r->layers[i].history);
        bs_free(r->layers[i].slot_of);
        bs_free(r->layers[i].held);
        bs_free(r->layers[i].kept);
    }
    for (int c = 0; r->classes && c < r->n_classes; c++) bs_free(r->classes[c].empty);
    bs_free(r->layers);
    bs_free(r->classes);
    bs_free(r->slots);
    bs_free(r);
}

int xp_res_slots(const xp_residency *r)
{
    return r->n_slots;
}

int xp_res_size_class(const xp_residency *r, int s)
{
    int c = 0;
    for (int end = r->classes[0].n_slots; s >= end; end += r->classes[c].n_slots) c++;
    return c;
}

void xp_res_begin_step(xp_residency *r, int tokens, bool prefill)
{
    xp_clock_step(&r->clock, tokens, prefill);
}

int xp_res_slot_of(const xp_residency *r, int l, int expert)
{
    return r->layers[l].slot_of[expert];
}

void xp_res_content(const xp_residency *r, int s, int *l, int *expert)
{
    *l = r->slots[s].layer;
    *expert = r->slots[s].expert;
}

/* --- victims ---------------------------------------------------------------------------------- */

/* What the slot is worth; a guess that nobody asked for yet is worth nothing. */
static double key_of(const xp_residency *r, const slot *s)
{
    return s->guess ? -2e300 : r->layers[s->layer].history[s->expert].key;
}

static bool removable(const layer *l, const slot *s)
{
    return !s->pins && !s->busy && !l->kept[s->expert];
}

static int cheapest_of(const xp_residency *r, layer *l)
{
    if (!l->stale) return l->victim;
    int best = -1;
    double best_key = 0;
    for (int i = 0; i < l->n_held; i++) {
        const slot *s = &r->slots[l->held[i]];
        if (!removable(l, s)) continue;
        double key = key_of(r, s);
        if (best < 0 || key < best_key || (key == best_key && s->order < r->slots[best].order)) {
            best = l->held[i];
            best_key = key;
        }
    }
    l->victim = best;
    l->stale = false;
    return best;
}

/* The cheapest expert that the taker may evict: its own, or another layer's when that one is worth
 * clearly less. Without the margin layers rob each other back and forth; docs/FINDINGS.md. */
static int cheapest_of_class(const xp_residency *r, layer *taker)
{
    int own = cheapest_of(r, taker), best = -1;
    for (int i = 0; i < r->n_layers; i++) {
        layer *l = &r->layers[i];
        if (l == taker || l->is.size_class != taker->is.size_class) continue;
        if (l->n_held <= l->is.top_k) continue;
        int s = cheapest_of(r, l);
        if (s >= 0 && (best < 0 || key_of(r, &r->slots[s]) < key_of(r, &r->slots[best]))) best = s;
    }
    if (own < 0 || best < 0) return own < 0 ? best : own;
    double margin = xp_policy_lending_margin(r->policy);
    return key_of(r, &r->slots[best]) + margin < key_of(r, &r->slots[own]) ? best : own;
}

static void take_out(xp_residency *r, int index)
{
    slot *s = &r->slots[index];
    layer *l = &r->layers[s->layer];
    int last = l->held[--l->n_held];
    l->held[s->place] = last;
    r->slots[last].place = s->place;
    l->slot_of[s->expert] = -1;
    l->stale = true;
    xp_policy_evicted(r->policy, &l->history[s->expert]);
    *s = (slot){.layer = -1, .expert = -1};
}

static void put_in(xp_residency *r, int index, int layer_index, int expert)
{
    layer *l = &r->layers[layer_index];
    r->slots[index] =
        (slot){.layer = layer_index, .expert = expert, .place = l->n_held, .order = r->fills++};
    l->held[l->n_held++] = index;
    l->slot_of[expert] = index;
    l->stale = true;
}

/* The slot the layer should fill next, emptied; -1: all it may take are pinned or busy. */
static int make_room(xp_residency *r, int layer_index)
{
    layer *l = &r->layers[layer_index];
    size_class *k = &r->classes[l->is.size_class];
    if (k->n_empty && (r->lend || l->n_held < l->is.slots)) return k->empty[--k->n_empty];
    int victim = r->lend ? cheapest_of_class(r, l) : cheapest_of(r, l);
    if (victim >= 0) take_out(r, victim);
    return victim;
}

/* --- use -------------------------------------------------------------------------------------- */

int xp_res_max_held(const xp_residency *r, int l)
{
    const xp_res_layer *is = &r->layers[l].is;
    int most = (is->slots < is->n_experts ? is->slots : is->n_experts) - r->layers[l].n_kept;
    return most > is->top_k || !r->lend ? most : is->top_k;
}

/* Unpinned slots the layer could take, empty ones included. */
static int available(const xp_residency *r, const layer *l)
{
    const size_class *k = &r->classes[l->is.size_class];
    int n = r->lend ? k->n_empty : l->is.slots - l->n_held;
    for (int i = 0; i < r->n_layers; i++) {
        const layer *from = &r->layers[i];
        if (from != l && (!r->lend || from->is.size_class != l->is.size_class)) continue;
        int free = 0;
        for (int j = 0; j < from->n_held; j++) {
            free += removable(from, &r->slots[from->held[j]]);
        }
        int spare = from == l ? free : from->n_held - from->is.top_k;
        n += free < spare ? free : spare > 0 ? spare : 0;
    }
    return n;
}

bool xp_res_acquire(xp_residency *r, int layer_index, const int *experts, const int *picks, int n,
                    int *slots, bool *hits)
{
    layer *l = &r->layers[layer_index];
    int misses = 0;
    for (int i = 0; i < n; i++) {
        slots[i] = l->slot_of[experts[i]];
        hits[i] = slots[i] >= 0;
        if (hits[i]) r->slots[slots[i]].pins++;
        misses += !hits[i];
    }
    l->stale = true;
    if (misses && available(r, l) < misses) {
        for (int i = 0; i < n; i++)
            if (hits[i]) r->slots[slots[i]].pins--;
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (hits[i]) r->slots[slots[i]].guess = false;
        xp_policy_use(r->policy, &r->clock, &l->history[experts[i]], picks ? picks[i] : 1, hits[i]);
    }
    for (int i = 0; i < n; i++) {
        if (hits[i]) continue;
        slots[i] = make_room(r, layer_index);
        put_in(r, slots[i], layer_index, experts[i]);
        r->slots[slots[i]].pins = 1;
    }
    return true;
}

void xp_res_pin(xp_residency *r, int index)
{
    slot *s = &r->slots[index];
    s->pins++;
    r->layers[s->layer].stale = true;
}

void xp_res_unpin(xp_residency *r, int index)
{
    slot *s = &r->slots[index];
    s->pins--;
    r->layers[s->layer].stale = true;
}

int xp_res_claim_guess(xp_residency *r, int layer_index, int expert)
{
    layer *l = &r->layers[layer_index];
    if (l->slot_of[expert] >= 0) return -1;
    int s = make_room(r, layer_index);
    if (s < 0) return -1;
    put_in(r, s, layer_index, expert);
    r->slots[s].guess = true;
    return s;
}

void xp_res_use(xp_residency *r, int layer_index, const int *experts, const int *picks, int n)
{
    layer *l = &r->layers[layer_index];
    l->stale = true;
    for (int i = 0; i < n; i++)
        xp_policy_use(r->policy, &r->clock, &l->history[experts[i]], picks ? picks[i] : 1,
                      l->slot_of[experts[i]] >= 0);
}

int xp_res_place(xp_residency *r, int layer_index, int expert, bool evict)
{
    layer *l = &r->layers[layer_index];
    size_class *k = &r->classes[l->is.size_class];
    if (l->slot_of[expert] >= 0) return -1;
    bool room = k->n_empty && l->n_held < l->is.slots;
    int victim = room || !evict ? -1 : cheapest_of(r, l);
    if (!room && (victim < 0 || key_of(r, &r->slots[victim]) >= l->history[expert].key)) return -1;
    int s = room ? k->empty[--k->n_empty] : victim;
    if (!room) take_out(r, s);
    put_in(r, s, layer_index, expert);
    return s;
}

int xp_res_keep(xp_residency *r, int layer_index, const int *experts, int n)
{
    layer *l = &r->layers[layer_index];
    int most = l->is.slots - l->is.top_k;
    memset(l->kept, 0, (size_t)l->is.n_experts * sizeof *l->kept);
    l->n_kept = 0;
    l->stale = true;
    for (int i = 0; i < n && l->n_kept < most; i++) {
        l->n_kept += !l->kept[experts[i]];
        l->kept[experts[i]] = true;
    }
    return l->n_kept;
}

bool xp_res_is_kept(const xp_residency *r, int l, int expert)
{
    return r->layers[l].kept[expert];
}

int xp_res_rank(const xp_residency *r, int layer_index, int *experts)
{
    const layer *l = &r->layers[layer_index];
    for (int i = 0; i < l->n_held; i++) { /* insertion sort: once a save */
        int e = r->slots[l->held[i]].expert, at = i;
        for (; at > 0 && l->history[experts[at - 1]].key < l->history[e].key; at--)
            experts[at] = experts[at - 1];
        experts[at] = e;
    }
    return l->n_held;
}

const xp_history *xp_res_history(const xp_residency *r, int l, int expert)
{
    return &r->layers[l].history[expert];
}

void xp_res_set_history(xp_residency *r, int l, int expert, const xp_history *h)
{
    r->layers[l].history[expert] = *h;
    r->layers[l].stale = true;
}

const xp_clock *xp_res_clock(const xp_residency *r)
{
    return &r->clock;
}

void xp_res_set_busy(xp_residency *r, int index, bool busy)
{
    slot *s = &r->slots[index];
    s->busy = busy;
    if (s->layer >= 0) r->layers[s->layer].stale = true;
}

void xp_res_drop(xp_residency *r, int index)
{
    if (r->slots[index].layer < 0) return;
    take_out(r, index);
    size_class *k = &r->classes[xp_res_size_class(r, index)];
    k->empty[k->n_empty++] = index;
}

/* The layer with the largest share pays; where layers lend, whoever holds the cheapest expert. */
int xp_res_retire(xp_residency *r)
{
    layer *most = NULL;
    for (int i = 0; i < r->n_layers; i++) {
        layer *l = &r->layers[i];
        if (l->is.slots > l->is.top_k && (!most || l->is.slots > most->is.slots)) most = l;
    }
    if (!most) return -1;
    size_class *k = &r->classes[most->is.size_class];
    int s;
    if (k->n_empty && (r->lend || most->n_held < most->is.slots)) {
        s = k->empty[--k->n_empty];
    } else {
        s = r->lend ? cheapest_of_class(r, most) : cheapest_of(r, most);
        if (s < 0) return -1;
        take_out(r, s);
    }
    most->is.slots--;
    return s;
}

void xp_res_order(const xp_residency *r, int layer_index, int *experts, int *picks, int n)
{
    const int *slot_of = r->layers[layer_index].slot_of;
    int front = 0;
    for (int i = 0; i < n; i++) {
        if (slot_of[experts[i]] < 0) continue;
        int e = experts[i], p = picks ? picks[i] : 0;
        memmove(experts + front + 1, experts + front, (size_t)(i - front) * sizeof *experts);
        if (picks) memmove(picks + front + 1, picks + front, (size_t)(i - front) * sizeof *picks);
        experts[front] = e;
        if (picks) picks[front] = p;
        front++;
    }
}
