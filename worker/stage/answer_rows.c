/* answer_rows.c - what a step computed on its way: hidden states and routed experts.
 *
 * Copies only, and only for entries that want them.
 */
#include "worker/stage/answer_state.h"

#include <string.h>

void answer_hidden(struct stage *stage, struct stage_job *job)
{
    size_t hidden = stage->arch->hidden;
    size_t row = 0;

    for (uint32_t i = 0; i < job->step.entry_count; i++) {
        const struct step_entry *entry = &job->step.entries[i];
        float *values;

        if (!answer_is_own(stage, entry)) {
            continue;
        }
        if ((entry->wants & WANT_HIDDEN) != 0) {
            values = answer_floats_take(job, entry->token_count * hidden);
            memcpy(values, stage->x + row * hidden, entry->token_count * hidden * sizeof(float));
            job->result.hidden[job->result.hidden_count++] = (struct step_rows){
                .entry = i,
                .row_count = entry->token_count,
                .columns = stage->arch->hidden,
                .values = values,
            };
        }
        row += entry->token_count;
    }
}

void answer_record(struct stage_job *job, const struct expert_choice *choices, uint32_t chosen,
                   struct step_routing where)
{
    /* The arrays were made by make_routing; const is for the result's readers. */
    uint32_t *experts = (uint32_t *)job->result.experts;
    float *weights = (float *)job->result.expert_weights;

    where.expert_begin = job->result.routing_count * chosen;
    for (uint32_t i = 0; i < chosen; i++) {
        experts[where.expert_begin + i] = choices[i].expert;
        weights[where.expert_begin + i] = choices[i].weight;
    }
    job->result.routing[job->result.routing_count++] = where;
}

void answer_routing(struct stage *stage, struct stage_job *job, uint32_t layer)
{
    const struct expert_choice *choices = expert_exchange_choices(stage->experts);
    uint32_t chosen = stage->arch->router.chosen_count;
    const struct row_map *map = &stage->map;
    uint32_t entry_row = 0;

    for (uint32_t row = 0; row < map->count; row++) {
        uint32_t entry = map->entries[row];

        entry_row = row > 0 && map->entries[row - 1] == entry ? entry_row + 1 : 0;
        if ((job->step.entries[entry].wants & WANT_ROUTING) != 0) {
            answer_record(job, choices + (size_t)row * chosen, chosen,
                          (struct step_routing){.entry = entry, .row = entry_row, .layer = layer});
        }
    }
}
