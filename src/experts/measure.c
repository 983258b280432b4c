#include "experts/measure.h"

#include "base/clock.h"
#include "base/mem.h"
#include "experts/cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 64 };

typedef struct disk_run {
    xp_reader *reader;
    xp_job *jobs;
    int depth;
    size_t record;
    uint64_t records; /* in the file */
    uint64_t random;
    uint64_t done;
} disk_run;

static void submit_random(disk_run *r, xp_job *job)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    uint64_t which = (r->random >> 20) % r->records;
    job->n_reads = 1;
    job->read[0] =
        (xp_range_read){.offset = which * r->record, .bytes = r->record, .need = r->record};
    xp_reader_submit(r->reader, job);
}

/* Keeps `depth` reads flying for about the given time. */
static fm_status read_for(disk_run *r, double seconds, fm_error *err)
{
    xp_job *flying[MAX_DEPTH];
    for (int i = 0; i < r->depth; i++) submit_random(r, flying[i] = &r->jobs[i]);
    double end = bs_now() + seconds;
    int left = r->depth;
    fm_status status = FM_OK;
    while (left) {
        xp_reader_wait_any(r->reader, flying, r->depth);
        for (int i = 0; i < r->depth; i++) {
            int state = flying[i] ? atomic_load(&flying[i]->state) : XP_JOB_QUEUED;
            if (state == XP_JOB_QUEUED) continue;
            if (state == XP_JOB_FAILED && !status)
                status = fm_fail(err, flying[i]->error.code, "%s", flying[i]->error.message);
            r->done++;
            if (!status && bs_now() < end) {
                submit_random(r, flying[i]);
                continue;
            }
            flying[i] = NULL;
            left--;
        }
    }
    return status;
}

static fm_status measure_open(const xp_disk_probe *p, disk_run *r, xp_disk_rate *out, fm_error *err)
{
    char *memory = bs_pages_alloc(r->record * (size_t)r->depth);
    r->jobs = bs_calloc((size_t)r->depth, sizeof *r->jobs);
    fm_status status = memory && r->jobs ? FM_OK : fm_fail_nomem(err, "disk measurement");
    uint64_t bytes = r->records * r->record;
    xp_reader_options o = {.paths = &p->path,
                           .file_bytes = &bytes,
                           .n_files = 1,
                           .io = p->io,
                           .threads = p->io_threads ? p->io_threads : r->depth,
                           .depth = r->depth,
                           .memory = memory,
                           .memory_bytes = r->record * (size_t)r->depth};
    if (!status) status = xp_reader_open(&o, &r->reader, err);
    if (!status) {
        for (int i = 0; i < r->depth; i++) r->jobs[i].memory = memory + (size_t)i * r->record;
        double begin = bs_now();
        status = read_for(r, p->seconds, err);
        double took = bs_now() - begin;
        out->bytes_s = (double)xp_reader_bytes(r->reader) / took;
        out->latency_s = took * r->depth / (double)(r->done ? r->done : 1);
        out->direct_io = xp_reader_direct(r->reader);
    }
    xp_reader_close(r->reader);
    bs_pages_free(memory, r->record * (size_t)r->depth);
    bs_free(r->jobs);
    return status;
}

fm_status xp_measure_disk(const xp_disk_probe *p, xp_disk_rate *out, fm_error *err)
{
    struct stat st;
    if (stat(p->path, &st)) return fm_fail(err, FM_E_NOT_FOUND, "%s: no such file", p->path);
    disk_run r = {.random = bs_now_ns()};
    r.record = (p->record_bytes + XP_BLOCK - 1) & ~(size_t)(XP_BLOCK - 1);
    r.depth = p->depth < 1 ? 1 : p->depth > MAX_DEPTH ? MAX_DEPTH : p->depth;
    r.records = r.record ? (uint64_t)st.st_size / r.record : 0;
    if (!r.records)
        return fm_fail(err, FM_E_ARGUMENT, "%s: smaller than one record of %zu bytes", p->path,
                       r.record);
    return measure_open(p, &r, out, err);
}

/* --- memory -------------------------------------------------------------------------------------
 */

/* A pass is far beyond any cache: L3s of a few hundred MiB exist. */
enum { READ_AHEAD = 4096, PASS_BYTES = 1 << 30, STRIPE = 1 << 20, MOST_PASSES = 200 };

typedef struct memory_run {
    const char *const *pieces; /* read in this order, one a task */
    size_t bytes;              /* of each */
    int first, n;              /* of this pass */
    _Atomic uint64_t sum;      /* so that the reads are not optimised away */
} memory_run;

/* Fetched ahead, as the products do it: without, processors were seen to read a fifth to a half
 * more slowly than those. */
static void read_piece(void *arg, int index, int worker)
{
    (void)worker;
    memory_run *r = arg;
    const uint64_t *w = (const void *)r->pieces[r->first + index];
    uint64_t lanes[16] = {0};
    for (size_t i = 0; i + 16 <= r->bytes / sizeof *w; i += 16) {
        __builtin_prefetch((const char *)&w[i] + READ_AHEAD);
        __builtin_prefetch((const char *)&w[i] + READ_AHEAD + 64);
        for (int l = 0; l < 16; l++) lanes[l] ^= w[i + l];
    }
    uint64_t sum = 0;
    for (int l = 0; l < 16; l++) sum ^= lanes[l];
    atomic_fetch_xor_explicit(&r->sum, sum, memory_order_relaxed);
}

static int by_rate(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median pass: the best one is a moment without neighbours that decoding will not have. */
static double read_passes(bs_pool *pool, double seconds, memory_run *r, int n_pieces)
{
    double rate[MOST_PASSES], end = bs_now() + seconds;
    int n = 0, most = (int)(PASS_BYTES / r->bytes);
    do {
        r->n = most < n_pieces ? most : n_pieces;
        if (r->first + r->n > n_pieces) r->first = 0;
        double begin = bs_now();
        bs_pool_run(pool, read_piece, r, r->n);
        rate[n++] = (double)r->bytes * r->n / (bs_now() - begin);
        r->first += r->n;
    } while (n < MOST_PASSES && bs_now() < end);
    qsort(rate, (size_t)n, sizeof *rate, by_rate);
    return rate[n / 2];
}

fm_status xp_measure_memory(bs_pool *pool, double seconds, double *bytes_s, fm_error *err)
{
    const char *stripes[PASS_BYTES / STRIPE];
    char *memory = bs_pages_alloc(PASS_BYTES);
    if (!memory) return fm_fail_nomem(err, "memory measurement");
    memset(memory, 1, PASS_BYTES); /* untouched pages would all be the one zero page */
    for (int i = 0; i < PASS_BYTES / STRIPE; i++) stripes[i] = memory + (size_t)i * STRIPE;
    memory_run r = {.pieces = stripes, .bytes = STRIPE};
    *bytes_s = read_passes(pool, seconds, &r, PASS_BYTES / STRIPE);
    bs_pages_free(memory, PASS_BYTES);
    return FM_OK;
}

/* The loaded slots of a size in random order; how many. */
static int shuffle_slots(const xp_cache *cache, size_t bytes, const char **out)
{
    uint64_t random = 88172645463325252u;
    int n = 0;
    for (int i = 0; i < cache->n_slots; i++) {
        if (!cache->slots[i].loaded || cache->slots[i].bytes != bytes) continue;
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        int at = (int)(random % (uint64_t)(n + 1));
        out[n++] = out[at];
        out[at] = cache->slots[i].memory;
    }
    return n;
}

fm_status xp_measure_experts(const xp_cache *cache, bs_pool *pool, double seconds, size_t least,
                             double *bytes_s, fm_error *err)
{
    *bytes_s = 0;
    if (!cache->n_slots) return FM_OK;
    const char **pieces = bs_calloc((size_t)cache->n_slots, sizeof *pieces);
    if (!pieces) return fm_fail_nomem(err, "memory measurement");
    memory_run r = {.pieces = pieces, .bytes = cache->slots[0].bytes};
    int n = shuffle_slots(cache, r.bytes, pieces);
    if (n && r.bytes * (size_t)n >= least) *bytes_s = read_passes(pool, seconds, &r, n);
    bs_free(pieces);
    return FM_OK;
}
