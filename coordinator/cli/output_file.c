/* output_file.c - results that appear whole or not at all. */
#include "coordinator/cli/output_file.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

bool output_file_create(struct output_file *file, const char *path, struct error *err)
{
    struct stat there;

    *file = (struct output_file){.fd = -1, .path = path};
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode)) {
        return error_set(err, ERROR_USAGE, "%s is not a regular file", path);
    }
    file->temporary = mem_printf("%s.part-%d", path, (int)getpid());
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->fd < 0) {
        (void)error_set_errno(err, "%s", path);
        mem_free(file->temporary);
        file->temporary = NULL;
        return false;
    }
    return true;
}

bool output_file_write_at(struct output_file *file, const void *bytes, size_t length,
                          uint64_t offset, struct error *err)
{
    return file_pwrite(file->fd, bytes, length, offset, file->path, err);
}

bool output_file_commit(struct output_file *file, struct error *err)
{
    int closed = close(file->fd);

    file->fd = -1;
    if (closed != 0 || rename(file->temporary, file->path) != 0) {
        return error_set_errno(err, "%s", file->path);
    }
    mem_free(file->temporary);
    file->temporary = NULL;
    return true;
}

void output_file_discard(struct output_file *file)
{
    if (file->temporary == NULL) {
        return;
    }
    if (file->fd >= 0) {
        (void)close(file->fd);
        file->fd = -1;
    }
    (void)unlink(file->temporary);
    mem_free(file->temporary);
    file->temporary = NULL;
}
