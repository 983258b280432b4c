/* store.h - inside the tensors room: the parts a store is made of. */
#ifndef TENSORS_STORE_H
#define TENSORS_STORE_H

#include "tensors/tensors.h"

typedef struct ts_file {
    char *path;
    uint64_t bytes;
    char *names; /* the NUL-ended names of this file's tensors, one block */
} ts_file;

struct ts_store {
    ts_file *files;
    int n_files;
    ts_tensor *tensors; /* in order of name once opened */
    size_t n_tensors, capacity;
};

/* Open a weight file for reading: regular files only, never blocking on a FIFO. */
fm_status ts_open_file(const char *path, int *fd, uint64_t *bytes, fm_error *err);

/* Read the header of store->files[file] (path set, the rest zero) and append its tensors: types,
 * shapes, sizes and ranges checked, overlaps and names not yet. */
fm_status ts_read_header(ts_store *store, int file, fm_error *err);

bool ts_type_parse(const char *name, ts_type *out);

/* "[2, 3]" into out, which holds TS_SHAPE_TEXT bytes; returns out. */
enum { TS_SHAPE_TEXT = TS_MAX_DIMS * 22 + 3 };
const char *ts_shape_text(const int64_t *shape, int n_dims, char *out);

#endif
