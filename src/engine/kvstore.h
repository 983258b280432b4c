/* kvstore.h - cached conversations in a folder, so that they outlive the process.
 *
 * One file a conversation: a header with the scope and a checksum, then the bytes of
 * en_prefix_export. Files are written beside their name, synced and renamed; they are validated
 * whole before anything live changes, and one that is damaged or belongs to another model, version
 * or setting is left alone. Both functions belong to the engine's thread while it is idle. */
#ifndef ENGINE_KVSTORE_H
#define ENGINE_KVSTORE_H

#include "engine/engine.h"

/* *restored (may be NULL): how many conversations came back. A missing folder is none. Only a
 * folder that cannot be read, or no memory, is an error. */
fm_status en_kv_restore(en_engine *engine, const char *dir, int *restored, fm_error *err);

/* Write all conversations; files of this model that are no longer wanted are removed. The folder is
 * made, readable by its owner alone: it holds what people said. */
fm_status en_kv_save(en_engine *engine, const char *dir, int *saved, fm_error *err);

#endif
