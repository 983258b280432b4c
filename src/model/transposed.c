/* transposed.c - products with matrices stored [in][out] (raw Qwen3-VL): a block of columns at a
 * time, rows added in rising order. Where the columns are cut changes no sum. */
#include "model/inside.h"

#include <string.h>

enum { COLUMNS = 128 };

typedef struct job {
    md_run *r;
    const md_transposed *items;
    int n, blocks; /* blocks: tasks an item, of the widest one */
} job;

static size_t element_bytes(kn_format format)
{
    return format == KN_F32 ? 4 : 2;
}

static void run_block(void *arg, int index, int worker)
{
    (void)worker;
    const job *j = arg;
    const md_transposed *it = &j->items[index / j->blocks];
    int c0 = index % j->blocks * COLUMNS, n = it->n_out - c0 < COLUMNS ? it->n_out - c0 : COLUMNS;
    if (n <= 0) return;
    kn_mat w = *it->w;
    w.cols = n;
    w.w = (const char *)w.w + (size_t)(it->first + c0) * element_bytes(w.format);
    for (int t = 0; t < it->n; t++)
        memset(it->y + (size_t)t * it->y_stride + c0, 0, (size_t)n * sizeof(float));
    for (int i = 0; i < w.rows; i++) {
        float row[COLUMNS];
        kn_dequant_row(&w, i, row);
        for (int t = 0; t < it->n; t++)
            kn_axpy(j->r->isa, it->y + (size_t)t * it->y_stride + c0,
                    it->x[(size_t)t * it->x_stride + (size_t)i], row, n);
    }
}

void md_run_transposed(md_run *r, const md_transposed *items, int n)
{
    job j = {.r = r, .items = items, .n = n};
    for (int i = 0; i < n; i++) {
        int blocks = (items[i].n_out + COLUMNS - 1) / COLUMNS;
        if (blocks > j.blocks) j.blocks = blocks;
    }
    bs_pool_run(r->pool, run_block, &j, n * j.blocks);
}
