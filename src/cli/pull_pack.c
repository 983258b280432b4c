#include "cli/pull_pack.h"

#include "base/file.h"
#include "base/mem.h"
#include "cli/resident.h"
#include "experts/pack.h"
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER = 100 * 1000 * 1000 };

struct cli_packer {
    const hb_config *config;
    const hb_survey *survey;
    char *folder; /* what results */
    char
        *outline; /* folder/.outline: shards of holes with their headers, to be opened as a model */
    md_model *model; /* the outline */
    const xp_source *source;
    xp_pack_writer *writer;
    size_t first_weights; /* survey->files from here on are the source's files, in its order */
    char **here;          /* [n_files] a shard's contents, while they are there */
    bool *needs;          /* [n_files][n_layers]: this layer has experts in this file */
    bool *is_expert;      /* [ts_count] */
};

/* --- the outline ------------------------------------------------------------------------------ */

/* The shard as a file of its size that has its header and holes. */
static fm_status write_outline(const cli_packer *p, size_t file, const char *path, char *bytes,
                               size_t n, fm_error *err)
{
    char *temp = bs_sprintf("%s.new", path);
    if (!temp) return fm_fail_nomem(err, path);
    fm_status status = bs_write_file(temp, bytes, n, err);
    if (!status && (truncate(temp, (off_t)p->survey->files[file].size) || rename(temp, path)))
        status = fm_fail_errno(err, errno, "%s: cannot write", path);
    bs_free(temp);
    return status;
}

static fm_status fetch_header(const cli_packer *p, size_t file, const char *path,
                              const hb_hooks *hooks, fm_error *err)
{
    const hb_file *f = &p->survey->files[file];
    unsigned char start[8];
    uint64_t n = 0;
    fm_status status = hb_read_at(p->config, p->survey, file, 0, start, sizeof start, hooks, err);
    if (status) return status;
    for (int i = 7; i >= 0; i--) n = n << 8 | start[i];
    if (n > MAX_HEADER || n + 8 > f->size)
        return fm_fail(err, FM_E_FORMAT, "%s: its header claims %llu bytes of %llu", f->name,
                       (unsigned long long)n, (unsigned long long)f->size);
    char *bytes = bs_malloc((size_t)n + 8);
    if (!bytes) return fm_fail_nomem(err, "reading a header");
    memcpy(bytes, start, 8);
    status = hb_read_at(p->config, p->survey, file, 8, bytes + 8, (size_t)n, hooks, err);
    if (!status) status = write_outline(p, file, path, bytes, (size_t)n + 8, err);
    bs_free(bytes);
    return status;
}

static fm_status outline_file(const cli_packer *p, size_t file, const hb_hooks *hooks,
                              fm_error *err)
{
    const hb_file *f = &p->survey->files[file];
    struct stat st;
    if (strncmp(f->name, "model", 5) != 0)
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "%s: weights are read from files named model*.safetensors only, packed or "
                       "not",
                       f->name);
    char *path = bs_path_join(p->outline, f->name);
    if (!path) return fm_fail_nomem(err, f->name);
    fm_status status = FM_OK;
    if (stat(path, &st) || (uint64_t)st.st_size != f->size)
        status = fetch_header(p, file, path, hooks, err);
    bs_free(path);
    return status;
}

/* Make folder/name a link that leads to the same file of the snapshot. */
static fm_status link_to_snapshot(const cli_packer *p, const char *folder, const char *up,
                                  const char *name, fm_error *err)
{
    char *path = bs_path_join(folder, name);
    char *target = bs_sprintf("%s/snapshots/%s/%s", up, p->survey->commit, name);
    fm_status status = path && target ? FM_OK : fm_fail_nomem(err, name);
    if (!status && symlink(target, path) && errno != EEXIST)
        status = fm_fail_errno(err, errno, "%s: cannot link", path);
    bs_free(path);
    bs_free(target);
    return status;
}

static fm_status open_outline(cli_packer *p, const hb_hooks *hooks, fm_error *err)
{
    const hb_survey *s = p->survey;
    md_options options = {0};
    fm_status status = bs_make_dirs(p->outline, err);
    while (p->first_weights < s->n_files && !s->files[p->first_weights].weights) p->first_weights++;
    for (size_t i = p->first_weights; i < s->n_files && !status; i++)
        status = outline_file(p, i, hooks, err);
    if (!status) status = link_to_snapshot(p, p->outline, "../../..", "config.json", err);
    if (!status) status = md_open(p->outline, &options, &p->model, err);
    if (status) return status;
    p->source = md_expert_source(p->model);
    if (!p->source->n_layers)
        return fm_fail(err, FM_E_UNSUPPORTED, "%s has no experts to pack; pull without --pack",
                       s->id.repo);
    if ((size_t)p->source->n_files != s->n_files - p->first_weights)
        return fm_fail(err, FM_E_FORMAT, "%s: holds shards of another model; remove it",
                       p->outline);
    return FM_OK;
}

/* --- who needs what --------------------------------------------------------------------------- */

static void mark_needs(cli_packer *p, int l)
{
    const xp_layer *layer = &p->source->layers[l];
    for (int k = 0; k < XP_PROJECTIONS * XP_PARTS; k++) {
        const xp_part *part = &layer->part[k / XP_PARTS][k % XP_PARTS];
        for (int e = 0; part->bytes && e < layer->n_experts; e++) {
            size_t file = (size_t)cli_part_place(part, e).file;
            p->needs[file * (size_t)p->source->n_layers + (size_t)l] = true;
        }
    }
}

static fm_status mark_all(cli_packer *p, fm_error *err)
{
    size_t n_files = (size_t)p->source->n_files;
    p->is_expert = cli_expert_tensors(p->model);
    p->here = bs_calloc(n_files, sizeof *p->here);
    p->needs = bs_calloc(n_files * (size_t)p->source->n_layers, sizeof *p->needs);
    if (!p->is_expert || !p->here || !p->needs) return fm_fail_nomem(err, "packing");
    for (int l = 0; l < p->source->n_layers; l++) mark_needs(p, l);
    return FM_OK;
}

/* --- taking a shard --------------------------------------------------------------------------- */

static const char *shard_name(const cli_packer *p, int file)
{
    return p->survey->files[p->first_weights + (size_t)file].name;
}

static bool has_resident(const cli_packer *p, int file)
{
    return cli_has_resident(p->model, p->is_expert, file);
}

static fm_status write_resident(const cli_packer *p, int file, fm_error *err)
{
    char *path = bs_path_join(p->folder, shard_name(p, file));
    fm_status status = path ? FM_OK : fm_fail_nomem(err, "packing");
    if (!status && !bs_is_file(path) && has_resident(p, file))
        status = cli_copy_resident(p->model, p->is_expert, file, p->here[file], path, err);
    bs_free(path);
    return status;
}

static bool needs(const cli_packer *p, int file, int layer)
{
    return p->needs[(size_t)file * (size_t)p->source->n_layers + (size_t)layer];
}

/* Can this layer be packed now? */
static bool is_ready(const cli_packer *p, int layer)
{
    for (int f = 0; f < p->source->n_files; f++)
        if (needs(p, f, layer) && !p->here[f]) return false;
    return !xp_pack_has_layer(p->writer, layer);
}

/* In place of the download's total, which is drawn again with the next bytes. */
static void show_layer(const cli_packer *p, int layer)
{
    if (!isatty(STDERR_FILENO)) return;
    int done = 0;
    for (int l = 0; l < p->source->n_layers; l++) done += xp_pack_has_layer(p->writer, l);
    fprintf(stderr, "\r\033[Kpacking layer %d (%d of %d)", layer, done + 1, p->source->n_layers);
    fflush(stderr);
}

static fm_status pack_ready_layers(cli_packer *p, fm_error *err)
{
    size_t n = (size_t)p->source->n_files;
    const char **paths = bs_calloc(n, sizeof *paths);
    if (!paths) return fm_fail_nomem(err, "packing");
    for (size_t f = 0; f < n; f++) paths[f] = p->here[f] ? p->here[f] : p->source->paths[f];
    xp_source source = *p->source;
    source.paths = paths;
    fm_status status = FM_OK;
    for (int l = 0; l < source.n_layers && !status; l++) {
        if (!is_ready(p, l)) continue;
        show_layer(p, l);
        status = xp_pack_layer(p->writer, &source, l, err);
    }
    bs_free(paths);
    return status;
}

/* Nothing is left in this shard that is not in the results. */
static bool is_used_up(const cli_packer *p, int file)
{
    for (int l = 0; l < p->source->n_layers; l++)
        if (needs(p, file, l) && !xp_pack_has_layer(p->writer, l)) return false;
    char *path = bs_path_join(p->folder, shard_name(p, file));
    bool done = path && (bs_is_file(path) || !has_resident(p, file));
    bs_free(path);
    return done;
}

static bool has(void *arg, size_t file)
{
    const cli_packer *p = arg;
    return is_used_up(p, (int)(file - p->first_weights));
}

static fm_status take(void *arg, size_t survey_file, const char *path, fm_error *err)
{
    cli_packer *p = arg;
    int file = (int)(survey_file - p->first_weights);
    p->here[file] = bs_strdup(path);
    fm_status status = p->here[file] ? write_resident(p, file, err) : fm_fail_nomem(err, "packing");
    if (!status) status = pack_ready_layers(p, err);
    for (int f = 0; f < p->source->n_files && !status; f++) {
        if (!p->here[f] || !is_used_up(p, f)) continue;
        status = hb_release(p->config, p->survey, p->here[f], err);
        bs_free(p->here[f]);
        p->here[f] = NULL;
    }
    return status;
}

hb_sink cli_packer_sink(cli_packer *p)
{
    return (hb_sink){.arg = p, .has = has, .take = take};
}

/* --- room on the disk ---------------------------------------------------------------------------
 */

static uint64_t store_left(const cli_packer *p)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    uint64_t bytes = 0;
    for (int l = 0; l < p->source->n_layers; l++)
        if (!xp_pack_has_layer(p->writer, l))
            bytes += (uint64_t)p->source->layers[l].n_experts *
                     xp_record_layout(&p->source->layers[l], at);
    return bytes;
}

static uint64_t resident_left(const cli_packer *p)
{
    const ts_store *store = md_store(p->model);
    uint64_t bytes = 0;
    for (int f = 0; f < p->source->n_files; f++) {
        if (is_used_up(p, f)) continue;
        for (size_t i = 0; i < ts_count(store); i++)
            if (ts_at(store, i)->file == f && !p->is_expert[i]) bytes += ts_at(store, i)->bytes;
    }
    return bytes;
}

/* The file with whose arrival a shard can go: all its layers are packed then. */
static int goes_with(const cli_packer *p, int file)
{
    int last = file;
    for (int l = 0; l < p->source->n_layers; l++)
        for (int f = last + 1; needs(p, file, l) && f < p->source->n_files; f++)
            if (needs(p, f, l)) last = f;
    return last;
}

/* The most that shards which are there at the same time take: usually one or two of them. */
static uint64_t most_held(const cli_packer *p)
{
    uint64_t most = 0;
    for (int f = 0; f < p->source->n_files; f++) {
        uint64_t held = 0;
        for (int g = 0; g <= f; g++) {
            const hb_file *shard = &p->survey->files[p->first_weights + (size_t)g];
            if (!shard->cached && !is_used_up(p, g) && goes_with(p, g) >= f) held += shard->size;
        }
        if (held > most) most = held;
    }
    return most;
}

/* --- opening and finishing -------------------------------------------------------------------- */

static fm_status open_all(cli_packer *p, const hb_hooks *hooks, fm_error *err)
{
    fm_status status = hb_packed_folder(p->config, p->survey, &p->folder, err);
    if (status) return status;
    p->outline = bs_path_join(p->folder, ".outline");
    char *store = bs_path_join(p->folder, HB_PACK_NAME);
    if (!p->outline || !store) status = fm_fail_nomem(err, "packing");
    if (!status) status = open_outline(p, hooks, err);
    if (!status) status = mark_all(p, err);
    if (!status)
        status =
            xp_pack_begin(store, p->source->layers, p->source->n_layers, NULL, &p->writer, err);
    if (!status)
        status = hb_need_space(p->config, p->survey,
                               store_left(p) + resident_left(p) + most_held(p), err);
    bs_free(store);
    return status;
}

fm_status cli_packer_open(const hb_config *config, const hb_survey *survey, const hb_hooks *hooks,
                          cli_packer **out, fm_error *err)
{
    cli_packer *p = bs_calloc(1, sizeof *p);
    if (!p) return fm_fail_nomem(err, "packing");
    p->config = config;
    p->survey = survey;
    fm_status status = open_all(p, hooks, err);
    if (status) cli_packer_close(p);
    else *out = p;
    return status;
}

void cli_packer_close(cli_packer *p)
{
    if (!p) return;
    xp_pack_abort(p->writer);
    for (int f = 0; p->here && f < p->source->n_files; f++) bs_free(p->here[f]);
    md_close(p->model);
    bs_free(p->here);
    bs_free(p->needs);
    bs_free(p->is_expert);
    bs_free(p->outline);
    bs_free(p->folder);
    bs_free(p);
}

const char *cli_packer_folder(const cli_packer *p)
{
    return p->folder;
}

/* The outline, and what a killed writer left beside the results. */
static void sweep(const char *folder, bool all)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (all ? e->d_name[0] != '.' : strstr(e->d_name, ".tmp.") != NULL)
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir) closedir(dir);
    if (all) rmdir(folder);
}

fm_status cli_packer_finish(cli_packer *p, fm_error *err)
{
    xp_pack_writer *writer = p->writer;
    p->writer = NULL;
    fm_status status = xp_pack_finish(writer, err);
    for (size_t i = 0; i < p->first_weights && !status; i++) {
        const char *name = p->survey->files[i].name;
        if (strcmp(name, "config.json") && strcmp(name, "model.safetensors.index.json"))
            status = link_to_snapshot(p, p->folder, "../..", name, err);
    }
    if (!status) status = link_to_snapshot(p, p->folder, "../..", "config.json", err);
    if (!status) sweep(p->folder, false);
    if (!status) sweep(p->outline, true);
    return status;
}
