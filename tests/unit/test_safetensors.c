/* The table of contents: every way in which a header or a folder can lie has its message, and every
 * failing allocation or read is survived. */
#include "base/file.h"
#include "base/mem.h"
#include "tensors/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

/* --- faults in reads: this pread stands before the C library's ----------------------------------
 */

static int fail_read_at, reads; /* the nth read fails; 0: none */
static size_t longest_read;     /* 0: as asked */

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
    reads++;
    if (fail_read_at && reads == fail_read_at) {
        errno = EIO;
        return -1;
    }
    if (longest_read && reads % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (longest_read && n > longest_read) n = longest_read;
    return syscall(SYS_pread64, fd, buf, n, offset);
}

/* --- folders ------------------------------------------------------------------------------------
 */

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void put_file(const char *name, const void *data, size_t n)
{
    assert_int_equal(bs_write_file(in_dir(name), data, n, NULL), FM_OK);
}

/* A safetensors file of this header text and `data` bytes 0, 1, 2, ... */
static void put_model(const char *name, const char *header, size_t data)
{
    size_t n = strlen(header);
    unsigned char *text = malloc(8 + n + data);
    for (int i = 0; i < 8; i++) text[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(text + 8, header, n);
    for (size_t i = 0; i < data; i++) text[8 + n + i] = (unsigned char)i;
    put_file(name, text, 8 + n + data);
    free(text);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/fm-tensors-XXXXXX");
    fail_read_at = 0;
    longest_read = 0;
    return mkdtemp(dir) ? 0 : 1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[100];
    bs_mem_fail_at(0, false);
    fail_read_at = 0;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void expect_refused(fm_status code, const char *part)
{
    ts_store *store = NULL;
    fm_error err = {0};
    fm_status status = ts_open(dir, &store, &err);
    if (status != code || !strstr(err.message, part))
        fail_msg("status %d, message \"%s\"; wanted %d and \"%s\"", status, err.message, code,
                 part);
    assert_null(store);
}

static ts_store *expect_opened(void)
{
    ts_store *store = NULL;
    fm_error err = {0};
    if (ts_open(dir, &store, &err)) fail_msg("%s", err.message);
    return store;
}

/* --- what is well-formed -------------------------------------------------------------------------
 */

static void test_reads_a_file(void **state)
{
    (void)state;
    put_model("model.safetensors",
              "{\"b\\u00e9\\n\": {\"data_offsets\":[4,10],\"shape\":[3,1],\"dtype\":\"BF16\", "
              "\"extra\": [{\"a\":null}, -1.5e3]},\n"
              " \"__metadata__\":{\"format\":\"pt\"}, "
              "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
              "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[2,2]},"
              "\"one\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[11,12]}}   ",
              12);
    ts_store *store = expect_opened();
    assert_int_equal(ts_count(store), 4);
    assert_string_equal(ts_at(store, 0)->name, "a");
    assert_string_equal(ts_at(store, 1)->name, "b\xc3\xa9\n");
    const ts_tensor *t = ts_find(store, "b\xc3\xa9\n");
    assert_ptr_equal(t, ts_at(store, 1));
    assert_int_equal(t->type, TS_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[0], 3);
    assert_int_equal(t->bytes, 6);
    assert_int_equal(ts_find(store, "none")->bytes, 0);
    assert_int_equal(ts_find(store, "one")->n_dims, 0);
    assert_null(ts_find(store, "b"));
    unsigned char got[6];
    assert_int_equal(ts_read(store, t, 1, 5, got, NULL), FM_OK);
    assert_memory_equal(got, "\5\6\7\10\11", 5);
    assert_int_equal(ts_read(store, t, 2, 5, got, NULL), FM_E_ARGUMENT);
    assert_int_equal(ts_read(store, t, UINT64_MAX, 2, got, NULL), FM_E_ARGUMENT);
    assert_int_equal(ts_file_count(store), 1);
    assert_string_equal(ts_file_path(store, 0), in_dir("model.safetensors"));
    ts_close(store);
}

static void test_reads_floats(void **state)
{
    (void)state;
    static const uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff};
    static const uint16_t bf[] = {0x3f80, 0xc000, 0x4049, 0, 0x7f80};
    static const int64_t five = 5, one = 1;
    ts_writer *w;
    assert_int_equal(ts_writer_open(in_dir("model.safetensors"), &w, NULL), FM_OK);
    ts_writer_declare(w, "odd", TS_U8, 1, &one, NULL);
    ts_writer_declare(w, "half", TS_F16, 1, &five, NULL);
    ts_writer_declare(w, "bf", TS_BF16, 1, &five, NULL);
    assert_int_equal(ts_writer_write(w, "x", 1, NULL), FM_OK);
    ts_writer_write(w, half, sizeof half, NULL);
    ts_writer_write(w, bf, sizeof bf, NULL);
    assert_int_equal(ts_writer_write(w, "y", 1, NULL), FM_E_ARGUMENT);
    assert_int_equal(ts_writer_finish(w, NULL), FM_OK);
    ts_store *store = expect_opened();
    float f[5];
    fm_error err = {0};
    assert_int_equal(ts_read_floats(store, ts_find(store, "half"), 5, f, &err), FM_OK);
    static const float want[] = {1, -2, 0x1p-24f, -0.0f, 65504};
    assert_memory_equal(f, want, sizeof want);
    assert_int_equal(ts_read_floats(store, ts_find(store, "bf"), 5, f, &err), FM_E_NUMERIC);
    assert_non_null(strstr(err.message, "tensor bf: value 4 is infinite"));
    assert_int_equal(ts_read_floats(store, ts_find(store, "bf"), 4, f, &err), FM_E_FORMAT);
    assert_int_equal(ts_read_floats(store, ts_find(store, "odd"), 1, f, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.message, "is U8"));
    ts_close(store);
}

/* --- what is not
 * ---------------------------------------------------------------------------------- */

static void test_hostile_headers(void **state)
{
    (void)state;
#define ENTRY(type, shape, offsets)                                                                \
    "{\"w\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}}"
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"[]", "is not well-formed JSON"},
        {"{}", "holds no tensor"},
        {"{\"w\":", "tensor w ends too early"},
        {"{\"w", "ends inside a string"},
        {"{\"w\":{\"dtype\":\"F32\"}}", "lacks one of dtype, shape, data_offsets"},
        {"{\"w\":[]}", "tensor w is not well-formed JSON"},
        {"{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "gives a field twice"},
        {ENTRY("F32", "2", "0,8") "x", "goes on after its object"},
        {ENTRY("F31", "2", "0,8"), "dtype that is not known"},
        {ENTRY("F32", "-2", "0,8"), "negative number"},
        {ENTRY("F32", "2.0", "0,8"), "fraction"},
        {ENTRY("F32", "NaN", "0,8"), "something else where a whole number belongs"},
        {ENTRY("F32", "\\\"2\\\"", "0,8"), "whole number"},
        {ENTRY("F32", "3", "0,8"), "F32 [3] does not take the 8 bytes"},
        {ENTRY("F32", "0", "0,8"), "F32 [0] does not take the 8 bytes"},
        {ENTRY("F32", "1099511627776,1099511627776", "0,8"), "does not take"},
        {ENTRY("F32", "4611686018427387904,4", "0,0"), "does not take"},
        {ENTRY("F32", "9223372036854775808", "0,8"), "above 2^63"},
        {ENTRY("F32", "1,1,1,1,1,1,1,1,2", "0,8"), "more than 8 dimensions"},
        {ENTRY("F32", "2", "8,0"), "run backwards"},
        {ENTRY("F32", "2", "1,9"), "past the end of the file"},
        {ENTRY("F32", "2", "9223372036854775800,9223372036854775807"), "past the end"},
        {ENTRY("F32", "2", "0,8,16"), "is not well-formed JSON"},
        {ENTRY("F32", "2", "0"), "is not well-formed JSON"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "without a name"},
        {"{\"a\\u0000b\":{}}", "NUL"},
        {"{\"a\\ud800b\":{}}", "surrogate"},
        {"{\"a\\x\":{}}", "unknown escape"},
        {"{\"a\tb\":{}}", "control character"},
        {"{\"__metadata__\":[]}", "__metadata__ that is no object"},
        {"{\"__metadata__\":{\"a\":1}}", "__metadata__ value that is no string"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "two __metadata__"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
         "tensors a and b overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
         "tensor a stands in it twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_model("model.safetensors", cases[i].header, 8);
        expect_refused(FM_E_FORMAT, cases[i].message);
        expect_refused(FM_E_FORMAT, dir); /* every message names the file */
    }
}

static void test_hostile_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        size_t file;
        const char *message;
    } cases[] = {
        {0, 0, "0 bytes, too short"},      {0, 7, "7 bytes, too short"},
        {0, 100, "header length 0"},       {1, 100, "header length 1"},
        {93, 100, "header length 93"},     {UINT64_MAX, 100, "does not fit"},
        {1ull << 63, 100, "does not fit"}, {92, 8, "does not fit a file of 8 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char data[100];
        memset(data, ' ', sizeof data);
        memcpy(data, &cases[i].length, 8);
        put_file("model.safetensors", data, cases[i].file);
        expect_refused(FM_E_FORMAT, cases[i].message);
    }
    put_file("model.safetensors", "version https://git-lfs.github.com/spec/v1\n", 43);
    expect_refused(FM_E_FORMAT, "Git LFS");
    int fd = open(in_dir("model.safetensors"), O_WRONLY);
    uint64_t huge = 200 * 1000 * 1000;
    assert_int_equal(pwrite(fd, &huge, 8, 0), 8);
    assert_int_equal(ftruncate(fd, 300 * 1000 * 1000), 0);
    close(fd);
    expect_refused(FM_E_LIMIT, "more than the limit");
}

static void test_nesting(void **state)
{
    (void)state;
    char *text = malloc(20100);
    char *p = text + sprintf(text, "{\"w\":{\"x\":");
    memset(p, '[', 10000);
    memset(p + 10000, ']', 10000);
    strcpy(p + 20000, "}}");
    put_model("model.safetensors", text, 0);
    expect_refused(FM_E_FORMAT, "nested too deeply");
    free(text);
}

/* --- folders
 * ---------------------------------------------------------------------------------------- */

#define SMALL(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"

static void test_folders(void **state)
{
    (void)state;
    expect_refused(FM_E_NOT_FOUND, "holds no weights");
    put_model("other.safetensors", SMALL("x"), 2);
    expect_refused(FM_E_NOT_FOUND, "holds no weights");
    assert_int_equal(mkdir(in_dir("model.safetensors"), 0700), 0);
    expect_refused(FM_E_IO, "not a regular file");
    rmdir(in_dir("model.safetensors"));
    assert_int_equal(mkfifo(in_dir("model.safetensors"), 0600), 0);
    expect_refused(FM_E_IO, "not a regular file");
    unlink(in_dir("model.safetensors"));
    assert_int_equal(symlink("model.safetensors", in_dir("model.safetensors")), 0);
    expect_refused(FM_E_IO, "model.safetensors: cannot open");
    unlink(in_dir("model.safetensors"));
    ts_store *store = NULL;
    fm_error err = {0};
    assert_int_equal(ts_open(in_dir("absent"), &store, &err), FM_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "absent: cannot open the model folder"));
}

static void test_shards(void **state)
{
    (void)state;
    put_model("model-00001-of-00003.safetensors", SMALL("b"), 2);
    put_model("model-00003-of-00003.safetensors", SMALL("a"), 2);
    expect_refused(FM_E_NOT_FOUND, "shard model-00002-of-00003.safetensors is missing");
    put_model("model-00002-of-00003.safetensors", SMALL("c"), 2);
    ts_store *store = expect_opened();
    assert_int_equal(ts_file_count(store), 3);
    assert_string_equal(ts_file_path(store, ts_find(store, "a")->file),
                        in_dir("model-00003-of-00003.safetensors"));
    ts_close(store);
    put_model("model-00002-of-00003.safetensors", SMALL("a"), 2);
    expect_refused(FM_E_FORMAT, "tensor a is also in model-00002-of-00003.safetensors");
    put_model("model-00002-of-00003.safetensors", SMALL("c"), 2);
    static const char lost[] =
        "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"a\":"
        "\"model-00003-of-00003.safetensors\",\"d\":\"model-x.safetensors\"}}";
    put_file("model.safetensors.index.json", lost, sizeof lost - 1);
    expect_refused(FM_E_NOT_FOUND, "shard model-x.safetensors is missing (named by model.safeten");
    put_file("model.safetensors.index.json", "{\"weight_map\":[]}", 17);
    expect_refused(FM_E_FORMAT, "index.json: the index is not well-formed");
    put_file("model.safetensors.index.json", "{}", 2);
    ts_close(expect_opened());
}

/* --- faults
 * ------------------------------------------------------------------------------------------ */

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    put_model("model-00001-of-00002.safetensors", SMALL("b"), 2);
    put_model("model-00002-of-00002.safetensors", SMALL("a"), 2);
    put_file("model.safetensors.index.json", "{\"weight_map\":{}}", 17);
    for (int forever = 0; forever < 2; forever++) {
        int failures = 0;
        for (uint64_t nth = 1;; nth++) {
            ts_store *store = NULL;
            fm_error err = {0};
            bs_mem_fail_at(nth, forever);
            fm_status status = ts_open(dir, &store, &err);
            uint64_t made = bs_mem_fail_at(0, false);
            if (!status) {
                ts_close(store);
                if (made < nth) break; /* else a shrink failed, which does no harm */
                continue;
            }
            failures++;
            assert_int_equal(status, FM_E_NOMEM);
            assert_non_null(strstr(err.message, "out of memory"));
        }
        assert_true(failures >= 8);
    }
}

/* A tensor above the size from which reads are direct, at an odd offset. */
enum { BIG = 3 * 1000 * 1000 + 7 };

static ts_store *big_model(void)
{
    char header[200];
    snprintf(header, sizeof header,
             "{\"w\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[1,%d]},"
             "\"x\":{\"dtype\":\"U8\",\"shape\":[5000],\"data_offsets\":[%d,%d]}}",
             BIG, BIG + 1, BIG + 1, BIG + 5001);
    put_model("model.safetensors", header, BIG + 5001);
    return expect_opened();
}

static void test_reads_in_pieces(void **state)
{
    (void)state;
    ts_store *store = big_model();
    const ts_tensor *t = ts_find(store, "w");
    static const size_t pieces[] = {0, 4096, 5000, 333333};
    unsigned char *got = malloc(BIG);
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
        longest_read = pieces[k];
        memset(got, 0, BIG);
        assert_int_equal(ts_read(store, t, 3, BIG - 3, got, NULL), FM_OK);
        for (int i = 0; i < BIG - 3; i++)
            if (got[i] != (unsigned char)(i + 4)) fail_msg("piece %zu: byte %d", pieces[k], i);
    }
    longest_read = 0;
    assert_int_equal(ts_read(store, ts_find(store, "x"), 0, 5000, got, NULL), FM_OK);
    assert_int_equal(got[4999], (BIG + 5000) & 255);
    free(got);
    ts_close(store);
}

/* A direct read that fails is tried again buffered; an error there is reported. */
static void test_read_errors(void **state)
{
    (void)state;
    ts_store *store = big_model();
    const ts_tensor *t = ts_find(store, "x");
    char got[5000];
    fm_error err = {0};
    reads = 0;
    fail_read_at = 1;
    assert_int_equal(ts_read(store, t, 0, 5000, got, &err), FM_E_IO);
    assert_non_null(strstr(err.message, "tensor x: "));
    assert_non_null(strstr(err.message, "model.safetensors: read at byte"));
    fail_read_at = 0;
    for (int nth = 1; nth <= 2; nth++) { /* the two reads of a header */
        ts_store *other = NULL;
        reads = 0;
        fail_read_at = nth;
        assert_int_equal(ts_open(dir, &other, &err), FM_E_IO);
        fail_read_at = 0;
    }
    for (uint64_t nth = 1; nth <= 2; nth++) { /* without a bounce buffer: buffered */
        char *big = malloc(BIG);
        bs_mem_fail_at(nth, true);
        assert_int_equal(ts_read(store, ts_find(store, "w"), 0, BIG, big, &err), FM_OK);
        bs_mem_fail_at(0, false);
        free(big);
    }
    ts_close(store);
}

static void test_shrunk_file(void **state)
{
    (void)state;
    ts_store *store = big_model();
    char *got = malloc(BIG);
    fm_error err = {0};
    assert_int_equal(truncate(in_dir("model.safetensors"), 2000000), 0);
    assert_int_equal(ts_read(store, ts_find(store, "w"), 0, BIG, got, &err), FM_E_IO);
    assert_non_null(strstr(err.message, "bytes when the model was opened and has 2000000 now"));
    assert_int_equal(unlink(in_dir("model.safetensors")), 0);
    assert_int_equal(ts_read(store, ts_find(store, "w"), 0, BIG, got, &err), FM_E_NOT_FOUND);
    free(got);
    ts_close(store);
}

static void test_writer(void **state)
{
    (void)state;
    static const int64_t two[] = {2, 3}, bad[] = {-1}, big[] = {INT64_MAX, 2};
    ts_writer *w;
    fm_error err = {0};
    assert_int_equal(ts_writer_open(in_dir("absent/model.safetensors"), &w, &err), FM_E_NOT_FOUND);
    assert_int_equal(ts_writer_open(in_dir("model.safetensors"), &w, &err), FM_OK);
    assert_int_equal(ts_writer_declare(w, "a \"quoted\\\n", TS_I16, 2, two, &err), FM_OK);
    assert_int_equal(ts_writer_declare(w, "b", TS_I16, 1, bad, &err), FM_E_ARGUMENT);
    assert_int_equal(ts_writer_declare(w, "b", TS_I16, 2, big, &err), FM_E_ARGUMENT);
    assert_int_equal(ts_writer_write(w, "abcdefgh", 8, &err), FM_OK);
    assert_int_equal(ts_writer_finish(w, &err), FM_E_ARGUMENT);
    assert_non_null(strstr(err.message, "8 bytes of the declared 12"));
    expect_refused(FM_E_NOT_FOUND, "holds no weights"); /* nothing half-written is visible */
    assert_int_equal(ts_writer_open(in_dir("model.safetensors"), &w, &err), FM_OK);
    ts_writer_declare(w, "a \"quoted\\\n", TS_I16, 2, two, &err);
    ts_writer_write(w, "abcdefgh", 8, &err);
    ts_writer_write(w, "ijkl", 4, &err);
    assert_int_equal(ts_writer_finish(w, &err), FM_OK);
    ts_store *store = expect_opened();
    const ts_tensor *t = ts_find(store, "a \"quoted\\\n");
    char got[12];
    assert_non_null(t);
    assert_int_equal(t->offset % 8, 0);
    assert_int_equal(ts_read(store, t, 0, 12, got, NULL), FM_OK);
    assert_memory_equal(got, "abcdefghijkl", 12);
    ts_close(store);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_a_file),    TEST(test_reads_floats),
        TEST(test_hostile_headers), TEST(test_hostile_lengths),
        TEST(test_nesting),         TEST(test_folders),
        TEST(test_shards),          TEST(test_every_allocation_may_fail),
        TEST(test_reads_in_pieces), TEST(test_read_errors),
        TEST(test_shrunk_file),     TEST(test_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
