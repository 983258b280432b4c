/* open.c - opening and closing an expert cache: shares, memory, parts. */
#include "experts/cache.h"

#include "base/mem.h"
#include "experts/pack_format.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

uint64_t xp_slot_bytes(const xp_source *source, int layer, const xp_options *options)
{
    (void)options;
    return xp_layer_slot_bytes(&source->layers[layer]);
}

static int most_per_token(const xp_source *source)
{
    int most = 0;
    for (int l = 0; l < source->n_layers; l++)
        if (source->layers[l].top_k > most) most = source->layers[l].top_k;
    return most;
}

static uint64_t largest_slot(const xp_source *source, const xp_options *options)
{
    uint64_t most = 0;
    for (int l = 0; l < source->n_layers; l++) {
        uint64_t bytes = xp_slot_bytes(source, l, options);
        if (bytes > most) most = bytes;
    }
    return most;
}

uint64_t xp_floor_bytes(const xp_source *source, const xp_options *options)
{
    if (options->capacity == 0)
        return (uint64_t)most_per_token(source) * largest_slot(source, options);
    uint64_t sum = 0;
    for (int l = 0; l < source->n_layers; l++)
        sum += (uint64_t)source->layers[l].top_k * xp_slot_bytes(source, l, options);
    return sum;
}

static fm_status fixed_shares(const xp_source *source, int capacity, int *shares, fm_error *err)
{
    for (int l = 0; l < source->n_layers; l++) {
        const xp_layer *layer = &source->layers[l];
        if (capacity < layer->top_k)
            return fm_fail(
                err, FM_E_BUDGET,
                "capacity %d is below the %d experts a token needs: use at least %d, or 0 "
                "to read every expert each time",
                capacity, layer->top_k, layer->top_k);
        shares[l] = capacity < layer->n_experts ? capacity : layer->n_experts;
    }
    return FM_OK;
}

/* top_k for every layer, then one more for each in turn while the memory lasts. */
static void fill_shares(const xp_source *source, const uint64_t *bytes, uint64_t left, int *shares)
{
    for (bool more = true; more;) {
        more = false;
        for (int l = 0; l < source->n_layers; l++) {
            if (shares[l] >= source->layers[l].n_experts || bytes[l] > left) continue;
            shares[l]++;
            left -= bytes[l];
            more = true;
        }
    }
}

fm_status xp_share_slots(const xp_source *source, const xp_options *options, int *shares,
                         fm_error *err)
{
    if (options->capacity > 0) return fixed_shares(source, options->capacity, shares, err);
    uint64_t floor = xp_floor_bytes(source, options);
    if (options->capacity == 0) {
        memset(shares, 0, (size_t)source->n_layers * sizeof *shares);
        shares[0] = most_per_token(source);
        return FM_OK;
    }
    if (options->slot_bytes < floor)
        return fm_fail(err, FM_E_BUDGET, "%llu bytes for experts are below the floor of %llu",
                       (unsigned long long)options->slot_bytes, (unsigned long long)floor);
    uint64_t *bytes = bs_calloc((size_t)source->n_layers, sizeof *bytes);
    if (!bytes) return fm_fail_nomem(err, "expert slots");
    for (int l = 0; l < source->n_layers; l++) {
        bytes[l] = xp_slot_bytes(source, l, options);
        shares[l] = source->layers[l].top_k;
    }
    fill_shares(source, bytes, options->slot_bytes - floor, shares);
    bs_free(bytes);
    return FM_OK;
}

/* Layers with slots of one size form a class; with capacity 0 one scratch serves all. */
static void classify(const xp_cache *c, xp_res_layer *layers, uint64_t *class_bytes)
{
    int n_classes = 0;
    uint64_t scratch = c->lazy ? largest_slot(&c->source, &c->options) : 0;
    for (int l = 0; l < c->source.n_layers; l++) {
        uint64_t bytes = c->lazy ? scratch : xp_layer_slot_bytes(&c->source.layers[l]);
        int k = 0;
        while (k < n_classes && class_bytes[k] != bytes) k++;
        if (k == n_classes) class_bytes[n_classes++] = bytes;
        layers[l].size_class = k;
        layers[l].n_experts = c->source.layers[l].n_experts;
        layers[l].top_k = c->source.layers[l].top_k;
    }
}

static fm_status take_memory(xp_cache *c, const uint64_t *class_bytes, fm_error *err)
{
    c->n_slots = xp_res_slots(c->residency);
    c->slots = bs_calloc((size_t)c->n_slots, sizeof *c->slots);
    if (!c->slots) return fm_fail_nomem(err, "expert slots");
    for (int s = 0; s < c->n_slots; s++)
        if (!bs_add(c->memory_bytes, class_bytes[xp_res_size_class(c->residency, s)],
                    &c->memory_bytes))
            return fm_fail(err, FM_E_LIMIT, "expert slots: more bytes than can be addressed");
    c->memory = bs_pages_alloc(c->memory_bytes);
    if (!c->memory) return fm_fail_nomem(err, "expert slots");
    if (c->options.lock && mlock(c->memory, c->memory_bytes))
        return fm_fail_errno(err, errno,
                             "cannot lock %zu bytes of expert slots (raise the limit "
                             "with `ulimit -l`, or leave --lock out)",
                             c->memory_bytes);
    char *next = c->memory;
    for (int s = 0; s < c->n_slots; s++) {
        c->slots[s].memory = next;
        c->slots[s].bytes = class_bytes[xp_res_size_class(c->residency, s)];
        next += c->slots[s].bytes;
    }
    return FM_OK;
}

static fm_status make_slots(xp_cache *c, xp_res_layer *layers, int *shares, uint64_t *class_bytes,
                            fm_error *err)
{
    fm_status status = xp_share_slots(&c->source, &c->options, shares, err);
    if (status) return status;
    classify(c, layers, class_bytes);
    for (int l = 0; l < c->source.n_layers; l++) layers[l].slots = shares[l];
    bool lend = c->options.capacity <= 0;
    xp_policy policy = c->lazy ? XP_LRU : c->options.policy;
    status = xp_res_create(layers, c->source.n_layers, policy, lend, &c->residency, err);
    return status ? status : take_memory(c, class_bytes, err);
}

static fm_status open_slots(xp_cache *c, fm_error *err)
{
    size_t n = (size_t)c->source.n_layers;
    xp_res_layer *layers = bs_calloc(n, sizeof *layers);
    int *shares = bs_calloc(n, sizeof *shares);
    uint64_t *class_bytes = bs_calloc(n, sizeof *class_bytes);
    fm_status status = layers && shares && class_bytes
                           ? make_slots(c, layers, shares, class_bytes, err)
                           : fm_fail_nomem(err, "expert slots");
    bs_free(layers);
    bs_free(shares);
    bs_free(class_bytes);
    return status;
}

static fm_status open_scratch(xp_cache *c, fm_error *err)
{
    int most = 1;
    for (int l = 0; l < c->source.n_layers; l++)
        if (c->source.layers[l].n_experts > most) most = c->source.layers[l].n_experts;
    c->scratch_slots = bs_calloc((size_t)most, sizeof *c->scratch_slots);
    c->scratch_hits = bs_calloc((size_t)most, sizeof *c->scratch_hits);
    c->jobs = bs_calloc(XP_MAX_JOBS, sizeof *c->jobs);
    if (c->scratch_slots && c->scratch_hits && c->jobs) return FM_OK;
    return fm_fail_nomem(err, "expert cache");
}

static fm_status open_reader(xp_cache *c, fm_error *err)
{
    xp_reader_options o = {
        .paths = c->source.paths,
        .file_bytes = c->source.file_bytes,
        .n_files = c->source.n_files,
        .io = c->options.io,
        .buffered = c->options.buffered,
        .threads = c->options.io_threads,
        .memory = c->memory,
        .memory_bytes = c->memory_bytes,
    };
    return xp_reader_open(&o, &c->reader, err);
}

/* From here on the records of the store are the source. */
static fm_status open_pack(xp_cache *c, fm_error *err)
{
    fm_status status = xp_pack_open(c->options.pack_dir, &c->source, &c->pack, err);
    if (status) return status;
    c->source = *xp_pack_source(c->pack);
    size_t records = 0;
    for (int l = 0; l < c->source.n_layers; l++) records += (size_t)c->source.layers[l].n_experts;
    c->unchecked = bs_malloc(records);
    c->first_record = bs_calloc((size_t)c->source.n_layers, sizeof *c->first_record);
    if (!c->unchecked || !c->first_record) return fm_fail_nomem(err, "expert cache");
    memset(c->unchecked, 1, records);
    for (int l = 1; l < c->source.n_layers; l++)
        c->first_record[l] = c->first_record[l - 1] + (size_t)c->source.layers[l - 1].n_experts;
    return FM_OK;
}

fm_status xp_open(const xp_source *source, const xp_options *options, xp_cache **out, fm_error *err)
{
    fm_status status = xp_check_source(source, err);
    if (status) return status;
    xp_cache *c = bs_calloc(1, sizeof *c);
    if (!c) return fm_fail_nomem(err, "expert cache");
    c->source = *source;
    c->options = *options;
    c->lazy = options->capacity == 0;
    if (options->pack_dir) status = open_pack(c, err);
    if (!status) status = open_scratch(c, err);
    if (!status) status = open_slots(c, err);
    if (!status) status = open_reader(c, err);
    if (status) {
        xp_close(c);
        return status;
    }
    *out = c;
    return FM_OK;
}

void xp_close(xp_cache *c)
{
    if (!c) return;
    xp_reader_close(c->reader); /* first: its reads write into the slots */
    xp_fill_close(c);
    xp_fixed_close(c);
    xp_res_destroy(c->residency);
    bs_pages_free(c->memory, c->memory_bytes);
    bs_free(c->slots);
    bs_free(c->jobs);
    bs_free(c->scratch_slots);
    bs_free(c->scratch_hits);
    bs_free(c->unchecked);
    bs_free(c->first_record);
    xp_pack_close(c->pack);
    bs_free(c);
}
