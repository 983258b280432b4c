/* pull.h - one file into the cache; shared by the survey and the pull. */
#ifndef HUB_PULL_H
#define HUB_PULL_H

#include "hub/cache.h"
#include "hub/fetch.h"

/* Is the file in the snapshot? *size is set when it is. */
bool hb_is_linked(const hb_survey *s, const hb_file *file, uint64_t *size);

/* Bring one file: lock its blob, go on from what there is, verify, link. Nothing is asked when it
 * is linked already. With path it is not linked, and *path is where it is (allocated). reporter may
 * be NULL. file->size becomes what the hub says now. */
fm_status hb_get_file(hb_client *client, const hb_repo *repo, const hb_survey *s, hb_file *file,
                      hb_reporter *reporter, char **path, fm_error *err);

#endif
