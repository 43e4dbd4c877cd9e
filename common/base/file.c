/* file.c - whole files and exact pieces of them. */
#include "common/base/file.h"

#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* To begin with, where the size is not known: a pipe, /proc. */
#define UNSIZED_BYTES ((size_t)64 << 10)
/* Linux moves at most 2 GiB a call. */
#define READ_BYTES_MAX ((size_t)1 << 30)

/* What has been read so far. */
struct text {
    char *bytes;
    size_t length;
    size_t capacity;
};

/* read() that survives signals. */
static ssize_t read_some(int fd, char *out, size_t length)
{
    ssize_t got;

    do {
        got = read(fd, out, length < READ_BYTES_MAX ? length : READ_BYTES_MAX);
    } while (got < 0 && errno == EINTR);
    return got;
}

static bool limit_exceeded(const char *path, size_t bytes_max, struct error *err)
{
    return error_set(err, ERROR_LIMIT, "%s: longer than the limit of %zu bytes", path, bytes_max);
}

static bool text_grow(struct text *text, size_t capacity, struct error *err)
{
    char *grown = mem_try_array(char, capacity, err);

    if (grown == NULL) {
        return false;
    }
    if (text->length > 0) {
        memcpy(grown, text->bytes, text->length);
    }
    mem_free(text->bytes);
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

/* Reads to the end of the file and adds the NUL. `capacity` is a guess; the file may have grown. */
static bool text_read(int fd, const char *path, size_t bytes_max, struct text *text,
                      struct error *err)
{
    for (;;) {
        ssize_t got;

        if (text->length + 1 >= text->capacity && !text_grow(text, text->capacity * 2, err)) {
            return false;
        }
        got = read_some(fd, text->bytes + text->length, text->capacity - 1 - text->length);
        if (got < 0) {
            return error_set_errno(err, "%s: cannot read", path);
        }
        if (got == 0) {
            text->bytes[text->length] = '\0';
            return true;
        }
        text->length += (size_t)got;
        if (text->length > bytes_max) {
            return limit_exceeded(path, bytes_max, err);
        }
    }
}

/* Sizes `text` by what the file says, plus the NUL, plus one so that the end is seen at once. */
static bool text_prepare(int fd, const char *path, size_t bytes_max, struct text *text,
                         struct error *err)
{
    struct stat status;
    size_t capacity = UNSIZED_BYTES;

    if (fstat(fd, &status) != 0) {
        return error_set_errno(err, "%s: cannot stat", path);
    }
    if (S_ISREG(status.st_mode) && status.st_size > 0) {
        if ((uint64_t)status.st_size > bytes_max) {
            return limit_exceeded(path, bytes_max, err);
        }
        capacity = (size_t)status.st_size + 2;
    }
    return text_grow(text, capacity, err);
}

bool file_read(const char *path, size_t bytes_max, char **text, size_t *length, struct error *err)
{
    struct text read = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool done;

    if (fd < 0) {
        return error_set_errno(err, "%s: cannot open", path);
    }
    done =
        text_prepare(fd, path, bytes_max, &read, err) && text_read(fd, path, bytes_max, &read, err);
    (void)close(fd);
    if (!done) {
        mem_free(read.bytes);
        return false;
    }
    *text = read.bytes;
    *length = read.length;
    return true;
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);

        if (written < 0 && errno != EINTR) {
            return false;
        }
        if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
    }
    return true;
}

bool file_write(const char *path, const void *bytes, size_t length, unsigned mode,
                struct error *err)
{
    char *neighbour = mem_printf("%s.XXXXXX", path);
    int fd = mkostemp(neighbour, O_CLOEXEC);
    bool done;

    if (fd < 0) {
        error_set_errno(err, "%s: cannot create a file beside it", path);
        mem_free(neighbour);
        return false;
    }
    done = fchmod(fd, (mode_t)mode) == 0 && write_all(fd, bytes, length) && fsync(fd) == 0 &&
           rename(neighbour, path) == 0;
    if (!done) {
        error_set_errno(err, "%s: cannot write", path);
        (void)unlink(neighbour);
    }
    (void)close(fd);
    mem_free(neighbour);
    return done;
}

bool file_size(const char *path, uint64_t *bytes, struct error *err)
{
    struct stat status;

    if (stat(path, &status) != 0) {
        return error_set_errno(err, "%s: cannot stat", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(err, ERROR_INPUT, "%s: not a regular file", path);
    }
    *bytes = (uint64_t)status.st_size;
    return true;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_pread(int fd, void *out, size_t length, uint64_t offset, const char *path,
                struct error *err)
{
    size_t done = 0;

    if (offset > INT64_MAX || length > (uint64_t)INT64_MAX - offset) {
        return error_set(err, ERROR_INPUT, "%s: no file reaches offset %" PRIu64, path, offset);
    }
    while (done < length) {
        size_t left = length - done;
        ssize_t got = pread(fd, (char *)out + done, left < READ_BYTES_MAX ? left : READ_BYTES_MAX,
                            (off_t)(offset + done));

        if (got < 0 && errno != EINTR) {
            return error_set_errno(err, "%s: cannot read at offset %" PRIu64, path, offset + done);
        }
        if (got == 0) {
            return error_set(err, ERROR_INPUT,
                             "%s: ends at offset %" PRIu64 ", wanted %zu bytes at %" PRIu64, path,
                             offset + done, length, offset);
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

bool file_pwrite(int fd, const void *bytes, size_t length, uint64_t offset, const char *path,
                 struct error *err)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t written = pwrite(fd, at, length, (off_t)offset);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return error_set_errno(err, "%s", path);
        }
        at += written;
        offset += (uint64_t)written;
        length -= (size_t)written;
    }
    return true;
}

const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}
