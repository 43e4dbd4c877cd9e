/* sim_entry.c - what a step may ask of a sequence: its rows, tokens, wants, and how soon. */
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include <inttypes.h>

#define BLOCK PLAN_BLOCK_TOKENS

bool sim_wants_rows(const struct sim_client *client)
{
    return client->request.wants != 0 || client->request.prompt_logprobs > 0;
}

/* What a request wants of its rows is asked for exactly once, in order, so nothing is skipped. */
static void wants_check(struct sim *sim, struct sim_client *client, const struct step_entry *entry)
{
    uint32_t end = entry->position + entry->token_count;
    bool fresh = entry->position >= client->wanted;
    uint32_t wants = fresh ? client->request.wants : 0;
    uint32_t logprobs = fresh && entry->position < client->request.prompt_count
                            ? client->request.prompt_logprobs
                            : 0;

    if (client->request.wants == 0 && end > client->request.prompt_count) {
        end = client->request.prompt_count;
    }
    if (!sim_wants_rows(client) || end <= entry->position) {
        end = 0; /* nothing is wanted of its rows, or of these */
    } else if (fresh ? entry->position != client->wanted : end > client->wanted) {
        sim_fail(sim, "sequence %" PRIu64 ": rows %u to %u, %u were answered", client->id,
                 entry->position, end, client->wanted);
    }
    if ((entry->wants & ~(uint32_t)WANT_SAMPLE) != wants ||
        entry->sampling.prompt_logprobs != logprobs) {
        sim_fail(sim, "sequence %" PRIu64 ": wants %u, must be %u", client->id, entry->wants,
                 wants);
    }
    if ((wants & WANT_LOGITS) != 0 && sim->config.logits_rows_max > 0 &&
        entry->token_count > sim->config.logits_rows_max) {
        sim_fail(sim, "sequence %" PRIu64 ": %u rows of logits", client->id, entry->token_count);
    }
    if (end > client->wanted) {
        client->wanted = end;
    }
}

/* Rows follow each other, but for those that the prefix cache has; after a preemption they begin
 * anew, with a new block table. */
static void rows_check(struct sim *sim, struct sim_client *client, const struct step_entry *entry)
{
    bool admitted = entry->block_begin == 0 && entry->block_count > 0;
    uint32_t skipped;

    if (admitted && client->flights > 0) {
        sim_fail(sim, "sequence %" PRIu64 " begins anew with steps in flight", client->id);
    }
    if (admitted) {
        client->admissions++;
        client->row_next = 0;
        client->decoding = false;
    }
    skipped = entry->position - client->row_next;
    if (entry->position < client->row_next || client->admissions == 0 ||
        (skipped > 0 && (skipped % BLOCK != 0 || !sim->config.prefix_cache ||
                         entry->position > client->request.prompt_count))) {
        sim_fail(sim, "sequence %" PRIu64 ": row %u follows %u", client->id, entry->position,
                 client->row_next);
    }
    if (skipped > 0 && entry->position > client->reached) {
        client->skipped += entry->position - client->reached;
    }
    client->row_next = entry->position + entry->token_count;
}

static void tokens_check(struct sim *sim, const struct sim_client *client,
                         const struct step_entry *entry)
{
    uint32_t end = entry->position + entry->token_count;
    uint32_t sure = end - entry->draft_count;
    bool samples = client->request.tokens_max > 0 && sure == client->known;
    uint32_t next = end < client->known ? client->tokens[end] : STEP_TOKEN_NONE;

    if (entry->token_count == 0 || sure > client->known ||
        entry->draft_count >= entry->token_count || (entry->draft_count > 0 && !samples) ||
        entry->draft_count > sim->config.draft_max ||
        end > client->request.prompt_count + client->request.tokens_max ||
        entry->next_token != next || entry->generated_begin != client->request.prompt_count) {
        sim_fail(sim, "sequence %" PRIu64 ": rows %u to %u, %u drafts, %u tokens are known",
                 client->id, entry->position, end, entry->draft_count, client->known);
    }
    if (((entry->wants & WANT_SAMPLE) != 0) != samples ||
        (entry->propose_max > 0 && (!samples || sim->config.draft_mode != DRAFT_LAYER)) ||
        entry->propose_max > sim->config.draft_max) {
        sim_fail(sim, "sequence %" PRIu64 ": rows to %u of %u, wants %u", client->id, end,
                 client->known, entry->wants);
    }
    for (uint32_t i = 0; i < sure - entry->position; i++) {
        if (entry->tokens[i] != client->tokens[entry->position + i]) {
            sim_fail(sim, "sequence %" PRIu64 ": token %u at position %u", client->id,
                     entry->tokens[i], entry->position + i);
        }
    }
}

uint64_t sim_steps_max(const struct sim *sim)
{
    return 3000 + 30000 / sim->config.step_rows_max;
}

/* Nobody waits for ever; and with memory for all, a decoding sequence gets its next row within a
 * few rounds of the lanes' slots (prompts take rows, too, and a costly sequence is passed over
 * once). */
static void progress_check(struct sim *sim, struct sim_client *client, uint32_t reached)
{
    bool ample = (uint64_t)sim->config.slot_count * sim->table_blocks <= sim->config.kv_block_count;
    uint64_t turn = 4ull * ((uint64_t)sim->config.lane_count * (sim->config.slot_count + 1) +
                            sim->config.steps_in_flight_max);
    uint64_t steps = sim->step_last - client->ready_step;

    if (steps > sim_steps_max(sim)) {
        sim_fail(sim, "sequence %" PRIu64 " got no new row for %" PRIu64 " steps", client->id,
                 steps);
    }
    if (ample && client->known > client->request.prompt_count && client->admissions == 1 &&
        steps > turn) {
        sim_fail(sim, "sequence %" PRIu64 " waits %" PRIu64 " steps for its next token", client->id,
                 steps);
    }
    if (reached > client->reached) {
        client->reached = reached;
        client->ready_step = sim->step_last;
    }
}

void sim_entry_check(struct sim *sim, const struct step *step, const struct step_entry *entry)
{
    struct sim_client *client = &sim->clients[entry->sequence];
    bool samples = (entry->wants & WANT_SAMPLE) != 0;
    uint32_t end = entry->position + entry->token_count - entry->draft_count;

    if (entry->sequence >= sim->client_count || client->finished) {
        sim_fail(sim, "sequence %" PRIu64 " is not there", entry->sequence);
    }
    if (client->sampling_step != 0) {
        sim_fail(sim, "sequence %" PRIu64 " is in steps %" PRIu64 " and %" PRIu64, client->id,
                 client->sampling_step, step->number);
    }
    client->sampling_step = samples ? step->number : 0;
    rows_check(sim, client, entry);
    tokens_check(sim, client, entry);
    wants_check(sim, client, entry);
    progress_check(sim, client, end);
}
