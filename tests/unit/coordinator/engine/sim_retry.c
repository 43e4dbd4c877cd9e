/* sim_retry.c - frames that are lost between the virtual workers, and further attempts. */
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include "common/base/hash.h"
#include "common/base/mem.h"

#include <inttypes.h>

static uint64_t mixed(uint64_t hash, uint64_t value)
{
    return hash_mix(hash + value * 0x9e3779b97f4a7c15ull + 1);
}

static uint64_t entry_content(uint64_t hash, const struct step_entry *entry)
{
    const uint32_t words[] = {entry->lane,
                              entry->slot,
                              entry->position,
                              entry->token_count,
                              entry->draft_count,
                              entry->next_token,
                              entry->propose_max,
                              entry->generated_begin,
                              entry->block_begin,
                              entry->block_count,
                              entry->wants,
                              entry->sampling.prompt_logprobs,
                              entry->sampling.bias_count};

    hash = mixed(mixed(hash, entry->sequence), entry->sampling.seed);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        hash = mixed(hash, words[i]);
    }
    for (uint32_t i = 0; i < entry->token_count; i++) {
        hash = mixed(hash, entry->tokens[i]);
    }
    for (uint32_t i = 0; i < entry->block_count; i++) {
        hash = mixed(hash, entry->blocks[i]);
    }
    for (uint32_t i = 0; i < entry->sampling.bias_count; i++) {
        hash = mixed(hash, entry->sampling.biases[i].token);
    }
    return hash;
}

uint64_t sim_step_content(const struct step *step)
{
    uint64_t hash = mixed(step->number, step->entry_count);

    for (uint32_t i = 0; i < step->entry_count; i++) {
        hash = entry_content(hash, &step->entries[i]);
    }
    return hash;
}

void sim_reissue_check(struct sim *sim, const struct step *step)
{
    for (uint32_t i = 0; i < sim->flight_count; i++) {
        if (sim->flights[i].step == step->number) {
            if (sim->flights[i].content != sim_step_content(step)) {
                sim_fail(sim, "step %" PRIu64 " is another one in attempt %u", step->number,
                         step->attempt);
            }
            return;
        }
    }
    sim_fail(sim, "step %" PRIu64 " is issued again, but all have answered it", step->number);
}

/* Of steps from this one on, by this stage and those behind. */
static void reports_lose(struct sim *sim, uint64_t step, uint32_t stage)
{
    for (uint32_t i = 0; i < sim->report_count; i++) {
        struct step_report *report = &sim->reports[i].report;

        if (report->step >= step && report->stage >= stage) {
            report->step = UINT64_MAX; /* nobody knows it */
        }
    }
}

bool sim_break(struct sim *sim, uint32_t stage)
{
    if (sim->flight_count == 0) {
        return false;
    }
    sim->broken_stage = stage;
    sim->broken_step = sim->flights[sim_random_u32(&sim->random, 0, sim->flight_count - 1)].step;
    reports_lose(sim, sim->broken_step, stage);
    return true;
}

bool sim_retry(struct sim *sim, bool repaired)
{
    struct error err;

    if (!scheduler_retry(sim->scheduler, sim->now_ns, &err)) {
        return false;
    }
    if (repaired) {
        sim->broken_stage = SIM_STAGES_MAX;
        sim->broken_step = 0;
    }
    sim_cache_forget(sim);
    for (uint32_t stage = 0; stage < sim->config.stage_count; stage++) {
        sim->stage_free_ns[stage] = sim->now_ns;
    }
    sim_settle(sim);
    return true;
}
