/* fuzz_safetensors.c - any bytes as a safetensors file: 8 bytes of length, header, data. */
#include "common/model/catalog.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct file_view {
    uint64_t data_begin;
    uint64_t bytes;
    uint64_t covered;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool visit(void *context, const struct safetensors_entry *entry, struct error *err)
{
    struct file_view *view = context;

    (void)err;
    ASSERT(entry->name != NULL && entry->dtype != NULL && entry->dimension_count <= 8);
    ASSERT(entry->offset >= view->data_begin && entry->offset <= view->bytes);
    ASSERT(entry->bytes <= view->bytes - entry->offset);
    view->covered += entry->bytes;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file_view view = {.bytes = size};
    struct error err = {0};
    uint64_t header_bytes;

    if (size < sizeof(header_bytes)) {
        return 0;
    }
    memcpy(&header_bytes, data, sizeof(header_bytes));
    if (header_bytes > size - sizeof(header_bytes)) {
        header_bytes = size - sizeof(header_bytes);
    }
    view.data_begin = sizeof(header_bytes) + header_bytes;
    if (safetensors_parse_header((const char *)data + sizeof(header_bytes), header_bytes, size,
                                 visit, &view, &err)) {
        ASSERT(view.covered == view.bytes - view.data_begin);
    } else {
        ASSERT(err.code != ERROR_NONE && err.message[0] != '\0');
    }
    return 0;
}
