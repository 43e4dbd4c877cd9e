/* limits_ref.c - the units of level "ref": one value at a time, as plain C computes. */
#include "worker/kernels/limits.h"

#include <math.h>

#define SUMS 4 /* fmaf is a call on most machines: more would spill */

static float int8_run(uint64_t turns)
{
    int32_t sums[SUMS] = {0};
    int8_t a = 3, b = 2;

    for (uint64_t turn = 0; turn < turns; turn++) {
        for (int i = 0; i < SUMS; i++) {
            sums[i] += a * b;
            __asm__ volatile("" : "+r"(sums[i]));
        }
    }
    return (float)(sums[0] + sums[1] + sums[2] + sums[3]);
}

static float f32_run(uint64_t turns)
{
    float sums[SUMS] = {0};

    for (uint64_t turn = 0; turn < turns; turn++) {
        for (int i = 0; i < SUMS; i++) {
            sums[i] = fmaf(sums[i], 1.0000001F, 1e-9F);
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
}

const struct limit_units limit_units_ref = {
    .int8 = {"scalar", 2 * SUMS, int8_run},
    .f32 = {"scalar-fma", 2 * SUMS, f32_run},
};
