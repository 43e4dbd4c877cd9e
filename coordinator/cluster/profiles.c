/* profiles.c - where the workers' time went.
 *
 * Each worker counts its own operations; on request they are put together with what the coordinator
 * knows about the workers. One request at a time: a second one is refused. Whoever asked waits, so
 * a request always ends: with the last answer, with the epoch, or with the time for it.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/mem.h"

#include <string.h>

static void finish(struct cluster *cluster)
{
    struct mail *mail = cluster->profile_mail;

    cluster->profile_mail = NULL;
    (void)sem_post(&mail->answered); /* the mail may be gone from here on */
}

static void fail(struct cluster *cluster, const char *why)
{
    struct mail *mail = cluster->profile_mail;

    mail->profile = NULL;
    error_set(mail->err, ERROR_PEER, "profile: %s", why);
    finish(cluster);
}

/* Everything but the records. */
static struct profile_worker worker_of(const struct cluster *cluster, const struct member *member,
                                       struct arena *arena)
{
    const struct placement_stage *stage = &cluster->placement->stages[member->seat.stage];

    return (struct profile_worker){.worker = member->id,
                                   .host = arena_strdup(arena, member->host),
                                   .cpu = arena_strdup(arena, member->cpu),
                                   .thread_count = member->thread_count,
                                   .stage = member->seat.stage,
                                   .member = member->seat.member,
                                   .layer_begin = stage->layer_begin,
                                   .layer_end = stage->layer_end,
                                   .memory_bytes = member->limit_bytes,
                                   .ledger_bytes = member->ledger_bytes,
                                   .weight_bytes = member->share.weight_bytes,
                                   .kv_bytes = member->share.kv_bytes,
                                   .limits = member->limits};
}

static struct profile *profile_begin(const struct cluster *cluster, struct arena *arena)
{
    const struct catalog *catalog = cluster->config.catalog;
    struct profile *profile = arena_new(arena, struct profile);

    *profile = (struct profile){
        .model = arena_strdup(arena, cluster->model_path),
        .model_hash = arena_strdup(arena, cluster->model_hash),
        .architecture = arena_strdup(arena, catalog->arch.name),
        .layer_count = catalog->arch.layer_count,
        .expert_count = catalog->arch.router.expert_count,
        .numerics_id = arena_strdup(arena, cluster->placement->numerics_id),
        .workers = arena_new_array(arena, struct profile_worker,
                                   placement_worker_count(cluster->placement)),
    };
    return profile;
}

void profiles_ask(struct cluster *cluster, struct mail *mail, int64_t now_ns)
{
    struct message ask = {.kind = MESSAGE_PROFILE_ASK};
    bool serves = cluster->state == CLUSTER_SERVING || cluster->state == CLUSTER_DRAINING;

    mail->profile = NULL;
    if (cluster->profile_mail != NULL || !serves) {
        error_set(mail->err, ERROR_PEER, "profile: %s",
                  serves ? "one is being made" : "the cluster does not serve");
        (void)sem_post(&mail->answered);
        return;
    }
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        if (member->seated && member->protocol_minor < PROTOCOL_MINOR_PROFILES) {
            error_set(mail->err, ERROR_PEER, "profile: worker %u speaks protocol %u.%u, without it",
                      member->id, PROTOCOL_MAJOR, member->protocol_minor);
            (void)sem_post(&mail->answered);
            return;
        }
    }
    cluster->profile_mail = mail;
    cluster->profile_until_ns = now_ns + PROFILE_TIMEOUT_NS;
    cluster->profile_missing = placement_worker_count(cluster->placement);
    mail->profile = profile_begin(cluster, mail->arena);
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].seated &&
            !membership_send(cluster, &cluster->members[i], &ask, now_ns)) {
            return; /* the epoch is over, and the request with it */
        }
    }
}

/* Records of layers that the worker does not have would name others' memory in readers. */
static bool records_check(const struct cluster *cluster, const struct profile_message *message)
{
    for (uint32_t i = 0; i < message->record_count; i++) {
        uint32_t layer = message->records[i].layer;

        if (layer != OPERATION_NO_LAYER && layer > cluster->config.catalog->arch.layer_count) {
            return false;
        }
    }
    return true;
}

static bool goes_before(const struct profile_worker *a, const struct profile_worker *b)
{
    return a->stage != b->stage ? a->stage < b->stage : a->member < b->member;
}

static void worker_add(struct profile *profile, const struct profile_worker *worker)
{
    uint32_t at = profile->worker_count++;

    while (at > 0 && goes_before(worker, &profile->workers[at - 1])) {
        profile->workers[at] = profile->workers[at - 1];
        at--;
    }
    profile->workers[at] = *worker;
}

void profiles_take(struct cluster *cluster, const struct member *member,
                   const struct profile_message *message)
{
    struct mail *mail = cluster->profile_mail;
    struct profile_worker worker;

    if (mail == NULL || !member->seated || message->epoch != cluster->epoch) {
        return; /* nobody waits any more */
    }
    if (!records_check(cluster, message)) {
        fail(cluster, "a worker counted a layer that the model does not have");
        return;
    }
    for (uint32_t i = 0; i < mail->profile->worker_count; i++) {
        if (mail->profile->workers[i].worker == member->id) {
            return; /* it has answered */
        }
    }
    worker = worker_of(cluster, member, mail->arena);
    worker.record_count = message->record_count;
    worker.records = arena_new_array(mail->arena, struct operation_record, message->record_count);
    memcpy(worker.records, message->records, message->record_count * sizeof(*worker.records));
    worker_add(mail->profile, &worker);
    cluster->profile_missing--;
    if (cluster->profile_missing == 0) {
        finish(cluster);
    }
}

void profiles_tick(struct cluster *cluster, int64_t now_ns)
{
    if (cluster->profile_mail != NULL && now_ns >= cluster->profile_until_ns) {
        fail(cluster, "a worker does not answer");
    }
}

void profiles_abandon(struct cluster *cluster, const char *why)
{
    if (cluster->profile_mail != NULL) {
        fail(cluster, why);
    }
}
