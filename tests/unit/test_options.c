/* Option parsing: forms, limits, environment, mistakes; sizes. */
#include "cli/options.h"
#include "engine/planner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const cli_option own[] = {
    {"prompt", 'p', CLI_TEXT, "TEXT", 0, 0, "what to say"},
    {"raw", 'r', CLI_FLAG, NULL, 0, 0, "as it is"},
    {0},
};
static const cli_group own_group = {"Own", own, false};
static const cli_spec spec = {
    .arguments = "[MODEL]", .most = 1, .groups = {&own_group, &cli_group_model, &cli_group_engine}};

static int parse(cli_args *a, int argc, char **argv)
{
    return cli_parse(&spec, argc, argv, a);
}

#define PARSE(a, ...)                                                                              \
    parse(a, sizeof((char *[]){"run", __VA_ARGS__}) / sizeof(char *),                              \
          (char *[]){"run", __VA_ARGS__, NULL})

static void all_forms(void **state)
{
    (void)state;
    cli_args a;
    assert_int_equal(PARSE(&a, "--memory", "8G", "-rpHello", "--threads=3", "dir"), -1);
    assert_true(cli_has(&a, "raw"));
    assert_string_equal(cli_text(&a, "prompt", NULL), "Hello");
    assert_true(cli_size(&a, "memory", 0) == (uint64_t)8 << 30);
    assert_int_equal(cli_int(&a, "threads", 0), 3);
    assert_string_equal(cli_model_name(&a), "dir");
    assert_int_equal(PARSE(&a, "--prefetch", "7", "--policy", "lru", "--", "-x"), -1);
    assert_int_equal(cli_choice(&a, "prefetch", -1), 2);
    assert_int_equal(cli_choice(&a, "policy", -1), 1);
    assert_string_equal(cli_positional(&a, 0), "-x");
    assert_int_equal(PARSE(&a, "-p", "-"), -1);
    assert_string_equal(cli_text(&a, "prompt", NULL), "-");
}

static void mistakes_are_usage_errors(void **state)
{
    (void)state;
    cli_args a;
    assert_int_equal(PARSE(&a, "--memori", "8G"), 2);
    assert_int_equal(PARSE(&a, "--memory", "8X"), 2);
    assert_int_equal(PARSE(&a, "--memory"), 2);
    assert_int_equal(PARSE(&a, "--threads", "0"), 2);
    assert_int_equal(PARSE(&a, "--threads", "2x"), 2);
    assert_int_equal(PARSE(&a, "--raw=1"), 2);
    assert_int_equal(PARSE(&a, "-q"), 2);
    assert_int_equal(PARSE(&a, "one", "two"), 2);
    assert_int_equal(PARSE(&a, "--policy", "mru"), 2);
}

static void environment_stands_in(void **state)
{
    (void)state;
    cli_args a;
    setenv("FLASH_MOE_KV_BITS", "8", 1);
    assert_int_equal(PARSE(&a, "dir"), -1);
    assert_string_equal(cli_text(&a, "kv-bits", ""), "8");
    assert_int_equal(PARSE(&a, "--kv-bits", "16"), -1);
    assert_string_equal(cli_text(&a, "kv-bits", ""), "16");
    setenv("FLASH_MOE_KV_BITS", "7", 1);
    assert_int_equal(PARSE(&a, "dir"), 2);
    unsetenv("FLASH_MOE_KV_BITS");
}

static void sizes(void **state)
{
    (void)state;
    struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"512", 512},
                {"1K", 1024},
                {"1.5GB", 1500000000u},
                {"2MiB", 2 << 20},
                {"3m", 3 << 20},
                {"1T", (uint64_t)1 << 40},
                {"10kb", 10000}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t bytes = 1;
        assert_int_equal(en_parse_size(good[i].text, &bytes, NULL), FM_OK);
        assert_true(bytes == good[i].bytes);
    }
    const char *bad[] = {"", "G", "-1", "1X", "1GBB", "1e30", "nan", "8 G"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t bytes;
        assert_int_equal(en_parse_size(bad[i], &bytes, NULL), FM_E_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_forms),
        cmocka_unit_test(mistakes_are_usage_errors),
        cmocka_unit_test(environment_stands_in),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
