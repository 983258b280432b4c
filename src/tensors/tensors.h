/* tensors.h - what lies in a checkpoint's safetensors files, and how each matrix is stored.
 *
 * A ts_store is the table of contents of a model folder: every file matching model*.safetensors,
 * one file or many shards (with or without the index), validated whole before anything is
 * believed: header sizes, types, shapes times type = bytes, ranges inside the file and not
 * overlapping. No weight is read by opening. Tensors may start at any address. A store is
 * immutable and may be shared by threads. Format: https://github.com/huggingface/safetensors */
#ifndef TENSORS_TENSORS_H
#define TENSORS_TENSORS_H

#include "base/error.h"
#include "kernels/kernels.h"

#include <jansson.h>

typedef enum ts_type {
    TS_F32,
    TS_F16,
    TS_BF16,
    TS_F64,
    TS_F8_E4M3,
    TS_F8_E5M2,
    TS_U8,
    TS_I8,
    TS_U16,
    TS_I16,
    TS_U32,
    TS_I32,
    TS_U64,
    TS_I64,
    TS_BOOL,
} ts_type;

enum { TS_MAX_DIMS = 8 };

typedef struct ts_tensor {
    const char *name;
    ts_type type;
    int n_dims;
    int64_t shape[TS_MAX_DIMS];
    int file;        /* which file of the store */
    uint64_t offset; /* of the first byte, from the start of the file */
    uint64_t bytes;
} ts_tensor;

typedef struct ts_store ts_store;

fm_status ts_open(const char *dir, ts_store **out, fm_error *err);
void ts_close(ts_store *store);

size_t ts_count(const ts_store *store);
const ts_tensor *ts_at(const ts_store *store, size_t i);           /* in order of name (strcmp) */
const ts_tensor *ts_find(const ts_store *store, const char *name); /* NULL: absent */
int ts_file_count(const ts_store *store);
const char *ts_file_path(const ts_store *store, int file);
uint64_t ts_file_bytes(const ts_store *store, int file);

const char *ts_type_name(ts_type type); /* "BF16" as in the file */
size_t ts_type_bytes(ts_type type);

/* Copy bytes [begin, begin + n) of a tensor into dst, past the page cache where the file system
 * allows it. Errors name file and tensor: a file that has shrunk, EIO. */
fm_status ts_read(const ts_store *store, const ts_tensor *t, uint64_t begin, uint64_t n, void *dst,
                  fm_error *err);

/* A whole float tensor (F32, F16 or BF16) of exactly `count` elements as float32. NaN and infinity
 * are FM_E_NUMERIC. */
fm_status ts_read_floats(const ts_store *store, const ts_tensor *t, uint64_t count, float *dst,
                         fm_error *err);

/* --- how a matrix is stored ------------------------------------------------------------------ */

/* One matrix [count][rows][cols] (count 1 unless experts are stacked): shape.w, .scales and
 * .biases are NULL, the tensors say where the bytes are. */
typedef struct ts_matrix {
    kn_mat shape;
    int64_t count;
    const ts_tensor *codes, *scales, *biases; /* scales, biases: NULL where the format has none */
} ts_matrix;

/* Find the matrix of module path `module` (tensor `module`.weight with .scales and .biases, or
 * weight_scale_inv, or the tensor `module` itself for stacked raw experts). `config` is the whole
 * config.json object: its quantization section gives bits, group and mode; shapes decide
 * (spec: MLX affine and floating modes). count 0 means a plain 2-D matrix. Absent: FM_E_NOT_FOUND;
 * a shape that does not fit: FM_E_FORMAT with the tensor's name and both shapes. */
fm_status ts_find_matrix(const ts_store *store, const json_t *config, const char *module,
                         int64_t count, int64_t rows, int64_t cols, ts_matrix *out, fm_error *err);

/* --- writing --------------------------------------------------------------------------------- */

/* A safetensors file written as a stream: declare all tensors, then give the bytes of each in the
 * declared order. Becomes visible under its name only by ts_writer_finish (temp, fsync, rename). */
typedef struct ts_writer ts_writer;
fm_status ts_writer_open(const char *path, ts_writer **out, fm_error *err);
fm_status ts_writer_declare(ts_writer *w, const char *name, ts_type type, int n_dims,
                            const int64_t *shape, fm_error *err);
fm_status ts_writer_write(ts_writer *w, const void *data, size_t n, fm_error *err);
fm_status ts_writer_finish(ts_writer *w, fm_error *err); /* frees w, also on error */
void ts_writer_abort(ts_writer *w);

#endif
