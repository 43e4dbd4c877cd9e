#ifndef SHOAL_TESTS_SUPPORT_SCRATCH_H
#define SHOAL_TESTS_SUPPORT_SCRATCH_H

/* A temporary directory of one test. */
struct scratch {
    char folder[256];
    char path[512];
};

void scratch_open(struct scratch *scratch);
/* Removes the directory with everything in it. */
void scratch_close(struct scratch *scratch);
/* The path of `name` inside; lent until the next call. */
const char *scratch_path(struct scratch *scratch, const char *name);

#endif
