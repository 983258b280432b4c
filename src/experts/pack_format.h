/* pack_format.h - the bytes of a packed store, shared by its reader and writer. See docs/FORMAT.md.
 */
#ifndef EXPERTS_PACK_FORMAT_H
#define EXPERTS_PACK_FORMAT_H

#include "experts/pack.h"

#include <jansson.h>

#define XP_PACK_MANIFEST "manifest.json"
#define XP_PACK_FORMAT "flash-moe packed experts"
enum { XP_PACK_VERSION = 2, XP_PACK_MAX_MANIFEST = 64 << 20, XP_PACK_MAX_EXPERTS = 1 << 20 };

/* The start of a layer's file, little-endian; crc[n_experts] follows at byte 64, then zeros up to
 * `records_at`, where record 0 starts. */
typedef struct xp_pack_header {
    char magic[8]; /* "FMOEPACK" */
    uint32_t version, layer, n_experts;
    uint32_t header_crc; /* of bytes [0, records_at) with this field 0 */
    uint64_t record_bytes, records_at;
    uint32_t binding; /* checksum of source and layer as the manifest has them */
    uint32_t zero[5];
} xp_pack_header;
_Static_assert(sizeof(xp_pack_header) == 64, "the header is 64 bytes on disk");

char *xp_pack_layer_path(const char *dir, int layer);

/* What the manifest says of the source's files; NULL with err filled. source NULL: JSON null. */
json_t *xp_pack_source_json(const xp_source *source, fm_error *err);

json_t *xp_pack_layer_json(const xp_layer *layer, int index); /* NULL: out of memory */

/* Is this layer what a manifest describes? In rows or in strips, as it was written: the layer's
 * file is bound to the description (xp_pack_binding). */
bool xp_pack_same_layer(const xp_layer *layer, int index, const json_t *said);

/* The opposite of xp_pack_layer_json; every figure is checked. `where` names the file in messages.
 */
fm_status xp_pack_parse_layer(const json_t *o, const char *where, xp_layer *out, fm_error *err);

uint32_t xp_pack_binding(const json_t *source, const json_t *layer);

/* Header and checksum table of one layer file as `bytes` of memory; NULL: out of memory. */
char *xp_pack_header_bytes(int layer, const xp_layer *shape, uint32_t binding, const uint32_t *crc,
                           size_t *bytes);
size_t xp_pack_records_at(int n_experts);

/* Read and check a header; crc[n_experts] is filled. FM_E_NOT_FOUND, FM_E_STALE (binding), or
 * FM_E_FORMAT. */
fm_status xp_pack_read_header(const char *path, int layer, const xp_layer *shape, uint32_t binding,
                              uint32_t *crc, fm_error *err);

/* The layer as it lies in a store whose layer files are numbered like the layers. */
void xp_pack_packed_layer(const xp_layer *layer, int file, xp_layer *out);

#endif
