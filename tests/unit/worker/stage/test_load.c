/* Loading that goes wrong: each failure names the file and the tensor. */
#include "worker/stage/load.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES_MAX 5

static const char *const files[FILES_MAX] = {
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
};
static const char *const f8_files[FILES_MAX] = {
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
};

static void copy_model(struct scratch *scratch, const char *model, const char *const *names)
{
    for (size_t i = 0; i < FILES_MAX && names[i] != NULL; i++) {
        struct error err;
        char path[512];
        size_t length;
        char *bytes;

        (void)snprintf(path, sizeof(path), "%s/%s/model/%s", SHOAL_TEST_DATA, model, names[i]);
        assert_true(file_read(path, 1 << 24, &bytes, &length, &err));
        assert_true(file_write(scratch_path(scratch, names[i]), bytes, length, 0600, &err));
        mem_free(bytes);
    }
}

struct opened {
    struct scratch scratch;
    struct catalog *catalog;
    struct weights *weights;
    struct load_plan *plan;
    void *memory;
    const struct load_guard *guard;
    struct load_progress progress;
};

static void opened_begin_model(struct opened *opened, const char *model, const char *const *names)
{
    struct error err;
    struct weights_share share = {.has_embedding = true, .has_head = true};

    *opened = (struct opened){0};
    scratch_open(&opened->scratch);
    copy_model(&opened->scratch, model, names);
    opened->catalog = catalog_open(opened->scratch.folder, &err);
    assert_non_null(opened->catalog);
    share.layer_end = opened->catalog->arch.layer_count;
    opened->weights = weights_plan(opened->catalog, &share, &err);
    assert_non_null(opened->weights);
    opened->plan = load_plan_create(opened->weights);
    opened->memory = mem_map_pages(opened->weights->memory_bytes, &err);
    assert_non_null(opened->memory);
    weights_bind(opened->weights, opened->memory);
}

static void opened_begin(struct opened *opened)
{
    opened_begin_model(opened, "deepseek_v3-bf16", files);
}

static void opened_end(struct opened *opened)
{
    mem_unmap_pages(opened->memory, opened->weights->memory_bytes);
    load_plan_destroy(opened->plan);
    weights_destroy(opened->weights);
    catalog_close(opened->catalog);
    scratch_close(&opened->scratch);
}

static bool load(struct opened *opened, uint32_t threads, struct error *err)
{
    return load_weights(&(struct load_config){.catalog = opened->catalog,
                                              .weights = opened->weights,
                                              .plan = opened->plan,
                                              .thread_count = threads,
                                              .guard = opened->guard,
                                              .progress = &opened->progress},
                        err);
}

static void same_memory_expected(const char *model, const char *const *names)
{
    struct opened opened;
    struct error err;
    char *one;

    opened_begin_model(&opened, model, names);
    one = mem_new_array(char, opened.weights->memory_bytes);
    assert_true(load(&opened, 1, &err));
    assert_true(atomic_load(&opened.progress.done_bytes) == opened.weights->file_bytes);
    memcpy(one, opened.memory, opened.weights->memory_bytes);
    memset(opened.memory, 0, opened.weights->memory_bytes);
    atomic_store(&opened.progress.done_bytes, 0);
    assert_true(load(&opened, 5, &err));
    assert_true(atomic_load(&opened.progress.done_bytes) == opened.weights->file_bytes);
    assert_memory_equal(one, opened.memory, opened.weights->memory_bytes);
    mem_free(one);
    opened_end(&opened);
}

static void any_number_of_threads_gives_the_same_memory(void **state)
{
    (void)state;
    same_memory_expected("deepseek_v3-bf16", files);
    same_memory_expected("deepseek_v3-fp8", f8_files);
}

/* Writes bytes into a file of the opened model. */
static void overwrite(struct opened *opened, uint32_t file, uint64_t offset, const char bytes[4])
{
    FILE *stream = fopen(opened->catalog->files[file].path, "r+b");

    assert_non_null(stream);
    assert_int_equal(fseek(stream, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, 4, stream), 4);
    assert_int_equal(fclose(stream), 0);
}

static void codes_that_are_no_numbers_are_named_with_their_tensor(void **state)
{
    struct opened opened;
    struct error err = {0};
    const struct tensor *tensor;

    (void)state;
    opened_begin_model(&opened, "deepseek_v3-fp8", f8_files);
    tensor = catalog_find(opened.catalog, ROLE_ATTENTION_OUT, 1, CATALOG_NO_EXPERT);
    overwrite(&opened, tensor->file, tensor->offset + 155 * tensor->columns, "\x01\xff\x02\x03");
    assert_false(load(&opened, 2, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.message, tensor->name));
    assert_non_null(strstr(err.message, "hold NaN"));
    opened_end(&opened);
}

static void scales_that_are_not_finite_are_named(void **state)
{
    static const char bad[][5] = {"\x00\x00\xc0\x7f", "\x00\x00\x80\xff", "\x00\x00\x80\x7b"};
    static const enum tensor_role roles[] = {ROLE_KV_B, ROLE_ATTENTION_OUT, ROLE_DOWN};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct opened opened;
        struct error err = {0};
        const struct tensor *tensor;

        opened_begin_model(&opened, "deepseek_v3-fp8", f8_files);
        tensor = catalog_find(opened.catalog, roles[i], 0, CATALOG_NO_EXPERT);
        overwrite(&opened, tensor->scales.file, tensor->scales.offset + tensor->scales.bytes - 4,
                  bad[i]);
        assert_false(load(&opened, 2, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        assert_non_null(strstr(err.message, tensor->name));
        assert_non_null(strstr(err.message, "_scale_inv"));
        opened_end(&opened);
    }
}

static void a_file_cut_after_it_was_opened_is_named_with_its_tensor(void **state)
{
    struct opened opened;
    struct error err = {0};

    (void)state;
    opened_begin(&opened);
    assert_int_equal(truncate(scratch_path(&opened.scratch, files[3]), 20000), 0);
    assert_false(load(&opened, 2, &err));
    assert_non_null(strstr(err.message, files[3]));
    assert_non_null(strstr(err.message, "tensor model."));
    opened_end(&opened);
}

static void a_file_that_vanished_is_named(void **state)
{
    struct opened opened;
    struct error err = {0};

    (void)state;
    opened_begin(&opened);
    assert_int_equal(unlink(scratch_path(&opened.scratch, files[4])), 0);
    assert_false(load(&opened, 2, &err));
    assert_int_equal(err.code, ERROR_SYSTEM);
    assert_non_null(strstr(err.message, files[4]));
    opened_end(&opened);
}

static void a_cancelled_load_ends(void **state)
{
    struct opened opened;
    struct error err = {0};

    (void)state;
    opened_begin(&opened);
    atomic_store(&opened.progress.cancel, true);
    assert_false(load(&opened, 2, &err));
    opened_end(&opened);
}

static void memory_that_is_out_is_an_error(void **state)
{
    struct opened opened;
    struct error err = {0};

    (void)state;
    opened_begin(&opened);
    mem_fail_after(1);
    assert_false(load(&opened, 1, &err));
    mem_fail_after(0);
    assert_int_equal(err.code, ERROR_LIMIT);
    opened_end(&opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads_gives_the_same_memory),
        cmocka_unit_test(codes_that_are_no_numbers_are_named_with_their_tensor),
        cmocka_unit_test(scales_that_are_not_finite_are_named),
        cmocka_unit_test(a_file_cut_after_it_was_opened_is_named_with_its_tensor),
        cmocka_unit_test(a_file_that_vanished_is_named),
        cmocka_unit_test(a_cancelled_load_ends),
        cmocka_unit_test(memory_that_is_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
