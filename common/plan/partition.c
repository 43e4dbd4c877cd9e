/* partition.c - layer borders by dynamic programming.
 *
 *   best[s][e][x] = the least cost of giving layers [0, e) to the first s stages, x of which have a
 *   member more than the others; the last of these stages may begin at any earlier border.
 *
 * The cost of a stage depends on its layers and its workers alone, so the recursion is exact. Time
 * is decided in two rounds: first the least time of the slowest stage, then, among the partitions
 * that reach it, the least sum of squares, so that the stages that are not the slowest come out
 * even too. The embedding takes memory but no time: a step reads a few of its rows only.
 */
#include "common/plan/partition.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <math.h>

/* Room for rounding when a stage's time is compared with the least one. */
#define TIME_SLACK (1.0 + 1e-12)

/* How the costs of stages make the cost of a partition. */
enum cost_kind {
    COST_TIME,   /* the maximum of times */
    COST_SQUARE, /* the sum of squared times, none above the limit */
    COST_MEMORY, /* the maximum of need / memory */
};

struct cell {
    double cost;
    uint32_t layer_begin; /* of the last stage */
    uint32_t extra;       /* members of the last stage beyond base_size: 0 or 1 */
};

struct search {
    const struct partition *partition;
    enum cost_kind kind;
    double time_limit; /* COST_SQUARE */
    struct cell *cells;
    uint32_t *expert_counts; /* scratch, [base_size + 1] */
};

uint32_t partition_lanes(const struct partition *partition, uint32_t member, uint32_t member_count)
{
    return (partition->lane_count - member + member_count - 1) / member_count;
}

static bool holds_draft(const struct partition *partition, const struct partition_stage *stage)
{
    return partition->request->draft_layer_count > 0 &&
           stage->layer_end == partition->request->layer_count;
}

uint64_t partition_token_bytes(const struct partition *partition,
                               const struct partition_stage *stage)
{
    const struct planner_request *request = partition->request;
    uint64_t layers =
        stage->layer_end - stage->layer_begin + (holds_draft(partition, stage) ? 1 : 0);
    bool is_last = stage->layer_end == request->layer_count;

    return layers * request->kv_entry_bytes + (is_last ? request->kv_token_bytes : 0);
}

static uint64_t expert_bytes_of(const struct partition *partition,
                                const struct partition_stage *stage)
{
    return partition->expert_sums[stage->layer_end] - partition->expert_sums[stage->layer_begin];
}

/* Weights that every member of the stage holds and every step reads. */
static uint64_t common_bytes_of(const struct partition *partition,
                                const struct partition_stage *stage)
{
    const struct planner_request *request = partition->request;
    uint64_t bytes =
        partition->common_sums[stage->layer_end] - partition->common_sums[stage->layer_begin];

    return stage->layer_end == request->layer_count ? bytes + request->head_bytes : bytes;
}

/* Bytes that a generating step reads in the layers between, by all members. */
static double generation_bytes(const struct partition *partition,
                               const struct partition_stage *stage, uint32_t member_count)
{
    return (double)common_bytes_of(partition, stage) * member_count +
           (double)expert_bytes_of(partition, stage) * partition->request->expert_count;
}

/* Bytes of the weights that a prompt's row meets there. The draft layer sees prompts, too. */
static double prompt_bytes(const struct partition *partition, const struct partition_stage *stage)
{
    return (double)(partition->common_sums[stage->layer_end] -
                    partition->common_sums[stage->layer_begin]) +
           (double)expert_bytes_of(partition, stage) * partition->request->chosen_count;
}

/* Makes the prompt work of all layers as much as their reading. */
static double prompt_weight(const struct partition *partition)
{
    struct partition_stage all = {.layer_end = partition->request->layer_count};
    double met = prompt_bytes(partition, &all);

    return met > 0 ? generation_bytes(partition, &all, partition->base_size) / met : 0;
}

void partition_init(struct partition *partition, const struct planner_request *request,
                    const struct planner_worker **workers, struct arena *arena)
{
    uint32_t stages = request->stage_count;
    bool even = request->group_size > 0;

    ASSERT(stages > 0 && stages <= request->layer_count);
    partition->request = request;
    partition->workers = workers;
    partition->stage_count = stages;
    partition->base_size = even ? request->group_size : request->worker_count / stages;
    partition->extra_count = even ? 0 : request->worker_count % stages;
    partition->lane_count = partition->base_size + (partition->extra_count > 0 ? 1 : 0);
    partition->kv_tokens = request->kv_tokens;
    partition->common_sums = arena_new_array(arena, uint64_t, (size_t)request->layer_count + 1);
    partition->expert_sums = arena_new_array(arena, uint64_t, (size_t)request->layer_count + 1);
    for (uint32_t i = 0; i < request->layer_count; i++) {
        const struct planner_layer *layer = &request->layers[i];

        partition->common_sums[i + 1] = partition->common_sums[i] + layer->common_bytes;
        partition->expert_sums[i + 1] = partition->expert_sums[i] + layer->expert_bytes;
    }
    if (request->draft_layer_count > 0) {
        partition->common_sums[request->layer_count] += request->draft.common_bytes;
        partition->expert_sums[request->layer_count] += request->draft.expert_bytes;
    }
    partition->prompt_weight = prompt_weight(partition);
}

struct partition_need partition_need(const struct partition *partition,
                                     const struct partition_stage *stage, uint32_t member,
                                     uint32_t expert_count)
{
    const struct planner_request *request = partition->request;
    uint32_t member_count = stage->worker_end - stage->worker_begin;
    bool has_embedding = stage->layer_begin == 0 || holds_draft(partition, stage);
    struct partition_need need;

    need.weight_bytes = common_bytes_of(partition, stage) +
                        (has_embedding ? request->embedding_bytes : 0) +
                        expert_count * expert_bytes_of(partition, stage);
    need.kv_bytes = partition->kv_tokens * partition_token_bytes(partition, stage) *
                    partition_lanes(partition, member, member_count);
    need.total_bytes = need.weight_bytes + need.kv_bytes + request->fixed_bytes;
    return need;
}

double partition_time(const struct partition *partition, const struct partition_stage *stage)
{
    double share = partition->request->prompt_share;
    double work =
        (1 - share) * generation_bytes(partition, stage, stage->worker_end - stage->worker_begin) +
        share * partition->prompt_weight * prompt_bytes(partition, stage);
    double rate = 0;

    for (uint32_t i = stage->worker_begin; i < stage->worker_end; i++) {
        rate += partition->workers[i]->read_bytes_per_s;
    }
    return work / rate;
}

/* How the experts of a stage may be cut. */
struct units {
    uint32_t count;
    uint32_t expert_count; /* of the largest */
    uint64_t extra_bytes;  /* that every member needs if they are cut so */
};

/* Experts that a member has memory for, beside what every member holds; less than 0: not even that.
 */
static int64_t experts_fitting(const struct partition *partition,
                               const struct partition_stage *stage, struct units units,
                               uint32_t member)
{
    uint64_t memory = partition->workers[stage->worker_begin + member]->memory_bytes;
    uint64_t need = partition_need(partition, stage, member, 0).total_bytes + units.extra_bytes;
    uint64_t bytes = expert_bytes_of(partition, stage);
    uint32_t expert_count = partition->request->expert_count;

    if (need > memory) {
        return -1;
    }
    return bytes == 0 || (memory - need) / bytes > expert_count
               ? expert_count
               : (int64_t)((memory - need) / bytes);
}

static struct units units_groups(const struct planner_request *request)
{
    uint32_t groups = request->expert_group_count;

    return (struct units){.count = groups,
                          .expert_count = (request->expert_count + groups - 1) / groups};
}

static struct units units_single(const struct planner_request *request, uint32_t member_count)
{
    bool exchanges = member_count > 1 && request->expert_count > 0;

    return (struct units){.count = request->expert_count,
                          .expert_count = 1,
                          .extra_bytes = exchanges ? request->divided_bytes : 0};
}

/* Whole groups make sense when there are as many as members, and no group is empty. */
static bool groups_usable(const struct planner_request *request, uint32_t member_count)
{
    return request->expert_group_count >= member_count &&
           request->expert_group_count <= request->expert_count;
}

/* Is there room for all units, whoever takes how many? */
static bool units_fit(const struct partition *partition, const struct partition_stage *stage,
                      struct units units)
{
    uint64_t room = 0;

    for (uint32_t i = 0; i < stage->worker_end - stage->worker_begin; i++) {
        int64_t fitting = experts_fitting(partition, stage, units, i);

        if (fitting < 0) {
            return false;
        }
        room += units.expert_count > 0 ? (uint64_t)fitting / units.expert_count : units.count;
    }
    return room >= units.count;
}

/* Gives each unit to the member whose load per rate stays least, which makes the greatest load per
 * rate least; equal members differ by one unit at most, the first having more. */
static void units_deal(const struct partition *partition, const struct partition_stage *stage,
                       struct units units, uint32_t *unit_counts)
{
    uint32_t member_count = stage->worker_end - stage->worker_begin;

    for (uint32_t i = 0; i < member_count; i++) {
        unit_counts[i] = 0;
    }
    for (uint32_t unit = 0; unit < units.count; unit++) {
        uint32_t chosen = member_count;
        double load = INFINITY;

        for (uint32_t i = 0; i < member_count; i++) {
            const struct planner_worker *worker = partition->workers[stage->worker_begin + i];
            double next = (unit_counts[i] + 1) / worker->read_bytes_per_s;

            if (next < load && (int64_t)(unit_counts[i] + 1) * units.expert_count <=
                                   experts_fitting(partition, stage, units, i)) {
                chosen = i;
                load = next;
            }
        }
        ASSERT(chosen < member_count);
        unit_counts[chosen]++;
    }
}

/* The first expert of a router group: expert e belongs to group floor(groups * e / experts). */
static uint32_t group_begin(const struct planner_request *request, uint32_t group)
{
    uint64_t groups = request->expert_group_count;

    return (uint32_t)(((uint64_t)group * request->expert_count + groups - 1) / groups);
}

static void groups_to_experts(const struct partition *partition, uint32_t member_count,
                              uint32_t *counts)
{
    uint32_t group = 0;

    for (uint32_t i = 0; i < member_count; i++) {
        uint32_t begin = group_begin(partition->request, group);

        group += counts[i];
        counts[i] = group_begin(partition->request, group) - begin;
    }
}

/* Groups, if they fit, else single experts; false if neither does. */
static bool units_choose(const struct partition *partition, const struct partition_stage *stage,
                         struct units *out)
{
    const struct planner_request *request = partition->request;
    uint32_t member_count = stage->worker_end - stage->worker_begin;

    *out = units_groups(request);
    if (groups_usable(request, member_count) && units_fit(partition, stage, *out)) {
        return true;
    }
    *out = units_single(request, member_count);
    return units_fit(partition, stage, *out);
}

static bool stage_fits(const struct partition *partition, const struct partition_stage *stage)
{
    struct units units;

    return units_choose(partition, stage, &units);
}

bool partition_experts(const struct partition *partition, const struct partition_stage *stage,
                       uint32_t *expert_counts)
{
    struct units units;

    if (!units_choose(partition, stage, &units)) {
        return false;
    }
    units_deal(partition, stage, units, expert_counts);
    if (units.count < partition->request->expert_count) {
        groups_to_experts(partition, stage->worker_end - stage->worker_begin, expert_counts);
    }
    return true;
}

uint64_t partition_divided_bytes(const struct partition *partition,
                                 const struct partition_stage *stage, const uint32_t *expert_counts)
{
    const struct planner_request *request = partition->request;
    uint32_t end = 0;
    uint32_t group = 0;

    for (uint32_t i = 0; i < stage->worker_end - stage->worker_begin; i++) {
        end += expert_counts[i];
        while (group_begin(request, group) < end) {
            group++;
        }
        if (group_begin(request, group) != end) {
            return request->divided_bytes;
        }
    }
    return 0;
}

void partition_experts_spread(const struct partition *partition,
                              const struct partition_stage *stage, uint32_t *expert_counts)
{
    const struct planner_request *request = partition->request;
    uint32_t member_count = stage->worker_end - stage->worker_begin;
    bool groups = groups_usable(request, member_count);
    uint32_t unit_count = groups ? request->expert_group_count : request->expert_count;
    double free_sum = 0;
    double free_before = 0;
    uint32_t dealt = 0;

    for (uint32_t i = 0; i < member_count; i++) {
        free_sum += (double)partition->workers[stage->worker_begin + i]->memory_bytes;
    }
    for (uint32_t i = 0; i < member_count; i++) {
        uint32_t end = unit_count;

        free_before += (double)partition->workers[stage->worker_begin + i]->memory_bytes;
        if (i + 1 < member_count && free_sum > 0) {
            end = (uint32_t)(free_before / free_sum * end + 0.5);
        }
        expert_counts[i] = end - dealt;
        dealt = end;
    }
    if (groups) {
        groups_to_experts(partition, member_count, expert_counts);
    }
}

/* need / memory of the stage's worst member. */
static double stage_overload(struct search *search, const struct partition_stage *stage)
{
    const struct partition *partition = search->partition;
    uint64_t divided;
    double worst = 0;

    partition_experts_spread(partition, stage, search->expert_counts);
    divided = partition_divided_bytes(partition, stage, search->expert_counts);
    for (uint32_t i = 0; i < stage->worker_end - stage->worker_begin; i++) {
        uint64_t need =
            divided + partition_need(partition, stage, i, search->expert_counts[i]).total_bytes;
        uint64_t memory = partition->workers[stage->worker_begin + i]->memory_bytes;

        worst = fmax(worst, (double)need / (double)(memory > 0 ? memory : 1));
    }
    return worst;
}

/* INFINITY: not allowed, or not below `bound`, which spares the look at memory. */
static double stage_cost(struct search *search, const struct partition_stage *stage, double bound)
{
    double time;

    if (search->kind == COST_MEMORY) {
        return stage_overload(search, stage);
    }
    time = partition_time(search->partition, stage);
    if (search->kind == COST_SQUARE) {
        if (time > search->time_limit) {
            return INFINITY;
        }
        time *= time;
    }
    if (time >= bound || !stage_fits(search->partition, stage)) {
        return INFINITY;
    }
    return time;
}

static struct cell *cell_at(const struct search *search, uint32_t stages, uint32_t layer_end,
                            uint32_t extras)
{
    const struct partition *partition = search->partition;
    size_t columns = (size_t)partition->extra_count + 1;
    size_t rows = (size_t)partition->request->layer_count + 1;

    return &search->cells[(stages * rows + layer_end) * columns + extras];
}

/* Tries every begin of the last stage for one cell and one size of that stage. */
static void cell_try(struct search *search, uint32_t stages, uint32_t layer_end, uint32_t extras,
                     uint32_t extra)
{
    const struct partition *partition = search->partition;
    struct cell *cell = cell_at(search, stages, layer_end, extras);
    struct partition_stage stage = {.layer_end = layer_end};

    stage.worker_begin = (stages - 1) * partition->base_size + extras - extra;
    stage.worker_end = stage.worker_begin + partition->base_size + extra;
    for (uint32_t begin = layer_end; begin-- > stages - 1;) {
        double before = cell_at(search, stages - 1, begin, extras - extra)->cost;
        double cost;

        if (before >= cell->cost) {
            continue;
        }
        stage.layer_begin = begin;
        cost = stage_cost(search, &stage,
                          search->kind == COST_SQUARE ? cell->cost - before : cell->cost);
        cost = search->kind == COST_SQUARE ? before + cost : fmax(before, cost);
        if (cost < cell->cost) {
            *cell = (struct cell){.cost = cost, .layer_begin = begin, .extra = extra};
        }
    }
}

static void cells_fill(struct search *search)
{
    const struct partition *partition = search->partition;
    uint32_t layer_count = partition->request->layer_count;

    for (uint32_t stages = 0; stages <= partition->stage_count; stages++) {
        uint32_t layers_left = partition->stage_count - stages;

        for (uint32_t end = 0; end <= layer_count; end++) {
            for (uint32_t extras = 0; extras <= partition->extra_count; extras++) {
                cell_at(search, stages, end, extras)->cost = INFINITY;
                if (stages == 0 || end < stages || end + layers_left > layer_count ||
                    extras > stages) {
                    continue;
                }
                if (extras < stages) {
                    cell_try(search, stages, end, extras, 0);
                }
                if (extras > 0) {
                    cell_try(search, stages, end, extras, 1);
                }
            }
        }
        if (stages == 0) {
            cell_at(search, 0, 0, 0)->cost = 0;
        }
    }
}

/* Cost of the best partition, INFINITY if there is none; writes it to out then. */
static double search_run(struct search *search, struct partition_stage *out)
{
    const struct partition *partition = search->partition;
    uint32_t layer_end = partition->request->layer_count;
    uint32_t extras = partition->extra_count;
    double cost;

    cells_fill(search);
    cost = cell_at(search, partition->stage_count, layer_end, extras)->cost;
    if (cost == INFINITY) {
        return cost;
    }
    for (uint32_t stages = partition->stage_count; stages > 0; stages--) {
        const struct cell *cell = cell_at(search, stages, layer_end, extras);
        struct partition_stage *stage = &out[stages - 1];

        extras -= cell->extra;
        stage->layer_begin = cell->layer_begin;
        stage->layer_end = layer_end;
        stage->worker_begin = (stages - 1) * partition->base_size + extras;
        stage->worker_end = stage->worker_begin + partition->base_size + cell->extra;
        layer_end = cell->layer_begin;
    }
    return cost;
}

bool partition_solve(const struct partition *partition, enum partition_goal goal,
                     struct partition_stage *out)
{
    size_t rows = (size_t)partition->request->layer_count + 1;
    size_t columns = (size_t)partition->extra_count + 1;
    struct search search = {
        .partition = partition,
        .kind = goal == PARTITION_MEMORY ? COST_MEMORY : COST_TIME,
        .cells = mem_new_array(struct cell, (partition->stage_count + 1) * rows * columns),
        .expert_counts = mem_new_array(uint32_t, (size_t)partition->base_size + 1),
    };
    double cost = search_run(&search, out);

    if (goal == PARTITION_TIME && cost != INFINITY) {
        search.kind = COST_SQUARE;
        search.time_limit = cost * TIME_SLACK;
        ASSERT(search_run(&search, out) != INFINITY);
    }
    mem_free(search.cells);
    mem_free(search.expert_counts);
    return cost != INFINITY;
}
