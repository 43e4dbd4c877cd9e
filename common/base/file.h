#ifndef SHOAL_BASE_FILE_H
#define SHOAL_BASE_FILE_H

/* Files, read with checked lengths. Errors name the path. */
#include "common/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* The whole file, NUL added behind it (not counted). ERROR_LIMIT beyond `bytes_max`.
 * The caller owns *text: mem_free. */
bool file_read(const char *path, size_t bytes_max, char **text, size_t *length,
               struct error *err) MUST_CHECK;
/* Writes to a neighbour and renames, so that a reader sees the old file or the new one. */
bool file_write(const char *path, const void *bytes, size_t length, unsigned mode,
                struct error *err) MUST_CHECK;
bool file_size(const char *path, uint64_t *bytes, struct error *err) MUST_CHECK;
bool file_exists(const char *path);
/* Reads exactly `length` bytes at `offset`; a short file is ERROR_INPUT. `path` is for messages. */
bool file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                struct error *err) MUST_CHECK;

/* Writes all of it at `offset`. `path` is for messages. */
bool file_pwrite(int fd, const void *bytes, size_t length, uint64_t offset, const char *path,
                 struct error *err) MUST_CHECK;
/* The last component; a view of the path. */
const char *file_name(const char *path);

#endif
