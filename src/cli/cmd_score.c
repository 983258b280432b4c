#include "cli/cli.h"
#include "cli/common.h"

#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_option own[] = {
    {"ids", 0, CLI_FILE, "FILE", 0, 0,
     "token ids: a JSON array, or numbers separated by spaces, commas or lines; - for stdin"},
    {"logits", 0, CLI_FILE, "OUT", 0, 0,
     "write the logits: n_tokens x vocab little-endian float32"},
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "a JSON object a token, one a line"},
    {"prefill", 0, CLI_INT, "N", 1, 65536,
     "tokens a forward pass (the result does not depend on it)"},
    {"stats", 0, CLI_FLAG, NULL, 0, 0, "a summary of speed, reads and memory on stderr"},
    {"trace", 0, CLI_FILE, "FILE", 0, 0, "record the router's choices as JSON lines"},
    {0},
};
static const cli_group own_group = {"Scoring", own, false};

const cli_spec spec_score = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "Computes the model's logits at each of the given tokens, and each token's "
        "log-probability after those before it, with float32 activations unless --precision says "
        "otherwise. Works on folders without a tokenizer. Two runs "
        "whose logits files are equal computed the same function.",
    .examples = "  flash-moe tokenize --text 'Once upon a time' > ids.json\n"
                "  flash-moe score --ids ids.json --json\n"
                "  flash-moe score --ids ids.json --logits a.f32 --memory 48M --threads 1\n",
    .groups = {&own_group, &cli_group_model, &cli_group_engine, &cli_group_seed},
};

enum { USUAL_CHUNK = 32 };

typedef struct score {
    const int32_t *ids;
    int n;
    FILE *logits;
    bool json;
    double sum; /* of log-probabilities of tokens 1.. */
    float next; /* of the token after this position */
    bool stopped;
} score;

static bool push(int32_t **ids, int *n, int *capacity, long long id)
{
    if (*n == *capacity) {
        int more = *capacity ? *capacity * 2 : 1024;
        int32_t *grown = bs_realloc(*ids, (size_t)more, sizeof *grown);
        if (!grown) return false;
        *ids = grown;
        *capacity = more;
    }
    (*ids)[(*n)++] = (int32_t)id;
    return true;
}

/* Numbers with anything of " \n,[]" between them. */
static fm_status parse_ids(const char *path, const bs_buf *text, int32_t **ids, int *n,
                           fm_error *err)
{
    int capacity = 0;
    const char *at = text->data ? text->data : "";
    for (;;) {
        at += strspn(at, " \t\r\n,[]");
        if (!*at) break;
        char *end;
        errno = 0;
        long long id = strtoll(at, &end, 10);
        if (end == at || errno || id < 0 || id > INT32_MAX)
            return fm_fail(err, FM_E_FORMAT, "%s: '%.20s' is not a token id", path, at);
        at = end;
        if (!push(ids, n, &capacity, id)) return fm_fail_nomem(err, path);
    }
    if (!*n) return fm_fail(err, FM_E_FORMAT, "%s: has no token ids", path);
    return FM_OK;
}

static bool put_line(score *s, int position, float own_logprob, const en_logprob *best)
{
    json_t *line =
        json_pack("{s:i, s:i, s:o, s:i, s:f}", "position", position, "id", s->ids[position],
                  "logprob", position ? json_real((double)own_logprob) : json_null(), "best",
                  best->id, "best_logprob", (double)best->logprob);
    return cli_put_json(line);
}

static bool on_position(void *arg, int position, const float *logits, int vocab)
{
    score *s = arg;
    float own_logprob = s->next;
    if (position) s->sum += (double)own_logprob;
    en_logprob best;
    int32_t following = position + 1 < s->n ? s->ids[position + 1] : 0;
    en_logprobs(logits, vocab, following, &s->next, &best, 1);
    if (s->logits && fwrite(logits, sizeof *logits, (size_t)vocab, s->logits) != (size_t)vocab)
        s->stopped = true;
    if (s->json && !put_line(s, position, own_logprob, &best)) s->stopped = true;
    if (cli_interrupted()) s->stopped = true;
    return !s->stopped;
}

static fm_status run_score(const cli_args *a, score *s, fm_error *err)
{
    int chunk = cli_int(a, "prefill", s->n < USUAL_CHUNK ? s->n : USUAL_CHUNK);
    en_options o = en_options_default();
    o.no_tokenizer = true;
    o.context = s->n;
    o.prefill_chunk = o.max_logits = chunk;
    o.precision = KN_PRECISION_F32; /* the reference, unless told otherwise */
    cli_engine_options(a, &o);
    cli_session session;
    fm_status status = cli_open(a, &o, &session, err);
    if (status) return status;
    status = en_score(session.engine, s->ids, s->n, chunk, on_position, s, err);
    if (!status && cli_has(a, "stats")) cli_print_stats(session.engine);
    if (!status && !s->json && !s->stopped) {
        char line[160];
        int n = snprintf(line, sizeof line, "%d tokens, log-probability %.6f, perplexity %.4f\n",
                         s->n, s->sum, s->n > 1 ? exp(-s->sum / (s->n - 1)) : 1.0);
        if (!s->logits) cli_put(line, (size_t)n);
    }
    fm_error also;
    fm_status closed = cli_close(&session, &also);
    if (!status && closed) {
        *err = also;
        status = closed;
    }
    return status;
}

static fm_status score_file(const cli_args *a, score *s, fm_error *err)
{
    const char *path = cli_text(a, "ids", "-"), *out = cli_text(a, "logits", NULL);
    bs_buf text = {0};
    int32_t *ids = NULL;
    fm_status status = cli_read_input(path, &text, err);
    if (!status) status = parse_ids(path, &text, &ids, &s->n, err);
    bs_buf_free(&text);
    s->ids = ids;
    if (!status && out && !(s->logits = fopen(out, "we")))
        status = fm_fail_errno(err, errno, "%s: cannot write", out);
    if (!status) status = run_score(a, s, err);
    if (s->logits) {
        bool bad = ferror(s->logits) != 0;
        if ((fclose(s->logits) || bad) && !status)
            status = fm_fail_errno(err, errno, "%s: the logits are incomplete", out);
        if (status || s->stopped) remove(out);
    }
    bs_free(ids);
    return status;
}

int cmd_score(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_score, argc, argv, &args);
    if (status >= 0) return status;
    if (!cli_has(&args, "ids")) {
        fprintf(stderr, "flash-moe score: --ids FILE is missing\n");
        return 2;
    }
    cli_catch_signals();
    score s = {.json = cli_has(&args, "json")};
    fm_error err;
    if (score_file(&args, &s, &err)) return cli_fail(&err);
    if (cli_output_status()) return 1;
    return s.stopped ? 130 : 0;
}
