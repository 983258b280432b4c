#include "cli/cli.h"
#include "cli/options.h"
#include "cli/resolve.h"
#include "cli/synth.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "experts/pack.h"

#include <signal.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const cli_option own[] = {
    {"output", 'o', CLI_FOLDER, "DIR", 0, 0, "the folder to make; required"},
    {"seed", 's', CLI_INT, "N", 0, 2147483647, "the same seed gives the same bytes; default 1"},
    {"skew", 0, CLI_NUMBER, "F", 0, 0.99,
     "how alike all tokens are to the routers: 0 chooses all experts alike, 0.6 reuses them as a "
     "real text does; default 0"},
    {"bits", 0, CLI_CHOICE, "2|3|4|5|6|8", 0, 0, "bits of a weight; default: as the config says"},
    {"group-size", 0, CLI_CHOICE, "32|64|128", 0, 0, "weights that share a scale"},
    {"quant-mode", 0, CLI_CHOICE, "affine|mxfp4|nvfp4|mxfp8", 0, 0, "number format"},
    {"layers", 0, CLI_INT, "N", 1, 1024, "this many layers instead of all"},
    {"packed", 0, CLI_FLAG, NULL, 0, 0,
     "write the experts into a packed store (DIR/flash-moe.pack) and not into the checkpoint"},
    {0},
};
static const cli_group own_group = {"Writing", own, false};

const cli_spec spec_synth = {
    .arguments = "CONFIG",
    .least = 1,
    .most = 1,
    .about =
        "Writes a checkpoint with random weights in the exact shapes of a real model, to measure a "
        "machine without a download. CONFIG is a config.json, a folder with one, or a name from "
        "configs/. Nothing is held in memory: the weights are made while they are written.",
    .examples = "  flash-moe synth Qwen3-30B-A3B -o /data/q30 --skew 0.6\n"
                "  flash-moe synth Qwen3-Coder-Next -o /data/next --packed\n"
                "  flash-moe synth config.json -o /tmp/small --layers 4 --bits 3 --group-size 32\n",
    .groups = {&own_group},
};

enum { PIECE = 8 << 20, TASK_BYTES = 256 << 10 };

/* One run of the verb. */
typedef struct job {
    sy_plan plan;
    const char *dir;
    unsigned char *buffer;
    bs_pool *pool;
    uint64_t done, total;
    double start, shown;
    bool terminal;
} job;

static volatile sig_atomic_t interrupted;

static void on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Rows of one tensor, made by all threads. */
typedef struct fill_job {
    const sy_plan *plan;
    const sy_tensor *t;
    uint64_t row, n, piece;
    unsigned char *dst;
} fill_job;

static void fill_task(void *arg, int index, int worker)
{
    (void)worker;
    const fill_job *f = arg;
    uint64_t begin = (uint64_t)index * f->piece;
    uint64_t n = f->n - begin < f->piece ? f->n - begin : f->piece;
    sy_fill(f->plan, f->t, f->row + begin, n, f->dst + begin * f->t->row_bytes);
}

static void fill(const job *j, const sy_tensor *t, uint64_t row, uint64_t n, unsigned char *dst)
{
    uint64_t piece = t->row_bytes < TASK_BYTES ? TASK_BYTES / t->row_bytes : 1;
    fill_job f = {&j->plan, t, row, n, piece, dst};
    bs_pool_run(j->pool, fill_task, &f, (int)((n + piece - 1) / piece));
}

static fm_status advance(job *j, uint64_t bytes, fm_error *err)
{
    j->done += bytes;
    double now = bs_now();
    if (j->terminal && now - j->shown > 0.5) {
        j->shown = now;
        fprintf(stderr, "\r%5.1f %%  %.2f of %.2f GB  %.2f GB/s ",
                100.0 * (double)j->done / (double)j->total, (double)j->done / 1e9,
                (double)j->total / 1e9, (double)j->done / 1e9 / (now - j->start));
    }
    if (interrupted) return fm_fail(err, FM_E_CANCELLED, "interrupted");
    return FM_OK;
}

/* --- the safetensors files
 * --------------------------------------------------------------------------- */

static char *shard_name(const job *j, int shard)
{
    if (j->plan.n_shards == 1) return bs_strdup("model.safetensors");
    return bs_sprintf("model-%05d-of-%05d.safetensors", shard + 1, j->plan.n_shards);
}

static fm_status declare_all(const job *j, int shard, ts_writer *w, fm_error *err)
{
    fm_status status = FM_OK;
    for (size_t i = 0; i < j->plan.n && !status; i++) {
        const sy_tensor *t = &j->plan.tensor[i];
        if (t->shard != shard) continue;
        char *name = sy_name(t);
        status = name ? ts_writer_declare(w, name, t->type, t->n_dims, t->shape, err)
                      : fm_fail_nomem(err, "naming a tensor");
        bs_free(name);
    }
    return status;
}

static fm_status write_tensor(job *j, const sy_tensor *t, ts_writer *w, fm_error *err)
{
    fm_status status = FM_OK;
    uint64_t piece = t->row_bytes < PIECE ? PIECE / t->row_bytes : 1;
    if (t->row_bytes > PIECE)
        return fm_fail(err, FM_E_LIMIT, "%s: a row is too long", t->spec->name);
    for (uint64_t row = 0; row < t->rows && !status; row += piece) {
        uint64_t n = t->rows - row < piece ? t->rows - row : piece;
        fill(j, t, row, n, j->buffer);
        status = ts_writer_write(w, j->buffer, (size_t)(n * t->row_bytes), err);
        if (!status) status = advance(j, n * t->row_bytes, err);
    }
    return status;
}

static fm_status write_shard(job *j, int shard, fm_error *err)
{
    char *name = shard_name(j, shard), *path = name ? bs_path_join(j->dir, name) : NULL;
    ts_writer *w = NULL;
    fm_status status = path ? ts_writer_open(path, &w, err) : fm_fail_nomem(err, j->dir);
    if (!status) status = declare_all(j, shard, w, err);
    for (size_t i = 0; i < j->plan.n && !status; i++)
        if (j->plan.tensor[i].shard == shard) status = write_tensor(j, &j->plan.tensor[i], w, err);
    if (!status) status = ts_writer_finish(w, err);
    else ts_writer_abort(w);
    bs_free(name);
    bs_free(path);
    return status;
}

static fm_status write_json(const job *j, const char *name, const json_t *value, fm_error *err)
{
    char *path = bs_path_join(j->dir, name);
    char *text = path ? json_dumps(value, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    fm_status status =
        text ? bs_write_file(path, text, strlen(text), err) : fm_fail_nomem(err, name);
    free(text); /* jansson's */
    bs_free(path);
    return status;
}

static fm_status write_index(const job *j, fm_error *err)
{
    if (j->plan.n_shards == 1) return FM_OK;
    json_t *map = json_object();
    bool ok = map != NULL;
    for (size_t i = 0; i < j->plan.n && ok; i++) {
        char *name = sy_name(&j->plan.tensor[i]), *shard = shard_name(j, j->plan.tensor[i].shard);
        ok = name && shard && !json_object_set_new(map, name, json_string(shard));
        bs_free(name);
        bs_free(shard);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)j->plan.bytes,
                              "weight_map", map);
    fm_status status = ok && index ? write_json(j, "model.safetensors.index.json", index, err)
                                   : fm_fail_nomem(err, "the shard index");
    json_decref(index);
    return status;
}

/* --- the packed store
 * ----------------------------------------------------------------------------- */

enum { MAX_PARTS = 4 };

/* The tensors of a MoE layer's three projections. */
typedef struct expert_tensors {
    sy_tensor part[XP_PROJECTIONS][MAX_PARTS];
    int n[XP_PROJECTIONS];
} expert_tensors;

static void find_experts(const sy_plan *p, int layer, expert_tensors *out)
{
    for (size_t i = 0; i < p->schema.n; i++) {
        const md_spec *s = &p->schema.spec[i];
        if (s->kind != MD_EXPERTS || s->moe_layer != layer) continue;
        int projection = (int)(s->part[0] - MD_EXPERT_GATE);
        out->n[projection] = sy_parts_of(p, s, out->part[projection]);
    }
}

static fm_status put_expert(job *j, xp_pack_writer *w, const expert_tensors *t, int layer,
                            int expert, fm_error *err)
{
    static const int place[] = {
        [SY_CODES] = XP_CODES, [SY_SCALES] = XP_SCALES, [SY_BIASES] = XP_BIASES};
    const void *parts[XP_PROJECTIONS][XP_PARTS] = {{NULL}};
    unsigned char *at = j->buffer;
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int k = 0; k < t->n[p]; k++) {
            const sy_tensor *part = &t->part[p][k];
            if (part->part == SY_BIAS) continue; /* resident, with the checkpoint */
            uint64_t rows = (uint64_t)part->spec->rows;
            fill(j, part, (uint64_t)expert * rows, rows, at);
            parts[p][place[part->part]] = at;
            at += rows * part->row_bytes;
        }
    fm_status status = xp_pack_put(w, layer, expert, parts, err);
    return status ? status : advance(j, (uint64_t)(at - j->buffer), err);
}

static fm_status write_layer(job *j, xp_pack_writer *w, const xp_layer *layers, int layer,
                             fm_error *err)
{
    expert_tensors t = {0};
    fm_status status = FM_OK;
    find_experts(&j->plan, layer, &t);
    for (int e = 0; e < layers[layer].n_experts && !status; e++)
        status = put_expert(j, w, &t, layer, e, err);
    return status ? status : xp_pack_finish_layer(w, layer, err);
}

/* Bytes of the largest expert: what the buffer must hold. */
static size_t expert_bytes(const xp_layer *layers, int n)
{
    size_t most = 0;
    for (int l = 0; l < n; l++) {
        size_t bytes = 0;
        for (int p = 0; p < XP_PROJECTIONS; p++)
            for (int k = 0; k < XP_PARTS; k++) bytes += layers[l].part[p][k].bytes;
        if (bytes > most) most = bytes;
    }
    return most;
}

static fm_status write_pack(job *j, const xp_layer *layers, int n, fm_error *err)
{
    char *dir = bs_path_join(j->dir, XP_PACK_NAME);
    xp_pack_writer *w = NULL;
    fm_status status = dir ? bs_make_dirs(dir, err) : fm_fail_nomem(err, j->dir);
    if (!status) status = xp_pack_begin(dir, layers, n, NULL, &w, err);
    for (int l = 0; l < n && !status; l++) {
        if (xp_pack_has_layer(w, l)) continue;
        status = write_layer(j, w, layers, l, err);
    }
    if (w && !status) status = xp_pack_finish(w, err);
    else if (w) xp_pack_abort(w);
    bs_free(dir);
    return status;
}

static int moe_layers(const md_arch *c)
{
    int n = 0;
    for (int l = 0; l < c->n_layers; l++) n += c->layer[l].moe;
    return n;
}

/* --- the whole
 * -------------------------------------------------------------------------------------- */

static fm_status check_folder(const job *j, fm_error *err)
{
    char *config = bs_path_join(j->dir, "config.json");
    bool taken = config && bs_is_file(config);
    bs_free(config);
    if (!config) return fm_fail_nomem(err, j->dir);
    if (taken) return fm_fail(err, FM_E_ARGUMENT, "%s: holds a model already", j->dir);
    fm_status status = bs_make_dirs(j->dir, err);
    struct statvfs disk;
    if (!status && !statvfs(j->dir, &disk) && (uint64_t)disk.f_bavail * disk.f_frsize < j->total)
        return fm_fail(err, FM_E_LIMIT, "%s: %.1f GB are needed and %.1f GB are free", j->dir,
                       (double)j->total / 1e9, (double)disk.f_bavail * (double)disk.f_frsize / 1e9);
    return status;
}

static fm_status write_parts(job *j, const xp_layer *layers, int n_layers, fm_error *err)
{
    fm_status status = FM_OK;
    if (layers) status = write_pack(j, layers, n_layers, err);
    for (int s = 0; s < j->plan.n_shards && !status; s++) status = write_shard(j, s, err);
    if (!status) status = write_index(j, err);
    /* last: a folder without it is not taken for a model */
    return status ? status : write_json(j, "config.json", j->plan.config, err);
}

static fm_status write_all(job *j, fm_error *err)
{
    j->total = j->plan.bytes + j->plan.expert_bytes;
    fm_status status = check_folder(j, err);
    if (status) return status;
    int n = j->plan.packed ? moe_layers(&j->plan.arch) : 0;
    xp_layer *layers = n ? bs_calloc((size_t)n, sizeof *layers) : NULL;
    size_t buffer = PIECE;
    for (int l = 0; l < n && layers; l++)
        md_planned_experts(&j->plan.arch, &j->plan.schema, j->plan.config, l, &layers[l]);
    if (layers && expert_bytes(layers, n) > buffer) buffer = expert_bytes(layers, n);
    j->buffer = bs_pages_alloc(buffer);
    if (!j->buffer || (n && !layers)) status = fm_fail_nomem(err, j->dir);
    if (!status) status = bs_pool_create(bs_default_threads(), &j->pool, err);
    j->start = bs_now();
    if (!status) status = write_parts(j, layers, n, err);
    bs_pool_destroy(j->pool);
    bs_pages_free(j->buffer, buffer);
    bs_free(layers);
    return status;
}

static sy_request request_of(const cli_args *a, const char *path)
{
    static const int bits[] = {2, 3, 4, 5, 6, 8}, group[] = {32, 64, 128};
    int b = cli_choice(a, "bits", -1), g = cli_choice(a, "group-size", -1);
    return (sy_request){.path = path,
                        .layers = cli_int(a, "layers", 0),
                        .bits = b < 0 ? 0 : bits[b],
                        .group = g < 0 ? 0 : group[g],
                        .mode = cli_text(a, "quant-mode", NULL),
                        .seed = (uint64_t)cli_int(a, "seed", 1),
                        .skew = cli_number(a, "skew", 0),
                        .packed = cli_has(a, "packed")};
}

static fm_status synth(const cli_args *a, job *j, fm_error *err)
{
    char *path = NULL;
    fm_status status = cli_find_config(cli_positional(a, 0), &path, err);
    if (status) return status;
    sy_request r = request_of(a, path);
    status = sy_plan_make(&r, &j->plan, err);
    if (!status) status = write_all(j, err);
    sy_plan_free(&j->plan);
    bs_free(path);
    return status;
}

int cmd_synth(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_synth, argc, argv, &args);
    if (ended >= 0) return ended;
    job j = {.dir = cli_text(&args, "output", NULL), .terminal = isatty(2)};
    if (!j.dir) {
        fputs("flash-moe: synth: name the folder to make with -o DIR\n", stderr);
        return 2;
    }
    interrupted = 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    fm_error err;
    fm_status status = synth(&args, &j, &err);
    if (j.terminal && j.shown > 0) fputc('\n', stderr);
    if (status) return cli_fail(&err);
    double seconds = bs_now() - j.start;
    fprintf(stderr, "wrote %.2f GB to %s in %.1f s (%.2f GB/s)\n", (double)j.done / 1e9, j.dir,
            seconds, (double)j.done / 1e9 / seconds);
    return 0;
}
