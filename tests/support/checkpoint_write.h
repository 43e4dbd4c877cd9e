#ifndef SHOAL_TESTS_SUPPORT_CHECKPOINT_WRITE_H
#define SHOAL_TESTS_SUPPORT_CHECKPOINT_WRITE_H

/* Checkpoints of any size, for tests and measurements that no small trained model can serve: random
 * ones of the DeepSeek-V3 architecture, and sparse ones with the names, types, shapes and files of
 * any model that a config.json describes. */
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

enum checkpoint_data {
    CHECKPOINT_RANDOM,
    CHECKPOINT_HOLES, /* files of their full length without blocks on disk: every value is 0 */
};

struct checkpoint_settings {
    uint32_t numbers[NUMBER_COUNT]; /* without a config */
    const char *config;             /* NULL, or a config.json; with FP8 weights only for holes */
    enum checkpoint_data data;
    uint64_t seed;
    uint64_t shard_bytes;  /* without a shard_count */
    uint32_t shard_count;  /* 0: as many as shard_bytes makes */
    const char *tokenizer; /* NULL: none */
    const char *directory;
};

/* Writes config.json, generation_config.json (not with a config), the weights (with an index when
 * there is more than one file) and a copy of the tokenizer. Random weights are uniform with the
 * variance 1 / inputs and norms near 1, so that activations keep their size through any number of
 * layers. A tensor's values depend on the seed and its role, layer and expert alone, not on the
 * shards. */
bool checkpoint_write(const struct checkpoint_settings *settings, struct error *err) MUST_CHECK;

#endif
