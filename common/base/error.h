#ifndef SHOAL_BASE_ERROR_H
#define SHOAL_BASE_ERROR_H

/* Errors that a caller can handle: bad input, the system, peers.
 *
 * A function that can fail takes `struct error *err` last (never NULL) and returns bool, or the
 * object made or NULL. The place that detects calls error_set; callers wrap it with what they were
 * doing, or handle it. Bugs are not errors: they fail ASSERT (check.h).
 */
#include "common/base/check.h"

#include <stdbool.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_USAGE,  /* the request makes no sense: exit 2, HTTP 400 */
    ERROR_INPUT,  /* foreign bytes are malformed */
    ERROR_LIMIT,  /* a budget would be exceeded: memory, queue, context */
    ERROR_SYSTEM, /* the operating system refused; the message ends with its reason */
    ERROR_PEER,   /* the other side left, timed out or broke the protocol */
};

struct error {
    enum error_code code;
    char message[480];
};

/* Both return false, so that a failing function can end with them. Messages are cut to fit. */
bool error_set(struct error *err, enum error_code code, const char *format, ...)
    FORMAT_PRINTF(3, 4);
/* Puts "where: " in front of what is there; the code stays. */
bool error_wrap(struct error *err, const char *format, ...) FORMAT_PRINTF(2, 3);
/* error_set(ERROR_SYSTEM) that ends with ": strerror(errno)". Saves errno before formatting. */
bool error_set_errno(struct error *err, const char *format, ...) FORMAT_PRINTF(2, 3);

/* The compiler sees the false too, and so knows that outputs need no value after a failure. */
static inline bool error_false(bool set)
{
    (void)set;
    return false;
}
#define error_set(...)       error_false(error_set(__VA_ARGS__))
#define error_wrap(...)      error_false(error_wrap(__VA_ARGS__))
#define error_set_errno(...) error_false(error_set_errno(__VA_ARGS__))

/* "usage", "input", …: for logs and JSON. */
const char *error_code_name(enum error_code code);

#endif
