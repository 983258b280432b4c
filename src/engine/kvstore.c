#include "engine/kvstore.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/sha.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_FILES = 1000,
    NAME_BYTES = 64,
    REST_SECONDS = 3, /* a conversation that goes on is not written at every turn */
};

typedef struct header {
    char magic[8];
    uint64_t scope, bytes, key; /* key: name of the model's files, see model_key */
    char digest[72];            /* SHA-256 of scope, bytes, key and the content, in hexadecimal */
} header;

static const char magic[8] = "fmconv1";

/* What the thread is to do: write a copy of conversation `id`, remove the file of another. */
typedef struct task {
    uint64_t id, scope, unwanted; /* unwanted: 0: none */
    char *data;                   /* header and content; NULL: nothing to write */
    uint64_t bytes;
} task;

struct en_kvstore {
    en_engine *engine;
    const char *dir;
    uint64_t key;
    uint64_t good[MAX_FILES]; /* whose files were read or written by us, and are whole */
    int n_good;
    uint64_t current[MAX_FILES]; /* what the cache holds, by rank */
    int n_current;
    uint64_t resting; /* the conversation to be written next, and since when it is as it is */
    double since, looked;
    bool failed;

    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work;
    task task;
    bool given, done, stop; /* the thread has a task; has finished it */
    fm_error error;         /* code 0: it went well */
};

static uint64_t mix(uint64_t hash, const void *data, size_t n)
{
    for (const uint8_t *p = data, *end = p + n; p < end; p++) hash = (hash ^ *p) * 0x100000001b3u;
    return hash;
}

/* Files of several models may share a folder: the name begins with a number made from the model's
 * shape and folder. It only finds them; en_prefix_import decides whether they fit. */
static uint64_t model_key(const en_engine *engine)
{
    const md_info *info = en_describe(engine);
    uint64_t figures[] = {info->resident_bytes, info->experts_bytes, (uint64_t)info->vocab,
                          (uint64_t)info->n_layers, (uint64_t)en_get_options(engine)->kv_bits};
    const char *model = en_get_options(engine)->model;
    return mix(mix(0xcbf29ce484222325u, model, strlen(model)), figures, sizeof figures);
}

static uint64_t id_of(const en_prefix_entry *entry)
{
    uint64_t id = mix(0xcbf29ce484222325u, &entry->scope, sizeof entry->scope);
    id = mix(id, entry->ids, (size_t)entry->n_ids * sizeof *entry->ids);
    return id ? id : 1;
}

static char *path_of(const en_kvstore *k, uint64_t id)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%016llx-%016llx.conv", (unsigned long long)k->key,
             (unsigned long long)id);
    return bs_path_join(k->dir, name);
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

/* The model's files, those written first in front: the latest is imported last and counts as
 * newest. What a killed process was writing is removed. */
typedef struct file {
    char name[NAME_BYTES];
    struct timespec written;
} file;

typedef struct files {
    file file[MAX_FILES];
    int n;
} files;

static int by_time(const void *a, const void *b)
{
    const file *x = a, *y = b;
    if (x->written.tv_sec != y->written.tv_sec)
        return x->written.tv_sec < y->written.tv_sec ? -1 : 1;
    if (x->written.tv_nsec != y->written.tv_nsec)
        return x->written.tv_nsec < y->written.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

static fm_status list(const en_kvstore *k, files *out, fm_error *err)
{
    char prefix[24];
    snprintf(prefix, sizeof prefix, "%016llx-", (unsigned long long)k->key);
    out->n = 0;
    DIR *d = opendir(k->dir);
    if (!d && errno == ENOENT) return FM_OK;
    if (!d) return fm_fail_errno(err, errno, "--kv-dir %s", k->dir);
    for (struct dirent *entry; (entry = readdir(d)) && out->n < MAX_FILES;) {
        size_t n = strlen(entry->d_name);
        struct stat st;
        if (n >= NAME_BYTES || n < 6 || strncmp(entry->d_name, prefix, strlen(prefix)) != 0 ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (strstr(entry->d_name, ".conv.tmp.")) unlinkat(dirfd(d), entry->d_name, 0);
        if (strcmp(entry->d_name + n - 5, ".conv") != 0) continue;
        memcpy(out->file[out->n].name, entry->d_name, n + 1);
        out->file[out->n++].written = st.st_mtim;
    }
    closedir(d);
    qsort(out->file, (size_t)out->n, sizeof out->file[0], by_time);
    return FM_OK;
}

static uint64_t id_in(const char *name)
{
    return strtoull(name + 17, NULL, 16);
}

static bool is_good(const en_kvstore *k, uint64_t id)
{
    for (int i = 0; i < k->n_good; i++)
        if (k->good[i] == id) return true;
    return false;
}

static void note_good(en_kvstore *k, uint64_t id)
{
    if (k->n_good < MAX_FILES && !is_good(k, id)) k->good[k->n_good++] = id;
}

static fm_status restore_one(en_kvstore *k, const char *name, fm_error *err)
{
    char *path = bs_path_join(k->dir, name);
    if (!path) return fm_fail_nomem(err, "restoring conversations");
    header h;
    void *content = NULL;
    fm_status status = load(path, &h, &content, err);
    if (!status && h.key != k->key) status = fm_fail(err, FM_E_STALE, "%s: another model's", path);
    if (!status) status = en_prefix_import(k->engine, h.scope, content, h.bytes, err);
    if (content) bs_pages_free(content, h.bytes);
    bs_free(path);
    return status;
}

/* Only a folder that cannot be read, or no memory, is an error. */
static fm_status restore(en_kvstore *k, int *restored, fm_error *err)
{
    files *found = bs_malloc(sizeof *found);
    if (!found) return fm_fail_nomem(err, "restoring conversations");
    fm_status status = list(k, found, err);
    int count = 0;
    for (int i = 0; !status && i < found->n; i++) {
        fm_error why;
        fm_status one = restore_one(k, found->file[i].name, &why);
        count += !one;
        if (!one) note_good(k, id_in(found->file[i].name));
        if (one == FM_E_NOMEM) status = fm_fail_nomem(err, "restoring conversations");
    }
    if (restored) *restored = count;
    bs_free(found);
    return status;
}

/* --- writing
 * -------------------------------------------------------------------------------------- */

/* A copy of the i-th conversation, with room for its header. */
static fm_status copy(en_kvstore *k, int i, const en_prefix_entry *entry, task *out, fm_error *err)
{
    *out = (task){.id = id_of(entry), .scope = entry->scope};
    out->bytes = sizeof(header) + entry->bytes;
    out->data = bs_pages_alloc(out->bytes);
    if (!out->data) return fm_fail_nomem(err, "saving a conversation");
    return en_prefix_export(k->engine, i, out->data + sizeof(header), err);
}

static fm_status write_copy(const en_kvstore *k, task *t, fm_error *err)
{
    header h = {.scope = t->scope, .bytes = t->bytes - sizeof h, .key = k->key};
    memcpy(h.magic, magic, sizeof magic);
    digest_of(&h, t->data + sizeof h, h.digest);
    memcpy(t->data, &h, sizeof h);
    char *path = path_of(k, t->id);
    if (!path) return fm_fail_nomem(err, "saving a conversation");
    fm_status status = bs_write_private(path, t->data, t->bytes, err);
    bs_free(path);
    return status;
}

static void remove_file(const en_kvstore *k, uint64_t id)
{
    char *path = path_of(k, id);
    if (path) unlink(path);
    bs_free(path);
}

static void *run(void *arg)
{
    en_kvstore *k = arg;
    pthread_mutex_lock(&k->lock);
    for (;;) {
        while (!k->stop && (!k->given || k->done)) pthread_cond_wait(&k->work, &k->lock);
        if (!k->given || k->done) break;
        task t = k->task;
        pthread_mutex_unlock(&k->lock);
        fm_error error = {0};
        if (t.data) write_copy(k, &t, &error);
        if (t.unwanted && !error.code) remove_file(k, t.unwanted);
        pthread_mutex_lock(&k->lock);
        k->error = error;
        k->done = true;
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* --- what to write ---------------------------------------------------------------------------- */

static void look(en_kvstore *k)
{
    en_prefix_entry entry;
    k->n_current = 0;
    while (k->n_current < MAX_FILES && en_prefix_info(k->engine, k->n_current, &entry))
        k->current[k->n_current++] = id_of(&entry);
}

/* The rank of the conversation, used longest ago, that no file holds; -1: none. */
static int find_unsaved(const en_kvstore *k)
{
    for (int i = k->n_current - 1; i >= 0; i--)
        if (!is_good(k, k->current[i])) return i;
    return -1;
}

/* A file whose conversation has gone on or was dropped; 0: none. */
static uint64_t find_unwanted(const en_kvstore *k)
{
    for (int g = 0; g < k->n_good; g++) {
        bool wanted = false;
        for (int i = 0; !wanted && i < k->n_current; i++) wanted = k->current[i] == k->good[g];
        if (!wanted) return k->good[g];
    }
    return 0;
}

static void forget(en_kvstore *k, uint64_t id)
{
    for (int g = 0; g < k->n_good; g++)
        if (k->good[g] == id) k->good[g--] = k->good[--k->n_good];
}

/* Take back what the thread has finished. False: it is still at it. */
static bool collect(en_kvstore *k, fm_status *status, fm_error *err)
{
    pthread_mutex_lock(&k->lock);
    bool idle = !k->given || k->done;
    task t = k->given && k->done ? k->task : (task){0};
    fm_error error = k->error;
    if (idle) k->given = k->done = false;
    pthread_mutex_unlock(&k->lock);
    if (!t.data && !t.unwanted) return idle;
    if (t.data) {
        bs_pages_free(t.data, t.bytes);
        en_prefix_return(k->engine, t.bytes);
    }
    if (error.code) {
        k->failed = true;
        *status = fm_fail(err, error.code, "%s", error.message);
        return idle;
    }
    if (t.data) note_good(k, t.id);
    if (t.unwanted) forget(k, t.unwanted);
    return idle;
}

static void give(en_kvstore *k, const task *t)
{
    pthread_mutex_lock(&k->lock);
    k->task = *t;
    k->given = true;
    k->error.code = FM_OK;
    pthread_cond_signal(&k->work);
    pthread_mutex_unlock(&k->lock);
}

/* Has the conversation been as it is for long enough? */
static bool has_rested(en_kvstore *k, uint64_t id, double now)
{
    if (k->resting != id) k->since = now;
    k->resting = id;
    return now - k->since >= REST_SECONDS;
}

/* Room for the copy may be made by dropping old conversations, this one perhaps: out->data stays
 * NULL then. */
static fm_status borrow_and_copy(en_kvstore *k, int i, task *out, fm_error *err)
{
    en_prefix_entry entry;
    uint64_t id = k->current[i];
    if (!en_prefix_info(k->engine, i, &entry)) return FM_OK;
    uint64_t bytes = sizeof(header) + entry.bytes;
    if (!en_prefix_borrow(k->engine, bytes)) return FM_OK;
    fm_status status = FM_OK;
    if (en_prefix_info(k->engine, i, &entry) && id_of(&entry) == id &&
        sizeof(header) + entry.bytes == bytes)
        status = copy(k, i, &entry, out, err);
    if (!status && out->data) return FM_OK;
    bs_pages_free(out->data, bytes);
    *out = (task){0};
    en_prefix_return(k->engine, bytes);
    return status;
}

fm_status en_kv_tend(en_kvstore *k, fm_error *err)
{
    double now = bs_now();
    fm_status status = FM_OK;
    if (k->failed || now - k->looked < REST_SECONDS / 6.0) return FM_OK;
    k->looked = now;
    if (!collect(k, &status, err) || status) return status;
    look(k);
    task t = {0};
    int i = find_unsaved(k);
    if (i >= 0 && has_rested(k, k->current[i], now)) status = borrow_and_copy(k, i, &t, err);
    if (status) return status;
    t.unwanted = find_unwanted(k);
    if (t.data || t.unwanted) give(k, &t);
    return FM_OK;
}

/* --- beginning and end ------------------------------------------------------------------------ */

static fm_status make_folder(const char *dir, fm_error *err)
{
    mode_t old = umask(077);
    fm_status status = bs_make_dirs(dir, err);
    umask(old);
    return status;
}

fm_status en_kv_open(en_engine *engine, const char *dir, en_kvstore **out, int *restored,
                     fm_error *err)
{
    *out = NULL;
    fm_status status = make_folder(dir, err);
    if (status) return status;
    en_kvstore *k = bs_calloc(1, sizeof *k);
    if (!k) return fm_fail_nomem(err, "keeping conversations");
    k->engine = engine;
    k->dir = dir;
    k->key = model_key(engine);
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->work, NULL);
    status = restore(k, restored, err);
    if (!status && pthread_create(&k->thread, NULL, run, k))
        status = fm_fail(err, FM_E_NOMEM, "cannot start a thread");
    if (status) {
        pthread_mutex_destroy(&k->lock);
        pthread_cond_destroy(&k->work);
        bs_free(k);
        return status;
    }
    *out = k;
    return FM_OK;
}

static fm_status write_rest(en_kvstore *k, fm_error *err)
{
    fm_status status = FM_OK;
    look(k);
    for (int i; !status && k->n_good < MAX_FILES && (i = find_unsaved(k)) >= 0;) {
        en_prefix_entry entry;
        task t;
        if (!en_prefix_info(k->engine, i, &entry)) break;
        status = copy(k, i, &entry, &t, err);
        if (!status) status = write_copy(k, &t, err);
        if (!status) note_good(k, t.id);
        bs_pages_free(t.data, t.bytes);
    }
    return status;
}

static fm_status remove_rest(en_kvstore *k, fm_error *err)
{
    for (uint64_t id; (id = find_unwanted(k));) forget(k, id);
    files *found = bs_malloc(sizeof *found);
    if (!found) return fm_fail_nomem(err, "saving conversations");
    fm_status status = list(k, found, err);
    for (int i = 0; !status && i < found->n; i++) {
        if (is_good(k, id_in(found->file[i].name))) continue;
        char *path = bs_path_join(k->dir, found->file[i].name);
        if (path) unlink(path);
        bs_free(path);
    }
    bs_free(found);
    return status;
}

fm_status en_kv_close(en_kvstore *k, int *kept, fm_error *err)
{
    if (kept) *kept = 0;
    if (!k) return FM_OK;
    pthread_mutex_lock(&k->lock);
    k->stop = true;
    pthread_cond_signal(&k->work);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    fm_status status = FM_OK, ignored = FM_OK; /* a write that failed is tried again now */
    collect(k, &ignored, NULL);
    status = write_rest(k, err);
    if (!status) status = remove_rest(k, err);
    if (kept) *kept = k->n_good;
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->work);
    bs_free(k);
    return status;
}
