/* retry.c - suspicion before death: what is in flight is tried again over fresh links.
 *
 * A link that broke, a frame that was damaged and a step that does not come back are no reason to
 * end an epoch: the workers still hold weights and caches, and a step computed again gives the same
 * bits. So the workers are told that a further attempt begins and which links to open anew, and the
 * scheduler issues the steps in flight once more. Both ends of a link report its loss, and late;
 * what was opened anew since then is remembered, so that one loss makes one attempt. When a second
 * attempt fails, too, the epoch ends (deploy/docs/adr/0005-attempts.md).
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <inttypes.h>

#define PAIRS_MAX 1024 /* then all links are opened anew, and the pairs forgotten */

/* Of the current epoch. */
static struct retry *retry_of(struct cluster *cluster)
{
    struct retry *retry = &cluster->retry;

    if (retry->epoch != cluster->epoch) {
        retry->epoch = cluster->epoch;
        retry->all_attempt = 0;
        retry->pair_count = 0;
    }
    return retry;
}

static struct retry_pair *pair_find(struct retry *retry, uint32_t low, uint32_t high)
{
    for (uint32_t i = 0; i < retry->pair_count; i++) {
        if (retry->pairs[i].low == low && retry->pairs[i].high == high) {
            return &retry->pairs[i];
        }
    }
    return NULL;
}

static void pair_note(struct retry *retry, uint32_t low, uint32_t high, uint32_t attempt)
{
    struct retry_pair *pair = pair_find(retry, low, high);

    if (pair == NULL) {
        retry->pairs = mem_resize(retry->pairs, retry->pair_count + 1, sizeof(*retry->pairs));
        pair = &retry->pairs[retry->pair_count++];
    }
    *pair = (struct retry_pair){.low = low, .high = high, .attempt = attempt};
}

/* The attempt in which the pair's link was opened last. */
static uint32_t pair_attempt(struct retry *retry, uint32_t low, uint32_t high)
{
    const struct retry_pair *pair = pair_find(retry, low, high);

    return pair != NULL && pair->attempt > retry->all_attempt ? pair->attempt : retry->all_attempt;
}

static bool workers_know_attempts(const struct cluster *cluster, struct error *err)
{
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        if (member->seated && member->protocol_minor < PROTOCOL_MINOR_ATTEMPTS) {
            return error_set(err, ERROR_PEER,
                             "worker %u speaks protocol %d.%u, which has no further attempts",
                             member->id, PROTOCOL_MAJOR, member->protocol_minor);
        }
    }
    return true;
}

/* The steps follow in this turn. A member that can't be told is lost, and the epoch with it. */
static void attempt_tell(struct cluster *cluster, const struct attempt_message *attempt,
                         int64_t now_ns)
{
    struct message message = {.kind = MESSAGE_ATTEMPT, .attempt = *attempt};
    uint64_t epoch = cluster->epoch;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i].seated &&
            (!membership_send(cluster, &cluster->members[i], &message, now_ns) ||
             cluster->epoch != epoch)) {
            return;
        }
    }
}

bool retry_link_lost(struct cluster *cluster, struct member *member,
                     const struct link_lost_message *message, int64_t now_ns, struct error *err)
{
    struct retry *retry = retry_of(cluster);
    uint32_t pair[] = {member->id < message->peer ? member->id : message->peer,
                       member->id < message->peer ? message->peer : member->id};
    struct attempt_message attempt = {.epoch = cluster->epoch, .pair_count = 1, .pairs = pair};
    char name[128];

    if (message->epoch != cluster->epoch || !member->seated) {
        return true; /* of an epoch that is over */
    }
    if (cluster->state != CLUSTER_SERVING && cluster->state != CLUSTER_DRAINING) {
        return error_set(err, ERROR_PEER, "%.200s", message->text);
    }
    if (message->attempt < pair_attempt(retry, pair[0], pair[1])) {
        return true; /* the other end told it, or a step was overdue */
    }
    if (!workers_know_attempts(cluster, err) || !scheduler_retry(cluster->scheduler, now_ns, err)) {
        return error_wrap(err, "%.150s", message->text);
    }
    attempt.attempt = scheduler_attempt(cluster->scheduler);
    attempt.all_links = retry->pair_count == PAIRS_MAX;
    if (attempt.all_links) {
        retry->pair_count = 0;
        retry->all_attempt = attempt.attempt;
    } else {
        pair_note(retry, pair[0], pair[1], attempt.attempt);
    }
    log_warn("%s lost a link, it is opened anew: attempt=%u reason=%s",
             membership_name(member, name, sizeof(name)), attempt.attempt, message->text);
    attempt_tell(cluster, &attempt, now_ns);
    return true;
}

bool retry_overdue(struct cluster *cluster, uint64_t step, int64_t now_ns, struct error *err)
{
    struct retry *retry = retry_of(cluster);
    struct attempt_message attempt = {.epoch = cluster->epoch, .all_links = true};

    if (!workers_know_attempts(cluster, err) || !scheduler_retry(cluster->scheduler, now_ns, err)) {
        return false;
    }
    attempt.attempt = scheduler_attempt(cluster->scheduler);
    retry->pair_count = 0;
    retry->all_attempt = attempt.attempt;
    log_warn("step %" PRIu64 " is overdue, all links are opened anew: attempt=%u", step,
             attempt.attempt);
    attempt_tell(cluster, &attempt, now_ns);
    return true;
}
