#include "engine/kvstore.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/sha.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 1000, NAME_BYTES = 64 };

typedef struct header {
    char magic[8];
    uint64_t scope, bytes, key; /* key: name of the model's files, see model_key */
    char digest[72];            /* SHA-256 of scope, bytes, key and the content, in hexadecimal */
} header;

static const char magic[8] = "fmconv1";

/* Files of several models may share a folder: the name begins with a number made from the model's
 * shape and folder. It only finds them; en_prefix_import decides whether they fit. */
static uint64_t model_key(const en_engine *engine)
{
    const md_info *info = en_describe(engine);
    uint64_t figures[] = {info->resident_bytes, info->experts_bytes, (uint64_t)info->vocab,
                          (uint64_t)info->n_layers, (uint64_t)en_get_options(engine)->kv_bits};
    uint64_t key = 0xcbf29ce484222325u;
    for (const char *p = en_get_options(engine)->model; *p; p++)
        key = (key ^ (uint8_t)*p) * 0x100000001b3u;
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        key = (key ^ figures[i]) * 0x100000001b3u;
    return key;
}

static void digest_of(const header *h, const void *content, char out[BS_HEX_MAX])
{
    bs_hash sha;
    bs_sha256_start(&sha);
    bs_hash_update(&sha, &h->scope, 3 * sizeof(uint64_t));
    bs_hash_update(&sha, content, h->bytes);
    bs_hash_finish(&sha, out);
}

/* --- reading
 * -------------------------------------------------------------------------------------- */

/* FM_E_FORMAT: not a file of ours, or damaged. The content is allocated with bs_pages_alloc. */
static fm_status load(const char *path, header *h, void **content, fm_error *err)
{
    *content = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return fm_fail_errno(err, errno, "%s", path);
    struct stat st;
    fm_status status = FM_OK;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof *h)
        status = fm_fail(err, FM_E_FORMAT, "%s: no saved conversation", path);
    if (!status) status = bs_pread_full(fd, path, h, sizeof *h, 0, err);
    if (!status && (memcmp(h->magic, magic, sizeof magic) || h->bytes == 0 ||
                    h->bytes != (uint64_t)st.st_size - sizeof *h))
        status = fm_fail(err, FM_E_FORMAT, "%s: damaged or cut short", path);
    if (!status && !(*content = bs_pages_alloc(h->bytes)))
        status = fm_fail_nomem(err, "reading a saved conversation");
    if (!status) status = bs_pread_full(fd, path, *content, h->bytes, sizeof *h, err);
    close(fd);
    char digest[BS_HEX_MAX];
    if (!status) {
        digest_of(h, *content, digest);
        if (memcmp(digest, h->digest, sizeof digest))
            status = fm_fail(err, FM_E_FORMAT, "%s: damaged: the checksum differs", path);
    }
    if (status && *content) bs_pages_free(*content, h->bytes);
    if (status) *content = NULL;
    return status;
}

typedef struct names {
    char name[MAX_FILES][NAME_BYTES];
    int n;
} names;

static int by_name_reversed(const void *a, const void *b)
{
    return strcmp(b, a);
}

/* The model's files, oldest use first: then the latest is imported last and counts as newest. */
static fm_status list(const char *dir, uint64_t key, names *out, fm_error *err)
{
    char prefix[24];
    snprintf(prefix, sizeof prefix, "%016llx-", (unsigned long long)key);
    out->n = 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return FM_OK;
    if (!d) return fm_fail_errno(err, errno, "--kv-dir %s", dir);
    for (struct dirent *entry; (entry = readdir(d)) && out->n < MAX_FILES;) {
        size_t n = strlen(entry->d_name);
        if (n >= NAME_BYTES || n < 6 || strncmp(entry->d_name, prefix, strlen(prefix)) != 0 ||
            strcmp(entry->d_name + n - 5, ".conv") != 0)
            continue;
        memcpy(out->name[out->n++], entry->d_name, n + 1);
    }
    closedir(d);
    qsort(out->name, (size_t)out->n, NAME_BYTES, by_name_reversed);
    return FM_OK;
}

fm_status en_kv_restore(en_engine *engine, const char *dir, int *restored, fm_error *err)
{
    names *files = bs_malloc(sizeof *files);
    if (!files) return fm_fail_nomem(err, "restoring conversations");
    uint64_t key = model_key(engine);
    fm_status status = list(dir, key, files, err);
    int count = 0;
    for (int i = 0; i < files->n && !status; i++) {
        char *path = bs_path_join(dir, files->name[i]);
        header h;
        void *content = NULL;
        fm_error why = {0};
        fm_status one = path ? load(path, &h, &content, &why) : FM_E_NOMEM;
        if (!one && h.key == key) one = en_prefix_import(engine, h.scope, content, h.bytes, &why);
        count += !one;
        if (one == FM_E_NOMEM) status = fm_fail_nomem(err, "restoring conversations");
        if (content) bs_pages_free(content, h.bytes);
        bs_free(path);
    }
    if (restored) *restored = count;
    bs_free(files);
    return status;
}

/* --- writing
 * -------------------------------------------------------------------------------------- */

static fm_status save_one(en_engine *engine, const char *dir, uint64_t key, int i,
                          const en_prefix_entry *entry, fm_error *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%016llx-%04d.conv", (unsigned long long)key, i);
    size_t total = sizeof(header) + entry->bytes;
    char *path = bs_path_join(dir, name), *data = bs_pages_alloc(total);
    fm_status status = FM_OK;
    if (!path || !data) status = fm_fail_nomem(err, "saving a conversation");
    if (!status) status = en_prefix_export(engine, i, data + sizeof(header), err);
    if (!status) {
        header h = {.scope = entry->scope, .bytes = entry->bytes, .key = key};
        memcpy(h.magic, magic, sizeof magic);
        digest_of(&h, data + sizeof h, h.digest);
        memcpy(data, &h, sizeof h);
        status = bs_write_file(path, data, total, err);
    }
    if (data) bs_pages_free(data, total);
    bs_free(path);
    return status;
}

fm_status en_kv_save(en_engine *engine, const char *dir, int *saved, fm_error *err)
{
    int n = 0;
    uint64_t key = model_key(engine);
    mode_t old = umask(077);
    fm_status status = bs_make_dirs(dir, err);
    names *files = bs_malloc(sizeof *files);
    if (!status && !files) status = fm_fail_nomem(err, "saving conversations");
    en_prefix_entry entry;
    while (!status && n < MAX_FILES && en_prefix_info(engine, n, &entry)) {
        status = save_one(engine, dir, key, n, &entry, err);
        n += !status;
    }
    if (!status) status = list(dir, key, files, err);
    for (int i = 0; !status && i < files->n; i++) {
        int number = atoi(files->name[i] + 17);
        char *path = number >= n ? bs_path_join(dir, files->name[i]) : NULL;
        if (path) unlink(path);
        bs_free(path);
    }
    umask(old);
    bs_free(files);
    if (saved) *saved = n;
    return status;
}
