/* chat_json.c - JSON in Python's spelling.
 *
 * jansson's own writer differs where a model would see it: reals (2.5e-07, 0.1 and not seventeen
 * digits) and the case of \u escapes.
 */
#include "common/text/chat_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAL_DIGITS_MAX 17

struct writer {
    struct buffer *out;
    int indent; /* spaces a level; 0: all on one line */
    int level;
};

static void append_string(struct buffer *out, const char *text, size_t length)
{
    static const char plain[] = "\"\\\n\r\t\b\f";
    static const char letters[] = "\"\\nrtbf";

    buffer_append_char(out, '"');
    for (size_t i = 0; i < length; i++) {
        const char *escape = text[i] == '\0' ? NULL : strchr(plain, text[i]);

        if (escape != NULL) {
            buffer_append_char(out, '\\');
            buffer_append_char(out, letters[escape - plain]);
        } else if ((unsigned char)text[i] < 0x20) {
            buffer_printf(out, "\\u%04x", (unsigned)text[i]);
        } else {
            buffer_append_char(out, text[i]);
        }
    }
    buffer_append_char(out, '"');
}

/* The fewest digits that read back as the same value, as "d.ddde+xx". */
static void shortest(double value, char *text, size_t size)
{
    for (int digits = 1; digits <= REAL_DIGITS_MAX; digits++) {
        snprintf(text, size, "%.*e", digits - 1, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

static void append_zeros(struct buffer *out, int count)
{
    for (int i = 0; i < count; i++) {
        buffer_append_char(out, '0');
    }
}

/* Python: positional from 1e-4 to below 1e16, always with a point; else with an exponent. */
static void append_real(struct buffer *out, double value)
{
    char text[40];
    char digits[REAL_DIGITS_MAX + 1] = "";
    size_t count = 0;

    shortest(value, text, sizeof text);
    char *exponent_text = strchr(text, 'e');
    int exponent = atoi(exponent_text + 1);
    for (const char *c = text; c < exponent_text; c++) {
        if (*c >= '0' && *c <= '9') {
            digits[count++] = *c;
        }
    }
    int digit_count = (int)count;
    if (text[0] == '-') {
        buffer_append_char(out, '-');
    }
    if (exponent < -4 || exponent >= 16) {
        buffer_printf(out, "%c%s%s%s", digits[0], count > 1 ? "." : "", digits + 1, exponent_text);
    } else if (exponent < 0) {
        buffer_append_text(out, "0.");
        append_zeros(out, -exponent - 1);
        buffer_append_text(out, digits);
    } else if (digit_count <= exponent + 1) {
        buffer_append_text(out, digits);
        append_zeros(out, exponent + 1 - digit_count);
        buffer_append_text(out, ".0");
    } else {
        buffer_append(out, digits, (size_t)exponent + 1);
        buffer_append_char(out, '.');
        buffer_append_text(out, digits + exponent + 1);
    }
}

static void write_value(struct writer *writer, const json_t *value);

static void new_line(struct writer *writer)
{
    buffer_append_char(writer->out, '\n');
    for (int i = 0; i < writer->level * writer->indent; i++) {
        buffer_append_char(writer->out, ' ');
    }
}

/* Before the item at `index`: nothing, ", " or a line of its own. */
static void begin_item(struct writer *writer, size_t index)
{
    if (writer->indent > 0) {
        buffer_append_text(writer->out, index == 0 ? "" : ",");
        new_line(writer);
    } else {
        buffer_append_text(writer->out, index == 0 ? "" : ", ");
    }
}

static void end_items(struct writer *writer, size_t count)
{
    writer->level--;
    if (writer->indent > 0 && count > 0) {
        new_line(writer);
    }
}

static void write_object(struct writer *writer, const json_t *value)
{
    const char *key;
    json_t *item;
    size_t count = 0;

    buffer_append_char(writer->out, '{');
    writer->level++;
    json_object_foreach((json_t *)(uintptr_t)value, key, item)
    {
        begin_item(writer, count++);
        append_string(writer->out, key, strlen(key));
        buffer_append_text(writer->out, ": ");
        write_value(writer, item);
    }
    end_items(writer, count);
    buffer_append_char(writer->out, '}');
}

static void write_array(struct writer *writer, const json_t *value)
{
    size_t count = json_array_size(value);

    buffer_append_char(writer->out, '[');
    writer->level++;
    for (size_t i = 0; i < count; i++) {
        begin_item(writer, i);
        write_value(writer, json_array_get(value, i));
    }
    end_items(writer, count);
    buffer_append_char(writer->out, ']');
}

static void write_value(struct writer *writer, const json_t *value)
{
    struct buffer *out = writer->out;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(writer, value);
        break;
    case JSON_ARRAY:
        write_array(writer, value);
        break;
    case JSON_STRING:
        append_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        buffer_printf(out, "%" PRId64, (int64_t)json_integer_value(value));
        break;
    case JSON_REAL:
        append_real(out, json_real_value(value));
        break;
    case JSON_TRUE:
        buffer_append_text(out, "true");
        break;
    case JSON_FALSE:
        buffer_append_text(out, "false");
        break;
    case JSON_NULL:
        buffer_append_text(out, "null");
        break;
    }
}

void chat_json_append(struct buffer *out, const json_t *value, int indent)
{
    struct writer writer = {.out = out, .indent = indent};

    write_value(&writer, value);
}
