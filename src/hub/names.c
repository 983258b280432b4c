#include "hub/names.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool is_plain(char c) /* isalnum of the C locale */
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool hb_is_safe_path(const char *path)
{
    if (!*path || strlen(path) > 1024) return false;
    for (const char *p = path;;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > 255) return false;
        if (p[0] == '.' && (n == 1 || (n == 2 && p[1] == '.'))) return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\') return false;
        if (!p[n]) return true;
        p += n + 1;
    }
}

bool hb_is_commit(const char *text)
{
    return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

bool hb_is_blob_name(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n >= HB_HASH_MAX || text[0] == '.' || text[n - 1] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (!is_plain(text[i]) && !strchr("-_.", text[i])) return false;
    const char *suffix = ".incomplete"; /* would be taken for an unfinished blob */
    return n < strlen(suffix) || strcmp(text + n - strlen(suffix), suffix) != 0;
}

/* One half of a repository's name. "--" separates the halves in the cache, so it is not allowed. */
static bool is_repo_part(const char *p, size_t n)
{
    if (n == 0 || n > 96 || strchr("-.", p[0]) || strchr("-.", p[n - 1])) return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_plain(p[i]) && !strchr("-_.", p[i])) return false;
        if (i && strchr("-.", p[i]) && p[i] == p[i - 1]) return false;
    }
    return true;
}

bool hb_is_repo(const char *text)
{
    const char *slash = strchr(text, '/');
    return slash && is_repo_part(text, (size_t)(slash - text)) &&
           is_repo_part(slash + 1, strlen(slash + 1));
}

/* The revision of "org/name@revision" and the length of what stands before it. */
static const char *split_id(const char *text, size_t *repo_length)
{
    const char *at = strchr(text, '@');
    *repo_length = at ? (size_t)(at - text) : strlen(text);
    return at ? at + 1 : "main";
}

static bool read_id(const char *text, hb_id *out)
{
    size_t n;
    const char *revision = split_id(text, &n);
    if (n >= sizeof out->repo || strlen(revision) >= sizeof out->revision) return false;
    memcpy(out->repo, text, n);
    out->repo[n] = 0;
    snprintf(out->revision, sizeof out->revision, "%s", revision);
    return hb_is_repo(out->repo) && hb_is_safe_path(out->revision);
}

bool hb_is_id(const char *text)
{
    hb_id id;
    return read_id(text, &id);
}

fm_status hb_parse_id(const char *text, hb_id *out, fm_error *err)
{
    if (read_id(text, out)) return FM_OK;
    return fm_fail(err, FM_E_ARGUMENT,
                   "'%.100s' is no model id: it is org/name or org/name@revision, of letters, "
                   "digits and single '-', '_', '.'",
                   text);
}

char *hb_repo_folder(const char *repo)
{
    const char *slash = strchr(repo, '/');
    return bs_sprintf("models--%.*s--%s", (int)(slash - repo), repo, slash + 1);
}

char *hb_repo_of_folder(const char *folder)
{
    if (strncmp(folder, "models--", 8) != 0) return NULL;
    const char *middle = strstr(folder + 8, "--");
    if (!middle) return NULL;
    char *repo = bs_sprintf("%.*s/%s", (int)(middle - folder - 8), folder + 8, middle + 2);
    if (repo && hb_is_repo(repo)) return repo;
    bs_free(repo);
    return NULL;
}

char *hb_url_encode(const char *text, bool keep_slashes)
{
    bs_buf b = {0};
    for (const char *p = text; *p; p++) {
        if (is_plain(*p) || strchr("-_.~", *p) || (*p == '/' && keep_slashes)) bs_buf_putc(&b, *p);
        else bs_buf_printf(&b, "%%%02X", (unsigned char)*p);
    }
    if (!b.failed) bs_buf_putc(&b, 0);
    if (!b.failed) return b.data;
    bs_buf_free(&b);
    return NULL;
}
