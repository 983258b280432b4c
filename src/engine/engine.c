#include "engine/internal.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MIB = 1 << 20,
    LEAST_SNAPSHOTS = 3, /* a slot, when prefixes of a recurrent model are kept */
};

en_options en_options_default(void)
{
    return (en_options){.capacity = -1,
                        .parallel = 1,
                        .queue = 64,
                        .isa = kn_isa_best(),
                        .precision = KN_PRECISION_FAST,
                        .kv_bits = 32,
                        .prefetch = -1,
                        .pin_top_k = -1,
                        .pin_threshold = -1};
}

static fm_status check_options(const en_options *o, fm_error *err)
{
    if (!o->model) return fm_fail(err, FM_E_ARGUMENT, "no model folder given");
    if (o->capacity < -1) return fm_fail(err, FM_E_ARGUMENT, "capacity %d", o->capacity);
    if (o->context < 0) return fm_fail(err, FM_E_ARGUMENT, "context %d", o->context);
    if (o->parallel < 1 || o->parallel > 256)
        return fm_fail(err, FM_E_ARGUMENT, "parallel is %d, not 1 to 256", o->parallel);
    if (o->queue < 0) return fm_fail(err, FM_E_ARGUMENT, "queue %d", o->queue);
    if (o->prefill_chunk < 0 || o->prefill_chunk > 65536)
        return fm_fail(err, FM_E_ARGUMENT, "prefill chunk is %d, not 1 to 65536", o->prefill_chunk);
    if (o->threads < 0 || o->threads > 1024)
        return fm_fail(err, FM_E_ARGUMENT, "threads is %d, not 1 to 1024", o->threads);
    if (o->kv_bits != 8 && o->kv_bits != 16 && o->kv_bits != 32)
        return fm_fail(err, FM_E_ARGUMENT, "kv-bits is %d, not 32, 16 or 8", o->kv_bits);
    if (!kn_isa_available(o->isa))
        return fm_fail(err, FM_E_UNSUPPORTED, "this CPU has no %s", kn_isa_name(o->isa));
    return en_warm_check(o, err);
}

/* Own copies of the strings that are kept. */
static bool copy_options(en_engine *e, const en_options *o)
{
    e->options = *o;
    const char **strings[] = {&e->options.model, &e->options.tokenizer, &e->options.pack_dir,
                              &e->options.profile, &e->options.cache_dir};
    bool ok = true;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        if (*strings[i]) ok &= (*strings[i] = bs_strdup(*strings[i])) != NULL;
    if (!e->options.threads) e->options.threads = bs_default_threads();
    return ok;
}

static fm_status open_text(en_engine *e, fm_error *err)
{
    const en_options *o = &e->options;
    const char *path = o->tokenizer ? o->tokenizer : o->model;
    if (o->no_tokenizer) return FM_OK;
    fm_error why;
    fm_status status = tx_tokenizer_open(path, &e->tokenizer, &why);
    if (status == FM_E_NOT_FOUND && !o->tokenizer) return FM_OK;
    if (status) {
        if (err) *err = why;
        return status;
    }
    return tx_chat_open(path, e->tokenizer, &e->chat, err);
}

static md_options model_options(const en_options *o)
{
    return (md_options){.isa = o->isa,
                        .precision = o->precision,
                        .kv_type = o->kv_bits == 8    ? KN_KV_I8
                                   : o->kv_bits == 16 ? KN_KV_F16
                                                      : KN_KV_F32,
                        .mlx_router = o->mlx_router};
}

/* As told, as `tune` found, or on: it stops by itself when most of it is for nothing. Off where the
 * text depends on what is resident, and so would on which read is the faster. */
static int prefetch_of(const en_engine *e)
{
    enum { UNTUNED = 4 };
    if (e->options.prefetch >= 0) return e->options.prefetch;
    if (e->options.mode == EN_PREDICTIVE) return 0;
    return e->tuning.prefetch >= 0 ? e->tuning.prefetch : UNTUNED;
}

static xp_options expert_options(const en_engine *e, uint64_t slot_bytes)
{
    const en_options *o = &e->options;
    return (xp_options){.slot_bytes = slot_bytes,
                        .capacity = o->capacity,
                        .policy = o->policy,
                        .io = o->io,
                        .buffered = o->buffered,
                        .prefetch = prefetch_of(e),
                        .prefetch_may_stop = o->prefetch < 0,
                        .io_threads = e->tuning.io_threads,
                        .pack_dir = o->pack_dir && *o->pack_dir ? o->pack_dir : NULL,
                        .lock = o->lock,
                        .pool = e->pool};
}

static fm_status make_plan(en_engine *e, fm_error *err)
{
    const en_options *o = &e->options;
    uint64_t snapshots = 0;
    if (o->keep_prefixes)
        snapshots = md_snapshot_bytes(e->model) * LEAST_SNAPSHOTS * (uint64_t)o->parallel;
    en_plan_request r = {
        .budget_bytes = o->memory,
        .capacity = o->capacity,
        .context = o->context,
        .sequences = o->parallel,
        .max_tokens = o->prefill_chunk,
        .max_logits = o->max_logits,
        .prefix_bytes = o->prefix_memory > snapshots ? o->prefix_memory : snapshots,
        .process_bytes = en_process_bytes(o->threads),
        .disk_bytes_s = e->disk_rate,
        .memory_bytes_s = e->memory_rate,
        .experts = expert_options(e, 0),
    };
    fm_status status = en_make_plan(e->model, &r, &e->plan, err);
    if (status) return status;
    if (o->memory > e->plan.budget_bytes)
        bs_buf_printf(&e->notes,
                      "the budget of %.2f GiB is more than this machine allows (%s): %.2f GiB are "
                      "used%c",
                      (double)o->memory / (1024.0 * MIB), e->plan.machine.limited_by,
                      (double)e->plan.budget_bytes / (1024.0 * MIB), 0);
    e->options.context = e->plan.context;
    e->options.memory = e->plan.budget_bytes;
    if (e->options.max_logits < o->parallel) e->options.max_logits = o->parallel;
    return FM_OK;
}

static void watch(void *arg, int layer, int token, int *experts, float *weights, int top_k)
{
    en_engine *e = arg;
    for (int i = 0; i < EN_MAX_WATCHERS; i++)
        if (e->watchers[i].fn)
            e->watchers[i].fn(e->watchers[i].arg, layer, token, experts, weights, top_k);
}

static fm_status take_scratch(en_engine *e, fm_error *err)
{
    size_t vocab = (size_t)md_describe(e->model)->vocab;
    int rows = e->options.max_logits;
    fm_status status =
        md_run_create(e->model, e->experts, e->pool, e->plan.max_tokens, rows, &e->run, err);
    if (status) return status;
    e->logits_bytes = vocab * sizeof(float) * (size_t)rows;
    e->logits = bs_pages_alloc(e->logits_bytes);
    e->sampling_scratch = bs_malloc(en_sampler_scratch((int)vocab));
    e->raw = bs_calloc(vocab, sizeof *e->raw);
    e->batch = bs_calloc((size_t)e->plan.max_tokens, sizeof *e->batch);
    e->slots = bs_calloc((size_t)e->options.parallel, sizeof *e->slots);
    if (!e->logits || !e->sampling_scratch || !e->raw || !e->batch || !e->slots)
        return fm_fail_nomem(err, "taking scratch memory");
    for (int i = 0; i < e->options.parallel && !status; i++)
        status = md_state_create(e->model, e->plan.context, &e->slots[i].state, err);
    if (!status && !en_prefix_init(e)) status = fm_fail_nomem(err, "taking scratch memory");
    return status;
}

static fm_status lock_memory(fm_error *err)
{
    if (!mlockall(MCL_CURRENT)) return FM_OK;
    if (errno == EPERM || errno == ENOMEM)
        return fm_fail_errno(err, errno,
                             "--lock: the system lets this user lock less memory than the budget "
                             "(raise 'ulimit -l', the memlock limit)");
    return fm_fail_errno(err, errno, "--lock");
}

static fm_status load(en_engine *e, fm_error *err)
{
    const en_options *o = &e->options;
    md_options model = model_options(o);
    fm_status status = md_open(o->model, &model, &e->model, err);
    if (!status) status = en_find_prepared(e, err);
    if (!status) status = open_text(e, err);
    if (!status) status = en_read_sampling(o->model, &e->sampling, err);
    if (!status) status = bs_pool_create(o->threads, &e->pool, err);
    if (!status) status = make_plan(e, err);
    if (!status) status = md_load(e->model, o->progress, o->progress_arg, err);
    if (status) return status;
    const xp_source *source = md_expert_source(e->model);
    if (source && source->n_layers) {
        xp_options x = expert_options(e, e->plan.slot_bytes);
        status = xp_open(source, &x, &e->experts, err);
    }
    if (!status) status = take_scratch(e, err);
    if (!status) status = en_warm_open(e, err);
    if (!status && o->lock) status = lock_memory(err);
    return status;
}

fm_status en_open(const en_options *options, en_engine **out, fm_error *err)
{
    *out = NULL;
    double start = bs_now();
    fm_status status = check_options(options, err);
    if (status) return status;
    en_engine *e = bs_calloc(1, sizeof *e);
    if (!e) return fm_fail_nomem(err, "opening a model");
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, &attributes);
    pthread_condattr_destroy(&attributes);
    status = copy_options(e, options) ? load(e, err) : fm_fail_nomem(err, "opening a model");
    if (status) {
        en_close(e);
        return status;
    }
    e->load_ms = (bs_now() - start) * 1e3;
    *out = e;
    return FM_OK;
}

void en_close(en_engine *e)
{
    if (!e) return;
    en_take_arrivals(e);
    for (en_choice *c = e->active; c; c = c->next_choice)
        if (c->phase != EN_OVER) en_finish_choice(e, c, EN_FINISH_CANCELLED, NULL);
    en_drop_finished(e);
    if (e->slots) en_prefix_free(e);
    for (int i = 0; e->slots && i < e->options.parallel; i++) md_state_destroy(e->slots[i].state);
    en_warm_close(e);
    md_run_destroy(e->run);
    xp_close(e->experts);
    bs_pages_free(e->logits, e->logits_bytes);
    bs_free(e->sampling_scratch);
    bs_free(e->raw);
    bs_free(e->batch);
    bs_free(e->slots);
    bs_pool_destroy(e->pool);
    tx_chat_free(e->chat);
    tx_tokenizer_free(e->tokenizer);
    md_close(e->model);
    bs_buf_free(&e->notes);
    bs_free((char *)e->options.model);
    bs_free((char *)e->options.tokenizer);
    bs_free((char *)e->options.pack_dir);
    bs_free((char *)e->options.profile);
    bs_free((char *)e->options.cache_dir);
    pthread_cond_destroy(&e->work);
    pthread_mutex_destroy(&e->lock);
    bs_free(e);
}

fm_status en_watch_routes(en_engine *e, md_route_fn *fn, void *arg, fm_error *err)
{
    for (int i = 0; i < EN_MAX_WATCHERS; i++) {
        if (e->watchers[i].fn) continue;
        e->watchers[i] = (en_watcher){fn, arg};
        md_run_watch_routes(e->run, watch, e);
        return FM_OK;
    }
    return fm_fail(err, FM_E_LIMIT, "at most %d watchers of routes", EN_MAX_WATCHERS);
}

void en_unwatch_routes(en_engine *e, md_route_fn *fn, void *arg)
{
    bool any = false;
    for (int i = 0; i < EN_MAX_WATCHERS; i++) {
        if (e->watchers[i].fn == fn && e->watchers[i].arg == arg) e->watchers[i].fn = NULL;
        any |= e->watchers[i].fn != NULL;
    }
    if (!any) md_run_watch_routes(e->run, NULL, NULL);
}

const char *en_note(const en_engine *e, int i)
{
    for (int n = 0; i >= 0; n++) {
        const char *note = md_note(e->model, n);
        if (!note) break;
        if (i-- == 0) return note;
    }
    for (size_t at = 0; at < e->notes.length; at += strlen(e->notes.data + at) + 1)
        if (i-- == 0) return e->notes.data + at;
    return NULL;
}

const md_info *en_describe(const en_engine *e)
{
    return md_describe(e->model);
}

const en_plan *en_get_plan(const en_engine *e)
{
    return &e->plan;
}

const en_options *en_get_options(const en_engine *e)
{
    return &e->options;
}

const tx_tokenizer *en_tokenizer(const en_engine *e)
{
    return e->tokenizer;
}

const tx_chat *en_chat(const en_engine *e)
{
    return e->chat;
}

const en_sampling *en_default_sampling(const en_engine *e)
{
    return &e->sampling;
}

xp_cache *en_experts(en_engine *e)
{
    return e->experts;
}

md_model *en_model(en_engine *e)
{
    return e->model;
}

bs_pool *en_pool(en_engine *e)
{
    return e->pool;
}
