#ifndef SHOAL_BASE_BUFFER_H
#define SHOAL_BASE_BUFFER_H

/* A growing byte string. data is always followed by a NUL that does not count. Aborts when memory
 * is out, so what a peer sizes is checked against its limit before it is appended. */
#include "common/base/check.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    char *data; /* NULL while empty and never used: use buffer_text */
    size_t length;
    size_t capacity;
};

void buffer_init(struct buffer *buffer); /* same as zeroing */
void buffer_deinit(struct buffer *buffer);
void buffer_clear(struct buffer *buffer); /* keeps the memory */
void buffer_reserve(struct buffer *buffer, size_t more_bytes);
void buffer_append(struct buffer *buffer, const void *bytes, size_t length);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...) FORMAT_PRINTF(2, 3);
void buffer_vprintf(struct buffer *buffer, const char *format, va_list args) FORMAT_PRINTF(2, 0);
/* Removes `length` bytes from the front. */
void buffer_consume(struct buffer *buffer, size_t length);
const char *buffer_text(const struct buffer *buffer); /* never NULL; lent until the next change */
char *buffer_take(struct buffer *buffer); /* the caller owns it: mem_free; buffer empty */

#endif
