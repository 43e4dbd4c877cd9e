/* test_buffer.c - a byte string against a plain array. */
#include "common/base/buffer.h"

#include "common/base/mem.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void an_unused_buffer_is_an_empty_text(void **state)
{
    (void)state;
    struct buffer buffer = {0};
    char *taken;

    assert_string_equal(buffer_text(&buffer), "");
    buffer_clear(&buffer);
    buffer_consume(&buffer, 0);
    buffer_append(&buffer, NULL, 0);
    taken = buffer_take(&buffer);
    assert_string_equal(taken, "");
    assert_null(buffer.data);
    mem_free(taken);
    buffer_deinit(&buffer);
}

static void what_is_appended_is_read_back(void **state)
{
    (void)state;
    struct buffer buffer;
    char *taken;

    buffer_init(&buffer);
    buffer_append_text(&buffer, "step");
    buffer_append_char(&buffer, ' ');
    buffer_printf(&buffer, "%d of %s", 3, "many");
    buffer_append(&buffer, "\0!", 2);
    assert_int_equal(buffer.length, 16);
    assert_memory_equal(buffer_text(&buffer), "step 3 of many\0!", 17);
    buffer_consume(&buffer, 5);
    assert_string_equal(buffer_text(&buffer), "3 of many");
    taken = buffer_take(&buffer);
    assert_string_equal(taken, "3 of many");
    assert_int_equal(buffer.length, 0);
    mem_free(taken);
    buffer_deinit(&buffer);
}

static void a_cleared_buffer_keeps_its_memory(void **state)
{
    (void)state;
    struct buffer buffer = {0};

    buffer_reserve(&buffer, 1000);
    assert_true(buffer.capacity > 1000);
    buffer_printf(&buffer, "%0900d", 1);
    assert_int_equal(buffer.length, 900);
    char *data = buffer.data;
    buffer_clear(&buffer);
    assert_ptr_equal(buffer.data, data);
    assert_string_equal(buffer_text(&buffer), "");
    buffer_deinit(&buffer);
}

static void random_appends_and_consumes_match_an_array(void **state)
{
    (void)state;
    static unsigned char model[200000];
    struct buffer buffer = {0};
    struct random random;
    size_t length = 0;

    random_init(&random, 3);
    for (int round = 0; round < 500; round++) {
        size_t more = random_below(&random, 300);
        size_t less;

        random_fill(&random, model + length, more);
        buffer_append(&buffer, model + length, more);
        length += more;
        less = random_below(&random, length / 2 + 1);
        memmove(model, model + less, length - less);
        buffer_consume(&buffer, less);
        length -= less;
        assert_int_equal(buffer.length, length);
        assert_true(length < buffer.capacity || length == 0);
        assert_memory_equal(buffer_text(&buffer), model, length);
        assert_int_equal(buffer_text(&buffer)[length], 0);
    }
    buffer_deinit(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unused_buffer_is_an_empty_text),
        cmocka_unit_test(what_is_appended_is_read_back),
        cmocka_unit_test(a_cleared_buffer_keeps_its_memory),
        cmocka_unit_test(random_appends_and_consumes_match_an_array),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
