/* The chat layer: prompts, end tokens, and replies in every format, whole and a byte at a time. */
#include "base/buf.h"
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static const char model[] = "models/flash-moe-tiny";

/* What a reply came to, as one line: content|reasoning|name(args) name(args) */
typedef struct seen {
    bs_buf content, reasoning, calls;
} seen;

static fm_status note(void *arg, const tx_delta *d, fm_error *err)
{
    seen *s = arg;
    (void)err;
    if (d->kind == TX_DELTA_CONTENT) bs_buf_append(&s->content, d->text, d->length);
    else if (d->kind == TX_DELTA_REASONING) bs_buf_append(&s->reasoning, d->text, d->length);
    else bs_buf_printf(&s->calls, "%s(%s)", d->name, d->text);
    return FM_OK;
}

static const char *text_of(const bs_buf *b)
{
    return b->data ? b->data : "";
}

static void check(tx_tool_format format, bool reasoning, const char *tools, const char *text,
                  const char *content, const char *thought, const char *calls)
{
    size_t n = strlen(text);
    for (size_t step = 1; step <= n; step = step == 1 ? 7 : step == 7 && n > 7 ? n : n + 1) {
        seen s = {0};
        tx_reply *r;
        fm_error err;
        json_t *list = tools ? json_loads(tools, 0, NULL) : NULL;
        assert_int_equal(tx_reply_open_text(format, reasoning, list, note, &s, &r, &err), FM_OK);
        for (size_t at = 0; at < n; at += step)
            assert_int_equal(tx_reply_push_text(r, text + at, n - at < step ? n - at : step, &err),
                             FM_OK);
        assert_int_equal(tx_reply_finish(r, &err), FM_OK);
        assert_string_equal(text_of(&s.content), content);
        assert_string_equal(text_of(&s.reasoning), thought);
        assert_string_equal(text_of(&s.calls), calls);
        tx_reply_free(r);
        json_decref(list);
        bs_buf_free(&s.content);
        bs_buf_free(&s.reasoning);
        bs_buf_free(&s.calls);
    }
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
    "\"a\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"},\"l\":{\"type\":\"array\"}}}}}]";

static void plain_and_thinking(void **state)
{
    (void)state;
    check(TX_TOOLS_NONE, false, NULL, "Hello <b>world</b> ", "Hello <b>world</b> ", "", "");
    check(TX_TOOLS_NONE, false, NULL, "<think>\nhm </th\n</think>\n\nYes.", "Yes.", "hm </th", "");
    check(TX_TOOLS_HERMES, true, NULL, "so\n</think>\n\nYes <think>", "Yes <think>", "so", "");
    check(TX_TOOLS_HERMES, true, NULL, "never closed", "", "never closed", "");
    check(TX_TOOLS_MISTRAL, false, NULL, "[THINK]x[/THINK]y", "y", "x", "");
}

static void json_formats(void **state)
{
    (void)state;
    check(TX_TOOLS_HERMES, false, NULL,
          "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": "
          "1.50}}\n</tool_call>\n<tool_call>\n"
          "{\"arguments\": {\"s\": \"</x>\"}, \"name\": \"g\"}\n</tool_call>",
          "Let me see.", "", "f({\"a\": 1.50})g({\"s\": \"</x>\"})");
    check(TX_TOOLS_HERMES, false, NULL, "a <tool_call>{broken</tool_call> b",
          "a <tool_call>{broken</tool_call> b", "", "");
    check(TX_TOOLS_HERMES, false, NULL, "<tool_call>{\"name\":\"f\",\"arguments\":{}}", "", "",
          "f({})");
    check(TX_TOOLS_MISTRAL, false, NULL,
          "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"x\"}]", "", "",
          "f({\"a\": 1})");
    check(TX_TOOLS_MISTRAL, false, NULL,
          "ok[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]1[ARGS]{}", "ok", "",
          "f({\"a\": 1})g({})");
    check(TX_TOOLS_KIMI, false, NULL,
          "Hi<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_"
          "begin|>{\"a\": 2}"
          "<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|tool_"
          "call_end|>"
          "<|tool_calls_section_end|>",
          "Hi", "", "f({\"a\": 2})g({})");
    check(TX_TOOLS_HUNYUAN, false, NULL, "<think>\nt\n</think>\n<answer>\nfine\n</answer>", "fine",
          "t", "");
    check(TX_TOOLS_HUNYUAN, false, NULL,
          "<tool_calls>[{\"name\": \"f\", \"arguments\": {\"a\": 3}}]</tool_calls>", "", "",
          "f({\"a\": 3})");
    check(TX_TOOLS_GRANITE, false, NULL,
          "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 3}}]", "", "", "f({\"a\": 3})");
}

#define DS(x) "<｜tool▁" x "｜>"

static void other_formats(void **state)
{
    (void)state;
    check(
        TX_TOOLS_DEEPSEEK, false, NULL,
        "Ok" DS("calls▁begin")
            DS("call▁begin") "function" DS("sep") "f\n```json\n{\"a\": 1}\n```" DS(
                "call▁end") "\n" DS("call▁begin") "function" DS("sep") "g\n```json\n{}\n```" DS("ca"
                                                                                                "ll"
                                                                                                "▁e"
                                                                                                "n"
                                                                                                "d")
                DS("calls▁end"),
        "Ok", "", "f({\"a\": 1})g({})");
    check(TX_TOOLS_DEEPSEEK, true, NULL,
          "r</think>" DS("calls▁begin") DS("call▁begin") "f" DS("sep") "{\"a\": 1}" DS("call▁end")
              DS("calls▁end"),
          "", "r", "f({\"a\": 1})");
    check(TX_TOOLS_DEEPSEEK, false, tools,
          "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"s\" "
          "string=\"true\">1"
          "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"l\" "
          "string=\"false\">[1]</｜DSML｜parameter>\n</｜DSML｜invoke>\n"
          "</｜DSML｜function_calls>",
          "", "", "f({\"s\":\"1\",\"l\":[1]})");
    check(TX_TOOLS_QWEN_XML, false, tools,
          "Go.\n<tool_call>\n<function=f>\n<parameter=a>\n7\n</parameter>\n<parameter=s>\n12\n\n</"
          "parameter>\n"
          "<parameter=l>\n[1, \"x\"]\n</parameter>\n</function>\n</tool_call>",
          "Go.", "", "f({\"a\":7,\"s\":\"12\\n\",\"l\":[1,\"x\"]})");
    check(TX_TOOLS_GLM, false, tools,
          "\n<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>7</arg_value>\n<arg_key>s</"
          "arg_key>\n<arg_value>7</arg_value>\n"
          "</tool_call>",
          "", "", "f({\"a\":7,\"s\":\"7\"})");
    check(TX_TOOLS_GLM, false, NULL, "<tool_call>now</tool_call>", "", "", "now({})");
    check(TX_TOOLS_MINIMAX, false, tools,
          "<think>x</think>\n\nDo\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter "
          "name=\"a\">7</parameter>\n"
          "<parameter name=\"s\">a\nb</parameter>\n</invoke>\n<invoke "
          "name=\"g\">\n</invoke>\n</minimax:tool_call>",
          "Do", "x", "f({\"a\":7,\"s\":\"a\\nb\"})g({})");
    check(TX_TOOLS_HARMONY, false, NULL,
          "<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>commentary "
          "to=functions.f "
          "<|constrain|>json<|message|>{\"a\":1}<|call|>",
          "", "think", "f({\"a\":1})");
    check(TX_TOOLS_HARMONY, false, NULL,
          "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>"
          "Hello.<|return|>",
          "Hello.", "t", "");
}

static void prompts(void **state)
{
    (void)state;
    tx_tokenizer *t;
    tx_chat *c;
    fm_error err;
    tx_prompt p = {0};
    size_t n;
    assert_int_equal(tx_tokenizer_open(model, &t, &err), FM_OK);
    assert_int_equal(tx_chat_open(model, t, &c, &err), FM_OK);
    assert_true(tx_chat_has_template(c));
    tx_chat_eos_ids(c, &n);
    assert_int_equal(n, 2);
    assert_true(tx_chat_is_eos(c, 2) && tx_chat_is_eos(c, 0));
    tx_chat_request q = {.add_generation_prompt = true, .enable_thinking = -1};
    q.messages = json_loads(
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a<|im_end|>\"}]}]", 0,
        NULL);
    assert_int_equal(tx_chat_prompt(c, &q, &p, &err), FM_OK);
    assert_string_equal(p.text.data,
                        "<|im_start|>user\na<|im_end|><|im_end|>\n<|im_start|>assistant\n");
    int ends = 0, starts = 0;
    for (size_t i = 0; i < p.ids.length; i++)
        ends += p.ids.data[i] == 2, starts += p.ids.data[i] == 1;
    assert_int_equal(ends, 1);
    assert_int_equal(starts, 2);
    tx_prompt_free(&p);
    json_decref(q.messages);
    q.messages = json_loads(
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b c \"}]", 0,
        NULL);
    q.add_generation_prompt = false;
    q.continue_final = true;
    assert_int_equal(tx_chat_prompt(c, &q, &p, &err), FM_OK);
    assert_string_equal(p.text.data, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb c ");
    tx_prompt_free(&p);
    json_decref(q.messages);
    q.messages =
        json_loads("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", 0, NULL);
    assert_int_equal(tx_chat_prompt(c, &q, &p, &err), FM_E_UNSUPPORTED);
    tx_prompt_free(&p);
    json_decref(q.messages);
    static const char refuse[] = "{{ raise_exception('no ' ~ messages[0].role) }}";
    assert_int_equal(tx_chat_set_template(c, refuse, strlen(refuse), &err), FM_OK);
    q = (tx_chat_request){.messages =
                              json_loads("[{\"role\":\"user\",\"content\":\"x\"}]", 0, NULL)};
    assert_int_equal(tx_chat_prompt(c, &q, &p, &err), FM_E_ARGUMENT);
    assert_non_null(strstr(err.message, "no user"));
    tx_prompt_free(&p);
    json_decref(q.messages);
    tx_chat_free(c);
    tx_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(plain_and_thinking),
        cmocka_unit_test(json_formats),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(prompts),
    };
    return cmocka_run_group_tests(all, NULL, NULL);
}
