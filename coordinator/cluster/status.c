/* status.c - the snapshot that other threads read.
 *
 * The cluster's thread puts a new one together at most ten times a second and swaps it in under the
 * mutex; readers copy it. So no lock is taken on the path of a token.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/mem.h"

#include <string.h>

static void worker_fill(const struct cluster *cluster, const struct member *member, int64_t now_ns,
                        struct cluster_worker_status *out)
{
    int64_t served_ns = cluster->scheduler != NULL ? now_ns - cluster->epoch_start_ns : 0;

    *out = (struct cluster_worker_status){
        .id = member->id,
        .alive = true,
        .pid = member->pid,
        .threads = member->thread_count,
        .stage = PLACEMENT_NONE,
        .member = PLACEMENT_NONE,
        .load_done_bytes = member->load_done_bytes,
        .load_total_bytes = member->load_total_bytes,
        .load_kept_bytes = member->load_kept_bytes,
        .ledger_bytes = member->ledger_bytes,
        .limit_bytes = member->limit_bytes > 0 ? member->limit_bytes : member->memory_bytes,
        .resident_bytes = member->resident_bytes,
        .busy_share = served_ns > 0 ? (double)member->busy_ns / (double)served_ns : 0,
        .busy_share_recent = member->busy_share_recent,
        .steps = member->steps,
        .rows = member->rows,
        .busy_ns = member->busy_ns,
        .frames_dropped = member->frames_dropped,
        .link_count = member->link_count,
    };
    memcpy(out->host, member->host, sizeof(out->host));
    memcpy(out->cpu, member->cpu, sizeof(out->cpu));
    if (member->seated) {
        const struct placement_stage *stage = &cluster->placement->stages[member->seat.stage];

        out->stage = member->seat.stage;
        out->member = member->seat.member;
        out->layer_begin = stage->layer_begin;
        out->layer_end = stage->layer_end;
        out->expert_slots = member->share.expert_slots;
        out->weight_bytes = member->share.weight_bytes;
        out->kv_bytes = member->share.kv_bytes;
    }
    if (member->link_count > 0) {
        out->links = mem_new_array(struct cluster_link_status, member->link_count);
        memcpy(out->links, member->links, member->link_count * sizeof(*out->links));
    }
}

static void counts_add(struct scheduler_stats *sum, const struct scheduler_stats *more)
{
    sum->steps += more->steps;
    sum->rows += more->rows;
    sum->prompt_tokens += more->prompt_tokens;
    sum->generated_tokens += more->generated_tokens;
    sum->finished += more->finished;
    sum->cancelled += more->cancelled;
    sum->failed += more->failed;
    sum->ignored_reports += more->ignored_reports;
    sum->retries += more->retries;
    sum->steps_reissued += more->steps_reissued;
    sum->prefix_query_tokens += more->prefix_query_tokens;
    sum->prefix_hit_tokens += more->prefix_hit_tokens;
    sum->prompt_rows_computed += more->prompt_rows_computed;
    sum->drafted += more->drafted;
    sum->accepted += more->accepted;
    sum->preemptions += more->preemptions;
    sum->evictions += more->evictions;
}

void status_keep_counts(struct cluster *cluster)
{
    struct scheduler_stats stats;

    scheduler_stats(cluster->scheduler, &stats);
    counts_add(&cluster->past, &stats);
}

static struct cluster_status *status_make(struct cluster *cluster, int64_t now_ns)
{
    struct cluster_status *status = mem_new(struct cluster_status);

    status->state = cluster->state;
    memcpy(status->problem, cluster->problem, sizeof(status->problem));
    if (cluster->state == CLUSTER_FAILED && cluster->misfit != NULL) {
        status->misfit = mem_strdup(cluster->misfit);
    }
    status->epoch = cluster->epoch;
    if (cluster->placement != NULL) {
        memcpy(status->numerics_id, cluster->placement->numerics_id, sizeof(status->numerics_id));
        status->stage_count = cluster->placement->stage_count;
        status->lane_count = cluster->placement->lane_count;
        status->context_tokens_max = cluster->placement->context_tokens_max;
    }
    status->worker_wanted = cluster->worker_wanted;
    status->worker_count = cluster->member_count;
    status->workers = mem_new_array(struct cluster_worker_status, cluster->member_count);
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        worker_fill(cluster, &cluster->members[i], now_ns, &status->workers[i]);
    }
    if (cluster->scheduler != NULL) {
        scheduler_stats(cluster->scheduler, &status->scheduler);
        status->retry_after_ns = scheduler_retry_after_ns(cluster->scheduler, now_ns);
    }
    counts_add(&status->scheduler, &cluster->past);
    status->tokens_per_s = token_rate_per_s(&cluster->rate, now_ns);
    status->uptime_ns = now_ns - cluster->start_ns;
    return status;
}

void status_publish(struct cluster *cluster, int64_t now_ns)
{
    struct cluster_status *fresh = status_make(cluster, now_ns);
    struct cluster_status *old;

    pthread_mutex_lock(&cluster->status_mutex);
    old = cluster->status;
    cluster->status = fresh;
    pthread_cond_broadcast(&cluster->status_changed);
    pthread_mutex_unlock(&cluster->status_mutex);
    cluster_status_destroy(old);
    cluster->status_stale = false;
    cluster->status_ns = now_ns;
}

struct cluster_status *status_copy(const struct cluster_status *status)
{
    struct cluster_status *copy = mem_new(struct cluster_status);

    *copy = *status;
    copy->misfit = status->misfit != NULL ? mem_strdup(status->misfit) : NULL;
    copy->workers = mem_new_array(struct cluster_worker_status, status->worker_count);
    for (uint32_t i = 0; i < status->worker_count; i++) {
        struct cluster_worker_status *worker = &copy->workers[i];

        *worker = status->workers[i];
        if (worker->link_count > 0) {
            worker->links = mem_new_array(struct cluster_link_status, worker->link_count);
            memcpy(worker->links, status->workers[i].links,
                   worker->link_count * sizeof(*worker->links));
        }
    }
    return copy;
}

void cluster_status_destroy(struct cluster_status *status)
{
    if (status == NULL) {
        return;
    }
    for (uint32_t i = 0; i < status->worker_count; i++) {
        mem_free(status->workers[i].links);
    }
    mem_free(status->workers);
    mem_free(status->misfit);
    mem_free(status);
}
