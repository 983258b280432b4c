#include "hub/cache.h"
#include "hub/http.h"
#include "hub/index.h"
#include "hub/names.h"
#include "hub/partial.h"

#include "base/file.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* --- names ------------------------------------------------------------------------------------ */

static void paths_stay_inside(void **state)
{
    (void)state;
    static const char *const good[] = {"a",       "a/b", "a.b/..c", "...", "model-1.safetensors",
                                       "\xc3\xa9"};
    static const char *const bad[] = {"",     ".",    "..",  "/a",   "a/",   "a//b", "a/../b",
                                      "../a", "a/..", "./a", "a\\b", "a\nb", "\x1b", "a\x7f"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(hb_is_safe_path(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(hb_is_safe_path(bad[i]));
    char component[300];
    memset(component, 'x', sizeof component);
    component[256] = 0;
    assert_false(hb_is_safe_path(component));
    component[255] = 0;
    assert_true(hb_is_safe_path(component));
}

static void ids(void **state)
{
    (void)state;
    static const char *const bad[] = {"",       "name",   "a/b/c",  "/b",      "a/",   "a b/c",
                                      "a--b/c", "a/b..c", "-a/b",   "a/b-",    "a/.b", "a/b@",
                                      "a/b@..", "a/b@/x", "@main",  "a@b/c",   "~/b",  "a/b@x\n",
                                      "./a",    "../a",   "a/\xff", "a/b@a//b"};
    hb_id id;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(hb_is_id(bad[i]));
    assert_int_equal(hb_parse_id("mlx-community/Qwen3-30B_A3B.4bit", &id, NULL), FM_OK);
    assert_string_equal(id.repo, "mlx-community/Qwen3-30B_A3B.4bit");
    assert_string_equal(id.revision, "main");
    assert_int_equal(hb_parse_id("a/b@refs/pr/1", &id, NULL), FM_OK);
    assert_string_equal(id.revision, "refs/pr/1");
}

static void folders_and_back(void **state)
{
    (void)state;
    char *folder = hb_repo_folder("org/na-me"), *repo = hb_repo_of_folder(folder);
    assert_string_equal(folder, "models--org--na-me");
    assert_string_equal(repo, "org/na-me");
    assert_null(hb_repo_of_folder("datasets--org--name"));
    assert_null(hb_repo_of_folder("models--name"));
    assert_null(hb_repo_of_folder("models--..--.."));
    assert_null(hb_repo_of_folder("models--a--b--c"));
    bs_free(folder);
    bs_free(repo);
}

static void blob_names(void **state)
{
    (void)state;
    assert_true(hb_is_blob_name("da39a3ee5e6b4b0d3255bfef95601890afd80709"));
    assert_true(hb_is_blob_name("abc-12.x"));
    assert_false(hb_is_blob_name(""));
    assert_false(hb_is_blob_name(".."));
    assert_false(hb_is_blob_name("a/b"));
    assert_false(hb_is_blob_name("a\"b"));
    assert_false(hb_is_blob_name("a.incomplete"));
}

static void url_encoding(void **state)
{
    (void)state;
    char *kept = hb_url_encode("a b/\xc3\xa9%?#", true), *all = hb_url_encode("refs/pr/1", false);
    assert_string_equal(kept, "a%20b/%C3%A9%25%3F%23");
    assert_string_equal(all, "refs%2Fpr%2F1");
    bs_free(kept);
    bs_free(all);
}

/* --- what servers say ------------------------------------------------------------------------- */

static void say(hb_headers *h, const char *line)
{
    char copy[2000];
    size_t n = strlen(line);
    assert_true(n < sizeof copy);
    memcpy(copy, line, n);
    assert_int_equal(hb_header_line(copy, 1, n, h), n);
}

static void header_lines(void **state)
{
    (void)state;
    hb_headers h;
    say(&h, "HTTP/1.1 200 OK\r\n");
    say(&h, "ETag: W/\"abc\"\r\n");
    say(&h, "X-LINKED-SIZE:  1000000000000000000 \r\n");
    say(&h, "Content-Length: 99999999999999999999\r\n");
    say(&h, "Content-Range: bytes 5-9/100\r\n");
    say(&h, "X-Error-Message: \x1b[31mred\r\n");
    say(&h, "no colon\r\n");
    say(&h, ":\r\n");
    assert_string_equal(h.etag, "abc");
    assert_int_equal(h.linked_size, 1000000000000000000);
    assert_int_equal(h.content_length, HB_SIZE_UNKNOWN);
    assert_true(h.has_range && h.range_start == 5 && h.range_total == 100);
    assert_string_equal(h.error_message, "?[31mred");
    say(&h, "HTTP/1.1 302 Found\r\n"); /* each answer starts afresh */
    assert_false(h.has_range);
    assert_string_equal(h.etag, "");
    say(&h, "Content-Range: bytes */100\r\n");
    assert_false(h.has_range);
    say(&h, "Content-Range: bytes 7-9/*\r\n");
    assert_true(h.has_range && h.range_start == 7 && h.range_total == HB_SIZE_UNKNOWN);
}

static void the_token_stays_on_its_origin(void **state)
{
    (void)state;
    const char *hub = "https://huggingface.co/a/b";
    assert_true(hb_same_origin(hub, "https://HUGGINGFACE.co:443/x"));
    assert_false(hb_same_origin(hub, "http://huggingface.co/x"));
    assert_false(hb_same_origin(hub, "https://huggingface.co:444/x"));
    assert_false(hb_same_origin(hub, "https://huggingface.co.evil.org/x"));
    assert_false(hb_same_origin(hub, "https://huggingface.co@evil.org/x"));
    assert_false(hb_same_origin(hub, "not a url"));
    assert_true(hb_redirect_allowed(hub, "https://cdn.org/x"));
    assert_false(hb_redirect_allowed(hub, "http://cdn.org/x"));
    assert_false(hb_redirect_allowed("http://hub", "file:///etc/passwd"));
}

/* --- a folder to write in --------------------------------------------------------------------- */

static int make_folder(void **state)
{
    char *folder = bs_strdup("/tmp/test-hub-XXXXXX");
    *state = mkdtemp(folder);
    return *state ? 0 : -1;
}

static int remove_folder(void **state)
{
    char *command = bs_sprintf("rm -rf '%s'", (char *)*state);
    int status = system(command);
    bs_free(command);
    bs_free(*state);
    return status;
}

static bool count_shard(void *arg, const char *shard)
{
    (void)shard;
    ++*(int *)arg;
    return true;
}

static void index_files(void **state)
{
    static const struct {
        const char *text;
        int shards; /* -1: malformed */
    } cases[] = {
        {"{\"weight_map\": {\"a\": \"x\", \"b\": \"y\", \"c\": \"x\", \"d\": \"y\"}}", 2},
        {"{\"weight_map\": {}}", -1},
        {"{\"weight_map\": []}", -1},
        {"{\"weight_map\": {\"a\": 5}}", -1},
        {"{}", -1},
        {"[]", -1},
        {"", -1},
        {"{\"weight_map\": {\"a\": \"x\"", -1},
    };
    char *path = bs_path_join(*state, HB_INDEX_FILE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = 0;
        fm_error err = {0};
        assert_int_equal(bs_write_file(path, cases[i].text, strlen(cases[i].text), NULL), FM_OK);
        fm_status status = hb_index_each_shard(path, count_shard, &n, &err);
        assert_int_equal(status, cases[i].shards < 0 ? FM_E_FORMAT : FM_OK);
        if (!status) assert_int_equal(n, cases[i].shards);
        else assert_non_null(strstr(err.message, HB_INDEX_FILE));
    }
    bs_free(path);
}

/* --- partial blobs ---------------------------------------------------------------------------- */

enum { BLOB = 1000, CHUNK = 128 };

static void fill(unsigned char *data)
{
    for (int i = 0; i < BLOB; i++) data[i] = (unsigned char)(i * 31 + i / 7);
}

static void name_of(const unsigned char *data, char etag[BS_HEX_MAX])
{
    bs_hash h;
    bs_sha256_start(&h);
    bs_hash_update(&h, data, BLOB);
    bs_hash_finish(&h, etag);
}

/* Fill a blob with several ranges in flight, the last one first, a few bytes at a time. */
static fm_status fill_blob(hb_partial *p, const unsigned char *data, fm_error *err)
{
    hb_piece *flying[4] = {0};
    fm_status status = FM_OK;
    while (!status && p->pieces[0]->length < BLOB) {
        for (int i = 0; i < 4 && !status; i++)
            if (!flying[i]) status = hb_partial_next(p, CHUNK, 4 * CHUNK, &flying[i], err);
        for (int i = 3; i >= 0 && !status; i--) {
            hb_piece *piece = flying[i];
            if (!piece) continue;
            uint64_t at = piece->start + piece->length, left = piece->limit - at;
            status = hb_partial_append(p, piece, data + at, left < 50 ? left : 50, err);
            if (status || piece->start + piece->length < piece->limit) continue;
            flying[i] = NULL;
            status = hb_partial_done(p, piece, err);
            if (!status) status = hb_partial_merge(p, err);
        }
    }
    return status;
}

static fm_status whole_blob(const char *path, const char *etag, const unsigned char *data,
                            fm_error *err)
{
    hb_partial p;
    uint64_t left;
    fm_status status = hb_partial_open(path, etag, BLOB, &p, err);
    if (status) return status;
    status = hb_partial_check(&p, UINT64_MAX, &left, err);
    if (!status) status = hb_partial_merge(&p, err);
    if (!status) status = fill_blob(&p, data, err);
    if (!status) status = hb_partial_finish(&p, err);
    hb_partial_close(&p);
    return status;
}

static void check_blob(const char *path, const unsigned char *data)
{
    bs_buf read = {0};
    assert_int_equal(bs_read_file(path, 1 << 20, &read, NULL), FM_OK);
    assert_int_equal(read.length, BLOB);
    assert_memory_equal(read.data, data, BLOB);
    bs_buf_free(&read);
}

/* Every allocation fails once; what was written then is good for the next try. */
static void out_of_memory_anywhere(void **state)
{
    unsigned char data[BLOB];
    char etag[BS_HEX_MAX];
    fill(data);
    name_of(data, etag);
    char *path = bs_path_join(*state, etag);
    bool finished = false;
    for (uint64_t n = 1; !finished && n < 10000; n++) {
        fm_error err = {0};
        bs_mem_fail_at(n, false);
        fm_status status = whole_blob(path, etag, data, &err);
        bs_mem_fail_at(0, false);
        finished = !status;
        if (!finished) assert_int_equal(status, FM_E_NOMEM);
    }
    assert_true(finished);
    check_blob(path, data);
    bs_free(path);
}

static void git_names(void **state)
{
    unsigned char data[BLOB];
    char etag[BS_HEX_MAX], head[] = "blob 1000";
    fill(data);
    bs_hash h;
    bs_sha1_start(&h);
    bs_hash_update(&h, head, sizeof head);
    bs_hash_update(&h, data, BLOB);
    bs_hash_finish(&h, etag);
    char *path = bs_path_join(*state, etag);
    assert_int_equal(whole_blob(path, etag, data, NULL), FM_OK);
    check_blob(path, data);
    bs_free(path);
}

static void a_wrong_hash_leaves_nothing(void **state)
{
    unsigned char data[BLOB];
    char etag[BS_HEX_MAX];
    fm_error err = {0};
    fill(data);
    name_of(data, etag);
    data[BLOB / 2] ^= 1;
    char *path = bs_path_join(*state, etag), *front = bs_sprintf("%s.incomplete", path);
    assert_int_equal(whole_blob(path, etag, data, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.message, etag));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access(front, F_OK), -1);
    bs_free(front);
    bs_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_stay_inside),
        cmocka_unit_test(ids),
        cmocka_unit_test(folders_and_back),
        cmocka_unit_test(blob_names),
        cmocka_unit_test(url_encoding),
        cmocka_unit_test(header_lines),
        cmocka_unit_test(the_token_stays_on_its_origin),
        cmocka_unit_test_setup_teardown(index_files, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(out_of_memory_anywhere, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(git_names, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_wrong_hash_leaves_nothing, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
