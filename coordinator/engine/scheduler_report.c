/* scheduler_report.c - what workers answer, and what happens when they do not.
 *
 * A report is checked as a whole before it has any effect. A step is complete when every worker has
 * answered it; only then are its samples applied and its blocks possibly freed, because until then
 * some stage may still read or write them.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#include <inttypes.h>

static bool token_ends(const struct scheduler *scheduler, const struct sequence *sequence,
                       uint32_t token)
{
    for (uint32_t i = 0; i < scheduler->config.eos_count && !sequence->ignore_eos; i++) {
        if (scheduler->config.eos_ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* The sequence has its next token: it goes on or has come to its end. */
static void sample_apply(struct scheduler *scheduler, uint32_t index, uint32_t token)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];

    ASSERT(sequence->state == SEQUENCE_IN_STEP);
    if (token_ends(scheduler, sequence, token)) {
        sequence->state = SEQUENCE_DRAINING;
        sequence->reason = FINISH_STOP;
        lane->decoding_count--;
        return;
    }
    scheduler_emit(scheduler, &(struct outcome){
                                  .kind = OUTCOME_TOKEN, .sequence = sequence->id, .token = token});
    scheduler->stats.generated_tokens++;
    sequence->last_token = token;
    sequence->generated++;
    if (sequence->generated == sequence->tokens_max) {
        sequence->state = SEQUENCE_DRAINING;
        sequence->reason = FINISH_LENGTH;
        lane->decoding_count--;
        return;
    }
    sequence->state = SEQUENCE_READY;
    sequence_list_append(&scheduler->pool, &lane->ready, index);
}

static void entry_complete(struct scheduler *scheduler, const struct flight_entry *entry)
{
    struct sequence *sequence = &scheduler->pool.sequences[entry->sequence];

    sequence->steps_in_flight--;
    if (entry->sampled && sequence->state != SEQUENCE_LEAVING) {
        sample_apply(scheduler, entry->sequence, entry->token);
    }
    if (sequence->steps_in_flight > 0) {
        return;
    }
    if (sequence->state == SEQUENCE_DRAINING) {
        scheduler_finish(scheduler, entry->sequence, sequence->reason);
        scheduler_release(scheduler, entry->sequence);
    } else if (sequence->state == SEQUENCE_LEAVING) {
        scheduler_release(scheduler, entry->sequence);
    }
}

static struct step_load flight_load(const struct flight *flight)
{
    struct step_load load = {.rows = flight->row_count, .sampled = flight->sample_wanted_count};

    for (uint32_t i = 0; i < flight->entry_count; i++) {
        uint64_t begin = flight->entries[i].position;
        uint64_t count = flight->entries[i].token_count;

        load.attended += count * begin + count * (count + 1) / 2;
    }
    return load;
}

static void flight_complete(struct scheduler *scheduler, uint32_t place, int64_t now_ns)
{
    const struct flight *flight = flight_deck_at(&scheduler->deck, place);
    struct step_load load = flight_load(flight);

    pace_measure(&scheduler->pace, flight->issued_ns, now_ns, &load, flight->compute_ns);
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        entry_complete(scheduler, &flight->entries[i]);
    }
    flight_deck_remove(&scheduler->deck, place);
}

/* Takes back the first `count` samples of a report that turned out to be wrong. */
static void samples_undo(struct flight *flight, const struct step_report *report, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        flight->entries[report->samples[i].entry].sampled = false;
    }
    flight->sample_count -= count;
}

static bool samples_note(struct flight *flight, const struct step_report *report, struct error *err)
{
    for (uint32_t i = 0; i < report->sample_count; i++) {
        const struct step_sample *sample = &report->samples[i];

        if (sample->entry >= flight->entry_count || !flight->entries[sample->entry].wants_sample ||
            flight->entries[sample->entry].sampled) {
            samples_undo(flight, report, i);
            return error_set(err, ERROR_PEER,
                             "step %" PRIu64 ": a sample for entry %u, which wants none",
                             flight->step, sample->entry);
        }
        flight->entries[sample->entry].sampled = true;
        flight->entries[sample->entry].token = sample->token;
        flight->sample_count++;
    }
    return true;
}

static bool samples_take(const struct scheduler *scheduler, struct flight *flight,
                         const struct step_report *report, struct error *err)
{
    bool last = report->stage + 1 == scheduler->config.stage_count;

    if (!last && report->sample_count > 0) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 ": samples from stage %u of %u",
                         flight->step, report->stage, scheduler->config.stage_count);
    }
    if (!samples_note(flight, report, err)) {
        return false;
    }
    if (last && flight->outstanding_last == 1 &&
        flight->sample_count < flight->sample_wanted_count) {
        error_set(err, ERROR_PEER, "step %" PRIu64 ": %u samples of %u", flight->step,
                  flight->sample_count, flight->sample_wanted_count);
        samples_undo(flight, report, report->sample_count);
        return false;
    }
    return true;
}

/* The worker's index, stage after stage; false if there is no such seat. */
static bool seat_index(const struct scheduler *scheduler, const struct step_report *report,
                       uint32_t *out)
{
    uint32_t index = report->member;

    if (report->stage >= scheduler->config.stage_count ||
        report->member >= scheduler->member_counts[report->stage]) {
        return false;
    }
    for (uint32_t stage = 0; stage < report->stage; stage++) {
        index += scheduler->member_counts[stage];
    }
    *out = index;
    return true;
}

bool scheduler_report(struct scheduler *scheduler, const struct step_report *report, int64_t now_ns,
                      struct error *err)
{
    uint32_t place = flight_deck_find(&scheduler->deck, report->step);
    struct flight *flight;
    uint32_t worker;

    if (!seat_index(scheduler, report, &worker)) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 ": no seat at stage %u member %u",
                         report->step, report->stage, report->member);
    }
    if (place == scheduler->deck.count ||
        flight_deck_at(&scheduler->deck, place)->answered[worker]) {
        scheduler->stats.ignored_reports++;
        return true;
    }
    flight = flight_deck_at(&scheduler->deck, place);
    if (!samples_take(scheduler, flight, report, err)) {
        return false;
    }
    flight->answered[worker] = true;
    flight->outstanding_count--;
    flight->outstanding_last -= report->stage + 1 == scheduler->config.stage_count;
    if (report->compute_ns > flight->compute_ns[report->stage]) {
        flight->compute_ns[report->stage] = report->compute_ns;
    }
    if (flight->outstanding_count == 0) {
        flight_complete(scheduler, place, now_ns);
    }
    return true;
}

int64_t scheduler_deadline_ns(const struct scheduler *scheduler)
{
    int64_t deadline_ns = INT64_MAX;

    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        const struct flight *flight = flight_deck_at(&scheduler->deck, i);

        deadline_ns = flight->deadline_ns < deadline_ns ? flight->deadline_ns : deadline_ns;
    }
    return deadline_ns;
}

bool scheduler_overdue(const struct scheduler *scheduler, int64_t now_ns, uint64_t *step)
{
    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        const struct flight *flight = flight_deck_at(&scheduler->deck, i);

        if (flight->deadline_ns <= now_ns) {
            *step = flight->step;
            return true;
        }
    }
    return false;
}

void scheduler_fail_all(struct scheduler *scheduler, int64_t now_ns)
{
    (void)now_ns;
    flight_deck_clear(&scheduler->deck);
    for (uint32_t index = 0; index < scheduler->pool.capacity; index++) {
        struct sequence *sequence = &scheduler->pool.sequences[index];
        bool waiting = sequence->state == SEQUENCE_WAITING;

        if (sequence->state == SEQUENCE_FREE) {
            continue;
        }
        scheduler_unlist(scheduler, index);
        if (sequence->state != SEQUENCE_LEAVING) {
            scheduler_finish(scheduler, index, FINISH_FAILED);
        }
        sequence->steps_in_flight = 0;
        if (waiting) {
            sequence_pool_remove(&scheduler->pool, index);
        } else {
            scheduler_release(scheduler, index);
        }
    }
}
