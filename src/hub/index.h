/* index.h - which shards a model.safetensors.index.json names. */
#ifndef HUB_INDEX_H
#define HUB_INDEX_H

#include "base/error.h"

#include <stdbool.h>

#define HB_INDEX_FILE "model.safetensors.index.json"

/* Call fn once for each distinct shard of the index; FM_E_NOT_FOUND when fn says false for one.
 * The names come from the file as they are: fn must check them. */
fm_status hb_index_each_shard(const char *path, bool (*fn)(void *arg, const char *shard), void *arg,
                              fm_error *err);

#endif
