#ifndef SHOAL_CLUSTER_CLUSTER_WORDS_H
#define SHOAL_CLUSTER_CLUSTER_WORDS_H

/* A cluster file as it is written: libcyaml's side of cluster_file.h. Amounts with units are still
 * words. */
#include "common/base/error.h"

#include <stddef.h>
#include <stdint.h>

#define CLUSTER_NAME_CHARACTERS_MAX 40

struct network_words {
    char *bandwidth;
    char *latency;
};
struct group_words {
    char *name; /* NULL: not given, as for all pointers to numbers */
    uint32_t *count;
    char *memory;
    uint32_t cores;
    char *read_bandwidth;
    uint32_t *workers;
    struct network_words *network;
};
struct cluster_words {
    struct group_words *nodes;
    uint32_t nodes_count;
    struct network_words *network;
};

/* Holds the text to the schema; err says what breaks it, by line and field. Ended by
 * cluster_words_free. */
struct cluster_words *cluster_words_load(const char *text, size_t length,
                                         struct error *err) MUST_CHECK;
void cluster_words_free(struct cluster_words *words); /* NULL is legal */

#endif
