#ifndef SHOAL_KV_KV_CACHE_H
#define SHOAL_KV_KV_CACHE_H

/* The paged cache of one worker: for each of its layers and lanes, blocks of 64 tokens.
 *
 * MLA keeps arch_kv_values() values a token (576 in R1): the latent after its norm, then the key
 * after rotation; never expanded. How a block lies in memory is in common/model/kv_type.h. Block
 * numbers come from the coordinator and mean the same in all layers of a lane. Each sequence slot
 * has a block table, extended by the steps. Steps are idempotent: writing the same position again
 * stores the same bits.
 *
 * Owner: the stage's compute thread; team threads read and write disjoint tokens inside a step.
 */
#include "common/base/error.h"
#include "common/model/arch.h"
#include "common/model/kv_type.h"

struct kv_config {
    uint32_t layer_begin, layer_end;
    uint32_t lane_count;          /* lanes that this worker serves */
    uint32_t block_count;         /* per lane */
    uint32_t slot_count;          /* sequence slots per lane */
    uint32_t blocks_per_slot_max; /* ceil(context / 64) */
    struct kv_layout layout;      /* of a block */
    bool has_tokens;              /* the last stage's: keeps the token of each position too */
};
struct kv_cache;

uint64_t kv_cache_bytes(const struct kv_config *config); /* for the ledger, tables included */
struct kv_cache *kv_cache_create(const struct kv_config *config, struct error *err) MUST_CHECK;
void kv_cache_destroy(struct kv_cache *cache); /* NULL is legal */
const struct kv_config *kv_cache_config(const struct kv_cache *cache);

/* blocks[0..count) become entries block_begin… of the slot's table, which never shrinks (a step may
 * be issued again after later ones) and has no gaps. False (ERROR_PEER) if a block, slot or range
 * does not exist; lane is the worker's own lane index. */
bool kv_cache_extend(struct kv_cache *cache, uint32_t lane, uint32_t slot, uint32_t block_begin,
                     const uint32_t *blocks, uint32_t count, struct error *err) MUST_CHECK;
/* The block that holds a position, which must be in the table: layout.block_bytes bytes, at a
 * multiple of 64. */
void *kv_cache_block(const struct kv_cache *cache, uint32_t layer, uint32_t lane, uint32_t slot,
                     uint32_t position);
/* Where the token of a position stands, in a cache that has tokens; the tokens of a block are
 * contiguous. Blocks that several sequences share hold their common history, and a step that is
 * issued again writes the same. */
uint32_t *kv_cache_token(const struct kv_cache *cache, uint32_t lane, uint32_t slot,
                         uint32_t position);
/* Whether the table holds blocks for positions [0, token_count). */
bool kv_cache_covers(const struct kv_cache *cache, uint32_t lane, uint32_t slot,
                     uint32_t token_count);

#endif
