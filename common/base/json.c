/* json.c - jansson with error messages for people.
 *
 * jansson refuses a whole document for one integer beyond 64 bits, and published model
 * configurations contain such (model_max_length = 10^30). Those integers are read as real numbers:
 * only when a document failed for that reason is it gone through, and each of them gets ".0".
 */
#include "common/base/json.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

/* The largest integer jansson takes. */
static const char integer_max[] = "9223372036854775807";

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The end of the string literal that begins with the quote at `at`. */
static size_t string_end(const char *text, size_t length, size_t at)
{
    for (at++; at < length && text[at] != '"'; at++) {
        if (text[at] == '\\') {
            at++;
        }
    }
    return at < length ? at + 1 : length;
}

/* The end of the number whose first digit is at `at`. *is_big: an integer that does not fit. */
static size_t number_end(const char *text, size_t length, size_t at, bool *is_big)
{
    size_t digits_max = strlen(integer_max);
    size_t begin = at;
    size_t digits;

    while (at < length && is_digit(text[at])) {
        at++;
    }
    digits = at - begin;
    *is_big = digits > digits_max ||
              (digits == digits_max && memcmp(text + begin, integer_max, digits_max) > 0);
    while (at < length && (is_digit(text[at]) || strchr(".eE+-", text[at]) != NULL)) {
        *is_big = false; /* a real number */
        at++;
    }
    return at;
}

/* Copies the document; integers that do not fit get ".0". */
static void integers_widen(const char *text, size_t length, struct buffer *out)
{
    size_t at = 0;

    while (at < length) {
        size_t begin = at;
        bool is_big = false;

        if (text[at] == '"') {
            at = string_end(text, length, at);
        } else if (is_digit(text[at])) {
            at = number_end(text, length, at, &is_big);
        } else {
            at++;
        }
        buffer_append(out, text + begin, at - begin);
        if (is_big) {
            buffer_append_text(out, ".0");
        }
    }
}

static json_t *document_load(const char *text, size_t length, json_error_t *failure)
{
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, failure);

    if (root == NULL && json_error_code(failure) == json_error_numeric_overflow) {
        struct buffer widened = {0};

        integers_widen(text, length, &widened);
        root = json_loadb(buffer_text(&widened), widened.length, JSON_REJECT_DUPLICATES, failure);
        buffer_deinit(&widened);
    }
    return root;
}

json_t *json_parse(const char *text, size_t length, const char *name, struct error *err)
{
    json_error_t failure;
    json_t *root = document_load(text, length, &failure);

    if (root == NULL) {
        error_set(err, ERROR_INPUT, "%s: line %d, column %d: %s", name, failure.line,
                  failure.column, failure.text);
    }
    return root;
}

json_t *json_read_file(const char *path, size_t bytes_max, struct error *err)
{
    json_t *root;
    char *text;
    size_t length;

    if (!file_read(path, bytes_max, &text, &length, err)) {
        return NULL;
    }
    root = json_parse(text, length, path, err);
    mem_free(text);
    return root;
}

const char *json_type_word(const json_t *value)
{
    if (value == NULL) {
        return "nothing";
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "nothing";
}

/* *value = the field, NULL when it is missing or null. */
static bool field_find(const json_t *object, const char *field, json_t **value, struct error *err)
{
    json_t *found;

    if (!json_is_object(object)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" is looked for in %s, not an object", field,
                         json_type_word(object));
    }
    found = json_object_get(object, field);
    *value = json_is_null(found) ? NULL : found;
    return true;
}

static bool field_missing(const char *field, struct error *err)
{
    return error_set(err, ERROR_INPUT, "field \"%s\" is missing", field);
}

static bool field_mistyped(const char *field, const char *wanted, const json_t *value,
                           struct error *err)
{
    return error_set(err, ERROR_INPUT, "field \"%s\" must be %s, got %s", field, wanted,
                     json_type_word(value));
}

static bool u32_from(const json_t *value, const char *field, uint32_t *out, struct error *err)
{
    json_int_t integer;

    if (!json_is_integer(value)) {
        return field_mistyped(field, "an integer", value, err);
    }
    integer = json_integer_value(value);
    if (integer < 0 || integer > UINT32_MAX) {
        return error_set(err, ERROR_INPUT,
                         "field \"%s\" must be between 0 and %" PRIu32
                         ", got %" JSON_INTEGER_FORMAT,
                         field, UINT32_MAX, integer);
    }
    *out = (uint32_t)integer;
    return true;
}

bool json_get_u32(const json_t *object, const char *field, uint32_t *out, struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    return value == NULL ? field_missing(field, err) : u32_from(value, field, out, err);
}

bool json_get_u32_or(const json_t *object, const char *field, uint32_t fallback, uint32_t *out,
                     struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value == NULL) {
        *out = fallback;
        return true;
    }
    return u32_from(value, field, out, err);
}

bool json_get_i64_or(const json_t *object, const char *field, int64_t fallback, int64_t *out,
                     struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_integer(value)) {
        return field_mistyped(field, "an integer", value, err);
    }
    *out = value == NULL ? fallback : (int64_t)json_integer_value(value);
    return true;
}

bool json_get_number_or(const json_t *object, const char *field, double fallback, double *out,
                        struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_number(value)) {
        return field_mistyped(field, "a number", value, err);
    }
    *out = value == NULL ? fallback : json_number_value(value);
    return true;
}

bool json_get_bool_or(const json_t *object, const char *field, bool fallback, bool *out,
                      struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_boolean(value)) {
        return field_mistyped(field, "a boolean", value, err);
    }
    *out = value == NULL ? fallback : json_is_true(value);
    return true;
}

bool json_get_string(const json_t *object, const char *field, const char **out, struct error *err)
{
    const char *text;

    if (!json_get_string_or(object, field, NULL, &text, err)) {
        return false;
    }
    if (text == NULL) {
        return field_missing(field, err);
    }
    *out = text;
    return true;
}

bool json_get_string_or(const json_t *object, const char *field, const char *fallback,
                        const char **out, struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_string(value)) {
        return field_mistyped(field, "a string", value, err);
    }
    *out = value == NULL ? fallback : json_string_value(value);
    return true;
}

bool json_get_object_or_null(const json_t *object, const char *field, json_t **out,
                             struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_object(value)) {
        return field_mistyped(field, "an object", value, err);
    }
    *out = value;
    return true;
}

bool json_get_array_or_null(const json_t *object, const char *field, json_t **out,
                            struct error *err)
{
    json_t *value;

    if (!field_find(object, field, &value, err)) {
        return false;
    }
    if (value != NULL && !json_is_array(value)) {
        return field_mistyped(field, "an array", value, err);
    }
    *out = value;
    return true;
}
