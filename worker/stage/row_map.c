/* row_map.c - from entries of a step to rows of a worker.
 *
 * The whole agreement between workers about who sends what lies in these counts, computed by each
 * for itself from the same step and placement.
 */
#include "worker/stage/row_map.h"

#include <string.h>

static uint32_t members_of(const struct seat *seat, int64_t stage)
{
    if (stage < 0 || stage >= seat->placement->stage_count) {
        return 0;
    }
    return seat->placement->stages[stage].member_count;
}

uint64_t row_map_bytes(const struct seat *seat)
{
    uint64_t rows = seat->placement->step_rows_max;

    return rows * (sizeof(struct forward_row) + 3 * sizeof(uint32_t));
}

void row_map_init(struct row_map *map, const struct seat *seat, struct arena *arena)
{
    uint32_t rows = seat->placement->step_rows_max;

    *map = (struct row_map){
        .rows = arena_new_array(arena, struct forward_row, rows),
        .entries = arena_new_array(arena, uint32_t, rows),
        .sources = arena_new_array(arena, uint32_t, rows),
        .targets = arena_new_array(arena, uint32_t, rows),
        .source_rows = arena_new_array(arena, uint32_t, members_of(seat, (int64_t)seat->stage - 1)),
        .target_rows = arena_new_array(arena, uint32_t, members_of(seat, (int64_t)seat->stage + 1)),
        .member_rows = arena_new_array(arena, uint32_t, seat->member_count),
    };
}

static void clear_counts(struct row_map *map, const struct seat *seat)
{
    map->count = 0;
    memset(map->member_rows, 0, seat->member_count * sizeof(uint32_t));
    if (!seat->is_first) {
        memset(map->source_rows, 0, members_of(seat, (int64_t)seat->stage - 1) * sizeof(uint32_t));
    }
    if (!seat->is_last) {
        memset(map->target_rows, 0, members_of(seat, (int64_t)seat->stage + 1) * sizeof(uint32_t));
    }
}

static void add_entry(struct row_map *map, const struct seat *seat, const struct step *step,
                      uint32_t index)
{
    const struct step_entry *entry = &step->entries[index];
    uint32_t source = seat->is_first ? 0 : seat_lane_member(seat, seat->stage - 1, entry->lane);
    uint32_t target = seat->is_last ? 0 : seat_lane_member(seat, seat->stage + 1, entry->lane);

    for (uint32_t i = 0; i < entry->token_count; i++) {
        uint32_t row = map->count++;

        map->rows[row] = (struct forward_row){
            .lane = seat->lane_index[entry->lane],
            .slot = entry->slot,
            .position = entry->position + i,
            .token = entry->tokens[i],
            .token_class =
                entry->position + i < entry->generated_begin ? TOKEN_PROMPT : TOKEN_GENERATED,
        };
        map->entries[row] = index;
        map->sources[row] = source;
        map->targets[row] = target;
    }
    if (!seat->is_first) {
        map->source_rows[source] += entry->token_count;
    }
    if (!seat->is_last) {
        map->target_rows[target] += entry->token_count;
    }
}

void row_map_fill(struct row_map *map, const struct seat *seat, const struct step *step)
{
    clear_counts(map, seat);
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];

        map->member_rows[seat_lane_member(seat, seat->stage, entry->lane)] += entry->token_count;
        if (seat->lane_index[entry->lane] != PLACEMENT_NONE) {
            add_entry(map, seat, step, i);
        }
    }
}
