/* file.h - whole-file reads, and writes that are either complete or not there. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"
#include "base/error.h"

#include <stdint.h>

/* Read a regular file of at most max_bytes into out (which is emptied first). Directories, FIFOs
 * and devices are refused by name. */
fm_status bs_read_file(const char *path, size_t max_bytes, bs_buf *out, fm_error *err);

/* Write path through a temporary file in the same folder: write, fsync, rename, fsync the folder.
 * After any failure the old file is untouched and the temporary one is gone. */
fm_status bs_write_file(const char *path, const void *data, size_t n, fm_error *err);
/* The same, readable by the owner alone. */
fm_status bs_write_private(const char *path, const void *data, size_t n, fm_error *err);

/* Read exactly n bytes at offset, going on after short reads and EINTR. End of file inside the
 * range is FM_E_IO ("ends at byte N"). `path` only names the file in the message. */
fm_status bs_pread_full(int fd, const char *path, void *dst, size_t n, uint64_t offset,
                        fm_error *err);

/* Write all n bytes, going on after short writes and EINTR. `path` only names the file. */
fm_status bs_write_full(int fd, const char *path, const void *data, size_t n, fm_error *err);

/* fsync the folder that path lies in, after a rename; a file system that refuses is no error. */
void bs_sync_folder_of(const char *path);

/* dir + "/" + name, allocated; NULL when out of memory. */
char *bs_path_join(const char *dir, const char *name);
int bs_is_dir(const char *path);
int bs_is_file(const char *path);

/* mkdir -p. */
fm_status bs_make_dirs(const char *path, fm_error *err);

#endif
