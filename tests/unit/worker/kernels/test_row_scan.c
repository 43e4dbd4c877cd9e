/* What sampling asks of a row: searches against plain loops, the double exp against libm, and the
 * same bits at every level. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "worker/kernels/kernels.h"

#include <math.h>

#define VALUES_MAX 700

static const size_t counts[] = {1, 2, 15, 16, 17, 33, 63, 64, 65, 127, 130, VALUES_MAX};

static const struct kernels *of(enum cpu_level level)
{
    return kernels_for(level, NUMERICS_EXACT);
}

static void fill(float *x, size_t count, struct numbers *numbers, float spread)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = numbers_normal(numbers) * spread;
    }
}

static void exp_accuracy(enum cpu_level level)
{
    double x[7], worst = 0.0;

    for (double begin = -699.9; begin < -1e-9; begin = begin * 0.9997 + 1e-10) {
        for (size_t i = 0; i < 7; i++) {
            x[i] = begin * (1.0 - (double)i * 1e-5);
        }
        of(level)->exp_each(x, 7);
        for (size_t i = 0; i < 7; i++) {
            double wanted = exp(begin * (1.0 - (double)i * 1e-5));
            double error = fabs(x[i] - wanted) / (wanted * 0x1p-52);

            worst = error > worst ? error : worst;
        }
    }
    print_message("exp in double, %s: worst error %.3f units of 2^-52\n", cpu_level_name(level),
                  worst);
    assert_true(worst <= 1.5);
}

static void exp_is_near_libm(void **state)
{
    (void)state;
    on_every_level(exp_accuracy);
}

static void exp_edges(enum cpu_level level)
{
    double x[] = {0.0, -0.0, -1e-300, -700.0, -701.0, -1e300, -INFINITY};

    of(level)->exp_each(x, ARRAY_LENGTH(x));
    assert_true(x[0] == 1.0 && x[1] == 1.0 && x[2] == 1.0);
    assert_true(x[3] > 0.0 && x[3] < 1e-303);
    assert_true(x[4] == x[3] && x[5] == x[3] && x[6] == x[3]);
}

static void exp_has_clean_edges(void **state)
{
    (void)state;
    on_every_level(exp_edges);
}

static double exp_of(double x)
{
    of(CPU_REF)->exp_each(&x, 1);
    return x;
}

/* Lanes, then folded 8-4-2-1; a missing element counts exp(-700). */
static double defined_total(const float *x, size_t count, float max, double inverse)
{
    double lane[16] = {0.0};

    for (size_t i = 0; i < (count + 15) / 16 * 16; i++) {
        lane[i % 16] += exp_of(i < count ? ((double)x[i] - (double)max) * inverse : -INFINITY);
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}

static void totals(enum cpu_level level)
{
    struct numbers numbers = {.seed = 12};
    float x[VALUES_MAX];

    for (size_t c = 0; c < ARRAY_LENGTH(counts); c++) {
        for (float spread = 0.1f; spread < 1e6f; spread *= 30.0f) {
            double exact = 0.0, got, wanted;
            float max;

            fill(x, counts[c], &numbers, spread);
            max = of(level)->max(x, counts[c]);
            got = of(level)->exp_total(x, counts[c], max, 1.0 / 0.6);
            wanted = defined_total(x, counts[c], max, 1.0 / 0.6);
            assert_memory_equal(&got, &wanted, sizeof(double));
            for (size_t i = 0; i < counts[c]; i++) {
                exact += exp(((double)x[i] - (double)max) / 0.6);
            }
            assert_true(fabs(got - exact) <= 1e-13 * exact);
        }
    }
}

static void totals_fold_sixteen_lanes(void **state)
{
    (void)state;
    on_every_level(totals);
}

static void searches(enum cpu_level level)
{
    struct numbers numbers = {.seed = 13};
    float x[VALUES_MAX];

    for (size_t c = 0; c < ARRAY_LENGTH(counts); c++) {
        const size_t count = counts[c];

        fill(x, count, &numbers, 1.0f);
        x[count / 2] = x[0]; /* the limit itself occurs, twice */
        for (size_t turn = 0; turn < 60; turn++) {
            const float limit = turn == 0   ? INFINITY
                                : turn == 1 ? -INFINITY
                                : turn < 9  ? x[0]
                                            : numbers_normal(&numbers) * 1.5f;
            const size_t begin = numbers_below(&numbers, (uint32_t)count + 1);
            size_t first = begin, above = 0;

            while (first < count && x[first] < limit) {
                first++;
            }
            for (size_t i = 0; i < count; i++) {
                above += x[i] > limit ? 1 : 0;
            }
            assert_int_equal(of(level)->find_from(x, begin, count, limit), first);
            assert_int_equal(of(level)->count_above(x, count, limit), above);
        }
        assert_int_equal(of(level)->count_above(x, 0, 0.0f), 0);
        assert_int_equal(of(level)->find_from(x, 0, count, of(level)->max(x, count)),
                         of(CPU_REF)->find_from(x, 0, count, of(CPU_REF)->max(x, count)));
    }
}

static void searches_find_what_a_loop_finds(void **state)
{
    (void)state;
    on_every_level(searches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_near_libm),
        cmocka_unit_test(exp_has_clean_edges),
        cmocka_unit_test(totals_fold_sixteen_lanes),
        cmocka_unit_test(searches_find_what_a_loop_finds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
