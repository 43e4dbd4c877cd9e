/* fuzz_json.c - any bytes as a document, and each of its fields as every type. */
#include "common/base/json.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_result(bool done, const struct error *err)
{
    ASSERT(done || (err->code == ERROR_INPUT && err->message[0] != '\0'));
}

static void field_read(const json_t *object, const char *field)
{
    struct error err = {0};
    uint32_t u32;
    int64_t i64;
    double number;
    bool flag;
    const char *text;
    json_t *part;

    check_result(json_get_u32(object, field, &u32, &err), &err);
    check_result(json_get_u32_or(object, field, 1, &u32, &err), &err);
    check_result(json_get_i64_or(object, field, 1, &i64, &err), &err);
    check_result(json_get_number_or(object, field, 1, &number, &err), &err);
    check_result(json_get_bool_or(object, field, true, &flag, &err), &err);
    check_result(json_get_string(object, field, &text, &err), &err);
    check_result(json_get_object_or_null(object, field, &part, &err), &err);
    check_result(json_get_array_or_null(object, field, &part, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    json_t *root = json_parse((const char *)data, size, "fuzz", &err);
    const char *field;
    json_t *value;

    check_result(root != NULL, &err);
    json_object_foreach(root, field, value)
    {
        ASSERT(json_type_word(value)[0] != '\0');
        field_read(root, field);
    }
    json_decref(root);
    return 0;
}
