/* block_pool.c - who holds which block. */
#include "coordinator/engine/block_pool.h"

#include "common/base/check.h"
#include "common/base/mem.h"

void block_pool_init(struct block_pool *pool, uint32_t block_count)
{
    *pool = (struct block_pool){
        .block_count = block_count,
        .free_count = block_count,
        .free = mem_new_array(uint32_t, block_count),
        .holders = mem_new_array(uint32_t, block_count),
    };
    for (uint32_t i = 0; i < block_count; i++) {
        pool->free[i] = block_count - 1 - i; /* 0 is taken first */
    }
}

void block_pool_deinit(struct block_pool *pool)
{
    mem_free(pool->free);
    mem_free(pool->holders);
}

uint32_t block_pool_take(struct block_pool *pool)
{
    uint32_t block;

    ASSERT(pool->free_count > 0);
    block = pool->free[--pool->free_count];
    ASSERT(pool->holders[block] == 0);
    pool->holders[block] = 1;
    return block;
}

uint32_t block_pool_acquire(struct block_pool *pool, uint32_t block)
{
    ASSERT(block < pool->block_count);
    return ++pool->holders[block];
}

uint32_t block_pool_release(struct block_pool *pool, uint32_t block)
{
    ASSERT(block < pool->block_count && pool->holders[block] > 0);
    return --pool->holders[block];
}

void block_pool_free(struct block_pool *pool, uint32_t block)
{
    ASSERT(block < pool->block_count && pool->holders[block] == 0);
    ASSERT(pool->free_count < pool->block_count);
    pool->free[pool->free_count++] = block;
}
