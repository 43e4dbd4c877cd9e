/* test_missing_files.c - what a broken-off download lacks. */
#include "common/model/missing_files.h"

#include "common/base/file.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct bench {
    struct scratch scratch;
    struct arena arena;
    struct missing_files found;
    struct error err;
};

static void bench_init(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    scratch_open(&b->scratch);
    arena_init(&b->arena, 4096);
}

static void bench_deinit(struct bench *b)
{
    arena_deinit(&b->arena);
    scratch_close(&b->scratch);
}

static void put(struct bench *b, const char *name, const char *text)
{
    assert_true(file_write(scratch_path(&b->scratch, name), text, strlen(text), 0644, &b->err));
}

static const char index_text[] =
    "{\"weight_map\": {\"a\": \"m-2.safetensors\", \"b\": \"m-1.safetensors\", \"c\": 7,"
    " \"d\": \"m-3.safetensors\", \"e\": \"m-2.safetensors\"}}";

static void shards_of_the_index_are_looked_for(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b);
    put(&b, "model.safetensors.index.json", index_text);
    put(&b, "m-1.safetensors", "");
    assert_true(missing_files_find(b.scratch.folder, &b.arena, &b.found, &b.err));
    assert_int_equal(b.found.file_count, 3);
    assert_int_equal(b.found.missing_count, 2);
    assert_string_equal(b.found.names[0], "m-2.safetensors");
    assert_string_equal(b.found.names[1], "m-3.safetensors");
    bench_deinit(&b);
}

static void splits_are_counted_by_the_name(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b);
    put(&b, "x-Q4-00001-of-00003.gguf", "");
    put(&b, "x-Q4-00003-of-00003.gguf", "");
    assert_true(missing_files_find(scratch_path(&b.scratch, "x-Q4-00001-of-00003.gguf"), &b.arena,
                                   &b.found, &b.err));
    assert_int_equal(b.found.file_count, 3);
    assert_int_equal(b.found.missing_count, 1);
    assert_string_equal(b.found.names[0], "x-Q4-00002-of-00003.gguf");
    bench_deinit(&b);
}

static void without_a_list_nothing_is_missing(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b);
    put(&b, "whole.gguf", "");
    assert_true(missing_files_find(b.scratch.folder, &b.arena, &b.found, &b.err));
    assert_int_equal(b.found.file_count, 0);
    assert_true(
        missing_files_find(scratch_path(&b.scratch, "whole.gguf"), &b.arena, &b.found, &b.err));
    assert_int_equal(b.found.file_count, 0);
    assert_true(missing_files_find("nowhere", &b.arena, &b.found, &b.err));
    assert_int_equal(b.found.missing_count, 0);
    bench_deinit(&b);
}

static void a_bad_index_is_refused(void **state)
{
    static const char *const texts[] = {"{", "{}", "{\"weight_map\": []}", "[]"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct bench b;

        bench_init(&b);
        put(&b, "model.safetensors.index.json", texts[i]);
        assert_false(missing_files_find(b.scratch.folder, &b.arena, &b.found, &b.err));
        assert_non_null(strstr(b.err.message, "model.safetensors.index.json"));
        bench_deinit(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_of_the_index_are_looked_for),
        cmocka_unit_test(splits_are_counted_by_the_name),
        cmocka_unit_test(without_a_list_nothing_is_missing),
        cmocka_unit_test(a_bad_index_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
