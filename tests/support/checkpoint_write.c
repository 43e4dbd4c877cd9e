/* checkpoint_write.c - a Hugging Face directory out of nothing.
 *
 * The tensors are planned first (checkpoint_plan.c), then each shard is written front to back.
 * Values come from a table of 4096 levels for each tensor, four for one hash: about as fast as the
 * disk takes them. A sparse checkpoint has its headers written and a hole for all the rest.
 */
#include "tests/support/checkpoint_write.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"
#include "tests/support/checkpoint_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEVELS        4096 /* different values of one tensor */
#define BLOCK_BYTES   ((size_t)1 << 20)
#define TOKENIZER_MAX ((size_t)256 << 20)
#define CONFIG_MAX    ((size_t)1 << 20)

const char *const checkpoint_fields[NUMBER_COUNT] = {
    [NUMBER_LAYERS] = "num_hidden_layers",
    [NUMBER_DENSE] = "first_k_dense_replace",
    [NUMBER_DRAFT] = "num_nextn_predict_layers",
    [NUMBER_HIDDEN] = "hidden_size",
    [NUMBER_HEADS] = "num_attention_heads",
    [NUMBER_Q_LORA] = "q_lora_rank",
    [NUMBER_KV_LORA] = "kv_lora_rank",
    [NUMBER_NOPE] = "qk_nope_head_dim",
    [NUMBER_ROPE] = "qk_rope_head_dim",
    [NUMBER_V] = "v_head_dim",
    [NUMBER_WIDTH] = "intermediate_size",
    [NUMBER_EXPERT_WIDTH] = "moe_intermediate_size",
    [NUMBER_EXPERTS] = "n_routed_experts",
    [NUMBER_CHOSEN] = "num_experts_per_tok",
    [NUMBER_SHARED] = "n_shared_experts",
    [NUMBER_GROUPS] = "n_group",
    [NUMBER_GROUPS_CHOSEN] = "topk_group",
    [NUMBER_VOCAB] = "vocab_size",
    [NUMBER_CONTEXT] = "max_position_embeddings",
};

/* A file being written, through one block. */
struct output {
    int fd;
    const char *path;
    unsigned char *block;
};

static char *config_text(const struct checkpoint_settings *settings)
{
    json_t *config =
        json_pack("{s:[s], s:s, s:b, s:s, s:i, s:b, s:f, s:i, s:f, s:s, s:s, s:b, s:s, s:i, s:i}",
                  "architectures", "DeepseekV3ForCausalLM", "model_type", "deepseek_v3",
                  "attention_bias", 0, "hidden_act", "silu", "moe_layer_freq", 1, "norm_topk_prob",
                  1, "rms_norm_eps", 1e-6, "rope_theta", 10000, "routed_scaling_factor", 2.5,
                  "scoring_func", "sigmoid", "topk_method", "noaux_tc", "tie_word_embeddings", 0,
                  "torch_dtype", "bfloat16", "bos_token_id", 0, "eos_token_id", 1);
    char *text;

    ASSERT(config != NULL);
    for (int i = 0; i < NUMBER_COUNT; i++) {
        json_object_set_new(config, checkpoint_fields[i], json_integer(settings->numbers[i]));
    }
    if (settings->numbers[NUMBER_Q_LORA] == 0) {
        json_object_set_new(config, checkpoint_fields[NUMBER_Q_LORA], json_null());
    }
    json_object_set_new(config, "num_key_value_heads",
                        json_integer(settings->numbers[NUMBER_HEADS]));
    text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS);
    ASSERT(text != NULL);
    json_decref(config);
    return text;
}

/* Values are base + spread * uniform(-1, 1). */
static void distribution(const struct arch *arch, const struct planned_tensor *tensor, double *base,
                         double *spread)
{
    struct tensor_shape shape = tensor_role_shape(arch, tensor->role);
    double unit = sqrt(3.0 / shape.columns); /* variance 1 / inputs */

    *base = 0;
    *spread = unit;
    if (tensor->role == ROLE_ROUTER_BIAS) {
        *spread = 0.05;
    } else if (shape.dimension_count == 1) {
        *base = 1;
        *spread = 0.1;
    } else if (tensor->role == ROLE_EMBEDDING || tensor->role == ROLE_DRAFT_EMBEDDING) {
        *spread = sqrt(3.0);
    } else if (tensor->role == ROLE_HEAD || tensor->role == ROLE_DRAFT_HEAD) {
        *spread = 3 * unit; /* logits that prefer some tokens */
    }
}

/* The draft layer's embedding and head are copies of the main ones. */
static uint64_t tensor_seed(uint64_t seed, const struct planned_tensor *tensor)
{
    switch (tensor->role) {
    case ROLE_DRAFT_EMBEDDING:
        return hash_counter(seed, ROLE_EMBEDDING, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);
    case ROLE_DRAFT_HEAD:
        return hash_counter(seed, ROLE_HEAD, CATALOG_NO_LAYER, CATALOG_NO_EXPERT);
    default:
        return hash_counter(seed, tensor->role, tensor->layer, tensor->expert);
    }
}

static uint16_t bf16_nearest(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static bool write_all(struct output *output, const void *bytes, size_t length, struct error *err)
{
    const char *next = bytes;

    while (length > 0) {
        ssize_t written = write(output->fd, next, length);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return error_set_errno(err, "%s", output->path);
        }
        next += written;
        length -= (size_t)written;
    }
    return true;
}

/* Four values for each draw of 64 bits. */
static bool write_bf16(struct output *output, const uint16_t levels[LEVELS], uint64_t seed,
                       uint64_t values, struct error *err)
{
    uint16_t *block = (void *)output->block;

    while (values > 0) {
        size_t part = values < BLOCK_BYTES / 2 ? (size_t)values : BLOCK_BYTES / 2;

        for (size_t i = 0; i < part; i += 4) { /* the block's size is a multiple of 4 values */
            uint64_t bits = hash_mix(seed += UINT64_C(0x9e3779b97f4a7c15));

            block[i] = levels[bits % LEVELS];
            block[i + 1] = levels[(bits >> 12) % LEVELS];
            block[i + 2] = levels[(bits >> 24) % LEVELS];
            block[i + 3] = levels[(bits >> 36) % LEVELS];
        }
        if (!write_all(output, block, part * 2, err)) {
            return false;
        }
        values -= part;
    }
    return true;
}

static bool write_f32(struct output *output, const float levels[LEVELS], uint64_t seed,
                      uint64_t values, struct error *err)
{
    for (uint64_t i = 0; i < values; i++) {
        uint64_t bits = hash_mix(seed += UINT64_C(0x9e3779b97f4a7c15));

        if (!write_all(output, &levels[bits % LEVELS], sizeof(float), err)) {
            return false;
        }
    }
    return true;
}

static bool write_tensor(struct output *output, const struct arch *arch, uint64_t seed,
                         const struct planned_tensor *tensor, struct error *err)
{
    float wide_levels[LEVELS];
    uint16_t levels[LEVELS];
    double base, spread;

    distribution(arch, tensor, &base, &spread);
    for (int i = 0; i < LEVELS; i++) {
        wide_levels[i] = (float)(base + spread * ((2 * i + 1.0) / LEVELS - 1));
        levels[i] = bf16_nearest(wide_levels[i]);
    }
    seed = tensor_seed(seed, tensor);
    return tensor->type == WEIGHT_F32 ? write_f32(output, wide_levels, seed, tensor->values, err)
                                      : write_bf16(output, levels, seed, tensor->values, err);
}

static bool write_header(struct output *output, const struct arch *arch,
                         const struct planned_tensor *tensors, size_t count, struct error *err)
{
    struct buffer header = {0};
    uint64_t length;
    bool written;

    checkpoint_header(arch, tensors, count, &header);
    length = header.length;
    written = write_all(output, &length, sizeof(length), err) &&
              write_all(output, header.data, header.length, err);
    buffer_deinit(&header);
    return written;
}

/* All data of the shard, up to the end of its last tensor: zeros that take no room. */
static bool write_hole(struct output *output, const struct planned_tensor *last, struct error *err)
{
    off_t data_begin = lseek(output->fd, 0, SEEK_CUR);

    if (data_begin < 0 ||
        ftruncate(output->fd, data_begin + (off_t)(last->offset + last->bytes)) != 0) {
        return error_set_errno(err, "%s", output->path);
    }
    return true;
}

static char *shard_path(const struct checkpoint_settings *settings,
                        const struct checkpoint_plan *plan, uint32_t shard)
{
    char name[SHARD_NAME_BYTES_MAX];

    return mem_printf("%s/%s", settings->directory, checkpoint_shard_name(plan, shard, name));
}

/* The tensors of one shard are neighbours. */
static bool write_shard(const struct checkpoint_settings *settings, const struct arch *arch,
                        const struct checkpoint_plan *plan, size_t first, struct error *err)
{
    uint32_t shard = plan->tensors[first].shard;
    char *path = shard_path(settings, plan, shard);
    struct output output = {open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), path,
                            mem_alloc_zeroed(BLOCK_BYTES, 1)};
    size_t end = first;
    bool written;

    while (end < plan->count && plan->tensors[end].shard == shard) {
        end++;
    }
    written = output.fd >= 0 ? write_header(&output, arch, plan->tensors + first, end - first, err)
                             : error_set_errno(err, "%s", path);
    if (written && settings->data == CHECKPOINT_HOLES) {
        written = write_hole(&output, &plan->tensors[end - 1], err);
        first = end;
    }
    for (; written && first < end; first++) {
        written = write_tensor(&output, arch, settings->seed, &plan->tensors[first], err);
    }
    if (output.fd >= 0 && close(output.fd) != 0 && written) {
        written = error_set_errno(err, "%s", path);
    }
    mem_free(output.block);
    mem_free(path);
    return written;
}

static bool write_text(const struct checkpoint_settings *settings, const char *name,
                       const char *text, struct error *err)
{
    char *path = mem_printf("%s/%s", settings->directory, name);
    bool written = file_write(path, text, strlen(text), 0644, err);

    mem_free(path);
    return written;
}

static bool write_index(const struct checkpoint_settings *settings,
                        const struct checkpoint_plan *plan, struct error *err)
{
    struct buffer text = {0};
    bool written;

    checkpoint_index(plan, &text);
    written = write_text(settings, "model.safetensors.index.json", buffer_text(&text), err);
    buffer_deinit(&text);
    return written;
}

static bool copy_tokenizer(const struct checkpoint_settings *settings, struct error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja", "special_tokens_map.json"};
    bool copied = true;

    for (size_t i = 0; i < ARRAY_LENGTH(names) && copied; i++) {
        char *from = mem_printf("%s/%s", settings->tokenizer, names[i]);
        char *text;
        size_t length;

        if (file_exists(from)) {
            copied = file_read(from, TOKENIZER_MAX, &text, &length, err);
            if (copied) {
                copied = write_text(settings, names[i], text, err);
                mem_free(text);
            }
        }
        mem_free(from);
    }
    return copied;
}

static bool write_shards(const struct checkpoint_settings *settings, const struct arch *arch,
                         const struct checkpoint_plan *plan, struct error *err)
{
    bool written = true;

    for (size_t i = 0; i < plan->count && written; i++) {
        if (i == 0 || plan->tensors[i].shard != plan->tensors[i - 1].shard) {
            written = write_shard(settings, arch, plan, i, err);
        }
    }
    return written && (plan->shard_count == 1 || write_index(settings, plan, err));
}

static bool write_weights(const struct checkpoint_settings *settings, const char *config,
                          struct error *err)
{
    struct checkpoint_plan plan;
    struct arch arch;
    bool written;

    if (!arch_parse(config, strlen(config), "config.json", &arch, err) ||
        !checkpoint_plan_make(&plan, &arch, config, settings, err)) {
        return false;
    }
    if (settings->data == CHECKPOINT_RANDOM && plan.is_f8) {
        written = error_set(err, ERROR_USAGE, "random weights are BF16, %s asks for FP8",
                            settings->config);
    } else {
        written = write_shards(settings, &arch, &plan, err);
    }
    checkpoint_plan_free(&plan);
    return written;
}

/* The text of config.json; free it. */
static char *config_make(const struct checkpoint_settings *settings, struct error *err)
{
    json_t *config;
    char *text;

    if (settings->config == NULL) {
        return config_text(settings);
    }
    config = json_read_file(settings->config, CONFIG_MAX, err);
    if (config == NULL) {
        return NULL;
    }
    text = json_dumps(config, JSON_INDENT(2));
    ASSERT(text != NULL);
    json_decref(config);
    return text;
}

bool checkpoint_write(const struct checkpoint_settings *settings, struct error *err)
{
    char *config = config_make(settings, err);
    bool written = config != NULL;

    if (written && mkdir(settings->directory, 0755) != 0 && errno != EEXIST) {
        written = error_set_errno(err, "%s", settings->directory);
    }
    written = written && write_text(settings, "config.json", config, err) &&
              (settings->config != NULL ||
               write_text(settings, "generation_config.json",
                          "{\"bos_token_id\": 0, \"eos_token_id\": 1}\n", err)) &&
              (settings->tokenizer == NULL || copy_tokenizer(settings, err)) &&
              write_weights(settings, config, err);
    free(config);
    return written;
}
