#ifndef SHOAL_KERNELS_LIMITS_H
#define SHOAL_KERNELS_LIMITS_H

/* What this machine can do at most, beside which speeds are read: how fast the team's threads
 * together read memory, and how fast they multiply and add in the unit that the kernels of a CPU
 * level use.
 *
 * Reading: four streams for each thread, with prefetch, over more memory than the last cache holds:
 * one stream alone gets two thirds of that. Arithmetic: registers only, with enough independent
 * sums (12 or more) to hide the latency. Medians of several passes, in some 0.3 s altogether.
 */
#include "common/base/error.h"
#include "common/base/operation.h"
#include "worker/kernels/cpu.h"
#include "worker/team/team.h"

/* memory_bytes: the most that may be taken for the measurement, and is given back. ERROR_LIMIT: the
 * system refuses it. */
bool limits_measure(struct team *team, enum cpu_level level, uint64_t memory_bytes,
                    struct machine_limits *out, struct error *err) MUST_CHECK;

/* A level's unit: runs `turns` turns of independent sums in registers; private to this room and its
 * tests. The sums are returned so that nothing is optimised away. */
struct limit_unit {
    const char *name;
    uint64_t turn_operations;
    float (*run)(uint64_t turns);
};
struct limit_units {
    struct limit_unit int8, f32;
};
extern const struct limit_units limit_units_ref, limit_units_avx2, limit_units_avx512,
    limit_units_vnni;

#endif
