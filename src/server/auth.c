/* auth.c - who may ask: API keys, browsers' origins, host names. */
#include "server/internal.h"

#include <string.h>
#include <strings.h>

/* Equal or not, in a time that depends on the length given alone. */
static bool same_secret(const char *given, const char *key)
{
    size_t n = strlen(given), m = strlen(key);
    volatile unsigned char difference = n != m;
    for (size_t i = 0; i < n; i++)
        difference |= (unsigned char)given[i] ^ (unsigned char)key[m ? i % m : 0];
    return difference == 0;
}

static uint64_t scope_of(const char *key)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *key; key++) h = (h ^ (unsigned char)*key) * 0x100000001b3u;
    return h ? h : 1;
}

/* "Authorization: Bearer KEY" or "x-api-key: KEY". All keys are compared, whichever fits. */
bool sv_authorised(sv_server *s, struct MHD_Connection *mhd, uint64_t *scope)
{
    const sv_options *o = s->options;
    *scope = 0;
    if (o->n_api_keys == 0) return true;
    const char *given = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "x-api-key");
    const char *bearer = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Authorization");
    if (bearer && !strncasecmp(bearer, "Bearer ", 7)) given = bearer + 7;
    if (!given) return false;
    bool found = false;
    for (int i = 0; i < o->n_api_keys; i++)
        if (same_secret(given, o->api_keys[i])) found = true;
    if (found && !o->share_prefixes) *scope = scope_of(given);
    return found;
}

/* The origin to name in Access-Control-Allow-Origin, or NULL. Whole origins are compared, so that
 * http://localhost.evil.com is not http://localhost. */
const char *sv_allowed_origin(sv_server *s, struct MHD_Connection *mhd)
{
    const char *origin = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Origin");
    if (!origin) return NULL;
    for (int i = 0; i < s->options->n_origins; i++) {
        if (!strcmp(s->options->origins[i], "*")) return "*";
        if (!strcasecmp(s->options->origins[i], origin)) return origin;
    }
    return NULL;
}

/* A page on the web may point its own name at 127.0.0.1 and then talk to us as "same origin". So a
 * server that listens on this machine alone, without keys, answers to its own names only. */
bool sv_host_allowed(sv_server *s, struct MHD_Connection *mhd)
{
    const sv_options *o = s->options;
    bool local = !strncmp(o->host, "127.", 4) || !strcmp(o->host, "::1");
    const char *host = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Host");
    if (!local || o->n_api_keys > 0 || !host) return true;
    char name[256];
    size_t n = strcspn(host, host[0] == '[' ? "]" : ":");
    if (n >= sizeof name) return false;
    memcpy(name, host + (host[0] == '['), n - (host[0] == '[' && n > 0));
    name[n - (host[0] == '[' && n > 0)] = 0;
    return !strcasecmp(name, "localhost") || !strncmp(name, "127.", 4) || !strcmp(name, "::1") ||
           !strcmp(name, o->host);
}

/* A browser says which page sends. Ours may, and those that were named; others may not even have
 * the model work for them, whether or not they could read the answer. */
bool sv_origin_allowed(sv_server *s, struct MHD_Connection *mhd)
{
    const char *origin = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Host");
    if (!origin || sv_allowed_origin(s, mhd)) return true;
    const char *name = strstr(origin, "://");
    return name && host && !strcasecmp(name + 3, host);
}
