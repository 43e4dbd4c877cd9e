/* plan_search.c - every layout, planned and timed.
 *
 * The context shrinks for all layouts together: a layout that fits with more context is not passed
 * over for one that is faster with less. Shorter steps are the last resort.
 */
#include "common/plan/plan_search.h"

#include "common/base/check.h"

static void layout_add(struct plan_outcome *outcome, const struct planner_request *whole,
                       uint32_t stages)
{
    uint32_t workers = whole->worker_count;
    struct plan_layout *layout = &outcome->layouts[outcome->layout_count++];

    *layout = (struct plan_layout){.stage_count = stages,
                                   .group_size = (workers + stages - 1) / stages,
                                   .even = workers % stages == 0,
                                   .request = *whole};
    layout->request.stage_count = stages;
    layout->request.group_size = layout->even ? layout->group_size : 0;
}

static void layout_take(struct plan_outcome *outcome, const struct planner_request *asked)
{
    outcome->layouts[outcome->layout_count++] =
        (struct plan_layout){.stage_count = asked->stage_count,
                             .group_size = asked->group_size,
                             .even = true,
                             .request = *asked};
}

static void layouts_list(const struct planner_request *request, struct arena *arena,
                         struct plan_outcome *outcome)
{
    uint32_t workers = request->worker_count;
    uint32_t most = workers < request->layer_count ? workers : request->layer_count;

    outcome->layouts = arena_new_array(arena, struct plan_layout, most);
    if (request->stage_count > 0 && request->group_size > 0) {
        layout_take(outcome, request);
        return;
    }
    for (uint32_t stages = most; stages > 0; stages--) {
        if (stages == most || workers % stages == 0) {
            layout_add(outcome, request, stages);
        }
    }
}

static bool is_better(const struct plan_layout *a, const struct plan_layout *b,
                      enum plan_objective objective)
{
    return objective == PLAN_LATENCY ? a->time.token_s < b->time.token_s
                                     : a->time.full_tokens_per_s > b->time.full_tokens_per_s;
}

/* False: the request makes no sense. */
static bool layout_try(const struct plan_search *search, struct plan_layout *layout,
                       struct arena *arena, struct error *err)
{
    struct plan_facts facts = search->facts;
    struct error misfit;

    layout->placement = planner_try(&layout->request, arena, &misfit);
    if (layout->placement == NULL) {
        *err = misfit;
        return misfit.code == ERROR_LIMIT;
    }
    facts.request = &layout->request;
    layout->time = plan_time_of(&facts, layout->placement);
    return true;
}

static void sizes_set(const struct plan_search *search, struct plan_outcome *outcome,
                      struct plan_layout *layout)
{
    layout->request.context_tokens_max = outcome->context_tokens;
    layout->request.step_rows_max = outcome->step_rows_max;
    search->size(search->size_context, &layout->request);
}

/* All layouts with the outcome's context and steps; chooses among those that fit. */
static bool layouts_try(const struct plan_search *search, struct plan_outcome *outcome,
                        struct arena *arena, struct error *err)
{
    outcome->fitting_count = 0;
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        struct plan_layout *layout = &outcome->layouts[i];

        sizes_set(search, outcome, layout);
        if (!layout_try(search, layout, arena, err)) {
            return false;
        }
        if (layout->placement == NULL) {
            continue;
        }
        if (outcome->fitting_count == 0 ||
            is_better(layout, &outcome->layouts[outcome->chosen], search->objective)) {
            outcome->chosen = i;
        }
        outcome->fitting_count++;
    }
    return true;
}

static void nearest_choose(const struct plan_search *search, struct plan_outcome *outcome,
                           struct arena *arena)
{
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        struct plan_layout *layout = &outcome->layouts[i];
        struct planner_refusal *refusal;

        sizes_set(search, outcome, layout);
        refusal = planner_refusal_of(&layout->request, arena);
        if (outcome->refusal == NULL || refusal->overload < outcome->refusal->overload) {
            outcome->refusal = refusal;
            outcome->chosen = i;
        }
    }
}

/* The next smaller sizes to try; false: there are none. */
static bool sizes_shrink(const struct plan_search *search, struct plan_outcome *outcome)
{
    if (search->context == PLAN_CONTEXT_SHRINKS &&
        outcome->context_tokens / 2 >= PLAN_CONTEXT_MIN) {
        outcome->context_tokens /= 2;
        return true;
    }
    outcome->context_tokens = search->facts.request->context_tokens_max;
    outcome->step_rows_max /= 2;
    return outcome->step_rows_max >= PLAN_STEP_ROWS_MIN;
}

struct plan_outcome *plan_search_run(const struct plan_search *search, struct arena *arena,
                                     struct error *err)
{
    const struct planner_request *request = search->facts.request;
    struct plan_outcome *outcome = arena_new(arena, struct plan_outcome);

    if (request->worker_count == 0 || request->layer_count == 0) {
        (void)error_set(err, ERROR_USAGE, "a plan needs workers and layers");
        return NULL;
    }
    layouts_list(request, arena, outcome);
    outcome->context_tokens = request->context_tokens_max;
    outcome->step_rows_max = request->step_rows_max;
    outcome->step_rows_wanted = request->step_rows_max;
    do {
        if (!layouts_try(search, outcome, arena, err)) {
            return NULL;
        }
        if (outcome->fitting_count > 0) {
            return outcome;
        }
    } while (sizes_shrink(search, outcome));
    outcome->context_tokens = request->context_tokens_max;
    outcome->step_rows_max = request->step_rows_max;
    nearest_choose(search, outcome, arena);
    return outcome;
}
