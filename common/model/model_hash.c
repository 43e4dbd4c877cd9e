/* model_hash.c - one number for "the same model".
 *
 * Everything is written as text and hashed as such, so that neither padding nor byte order nor the
 * order of struct fields enters. The tensors' values stay out: reading 700 GB to compare names
 * would cost more than the load itself.
 */
#include "common/model/model_hash.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void write_rope(struct buffer *text, const struct rope_config *rope)
{
    buffer_printf(text, "rope %d %a %a %a %a %a %a %u\n", (int)rope->scaling, rope->theta,
                  rope->factor, rope->beta_fast, rope->beta_slow, rope->mscale,
                  rope->mscale_all_dim, rope->original_context);
    buffer_printf(text, "style %d", (int)rope->style);
    for (uint32_t i = 0; rope->scaling == ROPE_DIVISORS && i < ROPE_DIVISORS_MAX; i++) {
        buffer_printf(text, " %a", (double)rope->divisors[i]);
    }
    buffer_append_char(text, '\n');
}

static void write_arch(struct buffer *text, const struct arch *arch)
{
    const struct router_config *router = &arch->router;

    buffer_printf(text, "arch %s %d %u %u %u %u %u %u\n", arch->name, (int)arch->attention,
                  arch->layer_count, arch->draft_layer_count, arch->dense_layer_count, arch->hidden,
                  arch->vocab, arch->context_tokens_max);
    buffer_printf(text, "norm %a %a\n", (double)arch->norm_eps, (double)arch->latent_norm_eps);
    buffer_printf(text, "heads %u %u %u %u %u %u %u\n", arch->head_count, arch->kv_head_count,
                  arch->q_lora_rank, arch->kv_lora_rank, arch->qk_nope_dim, arch->qk_rope_dim,
                  arch->v_head_dim);
    buffer_printf(text, "attention %u %d %d\n", arch->attention_bias, (int)arch->qk_norm,
                  (int)arch->kv_b_layout);
    write_rope(text, &arch->rope);
    buffer_printf(text, "mlp %u %u %u %d\n", arch->dense_width, arch->expert_width,
                  arch->shared_width, (int)arch->tied_embedding);
    buffer_printf(text, "router %d %d %u %u %u %u %d %a\n", (int)router->scoring,
                  (int)router->method, router->expert_count, router->chosen_count,
                  router->group_count, router->group_chosen_count, (int)router->normalise,
                  (double)router->scale);
}

static uint64_t hash_text(uint64_t hash, const struct buffer *text)
{
    return hash_mix(hash ^ hash_bytes(buffer_text(text), text->length));
}

void model_hash(const struct catalog *catalog, char out[MODEL_HASH_BYTES])
{
    struct buffer text;
    uint64_t hash = 0;

    buffer_init(&text);
    write_arch(&text, &catalog->arch);
    for (uint32_t i = 0; i < catalog->file_count; i++) {
        buffer_printf(&text, "file %s %" PRIu64 "\n", file_name(catalog->files[i].path),
                      catalog->files[i].bytes);
    }
    if (catalog->weights.source == WEIGHTS_DUMMY) {
        buffer_printf(&text, "dummy %" PRIu64 "\n", catalog->weights.seed);
    }
    hash = hash_text(hash, &text);
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        buffer_clear(&text);
        buffer_printf(&text, "%s %s %u %u %u %" PRIu64 " %" PRIu64 "\n", tensor->name,
                      weight_type_name(tensor->type), tensor->rows, tensor->columns, tensor->file,
                      tensor->offset, tensor->bytes);
        if (tensor->scales.bytes > 0) {
            buffer_printf(&text, "scales %u %" PRIu64 " %" PRIu64 "\n", tensor->scales.file,
                          tensor->scales.offset, tensor->scales.bytes);
        }
        hash = hash_text(hash, &text);
    }
    buffer_deinit(&text);
    (void)snprintf(out, MODEL_HASH_BYTES, "%016" PRIx64, hash);
}
