#ifndef SHOAL_TEXT_STOP_H
#define SHOAL_TEXT_STOP_H

/* Finds stop strings in streamed text, across chunk borders; text that could be the beginning of a
 * stop string is held back until it is decided. */
#include "common/base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

struct stop_filter {
    char **strings; /* owned copies, none empty */
    size_t string_count;
    struct buffer held;
    bool found;
};

void stop_filter_init(struct stop_filter *filter, const char *const *strings, size_t count);
void stop_filter_deinit(struct stop_filter *filter);
/* Appends to out what is certain; true once a stop string was found (the text before it is out). */
bool stop_filter_push(struct stop_filter *filter, const char *text, size_t length,
                      struct buffer *out);
void stop_filter_finish(struct stop_filter *filter, struct buffer *out);

#endif
