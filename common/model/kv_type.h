#ifndef SHOAL_MODEL_KV_TYPE_H
#define SHOAL_MODEL_KV_TYPE_H

/* Storage types of the KV cache (--kv-type), part of the numerics id, and how a block of the cache
 * lies in memory.
 *
 * A block holds 64 tokens of one layer. In bytes from its beginning, all without gaps:
 *
 *   grouped heads   keys    [kv heads][key width][64 tokens]   a dimension's tokens side by side
 *                   values  [kv heads][64 tokens][value width]
 *   MLA             entries [64 tokens][kv_lora + rope]        the latent, then the rotated key
 *   both, q8 only   scales  f32 [scales][64 tokens]
 *
 * f32, f16 and bf16 store each value, rounded to nearest even. q8 stores int8 codes, with one f32
 * scale for each part of a token, never for several tokens: grouped heads have one for each key
 * head and then one for each value head, MLA one for the latent and one for the rotated key. Of a
 * part x:
 *
 *   m = max |x|;   scale = m / 127;   code[i] = x[i] * (127 / m), to the nearest even integer
 *
 * with scale 0 and codes 0 where m < 2^-100, and scale NaN where a value is infinite or NaN, so
 * that what is broken shows. The cached value is code * scale, rounded to f32 once; every product
 * takes that number, also in the step that stores it.
 */
#include "common/base/error.h"
#include "common/model/arch.h"

#include <stdbool.h>
#include <stdint.h>

#define KV_BLOCK_TOKENS 64

enum kv_type { KV_F32, KV_F16, KV_BF16, KV_Q8, KV_TYPE_COUNT };

const char *kv_type_name(enum kv_type type); /* "f16" */
uint32_t kv_type_bytes(enum kv_type type);   /* of one value, or code */
bool kv_type_parse(const char *text, enum kv_type *out, struct error *err) MUST_CHECK;

struct kv_layout {
    enum kv_type type;
    bool latent;          /* MLA: a value is the beginning of its key; one head */
    uint32_t head_count;  /* key heads, and as many value heads */
    uint32_t key_width;   /* values of one key */
    uint32_t value_width; /* of one value */
    uint32_t scale_count; /* of a token; 0 but for q8 */
    uint64_t value_begin; /* byte offsets in a block; MLA: 0, as the keys */
    uint64_t scale_begin;
    uint64_t block_bytes;
};
struct kv_layout kv_layout_of(const struct arch *arch, enum kv_type type);
/* What one token takes in one layer: block_bytes / 64, which is whole. */
uint64_t kv_layout_token_bytes(const struct kv_layout *layout);

#endif
