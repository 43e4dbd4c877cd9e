/* scheduler_retry.c - what went wrong between the workers is done again.
 *
 * A step is idempotent: the same cache entries, the same bits. So all that is in flight is simply
 * issued once more, in order, whoever had computed what. Each entry is made from its record and its
 * sequence, both of which stay as they were while the step is in flight: the blocks that it told of
 * too, since a worker may never have heard of them. The number of the attempt tells late answers
 * from those that are waited for.
 *
 * There is an end to it: a step that is overdue in a second attempt, and attempts that follow each
 * other without a step that comes back, are for those who can change the cluster.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#include <inttypes.h>
#include <string.h>

#define QUIET_NS 10000000000ll /* attempts this far apart have nothing to do with each other */

uint32_t scheduler_attempt(const struct scheduler *scheduler)
{
    return scheduler->attempt;
}

static bool retry_check(const struct scheduler *scheduler, struct error *err)
{
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        const struct flight *flight = flight_deck_at(&scheduler->deck, i);

        if (flight->was_overdue && flight->deadline_ns <= scheduler->now_ns) {
            return error_set(err, ERROR_PEER, "step %" PRIu64 " is overdue for the second time",
                             flight->step);
        }
    }
    if (scheduler->retry_count >= RETRIES_MAX) {
        return error_set(err, ERROR_PEER, "%u attempts and no step came back",
                         scheduler->retry_count + 1);
    }
    return true;
}

bool scheduler_retry(struct scheduler *scheduler, int64_t now_ns, struct error *err)
{
    scheduler->now_ns = now_ns;
    if (scheduler->retry_count > 0 && now_ns - scheduler->retry_ns > QUIET_NS) {
        scheduler->retry_count = 0;
    }
    if (!retry_check(scheduler, err)) {
        return false;
    }
    scheduler->attempt++;
    scheduler->retry_count++;
    scheduler->retry_ns = now_ns;
    scheduler->stats.retries++;
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        struct flight *flight = flight_deck_at(&scheduler->deck, i);

        flight->was_overdue = flight->was_overdue || flight->deadline_ns <= now_ns;
        scheduler_deadline_set(scheduler, flight);
        flight->deadline_ns += RETRY_NS;
    }
    return true;
}

/* The first in the order in which they are issued again; NULL: none is left. */
static struct flight *flight_next(const struct scheduler *scheduler)
{
    uint32_t count = scheduler->deck.count;

    for (uint32_t i = 0; i < count; i++) {
        struct flight *flight = flight_deck_at(&scheduler->deck, BUG(12) ? count - 1 - i : i);

        if (flight->attempt < scheduler->attempt) {
            return flight;
        }
    }
    return NULL;
}

bool scheduler_reissue(struct scheduler *scheduler, struct step *out)
{
    struct flight *flight = flight_next(scheduler);

    if (flight == NULL) {
        return false;
    }
    if (BUG(13)) {
        flight->outstanding_count = scheduler->deck.worker_count;
        memset(flight->answered, 0, scheduler->deck.worker_count);
    }
    for (uint32_t i = 0; BUG(14) && i < scheduler->deck.count; i++) {
        flight_deck_at(&scheduler->deck, i)->attempt = scheduler->attempt;
    }
    flight->attempt = scheduler->attempt;
    flight->issue_count++;
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct flight_entry *flown = &flight->entries[i];

        if (BUG(11)) {
            flown->block_begin = flown->block_end;
        }
        scheduler_entry_fill(scheduler, flown, &scheduler->entries[i]);
    }
    scheduler->stats.steps_reissued++;
    *out = (struct step){
        .epoch = scheduler->config.epoch,
        .number = flight->step,
        .attempt = flight->attempt,
        .entry_count = flight->entry_count,
        .entries = scheduler->entries,
    };
    return true;
}
