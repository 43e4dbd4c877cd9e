#ifndef SHOAL_MODEL_GGUF_H
#define SHOAL_MODEL_GGUF_H

/* GGUF files, versions 2 and 3: metadata and where each tensor lies, from headers alone.
 *
 * Layout, little-endian: "GGUF", u32 version, u64 tensor count, u64 value count; each value: key
 * (u64 length, bytes), u32 type, payload; each tensor: name, u32 dimension count, u64 dimensions
 * (fastest first), u32 type (quant.h), u64 offset; padding to general.alignment (32); data. A model
 * may be split over NAME-00001-of-0000N.gguf …; the first has the metadata, each the infos of its
 * own tensors. Source: the format's page docs/gguf.md in ggml.
 *
 * Everything is checked against the size of the file before it is used: counts, lengths, types,
 * alignment, blocks, no tensor outside the file or over another, no name twice, all splits there
 * and of one set. What is left to catalogs: which tensors and shapes an architecture needs.
 *
 * Immutable once open; any thread may read it.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/model/quant.h"

#include <stddef.h>
#include <stdint.h>

#define GGUF_DIMENSIONS_MAX 4

/* As in the files. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

/* Not ended by a NUL, and any bytes; a view of the header. */
struct gguf_string {
    const char *text;
    size_t length;
};

/* A view of the values of an array, whatever its size; nothing is copied. */
struct gguf_array {
    enum gguf_type type; /* of each element; never GGUF_ARRAY */
    uint64_t count;
    const uint8_t *bytes;
};

struct gguf_value {
    struct gguf_string key; /* printable ASCII */
    enum gguf_type type;
    struct gguf_array array; /* unless type is GGUF_ARRAY: itself as an array of one */
};

struct gguf_tensor {
    const char *name; /* printable ASCII */
    enum quant_type type;
    uint32_t dimension_count;                 /* 1 to GGUF_DIMENSIONS_MAX */
    uint32_t file;                            /* index into gguf->files */
    uint64_t dimensions[GGUF_DIMENSIONS_MAX]; /* fastest first; 1 beyond dimension_count */
    uint64_t offset;                          /* of the first byte, from the start of the file */
    uint64_t bytes;
};

/* One file's header. Its views borrow the bytes that were parsed; names are its own. */
struct gguf_header {
    uint32_t version;
    uint32_t alignment;
    uint64_t data_begin; /* from the start of the file */
    uint32_t value_count;
    struct gguf_value *values; /* sorted by key */
    uint32_t tensor_count;
    struct gguf_tensor *tensors; /* sorted by offset */
    struct arena names;
};

enum gguf_outcome {
    GGUF_PARSED,
    GGUF_REFUSED, /* err says why */
    GGUF_SHORT,   /* sound so far; the header goes on behind `length`: read more of the file */
};

/* The parser alone. `bytes` are the first `length` of a file of `file_bytes`; borrowed, and lent
 * to *out until gguf_header_deinit, which is due after GGUF_PARSED only. */
enum gguf_outcome gguf_header_init(struct gguf_header *out, const void *bytes, size_t length,
                                   uint64_t file_bytes, struct error *err) MUST_CHECK;
void gguf_header_deinit(struct gguf_header *header);

struct gguf_file {
    const char *path; /* lent by the gguf */
    uint64_t bytes;
};

struct gguf {
    uint32_t file_count;
    struct gguf_file *files;
    struct gguf_header header; /* of the first file; its values are the model's metadata */
    uint32_t tensor_count;
    struct gguf_tensor *tensors; /* of all files, sorted by name */
    void *memory;                /* owns all of the above */
};

/* `path` is the only file or the first split. NULL on failure; err names file, key or tensor. */
struct gguf *gguf_open(const char *path, struct error *err) MUST_CHECK;
void gguf_close(struct gguf *gguf); /* NULL is legal */

/* The numbers in a name ending in -0000I-of-0000N.gguf, I counted from 1; false without them. */
#define GGUF_SPLIT_SUFFIX_LENGTH 20
bool gguf_split_of_name(const char *path, uint32_t *number, uint32_t *count);

/* NULL if there is none. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name);

/* Metadata. `get` functions: a missing key gives the fallback and true for *_or, ERROR_INPUT for
 * the others; a wrong type or range is always ERROR_INPUT: "key "llama.block_count" must be an
 * integer, got string". Integers of any width serve wherever they fit. */
const struct gguf_value *gguf_find(const struct gguf_header *header, const char *key); /* or NULL */
bool gguf_get_u32(const struct gguf_header *header, const char *key, uint32_t *out,
                  struct error *err) MUST_CHECK;
bool gguf_get_u32_or(const struct gguf_header *header, const char *key, uint32_t fallback,
                     uint32_t *out, struct error *err) MUST_CHECK;
/* Finite. An f32 gives the double of the shortest decimal that stands for it: 0.0707f is 0.0707,
 * which is what its writer had, so that all files of a model lead to the same bits. */
bool gguf_get_number(const struct gguf_header *header, const char *key, double *out,
                     struct error *err) MUST_CHECK;
bool gguf_get_number_or(const struct gguf_header *header, const char *key, double fallback,
                        double *out, struct error *err) MUST_CHECK;
bool gguf_get_bool_or(const struct gguf_header *header, const char *key, bool fallback, bool *out,
                      struct error *err) MUST_CHECK;
/* Lends the string as long as the header lives. */
bool gguf_get_string(const struct gguf_header *header, const char *key, struct gguf_string *out,
                     struct error *err) MUST_CHECK;
/* An array of exactly this type; lent likewise. */
bool gguf_get_array(const struct gguf_header *header, const char *key, enum gguf_type type,
                    struct gguf_array *out, struct error *err) MUST_CHECK;

/* Takes the next string off the front of a view of strings; false when none is left. */
bool gguf_array_next(struct gguf_array *array, struct gguf_string *out);
/* Element `index` of a view of integers or booleans; a u64 beyond INT64_MAX gives INT64_MAX. */
int64_t gguf_array_integer(const struct gguf_array *array, uint64_t index);
/* Element `index` of a view of f32 or f64, as it is. */
double gguf_array_number(const struct gguf_array *array, uint64_t index);

bool gguf_string_equals(struct gguf_string string, const char *text);
const char *gguf_type_name(enum gguf_type type); /* "u32", "string" */

#endif
