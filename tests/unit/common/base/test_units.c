/* test_units.c - byte amounts for people. */
#include "common/base/units.h"

#include "common/base/check.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void amounts_have_three_digits(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {812, "812 B"},
        {999, "999 B"},
        {1000, "1.00 kB"},
        {1005, "1.01 kB"},
        {9994, "9.99 kB"},
        {9995, "10.0 kB"},
        {99949, "99.9 kB"},
        {99950, "100 kB"},
        {999499, "999 kB"},
        {999500, "1.00 MB"},
        {15600000, "15.6 MB"},
        {404000000000, "404 GB"},
        {1340000000000, "1.34 TB"},
        {UINT64_C(999999999999999), "1.00 PB"},
        {UINT64_MAX, "18.4 EB"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct units_text out;

        assert_string_equal(units_bytes(&out, cases[i].bytes), cases[i].text);
    }
}

static void amounts_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"4096", 4096},
        {"17B", 17},
        {"512M", 512000000},
        {"64G", UINT64_C(64000000000)},
        {"64GB", UINT64_C(64000000000)},
        {"64g", UINT64_C(64000000000)},
        {"1.5GiB", UINT64_C(1610612736)},
        {"1.5Gi", UINT64_C(1610612736)},
        {"2KiB", 2048},
        {"2k", 2000},
        {"3MiB", 3 << 20},
        {"2T", UINT64_C(2000000000000)},
        {"1TiB", UINT64_C(1) << 40},
        {"15.6 MB", 15600000},
        {"0.000001T", 1000000},
        {"0.999999TiB", UINT64_C(1099510528264)},
        {"7.0", 7},
        {"18446744073709551615", UINT64_MAX},
        {"16777215TiB", UINT64_MAX - ((UINT64_C(1) << 40) - 1)},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = {0};
        uint64_t bytes = 1;

        assert_true(units_parse_bytes(cases[i].text, "--memory", &bytes, &err));
        assert_true(bytes == cases[i].bytes);
    }
}

static void what_is_no_amount_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",    " ",          "G",   "-1",   "+1",    "1.",     ".5G",    "1.5",  "0x10",
        "1e9", "12Q",        "12 ", "1  G", "12GG",  "12Bi",   "12GiBs", "12iB", "1 2",
        " 1",  "1.1234567G", "inf", "1,5G", "1..5G", "1.5.5G", "12\n",   "\xC3", "12P",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct error err = {0};
        uint64_t bytes = 77;

        assert_false(units_parse_bytes(texts[i], "--memory", &bytes, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_int_equal(bytes, 77);
    }
}

static void the_refusal_names_the_option_and_the_text(void **state)
{
    (void)state;
    struct error err = {0};
    uint64_t bytes;

    assert_false(units_parse_bytes("12Q", "--memory", &bytes, &err));
    assert_string_equal(err.message,
                        "--memory: \"12Q\" is not an amount of bytes; write 64G, 1.5GiB or 4096");
}

static void amounts_beyond_64_bits_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"18446744073709551616", "99999999999999999999999",
                                        "16777216TiB", "18446745T", "18446744.999999T"};

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct error err = {0};
        uint64_t bytes = 77;

        assert_false(units_parse_bytes(texts[i], "--memory", &bytes, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_int_equal(bytes, 77);
    }
}

static void a_written_amount_is_read_back_within_its_precision(void **state)
{
    (void)state;
    struct random random;

    random_init(&random, 6);
    for (int i = 0; i < 2000; i++) {
        uint64_t bytes = random_u64(&random) >> (24 + random_below(&random, 40));
        struct units_text out;
        struct error err = {0};
        uint64_t back;
        uint64_t error;

        if (bytes >= UINT64_C(999000000000000)) {
            continue; /* PB is written but not read */
        }
        assert_true(units_parse_bytes(units_bytes(&out, bytes), "test", &back, &err));
        error = back > bytes ? back - bytes : bytes - back;
        assert_true(error <= bytes / 199);
    }
}

static void rates_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double bytes_per_s;
    } cases[] = {
        {"40GB/s", 40e9}, {"1Gbit/s", 125e6},   {"1.25 Gbit/s", 156.25e6}, {"512MiB/s", 536870912},
        {"8 bit/s", 1},   {"200 gbit/S", 25e9}, {"0.5kB/s", 500},          {"1000TB/s", 1e15},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = {0};
        double rate;

        assert_true(units_parse_rate(cases[i].text, "bandwidth", &rate, &err));
        assert_true(rate == cases[i].bytes_per_s);
    }
}

static void what_is_no_rate_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",         "40",       "40GB",    "GB/s",    "0GB/s",    "-1GB/s",
        "40  GB/s", "40/s",     "4 /s",    "1e9 B/s", "40GB/m",   "40GBit",
        "nan B/s",  "1001TB/s", "40GB/s ", "1.GB/s",  "1 Pbit/s", "99999999999999999999B/s",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = {0};
        double rate = -1;

        assert_false(units_parse_rate(cases[i], "bandwidth", &rate, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_non_null(strstr(err.message, "bandwidth"));
        assert_non_null(strstr(err.message, cases[i]));
    }
}

static void times_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {
        {"100us", 100000},
        {"1.5 ms", 1500000},
        {"20\xc2\xb5s", 20000},
        {"20 \xce\xbcs", 20000},
        {"2s", 2000000000},
        {"800ns", 800},
        {"0s", 0},
        {"3600s", 3600000000000},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = {0};
        int64_t ns;

        assert_true(units_parse_duration(cases[i].text, "latency", &ns, &err));
        assert_int_equal(ns, cases[i].ns);
    }
}

static void what_is_no_time_is_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {"",     "100",  "us",    "-1us", "1 m",
                                        "1min", "1e3s", "3601s", "1.s",  "99999999999999999999ns"};

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct error err = {0};
        int64_t ns = -1;

        assert_false(units_parse_duration(cases[i], "latency", &ns, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_non_null(strstr(err.message, cases[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amounts_have_three_digits),
        cmocka_unit_test(amounts_are_read),
        cmocka_unit_test(what_is_no_amount_is_refused),
        cmocka_unit_test(the_refusal_names_the_option_and_the_text),
        cmocka_unit_test(amounts_beyond_64_bits_are_refused),
        cmocka_unit_test(a_written_amount_is_read_back_within_its_precision),
        cmocka_unit_test(rates_are_read),
        cmocka_unit_test(what_is_no_rate_is_refused),
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(what_is_no_time_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
