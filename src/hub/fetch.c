/* One thread, libcurl's multi interface: each range in flight is a transfer that appends to its
 * piece. A failure ends one range; what it brought stays, and the gap is asked for again. */
#include "hub/fetch.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_CONNECTIONS = 64, MAX_HOPS = 5, WINDOW_RANGES = 4 };

struct hb_fetch;

typedef struct hb_range {
    struct hb_fetch *fetch;
    CURL *easy;
    hb_piece *piece; /* NULL: not in flight */
    hb_headers headers;
    uint64_t skip; /* bytes still to pass over: a server without ranges starts at 0 */
    bool whole;    /* asked without a range, for all of the file */
    bool judged;   /* the status line was looked at and the body is wanted */
    char message[CURL_ERROR_SIZE];
} hb_range;

typedef struct hb_fetch {
    hb_client *client;
    const char *revision, *file;
    hb_meta *meta;
    hb_partial *partial;
    hb_reporter *reporter;
    CURLM *multi;
    hb_range ranges[MAX_CONNECTIONS];
    unsigned connections, active;
    unsigned failures, hops; /* since the last byte */
    bool asked_again;        /* the redirect target was renewed since the last byte */
    bool whole;              /* the server has no ranges: one transfer from byte 0 */
    uint64_t not_before;     /* no new range before this time (ns) */
    fm_status status;        /* the first failure that cannot be mended */
    fm_error *err;
} hb_fetch;

/* Look at the answer's head before its first byte is used. */
static bool judge(hb_range *r)
{
    hb_fetch *f = r->fetch;
    const hb_headers *h = &r->headers;
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206) return false;
    uint64_t total = status == 206 ? h->range_total : h->content_length;
    if (total != HB_SIZE_UNKNOWN && total != f->partial->size) {
        f->status =
            fm_fail(f->err, FM_E_FORMAT,
                    "%s/%s: the server has %llu bytes where the hub promised %llu", f->client->repo,
                    f->file, (unsigned long long)total, (unsigned long long)f->partial->size);
        return false;
    }
    uint64_t from = r->piece->start + r->piece->length;
    if (status == 206 && (!h->has_range || h->range_start != from || r->whole)) {
        f->status = fm_fail(f->err, FM_E_NETWORK, "%s/%s: the server sent another range than asked",
                            f->client->repo, f->file);
        return false;
    }
    if (status == 200 && !r->whole) { /* the front alone can go on, from byte 0 */
        f->whole = true;
        return false;
    }
    r->judged = true;
    return true;
}

static size_t take_bytes(char *data, size_t size, size_t n, void *arg)
{
    hb_range *r = arg;
    hb_fetch *f = r->fetch;
    size_t length = size * n;
    if (f->status || (!r->judged && !judge(r))) return 0;
    size_t skipped = r->skip < length ? (size_t)r->skip : length;
    r->skip -= skipped;
    size_t fresh = length - skipped;
    if (fresh > r->piece->limit - r->piece->start - r->piece->length) {
        f->status = fm_fail(f->err, FM_E_NETWORK, "%s/%s: the server sent more than was asked for",
                            f->client->repo, f->file);
        return 0;
    }
    f->status = hb_partial_append(f->partial, r->piece, data + skipped, fresh, f->err);
    if (f->status) return 0;
    if (fresh) f->failures = f->hops = 0, f->asked_again = false;
    f->reporter->now.received += fresh;
    return length;
}

static fm_status begin(hb_fetch *f, hb_range *r, fm_error *err)
{
    char range[64];
    hb_piece *piece = r->piece;
    if (!r->easy && !(r->easy = curl_easy_init())) return fm_fail_nomem(err, "starting a range");
    fm_status status = hb_prepare(f->client, r->easy, f->meta->url, err);
    if (status) return status;
    r->judged = false;
    r->whole = f->whole || (!piece->start && !piece->length && piece->limit == f->partial->size);
    r->skip = r->whole ? piece->length : 0;
    *r->message = 0;
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)(piece->start + piece->length),
             (unsigned long long)(piece->limit - 1));
    if (!r->whole) curl_easy_setopt(r->easy, CURLOPT_RANGE, range);
    curl_easy_setopt(r->easy, CURLOPT_HEADERFUNCTION, hb_header_line);
    curl_easy_setopt(r->easy, CURLOPT_HEADERDATA, &r->headers);
    curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->easy, CURLOPT_ERRORBUFFER, r->message);
    curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
    if (curl_multi_add_handle(f->multi, r->easy)) return fm_fail_nomem(err, "starting a range");
    f->active++;
    return FM_OK;
}

/* Put ranges in flight until there are enough or none is left. */
static fm_status start_ranges(hb_fetch *f, fm_error *err)
{
    uint64_t chunk = f->client->config->chunk;
    if (bs_now_ns() < f->not_before) return FM_OK;
    if (f->whole) {
        if (f->active) return FM_OK;
        hb_partial_drop_pieces(f->partial);
        f->connections = 1;
        chunk = f->partial->size;
    }
    for (unsigned i = 0; i < f->connections && f->active < f->connections; i++) {
        hb_range *r = &f->ranges[i];
        if (r->piece) continue;
        fm_status status =
            hb_partial_next(f->partial, chunk,
                            WINDOW_RANGES * f->client->config->connections * chunk, &r->piece, err);
        if (!status && !r->piece) return FM_OK;
        if (!status) status = begin(f, r, err);
        if (status) return status;
    }
    return FM_OK;
}

/* The place the hub redirected to may have expired: ask the hub again. */
static fm_status ask_again(hb_fetch *f, fm_error *err)
{
    hb_meta fresh;
    f->asked_again = true;
    fm_status status = hb_file_meta(f->client, f->revision, f->file, &fresh, err);
    if (status) return status;
    if (strcmp(fresh.etag, f->meta->etag) != 0 || fresh.size != f->meta->size)
        status =
            fm_fail(err, FM_E_STALE, "%s/%s: changed on the hub during the download; run again",
                    f->client->repo, f->file);
    if (status) return hb_meta_free(&fresh), status;
    hb_meta_free(f->meta);
    *f->meta = fresh;
    return FM_OK;
}

static fm_status follow(hb_fetch *f, const char *target, fm_error *err)
{
    if (++f->hops > MAX_HOPS)
        return fm_fail(err, FM_E_NETWORK, "%s/%s: redirected in a circle", f->client->repo,
                       f->file);
    if (!hb_redirect_allowed(f->meta->url, target))
        return fm_fail(err, FM_E_NETWORK, "%s/%s: refused a redirect from https to %.200s",
                       f->client->repo, f->file, target);
    char *url = bs_strdup(target);
    if (!url) return fm_fail_nomem(err, "following a redirect");
    bs_free(f->meta->url);
    f->meta->url = url;
    return FM_OK;
}

/* Wait longer and ask for less at a time; give up after too many failures in a row. */
static fm_status back_off(hb_fetch *f, hb_range *r, CURLcode code, long status, fm_error *err)
{
    char why[CURL_ERROR_SIZE + 64];
    curl_off_t retry_after = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &retry_after);
    if (code) snprintf(why, sizeof why, "%s", *r->message ? r->message : curl_easy_strerror(code));
    else if (status >= 300) snprintf(why, sizeof why, "the server answered %ld", status);
    else snprintf(why, sizeof why, "the server broke off");
    if (status == 429 || status == 503) f->connections = (f->connections + 1) / 2;
    if (f->failures >= f->client->config->retries)
        return fm_fail(err, FM_E_NETWORK,
                       "%s/%s: %s, %u times in a row; run again to go on from what has arrived",
                       f->client->repo, f->file, why, f->failures + 1);
    unsigned ms = hb_backoff_ms(f->client->config, ++f->failures, retry_after);
    uint64_t until = bs_now_ns() + (uint64_t)ms * 1000000u;
    if (until > f->not_before) f->not_before = until;
    hb_report(f->reporter, HB_RETRYING, hb_partial_have(f->partial), why);
    return FM_OK;
}

/* A range has ended before its limit: what now? */
static fm_status mend(hb_fetch *f, hb_range *r, CURLcode code, fm_error *err)
{
    long status = 0;
    char *target = NULL;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(r->easy, CURLINFO_REDIRECT_URL, &target);
    if (f->whole && !r->whole && status == 200) return FM_OK;        /* starts over as a whole */
    if (status >= 300 && code == CURLE_WRITE_ERROR) code = CURLE_OK; /* its body was not wanted */
    if (!code && target) return follow(f, target, err);
    bool refused = status == 401 || status == 403 || status == 404 || status == 410;
    if (!code && refused && !f->asked_again) return ask_again(f, err);
    if (!code && status == 416)
        return fm_fail(err, FM_E_FORMAT, "%s/%s: the server has less than the promised %llu bytes",
                       f->client->repo, f->file, (unsigned long long)f->partial->size);
    if (hb_is_transient(code, status) || (!code && (status == 200 || status == 206)))
        return back_off(f, r, code, status, err);
    if (!code) return hb_fail_status(f->client, status, &r->headers, f->file, err);
    return fm_fail(err, FM_E_NETWORK, "%s/%s: %s", f->client->repo, f->file,
                   *r->message ? r->message : curl_easy_strerror(code));
}

static fm_status ended(hb_fetch *f, hb_range *r, CURLcode code, fm_error *err)
{
    curl_multi_remove_handle(f->multi, r->easy);
    f->active--;
    hb_piece *piece = r->piece;
    r->piece = NULL;
    bool complete = piece->start + piece->length == piece->limit;
    fm_status status = hb_partial_done(f->partial, piece, err);
    if (f->status) return f->status;
    if (!status && !complete) status = mend(f, r, code, err);
    if (!status) status = hb_partial_merge(f->partial, err);
    return status;
}

static fm_status drive(hb_fetch *f, fm_error *err)
{
    while (f->partial->pieces[0]->length < f->partial->size || f->active) {
        if (hb_cancelled(f->client))
            return fm_fail(err, FM_E_CANCELLED, "the download was stopped");
        fm_status status = start_ranges(f, err);
        if (status) return status;
        int running = 0, queued = 0;
        curl_multi_perform(f->multi, &running);
        for (CURLMsg *m; (m = curl_multi_info_read(f->multi, &queued));) {
            hb_range *r = NULL;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r);
            status = ended(f, r, code, err);
            if (status) return status;
        }
        if (f->active) hb_report(f->reporter, HB_FETCHING, hb_partial_have(f->partial), NULL);
        curl_multi_poll(f->multi, NULL, 0, f->active ? 100 : 20, NULL);
    }
    return FM_OK;
}

fm_status hb_fetch_bytes(hb_client *client, const char *revision, const char *file, hb_meta *meta,
                         hb_partial *partial, hb_reporter *reporter, fm_error *err)
{
    hb_fetch *f = bs_calloc(1, sizeof *f);
    if (!f) return fm_fail_nomem(err, "starting a download");
    f->client = client, f->revision = revision, f->file = file, f->meta = meta;
    f->partial = partial, f->reporter = reporter, f->err = err;
    f->connections = client->config->connections;
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++) f->ranges[i].fetch = f;
    f->multi = curl_multi_init();
    fm_status status = f->multi ? FM_OK : fm_fail_nomem(err, "starting libcurl");
    if (!status) {
        curl_multi_setopt(f->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
        status = hb_partial_merge(f->partial, err);
    }
    if (!status) status = drive(f, err);
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++) {
        if (f->ranges[i].piece) curl_multi_remove_handle(f->multi, f->ranges[i].easy);
        if (f->ranges[i].easy) curl_easy_cleanup(f->ranges[i].easy);
    }
    if (f->multi) curl_multi_cleanup(f->multi);
    bs_free(f);
    return status;
}
