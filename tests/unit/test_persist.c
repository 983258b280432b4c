/* Saved cache states: round trip, and every kind of foreign or damaged file refused by name. */
#include "base/file.h"
#include "base/mem.h"
#include "experts/persist.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { EXPERTS = 4 };
static const int layers[2] = {0, 2};
static char path[] = "/tmp/flash-moe-state-XXXXXX";

static fm_status load(const char *model, xp_saved **out, fm_error *err)
{
    return xp_saved_read(path, model, EXPERTS, 2, layers, out, err);
}

static void write_one(void)
{
    xp_saved *s;
    assert_int_equal(xp_saved_create("tiny-1", "hello", EXPERTS, 2, layers, &s, NULL), 0);
    for (int i = 0; i < 2; i++) {
        xp_saved_layer *l = &s->layers[i];
        l->n_cached = 2;
        l->cached[0] = 3;
        l->cached[1] = 1;
        l->frequency[3] = 7.25;
        l->last_active[3] = 9;
        l->frequency[1] = 0.5;
        l->last_active[1] = 2;
        l->pinned[1] = 1;
        l->step = 10;
    }
    s->capacity = 2;
    assert_int_equal(xp_saved_write(s, path, NULL), 0);
    xp_saved_free(s);
}

static void round_trip(void **state)
{
    (void)state;
    write_one();
    xp_saved *s = NULL;
    assert_int_equal(load("tiny-1", &s, NULL), 0);
    assert_string_equal(s->prompt, "hello");
    assert_int_equal(s->capacity, 2);
    const xp_saved_layer *l = &s->layers[1];
    assert_int_equal(l->layer, 2);
    assert_int_equal(l->n_cached, 2);
    assert_int_equal(l->cached[0], 3);
    assert_true(l->frequency[3] == 7.25 && l->last_active[3] == 9 && l->step == 10);
    assert_true(l->pinned[1] && !l->pinned[3]);
    xp_saved_free(s);
}

static void foreign_files(void **state)
{
    (void)state;
    write_one();
    xp_saved *s = NULL;
    fm_error err = {0};
    assert_int_equal(load("tiny-2", &s, &err), FM_E_STALE);
    assert_null(s);
    assert_non_null(strstr(err.message, "another model"));
    static const char *const v1 = "{\"version\": 1, \"layers\": {}}";
    bs_write_file(path, v1, strlen(v1), NULL);
    assert_int_equal(load("tiny-1", &s, &err), FM_E_STALE);
    assert_non_null(strstr(err.message, "mlx-moe"));
}

/* Change one text in a good file; each must be refused with the field's name, nothing returned. */
static void damaged_files(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } rows[] = {
        {"[3,1]", "[3,3]", "cached_ids[1]"},
        {"[3,1]", "[3,4]", "cached_ids[1]"},
        {"[3,1]", "[-1,1]", "cached_ids[0]"},
        {"\"step\":10", "\"step\":1 ", "impossible counts"},
        {"\"step\":10", "\"stop\":10", "step"},
        {"7.25", "-7.2", "impossible counts"},
        {"\"layers\"", "\"lagers\"", "layer 0 is missing"},
        {"{\"version\"", "[\"version\"", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_one();
        bs_buf text = {0};
        assert_int_equal(bs_read_file(path, 1 << 20, &text, NULL), 0);
        char *at = strstr(text.data, rows[i].from);
        assert_non_null(at);
        bs_buf damaged = {0};
        bs_buf_append(&damaged, text.data, (size_t)(at - text.data));
        bs_buf_puts(&damaged, rows[i].to);
        bs_buf_puts(&damaged, at + strlen(rows[i].from));
        bs_write_file(path, damaged.data, damaged.length, NULL);
        bs_buf_free(&damaged);
        bs_buf_free(&text);
        xp_saved *s = NULL;
        fm_error err = {0};
        assert_true(load("tiny-1", &s, &err) != 0);
        assert_null(s);
        if (!strstr(err.message, rows[i].says)) fail_msg("%s: '%s'", rows[i].to, err.message);
    }
}

static void truncated_anywhere(void **state)
{
    (void)state;
    write_one();
    bs_buf text = {0};
    assert_int_equal(bs_read_file(path, 1 << 20, &text, NULL), 0);
    for (size_t n = 0; n < text.length; n++) {
        xp_saved *s = NULL;
        bs_write_file(path, text.data, n, NULL);
        assert_true(load("tiny-1", &s, NULL) != 0);
        assert_null(s);
    }
    bs_buf_free(&text);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    write_one();
    for (int n = 1; n < 100; n++) {
        xp_saved *s = NULL;
        bs_mem_fail_at((uint64_t)n, false);
        fm_status status = load("tiny-1", &s, NULL);
        bs_mem_fail_at(0, false);
        assert_true(status ? s == NULL : s != NULL);
        xp_saved_free(s);
        if (!status) return;
    }
    fail_msg("never succeeded");
}

int main(void)
{
    int fd = mkstemp(path);
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(foreign_files),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(every_allocation_may_fail),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
