/* http.h - requests to the hub: one place that knows about the token, redirects, transient
 * failures and what the hub's answers mean. Redirects are never followed by libcurl: the caller
 * sees them, and the token goes to the scheme, host and port of the endpoint only. */
#ifndef HUB_HTTP_H
#define HUB_HTTP_H

#include "base/buf.h"
#include "hub/hub.h"

#include <curl/curl.h>

typedef struct hb_client {
    const hb_config *config;
    const hb_hooks *hooks;     /* may be NULL */
    CURL *easy;                /* for small requests, reused */
    struct curl_slist *bearer; /* the Authorization header, or NULL */
    const char *repo;          /* for messages */
} hb_client;

fm_status hb_client_open(const hb_config *c, const char *repo, const hb_hooks *hooks,
                         hb_client *out, fm_error *err);
void hb_client_close(hb_client *client);
bool hb_cancelled(const hb_client *client);

/* The headers of one answer that the hub's protocol uses. Sizes are HB_SIZE_UNKNOWN, texts empty
 * and ranges absent when the header is not there or is malformed. */
typedef struct hb_headers {
    char etag[HB_HASH_MAX], linked_etag[HB_HASH_MAX], commit[HB_HASH_MAX];
    char error_code[64], error_message[200];
    uint64_t content_length, linked_size;
    uint64_t range_start, range_total; /* of Content-Range */
    bool has_range;
} hb_headers;

/* For CURLOPT_HEADERFUNCTION with an hb_headers as its data; each new answer starts afresh. */
size_t hb_header_line(char *line, size_t size, size_t n, void *headers);

/* Common options, and the bearer token when url is on the endpoint. */
fm_status hb_prepare(const hb_client *client, CURL *easy, const char *url, fm_error *err);

typedef struct hb_reply {
    long status;
    hb_headers headers;
    bs_buf body;
    char *redirect; /* absolute URL of a 3xx, or NULL */
} hb_reply;

/* HEAD, or GET of at most max_body bytes, of all or of a range ("0-99", NULL: all), tried again
 * after transient failures. Any answer with a status is FM_OK: the caller judges it. */
typedef struct hb_query {
    bool head;
    const char *url, *range;
    size_t max_body;
} hb_query;
fm_status hb_request(hb_client *client, const hb_query *q, hb_reply *out, fm_error *err);
void hb_reply_free(hb_reply *r);

/* May another try succeed? */
bool hb_is_transient(CURLcode code, long status);

/* Milliseconds to wait before try number `failures` + 1; retry_after is in seconds, 0: not said. */
unsigned hb_backoff_ms(const hb_config *c, unsigned failures, curl_off_t retry_after);

/* Sleep; FM_E_CANCELLED as soon as the hooks say so. */
fm_status hb_sleep(const hb_client *client, unsigned ms, fm_error *err);

/* The same scheme, host and port. */
bool hb_same_origin(const char *one, const char *two);

/* Is going from one URL to the other a step that may be taken: no fall from https to http. */
bool hb_redirect_allowed(const char *from, const char *to);

/* What a status >= 300 means for `what` (a file or "the list of files"), and the way out. */
fm_status hb_fail_status(const hb_client *client, long status, const hb_headers *headers,
                         const char *what, fm_error *err);

#endif
