/* test_hash.c - fixed values: these hashes travel and must never change. */
#include "common/base/hash.h"

#include "common/base/check.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* RFC 3720 appendix B.4; its bytes are shown in wire order, least significant first. */
static void crc32c_matches_rfc_3720(void **state)
{
    (void)state;
    static const unsigned char read_command[48] = {
        0x01, 0xC0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
    };
    unsigned char bytes[32];

    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(hash_crc32c(0, bytes, sizeof(bytes)), 0x8A9136AA);
    memset(bytes, 0xFF, sizeof(bytes));
    assert_int_equal(hash_crc32c(0, bytes, sizeof(bytes)), 0x62A8AB43);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)i;
    }
    assert_int_equal(hash_crc32c(0, bytes, sizeof(bytes)), 0x46DD794E);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(hash_crc32c(0, bytes, sizeof(bytes)), 0x113FDB5C);
    assert_int_equal(hash_crc32c(0, read_command, sizeof(read_command)), 0xD9963A56);
    assert_int_equal(hash_crc32c(0, "123456789", 9), 0xE3069283);
    assert_int_equal(hash_crc32c(0, NULL, 0), 0);
}

static void the_instruction_and_the_table_agree(void **state)
{
    (void)state;
    unsigned char bytes[10000];
    struct random random;

    random_init(&random, 4);
    random_fill(&random, bytes, sizeof(bytes));
    for (size_t begin = 0; begin < 9; begin++) {
        for (size_t length = 0; length < sizeof(bytes) - begin;
             length += length < 300 ? 1 : 61 + begin) {
            uint32_t crc = (uint32_t)random_u64(&random);

            assert_int_equal(hash_crc32c(crc, bytes + begin, length),
                             hash_crc32c_table(crc, bytes + begin, length));
        }
    }
}

static void crc32c_of_pieces_is_that_of_the_whole(void **state)
{
    (void)state;
    unsigned char bytes[100];
    struct random random;

    random_init(&random, 5);
    random_fill(&random, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
        uint32_t front = hash_crc32c(0, bytes, cut);

        assert_int_equal(hash_crc32c(front, bytes + cut, sizeof(bytes) - cut),
                         hash_crc32c(0, bytes, sizeof(bytes)));
    }
}

static void every_flipped_bit_changes_the_crc(void **state)
{
    (void)state;
    unsigned char bytes[40] = {1, 2, 3};
    uint32_t crc = hash_crc32c(0, bytes, sizeof(bytes));

    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_not_equal(hash_crc32c(0, bytes, sizeof(bytes)), crc);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void mixing_matches_splitmix64(void **state)
{
    (void)state;
    /* The first outputs of splitmix64 seeded with 1234567. */
    static const uint64_t outputs[] = {UINT64_C(6457827717110365317), UINT64_C(3203168211198807973),
                                       UINT64_C(9817491932198370423)};
    uint64_t counter = 1234567;

    for (size_t i = 0; i < ARRAY_LENGTH(outputs); i++) {
        counter += UINT64_C(0x9E3779B97F4A7C15);
        assert_true(hash_mix(counter) == outputs[i]);
    }
}

static void the_other_hashes_have_their_fixed_values(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0) == UINT64_C(0xEFD01F60BA992926));
    assert_true(hash_bytes("shoal", 5) == UINT64_C(0xA965FAF81FB6DA66));
    assert_true(hash_counter(0, 0, 0, 0) == UINT64_C(0x2130748AAAC80268));
    assert_true(hash_counter(1, 2, 3, 4) == UINT64_C(0xD55CCD4AEB3CCAFB));
}

static void the_counter_hash_depends_on_each_argument_and_its_place(void **state)
{
    (void)state;
    uint64_t base = hash_counter(1, 2, 3, 4);

    assert_true(base == hash_counter(1, 2, 3, 4));
    assert_true(base != hash_counter(2, 1, 3, 4));
    assert_true(base != hash_counter(1, 3, 2, 4));
    assert_true(base != hash_counter(1, 2, 4, 3));
    assert_true(base != hash_counter(4, 2, 3, 1));
    assert_true(base != hash_counter(1, 2, 3, 5));
}

/* 64 counters of 4096 draws: each bit is set half of the time, within six sigma. */
static void the_counter_hash_is_balanced_in_every_bit(void **state)
{
    (void)state;
    for (int bit = 0; bit < 64; bit++) {
        int set = 0;

        for (uint64_t draw = 0; draw < 4096; draw++) {
            set += (int)(hash_counter(7, 1, draw, 0) >> bit & 1);
        }
        assert_in_range(set, 2048 - 192, 2048 + 192);
    }
}

static void a_run_of_counters_gives_what_each_gives(void **state)
{
    uint64_t run[37];

    (void)state;
    hash_counter_run(9, 8, 7, 1000, 37, run);
    for (uint64_t i = 0; i < 37; i++) {
        assert_true(run[i] == hash_counter(9, 8, 7, 1000 + i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_of_counters_gives_what_each_gives),
        cmocka_unit_test(crc32c_matches_rfc_3720),
        cmocka_unit_test(the_instruction_and_the_table_agree),
        cmocka_unit_test(crc32c_of_pieces_is_that_of_the_whole),
        cmocka_unit_test(every_flipped_bit_changes_the_crc),
        cmocka_unit_test(mixing_matches_splitmix64),
        cmocka_unit_test(the_other_hashes_have_their_fixed_values),
        cmocka_unit_test(the_counter_hash_depends_on_each_argument_and_its_place),
        cmocka_unit_test(the_counter_hash_is_balanced_in_every_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
