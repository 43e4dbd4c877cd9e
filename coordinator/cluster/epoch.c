/* epoch.c - from enough workers to a serving placement, and back.
 *
 *   GATHERING ──enough usable workers──▶ LOADING ──all loaded──▶ CONNECTING ──all ready──▶ SERVING
 *       ▲                                                                                    │
 *       └──────────── a seated worker was lost, failed a step, or left ──────────────────────┘
 *
 * Every state but SERVING has a deadline or shows progress. FAILED is final. Each epoch has its own
 * number and arena; what workers send about an earlier one is ignored.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* --- state --- */

void epoch_set_state(struct cluster *cluster, enum cluster_state state, int64_t now_ns)
{
    if (cluster->state != state) {
        log_info("cluster: state=%s epoch=%" PRIu64, cluster_state_name(state), cluster->epoch);
    }
    cluster->state = state;
    cluster->state_since_ns = now_ns;
    cluster->problem[0] = '\0';
    if (state == CLUSTER_GATHERING) {
        epoch_describe_gathering(cluster, now_ns);
    }
    status_publish(cluster, now_ns);
}

void epoch_describe_gathering(struct cluster *cluster, int64_t now_ns)
{
    const char *reason = cluster->epoch_end_reason;

    (void)snprintf(cluster->problem, sizeof(cluster->problem), "waiting for workers: %u of %u%s%s",
                   membership_usable_count(cluster, now_ns), cluster->worker_wanted,
                   reason[0] != '\0' ? "; " : "", reason);
    cluster->status_stale = true;
}

bool epoch_is_running(const struct cluster *cluster)
{
    return cluster->placement != NULL;
}

static void seats_clear(struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        cluster->members[i].seated = false;
        cluster->members[i].phase = MEMBER_IDLE;
    }
}

/* Steps are lost, sequences wait, seats are free. */
static void epoch_end(struct cluster *cluster, int64_t now_ns)
{
    if (cluster->state == CLUSTER_SERVING || cluster->state == CLUSTER_DRAINING) {
        scheduler_suspend(cluster->scheduler, now_ns);
        sequences_deliver(cluster, "the steps that computed it were lost again and again", now_ns);
    }
    cluster->placement = NULL;
    seats_clear(cluster);
}

/* No epoch will follow. */
static void sequences_end(struct cluster *cluster, const char *why, int64_t now_ns)
{
    if (cluster->scheduler == NULL) {
        return;
    }
    scheduler_fail_all(cluster->scheduler, now_ns);
    sequences_deliver(cluster, why, now_ns);
    status_keep_counts(cluster);
    scheduler_destroy(cluster->scheduler);
    cluster->scheduler = NULL;
}

/* Twice as long after every epoch that has done nothing. */
static int64_t settle_ns(const struct cluster *cluster)
{
    int64_t pause_ns = SETTLE_NS;

    for (uint32_t i = 1; i < cluster->epoch_failures && pause_ns < SETTLE_MAX_NS; i++) {
        pause_ns *= 2;
    }
    return pause_ns < SETTLE_MAX_NS ? pause_ns : SETTLE_MAX_NS;
}

void epoch_abandon(struct cluster *cluster, const char *why, int64_t now_ns)
{
    if (cluster->state == CLUSTER_FAILED) {
        return;
    }
    log_warn("epoch %" PRIu64 " ends: %s", cluster->epoch, why);
    epoch_end(cluster, now_ns);
    (void)snprintf(cluster->epoch_end_reason, sizeof(cluster->epoch_end_reason), "%s", why);
    cluster->settle_until_ns = now_ns + settle_ns(cluster);
    if (cluster->epoch_failures >= EPOCH_FAILURES_MAX && !cluster->served_once) {
        epoch_fail_cluster(cluster, now_ns, "%d epochs in a row ended without a step: %s",
                           EPOCH_FAILURES_MAX, why);
        return;
    }
    epoch_set_state(cluster, CLUSTER_GATHERING, now_ns);
}

void epoch_refuse(struct cluster *cluster, struct member *member, const char *why, int64_t now_ns)
{
    if (!cluster->served_once) {
        epoch_fail_cluster(cluster, now_ns, "%s", why);
        return;
    }
    member->benched_until_ns = now_ns + BENCH_NS;
    cluster->epoch_failures++;
    epoch_abandon(cluster, why, now_ns);
}

/* Another placement for the workers that are there now. */
static void epoch_renew(struct cluster *cluster, const char *why, int64_t now_ns)
{
    log_info("epoch %" PRIu64 " ends: %s", cluster->epoch, why);
    epoch_end(cluster, now_ns);
    cluster->epoch_end_reason[0] = '\0';
    cluster->settle_until_ns = now_ns;
    epoch_set_state(cluster, CLUSTER_GATHERING, now_ns);
    epoch_try_begin(cluster, now_ns);
}

void epoch_fail_cluster(struct cluster *cluster, int64_t now_ns, const char *format, ...)
{
    char problem[sizeof(cluster->problem)];
    va_list args;

    if (cluster->state == CLUSTER_FAILED) {
        return; /* the first reason is the one to read */
    }
    va_start(args, format);
    (void)vsnprintf(problem, sizeof(problem), format, args);
    va_end(args);
    epoch_end(cluster, now_ns);
    sequences_end(cluster, problem, now_ns);
    cluster->state = CLUSTER_FAILED;
    cluster->state_since_ns = now_ns;
    memcpy(cluster->problem, problem, sizeof(problem));
    log_info("cluster: state=failed problem=%s", problem); /* who reads the state reports it */
    status_publish(cluster, now_ns);
}

void epoch_stop(struct cluster *cluster, int64_t now_ns)
{
    epoch_end(cluster, now_ns);
    sequences_end(cluster, "the coordinator stops", now_ns);
    cluster->state = CLUSTER_FAILED;
    (void)snprintf(cluster->problem, sizeof(cluster->problem), "the coordinator stops");
}

/* To every seated member; false: one was lost, and the epoch with it. */
static bool broadcast(struct cluster *cluster, const struct message *message, int64_t now_ns)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].seated &&
            !membership_send(cluster, &cluster->members[i], message, now_ns)) {
            return false;
        }
    }
    return true;
}

static bool all_are(const struct cluster *cluster, enum member_phase phase)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].seated && cluster->members[i].phase != phase) {
            return false;
        }
    }
    return true;
}

static void all_become(struct cluster *cluster, enum member_phase phase)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].seated) {
            cluster->members[i].phase = phase;
        }
    }
}

/* --- beginning --- */

static void seats_take(struct cluster *cluster, int64_t now_ns)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];

        member->seated = placement_seat_of(cluster->placement, member->id, &member->seat);
        member->phase = member->seated ? MEMBER_LOADING : MEMBER_IDLE;
        member->progress_ns = now_ns;
        member->load_done_bytes = 0;
        member->load_total_bytes = 0;
        member->load_kept_bytes = 0;
        member->ledger_bytes = 0;
        member->share = planner_share_of(&cluster->plan, cluster->placement, member->id);
        member->next_step = 0;
        member->steps = 0;
        member->rows = 0;
        member->busy_ns = 0;
        mem_free(member->links);
        member->links = NULL;
        member->link_count = 0;
    }
}

static void assign(struct cluster *cluster, int64_t now_ns)
{
    struct peer_address *peers =
        arena_new_array(&cluster->epoch_arena, struct peer_address, cluster->member_count);
    struct message message = {
        .kind = MESSAGE_ASSIGN,
        .assign = {.placement = cluster->placement,
                   .peers = peers,
                   .model = cluster->model_path,
                   .model_hash = cluster->model_hash,
                   .weights = cluster->weights,
                   .fetch_id = cluster->service != NULL ? model_service_id(cluster->service) : "",
                   .fetch_port =
                       cluster->service != NULL ? model_service_port(cluster->service) : 0}};

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        if (member->seated) {
            peers[message.assign.peer_count++] = (struct peer_address){
                .worker = member->id,
                .data_endpoint = arena_strdup(&cluster->epoch_arena, member->data_endpoint),
                .world_id = member->world_id,
                .world_rank = member->world_rank};
        }
    }
    (void)broadcast(cluster, &message, now_ns);
}

static void log_placement(const struct cluster *cluster)
{
    const struct placement *placement = cluster->placement;

    log_info("epoch %" PRIu64
             ": stages=%u lanes=%u numerics=%s context=%u kv_tokens_per_lane=%" PRIu64,
             cluster->epoch, placement->stage_count, placement->lane_count, placement->numerics_id,
             placement->context_tokens_max, (uint64_t)placement->kv_block_count * 64);
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];
        struct units_text weights, kv;

        if (member->seated) {
            const struct placement_stage *stage = &placement->stages[member->seat.stage];

            log_info("worker %u: stage=%u member=%u layers=%u-%u experts=%u weights=%s kv=%s",
                     member->id, member->seat.stage, member->seat.member, stage->layer_begin,
                     stage->layer_end - 1, member->share.expert_slots,
                     units_bytes(&weights, member->share.weight_bytes),
                     units_bytes(&kv, member->share.kv_bytes));
        }
    }
}

/* How many workers the next epoch may have: all that a layout of the planner's can use, else what
 * the layout wants; fewer when the cluster has served and some are gone. */
static uint32_t seats_wanted(const struct cluster *cluster, int64_t now_ns)
{
    uint32_t usable = membership_usable_count(cluster, now_ns);
    bool fixed = cluster->file_placement != NULL || cluster->config.stage_count > 0;

    if (!cluster->served_once || (fixed && usable > cluster->worker_wanted)) {
        return cluster->worker_wanted;
    }
    return usable;
}

/* Those who leave keep their seats when it does not go without them. */
static bool leaving_are_needed(struct cluster *cluster)
{
    bool changed = false;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];

        changed |= member->leaving && !member->needed;
        member->needed = member->leaving;
    }
    return changed;
}

/* The placement of as many workers as are there; NULL: none fits, and why stands in the problem. */
static struct placement *placement_find(struct cluster *cluster, int64_t now_ns)
{
    uint32_t count = seats_wanted(cluster, now_ns);
    struct member **order;
    struct placement *placement;
    struct error err;

    arena_reset(&cluster->epoch_arena);
    order = arena_new_array(&cluster->epoch_arena, struct member *, count);
    ASSERT(membership_order(cluster, now_ns, order, count) == count);
    cluster->seats_offered = count;
    placement = epoch_plan(cluster, order, count, &err);
    if (placement == NULL) {
        (void)snprintf(cluster->problem, sizeof(cluster->problem),
                       "waiting for workers: %u of %u cannot hold the model: %.300s", count,
                       cluster->worker_wanted, err.message);
    }
    return placement;
}

void epoch_try_begin(struct cluster *cluster, int64_t now_ns)
{
    uint32_t usable = membership_usable_count(cluster, now_ns);

    if (cluster->state != CLUSTER_GATHERING || now_ns < cluster->settle_until_ns) {
        return;
    }
    epoch_describe_gathering(cluster, now_ns);
    if (usable == 0 || (!cluster->served_once && usable < cluster->worker_wanted)) {
        return;
    }
    cluster->epoch =
        (cluster->epoch > cluster->epoch_seen ? cluster->epoch : cluster->epoch_seen) + 1;
    cluster->placement = placement_find(cluster, now_ns);
    if (cluster->placement == NULL && leaving_are_needed(cluster)) {
        cluster->placement = placement_find(cluster, now_ns);
    }
    if (cluster->placement == NULL && !cluster->served_once) {
        epoch_fail_cluster(cluster, now_ns, "%s", cluster->problem);
        return;
    }
    if (cluster->placement == NULL) {
        cluster->settle_until_ns = now_ns + GROW_NS; /* until one more has joined */
        return;
    }
    seats_take(cluster, now_ns);
    log_placement(cluster);
    epoch_set_state(cluster, CLUSTER_LOADING, now_ns);
    assign(cluster, now_ns);
}

/* --- what workers report --- */

void epoch_progress(struct cluster *cluster, struct member *member,
                    const struct progress_message *message, int64_t now_ns)
{
    if (message->epoch != cluster->epoch || member->phase != MEMBER_LOADING) {
        return;
    }
    if (message->done_bytes > member->load_done_bytes) {
        member->progress_ns = now_ns;
    }
    member->load_done_bytes = message->done_bytes;
    member->load_total_bytes = message->total_bytes;
}

void epoch_loaded(struct cluster *cluster, struct member *member,
                  const struct loaded_message *message, int64_t now_ns)
{
    struct message connect = {.kind = MESSAGE_CONNECT, .connect_epoch = cluster->epoch};

    if (message->epoch != cluster->epoch || member->phase != MEMBER_LOADING ||
        cluster->state != CLUSTER_LOADING) {
        return;
    }
    member->phase = MEMBER_LOADED;
    member->limit_bytes = message->limit_bytes;
    member->ledger_bytes = 0;
    for (uint32_t i = 0; i < message->line_count; i++) {
        member->ledger_bytes += message->lines[i].bytes;
    }
    member->load_total_bytes = message->read_bytes;
    member->load_done_bytes = message->read_bytes;
    member->load_kept_bytes = message->kept_bytes;
    plan_holding_destroy(member->holding);
    member->holding = plan_holding_create(cluster->placement, member->seat);
    log_info("worker %u loaded: read_bytes=%" PRIu64 " kept_bytes=%" PRIu64 " load_ms=%" PRId64,
             member->id, message->read_bytes, message->kept_bytes, message->load_ns / NS_PER_MS);
    if (all_are(cluster, MEMBER_LOADED)) {
        epoch_set_state(cluster, CLUSTER_CONNECTING, now_ns);
        all_become(cluster, MEMBER_CONNECTING);
        (void)broadcast(cluster, &connect, now_ns);
    }
}

static void link_reports_store(struct member *member, const struct ready_message *message)
{
    uint32_t count = message->link_count < MEMBERS_MAX ? message->link_count : MEMBERS_MAX;

    member->links = mem_resize(member->links, count > 0 ? count : 1, sizeof(*member->links));
    member->link_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct cluster_link_status *link = &member->links[i];

        *link = (struct cluster_link_status){.peer = message->links[i].peer,
                                             .latency_ns = message->links[i].latency_ns,
                                             .bytes_per_s = message->links[i].bytes_per_s};
        (void)snprintf(link->kind, sizeof(link->kind), "%s", message->links[i].kind);
    }
}

static void scheduler_start(struct cluster *cluster, int64_t now_ns)
{
    const struct placement *placement = cluster->placement;
    const struct arch *arch = &cluster->config.catalog->arch;
    uint64_t logits_rows = LOGITS_BYTES_MAX / ((uint64_t)arch->vocab * sizeof(float));
    uint32_t rows_max = placement->step_rows_max;
    uint32_t *member_counts = mem_new_array(uint32_t, placement->stage_count);
    struct scheduler_config config = {
        .lane_count = placement->lane_count,
        .stage_count = placement->stage_count,
        .member_counts = member_counts, /* groups may be uneven */
        .slot_count = placement->slot_count,
        .kv_block_count = placement->kv_block_count,
        .context_tokens_max = placement->context_tokens_max,
        .step_rows_max = rows_max,
        .steps_in_flight_max = placement->steps_in_flight_max,
        .batch_max = cluster->config.batch_max,
        .preempt_tokens = cluster->config.preempt_tokens,
        .prefix_cache = !cluster->config.prefix_cache_off,
        .draft_mode = cluster->config.draft_mode,
        .draft_max = cluster->config.draft_max,
        .max_step_ns = cluster->config.max_step_ns,
        .queue_max =
            cluster->config.queue_max > 0 ? cluster->config.queue_max : CLUSTER_QUEUE_DEFAULT,
        .logits_rows_max = logits_rows < 1          ? 1
                           : logits_rows < rows_max ? (uint32_t)logits_rows
                                                    : rows_max,
        .eos_count = arch->eos_count,
        .eos_ids = arch->eos_ids,
        .epoch = cluster->epoch,
    };

    if (config.draft_mode == DRAFT_LAYER && placement->draft_layer_count == 0) {
        config.draft_mode = DRAFT_NONE;
    }
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        member_counts[i] = placement->stages[i].member_count;
    }
    if (cluster->scheduler == NULL) {
        cluster->scheduler = scheduler_create(&config);
    } else {
        scheduler_resume(cluster->scheduler, &config, now_ns);
        sequences_deliver(cluster, "the workers that are left cannot hold a context of its length",
                          now_ns);
    }
    mem_free(member_counts);
}

/* Those who asked to leave and have no seat any more. */
static void leaving_release(struct cluster *cluster, int64_t now_ns)
{
    struct message drain = {.kind = MESSAGE_DRAIN};

    for (uint32_t i = cluster->member_count; i-- > 0;) {
        struct member *member = &cluster->members[i];

        if (member->leaving && !member->seated &&
            membership_send(cluster, member, &drain, now_ns)) {
            membership_lose(cluster, member, "it left", now_ns);
        }
    }
}

void epoch_ready(struct cluster *cluster, struct member *member,
                 const struct ready_message *message, int64_t now_ns)
{
    struct message start = {.kind = MESSAGE_START, .start_epoch = cluster->epoch};

    if (message->epoch != cluster->epoch || member->phase != MEMBER_CONNECTING) {
        return;
    }
    link_reports_store(member, message);
    member->phase = MEMBER_READY;
    if (!all_are(cluster, MEMBER_READY) || !broadcast(cluster, &start, now_ns)) {
        return;
    }
    scheduler_start(cluster, now_ns);
    cluster->epoch_start_ns = now_ns;
    cluster->served_once = true;
    epoch_set_state(cluster, cluster->draining ? CLUSTER_DRAINING : CLUSTER_SERVING, now_ns);
    leaving_release(cluster, now_ns);
}

/* --- deadlines --- */

static void load_check(struct cluster *cluster, int64_t now_ns)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];
        char name[128], why[300];

        if (member->seated && member->phase == MEMBER_LOADING &&
            now_ns - member->progress_ns > LOAD_STALL_NS) {
            (void)snprintf(
                why, sizeof(why), "%s has not loaded a byte for %d s: %" PRIu64 " of %" PRIu64,
                membership_name(member, name, sizeof(name)), (int)(LOAD_STALL_NS / NS_PER_S),
                member->load_done_bytes, member->load_total_bytes);
            epoch_refuse(cluster, member, why, now_ns);
            return;
        }
    }
}

static void connect_check(struct cluster *cluster, int64_t now_ns)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];
        char name[128], why[200];

        if (member->seated && member->phase != MEMBER_READY) {
            (void)snprintf(why, sizeof(why), "%s could not connect its links within %d s",
                           membership_name(member, name, sizeof(name)),
                           (int)(CONNECT_TIMEOUT_NS / NS_PER_S));
            epoch_refuse(cluster, member, why, now_ns);
            return;
        }
    }
}

/* A step is overdue: the earliest stage that has not answered is the one to name. */
static void overdue_abandon(struct cluster *cluster, uint64_t step, int64_t now_ns)
{
    const struct member *late = NULL;
    char name[128], why[240];

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        if (member->seated && member->next_step <= step &&
            (late == NULL || member->seat.stage < late->seat.stage)) {
            late = member;
        }
    }
    (void)snprintf(why, sizeof(why), "%s did not answer step %" PRIu64 " in time",
                   late == NULL ? "a worker" : membership_name(late, name, sizeof(name)), step);
    cluster->epoch_failures++;
    epoch_abandon(cluster, why, now_ns);
}

/* A worker asked to leave: another epoch does without it. Where none can, it goes when its
 * sequences have ended, or have had their time. */
static void leaving_check(struct cluster *cluster, int64_t now_ns)
{
    struct message drain = {.kind = MESSAGE_DRAIN};
    struct scheduler_stats stats;

    scheduler_stats(cluster->scheduler, &stats);
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];
        bool ends =
            stats.waiting + stats.running == 0 || now_ns - member->leave_ns > LEAVE_TIMEOUT_NS;

        if (!member->seated || !member->leaving) {
            continue;
        }
        if (!member->needed) {
            epoch_renew(cluster, "a worker leaves", now_ns);
            return;
        }
        if (ends) {
            if (membership_send(cluster, member, &drain, now_ns)) {
                membership_lose(cluster, member, "it left", now_ns);
            }
            return;
        }
    }
}

/* Workers that have joined are used when the layout lacks some, or takes as many as there are. */
static void growth_check(struct cluster *cluster, int64_t now_ns)
{
    bool settled = true;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        settled &= member->seated || now_ns - member->join_ns >= GROW_NS;
    }
    if (settled && seats_wanted(cluster, now_ns) > cluster->seats_offered) {
        epoch_renew(cluster, "workers have joined", now_ns);
    }
}

static void serving_tick(struct cluster *cluster, int64_t now_ns)
{
    struct error err;
    uint64_t step;

    if (scheduler_overdue(cluster->scheduler, now_ns, &step)) {
        if (!retry_overdue(cluster, step, now_ns, &err)) {
            overdue_abandon(cluster, step, now_ns);
        }
        return;
    }
    leaving_check(cluster, now_ns);
    if (cluster->state == CLUSTER_SERVING) {
        growth_check(cluster, now_ns);
    }
}

void epoch_tick(struct cluster *cluster, int64_t now_ns)
{
    int64_t age_ns = now_ns - cluster->state_since_ns;

    switch (cluster->state) {
    case CLUSTER_GATHERING:
        if (cluster->local != NULL && !cluster->served_once && cluster->config.remote_count == 0 &&
            now_ns - cluster->start_ns > GATHER_TIMEOUT_NS) {
            epoch_fail_cluster(cluster, now_ns, "%u of %u local workers registered within %d s",
                               membership_usable_count(cluster, now_ns), cluster->worker_wanted,
                               (int)(GATHER_TIMEOUT_NS / NS_PER_S));
        } else {
            epoch_try_begin(cluster, now_ns);
        }
        break;
    case CLUSTER_LOADING:
        load_check(cluster, now_ns);
        break;
    case CLUSTER_CONNECTING:
        if (age_ns > CONNECT_TIMEOUT_NS) {
            connect_check(cluster, now_ns);
        }
        break;
    case CLUSTER_SERVING:
    case CLUSTER_DRAINING:
        if (cluster->scheduler != NULL) {
            serving_tick(cluster, now_ns);
        }
        break;
    case CLUSTER_FAILED:
        break;
    }
}
