/* prepared.c - what `pack` and `tune` left for this model and machine. */
#include "engine/internal.h"

#include "base/mem.h"
#include "experts/measure.h"
#include "experts/pack.h"

static const uint64_t WORTH_PACKING = (uint64_t)1 << 30;

static const char *model_path(const en_engine *e)
{
    const ts_store *store = md_store(e->model);
    return store && ts_file_count(store) ? ts_file_path(store, 0) : e->options.model;
}

/* A store that somebody named must do. One that was found beside the model is left aside when it
 * does not fit any more, and a note says so: the original files hold the same. */
static fm_status find_pack(en_engine *e, fm_error *err)
{
    const xp_source *source = md_expert_source(e->model);
    if (!source || !source->n_layers || e->options.pack_dir) return FM_OK;
    char *dir = xp_pack_find(e->options.model);
    xp_pack *pack;
    fm_error why;
    if (dir && !xp_pack_open(dir, source, &pack, &why)) {
        xp_pack_close(pack);
        e->options.pack_dir = dir;
        return FM_OK;
    }
    if (dir) bs_buf_printf(&e->notes, "reading the original files: %s%c", why.message, 0);
    else if (md_describe(e->model)->experts_bytes >= WORTH_PACKING)
        bs_buf_printf(&e->notes,
                      "not packed: each expert takes several reads; `flash-moe pack %s` makes it "
                      "one (measured: docs/BENCHMARKS.md)%c",
                      e->options.model, 0);
    bs_free(dir);
    return e->notes.failed ? fm_fail_nomem(err, "opening a model") : FM_OK;
}

/* The rates are those of the disk that experts will be read from. */
fm_status en_find_prepared(en_engine *e, fm_error *err)
{
    fm_status status = find_pack(e, err);
    if (status) return status;
    const char *pack = e->options.pack_dir;
    xp_tuning_load(pack && *pack ? pack : model_path(e), &e->tuning);
    e->disk_rate = e->tuning.disk_bytes_s;
    e->memory_rate = e->tuning.memory_bytes_s;
    return FM_OK;
}
