#ifndef SHOAL_BASE_JSON_WRITE_H
#define SHOAL_BASE_JSON_WRITE_H

/* JSON written straight into a buffer, for what is sent too often to build jansson values of it. */
#include "common/base/buffer.h"

#include <stddef.h>

/* Appends a string with its quotes; the text is UTF-8 (it is not checked). */
void json_write_string(struct buffer *out, const char *text, size_t length);

#endif
