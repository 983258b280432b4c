/* crc32c.h - the CRC-32C checksum (Castagnoli), with the CPU's instruction where there is one. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include "base/pool.h"

#include <stddef.h>
#include <stdint.h>

/* Start with crc 0; feed the result back in to go on. crc32c of "123456789" is 0xe3069283. */
uint32_t bs_crc32c(uint32_t crc, const void *data, size_t n);

/* The same from 0 on by the threads of a pool (NULL: by the caller alone). */
uint32_t bs_crc32c_on(bs_pool *pool, const void *data, size_t n);

/* The portable version, for tests. */
uint32_t bs_crc32c_table(uint32_t crc, const void *data, size_t n);

#endif
