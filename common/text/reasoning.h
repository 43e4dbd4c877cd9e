#ifndef SHOAL_TEXT_REASONING_H
#define SHOAL_TEXT_REASONING_H

/* Splits a model's output into thinking and answer while it streams.
 *
 * Works on decoded text: a leading "<think>" (or a prompt that already opened it) starts the
 * thinking, "</think>" ends it; newlines around the tags are dropped. A tag that may be cut by a
 * chunk border is held back until it is decided.
 */
#include "common/base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

enum reasoning_state { REASONING_START, REASONING_INSIDE, REASONING_AFTER_TAG, REASONING_ANSWER };

struct reasoning {
    enum reasoning_state state;
    bool begun;         /* inside: some thinking was given out, so newlines are part of it */
    struct buffer held; /* what is not decided: part of a tag, newlines that a tag may follow */
};

void reasoning_init(struct reasoning *reasoning, enum reasoning_state state);
void reasoning_deinit(struct reasoning *reasoning);
/* Appends what is certain to one of the two. */
void reasoning_push(struct reasoning *reasoning, const char *text, size_t length,
                    struct buffer *thinking, struct buffer *answer);
void reasoning_finish(struct reasoning *reasoning, struct buffer *thinking, struct buffer *answer);

#endif
