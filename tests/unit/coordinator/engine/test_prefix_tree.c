/* test_prefix_tree.c - what is found, and what is evicted first. */
#include "coordinator/engine/prefix_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BLOCK PLAN_BLOCK_TOKENS

static void tokens_fill(uint32_t tokens[BLOCK], uint32_t first)
{
    for (uint32_t i = 0; i < BLOCK; i++) {
        tokens[i] = first + i;
    }
}

/* Inserts a block of tokens first, first + 1, …; returns the hash of its chain. */
static uint64_t grow(struct prefix_tree *tree, uint32_t parent, uint64_t hash, uint32_t first,
                     uint32_t block)
{
    uint32_t tokens[BLOCK];

    tokens_fill(tokens, first);
    hash = prefix_hash(hash, tokens);
    prefix_tree_insert(tree, parent, hash, tokens, block);
    return hash;
}

static uint32_t find(const struct prefix_tree *tree, uint32_t parent, uint64_t hash, uint32_t first)
{
    uint32_t tokens[BLOCK];

    tokens_fill(tokens, first);
    return prefix_tree_find(tree, parent, prefix_hash(hash, tokens), tokens);
}

static void a_block_is_found_behind_its_own_beginning_only(void **state)
{
    struct prefix_tree tree;
    uint64_t a, b;

    (void)state;
    prefix_tree_init(&tree, 8);
    a = grow(&tree, PREFIX_NONE, 0, 100, 3);
    b = grow(&tree, PREFIX_NONE, 0, 200, 5);
    (void)grow(&tree, 3, a, 300, 6);
    assert_int_equal(find(&tree, PREFIX_NONE, 0, 100), 3);
    assert_int_equal(find(&tree, PREFIX_NONE, 0, 200), 5);
    assert_int_equal(find(&tree, 3, a, 300), 6);
    assert_int_equal(find(&tree, 5, b, 300), PREFIX_NONE);
    assert_int_equal(find(&tree, PREFIX_NONE, 0, 300), PREFIX_NONE);
    assert_int_equal(find(&tree, 3, a, 301), PREFIX_NONE);
    assert_true(prefix_tree_holds(&tree, 6));
    assert_false(prefix_tree_holds(&tree, 0));
    prefix_tree_deinit(&tree);
}

/* Were the hash all that counts, equal ones would be taken for equal tokens. */
static void equal_hashes_do_not_make_equal_tokens(void **state)
{
    struct prefix_tree tree;
    uint32_t tokens[BLOCK], others[BLOCK];

    (void)state;
    prefix_tree_init(&tree, 8);
    tokens_fill(tokens, 1);
    tokens_fill(others, 1);
    others[BLOCK - 1]++;
    prefix_tree_insert(&tree, PREFIX_NONE, 77, tokens, 0);
    assert_int_equal(prefix_tree_find(&tree, PREFIX_NONE, 77, tokens), 0);
    assert_int_equal(prefix_tree_find(&tree, PREFIX_NONE, 77, others), PREFIX_NONE);
    prefix_tree_insert(&tree, PREFIX_NONE, 77, others, 4);
    prefix_tree_insert(&tree, 0, 77, tokens, 5);
    assert_int_equal(prefix_tree_find(&tree, PREFIX_NONE, 77, others), 4);
    assert_int_equal(prefix_tree_find(&tree, PREFIX_NONE, 77, tokens), 0);
    assert_int_equal(prefix_tree_find(&tree, 0, 77, tokens), 5);
    prefix_tree_deinit(&tree);
}

static void the_longest_idle_leaf_is_evicted_first(void **state)
{
    struct prefix_tree tree;
    uint64_t a;

    (void)state;
    prefix_tree_init(&tree, 8);
    a = grow(&tree, PREFIX_NONE, 0, 100, 0);
    (void)grow(&tree, 0, a, 200, 1);
    (void)grow(&tree, PREFIX_NONE, 0, 300, 2);
    prefix_tree_rest(&tree, 2);
    prefix_tree_rest(&tree, 1); /* the deepest first */
    prefix_tree_rest(&tree, 0);
    prefix_tree_wake(&tree, 2); /* used again */
    prefix_tree_rest(&tree, 2);
    assert_int_equal(tree.idle_count, 3);
    assert_int_equal(prefix_tree_evict(&tree), 1);
    assert_int_equal(find(&tree, 0, a, 200), PREFIX_NONE);
    assert_int_equal(prefix_tree_evict(&tree), 0);
    assert_int_equal(prefix_tree_evict(&tree), 2);
    assert_int_equal(tree.node_count, 0);
    (void)grow(&tree, PREFIX_NONE, 0, 100, 1); /* its place may be used anew */
    assert_int_equal(find(&tree, PREFIX_NONE, 0, 100), 1);
    prefix_tree_deinit(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_found_behind_its_own_beginning_only),
        cmocka_unit_test(equal_hashes_do_not_make_equal_tokens),
        cmocka_unit_test(the_longest_idle_leaf_is_evicted_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
