#ifndef SHOAL_TEXT_CHAT_JINJA_H
#define SHOAL_TEXT_CHAT_JINJA_H

/* The normal form of a Jinja template's text, for telling templates apart: two texts with the same
 * normal form render the same. Indentation, comments, line breaks between tags and the kind of
 * quotes are gone from it; all that a rendering depends on is in it. Pure. */
#include "common/base/buffer.h"

#include <stddef.h>
#include <stdint.h>

/* trim_blocks and lstrip_blocks are on, as for all chat templates. Takes any text. */
void chat_jinja_normalise(const char *jinja, struct buffer *out);

/* hash_bytes of the normal form. */
uint64_t chat_jinja_digest(const char *jinja);

#endif
