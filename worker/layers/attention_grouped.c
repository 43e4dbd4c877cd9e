/* attention_grouped.c - grouped-query attention: several query heads share a key and a value head.
 *
 *   x -> norm -> q, k, v (+ bias) -> q and k heads: norm, if the model has it, then rotation
 *
 * A token's cache entry is all its key heads after rotation, then all its value heads
 * (arXiv:2305.13245). Queries meet the keys as they are, and an attended value is the head's value.
 */
#include "worker/layers/attention.h"

/* Adds what the model adds to the products of one row. */
static void biases_add(const struct attention_work *work, float *q, float *entry)
{
    const struct arch *arch = work->forward->config.arch;
    const struct attention_weights *weights = work->weights;
    const struct kernels *kernels = work->forward->config.kernels;
    size_t key_values = (size_t)arch->kv_head_count * arch->qk_rope_dim;

    if ((arch->attention_bias & BIAS_QKV) != 0) {
        kernels->add(q, weights->q_bias, (size_t)arch->head_count * arch->qk_rope_dim);
        kernels->add(entry, weights->k_bias, key_values);
        kernels->add(entry + key_values, weights->v_bias,
                     (size_t)arch->kv_head_count * arch->v_head_dim);
    }
}

/* Heads of queries or keys, one after another. */
static void heads_rotate(const struct attention_work *work, float *heads, uint32_t head_count,
                         const float *norm, const float *cos_sin)
{
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    uint32_t dim = arch->qk_rope_dim;

    for (uint32_t h = 0; h < head_count; h++) {
        float *head = heads + (size_t)h * dim;

        if (arch->qk_norm) {
            forward->config.kernels->rms_norm(head, norm, dim, arch->norm_eps, head);
        }
        attention_rotate(forward, head, cos_sin);
    }
}

/* Finishes the queries of a row and its cache entry. */
static void finish_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    const struct forward_row *at = &work->rows[row];
    uint32_t entry_values = arch_kv_values(arch);
    float *q = buffers->q + row * arch->head_count * arch->qk_rope_dim;
    float *entry = buffers->entries + row * entry_values;
    float *cos_sin = buffers->cos_sin + row * arch->qk_rope_dim;

    (void)thread;
    biases_add(work, q, entry);
    attention_cos_sin(forward, at->position, cos_sin);
    heads_rotate(work, q, arch->head_count, work->weights->q_norm, cos_sin);
    heads_rotate(work, entry, arch->kv_head_count, work->weights->k_norm, cos_sin);
}

static void project(struct attention_work *work, uint32_t row_count)
{
    struct forward *forward = work->forward;
    const struct arch *arch = forward->config.arch;
    const struct attention_buffers *buffers = &forward->attention;
    const struct attention_weights *weights = work->weights;
    size_t entry_values = arch_kv_values(arch);
    size_t key_values = (size_t)arch->kv_head_count * arch->qk_rope_dim;
    struct rows_view x = {forward->normed, arch->hidden};
    struct product products[] = {
        {.w = &weights->q,
         .x = x,
         .out = {buffers->q, (size_t)arch->head_count * arch->qk_rope_dim}},
        {.w = &weights->k, .x = x, .out = {buffers->entries, entry_values}},
        {.w = &weights->v, .x = x, .out = {buffers->entries + key_values, entry_values}},
    };

    product_run(forward, products, 3, row_count);
    rows_run(forward, finish_row, work, row_count);
    attention_store_grouped(work, row_count);
}

static void queries(struct attention_work *work)
{
    const struct arch *arch = work->forward->config.arch;

    work->query =
        work->forward->attention.q + (size_t)work->row_begin * arch->head_count * arch->qk_rope_dim;
}

/* One row of the chunk: each head's attended value, divided by its sum. */
static void value_row(void *context, size_t row, uint32_t thread)
{
    const struct attention_work *work = context;
    const struct forward *forward = work->forward;
    uint32_t head_count = forward->config.arch->head_count;
    uint32_t dim = forward->config.arch->v_head_dim;
    const struct attend_states *states = &forward->attention.states;
    float *out = forward->attention.attended + (work->row_begin + row) * head_count * dim;

    (void)thread;
    for (uint32_t h = 0; h < head_count; h++) {
        size_t state = row * head_count + h;

        forward->config.kernels->scale(states->acc + state * dim, 1.0f / states->sum[state], dim,
                                       out + (size_t)h * dim);
    }
}

static void values(struct attention_work *work)
{
    rows_run(work->forward, value_row, work, work->row_count);
}

const struct attention_form attention_grouped = {project, queries, values, NULL};
