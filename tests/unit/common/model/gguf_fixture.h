#ifndef SHOAL_TESTS_GGUF_FIXTURE_H
#define SHOAL_TESTS_GGUF_FIXTURE_H

/* Tiny GGUF files written field by field, sound or lying. */
#include "common/base/buffer.h"
#include "common/model/gguf.h"
#include "tests/support/scratch.h"

#define GGUF_SPEC_TENSORS_MAX 4
#define GGUF_AS_IT_IS         UINT64_MAX

struct gguf_spec_tensor {
    const char *name;
    uint32_t dimension_count;
    uint64_t dimensions[5];
    uint32_t type;
    uint64_t offset;
};

struct gguf_spec {
    const char *magic;
    uint32_t version;
    uint64_t claimed_tensors; /* GGUF_AS_IT_IS: the true number */
    uint64_t claimed_values;
    uint32_t alignment;  /* written as general.alignment unless 32 */
    struct buffer value; /* one more value, key included, as bytes */
    bool is_split;       /* the next three are written */
    uint32_t split_no;
    uint32_t split_count;
    uint32_t split_tensors;
    uint32_t tensor_count;
    struct gguf_spec_tensor tensors[GGUF_SPEC_TENSORS_MAX];
    uint64_t data_bytes;
};

/* Version 3, general.architecture "tiny", a string array, and the tensors
 *   a  F32 [4][2] at 0, b  Q8_0 [64] at 32, c  Q4_K [256][2] at 128; 416 bytes of data. */
struct gguf_spec gguf_spec_sound(void);

/* The file; header_bytes (NULL is legal) is where its padding begins. */
struct buffer gguf_spec_write(const struct gguf_spec *spec, size_t *header_bytes);
void gguf_spec_save(const struct gguf_spec *spec, const char *path);

/* Little-endian fields for gguf_spec.value. */
void gguf_put_u32(struct buffer *buffer, uint32_t value);
void gguf_put_u64(struct buffer *buffer, uint64_t value);
void gguf_put_string(struct buffer *buffer, const char *text);
/* Key and type; the payload follows. */
void gguf_put_key(struct buffer *buffer, const char *key, uint32_t type);

#endif
