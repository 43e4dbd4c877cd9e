/* test_gguf_header.c - one header, sound, cut and lying. */
#include "tests/unit/common/model/gguf_fixture.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* From a block of exactly that length, so that a sanitizer sees reads behind it. */
static enum gguf_outcome parse(const char *bytes, size_t length, uint64_t file_bytes,
                               struct error *err)
{
    char *block = mem_new_array(char, length);
    struct gguf_header header;
    enum gguf_outcome outcome;

    memcpy(block, bytes, length);
    *err = (struct error){0};
    outcome = gguf_header_init(&header, block, length, file_bytes, err);
    if (outcome == GGUF_PARSED) {
        for (uint32_t i = 0; i < header.tensor_count; i++) {
            assert_true(header.tensors[i].offset >= header.data_begin);
            assert_true(header.tensors[i].offset + header.tensors[i].bytes <= file_bytes);
        }
        gguf_header_deinit(&header);
    } else {
        assert_true(err->message[0] != '\0');
    }
    mem_free(block);
    return outcome;
}

static void expect_refused(const struct gguf_spec *spec, const char *words)
{
    struct buffer file = gguf_spec_write(spec, NULL);
    struct error err;

    if (parse(file.data, file.length, file.length, &err) != GGUF_REFUSED ||
        strstr(err.message, words) == NULL) {
        fail_msg("wanted \"%s\", got \"%s\"", words, err.message);
    }
    buffer_deinit(&file);
}

static void a_sound_header_is_read_whole(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    struct buffer file = gguf_spec_write(&spec, NULL);
    struct gguf_header header;
    struct error err = {0};

    assert_int_equal(gguf_header_init(&header, file.data, file.length, file.length, &err),
                     GGUF_PARSED);
    assert_int_equal(header.version, 3);
    assert_int_equal(header.alignment, 32);
    assert_int_equal(header.data_begin, file.length - spec.data_bytes);
    assert_int_equal(header.value_count, 2);
    assert_int_equal(header.tensor_count, 3);
    assert_string_equal(header.tensors[2].name, "c");
    assert_int_equal(header.tensors[2].type, QUANT_Q4_K);
    assert_int_equal(header.tensors[2].dimension_count, 2);
    assert_int_equal(header.tensors[2].dimensions[0], 256);
    assert_int_equal(header.tensors[2].dimensions[1], 2);
    assert_int_equal(header.tensors[2].dimensions[2], 1);
    assert_int_equal(header.tensors[2].offset, header.data_begin + 128);
    assert_int_equal(header.tensors[2].bytes, 288);
    gguf_header_deinit(&header);
    buffer_deinit(&file);
}

static void version_2_and_other_alignments_are_read(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    struct buffer file;
    struct error err;

    spec.version = 2;
    spec.alignment = 64;
    spec.tensors[1].offset = 64;
    file = gguf_spec_write(&spec, NULL);
    assert_int_equal(parse(file.data, file.length, file.length, &err), GGUF_REFUSED);
    assert_non_null(strstr(err.message, "overlap")); /* b is 68 bytes, c begins at 128 */
    buffer_deinit(&file);
    spec.tensors[2].offset = 192;
    spec.data_bytes += 64;
    file = gguf_spec_write(&spec, NULL);
    assert_int_equal(parse(file.data, file.length, file.length, &err), GGUF_PARSED);
    buffer_deinit(&file);
}

static void a_header_cut_anywhere_is_short_or_refused(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    size_t header_bytes;
    struct buffer file = gguf_spec_write(&spec, &header_bytes);
    struct error err;

    for (size_t cut = 0; cut < file.length; cut++) {
        enum gguf_outcome begun = parse(file.data, cut, file.length, &err);

        assert_int_equal(begun, cut < header_bytes ? GGUF_SHORT : GGUF_PARSED);
        assert_int_equal(parse(file.data, cut, cut, &err), GGUF_REFUSED);
    }
    buffer_deinit(&file);
}

static void golden_headers_are_read_and_their_cuts_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"deepseek_v3/Q4_K_M", "llama/Q8_0"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char *path = mem_printf("%s/gguf/%s/model.gguf", SHOAL_TEST_DATA, names[i]);
        struct error err = {0};
        char *bytes = NULL;
        size_t length, cut = 0;

        assert_true(file_read(path, 1 << 24, &bytes, &length, &err));
        assert_int_equal(parse(bytes, length, length, &err), GGUF_PARSED);
        while (parse(bytes, cut, length, &err) == GGUF_SHORT) {
            assert_int_equal(parse(bytes, cut, cut, &err), GGUF_REFUSED);
            cut++;
        }
        assert_int_equal(parse(bytes, cut, length, &err), GGUF_PARSED);
        mem_free(bytes);
        mem_free(path);
    }
}

static void a_changed_byte_never_gives_tensors_outside_the_file(void **state)
{
    (void)state;
    static const unsigned char changes[] = {0, 1, 9, 31, 127, 128, 255};
    struct gguf_spec spec = gguf_spec_sound();
    size_t header_bytes;
    struct buffer file = gguf_spec_write(&spec, &header_bytes);

    for (size_t i = 0; i < header_bytes; i++) {
        char kept = file.data[i];

        for (size_t j = 0; j < ARRAY_LENGTH(changes); j++) {
            struct error err;

            file.data[i] = (char)changes[j];
            assert_true(parse(file.data, file.length, file.length, &err) != GGUF_SHORT);
        }
        file.data[i] = kept;
    }
    buffer_deinit(&file);
}

static void wrong_beginnings_are_named(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();

    spec.magic = "GGML";
    expect_refused(&spec, "is no GGUF file: it begins with bytes 47 47 4d 4c");
    spec = gguf_spec_sound();
    spec.version = 1;
    expect_refused(&spec, "has GGUF version 1; 2 and 3 can be read");
    spec.version = 0x03000000;
    expect_refused(&spec, "big-endian");
    spec = gguf_spec_sound();
    spec.claimed_tensors = UINT64_C(1) << 62;
    expect_refused(&spec, "tensor count: claims 4611686018427387904");
    spec = gguf_spec_sound();
    spec.claimed_values = 1000;
    expect_refused(&spec, "value count: claims 1000");
}

static void more_tensors_than_anyone_has_exceed_a_limit(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    struct buffer file;
    struct error err;

    spec.claimed_tensors = UINT64_C(1) << 40;
    file = gguf_spec_write(&spec, NULL);
    assert_int_equal(parse(file.data, file.length, UINT64_C(1) << 60, &err), GGUF_REFUSED);
    assert_int_equal(err.code, ERROR_LIMIT);
    buffer_deinit(&file);
}

static void lying_tensors_are_named(void **state)
{
    (void)state;
    static const struct {
        struct gguf_spec_tensor tensor; /* in place of b */
        const char *words;
    } lies[] = {
        {{"a", 1, {64}, QUANT_Q8_0, 32}, "tensor a occurs twice"},
        {{"", 1, {64}, QUANT_Q8_0, 32}, "tensor: a name of 0 bytes"},
        {{"b\n", 1, {64}, QUANT_Q8_0, 32}, "tensor: a name with byte 0x0a"},
        {{"b", 0, {64}, QUANT_Q8_0, 32}, "tensor b: has 0 dimensions"},
        {{"b", 5, {2, 2, 2, 2, 2}, QUANT_F32, 32}, "tensor b: has 5 dimensions"},
        {{"b", 2, {64, 0}, QUANT_Q8_0, 32}, "tensor b: dimension 1 is 0"},
        {{"b", 2, {UINT64_C(1) << 40, UINT64_C(1) << 40}, QUANT_Q8_0, 32}, "tensor b: has more"},
        {{"b", 1, {UINT64_C(1) << 63}, QUANT_F32, 32}, "tensor b: has more values"},
        {{"b", 1, {64}, 4, 32}, "tensor b: has type 4 (unknown), which cannot be read"},
        {{"b", 1, {64}, 39, 32}, "tensor b: has type 39 (MXFP4), which cannot be read"},
        {{"b", 1, {48}, QUANT_Q8_0, 32}, "tensor b: has rows of 48 values, no multiple of the 32"},
        {{"b", 2, {128, 2}, QUANT_Q6_K, 32}, "no multiple of the 256 in a Q6_K block"},
        {{"b", 1, {64}, QUANT_Q8_0, 40}, "tensor b: offset 40 is no multiple of the alignment 32"},
        {{"b", 1, {64}, QUANT_Q8_0, 4096}, "tensor b: 68 bytes at offset 4096 reach beyond"},
        {{"b", 1, {64}, QUANT_Q8_0, 384}, "tensors c and b overlap"},
        {{"b", 1, {64}, QUANT_Q8_0, 0}, "overlap"},
        {{"b", 1, {64}, QUANT_Q8_0, UINT64_MAX - 31}, "reach beyond"},
        {{"b", 1, {320}, QUANT_Q8_0, 32}, "tensors b and c overlap"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(lies); i++) {
        struct gguf_spec spec = gguf_spec_sound();

        spec.tensors[1] = lies[i].tensor;
        spec.data_bytes += 64; /* room for b behind c, were they not to overlap */
        expect_refused(&spec, lies[i].words);
    }
}

static void a_file_that_lacks_the_last_byte_of_data_is_refused(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();

    spec.data_bytes--;
    expect_refused(&spec, "tensor c: 288 bytes at offset 128 reach beyond the file's 415 bytes");
    spec.data_bytes = 0;
    expect_refused(&spec, "reach beyond the file's 0 bytes");
}

static void a_vocabulary_without_tensors_is_a_file(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    size_t header_bytes;
    struct buffer file;
    struct error err;

    spec.tensor_count = 0;
    file = gguf_spec_write(&spec, &header_bytes);
    assert_int_equal(parse(file.data, header_bytes, header_bytes, &err), GGUF_PARSED);
    buffer_deinit(&file);
}

/* One more value of the given type, then the bytes of its payload as numbers. */
static void expect_value_refused(uint32_t type, const uint64_t *payload, const char *words)
{
    struct gguf_spec spec = gguf_spec_sound();

    gguf_put_key(&spec.value, "x", type);
    gguf_put_u32(&spec.value, (uint32_t)payload[0]);
    gguf_put_u64(&spec.value, payload[1]);
    expect_refused(&spec, words);
    buffer_deinit(&spec.value);
}

static void lying_values_are_named(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();

    expect_value_refused(13, (const uint64_t[2]){0}, "key \"x\": unknown value type 13");
    expect_value_refused(GGUF_ARRAY, (const uint64_t[2]){99, 1}, "unknown value type 99");
    expect_value_refused(GGUF_ARRAY, (const uint64_t[2]){GGUF_ARRAY, 1}, "arrays of arrays");
    expect_value_refused(GGUF_ARRAY, (const uint64_t[2]){GGUF_U64, UINT64_MAX / 8},
                         "key \"x\": 18446744073709551608 bytes are claimed");
    expect_value_refused(GGUF_ARRAY, (const uint64_t[2]){GGUF_U64, UINT64_MAX}, "are claimed");
    expect_value_refused(GGUF_ARRAY, (const uint64_t[2]){GGUF_STRING, 1 << 20},
                         "key \"x\": 1048576 strings are claimed");
    expect_value_refused(GGUF_STRING, (const uint64_t[2]){0xffffffff, 0xffffffff},
                         "bytes are claimed");
    gguf_put_key(&spec.value, "tiny.words", GGUF_BOOL);
    buffer_append_char(&spec.value, 1);
    expect_refused(&spec, "key \"tiny.words\" occurs twice");
    buffer_clear(&spec.value);
    gguf_put_key(&spec.value, "\xff", GGUF_BOOL);
    buffer_append_char(&spec.value, 1);
    expect_refused(&spec, "key: a name with byte 0xff");
    buffer_deinit(&spec.value);
}

static void alignments_are_powers_of_two(void **state)
{
    (void)state;
    static const uint32_t wrong[] = {0, 24, 1 << 21};
    struct gguf_spec spec = gguf_spec_sound();

    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        spec.alignment = wrong[i];
        expect_refused(&spec, "no power of two");
    }
    spec = gguf_spec_sound();
    gguf_put_key(&spec.value, "general.alignment", GGUF_STRING);
    gguf_put_string(&spec.value, "32");
    expect_refused(&spec, "key \"general.alignment\" must be an integer, got string");
    buffer_deinit(&spec.value);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct gguf_spec spec = gguf_spec_sound();
    struct buffer file = gguf_spec_write(&spec, NULL);
    uint64_t failing = 1;
    struct error err;

    for (;; failing++) {
        mem_fail_after(failing);
        if (parse(file.data, file.length, file.length, &err) == GGUF_PARSED) {
            break;
        }
        assert_int_equal(err.code, ERROR_LIMIT);
    }
    mem_fail_after(0);
    assert_true(failing > 2);
    buffer_deinit(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_header_is_read_whole),
        cmocka_unit_test(version_2_and_other_alignments_are_read),
        cmocka_unit_test(a_header_cut_anywhere_is_short_or_refused),
        cmocka_unit_test(golden_headers_are_read_and_their_cuts_refused),
        cmocka_unit_test(a_changed_byte_never_gives_tensors_outside_the_file),
        cmocka_unit_test(wrong_beginnings_are_named),
        cmocka_unit_test(more_tensors_than_anyone_has_exceed_a_limit),
        cmocka_unit_test(lying_tensors_are_named),
        cmocka_unit_test(a_file_that_lacks_the_last_byte_of_data_is_refused),
        cmocka_unit_test(a_vocabulary_without_tensors_is_a_file),
        cmocka_unit_test(lying_values_are_named),
        cmocka_unit_test(alignments_are_powers_of_two),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
