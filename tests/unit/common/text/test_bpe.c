/* test_bpe.c - merging, against the definition of it, with random merges in any order. */
#include "common/text/bpe.h"

#include "common/base/mem.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LETTERS    3 /* a, b, c: what repeats a lot and merges in many ways */
#define TOKENS_MAX 64
#define TRIES      3000

struct model {
    struct vocab vocab;
    struct bpe bpe;
};

struct rule {
    uint32_t left;
    uint32_t right;
    uint32_t result;
};

static size_t length_of(const struct model *model, uint32_t id)
{
    return model->vocab.entries[id].model.length;
}

static uint32_t token_join(struct model *model, uint32_t left, uint32_t right, uint32_t *count)
{
    struct buffer bytes = {0};
    struct error err = {0};
    size_t length = 0;
    const char *text = vocab_bytes(&model->vocab, left, &length);

    buffer_append(&bytes, text, length);
    text = vocab_bytes(&model->vocab, right, &length);
    buffer_append(&bytes, text, length);
    uint32_t id = vocab_find_model(&model->vocab, bytes.data, bytes.length);
    if (id == VOCAB_NO_TOKEN) {
        id = (*count)++;
        assert_true(vocab_add_model(&model->vocab, id, bytes.data, bytes.length, &err));
    }
    buffer_deinit(&bytes);
    return id;
}

/* Tokens of a few letters, and merges between them whose ranks follow no order. */
static void model_init(struct model *model, struct random *random)
{
    struct rule rules[TOKENS_MAX - LETTERS];
    uint32_t rule_count = 1 + (uint32_t)random_below(random, ARRAY_LENGTH(rules));
    uint32_t count = LETTERS;
    struct error err = {0};

    assert_true(vocab_init(&model->vocab, TOKENS_MAX, &err));
    for (uint32_t id = 0; id < LETTERS; id++) {
        char letter = (char)('a' + id);

        assert_true(vocab_add_model(&model->vocab, id, &letter, 1, &err));
    }
    for (uint32_t i = 0; i < rule_count; i++) {
        do {
            rules[i].left = (uint32_t)random_below(random, count);
            rules[i].right = (uint32_t)random_below(random, count);
        } while (length_of(model, rules[i].left) + length_of(model, rules[i].right) > 16);
        rules[i].result = token_join(model, rules[i].left, rules[i].right, &count);
    }
    assert_true(bpe_init(&model->bpe, &model->vocab, rule_count, BPE_MERGE_ALWAYS, &err));
    for (uint32_t rank = 0; rank < rule_count; rank++) {
        uint32_t pick = rank + (uint32_t)random_below(random, rule_count - rank);
        struct rule rule = rules[pick];

        rules[pick] = rules[rank];
        /* The same pair twice is refused, and changes nothing. */
        (void)bpe_add_merge(&model->bpe, rule.left, rule.right,
                            (struct bpe_outcome){rank, rule.result});
    }
}

static void model_deinit(struct model *model)
{
    bpe_deinit(&model->bpe);
    vocab_deinit(&model->vocab);
}

/* Random letters, or one short pattern again and again: ties, and choices that go on and on. */
static void text_fill(char *text, size_t length, struct random *random)
{
    uint64_t period = random_below(random, 3) == 0 ? 1 + random_below(random, 5) : 0;

    for (size_t i = 0; i < length; i++) {
        bool repeats = period > 0 && i >= period && random_below(random, 500) != 0;

        text[i] = repeats ? text[i - period] : (char)('a' + random_below(random, LETTERS));
    }
}

/* The rank of two neighbours by the table itself; BPE_NO_MERGE if there is none. */
static struct bpe_outcome outcome_of(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    for (size_t i = 0; i <= bpe->mask; i++) {
        if (bpe->merges[i].pair == ((uint64_t)left << 32 | right)) {
            return bpe->merges[i].outcome;
        }
    }
    return (struct bpe_outcome){BPE_NO_MERGE, 0};
}

/* By definition: the lowest rank, the leftmost of equals, until there is none. */
static void merge_by_definition(const struct bpe *bpe, const char *text, size_t length,
                                struct token_list *out)
{
    for (size_t i = 0; i < length; i++) {
        token_list_append(out, bpe->byte_ids[(unsigned char)text[i]]);
    }
    for (;;) {
        struct bpe_outcome best = {BPE_NO_MERGE, 0};
        size_t place = 0;

        for (size_t i = 0; i + 1 < out->count; i++) {
            struct bpe_outcome merge = outcome_of(bpe, out->ids[i], out->ids[i + 1]);

            if (merge.rank < best.rank) {
                best = merge;
                place = i;
            }
        }
        if (best.rank == BPE_NO_MERGE) {
            return;
        }
        out->ids[place] = best.result;
        memmove(out->ids + place + 1, out->ids + place + 2,
                (out->count - place - 2) * sizeof *out->ids);
        out->count--;
    }
}

static void check_same(struct token_list *got, struct token_list *wanted)
{
    assert_int_equal(got->count, wanted->count);
    if (wanted->count > 0) {
        assert_memory_equal(got->ids, wanted->ids, wanted->count * sizeof *wanted->ids);
    }
    got->count = 0;
    wanted->count = 0;
}

static void short_pieces_merge_as_defined(void **state)
{
    (void)state;
    struct random random;
    struct token_list got = {0};
    struct token_list wanted = {0};
    struct bpe_scratch scratch;
    char text[80];

    random_init(&random, 1);
    bpe_scratch_init(&scratch, 0);
    for (int try = 0; try < TRIES; try++) {
        struct model model;
        size_t length = 1 + random_below(&random, sizeof text);

        model_init(&model, &random);
        text_fill(text, length, &random);
        bpe_encode(&model.bpe, &scratch, text, length, &got);
        merge_by_definition(&model.bpe, text, length, &wanted);
        check_same(&got, &wanted);
        model_deinit(&model);
    }
    bpe_scratch_deinit(&scratch);
    token_list_deinit(&got);
    token_list_deinit(&wanted);
}

static void long_pieces_give_the_ids_of_the_whole(void **state)
{
    (void)state;
    struct random random;
    struct token_list got = {0};
    struct token_list wanted = {0};
    struct bpe_scratch scratch;
    char text[4 * BPE_WINDOW_BYTES + 3];

    random_init(&random, 2);
    bpe_scratch_init(&scratch, 0);
    for (int try = 0; try < TRIES / 10; try++) {
        struct model model;
        size_t length = BPE_WINDOW_BYTES + random_below(&random, sizeof text - BPE_WINDOW_BYTES);

        model_init(&model, &random);
        text_fill(text, length, &random);
        bpe_merge_long(&model.bpe, &scratch, text, length, &got);
        bpe_merge_bytes(&model.bpe, &scratch, text, length, &wanted);
        check_same(&got, &wanted);
        model_deinit(&model);
    }
    bpe_scratch_deinit(&scratch);
    token_list_deinit(&got);
    token_list_deinit(&wanted);
}

/* A row of one letter moves all tokens behind a border that cuts one. */
static void one_letter_is_joined_from_the_left(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "aa", "aaa", "aaaaa"};
    struct model model;
    struct error err = {0};
    struct bpe_scratch scratch;
    struct token_list got = {0};
    char text[3 * BPE_WINDOW_BYTES];

    memset(text, 'a', sizeof text);
    assert_true(vocab_init(&model.vocab, 4, &err));
    for (uint32_t id = 0; id < 4; id++) {
        assert_true(vocab_add_model(&model.vocab, id, tokens[id], strlen(tokens[id]), &err));
    }
    assert_true(bpe_init(&model.bpe, &model.vocab, 3, BPE_MERGE_ALWAYS, &err));
    assert_true(bpe_add_merge(&model.bpe, 0, 0, (struct bpe_outcome){0, 1}));
    assert_true(bpe_add_merge(&model.bpe, 1, 0, (struct bpe_outcome){2, 2}));
    assert_true(bpe_add_merge(&model.bpe, 2, 1, (struct bpe_outcome){1, 3}));
    bpe_scratch_init(&scratch, 0);
    bpe_encode(&model.bpe, &scratch, text, sizeof text - 1, &got);
    /* Pairs from the left; the odd letter at the end joins the last of them, not the first. */
    assert_int_equal(got.count, (sizeof text - 2) / 2);
    for (size_t i = 0; i + 1 < got.count; i++) {
        assert_int_equal(got.ids[i], 1);
    }
    assert_int_equal(got.ids[got.count - 1], 2);
    bpe_scratch_deinit(&scratch);
    token_list_deinit(&got);
    model_deinit(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_pieces_merge_as_defined),
        cmocka_unit_test(long_pieces_give_the_ids_of_the_whole),
        cmocka_unit_test(one_letter_is_joined_from_the_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
