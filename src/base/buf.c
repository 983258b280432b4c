#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool bs_buf_reserve(bs_buf *b, size_t more)
{
    size_t need;
    if (b->failed || !bs_add(b->length, more, &need) || !bs_add(need, 1, &need))
        return b->failed = true, false;
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < need && capacity <= (size_t)-1 / 2) capacity *= 2;
    if (capacity < need) capacity = need;
    char *data = bs_realloc(b->data, capacity, 1);
    if (!data) return b->failed = true, false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool bs_buf_append(bs_buf *b, const void *data, size_t n)
{
    if (!bs_buf_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->length, data, n);
    b->length += n;
    b->data[b->length] = 0;
    return true;
}

bool bs_buf_puts(bs_buf *b, const char *s)
{
    return bs_buf_append(b, s, strlen(s));
}

bool bs_buf_putc(bs_buf *b, char c)
{
    return bs_buf_append(b, &c, 1);
}

bool bs_buf_printf(bs_buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    bool ok = n >= 0 && bs_buf_reserve(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->length, (size_t)n + 1, format, again);
        b->length += (size_t)n;
    }
    va_end(again);
    va_end(args);
    if (!ok) b->failed = true;
    return ok;
}

void bs_buf_free(bs_buf *b)
{
    bs_free(b->data);
    *b = (bs_buf){0};
}
