/* What a peer's dispatch may look like, and what not. */
#include "worker/stage/dispatch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define HIDDEN 3

static _Alignas(64) uint8_t payload[256];
static struct frame frame;
static const struct dispatch_limits limits = {.hidden = HIDDEN, .rows_max = 2, .chosen_count = 4};

static void fill_two_rows(void)
{
    struct dispatch out;

    memset(payload, 0, sizeof(payload));
    frame = (struct frame){.payload = payload, .capacity = sizeof(payload)};
    dispatch_begin(&frame, 2, 3, HIDDEN, &out);
    out.row_parts[0] = 1;
    out.row_parts[1] = 2;
    for (uint32_t i = 0; i < 3; i++) {
        out.parts[i] = (struct dispatch_part){.expert = 5 + i, .weight = 0.5f};
    }
    for (uint32_t i = 0; i < 2 * HIDDEN; i++) {
        out.values[i] = (float)i;
    }
}

static void what_was_written_is_read(void **state)
{
    struct dispatch in;
    struct error err;

    (void)state;
    fill_two_rows();
    assert_int_equal(frame.header.payload_bytes, dispatch_bytes(2, 3, HIDDEN));
    assert_true(dispatch_read(&frame, &limits, &in, &err));
    assert_int_equal(in.row_count, 2);
    assert_int_equal(in.part_count, 3);
    assert_int_equal(in.row_parts[1], 2);
    assert_int_equal(in.parts[2].expert, 7);
    assert_true(in.values[2 * HIDDEN - 1] == 2 * HIDDEN - 1);
}

static void an_empty_dispatch_is_legal(void **state)
{
    struct dispatch out, in;
    struct error err;

    (void)state;
    frame = (struct frame){.payload = payload, .capacity = sizeof(payload)};
    dispatch_begin(&frame, 0, 0, HIDDEN, &out);
    assert_int_equal(frame.header.payload_bytes, 0);
    assert_true(dispatch_read(&frame, &limits, &in, &err));
    assert_int_equal(in.row_count + in.part_count, 0);
}

static void every_other_length_is_refused(void **state)
{
    struct dispatch in;
    struct error err;
    uint32_t bytes;

    (void)state;
    fill_two_rows();
    bytes = frame.header.payload_bytes;
    for (uint32_t length = 0; length < sizeof(payload); length++) {
        frame.header.payload_bytes = length;
        assert_int_equal(dispatch_read(&frame, &limits, &in, &err), length == bytes);
    }
}

static void wrong_counts_are_refused(void **state)
{
    struct dispatch in;
    struct error err;

    (void)state;
    fill_two_rows();
    frame.header.rows = 3;
    assert_false(dispatch_read(&frame, &limits, &in, &err));
    fill_two_rows();
    frame.header.columns = HIDDEN + 1;
    assert_false(dispatch_read(&frame, &limits, &in, &err));
    fill_two_rows();
    payload[0] = 0; /* a row without experts */
    assert_false(dispatch_read(&frame, &limits, &in, &err));
    fill_two_rows();
    payload[0] = 5; /* more than are chosen */
    assert_false(dispatch_read(&frame, &limits, &in, &err));
    assert_int_equal(err.code, ERROR_PEER);
    fill_two_rows();
    memset(payload, 0xff, 8);
    assert_false(dispatch_read(&frame, &limits, &in, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(an_empty_dispatch_is_legal),
        cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(wrong_counts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
