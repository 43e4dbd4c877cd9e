/* safetensors.c - one safetensors header, checked in full before anything uses it.
 *
 * The format wants the data section covered exactly: tensors lie end to end without holes from the
 * first byte to the last. So after each entry is checked by itself (type, shape, length), all
 * ranges are sorted and must join up, which finds overlap, holes and truncated files alike.
 * Reading the file is left to catalog.c; the header is text here.
 */
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/catalog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DIMENSIONS_MAX ARRAY_LENGTH(((struct safetensors_entry *)NULL)->dimensions)

struct dtype_row {
    const char *name;
    uint32_t bits;
};

static const struct dtype_row dtype_rows[] = {
    {"BF16", 16},   {"F16", 16},    {"F32", 32},    {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},      {"I8", 8},
    {"U8", 8},      {"BOOL", 8},    {"I16", 16},    {"U16", 16},    {"I32", 32},
    {"U32", 32},    {"I64", 64},    {"U64", 64},    {"F64", 64},    {"C64", 64},
};

/* Where one tensor's data lies, from the start of the data section. */
struct range {
    uint64_t begin;
    uint64_t end;
    const char *name;
};

struct visitor {
    safetensors_visit_fn visit;
    void *context;
    uint64_t data_begin; /* from the start of the file */
};

static const struct dtype_row *dtype_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(dtype_rows); i++) {
        if (strcmp(dtype_rows[i].name, name) == 0) {
            return &dtype_rows[i];
        }
    }
    return NULL;
}

/* A non-negative integer out of a list. */
static bool element_u64(const json_t *array, size_t index, const char *field, uint64_t *out,
                        struct error *err)
{
    const json_t *value = json_array_get(array, index);

    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return error_set(err, ERROR_INPUT,
                         "field \"%s\": element %zu must be a non-negative integer", field, index);
    }
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool list_of(const json_t *object, const char *field, json_t **list, struct error *err)
{
    if (!json_get_array_or_null(object, field, list, err)) {
        return false;
    }
    return *list != NULL || error_set(err, ERROR_INPUT, "field \"%s\" is missing", field);
}

/* Fills the dimensions and *bytes, what type and shape say the data take. */
static bool parse_shape(const json_t *object, const struct dtype_row *dtype,
                        struct safetensors_entry *entry, size_t *bytes, struct error *err)
{
    json_t *shape;
    size_t bits = dtype->bits;

    if (!list_of(object, "shape", &shape, err)) {
        return false;
    }
    if (json_array_size(shape) > DIMENSIONS_MAX) {
        return error_set(err, ERROR_INPUT, "field \"shape\" has %zu dimensions, more than %zu",
                         json_array_size(shape), DIMENSIONS_MAX);
    }
    entry->dimension_count = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < entry->dimension_count; i++) {
        if (!element_u64(shape, i, "shape", &entry->dimensions[i], err)) {
            return false;
        }
        if (!size_mul(bits, entry->dimensions[i], &bits)) {
            return error_set(err, ERROR_INPUT, "field \"shape\": the product exceeds 64 bits");
        }
    }
    *bytes = bits / 8;
    return bits % 8 == 0 ||
           error_set(err, ERROR_INPUT, "%zu bits of %s do not fill whole bytes", bits, dtype->name);
}

static bool parse_range(const json_t *object, uint64_t data_bytes, struct range *range,
                        struct error *err)
{
    json_t *offsets;

    if (!list_of(object, "data_offsets", &offsets, err)) {
        return false;
    }
    if (json_array_size(offsets) != 2) {
        return error_set(err, ERROR_INPUT, "field \"data_offsets\" has %zu elements, not 2",
                         json_array_size(offsets));
    }
    if (!element_u64(offsets, 0, "data_offsets", &range->begin, err) ||
        !element_u64(offsets, 1, "data_offsets", &range->end, err)) {
        return false;
    }
    if (range->begin > range->end) {
        return error_set(err, ERROR_INPUT, "data_offsets fall: %" PRIu64 " to %" PRIu64,
                         range->begin, range->end);
    }
    if (range->end > data_bytes) {
        return error_set(err, ERROR_INPUT,
                         "data end at byte %" PRIu64
                         " of the data section, the file ends at %" PRIu64 "; is it truncated?",
                         range->end, data_bytes);
    }
    return true;
}

static bool parse_entry(const json_t *object, uint64_t data_bytes, struct safetensors_entry *entry,
                        struct range *range, struct error *err)
{
    const struct dtype_row *dtype;
    size_t bytes;

    if (!json_is_object(object)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(object));
    }
    if (!json_get_string(object, "dtype", &entry->dtype, err)) {
        return false;
    }
    dtype = dtype_find(entry->dtype);
    if (dtype == NULL) {
        return error_set(err, ERROR_INPUT, "dtype \"%.32s\" is unknown", entry->dtype);
    }
    if (!parse_shape(object, dtype, entry, &bytes, err) ||
        !parse_range(object, data_bytes, range, err)) {
        return false;
    }
    entry->bytes = range->end - range->begin;
    if (entry->bytes != bytes) {
        return error_set(err, ERROR_INPUT,
                         "data_offsets span %" PRIu64 " bytes, shape and dtype %s need %zu",
                         entry->bytes, entry->dtype, bytes);
    }
    return true;
}

static int range_compare(const void *left, const void *right)
{
    const struct range *a = left;
    const struct range *b = right;

    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    return (a->end > b->end) - (a->end < b->end);
}

/* End to end, from 0 to data_bytes. */
static bool ranges_join(struct range *ranges, size_t count, uint64_t data_bytes, struct error *err)
{
    uint64_t end = 0;

    qsort(ranges, count, sizeof(*ranges), range_compare);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].begin < end) {
            return error_set(err, ERROR_INPUT,
                             "tensor %.160s begins at byte %" PRIu64 " and overlaps %.160s, which "
                             "ends at %" PRIu64,
                             ranges[i].name, ranges[i].begin, ranges[i - 1].name, end);
        }
        if (ranges[i].begin > end) {
            return error_set(err, ERROR_INPUT,
                             "no tensor owns bytes %" PRIu64 " to %" PRIu64 " before tensor %.160s",
                             end, ranges[i].begin, ranges[i].name);
        }
        end = ranges[i].end;
    }
    return end == data_bytes ||
           error_set(err, ERROR_INPUT,
                     "the header describes %" PRIu64 " bytes of data, the file has %" PRIu64, end,
                     data_bytes);
}

/* First all entries by themselves, then their ranges together; then nothing can be wrong and the
 * visitor gets them. */
static bool check_entries(json_t *header, uint64_t data_bytes, struct range *ranges,
                          struct error *err)
{
    const char *name;
    json_t *object;
    size_t count = 0;

    json_object_foreach(header, name, object)
    {
        struct safetensors_entry entry = {.name = name};

        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        ranges[count].name = name;
        if (!parse_entry(object, data_bytes, &entry, &ranges[count++], err)) {
            return error_wrap(err, "tensor %.200s", name);
        }
    }
    return ranges_join(ranges, count, data_bytes, err);
}

/* parse_entry has succeeded for all of them before. */
static bool visit_entries(json_t *header, uint64_t file_bytes, const struct visitor *visitor,
                          struct error *err)
{
    uint64_t data_bytes = file_bytes - visitor->data_begin;
    const char *name;
    json_t *object;

    json_object_foreach(header, name, object)
    {
        struct safetensors_entry entry = {.name = name};
        struct range range;

        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        if (!parse_entry(object, data_bytes, &entry, &range, err)) {
            return false;
        }
        entry.offset = visitor->data_begin + range.begin;
        if (!visitor->visit(visitor->context, &entry, err)) {
            return false;
        }
    }
    return true;
}

bool safetensors_parse_header(const char *json, size_t json_bytes, uint64_t file_bytes,
                              safetensors_visit_fn visit, void *context, struct error *err)
{
    uint64_t data_begin = 8 + (uint64_t)json_bytes;
    struct visitor visitor = {visit, context, data_begin};
    json_t *header;
    struct range *ranges;
    bool parsed;

    if (file_bytes < data_begin) {
        return error_set(err, ERROR_INPUT, "header claims %zu bytes, %" PRIu64 " left", json_bytes,
                         file_bytes < 8 ? 0 : file_bytes - 8);
    }
    header = json_parse(json, json_bytes, "header", err);
    if (header == NULL) {
        return false;
    }
    if (!json_is_object(header)) {
        error_set(err, ERROR_INPUT, "header must be an object, got %s", json_type_word(header));
        json_decref(header);
        return false;
    }
    ranges = mem_try_array(struct range, json_object_size(header), err);
    parsed = ranges != NULL && check_entries(header, file_bytes - data_begin, ranges, err) &&
             visit_entries(header, file_bytes, &visitor, err);
    mem_free(ranges);
    json_decref(header);
    return parsed;
}
