/* test_chunk_records.c - checksums that survive crashes and are not believed when damaged. */
#include "worker/stage/chunk_records.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct chunk_records *records_open(const char *path)
{
    struct error err = {0};
    struct chunk_records *records = chunk_records_open(path, &err);

    assert_string_equal(err.message, "");
    assert_non_null(records);
    return records;
}

static struct chunk_key key_of(uint32_t number)
{
    return (struct chunk_key){number % 2 == 0 ? "a.safetensors" : "b.safetensors",
                              (uint64_t)number << 33, number + 1};
}

static void expect(struct chunk_records *records, uint32_t number, uint32_t crc)
{
    struct chunk_key key = key_of(number);
    uint32_t found = 0;

    assert_true(chunk_records_find(records, &key, &found));
    assert_int_equal(found, crc);
}

static void expect_none(struct chunk_records *records, uint32_t number)
{
    struct chunk_key key = key_of(number);
    uint32_t found = 77;

    assert_false(chunk_records_find(records, &key, &found));
    assert_int_equal(found, 77);
}

static void add(struct chunk_records *records, uint32_t number, uint32_t crc)
{
    struct chunk_key key = key_of(number);
    struct error err;

    assert_true(chunk_records_add(records, &key, crc, &err));
}

static void what_was_added_is_there_again(void **state)
{
    struct scratch *scratch = *state;
    const char *path = scratch_path(scratch, "chunks");
    struct chunk_records *records = records_open(path);

    for (uint32_t i = 0; i < 5000; i++) {
        add(records, i, i * 7);
    }
    add(records, 3, 99); /* replaces */
    assert_int_equal(chunk_records_count(records), 5000);
    chunk_records_close(records);
    records = records_open(path);
    assert_int_equal(chunk_records_count(records), 5000);
    for (uint32_t i = 0; i < 5000; i++) {
        expect(records, i, i == 3 ? 99 : i * 7);
    }
    expect_none(records, 5000);
    chunk_records_close(records);
}

static void the_forgotten_is_gone_until_it_comes_again(void **state)
{
    struct scratch *scratch = *state;
    struct chunk_records *records = records_open(scratch_path(scratch, "chunks"));
    struct chunk_key key = key_of(1);

    add(records, 1, 5);
    add(records, 2, 6);
    chunk_records_forget(records, &key);
    chunk_records_forget(records, &key);
    expect_none(records, 1);
    expect(records, 2, 6);
    assert_int_equal(chunk_records_count(records), 1);
    add(records, 1, 8);
    expect(records, 1, 8);
    assert_int_equal(chunk_records_count(records), 2);
    chunk_records_close(records);
}

/* The bytes of a file with records 0 and 1. */
static void two_records(const char *path, char **text, size_t *length)
{
    struct chunk_records *records = records_open(path);
    struct error err;

    add(records, 0, 10);
    add(records, 1, 11);
    chunk_records_close(records);
    assert_true(file_read(path, 4096, text, length, &err));
}

/* The file cut at every byte, as by a crash: whole records stay, and it can be added to. */
static void cut_files_keep_whole_records(void **state)
{
    struct scratch *scratch = *state;
    char *path = mem_strdup(scratch_path(scratch, "chunks"));
    struct chunk_records *records;
    struct error err;
    char *text;
    size_t length;

    two_records(path, &text, &length);
    assert_int_equal(length, 96);
    for (size_t cut = 0; cut < length; cut++) {
        assert_true(file_write(path, text, cut, 0600, &err));
        records = records_open(path);
        assert_int_equal(chunk_records_count(records), cut < 64 ? 0 : 1);
        add(records, 2, 12);
        chunk_records_close(records);
        records = records_open(path);
        expect(records, 2, 12);
        assert_int_equal(chunk_records_count(records), cut < 64 ? 1 : 2);
        chunk_records_close(records);
    }
    mem_free(text);
    mem_free(path);
}

/* Every byte changed in turn: no record is believed that is not what was written. */
static void damaged_records_are_not_believed(void **state)
{
    struct scratch *scratch = *state;
    char *path = mem_strdup(scratch_path(scratch, "chunks"));
    struct chunk_records *records;
    struct error err;
    char *text;
    size_t length;

    two_records(path, &text, &length);
    for (size_t i = 0; i < length; i++) {
        text[i] ^= 0x20;
        assert_true(file_write(path, text, length, 0600, &err));
        records = records_open(path);
        assert_int_equal(chunk_records_count(records), i < 32 ? 0 : 1);
        chunk_records_close(records);
        text[i] ^= 0x20;
    }
    mem_free(text);
    mem_free(path);
}

static void two_processes_add_to_one_file(void **state)
{
    struct scratch *scratch = *state;
    char *path = mem_strdup(scratch_path(scratch, "chunks"));
    struct chunk_records *first = records_open(path), *second = records_open(path);

    add(first, 1, 1);
    add(second, 2, 2);
    add(first, 3, 3);
    expect_none(first, 2);
    chunk_records_close(first);
    chunk_records_close(second);
    first = records_open(path);
    assert_int_equal(chunk_records_count(first), 3);
    chunk_records_close(first);
    mem_free(path);
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    struct scratch *scratch = *state;
    struct error err;

    assert_null(chunk_records_open(scratch_path(scratch, "none/chunks"), &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_non_null(strstr(err.message, "none/chunks"));
}

static int setup(void **state)
{
    struct scratch *scratch = mem_new(struct scratch);

    scratch_open(scratch);
    *state = scratch;
    return 0;
}

static int teardown(void **state)
{
    scratch_close(*state);
    mem_free(*state);
    return 0;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_added_is_there_again), CASE(the_forgotten_is_gone_until_it_comes_again),
        CASE(cut_files_keep_whole_records),  CASE(damaged_records_are_not_believed),
        CASE(two_processes_add_to_one_file), CASE(a_folder_that_is_not_there_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
