#include "hub/fetch.h"

#include "base/clock.h"
#include "base/mem.h"
#include "hub/names.h"

#include <string.h>

enum { MAX_HOPS = 5 };

static char *resolve_url(const hb_client *client, const char *revision, const char *file)
{
    char *rev = hb_url_encode(revision, false), *path = hb_url_encode(file, true), *url = NULL;
    if (rev && path)
        url = bs_sprintf("%s/%s/resolve/%s/%s", client->config->endpoint, client->repo, rev, path);
    bs_free(rev);
    bs_free(path);
    return url;
}

void hb_meta_free(hb_meta *m)
{
    bs_free(m->url);
    *m = (hb_meta){0};
}

static fm_status check_meta(const hb_client *client, const char *revision, const char *file,
                            const hb_headers *h, hb_meta *out, fm_error *err)
{
    const char *etag = *h->linked_etag ? h->linked_etag : h->etag;
    out->size = h->linked_size != HB_SIZE_UNKNOWN ? h->linked_size : h->content_length;
    memcpy(out->etag, etag, sizeof out->etag);
    memcpy(out->commit, h->commit, sizeof out->commit);
    if (!hb_is_blob_name(out->etag))
        return fm_fail(err, FM_E_FORMAT, "%s/%s: the hub gives no usable ETag", client->repo, file);
    if (out->size == HB_SIZE_UNKNOWN)
        return fm_fail(err, FM_E_FORMAT, "%s/%s: the hub gives no usable size", client->repo, file);
    if (*out->commit && !hb_is_commit(out->commit))
        return fm_fail(err, FM_E_FORMAT, "%s/%s: the hub's X-Repo-Commit is no commit",
                       client->repo, file);
    if (*out->commit && hb_is_commit(revision) && strcmp(out->commit, revision) != 0)
        return fm_fail(err, FM_E_FORMAT, "%s/%s: the hub answers for commit %s instead of %s",
                       client->repo, file, out->commit, revision);
    return FM_OK;
}

/* One HEAD. *more is set when it only led to another place on the hub (a renamed model); url is
 * replaced then. Leaving the hub without an ETag of its own is not followed: the name and the hash
 * of a file must come from the hub. */
static fm_status hop(hb_client *client, const char *revision, const char *file, char **url,
                     bool *more, hb_meta *out, fm_error *err)
{
    hb_reply reply;
    fm_status status = hb_request(client, &(hb_query){.head = true, .url = *url}, &reply, err);
    if (status) return fm_prefix(err, "%s/%s", client->repo, file);
    bool redirect = reply.status >= 300 && reply.status < 400 && reply.redirect;
    *more = redirect && !*reply.headers.linked_etag && hb_same_origin(*url, reply.redirect);
    if (redirect && !hb_redirect_allowed(*url, reply.redirect))
        status = fm_fail(err, FM_E_NETWORK, "%s/%s: refused a redirect from https to %.200s",
                         client->repo, file, reply.redirect);
    else if (!redirect && reply.status != 200)
        status = hb_fail_status(client, reply.status, &reply.headers, file, err);
    if (!status && redirect) {
        bs_free(*url);
        *url = reply.redirect;
        reply.redirect = NULL;
    }
    if (!status && !*more) status = check_meta(client, revision, file, &reply.headers, out, err);
    hb_reply_free(&reply);
    return status;
}

fm_status hb_file_meta(hb_client *client, const char *revision, const char *file, hb_meta *out,
                       fm_error *err)
{
    *out = (hb_meta){0};
    char *url = resolve_url(client, revision, file);
    if (!url) return fm_fail_nomem(err, "asking for a file");
    fm_status status = FM_OK;
    bool more = true;
    for (int hops = 0; more && !status; hops++) {
        if (hops > MAX_HOPS)
            status =
                fm_fail(err, FM_E_NETWORK, "%s/%s: redirected in a circle", client->repo, file);
        else status = hop(client, revision, file, &url, &more, out, err);
    }
    if (status) return bs_free(url), status;
    out->url = url;
    return FM_OK;
}

void hb_report(hb_reporter *r, hb_phase phase, uint64_t file_done, const char *note)
{
    if (!r->hooks || !r->hooks->progress) return;
    uint64_t now = bs_now_ns();
    bool forced = phase == HB_DONE || phase != r->now.phase;
    if (!forced && now - r->last_ns < 100000000u) return;
    r->last_ns = now;
    r->now.phase = phase;
    r->now.note = note;
    r->now.file_done = file_done;
    r->now.total_done = r->total_before + file_done;
    r->hooks->progress(r->hooks->arg, &r->now);
}
