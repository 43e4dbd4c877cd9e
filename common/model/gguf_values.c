/* gguf_values.c - metadata of a GGUF file by key and type.
 *
 * The header was checked whole, so views are read here without looking at lengths again. Writers
 * differ in the width of their integers; readers ask for what they need.
 */
#include "common/model/gguf_internal.h"

#include "common/base/half.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct type_row {
    const char *name;
    uint32_t bytes;
};

static const struct type_row types[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = {"u8", 1},   [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2}, [GGUF_U32] = {"u32", 4},     [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},   [GGUF_STRING] = {"string", 0},
    [GGUF_U64] = {"u64", 8}, [GGUF_ARRAY] = {"array", 0}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(enum gguf_type type)
{
    ASSERT(type < GGUF_TYPE_COUNT);
    return types[type].name;
}

uint32_t gguf_type_bytes(enum gguf_type type)
{
    ASSERT(type < GGUF_TYPE_COUNT);
    return types[type].bytes;
}

bool gguf_string_equals(struct gguf_string string, const char *text)
{
    return strlen(text) == string.length && memcmp(string.text, text, string.length) == 0;
}

int gguf_key_compare(struct gguf_string left, struct gguf_string right)
{
    size_t shorter = left.length < right.length ? left.length : right.length;
    int order = memcmp(left.text, right.text, shorter);

    return order != 0 ? order : (left.length > right.length) - (left.length < right.length);
}

static int find_compare(const void *key, const void *value)
{
    return gguf_key_compare(*(const struct gguf_string *)key,
                            ((const struct gguf_value *)value)->key);
}

const struct gguf_value *gguf_find(const struct gguf_header *header, const char *key)
{
    struct gguf_string wanted = {key, strlen(key)};

    return header->value_count == 0 ? NULL
                                    : bsearch(&wanted, header->values, header->value_count,
                                              sizeof(*header->values), find_compare);
}

static bool is_integer(enum gguf_type type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static bool missing(const char *key, const char *wanted, struct error *err)
{
    return error_set(err, ERROR_INPUT, "key \"%s\" is missing; it must be %s", key, wanted);
}

static bool wrong_type(const char *key, const char *wanted, const struct gguf_value *value,
                       struct error *err)
{
    if (value->type == GGUF_ARRAY) {
        return error_set(err, ERROR_INPUT, "key \"%s\" must be %s, got an array of %s", key, wanted,
                         gguf_type_name(value->array.type));
    }
    return error_set(err, ERROR_INPUT, "key \"%s\" must be %s, got %s", key, wanted,
                     gguf_type_name(value->type));
}

int64_t gguf_array_integer(const struct gguf_array *array, uint64_t index)
{
    const uint8_t *at = array->bytes + index * types[array->type].bytes;
    uint64_t large;

    ASSERT(index < array->count && (is_integer(array->type) || array->type == GGUF_BOOL));
    switch (array->type) {
    case GGUF_BOOL:
        return *at != 0;
    case GGUF_U8:
        return *at;
    case GGUF_I8:
        return (int8_t)*at;
    case GGUF_U16:
        return at[0] | at[1] << 8;
    case GGUF_I16:
        return (int16_t)(at[0] | at[1] << 8);
    case GGUF_U32:
        return gguf_load_u32(at);
    case GGUF_I32:
        return (int32_t)gguf_load_u32(at);
    case GGUF_U64:
        large = gguf_load_u64(at);
        return large > INT64_MAX ? INT64_MAX : (int64_t)large;
    default:
        return (int64_t)gguf_load_u64(at);
    }
}

double gguf_array_number(const struct gguf_array *array, uint64_t index)
{
    const uint8_t *at = array->bytes + index * types[array->type].bytes;
    uint64_t bits;
    double value;

    ASSERT(index < array->count && (array->type == GGUF_F32 || array->type == GGUF_F64));
    if (array->type == GGUF_F32) {
        return (double)float_of_bits(gguf_load_u32(at));
    }
    bits = gguf_load_u64(at);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

bool gguf_array_next(struct gguf_array *array, struct gguf_string *out)
{
    ASSERT(array->type == GGUF_STRING);
    if (array->count == 0) {
        return false;
    }
    *out =
        (struct gguf_string){(const char *)array->bytes + 8, (size_t)gguf_load_u64(array->bytes)};
    array->bytes += 8 + out->length;
    array->count--;
    return true;
}

static bool value_u32(const struct gguf_value *value, const char *key, uint32_t *out,
                      struct error *err)
{
    int64_t integer;

    if (!is_integer(value->type)) {
        return wrong_type(key, "an integer", value, err);
    }
    integer = gguf_array_integer(&value->array, 0);
    if (integer < 0 || integer > UINT32_MAX) {
        return error_set(err, ERROR_INPUT, "key \"%s\" is %" PRId64 "; 0 to %u can be used", key,
                         integer, UINT32_MAX);
    }
    *out = (uint32_t)integer;
    return true;
}

bool gguf_get_u32(const struct gguf_header *header, const char *key, uint32_t *out,
                  struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);

    return value != NULL ? value_u32(value, key, out, err) : missing(key, "an integer", err);
}

bool gguf_get_u32_or(const struct gguf_header *header, const char *key, uint32_t fallback,
                     uint32_t *out, struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);

    if (value == NULL) {
        *out = fallback;
        return true;
    }
    return value_u32(value, key, out, err);
}

/* The double nearest to the shortest decimal that rounds to this float. */
static double shortest_decimal(float value)
{
    char text[32];
    double decimal = (double)value;

    for (int digits = 6; digits <= 9; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        decimal = strtod(text, NULL);
        if ((float)decimal == value) {
            return decimal;
        }
    }
    return (double)value;
}

static bool value_number(const struct gguf_value *value, const char *key, double *out,
                         struct error *err)
{
    double number;

    if (is_integer(value->type)) {
        *out = (double)gguf_array_integer(&value->array, 0);
        return true;
    }
    if (value->type != GGUF_F32 && value->type != GGUF_F64) {
        return wrong_type(key, "a number", value, err);
    }
    number = gguf_array_number(&value->array, 0);
    if (!isfinite(number)) {
        return error_set(err, ERROR_INPUT, "key \"%s\" is %g; it must be finite", key, number);
    }
    *out = value->type == GGUF_F32 ? shortest_decimal((float)number) : number;
    return true;
}

bool gguf_get_number(const struct gguf_header *header, const char *key, double *out,
                     struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);

    return value != NULL ? value_number(value, key, out, err) : missing(key, "a number", err);
}

bool gguf_get_number_or(const struct gguf_header *header, const char *key, double fallback,
                        double *out, struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);

    if (value == NULL) {
        *out = fallback;
        return true;
    }
    return value_number(value, key, out, err);
}

bool gguf_get_bool_or(const struct gguf_header *header, const char *key, bool fallback, bool *out,
                      struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);

    if (value == NULL) {
        *out = fallback;
        return true;
    }
    if (value->type != GGUF_BOOL) {
        return wrong_type(key, "a bool", value, err);
    }
    *out = gguf_array_integer(&value->array, 0) != 0;
    return true;
}

bool gguf_get_string(const struct gguf_header *header, const char *key, struct gguf_string *out,
                     struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);
    struct gguf_array array;

    if (value == NULL) {
        return missing(key, "a string", err);
    }
    if (value->type != GGUF_STRING) {
        return wrong_type(key, "a string", value, err);
    }
    array = value->array;
    return gguf_array_next(&array, out);
}

bool gguf_get_array(const struct gguf_header *header, const char *key, enum gguf_type type,
                    struct gguf_array *out, struct error *err)
{
    const struct gguf_value *value = gguf_find(header, key);
    char wanted[32];

    (void)snprintf(wanted, sizeof(wanted), "an array of %s", gguf_type_name(type));
    if (value == NULL) {
        return missing(key, wanted, err);
    }
    if (value->type != GGUF_ARRAY || value->array.type != type) {
        return wrong_type(key, wanted, value, err);
    }
    *out = value->array;
    return true;
}
