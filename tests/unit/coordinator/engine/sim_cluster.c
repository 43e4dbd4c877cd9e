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

void sim_fail(const struct sim *sim, const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fail_msg("%s (at %" PRId64 " ns; replay: SHOAL_SEED=%" PRIu64
             " ctest -R engine.scheduler_sim --output-on-failure)",
             text, sim->now_ns, sim->seed);
}

void sim_init(struct sim *sim, uint64_t seed, const struct scheduler_config *config,
              const struct sim_timing *timing)
{
    static const uint32_t eos[] = {SIM_EOS};
    size_t seats = (size_t)config->lane_count * config->slot_count;

    memset(sim, 0, sizeof(*sim));
    sim->seed = seed;
    sim->random = sim_random_from(seed);
    sim->config = *config;
    sim->config.eos_count = 1;
    sim->config.eos_ids = eos;
    sim->timing = *timing;
    for (uint32_t i = 0; i < config->stage_count; i++) {
        sim->member_counts[i] =
            config->member_counts != NULL ? config->member_counts[i] : config->lane_count;
    }
    sim->scheduler = scheduler_create(&sim->config);
    sim->client_capacity = 16;
    sim->clients = mem_new_array(struct sim_client, sim->client_capacity);
    sim->report_capacity = 64;
    sim->reports = mem_new_array(struct sim_report, sim->report_capacity);
    sim->table_blocks = (config->context_tokens_max + BLOCK - 1) / BLOCK;
    sim->tables = mem_new_array(uint32_t, seats * sim->table_blocks);
    sim->table_lengths = mem_new_array(uint32_t, seats);
    sim->contents =
        mem_new_array(uint64_t, (size_t)config->lane_count * config->kv_block_count * BLOCK);
    sim->window_end_ns = INT64_MAX;
    sim->decode_rows_min = UINT32_MAX;
    sim->check = true;
}

void sim_deinit(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->report_count; i++) {
        mem_free((void *)(uintptr_t)sim->reports[i].report.samples);
    }
    scheduler_destroy(sim->scheduler);
    mem_free(sim->clients);
    mem_free(sim->reports);
    mem_free(sim->tables);
    mem_free(sim->table_lengths);
    mem_free(sim->contents);
}

uint32_t sim_token(const struct sim *sim, seq_id id, uint32_t position)
{
    uint64_t bits = hash_counter(sim->seed, id, position, 1);

    return bits % 32 == 0 ? SIM_EOS : (uint32_t)(bits >> 32);
}

/* What the cache must hold for a token at a position. */
static uint64_t content_of(const struct sim *sim, seq_id id, uint32_t position, uint32_t token)
{
    return hash_counter(sim->seed, id, position, token);
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

/* The block table of the entry's slot, brought up to date as a worker does it. */
static uint32_t *table_update(struct sim *sim, const struct step_entry *entry)
{
    size_t seat = (size_t)entry->lane * sim->config.slot_count + entry->slot;
    uint32_t *table = &sim->tables[seat * sim->table_blocks];

    if (entry->lane >= sim->config.lane_count || entry->slot >= sim->config.slot_count) {
        sim_fail(sim, "lane %u slot %u do not exist", entry->lane, entry->slot);
    }
    if (entry->position == 0) {
        sim->table_lengths[seat] = 0;
    }
    if (entry->block_begin != sim->table_lengths[seat] ||
        entry->block_begin + entry->block_count > sim->table_blocks) {
        sim_fail(sim, "blocks %u + %u do not follow %u", entry->block_begin, entry->block_count,
                 sim->table_lengths[seat]);
    }
    for (uint32_t i = 0; i < entry->block_count; i++) {
        if (entry->blocks[i] >= sim->config.kv_block_count) {
            sim_fail(sim, "block %u does not exist", entry->blocks[i]);
        }
        table[sim->table_lengths[seat]++] = entry->blocks[i];
    }
    if ((uint64_t)sim->table_lengths[seat] * BLOCK < entry->position + entry->token_count) {
        sim_fail(sim, "%u blocks for %u rows", sim->table_lengths[seat],
                 entry->position + entry->token_count);
    }
    return table;
}

/* Writes the entry's rows, then reads the whole context back. */
static void cache_run(struct sim *sim, const struct step_entry *entry)
{
    const uint32_t *table = table_update(sim, entry);
    uint64_t *lane = &sim->contents[(size_t)entry->lane * sim->config.kv_block_count * BLOCK];
    uint32_t end = entry->position + entry->token_count;

    for (uint32_t i = 0; i < entry->token_count; i++) {
        uint32_t p = entry->position + i;

        lane[table[p / BLOCK] * BLOCK + p % BLOCK] =
            content_of(sim, entry->sequence, p, entry->tokens[i]);
    }
    for (uint32_t p = 0; p < end; p++) {
        if (lane[table[p / BLOCK] * BLOCK + p % BLOCK] !=
            content_of(sim, entry->sequence, p, sim_token(sim, entry->sequence, p))) {
            sim_fail(sim, "sequence %" PRIu64 " reads foreign or missing KV at position %u",
                     entry->sequence, p);
        }
    }
}

/* First come, first served: whoever still waits came later. */
static void admission_check(const struct sim *sim, const struct sim_client *client)
{
    struct scheduler_stats stats;
    uint32_t later = 0;

    scheduler_stats(sim->scheduler, &stats);
    for (uint32_t i = (uint32_t)client->id + 1; i < sim->client_count; i++) {
        later += !sim->clients[i].finished;
    }
    if (later < stats.waiting) {
        sim_fail(sim, "sequence %" PRIu64 " overtook a waiting one", client->id);
    }
}

static void entry_check(struct sim *sim, const struct step *step, const struct step_entry *entry)
{
    struct sim_client *client = &sim->clients[entry->sequence];
    uint32_t end = entry->position + entry->token_count;
    bool decoding = entry->position >= client->prompt_count;
    uint32_t wants = client->wants;
    uint64_t patience = (uint64_t)sim->config.lane_count * (sim->config.slot_count + 1) +
                        sim->config.steps_in_flight_max;

    if (entry->sequence >= sim->client_count || client->finished || entry->token_count == 0 ||
        entry->position != client->rows || entry->generated_begin != client->prompt_count) {
        sim_fail(sim, "sequence %" PRIu64 ": rows %u to %u, %u were computed", entry->sequence,
                 entry->position, end, client->rows);
    }
    if (decoding && (end != client->prompt_count + client->received || entry->token_count != 1)) {
        sim_fail(sim, "sequence %" PRIu64 ": row %u after %u tokens", entry->sequence,
                 entry->position, client->received);
    }
    if (!decoding && end > client->prompt_count) {
        sim_fail(sim, "sequence %" PRIu64 ": rows beyond its prompt", entry->sequence);
    }
    wants |= end >= client->prompt_count && client->tokens_max > 0 ? WANT_SAMPLE : 0;
    if (entry->wants != wants || ((wants & WANT_LOGITS) && sim->config.logits_rows_max > 0 &&
                                  entry->token_count > sim->config.logits_rows_max)) {
        sim_fail(sim, "sequence %" PRIu64 ": wants %u, must be %u", entry->sequence, entry->wants,
                 wants);
    }
    if (decoding && step->number - client->ready_step > patience) {
        sim_fail(sim, "sequence %" PRIu64 " starves", entry->sequence);
    }
    if (entry->position == 0) {
        admission_check(sim, client);
    }
    client->rows = end;
}

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

/* Samples of the lanes that a member of the last stage serves. */
static void samples_make(struct sim *sim, const struct step *step, struct step_report *report)
{
    struct step_sample *samples = mem_new_array(struct step_sample, step->entry_count);

    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];
        uint32_t next = entry->position + entry->token_count;

        if (entry->lane % sim->member_counts[report->stage] == report->member &&
            (entry->wants & WANT_SAMPLE) != 0) {
            samples[report->sample_count++] =
                (struct step_sample){.entry = i, .token = sim_token(sim, entry->sequence, next)};
        }
    }
    report->samples = samples;
}

static void answers_make(struct sim *sim, const struct step *step, uint32_t stage, int64_t end_ns,
                         int64_t compute_ns)
{
    for (uint32_t member = 0; member < sim->member_counts[stage]; member++) {
        int64_t delay =
            (int64_t)sim_random_range(&sim->random, 0, (uint64_t)sim->timing.report_delay_ns_max);
        struct step_report report = {
            .step = step->number, .stage = stage, .member = member, .compute_ns = compute_ns};

        if (stage + 1 == sim->config.stage_count) {
            samples_make(sim, step, &report);
        }
        reports_push(sim, end_ns + sim->timing.turn_ns / 2 + delay, &report);
    }
}

static void step_run(struct sim *sim, const struct step *step)
{
    int64_t at = sim->now_ns + sim->timing.turn_ns / 2;
    uint32_t rows = lane_rows_max(sim, step);

    for (uint32_t stage = 0; stage < sim->config.stage_count; stage++) {
        int64_t compute = sim->timing.stage_ns[stage] + sim->timing.row_ns[stage] * rows;
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
        step->epoch != sim->config.epoch || step->attempt != 0) {
        sim_fail(sim, "step %" PRIu64 " has %u rows", step->number, step_row_count(step));
    }
    for (uint32_t i = 0; i < step->entry_count; i++) {
        seq_id id;
        uint32_t position;

        entry_check(sim, step, &step->entries[i]);
        cache_run(sim, &step->entries[i]);
        decoding += step->entries[i].position >= step->entries[i].generated_begin;
        if (!scheduler_step_entry(sim->scheduler, step->number, i, &id, &position) ||
            id != step->entries[i].sequence || position != step->entries[i].position) {
            sim_fail(sim, "step %" PRIu64 " entry %u is not known", step->number, i);
        }
    }
    if (sim->config.batch_max > 0 && decoding > sim->config.batch_max) {
        sim_fail(sim, "%u decoding rows, at most %u", decoding, sim->config.batch_max);
    }
    sim->step_last = step->number;
    if (decoding > sim->decode_rows_max) {
        sim->decode_rows_max = decoding;
    }
    if (sim->now_ns >= sim->window_begin_ns && decoding < sim->decode_rows_min) {
        sim->decode_rows_min = decoding;
    }
    step_run(sim, step);
}

/* Clients. */

static struct sim_client *client_new(struct sim *sim, uint32_t prompt_count, uint32_t tokens_max)
{
    struct sim_client *client;
    uint32_t context = sim->config.context_tokens_max;

    if (sim->client_count == sim->client_capacity) {
        sim->client_capacity *= 2;
        sim->clients = mem_resize(sim->clients, sim->client_capacity, sizeof(*sim->clients));
    }
    client = &sim->clients[sim->client_count];
    *client = (struct sim_client){
        .id = sim->client_count++, .prompt_count = prompt_count, .cancel_ns = INT64_MAX};
    client->tokens_max = tokens_max;
    if (prompt_count <= context && tokens_max > context - prompt_count) {
        client->tokens_max = context - prompt_count;
    }
    client->block_need = (prompt_count + client->tokens_max + BLOCK - 1) / BLOCK;
    return client;
}

/* What the scheduler must say to a request. */
static enum error_code verdict_of(const struct sim *sim, const struct sim_client *client,
                                  uint32_t tokens_max)
{
    struct scheduler_stats stats;

    scheduler_stats(sim->scheduler, &stats);
    if (client->prompt_count == 0 ||
        client->prompt_count + (tokens_max > 0) > sim->config.context_tokens_max ||
        client->block_need > sim->config.kv_block_count) {
        return ERROR_USAGE;
    }
    return stats.waiting >= sim->config.queue_max ? ERROR_LIMIT : ERROR_NONE;
}

bool sim_submit(struct sim *sim, uint32_t prompt_count, uint32_t tokens_max, bool ignore_eos,
                uint32_t wants)
{
    struct sim_client *client = client_new(sim, prompt_count, tokens_max);
    enum error_code verdict = verdict_of(sim, client, tokens_max);
    uint32_t *prompt = mem_new_array(uint32_t, prompt_count);
    struct error err = {.code = ERROR_NONE};
    struct scheduler_request request = {
        .sequence = client->id,
        .prompt = prompt,
        .prompt_count = prompt_count,
        .tokens_max = tokens_max,
        .ignore_eos = ignore_eos,
        .wants = wants,
    };
    bool accepted;

    for (uint32_t i = 0; i < prompt_count; i++) {
        prompt[i] = sim_token(sim, client->id, i);
    }
    accepted = scheduler_submit(sim->scheduler, &request, sim->now_ns, &err);
    mem_free(prompt);
    if (accepted != (verdict == ERROR_NONE) || (!accepted && err.code != verdict)) {
        sim_fail(sim, "prompt %u, tokens_max %u: must be %s: %s", prompt_count, tokens_max,
                 error_code_name(verdict), accepted ? "accepted" : err.message);
    }
    client->ignore_eos = ignore_eos;
    client->wants = wants;
    client->finished = !accepted;
    sim->live_count += accepted;
    return accepted;
}

void sim_cancel(struct sim *sim, seq_id id)
{
    if (!sim->clients[id].finished) {
        sim->clients[id].cancelled = true;
    }
    scheduler_cancel(sim->scheduler, id, sim->now_ns);
}

static void finish_check(const struct sim *sim, const struct sim_client *client,
                         const struct outcome *outcome)
{
    uint32_t position = client->prompt_count + client->received;
    bool ended = client->tokens_max > client->received && !client->ignore_eos &&
                 sim_token(sim, client->id, position) == SIM_EOS;

    if (client->finished) {
        sim_fail(sim, "sequence %" PRIu64 " finished twice", client->id);
    }
    if (client->cancelled != (outcome->reason == FINISH_CANCELLED)) {
        sim_fail(sim, "sequence %" PRIu64 " finished for reason %d", client->id,
                 (int)outcome->reason);
    }
    if ((outcome->reason == FINISH_STOP && !ended) ||
        (outcome->reason == FINISH_FAILED && !sim->failing) ||
        (outcome->reason == FINISH_LENGTH && client->received != client->tokens_max)) {
        sim_fail(sim, "sequence %" PRIu64 " finished after %u tokens, reason %d", client->id,
                 client->received, (int)outcome->reason);
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
    if (client->finished ||
        outcome->token != sim_token(sim, client->id, client->prompt_count + client->received) ||
        (outcome->token == SIM_EOS && !client->ignore_eos) ||
        client->received == client->tokens_max) {
        sim_fail(sim, "sequence %" PRIu64 ": wrong token %u", client->id, client->received);
    }
    client->received++;
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
    sim_settle(sim);
    sim->failing = false;
    if (sim->live_count > 0) {
        sim_fail(sim, "%u sequences survived fail_all", sim->live_count);
    }
}

int64_t sim_next_ns(const struct sim *sim)
{
    return sim->report_count > 0 ? sim->reports[0].when_ns : INT64_MAX;
}

void sim_report(struct sim *sim)
{
    struct sim_report next = reports_pop(sim);
    struct error err;

    sim->now_ns = next.when_ns > sim->now_ns ? next.when_ns : sim->now_ns;
    if (!scheduler_report(sim->scheduler, &next.report, sim->now_ns, &err)) {
        sim_fail(sim, "report refused: %s", err.message);
    }
    mem_free((void *)(uintptr_t)next.report.samples);
    sim_settle(sim);
}

void sim_run_out(struct sim *sim)
{
    while (sim->report_count > 0) {
        sim_report(sim);
    }
    sim_settle(sim);
}
