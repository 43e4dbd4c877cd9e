#ifndef SHOAL_TESTS_SUPPORT_SIM_RANDOM_H
#define SHOAL_TESTS_SUPPORT_SIM_RANDOM_H

/* Random numbers of a simulation: a sequence that its seed repeats exactly, on any machine. */
#include "common/base/hash.h"

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t seed;
    uint64_t drawn;
};

static inline struct sim_random sim_random_from(uint64_t seed)
{
    return (struct sim_random){.seed = hash_mix(seed + 0x9e3779b97f4a7c15u)};
}

static inline uint64_t sim_random_u64(struct sim_random *random)
{
    return hash_mix(random->seed + ++random->drawn * 0x9e3779b97f4a7c15u);
}

/* From low to high, both included. */
static inline uint64_t sim_random_range(struct sim_random *random, uint64_t low, uint64_t high)
{
    return low + sim_random_u64(random) % (high - low + 1);
}

static inline uint32_t sim_random_u32(struct sim_random *random, uint32_t low, uint32_t high)
{
    return (uint32_t)sim_random_range(random, low, high);
}

static inline bool sim_random_chance(struct sim_random *random, uint32_t percent)
{
    return sim_random_u64(random) % 100 < percent;
}

#endif
