/* checkpoint_write.c - a Hugging Face directory out of nothing.
 *
 * The tensors are planned first (which, in which shard, where), then each shard is written front
 * to back. Values come from a table of 4096 levels for each tensor, four for one hash: about as
 * fast as the disk takes them.
 */
#include "tests/support/checkpoint_write.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEVELS        4096 /* different values of one tensor */
#define BLOCK_BYTES   ((size_t)1 << 20)
#define HEADER_ALIGN  8
#define SHARD_FILE    "model-%05u-of-%05u.safetensors"
#define TOKENIZER_MAX ((size_t)256 << 20)

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

/* One tensor to be written. */
struct planned {
    enum tensor_role role;
    uint32_t layer;
    uint32_t expert;
    uint32_t shard;
    uint64_t values;
    uint64_t bytes;
    uint64_t offset; /* in the shard's data section */
    bool wide;       /* F32, else BF16 */
};

struct plan {
    struct planned *tensors;
    size_t count;
    uint32_t shard_count;
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

static void plan_layer(struct plan *plan, const struct arch *arch, uint32_t layer)
{
    for (enum tensor_role role = 0; role < ROLE_COUNT; role++) {
        uint32_t count = tensor_role_count(arch, role, layer);
        struct tensor_shape shape = tensor_role_shape(arch, role);
        bool wide = role == ROLE_ROUTER_BIAS;

        plan->tensors = mem_resize(plan->tensors, plan->count + count, sizeof(*plan->tensors));
        for (uint32_t i = 0; i < count; i++) {
            uint64_t values = (uint64_t)shape.rows * shape.columns;

            plan->tensors[plan->count++] = (struct planned){
                .role = role,
                .layer = layer,
                .expert = tensor_role_is_expert(role) ? i : CATALOG_NO_EXPERT,
                .values = values,
                .bytes = values * (wide ? 4 : 2),
                .wide = wide,
            };
        }
    }
}

/* In the order of use: a shard holds neighbouring layers. */
static void plan_shards(struct plan *plan, uint64_t shard_bytes)
{
    uint64_t used = 0;
    uint32_t shard = 0;

    for (size_t i = 0; i < plan->count; i++) {
        if (used > 0 && used + plan->tensors[i].bytes > shard_bytes) {
            shard++;
            used = 0;
        }
        used += plan->tensors[i].bytes;
        plan->tensors[i].shard = shard;
    }
    plan->shard_count = shard + 1;
}

static int planned_compare(const void *left, const void *right)
{
    const struct planned *a = left;
    const struct planned *b = right;

    if (a->shard != b->shard) {
        return a->shard < b->shard ? -1 : 1;
    }
    if (a->wide != b->wide) {
        return a->wide ? -1 : 1; /* F32 first: all data stay aligned to their type */
    }
    if (a->layer != b->layer) {
        return a->layer < b->layer ? -1 : 1;
    }
    if (a->role != b->role) {
        return a->role < b->role ? -1 : 1;
    }
    return (a->expert > b->expert) - (a->expert < b->expert);
}

static void plan_make(struct plan *plan, const struct arch *arch, uint64_t shard_bytes)
{
    uint64_t offset = 0;

    *plan = (struct plan){0};
    for (uint32_t layer = 0; layer < arch->layer_count + arch->draft_layer_count; layer++) {
        plan_layer(plan, arch, layer);
    }
    plan_layer(plan, arch, CATALOG_NO_LAYER);
    plan_shards(plan, shard_bytes);
    qsort(plan->tensors, plan->count, sizeof(*plan->tensors), planned_compare);
    for (size_t i = 0; i < plan->count; i++) {
        if (i > 0 && plan->tensors[i].shard != plan->tensors[i - 1].shard) {
            offset = 0;
        }
        plan->tensors[i].offset = offset;
        offset += plan->tensors[i].bytes;
    }
}

/* Values are base + spread * uniform(-1, 1). */
static void distribution(const struct arch *arch, const struct planned *tensor, double *base,
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
static uint64_t tensor_seed(uint64_t seed, const struct planned *tensor)
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
                         const struct planned *tensor, struct error *err)
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
    return tensor->wide ? write_f32(output, wide_levels, seed, tensor->values, err)
                        : write_bf16(output, levels, seed, tensor->values, err);
}

static void append_entry(struct buffer *header, const struct arch *arch,
                         const struct planned *tensor)
{
    struct tensor_shape shape = tensor_role_shape(arch, tensor->role);
    char name[TENSOR_NAME_BYTES_MAX];

    buffer_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                  tensor_role_write_name(tensor->role, tensor->layer, tensor->expert, name),
                  tensor->wide ? "F32" : "BF16");
    if (shape.dimension_count == 2) {
        buffer_printf(header, "%u,", shape.rows);
    }
    buffer_printf(header, "%u],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", shape.columns,
                  tensor->offset, tensor->offset + tensor->bytes);
}

static bool write_header(struct output *output, const struct arch *arch,
                         const struct planned *tensors, size_t count, struct error *err)
{
    struct buffer header = {0};
    uint64_t length;
    bool written;

    buffer_append_text(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        append_entry(&header, arch, &tensors[i]);
    }
    buffer_append_char(&header, '}');
    while (header.length % HEADER_ALIGN != 0) {
        buffer_append_char(&header, ' ');
    }
    length = header.length;
    written = write_all(output, &length, sizeof(length), err) &&
              write_all(output, header.data, header.length, err);
    buffer_deinit(&header);
    return written;
}

static char *shard_path(const struct checkpoint_settings *settings, const struct plan *plan,
                        uint32_t shard)
{
    if (plan->shard_count == 1) {
        return mem_printf("%s/model.safetensors", settings->directory);
    }
    return mem_printf("%s/" SHARD_FILE, settings->directory, shard + 1, plan->shard_count);
}

/* The tensors of one shard are neighbours. */
static bool write_shard(const struct checkpoint_settings *settings, const struct arch *arch,
                        const struct plan *plan, size_t first, struct error *err)
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

static bool write_index(const struct checkpoint_settings *settings, const struct plan *plan,
                        struct error *err)
{
    struct buffer text = {0};
    bool written;

    buffer_append_text(&text, "{\"metadata\":{},\"weight_map\":{");
    for (size_t i = 0; i < plan->count; i++) {
        const struct planned *tensor = &plan->tensors[i];
        char name[TENSOR_NAME_BYTES_MAX];

        tensor_role_write_name(tensor->role, tensor->layer, tensor->expert, name);
        buffer_printf(&text, "%s\n\"%s\":\"" SHARD_FILE "\"", i > 0 ? "," : "", name,
                      tensor->shard + 1, plan->shard_count);
    }
    buffer_append_text(&text, "}}\n");
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

static bool write_weights(const struct checkpoint_settings *settings, const struct arch *arch,
                          struct error *err)
{
    struct plan plan;
    bool written = true;

    plan_make(&plan, arch, settings->shard_bytes);
    for (size_t i = 0; i < plan.count && written; i++) {
        if (i == 0 || plan.tensors[i].shard != plan.tensors[i - 1].shard) {
            written = write_shard(settings, arch, &plan, i, err);
        }
    }
    written = written && (plan.shard_count == 1 || write_index(settings, &plan, err));
    mem_free(plan.tensors);
    return written;
}

bool checkpoint_write(const struct checkpoint_settings *settings, struct error *err)
{
    char *config = config_text(settings);
    struct arch arch;
    bool written = arch_parse(config, strlen(config), "config.json", &arch, err);

    if (written && mkdir(settings->directory, 0755) != 0 && errno != EEXIST) {
        written = error_set_errno(err, "%s", settings->directory);
    }
    written = written && write_text(settings, "config.json", config, err) &&
              write_text(settings, "generation_config.json",
                         "{\"bos_token_id\": 0, \"eos_token_id\": 1}\n", err) &&
              (settings->tokenizer == NULL || copy_tokenizer(settings, err)) &&
              write_weights(settings, &arch, err);
    free(config);
    return written;
}
