#include "hub/http.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

fm_status hb_client_open(const hb_config *c, const char *repo, const hb_hooks *hooks,
                         hb_client *out, fm_error *err)
{
    *out = (hb_client){.config = c, .hooks = hooks, .repo = repo};
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return fm_fail(err, FM_E_NETWORK, "libcurl cannot be initialised");
    out->easy = curl_easy_init();
    char *line = c->token ? bs_sprintf("Authorization: Bearer %s", c->token) : NULL;
    if (line) out->bearer = curl_slist_append(NULL, line);
    bs_free(line);
    if (out->easy && (!c->token || out->bearer)) return FM_OK;
    hb_client_close(out);
    return fm_fail_nomem(err, "starting libcurl");
}

void hb_client_close(hb_client *client)
{
    if (client->easy) curl_easy_cleanup(client->easy);
    curl_slist_free_all(client->bearer);
    if (client->config) curl_global_cleanup();
    *client = (hb_client){0};
}

bool hb_cancelled(const hb_client *client)
{
    const hb_hooks *h = client->hooks;
    return h && h->cancelled && h->cancelled(h->arg);
}

/* Copy a header's value without quotes, a weak mark and white space; empty when too long. */
static void take_text(char *out, size_t size, const char *value, size_t n)
{
    if (n > 2 && value[0] == 'W' && value[1] == '/') value += 2, n -= 2;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') value++, n -= 2;
    if (n >= size) n = 0;
    for (size_t i = 0; i < n; i++) /* it may end on a terminal */
        out[i] = (unsigned char)value[i] < ' ' || value[i] == 0x7f ? '?' : value[i];
    out[n] = 0;
}

/* Up to the first non-digit; HB_SIZE_UNKNOWN without digits or beyond 2^63 - 1. */
static uint64_t take_number(const char *value, size_t n, size_t *used)
{
    uint64_t x = 0;
    size_t i = 0;
    for (; i < n && value[i] >= '0' && value[i] <= '9'; i++)
        if (__builtin_mul_overflow(x, 10u, &x) ||
            __builtin_add_overflow(x, (uint64_t)(value[i] - '0'), &x) || x > INT64_MAX)
            return HB_SIZE_UNKNOWN;
    if (used) *used = i;
    return i ? x : HB_SIZE_UNKNOWN;
}

/* "bytes 0-99/1234" */
static void take_range(hb_headers *h, const char *value, size_t n)
{
    size_t used = 0;
    const char *slash = memchr(value, '/', n);
    if (n < 7 || strncasecmp(value, "bytes ", 6) != 0 || !slash) return;
    h->range_start = take_number(value + 6, n - 6, &used);
    h->range_total = take_number(slash + 1, (size_t)(value + n - slash - 1), NULL);
    h->has_range = h->range_start != HB_SIZE_UNKNOWN;
}

static void take_header(hb_headers *h, const char *name, size_t name_length, const char *value,
                        size_t n)
{
    const struct {
        const char *name;
        char *text;
        size_t size;
        uint64_t *number;
    } known[] = {
        {"etag", h->etag, sizeof h->etag, NULL},
        {"x-linked-etag", h->linked_etag, sizeof h->linked_etag, NULL},
        {"x-repo-commit", h->commit, sizeof h->commit, NULL},
        {"x-error-code", h->error_code, sizeof h->error_code, NULL},
        {"x-error-message", h->error_message, sizeof h->error_message, NULL},
        {"content-length", NULL, 0, &h->content_length},
        {"x-linked-size", NULL, 0, &h->linked_size},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != name_length ||
            strncasecmp(known[i].name, name, name_length) != 0)
            continue;
        if (known[i].text) take_text(known[i].text, known[i].size, value, n);
        if (known[i].number) *known[i].number = take_number(value, n, NULL);
        return;
    }
    if (name_length == 13 && !strncasecmp(name, "content-range", 13)) take_range(h, value, n);
}

size_t hb_header_line(char *line, size_t size, size_t n, void *headers)
{
    hb_headers *h = headers;
    size_t length = size * n;
    if (length >= 5 && !memcmp(line, "HTTP/", 5)) {
        *h = (hb_headers){.content_length = HB_SIZE_UNKNOWN, .linked_size = HB_SIZE_UNKNOWN};
        return length;
    }
    char *colon = memchr(line, ':', length);
    if (!colon) return length;
    const char *value = colon + 1, *end = line + length;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && strchr("\r\n \t", end[-1])) end--;
    take_header(h, line, (size_t)(colon - line), value, (size_t)(end - value));
    return length;
}

/* Do two URLs agree in one part? Ports are compared with the schemes' defaults filled in. */
static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
    char *x = NULL, *y = NULL;
    bool same = !curl_url_get(a, part, &x, CURLU_DEFAULT_PORT) &&
                !curl_url_get(b, part, &y, CURLU_DEFAULT_PORT) && !strcasecmp(x, y);
    curl_free(x);
    curl_free(y);
    return same;
}

bool hb_same_origin(const char *one, const char *two)
{
    CURLU *a = curl_url(), *b = curl_url();
    bool same = a && b && !curl_url_set(a, CURLUPART_URL, one, 0) &&
                !curl_url_set(b, CURLUPART_URL, two, 0) && same_part(a, b, CURLUPART_SCHEME) &&
                same_part(a, b, CURLUPART_HOST) && same_part(a, b, CURLUPART_PORT);
    curl_url_cleanup(a);
    curl_url_cleanup(b);
    return same;
}

bool hb_redirect_allowed(const char *from, const char *to)
{
    if (strncasecmp(to, "https://", 8) == 0) return true;
    return strncasecmp(to, "http://", 7) == 0 && strncasecmp(from, "https://", 8) != 0;
}

fm_status hb_prepare(const hb_client *client, CURL *easy, const char *url, fm_error *err)
{
    const hb_config *c = client->config;
    curl_easy_reset(easy);
    bool ok = !curl_easy_setopt(easy, CURLOPT_URL, url);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    ok = ok && !curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_USERAGENT, "flash-moe/" FM_VERSION);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)c->stall_s);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)c->stall_s);
    ok = ok && !curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1024L);
    if (ok && client->bearer && hb_same_origin(url, c->endpoint))
        ok = !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, client->bearer);
    return ok ? FM_OK : fm_fail(err, FM_E_NETWORK, "libcurl cannot use the URL %.300s", url);
}

bool hb_is_transient(CURLcode code, long status)
{
    switch (code) {
    case CURLE_OK:
        return status == 408 || status == 425 || status == 429 || (status >= 500 && status != 501);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR: return true;
    default: return false;
    }
}

unsigned hb_backoff_ms(const hb_config *c, unsigned failures, curl_off_t retry_after)
{
    enum { MOST = 30000, MOST_ASKED = 300 };
    unsigned shift = failures > 16 ? 16 : failures ? failures - 1 : 0;
    uint64_t ms = (uint64_t)c->backoff_ms << shift;
    if (ms > MOST) ms = MOST;
    ms = ms * (192 + bs_now_ns() / 1000 % 128) / 256; /* 0.75 to 1.25: not all at one time */
    if (retry_after > MOST_ASKED) retry_after = MOST_ASKED;
    if (retry_after > 0 && ms < (uint64_t)retry_after * 1000) ms = (uint64_t)retry_after * 1000;
    return (unsigned)ms;
}

fm_status hb_sleep(const hb_client *client, unsigned ms, fm_error *err)
{
    uint64_t end = bs_now_ns() + (uint64_t)ms * 1000000u;
    for (;;) {
        if (hb_cancelled(client)) return fm_fail(err, FM_E_CANCELLED, "the download was stopped");
        uint64_t now = bs_now_ns();
        if (now >= end) return FM_OK;
        uint64_t left = end - now;
        struct timespec nap = {0, left < 50000000 ? (long)left : 50000000};
        nanosleep(&nap, NULL);
    }
}

typedef struct hb_body {
    bs_buf *body;
    size_t max;
} hb_body;

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    hb_body *sink = arg;
    size_t length = size * n;
    if (length > sink->max - sink->body->length) return 0;
    return bs_buf_append(sink->body, data, length) ? length : 0;
}

static int poll_cancel(void *client, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return hb_cancelled(client);
}

/* One try. *code says how it went; a status other than FM_OK is final. */
static fm_status try_once(hb_client *client, const hb_query *q, hb_reply *out, CURLcode *code,
                          char *message, fm_error *err)
{
    hb_reply_free(out);
    CURL *easy = client->easy;
    hb_body sink = {&out->body, q->max_body};
    fm_status status = hb_prepare(client, easy, q->url, err);
    if (status) return status;
    curl_easy_setopt(easy, CURLOPT_NOBODY, q->head ? 1L : 0L);
    if (q->range) curl_easy_setopt(easy, CURLOPT_RANGE, q->range);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, hb_header_line);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, &out->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &sink);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, poll_cancel);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, client);
    *code = curl_easy_perform(easy);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &out->status);
    if (*code == CURLE_WRITE_ERROR && out->status < 300)
        return out->body.failed ? fm_fail_nomem(err, "reading the hub's answer")
                                : fm_fail(err, FM_E_LIMIT, "%.300s: answered more than %zu bytes",
                                          q->url, q->max_body);
    char *redirect = NULL;
    curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &redirect);
    if (redirect && !(out->redirect = bs_strdup(redirect)))
        return fm_fail_nomem(err, "following a redirect");
    return FM_OK;
}

fm_status hb_request(hb_client *client, const hb_query *q, hb_reply *out, fm_error *err)
{
    *out = (hb_reply){0};
    for (unsigned failures = 0;;) {
        char message[CURL_ERROR_SIZE] = "";
        CURLcode code = CURLE_OK;
        fm_status status = try_once(client, q, out, &code, message, err);
        if (status) return hb_reply_free(out), status;
        bool answered = code == CURLE_OK || (code == CURLE_WRITE_ERROR && out->status >= 300);
        bool again = hb_is_transient(answered ? CURLE_OK : code, out->status);
        /* A machine without a network should not have to wait for all the tries. */
        unsigned tries = client->config->retries;
        if ((code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT) && tries > 2)
            tries = 2;
        if (answered && (!again || failures >= tries)) return FM_OK;
        if (!again || failures >= tries) {
            hb_reply_free(out);
            if (hb_cancelled(client))
                return fm_fail(err, FM_E_CANCELLED, "the download was stopped");
            return fm_fail(err, FM_E_NETWORK, "%.200s: %s", q->url,
                           *message ? message : curl_easy_strerror(code));
        }
        curl_off_t retry_after = 0;
        curl_easy_getinfo(client->easy, CURLINFO_RETRY_AFTER, &retry_after);
        status = hb_sleep(client, hb_backoff_ms(client->config, ++failures, retry_after), err);
        if (status) return hb_reply_free(out), status;
    }
}

void hb_reply_free(hb_reply *r)
{
    bs_buf_free(&r->body);
    bs_free(r->redirect);
    *r = (hb_reply){0};
}

fm_status hb_fail_status(const hb_client *client, long status, const hb_headers *headers,
                         const char *what, fm_error *err)
{
    const char *repo = client->repo, *code = headers->error_code;
    const char *site = client->config->endpoint;
    if (!strcmp(code, "GatedRepo") || status == 403)
        return fm_fail(err, FM_E_NETWORK,
                       "%s: access to %s is gated or forbidden (%ld): accept the terms at %s/%s in "
                       "a browser, then set HF_TOKEN to a token of that account%s",
                       repo, what, status, site, repo,
                       client->config->token ? " (the present one was refused)" : "");
    if (!strcmp(code, "RevisionNotFound"))
        return fm_fail(err, FM_E_NOT_FOUND, "%s has no such revision (asking %s for %s)", repo,
                       site, what);
    if (status == 401)
        return fm_fail(err, FM_E_NETWORK,
                       "%s: the hub refuses %s (401): the model does not exist, or it is private "
                       "and %s",
                       repo, what,
                       client->config->token ? "the token in HF_TOKEN or the token file is not "
                                               "allowed to read it"
                                             : "HF_TOKEN must be set to a token that may read it");
    if (status == 404)
        return fm_fail(err, FM_E_NOT_FOUND, "%s: the hub at %s does not have %s (404)", repo, site,
                       what);
    if (status == 429)
        return fm_fail(err, FM_E_NETWORK,
                       "%s: the hub asks for fewer requests (429); try again in some minutes%s",
                       repo, client->config->token ? "" : ", or set HF_TOKEN");
    return fm_fail(err, FM_E_NETWORK, "%s: the hub answered %ld for %s%s%.150s", repo, status, what,
                   *headers->error_message ? ": " : "", headers->error_message);
}
