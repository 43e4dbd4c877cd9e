#ifndef SHOAL_LAYERS_FORWARD_H
#define SHOAL_LAYERS_FORWARD_H

/* The forward pass of one worker's layers over a ragged batch: rows of several sequences, prefill
 * chunks and decode tokens mixed. Stages and expert exchange are the caller's (worker/stage).
 *
 * The hidden state x is f32 [row][hidden]. All buffers are made once for rows_max rows (an epoch);
 * a pass allocates nothing. Owner: the compute thread; work inside is spread over the team.
 * Same bits for any thread count, row order, batch and CPU level (deploy/docs/arithmetic.md).
 */
#include "common/base/error.h"
#include "common/model/arch.h"
#include "worker/kernels/kernels.h"
#include "worker/kv/kv_cache.h"
#include "worker/layers/weights.h"
#include "worker/team/team.h"

#define ATTENTION_SPLIT_TOKENS 256 /* context splits lie at its multiples, joined in rising order  \
                                    */
#define ATTENTION_SEGMENT_TOKENS 1024 /* inside it prompts take expanded latent attention */

struct forward_config {
    const struct arch *arch; /* borrowed for life, as all below */
    const struct weights *weights;
    struct kv_cache *cache;
    const struct kernels *kernels;
    struct team *team;
    uint32_t rows_max;        /* own rows of one step */
    uint32_t expert_rows_max; /* (row, expert) pairs computed at once in one call */
};
struct forward;

/* What the buffers will take, for the ledger. */
uint64_t forward_bytes(const struct arch *arch, uint32_t rows_max, uint32_t expert_rows_max,
                       uint32_t context_tokens_max, uint32_t thread_count);
struct forward *forward_create(const struct forward_config *config, struct error *err) MUST_CHECK;
void forward_destroy(struct forward *forward); /* NULL is legal */

/* Which form of latent attention a token takes (DESIGN, Attention): one of the prompt meets the
 * keys of its own segment of ATTENTION_SEGMENT_TOKENS expanded and earlier ones absorbed, a
 * generated one all of them absorbed. A token keeps its class when it is computed again. Without
 * effect on other attention. */
enum token_class { TOKEN_PROMPT, TOKEN_GENERATED };

/* One row of the batch. Rows of one sequence stand in rising position, prompt before generated. */
struct forward_row {
    uint32_t lane; /* the worker's own lane index */
    uint32_t slot;
    uint32_t position;
    uint32_t token;
    enum token_class token_class;
};

/* x[r] = embedding of rows[r].token; tokens are below arch->vocab (checked by the caller). */
void forward_embed(struct forward *forward, const struct forward_row *rows, uint32_t row_count,
                   float *x);
/* x += attention(input_norm(x)); first writes the rows' cache entries of this layer. */
void forward_attention(struct forward *forward, uint32_t layer, const struct forward_row *rows,
                       uint32_t row_count, float *x);
/* Dense layers: x += mlp(post_norm(x)). */
void forward_dense(struct forward *forward, uint32_t layer, uint32_t row_count, float *x);

/* MoE layers, in this order; normed = post_norm(x) [row][hidden] is lent until the next layer. */
struct expert_choice {
    uint32_t expert;
    float weight; /* final multiplier */
};
/* choices [row][chosen_count], ascending expert id. */
void forward_route(struct forward *forward, uint32_t layer, uint32_t row_count, const float *x,
                   const float **normed, struct expert_choice *choices);
/* out[r] = shared expert(normed[r]); out is [row][hidden]; zeros when the model has none. */
void forward_shared(struct forward *forward, uint32_t layer, uint32_t row_count,
                    const float *normed, float *out);
/* One expert for one row: output = weight * expert(input), rounded to f32. */
struct expert_job {
    uint32_t expert;
    float weight;
    const float *input; /* [hidden], borrowed */
    float *output;      /* [hidden] */
};
/* Any order, any experts of this worker; each expert's weights are read once. job_count is at most
 * expert_rows_max. Asserts that the experts are owned. */
void forward_experts(struct forward *forward, uint32_t layer, const struct expert_job *jobs,
                     uint32_t job_count);

/* The combine tree's node operations, used by own and received parts alike (DESIGN, Experts):
 * chosen experts of one router group in id order by plain additions; groups in order; then the
 * shared expert; then x += the sum. These two use no buffer of the forward: a caller may spread
 * rows over the team. */
struct combine_part {
    const float *values; /* [hidden]: a weighted expert row or a whole group's sum */
    uint32_t group;      /* arch_combine_group of its experts */
};
/* parts: of one row, ascending by group and, inside a group, by expert id. */
void forward_combine_row(struct forward *forward, const struct combine_part *parts,
                         uint32_t part_count, const float *shared, float *x);
/* sum of the parts of one group, in order, into out [hidden]. */
void forward_group_sum(struct forward *forward, const float *const *rows, uint32_t row_count,
                       float *out);

/* The draft layer (multi-token prediction, DeepSeek-V3 report, arXiv:2412.19437, section 2.2) is
 * layer arch->layer_count: attention and experts are those of a MoE layer, with these before and
 * behind. The row at position i has the token at i + 1 and the hidden state of position i:
 *   x = eh_proj([enorm(embedding of the token), hnorm(h)]), embedding first
 * where h is the main model's state after its final norm. When the layer goes on from its own
 * output, h is that output after shared_head.norm, the state that its logits are made of. */
enum draft_hidden {
    DRAFT_HIDDEN_MAIN, /* x of the last main layer */
    DRAFT_HIDDEN_OWN,  /* x of the draft layer */
};
struct draft_input {
    const struct forward_row *rows; /* [row_count] */
    const uint32_t *sources;        /* [row_count]: the row of x that its hidden state is in */
    uint32_t row_count;
    enum draft_hidden hidden;
};
/* x[i] = the layer's input of rows[i], after all sources have been read. */
void forward_draft_input(struct forward *forward, const struct draft_input *input, float *x);
/* Only the rows' cache entries of a layer with latent attention, as forward_attention writes them:
 * for rows whose output nobody needs. */
void forward_store(struct forward *forward, uint32_t layer, const struct forward_row *rows,
                   uint32_t row_count, const float *x);
/* out[i] = shared_head.norm(x[row_indexes[i]]) . head, otherwise as forward_logits. */
void forward_draft_logits(struct forward *forward, const float *x, const uint32_t *row_indexes,
                          uint32_t count, float *out);

/* Last stage. out[i] = final_norm(x[row_indexes[i]]) . head: f32 [count][vocab]. count at most
 * rows_max. */
void forward_logits(struct forward *forward, const float *x, const uint32_t *row_indexes,
                    uint32_t count, float *out);

#endif
