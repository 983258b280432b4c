/* cache.c - the five calls. The residency decides, the reader reads, this file keeps both in step.
 */
#include "experts/cache.h"

#include "base/clock.h"

#include <string.h>

/* --- slots and their reads ----------------------------------------------------------------------
 */

void xp_settle(xp_cache *c, int s)
{
    xp_slot *slot = &c->slots[s];
    if (!slot->job) return;
    int state = atomic_load_explicit(&slot->job->state, memory_order_acquire);
    if (state == XP_JOB_QUEUED) return;
    slot->loaded = state == XP_JOB_DONE;
    atomic_store(&slot->job->state, XP_JOB_FREE);
    slot->job = NULL;
    xp_res_set_busy(c->residency, s, false);
}

static xp_job *free_job(xp_cache *c)
{
    for (;;) {
        xp_job *flying[XP_MAX_JOBS];
        for (int i = 0; i < XP_MAX_JOBS; i++) {
            flying[i] = &c->jobs[i];
            int state = atomic_load(&flying[i]->state);
            if (state == XP_JOB_FREE) return flying[i];
            /* A failed job must stay until its ticket was told. */
            if (state == XP_JOB_DONE) xp_settle(c, flying[i]->owner);
            if (state != XP_JOB_QUEUED) flying[i] = NULL;
        }
        xp_reader_wait_any(c->reader, flying, XP_MAX_JOBS);
    }
}

void xp_read_into(xp_cache *c, int s, int layer, int expert, bool hint)
{
    xp_slot *slot = &c->slots[s];
    xp_job *job = free_job(c);
    xp_placement place;
    xp_place(&c->source.layers[layer], expert, &place);
    job->n_reads = place.n_reads;
    memcpy(job->read, place.read, (size_t)place.n_reads * sizeof *job->read);
    job->memory = slot->memory;
    job->hint = hint;
    job->untouched = !slot->touched;
    job->owner = s;
    slot->touched = true;
    slot->job = job;
    slot->loaded = false;
    slot->guess = hint;
    xp_res_set_busy(c->residency, s, true);
    xp_reader_submit(c->reader, job);
}

void xp_finish_read(xp_cache *c, int s)
{
    xp_slot *slot = &c->slots[s];
    if (!slot->job) return;
    if (xp_reader_cancel(c->reader, slot->job)) {
        slot->job = NULL;
        xp_res_set_busy(c->residency, s, false);
        return;
    }
    xp_reader_wait(c->reader, slot->job);
    xp_settle(c, s);
}

/* --- guesses ------------------------------------------------------------------------------------
 */

/* The layer they were made for has its picks: guesses that were not started are taken back, and
 * those that failed are forgotten (nobody asked for them). */
static void end_guesses(xp_cache *c)
{
    int flying = 0;
    for (int i = 0; i < c->n_guesses; i++) {
        int s = c->guesses[i];
        xp_slot *slot = &c->slots[s];
        if (!slot->guess) continue;
        xp_settle(c, s);
        if (slot->job && xp_reader_cancel(c->reader, slot->job)) {
            slot->job = NULL;
            xp_res_set_busy(c->residency, s, false);
        }
        if (slot->job) {
            c->guesses[flying++] = s;
        } else if (!slot->loaded) {
            slot->guess = false;
            xp_res_drop(c->residency, s);
        }
    }
    c->n_guesses = flying;
}

enum { ENOUGH_GUESSES = 256 };

/* Guessing costs a router product a layer: for nothing, while every expert asked for is there. */
bool xp_wants_hints(const xp_cache *c)
{
    return c->options.prefetch > 0 && !c->lazy && !c->idle;
}

void xp_hint(xp_cache *c, int layer, const int *experts, int n)
{
    if (!xp_wants_hints(c)) return;
    if (c->options.prefetch_may_stop &&
        c->stats.prefetch_wasted > 3 * c->stats.prefetch_useful + ENOUGH_GUESSES) {
        c->options.prefetch = 0; /* it reads more for nothing than it saves */
        return;
    }
    end_guesses(c);
    int most = c->n_guesses + c->options.prefetch; /* beside what still flies of the last ones */
    if (most > XP_MAX_GUESSES) most = XP_MAX_GUESSES;
    for (int i = 0; i < n && c->n_guesses < most; i++) {
        if (experts[i] < 0 || experts[i] >= c->source.layers[layer].n_experts) continue;
        int s = xp_res_claim_guess(c->residency, layer, experts[i]);
        if (s < 0) continue;
        if (c->slots[s].guess) c->stats.prefetch_wasted++;
        xp_read_into(c, s, layer, experts[i], true);
        c->guesses[c->n_guesses++] = s;
    }
    xp_reader_poll(c->reader);
}

/* --- tickets ------------------------------------------------------------------------------------
 */

int xp_max_held(const xp_cache *c, int layer)
{
    return xp_res_max_held(c->residency, layer);
}

void xp_begin_step(xp_cache *c, int tokens, bool prefill)
{
    if (!c->lazy && !c->wanted.fixed && xp_pressure_look(&c->pressure)) {
        c->pressure.done = true;
        xp_shrink(c, 1.0 / 8);
    }
    uint64_t reads = xp_reader_reads(c->reader);
    c->idle = tokens > 0 && reads == c->reads_before;
    c->reads_before = reads;
    xp_res_begin_step(c->residency, tokens, prefill);
    if (xp_preload_pending(c)) xp_fill_step(c, 0);
}

static fm_status check_request(const xp_cache *c, int layer, const int *experts, int n,
                               fm_error *err)
{
    if (layer < 0 || layer >= c->source.n_layers)
        return fm_fail(err, FM_E_ARGUMENT, "MoE layer %d of %d", layer, c->source.n_layers);
    int most = xp_max_held(c, layer);
    if (n < 1 || n > most)
        return fm_fail(err, FM_E_LIMIT, "%d experts of MoE layer %d at once, %d can be held", n,
                       layer, most);
    for (int i = 0; i < n; i++)
        if (experts[i] < 0 || experts[i] >= c->source.layers[layer].n_experts)
            return fm_fail(err, FM_E_ARGUMENT, "expert %d of MoE layer %d, which has %d",
                           experts[i], layer, c->source.layers[layer].n_experts);
    return FM_OK;
}

/* A ticket for an expert that has a slot already: there, on its way, or failed before. */
static bool use_resident(xp_cache *c, int layer, int expert, int s)
{
    xp_slot *slot = &c->slots[s];
    xp_settle(c, s);
    if (slot->guess) c->stats.prefetch_useful++;
    slot->guess = false;
    if (slot->loaded) return true;
    if (slot->job) xp_reader_promote(c->reader, slot->job);
    else xp_read_into(c, s, layer, expert, false);
    return false;
}

/* Slots that are being read ahead of demand cannot be taken until their reads end. */
static void await_reads_ahead(xp_cache *c)
{
    for (int i = 0; i < c->n_guesses + c->fills.n_flying; i++) {
        int s = i < c->n_guesses ? c->guesses[i] : c->fills.flying[i - c->n_guesses];
        if (c->slots[s].job) xp_reader_wait(c->reader, c->slots[s].job);
        xp_settle(c, s);
    }
}

static bool find_slots(xp_cache *c, int layer, const int *experts, const int *picks, int n)
{
    int *slots = c->scratch_slots;
    if (xp_res_acquire(c->residency, layer, experts, picks, n, slots, c->scratch_hits)) return true;
    await_reads_ahead(c);
    return xp_res_acquire(c->residency, layer, experts, picks, n, slots, c->scratch_hits);
}

fm_status xp_acquire(xp_cache *c, int layer, const int *experts, const int *picks, int n,
                     xp_ticket *tickets, fm_error *err)
{
    fm_status status = check_request(c, layer, experts, n, err);
    if (status) return status;
    if (c->wanted.fixed) {
        xp_acquire_fixed(c, layer, experts, picks, n, tickets);
        return FM_OK;
    }
    if (!find_slots(c, layer, experts, picks, n))
        return fm_fail(err, FM_E_LIMIT, "MoE layer %d: no slots for %d experts beside those held",
                       layer, n);
    for (int i = 0; i < n; i++) {
        int s = c->scratch_slots[i];
        tickets[i] = (xp_ticket){.layer = layer, .expert = experts[i], .slot = s};
        if (c->scratch_hits[i]) {
            tickets[i].hit = use_resident(c, layer, experts[i], s);
        } else {
            if (c->slots[s].guess) c->stats.prefetch_wasted++;
            xp_read_into(c, s, layer, experts[i], false);
        }
        *(tickets[i].hit ? &c->stats.hits : &c->stats.misses) += 1;
    }
    end_guesses(c);
    xp_reader_poll(c->reader); /* all misses in one go */
    return FM_OK;
}

/* A packed record is checked the first time it is used. A bad one counts as not loaded. */
static bool is_damaged(xp_cache *c, xp_slot *slot, int layer, int expert)
{
    if (!c->pack) return false;
    bool *unchecked = &c->unchecked[c->first_record[layer] + (size_t)expert];
    if (*unchecked && xp_pack_check(c->pack, layer, expert, slot->memory, c->options.pool, NULL))
        slot->loaded = false;
    else *unchecked = false;
    return *unchecked;
}

int xp_ready(xp_cache *c, xp_ticket *tickets, int n)
{
    xp_reader_poll(c->reader);
    for (int i = 0; i < n; i++) {
        xp_ticket *t = &tickets[i];
        if (t->taken) continue;
        xp_slot *slot = &c->slots[t->slot];
        if (slot->job &&
            atomic_load_explicit(&slot->job->state, memory_order_acquire) != XP_JOB_DONE)
            continue;
        xp_settle(c, t->slot);
        int layer = t->layer, expert = t->expert;
        if (t->missing) xp_res_content(c->residency, t->slot, &layer, &expert);
        if (!slot->loaded || is_damaged(c, slot, layer, expert)) continue;
        xp_view(&c->source.layers[layer], expert, slot->memory, &t->view);
        t->taken = true;
        return i;
    }
    return -1;
}

/* The first ticket whose read has failed: its error. */
static fm_status find_failure(xp_cache *c, const xp_ticket *tickets, int n, fm_error *err)
{
    for (int i = 0; i < n; i++) {
        if (tickets[i].taken) continue;
        xp_slot *slot = &c->slots[tickets[i].slot];
        if (slot->loaded) continue;
        if (slot->job && atomic_load(&slot->job->state) != XP_JOB_FAILED) continue;
        fm_error found = {.code = FM_E_IO, .message = "its read has failed before"};
        if (slot->job) found = slot->job->error;
        else if (c->pack) /* it came, and it is damaged: say so in full */
            xp_pack_check(c->pack, tickets[i].layer, tickets[i].expert, slot->memory, NULL, &found);
        xp_settle(c, tickets[i].slot);
        return fm_fail(err, found.code, "expert %d of MoE layer %d: %s", tickets[i].expert,
                       tickets[i].layer, found.message);
    }
    return FM_OK;
}

fm_status xp_wait(xp_cache *c, xp_ticket *tickets, int n, int *index, fm_error *err)
{
    for (;;) {
        *index = xp_ready(c, tickets, n);
        if (*index >= 0) return FM_OK;
        fm_status status = find_failure(c, tickets, n, err);
        if (status) return status;
        xp_job *flying[XP_MAX_JOBS];
        int n_flying = 0;
        for (int i = 0; i < n && n_flying < XP_MAX_JOBS; i++)
            if (!tickets[i].taken) flying[n_flying++] = c->slots[tickets[i].slot].job;
        if (!n_flying) return FM_OK;
        uint64_t begin = bs_now_ns();
        xp_reader_wait_any(c->reader, flying, n_flying);
        c->stats.exposed_ns += bs_now_ns() - begin;
    }
}

void xp_release(xp_cache *c, xp_ticket *tickets, int n)
{
    for (int i = 0; i < n; i++) {
        int s = tickets[i].slot;
        if (s < 0) continue;
        xp_finish_read(c, s);
        xp_res_unpin(c->residency, s);
        if (c->lazy || !c->slots[s].loaded) {
            xp_res_drop(c->residency, s);
            c->slots[s].loaded = false;
        }
    }
    if (n && xp_preload_pending(c)) xp_fill_step(c, (tickets[0].layer + 1) % c->source.n_layers);
}

bool xp_is_resident(const xp_cache *c, int layer, int expert)
{
    int s = xp_res_slot_of(c->residency, layer, expert);
    return s >= 0 && c->slots[s].loaded;
}

bool xp_is_coming(const xp_cache *c, int layer, int expert)
{
    int s = xp_res_slot_of(c->residency, layer, expert);
    return s >= 0 && c->slots[s].job;
}

void xp_order(const xp_cache *c, int layer, int *experts, int *picks, int n)
{
    xp_res_order(c->residency, layer, experts, picks, n);
}

void xp_get_stats(const xp_cache *c, xp_stats *out)
{
    *out = c->stats;
    out->bytes_read = xp_reader_bytes(c->reader);
    out->reads = xp_reader_reads(c->reader);
    out->slot_bytes = c->memory_bytes - c->given_back;
    out->slots = c->n_slots - c->stats.shrunk_slots;
    out->direct_io = xp_reader_direct(c->reader);
    out->io = xp_reader_io(c->reader);
    out->policy = c->options.policy;
}
