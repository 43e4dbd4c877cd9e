/* test_model_path.c - what --model names, and what the model is called. */
#include "common/model/model_path.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void write_text(const char *path, const char *text)
{
    struct error err = {0};

    assert_true(file_write(path, text, strlen(text), 0600, &err));
}

static void expect_refused(const char *path, const char *words)
{
    struct error err = {0};
    enum model_format format;

    assert_false(model_path_format(path, &format, &err));
    if (strstr(err.message, words) == NULL) {
        fail_msg("\"%s\" is not in: %s", words, err.message);
    }
}

static void directories_and_gguf_files_are_models(void **state)
{
    (void)state;
    struct error err = {0};
    enum model_format format;

    assert_true(model_path_format(SHOAL_TEST_DATA "/llama-bf16/model", &format, &err));
    assert_int_equal(format, MODEL_SAFETENSORS);
    assert_true(model_path_format(SHOAL_TEST_DATA "/gguf/llama/Q8_0/model.gguf", &format, &err));
    assert_int_equal(format, MODEL_GGUF);
}

static void other_paths_are_refused_with_what_they_are(void **state)
{
    (void)state;
    struct scratch scratch;

    scratch_open(&scratch);
    expect_refused(scratch_path(&scratch, "nothing"), "nothing: No such file or directory");
    expect_refused("/dev/null", "/dev/null: is neither a file nor a directory");
    write_text(scratch_path(&scratch, "empty.gguf"), "");
    expect_refused(scratch.path, "empty.gguf: is no GGUF file; a model is one, or a directory");
    write_text(scratch_path(&scratch, "short"), "GGU");
    expect_refused(scratch.path, "short: is no GGUF file");
    write_text(scratch_path(&scratch, "pointer.gguf"), "version https://git-lfs.github.com/spec\n");
    expect_refused(scratch.path, "pointer.gguf: is a git-lfs pointer");
    scratch_close(&scratch);
}

static void a_folder_of_gguf_files_names_the_first(void **state)
{
    (void)state;
    struct scratch scratch;
    struct error err = {0};
    enum model_format format;

    scratch_open(&scratch);
    write_text(scratch_path(&scratch, "m-00002-of-00002.gguf"), "GGUF");
    write_text(scratch_path(&scratch, "m-00001-of-00002.gguf"), "GGUF");
    expect_refused(scratch.folder, "name the file itself: ");
    expect_refused(scratch.folder, "/m-00001-of-00002.gguf");
    write_text(scratch_path(&scratch, "config.json"), "{}");
    assert_true(model_path_format(scratch.folder, &format, &err));
    scratch_close(&scratch);
}

static void names_are_short(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/models/R1-Q4_K_M-00001-of-00009.gguf", "R1-Q4_K_M"},
        {"R1.Q8_0.gguf", "R1.Q8_0"},
        {"/models/nowhere", "nowhere"},
        {"-00001-of-00009.gguf", "-00001-of-00009"},
        {SHOAL_TEST_DATA "/llama-bf16/", "llama-bf16"},
        {SHOAL_TEST_DATA "/llama-bf16/model/..", "llama-bf16"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *name = model_path_name(cases[i][0]);

        assert_string_equal(name, cases[i][1]);
        mem_free(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_and_gguf_files_are_models),
        cmocka_unit_test(other_paths_are_refused_with_what_they_are),
        cmocka_unit_test(a_folder_of_gguf_files_names_the_first),
        cmocka_unit_test(names_are_short),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
