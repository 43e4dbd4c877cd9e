/* Counters of operations: everything between two laps is counted once, where it belongs. */
#include "worker/layers/meter.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LAYER_BEGIN 3
#define LAYER_END   6

static int meter_setup(void **state)
{
    struct error err;

    *state = meter_create(LAYER_BEGIN, LAYER_END, &err);
    return *state == NULL ? -1 : 0;
}

static int meter_teardown(void **state)
{
    meter_destroy(*state);
    return 0;
}

/* The record, or zeros. */
static struct operation_record record_of(const struct meter *meter, uint32_t layer,
                                         enum operation operation, enum operation_phase phase,
                                         uint32_t row_class)
{
    struct operation_record found = {0};
    uint32_t count;
    struct operation_record *records = meter_records(meter, &count);

    for (uint32_t i = 0; i < count; i++) {
        if (records[i].layer == layer && records[i].operation == operation &&
            records[i].phase == phase && records[i].row_class == row_class) {
            assert_int_equal(found.calls, 0); /* once */
            found = records[i];
        }
    }
    mem_free(records);
    return found;
}

static void work_goes_to_the_lap_that_follows_it(void **state)
{
    struct meter *meter = *state;
    const struct operation_work first = {1, 2, 3, 4, 5, 6};
    const struct operation_work second = {.weight_bytes = 100, .f32_operations = 7};
    struct operation_record record;

    meter_step_begin(meter, OPERATION_DECODE, 1);
    meter_add(meter, &first);
    meter_add(meter, &second);
    meter_lap(meter, 4, OPERATION_LOGITS, 9);
    meter_lap(meter, 5, OPERATION_LOGITS, 9);
    record = record_of(meter, 4, OPERATION_LOGITS, OPERATION_DECODE, 0);
    assert_int_equal(record.calls, 1);
    assert_int_equal(record.rows, 9);
    assert_int_equal(record.work.weight_bytes, 101);
    assert_int_equal(record.work.cache_bytes, 2);
    assert_int_equal(record.work.activation_bytes, 3);
    assert_int_equal(record.work.int8_operations, 4);
    assert_int_equal(record.work.f32_operations, 12);
    assert_int_equal(record.work.experts, 6);
    record = record_of(meter, 5, OPERATION_LOGITS, OPERATION_DECODE, 0);
    assert_int_equal(record.calls, 1);
    assert_int_equal(record.work.weight_bytes, 0);
    assert_int_equal(meter_step_work(meter).weight_bytes, 101);
    meter_step_begin(meter, OPERATION_DECODE, 1);
    assert_int_equal(meter_step_work(meter).weight_bytes, 0);
}

static void times_add_up_to_what_passed(void **state)
{
    struct meter *meter = *state;
    int64_t begin_ns, passed_ns;
    struct operation_record *records;
    uint64_t ns = 0;
    uint32_t count;

    meter_step_begin(meter, OPERATION_PROMPT, 8);
    begin_ns = clock_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        meter_lap(meter, LAYER_BEGIN + (uint32_t)i % 3, (enum operation)(i % OPERATION_IDLE), 1);
    }
    meter_step_begin(meter, OPERATION_DECODE, 1);
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_OTHER, 0);
    passed_ns = clock_monotonic_ns() - begin_ns;
    records = meter_records(meter, &count);
    for (uint32_t i = 0; i < count; i++) {
        ns += records[i].ns;
    }
    mem_free(records);
    /* The first look at the clock was before ours, the last one before ours too. */
    assert_in_range(ns, (uint64_t)passed_ns * 9 / 10, (uint64_t)passed_ns + NS_PER_MS);
}

static void steps_of_each_kind_are_kept_apart(void **state)
{
    struct meter *meter = *state;

    meter_step_begin(meter, OPERATION_DECODE, 1);
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_EMBED, 1);
    meter_step_begin(meter, OPERATION_DECODE, 16);
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_EMBED, 16);
    meter_step_begin(meter, OPERATION_PROMPT, 16);
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_EMBED, 16);
    meter_step_begin(meter, OPERATION_PROMPT, 12);
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_EMBED, 12);
    assert_int_equal(
        record_of(meter, OPERATION_NO_LAYER, OPERATION_EMBED, OPERATION_DECODE, 0).rows, 1);
    assert_int_equal(
        record_of(meter, OPERATION_NO_LAYER, OPERATION_EMBED, OPERATION_DECODE, 2).rows, 16);
    assert_int_equal(
        record_of(meter, OPERATION_NO_LAYER, OPERATION_EMBED, OPERATION_PROMPT, 2).rows, 28);
    /* Nothing went before the first step; the others were awaited. */
    assert_int_equal(
        record_of(meter, OPERATION_NO_LAYER, OPERATION_IDLE, OPERATION_DECODE, 0).calls, 0);
    assert_int_equal(
        record_of(meter, OPERATION_NO_LAYER, OPERATION_IDLE, OPERATION_PROMPT, 2).calls, 2);
}

static void work_of_an_abandoned_step_is_not_the_next_ones(void **state)
{
    struct meter *meter = *state;
    const struct operation_work lost = {.weight_bytes = 1000};

    meter_step_begin(meter, OPERATION_DECODE, 1);
    meter_add(meter, &lost);
    meter_step_begin(meter, OPERATION_DECODE, 1);
    meter_lap(meter, 4, OPERATION_ROUTER, 1);
    assert_int_equal(record_of(meter, 4, OPERATION_ROUTER, OPERATION_DECODE, 0).work.weight_bytes,
                     0);
    assert_int_equal(meter_step_work(meter).weight_bytes, 0);
}

static void no_meter_counts_nothing(void **state)
{
    const struct operation_work work = {.weight_bytes = 1};
    uint32_t count = 7;

    (void)state;
    meter_step_begin(NULL, OPERATION_DECODE, 1);
    meter_add(NULL, &work);
    meter_lap(NULL, 0, OPERATION_EMBED, 1);
    assert_int_equal(meter_step_work(NULL).weight_bytes, 0);
    mem_free(meter_records(NULL, &count));
    assert_int_equal(count, 0);
}

static void a_meter_without_memory_is_refused(void **state)
{
    struct error err;

    (void)state;
    mem_fail_after(1);
    assert_null(meter_create(0, 4, &err));
    mem_fail_after(0);
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "counters"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(work_goes_to_the_lap_that_follows_it, meter_setup,
                                        meter_teardown),
        cmocka_unit_test_setup_teardown(times_add_up_to_what_passed, meter_setup, meter_teardown),
        cmocka_unit_test_setup_teardown(steps_of_each_kind_are_kept_apart, meter_setup,
                                        meter_teardown),
        cmocka_unit_test_setup_teardown(work_of_an_abandoned_step_is_not_the_next_ones, meter_setup,
                                        meter_teardown),
        cmocka_unit_test(no_meter_counts_nothing),
        cmocka_unit_test(a_meter_without_memory_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
