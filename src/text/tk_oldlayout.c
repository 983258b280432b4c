/* The layout from before tokenizer.json: vocab.json and merges.txt, with tokenizer_config.json
 * naming a tokenizer class whose pipeline is known here. */
#include "base/file.h"
#include "base/mem.h"
#include "text/tk_load.h"

#include <string.h>

enum { MAX_CONFIG = 64 << 20 };

#define QWEN2_SPLIT                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "                          \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                                                               \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* A JSON file of the folder; *out NULL when it is not there. */
static fm_status read_json(const char *dir, const char *name, json_t **out, fm_error *err)
{
    bs_buf file = {0};
    json_error_t why;
    char *path = bs_path_join(dir, name);
    fm_status status = FM_OK;
    *out = NULL;
    if (!path) return fm_fail_nomem(err, "reading a tokenizer");
    if (bs_is_file(path)) {
        status = bs_read_file(path, MAX_CONFIG, &file, err);
        if (!status && !(*out = json_loadb(file.data, file.length, JSON_ALLOW_NUL, &why)))
            status = fm_fail(err, FM_E_FORMAT, "%s: %s", path, why.text);
    }
    bs_buf_free(&file);
    bs_free(path);
    return status;
}

static const char *content_of(const json_t *v)
{
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static bool add_token(json_t *list, const char *content, const json_t *flags, bool special)
{
    json_t *token = json_object();
    if (!token) return false;
    if (json_is_object(flags)) json_object_update(token, (json_t *)flags);
    json_object_set_new(token, "content", json_string(content));
    if (!json_object_get(token, "special"))
        json_object_set_new(token, "special", json_boolean(special));
    return !json_array_append_new(list, token);
}

/* added_tokens_decoder in the order of its ids, then the named special tokens. */
static bool collect_added(json_t *list, const json_t *config, const json_t *added,
                          const json_t *map)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    const char *key;
    const json_t *v;
    bool ok = true;
    json_object_foreach((json_t *)json_object_get(config, "added_tokens_decoder"), key, v)
    {
        if (content_of(v)) ok = ok && add_token(list, content_of(v), v, false);
    }
    json_object_foreach((json_t *)added, key, v) ok = ok && add_token(list, key, NULL, true);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int k = 0; k < 2; k++) {
            v = json_object_get(k ? map : config, names[i]);
            if (content_of(v))
                ok = ok && add_token(list, content_of(v), json_is_object(v) ? v : NULL, true);
        }
    return ok;
}

fm_status tk_old_layout(const char *dir, tk_sections *out, char **unk, fm_error *err)
{
    json_t *config = NULL, *added = NULL, *map = NULL;
    fm_status status = read_json(dir, "tokenizer_config.json", &config, err);
    if (!status) status = read_json(dir, "added_tokens.json", &added, err);
    if (!status) status = read_json(dir, "special_tokens_map.json", &map, err);
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    bool qwen = class && strstr(class, "Qwen2");
    bool prefix = json_is_true(json_object_get(config, "add_prefix_space"));
    *unk = NULL;
    if (!status) {
        out->decoder = json_pack("{s:s}", "type", "ByteLevel");
        out->normalizer = qwen ? json_pack("{s:s}", "type", "NFC") : NULL;
        out->pre_tokenizer =
            qwen ? json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s, s:b, s:b}]}", "type", "Sequence",
                             "pretokenizers", "type", "Split", "pattern", "Regex", QWEN2_SPLIT,
                             "behavior", "Isolated", "type", "ByteLevel", "add_prefix_space",
                             prefix, "use_regex", 0)
                 : json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix,
                             "use_regex", 1);
        out->added_tokens = json_array();
        if (!out->decoder || !out->pre_tokenizer || !out->added_tokens ||
            (qwen && !out->normalizer) || !collect_added(out->added_tokens, config, added, map))
            status = fm_fail_nomem(err, "reading a tokenizer");
    }
    json_decref(config);
    json_decref(added);
    json_decref(map);
    return status;
}
