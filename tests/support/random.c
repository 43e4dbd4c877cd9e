/* random.c - a counter and the hash that samples tokens. */
#include "tests/support/random.h"

#include "common/base/check.h"
#include "common/base/hash.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TWO_PI 6.283185307179586

void random_init(struct random *random, uint64_t seed_default)
{
    const char *wish = getenv("SHOAL_SEED");

    random->seed = wish != NULL ? strtoull(wish, NULL, 0) : seed_default;
    random->drawn = 0;
    printf("SHOAL_SEED=%" PRIu64 "\n", random->seed);
}

uint64_t random_u64(struct random *random)
{
    return hash_counter(random->seed, random->drawn++, 0, 0);
}

uint64_t random_below(struct random *random, uint64_t limit)
{
    ASSERT(limit > 0);
    return random_u64(random) % limit;
}

double random_unit(struct random *random)
{
    return (double)(random_u64(random) >> 11) * 0x1p-53;
}

float random_normal(struct random *random)
{
    double radius = sqrt(-2.0 * log(1.0 - random_unit(random)));

    return (float)(radius * cos(TWO_PI * random_unit(random)));
}

void random_fill(struct random *random, void *bytes, size_t length)
{
    unsigned char *at = bytes;

    for (size_t i = 0; i < length; i++) {
        at[i] = (unsigned char)random_u64(random);
    }
}
