#ifndef SHOAL_TEXT_ADDED_TRIE_H
#define SHOAL_TEXT_ADDED_TRIE_H

/* Finds added tokens in text: the leftmost, and of those that begin there the longest. Built once,
 * then immutable. */
#include <stddef.h>
#include <stdint.h>

struct added_trie_node {
    uint32_t first_child; /* 0: none (the root is nobody's child) */
    uint32_t next_sibling;
    uint32_t id; /* UINT32_MAX: no token ends here */
    unsigned char byte;
};

struct added_trie {
    struct added_trie_node *nodes;
    size_t count;
    size_t capacity;
    uint32_t roots[256]; /* the root's child by byte; 0: no token begins so */
};

void added_trie_init(struct added_trie *trie);
void added_trie_deinit(struct added_trie *trie);
/* No text may be added twice. */
void added_trie_add(struct added_trie *trie, const char *text, size_t length, uint32_t id);

struct added_match {
    size_t begin;
    size_t end;
    uint32_t id; /* UINT32_MAX: nothing was found, begin = end = the end of the range */
};
/* Looks in text[begin .. end); the match lies inside. */
struct added_match added_trie_find(const struct added_trie *trie, const char *text, size_t begin,
                                   size_t end);

#endif
