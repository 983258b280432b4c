/* mem.h - allocation: every byte of the library is taken here, so that tests can make the Nth
 * allocation fail and the planner can be checked against what is really held. All functions
 * return NULL on failure and on arithmetic overflow; none aborts. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *bs_malloc(size_t bytes);
void *bs_calloc(size_t count, size_t size);
void *bs_realloc(void *old, size_t count, size_t size);
void bs_free(void *p);
char *bs_strdup(const char *s);
char *bs_strndup(const char *s, size_t n);
__attribute__((format(printf, 1, 2))) char *bs_sprintf(const char *format, ...);

/* Zeroed anonymous memory aligned to 4 KiB (2 MiB when bytes >= 2 MiB, with huge pages asked
 * for): the home of resident weights, expert slots, KV caches. Free with the same byte count. */
void *bs_pages_alloc(size_t bytes);
void bs_pages_free(void *p, size_t bytes);

/* Bytes held through bs_pages_alloc at this moment. */
size_t bs_pages_in_use(void);

/* Fault injection for tests: the nth allocation from now fails (1 = the next one), every later one
 * too if `forever`. 0 switches it off. Returns how many allocations were made since the last call.
 */
uint64_t bs_mem_fail_at(uint64_t nth, bool forever);

/* Checked arithmetic: false on overflow, *out untouched. */
static inline bool bs_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool bs_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

#endif
