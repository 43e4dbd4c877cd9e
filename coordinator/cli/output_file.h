#ifndef SHOAL_CLI_OUTPUT_FILE_H
#define SHOAL_CLI_OUTPUT_FILE_H

/* A result file that appears whole or not at all: written beside its place, renamed when done. */
#include "common/base/error.h"

#include <stddef.h>
#include <stdint.h>

struct output_file {
    int fd;
    const char *path; /* borrowed */
    char *temporary;
};

bool output_file_create(struct output_file *file, const char *path, struct error *err) MUST_CHECK;
bool output_file_write_at(struct output_file *file, const void *bytes, size_t length,
                          uint64_t offset, struct error *err) MUST_CHECK;
/* Puts the file in its place. */
bool output_file_commit(struct output_file *file, struct error *err) MUST_CHECK;
/* Removes what was not committed. Legal on a zeroed struct and twice. */
void output_file_discard(struct output_file *file);

#endif
