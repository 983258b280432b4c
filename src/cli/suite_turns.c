/* Long use: many turns of one conversation, and a context that grows. */
#include "cli/suite.h"

#include "base/mem.h"
#include "engine/quality.h"
#include "text/chat.h"

#include <string.h>

enum { TURN_TOKENS = 60 };

static const char *const turns[] = {
    "Who are you?",
    "What does the command ls do?",
    "Tell me a short story about a fox.",
    "What is a linked list?",
    "Write a Python function that adds two numbers.",
    "What does grep do?",
    "What is a lighthouse?",
    "Write a C function that returns the larger of two integers.",
    "What is the command tar for?",
    "Tell me about a king and his three sons.",
    "What is a dictionary?",
    "Write a Python function that counts the words in a text.",
    "What does chmod do?",
    "What is a river?",
    "How do I list hidden files?",
    "Tell me a fable about a crow.",
    "What is recursion?",
    "Write a C function that copies a string.",
    "What does the command find do?",
    "Say goodbye in one sentence.",
};
enum { TURNS = sizeof turns / sizeof *turns };

static fm_status encode(const tx_chat *chat, json_t *messages, tx_prompt *out, fm_error *err)
{
    tx_chat_request r = {
        .messages = messages, .add_generation_prompt = true, .enable_thinking = -1};
    return tx_chat_prompt(chat, &r, out, err);
}

/* One turn; the row, or NULL. */
static json_t *run_turn(en_engine *e, json_t *messages, int turn, uint32_t *digest, fm_error *err)
{
    json_array_append_new(messages,
                          json_pack("{s:s, s:s}", "role", "user", "content", turns[turn % TURNS]));
    tx_prompt prompt = {0};
    suite_answer a = {0};
    json_t *row = NULL;
    en_stats before, after;
    en_get_stats(e, &before);
    fm_status status = encode(en_chat(e), messages, &prompt, err);
    if (!status)
        status = suite_answer_to(e, prompt.ids.data, (int)prompt.ids.length, TURN_TOKENS, false, &a,
                                 err);
    en_get_stats(e, &after);
    if (!status) {
        const char *text = a.text.data ? a.text.data : "";
        json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", "assistant", "content",
                                                  text, a.text.length));
        uint64_t asked =
            after.expert_hits + after.expert_misses - before.expert_hits - before.expert_misses;
        *digest = *digest * 31 + suite_digest(a.tokens, a.n);
        row = json_pack(
            "{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "turn", turn + 1,
            "prompt_tokens", a.stats.prompt_tokens, "cached_tokens", a.stats.cached_tokens,
            "tokens", a.n, "tok_s", a.stats.decode_tok_s, "miss_rate",
            asked ? (double)(after.expert_misses - before.expert_misses) / (double)asked : 0.0,
            "rep_tail", en_rep_tail(text, a.text.length), "rep_words",
            en_rep_words(text, a.text.length), "dropped_mass", after.dropped_mass, "held_bytes",
            (json_int_t)bs_pages_in_use(), "rss_bytes", (json_int_t)en_rss_bytes());
    }
    suite_answer_free(&a);
    tx_prompt_free(&prompt);
    return row;
}

static double number(const json_t *rows, size_t i, const char *key)
{
    return json_number_value(json_object_get(json_array_get(rows, i), key));
}

/* The seed's thresholds: memory may grow by 10 MB, speed fall by 5 tok/s, before it is a warning.
 * Held is what was taken (weights, slots, KV cache, scratch); the resident set also grows as the KV
 * cache, taken at the start, is written for the first time. */
static void judge(suite_report *r, uint32_t digest)
{
    const json_t *rows = r->rows;
    size_t n = json_array_size(rows);
    if (n < 4) return;
    double held = number(rows, n - 1, "held_bytes") - number(rows, 2, "held_bytes");
    double growth = number(rows, n - 1, "rss_bytes") - number(rows, 2, "rss_bytes");
    double slower = number(rows, n - 1, "tok_s") - number(rows, 2, "tok_s");
    suite_add(r,
              json_pack("{s:f, s:f, s:f, s:b, s:b, s:I}", "held_growth_after_turn_3", held,
                        "rss_growth_after_turn_3", growth, "tok_s_change", slower, "memory_warning",
                        growth > 10e6, "speed_warning", slower < -5, "digest", (json_int_t)digest));
}

fm_status suite_multi_turn(const cli_args *a, suite_report *r, fm_error *err)
{
    cli_session session;
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    o.keep_prefixes = o.mode == EN_EXACT;
    fm_status status = cli_open(a, &o, &session, err);
    if (status) return status;
    cli_plot *plot = &r->plot;
    json_t *messages = json_array(), *row = NULL;
    bool able = en_chat(session.engine) && tx_chat_has_template(en_chat(session.engine));
    if (!able) fm_fail(err, FM_E_UNSUPPORTED, "the model has no chat template");
    plot->title = "Twenty turns of one conversation";
    plot->x_label = "turn";
    plot->y_label = "tokens/s";
    int line = cli_plot_line(plot, "decode");
    uint32_t digest = 0;
    int done = 0;
    for (; able && done < TURNS; done++) {
        row = run_turn(session.engine, messages, done, &digest, err);
        if (!row) break;
        cli_plot_point(plot, line, done + 1, json_number_value(json_object_get(row, "tok_s")));
        suite_add(r, row);
    }
    json_decref(messages);
    cli_close(&session, NULL);
    if (done < TURNS) return err->code;
    judge(r, digest);
    return FM_OK;
}

/* --- context
 * ---------------------------------------------------------------------------------------- */

enum { CONTEXT_STEPS = 8, MEASURED = 32 };

static json_t *at_length(en_engine *e, const int32_t *ids, int length, fm_error *err)
{
    suite_answer a = {0};
    json_t *row = NULL;
    if (!suite_answer_to(e, ids, length, MEASURED, true, &a, err))
        row = json_pack("{s:i, s:f, s:f, s:I}", "context", length, "prefill_tok_s",
                        a.stats.prefill_tok_s, "tok_s", a.stats.decode_tok_s, "rss_bytes",
                        (json_int_t)en_rss_bytes());
    suite_answer_free(&a);
    return row;
}

fm_status suite_context(const cli_args *a, suite_report *r, fm_error *err)
{
    cli_session session;
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    o.no_tokenizer = true;
    fm_status status = cli_open(a, &o, &session, err);
    if (status) return status;
    cli_plot *plot = &r->plot;
    int most = en_get_plan(session.engine)->context - MEASURED;
    int vocab = en_describe(session.engine)->vocab;
    int32_t *ids = bs_calloc((size_t)(most > 0 ? most : 1), sizeof *ids);
    json_t *row = NULL;
    if (!ids) fm_fail_nomem(err, "running a suite");
    for (int i = 0; ids && i < most; i++) ids[i] = (int32_t)((i * 7919L + 17) % vocab);
    plot->title = "Speed as the context grows";
    plot->x_label = "tokens of context";
    plot->y_label = "tokens/s";
    int line = cli_plot_line(plot, "decode"), step = 1;
    for (; ids && step <= CONTEXT_STEPS; step++) {
        row = at_length(session.engine, ids, most * step / CONTEXT_STEPS, err);
        if (!row) break;
        cli_plot_point(plot, line, most * step / CONTEXT_STEPS,
                       json_number_value(json_object_get(row, "tok_s")));
        suite_add(r, row);
    }
    bs_free(ids);
    cli_close(&session, NULL);
    return step > CONTEXT_STEPS ? FM_OK : err->code;
}
