#ifndef SHOAL_ENGINE_BLOCK_POOL_H
#define SHOAL_ENGINE_BLOCK_POOL_H

/* The KV blocks of one lane, by number; the same numbers are valid on every stage. A block is free,
 * or held by so many sequences, or resting: held by none, but kept with its contents (by the prefix
 * cache) until somebody needs it. */
#include <stdint.h>

struct block_pool {
    uint32_t block_count;
    uint32_t free_count;
    uint32_t *free;    /* [block_count] stack: what was given back last is handed out first */
    uint32_t *holders; /* [block_count] */
};

void block_pool_init(struct block_pool *pool, uint32_t block_count);
void block_pool_deinit(struct block_pool *pool);
/* A free block for its first holder; there must be one. */
uint32_t block_pool_take(struct block_pool *pool);
/* One more holder of a block that is not free. Returns how many there are now. */
uint32_t block_pool_acquire(struct block_pool *pool, uint32_t block);
/* One holder fewer; returns how many are left. With none the block rests. */
uint32_t block_pool_release(struct block_pool *pool, uint32_t block);
/* A resting block becomes free. */
void block_pool_free(struct block_pool *pool, uint32_t block);

#endif
