#include "experts/pack_format.h"
#include "experts/persist.h"

#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "experts/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

size_t xp_record_layout(const xp_layer *layer, size_t at[XP_PROJECTIONS][XP_PARTS])
{
    size_t end = 0;
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++) {
            at[p][s] = round_up(end, XP_SECTION_ALIGN);
            if (layer->part[p][s].bytes) end = at[p][s] + layer->part[p][s].bytes;
        }
    return round_up(end, XP_BLOCK);
}

size_t xp_pack_records_at(int n_experts)
{
    return round_up(sizeof(xp_pack_header) + (size_t)n_experts * sizeof(uint32_t), XP_BLOCK);
}

void xp_pack_packed_layer(const xp_layer *layer, int file, xp_layer *out)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    size_t record = xp_record_layout(layer, at);
    *out = *layer;
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++)
            out->part[p][s] = (xp_part){
                .file = file,
                .offset = xp_pack_records_at(layer->n_experts) + at[p][s],
                .stride = record,
                .bytes = layer->part[p][s].bytes,
            };
}

char *xp_pack_layer_path(const char *dir, int layer)
{
    char name[40];
    snprintf(name, sizeof name, "layer-%03d.pack", layer);
    return bs_path_join(dir, name);
}

/* --- the source
 * ----------------------------------------------------------------------------------- */

/* Checksum of a safetensors header (8 bytes of length, then that many); of another file, of at most
 * its first MiB. */
static fm_status header_crc(int fd, const char *path, uint64_t bytes, uint32_t *crc, fm_error *err)
{
    enum { PIECE = 1 << 16, OTHER = 1 << 20, MOST = 128 << 20 };
    unsigned char length[8] = {0};
    fm_status status = bs_pread_full(fd, path, length, bytes < 8 ? (size_t)bytes : 8, 0, err);
    if (status) return status;
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | length[i];
    n = n < MOST ? n + 8 : OTHER;
    if (n > bytes) n = bytes < OTHER ? bytes : OTHER;
    char *piece = bs_malloc(PIECE);
    if (!piece) return fm_fail_nomem(err, path);
    *crc = 0;
    for (uint64_t at = 0; at < n && !status; at += PIECE) {
        size_t m = n - at < PIECE ? (size_t)(n - at) : PIECE;
        status = bs_pread_full(fd, path, piece, m, at, err);
        if (!status) *crc = bs_crc32c(*crc, piece, m);
    }
    bs_free(piece);
    return status;
}

static json_t *file_json(const char *path, fm_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        fm_fail_errno(err, errno, "%s: cannot open", path);
        if (fd >= 0) close(fd);
        return NULL;
    }
    uint32_t crc = 0;
    fm_status status = header_crc(fd, path, (uint64_t)st.st_size, &crc, err);
    close(fd);
    if (status) return NULL;
    const char *slash = strrchr(path, '/');
    json_int_t time = (json_int_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    json_t *o =
        json_pack("{s:s, s:I, s:I, s:I}", "name", slash ? slash + 1 : path, "bytes",
                  (json_int_t)st.st_size, "mtime_ns", time, "header_crc32c", (json_int_t)crc);
    if (!o) fm_fail_nomem(err, path);
    return o;
}

json_t *xp_pack_source_json(const xp_source *source, fm_error *err)
{
    if (!source) return json_null();
    json_t *files = json_array();
    for (int i = 0; i < source->n_files; i++) {
        json_t *o = file_json(source->paths[i], err);
        if (!o) {
            json_decref(files);
            return NULL;
        }
        json_array_append_new(files, o);
    }
    json_t *root = json_pack("{s:o}", "files", files);
    if (!root) fm_fail_nomem(err, "manifest");
    return root;
}

/* --- layers
 * ----------------------------------------------------------------------------------------- */

static const char *const formats[] = {
    [KN_F32] = "f32",     [KN_F16] = "f16",     [KN_BF16] = "bf16",   [KN_AFFINE] = "affine",
    [KN_MXFP4] = "mxfp4", [KN_NVFP4] = "nvfp4", [KN_MXFP8] = "mxfp8", [KN_F8_BLOCK] = "f8_block",
};
static const char *const projections[XP_PROJECTIONS] = {"gate", "up", "down"};
static const char *const parts[XP_PARTS] = {"codes", "scales", "biases", "bias"};

static json_t *projection_json(const xp_layer *layer, int p)
{
    const kn_mat *m = &layer->shape[p];
    json_t *o =
        json_pack("{s:s, s:i, s:i, s:s, s:i, s:i, s:I, s:I, s:b}", "format", formats[m->format],
                  "bits", m->bits, "group", m->group, "scale_type", formats[m->scale_type], "rows",
                  m->rows, "cols", m->cols, "row_bytes", (json_int_t)m->row_bytes,
                  "scale_row_bytes", (json_int_t)m->scale_row_bytes, "strips", kn_can_strip(m));
    size_t at[XP_PROJECTIONS][XP_PARTS];
    xp_record_layout(layer, at);
    for (int s = 0; s < XP_PARTS; s++) {
        if (!layer->part[p][s].bytes) continue;
        json_t *section = json_pack("{s:I, s:I}", "offset", (json_int_t)at[p][s], "bytes",
                                    (json_int_t)layer->part[p][s].bytes);
        json_object_set_new(o, parts[s], section);
    }
    return o;
}

json_t *xp_pack_layer_json(const xp_layer *layer, int index)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    size_t record = xp_record_layout(layer, at);
    char name[40];
    snprintf(name, sizeof name, "layer-%03d.pack", index);
    json_t *o = json_pack("{s:s, s:i, s:i, s:I, s:s}", "file", name, "experts", layer->n_experts,
                          "top_k", layer->top_k, "record_bytes", (json_int_t)record, "bias_type",
                          formats[layer->bias_type]);
    for (int p = 0; o && p < XP_PROJECTIONS; p++)
        json_object_set_new(o, projections[p], projection_json(layer, p));
    return o;
}

bool xp_pack_same_layer(const xp_layer *layer, int index, const json_t *said)
{
    json_t *want = xp_pack_layer_json(layer, index);
    for (int p = 0; want && p < XP_PROJECTIONS; p++) {
        json_t *strips = json_object_get(json_object_get(said, projections[p]), "strips");
        if (strips) json_object_set(json_object_get(want, projections[p]), "strips", strips);
    }
    bool same = want && json_equal(want, said);
    json_decref(want);
    return same;
}

static bool parse_format(const json_t *o, const char *key, kn_format *out)
{
    const char *name = json_string_value(json_object_get(o, key));
    for (int i = KN_F32; name && i <= KN_F8_BLOCK; i++)
        if (!strcmp(name, formats[i])) {
            *out = (kn_format)i;
            return true;
        }
    return false;
}

static bool parse_float(const json_t *o, const char *key, kn_format *out)
{
    return parse_format(o, key, out) && (*out == KN_F32 || *out == KN_F16 || *out == KN_BF16);
}

static bool parse_number(const json_t *o, const char *key, json_int_t least, json_int_t most,
                         json_int_t *out)
{
    const json_t *v = json_object_get(o, key);
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= least && *out <= most;
}

/* Are n rows of `dense` bytes, `stride` apart, within the part? Rows of another matrix may lie
 * between them, but not behind the last. */
static bool holds(const xp_part *part, int n, size_t stride, size_t dense)
{
    return stride >= dense && part->bytes >= (uint64_t)(n - 1) * stride + dense;
}

static bool known_codes(const kn_mat *m)
{
    switch (m->format) {
    case KN_AFFINE:
        return m->bits >= 2 && m->bits <= 8 && m->bits != 7 &&
               (m->group == 32 || m->group == 64 || m->group == 128) && m->cols % m->group == 0;
    case KN_MXFP4:
    case KN_MXFP8: return m->cols % 32 == 0;
    case KN_NVFP4: return m->cols % 16 == 0;
    default: return true;
    }
}

/* Whatever a product reads must be there. */
static bool fits(const kn_mat *m, const xp_part *part)
{
    if (!known_codes(m) ||
        !holds(&part[XP_CODES], m->rows, m->row_bytes, kn_row_bytes(m->format, m->bits, m->cols)))
        return false;
    if (m->format == KN_F32 || m->format == KN_F16 || m->format == KN_BF16) return true;
    int rows = m->format == KN_F8_BLOCK ? (m->rows + 127) / 128 : m->rows;
    size_t dense = kn_scale_row_bytes(m->format, m->scale_type, m->group, m->cols);
    return holds(&part[XP_SCALES], rows, m->scale_row_bytes, dense) &&
           (m->format != KN_AFFINE || holds(&part[XP_BIASES], rows, m->scale_row_bytes, dense));
}

static bool parse_projection(const json_t *o, kn_mat *m, xp_part *part)
{
    const json_int_t most = 1 << 30;
    json_int_t bits, group, rows, cols, row_bytes, scale_row_bytes;
    if (!parse_format(o, "format", &m->format) || !parse_float(o, "scale_type", &m->scale_type) ||
        !parse_number(o, "bits", 0, 32, &bits) || !parse_number(o, "group", 0, 4096, &group) ||
        !parse_number(o, "rows", 1, most, &rows) || !parse_number(o, "cols", 1, most, &cols) ||
        !parse_number(o, "row_bytes", 1, most, &row_bytes) ||
        !parse_number(o, "scale_row_bytes", 0, most, &scale_row_bytes))
        return false;
    m->bits = (int)bits;
    m->group = (int)group;
    m->rows = (int)rows;
    m->cols = (int)cols;
    m->row_bytes = (size_t)row_bytes;
    m->scale_row_bytes = (size_t)scale_row_bytes;
    for (int s = 0; s < XP_PARTS; s++) {
        const json_t *section = json_object_get(o, parts[s]);
        json_int_t bytes;
        if (!section) continue;
        if (!parse_number(section, "bytes", 1, (json_int_t)1 << 40, &bytes)) return false;
        part[s].bytes = (size_t)bytes;
    }
    m->strips = json_is_true(json_object_get(o, "strips"));
    return fits(m, part) && (!m->strips || kn_can_strip(m));
}

fm_status xp_pack_parse_layer(const json_t *o, const char *where, xp_layer *out, fm_error *err)
{
    json_int_t experts, top_k;
    *out = (xp_layer){0};
    bool good = parse_number(o, "experts", 1, XP_PACK_MAX_EXPERTS, &experts) &&
                parse_number(o, "top_k", 1, experts, &top_k) &&
                parse_float(o, "bias_type", &out->bias_type);
    for (int p = 0; good && p < XP_PROJECTIONS; p++)
        good = parse_projection(json_object_get(o, projections[p]), &out->shape[p], out->part[p]);
    for (int p = 0; good && p < XP_PROJECTIONS; p++)
        good = !out->part[p][XP_BIAS].bytes ||
               out->part[p][XP_BIAS].bytes >= kn_row_bytes(out->bias_type, 0, out->shape[p].rows);
    if (!good) return fm_fail(err, FM_E_FORMAT, "%s: a layer's description is damaged", where);
    out->n_experts = (int)experts;
    out->top_k = (int)top_k;
    return FM_OK;
}

uint32_t xp_pack_binding(const json_t *source, const json_t *layer)
{
    uint32_t crc = 0;
    const json_t *both[2] = {source, layer};
    for (int i = 0; i < 2; i++) {
        char *text = json_dumps(both[i], JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
        if (text) crc = bs_crc32c(crc, text, strlen(text));
        free(text);
    }
    return crc;
}

/* --- headers
 * ---------------------------------------------------------------------------------------- */

char *xp_pack_header_bytes(int layer, const xp_layer *shape, uint32_t binding, const uint32_t *crc,
                           size_t *bytes)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    *bytes = xp_pack_records_at(shape->n_experts);
    char *out = bs_calloc(*bytes, 1);
    if (!out) return NULL;
    xp_pack_header h = {
        .magic = {'F', 'M', 'O', 'E', 'P', 'A', 'C', 'K'},
        .version = XP_PACK_VERSION,
        .layer = (uint32_t)layer,
        .n_experts = (uint32_t)shape->n_experts,
        .record_bytes = xp_record_layout(shape, at),
        .records_at = *bytes,
        .binding = binding,
    };
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, crc, (size_t)shape->n_experts * sizeof *crc);
    h.header_crc = bs_crc32c(0, out, *bytes);
    memcpy(out, &h, sizeof h);
    return out;
}

static fm_status compare_header(char *read, const char *path, int layer, const xp_layer *shape,
                                uint32_t binding, fm_error *err)
{
    size_t at[XP_PROJECTIONS][XP_PARTS], bytes = xp_pack_records_at(shape->n_experts);
    xp_pack_header h, plain;
    memcpy(&h, read, sizeof h);
    plain = h;
    plain.header_crc = 0;
    memcpy(read, &plain, sizeof plain);
    if (memcmp(h.magic, "FMOEPACK", 8))
        return fm_fail(err, FM_E_FORMAT, "%s: not a pack file", path);
    if (h.version != XP_PACK_VERSION)
        return fm_fail(err, FM_E_STALE, "%s: version %u, this program knows %d: pack again", path,
                       h.version, XP_PACK_VERSION);
    if (h.binding != binding)
        return fm_fail(err, FM_E_STALE, "%s: made from another source: pack again", path);
    if (bs_crc32c(0, read, bytes) != h.header_crc || h.layer != (uint32_t)layer ||
        h.n_experts != (uint32_t)shape->n_experts || h.records_at != bytes ||
        h.record_bytes != xp_record_layout(shape, at))
        return fm_fail(err, FM_E_FORMAT,
                       "%s: the header is damaged: delete the file and pack again", path);
    return FM_OK;
}

fm_status xp_pack_read_header(const char *path, int layer, const xp_layer *shape, uint32_t binding,
                              uint32_t *crc, fm_error *err)
{
    size_t at[XP_PROJECTIONS][XP_PARTS], n = xp_pack_records_at(shape->n_experts);
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", path);
    char *read = bs_malloc(n);
    fm_status status = read ? bs_pread_full(fd, path, read, n, 0, err) : fm_fail_nomem(err, path);
    if (!status) status = compare_header(read, path, layer, shape, binding, err);
    uint64_t whole = n + (uint64_t)shape->n_experts * xp_record_layout(shape, at);
    if (!status && (fstat(fd, &st) || (uint64_t)st.st_size != whole))
        status = fm_fail(err, FM_E_FORMAT, "%s: is not %llu bytes long: delete it and pack again",
                         path, (unsigned long long)whole);
    if (!status) memcpy(crc, read + sizeof(xp_pack_header), (size_t)shape->n_experts * sizeof *crc);
    bs_free(read);
    close(fd);
    return status;
}

fm_status xp_source_id(const xp_source *source, char **out, fm_error *err)
{
    json_t *json = xp_pack_source_json(source, err);
    if (!json) return FM_E_IO;
    uint32_t id = xp_pack_binding(json, NULL);
    json_decref(json);
    *out = bs_sprintf("%08x", id);
    return *out ? FM_OK : fm_fail_nomem(err, "naming a checkpoint");
}
