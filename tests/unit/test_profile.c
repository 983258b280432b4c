/* Profiles: the seed's schema in and out, ranking, pins, foreign files. */
#include "base/file.h"
#include "base/mem.h"
#include "experts/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const int layers[2] = {1, 3};
static char path[] = "/tmp/flash-moe-profile-XXXXXX";

static const char *const seed_file =
    "{\"num_prompts\": 12, \"threshold\": 0.5, \"layers\": {"
    "\"1\": {\"universal\": [0], \"activation_counts\": {\"5\": 12, \"2\": 6, \"7\": 6, \"0\": 5}},"
    "\"3\": {\"activation_counts\": {\"1\": 1}}}}";

static xp_profile *load(const char *text, fm_error *err)
{
    xp_profile *p = NULL;
    assert_int_equal(bs_write_file(path, text, strlen(text), NULL), 0);
    xp_profile_read(path, 8, 2, layers, &p, err);
    return p;
}

static void ranks_and_pins(void **state)
{
    (void)state;
    xp_profile *p = load(seed_file, NULL);
    assert_non_null(p);
    int ids[8];
    unsigned char pinned[8];
    assert_int_equal(xp_profile_rank(p, 0, true, ids), 4);
    static const int want[8] = {5, 2, 7, 0, 1, 3, 4, 6};
    assert_memory_equal(ids, want, sizeof want);
    assert_int_equal(xp_profile_pins(p, 0, 0.5, -1, pinned), 3); /* int(0.5 * 12) = 6 */
    assert_true(pinned[5] && pinned[2] && pinned[7] && !pinned[0]);
    assert_int_equal(xp_profile_pins(p, 0, 0.5, 0, pinned), 0);
    assert_int_equal(xp_profile_pins(p, 0, 0.5, 2, pinned), 2);
    assert_true(pinned[5] && pinned[2]);
    assert_int_equal(xp_profile_pins(p, 1, 0.5, 8, pinned), 1); /* never one that nobody used */
    xp_profile_free(p);
}

static void round_trip(void **state)
{
    (void)state;
    xp_profile *p = load(seed_file, NULL), *q = NULL;
    p->layers[0].tokens[2] = 900;
    p->layers[0].tokens[5] = 30;
    assert_int_equal(xp_profile_write(p, path, NULL), 0);
    assert_int_equal(xp_profile_read(path, 8, 2, layers, &q, NULL), 0);
    assert_int_equal(q->n_prompts, 12);
    assert_memory_equal(p->layers[0].prompts, q->layers[0].prompts, 8 * sizeof(uint32_t));
    assert_memory_equal(p->layers[0].tokens, q->layers[0].tokens, 8 * sizeof(uint64_t));
    int ids[8];
    xp_profile_rank(q, 0, true, ids);
    assert_int_equal(ids[0], 2); /* token counts decide where there are any */
    xp_profile_rank(q, 0, false, ids);
    assert_int_equal(ids[0], 5);
    xp_profile_free(p);
    xp_profile_free(q);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        fm_status code;
    } rows[] = {
        {"", "not valid JSON", FM_E_FORMAT},
        {"[1]", "no object 'layers'", FM_E_FORMAT},
        {"{\"layers\": {}}", "num_prompts", FM_E_FORMAT},
        {"{\"num_prompts\": 2, \"num_experts\": 512, \"layers\": {}}", "512 experts", FM_E_STALE},
        {"{\"num_prompts\": 2, \"layers\": {\"2\": {\"activation_counts\": {}}}}", "layer '2'",
         FM_E_STALE},
        {"{\"num_prompts\": 2, \"layers\": {\"1\": {}}}", "activation_counts is missing",
         FM_E_FORMAT},
        {"{\"num_prompts\": 2, \"layers\": {\"1\": {\"activation_counts\": {\"8\": 1}}}}", "'8'",
         FM_E_STALE},
        {"{\"num_prompts\": 2, \"layers\": {\"1\": {\"activation_counts\": {\"-1\": 1}}}}", "'-1'",
         FM_E_STALE},
        {"{\"num_prompts\": 2, \"layers\": {\"1\": {\"activation_counts\": {\"3\": 3}}}}",
         "counts.3", FM_E_FORMAT},
        {"{\"num_prompts\": 2, \"layers\": {\"1\": {\"activation_counts\": {\"3\": 1.5}}}}",
         "counts.3", FM_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fm_error err = {0};
        assert_null(load(rows[i].text, &err));
        if (err.code != rows[i].code || !strstr(err.message, rows[i].says))
            fail_msg("%s: got '%s'", rows[i].text, err.message);
        if (!strstr(err.message, path)) fail_msg("no file name in '%s'", err.message);
    }
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int n = 1; n < 200; n++) {
        assert_int_equal(bs_write_file(path, seed_file, strlen(seed_file), NULL), 0);
        xp_profile *p = NULL;
        bs_mem_fail_at((uint64_t)n, false);
        fm_status status = xp_profile_read(path, 8, 2, layers, &p, NULL);
        bs_mem_fail_at(0, false);
        assert_true(status ? p == NULL : p != NULL);
        xp_profile_free(p);
        if (!status) return;
    }
    fail_msg("never succeeded");
}

int main(void)
{
    int fd = mkstemp(path);
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_and_pins),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(refusals),
        cmocka_unit_test(every_allocation_may_fail),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
