#include "engine/planner.h"

#include "base/error.h"
#include "engine/sampler.h"

#include <stdio.h>
#include <string.h>

enum {
    MIB = 1 << 20,
    USUAL_CONTEXT = 4096,
    LEAST_STEP = 32,         /* prompt tokens a step with which the floor is reckoned */
    MOST_STEP = 512,         /* beyond this a larger chunk saves little */
    USUAL_PROCESS = 24 * MIB /* program, libraries, tokenizer, when it was not measured */
};

/* Bytes of one slot in every MoE layer, and the least memory for slots. */
static void slot_figures(const md_model *model, const xp_options *options, uint64_t *column,
                         uint64_t *floor, uint64_t *all)
{
    const md_info *info = md_describe(model);
    const xp_source *source = md_expert_source(model);
    *column = *all = 0;
    if (source) {
        for (int l = 0; l < source->n_layers; l++) {
            uint64_t bytes = xp_slot_bytes(source, l, options);
            *column += bytes;
            *all += bytes * (uint64_t)source->layers[l].n_experts;
        }
        *floor = source->n_layers ? xp_floor_bytes(source, options) : 0;
        return;
    }
    uint64_t slot = (info->expert_bytes + 3 * 4096 - 1) / 4096 * 4096;
    *column = slot * (uint64_t)info->n_moe_layers;
    *all = *column * (uint64_t)info->n_experts;
    *floor = *column * (uint64_t)info->top_k;
}

static uint64_t scratch_bytes(const md_model *model, int max_tokens, int max_logits)
{
    int vocab = md_describe(model)->vocab;
    uint64_t row = (uint64_t)vocab * sizeof(float);
    return md_run_bytes(model, max_tokens, max_logits) + row * (uint64_t)max_logits +
           en_sampler_scratch(vocab) + (uint64_t)max_tokens * sizeof(md_token);
}

/* What decoding reaches of the bound of memory and disk: the middle of what docs/BENCHMARKS.md has
 * of machines and models, which is 0.54 to 0.88. */
static const double REACHED = 0.7;

static void forecast(const md_model *model, const en_plan_request *r, en_plan *out)
{
    static const double rates[EN_FORECASTS] = {0.5, 0.7, 0.8, 0.9, 0.95, 1.0};
    const md_info *info = md_describe(model);
    if (r->memory_bytes_s <= 0 || r->disk_bytes_s <= 0) return;
    uint64_t picks = (uint64_t)info->top_k * (uint64_t)info->n_moe_layers;
    double routed = (double)(info->expert_bytes * picks);
    double moved = (double)md_pass_traffic(model, picks, md_state_traffic(model, 0));
    double memory_s = moved / r->memory_bytes_s;
    for (int i = 0; i < EN_FORECASTS; i++) {
        double disk_s = (1 - rates[i]) * routed / r->disk_bytes_s;
        double s = disk_s > memory_s ? disk_s : memory_s;
        out->forecast[out->n_forecasts].hit_rate = rates[i];
        out->forecast[out->n_forecasts++].tok_s = s > 0 ? REACHED / s : 0;
    }
}

static int pick_context(const md_model *model, int asked)
{
    int most = md_describe(model)->max_context;
    if (asked > 0) return asked;
    return most > 0 && most < USUAL_CONTEXT ? most : USUAL_CONTEXT;
}

/* A larger prompt chunk reads fewer experts a token: take as much as costs at most an eighth of
 * what is left for slots. */
static void grow_step(const md_model *model, uint64_t spare, int sequences, int max_logits,
                      en_plan *p)
{
    for (int step = MOST_STEP; step > LEAST_STEP; step /= 2) {
        uint64_t bytes = scratch_bytes(model, step + sequences, max_logits);
        if (bytes > p->scratch_bytes + spare / 8) continue;
        p->max_tokens = step + sequences;
        p->scratch_bytes = bytes;
        return;
    }
}

static fm_status below_floor(const en_plan *p, uint64_t asked, fm_error *err)
{
    enum { VARIES = MIB / 2 }; /* what the process takes, from start to start */
    if (asked && asked < p->floor_bytes)
        return fm_fail(err, FM_E_BUDGET,
                       "a memory budget of %.1f MiB is below the floor of %.1f MiB (process %.1f, "
                       "weights %.1f, state %.1f for %d tokens of context, scratch %.1f, one "
                       "token's experts %.1f); give --memory %lluM or more, or a smaller --context",
                       (double)asked / MIB, (double)p->floor_bytes / MIB,
                       (double)p->process_bytes / MIB, (double)p->resident_bytes / MIB,
                       (double)p->state_bytes / MIB, p->context, (double)p->scratch_bytes / MIB,
                       (double)p->slot_bytes / MIB,
                       (unsigned long long)(p->floor_bytes + VARIES + MIB - 1) / MIB);
    return fm_fail(err, FM_E_BUDGET,
                   "this model needs at least %.2f GiB, but this machine allows %.2f GiB (%s is "
                   "%.2f GiB, %.2f GiB of it stay reserved)",
                   (double)p->floor_bytes / (1024.0 * MIB),
                   (double)p->machine.ceiling_bytes / (1024.0 * MIB), p->machine.limited_by,
                   (double)p->machine.limit_bytes / (1024.0 * MIB),
                   (double)p->machine.reserve_bytes / (1024.0 * MIB));
}

/* What the slots get: everything above the floor, no more than all experts need, or exactly
 * `capacity` a layer. */
static uint64_t slots_wanted(const en_plan_request *r, uint64_t column, uint64_t floor,
                             uint64_t all)
{
    uint64_t want = all > floor ? all : floor;
    if (r->capacity >= 0) {
        uint64_t fixed = column * (uint64_t)r->capacity;
        want = fixed < floor ? floor : fixed < want ? fixed : want;
    }
    return want;
}

static void choose_budget(const en_plan_request *r, uint64_t want, en_plan *p)
{
    const en_machine *m = &p->machine;
    uint64_t most = m->ceiling_bytes;
    if (r->budget_bytes) {
        p->budget_bytes = r->budget_bytes < most ? r->budget_bytes : most;
        return;
    }
    uint64_t others = m->available_bytes - m->available_bytes / 16;
    if (others < most) most = others;
    uint64_t all = p->floor_bytes - p->slot_bytes + want;
    all += all / 8 + 16 * MIB; /* room for a larger prompt chunk */
    p->budget_bytes = all < most ? all : most;
}

fm_status en_make_plan(const md_model *model, const en_plan_request *r, en_plan *out, fm_error *err)
{
    const md_info *info = md_describe(model);
    en_plan *p = out;
    uint64_t column, floor, all;
    *p = (en_plan){.resident_bytes = info->resident_bytes,
                   .expert_bytes = info->expert_bytes,
                   .experts_bytes = info->experts_bytes,
                   .prefix_bytes = r->prefix_bytes,
                   .context = pick_context(model, r->context),
                   .sequences = r->sequences > 0 ? r->sequences : 1,
                   .process_bytes = r->process_bytes ? r->process_bytes : USUAL_PROCESS};
    en_machine_read(r->sim_ram, &p->machine);
    slot_figures(model, &r->experts, &column, &floor, &all);
    int max_logits = r->max_logits > p->sequences ? r->max_logits : p->sequences;
    p->state_bytes = md_state_bytes(model, p->context) * (uint64_t)p->sequences;
    p->max_tokens = (r->max_tokens > 0 ? r->max_tokens : LEAST_STEP) + p->sequences;
    p->scratch_bytes = scratch_bytes(model, p->max_tokens, max_logits);
    p->slot_bytes = floor;
    uint64_t fixed =
        p->process_bytes + p->resident_bytes + p->state_bytes + p->scratch_bytes + p->prefix_bytes;
    p->floor_bytes = fixed + floor;
    forecast(model, r, p);

    uint64_t want = slots_wanted(r, column, floor, all);
    choose_budget(r, want, p);
    if (r->capacity >= 0 && p->budget_bytes >= p->floor_bytes && fixed + want > p->budget_bytes)
        return fm_fail(err, FM_E_BUDGET,
                       "%d experts a layer need %.1f MiB, more than the %.1f MiB of the budget",
                       r->capacity, (double)(fixed + want) / MIB, (double)p->budget_bytes / MIB);
    p->fits = p->floor_bytes <= p->budget_bytes;
    if (!p->fits) return below_floor(p, r->budget_bytes, err);

    uint64_t spare = p->budget_bytes - p->floor_bytes;
    if (r->max_tokens <= 0) grow_step(model, spare, p->sequences, max_logits, p);
    uint64_t others =
        p->process_bytes + p->resident_bytes + p->state_bytes + p->scratch_bytes + p->prefix_bytes;
    uint64_t left = p->budget_bytes > others + floor ? p->budget_bytes - others : floor;
    p->slot_bytes = left < want ? left : want;
    p->all_resident = p->slot_bytes >= all;
    p->slots_per_layer = column ? (int)(p->slot_bytes / column) : 0;
    if (p->slots_per_layer > info->n_experts) p->slots_per_layer = info->n_experts;
    p->slots = p->slots_per_layer * info->n_moe_layers;
    return FM_OK;
}
