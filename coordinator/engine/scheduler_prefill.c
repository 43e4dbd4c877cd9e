/* scheduler_prefill.c - whose prompts a step computes, and how many rows of them.
 *
 * Prompt rows fill what decoding leaves. They are shared among the stages, in chunks with which all
 * that wait are through soonest (pace_chunk_rows), and dealt to the lanes as evenly as their
 * prompts allow. While sequences decode, a step takes no more of them than keep the slowest stage
 * below max_step_ns, but always a few, so that prompts progress however slow the cluster is.
 *
 * In a lane the sequence that ranks first gets half of the rows at least, the rest goes to those
 * with the fewest rows left, interactive ones before batch ones. So a short prompt does not wait
 * for a long one, and nobody waits longer than twice the time that the prompts ranking before it
 * take alone: each of them is first until it is done.
 *
 * With the prefix cache a chunk that ends inside the shareable part of a prompt ends with a block.
 * Only the first sequence may stop in the middle of one, when there are no rows for a whole block;
 * as it comes first again in the next step, nobody computes that block meanwhile.
 */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"

/* Rows per lane below which a prompt is not cut to keep further stages busy. */
#define CHUNK_ROWS_WORTH 64
/* Rows of a step that prompts get whatever max_step_ns says. */
#define CHUNK_ROWS_LEAST 16

/* What max_step_ns allows, beside the rows that the step has already. */
static uint32_t rows_in_time(const struct scheduler *scheduler, const struct step_build *build,
                             uint32_t rows)
{
    uint64_t context = 0;
    uint32_t decoding = 0;
    uint32_t lanes = 0;
    uint32_t rows_max;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        const struct lane *lane = &scheduler->lanes[i];

        decoding += lane->decoding_count;
        if (lane->prefilling.count > 0) {
            context += scheduler->pool.sequences[lane->prefilling.head].position;
            lanes++;
        }
    }
    if (scheduler->config.max_step_ns <= 0 || decoding == 0 || lanes == 0) {
        return rows;
    }
    rows_max = pace_rows_max(&scheduler->pace, &build->flight->load, context / lanes, rows,
                             scheduler->config.max_step_ns);
    return rows_max > CHUNK_ROWS_LEAST ? rows_max : min_u32(rows, CHUNK_ROWS_LEAST);
}

static uint64_t lanes_prefill_rows(const struct scheduler *scheduler)
{
    uint64_t rows = 0;

    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        rows += scheduler->lanes[i].prefill_rows;
    }
    return rows;
}

/* Chosen anew when prompts have come; what waits from then on becomes less with each step, and is
 * still cut alike. What is on its way counts, too. */
uint32_t scheduler_chunk_rows(struct scheduler *scheduler)
{
    uint64_t waiting = lanes_prefill_rows(scheduler);
    uint64_t rows = waiting;

    for (uint32_t i = 0; i < scheduler->deck.count; i++) {
        rows += flight_deck_at(&scheduler->deck, i)->load.rows;
    }
    if (waiting > scheduler->prompt_rows_waiting) {
        scheduler->chunk_rows =
            pace_chunk_rows(&scheduler->pace, rows, CHUNK_ROWS_WORTH * scheduler->config.lane_count,
                            scheduler->config.step_rows_max);
    }
    scheduler->prompt_rows_waiting = waiting;
    return waiting > 0 ? scheduler->chunk_rows : 0;
}

/* Rows of prompts that the next step may have, over all lanes. */
static uint32_t prefill_rows_max(const struct scheduler *scheduler, const struct step_build *build)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t rows_left = scheduler->config.step_rows_max - build->flight->load.rows;
    uint32_t steps = min_u32(build->steps_wanted, scheduler->config.stage_count);
    uint64_t least = (uint64_t)CHUNK_ROWS_WORTH * lane_count;
    uint64_t share = divide_up(lanes_prefill_rows(scheduler),
                               steps > build->steps_others ? steps - build->steps_others : 1);

    share = share < build->chunk_rows ? share : build->chunk_rows;
    share = share > least ? share : least;
    return rows_in_time(scheduler, build, share < rows_left ? (uint32_t)share : rows_left);
}

/* Deals `rows` to the lanes, none more than its prompts have, as evenly as that allows; a rest
 * smaller than the number of lanes goes to each in turn. */
static void rows_deal(struct scheduler *scheduler, uint32_t rows)
{
    uint32_t lane_count = scheduler->config.lane_count;
    uint32_t turn = (uint32_t)(scheduler->prefill_turns % lane_count);
    uint32_t open = 0;

    for (uint32_t i = 0; i < lane_count; i++) {
        scheduler->lanes[i].quota = 0;
        open += scheduler->lanes[i].prefill_rows > 0;
    }
    while (rows > 0 && open > 0) {
        uint32_t share = (uint32_t)divide_up(rows, open);

        open = 0;
        for (uint32_t i = 0; i < lane_count; i++) {
            struct lane *lane = &scheduler->lanes[(turn + i) % lane_count];
            uint64_t missing = lane->prefill_rows - lane->quota;
            uint32_t given = min_u32(share, rows);

            given = missing < given ? (uint32_t)missing : given;
            lane->quota += given;
            rows -= given;
            open += missing > given;
        }
    }
}

/* Where the sequence's shareable blocks end: chunks below end with a block. */
static uint32_t shareable_end(const struct lane *lane, const struct sequence *sequence)
{
    return lane->shares && !sequence->nodes_end
               ? sequence->prompt_count / PLAN_BLOCK_TOKENS * PLAN_BLOCK_TOKENS
               : 0;
}

/* Cuts a chunk that would end at `end` to what one entry may have. */
static uint32_t end_cut(const struct scheduler *scheduler, const struct sequence *sequence,
                        uint32_t end)
{
    uint32_t logits_rows_max = scheduler->config.logits_rows_max;

    if (sequence->position < sequence->answered && sequence_wants_rows(sequence)) {
        return min_u32(end, sequence->answered); /* nothing is wanted of these rows any more */
    }
    if ((sequence->wants & (WANT_LOGITS | WANT_DRAFT_LOGITS)) != 0 && logits_rows_max > 0) {
        return min_u32(end, sequence->position + logits_rows_max);
    }
    return end;
}

/* The sequence's rows up to `end`, or as many as there are blocks for. Returns their number. */
static uint32_t chunk_add(struct scheduler *scheduler, struct step_build *build, uint32_t index,
                          uint32_t end)
{
    struct sequence *sequence = &scheduler->pool.sequences[index];
    struct lane *lane = &scheduler->lanes[sequence->lane];
    uint32_t rows;

    if (!scheduler_blocks_get(scheduler, index, end)) {
        end = min_u32(end, sequence->block_count * PLAN_BLOCK_TOKENS);
    }
    if (end <= sequence->position) {
        return 0;
    }
    rows = end - sequence->position;
    scheduler_rows_add(scheduler, build, index, rows, 0);
    lane->prefill_rows -= rows;
    if (sequence->position == sequence->token_count) {
        sequence_list_remove(&scheduler->pool, &lane->prefilling, index);
        sequence->state = sequence->tokens_max > 0 ? SEQUENCE_IN_STEP : SEQUENCE_DRAINING;
        sequence->reason = FINISH_LENGTH;
        if (sequence->tokens_max > 0) {
            lane_decode_begin(lane, sequence);
        }
    }
    return rows;
}

/* The chunk of the sequence that ranks first: half of the rows or, if it can end with a block, as
 * few more as that takes; all of them if no whole block can be had. */
static uint32_t first_end(const struct lane *lane, const struct sequence *sequence, uint32_t rows)
{
    uint32_t begin = sequence->position;
    uint32_t least = lane->prefilling.count > 1 ? (uint32_t)divide_up(rows, 2) : rows;
    uint32_t end = min_u32(begin + least, sequence->token_count);
    uint32_t shareable = shareable_end(lane, sequence);
    uint32_t most = min_u32(begin + rows, sequence->token_count);

    if (lane->prefilling.count == 1 || end >= shareable) {
        return end;
    }
    end = (uint32_t)divide_up(end, PLAN_BLOCK_TOKENS) * PLAN_BLOCK_TOKENS;
    return end <= most ? end : most;
}

static uint32_t other_end(const struct lane *lane, const struct sequence *sequence, uint32_t rows)
{
    uint32_t end = min_u32(sequence->position + rows, sequence->token_count);

    return end >= shareable_end(lane, sequence) ? end : end / PLAN_BLOCK_TOKENS * PLAN_BLOCK_TOKENS;
}

/* Of the sequences that the step has not considered yet: class, then fewest rows left. */
static uint32_t shortest(const struct scheduler *scheduler, const struct lane *lane)
{
    const struct sequence *sequences = scheduler->pool.sequences;
    uint32_t chosen = SEQUENCE_NONE;
    uint32_t next;

    for (uint32_t i = lane->prefilling.head; i != SEQUENCE_NONE; i = next) {
        const struct sequence *sequence = &sequences[i];

        next = sequence->next;
        if (sequence->considered_step == scheduler->step_next) {
            continue;
        }
        if (chosen == SEQUENCE_NONE ||
            (sequence->request_class == sequences[chosen].request_class &&
             sequence->token_count - sequence->position <
                 sequences[chosen].token_count - sequences[chosen].position)) {
            chosen = i;
        }
    }
    return chosen;
}

static void lane_prefill(struct scheduler *scheduler, struct step_build *build, struct lane *lane)
{
    uint32_t index = lane->prefilling.head;
    uint32_t rows = lane->quota;
    bool first = true;

    while (rows > 0 && index != SEQUENCE_NONE &&
           build->flight->entry_count < scheduler->entries_max) {
        struct sequence *sequence = &scheduler->pool.sequences[index];
        uint32_t end;

        sequence->considered_step = scheduler->step_next;
        scheduler_prefix_take(scheduler, index);
        end = first ? first_end(lane, sequence, rows) : other_end(lane, sequence, rows);
        end = end_cut(scheduler, sequence, end);
        rows -= chunk_add(scheduler, build, index, end);
        index = shortest(scheduler, lane);
        first = false;
    }
}

void scheduler_prefill_add(struct scheduler *scheduler, struct step_build *build)
{
    uint32_t rows = build->flight->load.rows;

    rows_deal(scheduler, prefill_rows_max(scheduler, build));
    for (uint32_t i = 0; i < scheduler->config.lane_count; i++) {
        lane_prefill(scheduler, build, &scheduler->lanes[i]);
    }
    scheduler->prefill_turns += build->flight->load.rows > rows;
    scheduler->prompt_rows_waiting = lanes_prefill_rows(scheduler);
}
