/* error.c - messages that grow on their way up.
 *
 * The text is formatted beside the error and copied in afterwards, so that a message may quote the
 * one it replaces. A cut never leaves half a UTF-8 character: messages end up in JSON.
 */
#include "common/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Drops the character that a cut at the end of `text` left incomplete. */
static void cut_repair(char *text)
{
    size_t length = strlen(text);
    size_t lead = length;

    while (lead > 0 && length - lead < 4 && ((unsigned char)text[lead - 1] & 0xC0) == 0x80) {
        lead--;
    }
    if (lead > 0 && (unsigned char)text[lead - 1] >= 0xC0) {
        unsigned char first = (unsigned char)text[lead - 1];
        size_t whole = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;

        if (length - (lead - 1) < whole) {
            text[lead - 1] = '\0';
        }
    }
}

static void format_cut(char *text, size_t text_bytes, const char *format, va_list args)
    FORMAT_PRINTF(3, 0);

static void format_cut(char *text, size_t text_bytes, const char *format, va_list args)
{
    int length = vsnprintf(text, text_bytes, format, args);

    if (length < 0) {
        text[0] = '\0';
    } else if ((size_t)length >= text_bytes) {
        cut_repair(text);
    }
}

bool(error_set)(struct error *err, enum error_code code, const char *format, ...)
{
    char text[sizeof(err->message)];
    va_list args;

    ASSERT(err != NULL);
    ASSERT(code != ERROR_NONE);
    va_start(args, format);
    format_cut(text, sizeof(text), format, args);
    va_end(args);
    err->code = code;
    memcpy(err->message, text, strlen(text) + 1);
    return false;
}

/* message = head + ": " + tail, cut to fit. */
static void message_join(struct error *err, const char *head, const char *tail)
{
    size_t room = sizeof(err->message) - 1;
    size_t length = 0;
    const char *parts[] = {head, ": ", tail};

    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
        size_t part = strnlen(parts[i], room - length);

        memcpy(err->message + length, parts[i], part);
        length += part;
    }
    err->message[length] = '\0';
    if (length == room) {
        cut_repair(err->message);
    }
}

bool(error_wrap)(struct error *err, const char *format, ...)
{
    char where[sizeof(err->message)];
    char before[sizeof(err->message)];
    va_list args;

    ASSERT(err != NULL);
    DEBUG_ASSERT(err->code != ERROR_NONE);
    va_start(args, format);
    format_cut(where, sizeof(where), format, args);
    va_end(args);
    memcpy(before, err->message, sizeof(before));
    before[sizeof(before) - 1] = '\0';
    message_join(err, where, before);
    return false;
}

bool(error_set_errno)(struct error *err, const char *format, ...)
{
    int saved = errno;
    char what[sizeof(err->message)];
    char reason_space[128];
    va_list args;

    ASSERT(err != NULL);
    va_start(args, format);
    format_cut(what, sizeof(what), format, args);
    va_end(args);
    err->code = ERROR_SYSTEM;
    message_join(err, what, strerror_r(saved, reason_space, sizeof(reason_space)));
    errno = saved;
    return false;
}

const char *error_code_name(enum error_code code)
{
    switch (code) {
    case ERROR_NONE:
        return "none";
    case ERROR_USAGE:
        return "usage";
    case ERROR_INPUT:
        return "input";
    case ERROR_LIMIT:
        return "limit";
    case ERROR_SYSTEM:
        return "system";
    case ERROR_PEER:
        return "peer";
    }
    return "unknown";
}
