/* utf8.c - well-formed UTF-8, one character at a time.
 *
 * The first byte gives the length and the range of the second; the others are 80..BF. A sequence is
 * invalid as soon as a byte leaves its range, and the bytes before that one are the maximal part
 * that a decoder replaces by one U+FFFD. Surrogates and overlong forms fall out by the second
 * byte's range.
 */
#include "common/text/utf8.h"

#include <stdint.h>

struct lead {
    size_t length;
    unsigned char second_min;
    unsigned char second_max;
};

static struct lead lead_of(unsigned char first)
{
    if (first < 0x80) {
        return (struct lead){1, 0, 0};
    }
    if (first >= 0xC2 && first <= 0xDF) {
        return (struct lead){2, 0x80, 0xBF};
    }
    if (first >= 0xE0 && first <= 0xEF) {
        return (struct lead){3, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF};
    }
    if (first >= 0xF0 && first <= 0xF4) {
        return (struct lead){4, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF};
    }
    return (struct lead){0, 0, 0};
}

enum utf8_kind utf8_step(const char *bytes, size_t length, size_t *taken)
{
    const unsigned char *in = (const unsigned char *)bytes;
    struct lead lead = lead_of(in[0]);

    *taken = 1;
    if (lead.length == 0) {
        return UTF8_INVALID;
    }
    for (size_t i = 1; i < lead.length; i++) {
        if (i == length) {
            *taken = i;
            return UTF8_INCOMPLETE;
        }
        unsigned char min = i == 1 ? lead.second_min : 0x80;
        unsigned char max = i == 1 ? lead.second_max : 0xBF;
        if (in[i] < min || in[i] > max) {
            *taken = i;
            return UTF8_INVALID;
        }
    }
    *taken = lead.length;
    return UTF8_CHARACTER;
}

size_t utf8_valid_length(const char *bytes, size_t length)
{
    size_t at = 0;

    while (at < length) {
        size_t taken = 1;

        if ((unsigned char)bytes[at] >= 0x80 &&
            utf8_step(bytes + at, length - at, &taken) != UTF8_CHARACTER) {
            break;
        }
        at += taken;
    }
    return at;
}
