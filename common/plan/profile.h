#ifndef SHOAL_PLAN_PROFILE_H
#define SHOAL_PLAN_PROFILE_H

/* Where the time of a cluster's steps went: the value behind the files that --profile writes
 * (deploy/docs/profile.md has the format). Pure: files are opened by the caller.
 */
#include "common/base/arena.h"
#include "common/base/error.h"
#include "common/base/operation.h"

#include <jansson.h>

#define PROFILE_VERSION 1

struct profile_worker {
    uint32_t worker;
    const char *host;
    const char *cpu; /* level, and the processor's name */
    uint32_t thread_count;
    uint32_t stage, member;
    uint32_t layer_begin, layer_end; /* of main layers; a draft layer is beside them */
    uint64_t memory_bytes;           /* that it may use */
    uint64_t ledger_bytes;           /* of that, in use */
    uint64_t weight_bytes, kv_bytes; /* as the planner counts them */
    struct machine_limits limits;
    uint32_t record_count;
    struct operation_record *records;
};
struct profile {
    const char *model; /* path, as the coordinator names it */
    const char *model_hash;
    const char *architecture;
    uint32_t layer_count;
    uint32_t expert_count;
    const char *numerics_id;
    uint32_t worker_count;
    struct profile_worker *workers; /* by rising stage, then member */
};

/* From JSON, into the arena. ERROR_INPUT names the field: what is missing, of a wrong type, unknown
 * or out of bounds. `name` (a path) is for messages. NULL with err. */
struct profile *profile_parse(const char *text, size_t length, const char *name,
                              struct arena *arena, struct error *err) MUST_CHECK;
/* json_decref the object. */
json_t *profile_json(const struct profile *profile);

/* --- sums over layers and workers --- */

/* One operation in one phase; the seconds are what its memory traffic and its arithmetic need at
 * the limits of the workers that did it, 0 where those were not measured. */
struct profile_sum {
    enum operation operation;
    enum operation_phase phase;
    uint64_t calls;
    uint64_t ns;
    uint64_t read_bytes; /* weights and cache */
    uint64_t operations; /* int8 and f32 */
    double memory_seconds;
    double arithmetic_seconds;
};
/* [OPERATION_PHASE_COUNT][OPERATION_COUNT], zeroed where there is nothing. */
#define PROFILE_SUMS_MAX (OPERATION_PHASE_COUNT * OPERATION_COUNT)
void profile_sums(const struct profile *profile, struct profile_sum out[PROFILE_SUMS_MAX]);

/* The least time that a machine of these limits needs; 0: not measured. */
double profile_memory_seconds(const struct machine_limits *limits, uint64_t read_bytes);
double profile_arithmetic_seconds(const struct machine_limits *limits, uint64_t int8_operations,
                                  uint64_t f32_operations);

#endif
