#ifndef SHOAL_MODEL_ARCH_GGUF_H
#define SHOAL_MODEL_ARCH_GGUF_H

/* The architecture of a GGUF model.
 *
 * Metadata are put back into the words of the config.json that they were converted from, and that
 * is read like any other: one set of checks and defaults, and the same bits in struct arch
 * whichever format a model came in. Keys are those of llama.cpp (gguf-py/gguf/constants.py).
 *
 *   architecture  model_type                        what is special
 *   deepseek2     deepseek_v3 (expert_gating_func   key_length and value_length are the latent
 *                 2, sigmoid), deepseek_v2 (1 or    ones where the _mla keys exist;
 *                 missing, softmax)                 yarn_log_multiplier is mscale_all_dim / 10;
 *                                                   block_count includes the draft layers
 *   llama         llama                             rows of q and k are stored pair by pair:
 *                                                   ROPE_ADJACENT
 *   qwen2, qwen3  the same
 *   qwen3moe      qwen3_moe
 *
 * Files of DeepSeek-V2, V3 and R1 from before expert groups had keys get the groups of the
 * published models. Some things only the tensors say: without output.weight the embedding is tied;
 * attn_k_b means KV_B_SPLIT unless the joined attn_kv_b is there too; biases of the attention are
 * used where they exist; rope_freqs.weight, F32 [qk_rope_dim / 2], holds ROPE_DIVISORS. Any thread.
 */
#include "common/model/arch.h"
#include "common/model/gguf.h"

#define GGUF_ROPE_DIVISORS_NAME "rope_freqs.weight"

/* Reads the values of rope_freqs.weight from its file, if there is one; no other tensor's. */
bool arch_read_gguf(const struct gguf *gguf, struct arch *out, struct error *err) MUST_CHECK;

/* The step between: config.json as text. The caller owns it: mem_free. NULL on failure. */
char *arch_gguf_config(const struct gguf *gguf, struct error *err) MUST_CHECK;

#endif
