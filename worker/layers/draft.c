/* draft.c - what the draft layer reads: the next token's embedding and a hidden state, joined.
 *
 * The paper prints the hidden state first; the published weights want the embedding first. Behind
 * this the layer is a MoE layer like others, so attention, router and experts are theirs.
 */
#include "worker/layers/forward_state.h"

struct join_work {
    const struct forward *forward;
    const struct draft_input *input;
    const float *norm; /* of the hidden state, before the layer's own */
    const float *x;
};

static void join_row(void *context, size_t row, uint32_t thread)
{
    const struct join_work *work = context;
    const struct forward_config *config = &work->forward->config;
    const struct draft_weights *draft = &config->weights->draft;
    uint32_t hidden = config->arch->hidden;
    float eps = config->arch->norm_eps;
    const float *source = work->x + (size_t)work->input->sources[row] * hidden;
    float *token = work->forward->draft.joined + row * 2 * hidden;
    float *state = token + hidden;

    (void)thread;
    embedding_read(work->forward, work->input->rows[row].token, token);
    config->kernels->rms_norm(token, draft->token_norm, hidden, eps, token);
    config->kernels->rms_norm(source, work->norm, hidden, eps, state);
    config->kernels->rms_norm(state, draft->hidden_norm, hidden, eps, state);
}

void forward_draft_input(struct forward *forward, const struct draft_input *input, float *x)
{
    const struct weights *weights = forward->config.weights;
    const struct arch *arch = forward->config.arch;
    struct join_work work = {
        .forward = forward,
        .input = input,
        .norm =
            input->hidden == DRAFT_HIDDEN_MAIN ? weights->final_norm : weights->draft.final_norm,
        .x = x,
    };
    struct product projection = {.w = &weights->draft.projection,
                                 .x = {forward->draft.joined, 2 * (size_t)arch->hidden},
                                 .out = {x, arch->hidden}};

    ASSERT(weights->draft.token_norm != NULL && weights->embedding != NULL);
    ASSERT(input->row_count <= forward->config.rows_max);
    for (uint32_t r = 0; r < input->row_count; r++) {
        ASSERT(input->rows[r].token < arch->vocab);
    }
    if (input->row_count == 0) {
        return;
    }
    rows_run(forward, join_row, &work, input->row_count);
    product_run(forward, &projection, 1, input->row_count);
    forward_lap(forward, arch->layer_count, OPERATION_DRAFT_INPUT, input->row_count);
}
