/* partial.h - an unfinished blob on disk, filled by several ranges at a time.
 *
 *     blobs/<etag>.incomplete           bytes 0 .. its size: the front
 *     blobs/<etag>.<offset>.incomplete  a piece: bytes offset .. offset + its size
 *
 * Every file only ever grows at its end, so its size alone says what has arrived: there is no state
 * to lose, and a kill at any byte costs what was still in the socket. The front is at all times
 * what Python's huggingface_hub means by that name, and can be taken over from it or by it. When
 * the front reaches a piece, the piece is appended to it and removed; a range in flight then goes
 * on into the front. Because the front grows in order, it is hashed as it grows.
 *
 * The lock of the blob must be held from hb_partial_open to hb_partial_close. */
#ifndef HUB_PARTIAL_H
#define HUB_PARTIAL_H

#include "base/sha.h"
#include "hub/hub.h"

typedef struct hb_piece {
    uint64_t start, length; /* bytes on disk */
    uint64_t limit;         /* while active: where its range ends */
    int fd;                 /* -1 while not active, but for the front */
    bool active;            /* a range in flight appends to it */
} hb_piece;

typedef struct hb_partial {
    char *blob; /* path of the finished blob */
    char *etag;
    uint64_t size;                                    /* of the finished blob */
    bs_hash hash;                                     /* of the front */
    enum { HB_NO_HASH, HB_GIT_SHA1, HB_SHA256 } kind; /* by the form of the etag */
    hb_piece **pieces;                                /* by start; pieces[0] is the front */
    size_t n_pieces;
} hb_partial;

/* Find what has arrived. Leftovers that cannot belong to a blob of this size are removed. Nothing
 * is hashed yet. */
fm_status hb_partial_open(const char *blob, const char *etag, uint64_t size, hb_partial *out,
                          fm_error *err);
void hb_partial_close(hb_partial *p);

/* Hash at most `most` more bytes of a front that was found on disk; *left says how many remain.
 * Must have come to 0 before the first range. */
fm_status hb_partial_check(hb_partial *p, uint64_t most, uint64_t *left, fm_error *err);

/* Bytes on disk, counted once. */
uint64_t hb_partial_have(const hb_partial *p);

/* Choose the next range of at most `chunk` bytes to ask for: *piece becomes active and its range is
 * [start + length, limit). *piece is NULL when there is none left to start. Ranges do not run
 * further than `window` bytes ahead of the front, so that pieces are still in memory when they are
 * appended to it. */
fm_status hb_partial_next(hb_partial *p, uint64_t chunk, uint64_t window, hb_piece **piece,
                          fm_error *err);

/* Append to an active piece. On FM_E_IO some of the bytes may have been written and are counted. */
fm_status hb_partial_append(hb_partial *p, hb_piece *piece, const void *data, size_t n,
                            fm_error *err);

/* A range has ended, at its limit or before it. The piece must not be used afterwards. */
fm_status hb_partial_done(hb_partial *p, hb_piece *piece, fm_error *err);

/* Append to the front every piece that it has reached. An active piece becomes the front itself:
 * its range goes on, and a pointer to it stays good. */
fm_status hb_partial_merge(hb_partial *p, fm_error *err);

/* Forget all pieces but the front: for a server that cannot serve ranges. None may be active. */
void hb_partial_drop_pieces(hb_partial *p);

/* All bytes are here: compare the hash, sync, and give the blob its name. A wrong hash removes
 * everything (FM_E_FORMAT). */
fm_status hb_partial_finish(hb_partial *p, fm_error *err);

#endif
