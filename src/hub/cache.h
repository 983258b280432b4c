/* cache.h - one repository in the hub cache: paths, refs, links, locks. Names given here have been
 * checked by names.h. */
#ifndef HUB_CACHE_H
#define HUB_CACHE_H

#include "hub/hub.h"

typedef struct hb_repo {
    char *root;  /* CACHE/models--org--name */
    char *locks; /* CACHE/.locks/models--org--name */
} hb_repo;

/* Fill in the paths; touches no disk. */
fm_status hb_repo_open(const hb_config *c, const char *repo, hb_repo *out, fm_error *err);
void hb_repo_close(hb_repo *r);

/* Make the folders that a download writes to. */
fm_status hb_repo_make(const hb_repo *r, fm_error *err);

/* Allocated; NULL when out of memory. */
char *hb_repo_blob(const hb_repo *r, const char *etag);
char *hb_repo_snapshot(const hb_repo *r, const char *commit);
char *hb_repo_packed(const hb_repo *r, const char *commit); /* what `pull --pack` makes */

/* The commit that a revision names in this cache; a commit names itself. */
fm_status hb_repo_read_ref(const hb_repo *r, const char *revision, char commit[HB_HASH_MAX],
                           fm_error *err);
fm_status hb_repo_write_ref(const hb_repo *r, const char *revision, const char *commit,
                            fm_error *err);

/* Make snapshots/<commit>/<file> a relative link to the blob, replacing a link to another one.
 * Where the file system has no links the blob is moved there instead, as Python does. */
fm_status hb_repo_link(const hb_repo *r, const char *commit, const char *file, const char *etag,
                       fm_error *err);

/* Take the lock of one blob without waiting; FM_E_BUSY when another process holds it. */
fm_status hb_repo_try_lock(const hb_repo *r, const char *etag, int *fd, fm_error *err);
void hb_repo_unlock(int fd);

/* All bytes of the repository's files, those of unfinished blobs, the newest access. */
typedef struct hb_usage {
    uint64_t bytes, partial;
    int64_t last_used;
} hb_usage;
hb_usage hb_repo_usage(const hb_repo *r);

/* Fail with FM_E_IO when the disk of this repository has less than `bytes` to give. */
fm_status hb_repo_need_space(const hb_repo *r, uint64_t bytes, fm_error *err);

/* A failed write, with what to do about a full disk or a cache that cannot be written. */
fm_status hb_fail_write(fm_error *err, int saved_errno, const char *path);

/* Does a folder have a finished packed store? */
bool hb_has_pack(const char *folder);

/* Does the snapshot folder hold what is needed? */
bool hb_snapshot_complete(const char *folder, hb_need need);

#endif
