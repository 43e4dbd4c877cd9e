/* mlp.c - the plain feed-forward networks: dense layers and the shared expert.
 *
 * Gate and up are read together and closed with SiLU in one pass, then down. Routed experts, whose
 * rows are scattered, are in experts.c.
 */
#include "worker/layers/forward_state.h"

#include <string.h>

static void mlp_run(struct forward *forward, const struct mlp_weights *mlp, uint32_t row_count,
                    const float *x, float *out)
{
    uint32_t hidden = forward->config.arch->hidden;
    uint32_t width = mlp->gate.rows;
    float *act = forward->mlp.act;
    struct product gate_up = {
        .w = &mlp->gate, .up = &mlp->up, .x = {x, hidden}, .out = {act, width}};
    struct product down = {.w = &mlp->down, .x = {act, width}, .out = {out, hidden}};

    product_run(forward, &gate_up, 1, row_count);
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
    mlp_run(forward, &weights->dense, row_count, forward->normed, forward->mlp.out);
    rows_add(forward, x, forward->mlp.out, row_count);
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
    mlp_run(forward, &weights->shared, row_count, normed, out);
}
