/* stage.c - a step, from frame to frame.
 *
 * Everyone sees the whole step, so nobody asks: rows of shared lanes arrive from the previous
 * stage, in the order of the step, and leave for the next one in the same way. The clock of the
 * result starts when the first rows are here, so that the coordinator's scheduler sees computing
 * and not a pipeline's waiting.
 */
#include "worker/stage/stage.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/stage/answer.h"
#include "worker/stage/draft.h"
#include "worker/stage/row_map.h"
#include "worker/stage/stage_state.h"

#include <inttypes.h>
#include <string.h>

#define JOB_ARENA_BYTES (64 << 10)

static struct kv_config cache_config(const struct seat *seat, const struct arch *arch)
{
    const struct placement *placement = seat->placement;

    return (struct kv_config){
        .layer_begin = seat->layer_begin,
        .layer_end = seat->held_end,
        .lane_count = seat->lane_count > 0 ? seat->lane_count : 1,
        .block_count = seat->lane_count > 0 ? placement->kv_block_count : 1,
        .slot_count = placement->slot_count,
        .blocks_per_slot_max =
            (placement->context_tokens_max + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS,
        .layout = kv_layout_of(arch, placement->kv_type),
        .has_tokens = seat->is_last,
    };
}

static uint32_t expert_rows_of(const struct seat *seat, const struct arch *arch)
{
    return seat->placement->expert_count > 0
               ? seat->placement->step_rows_max * arch->router.chosen_count
               : 1;
}

static uint64_t rows_bytes(const struct seat *seat, const struct arch *arch)
{
    return (uint64_t)seat->placement->step_rows_max * arch->hidden * sizeof(float);
}

struct stage_bytes stage_bytes(const struct seat *seat, const struct arch *arch,
                               uint32_t thread_count)
{
    const struct placement *placement = seat->placement;
    struct kv_config cache = cache_config(seat, arch);

    return (struct stage_bytes){
        .cache = kv_cache_bytes(&cache),
        .buffers = forward_bytes(arch, placement->step_rows_max, expert_rows_of(seat, arch),
                                 cache.blocks_per_slot_max * KV_BLOCK_TOKENS, thread_count) +
                   expert_exchange_bytes(seat, arch) + row_map_bytes(seat) +
                   rows_bytes(seat, arch) + answer_bytes(seat, arch, thread_count) +
                   draft_bytes(seat),
    };
}

static bool make_parts(struct stage *stage, struct error *err)
{
    const struct seat *seat = stage->seat;
    struct kv_config cache = cache_config(seat, stage->arch);

    stage->cache = kv_cache_create(&cache, err);
    if (stage->cache == NULL) {
        return false;
    }
    stage->forward = forward_create(
        &(struct forward_config){
            .arch = stage->arch,
            .weights = stage->weights,
            .cache = stage->cache,
            .kernels = stage->kernels,
            .team = stage->team,
            .rows_max = seat->placement->step_rows_max,
            .expert_rows_max = expert_rows_of(seat, stage->arch),
        },
        err);
    if (stage->forward == NULL) {
        return false;
    }
    stage->x = mem_map_pages(rows_bytes(seat, stage->arch), err);
    if (stage->x == NULL) {
        return false;
    }
    if (seat->placement->expert_count > 0) {
        stage->experts = expert_exchange_create(seat, stage->arch, err);
        if (stage->experts == NULL) {
            return false;
        }
    }
    if (seat->has_draft) {
        stage->draft = draft_create(seat, &stage->arena);
    }
    return !seat->is_last || answer_create(stage, err);
}

struct stage *stage_create(const struct stage_config *config, struct error *err)
{
    struct stage *stage = mem_new(struct stage);

    stage->seat = config->seat;
    stage->arch = &config->weights->arch;
    stage->weights = config->weights;
    stage->kernels = config->kernels;
    stage->team = config->team;
    arena_init(&stage->arena, 1 << 16);
    row_map_init(&stage->map, stage->seat, &stage->arena);
    if (!make_parts(stage, err)) {
        error_wrap(err, "stage %u", config->seat->stage);
        stage_destroy(stage);
        return NULL;
    }
    return stage;
}

void stage_thread_begin(const struct stage *stage)
{
    team_join(stage->team);
}

void stage_destroy(struct stage *stage)
{
    if (stage == NULL) {
        return;
    }
    answer_destroy(stage);
    expert_exchange_destroy(stage->experts);
    mem_unmap_pages(stage->x, rows_bytes(stage->seat, stage->arch));
    forward_destroy(stage->forward);
    kv_cache_destroy(stage->cache);
    arena_deinit(&stage->arena);
    mem_free(stage);
}

void stage_job_init(struct stage_job *job)
{
    *job = (struct stage_job){0};
    arena_init(&job->arena, JOB_ARENA_BYTES);
}

void stage_job_reset(struct stage_job *job)
{
    mem_unmap_pages(job->floats, job->floats_bytes);
    job->floats = NULL;
    job->floats_bytes = 0;
    job->floats_used = 0;
    arena_reset(&job->arena);
}

void stage_job_deinit(struct stage_job *job)
{
    stage_job_reset(job);
    arena_deinit(&job->arena);
}

/* --- the cache's tables --- */

static bool extend_tables(struct stage *stage, const struct step *step, struct error *err)
{
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        uint32_t lane = stage->seat->lane_index[entry->lane];

        if (lane == PLACEMENT_NONE) {
            continue;
        }
        if (!kv_cache_extend(stage->cache, lane, entry->slot, entry->block_begin, entry->blocks,
                             entry->block_count, err)) {
            return error_wrap(err, "entry %u", i);
        }
        if (!kv_cache_covers(stage->cache, lane, entry->slot,
                             entry->position + entry->token_count)) {
            return error_set(err, ERROR_PEER, "entry %u: no blocks for %u positions", i,
                             entry->position + entry->token_count);
        }
    }
    return true;
}

/* What the rows' tokens are, for the penalties of this step and of later ones. */
static void keep_tokens(struct stage *stage)
{
    for (uint32_t i = 0; i < stage->map.count; i++) {
        const struct forward_row *row = &stage->map.rows[i];

        *kv_cache_token(stage->cache, row->lane, row->slot, row->position) = row->token;
    }
}

/* --- hidden states between stages --- */

/* Rows of one member of the previous stage, spread over the own rows. */
static bool scatter_rows(struct stage *stage, const struct frame *frame, uint32_t source,
                         struct error *err)
{
    const struct row_map *map = &stage->map;
    size_t row_bytes = stage->arch->hidden * sizeof(float);
    const uint8_t *from = frame->payload;

    if (frame->header.rows != map->source_rows[source] ||
        frame->header.payload_bytes != frame->header.rows * row_bytes) {
        return error_set(err, ERROR_PEER, "worker %u: %u hidden rows in %u bytes, expected %u rows",
                         frame->header.source, frame->header.rows, frame->header.payload_bytes,
                         map->source_rows[source]);
    }
    for (uint32_t row = 0; row < map->count; row++) {
        if (map->sources[row] == source) {
            memcpy(stage->x + (size_t)row * stage->arch->hidden, from, row_bytes);
            from += row_bytes;
        }
    }
    return true;
}

static enum stage_outcome receive_hidden(struct stage *stage, struct exchange *frames,
                                         const struct step *step, struct error *err)
{
    const struct placement_stage *previous =
        &stage->seat->placement->stages[stage->seat->stage - 1];

    for (uint32_t member = 0; member < previous->member_count; member++) {
        struct frame_key key = {
            .step = step->number,
            .attempt = step->attempt,
            .layer = stage->seat->layer_begin,
            .source = previous->workers[member],
            .kind = FRAME_HIDDEN,
        };
        struct frame *frame;
        bool fits;

        if (stage->map.source_rows[member] == 0) {
            continue;
        }
        frame = frames->ops->wait(frames, &key);
        if (frame == NULL) {
            return STAGE_ABANDONED;
        }
        fits = scatter_rows(stage, frame, member, err);
        frame_release(frame);
        if (!fits) {
            return STAGE_FAILED;
        }
    }
    return STAGE_DONE;
}

static void gather_rows(const struct stage *stage, uint32_t target, struct frame *frame)
{
    const struct row_map *map = &stage->map;
    size_t row_bytes = stage->arch->hidden * sizeof(float);
    uint8_t *to = frame->payload;

    ASSERT(map->target_rows[target] * row_bytes <= frame->capacity);
    for (uint32_t row = 0; row < map->count; row++) {
        if (map->targets[row] == target) {
            memcpy(to, stage->x + (size_t)row * stage->arch->hidden, row_bytes);
            to += row_bytes;
        }
    }
}

static enum stage_outcome send_hidden(struct stage *stage, struct exchange *frames,
                                      const struct step *step)
{
    const struct seat *seat = stage->seat;
    const struct placement_stage *next = &seat->placement->stages[seat->stage + 1];

    for (uint32_t member = 0; member < next->member_count; member++) {
        uint32_t rows = stage->map.target_rows[member];
        struct frame *frame;

        if (rows == 0) {
            continue;
        }
        frame = frames->ops->take(frames, FRAME_HIDDEN);
        if (frame == NULL) {
            return STAGE_ABANDONED;
        }
        gather_rows(stage, member, frame);
        frame->header = (struct frame_header){
            .epoch = step->epoch,
            .step = step->number,
            .attempt = step->attempt,
            .layer = next->layer_begin,
            .source = seat->worker,
            .rows = rows,
            .columns = stage->arch->hidden,
            .payload_bytes = (uint32_t)(rows * stage->arch->hidden * sizeof(float)),
            .kind = FRAME_HIDDEN,
            .dtype = FRAME_F32,
        };
        frames->ops->send(frames, next->workers[member], frame);
    }
    return STAGE_DONE;
}

/* --- the step --- */

static enum stage_outcome run_layer(struct stage *stage, struct exchange *frames,
                                    struct stage_job *job, uint32_t layer, struct error *err)
{
    const struct row_map *map = &stage->map;
    struct expert_layer experts = {
        .forward = stage->forward,
        .team = stage->team,
        .frames = frames,
        .step = &job->step,
        .row_count = map->count,
        .member_rows = map->member_rows,
        .layer = layer,
        .frame_layer = layer,
        .x = stage->x,
    };
    enum stage_outcome outcome;

    if (map->count > 0) {
        forward_attention(stage->forward, layer, map->rows, map->count, stage->x);
    }
    if (!arch_layer_is_moe(stage->arch, layer)) {
        if (map->count > 0) {
            forward_dense(stage->forward, layer, map->count, stage->x);
        }
        return STAGE_DONE;
    }
    outcome = expert_exchange_run(stage->experts, &experts, err);
    if (outcome == STAGE_DONE) {
        answer_routing(stage, job, layer);
    }
    return outcome;
}

static enum stage_outcome run_layers(struct stage *stage, struct exchange *frames,
                                     struct stage_job *job, struct error *err)
{
    for (uint32_t layer = stage->seat->layer_begin; layer < stage->seat->layer_end; layer++) {
        enum stage_outcome outcome;

        if (frames->ops->is_abandoned(frames)) {
            return STAGE_ABANDONED;
        }
        outcome = run_layer(stage, frames, job, layer, err);
        if (outcome != STAGE_DONE) {
            if (outcome == STAGE_FAILED) {
                error_wrap(err, "layer %u", layer);
            }
            return outcome;
        }
    }
    return STAGE_DONE;
}

static enum stage_outcome take_input(struct stage *stage, struct exchange *frames,
                                     struct stage_job *job, struct error *err)
{
    if (!stage->seat->is_first) {
        return receive_hidden(stage, frames, &job->step, err);
    }
    if (stage->map.count > 0) {
        forward_embed(stage->forward, stage->map.rows, stage->map.count, stage->x);
        answer_hidden(stage, job);
    }
    return STAGE_DONE;
}

static enum stage_outcome give_output(struct stage *stage, struct exchange *frames,
                                      struct stage_job *job, struct error *err)
{
    uint64_t values = (uint64_t)stage->map.count * stage->arch->hidden;

    if (!answer_is_finite(stage->x, values)) {
        error_set(err, ERROR_INPUT, "layers %u to %u: hidden states are not finite",
                  stage->seat->layer_begin, stage->seat->layer_end - 1);
        return STAGE_FAILED;
    }
    answer_hidden(stage, job);
    if (!stage->seat->is_last) {
        return send_hidden(stage, frames, &job->step);
    }
    if (!answer_logits(stage, job, err)) {
        return STAGE_FAILED;
    }
    return stage->draft == NULL ? STAGE_DONE : draft_run(stage, frames, job, err);
}

static enum stage_outcome run(struct stage *stage, struct exchange *frames, struct stage_job *job,
                              struct error *err)
{
    enum stage_outcome outcome;

    row_map_fill(&stage->map, stage->seat, &job->step);
    if (!extend_tables(stage, &job->step, err) || !answer_begin(stage, job, err)) {
        return STAGE_FAILED;
    }
    if (stage->seat->is_last) {
        keep_tokens(stage);
    }
    outcome = take_input(stage, frames, job, err);
    if (outcome != STAGE_DONE) {
        return outcome;
    }
    frames->wait_ns = 0;
    job->result.begin_ns = clock_monotonic_ns();
    outcome = run_layers(stage, frames, job, err);
    if (outcome == STAGE_DONE) {
        outcome = give_output(stage, frames, job, err);
    }
    job->result.end_ns = clock_monotonic_ns();
    job->result.wait_ns = frames->wait_ns;
    return outcome;
}

enum stage_outcome stage_run(struct stage *stage, struct exchange *frames, struct stage_job *job,
                             struct error *err)
{
    enum stage_outcome outcome = run(stage, frames, job, err);

    if (outcome == STAGE_FAILED) {
        error_wrap(err, "step %" PRIu64, job->step.number);
    }
    return outcome;
}
