#include "hub/partial.h"

#include "base/file.h"
#include "base/mem.h"
#include "hub/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20 };

static uint64_t end_of(const hb_piece *piece)
{
    return piece->start + piece->length;
}

/* The file of a piece; the front is known by its place in the array, not by its start. */
static char *path_of(const hb_partial *p, const hb_piece *piece)
{
    if (p->n_pieces && piece == p->pieces[0]) return bs_sprintf("%s.incomplete", p->blob);
    return bs_sprintf("%s.%llu.incomplete", p->blob, (unsigned long long)piece->start);
}

static void remove_file_of(const hb_partial *p, const hb_piece *piece)
{
    char *path = path_of(p, piece);
    if (path) unlink(path);
    bs_free(path);
}

static void drop_piece(hb_partial *p, size_t i)
{
    if (p->pieces[i]->fd >= 0) close(p->pieces[i]->fd);
    bs_free(p->pieces[i]);
    memmove(p->pieces + i, p->pieces + i + 1, (--p->n_pieces - i) * sizeof *p->pieces);
}

static hb_piece *add_piece(hb_partial *p, uint64_t start, uint64_t length)
{
    hb_piece **pieces = bs_realloc(p->pieces, p->n_pieces + 1, sizeof *pieces);
    if (!pieces) return NULL;
    p->pieces = pieces;
    hb_piece *piece = bs_calloc(1, sizeof *piece);
    if (!piece) return NULL;
    *piece = (hb_piece){.start = start, .length = length, .fd = -1};
    size_t at = p->n_pieces;
    while (at > 1 && pieces[at - 1]->start > start) at--;
    memmove(pieces + at + 1, pieces + at, (p->n_pieces++ - at) * sizeof *pieces);
    return pieces[at] = piece;
}

static fm_status open_piece(hb_partial *p, hb_piece *piece, fm_error *err)
{
    char *path = path_of(p, piece);
    if (!path) return fm_fail_nomem(err, "opening a partial file");
    fm_status status = FM_OK;
    piece->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (piece->fd < 0) status = hb_fail_write(err, errno, path);
    bs_free(path);
    return status;
}

/* The offset in "<etag>.<offset>.incomplete"; false for any other name. */
static bool piece_offset(const hb_partial *p, const char *name, uint64_t *offset)
{
    size_t n = strlen(p->etag);
    if (strncmp(name, p->etag, n) != 0 || name[n] != '.') return false;
    char *end;
    errno = 0;
    *offset = strtoull(name + n + 1, &end, 10);
    return name[n + 1] >= '1' && name[n + 1] <= '9' && !errno && !strcmp(end, ".incomplete");
}

static fm_status find_pieces(hb_partial *p, fm_error *err)
{
    char *folder = bs_strndup(p->blob, (size_t)(strrchr(p->blob, '/') - p->blob));
    DIR *dir = folder ? opendir(folder) : NULL;
    if (!dir) {
        fm_status status =
            folder ? fm_fail_errno(err, errno, "%s", folder) : fm_fail_nomem(err, "listing blobs");
        return bs_free(folder), status;
    }
    fm_status status = FM_OK;
    for (struct dirent *e; !status && (e = readdir(dir));) {
        uint64_t start;
        struct stat st;
        if (!piece_offset(p, e->d_name, &start)) continue;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        if (start >= p->size || (uint64_t)st.st_size > p->size - start)
            unlinkat(dirfd(dir), e->d_name, 0);
        else if (!add_piece(p, start, (uint64_t)st.st_size))
            status = fm_fail_nomem(err, "listing blobs");
    }
    closedir(dir);
    bs_free(folder);
    return status;
}

/* A piece inside what others hold brings nothing, and would hide where the gaps are. */
static void drop_covered(hb_partial *p)
{
    uint64_t reached = end_of(p->pieces[0]);
    for (size_t i = 1; i < p->n_pieces;) {
        if (end_of(p->pieces[i]) > reached) {
            reached = end_of(p->pieces[i++]);
        } else {
            remove_file_of(p, p->pieces[i]);
            drop_piece(p, i);
        }
    }
}

/* git hashes a file with "blob <size>\0" before it. */
static void start_hash(hb_partial *p)
{
    size_t n = strlen(p->etag), hex = strspn(p->etag, "0123456789abcdef");
    p->kind = n == 64 && hex == 64 ? HB_SHA256 : n == 40 && hex == 40 ? HB_GIT_SHA1 : HB_NO_HASH;
    if (p->kind != HB_GIT_SHA1) {
        bs_sha256_start(&p->hash);
        return;
    }
    char head[32];
    int length = snprintf(head, sizeof head, "blob %llu", (unsigned long long)p->size);
    bs_sha1_start(&p->hash);
    bs_hash_update(&p->hash, head, (size_t)length + 1);
}

fm_status hb_partial_open(const char *blob, const char *etag, uint64_t size, hb_partial *out,
                          fm_error *err)
{
    *out = (hb_partial){.blob = bs_strdup(blob), .etag = bs_strdup(etag), .size = size};
    fm_status status = FM_OK;
    if (!out->blob || !out->etag || !add_piece(out, 0, 0))
        status = fm_fail_nomem(err, "opening a partial file");
    if (!status) status = open_piece(out, out->pieces[0], err);
    if (!status) {
        struct stat st;
        hb_piece *front = out->pieces[0];
        if (fstat(front->fd, &st)) status = fm_fail_errno(err, errno, "%s", blob);
        /* longer than the blob: it was never a part of it */
        else if ((uint64_t)st.st_size > size && ftruncate(front->fd, 0))
            status = hb_fail_write(err, errno, blob);
        else front->length = (uint64_t)st.st_size > size ? 0 : (uint64_t)st.st_size;
    }
    if (!status) status = find_pieces(out, err);
    if (!status) drop_covered(out);
    if (!status) start_hash(out);
    if (status) hb_partial_close(out);
    return status;
}

void hb_partial_close(hb_partial *p)
{
    while (p->n_pieces) drop_piece(p, p->n_pieces - 1);
    bs_free(p->pieces);
    bs_free(p->blob);
    bs_free(p->etag);
    *p = (hb_partial){0};
}

/* How much of the front has been hashed: git's head is not part of the file. */
static uint64_t hashed(const hb_partial *p)
{
    char head[32];
    if (p->kind != HB_GIT_SHA1) return p->hash.length;
    return p->hash.length -
           (uint64_t)snprintf(head, sizeof head, "blob %llu", (unsigned long long)p->size) - 1;
}

fm_status hb_partial_check(hb_partial *p, uint64_t most, uint64_t *left, fm_error *err)
{
    hb_piece *front = p->pieces[0];
    char *buffer = bs_malloc(COPY_BYTES);
    if (!buffer) return fm_fail_nomem(err, "hashing a partial file");
    fm_status status = FM_OK;
    while (!status && most && hashed(p) < front->length) {
        uint64_t n = front->length - hashed(p);
        if (n > most) n = most;
        if (n > COPY_BYTES) n = COPY_BYTES;
        status = bs_pread_full(front->fd, p->blob, buffer, (size_t)n, hashed(p), err);
        if (!status) bs_hash_update(&p->hash, buffer, (size_t)n);
        most -= n;
    }
    bs_free(buffer);
    *left = front->length - hashed(p);
    return status;
}

uint64_t hb_partial_have(const hb_partial *p)
{
    uint64_t have = 0, reached = 0;
    for (size_t i = 0; i < p->n_pieces; i++) {
        const hb_piece *piece = p->pieces[i];
        uint64_t from = piece->start > reached ? piece->start : reached;
        if (end_of(piece) <= from) continue;
        have += end_of(piece) - from;
        reached = end_of(piece);
    }
    return have;
}

static fm_status activate(hb_partial *p, hb_piece *piece, uint64_t limit, fm_error *err)
{
    if (piece->fd < 0) {
        fm_status status = open_piece(p, piece, err);
        if (status) return status;
    }
    piece->limit = limit;
    piece->active = true;
    return FM_OK;
}

fm_status hb_partial_next(hb_partial *p, uint64_t chunk, uint64_t window, hb_piece **piece,
                          fm_error *err)
{
    *piece = NULL;
    uint64_t front_end = end_of(p->pieces[0]);
    for (size_t i = 0; i < p->n_pieces; i++) {
        hb_piece *here = p->pieces[i];
        uint64_t from = here->active ? here->limit : end_of(here);
        uint64_t to = i + 1 < p->n_pieces ? p->pieces[i + 1]->start : p->size;
        if (from >= to) continue;
        if (from > front_end && from - front_end > window) return FM_OK;
        /* A piece that has its full chunk is followed by a new one; the front just grows. */
        bool grow = !here->active && (i == 0 || here->length < chunk);
        uint64_t room = grow && i ? chunk - here->length : chunk;
        uint64_t limit = to - from < room ? to : from + room;
        if (!grow && !(here = add_piece(p, from, 0))) return fm_fail_nomem(err, "adding a range");
        fm_status status = activate(p, here, limit, err);
        if (!status) *piece = here;
        return status;
    }
    return FM_OK;
}

fm_status hb_partial_append(hb_partial *p, hb_piece *piece, const void *data, size_t n,
                            fm_error *err)
{
    const char *from = data;
    while (n) {
        ssize_t put = pwrite(piece->fd, from, n, (off_t)piece->length);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            int problem = put ? errno : EIO;
            char *path = path_of(p, piece);
            fm_status status = hb_fail_write(err, problem, path ? path : p->blob);
            bs_free(path);
            return status;
        }
        if (piece == p->pieces[0]) bs_hash_update(&p->hash, from, (size_t)put);
        piece->length += (uint64_t)put;
        from += put;
        n -= (size_t)put;
    }
    return FM_OK;
}

fm_status hb_partial_done(hb_partial *p, hb_piece *piece, fm_error *err)
{
    piece->active = false;
    if (piece == p->pieces[0]) return FM_OK;
    int fd = piece->fd;
    piece->fd = -1;
    if (close(fd)) return hb_fail_write(err, errno, p->blob);
    if (piece->length) return FM_OK;
    remove_file_of(p, piece); /* nothing came */
    size_t i = 1;
    while (p->pieces[i] != piece) i++;
    drop_piece(p, i);
    return FM_OK;
}

/* Append what a piece holds beyond the front's end. */
static fm_status copy_to_front(hb_partial *p, hb_piece *piece, fm_error *err)
{
    hb_piece *front = p->pieces[0];
    char *buffer = bs_malloc(COPY_BYTES);
    if (!buffer) return fm_fail_nomem(err, "joining a download");
    fm_status status = piece->fd < 0 ? open_piece(p, piece, err) : FM_OK;
    while (!status && end_of(piece) > end_of(front)) {
        uint64_t at = end_of(front) - piece->start, n = piece->length - at;
        if (n > COPY_BYTES) n = COPY_BYTES;
        status = bs_pread_full(piece->fd, p->blob, buffer, (size_t)n, at, err);
        if (!status) status = hb_partial_append(p, front, buffer, (size_t)n, err);
    }
    bs_free(buffer);
    return status;
}

/* The piece at index 1, whose range is in flight, takes the front's place and file, so that the
 * caller's pointer to it stays good. */
static void become_front(hb_partial *p)
{
    hb_piece *front = p->pieces[0], *piece = p->pieces[1];
    close(piece->fd);
    piece->fd = front->fd;
    piece->start = 0;
    piece->length = front->length;
    p->pieces[0] = piece;
    p->pieces[1] = front;
    front->fd = -1;
}

fm_status hb_partial_merge(hb_partial *p, fm_error *err)
{
    while (p->n_pieces > 1 && !p->pieces[0]->active &&
           p->pieces[1]->start <= end_of(p->pieces[0])) {
        fm_status status = copy_to_front(p, p->pieces[1], err);
        if (status) return status;
        remove_file_of(p, p->pieces[1]);
        if (p->pieces[1]->active) become_front(p);
        drop_piece(p, 1);
    }
    return FM_OK;
}

void hb_partial_drop_pieces(hb_partial *p)
{
    while (p->n_pieces > 1) {
        remove_file_of(p, p->pieces[1]);
        drop_piece(p, 1);
    }
}

static fm_status wrong_hash(hb_partial *p, const char *hex, fm_error *err)
{
    hb_partial_drop_pieces(p);
    remove_file_of(p, p->pieces[0]);
    return fm_fail(err, FM_E_FORMAT,
                   "the %s of what arrived is %s, the hub says %s; the file was removed",
                   p->kind == HB_SHA256 ? "SHA-256" : "git SHA-1", hex, p->etag);
}

fm_status hb_partial_finish(hb_partial *p, fm_error *err)
{
    char hex[BS_HEX_MAX];
    bs_hash_finish(&p->hash, hex);
    if (p->kind != HB_NO_HASH && strcmp(hex, p->etag) != 0) return wrong_hash(p, hex, err);
    hb_piece *front = p->pieces[0];
    hb_partial_drop_pieces(p);
    char *path = path_of(p, front);
    if (!path) return fm_fail_nomem(err, "finishing a download");
    fm_status status = FM_OK;
    if (fsync(front->fd) || rename(path, p->blob)) status = hb_fail_write(err, errno, p->blob);
    bs_free(path);
    return status;
}
