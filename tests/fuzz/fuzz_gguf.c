/* fuzz_gguf.c - any bytes as a GGUF header: of a file that ends there, and of a large one. What is
 * read is walked as a tokenizer and a catalog would. */
#include "common/base/mem.h"
#include "common/model/arch_gguf.h"
#include "common/model/gguf.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LARGE_FILE_BYTES (UINT64_C(1) << 42)

static volatile uint64_t walked; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensors(const struct gguf_header *header, uint64_t file_bytes)
{
    uint64_t end = header->data_begin;

    for (uint32_t i = 0; i < header->tensor_count; i++) {
        const struct gguf_tensor *tensor = &header->tensors[i];

        ASSERT(tensor->name[0] != '\0' && quant_traits(tensor->type) != NULL);
        ASSERT(tensor->bytes > 0 && tensor->offset >= end);
        end = tensor->offset + tensor->bytes;
        ASSERT(end <= file_bytes);
    }
}

/* Sums everything up, so that a sanitizer sees each byte of each view. */
static uint64_t walk_value(const struct gguf_value *value)
{
    struct gguf_array array = value->array;
    struct gguf_string string;
    uint64_t sum = 0;

    if (array.type == GGUF_STRING) {
        while (gguf_array_next(&array, &string)) {
            sum += string.length > 0 ? (unsigned char)string.text[string.length - 1] : 0;
        }
        return sum;
    }
    for (uint64_t i = 0; i < array.count; i++) {
        if (array.type == GGUF_F32 || array.type == GGUF_F64) {
            sum += gguf_array_number(&array, i) > 0;
        } else {
            sum += (uint64_t)gguf_array_integer(&array, i);
        }
    }
    return sum;
}

static void check_arch(const struct gguf_header *header)
{
    struct gguf_file file = {.path = "fuzz.gguf"};
    struct gguf gguf = {.file_count = 1, .files = &file, .header = *header};
    struct error err = {0};
    struct arch arch;

    ASSERT(arch_read_gguf(&gguf, &arch, &err) || err.message[0] != '\0');
}

static void parse(const uint8_t *data, size_t size, uint64_t file_bytes)
{
    struct gguf_header header;
    struct error err = {0};
    enum gguf_outcome outcome = gguf_header_init(&header, data, size, file_bytes, &err);

    ASSERT(outcome != GGUF_SHORT || file_bytes > size);
    if (outcome != GGUF_PARSED) {
        ASSERT(err.code != ERROR_NONE && err.message[0] != '\0');
        return;
    }
    check_tensors(&header, file_bytes);
    for (uint32_t i = 0; i < header.value_count; i++) {
        walked += walk_value(&header.values[i]);
    }
    check_arch(&header);
    gguf_header_deinit(&header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(data, size, size);
    parse(data, size, LARGE_FILE_BYTES);
    return 0;
}
