/* The seed's step-by-step operations over the engine. */
#include "flash_moe_seed.h"

#include "engine/api.h"
#include "engine/seed_rules.h"
#include "experts/allocate.h"
#include "text/tokenizer.h"

#include <string.h>

enum { DISCOVERY_TOKENS = 10, NO_LIMIT = 1 << 20 };

static fm_status encode(const fm_model *m, const char *text, tx_ids *out, fm_error *err)
{
    const tx_tokenizer *t = en_tokenizer(m->engine);
    if (!t) return fm_fail(err, FM_E_UNSUPPORTED, "the model folder has no tokenizer");
    return tx_encode(t, text, strlen(text), TX_ADD_SPECIAL, out, err);
}

fm_status fm_model_discover(fm_model *m, const char *text, int tokens, bool router_only,
                            uint64_t *counts, fm_error *err)
{
    tx_ids ids = {0};
    fm_status status = encode(m, text, &ids, err);
    pthread_mutex_lock(&m->step);
    if (!status)
        status = en_count_experts(m->engine, ids.data, (int)ids.length, tokens, router_only, counts,
                                  err);
    pthread_mutex_unlock(&m->step);
    tx_ids_free(&ids);
    return status;
}

fm_status fm_model_fix(fm_model *m, bool fixed, fm_error *err)
{
    pthread_mutex_lock(&m->step);
    fm_status status = en_fix_experts(m->engine, fixed, err);
    pthread_mutex_unlock(&m->step);
    return status;
}

static void fill(const en_delta_stats *from, fm_delta *to)
{
    if (!to) return;
    *to = (fm_delta){from->discovery_s, from->total_s, from->requests,
                     from->misses,      from->swaps,   from->layers};
}

static int limit(int n)
{
    return n > 0 ? n : NO_LIMIT;
}

fm_status fm_model_delta_warmup(fm_model *m, const char *text, int swaps_a_layer, int max_layers,
                                fm_delta *out, fm_error *err)
{
    tx_ids ids = {0};
    en_delta how = {DISCOVERY_TOKENS, limit(swaps_a_layer), limit(max_layers)};
    en_delta_stats stats = {0};
    fm_status status = encode(m, text, &ids, err);
    pthread_mutex_lock(&m->step);
    if (!status) status = en_delta_warmup(m->engine, ids.data, (int)ids.length, &how, &stats, err);
    pthread_mutex_unlock(&m->step);
    tx_ids_free(&ids);
    fill(&stats, out);
    return status;
}

fm_status fm_model_refresh(fm_model *m, int swaps_a_layer, int max_layers, fm_delta *out,
                           fm_error *err)
{
    en_delta_stats stats = {0};
    pthread_mutex_lock(&m->step);
    fm_status status =
        en_refresh_experts(m->engine, limit(swaps_a_layer), limit(max_layers), &stats, err);
    pthread_mutex_unlock(&m->step);
    fill(&stats, out);
    return status;
}

int fm_select_capacity(double base_gb, double working_gb, int moe_layers, double slot_mb)
{
    return en_select_capacity(base_gb, working_gb, moe_layers, slot_mb);
}

fm_status fm_allocate_slots(const uint64_t *counts, int layers, int experts, int budget, int least,
                            int *slots, double *miss_rate, fm_error *err)
{
    return xp_allocate(counts, layers, experts, budget, least, slots, miss_rate, NULL, err);
}

int fm_select_capacity_by_ram(double base_gb, double ram_gb, int moe_layers, double slot_mb)
{
    return en_select_capacity_by_ram(base_gb, ram_gb, moe_layers, slot_mb);
}

int fm_guard_capacity(int capacity, double active_gb, double ram_gb, int moe_layers, double slot_mb)
{
    return en_guard_capacity(capacity, active_gb, ram_gb, moe_layers, slot_mb);
}

void fm_allocate_slots_by_seen(const int *seen, int layers, int experts, int budget, int least,
                               int *slots)
{
    xp_allocate_by_seen(seen, layers, experts, budget, least, slots);
}
