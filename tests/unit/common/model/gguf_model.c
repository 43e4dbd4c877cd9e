/* gguf_model.c - see gguf_model.h. */
#include "tests/unit/common/model/gguf_model.h"

#include "common/base/buffer.h"
#include "common/base/mem.h"
#include "tests/unit/common/model/gguf_fixture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ALIGNMENT 32

/* --- contents --- */

void gguf_model_put(struct gguf_model *model, struct gguf_model_value value)
{
    for (uint32_t i = 0; i < model->value_count; i++) {
        if (strcmp(model->values[i].key, value.key) == 0) {
            model->values[i] = value;
            return;
        }
    }
    assert_true(model->value_count < GGUF_MODEL_VALUES_MAX);
    model->values[model->value_count++] = value;
}

static void put_u32(struct gguf_model *model, const char *key, uint32_t value)
{
    gguf_model_put(model, (struct gguf_model_value){key, GGUF_U32, .integer = value});
}

static void put_f32(struct gguf_model *model, const char *key, float value)
{
    gguf_model_put(model, (struct gguf_model_value){key, GGUF_F32, .number = value});
}

void gguf_model_add(struct gguf_model *model, struct gguf_model_tensor tensor)
{
    if (model->tensor_count == model->tensor_max) {
        model->tensor_max = model->tensor_max == 0 ? 64 : 2 * model->tensor_max;
        model->tensors = mem_resize(model->tensors, model->tensor_max, sizeof(*model->tensors));
    }
    model->tensors[model->tensor_count++] = tensor;
}

struct gguf_model_tensor *gguf_model_find(struct gguf_model *model, const char *name)
{
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        if (strcmp(model->tensors[i].name, name) == 0) {
            return &model->tensors[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

void gguf_model_remove(struct gguf_model *model, const char *name)
{
    struct gguf_model_tensor *tensor = gguf_model_find(model, name);

    *tensor = model->tensors[--model->tensor_count];
}

static void matrix(struct gguf_model *model, enum quant_type type, const char *name,
                   uint64_t columns, uint64_t rows)
{
    struct gguf_model_tensor tensor = {.type = type, .dimensions = {columns, rows}};

    (void)snprintf(tensor.name, sizeof(tensor.name), "%.48s.weight", name);
    gguf_model_add(model, tensor);
}

static void stack(struct gguf_model *model, enum quant_type type, const char *name,
                  const uint64_t dimensions[3])
{
    matrix(model, type, name, dimensions[0], dimensions[1]);
    model->tensors[model->tensor_count - 1].dimensions[2] = dimensions[2];
}

/* "blk.7.attn_q"; lent until the next call. */
static const char *in_layer(uint32_t layer, const char *name)
{
    static char text[64];

    (void)snprintf(text, sizeof(text), "blk.%u.%s", layer, name);
    return text;
}

static void latent_attention(struct gguf_model *model, const struct gguf_model_shape *s,
                             uint32_t layer)
{
    enum quant_type type = s->matrices;
    uint64_t queries = (uint64_t)s->heads * (s->nope + s->rope);

    matrix(model, QUANT_F32, in_layer(layer, "attn_norm"), s->hidden, 0);
    matrix(model, type, in_layer(layer, "attn_q_a"), s->hidden, s->q_lora);
    matrix(model, QUANT_F32, in_layer(layer, "attn_q_a_norm"), s->q_lora, 0);
    matrix(model, type, in_layer(layer, "attn_q_b"), s->q_lora, queries);
    matrix(model, type, in_layer(layer, "attn_kv_a_mqa"), s->hidden, s->kv_lora + s->rope);
    matrix(model, QUANT_F32, in_layer(layer, "attn_kv_a_norm"), s->kv_lora, 0);
    if (s->kv_b != GGUF_MODEL_SPLIT) {
        matrix(model, type, in_layer(layer, "attn_kv_b"), s->kv_lora,
               (uint64_t)s->heads * (s->nope + s->v));
    }
    if (s->kv_b != GGUF_MODEL_JOINED) {
        enum quant_type small = type == QUANT_F32 ? type : QUANT_Q8_0;

        stack(model, small, in_layer(layer, "attn_k_b"),
              (uint64_t[]){s->nope, s->kv_lora, s->heads});
        stack(model, type, in_layer(layer, "attn_v_b"), (uint64_t[]){s->kv_lora, s->v, s->heads});
    }
    matrix(model, type, in_layer(layer, "attn_output"), (uint64_t)s->heads * s->v, s->hidden);
    matrix(model, QUANT_F32, in_layer(layer, "ffn_norm"), s->hidden, 0);
}

static void experts(struct gguf_model *model, const struct gguf_model_shape *s, uint32_t layer)
{
    struct gguf_model_tensor bias = {.type = QUANT_F32, .dimensions = {s->experts}};
    enum quant_type type = s->matrices;
    const uint64_t up[] = {s->hidden, s->expert_width, s->experts};
    const uint64_t down[] = {s->expert_width, s->hidden, s->experts};

    matrix(model, QUANT_F32, in_layer(layer, "ffn_gate_inp"), s->hidden, s->experts);
    (void)snprintf(bias.name, sizeof(bias.name), "blk.%u.exp_probs_b.bias", layer);
    gguf_model_add(model, bias);
    stack(model, type, in_layer(layer, "ffn_gate_exps"), up);
    stack(model, type, in_layer(layer, "ffn_up_exps"), up);
    stack(model, type, in_layer(layer, "ffn_down_exps"), down);
    matrix(model, type, in_layer(layer, "ffn_gate_shexp"), s->hidden, s->expert_width);
    matrix(model, type, in_layer(layer, "ffn_up_shexp"), s->hidden, s->expert_width);
    matrix(model, type, in_layer(layer, "ffn_down_shexp"), s->expert_width, s->hidden);
}

static void dense(struct gguf_model *model, enum quant_type type, uint32_t layer,
                  const uint32_t widths[2])
{
    matrix(model, type, in_layer(layer, "ffn_gate"), widths[0], widths[1]);
    matrix(model, type, in_layer(layer, "ffn_up"), widths[0], widths[1]);
    matrix(model, type, in_layer(layer, "ffn_down"), widths[1], widths[0]);
}

static void draft(struct gguf_model *model, const struct gguf_model_shape *s, uint32_t layer)
{
    matrix(model, s->matrices, in_layer(layer, "nextn.eh_proj"), (uint64_t)2 * s->hidden,
           s->hidden);
    matrix(model, s->matrices, in_layer(layer, "nextn.embed_tokens"), s->hidden, s->vocab);
    matrix(model, QUANT_F32, in_layer(layer, "nextn.enorm"), s->hidden, 0);
    matrix(model, QUANT_F32, in_layer(layer, "nextn.hnorm"), s->hidden, 0);
    matrix(model, s->matrices, in_layer(layer, "nextn.shared_head_head"), s->hidden, s->vocab);
    matrix(model, QUANT_F32, in_layer(layer, "nextn.shared_head_norm"), s->hidden, 0);
}

static void deepseek_values(struct gguf_model *model, const struct gguf_model_shape *s)
{
    bool is_latent = s->kv_b == GGUF_MODEL_SPLIT;
    const struct {
        const char *key;
        uint32_t value;
    } rows[] = {
        {"deepseek2.block_count", s->layers + s->draft_layers},
        {"deepseek2.nextn_predict_layers", s->draft_layers},
        {"deepseek2.context_length", 4096},
        {"deepseek2.embedding_length", s->hidden},
        {"deepseek2.feed_forward_length", s->dense_width},
        {"deepseek2.attention.head_count", s->heads},
        {"deepseek2.attention.head_count_kv", is_latent ? 1 : s->heads},
        {"deepseek2.attention.q_lora_rank", s->q_lora},
        {"deepseek2.attention.kv_lora_rank", s->kv_lora},
        {"deepseek2.attention.key_length", is_latent ? s->kv_lora + s->rope : s->nope + s->rope},
        {"deepseek2.attention.value_length", is_latent ? s->kv_lora : s->v},
        {"deepseek2.rope.dimension_count", s->rope},
        {"deepseek2.leading_dense_block_count", s->dense_layers},
        {"deepseek2.expert_count", s->experts},
        {"deepseek2.expert_used_count", 4},
        {"deepseek2.expert_shared_count", 1},
        {"deepseek2.expert_group_count", 4},
        {"deepseek2.expert_group_used_count", 2},
        {"deepseek2.expert_feed_forward_length", s->expert_width},
        {"deepseek2.expert_gating_func", 2},
        {"deepseek2.vocab_size", s->vocab},
        {"tokenizer.ggml.eos_token_id", 1},
    };

    gguf_model_put(
        model, (struct gguf_model_value){"general.architecture", GGUF_STRING, .text = "deepseek2"});
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        put_u32(model, rows[i].key, rows[i].value);
    }
    if (is_latent) {
        put_u32(model, "deepseek2.attention.key_length_mla", s->nope + s->rope);
        put_u32(model, "deepseek2.attention.value_length_mla", s->v);
    }
    put_f32(model, "deepseek2.attention.layer_norm_rms_epsilon", 0.0009765625f);
    put_f32(model, "deepseek2.expert_weights_scale", 2.5f);
    put_f32(model, "deepseek2.rope.freq_base", 10000);
    gguf_model_put(
        model, (struct gguf_model_value){"deepseek2.expert_weights_norm", GGUF_BOOL, .integer = 1});
}

void gguf_model_open_deepseek(struct gguf_model *model, const struct gguf_model_shape *s)
{
    *model = (struct gguf_model){.divisor = 0};
    scratch_open(&model->scratch);
    deepseek_values(model, s);
    matrix(model, s->matrices, "token_embd", s->hidden, s->vocab);
    matrix(model, QUANT_F32, "output_norm", s->hidden, 0);
    matrix(model, s->matrices, "output", s->hidden, s->vocab);
    for (uint32_t layer = 0; layer < s->layers + s->draft_layers; layer++) {
        latent_attention(model, s, layer);
        if (layer < s->dense_layers) {
            dense(model, s->matrices, layer, (uint32_t[]){s->hidden, s->dense_width});
        } else {
            experts(model, s, layer);
        }
        if (layer >= s->layers) {
            draft(model, s, layer);
        }
    }
}

struct gguf_model_shape gguf_model_tiny(enum gguf_model_kv_b kv_b)
{
    return (struct gguf_model_shape){.layers = 2,
                                     .dense_layers = 1,
                                     .draft_layers = 1,
                                     .vocab = 40,
                                     .hidden = 32,
                                     .heads = 2,
                                     .q_lora = 24,
                                     .kv_lora = 16,
                                     .nope = 12,
                                     .rope = 4,
                                     .v = 20,
                                     .dense_width = 48,
                                     .experts = 8,
                                     .expert_width = 28,
                                     .matrices = QUANT_F32,
                                     .kv_b = kv_b};
}

struct gguf_model_shape gguf_model_r1(enum gguf_model_kv_b kv_b)
{
    return (struct gguf_model_shape){.layers = 61,
                                     .dense_layers = 3,
                                     .vocab = 129280,
                                     .hidden = 7168,
                                     .heads = 128,
                                     .q_lora = 1536,
                                     .kv_lora = 512,
                                     .nope = 128,
                                     .rope = 64,
                                     .v = 128,
                                     .dense_width = 18432,
                                     .experts = 256,
                                     .expert_width = 2048,
                                     .matrices = QUANT_Q4_K,
                                     .kv_b = kv_b};
}

void gguf_model_open_dense(struct gguf_model *model, const char *name)
{
    static const struct {
        const char *key;
        uint32_t value;
    } rows[] = {
        {"block_count", 1},           {"context_length", 2048},     {"embedding_length", 64},
        {"feed_forward_length", 96},  {"attention.head_count", 4},  {"attention.head_count_kv", 2},
        {"attention.key_length", 16}, {"rope.dimension_count", 16}, {"vocab_size", 40}};
    static char keys[ARRAY_LENGTH(rows) + 2][64];
    bool is_normed = strcmp(name, "qwen3") == 0;

    *model = (struct gguf_model){.divisor = 1};
    scratch_open(&model->scratch);
    gguf_model_put(model,
                   (struct gguf_model_value){"general.architecture", GGUF_STRING, .text = name});
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "%s.%s", name, rows[i].key);
        put_u32(model, keys[i], rows[i].value);
    }
    (void)snprintf(keys[ARRAY_LENGTH(rows)], sizeof(keys[0]), "%s.rope.freq_base", name);
    put_f32(model, keys[ARRAY_LENGTH(rows)], 500000);
    (void)snprintf(keys[ARRAY_LENGTH(rows) + 1], sizeof(keys[0]),
                   "%s.attention.layer_norm_rms_epsilon", name);
    put_f32(model, keys[ARRAY_LENGTH(rows) + 1], 0.0009765625f);
    matrix(model, QUANT_F32, "token_embd", 64, 40);
    matrix(model, QUANT_F32, "output_norm", 64, 0);
    matrix(model, QUANT_F32, "blk.0.attn_norm", 64, 0);
    matrix(model, QUANT_F32, "blk.0.attn_q", 64, 64);
    matrix(model, QUANT_F32, "blk.0.attn_k", 64, 32);
    matrix(model, QUANT_F32, "blk.0.attn_v", 64, 32);
    matrix(model, QUANT_F32, "blk.0.attn_output", 64, 64);
    if (is_normed) {
        matrix(model, QUANT_F32, "blk.0.attn_q_norm", 16, 0);
        matrix(model, QUANT_F32, "blk.0.attn_k_norm", 16, 0);
    }
    matrix(model, QUANT_F32, "blk.0.ffn_norm", 64, 0);
    dense(model, QUANT_F32, 0, (uint32_t[]){64, 96});
}

void gguf_model_close(struct gguf_model *model)
{
    scratch_close(&model->scratch);
    mem_free(model->tensors);
    *model = (struct gguf_model){.divisor = 0};
}

/* --- files --- */

static void write_value(struct buffer *file, const struct gguf_model_value *value)
{
    uint32_t bits;

    gguf_put_key(file, value->key, value->type);
    switch (value->type) {
    case GGUF_STRING:
        gguf_put_string(file, value->text);
        break;
    case GGUF_BOOL:
        buffer_append_char(file, (char)value->integer);
        break;
    case GGUF_F32:
        memcpy(&bits, &value->number, sizeof(bits));
        gguf_put_u32(file, bits);
        break;
    default:
        gguf_put_u32(file, value->integer);
        break;
    }
}

static uint64_t round_up(uint64_t value)
{
    return (value + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Gives its data's bytes. */
static uint64_t write_tensor(struct buffer *file, const struct gguf_model_tensor *tensor,
                             uint64_t offset)
{
    uint64_t values = 1;
    uint32_t count = 0;

    while (count < 4 && tensor->dimensions[count] > 0) {
        values *= tensor->dimensions[count++];
    }
    gguf_put_string(file, tensor->name);
    gguf_put_u32(file, count);
    for (uint32_t i = 0; i < count; i++) {
        gguf_put_u64(file, tensor->dimensions[i]);
    }
    gguf_put_u32(file, tensor->type);
    gguf_put_u64(file, offset);
    assert_true(quant_bytes(tensor->type, values) > 0);
    return quant_bytes(tensor->type, values);
}

struct part {
    const char *path;
    uint32_t index, count;
    uint32_t tensor_begin, tensor_end;
};

static void write_values(struct buffer *file, const struct gguf_model *model,
                         const struct part *part)
{
    const struct gguf_model_value splits[] = {
        {"split.no", GGUF_U32, .integer = part->index},
        {"split.count", GGUF_U32, .integer = part->count},
        {"split.tensors.count", GGUF_U32, .integer = model->tensor_count},
    };

    for (uint32_t i = 0; part->index == 0 && i < model->value_count; i++) {
        write_value(file, &model->values[i]);
    }
    for (size_t i = 0; part->count > 1 && i < ARRAY_LENGTH(splits); i++) {
        write_value(file, &splits[i]);
    }
}

static void write_divisors(int fd, const struct gguf_model *model,
                           const struct gguf_model_tensor *tensor, uint64_t offset)
{
    for (uint64_t i = 0; i < tensor->dimensions[0]; i++) {
        assert_int_equal(
            pwrite(fd, &model->divisor, sizeof(float), (off_t)(offset + i * sizeof(float))),
            sizeof(float));
    }
}

static void part_save(const struct gguf_model *model, const struct part *part)
{
    struct buffer file = {0};
    uint64_t offset = 0, divisors_offset = 0, begin;
    const struct gguf_model_tensor *divisors = NULL;
    int fd = open(part->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    buffer_append_text(&file, "GGUF");
    gguf_put_u32(&file, 3);
    gguf_put_u64(&file, part->tensor_end - part->tensor_begin);
    gguf_put_u64(&file, (part->index == 0 ? model->value_count : 0) + (part->count > 1 ? 3 : 0));
    write_values(&file, model, part);
    for (uint32_t i = part->tensor_begin; i < part->tensor_end; i++) {
        const struct gguf_model_tensor *tensor = &model->tensors[i];

        if (strcmp(tensor->name, "rope_freqs.weight") == 0) {
            divisors = tensor;
            divisors_offset = offset;
        }
        offset += round_up(write_tensor(&file, tensor, offset));
    }
    begin = round_up(file.length);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file.data, file.length), file.length);
    assert_int_equal(ftruncate(fd, (off_t)(begin + offset)), 0);
    if (divisors != NULL) {
        write_divisors(fd, model, divisors, begin + divisors_offset);
    }
    close(fd);
    buffer_deinit(&file);
}

const char *gguf_model_save(struct gguf_model *model)
{
    const char *path = scratch_path(&model->scratch, "m.gguf");

    part_save(model, &(struct part){path, 0, 1, 0, model->tensor_count});
    return path;
}

const char *gguf_model_save_splits(struct gguf_model *model, uint32_t count)
{
    char name[64];

    for (uint32_t i = count; i-- > 0;) { /* so that the first path stays */
        struct part part = {.index = i, .count = count};

        (void)snprintf(name, sizeof(name), "m-%05u-of-%05u.gguf", i + 1, count);
        part.path = scratch_path(&model->scratch, name);
        part.tensor_begin = model->tensor_count * i / count;
        part.tensor_end = model->tensor_count * (i + 1) / count;
        part_save(model, &part);
    }
    return model->scratch.path;
}
