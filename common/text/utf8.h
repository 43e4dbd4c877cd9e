#ifndef SHOAL_TEXT_UTF8_H
#define SHOAL_TEXT_UTF8_H

/* Cuts bytes into characters and into what is not one, by the table of well-formed sequences of the
 * Unicode Standard (3.9, table 3-7). Pure. */
#include <stddef.h>

enum utf8_kind {
    UTF8_CHARACTER,  /* one whole character */
    UTF8_INVALID,    /* a maximal invalid part: what one U+FFFD stands for */
    UTF8_INCOMPLETE, /* all that is left begins a character and more bytes could end it */
};

/* Looks at bytes[0 .. length), length > 0; *taken is the length of the part, 1 to 4. */
enum utf8_kind utf8_step(const char *bytes, size_t length, size_t *taken);

/* How many bytes from the front are whole characters. */
size_t utf8_valid_length(const char *bytes, size_t length);

#endif
