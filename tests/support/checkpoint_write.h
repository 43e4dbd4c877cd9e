#ifndef SHOAL_TESTS_SUPPORT_CHECKPOINT_WRITE_H
#define SHOAL_TESTS_SUPPORT_CHECKPOINT_WRITE_H

/* Random DeepSeek-V3-architecture checkpoints of any size, for tests and measurements that no
 * small trained model can serve. */
#include "common/base/error.h"

#include <stdint.h>

/* The numbers of config.json that can be chosen. */
enum number {
    NUMBER_LAYERS,
    NUMBER_DENSE,
    NUMBER_DRAFT,
    NUMBER_HIDDEN,
    NUMBER_HEADS,
    NUMBER_Q_LORA,
    NUMBER_KV_LORA,
    NUMBER_NOPE,
    NUMBER_ROPE,
    NUMBER_V,
    NUMBER_WIDTH,
    NUMBER_EXPERT_WIDTH,
    NUMBER_EXPERTS,
    NUMBER_CHOSEN,
    NUMBER_SHARED,
    NUMBER_GROUPS,
    NUMBER_GROUPS_CHOSEN,
    NUMBER_VOCAB,
    NUMBER_CONTEXT,
    NUMBER_COUNT
};

/* Their published names. */
extern const char *const checkpoint_fields[NUMBER_COUNT];

struct checkpoint_settings {
    uint32_t numbers[NUMBER_COUNT];
    uint64_t seed;
    uint64_t shard_bytes;
    const char *tokenizer; /* NULL: none */
    const char *directory;
};

/* Writes config.json, generation_config.json, the weights (with an index when there is more than
 * one file) and a copy of the tokenizer. Weights are uniform with the variance 1 / inputs and norms
 * near 1, so that activations keep their size through any number of layers. A tensor's values
 * depend on the seed and its role, layer and expert alone, not on the shards. */
bool checkpoint_write(const struct checkpoint_settings *settings, struct error *err) MUST_CHECK;

#endif
