/* pack.h - the packed store: every expert one aligned record, read by one direct read.
 *
 * A store is a folder: manifest.json, and layer-NNN.pack for each MoE layer (docs/FORMAT.md). The
 * manifest is written last; until then the folder is not a store, and what is there is continued
 * by the next writer. A layer's file appears under its name only when it is complete and synced. A
 * store is bound to its source (names, sizes, times and headers of the source's files): when those
 * change it is refused as stale. */
#ifndef EXPERTS_PACK_H
#define EXPERTS_PACK_H

#include "base/pool.h"
#include "experts/experts.h"

/* --- where things are in a record ---------------------------------------------------------------
 */

enum { XP_SECTION_ALIGN = 64 };

/* Starts of the parts in a record, in order of use: gate, up, down, each with codes, scales,
 * biases, bias. Returns the bytes of a record, whole blocks. */
size_t xp_record_layout(const xp_layer *layer, size_t at[XP_PROJECTIONS][XP_PARTS]);

/* --- reading ------------------------------------------------------------------------------------
 */

typedef struct xp_pack xp_pack;

/* FM_E_NOT_FOUND: no (finished) store there. FM_E_STALE: of another source or version. `source` is
 * what the model says of the checkpoint; its layers must have the shapes that were packed. */
fm_status xp_pack_open(const char *dir, const xp_source *source, xp_pack **out, fm_error *err);
void xp_pack_close(xp_pack *pack);

/* The store as a source of records; valid while the pack is open. */
const xp_source *xp_pack_source(const xp_pack *pack);

/* Is this record what was written? FM_E_FORMAT names the file and expert. record: all its bytes. */
fm_status xp_pack_check(const xp_pack *pack, int layer, int expert, const void *record,
                        bs_pool *pool, fm_error *err);

typedef void xp_pack_progress(void *arg, uint64_t done, uint64_t total);

/* Read and check every record. The error names the first bad one. */
fm_status xp_pack_verify(const xp_pack *pack, xp_pack_progress *progress, void *arg, fm_error *err);

#define XP_PACK_NAME "flash-moe.pack"

/* Where the store of a model folder lies: MODEL/flash-moe.pack, or the model's folder under
 * $XDG_CACHE_HOME/flash-moe/packs, whichever holds a manifest; NULL when neither does. The caller
 * frees it with bs_free. */
char *xp_pack_find(const char *model_dir);

/* Where a new one should go: the first of the two that can be written. */
fm_status xp_pack_default_dir(const char *model_dir, char **out, fm_error *err);

/* --- writing ------------------------------------------------------------------------------------
 */

typedef struct xp_pack_writer xp_pack_writer;

/* layers are borrowed until the writer ends. source: what the store shall be bound to, or NULL for
 * a store that stands alone (its checkpoint holds no experts). FM_E_BUSY: another process writes
 * here. Layers that an earlier writer of the same source finished are kept. */
fm_status xp_pack_begin(const char *dir, const xp_layer *layers, int n_layers,
                        const xp_source *source, xp_pack_writer **out, fm_error *err);

/* Finished already: nothing needs to be put. */
bool xp_pack_has_layer(const xp_pack_writer *w, int layer);

/* One whole expert; part[p][s] points to the part's bytes (ignored where the layer has none). In
 * any order, several layers at once. */
fm_status xp_pack_put(xp_pack_writer *w, int layer, int expert,
                      const void *const part[XP_PROJECTIONS][XP_PARTS], fm_error *err);

/* All experts of the layer were put: sync, rename. */
fm_status xp_pack_finish_layer(xp_pack_writer *w, int layer, fm_error *err);

/* Read all experts of one layer from the source's files, put them and finish the layer; nothing is
 * done when it is finished already. All files must exist in their sizes, but only those that hold
 * this layer need their contents. */
fm_status xp_pack_layer(xp_pack_writer *w, const xp_source *source, int layer, fm_error *err);

/* Write the manifest: the store exists. Frees w, also on error. */
fm_status xp_pack_finish(xp_pack_writer *w, fm_error *err);

/* Stop; finished layers stay for the next writer. */
void xp_pack_abort(xp_pack_writer *w);

/* Another form of the experts than the source's: the layers as they shall be, and what turns one
 * expert into it. part: in, the parts as the source has them; out, the parts to put, valid until
 * the next call. */
typedef struct xp_pack_form {
    const xp_layer *layers;
    fm_status (*convert)(void *arg, int layer, int expert, const xp_expert *view,
                         const void *part[XP_PROJECTIONS][XP_PARTS], fm_error *err);
    void *arg;
} xp_pack_form;

/* Pack a whole source into dir. Resumes; a finished store of the same source is left as it is. With
 * another form (else NULL) the store stands alone, and the caller sees to it that what is resumed
 * was begun with the same source. */
fm_status xp_pack_all(const xp_source *source, const xp_pack_form *form, const char *dir,
                      xp_pack_progress *progress, void *arg, fm_error *err);

/* pack_quantised.c: MLX affine codes of other bits (2 3 4 5 6 8) or groups (32 64 128), made from
 * what the source holds, whatever its format. The bytes of such a store; writing it. */
fm_status xp_quantised_bytes(const xp_source *source, int bits, int group, uint64_t *bytes,
                             fm_error *err);
fm_status xp_pack_quantised(const xp_source *source, int bits, int group, bs_pool *pool,
                            const char *dir, xp_pack_progress *progress, void *arg, fm_error *err);

#endif
