/* scheduler_decode.c - which decoding sequences a step takes.
 *
 * They are spread over the steps by cost: what a row costs, and what each position that it attends
 * costs, by the pace of earlier steps (equal costs while nothing is measured). With F steps to be
 * in flight, k in flight, cost D of all decoding sequences and R of the ready ones, a step takes
 * sequences until it has D / F, so that no step grows at the cost of the others and uneven steps
 * even out: what a full step leaves behind joins the next one. It also takes no more than R / (F -
 * k), so that ready sequences are shared by the steps that may still be issued now. The bound D / F
 * holds inside each lane, too, because the members of a stage work in lockstep and a step lasts as
 * long as its fullest lane. Always the one that has waited longest is next; one that costs more
 * than the others and would exceed the share is passed over, but once: it comes first in the next
 * step.
 *
 * Drafts: as many as pay (draft_policy.h), as the rows of the step allow for all its sequences, and
 * as there are blocks without a preemption.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

#define LOOKUP_TOKENS_PER_STEP 1024
#define COST_CONTEXT           1024       /* positions, to tell the cost of one */
#define LARGE                  1.5        /* times the mean cost */
#define EXCESS                 1.1        /* times the share */
#define ALMOST                 (1 - 1e-9) /* sums of equal costs may differ in the last bits */

struct decode_costs {
    double row, position; /* what one costs */
    double goal;          /* the step's share */
    double cost;          /* so far */
    double mean;          /* of a sequence */
    uint32_t draft_max;   /* of a sequence, for the sake of the others */
};

static double cost_of(const struct decode_costs *costs, uint64_t rows, uint64_t positions)
{
    return costs->row * (double)rows + costs->position * (double)positions;
}

static struct decode_costs costs_make(const struct scheduler *scheduler)
{
    const struct step_load near = {.rows = 1, .attended = 1, .sampled = 1};
    const struct step_load two = {.rows = 2, .attended = 2, .sampled = 2};
    const struct step_load far = {.rows = 1, .attended = 1 + COST_CONTEXT, .sampled = 1};
    double base = pace_step_ns(&scheduler->pace, &near);
    struct decode_costs costs = {
        .row = pace_step_ns(&scheduler->pace, &two) - base,
        .position = (pace_step_ns(&scheduler->pace, &far) - base) / COST_CONTEXT,
    };

    if (costs.row <= 0 && costs.position <= 0) {
        costs.row = 1;
    }
    return costs;
}

/* Shares of the step and of each lane. */
static void shares_set(struct scheduler *scheduler, const struct step_build *build,
                       struct decode_costs *costs)
{
    uint64_t decoding = 0, decoding_context = 0;
    uint64_t ready = 0, ready_context = 0;
    uint64_t sequences;
    double ready_share;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        struct lane *lane = &scheduler->lanes[i];

        lane->cursor = lane->ready.head;
        lane->cost = 0;
        lane->cost_goal =
            cost_of(costs, lane->decoding_count, lane->decoding_context) / build->steps_wanted;
        decoding += lane->decoding_count;
        decoding_context += lane->decoding_context;
        ready += lane->ready.count;
        ready_context += lane->ready_context;
    }
    costs->goal = cost_of(costs, decoding, decoding_context) / build->steps_wanted;
    ready_share =
        cost_of(costs, ready, ready_context) / (build->steps_wanted - build->steps_others);
    costs->goal = ready_share < costs->goal ? ready_share : costs->goal;
    costs->mean = decoding > 0 ? cost_of(costs, decoding, decoding_context) / (double)decoding : 0;
    sequences = divide_up(decoding, build->steps_wanted);
    sequences = ready < sequences ? ready : sequences;
    if (scheduler->config.batch_max > 0 && sequences > scheduler->config.batch_max) {
        sequences = scheduler->config.batch_max;
    }
    costs->draft_max = sequences > 0 && sequences < build->decode_rows_max
                           ? (uint32_t)(build->decode_rows_max / sequences) - 1
                           : 0;
}

/* The lane whose turn it is: least cost so far, then the one that `turn` comes to first, so that
 * no lane is always last when there are fewer rows than lanes. lane_count: none may have more. */
static uint32_t lane_next(const struct scheduler *scheduler)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t turn = (uint32_t)(scheduler->decode_turns % lane_count);
    uint32_t chosen = lane_count;

    for (uint32_t i = 0; i < lane_count; i++) {
        uint32_t index = (turn + i) % lane_count;
        const struct lane *lane = &scheduler->lanes[index];

        if (lane->cursor == SEQUENCE_NONE || lane->cost >= lane->cost_goal * ALMOST) {
            continue;
        }
        if (chosen == lane_count || lane->cost < scheduler->lanes[chosen].cost) {
            chosen = index;
        }
    }
    return chosen;
}

/* Tells the sequence's lookup what it does not know yet, as far as the step has time for it: a long
 * prompt takes several steps. Returns whether it knows all. */
static bool lookup_catch_up(struct step_build *build, struct sequence *sequence)
{
    uint32_t count = min_u32(sequence->token_count - sequence->lookup_count,
                             LOOKUP_TOKENS_PER_STEP - build->lookup_tokens);

    if (sequence->lookup == NULL) {
        sequence->lookup = lookup_create();
    }
    lookup_append(sequence->lookup, &sequence->tokens[sequence->lookup_count], count);
    sequence->lookup_count += count;
    build->lookup_tokens += count;
    return sequence->lookup_count == sequence->token_count;
}

/* At most `max` guesses, written behind the sequence's tokens. */
static uint32_t drafts_look_up(struct step_build *build, struct sequence *sequence, uint32_t max)
{
    if (max == 0 || !lookup_catch_up(build, sequence)) {
        return 0;
    }
    sequence_tokens_reserve(sequence, sequence->token_count + max);
    return lookup_propose(sequence->lookup, max, &sequence->tokens[sequence->token_count]);
}

/* How many guesses follow the sequence's last token in this step; its blocks hold them. */
static uint32_t drafts_take(struct scheduler *scheduler, struct step_build *build,
                            const struct decode_costs *costs, struct sequence *sequence)
{
    struct lane *lane = &scheduler->lanes[sequence->lane];
    uint32_t left = sequence->tokens_max - sequence_generated(sequence) - 1;
    uint32_t count = min_u32(left, costs->draft_max);
    uint32_t covered;

    count = min_u32(count, build->decode_rows_max - build->flight->load.rows - 1);
    if (scheduler->config.draft_mode == DRAFT_LOOKUP && sequence->wants == 0) {
        count = drafts_look_up(build, sequence, min_u32(count, build->draft_depth));
    } else {
        count = min_u32(count, sequence->draft_count);
    }
    while (sequence->block_count < lane_blocks_of(sequence->token_count + count) &&
           lane_room(lane) > 0) {
        scheduler->stats.evictions += lane_extend(lane, sequence);
    }
    covered = sequence->block_count * PLAN_BLOCK_TOKENS - sequence->token_count;
    return min_u32(count, covered);
}

static void sequence_take(struct scheduler *scheduler, struct step_build *build,
                          struct decode_costs *costs, uint32_t index, double cost)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];

    sequence->draft_count = drafts_take(scheduler, build, costs, sequence);
    scheduler_rows_add(scheduler, build, index, 1 + sequence->draft_count, sequence->draft_count);
    lane_ready_remove(&scheduler->pool, lane, index);
    sequence->state = SEQUENCE_IN_STEP;
    scheduler->stats.drafted += sequence->draft_count;
    lane->cost += cost;
    costs->cost += cost;
    build->decode_count++;
}

/* Whether a step that begins with the sequence is the better place for it. */
static bool too_large(const struct lane *lane, const struct decode_costs *costs, double cost)
{
    double fair = cost > lane->cost_goal ? cost : lane->cost_goal;

    return lane->cost > 0 && cost > LARGE * costs->mean && lane->cost + cost > EXCESS * fair;
}

static void sequences_take(struct scheduler *scheduler, struct step_build *build,
                           struct decode_costs *costs)
{
    uint32_t batch_max = scheduler->config.batch_max;

    while (build->flight->load.rows < build->decode_rows_max &&
           costs->cost < costs->goal * ALMOST &&
           (batch_max == 0 || build->decode_count < batch_max)) {
        uint32_t lane_index = lane_next(scheduler);
        struct lane *lane = &scheduler->lanes[lane_index];
        struct sequence *sequence;
        uint32_t index;
        double cost;

        if (lane_index == scheduler->config.lane_count) {
            return;
        }
        index = lane->cursor;
        sequence = &scheduler->pool.sequences[index];
        cost = cost_of(costs, 1, sequence->context_counted);
        if (too_large(lane, costs, cost) ||
            !scheduler_blocks_get(scheduler, index, sequence->token_count)) {
            lane->cursor = sequence->next;
            continue;
        }
        lane->cursor = sequence->next;
        sequence_take(scheduler, build, costs, index, cost);
    }
}

void scheduler_decode_add(struct scheduler *scheduler, struct step_build *build)
{
    struct decode_costs costs = costs_make(scheduler);

    shares_set(scheduler, build, &costs);
    sequences_take(scheduler, build, &costs);
    scheduler->decode_turns += build->decode_count > 0;
}
