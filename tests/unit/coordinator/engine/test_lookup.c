/* test_lookup.c - drafts from the text, against the definition read literally. */
#include "coordinator/engine/lookup.h"

#include "tests/support/sim_random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TEXT_MAX  3000
#define DRAFT_MAX 9

static bool gram_ends_at(const uint32_t *text, uint32_t place, const uint32_t *gram,
                         uint32_t length)
{
    return place >= length && memcmp(&text[place - length], gram, length * sizeof(*gram)) == 0;
}

/* The definition in lookup.h: asks every place of the text. False: no proposal. */
static bool naive_next(const uint32_t *text, uint32_t count, const uint32_t *draft,
                       uint32_t draft_count, uint32_t *next)
{
    uint32_t joined[TEXT_MAX + DRAFT_MAX];

    memcpy(joined, text, count * sizeof(*text));
    memcpy(&joined[count], draft, draft_count * sizeof(*draft));
    for (uint32_t length = 4; length >= 1; length--) {
        uint32_t votes = 0;

        if (length > count + draft_count) {
            continue;
        }
        for (uint32_t place = 0; place < count; place++) {
            if (!gram_ends_at(text, place, &joined[count + draft_count - length], length)) {
                continue;
            }
            if (votes > 0 && *next == text[place]) {
                votes = votes < 3 ? votes + 1 : 3;
            } else if (votes > 1) {
                votes--;
            } else {
                *next = text[place];
                votes = 1;
            }
        }
        if (votes > 0) {
            return length + votes >= 4;
        }
    }
    return false;
}

static uint32_t naive_propose(const uint32_t *text, uint32_t count, uint32_t max, uint32_t *out)
{
    uint32_t drafted = 0;
    uint32_t next = 0;

    while (drafted < max && naive_next(text, count, out, drafted, &next)) {
        out[drafted++] = next;
    }
    return drafted;
}

static void assert_as_defined(const struct lookup *lookup, const uint32_t *text, uint32_t count)
{
    uint32_t expected[DRAFT_MAX];
    uint32_t proposed[DRAFT_MAX + 1];
    uint32_t expected_count = naive_propose(text, count, DRAFT_MAX, expected);

    proposed[DRAFT_MAX] = 12345;
    assert_int_equal(lookup_propose(lookup, DRAFT_MAX, proposed), expected_count);
    assert_memory_equal(proposed, expected, expected_count * sizeof(*expected));
    assert_int_equal(proposed[DRAFT_MAX], 12345);
    assert_int_equal(lookup_propose(lookup, 2, proposed), expected_count < 2 ? expected_count : 2);
    assert_int_equal(lookup_propose(lookup, 0, proposed), 0);
}

/* A text that repeats itself with changes, over a vocabulary of so many tokens. */
static void text_draw(struct sim_random *random, uint32_t *text, uint32_t count,
                      uint32_t vocabulary, uint32_t repeat_percent)
{
    uint32_t from = 0;

    for (uint32_t i = 0; i < count; i++) {
        bool repeats = i > 0 && sim_random_chance(random, repeat_percent);

        from = sim_random_chance(random, 5) && i > 0 ? sim_random_u32(random, 0, i - 1) : from;
        text[i] =
            repeats ? text[from] : sim_random_u32(random, 0, vocabulary - 1) * 2654435761u >> 8;
        from = from + 1 < i ? from + 1 : 0;
    }
}

static void proposals_are_those_of_the_definition(void **state)
{
    static const uint32_t vocabularies[] = {1, 2, 3, 20, 1000, 129280};
    static uint32_t text[TEXT_MAX];

    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct sim_random random = sim_random_from(seed);
        struct lookup *lookup = lookup_create();
        uint32_t length = sim_random_u32(&random, 1, seed % 10 == 0 ? TEXT_MAX : 300);
        uint32_t count = 0;

        text_draw(&random, text, length, vocabularies[seed % 6], (uint32_t)(seed % 4) * 33);
        assert_as_defined(lookup, text, 0);
        while (count < length) {
            uint32_t more = sim_random_u32(&random, 0, sim_random_chance(&random, 20) ? 200 : 3);

            more = more < length - count ? more : length - count;
            lookup_append(lookup, &text[count], more);
            count += more;
            assert_as_defined(lookup, text, count);
        }
        lookup_destroy(lookup);
    }
    lookup_destroy(NULL);
}

static void a_quotation_is_continued(void **state)
{
    static const uint32_t text[] = {11, 12, 13, 14, 15, 16, 17, 99, 12, 13, 14};
    static const uint32_t expected[] = {15, 16, 17, 99};
    struct lookup *lookup = lookup_create();
    uint32_t proposed[4];

    (void)state;
    lookup_append(lookup, text, 9);
    assert_int_equal(lookup_propose(lookup, 4, proposed), 0); /* 12 alone has been seen once */
    lookup_append(lookup, &text[9], 2);
    assert_int_equal(lookup_propose(lookup, 4, proposed), 4);
    assert_memory_equal(proposed, expected, sizeof(expected));
    lookup_destroy(lookup);
}

/* One deviation does not change a habit; a longer match knows better. */
static void the_favourite_survives_a_deviation(void **state)
{
    static const uint32_t text[] = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3};
    struct lookup *lookup = lookup_create();
    uint32_t proposed[1];

    (void)state;
    lookup_append(lookup, text, 15);
    /* 9 1 2 3 is new, 1 2 3 was followed by 4, 4, 9 */
    assert_int_equal(lookup_propose(lookup, 1, proposed), 1);
    assert_int_equal(proposed[0], 4);
    lookup_append(lookup, (const uint32_t[]){9, 1, 2, 3}, 4);
    /* 9 1 2 3 was followed by 9 */
    assert_int_equal(lookup_propose(lookup, 1, proposed), 1);
    assert_int_equal(proposed[0], 9);
    lookup_destroy(lookup);
}

static void a_loop_is_drafted_as_deep_as_asked(void **state)
{
    struct lookup *lookup = lookup_create();
    uint32_t proposed[100];

    (void)state;
    for (uint32_t i = 0; i < 12; i++) {
        lookup_append(lookup, &(uint32_t){i % 3}, 1);
    }
    assert_int_equal(lookup_propose(lookup, 100, proposed), 100);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(proposed[i], i % 3);
    }
    lookup_destroy(lookup);
}

/* Half a million tokens, half of them seen before: linear in time, or this test does not end. */
static void a_long_text_is_no_trouble(void **state)
{
    const uint32_t half = 1u << 18;
    struct sim_random random = sim_random_from(7);
    struct lookup *lookup = lookup_create();
    uint32_t *text = calloc(half, sizeof(*text));
    uint32_t proposed[8];

    (void)state;
    assert_non_null(text);
    for (uint32_t i = 0; i < half; i++) {
        text[i] = sim_random_u32(&random, 0, 129279);
    }
    lookup_append(lookup, text, half);
    for (uint32_t i = 0; i + 8 < half; i++) {
        lookup_append(lookup, &text[i], 1);
        if (i >= 3 && i % 5000 == 0) {
            assert_int_equal(lookup_propose(lookup, 8, proposed), 8);
            assert_memory_equal(proposed, &text[i + 1], sizeof(proposed));
        }
    }
    free(text);
    lookup_destroy(lookup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proposals_are_those_of_the_definition),
        cmocka_unit_test(a_quotation_is_continued),
        cmocka_unit_test(the_favourite_survives_a_deviation),
        cmocka_unit_test(a_loop_is_drafted_as_deep_as_asked),
        cmocka_unit_test(a_long_text_is_no_trouble),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
