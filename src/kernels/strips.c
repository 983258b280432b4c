/* strips.c - from rows to strips, and back for products that know rows only. */
#include "kernels/quant.h"

#include <string.h>

bool kn_can_strip(const kn_mat *m)
{
    return m->format == KN_AFFINE && (m->bits == 4 || m->bits == 8) && m->group >= 32 &&
           m->cols % m->group == 0 && m->rows % KN_STRIP_ROWS == 0 &&
           m->row_bytes == kn_row_bytes(m->format, m->bits, m->cols) &&
           m->scale_row_bytes == kn_scale_row_bytes(m->format, m->scale_type, m->group, m->cols) &&
           m->row_bytes <= KN_STRIP_ROW_BYTES && m->scale_row_bytes <= KN_STRIP_SCALE_BYTES;
}

/* Numbers of `size` bytes: every `from_step`-th at `from`, to every `to_step`-th at `to`. */
static void copy_every(unsigned char *to, size_t to_step, const unsigned char *from,
                       size_t from_step, size_t n, size_t size)
{
    if (size == 2)
        for (size_t i = 0; i < n; i++) memcpy(to + 2 * i * to_step, from + 2 * i * from_step, 2);
    else
        for (size_t i = 0; i < n; i++) memcpy(to + 4 * i * to_step, from + 4 * i * from_step, 4);
}

/* Of eight bytes the even ones, then the odd ones. */
static uint64_t even_first(uint64_t v)
{
    uint64_t t = (v ^ v >> 8) & 0x0000ff000000ff00;
    v ^= t ^ t << 8;
    t = (v ^ v >> 16) & 0x00000000ffff0000;
    return v ^ t ^ t << 16;
}

/* The way back. */
static uint64_t in_order(uint64_t v)
{
    uint64_t t = (v ^ v >> 16) & 0x00000000ffff0000;
    v ^= t ^ t << 16;
    t = (v ^ v >> 8) & 0x0000ff000000ff00;
    return v ^ t ^ t << 8;
}

/* Sixteen rows of codes at p, in place; two lanes of two rows at a time, as models are opened so.
 */
static void strip_codes(unsigned char *p, size_t row_bytes, int bits, unsigned char *scratch)
{
    memcpy(scratch, p, KN_STRIP_ROWS * row_bytes);
    for (size_t r = 0; r < KN_STRIP_ROWS; r += 2)
        for (size_t i = 0; i < row_bytes; i += 8) {
            uint64_t a, b;
            memcpy(&a, scratch + r * row_bytes + i, sizeof a);
            memcpy(&b, scratch + (r + 1) * row_bytes + i, sizeof b);
            if (bits == 8) a = even_first(a), b = even_first(b);
            uint64_t first = (uint32_t)a | b << 32, second = a >> 32 | b >> 32 << 32;
            memcpy(p + i * KN_STRIP_ROWS + 4 * r, &first, sizeof first);
            memcpy(p + (i + 4) * KN_STRIP_ROWS + 4 * r, &second, sizeof second);
        }
}

static void strip_scales(unsigned char *p, size_t row_bytes, size_t size, unsigned char *scratch)
{
    memcpy(scratch, p, KN_STRIP_ROWS * row_bytes);
    for (size_t r = 0; r < KN_STRIP_ROWS; r++)
        copy_every(p + r * size, KN_STRIP_ROWS, scratch + r * row_bytes, 1, row_bytes / size, size);
}

void kn_to_strips(kn_mat *m)
{
    unsigned char scratch[KN_STRIP_ROWS * KN_STRIP_ROW_BYTES];
    unsigned char *codes = (unsigned char *)m->w, *scales = (unsigned char *)m->scales,
                  *biases = (unsigned char *)m->biases;
    size_t bytes = m->scale_row_bytes, size = kn_float_bytes(m->scale_type);
    for (size_t r = 0; r < (size_t)m->rows; r += KN_STRIP_ROWS) {
        strip_codes(codes + r * m->row_bytes, m->row_bytes, m->bits, scratch);
        strip_scales(scales + r * bytes, bytes, size, scratch);
        strip_scales(biases + r * bytes, bytes, size, scratch);
    }
    m->strips = true;
}

static void bytes_in_order(unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, sizeof v);
        v = in_order(v);
        memcpy(p + i, &v, sizeof v);
    }
}

kn_mat kn_rows_of_strip(const kn_mat *m, int row, int n, kn_strip_rows *to)
{
    kn_mat out = *m;
    size_t first = (size_t)(row / KN_STRIP_ROWS * KN_STRIP_ROWS),
           size = kn_float_bytes(m->scale_type);
    const unsigned char *codes = (const unsigned char *)m->w + first * m->row_bytes;
    const unsigned char *scales = (const unsigned char *)m->scales + first * m->scale_row_bytes;
    const unsigned char *biases = (const unsigned char *)m->biases + first * m->scale_row_bytes;
    for (size_t i = 0; i < (size_t)n; i++) {
        size_t r = (size_t)row - first + i;
        unsigned char *row_codes = to->codes + i * m->row_bytes;
        copy_every(row_codes, 1, codes + 4 * r, KN_STRIP_ROWS, m->row_bytes / 4, 4);
        if (m->bits == 8) bytes_in_order(row_codes, m->row_bytes);
        size_t at = i * m->scale_row_bytes, groups = m->scale_row_bytes / size;
        copy_every(to->scales + at, 1, scales + size * r, KN_STRIP_ROWS, groups, size);
        copy_every(to->biases + at, 1, biases + size * r, KN_STRIP_ROWS, groups, size);
    }
    out.strips = false;
    out.rows = n;
    out.w = to->codes, out.scales = to->scales, out.biases = to->biases;
    return out;
}
