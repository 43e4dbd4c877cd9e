/* attention_cache.c - new keys and values into their blocks, in the cache's type.
 *
 * Where a token's values go in a block is common/model/kv_type.h's. Grouped keys lie dimension by
 * dimension, each value of a token in another line: a head's rows are therefore stored by one
 * thread, in order, so that tokens which share lines meet them in its cache.
 */
#include "worker/layers/attention.h"

#include <string.h>

#define STORE_ROWS_INLINE 4 /* waking the team costs more than storing so many rows */

/* A row's place in the cache. */
struct place {
    const struct kv_layout *layout;
    char *block;
    uint32_t token; /* in the block */
};

static struct place place_of(const struct attention_work *work, size_t row)
{
    const struct kv_cache *cache = work->forward->config.cache;
    const struct forward_row *at = &work->rows[row];

    return (struct place){
        .layout = &kv_cache_config(cache)->layout,
        .block = kv_cache_block(cache, work->layer, at->lane, at->slot, at->position),
        .token = at->position % KV_BLOCK_TOKENS,
    };
}

/* Part `part` of the token as it is stored, wherever; its scale goes into the block. */
static void part_store(const struct kernels *kernels, const struct place *place, uint32_t part,
                       const float *values, size_t count, void *out)
{
    const struct kv_layout *layout = place->layout;

    if (layout->type == KV_Q8) {
        float *scales = (void *)(place->block + layout->scale_begin);

        scales[(size_t)part * KV_BLOCK_TOKENS + place->token] =
            kernels->kv_store_q8(values, count, out);
    } else {
        kernels->kv_store(out, layout->type, values, count);
    }
}

void attention_store_latent(const struct attention_work *work, size_t row)
{
    const struct forward *forward = work->forward;
    struct place place = place_of(work, row);
    const struct kv_layout *layout = place.layout;
    size_t bytes = kv_type_bytes(layout->type);
    const float *entry = forward->attention.entries + row * layout->key_width;
    char *out = place.block + place.token * layout->key_width * bytes;
    size_t latent = layout->value_width;

    part_store(forward->config.kernels, &place, 0, entry, latent, out);
    part_store(forward->config.kernels, &place, 1, entry + latent, layout->key_width - latent,
               out + latent * bytes);
}

/* values[i], of so many bytes, becomes out[i * 64]. */
static void values_spread(char *out, const char *values, size_t count, size_t bytes)
{
    size_t step = KV_BLOCK_TOKENS * bytes;

    DEBUG_ASSERT(bytes == 1 || bytes == 2 || bytes == 4);
    switch (bytes) {
    case 1:
        for (size_t i = 0; i < count; i++) {
            out[i * step] = values[i];
        }
        break;
    case 2:
        for (size_t i = 0; i < count; i++) {
            memcpy(out + i * step, values + i * 2, 2);
        }
        break;
    default:
        for (size_t i = 0; i < count; i++) {
            memcpy(out + i * step, values + i * 4, 4);
        }
        break;
    }
}

struct store_work {
    const struct attention_work *work;
    uint32_t row_count;
};

/* Key and value head `head` of one row; `stored` takes a key on its way. */
static void head_store(const struct attention_work *work, size_t row, size_t head, char *stored)
{
    const struct attention_buffers *buffers = &work->forward->attention;
    const struct kernels *kernels = work->forward->config.kernels;
    struct place place = place_of(work, row);
    const struct kv_layout *layout = place.layout;
    size_t bytes = kv_type_bytes(layout->type);
    size_t head_bytes = KV_BLOCK_TOKENS * bytes;
    size_t key_values = (size_t)layout->head_count * layout->key_width;
    const float *entry = buffers->entries + row * arch_kv_values(work->forward->config.arch);
    char *keys = place.block + head * layout->key_width * head_bytes;
    char *values = place.block + layout->value_begin + head * layout->value_width * head_bytes;

    part_store(kernels, &place, (uint32_t)head, entry + head * layout->key_width, layout->key_width,
               stored);
    values_spread(keys + place.token * bytes, stored, layout->key_width, bytes);
    part_store(kernels, &place, layout->head_count + (uint32_t)head,
               entry + key_values + head * layout->value_width, layout->value_width,
               values + place.token * layout->value_width * bytes);
}

static void store_tile(void *context, size_t head, uint32_t thread)
{
    const struct store_work *store = context;
    const struct attention_buffers *buffers = &store->work->forward->attention;
    char *stored = (char *)(buffers->scratch + thread * buffers->scratch_values);

    for (uint32_t row = 0; row < store->row_count; row++) {
        head_store(store->work, row, head, stored);
    }
}

void attention_store_grouped(const struct attention_work *work, uint32_t row_count)
{
    struct store_work store = {work, row_count};
    uint32_t head_count = work->forward->config.arch->kv_head_count;

    if (row_count > STORE_ROWS_INLINE) {
        team_run(work->forward->config.team, store_tile, &store, head_count);
        return;
    }
    for (uint32_t head = 0; head < head_count; head++) {
        store_tile(&store, head, 0);
    }
}
