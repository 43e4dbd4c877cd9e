/* scratch.c - a directory under TMPDIR that goes away again. */
#include "tests/support/scratch.h"

#include "common/base/check.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILES_OPEN_MAX 8

void scratch_open(struct scratch *scratch)
{
    const char *parent = getenv("TMPDIR");
    int length = snprintf(scratch->folder, sizeof(scratch->folder), "%s/shoal-test-XXXXXX",
                          parent != NULL ? parent : "/tmp");

    ASSERT(length > 0 && (size_t)length < sizeof(scratch->folder));
    ASSERT(mkdtemp(scratch->folder) != NULL);
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

void scratch_close(struct scratch *scratch)
{
    ASSERT(nftw(scratch->folder, entry_remove, FILES_OPEN_MAX, FTW_DEPTH | FTW_PHYS) == 0);
}

const char *scratch_path(struct scratch *scratch, const char *name)
{
    int length = snprintf(scratch->path, sizeof(scratch->path), "%s/%s", scratch->folder, name);

    ASSERT(length > 0 && (size_t)length < sizeof(scratch->path));
    return scratch->path;
}
