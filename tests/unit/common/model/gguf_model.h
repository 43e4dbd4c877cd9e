#ifndef SHOAL_TESTS_GGUF_MODEL_H
#define SHOAL_TESTS_GGUF_MODEL_H

/* Whole GGUF models without their values: sound headers over files with holes, in a scratch
 * directory, for tests to change. Failures fail the test at once. */
#include "common/model/gguf.h"
#include "tests/support/scratch.h"

#define GGUF_MODEL_VALUES_MAX 48

struct gguf_model_value {
    const char *key;
    enum gguf_type type; /* GGUF_U32, GGUF_F32, GGUF_BOOL or GGUF_STRING */
    uint32_t integer;
    float number;
    const char *text;
};

struct gguf_model_tensor {
    char name[64];
    enum quant_type type;
    uint64_t dimensions[4]; /* fastest first, 0 behind the last */
};

struct gguf_model {
    struct scratch scratch;
    uint32_t value_count;
    struct gguf_model_value values[GGUF_MODEL_VALUES_MAX];
    uint32_t tensor_count, tensor_max;
    struct gguf_model_tensor *tensors;
    float divisor; /* what rope_freqs.weight is full of; 0: zeros, as everything else */
};

/* Which of the tensors of kv_b a file has. */
enum gguf_model_kv_b { GGUF_MODEL_JOINED, GGUF_MODEL_SPLIT, GGUF_MODEL_BOTH };

struct gguf_model_shape {
    uint32_t layers, dense_layers, draft_layers, vocab, hidden, heads, q_lora, kv_lora, nope, rope,
        v, dense_width, experts, expert_width;
    enum quant_type matrices; /* of projections and MLPs; others F32 */
    enum gguf_model_kv_b kv_b;
};

/* Architecture deepseek2 with one shared expert, four groups and a router bias. */
void gguf_model_open_deepseek(struct gguf_model *model, const struct gguf_model_shape *shape);
/* Two layers with a dense, a MoE and a draft layer, F32; R1 in Q4_K, 61 layers. */
struct gguf_model_shape gguf_model_tiny(enum gguf_model_kv_b kv_b);
struct gguf_model_shape gguf_model_r1(enum gguf_model_kv_b kv_b);
/* One layer, 64 wide, 4 heads of 16, 2 of keys; tied; `name` is llama, qwen2 or qwen3. */
void gguf_model_open_dense(struct gguf_model *model, const char *name);
void gguf_model_close(struct gguf_model *model);

/* In addition, or instead of the value of that key. */
void gguf_model_put(struct gguf_model *model, struct gguf_model_value value);
/* Must be there; lent until the next tensor is added. */
struct gguf_model_tensor *gguf_model_find(struct gguf_model *model, const char *name);
void gguf_model_add(struct gguf_model *model, struct gguf_model_tensor tensor);
void gguf_model_remove(struct gguf_model *model, const char *name);

/* In one file, or in splits of about as many tensors each, of which the first has the metadata.
 * Gives the path to open; lent until the next call. */
const char *gguf_model_save(struct gguf_model *model);
const char *gguf_model_save_splits(struct gguf_model *model, uint32_t count);

#endif
