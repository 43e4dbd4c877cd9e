/* membership.c - who is in the cluster, and how we know.
 *
 * A worker is a member from its accepted registration until its connection breaks, it says nothing
 * for ten seconds, it leaves, or it fails. Local workers get the numbers of their launch, so that
 * the same command gives the same seats; remote ones the next free number, used once. Members
 * beyond what the layout needs wait as spares for the next epoch.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

struct member *membership_by_connection(struct cluster *cluster, uint64_t connection)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].connection == connection) {
            return &cluster->members[i];
        }
    }
    return NULL;
}

struct member *membership_by_id(struct cluster *cluster, uint32_t id)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].id == id) {
            return &cluster->members[i];
        }
    }
    return NULL;
}

bool membership_usable(const struct member *member, int64_t now_ns)
{
    return (!member->leaving || member->needed) && now_ns >= member->benched_until_ns;
}

uint32_t membership_usable_count(const struct cluster *cluster, int64_t now_ns)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        count += membership_usable(&cluster->members[i], now_ns);
    }
    return count;
}

uint32_t membership_island(const struct cluster *cluster, const struct member *member)
{
    uint32_t first = member->id;

    for (uint32_t i = 0; member->world_id != 0 && i < cluster->member_count; i++) {
        const struct member *other = &cluster->members[i];

        if (other->world_id == member->world_id && other->id < first) {
            first = other->id;
        }
    }
    return first;
}

/* The first seat that the member's island held, so that workers which a former coordinator has
 * seated keep their places, whoever registers first. */
static uint64_t island_seat(const struct cluster *cluster, const struct member *member)
{
    uint64_t first = member->held_seat;

    for (uint32_t i = 0; member->world_id != 0 && i < cluster->member_count; i++) {
        const struct member *other = &cluster->members[i];

        if (other->world_id == member->world_id && other->held_seat < first) {
            first = other->held_seat;
        }
    }
    return first;
}

static bool member_goes_before(const struct cluster *cluster, const struct member *a,
                               const struct member *b)
{
    uint64_t seat_a = island_seat(cluster, a), seat_b = island_seat(cluster, b);
    uint32_t island_a = membership_island(cluster, a);
    uint32_t island_b = membership_island(cluster, b);

    if (seat_a != seat_b) {
        return seat_a < seat_b;
    }
    if (island_a != island_b) {
        return island_a < island_b;
    }
    return a->world_rank != b->world_rank ? a->world_rank < b->world_rank : a->id < b->id;
}

uint32_t membership_order(struct cluster *cluster, int64_t now_ns, struct member **out,
                          uint32_t capacity)
{
    struct member **order = mem_new_array(struct member *, cluster->member_count);
    uint32_t count = 0;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        uint32_t at = count;

        if (!membership_usable(&cluster->members[i], now_ns)) {
            continue;
        }
        while (at > 0 && member_goes_before(cluster, &cluster->members[i], order[at - 1])) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = &cluster->members[i];
        count++;
    }
    count = count < capacity ? count : capacity;
    memcpy(out, order, count * sizeof(*out));
    mem_free(order);
    return count;
}

const char *membership_name(const struct member *member, char *text, size_t bytes)
{
    if (member->seated) {
        (void)snprintf(text, bytes, "worker %u (%s, stage %u)", member->id, member->host,
                       member->seat.stage);
    } else {
        (void)snprintf(text, bytes, "worker %u (%s)", member->id, member->host);
    }
    return text;
}

/* --- registration --- */

static bool refusal(char *text, size_t bytes, const char *format, ...) FORMAT_PRINTF(3, 4);
static bool refusal(char *text, size_t bytes, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, bytes, format, args);
    va_end(args);
    return false;
}

/* Equal programs compute equal bits: everything that could differ is compared here. */
static bool versions_match(const struct cluster *cluster, const struct register_message *message,
                           char *text, size_t bytes)
{
    enum numerics fast;

    if (message->protocol_major != PROTOCOL_MAJOR) {
        return refusal(text, bytes,
                       "protocol %u.%u of the worker does not fit protocol %u.%u of the "
                       "coordinator: install the same version of shoal on both",
                       message->protocol_major, message->protocol_minor, PROTOCOL_MAJOR,
                       PROTOCOL_MINOR);
    }
    if (strcmp(message->build, SHOAL_VERSION) != 0) {
        return refusal(text, bytes, "build %.40s of the worker differs from %s of the coordinator",
                       message->build, SHOAL_VERSION);
    }
    if (!numerics_find(message->fast_numerics, &fast)) {
        return refusal(text, bytes, "fast numerics \"%.40s\" of the worker are unknown",
                       message->fast_numerics);
    }
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *other = &cluster->members[i];

        if (other->kernels_version != message->kernels_version) {
            return refusal(
                text, bytes, "kernels version %u of the worker differs from %u of worker %u (%s)",
                message->kernels_version, other->kernels_version, other->id, other->host);
        }
    }
    return true;
}

static bool place_find(struct cluster *cluster, const struct register_message *message,
                       uint32_t *id, char *text, size_t bytes)
{
    if (cluster->member_count >= MEMBERS_MAX) {
        return refusal(text, bytes, "the cluster has its %d workers already", MEMBERS_MAX);
    }
    if (message->launch_token[0] != '\0') {
        if (cluster->local == NULL || !local_workers_identify(cluster->local, message->launch_token,
                                                              message->world_rank, id)) {
            return refusal(text, bytes, "this coordinator did not start the worker (launch token)");
        }
        if (membership_by_id(cluster, *id) != NULL) {
            return refusal(text, bytes, "worker %u is registered already", *id);
        }
        return true;
    }
    if (cluster->config.remote_count == 0) {
        return refusal(text, bytes,
                       "this coordinator takes only the workers that it started itself (--workers "
                       "N makes it wait for others)");
    }
    *id = cluster->next_remote_id++;
    return true;
}

static void refuse(struct cluster *cluster, struct control_peer from, const char *host,
                   const char *why)
{
    struct message message = {
        .kind = MESSAGE_ERROR,
        .error = {.code = ERROR_PEER, .step = UINT64_MAX, .fatal = true, .text = why}};
    struct error err;

    log_write(atomic_load(&cluster->stop_wish) ? LOG_DEBUG : LOG_WARN,
              "worker refused: host=%.60s reason=%s", host, why);
    if (control_server_send(cluster->server, from, &message, &err) != CONTROL_DONE) {
        control_server_drop(cluster->server, from);
    }
}

static void text_copy(char *out, size_t bytes, const char *text)
{
    (void)snprintf(out, bytes, "%s", text);
}

/* Keeps the array sorted by id. */
static struct member *member_insert(struct cluster *cluster, uint32_t id)
{
    uint32_t at = cluster->member_count;

    cluster->members =
        mem_resize(cluster->members, cluster->member_count + 1, sizeof(*cluster->members));
    while (at > 0 && cluster->members[at - 1].id > id) {
        cluster->members[at] = cluster->members[at - 1];
        at--;
    }
    cluster->member_count++;
    memset(&cluster->members[at], 0, sizeof(cluster->members[at]));
    cluster->members[at].id = id;
    return &cluster->members[at];
}

static uint32_t lower(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void member_fill(const struct cluster *cluster, struct member *member,
                        const struct register_message *message)
{
    bool holds = strcmp(message->held_model, cluster->model_hash) == 0;

    text_copy(member->host, sizeof(member->host), message->host);
    (void)snprintf(member->cpu, sizeof(member->cpu), "%s, %s", message->cpu_level,
                   message->cpu_name);
    text_copy(member->data_endpoint, sizeof(member->data_endpoint), message->data_endpoint);
    member->local = message->launch_token[0] != '\0';
    member->pid = message->pid;
    member->thread_count = message->thread_count;
    member->kernels_version = message->kernels_version;
    member->protocol_minor = message->protocol_minor;
    (void)numerics_find(message->fast_numerics, &member->fast_numerics); /* checked before */
    member->memory_bytes = message->memory_bytes;
    member->read_bytes_per_s = message->read_bytes_per_s > 1 ? message->read_bytes_per_s : 1;
    member->world_id = message->world_id;
    member->world_rank = message->world_rank;
    member->held_seat =
        holds ? (uint64_t)message->held_stage << 32 | message->held_member : UINT64_MAX;
}

void membership_register(struct cluster *cluster, struct control_peer from,
                         const struct register_message *message, int64_t now_ns)
{
    struct member *member = membership_by_connection(cluster, from.connection);
    struct message welcome = {
        .kind = MESSAGE_WELCOME,
        .welcome = {.protocol_major = PROTOCOL_MAJOR,
                    .protocol_minor = lower(message->protocol_minor, PROTOCOL_MINOR),
                    .heartbeat_ns = HEARTBEAT_NS}};
    char why[240];
    uint32_t id;

    if (member != NULL) {
        membership_lose(cluster, member, "it registered again", now_ns);
    }
    if (cluster->state == CLUSTER_FAILED) {
        refuse(cluster, from, message->host, cluster->problem);
        return;
    }
    if (!versions_match(cluster, message, why, sizeof(why)) ||
        !place_find(cluster, message, &id, why, sizeof(why))) {
        refuse(cluster, from, message->host, why);
        return;
    }
    member = member_insert(cluster, id);
    member_fill(cluster, member, message);
    member->connection = from.connection;
    member->heard_ns = now_ns;
    member->join_ns = now_ns;
    /* Its frames may still be under way: numbers are not used twice. */
    cluster->epoch_seen =
        message->last_epoch > cluster->epoch_seen ? message->last_epoch : cluster->epoch_seen;
    welcome.welcome.worker = id;
    log_info("worker %u joined: host=%s pid=%u cpu=%s threads=%u memory_bytes=%" PRIu64
             " read_bytes_per_s=%.3g held_bytes=%" PRIu64,
             id, member->host, member->pid, member->cpu, member->thread_count, member->memory_bytes,
             member->read_bytes_per_s, message->held_bytes);
    if (membership_send(cluster, member, &welcome, now_ns)) {
        epoch_try_begin(cluster, now_ns);
    }
}

/* --- life --- */

static void links_store(struct member *member, const struct heartbeat_message *message)
{
    for (uint32_t i = 0; i < message->link_count; i++) {
        const struct link_usage *usage = &message->links[i];
        struct cluster_link_status *link = NULL;

        for (uint32_t j = 0; j < member->link_count && link == NULL; j++) {
            link = member->links[j].peer == usage->peer ? &member->links[j] : NULL;
        }
        if (link == NULL) {
            if (member->link_count >= MEMBERS_MAX) {
                return;
            }
            member->links =
                mem_resize(member->links, member->link_count + 1, sizeof(*member->links));
            link = &member->links[member->link_count++];
            *link = (struct cluster_link_status){.peer = usage->peer};
        }
        text_copy(link->kind, sizeof(link->kind), usage->kind);
        link->frames_sent = usage->frames_sent;
        link->frames_received = usage->frames_received;
        link->bytes_sent = usage->bytes_sent;
        link->bytes_received = usage->bytes_received;
        link->crc_errors = usage->crc_errors;
        link->frames_dropped = usage->frames_dropped;
    }
}

void membership_clock(struct member *member, int64_t stamp_ns, int64_t now_ns)
{
    int64_t lag_ns = now_ns - stamp_ns;

    if (!member->local && (!member->clock_known || lag_ns < member->clock_lag_ns)) {
        member->clock_known = true;
        member->clock_lag_ns = lag_ns;
    }
}

void membership_heartbeat(struct cluster *cluster, struct member *member,
                          const struct heartbeat_message *message, int64_t now_ns)
{
    struct message answer = {.kind = MESSAGE_HEARTBEAT,
                             .heartbeat = {.sent_ns = now_ns, .epoch = cluster->epoch}};
    struct control_peer to = {member->connection};
    struct error err;
    int64_t interval_ns = message->sent_ns - member->beat_sent_ns;

    if (member->beat_sent_ns != 0 && interval_ns > 0) {
        double share = (double)(message->busy_ns - member->beat_busy_ns) / (double)interval_ns;

        member->busy_share_recent = share < 0 ? 0 : share > 1 ? 1 : share;
    }
    membership_clock(member, message->sent_ns, now_ns);
    member->beat_sent_ns = message->sent_ns;
    member->beat_busy_ns = message->busy_ns;
    member->resident_bytes = message->memory_bytes;
    if (message->epoch == cluster->epoch) {
        member->frames_dropped = message->frames_dropped;
        links_store(member, message);
    }
    /* A full queue: the next answer does as well. A broken connection is reported by receive. */
    (void)control_server_send(cluster->server, to, &answer, &err);
}

void membership_wants_to_leave(struct cluster *cluster, struct member *member, int64_t now_ns)
{
    char name[128];

    if (member->leaving) {
        return;
    }
    member->leaving = true;
    log_info("%s leaves%s", membership_name(member, name, sizeof(name)),
             member->seated ? ": its share moves to others first" : "");
    if (!member->seated) {
        struct message drain = {.kind = MESSAGE_DRAIN};

        if (membership_send(cluster, member, &drain, now_ns)) {
            membership_lose(cluster, member, "it left", now_ns);
        }
        return;
    }
    member->leave_ns = now_ns;
}

void membership_lose(struct cluster *cluster, struct member *member, const char *why,
                     int64_t now_ns)
{
    char name[128], problem[320];
    bool seated = member->seated;
    bool local = member->local;
    struct control_peer peer = {member->connection};
    uint32_t at = (uint32_t)(member - cluster->members);

    (void)snprintf(problem, sizeof(problem), "%s was lost: %s",
                   membership_name(member, name, sizeof(name)), why);
    log_write(atomic_load(&cluster->stop_wish) ? LOG_DEBUG : LOG_WARN, "%s", problem);
    control_server_drop(cluster->server, peer);
    mem_free(member->links);
    plan_holding_destroy(member->holding);
    cluster->member_count--;
    memmove(member, member + 1, (cluster->member_count - at) * sizeof(*member));
    cluster->status_stale = true;
    if (local && !cluster->served_once && cluster->config.remote_count == 0) {
        epoch_fail_cluster(cluster, now_ns, "%s before the cluster served", problem);
    } else if (seated) {
        epoch_abandon(cluster, problem, now_ns);
    } else if (cluster->state == CLUSTER_GATHERING) {
        epoch_describe_gathering(cluster, now_ns);
    }
}

bool membership_send(struct cluster *cluster, struct member *member, const struct message *message,
                     int64_t now_ns)
{
    struct control_peer to = {member->connection};
    struct error err;

    switch (control_server_send(cluster->server, to, message, &err)) {
    case CONTROL_DONE:
        return true;
    case CONTROL_AGAIN:
        membership_lose(cluster, member, "its control queue is full", now_ns);
        return false;
    case CONTROL_LOST:
        break;
    }
    membership_lose(cluster, member, "connection closed", now_ns);
    return false;
}

void membership_tick(struct cluster *cluster, int64_t now_ns)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct member *member = &cluster->members[i];
        char why[64];

        if (now_ns - member->heard_ns > HEARTBEAT_TIMEOUT_NS) {
            (void)snprintf(why, sizeof(why), "no heartbeat for %d s",
                           (int)((now_ns - member->heard_ns) / NS_PER_S));
            membership_lose(cluster, member, why, now_ns);
            return; /* the array moved; the next tick goes on */
        }
    }
}

void membership_destroy(struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        mem_free(cluster->members[i].links);
        plan_holding_destroy(cluster->members[i].holding);
    }
    mem_free(cluster->members);
    cluster->members = NULL;
    cluster->member_count = 0;
}
