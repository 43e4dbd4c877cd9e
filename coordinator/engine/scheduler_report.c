/* scheduler_report.c - what workers answer, and what happens when they do not.
 *
 * A report is checked as a whole before it has any effect. A step is complete when every worker has
 * answered it; only then are its samples applied and its blocks possibly freed, because until then
 * some stage may still read or write them.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#include <inttypes.h>
#include <string.h>

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

/* Nothing more is to be issued. */
static void sequence_drain(struct scheduler *scheduler, struct sequence *sequence,
                           enum finish_reason reason)
{
    if (sequence->state == SEQUENCE_IN_STEP) {
        lane_decode_end(&scheduler->lanes[sequence->lane], sequence);
    }
    sequence->state = SEQUENCE_DRAINING;
    sequence->reason = reason;
}

/* The sequence has its next token; false: it has come to its end. */
static bool token_apply(struct scheduler *scheduler, struct sequence *sequence, uint32_t token)
{
    if (token_ends(scheduler, sequence, token)) {
        sequence_drain(scheduler, sequence, FINISH_STOP);
        return false;
    }
    scheduler_emit(scheduler, &(struct outcome){
                                  .kind = OUTCOME_TOKEN, .sequence = sequence->id, .token = token});
    scheduler->stats.generated_tokens++;
    sequence_tokens_reserve(sequence, sequence->token_count + 1);
    sequence->tokens[sequence->token_count++] = token;
    if (sequence_generated(sequence) == sequence->tokens_max) {
        sequence_drain(scheduler, sequence, FINISH_LENGTH);
        return false;
    }
    return true;
}

/* Applies the samples that stand: the first, and each one whose forerunner stands and is what the
 * draft had guessed. Cache entries of rows behind the last one are void, so the next row is
 * computed there. */
static void samples_apply(struct scheduler *scheduler, const struct flight *flight,
                          const struct flight_entry *entry)
{
    struct sequence *sequence = &scheduler->pool.sequences[entry->sequence];
    const struct flight_sample *samples = &flight->samples[entry->sample_begin];
    uint32_t accepted = 0;
    bool goes_on;

    ASSERT(sequence->state == SEQUENCE_IN_STEP || sequence->state == SEQUENCE_YIELDING);
    for (;;) {
        /* Where the draft stands that the sample is compared with, and the sample will. */
        uint32_t draft = accepted < entry->draft_count ? sequence->tokens[sequence->token_count]
                                                       : STEP_TOKEN_NONE;

        goes_on = token_apply(scheduler, sequence, samples[accepted].token);
        if (accepted == entry->draft_count || (samples[accepted].token != draft && !BUG(4))) {
            break;
        }
        accepted++;
        if (!goes_on) {
            break;
        }
    }
    if (entry->draft_count > 0) {
        scheduler->stats.accepted += accepted;
        draft_policy_note(&scheduler->draft_policy, entry->draft_count, accepted);
        sequence->draft_count = 0;
    }
    if (goes_on && !BUG(3)) {
        sequence->position = sequence->token_count - 1;
    }
}

/* What the draft layer guesses becomes the sequence's next drafts. */
static void proposals_apply(const struct flight *flight, const struct flight_entry *entry,
                            uint32_t draft_max, struct sequence *sequence)
{
    uint32_t index = (uint32_t)(entry - flight->entries);

    sequence_tokens_reserve(sequence, sequence->token_count + entry->proposal_count);
    memcpy(&sequence->tokens[sequence->token_count], &flight->proposals[(size_t)index * draft_max],
           entry->proposal_count * sizeof(*flight->proposals));
    sequence->draft_count = entry->proposal_count;
}

/* For tests of what preemption must not change. */
static bool is_to_be_preempted(const struct scheduler *scheduler, const struct sequence *sequence)
{
    uint32_t interval = scheduler->config.preempt_tokens;

    return interval > 0 && sequence->token_count - sequence->admitted_count >= interval;
}

static void entry_complete(struct scheduler *scheduler, const struct flight *flight,
                           const struct flight_entry *entry)
{
    struct sequence *sequence = &scheduler->pool.sequences[entry->sequence];

    sequence->steps_in_flight--;
    sequence->losses = 0;
    if (entry->wants_sample && sequence->state != SEQUENCE_LEAVING) {
        samples_apply(scheduler, flight, entry);
        if (sequence->state == SEQUENCE_IN_STEP) {
            proposals_apply(flight, entry, scheduler->config.draft_max, sequence);
            sequence->state = SEQUENCE_READY;
            lane_ready_append(&scheduler->pool, &scheduler->lanes[sequence->lane], entry->sequence);
            if (is_to_be_preempted(scheduler, sequence)) {
                scheduler_preempt(scheduler, entry->sequence);
            }
        }
    }
    if (sequence->steps_in_flight > 0) {
        return;
    }
    if (sequence->state == SEQUENCE_DRAINING) {
        scheduler_finish(scheduler, entry->sequence, sequence->reason);
        scheduler_release(scheduler, entry->sequence);
    } else if (sequence->state == SEQUENCE_LEAVING) {
        scheduler_release(scheduler, entry->sequence);
    } else if (sequence->state == SEQUENCE_YIELDING) {
        scheduler_requeue(scheduler, entry->sequence);
    }
}

static void flight_complete(struct scheduler *scheduler, uint32_t place)
{
    const struct flight *flight = flight_deck_at(&scheduler->deck, place);

    if (flight->issue_count == 1) { /* else it tells of what went wrong */
        pace_measure(&scheduler->pace, flight->issued_ns, scheduler->now_ns, &flight->load,
                     flight->compute_ns);
    }
    scheduler->retry_count = 0;
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        entry_complete(scheduler, flight, &flight->entries[i]);
    }
    flight_deck_remove(&scheduler->deck, place);
}

static struct flight_sample *sample_place(const struct flight *flight,
                                          const struct step_sample *sample)
{
    const struct flight_entry *entry = &flight->entries[sample->entry];

    return &flight->samples[entry->sample_begin + sample->index];
}

/* Takes back the first `count` samples of a report that turned out to be wrong. */
static void samples_undo(struct flight *flight, const struct step_report *report, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        sample_place(flight, &report->samples[i])->known = false;
    }
    flight->sample_count -= count;
}

static bool samples_note(struct flight *flight, const struct step_report *report, struct error *err)
{
    for (uint32_t i = 0; i < report->sample_count; i++) {
        const struct step_sample *sample = &report->samples[i];

        if (sample->entry >= flight->entry_count || !flight->entries[sample->entry].wants_sample ||
            sample->index > flight->entries[sample->entry].draft_count ||
            sample_place(flight, sample)->known) {
            samples_undo(flight, report, i);
            return error_set(err, ERROR_PEER,
                             "step %" PRIu64 ": sample %u for entry %u, which does not want it",
                             flight->step, sample->index, sample->entry);
        }
        *sample_place(flight, sample) =
            (struct flight_sample){.known = true, .token = sample->token};
        flight->sample_count++;
    }
    return true;
}

static bool proposals_check(const struct flight *flight, const struct step_report *report,
                            struct error *err)
{
    for (uint32_t i = 0; i < report->proposal_count; i++) {
        const struct step_proposal *proposal = &report->proposals[i];

        if (proposal->entry >= flight->entry_count ||
            proposal->count > flight->entries[proposal->entry].propose_max) {
            return error_set(err, ERROR_PEER,
                             "step %" PRIu64
                             ": %u proposals for entry %u, which does not want them",
                             flight->step, proposal->count, proposal->entry);
        }
    }
    return true;
}

static void proposals_note(struct flight *flight, const struct step_report *report,
                           uint32_t draft_max)
{
    for (uint32_t i = 0; i < report->proposal_count; i++) {
        const struct step_proposal *proposal = &report->proposals[i];

        if (proposal->count > 0) {
            memcpy(&flight->proposals[(size_t)proposal->entry * draft_max], proposal->tokens,
                   proposal->count * sizeof(*proposal->tokens));
        }
        flight->entries[proposal->entry].proposal_count = proposal->count;
    }
}

static bool answers_take(const struct scheduler *scheduler, struct flight *flight,
                         const struct step_report *report, struct error *err)
{
    bool last = report->stage + 1 == scheduler->config.stage_count;

    if (!last && report->sample_count + report->proposal_count > 0) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 ": samples from stage %u of %u",
                         flight->step, report->stage, scheduler->config.stage_count);
    }
    if (!proposals_check(flight, report, err) || !samples_note(flight, report, err)) {
        return false;
    }
    if (last && flight->outstanding_last == 1 &&
        flight->sample_count < flight->sample_wanted_count) {
        error_set(err, ERROR_PEER, "step %" PRIu64 ": %u samples of %u", flight->step,
                  flight->sample_count, flight->sample_wanted_count);
        samples_undo(flight, report, report->sample_count);
        return false;
    }
    proposals_note(flight, report, scheduler->config.draft_max);
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

/* Its place, or deck.count: the report comes too late. */
static uint32_t place_find(const struct scheduler *scheduler, const struct step_report *report,
                           uint32_t worker)
{
    uint32_t place = flight_deck_find(&scheduler->deck, report->step);
    const struct flight *flight;

    if (place == scheduler->deck.count) {
        return place;
    }
    flight = flight_deck_at(&scheduler->deck, place);
    if (flight->answered[worker] || flight->attempt != report->attempt) {
        return scheduler->deck.count;
    }
    return place;
}

bool scheduler_awaits(const struct scheduler *scheduler, const struct step_report *report)
{
    uint32_t worker;

    return seat_index(scheduler, report, &worker) &&
           place_find(scheduler, report, worker) < scheduler->deck.count;
}

bool scheduler_report(struct scheduler *scheduler, const struct step_report *report, int64_t now_ns,
                      struct error *err)
{
    struct flight *flight;
    uint32_t worker, place;

    if (!seat_index(scheduler, report, &worker)) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 ": no seat at stage %u member %u",
                         report->step, report->stage, report->member);
    }
    place = place_find(scheduler, report, worker);
    if (place == scheduler->deck.count) {
        scheduler->stats.ignored_reports++;
        return true;
    }
    scheduler->now_ns = now_ns;
    flight = flight_deck_at(&scheduler->deck, place);
    if (!answers_take(scheduler, flight, report, err)) {
        return false;
    }
    flight->answered[worker] = true;
    flight->outstanding_count--;
    flight->outstanding_last -= report->stage + 1 == scheduler->config.stage_count;
    if (report->compute_ns > flight->compute_ns[report->stage]) {
        flight->compute_ns[report->stage] = report->compute_ns;
    }
    if (flight->outstanding_count == 0 || (BUG(1) && flight->outstanding_last == 0)) {
        flight_complete(scheduler, place);
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
