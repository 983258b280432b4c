/* The header of one safetensors file: u64 little-endian length, a JSON object
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...}, then the data. Everything is
 * checked against the real size of the file before a tensor is believed. Holes between tensors
 * are allowed: writers that align have them. */
#include "tensors/json_scan.h"
#include "tensors/store.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The reference implementation's limit. A header of 100,000 tensors takes about 15 MB. */
enum { MAX_HEADER = 100 * 1000 * 1000, MIN_HEADER = 2, PREFIX = 8 };

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [TS_F32] = {"F32", 4}, [TS_F16] = {"F16", 2},         [TS_BF16] = {"BF16", 2},
    [TS_F64] = {"F64", 8}, [TS_F8_E4M3] = {"F8_E4M3", 1}, [TS_F8_E5M2] = {"F8_E5M2", 1},
    [TS_U8] = {"U8", 1},   [TS_I8] = {"I8", 1},           [TS_U16] = {"U16", 2},
    [TS_I16] = {"I16", 2}, [TS_U32] = {"U32", 4},         [TS_I32] = {"I32", 4},
    [TS_U64] = {"U64", 8}, [TS_I64] = {"I64", 8},         [TS_BOOL] = {"BOOL", 1},
};
enum { N_TYPES = sizeof types / sizeof *types };

const char *ts_type_name(ts_type type)
{
    return types[type].name;
}

size_t ts_type_bytes(ts_type type)
{
    return types[type].bytes;
}

bool ts_type_parse(const char *name, ts_type *out)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (strcmp(types[i].name, name)) continue;
        *out = (ts_type)i;
        return true;
    }
    return false;
}

const char *ts_shape_text(const int64_t *shape, int n_dims, char *out)
{
    char *p = out;
    *p++ = '[';
    for (int i = 0; i < n_dims; i++) p += sprintf(p, "%s%lld", i ? ", " : "", (long long)shape[i]);
    *p++ = ']';
    *p = 0;
    return out;
}

fm_status ts_open_file(const char *path, int *fd, uint64_t *bytes, fm_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", path);
    fm_status status = FM_OK;
    if (fstat(*fd, &st)) status = fm_fail_errno(err, errno, "%s: cannot stat", path);
    else if (!S_ISREG(st.st_mode))
        status = fm_fail(err, FM_E_IO, "%s: is not a regular file", path);
    if (status) {
        close(*fd);
        return status;
    }
    *bytes = (uint64_t)st.st_size;
    return FM_OK;
}

/* What is being read, for messages, and where the data lies. */
typedef struct header {
    ts_json json;
    const char *path;
    uint64_t data_begin, data_bytes;
    const char *name; /* the entry at hand, or NULL */
    fm_error *err;
} header;

static fm_status broken(header *h)
{
    if (h->name)
        return fm_fail(h->err, FM_E_FORMAT, "%s: header: the entry of tensor %.200s %s", h->path,
                       h->name, h->json.problem);
    return fm_fail(h->err, FM_E_FORMAT, "%s: header %s", h->path, h->json.problem);
}

static bool parse_shape(header *h, ts_tensor *t)
{
    ts_json *j = &h->json;
    bool first = true;
    if (!ts_json_expect(j, '[')) return false;
    while (ts_json_next(j, ']', &first)) {
        uint64_t dim;
        if (t->n_dims == TS_MAX_DIMS)
            return ts_json_fail(j, "has a shape of more than 8 dimensions");
        if (!ts_json_uint(j, &dim)) return false;
        t->shape[t->n_dims++] = (int64_t)dim;
    }
    return !j->problem;
}

static bool parse_offsets(header *h, ts_tensor *t)
{
    ts_json *j = &h->json;
    uint64_t begin, end;
    if (!ts_json_expect(j, '[') || !ts_json_uint(j, &begin) || !ts_json_expect(j, ',') ||
        !ts_json_uint(j, &end) || !ts_json_expect(j, ']'))
        return false;
    if (begin > end) return ts_json_fail(j, "has data_offsets that run backwards");
    if (end > h->data_bytes)
        return ts_json_fail(j, "has data_offsets past the end of the file (is the file cut off?)");
    t->offset = h->data_begin + begin;
    t->bytes = end - begin;
    return true;
}

static bool parse_type(header *h, ts_tensor *t)
{
    char *name;
    size_t n;
    if (!ts_json_string(&h->json, &name, &n)) return false;
    return ts_type_parse(name, &t->type) ||
           ts_json_fail(&h->json, "has a dtype that is not known here");
}

static bool parse_entry(header *h, ts_tensor *t)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    ts_json *j = &h->json;
    bool first = true, ok = true;
    int seen = 0;
    if (!ts_json_expect(j, '{')) return false;
    while (ok && ts_json_next(j, '}', &first)) {
        char *key;
        size_t n;
        if (!ts_json_string(j, &key, &n) || !ts_json_expect(j, ':')) return false;
        int field = !strcmp(key, "dtype")          ? DTYPE
                    : !strcmp(key, "shape")        ? SHAPE
                    : !strcmp(key, "data_offsets") ? OFFSETS
                                                   : 0;
        if (seen & field) return ts_json_fail(j, "gives a field twice");
        seen |= field;
        ok = field == DTYPE     ? parse_type(h, t)
             : field == SHAPE   ? parse_shape(h, t)
             : field == OFFSETS ? parse_offsets(h, t)
                                : ts_json_skip(j);
    }
    if (j->problem) return false;
    return seen == (DTYPE | SHAPE | OFFSETS) ||
           ts_json_fail(j, "lacks one of dtype, shape, data_offsets");
}

/* Does shape times type give the bytes of the range? */
static fm_status check_size(header *h, const ts_tensor *t)
{
    char shape[TS_SHAPE_TEXT];
    uint64_t bytes = types[t->type].bytes;
    bool fits = true, empty = false;
    for (int i = 0; i < t->n_dims; i++)
        if (!t->shape[i]) empty = true;
    for (int i = 0; i < t->n_dims && !empty; i++)
        fits = fits && !__builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes);
    if (empty) bytes = 0;
    if (fits && bytes == t->bytes) return FM_OK;
    return fm_fail(h->err, FM_E_FORMAT,
                   "%s: header: tensor %.200s: %s %s does not take the %llu bytes it is given",
                   h->path, h->name, types[t->type].name, ts_shape_text(t->shape, t->n_dims, shape),
                   (unsigned long long)t->bytes);
}

static bool parse_metadata(ts_json *j)
{
    bool first = true;
    char *s;
    size_t n;
    if (ts_json_peek(j) != '{') return ts_json_fail(j, "has a __metadata__ that is no object");
    j->at++;
    while (ts_json_next(j, '}', &first)) {
        if (!ts_json_string(j, &s, &n) || !ts_json_expect(j, ':')) return false;
        if (ts_json_peek(j) != '"')
            return ts_json_fail(j, "has a __metadata__ value that is no string");
        if (!ts_json_string(j, &s, &n)) return false;
    }
    return !j->problem;
}

static ts_tensor *new_tensor(ts_store *store)
{
    if (store->n_tensors == store->capacity) {
        size_t capacity = store->capacity ? store->capacity * 2 : 256;
        ts_tensor *grown = bs_realloc(store->tensors, capacity, sizeof *grown);
        if (!grown) return NULL;
        store->tensors = grown;
        store->capacity = capacity;
    }
    ts_tensor *t = &store->tensors[store->n_tensors];
    *t = (ts_tensor){0};
    return t;
}

/* The names are moved together at the front of the text, behind which the reader has passed;
 * *names_end is where the next one goes. */
static fm_status parse_header(ts_store *store, int file, header *h, char **names_end)
{
    ts_json *j = &h->json;
    bool first = true, metadata = false;
    if (!ts_json_expect(j, '{')) return broken(h);
    while (ts_json_next(j, '}', &first)) {
        char *name;
        size_t n;
        h->name = NULL;
        if (!ts_json_string(j, &name, &n) || !ts_json_expect(j, ':')) return broken(h);
        if (!strcmp(name, "__metadata__")) {
            if (metadata) ts_json_fail(j, "has two __metadata__");
            metadata = true;
            if (!parse_metadata(j)) return broken(h);
            continue;
        }
        if (!n) {
            ts_json_fail(j, "has a tensor without a name");
            return broken(h);
        }
        ts_tensor *t = new_tensor(store);
        if (!t) return fm_fail_nomem(h->err, h->path);
        h->name = t->name = memmove(*names_end, name, n + 1);
        *names_end += n + 1;
        t->file = file;
        if (!parse_entry(h, t)) return broken(h);
        fm_status status = check_size(h, t);
        if (status) return status;
        store->n_tensors++;
    }
    h->name = NULL;
    if (!j->problem && ts_json_peek(j)) ts_json_fail(j, "goes on after its object");
    return j->problem ? broken(h) : FM_OK;
}

/* Give back what the JSON took beyond the names. */
static void keep_names(ts_store *store, int file, size_t first, char *text, size_t used)
{
    char *kept = bs_realloc(text, used ? used : 1, 1);
    store->files[file].names = kept ? kept : text;
    if (!kept || kept == text) return;
    size_t at = 0;
    for (size_t i = first; i < store->n_tensors; i++) {
        store->tensors[i].name = kept + at;
        at += strlen(kept + at) + 1;
    }
}

static fm_status check_length(const char *path, const unsigned char *prefix, uint64_t file_bytes,
                              size_t *length, fm_error *err)
{
    uint64_t n = 0;
    for (int i = PREFIX - 1; i >= 0; i--) n = n << 8 | prefix[i];
    if (!memcmp(prefix, "version ", PREFIX))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: is a Git LFS pointer, not the weights; fetch them with 'git lfs pull'",
                       path);
    if (n < MIN_HEADER || n > file_bytes - PREFIX)
        return fm_fail(err, FM_E_FORMAT,
                       "%s: header length %llu does not fit a file of %llu bytes (not a "
                       "safetensors file, or cut off)",
                       path, (unsigned long long)n, (unsigned long long)file_bytes);
    if (n > MAX_HEADER)
        return fm_fail(err, FM_E_LIMIT, "%s: header of %llu bytes, more than the limit of %d", path,
                       (unsigned long long)n, MAX_HEADER);
    *length = (size_t)n;
    return FM_OK;
}

static fm_status load_text(int fd, const char *path, uint64_t bytes, char **text, size_t *length,
                           fm_error *err)
{
    unsigned char prefix[PREFIX];
    if (bytes < PREFIX)
        return fm_fail(err, FM_E_FORMAT, "%s: %llu bytes, too short for a safetensors file", path,
                       (unsigned long long)bytes);
    fm_status status = bs_pread_full(fd, path, prefix, PREFIX, 0, err);
    if (!status) status = check_length(path, prefix, bytes, length, err);
    if (status) return status;
    *text = bs_malloc(*length);
    if (!*text) return fm_fail_nomem(err, path);
    status = bs_pread_full(fd, path, *text, *length, PREFIX, err);
    if (status) bs_free(*text);
    return status;
}

fm_status ts_read_header(ts_store *store, int file, fm_error *err)
{
    ts_file *f = &store->files[file];
    char *text = NULL;
    size_t length = 0, first = store->n_tensors;
    int fd;
    fm_status status = ts_open_file(f->path, &fd, &f->bytes, err);
    if (status) return status;
    status = load_text(fd, f->path, f->bytes, &text, &length, err);
    close(fd);
    if (status) return status;
    header h = {.json = {text, text + length, NULL}, .path = f->path, .err = err};
    h.data_begin = PREFIX + length;
    h.data_bytes = f->bytes - h.data_begin;
    char *names_end = text;
    status = parse_header(store, file, &h, &names_end);
    if (status) bs_free(text);
    else keep_names(store, file, first, text, (size_t)(names_end - text));
    return status;
}
