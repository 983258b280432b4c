#include "cli/bench_kernels.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/pool.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Weights far larger than any cache, so that every product comes from memory. */
enum { WEIGHT_BYTES = 384 << 20, TOP_K = 8, ROUNDS = 7, MAX_TOKENS = 512 };

typedef struct bench {
    kn_isa isa;
    kn_precision precision;
    int threads, tokens;
    bs_pool *pool;
    char *weights;
    float *x, *y;
    char *scratch;
    kn_mat shape; /* one matrix; matrix i begins i * bytes into weights */
    size_t bytes;
    int n_matrices, first;
    kn_act act;
    uint64_t *sink;
    FILE *table; /* for people; stderr when JSON goes to stdout */
} bench;

static const struct {
    const char *name;
    kn_format format;
    int bits, group;
} kernels[] = {
    {"affine 4-bit g64", KN_AFFINE, 4, 64},
    {"affine 4-bit g32", KN_AFFINE, 4, 32},
    {"affine 8-bit g64", KN_AFFINE, 8, 64},
    {"affine 6-bit g64", KN_AFFINE, 6, 64},
    {"affine 5-bit g64", KN_AFFINE, 5, 64},
    {"affine 3-bit g64", KN_AFFINE, 3, 64},
    {"affine 2-bit g64", KN_AFFINE, 2, 64},
    {"mxfp4", KN_MXFP4, 4, 32},
    {"mxfp8", KN_MXFP8, 8, 32},
    {"bf16", KN_BF16, 0, 0},
    {"f32", KN_F32, 0, 0},
};
enum { N_KERNELS = sizeof kernels / sizeof *kernels };

static const int shapes[][2] = {{768, 2048}, {2048, 768},  {512, 2048},
                                {2048, 512}, {1024, 2048}, {2048, 1024}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Wide loads and eight chains, or the adding and not the memory would be measured. */
typedef uint64_t wide __attribute__((vector_size(64), aligned(8), may_alias));

static void read_task(void *arg, int index, int worker)
{
    bench *b = arg;
    size_t share = WEIGHT_BYTES / sizeof(wide) / (size_t)b->threads;
    const wide *p = (const wide *)(const void *)b->weights + share * (size_t)index;
    wide sum[4] = {{0}};
    (void)worker;
    for (size_t i = 0; i + 4 <= share; i += 4) {
        __builtin_prefetch(p + i + 64);
        __builtin_prefetch(p + i + 65);
        __builtin_prefetch(p + i + 66);
        __builtin_prefetch(p + i + 67);
        sum[0] ^= p[i];
        sum[1] ^= p[i + 1];
        sum[2] ^= p[i + 2];
        sum[3] ^= p[i + 3];
    }
    wide all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    b->sink[index] ^= all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}

/* Bytes a second of one linear stream a thread. */
static double read_rate(bench *b)
{
    double start = bs_now();
    bs_pool_run(b->pool, read_task, b, b->threads);
    return WEIGHT_BYTES / (bs_now() - start);
}

static void place(const bench *b, int i, kn_mat *m)
{
    *m = b->shape;
    const char *at = b->weights + (size_t)i * b->bytes;
    m->w = at;
    m->scales = at + (size_t)m->rows * m->row_bytes;
    m->biases = m->format == KN_AFFINE
                    ? (const char *)m->scales + (size_t)m->rows * m->scale_row_bytes
                    : NULL;
}

/* A task is one thread's share of the rows of one of the eight chosen matrices. */
static void product_task(void *arg, int index, int worker)
{
    bench *b = arg;
    kn_mat m;
    (void)worker;
    int choice = index / b->threads, part = index % b->threads;
    place(b, (b->first + choice) % b->n_matrices, &m);
    int blocks = m.rows / KN_ROW_BLOCK;
    int row0 = blocks * part / b->threads * KN_ROW_BLOCK;
    int row1 = blocks * (part + 1) / b->threads * KN_ROW_BLOCK;
    kn_matmul(b->y + (size_t)choice * (size_t)(m.rows * b->tokens), (size_t)m.rows, &m, &b->act,
              row0, row1, 0, b->tokens);
}

static void set_kernel(bench *b, int k, int rows, int cols, int tokens)
{
    kn_mat *m = &b->shape;
    *m = (kn_mat){.format = kernels[k].format,
                  .bits = kernels[k].bits,
                  .group = kernels[k].group,
                  .scale_type = KN_BF16,
                  .rows = rows,
                  .cols = cols};
    m->row_bytes = kn_row_bytes(m->format, m->bits, cols);
    m->scale_row_bytes = kn_scale_row_bytes(m->format, m->scale_type, m->group, cols);
    m->strips = kn_can_strip(m) && kn_likes_strips(b->isa, b->precision); /* as a model has it */
    b->bytes =
        (size_t)rows * (m->row_bytes + (m->format == KN_AFFINE ? 2 : 1) * m->scale_row_bytes);
    b->n_matrices = (int)(WEIGHT_BYTES / b->bytes);
    b->tokens = tokens;
    int group = m->format == KN_AFFINE ? m->group : 0;
    kn_act_init(&b->act, b->isa, b->x, (size_t)cols, tokens, cols, group, b->precision, b->scratch);
    kn_act_prepare(&b->act, 0, tokens);
}

/* One pass over all matrices, eight a job: bytes of weights a second. */
static double decode_rate(bench *b)
{
    double start = bs_now();
    int done = 0;
    for (b->first = 0; b->first + TOP_K <= b->n_matrices; b->first += TOP_K, done += TOP_K) {
        kn_act_prepare(&b->act, 0, b->tokens);
        bs_pool_run(b->pool, product_task, b, TOP_K * b->threads);
    }
    return (double)b->bytes * done / (bs_now() - start);
}

/* One matrix times many vectors, weights in cache or not as it comes: operations a second. */
static double prefill_rate(bench *b)
{
    double start = bs_now(), flops = 0;
    for (int i = 0; i < 3; i++) {
        b->first = i;
        kn_act_prepare(&b->act, 0, b->tokens);
        bs_pool_run(b->pool, product_task, b, b->threads);
        flops += 2.0 * b->shape.rows * b->shape.cols * b->tokens;
    }
    return flops / (bs_now() - start);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[n / 2];
}

static const char *precision_name(kn_precision p)
{
    return p == KN_PRECISION_FAST ? "fast" : "f32";
}

static json_t *row_json(const bench *b, int k)
{
    return json_pack("{s:s,s:i,s:i,s:s}", "kernel", kernels[k].name, "rows", b->shape.rows, "cols",
                     b->shape.cols, "precision", precision_name(b->precision));
}

static void measure_decode(bench *b, int k, int shape, int tokens, double *reads, int *n_reads,
                           json_t *out)
{
    double rate[ROUNDS], ratio[ROUNDS];
    set_kernel(b, k, shapes[shape][0], shapes[shape][1], tokens);
    for (int i = 0; i < ROUNDS; i++) { /* in turn, so that a busy neighbour hits both */
        double read = read_rate(b);
        rate[i] = decode_rate(b);
        ratio[i] = rate[i] / read;
        reads[(*n_reads)++] = read;
    }
    double gb = median(rate, ROUNDS) * 1e-9, of_read = median(ratio, ROUNDS);
    json_t *row = row_json(b, k);
    json_object_set_new(row, "tokens", json_integer(tokens));
    json_object_set_new(row, "gb_s", json_real(gb));
    json_object_set_new(row, "of_read", json_real(of_read));
    json_array_append_new(out, row);
    fprintf(b->table, "%-17s %5dx%-5d %-4s %4d tokens %7.2f GB/s %6.1f %% of read\n",
            kernels[k].name, b->shape.rows, b->shape.cols, precision_name(b->precision), tokens, gb,
            100 * of_read);
}

static void measure_prefill(bench *b, int k, int tokens, json_t *out)
{
    double rate[ROUNDS];
    set_kernel(b, k, 768, 2048, tokens);
    for (int i = 0; i < ROUNDS; i++) rate[i] = prefill_rate(b);
    double gflops = median(rate, ROUNDS) * 1e-9;
    json_t *row = row_json(b, k);
    json_object_set_new(row, "tokens", json_integer(tokens));
    json_object_set_new(row, "gflop_s", json_real(gflops));
    json_array_append_new(out, row);
    fprintf(b->table, "%-17s %5dx%-5d %-4s %4d tokens %8.1f GFLOP/s\n", kernels[k].name,
            b->shape.rows, b->shape.cols, precision_name(b->precision), tokens, gflops);
}

static void measure_all(bench *b, const char *only, json_t *result)
{
    static const int small[] = {1, 2, 4, 8}, batches[] = {32, MAX_TOKENS};
    enum { N_SMALL = sizeof small / sizeof *small };
    double *reads = bs_calloc((size_t)N_KERNELS * N_SHAPES * N_SMALL * 2 * ROUNDS, sizeof *reads);
    int n_reads = 0;
    json_t *decode = json_array(), *prefill = json_array();
    for (int p = KN_PRECISION_F32; reads && p <= KN_PRECISION_FAST; p++) {
        b->precision = (kn_precision)p;
        for (int k = 0; k < N_KERNELS; k++) {
            if (p == KN_PRECISION_FAST && kernels[k].format != KN_AFFINE) continue;
            if (only && !strstr(kernels[k].name, only)) continue;
            int n_shapes = k == 0 ? N_SHAPES : 1; /* all shapes for the kernel that matters most */
            for (int i = 0; i < N_SMALL; i++)
                for (int s = 0; s < n_shapes; s++)
                    measure_decode(b, k, s, small[i], reads, &n_reads, decode);
            for (int i = 0; i < 2; i++) measure_prefill(b, k, batches[i], prefill);
        }
    }
    double read = n_reads ? median(reads, n_reads) * 1e-9 : 0;
    fprintf(b->table, "streaming read %.1f GB/s, %d threads, %s\n", read, b->threads,
            kn_isa_name(b->isa));
    json_object_set_new(result, "read_gb_s", json_real(read));
    json_object_set_new(result, "decode", decode);
    json_object_set_new(result, "prefill", prefill);
    bs_free(reads);
}

/* Codes may be anything; as scales, these bytes are bfloat16 of about 0.01 and E8M0 of 2^-7. */
static void fill(bench *b)
{
    uint32_t state = 1;
    for (size_t i = 0; i < WEIGHT_BYTES; i += 4) {
        state = state * 1664525u + 1013904223u;
        uint32_t word = 0x3c203c20u | (state >> 8 & 0x001f001fu);
        memcpy(b->weights + i, &word, 4);
    }
    for (size_t i = 0; i < (size_t)MAX_TOKENS * 2048; i++) {
        state = state * 1664525u + 1013904223u;
        b->x[i] = (float)(int32_t)state * 0x1p-31f;
    }
}

int bench_kernels(kn_isa isa, int threads, const char *only, bool json)
{
    bench b = {.isa = isa, .threads = threads, .table = json ? stderr : stdout};
    fm_error err;
    size_t x_bytes = (size_t)MAX_TOKENS * 2048 * sizeof(float), y_bytes = x_bytes * 2;
    size_t act_bytes = kn_act_bytes(MAX_TOKENS, 2048), sink_bytes = (size_t)threads * 8;
    json_t *result = json_pack("{s:s,s:i}", "isa", kn_isa_name(isa), "threads", threads);
    b.weights = bs_pages_alloc(WEIGHT_BYTES);
    b.x = bs_pages_alloc(x_bytes);
    b.y = bs_pages_alloc(y_bytes);
    b.scratch = bs_pages_alloc(act_bytes);
    b.sink = bs_pages_alloc(sink_bytes);
    int status = 1;
    if (!b.weights || !b.x || !b.y || !b.scratch || !b.sink || !result) {
        fprintf(stderr, "bench: out of memory (%d MiB are needed)\n", (WEIGHT_BYTES >> 20) + 32);
    } else if (bs_pool_create(threads, &b.pool, &err) != FM_OK) {
        fprintf(stderr, "bench: %s\n", err.message);
    } else {
        fill(&b);
        measure_all(&b, only, result);
        if (json) json_dumpf(result, stdout, JSON_COMPACT), putchar('\n');
        status = 0;
    }
    json_decref(result);
    bs_pool_destroy(b.pool);
    bs_pages_free(b.weights, WEIGHT_BYTES);
    bs_pages_free(b.x, x_bytes);
    bs_pages_free(b.y, y_bytes);
    bs_pages_free(b.scratch, act_bytes);
    bs_pages_free(b.sink, sink_bytes);
    return status;
}
