/* buffer.c - a byte string that doubles when it is full. */
#include "common/base/buffer.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define CAPACITY_MIN ((size_t)64)

void buffer_init(struct buffer *buffer)
{
    memset(buffer, 0, sizeof(*buffer));
}

void buffer_deinit(struct buffer *buffer)
{
    mem_free(buffer->data);
    buffer_init(buffer);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    if (buffer->data != NULL) {
        buffer->data[0] = '\0';
    }
}

/* capacity counts the NUL, so it is at least length + 1 once there is memory. */
void buffer_reserve(struct buffer *buffer, size_t more_bytes)
{
    size_t wanted;
    size_t capacity;

    ASSERT(size_add(buffer->length, more_bytes, &wanted) && size_add(wanted, 1, &wanted));
    if (wanted <= buffer->capacity) {
        return;
    }
    capacity = buffer->capacity > CAPACITY_MIN ? buffer->capacity : CAPACITY_MIN;
    while (capacity < wanted) {
        capacity = capacity > SIZE_MAX / 2 ? wanted : capacity * 2;
    }
    buffer->data = mem_resize(buffer->data, capacity, 1);
    buffer->capacity = capacity;
    buffer->data[buffer->length] = '\0';
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t length)
{
    buffer_reserve(buffer, length);
    if (length > 0) {
        memcpy(buffer->data + buffer->length, bytes, length);
    }
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_char(struct buffer *buffer, char c)
{
    buffer_append(buffer, &c, 1);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    buffer_vprintf(buffer, format, args);
    va_end(args);
}

void buffer_vprintf(struct buffer *buffer, const char *format, va_list args)
{
    va_list again;
    int length;

    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, args);
    ASSERT(length >= 0);
    buffer_reserve(buffer, (size_t)length);
    (void)vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, again);
    va_end(again);
    buffer->length += (size_t)length;
}

void buffer_consume(struct buffer *buffer, size_t length)
{
    ASSERT(length <= buffer->length);
    if (length == 0) {
        return;
    }
    buffer->length -= length;
    memmove(buffer->data, buffer->data + length, buffer->length + 1);
}

const char *buffer_text(const struct buffer *buffer)
{
    return buffer->data != NULL ? buffer->data : "";
}

char *buffer_take(struct buffer *buffer)
{
    char *data;

    buffer_reserve(buffer, 0);
    data = buffer->data;
    buffer_init(buffer);
    return data;
}
