/* added_trie.c - the set of added tokens as a tree of bytes.
 *
 * Most places in a text begin no added token, and one look at a table of 256 first bytes says so.
 * From the others the tree is walked as far as the text agrees; the last end of a token that was
 * passed wins. A walk is at most as long as the longest token.
 */
#include "common/text/added_trie.h"

#include "common/base/mem.h"

#include <string.h>

#define NO_ID UINT32_MAX

static uint32_t node_new(struct added_trie *trie, unsigned char byte)
{
    if (trie->count == trie->capacity) {
        trie->capacity = trie->capacity == 0 ? 256 : 2 * trie->capacity;
        trie->nodes = mem_resize(trie->nodes, trie->capacity, sizeof *trie->nodes);
    }
    trie->nodes[trie->count] = (struct added_trie_node){.id = NO_ID, .byte = byte};
    return (uint32_t)trie->count++;
}

void added_trie_init(struct added_trie *trie)
{
    memset(trie, 0, sizeof *trie);
    node_new(trie, 0); /* node 0, so that 0 can say "none" */
}

void added_trie_deinit(struct added_trie *trie)
{
    mem_free(trie->nodes);
    memset(trie, 0, sizeof *trie);
}

static uint32_t child_of(const struct added_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t child = trie->nodes[node].first_child;

    while (child != 0 && trie->nodes[child].byte != byte) {
        child = trie->nodes[child].next_sibling;
    }
    return child;
}

void added_trie_add(struct added_trie *trie, const char *text, size_t length, uint32_t id)
{
    ASSERT(length > 0);
    uint32_t node = trie->roots[(unsigned char)text[0]];

    if (node == 0) {
        node = node_new(trie, (unsigned char)text[0]);
        trie->roots[(unsigned char)text[0]] = node;
    }
    for (size_t i = 1; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = child_of(trie, node, byte);

        if (child == 0) {
            child = node_new(trie, byte);
            trie->nodes[child].next_sibling = trie->nodes[node].first_child;
            trie->nodes[node].first_child = child;
        }
        node = child;
    }
    ASSERT(trie->nodes[node].id == NO_ID);
    trie->nodes[node].id = id;
}

/* The longest token that begins at `begin`. */
static struct added_match match_at(const struct added_trie *trie, const char *text, size_t begin,
                                   size_t end)
{
    struct added_match best = {.begin = begin, .end = begin, .id = NO_ID};
    uint32_t node = trie->roots[(unsigned char)text[begin]];

    for (size_t at = begin + 1; node != 0; at++) {
        if (trie->nodes[node].id != NO_ID) {
            best.end = at;
            best.id = trie->nodes[node].id;
        }
        node = at < end ? child_of(trie, node, (unsigned char)text[at]) : 0;
    }
    return best;
}

struct added_match added_trie_find(const struct added_trie *trie, const char *text, size_t begin,
                                   size_t end)
{
    for (size_t at = begin; at < end; at++) {
        if (trie->roots[(unsigned char)text[at]] != 0) {
            struct added_match match = match_at(trie, text, at, end);

            if (match.id != NO_ID) {
                return match;
            }
        }
    }
    return (struct added_match){.begin = end, .end = end, .id = NO_ID};
}
