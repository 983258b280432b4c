/* experts_world.h - a small source of experts in real files, at unaligned offsets, for the tests of
 * the experts room. */
#ifndef EXPERTS_WORLD_H
#define EXPERTS_WORLD_H

#include "experts/experts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LAYERS = 3, EXPERTS = 16, TOP_K = 4, ROWS = 8, COLS = 64 };
enum { CODES = ROWS * COLS / 2 + 6000, SCALES = ROWS * 2 + 30 }; /* odd sizes, over one block */

typedef struct world {
    char path[2][64];
    const char *paths[2];
    uint64_t file_bytes[2];
    xp_layer layers[LAYERS];
    xp_source source;
    unsigned char *content[2];
} world;

static unsigned random_state = 1;

static unsigned next_random(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Stacked tensors at unaligned offsets: layer 1 lies in file 1, the others in file 0. */
static void describe(world *w)
{
    uint64_t end[2] = {123, 4097};
    for (int l = 0; l < LAYERS; l++) {
        xp_layer *layer = &w->layers[l];
        int file = l == 1;
        layer->n_experts = EXPERTS;
        layer->top_k = TOP_K;
        layer->bias_type = KN_F32;
        for (int p = 0; p < XP_PROJECTIONS; p++) {
            layer->shape[p] = (kn_mat){.format = KN_AFFINE,
                                       .bits = 4,
                                       .group = 64,
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .row_bytes = COLS / 2,
                                       .scale_row_bytes = 2,
                                       .scale_type = KN_BF16};
            size_t bytes[XP_PARTS] = {CODES, SCALES, SCALES, p == 2 ? ROWS * 4 : 0};
            for (int s = 0; s < XP_PARTS; s++) {
                layer->part[p][s] = (xp_part){
                    .file = file, .offset = end[file], .stride = bytes[s], .bytes = bytes[s]};
                end[file] += bytes[s] * EXPERTS + (bytes[s] ? 13 : 0);
            }
        }
    }
    w->file_bytes[0] = end[0];
    w->file_bytes[1] = end[1] - 13; /* the last range ends with the file */
}

static int set_up(void **state)
{
    world *w = calloc(1, sizeof *w);
    describe(w);
    for (int f = 0; f < 2; f++) {
        snprintf(w->path[f], sizeof w->path[f], "/tmp/experts_world.%d.%d", (int)getpid(), f);
        w->paths[f] = w->path[f];
        w->content[f] = malloc(w->file_bytes[f]);
        for (uint64_t i = 0; i < w->file_bytes[f]; i++)
            w->content[f][i] = (unsigned char)next_random();
        FILE *out = fopen(w->path[f], "wb");
        assert_non_null(out);
        assert_int_equal(fwrite(w->content[f], 1, w->file_bytes[f], out), w->file_bytes[f]);
        fclose(out);
    }
    w->source = (xp_source){LAYERS, w->layers, 2, w->paths, w->file_bytes};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world *w = *state;
    for (int f = 0; f < 2; f++) {
        unlink(w->path[f]);
        free(w->content[f]);
    }
    free(w);
    return 0;
}

static inline void check_view(const world *w, const xp_ticket *t)
{
    for (int p = 0; p < XP_PROJECTIONS; p++) {
        const xp_part *part = w->layers[t->layer].part[p];
        const void *seen[XP_PARTS] = {t->view.m[p].w, t->view.m[p].scales, t->view.m[p].biases,
                                      t->view.bias[p]};
        for (int s = 0; s < XP_PARTS; s++) {
            if (!part[s].bytes) {
                assert_null(seen[s]);
                continue;
            }
            const unsigned char *want =
                w->content[part[s].file] + part[s].offset + (size_t)t->expert * part[s].stride;
            assert_memory_equal(seen[s], want, part[s].bytes);
        }
    }
}

#endif
