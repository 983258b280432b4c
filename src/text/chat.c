/* Reading a model's chat template and special tokens, and making prompts of messages. */
#include "text/chat.h"

#include "base/file.h"
#include "base/mem.h"

#include <string.h>

enum { MAX_FILE = 64 << 20 };

static const char *const special_names[] = {"bos", "eos", "pad", "unk"};

struct tx_chat {
    const tx_tokenizer *tokenizer;
    tx_template *template_, *tool_template; /* the second only when there is one for tools */
    char *special[4];
    int32_t *eos;
    size_t n_eos;
    int32_t *control; /* added tokens that the template speaks of, and content must not become */
    size_t n_control;
    bool can_think;
};

/* --- files
 * ---------------------------------------------------------------------------------------------- */

/* The file's text; *found false when it is not there. */
static fm_status read_text(const char *dir, const char *name, bs_buf *out, bool *found,
                           fm_error *err)
{
    char *path = bs_path_join(dir, name);
    if (!path) return fm_fail_nomem(err, "reading a chat template");
    *found = bs_is_file(path);
    fm_status status = *found ? bs_read_file(path, MAX_FILE, out, err) : FM_OK;
    bs_free(path);
    return status;
}

static fm_status read_json(const char *dir, const char *name, json_t **out, fm_error *err)
{
    bs_buf text = {0};
    bool found;
    json_error_t why;
    *out = NULL;
    fm_status status = read_text(dir, name, &text, &found, err);
    if (!status && found && !(*out = json_loadb(text.data, text.length, JSON_ALLOW_NUL, &why)))
        status = fm_fail(err, FM_E_FORMAT, "%s/%s: %s", dir, name, why.text);
    bs_buf_free(&text);
    return status;
}

/* --- templates
 * --------------------------------------------------------------------------------------------- */

static fm_status compile(const char *s, size_t n, const char *name, tx_template **out,
                         fm_error *err)
{
    tx_template *t = NULL;
    fm_status status = tx_template_compile(s, n, name, &t, err);
    if (status) return status;
    tx_template_free(*out);
    *out = t;
    return FM_OK;
}

/* A string, or a list of {name, template}: "default" and "tool_use" are taken. */
static fm_status from_config(tx_chat *c, const json_t *v, fm_error *err)
{
    size_t i;
    const json_t *item;
    fm_status status = FM_OK;
    if (json_is_string(v))
        return compile(json_string_value(v), json_string_length(v), "chat_template", &c->template_,
                       err);
    json_array_foreach((json_t *)v, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *text = json_object_get(item, "template");
        bool tools = name && !strcmp(name, "tool_use");
        if (status || !name || !json_is_string(text) || (!tools && strcmp(name, "default")))
            continue;
        status = compile(json_string_value(text), json_string_length(text), "chat_template",
                         tools ? &c->tool_template : &c->template_, err);
    }
    return status;
}

static fm_status read_template(tx_chat *c, const char *dir, const json_t *config, fm_error *err)
{
    bs_buf text = {0};
    bool found = false;
    json_t *old = NULL;
    fm_status status = read_text(dir, "chat_template.jinja", &text, &found, err);
    if (!status && found) {
        status = compile(text.data, text.length, "chat_template.jinja", &c->template_, err);
    } else if (!status && json_object_get(config, "chat_template")) {
        status = from_config(c, json_object_get(config, "chat_template"), err);
    } else if (!status) {
        status = read_json(dir, "chat_template.json", &old, err);
        if (!status) status = from_config(c, json_object_get(old, "chat_template"), err);
    }
    json_decref(old);
    bs_buf_free(&text);
    return status;
}

/* --- special tokens
 * ----------------------------------------------------------------------------------------- */

static const json_t *content_of(const json_t *v)
{
    const json_t *content = json_is_object(v) ? json_object_get(v, "content") : v;
    return json_is_string(content) ? content : NULL;
}

static fm_status read_special(tx_chat *c, const json_t *config, const json_t *map, fm_error *err)
{
    for (int i = 0; i < 4; i++) {
        char key[16];
        strcpy(key, special_names[i]);
        strcat(key, "_token");
        const json_t *v = content_of(json_object_get(config, key));
        if (!v && !json_object_get(config, key)) v = content_of(json_object_get(map, key));
        if (v && !(c->special[i] = bs_strdup(json_string_value(v))))
            return fm_fail_nomem(err, "reading a model's tokens");
    }
    return FM_OK;
}

static bool add_eos(tx_chat *c, int64_t id)
{
    if (id < 0 || id > INT32_MAX || tx_chat_is_eos(c, (int32_t)id)) return true;
    int32_t *eos = bs_realloc(c->eos, c->n_eos + 1, sizeof *eos);
    if (!eos) return false;
    eos[c->n_eos++] = (int32_t)id;
    c->eos = eos;
    return true;
}

static bool add_eos_of(tx_chat *c, const json_t *config)
{
    const json_t *v = json_object_get(config, "eos_token_id"), *id;
    size_t i;
    bool ok = true;
    if (!v) v = json_object_get(json_object_get(config, "text_config"), "eos_token_id");
    if (json_is_integer(v)) return add_eos(c, json_integer_value(v));
    json_array_foreach((json_t *)v, i, id)
    {
        if (json_is_integer(id)) ok = ok && add_eos(c, json_integer_value(id));
    }
    return ok;
}

/* generation_config's ids replace config's; without any the tokenizer's eos_token counts. */
static fm_status read_eos(tx_chat *c, const char *dir, fm_error *err)
{
    json_t *generation = NULL, *config = NULL;
    fm_status status = read_json(dir, "generation_config.json", &generation, err);
    if (!status) status = read_json(dir, "config.json", &config, err);
    bool ok = status || add_eos_of(c, generation);
    if (ok && !status &&
        (!c->n_eos || (c->n_eos == 1 && !c->eos[0] &&
                       json_is_integer(json_object_get(generation, "eos_token_id"))))) {
        const json_t *own = json_object_get(config, "eos_token_id");
        bool has = own && !json_is_null(own);
        if (has) c->n_eos = 0; /* a zero in generation_config does not count */
        ok = add_eos_of(c, config);
    }
    if (ok && !status && !c->n_eos && c->special[1])
        ok = add_eos(c, tx_token_id(c->tokenizer, c->special[1], strlen(c->special[1])));
    json_decref(generation);
    json_decref(config);
    return status ? status : ok ? FM_OK : fm_fail_nomem(err, "reading a model's tokens");
}

static bool blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", s[i]) || !s[i]) return false;
    return true;
}

/* Ordinary added tokens whose text stands in the template ("<think>", "<tool_call>") steer the
 * model as special ones do. Runs of spaces do not. */
static fm_status find_control(tx_chat *c, fm_error *err)
{
    const tx_template *templates[] = {c->template_, c->tool_template};
    bs_buf text = {0};
    bool ok = true;
    c->n_control = 0;
    for (size_t id = 0; ok && id < tx_vocab_size(c->tokenizer); id++) {
        if (!tx_token_is_added(c->tokenizer, (int32_t)id) ||
            tx_token_is_special(c->tokenizer, (int32_t)id))
            continue;
        bool used = false;
        text.length = 0;
        ok = tx_token_text(c->tokenizer, (int32_t)id, &text);
        if (!ok || blank(text.data, text.length)) continue;
        for (int i = 0; i < 2; i++)
            used = used || (templates[i] && strstr(tx_template_source(templates[i]), text.data));
        if (!used) continue;
        int32_t *control = bs_realloc(c->control, c->n_control + 1, sizeof *control);
        if (!(ok = control != NULL)) break;
        control[c->n_control++] = (int32_t)id;
        c->control = control;
    }
    bs_buf_free(&text);
    return ok ? FM_OK : fm_fail_nomem(err, "reading a model's tokens");
}

/* --- opening
 * ----------------------------------------------------------------------------------------------------
 */

static fm_status open_folder(tx_chat *c, const char *dir, fm_error *err)
{
    json_t *config = NULL, *map = NULL;
    fm_status status = read_json(dir, "tokenizer_config.json", &config, err);
    if (!status) status = read_json(dir, "special_tokens_map.json", &map, err);
    if (!status) status = read_special(c, config, map, err);
    if (!status) status = read_template(c, dir, config, err);
    if (!status) status = read_eos(c, dir, err);
    if (!status) status = find_control(c, err);
    json_decref(config);
    json_decref(map);
    return status;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (bs_is_dir(path)) return bs_strdup(path);
    return slash ? bs_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : bs_strdup(".");
}

fm_status tx_chat_open(const char *dir, const tx_tokenizer *t, tx_chat **out, fm_error *err)
{
    tx_chat *c = bs_calloc(1, sizeof *c);
    char *folder = folder_of(dir);
    fm_status status = c && folder ? FM_OK : fm_fail_nomem(err, "opening a chat template");
    if (!status) {
        c->tokenizer = t;
        c->can_think = tx_token_id(t, "<think>", 7) >= 0 && tx_token_id(t, "</think>", 8) >= 0;
        status = open_folder(c, folder, err);
    }
    bs_free(folder);
    if (status) tx_chat_free(c);
    else *out = c;
    return status;
}

void tx_chat_free(tx_chat *c)
{
    if (!c) return;
    tx_template_free(c->template_);
    tx_template_free(c->tool_template);
    for (int i = 0; i < 4; i++) bs_free(c->special[i]);
    bs_free(c->eos);
    bs_free(c->control);
    bs_free(c);
}

fm_status tx_chat_set_template(tx_chat *c, const char *source, size_t n, fm_error *err)
{
    fm_status status = compile(source, n, "chat template", &c->template_, err);
    if (status) return status;
    tx_template_free(c->tool_template);
    c->tool_template = NULL;
    return find_control(c, err);
}

bool tx_chat_has_template(const tx_chat *c)
{
    return c->template_ || c->tool_template;
}

const tx_tokenizer *tx_chat_tokenizer(const tx_chat *c)
{
    return c->tokenizer;
}

const int32_t *tx_chat_eos_ids(const tx_chat *c, size_t *n)
{
    *n = c->n_eos;
    return c->eos;
}

bool tx_chat_is_eos(const tx_chat *c, int32_t id)
{
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return true;
    return false;
}

const char *tx_chat_special(const tx_chat *c, const char *name)
{
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, special_names[i])) return c->special[i];
    return NULL;
}

bool tx_chat_can_think(const tx_chat *c)
{
    return c->can_think;
}

/* --- rendering
 * ---------------------------------------------------------------------------------------------------
 */

static const char *const trusted[] = {"bos_token", "eos_token", "pad_token", "unk_token", NULL};

static const tx_template *choose(const tx_chat *c, const json_t *context)
{
    const json_t *tools = json_object_get(context, "tools");
    bool with_tools = tools && !json_is_null(tools);
    if (!c->template_ || (with_tools && c->tool_template)) return c->tool_template;
    return c->template_;
}

const char *tx_chat_source(const tx_chat *c, const json_t *context)
{
    const tx_template *t = choose(c, context);
    return t ? tx_template_source(t) : "";
}

/* Names that the context leaves out: special tokens the model has, tools and documents null. */
static bool add_defaults(const tx_chat *c, json_t *context)
{
    bool ok = true;
    for (int i = 0; i < 4; i++)
        if (c->special[i] && !json_object_get(context, trusted[i]))
            ok = ok && !json_object_set_new(context, trusted[i], json_string(c->special[i]));
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "documents" : "tools";
        if (!json_object_get(context, name))
            ok = ok && !json_object_set_new(context, name, json_null());
    }
    return ok;
}

fm_status tx_chat_render(const tx_chat *c, const json_t *context, tx_rendered *out, fm_error *err)
{
    *out = (tx_rendered){0};
    if (!tx_chat_has_template(c))
        return fm_fail(err, FM_E_UNSUPPORTED,
                       "this is a base model: it has no chat template; give it raw text (--raw)");
    if (!json_is_object(context))
        return fm_fail(err, FM_E_ARGUMENT, "a template's context must be an object");
    json_t *full = json_copy((json_t *)context);
    fm_status status = full && add_defaults(c, full)
                           ? tx_template_render(choose(c, full), full, trusted, 0, out, err)
                           : fm_fail_nomem(err, "rendering a chat template");
    json_decref(full);
    return status;
}

fm_status tx_chat_raw_prompt(const tx_chat *c, const char *text, size_t n, tx_ids *out,
                             fm_error *err)
{
    const char *bos = c->special[0];
    size_t length = bos ? strlen(bos) : 0;
    bool begins = length && n >= length && !memcmp(text, bos, length);
    return tx_encode(c->tokenizer, text, n, begins ? 0 : TX_ADD_SPECIAL, out, err);
}

/* The control tokens of encoding a prompt's segments. */
fm_status tx_chat_encode(const tx_chat *c, const tx_rendered *r, tx_ids *out, fm_error *err)
{
    tx_control control = {c->control, c->n_control};
    return tx_encode_segments(c->tokenizer, r->text.data, r->text.length, r->segments,
                              r->n_segments, &control, 0, out, err);
}
