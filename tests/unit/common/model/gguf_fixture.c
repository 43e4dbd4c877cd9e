/* gguf_fixture.c - a GGUF writer that lies on demand. */
#include "tests/unit/common/model/gguf_fixture.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

void gguf_put_u32(struct buffer *buffer, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        buffer_append_char(buffer, (char)(value >> 8 * i & 255));
    }
}

void gguf_put_u64(struct buffer *buffer, uint64_t value)
{
    gguf_put_u32(buffer, (uint32_t)value);
    gguf_put_u32(buffer, (uint32_t)(value >> 32));
}

void gguf_put_string(struct buffer *buffer, const char *text)
{
    gguf_put_u64(buffer, strlen(text));
    buffer_append_text(buffer, text);
}

void gguf_put_key(struct buffer *buffer, const char *key, uint32_t type)
{
    gguf_put_string(buffer, key);
    gguf_put_u32(buffer, type);
}

struct gguf_spec gguf_spec_sound(void)
{
    return (struct gguf_spec){
        .magic = "GGUF",
        .version = 3,
        .claimed_tensors = GGUF_AS_IT_IS,
        .claimed_values = GGUF_AS_IT_IS,
        .alignment = 32,
        .tensor_count = 3,
        .tensors = {{"a", 2, {4, 2}, QUANT_F32, 0},
                    {"b", 1, {64}, QUANT_Q8_0, 32},
                    {"c", 2, {256, 2}, QUANT_Q4_K, 128}},
        .data_bytes = 128 + 288,
    };
}

static void put_values(struct buffer *file, const struct gguf_spec *spec)
{
    static const char *const words[] = {"one", "", "three"};

    gguf_put_key(file, "general.architecture", GGUF_STRING);
    gguf_put_string(file, "tiny");
    gguf_put_key(file, "tiny.words", GGUF_ARRAY);
    gguf_put_u32(file, GGUF_STRING);
    gguf_put_u64(file, 3);
    for (int i = 0; i < 3; i++) {
        gguf_put_string(file, words[i]);
    }
    if (spec->alignment != 32) {
        gguf_put_key(file, "general.alignment", GGUF_U32);
        gguf_put_u32(file, spec->alignment);
    }
    if (spec->is_split) {
        gguf_put_key(file, "split.no", GGUF_U16);
        buffer_append(file, (char[2]){(char)spec->split_no}, 2);
        gguf_put_key(file, "split.count", GGUF_U16);
        buffer_append(file, (char[2]){(char)spec->split_count}, 2);
        gguf_put_key(file, "split.tensors.count", GGUF_I32);
        gguf_put_u32(file, spec->split_tensors);
    }
    buffer_append(file, buffer_text(&spec->value), spec->value.length);
}

static void put_tensor(struct buffer *file, const struct gguf_spec_tensor *tensor)
{
    gguf_put_string(file, tensor->name);
    gguf_put_u32(file, tensor->dimension_count);
    for (uint32_t i = 0; i < tensor->dimension_count && i < 5; i++) {
        gguf_put_u64(file, tensor->dimensions[i]);
    }
    gguf_put_u32(file, tensor->type);
    gguf_put_u64(file, tensor->offset);
}

struct buffer gguf_spec_write(const struct gguf_spec *spec, size_t *header_bytes)
{
    struct buffer file = {0};
    uint64_t values =
        2 + (spec->alignment != 32) + (spec->is_split ? 3 : 0) + (spec->value.length > 0);
    uint32_t alignment = spec->alignment > 0 && spec->alignment < 4096 ? spec->alignment : 32;

    buffer_append_text(&file, spec->magic);
    gguf_put_u32(&file, spec->version);
    gguf_put_u64(&file, spec->claimed_tensors == GGUF_AS_IT_IS ? spec->tensor_count
                                                               : spec->claimed_tensors);
    gguf_put_u64(&file, spec->claimed_values == GGUF_AS_IT_IS ? values : spec->claimed_values);
    put_values(&file, spec);
    for (uint32_t i = 0; i < spec->tensor_count; i++) {
        put_tensor(&file, &spec->tensors[i]);
    }
    if (header_bytes != NULL) {
        *header_bytes = file.length;
    }
    while (file.length % alignment != 0) {
        buffer_append_char(&file, 0);
    }
    for (uint64_t i = 0; i < spec->data_bytes; i++) {
        buffer_append_char(&file, 0);
    }
    return file;
}

void gguf_spec_save(const struct gguf_spec *spec, const char *path)
{
    struct buffer file = gguf_spec_write(spec, NULL);
    struct error err = {0};

    if (!file_write(path, file.data, file.length, 0600, &err)) {
        fail_msg("%s", err.message);
    }
    buffer_deinit(&file);
}
