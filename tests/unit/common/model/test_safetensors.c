/* test_safetensors.c - one header, sound and damaged. */
#include "common/base/mem.h"
#include "common/model/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define A "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]}"
#define B "\"b\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[12,28]}"

static const char sound[] = "{\"__metadata__\":{\"format\":\"pt\"}," B "," A "}  ";
#define SOUND_DATA 28

struct seen {
    uint32_t count;
    struct safetensors_entry last;
};

static bool record(void *context, const struct safetensors_entry *entry, struct error *err)
{
    struct seen *seen = context;

    (void)err;
    seen->count++;
    seen->last = *entry;
    seen->last.name = seen->last.dtype = NULL;
    return true;
}

static bool refuse(void *context, const struct safetensors_entry *entry, struct error *err)
{
    (void)context;
    return error_set(err, ERROR_LIMIT, "enough of %s", entry->name);
}

/* From a block of exactly that length, so that a sanitizer sees reads behind it. */
static bool parse(const char *json, size_t length, uint64_t data_bytes, struct seen *seen,
                  struct error *err)
{
    char *block = mem_new_array(char, length);
    bool parsed;

    memcpy(block, json, length);
    *seen = (struct seen){0};
    *err = (struct error){0};
    parsed = safetensors_parse_header(block, length, 8 + length + data_bytes, record, seen, err);
    mem_free(block);
    return parsed;
}

static void a_sound_header_is_visited_in_its_order(void **state)
{
    (void)state;
    struct seen seen;
    struct error err;

    assert_true(parse(sound, strlen(sound), SOUND_DATA, &seen, &err));
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.last.dimension_count, 2);
    assert_int_equal(seen.last.dimensions[0], 2);
    assert_int_equal(seen.last.dimensions[1], 3);
    assert_int_equal(seen.last.bytes, 12);
    assert_int_equal(seen.last.offset, 8 + strlen(sound));
    assert_true(parse("{}", 2, 0, &seen, &err));
    assert_int_equal(seen.count, 0);
}

static void the_visitors_error_ends_the_parse(void **state)
{
    (void)state;
    struct error err = {0};

    assert_false(safetensors_parse_header(sound, strlen(sound), 8 + strlen(sound) + SOUND_DATA,
                                          refuse, NULL, &err));
    assert_string_equal(err.message, "enough of b");
}

static void a_header_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct seen seen;
    struct error err;

    for (size_t i = 0; i < strlen(sound) - 2; i++) {
        assert_false(parse(sound, i, SOUND_DATA, &seen, &err));
        assert_int_equal(seen.count, 0);
        assert_int_equal(err.code, ERROR_INPUT);
    }
}

static void a_file_shorter_or_longer_than_described_is_refused(void **state)
{
    (void)state;
    struct seen seen;
    struct error err;

    for (uint64_t bytes = 0; bytes < 2 * SOUND_DATA; bytes++) {
        assert_true(parse(sound, strlen(sound), bytes, &seen, &err) == (bytes == SOUND_DATA));
        assert_int_equal(seen.count, bytes == SOUND_DATA ? 2 : 0);
    }
    assert_false(safetensors_parse_header(sound, strlen(sound), 20, record, &seen, &err));
    assert_non_null(strstr(err.message, "header claims"));
}

static void a_changed_byte_never_gives_tensors_outside_the_file(void **state)
{
    (void)state;
    static const char replacements[] = "\0\"9{}[],:-e x\xff";

    for (size_t i = 0; i < strlen(sound); i++) {
        for (size_t j = 0; j < sizeof(replacements) - 1; j++) {
            char changed[sizeof(sound)];
            struct seen seen;
            struct error err;

            memcpy(changed, sound, sizeof(sound));
            changed[i] = replacements[j];
            if (parse(changed, strlen(sound), SOUND_DATA, &seen, &err)) {
                assert_true(seen.last.offset + seen.last.bytes <= 8 + strlen(sound) + SOUND_DATA);
            }
        }
    }
}

struct damage {
    const char *json;
    uint64_t data_bytes;
    const char *expected;
};

static void each_damage_has_its_message(void **state)
{
    (void)state;
    static const struct damage damages[] = {
        {"[]", 0, "header must be an object, got a"},
        {"{\"a\":1}", 0, "tensor a: must be an object"},
        {"{\"a\":{}}", 0, "tensor a: field \"dtype\""},
        {"{\"a\":{\"dtype\":3}}", 0, "tensor a: field \"dtype\""},
        {"{\"a\":{\"dtype\":\"Q9\"}}", 0, "tensor a: dtype \"Q9\" is unknown"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "tensor a: field \"shape\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":3}}", 0, "tensor a: field \"shape\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5]}}", 0, "\"shape\": element 0 must be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,-1]}}", 0, "\"shape\": element 1 must be"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1]}}", 0, "has 9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296]}}", 0, "exceeds 64 bits"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3]}}", 0, "12 bits of F4 do not fill whole bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "\"data_offsets\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "has 1 elements"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4, "element 1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "fall: 4 to 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,5]}}", 5,
         "span 5 bytes, shape and dtype F32 need 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4,
         "end at byte 8 of the data section, the file ends at 4; is it truncated?"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[11,15]}}", 15,
         "tensor b begins at byte 11 and overlaps a, which ends at 12"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[13,17]}}", 17,
         "no tensor owns bytes 12 to 13 before tensor b"},
        {"{" A "}", 13, "describes 12 bytes of data, the file has 13"},
        {"{" A "," A "}", 12, "duplicate"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(damages); i++) {
        struct seen seen;
        struct error err;

        assert_false(
            parse(damages[i].json, strlen(damages[i].json), damages[i].data_bytes, &seen, &err));
        assert_int_equal(seen.count, 0);
        if (strstr(err.message, damages[i].expected) == NULL) {
            fail_msg("%s: %s", damages[i].json, err.message);
        }
    }
}

static void memory_running_out_is_an_error(void **state)
{
    (void)state;
    struct seen seen = {0};
    struct error err = {0};

    mem_fail_after(1);
    assert_false(safetensors_parse_header(sound, strlen(sound), 8 + strlen(sound) + SOUND_DATA,
                                          record, &seen, &err));
    mem_fail_after(0);
    assert_int_equal(err.code, ERROR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_header_is_visited_in_its_order),
        cmocka_unit_test(the_visitors_error_ends_the_parse),
        cmocka_unit_test(a_header_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_shorter_or_longer_than_described_is_refused),
        cmocka_unit_test(a_changed_byte_never_gives_tensors_outside_the_file),
        cmocka_unit_test(each_damage_has_its_message),
        cmocka_unit_test(memory_running_out_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
