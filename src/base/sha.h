/* sha.h - SHA-256 and SHA-1 over a stream of bytes: what the model hub names its files by. */
#ifndef BASE_SHA_H
#define BASE_SHA_H

#include <stddef.h>
#include <stdint.h>

typedef struct bs_hash {
    uint32_t state[8];
    uint64_t length;   /* bytes so far */
    uint8_t block[64]; /* the last length % 64 bytes */
    unsigned words;    /* of state that make the digest: 8 or 5 */
    void (*compress)(uint32_t *state, const uint8_t *data, size_t n_blocks);
} bs_hash;

enum { BS_HEX_MAX = 65 }; /* the longest digest in hexadecimal, with its NUL */

void bs_sha256_start(bs_hash *h);
void bs_sha1_start(bs_hash *h);
void bs_hash_update(bs_hash *h, const void *data, size_t n);

/* The digest in lower-case hexadecimal. h must be started again before more updates. */
void bs_hash_finish(bs_hash *h, char hex[BS_HEX_MAX]);

#endif
