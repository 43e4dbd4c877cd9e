/* gguf_header.c - the header of one GGUF file, checked in full before anything uses it.
 *
 * A header does not say how long it is, and vocabularies make it megabytes: the caller reads some
 * of the file and comes again with more when told GGUF_SHORT. A claim that the whole file could not
 * hold is refused at once, so that a lie costs no reading. Tensor ranges are checked together at
 * the end: sorted by offset, none may reach into the next or beyond the file.
 */
#include "common/base/mem.h"
#include "common/model/gguf_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define VALUES_MAX       65536u
#define TENSORS_MAX      (UINT32_C(1) << 20)
#define VALUE_BYTES_MIN  14 /* key of one byte, type, payload of one byte */
#define TENSOR_BYTES_MIN 33 /* name of one byte, one dimension */
#define NAME_BYTES_MAX   255
#define KEY_BYTES_MAX    1024
#define ALIGNMENT_MAX    (UINT32_C(1) << 20)

struct reader {
    const uint8_t *bytes;
    uint64_t length;
    uint64_t file_bytes; /* at <= length <= file_bytes */
    uint64_t at;
    bool is_short;
};

static bool take(struct reader *reader, uint64_t count, const uint8_t **out, struct error *err)
{
    if (count > reader->file_bytes - reader->at) {
        return error_set(err, ERROR_INPUT,
                         "%" PRIu64 " bytes are claimed at %" PRIu64 ", the file has %" PRIu64
                         " left",
                         count, reader->at, reader->file_bytes - reader->at);
    }
    if (count > reader->length - reader->at) {
        reader->is_short = true;
        return error_set(err, ERROR_INPUT, "the header goes on behind byte %" PRIu64,
                         reader->length);
    }
    *out = reader->bytes + reader->at;
    reader->at += count;
    return true;
}

static bool take_u32(struct reader *reader, uint32_t *out, struct error *err)
{
    const uint8_t *at;

    if (!take(reader, 4, &at, err)) {
        return false;
    }
    *out = gguf_load_u32(at);
    return true;
}

static bool take_u64(struct reader *reader, uint64_t *out, struct error *err)
{
    const uint8_t *at;

    if (!take(reader, 8, &at, err)) {
        return false;
    }
    *out = gguf_load_u64(at);
    return true;
}

static bool take_string(struct reader *reader, struct gguf_string *out, struct error *err)
{
    const uint8_t *at;
    uint64_t length;

    if (!take_u64(reader, &length, err) || !take(reader, length, &at, err)) {
        return false;
    }
    *out = (struct gguf_string){(const char *)at, (size_t)length};
    return true;
}

/* Names and keys go into messages and JSON: printable ASCII, as all published ones are. */
static bool take_name(struct reader *reader, size_t length_max, struct gguf_string *out,
                      struct error *err)
{
    if (!take_string(reader, out, err)) {
        return false;
    }
    if (out->length == 0 || out->length > length_max) {
        return error_set(err, ERROR_INPUT, "a name of %zu bytes; 1 to %zu can be used", out->length,
                         length_max);
    }
    for (size_t i = 0; i < out->length; i++) {
        if (out->text[i] < 0x20 || out->text[i] > 0x7e) {
            return error_set(err, ERROR_INPUT, "a name with byte 0x%02x, which is not printable",
                             (unsigned char)out->text[i]);
        }
    }
    return true;
}

static bool take_elements(struct reader *reader, struct gguf_array *array, struct error *err)
{
    struct gguf_string string;
    uint64_t bytes;

    array->bytes = reader->bytes + reader->at;
    if (array->type != GGUF_STRING) {
        if (__builtin_mul_overflow(array->count, gguf_type_bytes(array->type), &bytes)) {
            bytes = UINT64_MAX;
        }
        return take(reader, bytes, &array->bytes, err);
    }
    if (array->count > (reader->file_bytes - reader->at) / 8) {
        return error_set(err, ERROR_INPUT,
                         "%" PRIu64 " strings are claimed, the file has %" PRIu64 " bytes left",
                         array->count, reader->file_bytes - reader->at);
    }
    for (uint64_t i = 0; i < array->count; i++) {
        if (!take_string(reader, &string, err)) {
            return false;
        }
    }
    return true;
}

static bool take_type(struct reader *reader, enum gguf_type *out, struct error *err)
{
    uint32_t type;

    if (!take_u32(reader, &type, err)) {
        return false;
    }
    if (type >= GGUF_TYPE_COUNT) {
        return error_set(err, ERROR_INPUT, "unknown value type %u", type);
    }
    *out = (enum gguf_type)type;
    return true;
}

static bool take_payload(struct reader *reader, struct gguf_value *value, struct error *err)
{
    if (!take_type(reader, &value->type, err)) {
        return false;
    }
    value->array = (struct gguf_array){.type = value->type, .count = 1};
    if (value->type == GGUF_ARRAY) {
        if (!take_type(reader, &value->array.type, err) ||
            !take_u64(reader, &value->array.count, err)) {
            return false;
        }
        if (value->array.type == GGUF_ARRAY) {
            return error_set(err, ERROR_INPUT, "arrays of arrays cannot be read");
        }
    }
    return take_elements(reader, &value->array, err);
}

static bool take_value(struct reader *reader, struct gguf_value *value, struct error *err)
{
    if (!take_name(reader, KEY_BYTES_MAX, &value->key, err)) {
        return error_wrap(err, "key");
    }
    return take_payload(reader, value, err) ||
           error_wrap(err, "key \"%.*s\"", value->key.length < 100 ? (int)value->key.length : 100,
                      value->key.text);
}

static int value_compare(const void *left, const void *right)
{
    return gguf_key_compare(((const struct gguf_value *)left)->key,
                            ((const struct gguf_value *)right)->key);
}

static bool take_values(struct reader *reader, struct gguf_header *header, struct error *err)
{
    header->values = mem_try_array(struct gguf_value, header->value_count, err);
    if (header->values == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < header->value_count; i++) {
        if (!take_value(reader, &header->values[i], err)) {
            return false;
        }
    }
    qsort(header->values, header->value_count, sizeof(*header->values), value_compare);
    for (uint32_t i = 1; i < header->value_count; i++) {
        struct gguf_string key = header->values[i].key;

        if (value_compare(&header->values[i - 1], &header->values[i]) == 0) {
            return error_set(err, ERROR_INPUT, "key \"%.*s\" occurs twice",
                             key.length < 100 ? (int)key.length : 100, key.text);
        }
    }
    return gguf_get_u32_or(header, "general.alignment", 32, &header->alignment, err);
}

static bool take_dimensions(struct reader *reader, struct gguf_tensor *tensor, uint64_t *values,
                            struct error *err)
{
    if (!take_u32(reader, &tensor->dimension_count, err)) {
        return false;
    }
    if (tensor->dimension_count < 1 || tensor->dimension_count > GGUF_DIMENSIONS_MAX) {
        return error_set(err, ERROR_INPUT, "has %u dimensions; 1 to %d can be used",
                         tensor->dimension_count, GGUF_DIMENSIONS_MAX);
    }
    *values = 1;
    for (uint32_t i = 0; i < GGUF_DIMENSIONS_MAX; i++) {
        tensor->dimensions[i] = 1;
        if (i < tensor->dimension_count && !take_u64(reader, &tensor->dimensions[i], err)) {
            return false;
        }
        if (tensor->dimensions[i] == 0) {
            return error_set(err, ERROR_INPUT, "dimension %u is 0", i);
        }
        if (__builtin_mul_overflow(*values, tensor->dimensions[i], values)) {
            return error_set(err, ERROR_INPUT, "has more values than any file holds");
        }
    }
    return true;
}

static bool take_tensor_type(struct reader *reader, struct gguf_tensor *tensor, uint64_t values,
                             struct error *err)
{
    const struct quant_traits *traits;
    uint32_t type;

    if (!take_u32(reader, &type, err)) {
        return false;
    }
    traits = quant_traits(type);
    if (traits == NULL) {
        return error_set(err, ERROR_INPUT, "has type %u (%s), which cannot be read", type,
                         quant_type_name(type));
    }
    if (tensor->dimensions[0] % traits->block_values != 0) {
        return error_set(err, ERROR_INPUT,
                         "has rows of %" PRIu64 " values, no multiple of the %u in a %s block",
                         tensor->dimensions[0], traits->block_values, traits->name);
    }
    tensor->type = (enum quant_type)type;
    tensor->bytes = quant_bytes(type, values);
    return tensor->bytes > 0 || error_set(err, ERROR_INPUT, "has more values than any file holds");
}

static bool take_tensor(struct reader *reader, struct gguf_header *header,
                        struct gguf_tensor *tensor, struct error *err)
{
    struct gguf_string name;
    uint64_t values;

    if (!take_name(reader, NAME_BYTES_MAX, &name, err)) {
        return error_wrap(err, "tensor");
    }
    tensor->name = arena_strndup(&header->names, name.text, name.length);
    return (take_dimensions(reader, tensor, &values, err) &&
            take_tensor_type(reader, tensor, values, err) &&
            take_u64(reader, &tensor->offset, err)) ||
           error_wrap(err, "tensor %s", tensor->name);
}

static int tensor_name_compare(const void *left, const void *right)
{
    return strcmp(((const struct gguf_tensor *)left)->name,
                  ((const struct gguf_tensor *)right)->name);
}

static int tensor_offset_compare(const void *left, const void *right)
{
    const struct gguf_tensor *a = left;
    const struct gguf_tensor *b = right;

    return (a->offset > b->offset) - (a->offset < b->offset);
}

static bool take_tensors(struct reader *reader, struct gguf_header *header, struct error *err)
{
    header->tensors = mem_try_array(struct gguf_tensor, header->tensor_count, err);
    if (header->tensors == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < header->tensor_count; i++) {
        if (!take_tensor(reader, header, &header->tensors[i], err)) {
            return false;
        }
    }
    qsort(header->tensors, header->tensor_count, sizeof(*header->tensors), tensor_name_compare);
    for (uint32_t i = 1; i < header->tensor_count; i++) {
        if (tensor_name_compare(&header->tensors[i - 1], &header->tensors[i]) == 0) {
            return error_set(err, ERROR_INPUT, "tensor %s occurs twice", header->tensors[i].name);
        }
    }
    return true;
}

/* Offsets count from the data section until here, and from the start of the file afterwards. */
static bool place_tensor(struct gguf_header *header, uint64_t file_bytes,
                         struct gguf_tensor *tensor, struct error *err)
{
    uint64_t data_bytes = file_bytes > header->data_begin ? file_bytes - header->data_begin : 0;

    if (tensor->offset % header->alignment != 0) {
        return error_set(err, ERROR_INPUT,
                         "tensor %s: offset %" PRIu64 " is no multiple of the alignment %u",
                         tensor->name, tensor->offset, header->alignment);
    }
    if (tensor->offset > data_bytes || tensor->bytes > data_bytes - tensor->offset) {
        return error_set(err, ERROR_INPUT,
                         "tensor %s: %" PRIu64 " bytes at offset %" PRIu64
                         " reach beyond the file's %" PRIu64 " bytes of data",
                         tensor->name, tensor->bytes, tensor->offset, data_bytes);
    }
    tensor->offset += header->data_begin;
    return true;
}

static bool place_tensors(struct gguf_header *header, uint64_t file_bytes, struct error *err)
{
    for (uint32_t i = 0; i < header->tensor_count; i++) {
        if (!place_tensor(header, file_bytes, &header->tensors[i], err)) {
            return false;
        }
    }
    qsort(header->tensors, header->tensor_count, sizeof(*header->tensors), tensor_offset_compare);
    for (uint32_t i = 1; i < header->tensor_count; i++) {
        const struct gguf_tensor *tensor = &header->tensors[i];

        if (tensor[-1].offset + tensor[-1].bytes > tensor->offset) {
            return error_set(err, ERROR_INPUT, "tensors %s and %s overlap", tensor[-1].name,
                             tensor->name);
        }
    }
    return true;
}

static bool take_magic(struct reader *reader, struct gguf_header *header, struct error *err)
{
    const uint8_t *magic;

    if (!take(reader, 4, &magic, err)) {
        return false;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        return error_set(err, ERROR_INPUT,
                         "is no GGUF file: it begins with bytes %02x %02x %02x %02x", magic[0],
                         magic[1], magic[2], magic[3]);
    }
    if (!take_u32(reader, &header->version, err)) {
        return false;
    }
    if ((header->version & 0xffff) == 0) {
        return error_set(err, ERROR_INPUT, "is a big-endian GGUF file, which cannot be read");
    }
    return header->version == 2 || header->version == 3 ||
           error_set(err, ERROR_INPUT, "has GGUF version %u; 2 and 3 can be read", header->version);
}

static bool take_count(struct reader *reader, uint32_t count_max, uint32_t bytes_min, uint32_t *out,
                       struct error *err)
{
    uint64_t count;

    if (!take_u64(reader, &count, err)) {
        return false;
    }
    if (count > (reader->file_bytes - reader->at) / bytes_min) {
        return error_set(err, ERROR_INPUT,
                         "claims %" PRIu64 ", the file has %" PRIu64 " bytes left", count,
                         reader->file_bytes - reader->at);
    }
    if (count > count_max) {
        return error_set(err, ERROR_LIMIT, "%" PRIu64 " of them; %u can be used", count, count_max);
    }
    *out = (uint32_t)count;
    return true;
}

static bool parse(struct reader *reader, struct gguf_header *header, struct error *err)
{
    if (!take_magic(reader, header, err)) {
        return false;
    }
    if (!take_count(reader, TENSORS_MAX, TENSOR_BYTES_MIN, &header->tensor_count, err)) {
        return error_wrap(err, "tensor count");
    }
    if (!take_count(reader, VALUES_MAX, VALUE_BYTES_MIN, &header->value_count, err)) {
        return error_wrap(err, "value count");
    }
    if (!take_values(reader, header, err)) {
        return false;
    }
    if (header->alignment == 0 || header->alignment > ALIGNMENT_MAX ||
        (header->alignment & (header->alignment - 1)) != 0) {
        return error_set(err, ERROR_INPUT,
                         "key \"general.alignment\" is %u, no power of two up to %u",
                         header->alignment, ALIGNMENT_MAX);
    }
    if (!take_tensors(reader, header, err)) {
        return false;
    }
    header->data_begin =
        (reader->at + header->alignment - 1) / header->alignment * header->alignment;
    return place_tensors(header, reader->file_bytes, err);
}

enum gguf_outcome gguf_header_init(struct gguf_header *out, const void *bytes, size_t length,
                                   uint64_t file_bytes, struct error *err)
{
    struct reader reader = {.bytes = bytes, .length = length, .file_bytes = file_bytes};
    struct gguf_header header = {0};

    ASSERT(length <= file_bytes);
    arena_init(&header.names, 1 << 16);
    if (!parse(&reader, &header, err)) {
        gguf_header_deinit(&header);
        return reader.is_short ? GGUF_SHORT : GGUF_REFUSED;
    }
    *out = header;
    return GGUF_PARSED;
}

void gguf_header_deinit(struct gguf_header *header)
{
    mem_free(header->values);
    mem_free(header->tensors);
    arena_deinit(&header->names);
    *header = (struct gguf_header){0};
}
