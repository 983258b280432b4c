#include "base/sha.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check(void (*start)(bs_hash *), const char *text, size_t repeat, const char *expected)
{
    bs_hash h;
    char hex[BS_HEX_MAX];
    start(&h);
    for (size_t i = 0; i < repeat; i++) bs_hash_update(&h, text, strlen(text));
    bs_hash_finish(&h, hex);
    assert_string_equal(hex, expected);
}

/* The examples of FIPS 180. */
static void published_digests(void **state)
{
    (void)state;
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check(bs_sha256_start, "abc", 1,
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(bs_sha256_start, "", 1,
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check(bs_sha256_start, two_blocks, 1,
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check(bs_sha256_start, "a", 1000000,
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    check(bs_sha1_start, "abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check(bs_sha1_start, two_blocks, 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check(bs_sha1_start, "a", 1000000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

/* Where the updates are cut must not matter, at every length around the block size. */
static void any_cut_gives_the_same(void **state)
{
    (void)state;
    unsigned char data[300];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof data; n++) {
        char whole[BS_HEX_MAX], cut[BS_HEX_MAX];
        bs_hash h;
        bs_sha256_start(&h);
        bs_hash_update(&h, data, n);
        bs_hash_finish(&h, whole);
        bs_sha256_start(&h);
        for (size_t at = 0, step = 1; at < n; step = step * 3 % 71) {
            size_t take = step < n - at ? step : n - at;
            bs_hash_update(&h, data + at, take);
            at += take;
        }
        bs_hash_finish(&h, cut);
        assert_string_equal(whole, cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_digests),
        cmocka_unit_test(any_cut_gives_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
