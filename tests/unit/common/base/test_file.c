/* test_file.c - files with checked lengths. */
#include "common/base/file.h"

#include "common/base/mem.h"
#include "tests/support/random.h"
#include "tests/support/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4095, 4096, 65535, 65536, 300000};
    static unsigned char bytes[300000];
    struct scratch scratch;
    struct random random;
    struct error err = {0};

    random_init(&random, 7);
    random_fill(&random, bytes, sizeof(bytes));
    scratch_open(&scratch);
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        const char *path = scratch_path(&scratch, "data");
        char *text;
        size_t length;
        uint64_t size;

        assert_true(file_write(path, bytes, sizes[i], 0640, &err));
        assert_true(file_read(path, sizes[i], &text, &length, &err));
        assert_int_equal(length, sizes[i]);
        assert_memory_equal(text, bytes, length);
        assert_int_equal(text[length], 0);
        mem_free(text);
        assert_true(file_size(path, &size, &err));
        assert_int_equal(size, sizes[i]);
        assert_true(file_exists(path));
    }
    scratch_close(&scratch);
}

static void a_file_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    char *text = NULL;
    size_t length = 9;

    scratch_open(&scratch);
    assert_true(file_write(scratch_path(&scratch, "data"), "12345", 5, 0600, &err));
    assert_false(file_read(scratch_path(&scratch, "data"), 4, &text, &length, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    assert_non_null(strstr(err.message, "/data: longer than the limit of 4 bytes"));
    assert_null(text);
    assert_int_equal(length, 9);
    assert_false(file_read("/dev/zero", 200000, &text, &length, &err)); /* no size, no end */
    assert_int_equal(err.code, ERROR_LIMIT);
    scratch_close(&scratch);
}

static void a_file_without_a_size_is_read_to_its_end(void **state)
{
    (void)state;
    struct error err = {0};
    char *text;
    size_t length;

    assert_true(file_read("/proc/self/status", 1 << 20, &text, &length, &err));
    assert_int_equal(strlen(text), length);
    assert_non_null(strstr(text, "Name:"));
    mem_free(text);
}

static void errors_name_the_path(void **state)
{
    (void)state;
    struct error err = {0};
    char *text;
    size_t length;
    uint64_t size;

    assert_false(file_read("/no/such/file", 1, &text, &length, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_string_equal(err.message, "/no/such/file: cannot open: No such file or directory");
    assert_false(file_size("/no/such/file", &size, &err));
    assert_string_equal(err.message, "/no/such/file: cannot stat: No such file or directory");
    assert_false(file_size("/", &size, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_false(file_read("/", 1, &text, &length, &err));
    assert_string_equal(err.message, "/: cannot read: Is a directory");
    assert_false(file_write("/no/such/file", "", 0, 0600, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_false(file_exists("/no/such/file"));
}

static size_t entry_count(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t count = 0;

    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        count += entry->d_name[0] == '.' ? 0 : 1;
    }
    closedir(dir);
    return count;
}

static void a_failed_write_leaves_the_old_file_and_nothing_else(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    struct stat status;

    scratch_open(&scratch);
    assert_true(file_write(scratch_path(&scratch, "a"), "old", 3, 0604, &err));
    assert_int_equal(stat(scratch_path(&scratch, "a"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0604);
    assert_true(file_write(scratch_path(&scratch, "a"), "new", 3, 0600, &err));
    assert_int_equal(entry_count(scratch.folder), 1);
    assert_int_equal(mkdir(scratch_path(&scratch, "folder"), 0700), 0);
    assert_false(file_write(scratch_path(&scratch, "folder"), "new", 3, 0600, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_int_equal(entry_count(scratch.folder), 2);
    scratch_close(&scratch);
}

static void a_piece_is_read_whole_or_refused(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    char piece[8] = "";
    int fd;

    scratch_open(&scratch);
    assert_true(file_write(scratch_path(&scratch, "a"), "0123456789", 10, 0600, &err));
    fd = open(scratch_path(&scratch, "a"), O_RDONLY);
    assert_true(fd >= 0);
    assert_true(file_pread(fd, piece, 4, 6, "a", &err));
    assert_string_equal(piece, "6789");
    assert_true(file_pread(fd, piece, 0, 10, "a", &err));
    assert_false(file_pread(fd, piece, 4, 7, "a", &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.message, "a: ends at offset 10, wanted 4 bytes at 7");
    assert_false(file_pread(fd, piece, 1, UINT64_MAX, "a", &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_false(file_pread(fd, piece, 2, INT64_MAX, "a", &err));
    assert_int_equal(err.code, ERROR_INPUT);
    close(fd);
    assert_false(file_pread(-1, piece, 2, 0, "a", &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    scratch_close(&scratch);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct error err = {0};
    char *text;
    size_t length;

    for (uint64_t n = 1; n < 20; n++) {
        bool done;

        mem_fail_after(n);
        done = file_read("/proc/self/status", 1 << 20, &text, &length, &err);
        mem_fail_after(0);
        if (done) {
            mem_free(text);
            return;
        }
        assert_int_equal(err.code, ERROR_LIMIT);
    }
    fail();
}

static void the_last_component_is_the_name(void **state)
{
    (void)state;
    assert_string_equal(file_name("/models/R1/config.json"), "config.json");
    assert_string_equal(file_name("config.json"), "config.json");
    assert_string_equal(file_name("folder/"), "");
}

static void bytes_are_written_where_they_belong(void **state)
{
    struct scratch scratch;
    struct error err;
    const char *path;
    char got[8];
    int fd;

    (void)state;
    scratch_open(&scratch);
    path = scratch_path(&scratch, "file");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_true(file_pwrite(fd, "abcdef", 6, 2, path, &err));
    assert_true(file_pwrite(fd, "XY", 2, 3, path, &err));
    assert_true(file_pread(fd, got, 8, 0, path, &err));
    assert_memory_equal(got, "\0\0aXYdef", 8);
    assert_int_equal(close(fd), 0);
    assert_false(file_pwrite(fd, "x", 1, 0, path, &err));
    assert_non_null(strstr(err.message, path));
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_file_beyond_the_limit_is_refused),
        cmocka_unit_test(a_file_without_a_size_is_read_to_its_end),
        cmocka_unit_test(errors_name_the_path),
        cmocka_unit_test(a_failed_write_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(a_piece_is_read_whole_or_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
        cmocka_unit_test(the_last_component_is_the_name),
        cmocka_unit_test(bytes_are_written_where_they_belong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
