/* hub.h - models of the Hugging Face hub in the cache that Python's huggingface_hub uses.
 *
 *     CACHE/models--org--name/refs/<revision>             the commit it names, 40 hex digits
 *                             blobs/<etag>                contents, named by SHA-256 or git SHA-1
 *                             snapshots/<commit>/<file>   relative links to blobs
 *     CACHE/.locks/models--org--name/<etag>.lock          flock, held while a blob is written
 *
 * The room reads and writes that layout, never prints and keeps no global state. Everything a
 * server says (names, sizes, hashes) is checked before it is used. Functions that reach the
 * network or the disk return FM_E_CANCELLED soon after hooks->cancelled says true; what has been
 * downloaded stays and the next pull goes on from there. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HB_HASH_MAX = 129, HB_REPO_MAX = 200, HB_REVISION_MAX = 256 };

/* Where and how; from the environment. */
typedef struct hb_config {
    char *cache;    /* HF_HUB_CACHE > HUGGINGFACE_HUB_CACHE > HF_HOME/hub >
                       XDG_CACHE_HOME/huggingface/hub > ~/.cache/huggingface/hub */
    char *endpoint; /* HF_ENDPOINT, default https://huggingface.co; no slash at the end */
    char *token;    /* HF_TOKEN, else the file HF_TOKEN_PATH or HF_HOME/token; NULL: none */
    bool offline;   /* HF_HUB_OFFLINE */
    /* FLASH_MOE_HUB="chunk=16777216,connections=8,retries=8,backoff=500,stall=20" */
    uint64_t chunk;       /* bytes one range request asks for */
    unsigned connections; /* ranges in flight */
    unsigned retries;     /* failures in a row, without a byte between them, that end a pull */
    unsigned backoff_ms;  /* wait after the first failure; doubles up to 30 s */
    unsigned stall_s;     /* a connection that gives under 1 KB/s for so long is dropped */
} hb_config;

fm_status hb_config_from_env(hb_config *out, fm_error *err);
void hb_config_free(hb_config *c);

/* "org/name" or "org/name@revision"; the revision is "main" when not given. */
typedef struct hb_id {
    char repo[HB_REPO_MAX];
    char revision[HB_REVISION_MAX];
} hb_id;

/* True when text has the form of an id, so that a caller may tell it from a path. */
bool hb_is_id(const char *text);
fm_status hb_parse_id(const char *text, hb_id *out, fm_error *err);

typedef enum hb_phase {
    HB_WAITING,  /* another process holds the lock of this file */
    HB_CHECKING, /* reading a partial file back to hash it */
    HB_FETCHING,
    HB_RETRYING, /* waiting before the next try; note says why */
    HB_DONE,     /* this file is complete and verified */
} hb_phase;

typedef struct hb_progress {
    hb_phase phase;
    const char *file;
    size_t index, n_files;
    uint64_t file_done, file_size;
    uint64_t total_done, total_size; /* of the whole pull */
    uint64_t received;               /* from the network by this pull: what a rate is made of */
    const char *note;                /* HB_RETRYING: the failure; else NULL */
} hb_progress;

/* All members may be NULL. progress is called at most about ten times a second and at the end of
 * each file; calls come from the thread that called the hub. */
typedef struct hb_hooks {
    void *arg;
    bool (*cancelled)(void *arg);
    void (*progress)(void *arg, const hb_progress *p);
} hb_hooks;

/* How much of a model must be there: config.json; with a tokenizer; with every weight file that its
 * index names. */
typedef enum hb_need { HB_NEED_CONFIG, HB_NEED_TEXTS, HB_NEED_WEIGHTS } hb_need;

/* Look in the cache alone. Gives the snapshot folder, or the folder that `pull --pack` made when
 * the snapshot lacks weights (allocated), else FM_E_NOT_FOUND. Writes nothing. */
fm_status hb_find(const hb_config *c, const hb_id *id, hb_need need, char **folder, fm_error *err);

typedef struct hb_file {
    char *name;    /* path inside the repository, checked */
    uint64_t size; /* HB_SIZE_UNKNOWN until the server has told */
    bool weights;  /* a *.safetensors file */
    bool cached;   /* linked in the snapshot */
} hb_file;

#define HB_SIZE_UNKNOWN UINT64_MAX

/* The files of a model that are needed to run it, and what is missing. */
typedef struct hb_survey {
    hb_id id;
    char commit[HB_HASH_MAX];
    char *folder; /* the snapshot; config.json and the shard index are in it already */
    hb_file *files;
    size_t n_files;
    uint64_t total_bytes, missing_bytes;
} hb_survey;

/* Ask the hub for the file list and fetch config.json and model.safetensors.index.json: enough to
 * plan with and to say what a pull costs. */
fm_status hb_survey_model(const hb_config *c, const hb_id *id, const hb_hooks *hooks,
                          hb_survey *out, fm_error *err);
void hb_survey_free(hb_survey *s);

/* Something that takes weight files one by one instead of keeping them in the cache. */
typedef struct hb_sink {
    void *arg;
    bool (*has)(void *arg, size_t file); /* files[file] was taken by an earlier pull */
    fm_status (*take)(void *arg, size_t file, const char *path, fm_error *err);
} hb_sink;

typedef enum hb_want {
    HB_WANT_TEXTS, /* the small files alone (tokenizer, template); the ref stays */
    HB_WANT_ALL,
} hb_want;

/* Fetch what the survey misses, small files first; then point the ref at the commit. With a sink
 * (or NULL) the weights are verified as always but not linked: the sink gets their path and calls
 * hb_release when it has what it needs of them. */
fm_status hb_pull(const hb_config *c, hb_survey *s, hb_want want, const hb_sink *sink,
                  const hb_hooks *hooks, fm_error *err);

/* For a sink: FM_E_IO, with both numbers, unless the disk of the cache has room for so much. What
 * lies there unlinked (shards of an earlier pull, and parts of them) counts as room. */
fm_status hb_need_space(const hb_config *c, const hb_survey *s, uint64_t bytes, fm_error *err);

/* Delete a weight file that a sink was given, unless some snapshot links to it: then somebody else
 * keeps it. */
fm_status hb_release(const hb_config *c, const hb_survey *s, const char *path, fm_error *err);

/* Read n bytes of a file on the hub from offset on. */
fm_status hb_read_at(const hb_config *c, const hb_survey *s, size_t file, uint64_t offset,
                     void *dst, size_t n, const hb_hooks *hooks, fm_error *err);

/* Where a model that was packed while it was pulled lives: CACHE/models--org--name/flash-moe/
 * <commit>, a model folder with HB_PACK_NAME inside. Allocated. */
#define HB_PACK_NAME "flash-moe.pack"
fm_status hb_packed_folder(const hb_config *c, const hb_survey *s, char **out, fm_error *err);

/* Is that folder finished? */
bool hb_is_packed(const char *packed_folder);

typedef struct hb_model {
    char *repo;
    char *folder;      /* of the whole repository: CACHE/models--org--name */
    uint64_t bytes;    /* all that it takes on disk */
    uint64_t partial;  /* of these, bytes of unfinished downloads */
    int64_t last_used; /* seconds since 1970: the newest access to a file; 0: never */
    bool complete;     /* some snapshot can be run */
    bool packed;       /* some snapshot has a packed store, or lives in one */
} hb_model;

/* The models in the cache, by name. A cache folder that does not exist holds none. */
fm_status hb_list(const hb_config *c, hb_model **out, size_t *n, fm_error *err);
void hb_list_free(hb_model *models, size_t n);

/* Remove a model with all its revisions. FM_E_BUSY while a download of it runs. A program that has
 * its files open keeps them until it ends. */
fm_status hb_remove(const hb_config *c, const char *repo, fm_error *err);

#endif
