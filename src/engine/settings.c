/* generation_config.json: how the model's makers want it sampled. */
#include "engine/internal.h"

#include "base/file.h"
#include "base/mem.h"

static void read_float(const json_t *config, const char *name, float *out)
{
    const json_t *v = json_object_get(config, name);
    if (json_is_number(v)) *out = (float)json_number_value(v);
}

fm_status en_read_sampling(const char *dir, en_sampling *out, fm_error *err)
{
    *out = en_sampling_default();
    char *path = bs_path_join(dir, "generation_config.json");
    if (!path) return fm_fail_nomem(err, "reading generation_config.json");
    if (!bs_is_file(path)) {
        bs_free(path);
        return FM_OK;
    }
    bs_buf text = {0};
    fm_status status = bs_read_file(path, 1 << 20, &text, err);
    json_error_t why;
    json_t *config = status ? NULL : json_loadb(text.data, text.length, 0, &why);
    if (!status && !json_is_object(config))
        status = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line,
                         config ? "not an object" : why.text);
    if (!status && json_is_true(json_object_get(config, "do_sample"))) {
        out->temperature = 1;
        read_float(config, "temperature", &out->temperature);
        read_float(config, "top_p", &out->top_p);
        read_float(config, "min_p", &out->min_p);
        const json_t *k = json_object_get(config, "top_k");
        if (json_is_integer(k)) out->top_k = (int)json_integer_value(k);
    }
    if (!status) read_float(config, "repetition_penalty", &out->repeat_penalty);
    if (!status && en_sampling_check(out, err)) status = fm_prefix(err, "%s", path);
    json_decref(config);
    bs_buf_free(&text);
    bs_free(path);
    return status;
}
