#include "hub/index.h"

#include "base/buf.h"
#include "base/file.h"

#include <jansson.h>
#include <string.h>

enum { MAX_INDEX_BYTES = 128 << 20 };

static fm_status each_shard(const char *path, json_t *map, bool (*fn)(void *, const char *),
                            void *arg, fm_error *err)
{
    json_t *seen = json_object();
    fm_status status = seen ? FM_OK : fm_fail_nomem(err, path);
    const char *tensor, *last = "";
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *shard = json_string_value(value);
        if (status) break;
        if (!shard) {
            status = fm_fail(err, FM_E_FORMAT, "%s: weight_map[\"%.100s\"] is no file name", path,
                             tensor);
        } else if (strcmp(shard, last) != 0 && !json_object_get(seen, shard)) {
            if (json_object_set_new(seen, shard, json_true())) status = fm_fail_nomem(err, path);
            else if (!fn(arg, shard))
                status =
                    fm_fail(err, FM_E_NOT_FOUND, "%s: the shard '%.200s' is missing", path, shard);
        }
        if (shard) last = shard;
    }
    json_decref(seen);
    return status;
}

fm_status hb_index_each_shard(const char *path, bool (*fn)(void *arg, const char *shard), void *arg,
                              fm_error *err)
{
    bs_buf text = {0};
    json_error_t where;
    json_t *root = NULL;
    fm_status status = bs_read_file(path, MAX_INDEX_BYTES, &text, err);
    if (!status) {
        root = json_loadb(text.data, text.length, 0, &where);
        json_t *map = json_object_get(root, "weight_map");
        if (!root)
            status = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, where.line, where.text);
        else if (!json_is_object(map) || !json_object_size(map))
            status = fm_fail(err, FM_E_FORMAT, "%s: has no weight_map", path);
        else status = each_shard(path, map, fn, arg, err);
    }
    json_decref(root);
    bs_buf_free(&text);
    return status;
}
