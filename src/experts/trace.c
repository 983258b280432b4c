#include "experts/trace.h"

#include "base/file.h"
#include "base/mem.h"
#include "experts/experts.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 1024, MAX_EXPERTS = 65536, MAX_TOP_K = 256, MAX_FILE = 1 << 30 };

/* A trace that grows token by token; the sizes come with the first token. */
typedef struct builder {
    xp_trace *t;
    const char *path;
    int line;
    int room_tokens, room_steps;
    json_int_t last_step;
} builder;

static fm_status bad(const builder *b, fm_error *err, const char *what)
{
    return fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", b->path, b->line, what);
}

static int32_t *picks_of(const xp_trace *t, int token, int layer)
{
    return t->picks + ((size_t)token * (size_t)t->n_layers + (size_t)layer) * (size_t)t->top_k;
}

const int32_t *xp_trace_picks(const xp_trace *t, int token, int layer)
{
    return picks_of(t, token, layer);
}

static fm_status add_token(builder *b, fm_error *err)
{
    xp_trace *t = b->t;
    size_t width = (size_t)t->n_layers * (size_t)t->top_k;
    if (t->n_tokens == b->room_tokens) {
        int room = b->room_tokens ? 2 * b->room_tokens : 64;
        int32_t *more = bs_realloc(t->picks, (size_t)room, width * sizeof *more);
        if (!more) return fm_fail_nomem(err, b->path);
        t->picks = more;
        b->room_tokens = room;
    }
    for (size_t i = 0; i < width; i++) t->picks[(size_t)t->n_tokens * width + i] = -1;
    t->n_tokens++;
    return FM_OK;
}

/* The newest token belongs to this step: the last one, or a new one. */
static fm_status add_to_step(builder *b, bool new_step, bool prefill, fm_error *err)
{
    xp_trace *t = b->t;
    if (!new_step && t->n_steps) {
        t->steps[t->n_steps - 1].n++;
        return FM_OK;
    }
    if (t->n_steps == b->room_steps) {
        int room = b->room_steps ? 2 * b->room_steps : 64;
        xp_trace_step *more = bs_realloc(t->steps, (size_t)room, sizeof *more);
        if (!more) return fm_fail_nomem(err, b->path);
        t->steps = more;
        b->room_steps = room;
    }
    t->steps[t->n_steps++] = (xp_trace_step){t->n_tokens - 1, 1, prefill};
    return FM_OK;
}

static bool set_pick(builder *b, int layer, int slot, json_int_t expert)
{
    if (expert < 0 || expert >= MAX_EXPERTS) return false;
    picks_of(b->t, b->t->n_tokens - 1, layer)[slot] = (int32_t)expert;
    if (expert >= b->t->n_experts) b->t->n_experts = (int)expert + 1;
    return true;
}

/* --- JSON lines ---------------------------------------------------------------------------------
 */

static bool json_sizes(builder *b, const json_t *layers)
{
    size_t n = json_array_size(layers), k = 0;
    for (size_t l = 0; l < n; l++) {
        size_t m = json_array_size(json_array_get(layers, l));
        if (m > k) k = m;
    }
    if (n < 1 || n > MAX_LAYERS || k < 1 || k > MAX_TOP_K) return false;
    b->t->n_layers = (int)n;
    b->t->top_k = (int)k;
    return true;
}

static bool json_picks(builder *b, const json_t *layers)
{
    for (int l = 0; l < b->t->n_layers; l++) {
        const json_t *ids = json_array_get(layers, (size_t)l);
        if (json_array_size(ids) > (size_t)b->t->top_k) return false;
        for (size_t i = 0; i < json_array_size(ids); i++)
            if (!json_is_integer(json_array_get(ids, i)) ||
                !set_pick(b, l, (int)i, json_integer_value(json_array_get(ids, i))))
                return false;
    }
    return true;
}

static fm_status json_line(builder *b, const char *text, size_t n, fm_error *err)
{
    json_t *o = json_loadb(text, n, 0, NULL);
    const json_t *layers = json_object_get(o, "layers"), *step = json_object_get(o, "step");
    const char *phase = json_string_value(json_object_get(o, "phase"));
    fm_status status = FM_OK;
    if (!json_is_array(layers)) status = bad(b, err, "no \"layers\" array");
    else if (!b->t->n_layers && !json_sizes(b, layers)) status = bad(b, err, "impossible sizes");
    else if (json_array_size(layers) != (size_t)b->t->n_layers)
        status = bad(b, err, "another number of layers than before");
    if (!status) status = add_token(b, err);
    if (!status && !json_picks(b, layers)) status = bad(b, err, "bad expert ids");
    json_int_t at = step ? json_integer_value(step) : b->last_step + 1;
    if (!status)
        status =
            add_to_step(b, at != b->last_step || !step, phase && !strcmp(phase, "prefill"), err);
    b->last_step = at;
    json_decref(o);
    return status;
}

/* --- CSV
 * ------------------------------------------------------------------------------------------ */

static int header_value(const char *text, const char *key)
{
    const char *found = strstr(text, key);
    return found ? atoi(found + strlen(key)) : 0;
}

static fm_status csv_sizes(builder *b, const char *text, fm_error *err)
{
    b->t->n_layers = header_value(text, "n_layer=");
    b->t->top_k = header_value(text, "n_expert_used=");
    b->t->n_experts = header_value(text, "n_expert=");
    if (b->t->n_layers > 0 && b->t->n_layers <= MAX_LAYERS && b->t->top_k > 0 &&
        b->t->top_k <= MAX_TOP_K && b->t->n_experts >= 0 && b->t->n_experts <= MAX_EXPERTS)
        return FM_OK;
    return bad(b, err, "no n_layer=, n_expert= and n_expert_used= in the header");
}

typedef struct csv_row {
    int turn, phase, step, layer, slot, expert;
} csv_row;

/* Rows of the prompt come layer by layer or token by token: its tokens are made as they appear. */
static fm_status csv_row_add(builder *b, const csv_row *r, const csv_row *before, fm_error *err)
{
    xp_trace *t = b->t;
    if (r->layer < 0 || r->layer >= t->n_layers || r->slot < 0 || r->slot >= t->top_k ||
        r->step < 0)
        return bad(b, err, "a layer or slot out of range");
    bool same_turn = before && before->turn == r->turn && before->phase == r->phase;
    const xp_trace_step *step = t->n_steps ? &t->steps[t->n_steps - 1] : NULL;
    bool prompt = r->phase == 0;
    bool fresh = !same_turn || (!prompt && before->step != r->step);
    if (fresh || (prompt && r->step >= step->n)) {
        if (prompt && r->step != (fresh ? 0 : step->n)) return bad(b, err, "a token is missing");
        fm_status status = add_token(b, err);
        if (!status) status = add_to_step(b, fresh, prompt, err);
        if (status) return status;
        step = &t->steps[t->n_steps - 1];
    }
    if (r->expert < 0 || r->expert >= MAX_EXPERTS) return bad(b, err, "bad expert id");
    int token = prompt ? step->first + r->step : t->n_tokens - 1;
    picks_of(t, token, r->layer)[r->slot] = r->expert;
    if (r->expert >= t->n_experts) t->n_experts = r->expert + 1;
    return FM_OK;
}

static fm_status csv_lines(builder *b, const char *text, fm_error *err)
{
    fm_status status = csv_sizes(b, text, err);
    csv_row row, before;
    bool any = false;
    for (const char *line = text; !status && line && *line; b->line++) {
        if (isdigit((unsigned char)*line)) {
            if (sscanf(line, "%d,%d,%d,%d,%d,%d", &row.turn, &row.phase, &row.step, &row.layer,
                       &row.slot, &row.expert) != 6)
                return bad(b, err, "not a row of turn,phase,step,layer,slot,expert");
            status = csv_row_add(b, &row, any ? &before : NULL, err);
            before = row;
            any = true;
        }
        line = strchr(line, '\n');
        if (line) line++;
    }
    return status;
}

/* --- reading
 * -------------------------------------------------------------------------------------- */

static fm_status parse(builder *b, const bs_buf *text, fm_error *err)
{
    if (text->length && text->data[0] != '{') return csv_lines(b, text->data, err);
    const char *p = text->data, *end = text->data + text->length;
    for (; p && p < end; b->line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p);
        fm_status status = n && *p == '{' ? json_line(b, p, n, err) : FM_OK;
        if (status) return status;
        p = stop ? stop + 1 : end;
    }
    return FM_OK;
}

fm_status xp_trace_read(const char *path, xp_trace **out, fm_error *err)
{
    bs_buf text = {0};
    fm_status status = bs_read_file(path, MAX_FILE, &text, err);
    builder b = {.path = path, .line = 1, .last_step = -1};
    if (!status) b.t = bs_calloc(1, sizeof *b.t);
    if (!status && !b.t) status = fm_fail_nomem(err, path);
    if (!status) status = parse(&b, &text, err);
    if (!status && !b.t->n_tokens)
        status = fm_fail(err, FM_E_FORMAT, "%s: no token in this trace", path);
    bs_buf_free(&text);
    if (status) xp_trace_free(b.t);
    else *out = b.t;
    return status;
}

void xp_trace_free(xp_trace *t)
{
    if (!t) return;
    bs_free(t->picks);
    bs_free(t->steps);
    bs_free(t);
}

/* --- recording
 * ------------------------------------------------------------------------------------ */

struct xp_recorder {
    FILE *file;
    char *path;
    int n_layers, top_k;
    int n_tokens, room; /* of the pass at hand */
    int *picks;         /* [n_tokens][n_layers][top_k] */
    float *weights;
    long tokens, steps;
    int problem; /* errno of the first failure */
};

fm_status xp_recorder_open(const char *path, int n_layers, int top_k, xp_recorder **out,
                           fm_error *err)
{
    xp_recorder *r = bs_calloc(1, sizeof *r);
    if (!r) return fm_fail_nomem(err, path);
    r->n_layers = n_layers;
    r->top_k = top_k;
    r->path = bs_strdup(path);
    r->file = fopen(path, "we");
    if (r->path && r->file) {
        *out = r;
        return FM_OK;
    }
    fm_status status =
        r->path ? fm_fail_errno(err, errno, "%s: cannot write", path) : fm_fail_nomem(err, path);
    if (r->file) fclose(r->file);
    bs_free(r->path);
    bs_free(r);
    return status;
}

static void write_token(xp_recorder *r, int token, bool prefill)
{
    size_t width = (size_t)r->top_k, base = (size_t)token * (size_t)r->n_layers * width;
    fprintf(r->file, "{\"tok\":%ld,\"step\":%ld,\"phase\":\"%s\",\"layers\":[", r->tokens++,
            r->steps, prefill ? "prefill" : "decode");
    for (int l = 0; l < r->n_layers; l++) {
        const int *p = r->picks + base + (size_t)l * width;
        fputs(l ? ",[" : "[", r->file);
        for (int i = 0, n = 0; i < r->top_k; i++)
            if (p[i] >= 0) fprintf(r->file, n++ ? ",%d" : "%d", p[i]);
        fputc(']', r->file);
    }
    fputs("],\"weights\":[", r->file);
    for (int l = 0; l < r->n_layers; l++) {
        const int *p = r->picks + base + (size_t)l * width;
        const float *w = r->weights + base + (size_t)l * width;
        fputs(l ? ",[" : "[", r->file);
        for (int i = 0, n = 0; i < r->top_k; i++)
            if (p[i] >= 0) fprintf(r->file, n++ ? ",%.6g" : "%.6g", (double)w[i]);
        fputc(']', r->file);
    }
    if (fputs("]}\n", r->file) < 0 && !r->problem) r->problem = errno;
}

static void write_pass(xp_recorder *r)
{
    for (int t = 0; t < r->n_tokens; t++) write_token(r, t, r->n_tokens >= XP_PREFILL_FROM);
    r->steps += r->n_tokens > 0;
    r->n_tokens = 0;
}

static bool make_room(xp_recorder *r, int tokens)
{
    if (tokens <= r->room) return true;
    size_t width = (size_t)r->n_layers * (size_t)r->top_k;
    int *picks = bs_realloc(r->picks, (size_t)tokens, width * sizeof *picks);
    if (picks) r->picks = picks;
    float *weights = bs_realloc(r->weights, (size_t)tokens, width * sizeof *weights);
    if (weights) r->weights = weights;
    if (!picks || !weights) return false;
    r->room = tokens;
    return true;
}

void xp_recorder_route(xp_recorder *r, int layer, int token, const int *experts,
                       const float *weights, int top_k)
{
    if (layer == 0 && token == 0) write_pass(r);
    if (token >= r->n_tokens) {
        if (!make_room(r, token + 1)) {
            r->problem = ENOMEM;
            return;
        }
        size_t width = (size_t)r->n_layers * (size_t)r->top_k;
        for (size_t i = (size_t)r->n_tokens * width; i < (size_t)(token + 1) * width; i++)
            r->picks[i] = -1;
        r->n_tokens = token + 1;
    }
    size_t at = ((size_t)token * (size_t)r->n_layers + (size_t)layer) * (size_t)r->top_k;
    for (int i = 0; i < top_k && i < r->top_k; i++) {
        r->picks[at + (size_t)i] = experts[i];
        r->weights[at + (size_t)i] = weights ? weights[i] : 0;
    }
}

fm_status xp_recorder_close(xp_recorder *r, fm_error *err)
{
    if (!r) return FM_OK;
    write_pass(r);
    if (fclose(r->file) && !r->problem) r->problem = errno;
    fm_status status =
        r->problem ? fm_fail_errno(err, r->problem, "%s: cannot write", r->path) : FM_OK;
    bs_free(r->path);
    bs_free(r->picks);
    bs_free(r->weights);
    bs_free(r);
    return status;
}
