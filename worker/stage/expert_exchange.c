/* expert_exchange.c - the routed experts of a layer, wherever they live.
 *
 * A group's members run a step in lockstep, layer by layer. Each member that has rows in the step
 * sends every other member one dispatch per layer, an empty one when none of its rows visits that
 * member's experts: only the router's outcome decides that, so the other side cannot know it.
 * Members that cannot have rows in this step send none and are not awaited: that everyone knows
 * from the step. A dispatch with rows is answered by one combine.
 *
 * Everything that arrives is computed in one call, so each expert's weights are read once for all
 * members. What is added to what is fixed by the combine tree (forward.h): a remote part stands
 * where the own part would, so the layout never shows in a result.
 */
#include "worker/stage/expert_exchange.h"

#include "common/base/mem.h"
#include "worker/stage/expert_state.h"

#include <string.h>

/* Fewer rows are combined faster than the team wakes. */
#define TEAM_ROWS_MIN 8

static uint64_t pairs_of(const struct seat *seat, const struct arch *arch)
{
    return (uint64_t)seat->placement->step_rows_max * arch->router.chosen_count;
}

uint64_t expert_exchange_bytes(const struct seat *seat, const struct arch *arch)
{
    uint64_t pairs = pairs_of(seat, arch);
    uint64_t row_bytes = (uint64_t)arch->hidden * sizeof(float);

    if (seat->placement->expert_count == 0) {
        return 0;
    }
    return (pairs + seat->placement->step_rows_max) * row_bytes +
           pairs * (sizeof(struct expert_choice) + 2 * sizeof(uint32_t) +
                    sizeof(struct expert_job) + sizeof(struct combine_part));
}

struct expert_exchange *expert_exchange_create(const struct seat *seat, const struct arch *arch,
                                               struct error *err)
{
    struct expert_exchange *exchange = mem_new(struct expert_exchange);
    uint64_t pairs = pairs_of(seat, arch);
    size_t chosen = arch->router.chosen_count;

    ASSERT(pairs > 0 && pairs <= UINT32_MAX);
    exchange->seat = seat;
    exchange->arch = arch;
    exchange->hidden = arch->hidden;
    exchange->chosen_count = arch->router.chosen_count;
    exchange->pairs_max = (uint32_t)pairs;
    exchange->outputs_bytes = pairs * arch->hidden * sizeof(float);
    exchange->shared_bytes =
        (uint64_t)seat->placement->step_rows_max * arch->hidden * sizeof(float);
    arena_init(&exchange->arena, 1 << 16);
    exchange->choices = arena_new_array(&exchange->arena, struct expert_choice, pairs);
    exchange->owners = arena_new_array(&exchange->arena, uint32_t, pairs);
    exchange->own_outputs = arena_new_array(&exchange->arena, uint32_t, pairs);
    exchange->jobs = arena_new_array(&exchange->arena, struct expert_job, pairs);
    exchange->parts = arena_new_array(&exchange->arena, struct combine_part, pairs);
    exchange->part_counts =
        arena_new_array(&exchange->arena, uint32_t, seat->placement->step_rows_max);
    exchange->group_rows = arena_new_array(&exchange->arena, const float *, chosen);
    exchange->members = arena_new_array(&exchange->arena, struct member_state, seat->member_count);
    exchange->outputs = mem_map_pages(exchange->outputs_bytes, err);
    if (exchange->outputs != NULL) {
        exchange->shared = mem_map_pages(exchange->shared_bytes, err);
    }
    if (exchange->shared == NULL) {
        error_wrap(err, "expert buffers");
        expert_exchange_destroy(exchange);
        return NULL;
    }
    return exchange;
}

static void release_frames(struct expert_exchange *exchange)
{
    for (uint32_t i = 0; i < exchange->seat->member_count; i++) {
        struct member_state *member = &exchange->members[i];

        frame_release(member->combine);
        frame_release(member->dispatch);
        member->combine = NULL;
        member->dispatch = NULL;
    }
}

void expert_exchange_destroy(struct expert_exchange *exchange)
{
    if (exchange == NULL) {
        return;
    }
    release_frames(exchange);
    mem_unmap_pages(exchange->outputs, exchange->outputs_bytes);
    mem_unmap_pages(exchange->shared, exchange->shared_bytes);
    arena_deinit(&exchange->arena);
    mem_free(exchange);
}

const struct expert_choice *expert_exchange_choices(const struct expert_exchange *exchange)
{
    return exchange->choices;
}

/* --- who computes what --- */

/* End of the run of choices [begin, …) of one row that belong to the same router group. */
static uint32_t group_end(const struct expert_exchange *exchange,
                          const struct expert_choice *choices, uint32_t begin)
{
    uint32_t group = arch_combine_group(exchange->arch, choices[begin].expert);
    uint32_t end = begin + 1;

    while (end < exchange->chosen_count &&
           arch_combine_group(exchange->arch, choices[end].expert) == group) {
        end++;
    }
    return end;
}

static bool is_one_owner(const uint32_t *owners, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin + 1; i < end; i++) {
        if (owners[i] != owners[begin]) {
            return false;
        }
    }
    return true;
}

static void add_own_job(struct expert_exchange *exchange, size_t pair, const float *input)
{
    uint32_t job = exchange->job_count++;

    exchange->own_outputs[pair] = job;
    exchange->jobs[job] = (struct expert_job){
        .expert = exchange->choices[pair].expert,
        .weight = exchange->choices[pair].weight,
        .input = input,
        .output = exchange->outputs + (size_t)job * exchange->hidden,
    };
}

static void count_row(struct expert_exchange *exchange, size_t row)
{
    const uint32_t *owners = exchange->owners + row * exchange->chosen_count;
    const struct expert_choice *choices = exchange->choices + row * exchange->chosen_count;
    uint32_t end;

    for (uint32_t begin = 0; begin < exchange->chosen_count; begin = end) {
        end = group_end(exchange, choices, begin);
        if (is_one_owner(owners, begin, end)) {
            exchange->members[owners[begin]].combine_rows++;
            continue;
        }
        for (uint32_t i = begin; i < end; i++) {
            exchange->members[owners[i]].combine_rows++;
        }
    }
    for (uint32_t i = 0; i < exchange->chosen_count; i++) {
        struct member_state *member = &exchange->members[owners[i]];

        member->sent_parts++;
        /* dispatch_next holds the last row seen, plus one, while rows are counted */
        member->sent_rows += member->dispatch_next != row + 1 ? 1 : 0;
        member->dispatch_next = (uint32_t)row + 1;
    }
}

/* Finds each pair's owner, lists the own jobs, counts what goes to the others. */
static void assign_owners(struct expert_exchange *exchange, const struct expert_layer *layer,
                          const float *normed)
{
    const struct seat *seat = exchange->seat;
    size_t chosen = exchange->chosen_count;

    for (uint32_t i = 0; i < seat->member_count; i++) {
        struct member_state *member = &exchange->members[i];

        ASSERT(member->combine == NULL && member->dispatch == NULL);
        *member = (struct member_state){0};
    }
    exchange->job_count = 0;
    for (size_t row = 0; row < layer->row_count; row++) {
        for (size_t pair = row * chosen; pair < (row + 1) * chosen; pair++) {
            exchange->owners[pair] = placement_expert_member(
                seat->placement, layer->layer, exchange->choices[pair].expert, seat->member);
            if (exchange->owners[pair] == seat->member) {
                add_own_job(exchange, pair, normed + row * exchange->hidden);
            }
        }
        count_row(exchange, row);
    }
    exchange->own_jobs = exchange->job_count;
}

/* --- dispatch --- */

static void write_pair(struct expert_exchange *exchange, size_t row, uint32_t index, uint32_t flag,
                       const float *normed)
{
    size_t pair = row * exchange->chosen_count + index;
    struct member_state *member = &exchange->members[exchange->owners[pair]];
    struct dispatch *sending = &member->sending;
    size_t hidden = exchange->hidden;

    /* combine_next holds the last row written, plus one, while dispatches are written */
    if (member->combine_next != row + 1) {
        member->combine_next = (uint32_t)row + 1;
        sending->row_parts[member->dispatch_next] = 0;
        memcpy(sending->values + member->dispatch_next * hidden, normed + row * hidden,
               hidden * sizeof(float));
        member->dispatch_next++;
    }
    sending->row_parts[member->dispatch_next - 1]++;
    sending->parts[member->part_next++] = (struct dispatch_part){
        .expert = exchange->choices[pair].expert | flag,
        .weight = exchange->choices[pair].weight,
    };
}

static void write_row(struct expert_exchange *exchange, size_t row, const float *normed)
{
    const uint32_t *owners = exchange->owners + row * exchange->chosen_count;
    const struct expert_choice *choices = exchange->choices + row * exchange->chosen_count;
    uint32_t end;

    for (uint32_t begin = 0; begin < exchange->chosen_count; begin = end) {
        uint32_t flag;

        end = group_end(exchange, choices, begin);
        flag = is_one_owner(owners, begin, end) ? DISPATCH_WHOLE : 0;
        for (uint32_t i = begin; i < end; i++) {
            if (owners[i] != exchange->seat->member) {
                write_pair(exchange, row, i, flag, normed);
            }
        }
    }
}

/* One dispatch to every other member; the frames are taken first, then filled in one pass. */
static enum stage_outcome send_dispatches(struct expert_exchange *exchange,
                                          const struct expert_layer *layer, const float *normed)
{
    const struct seat *seat = exchange->seat;

    for (uint32_t i = 0; i < seat->member_count; i++) {
        struct member_state *member = &exchange->members[i];

        if (i == seat->member) {
            continue;
        }
        member->dispatch = expert_frame_take(layer, FRAME_DISPATCH, seat);
        if (member->dispatch == NULL) {
            return STAGE_ABANDONED;
        }
        dispatch_begin(member->dispatch, member->sent_rows, member->sent_parts, exchange->hidden,
                       &member->sending);
        member->dispatch_next = 0;
        member->combine_next = 0;
    }
    for (size_t row = 0; row < layer->row_count; row++) {
        write_row(exchange, row, normed);
    }
    for (uint32_t i = 0; i < seat->member_count; i++) {
        struct member_state *member = &exchange->members[i];

        if (i != seat->member) {
            layer->frames->ops->send(layer->frames, seat_member_worker(seat, i), member->dispatch);
            member->dispatch = NULL;
        }
        member->combine_next = 0;
    }
    return STAGE_DONE;
}

/* --- combine --- */

static enum stage_outcome await_combines(struct expert_exchange *exchange,
                                         const struct expert_layer *layer, struct error *err)
{
    const struct seat *seat = exchange->seat;

    for (uint32_t i = 0; i < seat->member_count; i++) {
        struct member_state *member = &exchange->members[i];
        struct frame_key key = {
            .step = layer->step->number,
            .attempt = layer->step->attempt,
            .layer = layer->frame_layer,
            .source = seat_member_worker(seat, i),
            .kind = FRAME_COMBINE,
        };
        size_t bytes = (size_t)member->combine_rows * exchange->hidden * sizeof(float);

        if (i == seat->member || member->sent_rows == 0) {
            continue;
        }
        member->combine = layer->frames->ops->wait(layer->frames, &key);
        if (member->combine == NULL) {
            return STAGE_ABANDONED;
        }
        if (member->combine->header.payload_bytes != bytes) {
            error_set(err, ERROR_PEER, "worker %u: combine of %u bytes, expected %zu", key.source,
                      member->combine->header.payload_bytes, bytes);
            return STAGE_FAILED;
        }
    }
    return STAGE_DONE;
}

static const float *part_values(struct expert_exchange *exchange, size_t pair)
{
    uint32_t owner = exchange->owners[pair];
    struct member_state *member = &exchange->members[owner];

    if (owner == exchange->seat->member) {
        return exchange->outputs + (size_t)exchange->own_outputs[pair] * exchange->hidden;
    }
    return (const float *)(const void *)member->combine->payload +
           (size_t)member->combine_next++ * exchange->hidden;
}

/* Lists the parts of one row in the order of the tree. */
static void list_parts(struct expert_exchange *exchange, size_t row)
{
    size_t first = row * exchange->chosen_count;
    const struct expert_choice *choices = exchange->choices + first;
    const uint32_t *owners = exchange->owners + first;
    uint32_t count = 0;
    uint32_t end;

    for (uint32_t begin = 0; begin < exchange->chosen_count; begin = end) {
        bool is_remote_sum;

        end = group_end(exchange, choices, begin);
        is_remote_sum = owners[begin] != exchange->seat->member && is_one_owner(owners, begin, end);
        for (uint32_t i = begin; i < (is_remote_sum ? begin + 1 : end); i++) {
            exchange->parts[first + count++] = (struct combine_part){
                .values = part_values(exchange, first + i),
                .group = arch_combine_group(exchange->arch, choices[begin].expert),
            };
        }
    }
    exchange->part_counts[row] = count;
}

struct combine_work {
    const struct expert_exchange *exchange;
    const struct expert_layer *layer;
};

static void combine_row(void *context, size_t row, uint32_t thread)
{
    const struct combine_work *work = context;
    const struct expert_exchange *exchange = work->exchange;

    (void)thread;
    forward_combine_row(work->layer->forward, exchange->parts + row * exchange->chosen_count,
                        exchange->part_counts[row], exchange->shared + row * exchange->hidden,
                        work->layer->x + row * exchange->hidden);
}

static void combine_rows(struct expert_exchange *exchange, const struct expert_layer *layer)
{
    struct combine_work work = {exchange, layer};
    uint32_t rows = layer->row_count;

    for (uint32_t row = 0; row < rows; row++) {
        list_parts(exchange, row);
    }
    if (rows >= TEAM_ROWS_MIN) {
        team_run(layer->team, combine_row, &work, rows);
        return;
    }
    for (uint32_t row = 0; row < rows; row++) {
        combine_row(&work, row, 0);
    }
}

static enum stage_outcome run_own_rows(struct expert_exchange *exchange,
                                       const struct expert_layer *layer)
{
    const float *normed = NULL;
    uint32_t rows = layer->row_count;

    ASSERT(rows <= layer->member_rows[exchange->seat->member]);
    if (rows > 0) {
        forward_route(layer->forward, layer->layer, rows, layer->x, &normed, exchange->choices);
    }
    assign_owners(exchange, layer, normed);
    if (layer->member_rows[exchange->seat->member] == 0) {
        return STAGE_DONE;
    }
    if (exchange->seat->member_count > 1 &&
        send_dispatches(exchange, layer, normed) != STAGE_DONE) {
        return STAGE_ABANDONED;
    }
    meter_lap(layer->meter, layer->layer, OPERATION_EXPERT_DISPATCH, rows);
    forward_shared(layer->forward, layer->layer, rows, normed, exchange->shared);
    if (exchange->own_jobs > 0) {
        forward_experts(layer->forward, layer->layer, exchange->jobs, exchange->own_jobs);
    }
    return STAGE_DONE;
}

enum stage_outcome expert_exchange_run(struct expert_exchange *exchange,
                                       const struct expert_layer *layer, struct error *err)
{
    enum stage_outcome outcome = run_own_rows(exchange, layer);

    if (outcome == STAGE_DONE) {
        outcome = expert_serve_members(exchange, layer, err);
    }
    if (outcome == STAGE_DONE) {
        outcome = await_combines(exchange, layer, err);
    }
    if (outcome == STAGE_DONE) {
        if (exchange->seat->member_count > 1) {
            meter_lap(layer->meter, layer->layer, OPERATION_EXPERT_WAIT, layer->row_count);
        }
        combine_rows(exchange, layer);
        meter_lap(layer->meter, layer->layer, OPERATION_COMBINE, layer->row_count);
    }
    release_frames(exchange);
    return outcome;
}
