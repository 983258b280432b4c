/* The packed store gives the bytes of the source, survives being killed, and refuses to be wrong.
 */
#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "experts/pack.h"
#include "experts/pack_format.h"

#include "experts_world.h"

#include <fcntl.h>
#include <sys/stat.h>

static char dir[64];

static int set_up_pack(void **state)
{
    strcpy(dir, "/tmp/test_pack.XXXXXX");
    return mkdtemp(dir) ? set_up(state) : -1;
}

static void in_dir(char *out, size_t n, const char *name)
{
    snprintf(out, n, "%s/%s", dir, name);
}

static int tear_down_pack(void **state)
{
    static const char *const names[] = {"manifest.json", "layer-000.pack", "layer-001.pack",
                                        "layer-002.pack", ".lock"};
    for (int i = 0; i < 5; i++) {
        char path[120];
        in_dir(path, sizeof path, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0); /* nothing else was left there */
    return tear_down(state);
}

static void checksum(void **state)
{
    (void)state;
    assert_int_equal(bs_crc32c(0, "123456789", 9), 0xe3069283);
    unsigned char bytes[1000];
    for (int i = 0; i < 1000; i++) bytes[i] = (unsigned char)next_random();
    for (size_t n = 0; n + 3 <= sizeof bytes; n += 37) {
        uint32_t whole = bs_crc32c_table(0, bytes + 3, n);
        assert_int_equal(bs_crc32c(0, bytes + 3, n), whole);
        assert_int_equal(bs_crc32c(bs_crc32c(0, bytes + 3, n / 3), bytes + 3 + n / 3, n - n / 3),
                         whole);
    }
}

/* In pieces, by several threads: shorter than a piece, around its end, and more than go at once. */
static void checksum_on_threads(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 131071, 131072, 131073, 1769472, 8388608, 9000001};
    size_t most = 9000001;
    unsigned char *bytes = malloc(most);
    assert_non_null(bytes);
    for (size_t i = 0; i < most; i++) bytes[i] = (unsigned char)next_random();
    fm_error err;
    bs_pool *pool;
    assert_int_equal(bs_pool_create(3, &pool, &err), FM_OK);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint32_t whole = bs_crc32c(0, bytes, lengths[i]);
        assert_int_equal(bs_crc32c_on(NULL, bytes, lengths[i]), whole);
        assert_int_equal(bs_crc32c_on(pool, bytes, lengths[i]), whole);
    }
    bs_pool_destroy(pool);
    free(bytes);
}

/* Eight-bit codes in rows, as stores had them before strips, and in strips; other bits are another
 * layer. */
static void rows_or_strips(void **state)
{
    (void)state;
    xp_layer layer = {.n_experts = 2, .top_k = 1};
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        layer.shape[p] = (kn_mat){.format = KN_AFFINE,
                                  .bits = 8,
                                  .group = 64,
                                  .scale_type = KN_BF16,
                                  .rows = 16,
                                  .cols = 64,
                                  .row_bytes = 64,
                                  .scale_row_bytes = 2};
        layer.part[p][XP_CODES].bytes = 16 * 64;
        layer.part[p][XP_SCALES].bytes = layer.part[p][XP_BIASES].bytes = 16 * 2;
    }
    json_t *said = xp_pack_layer_json(&layer, 3), *up = json_object_get(said, "up");
    assert_true(json_is_true(json_object_get(up, "strips")));
    assert_true(xp_pack_same_layer(&layer, 3, said));
    json_object_set_new(up, "strips", json_false());
    assert_true(xp_pack_same_layer(&layer, 3, said));
    fm_error err;
    xp_layer read;
    assert_int_equal(xp_pack_parse_layer(said, "test", &read, &err), FM_OK);
    assert_true(read.shape[XP_GATE].strips && !read.shape[XP_UP].strips);
    json_object_set_new(up, "bits", json_integer(4));
    assert_false(xp_pack_same_layer(&layer, 3, said));
    json_decref(said);
}

static void use_all(const world *w, const xp_options *o)
{
    xp_cache *c;
    fm_error err;
    assert_int_equal(xp_open(&w->source, o, &c, &err), FM_OK);
    xp_stats s;
    for (int l = 0; l < LAYERS; l++)
        for (int e = 0; e < EXPERTS; e++) {
            xp_ticket t;
            int index;
            assert_int_equal(xp_acquire(c, l, &e, NULL, 1, &t, &err), FM_OK);
            assert_int_equal(xp_wait(c, &t, 1, &index, &err), FM_OK);
            check_view(w, &t);
            assert_int_equal((uintptr_t)t.view.m[0].w % XP_SECTION_ALIGN, 0);
            xp_release(c, &t, 1);
        }
    xp_get_stats(c, &s);
    assert_int_equal(s.reads, s.misses); /* one read an expert */
    xp_close(c);
}

static void pack(const world *w)
{
    fm_error err;
    fm_status status = xp_pack_all(&w->source, NULL, dir, NULL, NULL, &err);
    if (status) print_message("%s\n", err.message);
    assert_int_equal(status, FM_OK);
}

static void same_bytes(void **state)
{
    const world *w = *state;
    pack(w);
    fm_error err;
    xp_pack *p;
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_OK);
    assert_int_equal(xp_pack_verify(p, NULL, NULL, &err), FM_OK);
    xp_pack_close(p);
    xp_options o = {.capacity = 4, .pack_dir = dir};
    use_all(w, &o);
    o.capacity = 0;
    use_all(w, &o);
    o.capacity = -1;
    o.slot_bytes = xp_floor_bytes(&w->source, &o);
    use_all(w, &o);
    pack(w); /* done already: no work, still fine */
}

static void flip_byte(const char *name, off_t at)
{
    char path[120];
    in_dir(path, sizeof path, name);
    int fd = open(path, O_RDWR);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void damage(void **state)
{
    const world *w = *state;
    pack(w);
    fm_error err;
    flip_byte("layer-001.pack", 4096 + 100); /* in the record of expert 0 */
    xp_pack *p;
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_OK);
    assert_int_equal(xp_pack_verify(p, NULL, NULL, &err), FM_E_FORMAT);
    assert_non_null(strstr(err.message, "layer-001.pack"));
    xp_pack_close(p);
    xp_options o = {.capacity = 4, .pack_dir = dir};
    xp_cache *c;
    assert_int_equal(xp_open(&w->source, &o, &c, &err), FM_OK);
    xp_ticket t[2];
    int e[2] = {0, 1}, index;
    for (int again = 0; again < 2; again++) { /* not believed the second time either */
        assert_int_equal(xp_acquire(c, 1, e, NULL, 2, t, &err), FM_OK);
        fm_status status = xp_wait(c, t, 2, &index, &err);
        if (!status) status = xp_wait(c, t, 2, &index, &err);
        assert_int_equal(status, FM_E_FORMAT);
        assert_non_null(strstr(err.message, "checksum"));
        xp_release(c, t, 2);
    }
    xp_close(c);
    flip_byte("layer-001.pack", 70); /* in the table of checksums */
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_E_FORMAT);
    pack(w); /* only the damaged layer is written again */
    use_all(w, &o);
}

static void stale(void **state)
{
    world *w = *state;
    pack(w);
    fm_error err;
    xp_pack *p;
    struct timespec later[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, w->path[1], later, 0), 0);
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_E_STALE);
    assert_non_null(strstr(err.message, w->path[1]));
    pack(w);
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_OK);
    xp_pack_close(p);
    w->layers[2].shape[0].rows++;
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_E_STALE);
    w->layers[2].shape[0].rows--;
    w->source.n_layers--;
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_E_STALE);
    w->source.n_layers++;
    assert_int_equal(xp_pack_open("/nonexistent", &w->source, &p, &err), FM_E_NOT_FOUND);
}

static const void *bytes_of(const world *w, int l, int e, int p, int s)
{
    const xp_part *part = &w->layers[l].part[p][s];
    return w->content[part->file] + part->offset + (size_t)e * part->stride;
}

static fm_status put(xp_pack_writer *writer, const world *w, int l, int e, fm_error *err)
{
    const void *part[XP_PROJECTIONS][XP_PARTS];
    for (int p = 0; p < XP_PROJECTIONS; p++)
        for (int s = 0; s < XP_PARTS; s++) part[p][s] = bytes_of(w, l, e, p, s);
    return xp_pack_put(writer, l, e, part, err);
}

/* A writer that stops in its second layer; the next one, fed in another order, goes on after the
 * first. */
static void resume(void **state)
{
    const world *w = *state;
    fm_error err;
    xp_pack_writer *writer, *other;
    xp_pack *p;
    assert_int_equal(xp_pack_begin(dir, w->layers, LAYERS, &w->source, &writer, &err), FM_OK);
    assert_int_equal(xp_pack_begin(dir, w->layers, LAYERS, &w->source, &other, &err), FM_E_BUSY);
    for (int e = EXPERTS - 1; e >= 0; e--) assert_int_equal(put(writer, w, 0, e, &err), FM_OK);
    assert_int_equal(put(writer, w, 1, 5, &err), FM_OK);
    assert_int_equal(put(writer, w, 1, EXPERTS, &err), FM_E_ARGUMENT);
    assert_int_equal(xp_pack_finish_layer(writer, 0, &err), FM_OK);
    assert_int_equal(xp_pack_finish_layer(writer, 1, &err), FM_E_ARGUMENT); /* incomplete */
    xp_pack_abort(writer);
    assert_int_equal(xp_pack_open(dir, &w->source, &p, &err), FM_E_NOT_FOUND);

    assert_int_equal(xp_pack_begin(dir, w->layers, LAYERS, &w->source, &writer, &err), FM_OK);
    assert_true(xp_pack_has_layer(writer, 0));
    assert_false(xp_pack_has_layer(writer, 1));
    for (int l = 1; l < LAYERS; l++)
        for (int e = 0; e < EXPERTS; e++) assert_int_equal(put(writer, w, l, e, &err), FM_OK);
    assert_int_equal(xp_pack_finish_layer(writer, 1, &err), FM_OK);
    assert_int_equal(xp_pack_finish_layer(writer, 2, &err), FM_OK);
    assert_int_equal(xp_pack_finish(writer, &err), FM_OK);
    xp_options o = {.capacity = 5, .pack_dir = dir};
    use_all(w, &o);
}

static void stands_alone(void **state)
{
    const world *w = *state;
    fm_error err;
    xp_pack_writer *writer;
    assert_int_equal(xp_pack_begin(dir, w->layers, LAYERS, NULL, &writer, &err), FM_OK);
    for (int l = 0; l < LAYERS; l++) {
        for (int e = 0; e < EXPERTS; e++) assert_int_equal(put(writer, w, l, e, &err), FM_OK);
        assert_int_equal(xp_pack_finish_layer(writer, l, &err), FM_OK);
    }
    assert_int_equal(xp_pack_finish(writer, &err), FM_OK);
    xp_pack *p;
    assert_int_equal(xp_pack_open(dir, NULL, &p, &err), FM_OK);
    const xp_source *s = xp_pack_source(p);
    assert_int_equal(s->n_layers, LAYERS);
    assert_int_equal(s->layers[1].shape[2].cols, COLS);
    xp_pack_close(p);
}

/* Any damage of the manifest is an error, not a crash. */
static void hostile_manifest(void **state)
{
    const world *w = *state;
    pack(w);
    char path[120];
    in_dir(path, sizeof path, "manifest.json");
    bs_buf text = {0};
    fm_error err;
    assert_int_equal(bs_read_file(path, 1 << 20, &text, &err), FM_OK);
    for (size_t i = 0; i < text.length; i += 7) {
        char kept = text.data[i];
        text.data[i] = (char)('0' + next_random() % 75);
        if (text.data[i] != kept) {
            xp_pack *p;
            assert_int_equal(bs_write_file(path, text.data, text.length, &err), FM_OK);
            if (!xp_pack_open(dir, &w->source, &p, &err)) xp_pack_close(p);
            if (!xp_pack_open(dir, NULL, &p, &err)) xp_pack_close(p);
        }
        text.data[i] = kept;
    }
    bs_buf_free(&text);
}

static void failing_allocations(void **state)
{
    const world *w = *state;
    fm_status status = FM_E_NOMEM;
    for (int nth = 1; status && nth < 20000; nth += 3) {
        fm_error err;
        bs_mem_fail_at((uint64_t)nth, true);
        status = xp_pack_all(&w->source, NULL, dir, NULL, NULL, &err);
        bs_mem_fail_at(0, false);
    }
    assert_int_equal(status, FM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksum),
        cmocka_unit_test(checksum_on_threads),
        cmocka_unit_test(rows_or_strips),
        cmocka_unit_test_setup_teardown(same_bytes, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(damage, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(stale, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(resume, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(stands_alone, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(hostile_manifest, set_up_pack, tear_down_pack),
        cmocka_unit_test_setup_teardown(failing_allocations, set_up_pack, tear_down_pack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
