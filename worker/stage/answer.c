/* answer.c - what a worker answers to a step: the buffers behind it, and room for each answer.
 *
 * Rows of floats that travel to the coordinator are mapped for the one step that wants them. What
 * goes into an answer is in answer_rows.c, answer_samples.c and answer_logprobs.c.
 */
#include "worker/stage/answer_state.h"

#include "common/base/mem.h"

#define LOGITS_ROWS_MAX 64 /* whose logits are held at a time */

static uint32_t logits_rows_of(const struct seat *seat)
{
    uint32_t rows = seat->placement->step_rows_max;

    return rows < LOGITS_ROWS_MAX ? rows : LOGITS_ROWS_MAX;
}

static uint64_t logits_bytes_of(const struct seat *seat, const struct arch *arch)
{
    return (uint64_t)logits_rows_of(seat) * arch->vocab * sizeof(float);
}

static uint64_t samplers_bytes_of(const struct arch *arch, uint32_t thread_count)
{
    return thread_count * sampler_bytes(arch->vocab);
}

uint64_t answer_bytes(const struct seat *seat, const struct arch *arch, uint32_t thread_count)
{
    if (!seat->is_last) {
        return 0;
    }
    return logits_bytes_of(seat, arch) + samplers_bytes_of(arch, thread_count) +
           thread_count * sizeof(struct sampler) +
           sizeof(struct answer_row) * (uint64_t)seat->placement->step_rows_max +
           sizeof(uint32_t) * (uint64_t)logits_rows_of(seat);
}

bool answer_create(struct stage *stage, struct error *err)
{
    uint32_t rows = stage->seat->placement->step_rows_max;
    uint32_t threads = team_thread_count(stage->team);

    stage->logits_rows_max = logits_rows_of(stage->seat);
    stage->logits_bytes = logits_bytes_of(stage->seat, stage->arch);
    stage->sampler_memory_bytes = samplers_bytes_of(stage->arch, threads);
    stage->answer_rows = arena_new_array(&stage->arena, struct answer_row, rows);
    stage->logits_indexes = arena_new_array(&stage->arena, uint32_t, stage->logits_rows_max);
    stage->logits = mem_map_pages(stage->logits_bytes, err);
    if (stage->logits == NULL) {
        return false;
    }
    stage->sampler_memory = mem_map_pages(stage->sampler_memory_bytes, err);
    if (stage->sampler_memory == NULL) {
        return false;
    }
    stage->samplers = arena_new_array(&stage->arena, struct sampler, threads);
    for (uint32_t i = 0; i < threads; i++) {
        sampler_init(&stage->samplers[i], stage->kernels, stage->arch->vocab,
                     stage->sampler_memory + i * sampler_bytes(stage->arch->vocab));
    }
    return true;
}

void answer_destroy(struct stage *stage)
{
    mem_unmap_pages(stage->logits, stage->logits_bytes);
    mem_unmap_pages(stage->sampler_memory, stage->sampler_memory_bytes);
}

/* --- room for the answer --- */

struct wanted {
    uint32_t entries; /* own */
    uint32_t samples;
    uint32_t logprobs;
    uint32_t hidden_entries, logits_entries, draft_entries;
    uint64_t hidden_rows, logits_rows, draft_rows;
    uint64_t routing_rows, draft_routing_rows;
};

bool answer_is_own(const struct stage *stage, const struct step_entry *entry)
{
    return stage->seat->lane_index[entry->lane] != PLACEMENT_NONE;
}

static struct wanted count_wanted(const struct stage *stage, const struct step *step)
{
    struct wanted wanted = {0};

    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];

        if (!answer_is_own(stage, entry)) {
            continue;
        }
        wanted.samples += (entry->wants & WANT_SAMPLE) != 0 ? entry->draft_count + 1 : 0;
        for (uint32_t row = 0; row < entry->token_count; row++) {
            wanted.logprobs += answer_logprobs_wanted(entry, row) > 0 ? 1 : 0;
        }
        if ((entry->wants & WANT_HIDDEN) != 0) {
            wanted.hidden_entries++;
            wanted.hidden_rows += entry->token_count;
        }
        if ((entry->wants & WANT_LOGITS) != 0) {
            wanted.logits_entries++;
            wanted.logits_rows += entry->token_count;
        }
        if ((entry->wants & WANT_DRAFT_LOGITS) != 0) {
            wanted.draft_entries++;
            wanted.draft_rows += entry->token_count;
        }
        if ((entry->wants & WANT_ROUTING) != 0) {
            wanted.routing_rows += entry->token_count;
            wanted.draft_routing_rows +=
                (entry->wants & WANT_DRAFT_LOGITS) != 0 ? entry->token_count : 0;
        }
    }
    return wanted;
}

static uint32_t moe_layers(const struct stage *stage)
{
    uint32_t count = 0;

    for (uint32_t layer = stage->seat->layer_begin; layer < stage->seat->layer_end; layer++) {
        count += arch_layer_is_moe(stage->arch, layer) ? 1 : 0;
    }
    return count;
}

static void make_routing(const struct stage *stage, struct stage_job *job,
                         const struct wanted *wanted)
{
    uint64_t records = wanted->routing_rows * moe_layers(stage) +
                       (stage->seat->has_draft ? wanted->draft_routing_rows : 0);
    uint64_t chosen = stage->arch->router.chosen_count;

    if (records > 0) {
        job->result.routing = arena_new_array(&job->arena, struct step_routing, records);
        job->result.experts = arena_new_array(&job->arena, uint32_t, records * chosen);
        job->result.expert_weights = arena_new_array(&job->arena, float, records *chosen);
        job->result.chosen_count = stage->arch->router.chosen_count;
    }
}

/* job->floats: hidden rows (embeddings, then outputs), then logits, then the draft layer's. */
static bool make_floats(const struct stage *stage, struct stage_job *job,
                        const struct wanted *wanted, struct error *err)
{
    uint32_t passes = stage->seat->is_first ? 2 : 1;
    uint64_t values = passes * wanted->hidden_rows * stage->arch->hidden;

    job->result.hidden =
        arena_new_array(&job->arena, struct step_rows, passes * wanted->hidden_entries);
    if (stage->seat->is_last) {
        values += (wanted->logits_rows + wanted->draft_rows) * stage->arch->vocab;
        job->result.draft_logits =
            arena_new_array(&job->arena, struct step_rows, wanted->draft_entries);
        job->result.logits = arena_new_array(&job->arena, struct step_rows, wanted->logits_entries);
        job->result.samples = arena_new_array(&job->arena, struct step_sample, wanted->samples);
        job->result.logprobs = arena_new_array(&job->arena, struct step_logprobs, wanted->logprobs);
    }
    if (values == 0) {
        return true;
    }
    job->floats = mem_map_pages(values * sizeof(float), err);
    if (job->floats == NULL) {
        return error_wrap(err, "rows of floats that were asked for");
    }
    job->floats_bytes = values * sizeof(float);
    return true;
}

bool answer_begin(struct stage *stage, struct stage_job *job, struct error *err)
{
    struct wanted wanted = count_wanted(stage, &job->step);

    job->result = (struct step_result){
        .epoch = job->step.epoch,
        .step = job->step.number,
        .attempt = job->step.attempt,
        .worker = stage->seat->worker,
        .row_count = stage->map.count,
    };
    make_routing(stage, job, &wanted);
    return make_floats(stage, job, &wanted, err);
}

float *answer_floats_take(struct stage_job *job, uint64_t count)
{
    float *taken = job->floats + job->floats_used;

    job->floats_used += count;
    ASSERT(job->floats_used * sizeof(float) <= job->floats_bytes);
    return taken;
}
