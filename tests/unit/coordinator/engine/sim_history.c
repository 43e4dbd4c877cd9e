/* sim_history.c - what happens in a random history, and when. */
#include "tests/unit/coordinator/engine/sim_history.h"

#include <inttypes.h>
#include <string.h>

#define MS 1000000ll

struct history {
    struct sim sim;
    uint32_t member_counts[SIM_STAGES_MAX];
    uint32_t arrivals_left;
    int64_t arrival_ns;
    int64_t arrival_gap_ns_max;
    uint32_t prompt_max;
    uint32_t tokens_max;
    uint32_t shared_percent; /* of requests that begin with a document */
    uint32_t batch_percent;
    uint32_t wants_percent;
    uint32_t cancel_percent;
    uint32_t cancels_left; /* that are to come, of the clients so far */
    int64_t fail_ns;       /* INT64_MAX: never */
    uint32_t losses_left;  /* of a placement */
    int64_t loss_ns;       /* the next one, or the return from it; INT64_MAX: none */
    bool breaks;
    uint32_t breaks_left; /* frames that get lost */
    int64_t break_ns;     /* when the next does; INT64_MAX: never */
    int64_t retry_ns;     /* when that is noticed; INT64_MAX: by the deadline */
    bool is_broken;
    uint32_t repair_percent; /* of attempts that go well */

    uint32_t flood_target; /* the client that it must not starve; UINT32_MAX: no flood */
    bool flood_began;
};

static uint32_t kv_blocks_draw(struct sim_random *random)
{
    switch (sim_random_u32(random, 0, 3)) {
    case 0:
        return sim_random_u32(random, 1, 5); /* the least that any request needs */
    case 1:
    case 2:
        return sim_random_u32(random, 3, 9);
    default:
        return sim_random_u32(random, 6, 40);
    }
}

static struct scheduler_config config_draw(struct history *history, struct sim_random *random)
{
    struct scheduler_config config = {
        .lane_count = sim_random_chance(random, 50) ? 1 : sim_random_u32(random, 2, 3),
        .stage_count = sim_random_u32(random, 1, sim_random_chance(random, 60) ? 2 : 4),
        .slot_count = sim_random_u32(random, 1, 8),
        .kv_block_count = kv_blocks_draw(random),
        .context_tokens_max = sim_random_chance(random, 10) ? sim_random_u32(random, 1, 40)
                                                            : sim_random_u32(random, 70, 350),
        .step_rows_max = sim_random_chance(random, 20) ? sim_random_u32(random, 1, 9)
                                                       : sim_random_u32(random, 10, 300),
        .steps_in_flight_max = sim_random_u32(random, 1, 6),
        .batch_max = sim_random_chance(random, 30) ? sim_random_u32(random, 1, 3) : 0,
        .queue_max = sim_random_u32(random, 1, 30),
        .logits_rows_max = sim_random_u32(random, 0, 5),
        .epoch = sim_random_u64(random),
        .prefix_cache = sim_random_chance(random, 75),
        .max_step_ns = sim_random_chance(random, 40)
                           ? (int64_t)sim_random_range(random, 1, 6 * (uint64_t)MS)
                           : 0,
        .draft_mode = (enum draft_mode)sim_random_u32(random, 0, 2),
        .draft_max = sim_random_u32(random, 1, 5),
        .preempt_tokens = sim_random_chance(random, 10) ? sim_random_u32(random, 4, 60) : 0,
        .batch_age_ns = (int64_t)sim_random_range(random, MS, 100 * (uint64_t)MS),
    };

    if (sim_random_chance(random, 25)) {
        for (uint32_t i = 0; i < config.stage_count; i++) {
            history->member_counts[i] = sim_random_u32(random, 1, config.lane_count);
        }
        config.member_counts = history->member_counts;
    }
    return config;
}

static struct sim_timing timing_draw(struct sim_random *random, uint32_t stage_count)
{
    struct sim_timing timing = {
        .hop_ns = (int64_t)sim_random_range(random, 0, 200000),
        .turn_ns = (int64_t)sim_random_range(random, 0, 1000000),
        .jitter_percent = sim_random_u32(random, 0, 50),
        .report_delay_ns_max =
            sim_random_chance(random, 50) ? (int64_t)sim_random_range(random, 0, 8000000) : 0,
    };

    for (uint32_t i = 0; i < stage_count; i++) {
        timing.stage_ns[i] = (int64_t)sim_random_range(random, 0, 2000000);
        timing.row_ns[i] = (int64_t)sim_random_range(random, 0, 50000);
    }
    return timing;
}

static void history_init(struct history *history, uint64_t seed)
{
    struct sim_random random = sim_random_from(seed ^ 0x5eed);
    struct scheduler_config config = config_draw(history, &random);
    struct sim_timing timing = timing_draw(&random, config.stage_count);

    sim_init(&history->sim, seed, &config, &timing);
    history->sim.alphabet = sim_random_u32(&random, 2, sim_random_chance(&random, 50) ? 4 : 1000);
    history->sim.draft_right_percent = sim_random_u32(&random, 0, 100);
    history->arrivals_left = sim_random_u32(&random, 12, 28);
    history->arrival_ns = 0;
    history->arrival_gap_ns_max =
        sim_random_chance(&random, 30) ? 0 : (int64_t)sim_random_range(&random, 0, 10000000);
    history->prompt_max = sim_random_chance(&random, 30) ? 20 : 300;
    history->tokens_max = sim_random_chance(&random, 70) ? 20 : 130;
    history->shared_percent = sim_random_chance(&random, 70) ? 80 : 0;
    history->batch_percent = sim_random_chance(&random, 50) ? sim_random_u32(&random, 0, 100) : 0;
    history->wants_percent = sim_random_chance(&random, 50) ? sim_random_u32(&random, 0, 60) : 0;
    history->cancel_percent = sim_random_chance(&random, 50) ? sim_random_u32(&random, 0, 60) : 0;
    history->fail_ns =
        sim_random_chance(&random, 5) ? (int64_t)sim_random_range(&random, 0, 80000000) : INT64_MAX;
    history->losses_left = sim_random_chance(&random, 40) ? sim_random_u32(&random, 1, 5) : 0;
    history->loss_ns = INT64_MAX;
    if (history->losses_left > 0) {
        history->loss_ns = (int64_t)sim_random_range(&random, 0, 60 * (uint64_t)MS);
    }
    history->break_ns = INT64_MAX;
    history->retry_ns = INT64_MAX;
    if (sim_random_chance(&random, 30)) {
        history->breaks = true;
        history->breaks_left = sim_random_u32(&random, 1, 5);
        history->break_ns = (int64_t)sim_random_range(&random, 0, 40000000);
        history->repair_percent = sim_random_chance(&random, 70) ? 100 : 60;
        history->sim.timing.duplicate_percent = sim_random_u32(&random, 0, 20);
        history->sim.timing.report_delay_ns_max = 0; /* a worker's answers come in step order */
    }
    history->flood_target = UINT32_MAX;
    history->flood_began =
        !sim_random_chance(&random, 4) || history->fail_ns < INT64_MAX || history->losses_left > 0;
}

/* --- arrivals --- */

static struct sim_request request_draw(struct history *history)
{
    struct sim_random *random = &history->sim.random;
    uint32_t prompt_max = sim_random_chance(random, 3) ? 360 : history->prompt_max;
    struct sim_request request = {
        .prompt_count = sim_random_u32(random, sim_random_chance(random, 99), prompt_max),
        .document = sim_random_u32(random, 0, SIM_DOCUMENTS - 1),
        .tokens_max =
            sim_random_chance(random, 5) ? 0 : sim_random_u32(random, 1, history->tokens_max),
        .ignore_eos = sim_random_chance(random, 50),
        .request_class =
            sim_random_chance(random, history->batch_percent) ? REQUEST_BATCH : REQUEST_INTERACTIVE,
        .bias_token = sim_random_chance(random, 20) ? sim_random_u32(random, 1, 9) : 0,
        .repetition_penalty = sim_random_chance(random, 5) ? 1.1f : 0,
        .seed = sim_random_u32(random, 0, 3),
    };

    if (sim_random_chance(random, history->shared_percent)) {
        request.shared_count = sim_random_chance(random, 50)
                                   ? request.prompt_count
                                   : sim_random_u32(random, 0, request.prompt_count);
    }
    if (sim_random_chance(random, history->wants_percent)) {
        request.wants = sim_random_u32(random, 0, 15) << 1;
        request.prompt_logprobs = sim_random_u32(random, 0, 2);
    }
    return request;
}

static void arrive(struct history *history)
{
    struct sim *sim = &history->sim;
    struct sim_random *random = &sim->random;
    struct sim_request request = request_draw(history);
    uint32_t id = sim->client_count;

    sim->now_ns = history->arrival_ns > sim->now_ns ? history->arrival_ns : sim->now_ns;
    if (sim_submit(sim, &request) && sim_random_chance(random, history->cancel_percent)) {
        sim->clients[id].cancel_ns = sim->now_ns + (int64_t)sim_random_range(random, 0, 40000000);
        history->cancels_left++;
    }
    history->arrivals_left--;
    history->arrival_ns =
        sim->now_ns + (int64_t)sim_random_range(random, 0, (uint64_t)history->arrival_gap_ns_max);
}

/* --- floods --- */

/* The request that a flood must not starve. */
static void flood_begin(struct history *history)
{
    struct sim *sim = &history->sim;
    struct sim_request request = request_draw(history);
    bool batch = sim_random_chance(&sim->random, 50);

    history->flood_began = true;
    request.request_class = batch ? REQUEST_BATCH : REQUEST_INTERACTIVE;
    history->flood_target = sim->client_count;
    if (!sim_submit(sim, &request)) {
        history->flood_target = UINT32_MAX;
    }
}

static void flood_go_on(struct history *history)
{
    struct sim *sim = &history->sim;
    const struct sim_client *target = &sim->clients[history->flood_target];
    struct scheduler_stats stats;

    scheduler_stats(sim->scheduler, &stats);
    if (target->finished) {
        history->flood_target = UINT32_MAX;
        return;
    }
    if (sim->step_last > target->ready_step + sim_steps_max(sim)) {
        sim_fail(sim, "sequence %" PRIu64 " starves in a flood: no new row for %" PRIu64 " steps",
                 target->id, sim->step_last - target->ready_step);
    }
    while (stats.waiting < 2 && stats.waiting < sim->config.queue_max) {
        struct sim_request request = {
            .prompt_count = sim_random_u32(&sim->random, 1, 8),
            .tokens_max = sim_random_u32(&sim->random, 1, 8),
        };

        if (!sim_submit(sim, &request)) {
            return;
        }
        stats.waiting++;
    }
}

/* --- events --- */

/* The client whose cancel is due first. */
static uint32_t next_cancel(const struct history *history)
{
    const struct sim *sim = &history->sim;
    uint32_t first = UINT32_MAX;

    for (uint32_t i = 0; history->cancels_left > 0 && i < sim->client_count; i++) {
        if (sim->clients[i].cancel_ns < INT64_MAX &&
            (first == UINT32_MAX || sim->clients[i].cancel_ns < sim->clients[first].cancel_ns)) {
            first = i;
        }
    }
    return first;
}

static void cancel(struct history *history, uint32_t client)
{
    struct sim *sim = &history->sim;
    int64_t when = sim->clients[client].cancel_ns;

    sim->now_ns = when > sim->now_ns ? when : sim->now_ns;
    sim->clients[client].cancel_ns = INT64_MAX;
    history->cancels_left--;
    sim_cancel(sim, client);
    sim_settle(sim);
}

/* --- what is lost between the workers --- */

/* When the next loss happens, or is noticed. */
static int64_t trouble_ns(const struct history *history)
{
    if (history->sim.suspended) {
        return INT64_MAX;
    }
    if (!history->is_broken) {
        return history->break_ns;
    }
    return history->retry_ns < INT64_MAX ? history->retry_ns
                                         : scheduler_deadline_ns(history->sim.scheduler);
}

static void next_break_draw(struct history *history)
{
    struct sim *sim = &history->sim;

    history->is_broken = false;
    history->break_ns = history->breaks_left > 0
                            ? sim->now_ns + (int64_t)sim_random_range(&sim->random, 0, 20000000)
                            : INT64_MAX;
}

static void lose_frame(struct history *history)
{
    struct sim *sim = &history->sim;
    bool at_once = sim_random_chance(&sim->random, 60);

    history->breaks_left--;
    if (!sim_break(sim, sim_random_u32(&sim->random, 0, sim->config.stage_count - 1))) {
        next_break_draw(history);
        return;
    }
    history->is_broken = true;
    history->retry_ns =
        at_once ? sim->now_ns + (int64_t)sim_random_range(&sim->random, 0, 2000000) : INT64_MAX;
}

/* What was broken goes with it. */
static void placement_lose(struct history *history)
{
    struct sim *sim = &history->sim;

    sim_suspend(sim);
    history->retry_ns = INT64_MAX;
    next_break_draw(history);
    history->loss_ns = sim->now_ns + (int64_t)sim_random_range(&sim->random, 0, 20 * (uint64_t)MS);
}

/* A placement is lost, or another one found: of any shape, and mostly with room for what runs. */
static void loss_turn(struct history *history)
{
    struct sim *sim = &history->sim;
    struct sim_random *random = &sim->random;
    struct scheduler_config config, before = sim->config;
    struct sim_timing timing;

    sim->now_ns = history->loss_ns > sim->now_ns ? history->loss_ns : sim->now_ns;
    history->loss_ns = sim->now_ns + (int64_t)sim_random_range(random, 0, 20 * (uint64_t)MS);
    if (!sim->suspended) {
        placement_lose(history);
        return;
    }
    config = config_draw(history, random);
    timing = timing_draw(random, config.stage_count);
    if (history->breaks) {
        timing.report_delay_ns_max = 0;
        timing.duplicate_percent = sim->timing.duplicate_percent;
    }
    config.prefix_cache = before.prefix_cache;
    config.queue_max = before.queue_max;
    if (sim_random_chance(random, 80) ||
        sim->config.context_tokens_max > config.context_tokens_max) {
        config.context_tokens_max = before.context_tokens_max;
        config.kv_block_count = config.kv_block_count > before.kv_block_count
                                    ? config.kv_block_count
                                    : before.kv_block_count;
    }
    sim_resume(sim, &config, &timing);
    history->loss_ns = --history->losses_left > 0 ? history->loss_ns : INT64_MAX;
}

/* A second attempt may fail as the first; in the end the placement is given up. */
static void try_again(struct history *history)
{
    struct sim *sim = &history->sim;
    bool repaired = sim_random_chance(&sim->random, history->repair_percent);

    if (!sim_retry(sim, repaired)) {
        history->losses_left += history->losses_left == 0;
        placement_lose(history);
        return;
    }
    history->retry_ns = INT64_MAX;
    if (repaired) {
        next_break_draw(history);
    }
}

static void trouble(struct history *history)
{
    struct sim *sim = &history->sim;
    int64_t when_ns = trouble_ns(history);

    sim->now_ns = when_ns > sim->now_ns ? when_ns : sim->now_ns;
    if (history->is_broken) {
        try_again(history);
    } else {
        lose_frame(history);
    }
}

/* One event, the earliest; false when there is none left. */
static bool history_turn(struct history *history)
{
    struct sim *sim = &history->sim;
    uint32_t client = next_cancel(history);
    int64_t cancel_ns = client != UINT32_MAX ? sim->clients[client].cancel_ns : INT64_MAX;
    int64_t arrival_ns = history->arrivals_left > 0 ? history->arrival_ns : INT64_MAX;
    int64_t report_ns = sim_next_ns(sim);
    int64_t trouble_at_ns = trouble_ns(history);

    if (report_ns == INT64_MAX && arrival_ns == INT64_MAX && cancel_ns == INT64_MAX &&
        !sim->suspended && (trouble_at_ns == INT64_MAX || !history->is_broken)) {
        return false;
    }
    if (!history->flood_began && history->arrivals_left < 3) {
        flood_begin(history);
    }
    if (history->flood_target != UINT32_MAX) {
        flood_go_on(history);
    }
    if (history->loss_ns < INT64_MAX && history->loss_ns <= report_ns &&
        history->loss_ns <= arrival_ns && history->loss_ns <= cancel_ns &&
        history->loss_ns <= trouble_at_ns) {
        loss_turn(history);
    } else if (trouble_at_ns < report_ns && trouble_at_ns < arrival_ns &&
               trouble_at_ns < cancel_ns) {
        trouble(history);
    } else if (history->fail_ns < report_ns && history->fail_ns < arrival_ns) {
        sim->now_ns = history->fail_ns > sim->now_ns ? history->fail_ns : sim->now_ns;
        history->fail_ns = INT64_MAX;
        sim_fail_all(sim);
    } else if (arrival_ns <= report_ns && arrival_ns <= cancel_ns) {
        arrive(history);
        sim_settle(sim);
    } else if (cancel_ns <= report_ns) {
        cancel(history, client);
    } else {
        sim_report(sim);
    }
    return true;
}

struct history_counts sim_history_run(uint64_t seed)
{
    struct history history = {.flood_target = UINT32_MAX};
    struct history_counts counts = {0};

    history_init(&history, seed);
    counts.flood = !history.flood_began;
    counts.losses = history.losses_left;
    while (history_turn(&history)) {
        counts.events++;
    }
    counts.late_reports = history.sim.late_reports;
    if (history.sim.live_count > 0) {
        sim_fail(&history.sim, "%u sequences never finished", history.sim.live_count);
    }
    scheduler_stats(history.sim.scheduler, &counts.stats);
    sim_deinit(&history.sim);
    return counts;
}
