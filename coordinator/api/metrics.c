/* metrics.c - /metrics in the Prometheus text format (exposition format 0.0.4). */
#include "coordinator/api/http.h"

#include "common/base/clock.h"

#include <inttypes.h>

static void head(struct buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(struct buffer *out, const char *name, const char *type, const char *help,
                   double value)
{
    head(out, name, type, help);
    buffer_printf(out, "%s %.15g\n", name, value);
}

static void write_requests(struct buffer *out, const struct api *api,
                           const struct scheduler_stats *stats)
{
    single(out, "shoal_http_requests_total", "counter", "HTTP requests answered.",
           (double)atomic_load(&api->served));
    single(out, "shoal_http_errors_total", "counter", "HTTP requests answered with 4xx or 5xx.",
           (double)atomic_load(&api->refused));
    single(out, "shoal_http_requests_active", "gauge", "Completion requests open now.",
           atomic_load(&api->active));
    single(out, "shoal_sequences_waiting", "gauge", "Sequences waiting for a place.",
           stats->waiting);
    single(out, "shoal_sequences_running", "gauge", "Sequences admitted.", stats->running);
    head(out, "shoal_sequences_total", "counter", "Sequences ended, by how.");
    buffer_printf(out,
                  "shoal_sequences_total{end=\"finished\"} %" PRIu64
                  "\nshoal_sequences_total{end=\"cancelled\"} %" PRIu64
                  "\nshoal_sequences_total{end=\"failed\"} %" PRIu64 "\n",
                  stats->finished, stats->cancelled, stats->failed);
}

static void write_tokens(struct buffer *out, const struct cluster_status *status)
{
    const struct scheduler_stats *stats = &status->scheduler;

    single(out, "shoal_prompt_tokens_total", "counter", "Prompt tokens computed.",
           (double)stats->prompt_tokens);
    single(out, "shoal_generated_tokens_total", "counter", "Tokens generated.",
           (double)stats->generated_tokens);
    single(out, "shoal_prefix_cache_queries_total", "counter",
           "Prompt tokens looked up in the prefix cache.", (double)stats->prefix_query_tokens);
    single(out, "shoal_prefix_cache_hits_total", "counter",
           "Prompt tokens found in the prefix cache.", (double)stats->prefix_hit_tokens);
    single(out, "shoal_prefix_cache_evictions_total", "counter",
           "Blocks of the prefix cache given to others.", (double)stats->evictions);
    single(out, "shoal_draft_tokens_total", "counter", "Draft tokens computed.",
           (double)stats->drafted);
    single(out, "shoal_draft_tokens_accepted_total", "counter", "Draft tokens that stood.",
           (double)stats->accepted);
    single(out, "shoal_preemptions_total", "counter",
           "Sequences that gave their memory to others and were computed again.",
           (double)stats->preemptions);
    single(out, "shoal_tokens_per_second", "gauge", "Tokens generated, over the last 10 s of work.",
           status->tokens_per_s);
    single(out, "shoal_steps_total", "counter", "Steps issued.", (double)stats->steps);
    single(out, "shoal_retries_total", "counter",
           "Further attempts: links were opened anew and steps issued again.",
           (double)stats->retries);
    single(out, "shoal_steps_reissued_total", "counter", "Steps issued again.",
           (double)stats->steps_reissued);
    single(out, "shoal_answers_ignored_total", "counter",
           "Workers' answers to steps that were over or belonged to an earlier attempt.",
           (double)stats->ignored_reports);
    single(out, "shoal_steps_in_flight", "gauge", "Steps under way.", stats->steps_in_flight);
    single(out, "shoal_kv_blocks", "gauge", "KV blocks of 64 tokens, all lanes.",
           stats->kv_blocks_total);
    single(out, "shoal_kv_blocks_used", "gauge", "KV blocks reserved or in use.",
           stats->kv_blocks_used);
    single(out, "shoal_epoch", "counter", "Number of the placement in force.",
           (double)status->epoch);
    single(out, "shoal_serving", "gauge", "1 while requests are served.",
           status->state == CLUSTER_SERVING);
}

/* One family over all workers. */
struct worker_metric {
    const char *name;
    const char *type;
    const char *help;
    double (*value)(const struct cluster_worker_status *worker);
};

static double up(const struct cluster_worker_status *worker)
{
    return worker->alive;
}
static double busy(const struct cluster_worker_status *worker)
{
    return worker->busy_share_recent;
}
static double steps(const struct cluster_worker_status *worker)
{
    return (double)worker->steps;
}
static double rows(const struct cluster_worker_status *worker)
{
    return (double)worker->rows;
}
static double dropped(const struct cluster_worker_status *worker)
{
    return (double)worker->frames_dropped;
}
static double resident(const struct cluster_worker_status *worker)
{
    return (double)worker->resident_bytes;
}

static const struct worker_metric worker_metrics[] = {
    {"shoal_worker_up", "gauge", "1 while the worker is connected.", up},
    {"shoal_worker_busy_share", "gauge", "Share of the last heartbeat interval spent computing.",
     busy},
    {"shoal_worker_steps_total", "counter", "Steps finished in this epoch.", steps},
    {"shoal_worker_rows_total", "counter", "Rows computed in this epoch.", rows},
    {"shoal_worker_dropped_frames_total", "counter",
     "Frames, behind the links, of steps that were over; in this epoch.", dropped},
    {"shoal_worker_resident_bytes", "gauge", "Anonymous resident memory.", resident},
};

static void write_workers(struct buffer *out, const struct cluster_status *status)
{
    for (size_t i = 0; i < ARRAY_LENGTH(worker_metrics); i++) {
        const struct worker_metric *metric = &worker_metrics[i];

        head(out, metric->name, metric->type, metric->help);
        for (uint32_t w = 0; w < status->worker_count; w++) {
            buffer_printf(out, "%s{worker=\"%u\",host=\"%s\"} %.15g\n", metric->name,
                          status->workers[w].id, status->workers[w].host,
                          metric->value(&status->workers[w]));
        }
    }
}

/* By the steps' own clocks, so that the counter's growth over any time is what the stage computed
 * in the steps that it finished. */
static void write_stages(struct buffer *out, const struct cluster_status *status)
{
    head(out, "shoal_stage_busy_seconds_total", "counter",
         "Time spent computing in this epoch, by stage and member.");
    for (uint32_t w = 0; w < status->worker_count; w++) {
        const struct cluster_worker_status *worker = &status->workers[w];

        if (worker->stage != PLACEMENT_NONE) {
            buffer_printf(out,
                          "shoal_stage_busy_seconds_total{stage=\"%u\",member=\"%u\","
                          "worker=\"%u\"} %" PRId64 ".%09" PRId64 "\n",
                          worker->stage, worker->member, worker->id, worker->busy_ns / NS_PER_S,
                          worker->busy_ns % NS_PER_S);
        }
    }
}

static void write_link_family(struct buffer *out, const struct cluster_status *status,
                              const char *name, size_t offset)
{
    head(out, name, "counter", "Data plane, by link.");
    for (uint32_t w = 0; w < status->worker_count; w++) {
        const struct cluster_worker_status *worker = &status->workers[w];

        for (uint32_t i = 0; i < worker->link_count; i++) {
            const struct cluster_link_status *link = &worker->links[i];

            buffer_printf(out, "%s{worker=\"%u\",peer=\"%u\",kind=\"%s\"} %" PRIu64 "\n", name,
                          worker->id, link->peer, link->kind,
                          *(const uint64_t *)((const char *)link + offset));
        }
    }
}

static void write_links(struct buffer *out, const struct cluster_status *status)
{
    static const struct {
        const char *name;
        size_t offset;
    } families[] = {
        {"shoal_link_sent_bytes_total", offsetof(struct cluster_link_status, bytes_sent)},
        {"shoal_link_received_bytes_total", offsetof(struct cluster_link_status, bytes_received)},
        {"shoal_link_sent_frames_total", offsetof(struct cluster_link_status, frames_sent)},
        {"shoal_link_received_frames_total", offsetof(struct cluster_link_status, frames_received)},
        {"shoal_link_crc_errors_total", offsetof(struct cluster_link_status, crc_errors)},
        {"shoal_link_dropped_frames_total", offsetof(struct cluster_link_status, frames_dropped)},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        write_link_family(out, status, families[i].name, families[i].offset);
    }
}

enum MHD_Result endpoint_metrics(struct http_request *request)
{
    struct cluster_status *status = cluster_status(request->api->config.cluster);
    struct buffer out;

    buffer_init(&out);
    write_requests(&out, request->api, &status->scheduler);
    write_tokens(&out, status);
    histogram_write(&request->api->delivery, "shoal_token_delivery_seconds",
                    "From a worker's message to the socket of a stream.", &out);
    write_workers(&out, status);
    write_stages(&out, status);
    write_links(&out, status);
    cluster_status_destroy(status);
    enum MHD_Result result = http_answer(request, MHD_HTTP_OK, "text/plain; version=0.0.4",
                                         buffer_text(&out), out.length);

    buffer_deinit(&out);
    return result;
}
