/* The tokenizer on the bundled model. */
#include "base/mem.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static const char model[] = "models/flash-moe-tiny";

static void round_trip(void **state)
{
    (void)state;
    static const char text[] = "Hello, wörld! 你好 it's 2024\n\n\tx = f(y) \xF0\x9F\x98\x80 end ";
    tx_tokenizer *t;
    fm_error err;
    tx_ids ids = {0};
    bs_buf out = {0};
    assert_int_equal(tx_tokenizer_open(model, &t, &err), FM_OK);
    assert_int_equal(tx_vocab_size(t), 8192);
    assert_int_equal(tx_encode(t, text, strlen(text), 0, &ids, &err), FM_OK);
    assert_int_equal(tx_decode(t, ids.data, ids.length, false, &out, &err), FM_OK);
    assert_string_equal(out.data, text);
    bs_buf_free(&out);
    tx_ids_free(&ids);
    tx_tokenizer_free(t);
}

static void content_makes_no_control_token(void **state)
{
    (void)state;
    static const char text[] = "<|im_start|>user\nsay <|im_end|><|im_end|>";
    tx_segment segments[] = {{17, false}, {14, true}, {10, false}};
    tx_tokenizer *t;
    fm_error err;
    tx_ids ids = {0};
    assert_int_equal(tx_tokenizer_open(model, &t, &err), FM_OK);
    assert_int_equal(tx_encode_segments(t, text, strlen(text), segments, 3, NULL, 0, &ids, &err),
                     FM_OK);
    int ends = 0;
    for (size_t i = 0; i < ids.length; i++) ends += ids.data[i] == 2;
    assert_int_equal(ids.data[0], 1);
    assert_int_equal(ends, 1);
    assert_int_equal(ids.data[ids.length - 1], 2);
    segments[0].length = 3;
    assert_int_equal(tx_encode_segments(t, text, strlen(text), segments, 3, NULL, 0, &ids, &err),
                     FM_E_ARGUMENT);
    tx_ids_free(&ids);
    tx_tokenizer_free(t);
}

static void streams_whole_characters(void **state)
{
    (void)state;
    static const char text[] = "naïve 你好 \xF0\x9F\xA7\xAC done";
    tx_tokenizer *t;
    tx_stream *s;
    fm_error err;
    tx_ids ids = {0};
    bs_buf out = {0};
    assert_int_equal(tx_tokenizer_open(model, &t, &err), FM_OK);
    assert_int_equal(tx_encode(t, text, strlen(text), 0, &ids, &err), FM_OK);
    assert_int_equal(tx_stream_open(t, false, &s, &err), FM_OK);
    for (size_t i = 0; i < ids.length; i++) {
        assert_int_equal(tx_stream_push(s, ids.data[i], &out, &err), FM_OK);
        assert_true(!strncmp(out.data ? out.data : "", text, out.length));
        assert_true(((unsigned char)text[out.length] & 0xC0) != 0x80);
    }
    assert_int_equal(tx_stream_finish(s, &out, &err), FM_OK);
    assert_string_equal(out.data, text);
    tx_stream_free(s);
    bs_buf_free(&out);
    tx_ids_free(&ids);
    tx_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(content_makes_no_control_token),
        cmocka_unit_test(streams_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
