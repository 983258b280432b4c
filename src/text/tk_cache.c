/* A tokenizer's tables, built once and kept in the user's cache folder: reading 11 MB of JSON takes
 * a hundred milliseconds, reading the tables a few. A cache file is named by the hash of the
 * tokenizer.json's bytes, so it can never belong to another file; it is checked whole before it is
 * used, and written to a temporary name first. Whatever goes wrong here only means that there is no
 * cache. */
#include "base/file.h"
#include "base/mem.h"
#include "text/tk_load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALLEST = 1 << 20, LARGEST = 1 << 30, CHUNK = 256 << 10, N_PARTS = 11 };

static const char magic[8] = "FMTOK\0\0\4"; /* the last byte is the version of this layout */

typedef struct header {
    char magic[8];
    uint64_t source[2];     /* the tokenizer.json's hash */
    uint64_t checksum;      /* of everything behind the header */
    uint64_t part[N_PARTS]; /* bytes of each part, in the order of `parts` below */
    int32_t unk, byte[256], fallback[256];
    uint8_t raw, fuse_unk, byte_fallback, ignore_merges, word_cuts;
} header;

enum { P_TOKENS, P_POOL, P_VOCAB_SLOTS, P_MERGE_SLOTS, P_RESULT, P_PLACED, P_SECTIONS };

/* --- hashing
 * ---------------------------------------------------------------------------------------------- */

/* Four lanes that do not wait for each other: the reader of 20 MB should wait for memory alone. */
enum { LANES = 4, BLOCK = LANES * 16 };

typedef struct hasher {
    uint64_t lane[LANES], n;
} hasher;

static uint64_t fold(uint64_t x, uint64_t y)
{
    __uint128_t m = (__uint128_t)x * y;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static void hash_block(hasher *h, const char *s)
{
    uint64_t w[2 * LANES];
    memcpy(w, s, BLOCK);
    for (int i = 0; i < LANES; i++)
        h->lane[i] = fold(h->lane[i] ^ w[2 * i], 0xA0761D6478BD642Fu ^ w[2 * i + 1]) + w[2 * i];
}

/* n is a multiple of BLOCK but in the last call. */
static void hash_more(hasher *h, const char *s, size_t n)
{
    char last[BLOCK] = {0};
    for (h->n += n; n >= BLOCK; s += BLOCK, n -= BLOCK) hash_block(h, s);
    memcpy(last, s, n);
    if (n) hash_block(h, last);
}

static void hash_end(const hasher *h, uint64_t out[2])
{
    uint64_t x = h->n, y = ~h->n;
    for (int i = 0; i < LANES; i++) {
        x = fold(x ^ h->lane[i], 0xE7037ED1A0B428DBu ^ y);
        y = (y << 27 | y >> 37) * 0x9E3779B97F4A7C15u ^ h->lane[i];
    }
    out[0] = x;
    out[1] = fold(y, 0x8EBC6AF09C88C6E3u ^ x);
}

static hasher hash_begin(uint64_t seed)
{
    return (hasher){{seed, seed + 1, seed + 2, seed + 3}, 0};
}

static uint64_t checksum(const char *s, size_t n)
{
    hasher h = hash_begin(1);
    uint64_t out[2];
    hash_more(&h, s, n);
    hash_end(&h, out);
    return out[0] ^ out[1];
}

static bool hash_file(const char *path, uint64_t out[2])
{
    hasher h = hash_begin(5);
    struct stat st;
    fm_error err;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *chunk = bs_malloc(CHUNK);
    bool ok = fd >= 0 && chunk && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
              st.st_size >= SMALLEST && st.st_size <= LARGEST;
    for (uint64_t at = 0; ok && at < (uint64_t)st.st_size; at += CHUNK) {
        size_t n = (uint64_t)st.st_size - at < CHUNK ? (size_t)((uint64_t)st.st_size - at) : CHUNK;
        ok = !bs_pread_full(fd, path, chunk, n, at, &err);
        if (ok) hash_more(&h, chunk, n);
    }
    hash_end(&h, out);
    bs_free(chunk);
    if (fd >= 0) close(fd);
    return ok;
}

/* --- where
 * --------------------------------------------------------------------------------------------------
 */

static char *cache_folder(void)
{
    const char *off = getenv("FLASH_MOE_TOKENIZER_CACHE"), *xdg = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    if (off && !strcmp(off, "off")) return NULL;
    if (xdg && *xdg == '/') return bs_sprintf("%s/flash-moe/tokenizers", xdg);
    return home && *home == '/' ? bs_sprintf("%s/.cache/flash-moe/tokenizers", home) : NULL;
}

static char *cache_path(const char *folder, const uint64_t source[2])
{
    return folder ? bs_sprintf("%s/%016llx%016llx.tables", folder, (unsigned long long)source[0],
                               (unsigned long long)source[1])
                  : NULL;
}

/* --- reading
 * --------------------------------------------------------------------------------------------------
 */

static size_t aligned(uint64_t n)
{
    return ((size_t)n + 15) & ~(size_t)15;
}

/* Where each part starts; false when they do not fill the file exactly. */
static bool lay_out(const header *h, size_t size, size_t start[N_PARTS])
{
    size_t at = aligned(sizeof *h);
    for (int i = 0; i < N_PARTS; i++) {
        if (h->part[i] > LARGEST || at > size) return false;
        start[i] = at;
        at += aligned(h->part[i]);
    }
    return at == size;
}

static bool power_of_two(size_t n)
{
    return n && !(n & (n - 1));
}

static bool good_id(int32_t id, size_t n)
{
    return id >= -1 && id < (int64_t)n;
}

/* Nothing in the tables may point outside of them, and both hash tables need a free slot to stop
 * at. */
static bool sound(const tx_tokenizer *t, const header *h)
{
    const tk_vocab *v = &t->vocab;
    const tk_bpe *b = &t->bpe;
    bool ok = v->n && v->n < TK_MAX_IDS && b->n_merges < TK_MAX_MERGES &&
              power_of_two(v->n_slots) && power_of_two(b->n_slots) && good_id(h->unk, v->n);
    size_t empty = 0;
    for (size_t i = 0; ok && i < v->n; i++)
        ok = (uint64_t)v->tokens[i].offset + v->tokens[i].length <= v->pool.length;
    for (size_t i = 0; ok && i < v->n_slots; i++) {
        empty += !v->slots[i];
        ok = !v->slots[i] || ((uint32_t)v->slots[i] && (uint32_t)v->slots[i] <= v->n);
    }
    ok = ok && empty;
    empty = 0;
    for (size_t i = 0; ok && i < b->n_slots; i++) {
        bool none = b->slots[i] == UINT64_MAX;
        empty += none;
        ok = none || (b->slots[i] & 0x3FFFFF) < b->n_merges;
    }
    for (size_t i = 0; ok && i < b->n_merges; i++)
        ok = b->result[i] >= 0 && good_id(b->result[i], v->n);
    for (int i = 0; ok && i < 256; i++)
        ok = good_id(b->byte[i], v->n) && good_id(b->fallback[i], v->n);
    return ok && empty;
}

static void attach(tx_tokenizer *t, const header *h, const size_t start[N_PARTS])
{
    char *base = t->block;
    tk_vocab *v = &t->vocab;
    tk_bpe *b = &t->bpe;
    v->tokens = (tk_token *)(base + start[P_TOKENS]);
    v->n = v->capacity = h->part[P_TOKENS] / sizeof *v->tokens;
    v->pool = (bs_buf){.data = base + start[P_POOL], .length = h->part[P_POOL]};
    v->slots = (uint64_t *)(base + start[P_VOCAB_SLOTS]);
    v->n_slots = h->part[P_VOCAB_SLOTS] / sizeof *v->slots;
    b->slots = (uint64_t *)(base + start[P_MERGE_SLOTS]);
    b->n_slots = h->part[P_MERGE_SLOTS] / sizeof *b->slots;
    b->result = (int32_t *)(base + start[P_RESULT]);
    b->n_merges = h->part[P_RESULT] / sizeof *b->result;
    t->placed = (int32_t *)(base + start[P_PLACED]);
    t->n_placed = h->part[P_PLACED] / sizeof *t->placed;
    memcpy(b->byte, h->byte, sizeof b->byte);
    memcpy(b->fallback, h->fallback, sizeof b->fallback);
    b->unk = h->unk;
    t->raw = h->raw;
    b->fuse_unk = h->fuse_unk;
    b->byte_fallback = h->byte_fallback;
    b->ignore_merges = h->ignore_merges;
    b->word_cuts = h->word_cuts;
}

static bool read_block(const char *path, const uint64_t source[2], tx_tokenizer *t, header *h,
                       size_t start[N_PARTS])
{
    struct stat st;
    fm_error err;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    bool ok = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > (off_t)sizeof *h &&
              st.st_size <= LARGEST;
    if (ok) t->block = bs_pages_alloc((size_t)st.st_size);
    if (t->block) t->block_bytes = (size_t)st.st_size;
    ok = ok && t->block && !bs_pread_full(fd, path, t->block, t->block_bytes, 0, &err);
    close(fd);
    if (!ok) return false;
    memcpy(h, t->block, sizeof *h);
    return !memcmp(h->magic, magic, sizeof magic) && h->source[0] == source[0] &&
           h->source[1] == source[1] && lay_out(h, t->block_bytes, start) &&
           h->checksum == checksum(t->block + sizeof *h, t->block_bytes - sizeof *h);
}

/* The sections' texts, parsed. */
static bool read_sections(const tx_tokenizer *t, const header *h, const size_t start[N_PARTS],
                          tk_sections *out)
{
    json_t **to[] = {&out->normalizer, &out->pre_tokenizer, &out->decoder, &out->added_tokens,
                     &out->post_processor};
    for (int i = 0; i < N_PARTS - P_SECTIONS; i++) {
        if (!h->part[P_SECTIONS + i]) continue;
        *to[i] = json_loadb(t->block + start[P_SECTIONS + i], h->part[P_SECTIONS + i],
                            JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
        if (!*to[i]) return false;
    }
    return true;
}

static bool load(const char *path, const uint64_t source[2], tx_tokenizer *t)
{
    header h;
    size_t start[N_PARTS];
    tk_sections sections = {0};
    fm_error err;
    bool ok = read_block(path, source, t, &h, start);
    if (ok) {
        attach(t, &h, start);
        ok = sound(t, &h) && read_sections(t, &h, start, &sections) &&
             !tk_read_steps(t, &sections, path, &err);
    }
    if (ok) t->bpe.whole = bs_calloc(t->vocab.n, 1);
    ok = ok && t->bpe.whole && t->n_placed == json_array_size(sections.added_tokens) &&
         !tk_read_added(t, &sections, path, &err);
    tk_free_sections(&sections);
    return ok;
}

bool tk_cache_load(const char *path, tx_tokenizer *t, uint64_t source[2])
{
    char *folder = cache_folder();
    bool hashed = folder && hash_file(path, source);
    char *file = hashed ? cache_path(folder, source) : NULL;
    bool ok = file && load(file, source, t);
    if (!ok) tk_clear(t);
    if (!hashed) source[0] = source[1] = 0;
    bs_free(folder);
    bs_free(file);
    return ok;
}

/* --- writing
 * ----------------------------------------------------------------------------------------------------
 */

typedef struct writer {
    bs_buf out;
    header h;
    int part;
} writer;

static void put(writer *w, const void *data, size_t n)
{
    static const char zeros[16];
    bs_buf_append(&w->out, data, n);
    bs_buf_append(&w->out, zeros, aligned(n) - n);
    w->h.part[w->part++] = n;
}

static void put_section(writer *w, const json_t *v)
{
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (v && !text) w->out.failed = true;
    else put(w, text ? text : "", text ? strlen(text) : 0);
    free(text);
}

/* Through a temporary name. No fsync: what a crash leaves behind fails the checksum. */
static void write_file(const char *path, const bs_buf *b)
{
    char *temp = bs_sprintf("%s.tmp.%ld", path, (long)getpid());
    int fd = temp ? open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    bool ok = fd >= 0;
    for (size_t at = 0; ok && at < b->length;) {
        ssize_t n = write(fd, b->data + at, b->length - at);
        if (n > 0) at += (size_t)n;
        else ok = n < 0 && errno == EINTR;
    }
    if (fd >= 0 && close(fd)) ok = false;
    if (fd >= 0 && (!ok || rename(temp, path))) unlink(temp);
    bs_free(temp);
}

static void fill(writer *w, const tx_tokenizer *t, const tk_sections *s)
{
    const tk_vocab *v = &t->vocab;
    const tk_bpe *b = &t->bpe;
    char zeros[16] = {0};
    bs_buf_append(&w->out, &w->h, sizeof w->h);
    bs_buf_append(&w->out, zeros, aligned(sizeof w->h) - sizeof w->h);
    put(w, v->tokens, v->n * sizeof *v->tokens);
    put(w, v->pool.data, v->pool.length);
    put(w, v->slots, v->n_slots * sizeof *v->slots);
    put(w, b->slots, b->n_slots * sizeof *b->slots);
    put(w, b->result, b->n_merges * sizeof *b->result);
    put(w, t->placed, t->n_placed * sizeof *t->placed);
    put_section(w, s->normalizer);
    put_section(w, s->pre_tokenizer);
    put_section(w, s->decoder);
    put_section(w, s->added_tokens);
    put_section(w, s->post_processor);
}

void tk_cache_save(const tx_tokenizer *t, const tk_sections *s, const uint64_t source[2])
{
    const tk_bpe *b = &t->bpe;
    fm_error err;
    char *folder = cache_folder(), *path = cache_path(folder, source);
    if (!path || t->model != TK_BPE || b->prefix || b->suffix || bs_make_dirs(folder, &err)) {
        bs_free(folder);
        bs_free(path);
        return;
    }
    writer w = {.h = {.source = {source[0], source[1]},
                      .unk = b->unk,
                      .raw = t->raw,
                      .fuse_unk = b->fuse_unk,
                      .byte_fallback = b->byte_fallback,
                      .ignore_merges = b->ignore_merges,
                      .word_cuts = b->word_cuts}};
    memcpy(w.h.magic, magic, sizeof magic);
    memcpy(w.h.byte, b->byte, sizeof b->byte);
    memcpy(w.h.fallback, b->fallback, sizeof b->fallback);
    fill(&w, t, s);
    if (!w.out.failed && w.part == N_PARTS) {
        w.h.checksum = checksum(w.out.data + sizeof w.h, w.out.length - sizeof w.h);
        memcpy(w.out.data, &w.h, sizeof w.h);
        write_file(path, &w.out);
    }
    bs_buf_free(&w.out);
    bs_free(folder);
    bs_free(path);
}
