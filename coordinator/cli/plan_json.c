/* plan_json.c - `shoal plan --json`. */
#include "coordinator/cli/plan.h"
#include "coordinator/cluster/placement_file.h"
#include "coordinator/cluster/plan_report.h"

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *ledger_json(const struct planner_ledger *ledger)
{
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "weights", integer(ledger->weight_bytes),
                     "kv", integer(ledger->kv_bytes), "buffers", integer(ledger->buffer_bytes),
                     "frames", integer(ledger->frame_bytes), "fixed", integer(ledger->fixed_bytes),
                     "total", integer(ledger->total_bytes), "limit", integer(ledger->limit_bytes));
}

/* Half-open ranges of the stage's first layer that has experts; the planner deals all alike. */
static json_t *experts_json(const struct placement *placement, struct placement_seat seat)
{
    uint32_t layer = plan_report_moe_layer(placement, seat.stage);
    json_t *ranges = json_array();
    uint32_t begin, end = 0;

    while (layer < placement->stages[seat.stage].layer_end &&
           plan_report_range(placement, layer, seat.member, end, &begin, &end)) {
        json_array_append_new(ranges, json_pack("[o,o]", integer(begin), integer(end)));
    }
    return ranges;
}

static json_t *lanes_json(const struct placement *placement, struct placement_seat seat)
{
    json_t *lanes = json_array();

    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        if (placement->lane_member[(size_t)seat.stage * placement->lane_count + lane] ==
            seat.member) {
            json_array_append_new(lanes, integer(lane));
        }
    }
    return lanes;
}

static json_t *worker_json(const struct planner_request *request, const struct placement *placement,
                           struct placement_seat seat)
{
    const struct placement_stage *stage = &placement->stages[seat.stage];
    uint32_t id = stage->workers[seat.member];
    struct planner_ledger ledger = planner_ledger_of(request, placement, id);
    struct planner_share share = planner_share_of(request, placement, id);
    uint64_t missing =
        ledger.total_bytes > ledger.limit_bytes ? ledger.total_bytes - ledger.limit_bytes : 0;

    return json_pack("{s:o,s:s,s:o,s:o,s:o,s:[o,o],s:o,s:o,s:o,s:o}", "worker", integer(id), "host",
                     request->workers[id].host, "stage", integer(seat.stage), "member",
                     integer(seat.member), "lanes", lanes_json(placement, seat), "layers",
                     integer(stage->layer_begin), integer(stage->layer_end), "experts",
                     experts_json(placement, seat), "expert_slots", integer(share.expert_slots),
                     "ledger", ledger_json(&ledger), "missing", integer(missing));
}

static json_t *workers_json(const struct planner_request *request,
                            const struct placement *placement)
{
    json_t *workers = json_array();

    for (uint32_t i = 0; i < placement->stage_count; i++) {
        for (uint32_t m = 0; m < placement->stages[i].member_count; m++) {
            json_array_append_new(workers,
                                  worker_json(request, placement, (struct placement_seat){i, m}));
        }
    }
    return workers;
}

static json_t *parts_json(const struct plan_parts *parts)
{
    return json_pack("{s:f,s:f,s:f,s:s}", "read_s", parts->read_s, "exchange_s", parts->exchange_s,
                     "hop_s", parts->hop_s, "limited_by", plan_limit_name(plan_limit_of(parts)));
}

static json_t *time_json(const struct plan_time *time)
{
    json_t *alone = parts_json(&time->alone);
    json_t *full = parts_json(&time->full);

    json_object_set_new(alone, "token_s", json_real(time->token_s));
    json_object_set_new(alone, "tokens_per_s", json_real(time->alone_tokens_per_s));
    json_object_set_new(full, "sequences", integer(time->sequences));
    json_object_set_new(full, "step_rows", integer(time->step_rows));
    json_object_set_new(full, "slowest_stage", integer(time->slowest_stage));
    json_object_set_new(full, "tokens_per_s", json_real(time->full_tokens_per_s));
    return json_pack("{s:o,s:o}", "alone", alone, "full", full);
}

static json_t *layouts_json(const struct plan_outcome *outcome)
{
    json_t *layouts = json_array();

    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        const struct plan_layout *layout = &outcome->layouts[i];
        json_t *object = json_pack("{s:o,s:o,s:b,s:b}", "stages", integer(layout->stage_count),
                                   "group_size", integer(layout->group_size), "even",
                                   (int)layout->even, "fits", layout->placement != NULL);

        if (layout->placement != NULL) {
            json_object_set_new(object, "predicted", time_json(&layout->time));
        }
        json_array_append_new(layouts, object);
    }
    return layouts;
}

static json_t *missing_json(const struct planner_refusal *refusal)
{
    json_t *remedies = json_pack("{s:o}", "memory_bytes_each", integer(refusal->memory_bytes));

    if (refusal->kv_tokens > 0) {
        json_object_set_new(remedies, "context_tokens", integer(refusal->kv_tokens));
    }
    if (refusal->workers_more > 0) {
        json_object_set_new(remedies, "workers_more", integer(refusal->workers_more));
        json_object_set_new(remedies, "workers_like", integer(refusal->workers_like));
    }
    return json_pack("{s:o,s:o,s:o}", "tightest_worker", integer(refusal->tightest), "bytes",
                     integer(refusal->missing_bytes), "would_fit", remedies);
}

json_t *plan_json(const struct plan_command *command)
{
    const struct plan_outcome *outcome = command->outcome;
    const struct plan_layout *layout = &outcome->layouts[outcome->chosen];
    const struct planner_refusal *refusal = outcome->refusal;
    const struct planner_request *request = refusal != NULL ? &refusal->request : &layout->request;
    const struct placement *placement = refusal != NULL ? refusal->nearest : layout->placement;
    char name[32];
    struct buffer reason = {.data = NULL};
    json_t *object;

    plan_reason_write(command, &reason);
    object = json_pack("{s:b,s:s,s:s,s:s,s:o,s:o,s:o,s:s,s:b,s:o,s:o}", "fits", refusal == NULL,
                       "objective", command->objective == PLAN_LATENCY ? "latency" : "throughput",
                       "layout", plan_layout_name(layout, name, sizeof(name)), "reason",
                       buffer_text(&reason), "context_tokens", integer(outcome->context_tokens),
                       "kv_tokens_per_lane",
                       integer((uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS), "lanes",
                       integer(placement->lane_count), "kv_type", kv_type_name(command->kv_type),
                       "draft_layer", (int)command->draft_layer, "workers",
                       workers_json(request, placement), "layouts", layouts_json(outcome));
    buffer_deinit(&reason);
    if (refusal != NULL) {
        json_object_set_new(object, "missing", missing_json(refusal));
    } else {
        json_object_set_new(object, "predicted", time_json(&layout->time));
        json_object_set_new(object, "placement", placement_file_json(placement));
    }
    return object;
}
