/* codec_member.c - what workers and the coordinator say about themselves: registration, ledger,
 * links, heartbeat, failures. Field by field; what is text or a list is checked on the way in.
 */
#include "common/net/codec.h"

#include <inttypes.h>
#include <string.h>

#define EPOCH_MAX (UINT64_MAX / 2) /* others follow it */

/* Numbers need no check: every value is legal, policy is the coordinator's. */
static void register_numbers_decode(const Shoal__Registration *in, struct register_message *out)
{
    out->protocol_major = in->protocol_major;
    out->protocol_minor = in->protocol_minor;
    out->pid = in->pid;
    out->core_count = in->core_count;
    out->thread_count = in->thread_count;
    out->numa_node_count = in->numa_node_count;
    out->memory_bytes = in->memory_bytes;
    out->read_bytes_per_s = in->read_bytes_per_s;
    out->world_id = in->world_id;
    out->world_rank = in->world_rank;
    out->world_size = in->world_size;
    out->kernels_version = in->kernels_version;
    out->numa_node = in->numa_node;
    out->held_bytes = in->held_bytes;
    out->held_stage = in->held_stage;
    out->held_member = in->held_member;
    out->last_epoch = in->last_epoch;
}

void codec_register_encode(const struct register_message *in, Shoal__Registration *out)
{
    shoal__registration__init(out);
    out->protocol_major = in->protocol_major;
    out->protocol_minor = in->protocol_minor;
    out->build = codec_text(in->build);
    out->host = codec_text(in->host);
    out->pid = in->pid;
    out->core_count = in->core_count;
    out->thread_count = in->thread_count;
    out->numa_node_count = in->numa_node_count;
    out->memory_bytes = in->memory_bytes;
    out->cpu_level = codec_text(in->cpu_level);
    out->cpu_features = codec_text(in->cpu_features);
    out->cpu_name = codec_text(in->cpu_name);
    out->read_bytes_per_s = in->read_bytes_per_s;
    out->world_id = in->world_id;
    out->world_rank = in->world_rank;
    out->world_size = in->world_size;
    out->data_endpoint = codec_text(in->data_endpoint);
    out->kernels_version = in->kernels_version;
    out->numa_node = in->numa_node;
    out->launch_token = codec_text(in->launch_token);
    out->held_model = codec_text(in->held_model);
    out->held_bytes = in->held_bytes;
    out->held_stage = in->held_stage;
    out->held_member = in->held_member;
    out->last_epoch = in->last_epoch;
    out->fast_numerics = codec_text(in->fast_numerics);
}

bool codec_register_decode(const Shoal__Registration *in, struct register_message *out,
                           struct error *err)
{
    if (!codec_check_text("build", in->build, err) || !codec_check_text("host", in->host, err) ||
        !codec_check_text("cpu_level", in->cpu_level, err) ||
        !codec_check_text("cpu_features", in->cpu_features, err) ||
        !codec_check_text("cpu_name", in->cpu_name, err) ||
        !codec_check_text("data_endpoint", in->data_endpoint, err) ||
        !codec_check_text("launch_token", in->launch_token, err) ||
        !codec_check_text("held_model", in->held_model, err) ||
        !codec_check_text("fast_numerics", in->fast_numerics, err) ||
        !codec_check_amount("read_bytes_per_s", in->read_bytes_per_s, err)) {
        return false;
    }
    if (in->world_id != 0 && in->world_rank >= in->world_size) {
        return error_set(err, ERROR_INPUT, "world_rank: %u in a world of %u", in->world_rank,
                         in->world_size);
    }
    if (in->last_epoch > EPOCH_MAX) {
        return error_set(err, ERROR_INPUT, "last_epoch: %" PRIu64 " is no number of an epoch",
                         in->last_epoch);
    }
    register_numbers_decode(in, out);
    out->build = in->build;
    out->host = in->host;
    out->cpu_level = in->cpu_level;
    out->cpu_features = in->cpu_features;
    out->cpu_name = in->cpu_name;
    out->data_endpoint = in->data_endpoint;
    out->launch_token = in->launch_token;
    out->held_model = in->held_model;
    out->fast_numerics = in->fast_numerics;
    return true;
}

void codec_loaded_encode(const struct loaded_message *in, struct arena *arena, Shoal__Loaded *out)
{
    shoal__loaded__init(out);
    out->epoch = in->epoch;
    out->limit_bytes = in->limit_bytes;
    out->load_ns = in->load_ns;
    out->read_bytes = in->read_bytes;
    out->kept_bytes = in->kept_bytes;
    out->n_lines = in->line_count;
    out->lines = (Shoal__LedgerLine **)codec_list(arena, in->line_count, sizeof(Shoal__LedgerLine));
    for (uint32_t i = 0; i < in->line_count; i++) {
        shoal__ledger_line__init(out->lines[i]);
        out->lines[i]->what = codec_text(in->lines[i].what);
        out->lines[i]->bytes = in->lines[i].bytes;
    }
}

bool codec_loaded_decode(const Shoal__Loaded *in, struct arena *arena, struct loaded_message *out,
                         struct error *err)
{
    if (!codec_check_count("lines", in->n_lines, CODEC_LAYERS_MAX, err)) {
        return false;
    }
    out->epoch = in->epoch;
    out->limit_bytes = in->limit_bytes;
    out->load_ns = in->load_ns;
    out->read_bytes = in->read_bytes;
    out->kept_bytes = in->kept_bytes;
    out->line_count = (uint32_t)in->n_lines;
    out->lines = arena_new_array(arena, struct ledger_line, in->n_lines);
    for (size_t i = 0; i < in->n_lines; i++) {
        if (!codec_check_text("lines.what", in->lines[i]->what, err)) {
            return false;
        }
        out->lines[i].what = in->lines[i]->what;
        out->lines[i].bytes = in->lines[i]->bytes;
    }
    return true;
}

void codec_ready_encode(const struct ready_message *in, struct arena *arena, Shoal__Ready *out)
{
    shoal__ready__init(out);
    out->epoch = in->epoch;
    out->n_links = in->link_count;
    out->links = (Shoal__LinkReport **)codec_list(arena, in->link_count, sizeof(Shoal__LinkReport));
    for (uint32_t i = 0; i < in->link_count; i++) {
        shoal__link_report__init(out->links[i]);
        out->links[i]->peer = in->links[i].peer;
        out->links[i]->kind = codec_text(in->links[i].kind);
        out->links[i]->latency_ns = in->links[i].latency_ns;
        out->links[i]->bytes_per_s = in->links[i].bytes_per_s;
    }
}

bool codec_ready_decode(const Shoal__Ready *in, struct arena *arena, struct ready_message *out,
                        struct error *err)
{
    if (!codec_check_count("links", in->n_links, CODEC_WORKERS_MAX, err)) {
        return false;
    }
    out->epoch = in->epoch;
    out->link_count = (uint32_t)in->n_links;
    out->links = arena_new_array(arena, struct link_report, in->n_links);
    for (size_t i = 0; i < in->n_links; i++) {
        const Shoal__LinkReport *link = in->links[i];

        if (!codec_check_text("links.kind", link->kind, err) ||
            !codec_check_amount("links.latency_ns", (double)link->latency_ns, err) ||
            !codec_check_amount("links.bytes_per_s", link->bytes_per_s, err)) {
            return false;
        }
        out->links[i] = (struct link_report){.peer = link->peer,
                                             .kind = link->kind,
                                             .latency_ns = link->latency_ns,
                                             .bytes_per_s = link->bytes_per_s};
    }
    return true;
}

static void usage_encode(const struct link_usage *in, Shoal__LinkUsage *out)
{
    shoal__link_usage__init(out);
    out->peer = in->peer;
    out->kind = codec_text(in->kind);
    out->frames_sent = in->frames_sent;
    out->frames_received = in->frames_received;
    out->bytes_sent = in->bytes_sent;
    out->bytes_received = in->bytes_received;
    out->crc_errors = in->crc_errors;
    out->frames_dropped = in->frames_dropped;
}

void codec_heartbeat_encode(const struct heartbeat_message *in, struct arena *arena,
                            Shoal__Heartbeat *out)
{
    shoal__heartbeat__init(out);
    out->sent_ns = in->sent_ns;
    out->epoch = in->epoch;
    out->steps = in->steps;
    out->busy_ns = in->busy_ns;
    out->wait_ns = in->wait_ns;
    out->memory_bytes = in->memory_bytes;
    out->frames_dropped = in->frames_dropped;
    out->n_links = in->link_count;
    out->links = (Shoal__LinkUsage **)codec_list(arena, in->link_count, sizeof(Shoal__LinkUsage));
    for (uint32_t i = 0; i < in->link_count; i++) {
        usage_encode(&in->links[i], out->links[i]);
    }
}

bool codec_heartbeat_decode(const Shoal__Heartbeat *in, struct arena *arena,
                            struct heartbeat_message *out, struct error *err)
{
    if (!codec_check_count("links", in->n_links, CODEC_WORKERS_MAX, err)) {
        return false;
    }
    *out = (struct heartbeat_message){.sent_ns = in->sent_ns,
                                      .epoch = in->epoch,
                                      .steps = in->steps,
                                      .busy_ns = in->busy_ns,
                                      .wait_ns = in->wait_ns,
                                      .memory_bytes = in->memory_bytes,
                                      .frames_dropped = in->frames_dropped,
                                      .link_count = (uint32_t)in->n_links};
    out->links = arena_new_array(arena, struct link_usage, in->n_links);
    for (size_t i = 0; i < in->n_links; i++) {
        const Shoal__LinkUsage *link = in->links[i];

        if (!codec_check_text("links.kind", link->kind, err)) {
            return false;
        }
        out->links[i] = (struct link_usage){.peer = link->peer,
                                            .kind = link->kind,
                                            .frames_sent = link->frames_sent,
                                            .frames_received = link->frames_received,
                                            .bytes_sent = link->bytes_sent,
                                            .bytes_received = link->bytes_received,
                                            .crc_errors = link->crc_errors,
                                            .frames_dropped = link->frames_dropped};
    }
    return true;
}

/* The two enums have the same values; the schema's are fixed for ever. */
_Static_assert((int)SHOAL__FAILURE_CODE__FAILURE_USAGE == (int)ERROR_USAGE &&
                   (int)SHOAL__FAILURE_CODE__FAILURE_INPUT == (int)ERROR_INPUT &&
                   (int)SHOAL__FAILURE_CODE__FAILURE_LIMIT == (int)ERROR_LIMIT &&
                   (int)SHOAL__FAILURE_CODE__FAILURE_SYSTEM == (int)ERROR_SYSTEM &&
                   (int)SHOAL__FAILURE_CODE__FAILURE_PEER == (int)ERROR_PEER,
               "proto/shoal.proto and common/base/error.h number the errors alike");

void codec_failure_encode(const struct error_message *in, Shoal__Failure *out)
{
    ASSERT(in->code >= ERROR_USAGE && in->code <= ERROR_PEER);
    shoal__failure__init(out);
    out->code = (Shoal__FailureCode)in->code;
    out->epoch = in->epoch;
    out->step = in->step;
    out->fatal = in->fatal;
    out->text = codec_text(in->text);
}

bool codec_failure_decode(const Shoal__Failure *in, struct error_message *out, struct error *err)
{
    if ((int)in->code < (int)ERROR_USAGE || (int)in->code > (int)ERROR_PEER) {
        return error_set(err, ERROR_INPUT, "code: unknown value %d", (int)in->code);
    }
    if (!codec_check_text("text", in->text, err)) {
        return false;
    }
    *out = (struct error_message){.code = (enum error_code)in->code,
                                  .epoch = in->epoch,
                                  .step = in->step,
                                  .fatal = in->fatal != 0,
                                  .text = in->text};
    return true;
}

void codec_link_lost_encode(const struct link_lost_message *in, Shoal__LinkLost *out)
{
    shoal__link_lost__init(out);
    out->epoch = in->epoch;
    out->attempt = in->attempt;
    out->peer = in->peer;
    out->text = codec_text(in->text);
}

bool codec_link_lost_decode(const Shoal__LinkLost *in, struct link_lost_message *out,
                            struct error *err)
{
    if (!codec_check_text("text", in->text, err)) {
        return false;
    }
    *out = (struct link_lost_message){
        .epoch = in->epoch, .attempt = in->attempt, .peer = in->peer, .text = in->text};
    return true;
}

void codec_attempt_encode(const struct attempt_message *in, Shoal__Attempt *out)
{
    shoal__attempt__init(out);
    out->epoch = in->epoch;
    out->attempt = in->attempt;
    out->all_links = in->all_links;
    out->n_pairs = (size_t)in->pair_count * 2;
    out->pairs = codec_array(in->pairs);
}

bool codec_attempt_decode(const Shoal__Attempt *in, struct attempt_message *out, struct error *err)
{
    if (!codec_check_count("pairs", in->n_pairs, CODEC_WORKERS_MAX, err)) {
        return false;
    }
    if (in->n_pairs % 2 != 0) {
        return error_set(err, ERROR_INPUT, "pairs: %zu workers", in->n_pairs);
    }
    *out = (struct attempt_message){.epoch = in->epoch,
                                    .attempt = in->attempt,
                                    .all_links = in->all_links != 0,
                                    .pair_count = (uint32_t)(in->n_pairs / 2),
                                    .pairs = in->pairs};
    return true;
}
