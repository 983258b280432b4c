/* fetch.h - what the hub knows about one file, and getting its bytes. */
#ifndef HUB_FETCH_H
#define HUB_FETCH_H

#include "hub/http.h"
#include "hub/partial.h"

typedef struct hb_meta {
    char *url;                /* where the bytes are: the hub itself or where it redirects to */
    char etag[HB_HASH_MAX];   /* checked to be fit for a blob's name */
    char commit[HB_HASH_MAX]; /* empty when the server did not say */
    uint64_t size;
} hb_meta;

/* HEAD on /ORG/NAME/resolve/REVISION/FILE. */
fm_status hb_file_meta(hb_client *client, const char *revision, const char *file, hb_meta *out,
                       fm_error *err);
void hb_meta_free(hb_meta *m);

/* Tell the hooks, at most ten times a second unless forced. The caller keeps the totals. */
typedef struct hb_reporter {
    const hb_hooks *hooks;
    hb_progress now;
    uint64_t total_before; /* total_done when this file began, without its own bytes */
    uint64_t last_ns;
} hb_reporter;
void hb_report(hb_reporter *r, hb_phase phase, uint64_t file_done, const char *note);

/* Get all bytes of the partial blob, with several ranges in flight. Fails after
 * config->retries failures without a byte between them; what has arrived stays on disk. */
fm_status hb_fetch_bytes(hb_client *client, const char *revision, const char *file, hb_meta *meta,
                         hb_partial *partial, hb_reporter *reporter, fm_error *err);

#endif
