/* Chunks of memory that are freed together. */
#include "base/mem.h"
#include "text/jj.h"

struct jj_chunk {
    struct jj_chunk *older;
    size_t size;
    _Alignas(16) char bytes[];
};

enum { CHUNK = 16 << 10, BIGGEST_CHUNK = 1 << 20 };

static bool new_chunk(jj_arena *a, size_t bytes)
{
    size_t size = a->size * 2 < CHUNK           ? CHUNK
                  : a->size * 2 > BIGGEST_CHUNK ? BIGGEST_CHUNK
                                                : a->size * 2;
    if (size < bytes) size = bytes;
    if (bytes > a->limit || a->total > a->limit - bytes) return false;
    struct jj_chunk *chunk = bs_calloc(1, sizeof *chunk + size);
    if (!chunk) return false;
    chunk->older = a->chunks;
    chunk->size = size;
    a->chunks = chunk;
    a->used = 0;
    a->size = size;
    a->total += size;
    return true;
}

void *jj_arena_get(jj_arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if ((!a->chunks || a->size - a->used < bytes) && !new_chunk(a, bytes)) return NULL;
    void *p = a->chunks->bytes + a->used;
    a->used += bytes;
    return p;
}

void jj_arena_free(jj_arena *a)
{
    while (a->chunks) {
        struct jj_chunk *older = a->chunks->older;
        bs_free(a->chunks);
        a->chunks = older;
    }
    *a = (jj_arena){.limit = a->limit};
}
