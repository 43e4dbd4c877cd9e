#ifndef SHOAL_TESTS_SUPPORT_CHECKPOINT_PLAN_H
#define SHOAL_TESTS_SUPPORT_CHECKPOINT_PLAN_H

/* Which tensors a checkpoint has, in which shard and where: the part of checkpoint_write that
 * touches no file. */
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/model/catalog.h"
#include "tests/support/checkpoint_write.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHARD_NAME_BYTES_MAX 64

/* A tensor to be written, or the block scales of one. */
struct planned_tensor {
    enum tensor_role role;
    enum weight_type type;
    uint32_t layer;
    uint32_t expert;
    uint32_t shard;
    uint64_t values;
    uint64_t bytes;
    uint64_t offset; /* in the shard's data section */
    bool is_scales;  /* <name>_scale_inv */
};

struct checkpoint_plan {
    struct planned_tensor *tensors; /* by shard and offset */
    size_t count;
    size_t capacity;
    uint32_t shard_count;
    bool is_f8;
};

/* `config` is the text that `arch` was parsed from: a quantization_config with "quant_method":
 * "fp8" makes all projections F8_E4M3 with scales; else all is BF16. ERROR_USAGE when the tensors
 * do not fill settings->shard_count files. */
bool checkpoint_plan_make(struct checkpoint_plan *plan, const struct arch *arch, const char *config,
                          const struct checkpoint_settings *settings, struct error *err) MUST_CHECK;
void checkpoint_plan_free(struct checkpoint_plan *plan);

/* "model-00001-of-000163.safetensors" (six digits, as DeepSeek publishes), or the name of a single
 * file. Returns `name`. */
const char *checkpoint_shard_name(const struct checkpoint_plan *plan, uint32_t shard,
                                  char name[SHARD_NAME_BYTES_MAX]);
/* The JSON header of one shard, padded to 8 bytes. */
void checkpoint_header(const struct arch *arch, const struct planned_tensor *tensors, size_t count,
                       struct buffer *out);
/* model.safetensors.index.json */
void checkpoint_index(const struct checkpoint_plan *plan, struct buffer *out);

#endif
