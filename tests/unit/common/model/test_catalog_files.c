/* test_catalog_files.c - files that are missing, cut or something else. */
#include "common/model/catalog.h"

#include "common/base/mem.h"
#include "tests/unit/common/model/model_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const char shard1[] = "model-00001-of-00003.safetensors";
static const char shard2[] = "model-00002-of-00003.safetensors";
static const char index_file[] = "model.safetensors.index.json";

static void a_shard_that_the_index_names_is_missed(void **state)
{
    (void)state;
    static const char *const words[] = {shard2, "is missing, though", index_file, NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    assert_int_equal(unlink(model_copy_path(&copy, shard2)), 0);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void a_directory_without_weights_says_what_it_looked_for(void **state)
{
    (void)state;
    static const char *const words[] = {"has neither model.safetensors nor", index_file, NULL};
    struct model_copy copy;

    model_copy_open(&copy);
    assert_int_equal(unlink(model_copy_path(&copy, index_file)), 0);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void a_shard_cut_anywhere_is_refused(void **state)
{
    (void)state;
    static const char *const words[] = {shard1, NULL};
    /* of a header of 8712 bytes and a file of 753744: around the edges, then the first bytes */
    static const size_t lengths[] = {100,  4096,  8712,   8719,   8720,   8721,
                                     9000, 65536, 400000, 753000, 753742, 753743};
    struct model_copy copy;

    model_copy_open(&copy);
    for (size_t i = ARRAY_LENGTH(lengths); i-- > 0;) {
        model_copy_cut(&copy, shard1, lengths[i]);
        model_copy_expect_error(&copy, words);
    }
    for (size_t length = 40; length-- > 0;) {
        model_copy_cut(&copy, shard1, length);
        model_copy_expect_error(&copy, words);
    }
    model_copy_close(&copy);
}

/* A whole single-file checkpoint of one tensor, cut at every byte of its header. */
static void a_small_file_cut_at_every_byte_is_refused(void **state)
{
    (void)state;
    static const char json[] =
        "{\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[96],\"data_offsets\":[0,192]}}";
    char file[8 + sizeof(json) - 1 + 192] = {sizeof(json) - 1};
    struct model_copy copy;

    memcpy(file + 8, json, sizeof(json) - 1);
    model_copy_open(&copy);
    for (size_t length = 0; length < sizeof(file); length++) {
        static const char *const words[] = {"model.safetensors: ", NULL};

        model_copy_write(&copy, "model.safetensors", file, length);
        model_copy_expect_error(&copy, words);
    }
    model_copy_write(&copy, "model.safetensors", file, sizeof(file));
    {
        static const char *const words[] = {"tensors of the model are missing", NULL};

        model_copy_expect_error(&copy, words);
    }
    model_copy_close(&copy);
}

static void expect_file(struct model_copy *copy, const void *bytes, size_t length,
                        const char *expected)
{
    const char *words[] = {shard1, expected, NULL};

    model_copy_write(copy, shard1, bytes, length);
    model_copy_expect_error(copy, words);
}

static void files_that_are_something_else_are_named(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    static const char huge[] = "\xff\xff\xff\xff\xff\xff\xff\x7f{}";
    static const char none[8] = {0};
    static const char garbage[] = "\x04\0\0\0\0\0\0\0\xff\xfe{}";
    struct model_copy copy;

    model_copy_open(&copy);
    expect_file(&copy, "", 0, "0 bytes are too few");
    expect_file(&copy, "1234567", 7, "7 bytes are too few");
    expect_file(&copy, pointer, sizeof(pointer) - 1, "git lfs pull");
    expect_file(&copy, huge, sizeof(huge) - 1, "header claims 9223372036854775807 bytes, 2 left");
    expect_file(&copy, none, sizeof(none), "header: line 1");
    expect_file(&copy, garbage, sizeof(garbage) - 1, "header: line 1");
    expect_file(&copy, "\x02\0\0\0\0\0\0\0{}", 10, "");
    assert_int_equal(unlink(model_copy_path(&copy, shard1)), 0);
    assert_int_equal(mkdir(model_copy_path(&copy, shard1), 0700), 0);
    {
        static const char *const words[] = {shard1, "is not a file", NULL};

        model_copy_expect_error(&copy, words);
    }
    model_copy_close(&copy);
}

static void expect_index(struct model_copy *copy, const char *text, const char *expected)
{
    const char *words[] = {expected, NULL};

    model_copy_write(copy, index_file, text, strlen(text));
    model_copy_expect_error(copy, words);
}

static void each_damage_of_the_index_has_its_message(void **state)
{
    (void)state;
    struct model_copy copy;

    model_copy_open(&copy);
    expect_index(&copy, "", "index.json: line 1");
    expect_index(&copy, "[]", "index.json: must be an object, got a");
    expect_index(&copy, "{}", "field \"weight_map\" is missing");
    expect_index(&copy, "{\"weight_map\":[]}", "\"weight_map\"");
    expect_index(&copy, "{\"weight_map\":{}}", "weight_map names 0 files");
    expect_index(&copy, "{\"weight_map\":{\"a\":1}}", "tensor a: must be a string, got");
    expect_index(&copy, "{\"weight_map\":{\"a\":\"../x\"}}", "\"../x\" is not a plain file name");
    expect_index(&copy, "{\"weight_map\":{\"a\":\"b/x\"}}", "\"b/x\" is not a plain file name");
    expect_index(&copy, "{\"weight_map\":{\"a\":\"\"}}", "\"\" is not a plain file name");
    expect_index(&copy, "{\"weight_map\":{\"a\":\"gone\"}}", "gone: is missing");
    expect_index(&copy, "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "duplicate");
    model_copy_close(&copy);
}

static void an_index_entry_that_its_shard_lacks_is_named(void **state)
{
    (void)state;
    static const char *const words[] = {
        index_file, "tensor model.extra.weight is not in model-00002-of-00003.safetensors",
        "2 such tensors", NULL};
    struct model_copy copy;
    json_t *index;
    json_t *map;

    model_copy_open(&copy);
    index = json_load_file(model_copy_path(&copy, index_file), 0, NULL);
    map = json_object_get(index, "weight_map");
    json_object_set_new(map, "model.extra.weight", json_string(shard2));
    json_object_set_new(map, "model.more.weight", json_string(shard1));
    model_copy_write_json(&copy, index_file, index);
    json_decref(index);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

static void a_tensor_of_another_shard_than_indexed_is_named(void **state)
{
    (void)state;
    static const char *const words[] = {"tensor lm_head.weight is not in model-00001", NULL};
    struct model_copy copy;
    json_t *index;

    model_copy_open(&copy);
    index = json_load_file(model_copy_path(&copy, index_file), 0, NULL);
    json_object_set_new(json_object_get(index, "weight_map"), "lm_head.weight",
                        json_string(shard1));
    model_copy_write_json(&copy, index_file, index);
    json_decref(index);
    model_copy_expect_error(&copy, words);
    model_copy_close(&copy);
}

/* Every allocation that can fail is made to; the last round has none left to fail. */
static void each_failing_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    struct catalog *catalog = NULL;
    int failures = 0;

    for (uint64_t n = 1; catalog == NULL; n++) {
        struct error err = {0};

        mem_fail_after(n);
        catalog = catalog_open(SHOAL_TEST_DATA "/deepseek_v3-bf16/model", &err);
        mem_fail_after(0);
        if (catalog == NULL) {
            assert_int_equal(err.code, ERROR_LIMIT);
            failures++;
        }
        assert_true(n < 1000);
    }
    assert_true(failures > 3);
    catalog_close(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shard_that_the_index_names_is_missed),
        cmocka_unit_test(a_directory_without_weights_says_what_it_looked_for),
        cmocka_unit_test(a_shard_cut_anywhere_is_refused),
        cmocka_unit_test(a_small_file_cut_at_every_byte_is_refused),
        cmocka_unit_test(files_that_are_something_else_are_named),
        cmocka_unit_test(each_damage_of_the_index_has_its_message),
        cmocka_unit_test(an_index_entry_that_its_shard_lacks_is_named),
        cmocka_unit_test(a_tensor_of_another_shard_than_indexed_is_named),
        cmocka_unit_test(each_failing_allocation_is_an_error_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
