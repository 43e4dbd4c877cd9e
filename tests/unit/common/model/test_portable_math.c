/* test_portable_math.c - against the C library in long double. */
#include "common/model/portable_math.h"

#include "common/base/hash.h"
#include "tests/support/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define POINTS 20000

static void expect_close(double got, long double wanted, double argument)
{
    double rounded = (double)wanted;
    double ulp = nextafter(fabs(rounded), INFINITY) - fabs(rounded);

    if (isinf(got) || isinf(rounded) ? got != rounded
                                     : !(fabsl(got - wanted) <= 2.0L * (long double)ulp)) {
        fail_msg("f(%a) = %a, not %a", argument, got, rounded);
    }
}

static double between(struct random *random, double low, double high)
{
    return low + (high - low) * random_unit(random);
}

static void logarithms_agree_with_libm(void **state)
{
    (void)state;
    struct random random;

    random_init(&random, 11);
    for (int i = 0; i < POINTS; i++) {
        double wide = exp(between(&random, -708, 709));
        double middle = between(&random, 0.5, 2);
        double near_one = between(&random, 0.999, 1.001);

        expect_close(portable_log(wide), logl(wide), wide);
        expect_close(portable_log(middle), logl(middle), middle);
        expect_close(portable_log(near_one), logl(near_one), near_one);
    }
    assert_true(portable_log(1.0) == 0.0);
    expect_close(portable_log(DBL_MAX), logl(DBL_MAX), DBL_MAX);
    expect_close(portable_log(5e-324), logl(5e-324), 5e-324);
}

static void exponentials_agree_with_libm(void **state)
{
    (void)state;
    struct random random;

    random_init(&random, 12);
    for (int i = 0; i < POINTS; i++) {
        double wide = between(&random, -746, 710);
        double small = between(&random, -1, 1);

        expect_close(portable_exp(wide), expl(wide), wide);
        expect_close(portable_exp(small), expl(small), small);
    }
    assert_true(portable_exp(0) == 1.0);
    assert_true(isinf(portable_exp(1000)) && portable_exp(-1000) == 0);
}

static void powers_agree_with_libm(void **state)
{
    (void)state;
    struct random random;

    random_init(&random, 13);
    for (int i = 0; i < POINTS; i++) {
        double base = exp(between(&random, -20, 20));
        double exponent = between(&random, -40, 40);
        double near_one = between(&random, 0.99, 1.01);
        double large = between(&random, -1e4, 1e4);

        expect_close(portable_pow(base, exponent), powl(base, exponent), base);
        expect_close(portable_pow(near_one, large), powl(near_one, large), near_one);
    }
    for (int i = 0; i < 128; i++) { /* rope frequencies */
        double exponent = -i / 128.0;

        expect_close(portable_pow(10000, exponent), powl(10000, exponent), exponent);
        expect_close(portable_pow(5e5, exponent), powl(5e5, exponent), exponent);
    }
    assert_true(portable_pow(7, 0) == 1 && portable_pow(1, 1e300) == 1);
    assert_true(isinf(portable_pow(10, 400)) && portable_pow(10, -400) == 0);
}

static void expect_sincos(double angle)
{
    double sine, cosine;

    portable_sincos(angle, &sine, &cosine);
    expect_close(sine, sinl(angle), angle);
    expect_close(cosine, cosl(angle), angle);
}

static void sines_agree_with_libm_up_to_the_longest_context(void **state)
{
    (void)state;
    struct random random;

    random_init(&random, 14);
    for (int i = 0; i < POINTS; i++) {
        expect_sincos(between(&random, -4, 4));
        expect_sincos(between(&random, -163840, 163840));
        expect_sincos(between(&random, -67108864, 67108864));
        expect_sincos((double)random_below(&random, 1 << 24)); /* positions */
        /* next to the zeros, where the reduction cancels most */
        expect_sincos((double)random_below(&random, 1 << 20) * 1.57079632679489661923);
    }
    expect_sincos(0);
    expect_sincos(67108864);
    expect_sincos(1e-300);
}

/* One hash over many results: any machine, compiler or library that gives other bits fails. */
static void the_bits_are_the_same_on_every_machine(void **state)
{
    (void)state;
    uint64_t hash = 0;

    for (int i = 1; i <= 4000; i++) {
        double values[5] = {portable_log(i * 0.37), portable_exp((i - 2000) * 0.31),
                            portable_pow(10000, -i / 4000.0)};
        uint64_t bits[5];

        portable_sincos(i * 41.1, &values[3], &values[4]);
        memcpy(bits, values, sizeof(bits));
        for (int j = 0; j < 5; j++) {
            hash = hash_mix(hash ^ bits[j]);
        }
    }
    assert_int_equal(hash, UINT64_C(0xdb103ab4c85ef63e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logarithms_agree_with_libm),
        cmocka_unit_test(exponentials_agree_with_libm),
        cmocka_unit_test(powers_agree_with_libm),
        cmocka_unit_test(sines_agree_with_libm_up_to_the_longest_context),
        cmocka_unit_test(the_bits_are_the_same_on_every_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
