/* test_gguf.c - GGUF files on disk: golden ones, and sets of splits that do not fit together. */
#include "tests/unit/common/model/gguf_fixture.h"

#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct gguf *golden_open(const char *name)
{
    char *path = mem_printf("%s/gguf/%s/model.gguf", SHOAL_TEST_DATA, name);
    struct error err = {0};
    struct gguf *gguf = gguf_open(path, &err);

    if (gguf == NULL) {
        fail_msg("%s", err.message);
    }
    mem_free(path);
    return gguf;
}

static void a_golden_model_is_read_whole(void **state)
{
    (void)state;
    struct gguf *gguf = golden_open("deepseek_v3/Q4_K_M");
    const struct gguf_tensor *experts = gguf_find_tensor(gguf, "blk.1.ffn_down_exps.weight");
    uint64_t bytes = 0;

    assert_int_equal(gguf->file_count, 1);
    assert_int_equal(gguf->header.value_count, 48);
    assert_int_equal(gguf->tensor_count, 34);
    assert_non_null(experts);
    assert_int_equal(experts->type, QUANT_Q6_K);
    assert_int_equal(experts->dimension_count, 3);
    assert_int_equal(experts->dimensions[2], 4);
    assert_int_equal(experts->bytes, 210 * 256 * 4);
    assert_null(gguf_find_tensor(gguf, "blk.1.ffn_down_exps"));
    for (uint32_t i = 0; i < gguf->tensor_count; i++) {
        bytes += gguf->tensors[i].bytes;
    }
    assert_true(bytes < gguf->files[0].bytes && bytes > gguf->files[0].bytes / 2);
    gguf_close(gguf);
}

static void a_vocabulary_stays_in_place(void **state)
{
    (void)state;
    struct gguf *gguf = golden_open("llama/Q8_0");
    struct gguf_array tokens;
    struct gguf_string token = {0};
    struct error err = {0};
    uint32_t seen = 0;

    assert_true(gguf_get_array(&gguf->header, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, &err));
    assert_int_equal(tokens.count, 384);
    while (gguf_array_next(&tokens, &token)) {
        seen++;
    }
    assert_int_equal(seen, 384);
    gguf_close(gguf);
}

/* A set of three splits with the tensors a, b and c. */
struct set {
    struct scratch scratch;
    struct gguf_spec specs[3];
};

static void set_name(uint32_t index, char name[64])
{
    (void)snprintf(name, 64, "m-%05u-of-00003.gguf", index + 1);
}

static void set_write(struct set *set, uint32_t index)
{
    char name[64];

    set_name(index, name);
    gguf_spec_save(&set->specs[index], scratch_path(&set->scratch, name));
}

static void set_open(struct set *set)
{
    scratch_open(&set->scratch);
    for (uint32_t i = 0; i < 3; i++) {
        set->specs[i] = gguf_spec_sound();
        set->specs[i].is_split = true;
        set->specs[i].split_no = i;
        set->specs[i].split_count = 3;
        set->specs[i].split_tensors = 3;
        set->specs[i].tensors[0] = set->specs[i].tensors[i];
        set->specs[i].tensors[0].offset = 0;
        set->specs[i].tensor_count = 1;
        set_write(set, i);
    }
}

static void expect_refused(struct set *set, const char *name, const char *words)
{
    struct error err = {0};

    assert_null(gguf_open(scratch_path(&set->scratch, name), &err));
    if (strstr(err.message, words) == NULL) {
        fail_msg("wanted \"%s\", got \"%s\"", words, err.message);
    }
}

static const char first_name[] = "m-00001-of-00003.gguf";

static void splits_make_one_model(void **state)
{
    (void)state;
    struct set set;
    struct error err = {0};
    struct gguf *gguf;

    set_open(&set);
    gguf = gguf_open(scratch_path(&set.scratch, first_name), &err);
    assert_non_null(gguf);
    assert_int_equal(gguf->file_count, 3);
    assert_int_equal(gguf->tensor_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(gguf->tensors[i].file, i);
        assert_int_equal(gguf->tensors[i].name[0], 'a' + (int)i);
    }
    assert_non_null(strstr(gguf->files[2].path, "/m-00003-of-00003.gguf"));
    gguf_close(gguf);
    scratch_close(&set.scratch);
}

static void a_missing_split_is_named(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    assert_int_equal(unlink(scratch_path(&set.scratch, "m-00002-of-00003.gguf")), 0);
    expect_refused(&set, first_name, "m-00002-of-00003.gguf: is missing: split 2 of 3");
    assert_int_equal(unlink(scratch_path(&set.scratch, first_name)), 0);
    expect_refused(&set, first_name, "m-00001-of-00003.gguf: No such file");
    scratch_close(&set.scratch);
}

static void the_model_is_given_by_its_first_split(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    expect_refused(&set, "m-00002-of-00003.gguf",
                   "is split 2 of 3; the model is given by the first");
    scratch_close(&set.scratch);
}

static void mixed_up_splits_are_refused(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    set.specs[1].split_no = 2;
    set_write(&set, 1);
    expect_refused(&set, first_name,
                   "00002-of-00003.gguf: says split 3 of 3 with 3 tensors; split 2 of 3 with 3");
    set.specs[1].split_no = 1;
    set.specs[1].split_count = 4;
    set_write(&set, 1);
    expect_refused(&set, first_name, "says split 2 of 4");
    set.specs[1].split_count = 3;
    set.specs[1].split_tensors = 9;
    set_write(&set, 1);
    expect_refused(&set, first_name, "with 9 tensors");
    set.specs[1].split_tensors = 3;
    set.specs[1].tensors[0].name = "a";
    set_write(&set, 1);
    expect_refused(&set, first_name, "tensor a is in ");
    set.specs[1].is_split = false;
    set_write(&set, 1);
    expect_refused(&set, first_name, "says split 1 of 1");
    scratch_close(&set.scratch);
}

static void splits_without_all_tensors_are_refused(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    set.specs[2].tensor_count = 0;
    set_write(&set, 2);
    expect_refused(&set, first_name, "its 3 splits have 2 tensors, not the 3");
    scratch_close(&set.scratch);
}

static void names_and_metadata_of_the_first_split_agree(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    gguf_spec_save(&set.specs[0], scratch_path(&set.scratch, "renamed.gguf"));
    expect_refused(&set, "renamed.gguf", "its name does not end in -00001-of-00003.gguf");
    gguf_spec_save(&set.specs[0], scratch_path(&set.scratch, "m-00001-of-00002.gguf"));
    expect_refused(&set, "m-00001-of-00002.gguf",
                   "its name says split 1 of 2, its metadata split 1 of 3");
    set.specs[0].split_count = 0;
    set.specs[0].split_no = 3;
    set_write(&set, 0);
    expect_refused(&set, first_name, "\"split.no\" is 3");
    set.specs[0].is_split = false;
    set_write(&set, 0);
    expect_refused(&set, first_name, "its name says split 1 of 3, its metadata split 1 of 1");
    gguf_spec_save(&set.specs[0], scratch_path(&set.scratch, "m-00001-of-00001.gguf"));
    gguf_close(gguf_open(scratch_path(&set.scratch, "m-00001-of-00001.gguf"), &(struct error){0}));
    scratch_close(&set.scratch);
}

static void a_header_beyond_the_first_read_is_found(void **state)
{
    (void)state;
    struct set set;
    struct error err = {0};
    struct gguf *gguf;

    set_open(&set);
    set.specs[0] = gguf_spec_sound();
    gguf_put_key(&set.specs[0].value, "long", GGUF_ARRAY);
    gguf_put_u32(&set.specs[0].value, GGUF_U32);
    gguf_put_u64(&set.specs[0].value, 500000);
    for (uint32_t i = 0; i < 500000; i++) {
        gguf_put_u32(&set.specs[0].value, i);
    }
    gguf_spec_save(&set.specs[0], scratch_path(&set.scratch, "long.gguf"));
    gguf = gguf_open(scratch_path(&set.scratch, "long.gguf"), &err);
    assert_non_null(gguf);
    assert_int_equal(gguf_array_integer(&gguf_find(&gguf->header, "long")->array, 499999), 499999);
    gguf_close(gguf);
    buffer_deinit(&set.specs[0].value);
    scratch_close(&set.scratch);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    struct set set;

    set_open(&set);
    expect_refused(&set, ".", "is not a file");
    expect_refused(&set, "none.gguf", "No such file");
    gguf_close(NULL);
    scratch_close(&set.scratch);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct set set;
    uint64_t failing = 1;
    struct gguf *gguf;

    set_open(&set);
    for (;; failing++) {
        struct error err = {0};

        mem_fail_after(failing);
        gguf = gguf_open(scratch_path(&set.scratch, first_name), &err);
        if (gguf != NULL) {
            break;
        }
        assert_int_equal(err.code, ERROR_LIMIT);
    }
    mem_fail_after(0);
    assert_true(failing > 9);
    gguf_close(gguf);
    scratch_close(&set.scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_golden_model_is_read_whole),
        cmocka_unit_test(a_vocabulary_stays_in_place),
        cmocka_unit_test(splits_make_one_model),
        cmocka_unit_test(a_missing_split_is_named),
        cmocka_unit_test(the_model_is_given_by_its_first_split),
        cmocka_unit_test(mixed_up_splits_are_refused),
        cmocka_unit_test(splits_without_all_tensors_are_refused),
        cmocka_unit_test(names_and_metadata_of_the_first_split_agree),
        cmocka_unit_test(a_header_beyond_the_first_read_is_found),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
