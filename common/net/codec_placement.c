/* codec_placement.c - a placement and the addresses of its workers.
 *
 * The lengths of all arrays are checked against the counts here, so that placement_check, which
 * trusts the arrays to be as long as the counts say, may then check what they mean.
 */
#include "common/net/codec.h"

#include <stdio.h>
#include <string.h>

static Shoal__KvType kv_type_encode(enum kv_type type)
{
    switch (type) {
    case KV_F32:
        return SHOAL__KV_TYPE__KV_TYPE_F32;
    case KV_F16:
        return SHOAL__KV_TYPE__KV_TYPE_F16;
    case KV_BF16:
        return SHOAL__KV_TYPE__KV_TYPE_BF16;
    case KV_Q8:
        return SHOAL__KV_TYPE__KV_TYPE_Q8;
    case KV_TYPE_COUNT:
        break;
    }
    return SHOAL__KV_TYPE__KV_TYPE_NONE;
}

static bool kv_type_decode(Shoal__KvType type, enum kv_type *out, struct error *err)
{
    for (int candidate = 0; candidate < (int)KV_TYPE_COUNT; candidate++) {
        if (type != SHOAL__KV_TYPE__KV_TYPE_NONE &&
            kv_type_encode((enum kv_type)candidate) == type) {
            *out = (enum kv_type)candidate;
            return true;
        }
    }
    return error_set(err, ERROR_INPUT, "kv_type: unknown value %d", (int)type);
}

static size_t owner_offset_count(const struct placement *placement)
{
    return placement->expert_count == 0
               ? 0
               : (size_t)placement_layers(placement) * placement->expert_count + 1;
}

static void stages_encode(const struct placement *in, struct arena *arena, Shoal__Placement *out)
{
    out->n_stages = in->stage_count;
    out->stages = (Shoal__Stage **)codec_list(arena, in->stage_count, sizeof(Shoal__Stage));
    for (uint32_t i = 0; i < in->stage_count; i++) {
        shoal__stage__init(out->stages[i]);
        out->stages[i]->layer_begin = in->stages[i].layer_begin;
        out->stages[i]->layer_end = in->stages[i].layer_end;
        out->stages[i]->n_workers = in->stages[i].member_count;
        out->stages[i]->workers = in->stages[i].workers;
    }
}

static Shoal__Placement *placement_encode(const struct placement *in, struct arena *arena)
{
    Shoal__Placement *out = arena_new(arena, Shoal__Placement);
    size_t offset_count = owner_offset_count(in);

    shoal__placement__init(out);
    out->epoch = in->epoch;
    out->numerics_id = codec_text(in->numerics_id);
    out->layer_count = in->layer_count;
    out->expert_count = in->expert_count;
    out->dense_layer_count = in->dense_layer_count;
    stages_encode(in, arena, out);
    out->lane_count = in->lane_count;
    out->n_lane_member = (size_t)in->stage_count * in->lane_count;
    out->lane_member = in->lane_member;
    out->n_replica_offset = offset_count;
    out->replica_offset = in->replica_offset;
    out->n_replica_member = offset_count == 0 ? 0 : in->replica_offset[offset_count - 1];
    out->replica_member = in->replica_member;
    out->kv_type = kv_type_encode(in->kv_type);
    out->kv_block_count = in->kv_block_count;
    out->slot_count = in->slot_count;
    out->context_tokens_max = in->context_tokens_max;
    out->step_rows_max = in->step_rows_max;
    out->steps_in_flight_max = in->steps_in_flight_max;
    out->draft_layer_count = in->draft_layer_count;
    return out;
}

static bool stages_decode(const Shoal__Placement *in, struct arena *arena, struct placement *out,
                          struct error *err)
{
    if (!codec_check_count("stages", in->n_stages, CODEC_LAYERS_MAX, err)) {
        return false;
    }
    out->stage_count = (uint32_t)in->n_stages;
    out->stages = arena_new_array(arena, struct placement_stage, in->n_stages);
    for (size_t i = 0; i < in->n_stages; i++) {
        if (!codec_check_count("stages.workers", in->stages[i]->n_workers, CODEC_WORKERS_MAX,
                               err)) {
            return false;
        }
        out->stages[i] =
            (struct placement_stage){.layer_begin = in->stages[i]->layer_begin,
                                     .layer_end = in->stages[i]->layer_end,
                                     .member_count = (uint32_t)in->stages[i]->n_workers,
                                     .workers = in->stages[i]->workers};
    }
    return true;
}

/* Every offset must lie inside the owners, rising. */
static bool owners_decode(const Shoal__Placement *in, struct placement *out, struct error *err)
{
    size_t count = owner_offset_count(out);

    if (!codec_check_count("replica_member", in->n_replica_member, CODEC_OWNERS_MAX, err)) {
        return false;
    }
    if (in->n_replica_offset != count) {
        return error_set(err, ERROR_INPUT, "replica_offset: %zu values, %zu expected",
                         in->n_replica_offset, count);
    }
    for (size_t i = 0; i < count; i++) {
        if (in->replica_offset[i] > in->n_replica_member ||
            (i > 0 && in->replica_offset[i] < in->replica_offset[i - 1])) {
            return error_set(err, ERROR_INPUT, "replica_offset[%zu]: %u is out of order", i,
                             in->replica_offset[i]);
        }
    }
    if (count > 0 && in->replica_offset[count - 1] != in->n_replica_member) {
        return error_set(err, ERROR_INPUT, "replica_member: %zu values, %u expected",
                         in->n_replica_member, in->replica_offset[count - 1]);
    }
    out->replica_offset = count == 0 ? NULL : in->replica_offset;
    out->replica_member = count == 0 ? NULL : in->replica_member;
    return true;
}

static bool counts_decode(const Shoal__Placement *in, struct placement *out, struct error *err)
{
    if (!codec_check_count("layer_count", in->layer_count, CODEC_LAYERS_MAX, err) ||
        !codec_check_count("expert_count", in->expert_count, CODEC_EXPERTS_MAX, err) ||
        !codec_check_count("draft_layer_count", in->draft_layer_count, CODEC_LAYERS_MAX, err) ||
        !codec_check_count("layers × expert_count",
                           ((uint64_t)in->layer_count + in->draft_layer_count) * in->expert_count,
                           CODEC_OWNERS_MAX, err) ||
        !codec_check_count("lane_count", in->lane_count, CODEC_LANES_MAX, err)) {
        return false;
    }
    if (strlen(in->numerics_id) >= sizeof(out->numerics_id)) {
        return error_set(err, ERROR_INPUT, "numerics_id: %zu bytes, %zu is the limit",
                         strlen(in->numerics_id), sizeof(out->numerics_id) - 1);
    }
    (void)snprintf(out->numerics_id, sizeof(out->numerics_id), "%s", in->numerics_id);
    out->epoch = in->epoch;
    out->layer_count = in->layer_count;
    out->expert_count = in->expert_count;
    out->dense_layer_count = in->dense_layer_count;
    out->lane_count = in->lane_count;
    out->kv_block_count = in->kv_block_count;
    out->slot_count = in->slot_count;
    out->context_tokens_max = in->context_tokens_max;
    out->step_rows_max = in->step_rows_max;
    out->steps_in_flight_max = in->steps_in_flight_max;
    out->draft_layer_count = in->draft_layer_count;
    return kv_type_decode(in->kv_type, &out->kv_type, err);
}

static bool placement_decode(const Shoal__Placement *in, struct arena *arena,
                             struct placement **result, struct error *err)
{
    struct placement *out = arena_new(arena, struct placement);

    if (!counts_decode(in, out, err) || !stages_decode(in, arena, out, err)) {
        return false;
    }
    if (in->n_lane_member != (size_t)out->stage_count * out->lane_count) {
        return error_set(err, ERROR_INPUT, "lane_member: %zu values, %u stages × %u lanes expected",
                         in->n_lane_member, out->stage_count, out->lane_count);
    }
    out->lane_member = in->lane_member;
    if (!owners_decode(in, out, err) || !placement_check(out, err)) {
        return false;
    }
    *result = out;
    return true;
}

void codec_assign_encode(const struct assign_message *in, struct arena *arena, Shoal__Assign *out)
{
    shoal__assign__init(out);
    out->placement = placement_encode(in->placement, arena);
    out->model = codec_text(in->model);
    out->model_hash = codec_text(in->model_hash);
    out->weights = codec_text(in->weights);
    out->fetch_id = codec_text(in->fetch_id);
    out->fetch_port = in->fetch_port;
    out->preload = in->preload;
    out->n_peers = in->peer_count;
    out->peers =
        (Shoal__PeerAddress **)codec_list(arena, in->peer_count, sizeof(Shoal__PeerAddress));
    for (uint32_t i = 0; i < in->peer_count; i++) {
        shoal__peer_address__init(out->peers[i]);
        out->peers[i]->worker = in->peers[i].worker;
        out->peers[i]->data_endpoint = codec_text(in->peers[i].data_endpoint);
        out->peers[i]->world_id = in->peers[i].world_id;
        out->peers[i]->world_rank = in->peers[i].world_rank;
    }
}

static bool peers_decode(const Shoal__Assign *in, struct arena *arena, struct assign_message *out,
                         struct error *err)
{
    if (!codec_check_count("peers", in->n_peers, CODEC_WORKERS_MAX, err)) {
        return false;
    }
    out->peer_count = (uint32_t)in->n_peers;
    out->peers = arena_new_array(arena, struct peer_address, in->n_peers);
    for (size_t i = 0; i < in->n_peers; i++) {
        if (!codec_check_text("peers.data_endpoint", in->peers[i]->data_endpoint, err)) {
            return false;
        }
        out->peers[i] = (struct peer_address){.worker = in->peers[i]->worker,
                                              .data_endpoint = in->peers[i]->data_endpoint,
                                              .world_id = in->peers[i]->world_id,
                                              .world_rank = in->peers[i]->world_rank};
    }
    return true;
}

bool codec_assign_decode(const Shoal__Assign *in, struct arena *arena, struct assign_message *out,
                         struct error *err)
{
    if (in->placement == NULL) {
        return error_set(err, ERROR_INPUT, "placement: missing");
    }
    if (!codec_check_text("model", in->model, err) ||
        !codec_check_text("model_hash", in->model_hash, err) ||
        !codec_check_text("weights", in->weights, err) ||
        !codec_check_text("fetch_id", in->fetch_id, err)) {
        return false;
    }
    if (!placement_decode(in->placement, arena, &out->placement, err)) {
        return error_wrap(err, "placement");
    }
    out->model = in->model;
    out->model_hash = in->model_hash;
    out->weights = in->weights;
    out->fetch_id = in->fetch_id;
    if (in->fetch_port > UINT16_MAX) {
        return error_set(err, ERROR_INPUT, "fetch_port: %u is no port", in->fetch_port);
    }
    out->fetch_port = (uint16_t)in->fetch_port;
    out->preload = in->preload;
    return peers_decode(in, arena, out, err);
}
