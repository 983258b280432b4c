#include "cli/resident.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

xp_range cli_part_place(const xp_part *part, int expert)
{
    if (part->each) return part->each[expert];
    return (xp_range){part->file, part->offset + (uint64_t)expert * part->stride};
}

static int by_place(const void *a, const void *b)
{
    const ts_tensor *x = *(const ts_tensor *const *)a, *y = *(const ts_tensor *const *)b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The tensor of places[n] (in order of place) that holds this byte. */
static const ts_tensor *tensor_at(const ts_tensor **places, size_t n, xp_range at)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        const ts_tensor *t = places[middle];
        if (t->file < at.file || (t->file == at.file && t->offset <= at.offset)) low = middle;
        else high = middle;
    }
    return places[low];
}

/* Experts that lie in a packed store alone are in no file of the checkpoint. */
static bool lies_in_store(const xp_source *source, const ts_store *store)
{
    return source->n_files == ts_file_count(store) &&
           !strcmp(source->paths[0], ts_file_path(store, 0));
}

bool *cli_expert_tensors(const md_model *model)
{
    const ts_store *store = md_store(model);
    const xp_source *source = md_expert_source(model);
    size_t n = ts_count(store);
    const ts_tensor **places = bs_calloc(n, sizeof *places);
    bool *flag = bs_calloc(n, sizeof *flag);
    if (!places || !flag) {
        bs_free(places);
        bs_free(flag);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) places[i] = ts_at(store, i);
    qsort(places, n, sizeof *places, by_place);
    for (int l = 0; l < source->n_layers && lies_in_store(source, store); l++)
        for (int k = 0; k < XP_PROJECTIONS * XP_PARTS; k++) {
            const xp_part *part = &source->layers[l].part[k / XP_PARTS][k % XP_PARTS];
            for (int e = 0; part->bytes && e < source->layers[l].n_experts; e++)
                flag[tensor_at(places, n, cli_part_place(part, e)) - ts_at(store, 0)] = true;
        }
    bs_free(places);
    return flag;
}

static bool is_resident(const ts_store *store, const bool *is_expert, size_t i, int file)
{
    return ts_at(store, i)->file == file && !is_expert[i];
}

bool cli_has_resident(const md_model *model, const bool *is_expert, int file)
{
    const ts_store *store = md_store(model);
    for (size_t i = 0; i < ts_count(store); i++)
        if (is_resident(store, is_expert, i, file)) return true;
    return false;
}

static fm_status copy_tensor(ts_writer *w, int fd, const char *path, const ts_tensor *t,
                             char *buffer, fm_error *err)
{
    fm_status status = FM_OK;
    for (uint64_t done = 0; done < t->bytes && !status;) {
        uint64_t n = t->bytes - done < COPY_BYTES ? t->bytes - done : COPY_BYTES;
        status = bs_pread_full(fd, path, buffer, (size_t)n, t->offset + done, err);
        if (!status) status = ts_writer_write(w, buffer, (size_t)n, err);
        done += n;
    }
    return status;
}

static fm_status copy_tensors(const ts_store *store, const bool *is_expert, int file, int fd,
                              const char *from, ts_writer *w, fm_error *err)
{
    char *buffer = bs_malloc(COPY_BYTES);
    fm_status status = buffer ? FM_OK : fm_fail_nomem(err, from);
    for (int copy = 0; copy < 2; copy++)
        for (size_t i = 0; i < ts_count(store) && !status; i++) {
            const ts_tensor *t = ts_at(store, i);
            if (!is_resident(store, is_expert, i, file)) continue;
            if (copy) status = copy_tensor(w, fd, from, t, buffer, err);
            else status = ts_writer_declare(w, t->name, t->type, t->n_dims, t->shape, err);
        }
    bs_free(buffer);
    return status;
}

fm_status cli_copy_resident(const md_model *model, const bool *is_expert, int file,
                            const char *from, const char *to, fm_error *err)
{
    ts_writer *w = NULL;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", from);
    fm_status status = ts_writer_open(to, &w, err);
    if (!status) status = copy_tensors(md_store(model), is_expert, file, fd, from, w, err);
    if (!status) status = ts_writer_finish(w, err);
    else if (w) ts_writer_abort(w);
    close(fd);
    return status;
}
