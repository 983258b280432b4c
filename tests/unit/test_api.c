/* The public API: a chat keeps what it computed, text and ids, stopping, several threads, errors.
 */
#include "flash_moe.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MODEL "models/flash-moe-tiny"

static fm_model *open_model(int parallel)
{
    fm_options o = fm_options_default();
    fm_error err = {0};
    fm_model *m = NULL;
    o.context = 512;
    o.threads = 2;
    o.parallel = parallel;
    if (fm_model_open(MODEL, &o, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static fm_session *open_session(fm_model *m)
{
    fm_session *s = NULL;
    assert_int_equal(fm_session_open(m, &s, NULL), FM_OK);
    return s;
}

typedef struct sink {
    char text[4096];
    int tokens, stop_after;
    fm_session *session;
} sink;

static bool collect(void *arg, const fm_token *t)
{
    sink *k = arg;
    assert_int_equal(strlen(t->text), t->text_bytes);
    strncat(k->text, t->text, sizeof k->text - strlen(k->text) - 1);
    k->tokens += t->id >= 0;
    if (k->session && k->tokens == 2) fm_session_stop(k->session);
    return !(k->stop_after && k->tokens >= k->stop_after);
}

static fm_generation greedy(const fm_model *m, int tokens)
{
    fm_generation g = fm_generation_default(m);
    g.temperature = 0;
    g.max_tokens = tokens;
    return g;
}

static void a_chat_goes_on(void **state)
{
    (void)state;
    fm_model *m = open_model(1);
    fm_session *s = open_session(m);
    fm_error err;
    fm_result first, second;
    sink k = {0}, l = {0};
    fm_generation g = greedy(m, 40);
    assert_int_equal(fm_session_generate(s, &g, NULL, NULL, NULL, &err), FM_E_ARGUMENT);
    assert_int_equal(fm_session_message(s, "user", "What does grep do?", &err), FM_OK);
    assert_int_equal(fm_session_generate(s, &g, collect, &k, &first, &err), FM_OK);
    assert_non_null(strstr(k.text, "grep"));
    assert_int_equal(first.tokens, k.tokens);
    assert_int_equal(fm_session_text(s, "raw", &err), FM_E_ARGUMENT);
    assert_int_equal(fm_session_message(s, "user", "And ls?", &err), FM_OK);
    assert_int_equal(fm_session_generate(s, &g, collect, &l, &second, &err), FM_OK);
    assert_true(second.reused_tokens >= first.prompt_tokens - 1);

    fm_statistics t;
    fm_model_statistics(m, &t);
    assert_int_equal(t.tokens, first.tokens + second.tokens);
    char *json = fm_model_statistics_json(m);
    assert_non_null(strstr(json, "\"decode_tok_s\":"));
    flash_free(json);
    fm_session_close(s);
    fm_model_close(m);
}

static void text_and_ids_are_the_same(void **state)
{
    (void)state;
    fm_model *m = open_model(1);
    fm_generation g = greedy(m, 20);
    sink a = {0}, b = {0};
    fm_error err;
    int n;
    int32_t *ids = fm_model_tokenize(m, "Once upon a time", true, &n, &err);
    assert_non_null(ids);
    char *text = fm_model_detokenize(m, ids, n, &err);
    assert_string_equal(text, "Once upon a time");
    fm_session *s = open_session(m);
    assert_int_equal(fm_session_text(s, text, &err), FM_OK);
    assert_int_equal(fm_session_length(s), n);
    assert_int_equal(fm_session_generate(s, &g, collect, &a, NULL, &err), FM_OK);
    fm_session_clear(s);
    assert_int_equal(fm_session_tokens(s, ids, n, &err), FM_OK);
    assert_int_equal(fm_session_generate(s, &g, collect, &b, NULL, &err), FM_OK);
    assert_string_equal(a.text, b.text);
    int32_t wrong = 1 << 20;
    assert_int_equal(fm_session_tokens(s, &wrong, 1, &err), FM_E_ARGUMENT);
    flash_free(ids);
    flash_free(text);
    fm_session_close(s);
    fm_model_close(m);
}

static void stopping(void **state)
{
    (void)state;
    fm_model *m = open_model(1);
    fm_session *s = open_session(m);
    fm_generation g = greedy(m, 100);
    fm_result r;
    fm_error err;
    sink k = {.stop_after = 3}, l = {.session = s};
    fm_session_text(s, "Once upon a time", &err);
    assert_int_equal(fm_session_generate(s, &g, collect, &k, &r, &err), FM_OK);
    assert_string_equal(r.finish_reason, "cancelled");
    assert_int_equal(r.tokens, 3);
    assert_int_equal(fm_session_generate(s, &g, collect, &l, &r, &err), FM_OK);
    assert_string_equal(r.finish_reason, "cancelled");
    assert_int_equal(r.tokens, 2);
    g.max_tokens = 5;
    assert_int_equal(fm_session_generate(s, &g, NULL, NULL, &r, &err), FM_OK);
    assert_string_equal(r.finish_reason, "length");
    fm_session_close(s);
    fm_model_close(m);
}

typedef struct job {
    fm_model *model;
    const char *prompt;
    sink heard;
    fm_status status;
} job;

static void *work(void *arg)
{
    job *j = arg;
    fm_session *s = NULL;
    fm_generation g = greedy(j->model, 24);
    j->status = fm_session_open(j->model, &s, NULL);
    if (!j->status) j->status = fm_session_message(s, "user", j->prompt, NULL);
    if (!j->status) j->status = fm_session_generate(s, &g, collect, &j->heard, NULL, NULL);
    fm_session_close(s);
    return NULL;
}

static void threads_get_what_they_would_alone(void **state)
{
    (void)state;
    static const char *const prompts[] = {"What does grep do?", "What does ls do?",
                                          "Tell me a story about a wolf.", "Who are you?"};
    job alone[4], together[4];
    pthread_t threads[4];
    fm_model *m = open_model(1);
    for (int i = 0; i < 4; i++) {
        alone[i] = (job){.model = m, .prompt = prompts[i]};
        work(&alone[i]);
    }
    fm_model_close(m);
    m = open_model(3); /* one of the four has to wait */
    for (int i = 0; i < 4; i++) {
        together[i] = (job){.model = m, .prompt = prompts[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &together[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(together[i].status, FM_OK);
        assert_string_equal(together[i].heard.text, alone[i].heard.text);
    }
    fm_model_close(m);
}

static void errors_speak(void **state)
{
    (void)state;
    fm_model *m = NULL;
    fm_error err = {0};
    assert_int_equal(fm_model_open("/nowhere", NULL, &m, &err), FM_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere"));
    assert_null(m);
    fm_options o = fm_options_default();
    o.memory_bytes = 1 << 20;
    assert_int_equal(fm_model_open(MODEL, &o, &m, &err), FM_E_BUDGET);
    assert_non_null(strstr(err.message, "floor"));
    o = fm_options_default();
    o.policy = "mru";
    assert_int_equal(fm_model_open(MODEL, &o, &m, &err), FM_E_ARGUMENT);
    assert_null(flash_generate("/nowhere", "hi", 3, &err));
    fm_model_close(NULL);
    fm_session_close(NULL);
    flash_free(NULL);

    char *answer = flash_generate(MODEL, "What does grep do?", 12, &err);
    assert_non_null(answer);
    assert_true(strlen(answer) > 5);
    flash_free(answer);
    assert_string_equal(flash_version(), FLASH_MOE_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_goes_on), cmocka_unit_test(text_and_ids_are_the_same),
        cmocka_unit_test(stopping),       cmocka_unit_test(threads_get_what_they_would_alone),
        cmocka_unit_test(errors_speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
