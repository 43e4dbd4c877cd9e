/* plan_request.c - from a catalog to a planner's request.
 *
 * Dummy weights lie in a few blocks, the same on every worker. Of their tensors' bytes a small
 * share is counted, so that a plan divides the layers as it would, and every share fits.
 */
#include "coordinator/cluster/plan_request.h"

#include "coordinator/cluster/model_bytes.h"

#define SLOTS_DEFAULT     64
#define STEP_ROWS_DEFAULT 512
#define PLAN_STEPS_EXTRA  2                    /* the planner's: in flight, beyond the stages */
#define DUMMY_BLOCK_BYTES ((uint64_t)96 << 20) /* of worker/layers/weights_dummy.c */
#define DUMMY_SHARE       1024

static bool is_small(const struct catalog *catalog, enum plan_weights weights)
{
    return weights == PLAN_AS_HELD && catalog->weights.source == WEIGHTS_DUMMY;
}

static uint64_t share_of(uint64_t bytes)
{
    return (bytes + DUMMY_SHARE - 1) / DUMMY_SHARE;
}

static void make_small(struct planner_request *request, struct planner_layer *layers)
{
    for (uint32_t i = 0; i < request->layer_count; i++) {
        layers[i].common_bytes = share_of(layers[i].common_bytes);
        layers[i].expert_bytes = share_of(layers[i].expert_bytes);
    }
    request->draft.common_bytes = share_of(request->draft.common_bytes);
    request->draft.expert_bytes = share_of(request->draft.expert_bytes);
    request->embedding_bytes = share_of(request->embedding_bytes);
    request->head_bytes = share_of(request->head_bytes);
}

void plan_request_model(const struct catalog *catalog, enum plan_weights weights,
                        enum kv_type kv_type, struct arena *arena, struct planner_request *out)
{
    const struct arch *arch = &catalog->arch;
    const struct kv_layout layout = kv_layout_of(arch, kv_type);
    struct planner_layer *layers = arena_new_array(arena, struct planner_layer, arch->layer_count);

    model_bytes_layers(catalog, layers);
    *out = (struct planner_request){
        .layer_count = arch->layer_count,
        .layers = layers,
        .embedding_bytes = model_bytes_embedding(catalog),
        .head_bytes = model_bytes_head(catalog),
        .draft = model_bytes_draft(catalog),
        .dense_layer_count = arch->dense_layer_count,
        .expert_count = arch->router.expert_count,
        .chosen_count = arch->router.chosen_count,
        .expert_group_count = arch_combine_group_count(arch),
        .kv_entry_bytes = kv_layout_token_bytes(&layout),
        .kv_token_bytes = sizeof(uint32_t),
        .kv_type = kv_type,
        .context_tokens_max = arch->context_tokens_max,
        .slot_count = SLOTS_DEFAULT,
        .step_rows_max = STEP_ROWS_DEFAULT,
    };
    if (is_small(catalog, weights)) {
        make_small(out, layers);
    }
}

/* Members of the largest stage. */
static uint32_t group_size(const struct planner_request *request)
{
    uint32_t stages = request->stage_count;

    if (request->group_size > 0 || stages == 0) {
        return request->group_size > 0 ? request->group_size : 1;
    }
    return (request->worker_count + stages - 1) / stages;
}

void plan_request_size(void *plan_sizer, struct planner_request *request)
{
    const struct plan_sizer *sizer = plan_sizer;
    uint32_t stages = request->stage_count > 0 ? request->stage_count : request->worker_count;
    struct model_fixed_bytes bytes = model_bytes_fixed(
        &sizer->catalog->arch,
        &(struct model_step_shape){.rows_max = request->step_rows_max,
                                   .steps_in_flight_max = stages + PLAN_STEPS_EXTRA,
                                   .group_size = group_size(request),
                                   .context_tokens_max = request->context_tokens_max,
                                   .slot_count = request->slot_count,
                                   .thread_count = sizer->thread_count});

    request->buffer_bytes = bytes.buffer_bytes;
    request->frame_bytes = bytes.frame_bytes;
    request->divided_bytes = bytes.divided_bytes;
    request->fixed_bytes = bytes.buffer_bytes + bytes.frame_bytes + bytes.program_bytes +
                           (is_small(sizer->catalog, sizer->weights) ? DUMMY_BLOCK_BYTES : 0);
}
