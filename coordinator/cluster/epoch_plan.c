/* epoch_plan.c - the placement of an epoch: the planner's, from what the workers said, or the
 * file's.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/cluster/plan_report.h"
#include "coordinator/cluster/plan_request.h"

#include <inttypes.h>
#include <string.h>

#define STEP_ROWS_MIN      64
#define CONTEXT_TOKENS_MIN 1024 /* below it, cutting the context further helps nobody */

/* Workers of one machine measure at the same time, and so each other's noise: those that are alike
 * count with their mean, and the same command gives the same layers. */
static double read_rate(struct member **order, uint32_t count, const struct member *member)
{
    double sum = 0;
    uint32_t equal_count = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(order[i]->host, member->host) == 0 && strcmp(order[i]->cpu, member->cpu) == 0 &&
            order[i]->thread_count == member->thread_count) {
            sum += order[i]->read_bytes_per_s;
            equal_count++;
        }
    }
    return sum / equal_count;
}

static uint32_t first_of_island(struct member **order, const struct member *member)
{
    uint32_t first = 0;

    while (order[first]->world_id != member->world_id) {
        first++;
    }
    return first;
}

static struct planner_worker *planner_workers(struct cluster *cluster, struct member **order,
                                              uint32_t count)
{
    struct planner_worker *workers =
        arena_new_array(&cluster->epoch_arena, struct planner_worker, count);

    for (uint32_t i = 0; i < count; i++) {
        const struct member *member = order[i];
        /* World ids are random: numbered by the order of members, islands have the same always. */
        uint64_t island = member->world_id == 0 ? 0 : first_of_island(order, member) + 1;

        workers[i] = (struct planner_worker){.id = member->id,
                                             .memory_bytes = member->memory_bytes,
                                             .read_bytes_per_s = read_rate(order, count, member),
                                             .island = island,
                                             .rank = member->world_rank,
                                             .held_seat = member->held_seat + 1};
        memcpy(workers[i].host, member->host, sizeof(workers[i].host));
    }
    return workers;
}

static void request_fill(struct cluster *cluster, struct member **order, uint32_t count)
{
    const struct cluster_config *config = &cluster->config;
    struct planner_request *plan = &cluster->plan;
    const enum numerics numerics =
        config->numerics == NUMERICS_FAST ? order[0]->fast_numerics : config->numerics;
    char numerics_id[NUMERICS_ID_BYTES];

    numerics_id_write(numerics, config->kv_type, order[0]->kernels_version, numerics_id);
    plan_request_model(config->catalog, PLAN_AS_HELD, config->kv_type, &cluster->epoch_arena, plan);
    plan->epoch = cluster->epoch;
    plan->draft_layer_count = config->draft_mode == DRAFT_LAYER ? 1 : 0;
    plan->numerics_id = arena_strdup(&cluster->epoch_arena, numerics_id);
    if (config->context_tokens_max > 0) {
        plan->context_tokens_max = config->context_tokens_max;
    }
    if (config->slot_count > 0) {
        plan->slot_count = config->slot_count;
    }
    if (config->step_rows_max > 0) {
        plan->step_rows_max = config->step_rows_max;
    }
    plan->kv_tokens = config->kv_tokens;
    plan->prompt_share = config->prompt_share;
    plan->worker_count = count;
    plan->workers = planner_workers(cluster, order, count);
    plan->stage_count = config->stage_count;
    plan->group_size = config->group_size;
}

/* Buffers grow with the context, so this is found anew for each. */
static void size_fill(struct cluster *cluster)
{
    struct plan_sizer sizer = {
        .catalog = cluster->config.catalog, .weights = PLAN_AS_HELD, .thread_count = 1};

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        uint32_t own = cluster->members[i].thread_count;

        sizer.thread_count = own > sizer.thread_count ? own : sizer.thread_count;
    }
    plan_request_size(&sizer, &cluster->plan);
}

static struct placement *plan_try(struct cluster *cluster, struct error *err)
{
    size_fill(cluster);
    return planner_try(&cluster->plan, &cluster->epoch_arena, err);
}

/* Why it does not fit: in one line, and who would hold what as a table. */
static void misfit_write(struct cluster *cluster, struct error *err)
{
    struct planner_refusal *refusal = planner_refusal_of(&cluster->plan, &cluster->epoch_arena);
    char line[sizeof(err->message)];
    struct buffer text;

    buffer_init(&text);
    plan_report_refusal(refusal, &text);
    mem_free(cluster->misfit);
    cluster->misfit = buffer_take(&text);
    (void)error_set(err, ERROR_LIMIT, "%s", planner_refusal_write(refusal, line, sizeof(line)));
}

/* With smaller and smaller sizes that the user did not ask for: the context is halved, and where
 * that does not help, the steps. What is refused in the end is what was wanted. */
static struct placement *plan_shrunk(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;
    struct planner_request *plan = &cluster->plan;
    uint32_t context_wanted = plan->context_tokens_max;
    uint32_t context_least = CONTEXT_TOKENS_MIN;
    struct placement *placement = plan_try(cluster, err);

    if (cluster->scheduler != NULL &&
        scheduler_context_needed(cluster->scheduler) > context_least) {
        context_least = scheduler_context_needed(cluster->scheduler);
    }
    while (placement == NULL && err->code == ERROR_LIMIT) {
        struct error smaller;

        if (config->context_tokens_max == 0 && plan->context_tokens_max / 2 >= context_least) {
            plan->context_tokens_max /= 2;
        } else if (config->step_rows_max == 0 && plan->step_rows_max / 2 >= STEP_ROWS_MIN) {
            plan->context_tokens_max = context_wanted;
            plan->step_rows_max /= 2;
        } else {
            break;
        }
        placement = plan_try(cluster, &smaller);
    }
    return placement;
}

/* Drafts save time, a context has to hold the text: the draft layer goes first. */
static struct placement *plan_without_drafts(struct cluster *cluster, struct error *err)
{
    struct placement *placement = plan_try(cluster, err);

    if (placement == NULL && err->code == ERROR_LIMIT && cluster->plan.draft_layer_count > 0 &&
        cluster->config.draft_layer_optional) {
        cluster->plan.draft_layer_count = 0;
        log_warn("the draft layer does not fit: answers come without drafts");
        placement = plan_try(cluster, err);
    }
    return placement;
}

/* ERROR_LIMIT: it does not fit; the request is then as it was, but for the draft layer. */
static struct placement *plan_fit(struct cluster *cluster, struct error *err)
{
    struct planner_request *plan = &cluster->plan;
    uint32_t context_wanted = plan->context_tokens_max;
    uint32_t rows_wanted = plan->step_rows_max;
    struct placement *placement = plan_without_drafts(cluster, err);

    if (placement == NULL && err->code == ERROR_LIMIT) {
        placement = plan_shrunk(cluster, err);
    }

    if (placement == NULL && err->code == ERROR_LIMIT) {
        plan->context_tokens_max = context_wanted;
        plan->step_rows_max = rows_wanted;
        size_fill(cluster);
        return NULL;
    }
    if (placement != NULL && plan->context_tokens_max < context_wanted) {
        log_warn("the context is cut to what memory holds: tokens=%u model=%u",
                 plan->context_tokens_max, context_wanted);
    }
    if (placement != NULL && plan->step_rows_max < rows_wanted) {
        log_warn("steps are cut to what memory holds, prompts take longer: rows=%u default=%u",
                 plan->step_rows_max, rows_wanted);
    }
    return placement;
}

/* The layout that was asked for, or what comes next to it with fewer workers: groups of the same
 * size, then single workers in a pipeline, which need least memory, then any; the more workers the
 * better. */
static struct placement *plan_smaller(struct cluster *cluster, uint32_t count, struct error *err)
{
    struct planner_request *plan = &cluster->plan;
    uint32_t group_wanted = plan->group_size > 0 ? plan->group_size : 1;
    uint32_t drafts = plan->draft_layer_count;
    struct placement *placement = NULL;

    for (uint32_t used = count; used > 0 && placement == NULL; used--) {
        for (uint32_t turn = 0; turn <= used && placement == NULL; turn++) {
            uint32_t group = turn == 0 ? group_wanted : turn;

            if (used % group != 0 || used / group > plan->layer_count ||
                (turn > 0 && group == group_wanted)) {
                continue;
            }
            plan->worker_count = used;
            plan->stage_count = used / group;
            plan->group_size = group;
            plan->draft_layer_count = drafts;
            placement = plan_fit(cluster, err);
            if (placement == NULL && err->code != ERROR_LIMIT) {
                return NULL;
            }
        }
    }
    return placement;
}

static bool layout_is_whole(const struct cluster *cluster, uint32_t count)
{
    uint32_t group = cluster->config.group_size > 0 ? cluster->config.group_size : 1;

    return cluster->config.stage_count == 0 ||
           (uint64_t)cluster->config.stage_count * group <= count;
}

/* The same plan with workers in another order, if they keep more of their weights in it. */
static struct placement *plan_keeping(struct cluster *cluster, struct member **order,
                                      struct placement *placement)
{
    struct planner_request *plan = &cluster->plan;
    uint32_t count = plan->worker_count;
    const struct planner_worker *workers_before = plan->workers;
    const struct plan_holding **held =
        arena_new_array(&cluster->epoch_arena, const struct plan_holding *, count);
    uint64_t *keys = arena_new_array(&cluster->epoch_arena, uint64_t, count);
    struct planner_worker *workers =
        arena_new_array(&cluster->epoch_arena, struct planner_worker, count);
    struct placement *other;
    struct error err;

    for (uint32_t i = 0; i < count; i++) {
        held[i] = order[i]->holding;
    }
    if (!plan_keep_seats(plan, placement, held, keys)) {
        return placement;
    }
    for (uint32_t i = 0; i < count; i++) {
        workers[i] = plan->workers[i];
        workers[i].held_seat = keys[i];
    }
    plan->workers = workers;
    other = plan_try(cluster, &err);
    if (other != NULL &&
        plan_kept_bytes(plan, other, held) > plan_kept_bytes(plan, placement, held)) {
        return other;
    }
    plan->workers = workers_before;
    return placement;
}

/* The file's worker numbers become ids. */
static struct placement *placement_of_file(struct cluster *cluster, struct member **order)
{
    struct placement *placement = placement_copy(cluster->file_placement, &cluster->epoch_arena);

    placement->epoch = cluster->epoch;
    if (cluster->config.draft_mode != DRAFT_LAYER) {
        placement->draft_layer_count = 0; /* its rows of owners are the last ones */
    }
    (void)snprintf(placement->numerics_id, sizeof(placement->numerics_id), "%s",
                   cluster->plan.numerics_id);
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        for (uint32_t m = 0; m < placement->stages[i].member_count; m++) {
            placement->stages[i].workers[m] = order[placement->stages[i].workers[m]]->id;
        }
    }
    return placement;
}

/* A sequence that a lane cannot hold can never run: a smaller --kv-tokens is a smaller context, so
 * that answers end there instead of being refused. */
static void context_fit(struct placement *placement)
{
    uint64_t kv_tokens = (uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS;

    if (placement->context_tokens_max > kv_tokens) {
        log_warn("the context is cut to what the KV cache of a lane holds: tokens=%" PRIu64
                 " wanted=%u",
                 kv_tokens, placement->context_tokens_max);
        placement->context_tokens_max = (uint32_t)kv_tokens;
    }
}

struct placement *epoch_plan(struct cluster *cluster, struct member **order, uint32_t count,
                             struct error *err)
{
    bool from_file =
        cluster->file_placement != NULL && count >= placement_worker_count(cluster->file_placement);
    struct placement *placement;

    request_fill(cluster, order, count);
    if (from_file) {
        placement = placement_of_file(cluster, order);
    } else if (layout_is_whole(cluster, count)) {
        placement = plan_fit(cluster, err);
    } else {
        placement = plan_smaller(cluster, count, err);
    }
    if (placement == NULL && err->code == ERROR_LIMIT) {
        misfit_write(cluster, err);
    }
    if (placement != NULL && !from_file) {
        placement = plan_keeping(cluster, order, placement);
    }
    if (placement != NULL) {
        context_fit(placement);
    }
    return placement;
}
