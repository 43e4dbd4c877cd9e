#ifndef SHOAL_TESTS_SUPPORT_RANDOM_H
#define SHOAL_TESTS_SUPPORT_RANDOM_H

/* Random numbers that a failing test can replay. */
#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t seed;
    uint64_t drawn;
};

/* The seed is SHOAL_SEED, or `seed_default`; it is printed, so that a failure names its replay. */
void random_init(struct random *random, uint64_t seed_default);
uint64_t random_u64(struct random *random);
uint64_t random_below(struct random *random, uint64_t limit); /* 0 .. limit - 1; limit > 0 */
double random_unit(struct random *random);                    /* 0 <= x < 1 */
float random_normal(struct random *random);                   /* mean 0, variance 1 */
void random_fill(struct random *random, void *bytes, size_t length);

#endif
