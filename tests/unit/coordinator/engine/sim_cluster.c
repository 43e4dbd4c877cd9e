/* sim_cluster.c - workers, clients and time around the scheduler, all virtual. */
#include "tests/unit/coordinator/engine/sim_cluster.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BLOCK PLAN_BLOCK_TOKENS

void (*sim_on_failure)(const char *text);

void sim_fail(const struct sim *sim, const char *format, ...)
{
    const struct scheduler_config *config = &sim->config;
    char reason[300];
    char text[700];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    (void)snprintf(
        text, sizeof(text),
        "%s (at %" PRId64 " ns; %u lanes of %u slots and %u blocks, %u stages, context "
        "%u, steps %u of %u rows, batch %u, %s, drafts %d x %u; replay: SHOAL_SEED=%" PRIu64
        " ctest -R engine.scheduler_sim --output-on-failure)",
        reason, sim->now_ns, config->lane_count, config->slot_count, config->kv_block_count,
        config->stage_count, config->context_tokens_max, config->steps_in_flight_max,
        config->step_rows_max, config->batch_max,
        config->prefix_cache ? "prefix cache" : "no prefix cache", (int)config->draft_mode,
        config->draft_max, sim->seed);
    if (sim_on_failure != NULL) {
        sim_on_failure(text);
    }
    fail_msg("%s", text);
}

/* The configuration, timing and empty memory of a placement. */
static void placement_take(struct sim *sim, const struct scheduler_config *config,
                           const struct sim_timing *timing)
{
    static const uint32_t eos[] = {SIM_EOS};

    sim->config = *config;
    sim->config.eos_count = 1;
    sim->config.eos_ids = eos;
    sim->timing = *timing;
    for (uint32_t i = 0; i < config->stage_count; i++) {
        sim->member_counts[i] =
            config->member_counts != NULL ? config->member_counts[i] : config->lane_count;
        sim->stage_free_ns[i] = sim->now_ns;
    }
    sim_cache_init(sim);
}

void sim_init(struct sim *sim, uint64_t seed, const struct scheduler_config *config,
              const struct sim_timing *timing)
{
    memset(sim, 0, sizeof(*sim));
    sim->seed = seed;
    sim->random = sim_random_from(seed);
    placement_take(sim, config, timing);
    sim->alphabet = 1u << 20;
    sim->scheduler = scheduler_create(&sim->config);
    sim->client_capacity = 16;
    sim->clients = mem_new_array(struct sim_client, sim->client_capacity);
    sim->report_capacity = 64;
    sim->reports = mem_new_array(struct sim_report, sim->report_capacity);
    sim->window_end_ns = INT64_MAX;
    sim->decode_rows_min = UINT32_MAX;
    sim->broken_stage = SIM_STAGES_MAX;
    sim->check = true;
}

static void report_free(struct sim_report *report)
{
    for (uint32_t i = 0; i < report->report.proposal_count; i++) {
        mem_free((void *)(uintptr_t)report->report.proposals[i].tokens);
    }
    mem_free((void *)(uintptr_t)report->report.proposals);
    mem_free((void *)(uintptr_t)report->report.samples);
}

void sim_deinit(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->report_count; i++) {
        report_free(&sim->reports[i]);
    }
    for (uint32_t i = 0; i < sim->client_count; i++) {
        mem_free(sim->clients[i].tokens);
        mem_free(sim->clients[i].chain);
    }
    scheduler_destroy(sim->scheduler);
    mem_free(sim->clients);
    mem_free(sim->reports);
    sim_cache_deinit(sim);
}

/* The heap of reports. */

static bool report_before(const struct sim_report *a, const struct sim_report *b)
{
    return a->when_ns != b->when_ns ? a->when_ns < b->when_ns : a->order < b->order;
}

static void reports_swap(struct sim *sim, uint32_t a, uint32_t b)
{
    struct sim_report report = sim->reports[a];

    sim->reports[a] = sim->reports[b];
    sim->reports[b] = report;
}

static void reports_push(struct sim *sim, int64_t when_ns, const struct step_report *report)
{
    uint32_t place = sim->report_count++;

    if (sim->report_count > sim->report_capacity) {
        sim->report_capacity *= 2;
        sim->reports = mem_resize(sim->reports, sim->report_capacity, sizeof(*sim->reports));
    }
    sim->reports[place] =
        (struct sim_report){.when_ns = when_ns, .order = sim->report_order++, .report = *report};
    while (place > 0 && report_before(&sim->reports[place], &sim->reports[(place - 1) / 2])) {
        reports_swap(sim, place, (place - 1) / 2);
        place = (place - 1) / 2;
    }
}

static struct sim_report reports_pop(struct sim *sim)
{
    struct sim_report first = sim->reports[0];
    uint32_t place = 0;

    sim->reports[0] = sim->reports[--sim->report_count];
    for (;;) {
        uint32_t least = place;

        for (uint32_t child = 2 * place + 1; child <= 2 * place + 2; child++) {
            if (child < sim->report_count &&
                report_before(&sim->reports[child], &sim->reports[least])) {
                least = child;
            }
        }
        if (least == place) {
            return first;
        }
        reports_swap(sim, place, least);
        place = least;
    }
}

/* Workers. */

static uint32_t lane_rows_max(const struct sim *sim, const struct step *step)
{
    uint32_t most = 0;

    for (uint32_t lane = 0; lane < sim->config.lane_count; lane++) {
        uint32_t rows = step_lane_row_count(step, lane);

        most = rows > most ? rows : most;
    }
    return most;
}

static void busy_add(struct sim *sim, uint32_t stage, int64_t begin_ns, int64_t end_ns)
{
    begin_ns = begin_ns > sim->window_begin_ns ? begin_ns : sim->window_begin_ns;
    end_ns = end_ns < sim->window_end_ns ? end_ns : sim->window_end_ns;
    if (end_ns > begin_ns) {
        sim->busy_ns[stage] += end_ns - begin_ns;
    }
}

/* What the draft layer guesses to follow the entry's last sample that stands. */
static void proposal_make(struct sim *sim, const struct step_entry *entry,
                          const struct step_sample *samples, struct step_proposal *proposal)
{
    uint32_t first = entry->position + entry->token_count - entry->draft_count;
    uint32_t *tokens = mem_new_array(uint32_t, entry->propose_max);
    uint32_t stands = 0;
    uint64_t chain;

    while (stands < entry->draft_count &&
           samples[stands].token == entry->tokens[first - entry->position + stands]) {
        stands++;
    }
    chain = sim_chain(sim_cache_at(sim, entry, first - 1 + stands), samples[stands].token, true);
    proposal->count = sim_random_u32(&sim->random, 0, 3) > 0
                          ? entry->propose_max
                          : sim_random_u32(&sim->random, 0, entry->propose_max);
    for (uint32_t i = 0; i < proposal->count; i++) {
        tokens[i] = sim_sample(sim, chain, &entry->sampling);
        if (!sim_random_chance(&sim->random, sim->draft_right_percent)) {
            tokens[i] = sim_own_token(sim, sim_random_u64(&sim->random), 0);
        }
        chain = sim_chain(chain, tokens[i], true);
    }
    proposal->tokens = tokens;
}

/* Samples of the lanes that a member of the last stage serves, and proposals to follow them. */
static void samples_make(struct sim *sim, const struct step *step, struct step_report *report)
{
    struct step_sample *samples = mem_new_array(struct step_sample, step_row_count(step));
    struct step_proposal *proposals = mem_new_array(struct step_proposal, step->entry_count);

    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        struct step_sample *first = &samples[report->sample_count];
        uint32_t row = entry->position + entry->token_count - entry->draft_count - 1;

        if (entry->lane % sim->member_counts[report->stage] != report->member ||
            (entry->wants & WANT_SAMPLE) == 0) {
            continue;
        }
        for (uint32_t j = 0; j <= entry->draft_count; j++) {
            samples[report->sample_count++] = (struct step_sample){
                .entry = i,
                .index = j,
                .token = sim_sample(sim, sim_cache_at(sim, entry, row + j), &entry->sampling)};
        }
        if (entry->propose_max > 0) {
            proposals[report->proposal_count].entry = i;
            proposal_make(sim, entry, first, &proposals[report->proposal_count++]);
        }
    }
    report->samples = samples;
    report->proposals = proposals;
}

static void answers_make(struct sim *sim, const struct step *step, uint32_t stage, int64_t end_ns,
                         int64_t compute_ns)
{
    for (uint32_t member = 0; member < sim->member_counts[stage]; member++) {
        int64_t delay =
            (int64_t)sim_random_range(&sim->random, 0, (uint64_t)sim->timing.report_delay_ns_max);
        struct step_report report = {.step = step->number,
                                     .attempt = step->attempt,
                                     .stage = stage,
                                     .member = member,
                                     .compute_ns = compute_ns};

        if (stage >= sim->broken_stage && step->number >= sim->broken_step) {
            continue;
        }
        if (stage + 1 == sim->config.stage_count) {
            samples_make(sim, step, &report);
        }
        reports_push(sim, end_ns + sim->timing.turn_ns / 2 + delay, &report);
        if (report.samples == NULL &&
            sim_random_chance(&sim->random, sim->timing.duplicate_percent)) {
            reports_push(sim, end_ns + sim->timing.turn_ns + delay, &report);
        }
    }
}

static int64_t positions_attended(const struct step *step)
{
    int64_t positions = 0;

    for (uint32_t i = 0; i < step->entry_count; i++) {
        int64_t rows = step->entries[i].token_count;

        positions += rows * step->entries[i].position + rows * (rows + 1) / 2;
    }
    return positions;
}

static void step_run(struct sim *sim, const struct step *step)
{
    int64_t at = sim->now_ns + sim->timing.turn_ns / 2;
    uint32_t rows = lane_rows_max(sim, step);
    int64_t positions = positions_attended(step);

    for (uint32_t stage = 0; stage < sim->config.stage_count; stage++) {
        int64_t compute = sim->timing.stage_ns[stage] + sim->timing.row_ns[stage] * rows +
                          sim->timing.position_ns[stage] * positions;
        uint64_t jitter = (uint64_t)compute * sim->timing.jitter_percent / 100;

        compute += (int64_t)sim_random_range(&sim->random, 0, 2 * jitter) - (int64_t)jitter;
        at = at > sim->stage_free_ns[stage] ? at : sim->stage_free_ns[stage];
        busy_add(sim, stage, at, at + compute);
        at += compute;
        sim->stage_free_ns[stage] = at;
        answers_make(sim, step, stage, at, compute);
        at += sim->timing.hop_ns;
    }
}

static void step_issue(struct sim *sim, const struct step *step)
{
    uint32_t decoding = 0;

    if (step_row_count(step) == 0 || step_row_count(step) > sim->config.step_rows_max ||
        step->epoch != sim->config.epoch || step->attempt != scheduler_attempt(sim->scheduler)) {
        sim_fail(sim, "step %" PRIu64 " of attempt %u has %u rows", step->number, step->attempt,
                 step_row_count(step));
    }
    if (step->number <= sim->step_last) {
        sim_reissue_check(sim, step);
        sim_cache_rerun(sim, step);
        step_run(sim, step);
        return;
    }
    sim->step_last = step->number;
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        const struct sim_client *client = &sim->clients[entry->sequence];
        seq_id id;
        uint32_t position;

        sim_entry_check(sim, step, entry);
        decoding += client->decoding;
        if (!scheduler_step_entry(sim->scheduler, step->number, i, &id, &position) ||
            id != entry->sequence || position != entry->position) {
            sim_fail(sim, "step %" PRIu64 " entry %u is not known", step->number, i);
        }
    }
    sim_cache_run(sim, step);
    if (sim->on_step != NULL) {
        sim->on_step(sim, step);
    }
    if (sim->config.batch_max > 0 && decoding > sim->config.batch_max) {
        sim_fail(sim, "%u decoding rows, at most %u", decoding, sim->config.batch_max);
    }
    if (decoding > sim->decode_rows_max) {
        sim->decode_rows_max = decoding;
    }
    if (sim->now_ns >= sim->window_begin_ns && decoding < sim->decode_rows_min) {
        sim->decode_rows_min = decoding;
    }
    step_run(sim, step);
}

/* Clients. */

static struct sim_client *client_new(struct sim *sim, const struct sim_request *request)
{
    struct sim_client *client;
    uint32_t context = sim->config.context_tokens_max;
    uint32_t count = request->prompt_count;

    if (sim->client_count == sim->client_capacity) {
        sim->client_capacity *= 2;
        sim->clients = mem_resize(sim->clients, sim->client_capacity, sizeof(*sim->clients));
    }
    client = &sim->clients[sim->client_count];
    *client =
        (struct sim_client){.id = sim->client_count++, .request = *request, .cancel_ns = INT64_MAX};
    if (count <= context && request->tokens_max > context - count) {
        client->request.tokens_max = context - count;
    }
    count += client->request.tokens_max;
    client->block_need = (count + BLOCK - 1) / BLOCK;
    client->tokens = mem_new_array(uint32_t, count);
    client->chain = mem_new_array(uint64_t, count);
    client->known = request->prompt_count;
    client->ready_step = sim->step_last;
    for (uint32_t i = 0; i < client->known; i++) {
        client->tokens[i] = i < request->shared_count
                                ? sim_document_token(sim, request->document, i)
                                : sim_own_token(sim, client->id, i);
        client->chain[i] = sim_chain(i > 0 ? client->chain[i - 1] : 0, client->tokens[i], false);
    }
    return client;
}

/* What the scheduler must say to a request. */
static enum error_code verdict_of(const struct sim *sim, const struct sim_client *client,
                                  uint32_t tokens_max)
{
    struct scheduler_stats stats;
    uint32_t prompt_count = client->request.prompt_count;

    scheduler_stats(sim->scheduler, &stats);
    if (prompt_count == 0 || prompt_count + (tokens_max > 0) > sim->config.context_tokens_max ||
        client->block_need > sim->config.kv_block_count) {
        return ERROR_USAGE;
    }
    return stats.waiting >= sim->config.queue_max ? ERROR_LIMIT : ERROR_NONE;
}

static struct sampling_params sampling_of(const struct sim_request *request,
                                          const struct token_bias *bias)
{
    return (struct sampling_params){
        .seed = request->seed,
        .repetition_penalty = request->repetition_penalty,
        .bias_count = request->bias_token != 0,
        .biases = bias,
        .prompt_logprobs = request->prompt_logprobs,
    };
}

static void retry_check(const struct sim *sim, enum error_code verdict)
{
    int64_t retry_ns = scheduler_retry_after_ns(sim->scheduler, sim->now_ns);

    if (verdict == ERROR_LIMIT ? retry_ns <= 0 || retry_ns > 3600000000000ll
                               : verdict == ERROR_NONE && retry_ns != 0) {
        sim_fail(sim, "%s, retry after %" PRId64 " ns", error_code_name(verdict), retry_ns);
    }
}

bool sim_submit(struct sim *sim, const struct sim_request *request)
{
    struct sim_client *client = client_new(sim, request);
    enum error_code verdict = verdict_of(sim, client, request->tokens_max);
    uint32_t *prompt = mem_new_array(uint32_t, request->prompt_count);
    struct token_bias bias = {.token = request->bias_token};
    struct error err = {.code = ERROR_NONE};
    struct scheduler_request asked = {
        .sequence = client->id,
        .prompt = prompt,
        .prompt_count = request->prompt_count,
        .tokens_max = request->tokens_max,
        .ignore_eos = request->ignore_eos,
        .wants = request->wants,
        .request_class = request->request_class,
        .sampling = sampling_of(request, &bias),
    };
    bool accepted;

    memcpy(prompt, client->tokens, request->prompt_count * sizeof(*prompt));
    retry_check(sim, verdict);
    accepted = scheduler_submit(sim->scheduler, &asked, sim->now_ns, &err);
    mem_free(prompt);
    bias.token = UINT32_MAX; /* ours again */
    if (accepted != (verdict == ERROR_NONE) || (!accepted && err.code != verdict)) {
        sim_fail(sim, "prompt %u, tokens_max %u: must be %s: %s", request->prompt_count,
                 request->tokens_max, error_code_name(verdict),
                 accepted ? "accepted" : err.message);
    }
    client->finished = !accepted;
    sim->live_count += accepted;
    return accepted;
}

/* The token that must come next. */
static uint32_t client_token(const struct sim *sim, const struct sim_client *client)
{
    struct token_bias bias = {.token = client->request.bias_token};
    struct sampling_params sampling = sampling_of(&client->request, &bias);

    return sim_sample(sim, client->chain[client->known - 1], &sampling);
}

void sim_cancel(struct sim *sim, seq_id id)
{
    if (!sim->clients[id].finished) {
        sim->clients[id].cancelled = true;
    }
    scheduler_cancel(sim->scheduler, id, sim->now_ns);
}

/* Whether the placement can hold it at full length. */
static bool client_fits(const struct sim *sim, const struct sim_client *client)
{
    return client->request.prompt_count + client->request.tokens_max <=
               sim->config.context_tokens_max &&
           client->block_need <= sim->config.kv_block_count;
}

static void finish_check(const struct sim *sim, const struct sim_client *client,
                         const struct outcome *outcome)
{
    uint32_t received = client->known - client->request.prompt_count;
    /* The last token has no row. */
    uint32_t rows_wanted = client->request.wants != 0 && received > 0
                               ? client->known - 1
                               : client->request.prompt_count;
    bool ended = client->request.tokens_max > received && !client->request.ignore_eos &&
                 client_token(sim, client) == SIM_EOS;

    if (client->finished) {
        sim_fail(sim, "sequence %" PRIu64 " finished twice", client->id);
    }
    if (client->cancelled != (outcome->reason == FINISH_CANCELLED)) {
        sim_fail(sim, "sequence %" PRIu64 " finished for reason %d", client->id,
                 (int)outcome->reason);
    }
    if ((outcome->reason == FINISH_STOP && !ended) ||
        (outcome->reason == FINISH_FAILED && !sim->failing &&
         (!sim->resuming || client_fits(sim, client)) && client->losses < SCHEDULER_LOSSES_MAX) ||
        (outcome->reason == FINISH_LENGTH && received != client->request.tokens_max)) {
        sim_fail(sim, "sequence %" PRIu64 " finished after %u tokens, reason %d", client->id,
                 received, (int)outcome->reason);
    }
    if ((outcome->reason == FINISH_STOP || outcome->reason == FINISH_LENGTH) &&
        outcome->cached_tokens != client->skipped) {
        sim_fail(sim, "sequence %" PRIu64 ": %u cached tokens, %u were not computed", client->id,
                 outcome->cached_tokens, client->skipped);
    }
    /* Where a worker's answers overtake each other, the last one may be there when the placement is
     * lost, and an earlier one not; true connections keep their order. */
    if (outcome->reason == FINISH_LENGTH && sim_wants_rows(client) &&
        client->wanted < rows_wanted && !(sim->suspended && sim->timing.report_delay_ns_max > 0)) {
        sim_fail(sim, "sequence %" PRIu64 ": %u rows were answered of %u", client->id,
                 client->wanted, rows_wanted);
    }
}

static void outcome_take(struct sim *sim, const struct outcome *outcome)
{
    struct sim_client *client = &sim->clients[outcome->sequence];

    if (outcome->kind == OUTCOME_FINISHED) {
        finish_check(sim, client, outcome);
        client->finished = true;
        client->reason = outcome->reason;
        sim->live_count--;
        return;
    }
    if (client->finished || outcome->token != client_token(sim, client) ||
        (outcome->token == SIM_EOS && !client->request.ignore_eos) ||
        client->known == client->request.prompt_count + client->request.tokens_max) {
        sim_fail(sim, "sequence %" PRIu64 ": wrong token %u", client->id, outcome->token);
    }
    client->chain[client->known] =
        sim_chain(client->chain[client->known - 1], outcome->token, true);
    client->tokens[client->known++] = outcome->token;
    client->row_next = client->known - 1; /* drafts behind it did not stand */
    client->decoding = true;
    client->ready_step = sim->step_last;
}

static void check(const struct sim *sim)
{
    struct error err;
    int64_t deadline = scheduler_deadline_ns(sim->scheduler);
    struct scheduler_stats stats;
    uint64_t step;

    scheduler_stats(sim->scheduler, &stats);
    if (sim->check && !scheduler_check(sim->scheduler, &err)) {
        sim_fail(sim, "%s", err.message);
    }
    if (stats.steps_in_flight != sim->flight_count) {
        sim_fail(sim, "%u steps in flight, %u are not answered", stats.steps_in_flight,
                 sim->flight_count);
    }
    if (stats.ignored_reports != sim->late_reports) {
        sim_fail(sim, "%" PRIu64 " reports ignored, %u came late", stats.ignored_reports,
                 sim->late_reports);
    }
    if ((deadline == INT64_MAX) != (stats.steps_in_flight == 0)) {
        sim_fail(sim, "deadline %" PRId64 ", %u steps in flight", deadline, stats.steps_in_flight);
    }
    if (deadline < INT64_MAX && (scheduler_overdue(sim->scheduler, deadline - 1, &step) ||
                                 !scheduler_overdue(sim->scheduler, deadline, &step))) {
        sim_fail(sim, "deadline %" PRId64 " is not when a step is overdue", deadline);
    }
}

void sim_settle(struct sim *sim)
{
    struct scheduler_stats stats;
    struct outcome outcome;
    struct step step;

    check(sim);
    while (scheduler_outcome(sim->scheduler, &outcome)) {
        outcome_take(sim, &outcome);
    }
    while (scheduler_next(sim->scheduler, sim->now_ns, &step)) {
        step_issue(sim, &step);
    }
    check(sim);
    scheduler_stats(sim->scheduler, &stats);
    if (sim->suspended) {
        if (stats.steps_in_flight > 0 || stats.running > 0 || stats.waiting != sim->live_count) {
            sim_fail(sim, "%u waiting, %u running of %u sequences without a placement",
                     stats.waiting, stats.running, sim->live_count);
        }
        return;
    }
    if (stats.steps_in_flight == 0 && (sim->live_count > 0 || stats.kv_blocks_used > 0 ||
                                       stats.running > 0 || stats.waiting > 0)) {
        sim_fail(sim, "%u sequences left behind, %u blocks in use", sim->live_count,
                 stats.kv_blocks_used);
    }
}

void sim_fail_all(struct sim *sim)
{
    scheduler_fail_all(sim->scheduler, sim->now_ns);
    sim->failing = true;
    sim_cache_lose(sim);
    sim_settle(sim);
    sim->failing = false;
    if (sim->live_count > 0) {
        sim_fail(sim, "%u sequences survived fail_all", sim->live_count);
    }
}

void sim_suspend(struct sim *sim)
{
    scheduler_suspend(sim->scheduler, sim->now_ns);
    sim->suspended = true;
    sim->broken_stage = SIM_STAGES_MAX;
    sim->broken_step = 0;
    sim_cache_lose(sim);
    while (sim->report_count > 0) {
        struct sim_report lost = reports_pop(sim);

        report_free(&lost);
    }
    sim_settle(sim);
}

void sim_resume(struct sim *sim, const struct scheduler_config *config,
                const struct sim_timing *timing)
{
    sim_cache_deinit(sim);
    placement_take(sim, config, timing);
    scheduler_resume(sim->scheduler, &sim->config, sim->now_ns);
    sim->suspended = false;
    sim->resuming = true;
    sim_settle(sim);
    sim->resuming = false;
    for (uint32_t i = 0; i < sim->client_count; i++) {
        if (!sim->clients[i].finished && !client_fits(sim, &sim->clients[i])) {
            sim_fail(sim, "sequence %u does not fit and goes on", i);
        }
    }
}

int64_t sim_next_ns(const struct sim *sim)
{
    return sim->report_count > 0 ? sim->reports[0].when_ns : INT64_MAX;
}

void sim_report(struct sim *sim)
{
    struct sim_report next = reports_pop(sim);
    bool counts = scheduler_awaits(sim->scheduler, &next.report);
    struct error err;

    sim->now_ns = next.when_ns > sim->now_ns ? next.when_ns : sim->now_ns;
    if (!scheduler_report(sim->scheduler, &next.report, sim->now_ns, &err)) {
        sim_fail(sim, "report refused: %s", err.message);
    }
    report_free(&next);
    if (counts) {
        sim_cache_answered(sim, next.report.step);
    } else {
        sim->late_reports++;
    }
    sim_settle(sim);
}

void sim_run_out(struct sim *sim)
{
    while (sim->report_count > 0) {
        sim_report(sim);
    }
    sim_settle(sim);
}
