#ifndef SHOAL_BASE_JSON_H
#define SHOAL_BASE_JSON_H

/* Typed reading of jansson objects with errors that name the field.
 *
 * json_load_* keep duplicate keys out and bound the depth (jansson's own limit, 2048). The `get`
 * functions: a missing field or null gives the default and true for *_or; ERROR_INPUT for the
 * others; a wrong type is always ERROR_INPUT: "field \"top_k\" must be an integer, got a string".
 */
#include "common/base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* json_decref the result. `name` (a path, "request body") is for messages, with line and column. */
json_t *json_parse(const char *text, size_t length, const char *name, struct error *err) MUST_CHECK;
json_t *json_read_file(const char *path, size_t bytes_max, struct error *err) MUST_CHECK;

const char *json_type_word(const json_t *value); /* "a string", "an object", …, "nothing" */

bool json_get_u32(const json_t *object, const char *field, uint32_t *out,
                  struct error *err) MUST_CHECK;
bool json_get_u32_or(const json_t *object, const char *field, uint32_t fallback, uint32_t *out,
                     struct error *err) MUST_CHECK;
bool json_get_i64_or(const json_t *object, const char *field, int64_t fallback, int64_t *out,
                     struct error *err) MUST_CHECK;
/* Integers are taken as numbers too; NaN and infinities cannot occur in JSON. */
bool json_get_number_or(const json_t *object, const char *field, double fallback, double *out,
                        struct error *err) MUST_CHECK;
bool json_get_bool_or(const json_t *object, const char *field, bool fallback, bool *out,
                      struct error *err) MUST_CHECK;
/* Lends the string as long as the object lives. */
bool json_get_string(const json_t *object, const char *field, const char **out,
                     struct error *err) MUST_CHECK;
bool json_get_string_or(const json_t *object, const char *field, const char *fallback,
                        const char **out, struct error *err) MUST_CHECK;
/* *out = NULL when missing or null. Borrowed references. */
bool json_get_object_or_null(const json_t *object, const char *field, json_t **out,
                             struct error *err) MUST_CHECK;
bool json_get_array_or_null(const json_t *object, const char *field, json_t **out,
                            struct error *err) MUST_CHECK;

#endif
