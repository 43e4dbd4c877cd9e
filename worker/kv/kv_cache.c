/* kv_cache.c - where the tokens of every sequence keep their keys and values.
 *
 * One region for all layers, cut as [layer][lane][block], so that what attention reads together
 * lies side by side: the 64 tokens of a block, and a lane's blocks of a layer. The tables are
 * [lane][slot][blocks_per_slot_max] block numbers with the length of each behind them; they serve
 * all layers, and the plane of tokens [lane][block][64] that the last stage has beside them: what a
 * sequence said so far, for penalties. What goes into a block is worker/layers/attention_cache.c's
 * business; which block belongs to whom is the coordinator's.
 */
#include "worker/kv/kv_cache.h"

#include "common/base/mem.h"

#include <inttypes.h>

struct kv_cache {
    struct kv_config config;
    char *blocks;
    uint64_t blocks_bytes;
    uint32_t *tables;  /* block numbers */
    uint32_t *lengths; /* [lane][slot]: leading entries of the table that are set */
    uint32_t *tokens;  /* NULL: none are kept */
};

static uint64_t blocks_bytes_of(const struct kv_config *config)
{
    uint64_t blocks = (uint64_t)(config->layer_end - config->layer_begin) * config->lane_count *
                      config->block_count;

    return blocks * config->layout.block_bytes;
}

static uint64_t tokens_bytes_of(const struct kv_config *config)
{
    uint64_t blocks = (uint64_t)config->lane_count * config->block_count;

    return config->has_tokens ? blocks * KV_BLOCK_TOKENS * sizeof(uint32_t) : 0;
}

static size_t slot_total(const struct kv_config *config)
{
    return (size_t)config->lane_count * config->slot_count;
}

uint64_t kv_cache_bytes(const struct kv_config *config)
{
    uint64_t table_bytes =
        slot_total(config) * ((uint64_t)config->blocks_per_slot_max + 1) * sizeof(uint32_t);

    return blocks_bytes_of(config) + tokens_bytes_of(config) + table_bytes +
           sizeof(struct kv_cache);
}

static bool make_regions(struct kv_cache *cache, struct error *err)
{
    const struct kv_config *config = &cache->config;

    cache->blocks = mem_map_pages(cache->blocks_bytes, err);
    if (cache->blocks == NULL) {
        return false;
    }
    cache->tables = mem_try_array(uint32_t, slot_total(config) * config->blocks_per_slot_max, err);
    if (cache->tables == NULL) {
        return false;
    }
    cache->lengths = mem_try_array(uint32_t, slot_total(config), err);
    if (cache->lengths == NULL || !config->has_tokens) {
        return cache->lengths != NULL;
    }
    cache->tokens = mem_map_pages(tokens_bytes_of(config), err);
    return cache->tokens != NULL;
}

struct kv_cache *kv_cache_create(const struct kv_config *config, struct error *err)
{
    struct kv_cache *cache = mem_new(struct kv_cache);

    ASSERT(config->layer_begin < config->layer_end && config->layout.block_bytes > 0);
    ASSERT(config->lane_count > 0 && config->block_count > 0 && config->slot_count > 0);
    cache->config = *config;
    cache->blocks_bytes = blocks_bytes_of(config);
    if (!make_regions(cache, err)) {
        error_wrap(err, "kv cache of %" PRIu64 " bytes", kv_cache_bytes(config));
        kv_cache_destroy(cache);
        return NULL;
    }
    return cache;
}

void kv_cache_destroy(struct kv_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    mem_unmap_pages(cache->tokens, tokens_bytes_of(&cache->config));
    mem_free(cache->lengths);
    mem_free(cache->tables);
    mem_unmap_pages(cache->blocks, cache->blocks_bytes);
    mem_free(cache);
}

const struct kv_config *kv_cache_config(const struct kv_cache *cache)
{
    return &cache->config;
}

static size_t slot_index(const struct kv_cache *cache, uint32_t lane, uint32_t slot)
{
    return (size_t)lane * cache->config.slot_count + slot;
}

static bool extend_check(const struct kv_cache *cache, size_t index, uint32_t block_begin,
                         uint32_t count, struct error *err)
{
    uint32_t length = cache->lengths[index];
    uint32_t length_max = cache->config.blocks_per_slot_max;

    if (block_begin > length) {
        return error_set(err, ERROR_PEER, "block table has %u entries, the step sets it from %u on",
                         length, block_begin);
    }
    if (count > length_max - block_begin) {
        return error_set(err, ERROR_PEER,
                         "block table takes %u entries, the step sets %u from %u on", length_max,
                         count, block_begin);
    }
    return true;
}

/* A table never shrinks: a step that is issued again sets the same entries once more, while later
 * steps, already seen here, have set theirs. A slot's next sequence overwrites from entry 0. */
bool kv_cache_extend(struct kv_cache *cache, uint32_t lane, uint32_t slot, uint32_t block_begin,
                     const uint32_t *blocks, uint32_t count, struct error *err)
{
    const struct kv_config *config = &cache->config;
    size_t index;
    uint32_t *table;

    if (lane >= config->lane_count || slot >= config->slot_count) {
        return error_set(err, ERROR_PEER, "no slot %u on lane %u: %u lanes of %u slots", slot, lane,
                         config->lane_count, config->slot_count);
    }
    index = slot_index(cache, lane, slot);
    if (!extend_check(cache, index, block_begin, count, err)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (blocks[i] >= config->block_count) {
            return error_set(err, ERROR_PEER, "no block %u on lane %u: it has %u", blocks[i], lane,
                             config->block_count);
        }
    }
    table = cache->tables + index * config->blocks_per_slot_max;
    for (uint32_t i = 0; i < count; i++) {
        table[block_begin + i] = blocks[i];
    }
    if (cache->lengths[index] < block_begin + count) {
        cache->lengths[index] = block_begin + count;
    }
    return true;
}

static uint32_t block_at(const struct kv_cache *cache, uint32_t lane, uint32_t slot,
                         uint32_t position)
{
    size_t index = slot_index(cache, lane, slot);
    uint32_t place = position / KV_BLOCK_TOKENS;

    ASSERT(lane < cache->config.lane_count && slot < cache->config.slot_count);
    ASSERT(place < cache->lengths[index]);
    return cache->tables[index * cache->config.blocks_per_slot_max + place];
}

void *kv_cache_block(const struct kv_cache *cache, uint32_t layer, uint32_t lane, uint32_t slot,
                     uint32_t position)
{
    const struct kv_config *config = &cache->config;
    uint64_t block;

    ASSERT(layer >= config->layer_begin && layer < config->layer_end);
    block = ((uint64_t)(layer - config->layer_begin) * config->lane_count + lane) *
                config->block_count +
            block_at(cache, lane, slot, position);
    return cache->blocks + block * config->layout.block_bytes;
}

uint32_t *kv_cache_token(const struct kv_cache *cache, uint32_t lane, uint32_t slot,
                         uint32_t position)
{
    uint64_t block =
        (uint64_t)lane * cache->config.block_count + block_at(cache, lane, slot, position);

    ASSERT(cache->tokens != NULL);
    return cache->tokens + block * KV_BLOCK_TOKENS + position % KV_BLOCK_TOKENS;
}

bool kv_cache_covers(const struct kv_cache *cache, uint32_t lane, uint32_t slot,
                     uint32_t token_count)
{
    ASSERT(lane < cache->config.lane_count && slot < cache->config.slot_count);
    return (uint64_t)cache->lengths[slot_index(cache, lane, slot)] * KV_BLOCK_TOKENS >= token_count;
}
