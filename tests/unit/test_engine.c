/* The engine on the bundled model: a request's tokens and logits are the same alone, in company,
 * with a reused prefix and as one of several choices; stop strings, cancelling, limits, saved
 * prefixes. */
#include "engine/engine.h"

#include "base/mem.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 96 };

typedef struct heard {
    int32_t tokens[MOST];
    int n, done, events, prompts;
    uint64_t hash; /* of all logits rows */
    bs_buf text;
    en_finish finish;
    en_request_stats stats;
    char stop[64], error[500];
    float logprob;
    en_logprob top[3];
    int cancel_after; /* tokens; 0: never */
} heard;

static bool on_event(void *arg, const en_event *e)
{
    heard *h = (heard *)arg + e->choice;
    h->events++;
    if (e->kind == EN_EVENT_PROMPT) h->prompts++;
    if (e->text_bytes) bs_buf_append(&h->text, e->text, e->text_bytes);
    if (e->kind == EN_EVENT_TOKEN) {
        if (h->n < MOST) h->tokens[h->n++] = e->token;
        h->logprob = e->logprob;
        for (int i = 0; i < e->n_top && i < 3; i++) h->top[i] = e->top[i];
        if (h->cancel_after && h->n >= h->cancel_after) return false;
    }
    if (e->kind == EN_EVENT_DONE) {
        h->done++;
        h->finish = e->finish;
        h->stats = *e->stats;
        if (e->stop) snprintf(h->stop, sizeof h->stop, "%s", e->stop);
        if (e->error) snprintf(h->error, sizeof h->error, "%s", e->error->message);
    }
    return true;
}

static void on_logits(void *arg, int choice, const float *logits, int vocab)
{
    heard *h = (heard *)arg + choice;
    for (int i = 0; i < vocab; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        h->hash = (h->hash ^ bits) * 0x100000001b3u;
    }
}

static en_engine *open_with(void (*change)(en_options *))
{
    en_options o = en_options_default();
    o.model = "models/flash-moe-tiny";
    o.threads = 2;
    o.context = 512;
    if (change) change(&o);
    en_engine *e = NULL;
    fm_error err = {0};
    if (en_open(&o, &e, &err)) fail_msg("%s", err.message);
    return e;
}

static void three_slots(en_options *o)
{
    o->parallel = 3;
    o->keep_prefixes = true;
    o->prefix_memory = 16 << 20;
}

static tx_ids encode(const en_engine *e, const char *text)
{
    tx_ids ids = {0};
    assert_int_equal(tx_encode(en_tokenizer(e), text, strlen(text), 0, &ids, NULL), FM_OK);
    return ids;
}

static en_request request(const en_engine *e, const tx_ids *ids, heard *h, int max_tokens)
{
    en_request r = en_request_default(e);
    r.prompt = ids->data;
    r.n_prompt = (int)ids->length;
    r.max_tokens = max_tokens;
    r.sampling = en_sampling_default();
    r.on_event = on_event;
    r.on_logits = on_logits;
    r.arg = h;
    return r;
}

static void submit(en_engine *e, const en_request *r)
{
    fm_error err = {0};
    if (en_submit(e, r, NULL, &err)) fail_msg("%s", err.message);
}

static void run(en_engine *e)
{
    while (en_step(e) > 0) {
    }
}

static void forget(heard *h)
{
    bs_buf_free(&h->text);
}

static const char *const prompts[3] = {
    "<|im_start|>user\nTell me a story about a fox and a crow.<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n",
    "<|im_start|>user\nWhat does grep do?<|im_end|>\n<|im_start|>assistant\n"};

static void company_changes_nothing(void **state)
{
    (void)state;
    heard alone[3] = {0}, together[3] = {0};
    en_engine *e = open_with(NULL);
    for (int i = 0; i < 3; i++) {
        tx_ids ids = encode(e, prompts[i]);
        en_request r = request(e, &ids, &alone[i], 24 + 8 * i);
        submit(e, &r);
        run(e);
        tx_ids_free(&ids);
        assert_int_equal(alone[i].done, 1);
        assert_true(alone[i].n > 4);
    }
    en_close(e);

    e = open_with(three_slots);
    for (int i = 0; i < 3; i++) {
        tx_ids ids = encode(e, prompts[i]);
        en_request r = request(e, &ids, &together[i], 24 + 8 * i);
        submit(e, &r);
        for (int s = 0; s < 3; s++) en_step(e); /* they join one after the other */
        tx_ids_free(&ids);
    }
    run(e);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(together[i].n, alone[i].n);
        assert_memory_equal(together[i].tokens, alone[i].tokens, sizeof(int32_t) * alone[i].n);
        assert_true(together[i].hash == alone[i].hash);
        assert_string_equal(together[i].text.data, alone[i].text.data);
        forget(&alone[i]);
        forget(&together[i]);
    }
    en_close(e);
}

static void a_reused_prefix_gives_the_same(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    tx_ids ids = encode(e, prompts[0]);
    heard first = {0}, again = {0}, fresh = {0}, other = {0};
    en_request r = request(e, &ids, &first, 20);
    submit(e, &r);
    run(e);
    assert_int_equal(first.stats.cached_tokens, 0);

    r.arg = &again; /* the same prompt once more */
    submit(e, &r);
    run(e);
    assert_int_equal(again.stats.cached_tokens, r.n_prompt - 1);
    assert_int_equal(again.n, first.n);
    assert_true(again.hash == first.hash);

    /* A second turn goes on from the first: everything before the new text is there. */
    for (int i = 0; i < first.n; i++) tx_ids_push(&ids, first.tokens[i]);
    tx_ids more = encode(e, "\n<|im_start|>user\nAnd a wolf?<|im_end|>\n<|im_start|>assistant\n");
    for (size_t i = 0; i < more.length; i++) tx_ids_push(&ids, more.data[i]);
    heard turn = {0}, turn_fresh = {0};
    r = request(e, &ids, &turn, 16);
    submit(e, &r);
    run(e);
    assert_true(turn.stats.cached_tokens >= (int)(ids.length - more.length) - first.n - 1);
    r.arg = &turn_fresh;
    r.no_cache = true;
    submit(e, &r);
    run(e);
    assert_int_equal(turn_fresh.stats.cached_tokens, 0);
    assert_true(turn.hash == turn_fresh.hash);

    r.no_cache = false; /* another scope shares nothing */
    r.scope = 9;
    r.arg = &other;
    submit(e, &r);
    run(e);
    assert_int_equal(other.stats.cached_tokens, 0);
    assert_true(other.hash == turn.hash);
    heard *all[] = {&first, &again, &fresh, &other, &turn, &turn_fresh};
    for (int i = 0; i < 6; i++) forget(all[i]);
    tx_ids_free(&ids);
    tx_ids_free(&more);
    en_close(e);
}

/* What a server's /metrics does meanwhile; for the thread sanitizer (make check-tsan). */
typedef struct onlooker {
    en_engine *engine;
    pthread_t thread;
    _Atomic bool enough, beyond;
} onlooker;

static void *look_on(void *arg)
{
    onlooker *o = arg;
    while (!o->enough) {
        en_stats s;
        en_get_stats(o->engine, &s);
        if (s.prefix_bytes > en_get_plan(o->engine)->prefix_bytes) o->beyond = true;
    }
    return NULL;
}

static void conversations_outlive_their_slots(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    onlooker looker = {.engine = e};
    assert_int_equal(pthread_create(&looker.thread, NULL, look_on, &looker), 0);
    heard first[5] = {0}, again[5] = {0};
    tx_ids ids[5];
    for (int i = 0; i < 5; i++) {
        char text[600] = "";
        for (int k = 0; k < 12; k++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%d times %d is; ", i + 3, k);
        ids[i] = encode(e, text);
        en_request r = request(e, &ids[i], &first[i], 8);
        submit(e, &r);
        run(e);
    }
    for (int i = 0; i < 5; i++) {
        en_request r = request(e, &ids[i], &again[i], 8);
        submit(e, &r);
        run(e);
        assert_true(again[i].stats.cached_tokens > 0);
        assert_true(again[i].hash == first[i].hash);
        tx_ids_free(&ids[i]);
        forget(&first[i]);
        forget(&again[i]);
    }
    en_forget_prefixes(e, 0, true);
    looker.enough = true;
    pthread_join(looker.thread, NULL);
    assert_false(looker.beyond);
    en_stats s;
    en_get_stats(e, &s);
    assert_int_equal(s.prefix_bytes, 0);
    en_close(e);
}

static void saved_prefixes_come_back(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    heard first = {0}, again = {0};
    tx_ids ids = encode(e, prompts[0]);
    en_request r = request(e, &ids, &first, 12);
    submit(e, &r);
    run(e);
    en_prefix_entry entry;
    assert_true(en_prefix_info(e, 0, &entry));
    assert_false(en_prefix_info(e, 1, &entry));
    assert_true(en_prefix_info(e, 0, &entry));
    char *bytes = bs_malloc(entry.bytes);
    assert_int_equal(en_prefix_export(e, 0, bytes, NULL), FM_OK);
    size_t n = entry.bytes;
    en_close(e);

    e = open_with(three_slots);
    fm_error err;
    bytes[n / 2] ^= 1;
    assert_int_equal(en_prefix_import(e, 0, bytes, n, &err), FM_E_FORMAT);
    bytes[n / 2] ^= 1;
    assert_int_equal(en_prefix_import(e, 0, bytes, n - 1, &err), FM_E_FORMAT);
    assert_int_equal(en_prefix_import(e, 0, bytes, 4, &err), FM_E_FORMAT);
    assert_int_equal(en_prefix_import(e, 0, bytes, n, &err), FM_OK);
    r = request(e, &ids, &again, 12);
    submit(e, &r);
    run(e);
    assert_int_equal(again.stats.cached_tokens, r.n_prompt - 1);
    assert_true(again.hash == first.hash);
    en_close(e);

    en_options o = en_options_default();
    o.model = "models/flash-moe-tiny";
    o.kv_bits = 8; /* another setting: not the same state */
    o.keep_prefixes = true;
    assert_int_equal(en_open(&o, &e, &err), FM_OK);
    assert_int_equal(en_prefix_import(e, 0, bytes, n, &err), FM_E_STALE);
    en_close(e);
    bs_free(bytes);
    tx_ids_free(&ids);
    forget(&first);
    forget(&again);
}

/* Two conversations in one slot: each makes the other a stored one, of all or of a part of which
 * the next request makes use. */
static void take_turns(const char *folder, int kv_bits)
{
    enum { LENGTH = 90, PART = 40 };
    en_options o = en_options_default();
    o.model = folder;
    o.no_tokenizer = o.keep_prefixes = true;
    o.kv_bits = kv_bits;
    o.context = 128;
    o.prefix_memory = 16 << 20;
    en_engine *e = NULL;
    fm_error err = {0};
    if (en_open(&o, &e, &err)) fail_msg("%s: %s", folder, err.message);
    int32_t ids[2][LENGTH];
    for (int i = 0; i < 2 * LENGTH; i++)
        ids[i / LENGTH][i % LENGTH] = (i * 37 + i / LENGTH) % en_describe(e)->vocab;
    uint64_t fresh[4];
    for (int turn = 0; turn < 12; turn++) {
        heard h = {0};
        tx_ids prompt = {.data = ids[turn % 2], .length = turn % 4 < 2 ? LENGTH : PART};
        en_request r = request(e, &prompt, &h, 8);
        r.ignore_end = true;
        r.no_cache = turn < 4;
        submit(e, &r);
        run(e);
        assert_int_equal(h.done, 1);
        if (turn < 4) fresh[turn] = h.hash;
        else if (h.hash != fresh[turn % 4])
            fail_msg("%s, %d bits: turn %d differs", folder, kv_bits, turn);
        /* a recurrent state is kept where a prompt or an answer ended, not within */
        if (turn >= 6 && h.stats.cached_tokens == 0 && md_snapshot_bytes(en_model(e)) == 0)
            fail_msg("%s, %d bits: turn %d reuses nothing", folder, kv_bits, turn);
        forget(&h);
    }
    en_close(e);
}

static void stored_conversations_of_every_kind_come_back(void **state)
{
    (void)state;
    static const char *const kinds[] = {"qwen3_moe",  "gpt_oss", "deepseek_v3",
                                        "qwen3_next", "jamba",   "granitemoehybrid"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int bits = 8; bits <= 32; bits *= 2) {
            char folder[80];
            snprintf(folder, sizeof folder, "tests/fixtures/families/mlx_%s", kinds[i]);
            take_turns(folder, bits);
        }
}

static void choices_share_their_prompt(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    heard h[5] = {0}, alone = {0};
    tx_ids ids = encode(e, prompts[0]);
    en_request r = request(e, &ids, h, 16);
    r.n = 5;
    r.sampling.temperature = 1;
    r.sampling.seed = 11;
    submit(e, &r);
    run(e);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(h[i].done, 1);
        assert_true(i == 0 || h[i].stats.cached_tokens > 0);
    }
    assert_true(h[1].hash != h[0].hash || h[2].hash != h[0].hash);
    r.n = 1;
    r.sampling.seed = 11 + 3;
    r.arg = &alone;
    r.no_cache = true;
    submit(e, &r);
    run(e);
    assert_int_equal(alone.n, h[3].n);
    assert_true(alone.hash == h[3].hash);
    for (int i = 0; i < 5; i++) forget(&h[i]);
    forget(&alone);
    tx_ids_free(&ids);
    en_close(e);
}

static void stop_strings_are_held_back(void **state)
{
    (void)state;
    en_engine *e = open_with(NULL);
    tx_ids ids = encode(e, prompts[0]);
    heard whole = {0};
    en_request r = request(e, &ids, &whole, 40);
    submit(e, &r);
    run(e);
    assert_true(whole.text.length > 30);
    for (size_t at = 3; at + 6 < whole.text.length; at += 5) {
        char stop[7] = {0};
        memcpy(stop, whole.text.data + at, 6);
        size_t where = (size_t)(strstr(whole.text.data, stop) - whole.text.data);
        const char *stops[] = {"never written", stop};
        heard h = {0};
        r.stop = stops;
        r.n_stop = 2;
        r.arg = &h;
        submit(e, &r);
        run(e);
        assert_int_equal(h.finish, EN_FINISH_STOP);
        assert_string_equal(h.stop, stop);
        assert_int_equal(h.text.length, where);
        if (where) assert_memory_equal(h.text.data, whole.text.data, where);
        forget(&h);
    }
    forget(&whole);
    tx_ids_free(&ids);
    en_close(e);
}

static void ends_and_limits(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    tx_ids ids = encode(e, prompts[0]);
    fm_error err;
    heard h = {0};
    en_request r = request(e, &ids, &h, 0);
    submit(e, &r); /* the prompt alone */
    run(e);
    assert_int_equal(h.finish, EN_FINISH_LENGTH);
    assert_int_equal(h.n, 0);
    assert_true(h.hash != 0);

    heard cut = {.cancel_after = 3};
    r = request(e, &ids, &cut, 50);
    submit(e, &r);
    run(e);
    assert_int_equal(cut.finish, EN_FINISH_CANCELLED);
    assert_int_equal(cut.n, 3);

    heard gone = {0};
    uint64_t id;
    r = request(e, &ids, &gone, 50);
    assert_int_equal(en_submit(e, &r, &id, &err), FM_OK);
    for (int i = 0; i < 4; i++) en_step(e);
    en_cancel(e, id);
    en_cancel(e, 12345);
    run(e);
    assert_int_equal(gone.finish, EN_FINISH_CANCELLED);
    assert_int_equal(gone.done, 1);

    r.n_prompt = 0;
    assert_int_equal(en_submit(e, &r, NULL, &err), FM_E_ARGUMENT);
    int32_t wrong = 8192;
    r.prompt = &wrong;
    r.n_prompt = 1;
    assert_int_equal(en_submit(e, &r, NULL, &err), FM_E_ARGUMENT);
    int32_t many[512] = {0};
    r.prompt = many;
    r.n_prompt = 512;
    assert_int_equal(en_submit(e, &r, NULL, &err), FM_E_LIMIT);
    assert_non_null(strstr(err.message, "512"));

    /* The context fills up: a prompt of 500 leaves room for twelve tokens. */
    heard full = {0};
    r = request(e, &ids, &full, -1);
    r.prompt = many;
    r.n_prompt = 500;
    r.ignore_end = true;
    submit(e, &r);
    run(e);
    assert_int_equal(full.finish, EN_FINISH_LENGTH);
    assert_int_equal(full.n, 12);
    forget(&full);
    forget(&gone);
    forget(&cut);
    tx_ids_free(&ids);
    heard closed = {0}; /* closing ends what runs */
    ids = encode(e, prompts[1]);
    r = request(e, &ids, &closed, 50);
    submit(e, &r);
    en_step(e);
    en_close(e);
    assert_int_equal(closed.done, 1);
    assert_int_equal(closed.finish, EN_FINISH_CANCELLED);
    forget(&closed);
    tx_ids_free(&ids);
}

static bool only_seven(void *arg, int choice, float *logits, int vocab)
{
    (void)arg, (void)choice;
    for (int i = 0; i < vocab; i++)
        if (i != 777) logits[i] = -1.0f / 0.0f;
    return true;
}

static bool three_are_enough(void *arg, int choice, int32_t token)
{
    (void)choice;
    assert_int_equal(token, 777);
    return ++*(int *)arg < 3;
}

static void masks_and_logprobs(void **state)
{
    (void)state;
    en_engine *e = open_with(NULL);
    tx_ids ids = encode(e, prompts[0]);
    heard h = {0}, m = {0};
    en_request r = request(e, &ids, &h, 1);
    r.logprobs = 3;
    submit(e, &r);
    run(e);
    assert_int_equal(h.top[0].id, h.tokens[0]);
    assert_true(h.top[0].logprob == h.logprob);
    assert_true(h.top[1].logprob <= h.top[0].logprob && h.logprob < 0);
    int count = 0;
    r = request(e, &ids, &m, 10);
    r.mask = (en_mask){only_seven, three_are_enough, &count};
    submit(e, &r);
    run(e);
    assert_int_equal(m.n, 3);
    assert_int_equal(m.finish, EN_FINISH_STOP);
    forget(&h);
    forget(&m);
    tx_ids_free(&ids);
    en_close(e);
}

static void tight(en_options *o)
{
    o->memory = 1 << 20;
}

/* The slower of memory and disk, each at its rate, bounds decoding. */
static void the_bound_is_the_slower_of_two(void **state)
{
    (void)state;
    en_stats s = {.decode_tok_s = 4, .memory_bytes_per_token = 1e9, .disk_bytes_per_token = 1e8};
    en_reckon_bound(&s, 1e9, 5e9); /* 0.1 s from disk, 0.2 s from memory */
    assert_float_equal(s.bound_tok_s, 5, 1e-9);
    assert_float_equal(s.bound_fraction, 0.8, 1e-9);
    en_reckon_bound(&s, 4e8, 5e9); /* 0.25 s from disk */
    assert_float_equal(s.bound_tok_s, 4, 1e-9);
    en_reckon_bound(&s, 0, 0);
    assert_float_equal(s.bound_fraction, 0, 0);
}

/* With all experts in memory: 70 % of what the memory's rate allows; from a slow disk, of that. */
static void forecasts_are_a_share_of_the_bound(void **state)
{
    (void)state;
    md_options o = {.isa = KN_ISA_PORTABLE};
    md_model *m;
    assert_int_equal(md_open("models/flash-moe-tiny", &o, &m, NULL), FM_OK);
    en_plan_request r = {.capacity = -1, .memory_bytes_s = 1e9, .disk_bytes_s = 1e6};
    r.experts.capacity = -1;
    en_plan p;
    assert_int_equal(en_make_plan(m, &r, &p, NULL), FM_OK);
    uint64_t picks = (uint64_t)(md_describe(m)->top_k * md_describe(m)->n_moe_layers);
    double moved = (double)md_pass_traffic(m, picks, md_state_traffic(m, 0));
    double half = 0.5 * (double)(picks * md_describe(m)->expert_bytes);
    assert_float_equal(p.forecast[p.n_forecasts - 1].tok_s, 0.7 * 1e9 / moved, 1e-3);
    assert_float_equal(p.forecast[0].hit_rate, 0.5, 1e-6);
    assert_float_equal(p.forecast[0].tok_s, 0.7 * 1e6 / half, 1e-3);
    md_close(m);
}

static void few_slots(en_options *o)
{
    o->capacity = 16;
}

/* Nobody has to ask for hints. */
static void experts_are_read_ahead_by_default(void **state)
{
    (void)state;
    en_engine *e = open_with(few_slots);
    heard h = {0};
    tx_ids ids = encode(e, prompts[0]);
    en_request r = request(e, &ids, &h, 24);
    submit(e, &r);
    run(e);
    en_stats s;
    en_get_stats(e, &s);
    assert_true(s.expert_misses > 0 && s.prefetch_useful + s.prefetch_wasted > 0);
    forget(&h);
    tx_ids_free(&ids);
    en_close(e);
}

/* One request moves all active weights a token and its state at each position; requests that are
 * answered together share the resident weights and the experts that several of them picked. */
static void what_a_token_moves_is_counted(void **state)
{
    (void)state;
    en_engine *e = open_with(three_slots);
    const md_info *info = en_describe(e);
    uint64_t picks = (uint64_t)info->top_k * (uint64_t)info->n_moe_layers;
    double moved[2];
    for (int together = 0; together < 2; together++) {
        heard h[3] = {0};
        tx_ids ids = encode(e, prompts[1]);
        for (int i = 0; i < (together ? 3 : 1); i++) {
            en_request r = request(e, &ids, &h[i], 5);
            r.ignore_end = r.no_cache = true;
            submit(e, &r);
        }
        en_reset_stats(e);
        run(e);
        en_stats s;
        en_get_stats(e, &s);
        moved[together] = s.memory_bytes_per_token;
        uint64_t all = 0; /* of a prompt and five tokens, four are fed */
        for (int i = 0; i < 4; i++)
            all += md_pass_traffic(en_model(e), picks,
                                   md_state_traffic(en_model(e), (int)ids.length + i));
        if (!together) assert_float_equal(moved[0], (double)all / 4, 1);
        for (int i = 0; i < 3; i++) forget(&h[i]);
        tx_ids_free(&ids);
    }
    assert_true(moved[1] < moved[0] / 2 && moved[1] > moved[0] / 3);
    en_close(e);
}

static void a_budget_below_the_floor_names_it(void **state)
{
    (void)state;
    en_options o = en_options_default();
    o.model = "models/flash-moe-tiny";
    tight(&o);
    en_engine *e;
    fm_error err;
    assert_int_equal(en_open(&o, &e, &err), FM_E_BUDGET);
    assert_non_null(strstr(err.message, "floor of"));
    assert_null(e);
}

/* Every allocation of opening and of an answer fails once: an error, no crash, no leak. */
static void out_of_memory_anywhere(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth += nth < 12 ? 1 : nth / 4) {
        en_options o = en_options_default();
        o.model = "models/flash-moe-tiny";
        o.context = 64;
        o.threads = 1;
        en_engine *e = NULL;
        heard h = {0};
        int32_t prompt[] = {1, 540, 201};
        tx_ids ids = {prompt, 3, 3};
        bs_mem_fail_at(nth, false);
        fm_status status = en_open(&o, &e, NULL);
        if (!status) {
            en_request r = request(e, &ids, &h, 3);
            r.arg = &h;
            if (!en_submit(e, &r, NULL, NULL)) run(e);
        }
        uint64_t made = bs_mem_fail_at(0, false);
        en_close(e);
        forget(&h);
        if (made < nth) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(a_reused_prefix_gives_the_same),
        cmocka_unit_test(conversations_outlive_their_slots),
        cmocka_unit_test(saved_prefixes_come_back),
        cmocka_unit_test(stored_conversations_of_every_kind_come_back),
        cmocka_unit_test(choices_share_their_prompt),
        cmocka_unit_test(stop_strings_are_held_back),
        cmocka_unit_test(ends_and_limits),
        cmocka_unit_test(masks_and_logprobs),
        cmocka_unit_test(the_bound_is_the_slower_of_two),
        cmocka_unit_test(forecasts_are_a_share_of_the_bound),
        cmocka_unit_test(experts_are_read_ahead_by_default),
        cmocka_unit_test(what_a_token_moves_is_counted),
        cmocka_unit_test(a_budget_below_the_floor_names_it),
        cmocka_unit_test(out_of_memory_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
