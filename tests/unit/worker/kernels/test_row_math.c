/* Functions of a row: accuracy against libm in double, and the same bits at every level. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "worker/kernels/kernels.h"

#include <math.h>

#define VALUES_MAX 1200

static const size_t counts[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 576, 1111};

/* exp itself shows in a softmax of two: exp(x - 0) / (1 + exp(x)) hides it, so sigmoid and a join
 * of states are the windows. A state with maximum x joined to one with maximum 0 is scaled by
 * exp(x). */
static float exp_by_join(const struct kernels *kernels, float x)
{
    float max = x, sum = 1.0f, acc = 1.0f;
    const float zero = 0.0f;

    kernels->attend_join(&max, &sum, &acc, 0.0f, 0.0f, &zero, 1);
    return acc;
}

static void exp_accuracy(enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    double worst = 0;

    for (float x = -87.0f; x <= 0.0f; x += 0.000437f) {
        double error = ulps_between(exp_by_join(kernels, x), exp((double)x));
        worst = error > worst ? error : worst;
    }
    print_message("exp, %s: worst error %.3f ulp\n", cpu_level_name(level), worst);
    assert_true(worst <= 1.0);
}

static void exp_is_within_one_ulp(void **state)
{
    (void)state;
    on_every_level(exp_accuracy);
}

static void exp_edges(enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);

    assert_true(exp_by_join(kernels, 0.0f) == 1.0f);
    assert_true(exp_by_join(kernels, -0.0f) == 1.0f);
    assert_true(exp_by_join(kernels, -INFINITY) == 0.0f);
    assert_true(exp_by_join(kernels, -87.0001f) == 0.0f);
    assert_true(exp_by_join(kernels, -87.0f) >= 0x1p-126f);
    assert_true(exp_by_join(kernels, -1e30f) == 0.0f);
    assert_true(exp_by_join(kernels, -0x1p-140f) == 1.0f);
}

static void exp_has_clean_edges(void **state)
{
    (void)state;
    on_every_level(exp_edges);
}

static void sigmoid_accuracy(enum cpu_level level)
{
    float x[VALUES_MAX], y[VALUES_MAX];
    double worst = 0;

    for (double begin = -87.0; begin < 100.0; begin += 0.25) {
        for (size_t i = 0; i < VALUES_MAX; i++) {
            x[i] = (float)(begin + 0.25 * (double)i / VALUES_MAX);
        }
        memcpy(y, x, sizeof(y));
        kernels_for(level, NUMERICS_EXACT)->sigmoid(y, VALUES_MAX);
        for (size_t i = 0; i < VALUES_MAX; i++) {
            double error = ulps_between(y[i], 1.0 / (1.0 + exp(-(double)x[i])));
            worst = error > worst ? error : worst;
        }
    }
    print_message("sigmoid, %s: worst error %.3f ulp\n", cpu_level_name(level), worst);
    assert_true(worst <= 2.0);
    x[0] = -89.0f;
    x[1] = -INFINITY;
    x[2] = INFINITY;
    kernels_for(level, NUMERICS_EXACT)->sigmoid(x, 3);
    assert_true(x[0] == 0.0f && x[1] == 0.0f && x[2] == 1.0f);
}

static void sigmoid_is_within_two_ulp(void **state)
{
    (void)state;
    on_every_level(sigmoid_accuracy);
}

static void same_bits_for_count(enum cpu_level level, size_t count, struct numbers *numbers)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT),
                         *ref = kernels_for(CPU_REF, NUMERICS_EXACT);
    float x[VALUES_MAX], y[VALUES_MAX], got[VALUES_MAX], wanted[VALUES_MAX];

    for (size_t i = 0; i < count; i++) {
        x[i] = numbers_odd(numbers);
        y[i] = numbers_odd(numbers);
    }
    ref->rms_norm(x, y, (uint32_t)count, 1e-6f, wanted);
    kernels->rms_norm(x, y, (uint32_t)count, 1e-6f, got);
    assert_same_bits(got, wanted, count, "rms_norm", level);
    memcpy(got, x, sizeof(x));
    kernels->rms_norm(got, y, (uint32_t)count, 1e-6f, got);
    assert_same_bits(got, wanted, count, "rms_norm in place", level);

    ref->scale(x, 0.337f, count, wanted);
    kernels->scale(x, 0.337f, count, got);
    assert_same_bits(got, wanted, count, "scale", level);

    memcpy(wanted, x, sizeof(x));
    memcpy(got, x, sizeof(x));
    ref->add(wanted, y, count);
    kernels->add(got, y, count);
    assert_same_bits(got, wanted, count, "add", level);

    memcpy(wanted, x, sizeof(x));
    memcpy(got, x, sizeof(x));
    ref->sigmoid(wanted, count);
    kernels->sigmoid(got, count);
    assert_same_bits(got, wanted, count, "sigmoid", level);

    for (size_t i = 0; i < count; i++) {
        x[i] = numbers_normal(numbers) * 20.0f;
    }
    memcpy(wanted, x, sizeof(x));
    memcpy(got, x, sizeof(x));
    ref->softmax(wanted, count);
    kernels->softmax(got, count);
    assert_same_bits(got, wanted, count, "softmax", level);

    memcpy(wanted, x, sizeof(x));
    memcpy(got, x, sizeof(x));
    ref->rope(wanted, y, (uint32_t)(count / 2));
    kernels->rope(got, y, (uint32_t)(count / 2));
    assert_same_bits(got, wanted, count, "rope", level);
}

static void same_bits_at_ragged_counts(enum cpu_level level)
{
    struct numbers numbers = {.seed = 41};

    for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
        same_bits_for_count(level, counts[i], &numbers);
    }
}

static void every_level_gives_the_reference_bits(void **state)
{
    (void)state;
    on_every_level(same_bits_at_ragged_counts);
}

/* The reduction by its definition: lane i % 16 in rising i, folded 8-4-2-1. */
static float folded_sum(const float *terms, size_t count, const float *factors)
{
    float lane[16] = {0};

    for (size_t i = 0; i < count; i++) {
        lane[i % 16] =
            factors != NULL ? fmaf(terms[i], factors[i], lane[i % 16]) : lane[i % 16] + terms[i];
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}

/* Both pairings of values, at every count of pairs up to a few vectors. */
static void rotations_by_definition(enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    struct numbers numbers = {.seed = 12};
    float x[140], cos_sin[140], got[140], wanted[140];

    for (uint32_t pairs = 1; pairs <= 70; pairs++) {
        for (uint32_t i = 0; i < 2 * pairs; i++) {
            x[i] = numbers_odd(&numbers);
            cos_sin[i] = numbers_normal(&numbers);
        }
        for (int halves = 0; halves <= 1; halves++) {
            memcpy(got, x, sizeof(x));
            (halves == 0 ? kernels->rope : kernels->rope_halves)(got, cos_sin, pairs);
            for (uint32_t i = 0; i < pairs; i++) {
                uint32_t a = halves == 0 ? 2 * i : i, b = halves == 0 ? 2 * i + 1 : pairs + i;
                float cosine = cos_sin[2 * i], sine = cos_sin[2 * i + 1];
                volatile float down = x[b] * sine, up = x[b] * cosine; /* rounded */

                wanted[a] = fmaf(x[a], cosine, -down);
                wanted[b] = fmaf(x[a], sine, up);
            }
            assert_same_bits(got, wanted, 2 * (size_t)pairs, halves == 0 ? "rope" : "halves",
                             level);
        }
    }
}

static void rotations_follow_their_definition(void **state)
{
    (void)state;
    on_every_level(rotations_by_definition);
}

static void rms_norm_by_definition(enum cpu_level level)
{
    struct numbers numbers = {.seed = 77};
    float x[VALUES_MAX], weight[VALUES_MAX], got[VALUES_MAX], wanted[VALUES_MAX];

    for (size_t c = 0; c < ARRAY_LENGTH(counts); c++) {
        const size_t count = counts[c];
        float inverse;
        double exact = 0;

        for (size_t i = 0; i < count; i++) {
            x[i] = numbers_normal(&numbers);
            weight[i] = numbers_normal(&numbers);
            exact += (double)x[i] * (double)x[i];
        }
        inverse = 1.0f / sqrtf(folded_sum(x, count, x) / (float)count + 1e-5f);
        exact = 1.0 / sqrt(exact / (double)count + 1e-5);
        for (size_t i = 0; i < count; i++) {
            wanted[i] = x[i] * inverse * weight[i];
        }
        kernels_for(level, NUMERICS_EXACT)->rms_norm(x, weight, (uint32_t)count, 1e-5f, got);
        assert_same_bits(got, wanted, count, "rms_norm", level);
        assert_true(fabs((double)inverse - exact) < 1e-6 * exact);
    }
}

static void rms_norm_folds_sixteen_lanes(void **state)
{
    (void)state;
    on_every_level(rms_norm_by_definition);
}

static void softmax_near_double(enum cpu_level level)
{
    struct numbers numbers = {.seed = 9};
    float x[VALUES_MAX], y[VALUES_MAX];

    for (size_t c = 0; c < ARRAY_LENGTH(counts); c++) {
        double max = -INFINITY, sum = 0;

        for (size_t i = 0; i < counts[c]; i++) {
            x[i] = numbers_normal(&numbers) * 10.0f;
            max = fmax(max, (double)x[i]);
        }
        for (size_t i = 0; i < counts[c]; i++) {
            sum += exp((double)x[i] - max);
        }
        memcpy(y, x, sizeof(y));
        kernels_for(level, NUMERICS_EXACT)->softmax(y, counts[c]);
        for (size_t i = 0; i < counts[c]; i++) {
            double wanted = exp((double)x[i] - max) / sum;
            assert_true(fabs((double)y[i] - wanted) <= 1e-5 * wanted);
        }
    }
}

static void softmax_is_near_double(void **state)
{
    (void)state;
    on_every_level(softmax_near_double);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_one_ulp),
        cmocka_unit_test(exp_has_clean_edges),
        cmocka_unit_test(sigmoid_is_within_two_ulp),
        cmocka_unit_test(every_level_gives_the_reference_bits),
        cmocka_unit_test(rotations_follow_their_definition),
        cmocka_unit_test(rms_norm_folds_sixteen_lanes),
        cmocka_unit_test(softmax_is_near_double),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
