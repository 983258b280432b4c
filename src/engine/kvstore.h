/* kvstore.h - cached conversations in a folder, so that they outlive the process.
 *
 * One file a conversation, named by what it holds: a header with the scope and a checksum, then the
 * bytes of en_prefix_export. Files are written beside their name, synced and renamed; they are
 * validated whole before anything live changes, and one that is damaged or belongs to another
 * model, version or setting is not used. A conversation that has rested for some seconds is written
 * by a thread of the store, so a process that is killed loses the newest turns at most; the folder
 * holds what the prefix cache holds, no more. All functions belong to the engine's thread. */
#ifndef ENGINE_KVSTORE_H
#define ENGINE_KVSTORE_H

#include "engine/engine.h"

typedef struct en_kvstore en_kvstore;

/* Restore what the folder has for this model; *restored (may be NULL): how many conversations came
 * back. The folder is made when it is missing, readable by its owner alone: it holds what people
 * said. dir must outlive the store. */
fm_status en_kv_open(en_engine *engine, const char *dir, en_kvstore **out, int *restored,
                     fm_error *err);

/* Between steps: copy a conversation that has rested and hand it to the thread, unless that is
 * busy. The copy counts as the prefix cache's memory. An error is reported once; nothing more is
 * written then until the end. */
fm_status en_kv_tend(en_kvstore *store, fm_error *err);

/* With the engine idle: write what is not written yet, remove the model's files that are no longer
 * wanted, and free the store. *kept (may be NULL): conversations in the folder. */
fm_status en_kv_close(en_kvstore *store, int *kept, fm_error *err);

#endif
