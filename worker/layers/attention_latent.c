/* attention_latent.c - multi-head latent attention: its projections, and its absorbed form.
 *
 * The cache keeps one latent and one rotated key per token, shared by all heads. Instead of
 * expanding them, each head's query goes into the latent space (W_UK), attends there, and the
 * attended latent becomes the head's value (W_UV): the same product, bracketed differently
 * (DeepSeek-V2 report, arXiv:2405.04434, section 2.1.3).
 *
 *   x -> norm -> q_a -> norm -> q_b -> [nope | rope] per head
 *             -> kv_a -> [latent -> norm | rotated key] -> cache
 *
 * Prompts meet the keys of their own segment in the expanded form (attention_expanded.c), where it
 * takes a third of the work: their rows leave here with the state over earlier segments.
 */
#include "worker/layers/attention.h"

#include <string.h>

#define HEAD_ROWS 32 /* rows of one W_UK or W_UV tile */

/* Norms and rotates the new cache entry, and stores it. */
static void entry_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attention_buffers *buffers = &forward->attention;
    const struct forward_row *at = &work->rows[row];
    uint32_t entry_values = arch->kv_lora_rank + arch->qk_rope_dim;
    float *entry = buffers->entries + row * entry_values;
    float *cos_sin = buffers->cos_sin + row * arch->qk_rope_dim;

    (void)thread;
    kernels->rms_norm(entry, work->weights->kv_a_norm, arch->kv_lora_rank, arch->latent_norm_eps,
                      entry);
    attention_cos_sin(forward, at->position, cos_sin);
    attention_rotate(forward, entry + arch->kv_lora_rank, cos_sin);
    attention_store_latent(work, row);
}

/* The same, and norms the query's latent. */
static void query_entry_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;

    if (arch->q_lora_rank > 0) {
        float *q_a = forward->attention.q_a + row * arch->q_lora_rank;

        forward->config.kernels->rms_norm(q_a, work->weights->q_a_norm, arch->q_lora_rank,
                                          arch->latent_norm_eps, q_a);
    }
    entry_row(context, row, thread);
}

/* The entries' values before norm and rotation. */
static struct product entries_product(const struct attention_work *work)
{
    struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;

    return (struct product){
        .w = &work->weights->kv_a,
        .x = {forward->normed, arch->hidden},
        .out = {forward->attention.entries, arch->kv_lora_rank + arch->qk_rope_dim},
        .activations = PRODUCT_F32,
    };
}

void attention_latent_store(struct attention_work *work, uint32_t row_count)
{
    struct product entries = entries_product(work);

    product_run(work->forward, &entries, 1, row_count);
    rows_run(work->forward, entry_row, work, row_count);
}

/* Queries and cache entries of all rows. */
static void project(struct attention_work *work, uint32_t row_count)
{
    struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    uint32_t q_values = arch->head_count * (arch->qk_nope_dim + arch->qk_rope_dim);
    struct rows_view x = {forward->normed, arch->hidden};
    struct rows_view q_a = {buffers->q_a, arch->q_lora_rank};
    struct rows_out q = {buffers->q, q_values};
    struct product first[] = {
        entries_product(work),
        {.w = &work->weights->q_a, .x = x, .out = {buffers->q_a, arch->q_lora_rank}},
    };
    struct product second = {.w = &work->weights->q_b, .x = q_a, .out = q};

    if (arch->q_lora_rank == 0) {
        first[1] = (struct product){.w = &work->weights->q_b, .x = x, .out = q};
    }
    product_run(forward, first, 2, row_count);
    rows_run(forward, query_entry_row, work, row_count);
    if (arch->q_lora_rank > 0) {
        product_run(forward, &second, 1, row_count);
    }
}

/* A tile of one head and up to HEAD_ROWS rows of the chunk. */
struct head_tile {
    uint32_t head;
    uint32_t row; /* in the chunk */
    uint32_t row_count;
};

static struct head_tile head_tile_of(const struct attention_work *work, size_t tile)
{
    uint32_t row = (uint32_t)(tile % work->row_blocks) * HEAD_ROWS;

    return (struct head_tile){
        .head = (uint32_t)(tile / work->row_blocks),
        .row = row,
        .row_count = row + HEAD_ROWS < work->row_count ? HEAD_ROWS : work->row_count - row,
    };
}

/* The head's queries: nope part into the latent space, rope part rotated behind it. */
static void absorb_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attention_buffers *buffers = &forward->attention;
    struct head_tile at = head_tile_of(work, tile);
    const struct packed_matrix *w_uk = &work->weights->w_uk[at.head];
    uint32_t width = arch->kv_lora_rank + arch->qk_rope_dim;
    uint32_t dim = arch->qk_nope_dim + arch->qk_rope_dim;
    size_t q_stride = (size_t)arch->head_count * dim;
    size_t out_stride = (size_t)arch->head_count * width;
    size_t first_row = work->row_begin + at.row;
    float *q = buffers->q + first_row * q_stride + at.head * dim;
    float *out = buffers->absorbed + at.row * out_stride + at.head * width;

    (void)thread;
    kernels->matmul_exact(w_uk, 0, packed_panel_count(w_uk->rows), (struct rows_view){q, q_stride},
                          at.row_count, (struct rows_out){out, out_stride});
    for (uint32_t r = 0; r < at.row_count; r++) {
        const float *cos_sin = buffers->cos_sin + (first_row + r) * arch->qk_rope_dim;
        float *rotated = out + r * out_stride + arch->kv_lora_rank;

        memcpy(rotated, q + r * q_stride + arch->qk_nope_dim, arch->qk_rope_dim * sizeof(float));
        attention_rotate(forward, rotated, cos_sin);
    }
}

static size_t head_tile_count(struct attention_work *work)
{
    work->row_blocks = (work->row_count + HEAD_ROWS - 1) / HEAD_ROWS;
    return (size_t)work->forward->config.arch->head_count * work->row_blocks;
}

static void queries(struct attention_work *work)
{
    work->query = work->forward->attention.absorbed;
    team_run(work->forward->config.team, absorb_tile, work, head_tile_count(work));
}

/* What is left to be divided by the sum at the end: where the row's own segment is to follow. */
static void earlier_keep(const struct attention_work *work, size_t row, size_t state)
{
    const struct attention_buffers *buffers = &work->forward->attention;
    size_t head_count = work->forward->config.arch->head_count;
    size_t at = (work->row_begin + row) * head_count + state % head_count;

    buffers->earlier_max[at] = buffers->states.max[state];
    buffers->earlier_sum[at] = buffers->states.sum[state];
}

/* One head's attended latents, divided by their sums, become its values; of prompt rows as they
 * are. */
static void value_tile(void *context, size_t tile, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct kernels *kernels = forward->config.kernels;
    const struct attend_states *states = &forward->attention.states;
    struct head_tile at = head_tile_of(work, tile);
    const struct packed_matrix *w_uv = &work->weights->w_uv[at.head];
    size_t acc_stride = (size_t)arch->head_count * arch->kv_lora_rank;
    size_t out_stride = (size_t)arch->head_count * arch->v_head_dim;
    float *acc = states->acc + at.row * acc_stride + (size_t)at.head * arch->kv_lora_rank;
    float *out = forward->attention.attended + (work->row_begin + at.row) * out_stride +
                 (size_t)at.head * arch->v_head_dim;

    (void)thread;
    for (uint32_t r = 0; r < at.row_count; r++) {
        size_t state = (size_t)(at.row + r) * arch->head_count + at.head;

        if (work->rows[work->row_begin + at.row + r].token_class == TOKEN_PROMPT) {
            earlier_keep(work, at.row + r, state);
            continue;
        }
        kernels->scale(acc + r * acc_stride, 1.0f / states->sum[state], arch->kv_lora_rank,
                       acc + r * acc_stride);
    }
    kernels->matmul_exact(w_uv, 0, packed_panel_count(w_uv->rows),
                          (struct rows_view){acc, acc_stride}, at.row_count,
                          (struct rows_out){out, out_stride});
}

static void values(struct attention_work *work)
{
    team_run(work->forward->config.team, value_tile, work, head_tile_count(work));
}

const struct attention_form attention_latent = {project, queries, values, attention_expanded};
