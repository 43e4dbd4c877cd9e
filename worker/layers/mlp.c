/* mlp.c - the plain feed-forward networks: dense layers and the shared expert.
 *
 * Gate and up are read together and closed with SiLU in one pass, then down. Routed experts, whose
 * rows are scattered, are in experts.c.
 */
#include "worker/layers/forward_state.h"

#include <string.h>

static void gate_up_run(struct forward *forward, const struct mlp_weights *mlp, uint32_t row_count,
                        const float *x)
{
    struct product gate_up = {.w = &mlp->gate,
                              .up = &mlp->up,
                              .x = {x, forward->config.arch->hidden},
                              .out = {forward->mlp.act, mlp->gate.rows}};

    product_run(forward, &gate_up, 1, row_count);
}

static void down_run(struct forward *forward, const struct mlp_weights *mlp, uint32_t row_count,
                     float *out)
{
    struct product down = {.w = &mlp->down,
                           .x = {forward->mlp.act, mlp->gate.rows},
                           .out = {out, forward->config.arch->hidden}};

    product_run(forward, &down, 1, row_count);
}

void forward_dense(struct forward *forward, uint32_t layer, uint32_t row_count, float *x)
{
    const struct layer_weights *weights = forward_layer(forward, layer);

    ASSERT(row_count <= forward->config.rows_max);
    if (row_count == 0) {
        return;
    }
    rows_norm(forward, x, weights->post_norm, row_count, forward->normed);
    forward_lap(forward, layer, OPERATION_MLP_NORM, row_count);
    gate_up_run(forward, &weights->dense, row_count, forward->normed);
    forward_lap(forward, layer, OPERATION_MLP_GATE_UP, row_count);
    down_run(forward, &weights->dense, row_count, forward->mlp.out);
    rows_add(forward, x, forward->mlp.out, row_count);
    forward_lap(forward, layer, OPERATION_MLP_DOWN, row_count);
}

void forward_shared(struct forward *forward, uint32_t layer, uint32_t row_count,
                    const float *normed, float *out)
{
    const struct layer_weights *weights = forward_layer(forward, layer);

    ASSERT(row_count <= forward->config.rows_max);
    if (row_count == 0) {
        return;
    }
    if (weights->shared.gate.data == NULL) {
        memset(out, 0, (size_t)row_count * forward->config.arch->hidden * sizeof(float));
        return;
    }
    gate_up_run(forward, &weights->shared, row_count, normed);
    forward_lap(forward, layer, OPERATION_SHARED_GATE_UP, row_count);
    down_run(forward, &weights->shared, row_count, out);
    forward_lap(forward, layer, OPERATION_SHARED_DOWN, row_count);
}
