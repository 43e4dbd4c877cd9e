#ifndef SHOAL_TESTS_KERNEL_CASES_H
#define SHOAL_TESTS_KERNEL_CASES_H

/* Values and comparisons for the kernel tests. */
#include "common/base/half.h"
#include "common/base/hash.h"
#include "worker/kernels/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct numbers {
    uint64_t seed, count;
};

static inline uint64_t numbers_bits(struct numbers *numbers)
{
    return hash_counter(numbers->seed, numbers->count++, 0, 0);
}

/* 0 … limit-1 */
static inline uint32_t numbers_below(struct numbers *numbers, uint32_t limit)
{
    return (uint32_t)(numbers_bits(numbers) % limit);
}

/* Roughly normal, standard deviation 1. */
static inline float numbers_normal(struct numbers *numbers)
{
    double sum = -6;

    for (int i = 0; i < 12; i++) {
        sum += (double)(numbers_bits(numbers) >> 40) * 0x1p-24;
    }
    return (float)sum;
}

/* Mostly normal, with zeros of both signs, denormals and wide magnitudes among them. */
static inline float numbers_odd(struct numbers *numbers)
{
    float value = numbers_normal(numbers);

    switch (numbers_bits(numbers) % 32) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return value * 0x1p-140f;
    case 3:
        return value * 0x1p-70f;
    case 4:
        return value * 0x1p20f;
    default:
        return value;
    }
}

/* Fails at the first difference in bits, naming level and index. */
static inline void assert_same_bits(const float *got, const float *wanted, size_t count,
                                    const char *what, enum cpu_level level)
{
    for (size_t i = 0; i < count; i++) {
        if (float_bits(got[i]) != float_bits(wanted[i])) {
            fail_msg("%s, level %s, value %zu: %a instead of %a", what, cpu_level_name(level), i,
                     (double)got[i], (double)wanted[i]);
        }
    }
}

/* Runs check() on every level; one that the machine lacks is named, not silently passed. */
static inline void on_every_level(void (*check)(enum cpu_level level))
{
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        if (cpu_level_available((enum cpu_level)level)) {
            check((enum cpu_level)level);
        } else {
            print_message("skipped: this machine lacks %s\n",
                          cpu_level_name((enum cpu_level)level));
        }
    }
}

/* Units in the last place between a float and the exact value, by the exact value's ulp. */
static inline double ulps_between(float got, double wanted)
{
    float rounded = (float)wanted;
    uint32_t exponent = float_bits(rounded) >> 23 & 0xff;
    int power = (exponent == 0 ? 1 : (int)exponent) - 127 - 23;

    return __builtin_fabs((double)got - wanted) / __builtin_ldexp(1.0, power);
}

#endif
