#ifndef SHOAL_ENGINE_PREFIX_TREE_H
#define SHOAL_ENGINE_PREFIX_TREE_H

/* The prefix cache of one lane: a radix tree whose edges are blocks of PLAN_BLOCK_TOKENS prompt
 * tokens and whose nodes are the KV blocks that hold them, so a node's name is its block's number.
 *
 * A node is found by its parent and its tokens, compared in full; the hash of the whole chain only
 * says where to look. Nodes that no sequence holds are idle, in the order in which they became so.
 * A sequence that holds a node holds all nodes above it and lets go of the deepest first. So an
 * idle node has idle children only, all of them idle for longer, and the longest idle node is a
 * leaf: the one to evict.
 */
#include "common/plan/placement.h"

#include <stdbool.h>
#include <stdint.h>

#define PREFIX_NONE UINT32_MAX /* no such node; as a parent: the root */

struct prefix_node {
    uint64_t hash; /* of the chain down to here */
    uint32_t parent;
    uint32_t child_count;
    uint32_t bucket_next;
    uint32_t older, newer; /* of the idle ones */
    bool present;
    bool idle;
};

struct prefix_tree {
    uint32_t block_count;
    uint32_t node_count;
    uint32_t idle_count;
    uint32_t oldest, newest;   /* idle */
    struct prefix_node *nodes; /* [block_count] */
    uint32_t *tokens;          /* [block_count][PLAN_BLOCK_TOKENS] */
    uint32_t *buckets;         /* [bucket_mask + 1] first node, or PREFIX_NONE */
    uint32_t bucket_mask;
};

/* The hash of a chain that `tokens` prolong; `parent` is the hash before them, 0 to begin. */
uint64_t prefix_hash(uint64_t parent, const uint32_t tokens[PLAN_BLOCK_TOKENS]);

void prefix_tree_init(struct prefix_tree *tree, uint32_t block_count);
void prefix_tree_deinit(struct prefix_tree *tree);
/* The child of `parent` with these tokens, or PREFIX_NONE. */
uint32_t prefix_tree_find(const struct prefix_tree *tree, uint32_t parent, uint64_t hash,
                          const uint32_t tokens[PLAN_BLOCK_TOKENS]);
/* The block becomes a node, in use; tokens are copied. The parent must be in use (or the root), and
 * must have no such child. */
void prefix_tree_insert(struct prefix_tree *tree, uint32_t parent, uint64_t hash,
                        const uint32_t tokens[PLAN_BLOCK_TOKENS], uint32_t block);
bool prefix_tree_holds(const struct prefix_tree *tree, uint32_t block);
/* The node's last holder has let go, or its first one came back. */
void prefix_tree_rest(struct prefix_tree *tree, uint32_t block);
void prefix_tree_wake(struct prefix_tree *tree, uint32_t block);
/* Takes the longest idle leaf out; its block is the caller's. There must be an idle node. */
uint32_t prefix_tree_evict(struct prefix_tree *tree);

#endif
