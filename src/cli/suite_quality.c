/* What the lossy modes cost, and that exact costs nothing: every arm scores the same held-out text
 * against the fully resident model and writes 1000 tokens. */
#include "cli/suite.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/quality.h"
#include "text/chat.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCORED = 256, SEEN = 48, USUAL_WRITTEN = 1000, CHUNK = 32, MAX_DOMAINS = 16 };

typedef struct domain {
    char *name;
    int32_t ids[SCORED]; /* the first SEEN warm the set up and begin the generated text */
    int n;
    float *full; /* [n][vocab] logits of the fully resident model */
} domain;

typedef struct arm {
    const char *name;
    en_mode mode;
    en_on_miss on_miss;
    bool pins;
} arm;

static const arm arms[] = {
    {"exact", EN_EXACT, 0, false},
    {"exact+pins", EN_EXACT, 0, true},
    {"skip", EN_PREDICTIVE, EN_MISS_SKIP, false},
    {"skip+pins", EN_PREDICTIVE, EN_MISS_SKIP, true},
    {"substitute", EN_PREDICTIVE, EN_MISS_SUBSTITUTE, false},
    {"substitute+pins", EN_PREDICTIVE, EN_MISS_SUBSTITUTE, true},
};
enum { ARMS = sizeof arms / sizeof *arms };

static const int percents[] = {25, 40, 60, 100};
enum { SHARES = sizeof percents / sizeof *percents };

typedef struct quality {
    const cli_args *args;
    domain domains[MAX_DOMAINS];
    int n_domains, vocab, n_experts, written;
    suite_report *report;
    double kl_sum[ARMS][SHARES];
} quality;

/* --- texts
 * ---------------------------------------------------------------------------------------- */

static fm_status read_domain(const char *dir, const char *file, const tx_chat *chat, domain *d,
                             fm_error *err)
{
    bs_buf text = {0};
    tx_ids ids = {0};
    char *path = bs_path_join(dir, file);
    fm_status status = path ? bs_read_file(path, 1 << 20, &text, err) : fm_fail_nomem(err, dir);
    if (!status) status = tx_chat_raw_prompt(chat, text.data, text.length, &ids, err);
    if (!status && ids.length < SEEN + CHUNK)
        status = fm_fail(err, FM_E_FORMAT, "%s: %zu tokens are too few", path, ids.length);
    if (!status) {
        d->n = ids.length < SCORED ? (int)ids.length : SCORED;
        memcpy(d->ids, ids.data, (size_t)d->n * sizeof *d->ids);
        d->name = bs_strndup(file, strcspn(file, "."));
        if (!d->name) status = fm_fail_nomem(err, path);
    }
    tx_ids_free(&ids);
    bs_buf_free(&text);
    bs_free(path);
    return status;
}

static int is_text(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 4 && !strcmp(entry->d_name + n - 4, ".txt");
}

static fm_status read_domains(quality *q, const tx_chat *chat, fm_error *err)
{
    const char *dir = cli_text(q->args, "texts", "bench/texts");
    struct dirent **files;
    int n = scandir(dir, &files, is_text, alphasort);
    if (n < 1)
        return fm_fail(err, FM_E_NOT_FOUND, "%s: no .txt files; name a folder with --texts", dir);
    fm_status status = FM_OK;
    for (int i = 0; i < n; i++) {
        if (!status && q->n_domains < MAX_DOMAINS)
            status = read_domain(dir, files[i]->d_name, chat, &q->domains[q->n_domains++], err);
        free(files[i]);
    }
    free(files);
    return status;
}

/* --- one arm
 * ---------------------------------------------------------------------------------------- */

typedef struct comparison {
    const domain *d;
    float *keep; /* store the logits here instead of comparing */
    double kl, log_prob;
    int same_top;
} comparison;

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static bool on_position(void *arg, int position, const float *logits, int vocab)
{
    comparison *c = arg;
    size_t row = (size_t)position * (size_t)vocab;
    if (c->keep) memcpy(c->keep + row, logits, (size_t)vocab * sizeof *logits);
    if (position < SEEN) return true;
    if (position + 1 < c->d->n) c->log_prob += en_log_prob(logits, vocab, c->d->ids[position + 1]);
    if (!c->keep) {
        c->kl += en_kl(c->d->full + row, logits, vocab);
        c->same_top += argmax(c->d->full + row, vocab) == argmax(logits, vocab);
    }
    return !cli_interrupted();
}

static fm_status open_arm(const quality *q, const arm *how, int percent, cli_session *out,
                          fm_error *err)
{
    en_options o = en_options_default();
    cli_engine_options(q->args, &o);
    o.context = SEEN + q->written + 16 > SCORED ? SEEN + q->written + 16 : SCORED;
    o.prefill_chunk = o.max_logits = CHUNK;
    o.capacity = (q->n_experts * percent + 50) / 100;
    o.mode = how->mode;
    o.on_miss = how->on_miss;
    if (how->mode == EN_PREDICTIVE) o.warmup = EN_WARMUP_FULL;
    if (!how->pins) {
        o.profile = NULL;
        o.pin_top_k = -1;
    } else {
        o.pin_top_k = o.capacity / 2;
    }
    return cli_open(q->args, &o, out, err);
}

static json_t *row_of(const quality *q, const arm *how, int percent, const comparison *c,
                      const suite_answer *a, const en_stats *s)
{
    const domain *d = c->d;
    int compared = d->n - SEEN;
    const char *text = a->text.data ? a->text.data : "";
    (void)q;
    return json_pack(
        "{s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "domain", d->name, "arm",
        how->name, "percent", percent, "perplexity", exp(-c->log_prob / (d->n - SEEN - 1)), "kl",
        c->kl / compared, "top1", (double)c->same_top / compared, "dropped_mass", s->dropped_mass,
        "rep_tail", en_rep_tail(text, a->text.length), "rep_words",
        en_rep_words(text, a->text.length), "rep_loop", en_rep_loop(a->tokens, a->n, 200, 3),
        "digest", (json_int_t)suite_digest(a->tokens, a->n));
}

/* The set is warmed by the text's beginning, then scores all of it, then writes on. */
static fm_status run_arm(quality *q, int which, int share, domain *d, fm_error *err)
{
    const arm *how = &arms[which];
    cli_session session;
    suite_answer warm = {0}, written = {0};
    comparison c = {.d = d};
    fm_status status = open_arm(q, how, percents[share], &session, err);
    if (status) return status;
    en_engine *e = session.engine;
    status = suite_answer_to(e, d->ids, SEEN, 16, true, &warm, err);
    if (!status) status = en_score(e, d->ids, d->n, CHUNK, on_position, &c, err);
    if (!status) status = suite_answer_to(e, d->ids, SEEN, q->written, true, &written, err);
    en_stats stats;
    en_get_stats(e, &stats);
    if (!status) {
        suite_add(q->report, row_of(q, how, percents[share], &c, &written, &stats));
        q->kl_sum[which][share] += c.kl / (d->n - SEEN);
    }
    suite_answer_free(&warm);
    suite_answer_free(&written);
    cli_close(&session, NULL);
    return status;
}

/* --- all
 * -------------------------------------------------------------------------------------------- */

static fm_status make_references(quality *q, fm_error *err)
{
    cli_session session;
    q->n_experts = 1 << 16; /* all of them */
    fm_status status = open_arm(q, &arms[0], 100, &session, err);
    if (status) return status;
    const md_info *info = en_describe(session.engine);
    q->vocab = info->vocab;
    q->n_experts = info->n_experts;
    if (!en_chat(session.engine))
        status = fm_fail(err, FM_E_UNSUPPORTED, "the model has no tokenizer");
    if (!status) status = read_domains(q, en_chat(session.engine), err);
    for (int i = 0; i < q->n_domains && !status; i++) {
        domain *d = &q->domains[i];
        d->full = bs_calloc((size_t)d->n * (size_t)q->vocab, sizeof *d->full);
        comparison c = {.d = d, .keep = d->full};
        status = d->full ? en_score(session.engine, d->ids, d->n, CHUNK, on_position, &c, err)
                         : fm_fail_nomem(err, "scoring the full model");
    }
    cli_close(&session, NULL);
    return status;
}

fm_status suite_quality(const cli_args *a, suite_report *r, fm_error *err)
{
    quality q = {.args = a, .report = r, .written = cli_int(a, "max-tokens", USUAL_WRITTEN)};
    cli_plot *plot = &r->plot;
    fm_status status = make_references(&q, err);
    bool pins = cli_has(a, "profile");
    for (int arm = 0; arm < ARMS && !status; arm++)
        for (int s = 0; s < SHARES && !status; s++)
            for (int d = 0; d < q.n_domains && !status && (pins || !arms[arm].pins); d++)
                status = run_arm(&q, arm, s, &q.domains[d], err);
    plot->title = "Divergence from the full model by share of resident experts";
    plot->x_label = "% of experts resident";
    plot->y_label = "mean KL (nats a token)";
    for (int arm = 0; arm < ARMS && !status; arm++) {
        if (!pins && arms[arm].pins) continue;
        int line = cli_plot_line(plot, arms[arm].name);
        for (int s = 0; s < SHARES; s++)
            cli_plot_point(plot, line, percents[s], q.kl_sum[arm][s] / q.n_domains);
    }
    for (int i = 0; i < q.n_domains; i++) {
        bs_free(q.domains[i].name);
        bs_free(q.domains[i].full);
    }
    return status;
}
