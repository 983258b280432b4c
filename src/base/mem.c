#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic uint64_t made, fail_nth;
static _Atomic bool fail_forever;
static _Atomic size_t pages_in_use;

uint64_t bs_mem_fail_at(uint64_t nth, bool forever)
{
    atomic_store(&fail_nth, nth);
    atomic_store(&fail_forever, forever);
    return atomic_exchange(&made, 0);
}

static bool refused(void)
{
    uint64_t n = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    uint64_t nth = atomic_load_explicit(&fail_nth, memory_order_relaxed);
    return nth && (n == nth || (n > nth && atomic_load(&fail_forever)));
}

void *bs_malloc(size_t bytes)
{
    return refused() ? NULL : malloc(bytes ? bytes : 1);
}

void *bs_calloc(size_t count, size_t size)
{
    return refused() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *bs_realloc(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (!bs_mul(count, size, &bytes) || refused()) return NULL;
    return realloc(old, bytes ? bytes : 1);
}

void bs_free(void *p)
{
    free(p);
}

char *bs_strndup(const char *s, size_t n)
{
    size_t length = strnlen(s, n);
    char *copy = bs_malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, s, length);
    copy[length] = 0;
    return copy;
}

char *bs_strdup(const char *s)
{
    return bs_strndup(s, SIZE_MAX);
}

char *bs_sprintf(const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *s = n < 0 ? NULL : bs_malloc((size_t)n + 1);
    if (s) vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    return s;
}

enum { SMALL_PAGE = 4096, HUGE_PAGE = 2 << 20 };

/* mmap gives 4 KiB alignment; for a huge-page start we map more and give back both ends. */
void *bs_pages_alloc(size_t bytes)
{
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : SMALL_PAGE;
    size_t length, padded;
    if (!bytes || !bs_add(bytes, SMALL_PAGE - 1, &length)) return NULL;
    length &= ~(size_t)(SMALL_PAGE - 1);
    if (!bs_add(length, align - SMALL_PAGE, &padded) || refused()) return NULL;
    char *base = mmap(NULL, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    char *start = (char *)(((uintptr_t)base + align - 1) & ~(uintptr_t)(align - 1));
    if (start > base) munmap(base, (size_t)(start - base));
    size_t tail = (size_t)(base + padded - (start + length));
    if (tail) munmap(start + length, tail);
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) madvise(start, length, MADV_HUGEPAGE);
#endif
    atomic_fetch_add(&pages_in_use, length);
    return start;
}

void bs_pages_free(void *p, size_t bytes)
{
    if (!p) return;
    size_t length = (bytes + SMALL_PAGE - 1) & ~(size_t)(SMALL_PAGE - 1);
    munmap(p, length);
    atomic_fetch_sub(&pages_in_use, length);
}

size_t bs_pages_in_use(void)
{
    return atomic_load(&pages_in_use);
}
