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

#define MODEL SHOAL_TEST_DATA "/deepseek_v3-bf16/model"

static const char *const files[] = {
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
};

static void copy_model(struct scratch *scratch)
{
    for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
        struct error err;
        char path[512];
        size_t length;
        char *bytes;

        (void)snprintf(path, sizeof(path), "%s/%s", MODEL, files[i]);
        assert_true(file_read(path, 1 << 24, &bytes, &length, &err));
        assert_true(file_write(scratch_path(scratch, files[i]), bytes, length, 0600, &err));
        mem_free(bytes);
    }
}

struct opened {
    struct scratch scratch;
    struct catalog *catalog;
    struct weights *weights;
    void *memory;
    struct load_progress progress;
};

static void opened_begin(struct opened *opened)
{
    struct error err;
    struct weights_share share = {.has_embedding = true, .has_head = true};

    *opened = (struct opened){0};
    scratch_open(&opened->scratch);
    copy_model(&opened->scratch);
    opened->catalog = catalog_open(opened->scratch.folder, &err);
    assert_non_null(opened->catalog);
    share.layer_end = opened->catalog->arch.layer_count;
    opened->weights = weights_plan(opened->catalog, &share, &err);
    assert_non_null(opened->weights);
    opened->memory = mem_map_pages(opened->weights->memory_bytes, &err);
    assert_non_null(opened->memory);
    weights_bind(opened->weights, opened->memory);
}

static void opened_end(struct opened *opened)
{
    mem_unmap_pages(opened->memory, opened->weights->memory_bytes);
    weights_destroy(opened->weights);
    catalog_close(opened->catalog);
    scratch_close(&opened->scratch);
}

static bool load(struct opened *opened, uint32_t threads, struct error *err)
{
    return load_weights(opened->catalog, opened->weights, threads, &opened->progress, err);
}

static void any_number_of_threads_gives_the_same_memory(void **state)
{
    struct opened opened;
    struct error err;
    char *one;

    (void)state;
    opened_begin(&opened);
    one = mem_new_array(char, opened.weights->memory_bytes);
    assert_true(load(&opened, 1, &err));
    assert_true(atomic_load(&opened.progress.done_bytes) == opened.weights->file_bytes);
    memcpy(one, opened.memory, opened.weights->memory_bytes);
    memset(opened.memory, 0, opened.weights->memory_bytes);
    assert_true(load(&opened, 5, &err));
    assert_memory_equal(one, opened.memory, opened.weights->memory_bytes);
    mem_free(one);
    opened_end(&opened);
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
        cmocka_unit_test(a_file_cut_after_it_was_opened_is_named_with_its_tensor),
        cmocka_unit_test(a_file_that_vanished_is_named),
        cmocka_unit_test(a_cancelled_load_ends),
        cmocka_unit_test(memory_that_is_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
