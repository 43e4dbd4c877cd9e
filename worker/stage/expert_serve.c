/* expert_serve.c - computing what the other members of the group ask for.
 *
 * Dispatches are read in member order and computed together; each answer sums whole router groups
 * and leaves the other parts as they are (dispatch.h). What arrives is checked before it becomes a
 * job: lengths by dispatch_read, ownership here.
 */
#include "worker/stage/expert_state.h"

struct frame *expert_frame_take(const struct expert_layer *layer, enum frame_kind kind,
                                const struct seat *seat)
{
    struct frame *frame = layer->frames->ops->take(layer->frames, kind);

    if (frame != NULL) {
        frame->header.epoch = layer->step->epoch;
        frame->header.step = layer->step->number;
        frame->header.attempt = layer->step->attempt;
        frame->header.layer = layer->frame_layer;
        frame->header.source = seat->worker;
        frame->header.kind = (uint8_t)kind;
    }
    return frame;
}

static bool add_asked_jobs(struct expert_exchange *exchange, const struct expert_layer *layer,
                           struct member_state *member, struct error *err)
{
    const struct dispatch *asked = &member->asked;
    uint32_t part = 0;

    if (asked->part_count > exchange->pairs_max - exchange->job_count) {
        return error_set(err, ERROR_PEER, "dispatches of one layer exceed %u parts",
                         exchange->pairs_max);
    }
    member->outputs_begin = exchange->job_count;
    for (uint32_t row = 0; row < asked->row_count; row++) {
        for (uint32_t i = 0; i < asked->row_parts[row]; i++, part++) {
            uint32_t job = exchange->job_count++;
            uint32_t expert = asked->parts[part].expert & ~DISPATCH_WHOLE;

            if (expert >= exchange->arch->router.expert_count ||
                !placement_owns(exchange->seat->placement, layer->layer, expert,
                                exchange->seat->member)) {
                return error_set(err, ERROR_PEER, "dispatch asks for expert %u, which is not here",
                                 expert);
            }
            exchange->jobs[job] = (struct expert_job){
                .expert = expert,
                .weight = asked->parts[part].weight,
                .input = asked->values + (size_t)row * exchange->hidden,
                .output = exchange->outputs + (size_t)job * exchange->hidden,
            };
        }
    }
    return true;
}

static enum stage_outcome await_dispatch(struct expert_exchange *exchange,
                                         const struct expert_layer *layer, uint32_t index,
                                         struct error *err)
{
    struct member_state *member = &exchange->members[index];
    const struct dispatch_limits limits = {
        .hidden = exchange->hidden,
        .rows_max = layer->member_rows[index],
        .chosen_count = exchange->chosen_count,
    };
    const struct frame_key key = {
        .step = layer->step->number,
        .attempt = layer->step->attempt,
        .layer = layer->frame_layer,
        .source = seat_member_worker(exchange->seat, index),
        .kind = FRAME_DISPATCH,
    };

    member->dispatch = layer->frames->ops->wait(layer->frames, &key);
    if (member->dispatch == NULL) {
        return STAGE_ABANDONED;
    }
    if (!dispatch_read(member->dispatch, &limits, &member->asked, err) ||
        !add_asked_jobs(exchange, layer, member, err)) {
        error_wrap(err, "worker %u", key.source);
        return STAGE_FAILED;
    }
    return STAGE_DONE;
}

static uint32_t part_group(const struct expert_exchange *exchange, const struct dispatch *asked,
                           uint32_t part)
{
    return arch_combine_group(exchange->arch, asked->parts[part].expert & ~DISPATCH_WHOLE);
}

/* End of the parts from `part` on that are answered by one row. */
static uint32_t answer_end(const struct expert_exchange *exchange, const struct dispatch *asked,
                           uint32_t part, uint32_t row_end)
{
    bool is_whole = (asked->parts[part].expert & DISPATCH_WHOLE) != 0;
    uint32_t group = part_group(exchange, asked, part);

    do {
        part++;
    } while (is_whole && part < row_end && part_group(exchange, asked, part) == group);
    return part;
}

/* Writes the answer to one member's dispatch. False: it asks for more of them
 * than any step of this placement can. */
static bool write_combine(struct expert_exchange *exchange, struct forward *forward,
                          const struct member_state *member, struct frame *frame)
{
    const struct dispatch *asked = &member->asked;
    float *out = (float *)(void *)frame->payload;
    size_t hidden = exchange->hidden;
    uint32_t rows_max = (uint32_t)(frame->capacity / (hidden * sizeof(float)));
    uint32_t rows = 0;
    uint32_t part = 0;

    for (uint32_t row = 0; row < asked->row_count; row++) {
        uint32_t row_end = part + asked->row_parts[row];

        while (part < row_end) {
            uint32_t end = answer_end(exchange, asked, part, row_end);
            uint32_t count = 0;

            if (rows == rows_max) {
                return false;
            }
            while (part < end) {
                exchange->group_rows[count++] =
                    exchange->outputs + (size_t)(member->outputs_begin + part++) * hidden;
            }
            forward_group_sum(forward, exchange->group_rows, count, out + rows * hidden);
            rows++;
        }
    }
    frame->header.rows = rows;
    return true;
}

static enum stage_outcome send_combine(struct expert_exchange *exchange,
                                       const struct expert_layer *layer, uint32_t index,
                                       struct error *err)
{
    struct member_state *member = &exchange->members[index];
    struct frame *frame = expert_frame_take(layer, FRAME_COMBINE, exchange->seat);

    if (frame == NULL) {
        return STAGE_ABANDONED;
    }
    if (!write_combine(exchange, layer->forward, member, frame)) {
        error_set(err, ERROR_PEER, "worker %u: its dispatch asks for more rows than fit a combine",
                  seat_member_worker(exchange->seat, index));
        frame_release(frame);
        return STAGE_FAILED;
    }
    frame->header.columns = exchange->hidden;
    frame->header.dtype = FRAME_F32;
    frame->header.payload_bytes =
        (uint32_t)((size_t)frame->header.rows * exchange->hidden * sizeof(float));
    layer->frames->ops->send(layer->frames, seat_member_worker(exchange->seat, index), frame);
    frame_release(member->dispatch);
    member->dispatch = NULL;
    return STAGE_DONE;
}

enum stage_outcome expert_serve_members(struct expert_exchange *exchange,
                                        const struct expert_layer *layer, struct error *err)
{
    const struct seat *seat = exchange->seat;
    enum stage_outcome outcome;

    for (uint32_t i = 0; i < seat->member_count; i++) {
        if (i != seat->member && layer->member_rows[i] > 0) {
            outcome = await_dispatch(exchange, layer, i, err);
            if (outcome != STAGE_DONE) {
                return outcome;
            }
        }
    }
    if (seat->member_count > 1) {
        meter_lap(layer->meter, layer->layer, OPERATION_EXPERT_WAIT, 0);
    }
    if (exchange->job_count > exchange->own_jobs) {
        forward_experts(layer->forward, layer->layer, exchange->jobs + exchange->own_jobs,
                        exchange->job_count - exchange->own_jobs);
    }
    for (uint32_t i = 0; i < seat->member_count; i++) {
        if (i != seat->member && layer->member_rows[i] > 0 &&
            exchange->members[i].asked.row_count > 0) {
            outcome = send_combine(exchange, layer, i, err);
            if (outcome != STAGE_DONE) {
                return outcome;
            }
            meter_lap(layer->meter, layer->layer, OPERATION_EXPERT_DISPATCH,
                      exchange->members[i].asked.row_count);
        }
    }
    return STAGE_DONE;
}
