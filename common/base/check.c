/* check.c - the end of a process that found a bug in itself.
 *
 * Going on would spread the damage to files and peers; a core dump at the place is worth more.
 */
#include "common/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void check_failed(const char *condition, const char *file, int line, const char *function)
{
    (void)dprintf(STDERR_FILENO, "%s:%d: %s: assertion failed: %s\n", file, line, function,
                  condition);
    abort();
}
