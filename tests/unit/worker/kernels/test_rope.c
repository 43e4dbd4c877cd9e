/* Rotary tables against libm in double, and the rotation against its formula. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "worker/kernels/kernels.h"
#include "worker/kernels/rope.h"

#include <math.h>

#define DIM_MAX 128

static const struct rope_config plain = {.scaling = ROPE_PLAIN, .theta = 10000.0};
static const struct rope_config yarn_v3 = {.scaling = ROPE_YARN,
                                           .theta = 10000.0,
                                           .factor = 40.0,
                                           .beta_fast = 32.0,
                                           .beta_slow = 1.0,
                                           .mscale = 1.0,
                                           .mscale_all_dim = 1.0,
                                           .original_context = 4096};
/* Ramp bounds that meet, unequal mscales, a short context. */
static const struct rope_config yarn_odd = {.scaling = ROPE_YARN,
                                            .theta = 50000.0,
                                            .factor = 4.0,
                                            .beta_fast = 32.0,
                                            .beta_slow = 16.0,
                                            .mscale = 0.707,
                                            .mscale_all_dim = 1.0,
                                            .original_context = 64};

static const struct rope_config linear = {.scaling = ROPE_LINEAR, .theta = 10000.0, .factor = 4.0};
static const struct rope_config llama3 = {.scaling = ROPE_LLAMA3,
                                          .theta = 500000.0,
                                          .factor = 8.0,
                                          .low_freq_factor = 1.0,
                                          .high_freq_factor = 4.0,
                                          .original_context = 8192};

static double wanted_llama3(const struct rope_config *c, double frequency)
{
    const double wave = 2 * M_PI / frequency;
    const double smooth = (c->original_context / wave - c->low_freq_factor) /
                          (c->high_freq_factor - c->low_freq_factor);

    if (wave > c->original_context / c->low_freq_factor) {
        return frequency / c->factor;
    }
    if (wave < c->original_context / c->high_freq_factor) {
        return frequency;
    }
    return (1 - smooth) * frequency / c->factor + smooth * frequency;
}

static double wanted_frequency(const struct rope_config *c, uint32_t dim, uint32_t pair)
{
    const double frequency = pow(c->theta, -2.0 * pair / dim);
    double low, high, ramp;

    if (c->scaling == ROPE_PLAIN) {
        return frequency;
    }
    if (c->scaling == ROPE_LINEAR) {
        return frequency / c->factor;
    }
    if (c->scaling == ROPE_LLAMA3) {
        return wanted_llama3(c, frequency);
    }
    low = fmax(
        floor(dim * log(c->original_context / (c->beta_fast * 2 * M_PI)) / (2 * log(c->theta))), 0);
    high =
        fmin(ceil(dim * log(c->original_context / (c->beta_slow * 2 * M_PI)) / (2 * log(c->theta))),
             dim - 1.0);
    ramp = fmin(fmax((pair - low) / (high == low ? 0.001 : high - low), 0), 1);
    return frequency / c->factor * ramp + frequency * (1 - ramp);
}

static void check_frequencies(const struct rope_config *config, uint32_t dim)
{
    double frequencies[DIM_MAX / 2], multiplier;

    rope_frequencies(config, dim, frequencies, &multiplier);
    for (uint32_t pair = 0; pair < dim / 2; pair++) {
        double wanted = wanted_frequency(config, dim, pair);
        assert_true(fabs(frequencies[pair] - wanted) <= 1e-12 * wanted);
    }
}

static void plain_frequencies_are_powers_of_theta(void **state)
{
    (void)state;
    check_frequencies(&plain, 64);
    check_frequencies(&plain, 2);
    check_frequencies(&plain, 128);
}

static void yarn_frequencies_ramp_between_the_bounds(void **state)
{
    (void)state;
    check_frequencies(&yarn_v3, 64);
    check_frequencies(&yarn_v3, 16);
    check_frequencies(&yarn_odd, 64);
    check_frequencies(&yarn_odd, 8);
}

static void linear_and_llama3_frequencies_are_stretched(void **state)
{
    double frequencies[64], multiplier;

    (void)state;
    check_frequencies(&linear, 64);
    check_frequencies(&llama3, 128);
    check_frequencies(&llama3, 16);
    rope_frequencies(&llama3, 128, frequencies, &multiplier);
    assert_true(multiplier == 1.0);
    assert_true(frequencies[0] == 1.0);
    assert_true(frequencies[63] < pow(500000.0, -126.0 / 128) / 7.9);
}

static void listed_divisors_divide_each_frequency(void **state)
{
    struct rope_config divided = {.scaling = ROPE_DIVISORS, .theta = 500000.0};
    double frequencies[64], kept[64], multiplier;

    (void)state;
    for (uint32_t pair = 0; pair < 64; pair++) {
        divided.divisors[pair] = 1.0f + 0.1f * (float)pair;
    }
    rope_frequencies(&(struct rope_config){.scaling = ROPE_PLAIN, .theta = 500000.0}, 128, kept,
                     &multiplier);
    rope_frequencies(&divided, 128, frequencies, &multiplier);
    assert_true(multiplier == 1.0);
    for (uint32_t pair = 0; pair < 64; pair++) {
        assert_true(frequencies[pair] == kept[pair] / (double)divided.divisors[pair]);
    }
}

static void the_multiplier_is_the_ratio_of_mscales(void **state)
{
    double frequencies[DIM_MAX / 2], multiplier;

    (void)state;
    rope_frequencies(&yarn_v3, 64, frequencies, &multiplier);
    assert_true(multiplier == 1.0);
    rope_frequencies(&yarn_odd, 64, frequencies, &multiplier);
    assert_true(fabs(multiplier - (0.0707 * log(4) + 1) / (0.1 * log(4) + 1)) < 1e-14);
    rope_frequencies(&plain, 64, frequencies, &multiplier);
    assert_true(multiplier == 1.0);
}

static void table_rows_hold_cosine_and_sine(void **state)
{
    static const uint32_t positions[] = {0, 1, 2, 63, 64, 4095, 4096, 100000, 163839, 1048575};
    double frequencies[32], multiplier;
    float row[64];

    (void)state;
    rope_frequencies(&yarn_odd, 64, frequencies, &multiplier);
    for (size_t i = 0; i < ARRAY_LENGTH(positions); i++) {
        rope_table_row(frequencies, multiplier, 64, positions[i], row);
        for (uint32_t pair = 0; pair < 32; pair++) {
            double angle = positions[i] * frequencies[pair];
            assert_true(fabs((double)row[2 * pair] - cos(angle) * multiplier) <= 6.1e-8);
            assert_true(fabs((double)row[2 * pair + 1] - sin(angle) * multiplier) <= 6.1e-8);
        }
    }
}

static void check_rotation(enum cpu_level level)
{
    struct numbers numbers = {.seed = 2};
    double frequencies[32], multiplier;
    float row[64], x[64], y[64];

    rope_frequencies(&yarn_v3, 64, frequencies, &multiplier);
    rope_table_row(frequencies, multiplier, 64, 777, row);
    for (size_t i = 0; i < 64; i++) {
        x[i] = numbers_normal(&numbers);
    }
    memcpy(y, x, sizeof(y));
    kernels_for(level, NUMERICS_EXACT)->rope(y, row, 32);
    for (size_t i = 0; i < 64; i += 2) {
        double angle = 777 * frequencies[i / 2];
        double a = (double)x[i], b = (double)x[i + 1];

        assert_true(fabs((double)y[i] - (a * cos(angle) - b * sin(angle))) < 1e-6);
        assert_true(fabs((double)y[i + 1] - (a * sin(angle) + b * cos(angle))) < 1e-6);
    }
}

static void adjacent_pairs_are_rotated(void **state)
{
    (void)state;
    on_every_level(check_rotation);
}

static void check_halves(enum cpu_level level)
{
    struct numbers numbers = {.seed = 5};
    double frequencies[32], multiplier;
    float row[64], pairs[64], halves[64];

    rope_frequencies(&llama3, 64, frequencies, &multiplier);
    rope_table_row(frequencies, multiplier, 64, 777, row);
    for (size_t i = 0; i < 32; i++) {
        pairs[2 * i] = halves[i] = numbers_normal(&numbers);
        pairs[2 * i + 1] = halves[32 + i] = numbers_normal(&numbers);
    }
    kernels_for(CPU_REF, NUMERICS_EXACT)->rope(pairs, row, 32);
    kernels_for(level, NUMERICS_EXACT)->rope_halves(halves, row, 32);
    for (size_t i = 0; i < 32; i++) {
        assert_same_bits(&halves[i], &pairs[2 * i], 1, "first half", level);
        assert_same_bits(&halves[32 + i], &pairs[2 * i + 1], 1, "second half", level);
    }
}

static void halves_rotate_as_the_pairs_that_they_stand_for(void **state)
{
    (void)state;
    on_every_level(check_halves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frequencies_are_powers_of_theta),
        cmocka_unit_test(yarn_frequencies_ramp_between_the_bounds),
        cmocka_unit_test(linear_and_llama3_frequencies_are_stretched),
        cmocka_unit_test(listed_divisors_divide_each_frequency),
        cmocka_unit_test(the_multiplier_is_the_ratio_of_mscales),
        cmocka_unit_test(table_rows_hold_cosine_and_sine),
        cmocka_unit_test(adjacent_pairs_are_rotated),
        cmocka_unit_test(halves_rotate_as_the_pairs_that_they_stand_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
