/* The environment variables of Python's huggingface_hub, read the same way. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "hub/hub.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool env_true(const char *name)
{
    const char *value = env(name);
    return value && (!strcmp(value, "1") || !strcasecmp(value, "true") ||
                     !strcasecmp(value, "yes") || !strcasecmp(value, "on"));
}

/* base with a leading "~/" replaced, then tail; NULL when out of memory or without a home. */
static char *expand(const char *base, const char *tail)
{
    if (base[0] != '~' || (base[1] && base[1] != '/')) return bs_sprintf("%s%s", base, tail);
    const char *home = env("HOME");
    return home ? bs_sprintf("%s%s%s", home, base + 1, tail) : NULL;
}

/* HF_HOME, where the hub's own tools keep the token and, below it, the cache; with tail after it.
 */
static char *hf_home(const char *tail)
{
    if (env("HF_HOME")) return expand(env("HF_HOME"), tail);
    const char *xdg = env("XDG_CACHE_HOME");
    char *base = expand(xdg ? xdg : "~/.cache", "/huggingface");
    char *path = base ? bs_sprintf("%s%s", base, tail) : NULL;
    bs_free(base);
    return path;
}

static fm_status read_cache(hb_config *c, fm_error *err)
{
    const char *direct = env("HF_HUB_CACHE");
    if (!direct) direct = env("HUGGINGFACE_HUB_CACHE");
    c->cache = direct ? expand(direct, "") : hf_home("/hub");
    if (c->cache) return FM_OK;
    if (!env("HOME"))
        return fm_fail(err, FM_E_ARGUMENT,
                       "HOME is not set: set HF_HUB_CACHE to the folder for models");
    return fm_fail_nomem(err, "finding the hub cache");
}

/* White space around a token is a slip of the editor; inside it would break the HTTP header. */
static fm_status take_token(const char *text, const char *origin, hb_config *c, fm_error *err)
{
    while (isspace((unsigned char)*text)) text++;
    size_t n = strlen(text);
    while (n && isspace((unsigned char)text[n - 1])) n--;
    if (!n) return FM_OK;
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] == 0x7f)
            return fm_fail(err, FM_E_FORMAT, "%s: a token is one word of ASCII letters", origin);
    c->token = bs_strndup(text, n);
    return c->token ? FM_OK : fm_fail_nomem(err, "reading the token");
}

static fm_status read_token_file(const char *path, hb_config *c, fm_error *err)
{
    if (!bs_is_file(path)) return FM_OK;
    bs_buf text = {0};
    fm_status status = bs_read_file(path, 4096, &text, err);
    if (!status) status = take_token(text.data, path, c, err);
    bs_buf_free(&text);
    return status;
}

static fm_status read_token(hb_config *c, fm_error *err)
{
    const char *direct = env("HF_TOKEN");
    if (!direct) direct = env("HUGGING_FACE_HUB_TOKEN");
    if (direct) return take_token(direct, "HF_TOKEN", c, err);
    if (env_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return FM_OK;
    const char *named = env("HF_TOKEN_PATH");
    char *path = named ? expand(named, "") : hf_home("/token");
    fm_status status = path ? read_token_file(path, c, err) : FM_OK;
    bs_free(path);
    return status;
}

static fm_status read_endpoint(hb_config *c, fm_error *err)
{
    const char *endpoint = env("HF_ENDPOINT");
    if (!endpoint) endpoint = "https://huggingface.co";
    size_t n = strlen(endpoint);
    while (n && endpoint[n - 1] == '/') n--;
    if (strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0)
        return fm_fail(err, FM_E_ARGUMENT, "HF_ENDPOINT=%s: must start with https:// or http://",
                       endpoint);
    c->endpoint = bs_strndup(endpoint, n);
    return c->endpoint ? FM_OK : fm_fail_nomem(err, "reading HF_ENDPOINT");
}

/* One "name=value" of FLASH_MOE_HUB. */
static bool set_one(hb_config *c, const char *name, size_t name_length, unsigned long long value)
{
    static const struct {
        const char *name;
        unsigned long long least, most;
    } known[] = {
        {"chunk", 4096, 1ull << 32}, {"connections", 1, 64}, {"retries", 0, 1000},
        {"backoff", 1, 60000},       {"stall", 1, 3600},
    };
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != name_length || strncmp(known[i].name, name, name_length))
            continue;
        if (value < known[i].least || value > known[i].most) return false;
        switch (i) {
        case 0: c->chunk = value; break;
        case 1: c->connections = (unsigned)value; break;
        case 2: c->retries = (unsigned)value; break;
        case 3: c->backoff_ms = (unsigned)value; break;
        case 4: c->stall_s = (unsigned)value; break;
        }
        return true;
    }
    return false;
}

static fm_status read_tuning(hb_config *c, fm_error *err)
{
    const char *p = env("FLASH_MOE_HUB");
    while (p && *p) {
        const char *equals = strchr(p, '=');
        char *end = NULL;
        errno = 0;
        unsigned long long value = equals ? strtoull(equals + 1, &end, 10) : 0;
        if (!equals || end == equals + 1 || errno || (*end && *end != ',') ||
            !set_one(c, p, (size_t)(equals - p), value))
            return fm_fail(err, FM_E_ARGUMENT,
                           "FLASH_MOE_HUB: '%s' is not one of chunk=BYTES, connections=N, "
                           "retries=N, backoff=MS, stall=SECONDS within its range",
                           p);
        p = *end ? end + 1 : end;
    }
    return FM_OK;
}

fm_status hb_config_from_env(hb_config *out, fm_error *err)
{
    *out = (hb_config){
        .chunk = 16 << 20, .connections = 8, .retries = 8, .backoff_ms = 500, .stall_s = 20};
    out->offline = env_true("HF_HUB_OFFLINE") || env_true("TRANSFORMERS_OFFLINE");
    fm_status status = read_cache(out, err);
    if (!status) status = read_endpoint(out, err);
    if (!status) status = read_token(out, err);
    if (!status) status = read_tuning(out, err);
    if (status) hb_config_free(out);
    return status;
}

void hb_config_free(hb_config *c)
{
    bs_free(c->cache);
    bs_free(c->endpoint);
    bs_free(c->token);
    *c = (hb_config){0};
}
