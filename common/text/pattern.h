#ifndef SHOAL_TEXT_PATTERN_H
#define SHOAL_TEXT_PATTERN_H

/* Patterns of tokenizer.json are written for Oniguruma; this writes the same pattern for PCRE2.
 * Pure. */
#include "common/base/buffer.h"
#include "common/base/error.h"

/* Appends to out. ERROR_INPUT names what has no counterpart. */
bool pattern_translate(const char *pattern, size_t length, struct buffer *out,
                       struct error *err) MUST_CHECK;

#endif
