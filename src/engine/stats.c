#include "engine/internal.h"

#include <string.h>

static const char *policy_name(xp_policy policy)
{
    return policy == XP_LRU ? "lru" : policy == XP_LCP ? "lcp" : "lfru";
}

static const char *io_name(xp_io io)
{
    return io == XP_IO_URING ? "uring" : io == XP_IO_PREAD ? "pread" : "auto";
}

void en_reckon_bound(en_stats *s, double disk_bytes_s, double memory_bytes_s)
{
    s->bound_tok_s = s->bound_fraction = 0;
    if (memory_bytes_s <= 0 || s->decode_tok_s <= 0) return;
    double memory_s = s->memory_bytes_per_token / memory_bytes_s;
    double disk_s = disk_bytes_s > 0 ? s->disk_bytes_per_token / disk_bytes_s : 0;
    s->bound_tok_s = 1 / (memory_s > disk_s ? memory_s : disk_s);
    s->bound_fraction = s->decode_tok_s / s->bound_tok_s;
}

static void fill_bytes_per_token(const en_totals *t, en_stats *out)
{
    if (!t->decoded) return;
    out->memory_bytes_per_token = (double)t->decode_moved / (double)t->decoded;
    out->disk_bytes_per_token = (double)t->decode_bytes / (double)t->decoded;
}

static void fill_held(const en_engine *e, en_stats *out)
{
    const en_plan *p = &e->plan;
    out->load_ms = e->load_ms;
    out->budget_bytes = p->budget_bytes;
    out->floor_bytes = p->floor_bytes;
    out->resident_bytes = p->resident_bytes;
    out->state_bytes = p->state_bytes;
    out->scratch_bytes = p->scratch_bytes;
    out->peak_rss_bytes = en_peak_rss_bytes();
    out->isa = kn_isa_name(e->options.isa);
    out->threads = e->options.threads;
}

void en_get_stats(en_engine *e, en_stats *out)
{
    *out = (en_stats){0};
    fill_held(e, out);
    pthread_mutex_lock(&e->lock);
    en_totals t = e->totals;
    const xp_stats x = e->expert_stats, b = e->expert_base;
    md_mass mass = e->mass;
    out->prefix_bytes = e->prefix_used;
    out->mode = e->options.mode == EN_PREDICTIVE ? "predictive" : "exact";
    out->active = e->running;
    out->waiting = e->waiting;
    pthread_mutex_unlock(&e->lock);

    out->dropped_mass = mass.routed > 0 ? mass.dropped / mass.routed : 0;
    out->dropped_picks = mass.dropped_picks;
    out->ttft_ms = t.ttft_s * 1e3;
    out->prefill_tok_s = t.prompt_s > 0 ? (double)t.prompt_fed / t.prompt_s : 0;
    out->decode_tok_s = t.decode_s > 0 ? (double)t.decoded / t.decode_s : 0;
    out->prompt_tokens = t.prompt_tokens;
    out->cached_tokens = t.cached_tokens;
    out->tokens = t.tokens;
    out->requests = t.requests;
    out->steps = t.steps;
    out->expert_hits = x.hits - b.hits;
    out->expert_misses = x.misses - b.misses;
    out->prefetch_useful = x.prefetch_useful - b.prefetch_useful;
    out->prefetch_wasted = x.prefetch_wasted - b.prefetch_wasted;
    uint64_t asked = out->expert_hits + out->expert_misses;
    out->hit_rate = asked ? (double)out->expert_hits / (double)asked : 1;
    out->bytes_read = x.bytes_read - b.bytes_read;
    out->read_ms_exposed = (double)(x.exposed_ns - b.exposed_ns) * 1e-6;
    out->slot_bytes = x.slot_bytes;
    out->slots = x.slots;
    out->shrunk_slots = x.shrunk_slots;
    out->direct_io = x.direct_io;
    out->io = io_name(x.io);
    out->policy = policy_name(x.policy);
    fill_bytes_per_token(&t, out);
    en_reckon_bound(out, e->disk_rate, e->memory_rate);
}

void en_reset_stats(en_engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->totals = (en_totals){.steps = e->totals.steps};
    e->expert_base = e->expert_stats;
    pthread_mutex_unlock(&e->lock);
}

json_t *en_stats_json(const en_stats *s)
{
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:f,"
        " s:I, s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:b, s:s, s:s, s:s, s:i, s:s,"
        " s:f, s:I, s:f, s:f}",
        "load_ms", s->load_ms, "ttft_ms", s->ttft_ms, "prefill_tok_s", s->prefill_tok_s,
        "decode_tok_s", s->decode_tok_s, "tokens", (json_int_t)s->tokens, "prompt_tokens",
        (json_int_t)s->prompt_tokens, "cached_tokens", (json_int_t)s->cached_tokens, "expert_hits",
        (json_int_t)s->expert_hits, "expert_misses", (json_int_t)s->expert_misses, "hit_rate",
        s->hit_rate, "prefetch_useful", (json_int_t)s->prefetch_useful, "prefetch_wasted",
        (json_int_t)s->prefetch_wasted, "bytes_read", (json_int_t)s->bytes_read, "read_ms_exposed",
        s->read_ms_exposed, "budget_bytes", (json_int_t)s->budget_bytes, "floor_bytes",
        (json_int_t)s->floor_bytes, "resident_bytes", (json_int_t)s->resident_bytes, "slot_bytes",
        (json_int_t)s->slot_bytes, "slots", s->slots, "shrunk_slots", s->shrunk_slots,
        "state_bytes", (json_int_t)s->state_bytes, "scratch_bytes", (json_int_t)s->scratch_bytes,
        "prefix_bytes", (json_int_t)s->prefix_bytes, "peak_rss_bytes",
        (json_int_t)s->peak_rss_bytes, "direct_io", s->direct_io, "io", s->io, "policy", s->policy,
        "isa", s->isa, "threads", s->threads, "mode", s->mode, "dropped_mass", s->dropped_mass,
        "dropped_picks", (json_int_t)s->dropped_picks, "bound_tok_s", s->bound_tok_s,
        "bound_fraction", s->bound_fraction);
}
