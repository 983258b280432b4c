/* buf.h - a growing byte buffer. Zero-initialise to start ({0}). After a failed append the buffer
 * stays valid and `failed` stays set, so a run of appends needs one check at its end. The bytes
 * are followed by a NUL that is not counted. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct bs_buf {
    char *data;
    size_t length, capacity;
    bool failed;
} bs_buf;

bool bs_buf_reserve(bs_buf *b, size_t more);
bool bs_buf_append(bs_buf *b, const void *data, size_t n);
bool bs_buf_puts(bs_buf *b, const char *s);
bool bs_buf_putc(bs_buf *b, char c);
__attribute__((format(printf, 2, 3))) bool bs_buf_printf(bs_buf *b, const char *format, ...);
void bs_buf_free(bs_buf *b);

#endif
