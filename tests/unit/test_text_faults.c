/* Every allocation of this room fails once: an error comes back, nothing leaks (under the
 * sanitizer), nothing is half done. And the limits on templates. */
#include "base/mem.h"
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* Run until it succeeds, with the first, second, ... allocation failing. */
typedef fm_status attempt(fm_error *err);

static void survives(attempt *fn)
{
    fm_status status = FM_E_NOMEM;
    fm_error err = {0};
    for (uint64_t n = 1; status && n < 20000; n++) {
        bs_mem_fail_at(n, false);
        status = fn(&err);
        bs_mem_fail_at(0, false);
        if (status) assert_true(status == FM_E_NOMEM);
    }
    assert_int_equal(status, FM_OK);
}

static fm_status open_and_use(const char *path, fm_error *err)
{
    static const char text[] = "Some te\xCC\x81xt, 123 <|a|> <s> \xF0\x9F\x98\x80 and a long word: "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\n";
    tx_segment parts[] = {{10, true}, {sizeof text - 11, false}};
    tx_tokenizer *t = NULL;
    tx_ids ids = {0};
    bs_buf out = {0};
    fm_status status = tx_tokenizer_open(path, &t, err);
    if (!status) status = tx_encode(t, text, sizeof text - 1, TX_ADD_SPECIAL, &ids, err);
    if (!status)
        status = tx_encode_segments(t, text, sizeof text - 1, parts, 2, NULL, 0, &ids, err);
    if (!status) status = tx_decode(t, ids.data, ids.length, false, &out, err);
    tx_tokenizer_free(t);
    tx_ids_free(&ids);
    bs_buf_free(&out);
    return status;
}

static fm_status use_nfkc(fm_error *err)
{
    return open_and_use("tests/fixtures/text/syn_nfkc_strip", err);
}

static fm_status use_metaspace(fm_error *err)
{
    return open_and_use("tests/fixtures/text/syn_metaspace_always", err);
}

static fm_status use_unigram(fm_error *err)
{
    return open_and_use("tests/fixtures/text/syn_unigram_bytes", err);
}

static fm_status use_old_layout(fm_error *err)
{
    return open_and_use("tests/fixtures/text/syn_vocab_merges", err);
}

static fm_status render(fm_error *err)
{
    static const char source[] =
        "{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{% set ns = namespace(n=0) %}{% for "
        "x in l|sort %}"
        "{% set ns.n = ns.n + x %}{{ m(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}{{ "
        "d|tojson(indent=2) }}{{ d }}"
        "{{ s|upper|replace('A', 'bb')|trim }}{{ s.split(',')|join('-') }}{{ '%s %d' % (s, 3) }}{{ "
        "'{:>5}'.format(s) }}"
        "{% set z %}{{ s }}{% endset %}{{ z[1:3] ~ z }}{{ d|dictsort }}{{ l|map('string')|list }}";
    json_t *context = json_loads(
        "{\"l\":[3,1,2],\"s\":\"a,b\",\"d\":{\"k\":[1,{\"x\":null}],\"role\":\"user\"}}", 0, NULL);
    tx_template *t = NULL;
    tx_rendered out = {0};
    fm_status status = tx_template_compile(source, strlen(source), NULL, &t, err);
    if (!status) status = tx_template_render(t, context, NULL, 0, &out, err);
    tx_rendered_free(&out);
    tx_template_free(t);
    json_decref(context);
    return status;
}

static tx_tokenizer *bundled;

static fm_status chat(fm_error *err)
{
    tx_chat *c = NULL;
    tx_prompt p = {0};
    tx_reply *r = NULL;
    tx_chat_request q = {.add_generation_prompt = true, .enable_thinking = -1};
    q.messages = json_loads(
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]}]", 0, NULL);
    fm_status status = tx_chat_open("models/flash-moe-tiny", bundled, &c, err);
    if (!status) status = tx_chat_prompt(c, &q, &p, err);
    if (!status) p.tool_format = TX_TOOLS_HERMES;
    if (!status) status = tx_reply_open(c, &p, NULL, NULL, NULL, &r, err);
    for (int32_t id = 40; !status && id < 60; id++) status = tx_reply_push(r, id, err);
    static const char call[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"b\"}}</"
                               "tool_call><tool_call>x</tool_call>";
    if (!status) status = tx_reply_push_text(r, call, strlen(call), err);
    if (!status) status = tx_reply_finish(r, err);
    tx_reply_free(r);
    tx_prompt_free(&p);
    tx_chat_free(c);
    json_decref(q.messages);
    return status;
}

static void allocations_fail(void **state)
{
    (void)state;
    fm_error err;
    setenv("FLASH_MOE_TOKENIZER_CACHE", "off", 1);
    survives(use_nfkc);
    survives(use_metaspace);
    survives(use_unigram);
    survives(use_old_layout);
    survives(render);
    assert_int_equal(tx_tokenizer_open("models/flash-moe-tiny", &bundled, &err), FM_OK);
    survives(chat);
    tx_tokenizer_free(bundled);
}

static fm_status run(const char *source, fm_error *err)
{
    tx_template *t = NULL;
    tx_rendered out = {0};
    json_t *context = json_object();
    fm_status status = tx_template_compile(source, strlen(source), NULL, &t, err);
    if (!status) status = tx_template_render(t, context, NULL, 0, &out, err);
    tx_rendered_free(&out);
    tx_template_free(t);
    json_decref(context);
    return status;
}

static void templates_have_limits(void **state)
{
    (void)state;
    static const char *const endless[] = {
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% "
        "endfor %}{% endfor %}{% endfor %}",
        "{{ 'x' * 900000000 }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s "
        "%}{% endfor %}",
        "{{ ([0] * 100000000)|length }}",
        "{{ '%999999999d' % 1 }}",
    };
    fm_error err;
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++)
        assert_true(run(endless[i], &err) != FM_OK);
    char deep[20001];
    memset(deep, '(', 10000);
    memset(deep + 10000, ')', 10000);
    deep[20000] = 0;
    deep[0] = deep[1] = '{';
    assert_int_equal(run(deep, &err), FM_E_LIMIT);
    assert_int_equal(run("{{ 1 + }}", &err), FM_E_FORMAT);
    assert_int_equal(run("{{ raise_exception('x') }}", &err), FM_E_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(templates_have_limits),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
