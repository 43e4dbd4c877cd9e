/* sim_cache.c - the workers' memory and the virtual model that computes in it. */
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

#define BLOCK       PLAN_BLOCK_TOKENS
#define FIRST_TOKEN 8 /* of the alphabet; the end token is below */

uint32_t sim_document_token(const struct sim *sim, uint32_t document, uint32_t position)
{
    /* The second block of all documents is the same, after different beginnings. */
    bool common = position >= BLOCK && position < 2 * BLOCK;

    return FIRST_TOKEN +
           (uint32_t)(hash_counter(sim->seed, common ? 0 : document, position, 5) % sim->alphabet);
}

uint32_t sim_own_token(const struct sim *sim, seq_id id, uint32_t position)
{
    return FIRST_TOKEN + (uint32_t)(hash_counter(sim->seed, id, position, 6) % sim->alphabet);
}

uint64_t sim_chain(uint64_t before, uint32_t token, bool generated)
{
    return hash_mix(before + hash_mix(token + ((uint64_t)generated << 32) + 1));
}

uint32_t sim_sample(const struct sim *sim, uint64_t chain, const struct sampling_params *sampling)
{
    uint64_t bias = sampling->bias_count > 0 ? sampling->biases[0].token : 0;
    uint64_t bits = hash_counter(sim->seed, chain, sampling->seed, bias);

    return bits % 48 == 0 ? SIM_EOS : FIRST_TOKEN + (uint32_t)((bits >> 32) % sim->alphabet);
}

void sim_cache_init(struct sim *sim)
{
    const struct scheduler_config *config = &sim->config;
    size_t seats = (size_t)config->lane_count * config->slot_count;
    size_t blocks = (size_t)config->lane_count * config->kv_block_count;

    sim->table_blocks = (config->context_tokens_max + BLOCK - 1) / BLOCK;
    sim->tables = mem_new_array(uint32_t, seats * sim->table_blocks);
    sim->table_lengths = mem_new_array(uint32_t, seats);
    sim->contents = mem_new_array(uint64_t, blocks * BLOCK);
    sim->touches = mem_new_array(uint32_t, blocks);
    sim->flights = mem_new_array(struct sim_flight, config->steps_in_flight_max);
}

static void flight_remove(struct sim *sim, uint32_t place)
{
    mem_free(sim->flights[place].entries);
    mem_free(sim->flights[place].positions);
    mem_free(sim->flights[place].touched);
    mem_free(sim->flights[place].extents);
    sim->flights[place] = sim->flights[--sim->flight_count];
}

void sim_cache_deinit(struct sim *sim)
{
    while (sim->flight_count > 0) {
        flight_remove(sim, 0);
    }
    mem_free(sim->flights);
    mem_free(sim->tables);
    mem_free(sim->table_lengths);
    mem_free(sim->contents);
    mem_free(sim->touches);
}

static uint32_t *table_of(const struct sim *sim, const struct step_entry *entry)
{
    size_t seat = (size_t)entry->lane * sim->config.slot_count + entry->slot;

    return &sim->tables[seat * sim->table_blocks];
}

static uint64_t *place_of(const struct sim *sim, const struct step_entry *entry, uint32_t position)
{
    uint32_t block = table_of(sim, entry)[position / BLOCK];

    return &sim->contents[((size_t)entry->lane * sim->config.kv_block_count + block) * BLOCK +
                          position % BLOCK];
}

uint64_t sim_cache_at(const struct sim *sim, const struct step_entry *entry, uint32_t position)
{
    return *place_of(sim, entry, position);
}

/* The block table of the entry's slot, brought up to date as a worker does it. */
static void table_update(struct sim *sim, const struct step_entry *entry)
{
    size_t seat = (size_t)entry->lane * sim->config.slot_count + entry->slot;
    uint32_t *table;

    if (entry->lane >= sim->config.lane_count || entry->slot >= sim->config.slot_count) {
        sim_fail(sim, "lane %u slot %u do not exist", entry->lane, entry->slot);
    }
    if (entry->block_begin == 0 && entry->block_count > 0) {
        sim->table_lengths[seat] = 0;
    }
    if (entry->block_begin != sim->table_lengths[seat] ||
        entry->block_begin + entry->block_count > sim->table_blocks) {
        sim_fail(sim, "blocks %u + %u do not follow %u", entry->block_begin, entry->block_count,
                 sim->table_lengths[seat]);
    }
    table = table_of(sim, entry);
    for (uint32_t i = 0; i < entry->block_count; i++) {
        if (entry->blocks[i] >= sim->config.kv_block_count) {
            sim_fail(sim, "block %u does not exist", entry->blocks[i]);
        }
        table[sim->table_lengths[seat]++] = entry->blocks[i];
    }
    if ((uint64_t)sim->table_lengths[seat] * BLOCK < entry->position + entry->token_count) {
        sim_fail(sim, "%u blocks for %u rows", sim->table_lengths[seat],
                 entry->position + entry->token_count);
    }
}

/* The block gets a new use: nobody may still work on its old one. */
static void block_begin(struct sim *sim, const struct step_entry *entry, uint32_t position)
{
    uint32_t block = table_of(sim, entry)[position / BLOCK];
    size_t index = (size_t)entry->lane * sim->config.kv_block_count + block;

    if (sim->touches[index] > 0) {
        sim_fail(sim, "sequence %" PRIu64 " writes block %u, which %u unanswered steps touch",
                 entry->sequence, block, sim->touches[index]);
    }
    memset(&sim->contents[index * BLOCK], 0, BLOCK * sizeof(*sim->contents));
}

static void rows_write(struct sim *sim, const struct step_entry *entry, bool again)
{
    for (uint32_t i = 0; i < entry->token_count; i++) {
        uint32_t position = entry->position + i;

        if (position % BLOCK == 0 && !again) {
            block_begin(sim, entry, position);
        }
        *place_of(sim, entry, position) =
            sim_chain(position > 0 ? *place_of(sim, entry, position - 1) : 0, entry->tokens[i],
                      position >= entry->generated_begin);
    }
}

static void rows_read(struct sim *sim, const struct step_entry *entry)
{
    const struct sim_client *client = &sim->clients[entry->sequence];
    uint32_t end = entry->position + entry->token_count - entry->draft_count;
    const uint64_t *places = NULL;

    for (uint32_t position = 0; position < end; position++) {
        places = position % BLOCK == 0 ? place_of(sim, entry, position) : places;
        if (places[position % BLOCK] != client->chain[position]) {
            sim_fail(sim, "sequence %" PRIu64 " reads foreign or missing KV at position %u",
                     entry->sequence, position);
        }
    }
}

static void flight_note(struct sim *sim, const struct step *step, struct sim_extent *extents)
{
    struct sim_flight *flight = &sim->flights[sim->flight_count];
    uint32_t touched_max = step->entry_count * sim->table_blocks;

    if (sim->flight_count++ == sim->config.steps_in_flight_max) {
        sim_fail(sim, "more than %u steps in flight", sim->config.steps_in_flight_max);
    }
    *flight = (struct sim_flight){.step = step->number,
                                  .entry_count = step->entry_count,
                                  .entries = mem_new_array(seq_id, step->entry_count),
                                  .positions = mem_new_array(uint32_t, step->entry_count),
                                  .touched = mem_new_array(uint32_t, touched_max),
                                  .content = sim_step_content(step),
                                  .extents = extents};
    for (uint32_t stage = 0; stage < sim->config.stage_count; stage++) {
        flight->outstanding += sim->member_counts[stage];
    }
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        uint32_t end = entry->position + entry->token_count;

        flight->entries[i] = entry->sequence;
        flight->positions[i] = entry->position;
        sim->clients[entry->sequence].flights++;
        for (uint32_t block = 0; block < (end + BLOCK - 1) / BLOCK; block++) {
            uint32_t index = entry->lane * sim->config.kv_block_count + table_of(sim, entry)[block];

            flight->touched[flight->touched_count++] = index;
            sim->touches[index]++;
        }
    }
}

static void step_compute(struct sim *sim, const struct step *step, bool again)
{
    for (uint32_t i = 0; i < step->entry_count; i++) {
        table_update(sim, &step->entries[i]);
        rows_write(sim, &step->entries[i], again);
    }
    for (uint32_t i = 0; i < step->entry_count; i++) {
        rows_read(sim, &step->entries[i]);
    }
}

static struct sim_extent extent_of(const struct sim *sim, const struct step_entry *entry)
{
    size_t seat = (size_t)entry->lane * sim->config.slot_count + entry->slot;

    return (struct sim_extent){.lane = entry->lane,
                               .slot = entry->slot,
                               .length_before = entry->block_begin > 0 || entry->block_count == 0
                                                    ? sim->table_lengths[seat]
                                                    : 0,
                               .position = entry->position,
                               .token_count = entry->token_count};
}

void sim_cache_run(struct sim *sim, const struct step *step)
{
    struct sim_extent *extents = mem_new_array(struct sim_extent, step->entry_count);

    for (uint32_t i = 0; i < step->entry_count; i++) {
        extents[i] = extent_of(sim, &step->entries[i]);
    }
    step_compute(sim, step, false);
    flight_note(sim, step, extents);
}

void sim_cache_rerun(struct sim *sim, const struct step *step)
{
    step_compute(sim, step, true);
}

static void extent_forget(struct sim *sim, const struct sim_extent *extent)
{
    struct step_entry entry = {.lane = extent->lane, .slot = extent->slot};
    size_t seat = (size_t)extent->lane * sim->config.slot_count + extent->slot;

    for (uint32_t i = 0; i < extent->token_count; i++) {
        *place_of(sim, &entry, extent->position + i) = 0;
    }
    sim->table_lengths[seat] = extent->length_before;
}

/* Tables shrink from the newest step to the oldest; blocks in them stay written behind the end. */
void sim_cache_forget(struct sim *sim)
{
    uint64_t below = UINT64_MAX;

    for (uint32_t done = 0; done < sim->flight_count; done++) {
        const struct sim_flight *newest = NULL;

        for (uint32_t i = 0; i < sim->flight_count; i++) {
            if (sim->flights[i].step < below &&
                (newest == NULL || sim->flights[i].step > newest->step)) {
                newest = &sim->flights[i];
            }
        }
        below = newest->step;
        for (uint32_t i = 0; i < newest->entry_count; i++) {
            extent_forget(sim, &newest->extents[i]);
        }
    }
}

static void flight_complete(struct sim *sim, uint32_t place)
{
    const struct sim_flight *flight = &sim->flights[place];

    for (uint32_t i = 0; i < flight->touched_count; i++) {
        sim->touches[flight->touched[i]]--;
    }
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct sim_client *client = &sim->clients[flight->entries[i]];

        client->flights--;
        client->losses = 0;
        if (client->sampling_step == flight->step) {
            client->sampling_step = 0;
        }
    }
    flight_remove(sim, place);
}

void sim_cache_answered(struct sim *sim, uint64_t step)
{
    for (uint32_t i = 0; i < sim->flight_count; i++) {
        if (sim->flights[i].step == step && --sim->flights[i].outstanding == 0) {
            flight_complete(sim, i);
            return;
        }
    }
}

/* What was wanted of the step's rows must be asked for once more. */
static void flight_lose(struct sim *sim, const struct sim_flight *flight)
{
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct sim_client *client = &sim->clients[flight->entries[i]];

        if (client->wanted > flight->positions[i]) {
            client->wanted = flight->positions[i];
        }
    }
}

void sim_cache_lose(struct sim *sim)
{
    uint32_t *losses = mem_new_array(uint32_t, sim->client_count);

    for (uint32_t i = 0; i < sim->client_count; i++) {
        losses[i] = sim->clients[i].losses + (sim->clients[i].flights > 0);
    }
    while (sim->flight_count > 0) {
        flight_lose(sim, &sim->flights[0]);
        flight_complete(sim, 0);
    }
    for (uint32_t i = 0; i < sim->client_count; i++) {
        sim->clients[i].losses = losses[i];
    }
    mem_free(losses);
}
