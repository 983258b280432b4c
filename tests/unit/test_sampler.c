/* The sampler: greedy ties, filters, penalties, seeds, hostile logits. */
#include "engine/sampler.h"

#include "base/mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 1000 };

static float logits[VOCAB];

/* Logit of token i falls with i; token 0 is the best. */
static void slope(double step)
{
    for (int i = 0; i < VOCAB; i++) logits[i] = (float)(-step * i);
}

static int32_t pick(en_sampler *s)
{
    static char scratch[VOCAB * 32];
    float row[VOCAB];
    memcpy(row, logits, sizeof row);
    int32_t id = -1;
    fm_error err;
    assert_true(sizeof scratch >= en_sampler_scratch(VOCAB));
    assert_int_equal(en_sampler_pick(s, row, scratch, &id, &err), FM_OK);
    return id;
}

static en_sampler *make(en_sampling set, const en_bias *bias, int n)
{
    en_sampler *s = NULL;
    fm_error err;
    assert_int_equal(en_sampler_create(&set, VOCAB, bias, n, &s, &err), FM_OK);
    return s;
}

static void greedy_takes_the_lower_id_of_equals(void **state)
{
    (void)state;
    slope(0);
    logits[7] = logits[9] = 3;
    en_sampler *s = make(en_sampling_default(), NULL, 0);
    assert_int_equal(pick(s), 7);
    en_sampler_free(s);
}

static void filters_bound_what_is_drawn(void **state)
{
    (void)state;
    slope(0.01);
    en_sampling set = en_sampling_default();
    set.temperature = 1;
    struct {
        int top_k;
        float top_p, min_p;
        int most;
    } cases[] = {{5, 1, 0, 4}, {0, 0.05f, 0, 5}, {0, 1, 0.9f, 10}, {1, 1, 0, 0}, {0, 0, 0, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        set.top_k = cases[c].top_k;
        set.top_p = cases[c].top_p;
        set.min_p = cases[c].min_p;
        en_sampler *s = make(set, NULL, 0);
        int seen = 0;
        for (int i = 0; i < 2000; i++) {
            int id = pick(s);
            assert_in_range(id, 0, cases[c].most);
            if (id > seen) seen = id;
        }
        assert_int_equal(seen, cases[c].most);
        en_sampler_free(s);
    }
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    for (int i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    logits[3] = logf(0.5f);
    logits[500] = logf(0.3f);
    logits[999] = logf(0.2f);
    en_sampling set = en_sampling_default();
    set.temperature = 1;
    set.seed = 42;
    en_sampler *s = make(set, NULL, 0);
    int count[3] = {0}, n = 20000;
    for (int i = 0; i < n; i++) {
        int32_t id = pick(s);
        count[id == 3 ? 0 : id == 500 ? 1 : 2]++;
    }
    assert_in_range(count[0], 9700, 10300);
    assert_in_range(count[1], 5700, 6300);
    assert_in_range(count[2], 3700, 4300);
    en_sampler_free(s);
}

static void a_seed_repeats_and_another_differs(void **state)
{
    (void)state;
    slope(0.01);
    en_sampling set = en_sampling_default();
    set.temperature = 0.8f;
    set.seed = 7;
    int32_t first[50];
    int same = 0;
    for (int run = 0; run < 3; run++) {
        set.seed = run < 2 ? 7 : 8;
        en_sampler *s = make(set, NULL, 0);
        for (int i = 0; i < 50; i++) {
            int32_t id = pick(s);
            if (run == 0) first[i] = id;
            if (run == 1) assert_int_equal(id, first[i]);
            if (run == 2) same += id == first[i];
        }
        en_sampler_free(s);
    }
    assert_in_range(same, 0, 10);
}

static void penalties_and_bias_act(void **state)
{
    (void)state;
    slope(0.1);
    logits[0] = 2;
    logits[1] = 1.9f;
    en_sampling set = en_sampling_default();
    set.repeat_penalty = 1.2f;
    en_sampler *s = make(set, NULL, 0);
    assert_int_equal(pick(s), 0);
    en_sampler_accept(s, 0, false, NULL);
    assert_int_equal(pick(s), 1);
    en_sampler_free(s);

    set = en_sampling_default();
    set.frequency_penalty = 0.06f;
    s = make(set, NULL, 0);
    en_sampler_accept(s, 0, false, NULL); /* a prompt token does not count */
    assert_int_equal(pick(s), 0);
    en_sampler_accept(s, 0, true, NULL);
    assert_int_equal(pick(s), 0);
    en_sampler_accept(s, 0, true, NULL);
    assert_int_equal(pick(s), 1);
    en_sampler_free(s);

    en_bias bias[] = {{0, -INFINITY}, {900, 200}};
    s = make(en_sampling_default(), bias, 2);
    assert_int_equal(pick(s), 900);
    en_sampler_free(s);
}

static void hostile_input_is_refused(void **state)
{
    (void)state;
    static char scratch[VOCAB * 32];
    fm_error err;
    int32_t id;
    en_sampler *s = make(en_sampling_default(), NULL, 0);
    slope(0.1);
    logits[500] = NAN;
    assert_int_equal(en_sampler_pick(s, logits, scratch, &id, &err), FM_E_NUMERIC);
    for (int i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    assert_int_equal(en_sampler_pick(s, logits, scratch, &id, &err), FM_E_NUMERIC);
    en_sampler_free(s);
    en_sampling set = en_sampling_default();
    set.temperature = NAN;
    assert_int_equal(en_sampling_check(&set, &err), FM_E_ARGUMENT);
    assert_non_null(strstr(err.message, "temperature"));
    en_bias bias = {VOCAB, 1};
    set = en_sampling_default();
    assert_int_equal(en_sampler_create(&set, VOCAB, &bias, 1, &s, &err), FM_E_ARGUMENT);
}

static void logprobs_are_of_the_softmax(void **state)
{
    (void)state;
    for (int i = 0; i < VOCAB; i++) logits[i] = -100;
    logits[10] = 1;
    logits[20] = 2;
    logits[30] = 0;
    float p;
    en_logprob top[2];
    en_logprobs(logits, VOCAB, 30, &p, top, 2);
    double sum = exp(1) + exp(2) + exp(0);
    assert_true(fabs(p - log(1 / sum)) < 1e-5);
    assert_int_equal(top[0].id, 20);
    assert_int_equal(top[1].id, 10);
    assert_true(fabs(top[1].logprob - log(exp(1) / sum)) < 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lower_id_of_equals),
        cmocka_unit_test(filters_bound_what_is_drawn),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(a_seed_repeats_and_another_differs),
        cmocka_unit_test(penalties_and_bias_act),
        cmocka_unit_test(hostile_input_is_refused),
        cmocka_unit_test(logprobs_are_of_the_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
