/* prefix_tree.c - which beginnings of prompts are in the cache.
 *
 * Everything is O(1) but the comparison of one block's tokens; all memory is taken at init.
 */
#include "coordinator/engine/prefix_tree.h"

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "coordinator/engine/bug.h"

#include <string.h>

uint64_t prefix_hash(uint64_t parent, const uint32_t tokens[PLAN_BLOCK_TOKENS])
{
    uint64_t hash = BUG(2) ? 0 : parent;

    for (uint32_t i = 0; i < PLAN_BLOCK_TOKENS; i += 2) {
        hash = hash_mix(hash + (tokens[i] | (uint64_t)tokens[i + 1] << 32) + 1);
    }
    return hash;
}

void prefix_tree_init(struct prefix_tree *tree, uint32_t block_count)
{
    uint32_t buckets = 1;

    ASSERT(block_count < (1u << 30));
    while (buckets < block_count) {
        buckets *= 2;
    }
    *tree = (struct prefix_tree){
        .block_count = block_count,
        .oldest = PREFIX_NONE,
        .newest = PREFIX_NONE,
        .nodes = mem_new_array(struct prefix_node, block_count),
        .tokens = mem_new_array(uint32_t, (size_t)block_count * PLAN_BLOCK_TOKENS),
        .buckets = mem_new_array(uint32_t, buckets),
        .bucket_mask = buckets - 1,
    };
    memset(tree->buckets, 0xff, buckets * sizeof(*tree->buckets));
}

void prefix_tree_deinit(struct prefix_tree *tree)
{
    mem_free(tree->nodes);
    mem_free(tree->tokens);
    mem_free(tree->buckets);
}

static uint32_t *node_tokens(const struct prefix_tree *tree, uint32_t node)
{
    return &tree->tokens[(size_t)node * PLAN_BLOCK_TOKENS];
}

uint32_t prefix_tree_find(const struct prefix_tree *tree, uint32_t parent, uint64_t hash,
                          const uint32_t tokens[PLAN_BLOCK_TOKENS])
{
    uint32_t node = tree->buckets[hash & tree->bucket_mask];

    for (; node != PREFIX_NONE; node = tree->nodes[node].bucket_next) {
        if (tree->nodes[node].hash == hash && (tree->nodes[node].parent == parent || BUG(2)) &&
            memcmp(node_tokens(tree, node), tokens, PLAN_BLOCK_TOKENS * sizeof(*tokens)) == 0) {
            break;
        }
    }
    return node;
}

void prefix_tree_insert(struct prefix_tree *tree, uint32_t parent, uint64_t hash,
                        const uint32_t tokens[PLAN_BLOCK_TOKENS], uint32_t block)
{
    uint32_t *bucket = &tree->buckets[hash & tree->bucket_mask];

    ASSERT(block < tree->block_count && !tree->nodes[block].present);
    DEBUG_ASSERT(prefix_tree_find(tree, parent, hash, tokens) == PREFIX_NONE);
    tree->nodes[block] = (struct prefix_node){
        .hash = hash, .parent = parent, .bucket_next = *bucket, .present = true};
    memcpy(node_tokens(tree, block), tokens, PLAN_BLOCK_TOKENS * sizeof(*tokens));
    *bucket = block;
    if (parent != PREFIX_NONE) {
        ASSERT(tree->nodes[parent].present && !tree->nodes[parent].idle);
        tree->nodes[parent].child_count++;
    }
    tree->node_count++;
}

bool prefix_tree_holds(const struct prefix_tree *tree, uint32_t block)
{
    return tree->nodes != NULL && tree->nodes[block].present;
}

void prefix_tree_rest(struct prefix_tree *tree, uint32_t block)
{
    struct prefix_node *node = &tree->nodes[block];

    ASSERT(node->present && !node->idle);
    node->idle = true;
    node->newer = PREFIX_NONE;
    node->older = tree->newest;
    if (tree->newest == PREFIX_NONE) {
        tree->oldest = block;
    } else {
        tree->nodes[tree->newest].newer = block;
    }
    tree->newest = block;
    tree->idle_count++;
}

void prefix_tree_wake(struct prefix_tree *tree, uint32_t block)
{
    struct prefix_node *node = &tree->nodes[block];

    ASSERT(node->present && node->idle);
    if (node->older == PREFIX_NONE) {
        tree->oldest = node->newer;
    } else {
        tree->nodes[node->older].newer = node->newer;
    }
    if (node->newer == PREFIX_NONE) {
        tree->newest = node->older;
    } else {
        tree->nodes[node->newer].older = node->older;
    }
    node->idle = false;
    tree->idle_count--;
}

static void bucket_remove(struct prefix_tree *tree, uint32_t block)
{
    uint32_t *at = &tree->buckets[tree->nodes[block].hash & tree->bucket_mask];

    while (*at != block) {
        ASSERT(*at != PREFIX_NONE);
        at = &tree->nodes[*at].bucket_next;
    }
    *at = tree->nodes[block].bucket_next;
}

uint32_t prefix_tree_evict(struct prefix_tree *tree)
{
    uint32_t block = tree->oldest;
    struct prefix_node *node = &tree->nodes[block];

    ASSERT(block != PREFIX_NONE && node->child_count == 0);
    prefix_tree_wake(tree, block);
    bucket_remove(tree, block);
    if (node->parent != PREFIX_NONE) {
        tree->nodes[node->parent].child_count--;
    }
    node->present = false;
    tree->node_count--;
    return block;
}
