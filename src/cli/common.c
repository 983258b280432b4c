#include "cli/common.h"
#include "cli/tune.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_option output_options[] = {
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "the whole result as one JSON object"},
    {"stats", 0, CLI_FLAG, NULL, 0, 0, "a summary of speed, reads and memory on stderr"},
    {"trace", 0, CLI_FILE, "FILE", 0, 0, "record the router's choices as JSON lines"},
    {0},
};
const cli_group cli_group_output = {"Output", output_options, false};

static void memory_options(const cli_args *a, en_options *o)
{
    static const int kv_bits[] = {32, 16, 8};
    static const xp_policy policies[] = {XP_LFRU, XP_LRU, XP_LCP};
    static const xp_io ios[] = {XP_IO_AUTO, XP_IO_URING, XP_IO_PREAD};
    o->memory = cli_size(a, "memory", o->memory);
    o->capacity = cli_int(a, "capacity", o->capacity);
    o->context = cli_int(a, "context", o->context);
    if (cli_has(a, "kv-bits")) o->kv_bits = kv_bits[cli_choice(a, "kv-bits", 0)];
    if (cli_has(a, "policy")) o->policy = policies[cli_choice(a, "policy", 0)];
    if (cli_has(a, "io")) o->io = ios[cli_choice(a, "io", 0)];
    if (cli_has(a, "prefetch")) {
        int kind = cli_choice(a, "prefetch", 0);
        o->prefetch = kind == 0 ? 0 : kind == 1 ? -1 : cli_int(a, "prefetch", 0);
    }
    o->buffered |= cli_has(a, "buffered");
    o->lock |= cli_has(a, "lock");
    o->pack_dir = cli_text(a, "pack-dir", o->pack_dir);
}

static void seed_options(const cli_args *a, en_options *o)
{
    static const en_warmup warmups[] = {EN_WARMUP_NONE, EN_WARMUP_ROUTER, EN_WARMUP_FULL,
                                        EN_WARMUP_HYBRID};
    if (cli_has(a, "mode")) o->mode = cli_choice(a, "mode", 0) ? EN_PREDICTIVE : EN_EXACT;
    if (cli_has(a, "on-miss"))
        o->on_miss = cli_choice(a, "on-miss", 0) ? EN_MISS_SUBSTITUTE : EN_MISS_SKIP;
    o->refresh = cli_int(a, "refresh", o->refresh);
    if (cli_has(a, "warmup")) o->warmup = warmups[cli_choice(a, "warmup", 0)];
    o->hold |= cli_has(a, "hold");
    o->profile = cli_text(a, "profile", o->profile);
    o->pin_top_k = cli_int(a, "pin-top-k", o->pin_top_k);
    o->pin_threshold = cli_number(a, "pin-threshold", o->pin_threshold);
    o->cache_dir = cli_text(a, "cache-dir", o->cache_dir);
}

void cli_engine_options(const cli_args *a, en_options *o)
{
    memory_options(a, o);
    seed_options(a, o);
    o->threads = cli_int(a, "threads", o->threads);
    if (cli_has(a, "precision"))
        o->precision = cli_choice(a, "precision", 0) ? KN_PRECISION_FAST : KN_PRECISION_F32;
    if (cli_has(a, "isa")) kn_isa_parse(cli_text(a, "isa", "auto"), &o->isa);
    o->mlx_router |= cli_choice(a, "router-compat", 0) == 1;
}

void cli_sampling_options(const cli_args *a, en_sampling *s)
{
    s->temperature = (float)cli_number(a, "temp", (double)s->temperature);
    s->top_k = cli_int(a, "top-k", s->top_k);
    s->top_p = (float)cli_number(a, "top-p", (double)s->top_p);
    s->min_p = (float)cli_number(a, "min-p", (double)s->min_p);
    s->repeat_penalty = (float)cli_number(a, "repeat-penalty", (double)s->repeat_penalty);
    s->presence_penalty = (float)cli_number(a, "presence-penalty", (double)s->presence_penalty);
    s->frequency_penalty = (float)cli_number(a, "frequency-penalty", (double)s->frequency_penalty);
    if (cli_has(a, "seed")) s->seed = (uint64_t)cli_int(a, "seed", 0);
    else if (getentropy(&s->seed, sizeof s->seed)) s->seed = (uint64_t)getpid();
}

/* A bar on a terminal, and only for loads that take a while. */
static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    int *last = arg;
    int percent = total ? (int)(done * 100 / total) : 100;
    if (total < (uint64_t)256 << 20 || percent == *last) return;
    *last = percent;
    fprintf(stderr, "\rloading %3d %% of %.1f GB", percent, (double)total / 1e9);
    if (percent == 100) fputs("\r\033[K", stderr);
}

fm_status cli_open(const cli_args *a, en_options *o, cli_session *out, fm_error *err)
{
    *out = (cli_session){0};
    unsigned flags = cli_has(a, "yes") ? CLI_RESOLVE_YES : 0;
    fm_status status = cli_resolve_model(cli_model_name(a), flags, &out->model, err);
    if (status) return status;
    o->model = out->model.folder;
    status = cli_tune_first(a, o->model, o->memory, err);
    if (status) {
        cli_close(out, NULL);
        return status;
    }
    int percent = -1;
    if (isatty(2)) {
        o->progress = show_progress;
        o->progress_arg = &percent;
    }
    status = en_open(o, &out->engine, err);
    const char *trace = cli_text(a, "trace", NULL);
    if (!status && trace) status = cli_trace_open(out->engine, trace, &out->trace, err);
    if (status) {
        cli_close(out, NULL);
        return status;
    }
    for (int i = 0; en_note(out->engine, i); i++)
        fprintf(stderr, "note: %s\n", en_note(out->engine, i));
    return FM_OK;
}

fm_status cli_close(cli_session *s, fm_error *err)
{
    fm_status status = cli_trace_close(s->trace, err);
    en_close(s->engine);
    cli_model_free(&s->model);
    *s = (cli_session){0};
    return status;
}

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    if (interrupts++) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool cli_interrupted(void)
{
    bool seen = interrupts != 0;
    interrupts = 0;
    return seen;
}

static int output_errno;

/* Not by stdio, which loses what an interrupt (Ctrl-C) has stopped half-way. */
bool cli_put(const char *text, size_t n)
{
    if (output_errno) return false;
    bool good = !fflush(stdout);
    while (good && n) {
        ssize_t put = write(STDOUT_FILENO, text, n);
        good = put > 0 || (put < 0 && errno == EINTR);
        if (put > 0) text += put, n -= (size_t)put;
    }
    if (!good) output_errno = errno ? errno : EIO;
    return good;
}

bool cli_output_broken(void)
{
    return output_errno != 0;
}

int cli_output_status(void)
{
    if (!output_errno) return 0;
    fprintf(stderr, "flash-moe: cannot write to standard output: %s\n", strerror(output_errno));
    return 1;
}

bool cli_put_json(json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(value);
    bool ok = text && cli_put(text, strlen(text)) && cli_put("\n", 1);
    free(text);
    return ok;
}

void cli_print_stats(en_engine *engine)
{
    en_stats s;
    en_get_stats(engine, &s);
    if (s.requests)
        fprintf(stderr,
                "%llu tokens at %.1f tok/s, the first after %.0f ms (load %.0f ms, prompt %.0f "
                "tok/s)",
                (unsigned long long)s.tokens, s.decode_tok_s, s.ttft_ms, s.load_ms,
                s.prefill_tok_s);
    else
        fprintf(stderr, "%llu tokens scored at %.1f tok/s (load %.0f ms)",
                (unsigned long long)s.prompt_tokens, s.prefill_tok_s, s.load_ms);
    fprintf(stderr, "; %.1f %% of experts from memory, %.1f MB read; peak %.1f of %.1f MB; %s",
            s.hit_rate * 100, (double)s.bytes_read / 1e6, (double)s.peak_rss_bytes / 1e6,
            (double)s.budget_bytes / 1e6, s.mode);
    if (s.dropped_picks)
        fprintf(stderr, " (LOSSY: %.1f %% of the router's weight dropped)", s.dropped_mass * 100);
    fputc('\n', stderr);
    if (s.shrunk_slots)
        fprintf(stderr,
                "note: memory ran short; %d expert slots were given back (slower, same answer)\n",
                s.shrunk_slots);
}

fm_status cli_read_input(const char *path, bs_buf *out, fm_error *err)
{
    enum { MOST = 256 << 20 };
    bool standard = !path || !strcmp(path, "-");
    if (standard) path = "stdin";
    int fd = standard ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, errno, "%s: cannot open", path);
    fm_status status = FM_OK;
    while (!status) {
        if (!bs_buf_reserve(out, 65536)) {
            status = fm_fail_nomem(err, path);
            break;
        }
        ssize_t got = read(fd, out->data + out->length, 65536);
        if (got < 0) status = fm_fail_errno(err, errno, "%s: cannot read", path);
        if (got <= 0) break;
        out->length += (size_t)got;
        out->data[out->length] = 0;
        if (out->length > MOST)
            status = fm_fail(err, FM_E_LIMIT, "%s: is larger than %d MB", path, MOST >> 20);
    }
    if (!standard) close(fd);
    return status;
}

/* --- models that are only looked at ----------------------------------------------------------- */

static bool has_checkpoint(const char *path)
{
    ts_store *store;
    if (!bs_is_dir(path) || ts_open(path, &store, NULL)) return false;
    ts_close(store);
    return true;
}

fm_status cli_describe(const char *path, const md_options *o, md_model **out, fm_error *err)
{
    if (has_checkpoint(path)) return md_open(path, o, out, err);
    if (!bs_is_dir(path)) return md_open_config(path, o, out, err);
    char *config = bs_path_join(path, "config.json");
    if (!config) return fm_fail_nomem(err, "opening a model");
    fm_status status = md_open_config(config, o, out, err);
    bs_free(config);
    return status;
}
