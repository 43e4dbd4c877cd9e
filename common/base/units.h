#ifndef SHOAL_BASE_UNITS_H
#define SHOAL_BASE_UNITS_H

/* Quantities as people write and read them. */
#include "common/base/error.h"

#include <stddef.h>
#include <stdint.h>

/* "812 B", "1.50 kB", "15.6 MB", "404 GB": decimal units, three digits. Writes into `text`, returns
 * it. */
struct units_text {
    char text[24];
};
const char *units_bytes(struct units_text *out, uint64_t bytes);

/* "64G", "1.5GiB", "4096", "512M": decimal for K M G T (B), binary for Ki Mi Gi Ti (B).
 * `what` ("--memory") is for messages. */
bool units_parse_bytes(const char *text, const char *what, uint64_t *bytes,
                       struct error *err) MUST_CHECK;
/* "40GB/s", "1.25 Gbit/s", "512MiB/s": bytes as above, or bits with k M G T, in a second. More than
 * none; at most a petabyte. */
bool units_parse_rate(const char *text, const char *what, double *bytes_per_s,
                      struct error *err) MUST_CHECK;
/* "100us", "1.5 ms", "20µs", "2s", "800ns"; at most an hour. */
bool units_parse_duration(const char *text, const char *what, int64_t *ns,
                          struct error *err) MUST_CHECK;

#endif
