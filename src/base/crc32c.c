#include "base/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* of CRC-32C, reflected: the coefficient of x^0 in bit 31 */

/* Four bits a step: 16 entries a reader can check by hand, slow but only for CPUs without the
 * instruction. table[i] = i run through four steps of the polynomial. */
static const uint32_t table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t bs_crc32c_table(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = table[crc & 15] ^ crc >> 4;
        crc = table[crc & 15] ^ crc >> 4;
    }
    return ~crc;
}

#if defined(__x86_64__)
enum { LINE = 64, AHEAD = 2048 }; /* what a disk has just written is in memory, not in a cache */

__attribute__((target("sse4.2"))) static uint32_t with_instruction(uint32_t crc, const void *data,
                                                                   size_t n)
{
    const unsigned char *p = data;
    uint64_t c = (uint32_t)~crc, word[LINE / 8];
    for (; n >= LINE; p += LINE, n -= LINE) {
        __builtin_prefetch(p + AHEAD);
        memcpy(word, p, LINE);
        for (int i = 0; i < LINE / 8; i++) c = __builtin_ia32_crc32di(c, word[i]);
    }
    for (; n; p++, n--) c = __builtin_ia32_crc32qi((uint32_t)c, *p);
    return ~(uint32_t)c;
}

uint32_t bs_crc32c(uint32_t crc, const void *data, size_t n)
{
    return __builtin_cpu_supports("sse4.2") ? with_instruction(crc, data, n)
                                            : bs_crc32c_table(crc, data, n);
}
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
uint32_t bs_crc32c(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    for (; n; p++, n--) crc = __crc32cb(crc, *p);
    return ~crc;
}
#else
uint32_t bs_crc32c(uint32_t crc, const void *data, size_t n)
{
    return bs_crc32c_table(crc, data, n);
}
#endif

/* --- pieces ------------------------------------------------------------------------------------
 *
 * A checksum is a polynomial over two elements modulo POLYNOMIAL, the coefficient of x^0 in bit 31.
 * n bytes behind a piece multiply the piece's checksum by x^(8 n). */

static uint32_t times(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* x^(8 n) */
static uint32_t shift_of(size_t n)
{
    uint32_t shift = 1u << 31, square = 1u << (31 - 8);
    for (; n; n >>= 1, square = times(square, square))
        if (n & 1) shift = times(shift, square);
    return shift;
}

enum { PIECE = 128 << 10, AT_ONCE = 64 };

typedef struct pieces {
    const unsigned char *data;
    size_t n;
    uint32_t crc[AT_ONCE];
} pieces;

static size_t piece_bytes(const pieces *p, int i)
{
    size_t left = p->n - (size_t)i * PIECE;
    return left < PIECE ? left : PIECE;
}

static void sum_piece(void *arg, int i, int worker)
{
    (void)worker;
    pieces *p = arg;
    p->crc[i] = bs_crc32c(0, p->data + (size_t)i * PIECE, piece_bytes(p, i));
}

uint32_t bs_crc32c_on(bs_pool *pool, const void *data, size_t n)
{
    const unsigned char *at = data;
    uint32_t crc = 0, shift = shift_of(PIECE);
    while (n) {
        pieces p = {.data = at, .n = n < AT_ONCE * PIECE ? n : AT_ONCE * PIECE};
        int n_pieces = (int)((p.n + PIECE - 1) / PIECE);
        bs_pool_run(pool, sum_piece, &p, n_pieces);
        for (int i = 0; i < n_pieces; i++) {
            size_t bytes = piece_bytes(&p, i);
            crc = times(crc, bytes == PIECE ? shift : shift_of(bytes)) ^ p.crc[i];
        }
        at += p.n, n -= p.n;
    }
    return crc;
}
