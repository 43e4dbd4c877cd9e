/* json_write.c - strings as JSON has them: quotes, backslashes and control characters escaped, all
 * else as it is. Stretches without such are copied whole.
 */
#include "common/base/json_write.h"

static void write_escape(struct buffer *out, unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        buffer_append_char(out, '\\');
        buffer_append_char(out, (char)c);
        break;
    case '\n':
        buffer_append(out, "\\n", 2);
        break;
    case '\r':
        buffer_append(out, "\\r", 2);
        break;
    case '\t':
        buffer_append(out, "\\t", 2);
        break;
    default:
        buffer_printf(out, "\\u%04x", c);
        break;
    }
}

void json_write_string(struct buffer *out, const char *text, size_t length)
{
    size_t begin = 0;

    buffer_append_char(out, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        buffer_append(out, text + begin, i - begin);
        write_escape(out, c);
        begin = i + 1;
    }
    buffer_append(out, text + begin, length - begin);
    buffer_append_char(out, '"');
}
