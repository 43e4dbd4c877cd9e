#ifndef SHOAL_TESTS_SUPPORT_DEATH_H
#define SHOAL_TESTS_SUPPORT_DEATH_H

/* Code that must end the process. */
#include <stdbool.h>

typedef void (*death_fn)(void *context);

/* Runs fn(context) in a child process without standard error; true when it died by abort().
 * The child is a copy: what it changes in memory is not seen here. */
bool death_by_abort(death_fn fn, void *context);

#endif
