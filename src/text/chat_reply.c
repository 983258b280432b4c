/* The reply, split while it is written. The text is searched for the format's markers; what may
 * still become one waits in `held`, and white space waits where it would only be the layout around
 * a marker. */
#include "base/mem.h"
#include "text/chat_tools.h"

#include <string.h>

#define SEP "\xEF\xBD\x9C"
#define LOW "\xE2\x96\x81"

typedef enum state { CONTENT, REASONING, TOOL, HEADER } state;

typedef enum marker_kind { THINK, THINK_END, TOOL_OPEN, DROPPED, PART } marker_kind;

typedef struct marker {
    const char *text;
    marker_kind kind;
    const char *close; /* TOOL_OPEN: what ends the block; NULL: the end of the reply */
    unsigned formats;  /* bit set of tx_tool_format; 0: all */
} marker;

#define BIT(f) (1u << TX_TOOLS_##f)
#define BLOCKS (BIT(HERMES) | BIT(QWEN_XML) | BIT(GLM) | BIT(HUNYUAN) | BIT(GRANITE))

/* PART markers only stand inside blocks: special tokens with these texts are not dropped. */
static const marker markers[] = {
    {"<think>", THINK, NULL, 0},
    {"</think>", THINK_END, NULL, 0},
    {"[THINK]", THINK, NULL, BIT(MISTRAL)},
    {"[/THINK]", THINK_END, NULL, BIT(MISTRAL)},
    {"<tool_call>", TOOL_OPEN, "</tool_call>", BLOCKS},
    {"</tool_call>", PART, NULL, BLOCKS},
    {"<tool_calls>", TOOL_OPEN, "</tool_calls>", BIT(HUNYUAN)},
    {"</tool_calls>", PART, NULL, BIT(HUNYUAN)},
    {"<answer>", DROPPED, NULL, BIT(HUNYUAN)},
    {"</answer>", DROPPED, NULL, BIT(HUNYUAN)},
    {"<arg_key>", PART, NULL, BIT(GLM) | BIT(HUNYUAN)},
    {"</arg_key>", PART, NULL, BIT(GLM) | BIT(HUNYUAN)},
    {"<arg_value>", PART, NULL, BIT(GLM) | BIT(HUNYUAN)},
    {"</arg_value>", PART, NULL, BIT(GLM) | BIT(HUNYUAN)},
    {"<tool_sep>", PART, NULL, BIT(HUNYUAN)},
    {"<|tool_call|>", TOOL_OPEN, NULL, BIT(GRANITE)},
    {"<" SEP "tool" LOW "calls" LOW "begin" SEP ">", TOOL_OPEN,
     "<" SEP "tool" LOW "calls" LOW "end" SEP ">", BIT(DEEPSEEK)},
    {"<" SEP "DSML" SEP "function_calls>", TOOL_OPEN, "</" SEP "DSML" SEP "function_calls>",
     BIT(DEEPSEEK)},
    {"<" SEP "tool" LOW "calls" LOW "end" SEP ">", PART, NULL, BIT(DEEPSEEK)},
    {"<" SEP "tool" LOW "call" LOW "begin" SEP ">", PART, NULL, BIT(DEEPSEEK)},
    {"<" SEP "tool" LOW "call" LOW "end" SEP ">", PART, NULL, BIT(DEEPSEEK)},
    {"<" SEP "tool" LOW "sep" SEP ">", PART, NULL, BIT(DEEPSEEK)},
    {"[TOOL_CALLS]", TOOL_OPEN, NULL, BIT(MISTRAL)},
    {"[ARGS]", PART, NULL, BIT(MISTRAL)},
    {"[CALL_ID]", PART, NULL, BIT(MISTRAL)},
    {"<minimax:tool_call>", TOOL_OPEN, "</minimax:tool_call>", BIT(MINIMAX)},
    {"</minimax:tool_call>", PART, NULL, BIT(MINIMAX)},
    {"<|tool_calls_section_begin|>", TOOL_OPEN, "<|tool_calls_section_end|>", BIT(KIMI)},
    {"<|tool_calls_section_end|>", PART, NULL, BIT(KIMI)},
    {"<|tool_call_begin|>", PART, NULL, BIT(KIMI)},
    {"<|tool_call_end|>", PART, NULL, BIT(KIMI)},
    {"<|tool_call_argument_begin|>", PART, NULL, BIT(KIMI)},
    {"<|channel|>", PART, NULL, BIT(HARMONY)},
    {"<|start|>", PART, NULL, BIT(HARMONY)},
    {"<|message|>", PART, NULL, BIT(HARMONY)},
    {"<|constrain|>", PART, NULL, BIT(HARMONY)},
    {"<|end|>", PART, NULL, BIT(HARMONY)},
    {"<|return|>", PART, NULL, BIT(HARMONY)},
    {"<|call|>", PART, NULL, BIT(HARMONY)},
};
enum { N_MARKERS = sizeof markers / sizeof *markers };

struct tx_reply {
    const tx_chat *chat; /* NULL: text is pushed */
    tx_stream *stream;
    tx_tool_format format;
    json_t *tools;
    tx_delta_fn *fn;
    void *arg;
    state state;
    const marker *open; /* of the block in TOOL; NULL in HARMONY */
    bs_buf held;        /* not decided yet; in TOOL the block's text so far */
    size_t scanned;     /* TOOL: no closing marker ends before here */
    bs_buf space;       /* white space that goes out only when more text follows */
    bs_buf piece, name; /* name: HARMONY's recipient */
    bool any_content, any_reasoning;
    int n_calls;
};

static bool knows(const tx_reply *r, const marker *m)
{
    return !m->formats || m->formats & 1u << r->format;
}

static fm_status nomem(fm_error *err)
{
    return fm_fail_nomem(err, "reading a reply");
}

static fm_status send(tx_reply *r, tx_delta_kind kind, const char *text, size_t n, const char *name,
                      fm_error *err)
{
    r->piece.length = 0;
    if (!bs_buf_append(&r->piece, text, n)) return nomem(err);
    tx_delta d = {kind, r->piece.data, n, name, kind == TX_DELTA_TOOL_CALL ? r->n_calls : 0};
    if (kind == TX_DELTA_TOOL_CALL) r->n_calls++;
    return r->fn ? r->fn(r->arg, &d, err) : FM_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Text of the present state. White space before the first of it is dropped where a marker stood
 * before; white space at its end waits. */
static fm_status say(tx_reply *r, const char *s, size_t n, fm_error *err)
{
    tx_delta_kind kind = r->state == REASONING ? TX_DELTA_REASONING : TX_DELTA_CONTENT;
    bool *any = r->state == REASONING ? &r->any_reasoning : &r->any_content;
    bool trim = !*any && (r->state == REASONING || r->any_reasoning);
    size_t from = 0, to = n;
    while (trim && from < n && is_space(s[from])) from++;
    while (to > from && is_space(s[to - 1])) to--;
    if (to > from) {
        fm_status status =
            r->space.length ? send(r, kind, r->space.data, r->space.length, NULL, err) : FM_OK;
        r->space.length = 0;
        if (!status) status = send(r, kind, s + from, to - from, NULL, err);
        if (status) return status;
        *any = true;
    }
    return bs_buf_append(&r->space, s + to, n - to) ? FM_OK : nomem(err);
}

/* --- calls
 * -------------------------------------------------------------------------------------------------
 */

static fm_status send_calls(tx_reply *r, const tx_calls *calls, fm_error *err)
{
    fm_status status = FM_OK;
    for (size_t i = 0; !status && i < calls->n; i++)
        status = send(r, TX_DELTA_TOOL_CALL, calls->items[i].arguments,
                      strlen(calls->items[i].arguments), calls->items[i].name, err);
    return status;
}

/* The block held[0..n) is complete (or the reply is over): calls, or the text as it was written. */
static fm_status finish_block(tx_reply *r, size_t n, bool closed, fm_error *err)
{
    tx_calls calls = {0};
    bool ok = false;
    fm_status status =
        tx_read_calls(r->format, r->held.data ? r->held.data : "", n, r->tools, &calls, &ok, err);
    if (!status && ok) {
        r->space.length = 0;
        status = send_calls(r, &calls, err);
    } else if (!status) {
        r->state = CONTENT;
        status = say(r, r->open->text, strlen(r->open->text), err);
        if (!status) status = say(r, r->held.data ? r->held.data : "", n, err);
        if (!status && closed) status = say(r, r->open->close, strlen(r->open->close), err);
    }
    tx_calls_free(&calls);
    r->state = CONTENT;
    return status;
}

static void drop(tx_reply *r, size_t n)
{
    memmove(r->held.data, r->held.data + n, r->held.length - n);
    r->held.length -= n;
}

/* How many bytes at the end of s may be the start of `mark`. */
static size_t partial(const char *s, size_t n, const char *mark)
{
    size_t most = strlen(mark) - 1;
    if (most > n) most = n;
    for (size_t k = most; k; k--)
        if (!memcmp(s + n - k, mark, k)) return k;
    return 0;
}

/* In TOOL: look for the closing marker. *again: something was done. */
static fm_status in_block(tx_reply *r, bool *again, fm_error *err)
{
    const char *close = r->open->close;
    if (!close) return FM_OK;
    size_t n = strlen(close), from = r->scanned;
    const char *hit = memmem(r->held.data + from, r->held.length - from, close, n);
    if (!hit) {
        r->scanned = r->held.length >= n ? r->held.length - n + 1 : 0;
        return FM_OK;
    }
    size_t length = (size_t)(hit - r->held.data);
    fm_status status = finish_block(r, length, true, err);
    drop(r, length + n);
    *again = true;
    return status;
}

/* --- markers in running text
 * ------------------------------------------------------------------------------------ */

static bool counts(const tx_reply *r, const marker *m)
{
    if (!knows(r, m) || m->kind == PART) return false;
    if (r->state == REASONING) return m->kind == THINK_END;
    if (m->kind == THINK) return !r->any_content && !r->n_calls;
    return m->kind != THINK_END;
}

static bool blank(const char *s, size_t n)
{
    while (n && is_space(s[n - 1])) n--;
    return !n;
}

/* The first marker in held, or NULL; *wait gets how many bytes at the end may become one. */
static const marker *first_marker(const tx_reply *r, size_t *at, size_t *wait)
{
    const marker *best = NULL;
    *wait = 0;
    for (int i = 0; i < N_MARKERS; i++) {
        const marker *m = &markers[i];
        if (!counts(r, m)) continue;
        const char *hit = memmem(r->held.data, r->held.length, m->text, strlen(m->text));
        size_t place = hit ? (size_t)(hit - r->held.data) : 0,
               tail = partial(r->held.data, r->held.length, m->text);
        if (hit && m->kind == THINK && !blank(r->held.data, place))
            hit = NULL; /* in the midst of a text */
        if (hit && (!best || place < *at)) best = m, *at = place;
        if (tail > *wait) *wait = tail;
    }
    return best;
}

static fm_status in_text(tx_reply *r, bool *again, fm_error *err)
{
    size_t at = 0, wait = 0;
    const marker *m = first_marker(r, &at, &wait);
    size_t n = m ? at : r->held.length - wait;
    fm_status status = n ? say(r, r->held.data, n, err) : FM_OK;
    drop(r, n + (m ? strlen(m->text) : 0));
    if (!m || status) return status;
    *again = true;
    if (m->kind != TOOL_OPEN) r->space.length = 0;
    if (m->kind == THINK) r->state = REASONING;
    else if (m->kind == THINK_END) r->state = CONTENT, r->any_reasoning = true;
    else if (m->kind == TOOL_OPEN) r->state = TOOL, r->open = m, r->scanned = 0;
    else if (!r->any_content) r->any_reasoning = true; /* <answer>: trim behind it */
    return FM_OK;
}

/* --- Harmony: header <|message|> body <|end|>
 * ------------------------------------------------------------------- */

static fm_status harmony_header(tx_reply *r, bool *again, fm_error *err)
{
    static const char mark[] = "<|message|>", to[] = "to=functions.";
    const char *hit = memmem(r->held.data, r->held.length, mark, strlen(mark));
    if (!hit) return FM_OK;
    size_t n = (size_t)(hit - r->held.data);
    const char *name = memmem(r->held.data, n, to, strlen(to));
    r->name.length = 0;
    if (name) {
        name += strlen(to);
        size_t k = 0;
        while (name + k < hit && !is_space(name[k]) && name[k] != '<') k++;
        if (!bs_buf_append(&r->name, name, k)) return nomem(err);
        r->state = TOOL;
        r->scanned = 0;
    } else r->state = memmem(r->held.data, n, "analysis", 8) ? REASONING : CONTENT;
    drop(r, n + strlen(mark));
    *again = true;
    return FM_OK;
}

static fm_status harmony_call(tx_reply *r, size_t n, fm_error *err)
{
    while (n && is_space(r->held.data[n - 1])) n--;
    return r->name.length
               ? send(r, TX_DELTA_TOOL_CALL, n ? r->held.data : "{}", n ? n : 2, r->name.data, err)
               : FM_OK;
}

static fm_status harmony_body(tx_reply *r, bool *again, fm_error *err)
{
    static const char *const ends[] = {"<|end|>", "<|return|>", "<|call|>", "<|start|>",
                                       "<|channel|>"};
    const char *first = NULL, *end = NULL;
    size_t wait = 0;
    for (int i = 0; i < 5; i++) {
        const char *hit = memmem(r->held.data, r->held.length, ends[i], strlen(ends[i]));
        size_t tail = partial(r->held.data, r->held.length, ends[i]);
        if (hit && (!first || hit < first)) first = hit, end = ends[i];
        if (tail > wait) wait = tail;
    }
    size_t n = first ? (size_t)(first - r->held.data) : r->held.length - wait;
    fm_status status = FM_OK;
    if (r->state != TOOL) {
        status = say(r, r->held.data, n, err);
        drop(r, n);
        n = 0;
    } else if (first) status = harmony_call(r, n, err);
    if (!first || status) return status;
    drop(r, n + strlen(end));
    if (r->state == REASONING) r->space.length = 0;
    r->state = HEADER;
    *again = true;
    return FM_OK;
}

/* --- the public side
 * -------------------------------------------------------------------------------------------- */

fm_status tx_reply_push_text(tx_reply *r, const char *text, size_t n, fm_error *err)
{
    if (!n) return FM_OK;
    if (!bs_buf_append(&r->held, text, n)) return nomem(err);
    fm_status status = FM_OK;
    for (bool again = true; again && !status && r->held.length;) {
        again = false;
        if (r->format == TX_TOOLS_HARMONY)
            status =
                r->state == HEADER ? harmony_header(r, &again, err) : harmony_body(r, &again, err);
        else status = r->state == TOOL ? in_block(r, &again, err) : in_text(r, &again, err);
    }
    return status;
}

/* Special tokens are dropped, but for those that are markers. */
static bool shown(const tx_reply *r, int32_t id)
{
    const tx_tokenizer *t = tx_chat_tokenizer(r->chat);
    bs_buf text = {0};
    bool show = !tx_token_is_special(t, id);
    if (!show && tx_token_text(t, id, &text))
        for (int i = 0; !show && i < N_MARKERS; i++)
            show = knows(r, &markers[i]) && !strcmp(text.data, markers[i].text);
    bs_buf_free(&text);
    return show;
}

fm_status tx_reply_push(tx_reply *r, int32_t id, fm_error *err)
{
    bs_buf text = {0};
    if (tx_chat_is_eos(r->chat, id) || !shown(r, id)) return FM_OK;
    fm_status status = tx_stream_push(r->stream, id, &text, err);
    if (!status) status = tx_reply_push_text(r, text.data, text.length, err);
    bs_buf_free(&text);
    return status;
}

static fm_status finish_text(tx_reply *r, fm_error *err)
{
    if (r->state == TOOL && r->format == TX_TOOLS_HARMONY)
        return harmony_call(r, r->held.length, err);
    if (r->state == TOOL) return finish_block(r, r->held.length, false, err);
    if (r->state == HEADER) return FM_OK;
    return r->held.length ? say(r, r->held.data, r->held.length, err) : FM_OK;
}

fm_status tx_reply_finish(tx_reply *r, fm_error *err)
{
    bs_buf text = {0};
    fm_status status = r->stream ? tx_stream_finish(r->stream, &text, err) : FM_OK;
    if (!status) status = tx_reply_push_text(r, text.data, text.length, err);
    if (!status) status = finish_text(r, err);
    if (!status && r->space.length && r->state == CONTENT && r->any_content && !r->n_calls)
        status = send(r, TX_DELTA_CONTENT, r->space.data, r->space.length, NULL, err);
    r->held.length = r->space.length = 0;
    bs_buf_free(&text);
    return status;
}

int tx_reply_tool_calls(const tx_reply *r)
{
    return r->n_calls;
}

void tx_reply_free(tx_reply *r)
{
    if (!r) return;
    tx_stream_free(r->stream);
    json_decref(r->tools);
    bs_buf_free(&r->held);
    bs_buf_free(&r->space);
    bs_buf_free(&r->piece);
    bs_buf_free(&r->name);
    bs_free(r);
}

fm_status tx_reply_open_text(tx_tool_format format, bool starts_in_reasoning, json_t *tools,
                             tx_delta_fn *fn, void *arg, tx_reply **out, fm_error *err)
{
    tx_reply *r = bs_calloc(1, sizeof *r);
    if (!r) return nomem(err);
    r->format = format;
    r->tools = json_incref(tools);
    r->fn = fn;
    r->arg = arg;
    r->state = format == TX_TOOLS_HARMONY ? HEADER : starts_in_reasoning ? REASONING : CONTENT;
    *out = r;
    return FM_OK;
}

fm_status tx_reply_open(const tx_chat *c, const tx_prompt *prompt, json_t *tools, tx_delta_fn *fn,
                        void *arg, tx_reply **out, fm_error *err)
{
    tx_reply *r = NULL;
    fm_status status = tx_reply_open_text(prompt->tool_format, prompt->starts_in_reasoning, tools,
                                          fn, arg, &r, err);
    if (status) return status;
    r->chat = c;
    status = tx_stream_open(tx_chat_tokenizer(c), false, &r->stream, err);
    if (status) tx_reply_free(r);
    else *out = r;
    return status;
}

tx_tool_format tx_tool_format_of(const char *source)
{
    static const struct {
        const char *text;
        tx_tool_format format;
    } signs[] = {
        {"<minimax:tool_call>", TX_TOOLS_MINIMAX},
        {"<tool_calls>", TX_TOOLS_HUNYUAN},
        {"<tool_sep>", TX_TOOLS_HUNYUAN},
        {"<arg_key>", TX_TOOLS_GLM},
        {"<function=", TX_TOOLS_QWEN_XML},
        {"<|tool_calls_section_begin|>", TX_TOOLS_KIMI},
        {"<" SEP "tool" LOW "calls" LOW "begin" SEP ">", TX_TOOLS_DEEPSEEK},
        {"<" SEP "DSML" SEP "function_calls>", TX_TOOLS_DEEPSEEK},
        {"DSML", TX_TOOLS_DEEPSEEK},
        {"[TOOL_CALLS]", TX_TOOLS_MISTRAL},
        {"<|channel|>", TX_TOOLS_HARMONY},
        {"<|tool_call|>", TX_TOOLS_GRANITE},
        {"<tool_call>", TX_TOOLS_HERMES},
    };
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strstr(source, signs[i].text)) return signs[i].format;
    return TX_TOOLS_NONE;
}
