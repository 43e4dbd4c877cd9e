/* plan_time.c - bytes over bandwidth, messages over latency.
 *
 * Full load has as many steps under way as stages, so that each stage works on one of them; the
 * rate is what the slowest stage lets through, or what a step's whole way allows. Within a group
 * the exchange stands between a layer's parts and cannot hide; between stages it can, so a hop
 * counts against the rate only where it takes longer than a stage.
 */
#include "common/plan/plan_time.h"

#include "common/base/check.h"

#include <math.h>

/* A stage under a placement, with its workers' numbers. */
struct stage_view {
    const struct plan_facts *facts;
    const struct placement *placement;
    uint32_t stage;
    uint32_t moe_layers;
    double common_bytes; /* of each member */
};

static uint32_t worker_index(const struct plan_facts *facts, uint32_t id)
{
    for (uint32_t i = 0; i < facts->request->worker_count; i++) {
        if (facts->request->workers[i].id == id) {
            return i;
        }
    }
    ASSERT(false);
    return 0;
}

static struct stage_view view_of(const struct plan_facts *facts, const struct placement *placement,
                                 uint32_t number)
{
    const struct placement_stage *stage = &placement->stages[number];
    struct stage_view view = {.facts = facts, .placement = placement, .stage = number};

    for (uint32_t layer = stage->layer_begin; layer < stage->layer_end; layer++) {
        view.common_bytes += (double)facts->request->layers[layer].common_bytes;
        view.moe_layers += facts->request->layers[layer].expert_bytes > 0;
    }
    if (stage->layer_end == placement->layer_count) {
        view.common_bytes += (double)facts->request->head_bytes;
    }
    return view;
}

static const struct placement_stage *stage_of(const struct stage_view *view)
{
    return &view->placement->stages[view->stage];
}

static uint32_t sequence_tokens(const struct placement *placement)
{
    return placement->context_tokens_max < PLAN_SEQUENCE_TOKENS ? placement->context_tokens_max
                                                                : PLAN_SEQUENCE_TOKENS;
}

/* The share of its routed experts that a step of `rows` makes a worker read. */
static double visited_share(const struct stage_view *view, uint32_t rows)
{
    double experts = view->placement->expert_count;

    return experts > 0 ? 1 - pow(1 - view->facts->chosen_count / experts, rows) : 0;
}

/* In each layer the group waits for the member of which most is asked. Visits to a member's experts
 * are about binomial; the largest of g such numbers lies sqrt(2 ln g) deviations above the mean. */
static double busiest_factor(const struct stage_view *view, double share)
{
    double members = stage_of(view)->member_count;
    double own = view->placement->expert_count / members;
    double mean = own * share;

    if (members < 2 || mean <= 0) {
        return 1;
    }
    return fmin(own, mean + sqrt(2 * mean * (1 - share) * log(members))) / mean;
}

/* Rows of a step go round the lanes; these are the first member's, who has most. */
static uint32_t member_rows(const struct stage_view *view, uint32_t member, uint32_t rows)
{
    uint32_t count = stage_of(view)->member_count;

    return rows / count + (member < rows % count ? 1 : 0);
}

static double member_read_s(const struct stage_view *view, uint32_t member, uint32_t rows)
{
    const struct planner_request *request = view->facts->request;
    const struct placement_stage *stage = stage_of(view);
    struct planner_share share = planner_share_of(request, view->placement, stage->workers[member]);
    const struct planner_worker *worker =
        &request->workers[worker_index(view->facts, stage->workers[member])];
    double layers = stage->layer_end - stage->layer_begin;
    double own_rows = member_rows(view, member, rows);
    double experts = (double)share.weight_bytes - view->common_bytes -
                     (view->stage == 0 ? (double)request->embedding_bytes : 0);
    double visited = visited_share(view, rows);
    double bytes =
        visited * busiest_factor(view, visited) * experts +
        own_rows * sequence_tokens(view->placement) * (double)request->kv_entry_bytes * layers;

    return (bytes + (own_rows > 0 ? view->common_bytes : 0)) / worker->read_bytes_per_s;
}

static struct plan_port path_between(const struct plan_facts *facts, uint32_t from, uint32_t to)
{
    struct plan_port a = facts->ports[worker_index(facts, from)];
    const struct plan_port *b = &facts->ports[worker_index(facts, to)];

    if (a.machine == b->machine) {
        a.latency_s = PLAN_LOCAL_LATENCY_S;
        a.bytes_per_s = PLAN_LOCAL_BYTES_PER_S;
        return a;
    }
    a.latency_s = fmax(a.latency_s, b->latency_s);
    a.bytes_per_s = fmin(a.bytes_per_s, b->bytes_per_s);
    return a;
}

/* The slowest path from the first member, who stands for all. */
static struct plan_port group_path(const struct stage_view *view)
{
    const struct placement_stage *stage = stage_of(view);
    struct plan_port slowest = path_between(view->facts, stage->workers[0], stage->workers[1]);

    for (uint32_t m = 2; m < stage->member_count; m++) {
        struct plan_port path = path_between(view->facts, stage->workers[0], stage->workers[m]);

        slowest.latency_s = fmax(slowest.latency_s, path.latency_s);
        slowest.bytes_per_s = fmin(slowest.bytes_per_s, path.bytes_per_s);
    }
    return slowest;
}

/* A row goes to each other member that owns experts of it, at most to as many as its experts come
 * back from; its parts come back from where they are, evenly spread. */
static double exchange_s(const struct stage_view *view, uint32_t rows)
{
    double members = stage_of(view)->member_count;
    double parts = view->facts->parts_max;
    double row_bytes = (double)view->facts->hidden * sizeof(float);
    double row_count = member_rows(view, 0, rows);
    struct plan_port path;

    if (members < 2 || view->moe_layers == 0) {
        return 0;
    }
    path = group_path(view);
    return view->moe_layers *
           (2 * path.latency_s + row_count * row_bytes *
                                     (fmin(members - 1, parts) + parts * (members - 1) / members) /
                                     path.bytes_per_s);
}

/* To the next stage; behind the last, to the coordinator and back with the next step. */
static double hop_s(const struct stage_view *view, uint32_t rows)
{
    const struct placement *placement = view->placement;
    double bytes = (double)member_rows(view, 0, rows) * view->facts->hidden * sizeof(float);
    double slowest = 0;

    if (view->stage + 1 == placement->stage_count) {
        uint32_t worker = placement_lane_worker(placement, view->stage, 0);

        return 2 * view->facts->ports[worker_index(view->facts, worker)].latency_s;
    }
    for (uint32_t lane = 0; lane < placement->lane_count; lane++) {
        uint32_t from = placement_lane_worker(placement, view->stage, lane);
        uint32_t to = placement_lane_worker(placement, view->stage + 1, lane);
        struct plan_port path = path_between(view->facts, from, to);

        slowest = fmax(slowest, path.latency_s + bytes / path.bytes_per_s);
    }
    return slowest;
}

static struct plan_parts stage_parts(const struct stage_view *view, uint32_t rows)
{
    struct plan_parts parts = {.exchange_s = exchange_s(view, rows), .hop_s = hop_s(view, rows)};

    for (uint32_t member = 0; member < stage_of(view)->member_count; member++) {
        parts.read_s = fmax(parts.read_s, member_read_s(view, member, rows));
    }
    return parts;
}

/* Its own time at work; a hop may go on beside it. */
static double stage_period_s(const struct plan_parts *parts)
{
    return fmax(parts->read_s + parts->exchange_s, parts->hop_s);
}

static double parts_sum(const struct plan_parts *parts)
{
    return parts->read_s + parts->exchange_s + parts->hop_s;
}

static uint32_t sequences_at_once(const struct placement *placement)
{
    uint64_t kv_tokens = (uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS;
    uint64_t fitting = kv_tokens / sequence_tokens(placement);
    uint64_t lane = fitting < placement->slot_count ? fitting : placement->slot_count;

    return (uint32_t)(lane > 0 ? lane : 1) * placement->lane_count;
}

static void full_load(const struct plan_facts *facts, const struct placement *placement,
                      struct plan_time *time)
{
    uint32_t rows;
    double way_s = 0;
    double period_s = 0;

    time->sequences = sequences_at_once(placement);
    rows = time->sequences / placement->stage_count;
    rows = rows > 0 ? rows : 1;
    rows = rows < placement->step_rows_max ? rows : placement->step_rows_max;
    time->step_rows = rows;
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        struct stage_view view = view_of(facts, placement, i);
        struct plan_parts parts = stage_parts(&view, rows);

        way_s += parts_sum(&parts);
        if (stage_period_s(&parts) > period_s) {
            period_s = stage_period_s(&parts);
            time->full = parts;
            time->slowest_stage = i;
        }
    }
    time->full_tokens_per_s = fmin(rows / period_s, time->sequences / way_s);
}

struct plan_time plan_time_of(const struct plan_facts *facts, const struct placement *placement)
{
    struct plan_time time = {0};
    struct placement main_layers = *placement;

    main_layers.draft_layer_count = 0;
    placement = &main_layers;
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        struct stage_view view = view_of(facts, placement, i);
        struct plan_parts parts = stage_parts(&view, 1);

        time.alone.read_s += parts.read_s;
        time.alone.exchange_s += parts.exchange_s;
        time.alone.hop_s += parts.hop_s;
    }
    time.token_s = parts_sum(&time.alone);
    time.alone_tokens_per_s = 1 / time.token_s;
    full_load(facts, placement, &time);
    return time;
}

enum plan_limit plan_limit_of(const struct plan_parts *parts)
{
    if (parts->read_s >= parts->exchange_s && parts->read_s >= parts->hop_s) {
        return PLAN_LIMIT_READ;
    }
    return parts->exchange_s >= parts->hop_s ? PLAN_LIMIT_EXCHANGE : PLAN_LIMIT_HOPS;
}

const char *plan_limit_name(enum plan_limit limit)
{
    static const char *const names[] = {[PLAN_LIMIT_READ] = "reading memory",
                                        [PLAN_LIMIT_EXCHANGE] = "the exchange in stage groups",
                                        [PLAN_LIMIT_HOPS] = "messages between stages"};

    ASSERT((size_t)limit < ARRAY_LENGTH(names));
    return names[limit];
}
