#include "cli/cli.h"
#include "cli/common.h"
#include "cli/tune.h"

#include "base/mem.h"
#include "server/server.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_option listen_options[] = {
    {"host", 0, CLI_TEXT, "ADDRESS", 0, 0, "where to listen; default 127.0.0.1: this machine only"},
    {"port", 'p', CLI_INT, "N", 0, 65535, "default 8080; 0: any free one"},
    {"api-key", 0, CLI_TEXT, "KEY", 0, 0,
     "clients must send this key; may be given several times. Better: --api-key-file or "
     "FLASH_MOE_API_KEY, which other users cannot see in the process list"},
    {"api-key-file", 0, CLI_FILE, "FILE", 0, 0, "keys, one a line"},
    {"origin", 0, CLI_TEXT, "ORIGIN", 0, 0,
     "a web page that may call from a browser, e.g. http://localhost:3000; may repeat; * for all"},
    {"alias", 0, CLI_TEXT, "NAME", 0, 0, "the model's name in answers"},
    {"no-page", 0, CLI_FLAG, NULL, 0, 0, "no web page at /"},
    {0},
};
static const cli_group listen_group = {"Listening", listen_options, true};

static const cli_option work_options[] = {
    {"parallel", 0, CLI_INT, "N", 1, 256, "requests computed together; default 4"},
    {"queue", 0, CLI_INT, "N", 0, 100000, "requests that may wait; default 64; then 503"},
    {"max-tokens", 'n', CLI_INT, "N", 1, 100000000, "longest answer that a client may get"},
    {"prefix-memory", 0, CLI_SIZE, "SIZE", 0, 0,
     "memory for conversations kept beyond the running ones; default 256M, or none with --memory"},
    {"kv-dir", 0, CLI_FOLDER, "DIR", 0, 0, "keep conversations here over a restart"},
    {"share-prefixes", 0, CLI_FLAG, NULL, 0, 0, "reuse conversations across API keys"},
    {"temp", 0, CLI_NUMBER, "T", 0, 2, "default temperature; a request's own goes first"},
    {"top-k", 0, CLI_INT, "N", 0, 10000000, "default top-k"},
    {"top-p", 0, CLI_NUMBER, "P", 0, 1, "default top-p"},
    {"min-p", 0, CLI_NUMBER, "P", 0, 1, "default min-p"},
    {0},
};
static const cli_group work_group = {"Requests", work_options, true};

static const cli_option limit_options[] = {
    {"max-body", 0, CLI_SIZE, "SIZE", 0, 0, "largest request; default 32M"},
    {"max-connections", 0, CLI_INT, "N", 1, 60000, "default 2048"},
    {"read-timeout", 0, CLI_INT, "S", 1, 3600, "seconds to send a request; default 30"},
    {"idle-timeout", 0, CLI_INT, "S", 1, 3600, "seconds between requests; default 75"},
    {"ping-interval", 0, CLI_INT, "S", 1, 3600, "seconds of silence before a ping; default 15"},
    {"grace", 0, CLI_INT, "S", 0, 3600, "seconds that running answers get at the end; default 10"},
    {"quiet", 'q', CLI_FLAG, NULL, 0, 0, "no log line a request"},
    {"log-prompts", 0, CLI_FLAG, NULL, 0, 0, "log what is asked and answered"},
    {0},
};
static const cli_group limit_group = {"Limits and logs", limit_options, true};

const cli_spec spec_serve = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Serves the model over HTTP: OpenAI's chat completions, completions and responses, "
             "Anthropic's messages, Prometheus metrics, and a page at / with a chat and a live map "
             "of the experts. Several requests are computed together, so that each expert is read "
             "once for all of them; each answer is the same as it would be alone. "
             "docs/SERVER.md has examples for many clients.",
    .examples =
        "  flash-moe serve                                  # then open http://127.0.0.1:8080\n"
        "  flash-moe serve ~/models/big-moe --memory 24G -c 32768\n"
        "  ANTHROPIC_BASE_URL=http://127.0.0.1:8080 claude  # in another terminal\n"
        "  flash-moe serve --host 0.0.0.0 --api-key-file keys.txt --kv-dir ~/.cache/kv\n",
    .groups = {&listen_group, &work_group, &limit_group, &cli_group_model, &cli_group_engine,
               &cli_group_seed, &cli_group_tune},
};

static volatile int stop;

static void on_signal(int number)
{
    (void)number;
    stop++;
}

static void on_ready(void *arg, const char *url)
{
    const sv_options *o = arg;
    fprintf(stderr, "listening on %s\n", url);
    if (!o->no_page) fprintf(stderr, "open %s in a browser; Ctrl-C stops\n", url);
}

static void on_log(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

/* --- keys ----------------------------------------------------------------------------------------
 */

enum { MAX_KEYS = 256, MAX_ORIGINS = 64 };

typedef struct keys {
    const char *list[MAX_KEYS];
    int n;
    bs_buf file; /* holds the keys of the file */
} keys;

static fm_status add_key(keys *k, const char *key, fm_error *err)
{
    if (k->n == MAX_KEYS) return fm_fail(err, FM_E_LIMIT, "more than %d API keys", MAX_KEYS);
    if (strlen(key) < 4)
        return fm_fail(err, FM_E_ARGUMENT, "an API key needs 4 characters at least");
    k->list[k->n++] = key;
    return FM_OK;
}

static fm_status read_keys(const cli_args *args, keys *k, fm_error *err)
{
    fm_status status = FM_OK;
    const char *key = cli_text(args, "api-key", NULL), *path = cli_text(args, "api-key-file", NULL);
    if (key && !cli_nth(args, "api-key", 0)) status = add_key(k, key, err); /* the environment's */
    for (int i = 0; !status && (key = cli_nth(args, "api-key", i)); i++)
        status = add_key(k, key, err);
    if (status || !path) return status;
    status = cli_read_input(path, &k->file, err);
    for (char *line = k->file.data, *next; !status && line && *line; line = next) {
        size_t n = strcspn(line, "\r\n");
        next = line + n + strspn(line + n, "\r\n");
        line[n] = 0;
        if (n > 0) status = add_key(k, line, err);
    }
    if (!status && k->n == 0)
        status = fm_fail(err, FM_E_ARGUMENT, "%s: holds no key: one a line", path);
    return status;
}

/* --- options
 * --------------------------------------------------------------------------------------- */

static void server_options(const cli_args *a, const keys *k, const char **origins, sv_options *o)
{
    o->host = cli_text(a, "host", o->host);
    if (!strcmp(o->host, "localhost")) o->host = "127.0.0.1";
    o->port = cli_int(a, "port", o->port);
    o->api_keys = k->list;
    o->n_api_keys = k->n;
    while (o->n_origins < MAX_ORIGINS &&
           (origins[o->n_origins] = cli_nth(a, "origin", o->n_origins)))
        o->n_origins++;
    o->origins = origins;
    o->alias = cli_text(a, "alias", NULL);
    o->no_page = cli_has(a, "no-page");
    o->max_tokens = cli_int(a, "max-tokens", 0);
    o->kv_dir = cli_text(a, "kv-dir", NULL);
    o->share_prefixes = cli_has(a, "share-prefixes");
    o->max_body = cli_size(a, "max-body", o->max_body);
    o->max_connections = cli_int(a, "max-connections", o->max_connections);
    o->read_timeout = cli_int(a, "read-timeout", o->read_timeout);
    o->idle_timeout = cli_int(a, "idle-timeout", o->idle_timeout);
    o->ping_interval = cli_int(a, "ping-interval", o->ping_interval);
    o->grace = cli_int(a, "grace", o->grace);
    o->quiet = cli_has(a, "quiet");
    o->log_prompts = cli_has(a, "log-prompts");
    o->ready = on_ready;
    o->log = on_log;
    o->arg = o;
}

static void sampling_options(const cli_args *a, en_sampling *s)
{
    s->temperature = (float)cli_number(a, "temp", (double)s->temperature);
    s->top_k = cli_int(a, "top-k", s->top_k);
    s->top_p = (float)cli_number(a, "top-p", (double)s->top_p);
    s->min_p = (float)cli_number(a, "min-p", (double)s->min_p);
}

static void warn(const sv_options *o)
{
    bool local = !strncmp(o->host, "127.", 4) || !strcmp(o->host, "::1");
    bool everyone = false;
    for (int i = 0; i < o->n_origins; i++) everyone |= !strcmp(o->origins[i], "*");
    if (!local && o->n_api_keys == 0)
        fprintf(stderr, "warning: anyone who reaches %s may use this server: see --api-key\n",
                o->host);
    if (everyone && o->n_api_keys == 0)
        fprintf(stderr, "warning: any web page may use this server: --origin '*' without a key\n");
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static fm_status serve(const cli_args *args, fm_error *err)
{
    keys k = {0};
    const char *origins[MAX_ORIGINS + 1];
    cli_session session = {0};
    sv_options server = sv_options_default();
    en_options o = en_options_default();
    cli_engine_options(args, &o);
    o.parallel = cli_int(args, "parallel", 4);
    o.queue = cli_int(args, "queue", 64);
    o.keep_prefixes = true;
    o.prefix_memory = cli_size(args, "prefix-memory", o.memory ? 0 : (uint64_t)256 << 20);
    fm_status status = read_keys(args, &k, err);
    if (!status) {
        server_options(args, &k, origins, &server);
        warn(&server);
        status = cli_open(args, &o, &session, err);
    }
    if (!status) {
        en_sampling sampling = *en_default_sampling(session.engine);
        sampling_options(args, &sampling);
        server.sampling = &sampling;
        catch_signals();
        status = sv_serve(session.engine, &server, &stop, err);
    }
    fm_error also;
    fm_status closed = session.engine ? cli_close(&session, &also) : FM_OK;
    bs_buf_free(&k.file);
    if (!status && closed) *err = also;
    return status ? status : closed;
}

int cmd_serve(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_serve, argc, argv, &args);
    if (status >= 0) return status;
    fm_error err;
    return serve(&args, &err) ? cli_fail(&err) : 0;
}
