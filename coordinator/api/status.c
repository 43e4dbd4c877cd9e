/* status.c - /health for load balancers, /shoal/status for people and `shoal top`. */
#include "coordinator/api/http.h"

#include "common/base/clock.h"

/* 200 only when requests are served; else 503 with the state, in the shape of llama-server. */
enum MHD_Result endpoint_health(struct http_request *request)
{
    struct cluster_status *status = cluster_status(request->api->config.cluster);
    bool draining = atomic_load(&request->api->draining);
    const char *state =
        draining ? cluster_state_name(CLUSTER_DRAINING) : cluster_state_name(status->state);
    bool serving = status->state == CLUSTER_SERVING && !draining;
    json_t *body;

    if (serving) {
        body = json_pack("{s:s, s:s}", "status", "ok", "state", state);
    } else {
        body = json_pack("{s:s, s:s, s:{s:i, s:s, s:s}}", "status", "unavailable", "state", state,
                         "error", "code", 503, "message",
                         status->problem[0] ? status->problem : state, "type", "unavailable_error");
    }
    cluster_status_destroy(status);
    return http_answer_json(request, serving ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, body);
}

static json_t *link_json(const struct cluster_link_status *link)
{
    return json_pack(
        "{s:I, s:s, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "peer", (json_int_t)link->peer,
        "kind", link->kind, "latency_ns", (json_int_t)link->latency_ns, "bytes_per_s",
        link->bytes_per_s, "frames_sent", (json_int_t)link->frames_sent, "frames_received",
        (json_int_t)link->frames_received, "bytes_sent", (json_int_t)link->bytes_sent,
        "bytes_received", (json_int_t)link->bytes_received, "crc_errors",
        (json_int_t)link->crc_errors, "frames_dropped", (json_int_t)link->frames_dropped);
}

static void set_seat(json_t *json, const struct cluster_worker_status *worker)
{
    bool seated = worker->stage != PLACEMENT_NONE;

    json_object_set_new(json, "stage", seated ? json_integer(worker->stage) : json_null());
    json_object_set_new(json, "member", seated ? json_integer(worker->member) : json_null());
    json_object_set_new(json, "layer_begin", json_integer(worker->layer_begin));
    json_object_set_new(json, "layer_end", json_integer(worker->layer_end));
    json_object_set_new(json, "expert_slots", json_integer(worker->expert_slots));
}

static json_t *worker_json(const struct cluster_worker_status *worker)
{
    json_t *links = json_array();
    json_t *json = json_pack(
        "{s:I, s:b, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, "
        "s:I, "
        "s:I, s:I}",
        "id", (json_int_t)worker->id, "alive", (int)worker->alive, "host", worker->host, "cpu",
        worker->cpu, "pid", (json_int_t)worker->pid, "threads", (json_int_t)worker->threads,
        "load_done_bytes", (json_int_t)worker->load_done_bytes, "load_total_bytes",
        (json_int_t)worker->load_total_bytes, "load_kept_bytes",
        (json_int_t)worker->load_kept_bytes, "ledger_bytes", (json_int_t)worker->ledger_bytes,
        "limit_bytes", (json_int_t)worker->limit_bytes, "resident_bytes",
        (json_int_t)worker->resident_bytes, "weight_bytes", (json_int_t)worker->weight_bytes,
        "kv_bytes", (json_int_t)worker->kv_bytes, "busy_share", worker->busy_share,
        "busy_share_recent", worker->busy_share_recent, "steps", (json_int_t)worker->steps, "rows",
        (json_int_t)worker->rows, "busy_ns", (json_int_t)worker->busy_ns, "frames_dropped",
        (json_int_t)worker->frames_dropped);

    set_seat(json, worker);
    for (uint32_t i = 0; i < worker->link_count; i++) {
        json_array_append_new(links, link_json(&worker->links[i]));
    }
    json_object_set_new(json, "links", links);
    return json;
}

static json_t *scheduler_json(const struct scheduler_stats *stats)
{
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "waiting",
        (json_int_t)stats->waiting, "running", (json_int_t)stats->running, "decoding",
        (json_int_t)stats->decoding, "steps_in_flight", (json_int_t)stats->steps_in_flight,
        "kv_blocks_used", (json_int_t)stats->kv_blocks_used, "kv_blocks_total",
        (json_int_t)stats->kv_blocks_total, "steps", (json_int_t)stats->steps, "rows",
        (json_int_t)stats->rows, "prompt_tokens", (json_int_t)stats->prompt_tokens,
        "generated_tokens", (json_int_t)stats->generated_tokens, "finished",
        (json_int_t)stats->finished, "cancelled", (json_int_t)stats->cancelled, "failed",
        (json_int_t)stats->failed);
    json_t *shared =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "prefix_query_tokens",
                  (json_int_t)stats->prefix_query_tokens, "prefix_hit_tokens",
                  (json_int_t)stats->prefix_hit_tokens, "prompt_rows_computed",
                  (json_int_t)stats->prompt_rows_computed, "drafted", (json_int_t)stats->drafted,
                  "accepted", (json_int_t)stats->accepted, "preemptions",
                  (json_int_t)stats->preemptions, "evictions", (json_int_t)stats->evictions);

    json_t *trouble = json_pack("{s:I, s:I, s:I}", "retries", (json_int_t)stats->retries,
                                "steps_reissued", (json_int_t)stats->steps_reissued,
                                "ignored_reports", (json_int_t)stats->ignored_reports);

    json_object_update(json, shared);
    json_object_update(json, trouble);
    json_decref(shared);
    json_decref(trouble);
    return json;
}

enum MHD_Result endpoint_status(struct http_request *request)
{
    struct cluster_status *status = cluster_status(request->api->config.cluster);
    json_t *workers = json_array();

    for (uint32_t i = 0; i < status->worker_count; i++) {
        json_array_append_new(workers, worker_json(&status->workers[i]));
    }
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "model",
                  request->api->config.model_name, "state", cluster_state_name(status->state),
                  "problem", status->problem, "epoch", (json_int_t)status->epoch, "numerics_id",
                  status->numerics_id, "stage_count", (json_int_t)status->stage_count, "lane_count",
                  (json_int_t)status->lane_count, "context_tokens_max",
                  (json_int_t)status->context_tokens_max, "worker_wanted",
                  (json_int_t)status->worker_wanted, "tokens_per_s", status->tokens_per_s,
                  "uptime_s", (double)status->uptime_ns / (double)NS_PER_S, "scheduler",
                  scheduler_json(&status->scheduler), "workers", workers);

    cluster_status_destroy(status);
    return http_answer_json(request, MHD_HTTP_OK, body);
}
