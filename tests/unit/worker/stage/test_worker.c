/* Worker processes under a coordinator made of a few lines: they register, load, connect, compute
 * and leave as the real one expects it. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/model_hash.h"
#include "common/net/control.h"
#include "worker/kernels/kernels.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN      SHOAL_TEST_DATA "/deepseek_v3-bf16"
#define WORKERS_MAX 4
#define LIMIT_NS    (60 * NS_PER_S)

struct puppet {
    pid_t pid;
    struct control_peer peer;
    char endpoint[128];
    bool is_registered;
    uint64_t resident_bytes;
    uint64_t frames_sent;
};

/* The coordinator. */
struct theatre {
    struct poller *poller;
    struct control_server *server;
    struct arena arena; /* of the placement */
    struct arena message_arena;
    uint32_t count;
    struct puppet puppets[WORKERS_MAX];
    struct placement *placement;
    struct catalog *catalog;
    struct message message; /* the last one received, and from whom */
    uint32_t from;
    uint64_t read_bytes, kept_bytes; /* of all workers, in the last epoch */
};

/* --- processes and messages --- */

static pid_t start_worker(const struct theatre *theatre, const char *token, const char *memory)
{
    pid_t pid = fork();

    if (pid == 0 && token == NULL) {
        (void)execl(SHOAL_WORKER, SHOAL_WORKER, "--coordinator",
                    control_server_endpoint(theatre->server), "--threads", "1", "--memory", memory,
                    (char *)NULL);
        _exit(127);
    }
    if (pid == 0) {
        (void)execl(SHOAL_WORKER, SHOAL_WORKER, "--coordinator",
                    control_server_endpoint(theatre->server), "--threads", "1", "--launch-token",
                    token, "--memory", memory, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static void theatre_open(struct theatre *theatre, uint32_t count, const char *memory)
{
    struct cluster_key key = {0};
    struct error err = {0};

    *theatre = (struct theatre){.count = count};
    arena_init(&theatre->arena, 1 << 16);
    arena_init(&theatre->message_arena, 1 << 16);
    theatre->poller = poller_create();
    theatre->server = control_listen("tcp://127.0.0.1:0", &key, theatre->poller, &err);
    assert_non_null(theatre->server);
    theatre->catalog = catalog_open(GOLDEN "/model", &err);
    assert_non_null(theatre->catalog);
    for (uint32_t i = 0; i < count; i++) {
        char token[8];

        (void)snprintf(token, sizeof(token), "t%u", i);
        theatre->puppets[i].pid = start_worker(theatre, token, memory);
    }
}

static void theatre_close(struct theatre *theatre)
{
    control_server_destroy(theatre->server);
    poller_destroy(theatre->poller);
    catalog_close(theatre->catalog);
    arena_deinit(&theatre->message_arena);
    arena_deinit(&theatre->arena);
}

static void send_to(struct theatre *theatre, uint32_t worker, const struct message *message)
{
    struct error err = {0};

    assert_int_equal(
        control_server_send(theatre->server, theatre->puppets[worker].peer, message, &err),
        CONTROL_DONE);
}

static void broadcast(struct theatre *theatre, const struct message *message)
{
    for (uint32_t i = 0; i < theatre->count; i++) {
        send_to(theatre, i, message);
    }
}

static void welcome(struct theatre *theatre, struct control_peer from)
{
    const struct register_message *reg = &theatre->message.reg;
    uint32_t id = reg->launch_token[0] != '\0' ? (uint32_t)atoi(reg->launch_token + 1) : 0;
    struct puppet *puppet = &theatre->puppets[id];
    struct message message = {.kind = MESSAGE_WELCOME,
                              .welcome = {.worker = id,
                                          .protocol_major = PROTOCOL_MAJOR,
                                          .protocol_minor = PROTOCOL_MINOR,
                                          .heartbeat_ns = 100 * NS_PER_MS}};

    assert_int_equal(reg->protocol_major, PROTOCOL_MAJOR);
    assert_int_equal(reg->kernels_version, KERNELS_VERSION);
    assert_true(reg->memory_bytes > 0 && reg->read_bytes_per_s > 1e6);
    assert_int_equal(reg->thread_count, 1);
    puppet->peer = from;
    puppet->is_registered = true;
    (void)snprintf(puppet->endpoint, sizeof(puppet->endpoint), "%s", reg->data_endpoint);
    send_to(theatre, id, &message);
}

static void note_heartbeat(struct theatre *theatre)
{
    struct puppet *puppet = &theatre->puppets[theatre->from];
    const struct heartbeat_message *beat = &theatre->message.heartbeat;
    struct message answer = {.kind = MESSAGE_HEARTBEAT};

    puppet->resident_bytes = beat->memory_bytes;
    puppet->frames_sent = 0;
    for (uint32_t i = 0; i < beat->link_count; i++) {
        puppet->frames_sent += beat->links[i].frames_sent;
    }
    send_to(theatre, theatre->from, &answer);
}

/* The next message of that kind, from anyone; registrations and heartbeats are dealt with. */
static void await(struct theatre *theatre, enum message_kind kind)
{
    int64_t end_ns = clock_monotonic_ns() + LIMIT_NS;

    while (clock_monotonic_ns() < end_ns) {
        struct control_peer from;
        struct error err = {0};
        enum control_result result;

        arena_reset(&theatre->message_arena);
        result = control_server_receive(theatre->server, &theatre->message_arena, &from,
                                        &theatre->message, &err);
        if (result == CONTROL_AGAIN) {
            poller_wait(theatre->poller, 20 * NS_PER_MS);
            continue;
        }
        if (result == CONTROL_LOST) {
            continue;
        }
        theatre->from = WORKERS_MAX;
        for (uint32_t i = 0; i < theatre->count; i++) {
            if (theatre->puppets[i].peer.connection == from.connection) {
                theatre->from = i;
            }
        }
        if (theatre->message.kind == MESSAGE_REGISTER) {
            welcome(theatre, from);
        } else if (theatre->message.kind == MESSAGE_HEARTBEAT && theatre->from < WORKERS_MAX) {
            note_heartbeat(theatre);
        } else if (theatre->message.kind == MESSAGE_ERROR && kind != MESSAGE_ERROR) {
            fail_msg("worker %u: %s", theatre->from, theatre->message.error.text);
        }
        if (theatre->message.kind == kind) {
            return;
        }
    }
    fail_msg("no message of kind %d", (int)kind);
}

static void await_from_all(struct theatre *theatre, enum message_kind kind)
{
    bool seen[WORKERS_MAX] = {false};
    uint32_t count = 0;

    while (count < theatre->count) {
        await(theatre, kind);
        if (theatre->from < WORKERS_MAX && !seen[theatre->from]) {
            seen[theatre->from] = true;
            count++;
        }
    }
}

static void await_registrations(struct theatre *theatre)
{
    for (uint32_t i = 0; i < theatre->count; i++) {
        await(theatre, MESSAGE_REGISTER);
    }
}

static int exit_code_of(struct theatre *theatre, uint32_t worker)
{
    int status = 0;

    assert_int_equal(waitpid(theatre->puppets[worker].pid, &status, 0),
                     theatre->puppets[worker].pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void dismiss(struct theatre *theatre)
{
    struct message drain = {.kind = MESSAGE_DRAIN};

    broadcast(theatre, &drain);
    for (uint32_t i = 0; i < theatre->count; i++) {
        assert_int_equal(exit_code_of(theatre, i), 0);
    }
}

/* --- epochs --- */

static void make_placement(struct theatre *theatre, uint64_t epoch, uint32_t stages)
{
    const struct arch *arch = &theatre->catalog->arch;
    uint32_t group = theatre->count / stages;
    struct placement *placement = arena_new(&theatre->arena, struct placement);
    size_t pairs = (size_t)arch->layer_count * arch->router.expert_count;
    uint32_t used = 0;

    *placement = (struct placement){
        .epoch = epoch,
        .layer_count = arch->layer_count,
        .expert_count = arch->router.expert_count,
        .dense_layer_count = arch->dense_layer_count,
        .stage_count = stages,
        .lane_count = group,
        .kv_type = KV_F32,
        .kv_block_count = 16,
        .slot_count = 4,
        .context_tokens_max = 512,
        .step_rows_max = 256,
        .steps_in_flight_max = 4,
    };
    (void)snprintf(placement->numerics_id, sizeof(placement->numerics_id), "exact/f32/k%d",
                   KERNELS_VERSION);
    placement->stages = arena_new_array(&theatre->arena, struct placement_stage, stages);
    placement->lane_member = arena_new_array(&theatre->arena, uint32_t, (size_t)stages * group);
    for (uint32_t i = 0; i < theatre->count; i++) {
        struct placement_stage *stage = &placement->stages[i / group];

        if (i % group == 0) {
            stage->layer_begin = i / group * arch->layer_count / stages;
            stage->layer_end = (i / group + 1) * arch->layer_count / stages;
            stage->member_count = group;
            stage->workers = arena_new_array(&theatre->arena, uint32_t, group);
        }
        stage->workers[i % group] = i;
        placement->lane_member[i] = i % group;
    }
    placement->replica_offset = arena_new_array(&theatre->arena, uint32_t, pairs + 1);
    placement->replica_member = arena_new_array(&theatre->arena, uint32_t, pairs);
    for (size_t i = 0; i < pairs; i++) {
        uint32_t expert = (uint32_t)(i % arch->router.expert_count);

        placement->replica_offset[i] = used;
        if (i / arch->router.expert_count >= arch->dense_layer_count) {
            placement->replica_member[used++] = expert * group / arch->router.expert_count;
        }
    }
    placement->replica_offset[pairs] = used;
    theatre->placement = placement;
}

enum assign_when { ASSIGN_NOW, ASSIGN_AHEAD };

static void send_assignments(struct theatre *theatre, const char *model, const char *hash,
                             enum assign_when when)
{
    struct peer_address peers[WORKERS_MAX];
    struct message message = {.kind = MESSAGE_ASSIGN,
                              .assign = {.placement = theatre->placement,
                                         .peer_count = theatre->count,
                                         .peers = peers,
                                         .model = model,
                                         .model_hash = hash,
                                         .preload = when == ASSIGN_AHEAD}};

    for (uint32_t i = 0; i < theatre->count; i++) {
        peers[i] =
            (struct peer_address){.worker = i, .data_endpoint = theatre->puppets[i].endpoint};
    }
    broadcast(theatre, &message);
}

static void assign(struct theatre *theatre, const char *model, const char *hash)
{
    send_assignments(theatre, model, hash, ASSIGN_NOW);
}

static void count_loaded(struct theatre *theatre, uint64_t epoch)
{
    theatre->read_bytes = 0;
    theatre->kept_bytes = 0;
    for (uint32_t i = 0; i < theatre->count; i++) {
        await(theatre, MESSAGE_LOADED);
        assert_int_equal(theatre->message.loaded.epoch, epoch);
        assert_true(theatre->message.loaded.line_count >= 4);
        theatre->read_bytes += theatre->message.loaded.read_bytes;
        theatre->kept_bytes += theatre->message.loaded.kept_bytes;
    }
}

static void serve(struct theatre *theatre, uint64_t epoch, uint32_t stages)
{
    struct message connect = {.kind = MESSAGE_CONNECT, .connect_epoch = epoch};
    struct message start = {.kind = MESSAGE_START, .start_epoch = epoch};
    char hash[MODEL_HASH_BYTES];

    model_hash(theatre->catalog, hash);
    make_placement(theatre, epoch, stages);
    assign(theatre, GOLDEN "/model", hash);
    count_loaded(theatre, epoch);
    broadcast(theatre, &connect);
    await_from_all(theatre, MESSAGE_READY);
    broadcast(theatre, &start);
}

/* --- a step with the longest golden prompt --- */

struct golden {
    uint32_t count;
    uint32_t tokens[256];
    uint32_t row;
    float *logits;
};

static void golden_open(struct golden *golden)
{
    struct error err = {0};
    size_t length;
    char *text;

    assert_true(file_read(GOLDEN "/prompts.jsonl", 1 << 20, &text, &length, &err));
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *parsed = json_loads(line, 0, NULL);
        const json_t *tokens = json_object_get(parsed, "tokens");

        golden->count = (uint32_t)json_array_size(tokens);
        golden->row = (uint32_t)json_integer_value(json_object_get(parsed, "logits_row"));
        for (uint32_t i = 0; i < golden->count; i++) {
            golden->tokens[i] = (uint32_t)json_integer_value(json_array_get(tokens, i));
        }
        json_decref(parsed);
    }
    mem_free(text);
    assert_true(file_read(GOLDEN "/logits.f32", 1 << 24, (char **)&golden->logits, &length, &err));
}

static void check_logits(const struct theatre *theatre, const struct golden *golden)
{
    const struct step_result *result = &theatre->message.result;
    uint32_t vocab = theatre->catalog->arch.vocab;
    const struct step_rows *rows;

    assert_int_equal(result->logits_count, 1);
    rows = &result->logits[0];
    assert_int_equal(rows->row_count, golden->count);
    for (size_t i = 0; i < (size_t)golden->count * vocab; i++) {
        double expected = (double)golden->logits[(size_t)golden->row * vocab + i];

        assert_true(fabs((double)rows->values[i] - expected) <= 2e-3);
    }
}

static void run_attempt(struct theatre *theatre, const struct step *which, uint32_t lane)
{
    static struct golden golden;
    static const uint32_t blocks[] = {5, 0, 3};
    struct step_entry entry;
    struct message message = {.kind = MESSAGE_STEP,
                              .step = {.epoch = which->epoch,
                                       .number = which->number,
                                       .attempt = which->attempt,
                                       .entry_count = 1,
                                       .entries = &entry}};
    uint32_t with_logits = 0;

    golden_open(&golden);
    entry = (struct step_entry){
        .lane = lane,
        .slot = 1,
        .token_count = golden.count,
        .tokens = golden.tokens,
        .generated_begin = golden.count,
        .block_count = 3,
        .blocks = blocks,
        .wants = WANT_LOGITS,
    };
    broadcast(theatre, &message);
    for (uint32_t i = 0; i < theatre->count; i++) {
        await(theatre, MESSAGE_STEP_RESULT);
        assert_int_equal(theatre->message.result.step, which->number);
        assert_int_equal(theatre->message.result.attempt, which->attempt);
        assert_true(theatre->message.result.end_ns >= theatre->message.result.begin_ns);
        if (theatre->message.result.logits_count > 0) {
            check_logits(theatre, &golden);
            with_logits++;
        }
    }
    assert_int_equal(with_logits, 1);
    mem_free(golden.logits);
}

static void run_prompt(struct theatre *theatre, uint64_t epoch, uint64_t number, uint32_t lane)
{
    run_attempt(theatre, &(struct step){.epoch = epoch, .number = number}, lane);
}

/* --- cases --- */

static void workers_load_connect_compute_and_leave(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 3, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 3);
    run_prompt(&theatre, 1, 1, 0);
    await_from_all(&theatre, MESSAGE_HEARTBEAT);
    assert_true(theatre.puppets[0].frames_sent > 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void a_new_epoch_takes_over_from_a_running_one(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 4, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 2);
    run_prompt(&theatre, 1, 1, 0);
    serve(&theatre, 2, 1);                                         /* one stage of four */
    assert_true(theatre.read_bytes > 0 && theatre.kept_bytes > 0); /* layers, with fewer experts */
    run_prompt(&theatre, 2, 1, 3);
    serve(&theatre, 3, 1); /* the same share again */
    assert_true(theatre.read_bytes == 0);
    run_prompt(&theatre, 3, 1, 1);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void a_share_is_loaded_ahead_while_steps_run(void **state)
{
    struct theatre theatre;
    char hash[MODEL_HASH_BYTES];

    (void)state;
    theatre_open(&theatre, 2, "2G");
    await_registrations(&theatre);
    model_hash(theatre.catalog, hash);
    make_placement(&theatre, 1, 1);
    send_assignments(&theatre, GOLDEN "/model", hash, ASSIGN_AHEAD); /* idle workers do it, too */
    count_loaded(&theatre, 1);
    assert_true(theatre.read_bytes > 0);
    serve(&theatre, 1, 1);
    assert_true(theatre.read_bytes == 0);
    run_prompt(&theatre, 1, 1, 0);

    make_placement(&theatre, 2, 2);
    send_assignments(&theatre, GOLDEN "/model", hash, ASSIGN_AHEAD);
    count_loaded(&theatre, 2);
    run_prompt(&theatre, 1, 2, 0);
    run_prompt(&theatre, 1, 3, 1);
    make_placement(&theatre, 3, 2);
    send_assignments(&theatre, GOLDEN "/model", hash, ASSIGN_AHEAD); /* instead of the other */
    count_loaded(&theatre, 3);
    run_prompt(&theatre, 1, 4, 0);
    serve(&theatre, 3, 2);
    assert_true(theatre.read_bytes == 0);
    run_prompt(&theatre, 3, 1, 0);

    make_placement(&theatre, 4, 1);
    send_assignments(&theatre, GOLDEN "/nowhere", hash, ASSIGN_AHEAD);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.epoch, 4);
    await(&theatre, MESSAGE_ERROR);
    run_prompt(&theatre, 3, 2, 0); /* nothing has happened */
    serve(&theatre, 5, 1);
    run_prompt(&theatre, 5, 1, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

/* The first stage does not hear of it, so its frames never come. */
static void half_step_send(struct theatre *theatre, const struct step *which)
{
    const uint32_t token = 1, block = 1;
    struct step_entry entry = {
        .slot = 1, .token_count = 1, .tokens = &token, .block_count = 1, .blocks = &block};
    struct message message = {.kind = MESSAGE_STEP,
                              .step = {.epoch = 1,
                                       .number = which->number,
                                       .attempt = which->attempt,
                                       .entry_count = 1,
                                       .entries = &entry}};

    send_to(theatre, 1, &message);
}

static void start_half_a_step(struct theatre *theatre, uint64_t number)
{
    half_step_send(theatre, &(struct step){.number = number});
}

static void a_step_issued_again_takes_over_from_a_stuck_one(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 2, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 2);
    start_half_a_step(&theatre, 1);
    start_half_a_step(&theatre, 2);
    run_attempt(&theatre, &(struct step){.epoch = 1, .number = 1, .attempt = 1}, 0);
    run_attempt(&theatre, &(struct step){.epoch = 1, .number = 2, .attempt = 1}, 0);
    run_attempt(&theatre, &(struct step){.epoch = 1, .number = 3, .attempt = 1}, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

/* More steps than there are places for, each attempt with links of its own. */
static void attempts_may_follow_each_other_at_once(void **state)
{
    const uint32_t pair[] = {0, 1};
    struct theatre theatre;
    struct message message = {.kind = MESSAGE_ATTEMPT, .attempt = {.epoch = 1, .pairs = pair}};

    (void)state;
    theatre_open(&theatre, 2, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 2);
    for (uint32_t attempt = 0; attempt < 12; attempt++) {
        if (attempt > 0) {
            message.attempt.attempt = attempt;
            message.attempt.all_links = attempt % 2 == 1;
            message.attempt.pair_count = 1 - attempt % 2;
            broadcast(&theatre, &message);
        }
        for (uint32_t number = 1; number < 3; number++) {
            half_step_send(&theatre, &(struct step){.number = number, .attempt = attempt});
        }
    }
    message.attempt.attempt = 12;
    broadcast(&theatre, &message);
    run_attempt(&theatre, &(struct step){.epoch = 1, .number = 1, .attempt = 12}, 0);
    run_attempt(&theatre, &(struct step){.epoch = 1, .number = 2, .attempt = 12}, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void an_epoch_whose_frames_never_come_can_be_replaced(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 2, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 2);
    start_half_a_step(&theatre, 1);
    serve(&theatre, 2, 2);
    run_prompt(&theatre, 2, 1, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void nonsense_in_a_step_is_refused_and_the_next_one_served(void **state)
{
    struct theatre theatre;
    const uint32_t token = 1u << 30, block = 1;
    struct step_entry entry = {
        .slot = 1, .token_count = 1, .tokens = &token, .block_count = 1, .blocks = &block};
    struct message message = {
        .kind = MESSAGE_STEP,
        .step = {.epoch = 1, .number = 1, .entry_count = 1, .entries = &entry}};

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 1);
    broadcast(&theatre, &message);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.step, 1);
    assert_non_null(strstr(theatre.message.error.text, "token"));
    run_prompt(&theatre, 1, 2, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void too_little_memory_is_refused_with_the_ledger(void **state)
{
    struct theatre theatre;
    char hash[MODEL_HASH_BYTES];

    (void)state;
    theatre_open(&theatre, 1, "20M");
    await_registrations(&theatre);
    model_hash(theatre.catalog, hash);
    make_placement(&theatre, 1, 1);
    assign(&theatre, GOLDEN "/model", hash);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.code, ERROR_LIMIT);
    assert_non_null(strstr(theatre.message.error.text, "KV cache"));
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void steps_too_large_for_a_frame_are_refused(void **state)
{
    struct theatre theatre;
    char hash[MODEL_HASH_BYTES];

    (void)state;
    theatre_open(&theatre, 2, "2G");
    await_registrations(&theatre);
    model_hash(theatre.catalog, hash);
    make_placement(&theatre, 1, 1);
    theatre.placement->step_rows_max = 1u << 20;
    /* Each worker has every other expert: no router group is whole. */
    for (uint32_t i = 0; i < theatre.placement->expert_count; i++) {
        uint32_t layer = theatre.placement->dense_layer_count;
        uint32_t at =
            theatre.placement->replica_offset[layer * theatre.placement->expert_count + i];

        theatre.placement->replica_member[at] = i % 2;
    }
    assign(&theatre, GOLDEN "/model", hash);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.code, ERROR_LIMIT);
    assert_non_null(strstr(theatre.message.error.text, "steps of 1048576 rows"));
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void another_model_is_refused(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    make_placement(&theatre, 1, 1);
    assign(&theatre, GOLDEN "/model", "0123456789abcdef");
    await(&theatre, MESSAGE_ERROR);
    assert_non_null(strstr(theatre.message.error.text, "0123456789abcdef"));
    assign(&theatre, GOLDEN "/nowhere", "0123456789abcdef");
    await(&theatre, MESSAGE_ERROR);
    assert_non_null(strstr(theatre.message.error.text, "nowhere"));
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void sigterm_asks_the_coordinator_before_it_leaves(void **state)
{
    struct theatre theatre;
    struct message drain = {.kind = MESSAGE_DRAIN};

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 1);
    assert_int_equal(kill(theatre.puppets[0].pid, SIGTERM), 0);
    await(&theatre, MESSAGE_DRAIN);
    run_prompt(&theatre, 1, 1, 0); /* what runs is finished */
    send_to(&theatre, 0, &drain);
    assert_int_equal(exit_code_of(&theatre, 0), 0);
    theatre_close(&theatre);
}

static void a_second_signal_ends_at_once(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 1);
    assert_int_equal(kill(theatre.puppets[0].pid, SIGTERM), 0);
    await(&theatre, MESSAGE_DRAIN);
    assert_int_equal(kill(theatre.puppets[0].pid, SIGTERM), 0);
    assert_int_equal(exit_code_of(&theatre, 0), 128 + SIGTERM);
    theatre_close(&theatre);
}

static void who_is_refused_takes_the_next_assignment(void **state)
{
    struct theatre theatre;
    char hash[MODEL_HASH_BYTES];

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    model_hash(theatre.catalog, hash);
    make_placement(&theatre, 1, 1);
    theatre.placement->kv_block_count = 1u << 24;
    assign(&theatre, GOLDEN "/model", hash);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.code, ERROR_LIMIT);
    assert_false(theatre.message.error.fatal);
    make_placement(&theatre, 2, 1);
    assign(&theatre, GOLDEN "/nowhere", hash);
    await(&theatre, MESSAGE_ERROR);
    assert_int_equal(theatre.message.error.epoch, 2);
    assert_false(theatre.message.error.fatal);
    serve(&theatre, 3, 1);
    run_prompt(&theatre, 3, 1, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void lost_worker_ends_after(const char *seconds, int64_t least_ns)
{
    struct theatre theatre;
    int64_t begin_ns;

    theatre_open(&theatre, 0, "2G");
    theatre.count = 1;
    assert_int_equal(setenv("SHOAL_RECONNECT", seconds, 1), 0);
    theatre.puppets[0].pid = start_worker(&theatre, NULL, "2G");
    assert_int_equal(unsetenv("SHOAL_RECONNECT"), 0);
    await_registrations(&theatre);
    begin_ns = clock_monotonic_ns();
    control_server_destroy(theatre.server);
    theatre.server = NULL;
    assert_int_equal(exit_code_of(&theatre, 0), 1);
    assert_true(clock_monotonic_ns() - begin_ns >= least_ns);
    poller_destroy(theatre.poller);
    catalog_close(theatre.catalog);
    arena_deinit(&theatre.message_arena);
    arena_deinit(&theatre.arena);
}

static void a_worker_gives_up_a_lost_coordinator_when_it_was_told_to(void **state)
{
    (void)state;
    lost_worker_ends_after("0", 0);
    lost_worker_ends_after("1", NS_PER_S);
}

static void another_worker_registers_again_and_keeps_its_weights(void **state)
{
    struct theatre theatre;
    struct cluster_key key = {0};
    struct error err = {0};
    char endpoint[128], hash[MODEL_HASH_BYTES];
    const struct register_message *reg = &theatre.message.reg;

    (void)state;
    theatre_open(&theatre, 0, "2G");
    theatre.count = 1;
    theatre.puppets[0].pid = start_worker(&theatre, NULL, "2G");
    await_registrations(&theatre);
    assert_string_equal(reg->held_model, "");
    assert_true(reg->last_epoch == 0);
    serve(&theatre, 5, 1);
    assert_true(theatre.read_bytes > 0);
    (void)snprintf(endpoint, sizeof(endpoint), "%s", control_server_endpoint(theatre.server));
    control_server_destroy(theatre.server);
    theatre.server = control_listen(endpoint, &key, theatre.poller, &err);
    assert_non_null(theatre.server);
    await_registrations(&theatre);
    model_hash(theatre.catalog, hash);
    assert_string_equal(reg->held_model, hash);
    assert_true(reg->held_bytes > 0 && reg->held_stage == 0 && reg->held_member == 0);
    assert_true(reg->last_epoch == 5);
    serve(&theatre, 6, 1);
    assert_true(theatre.read_bytes == 0 && theatre.kept_bytes > 0);
    run_prompt(&theatre, 6, 1, 0);
    dismiss(&theatre);
    theatre_close(&theatre);
}

static void a_started_worker_ends_when_its_coordinator_is_lost(void **state)
{
    struct theatre theatre;

    (void)state;
    theatre_open(&theatre, 1, "2G");
    await_registrations(&theatre);
    serve(&theatre, 1, 1);
    control_server_destroy(theatre.server);
    theatre.server = NULL;
    assert_int_equal(exit_code_of(&theatre, 0), 1);
    poller_destroy(theatre.poller);
    catalog_close(theatre.catalog);
    arena_deinit(&theatre.message_arena);
    arena_deinit(&theatre.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_load_connect_compute_and_leave),
        cmocka_unit_test(a_new_epoch_takes_over_from_a_running_one),
        cmocka_unit_test(a_share_is_loaded_ahead_while_steps_run),
        cmocka_unit_test(a_step_issued_again_takes_over_from_a_stuck_one),
        cmocka_unit_test(attempts_may_follow_each_other_at_once),
        cmocka_unit_test(an_epoch_whose_frames_never_come_can_be_replaced),
        cmocka_unit_test(nonsense_in_a_step_is_refused_and_the_next_one_served),
        cmocka_unit_test(too_little_memory_is_refused_with_the_ledger),
        cmocka_unit_test(steps_too_large_for_a_frame_are_refused),
        cmocka_unit_test(another_model_is_refused),
        cmocka_unit_test(sigterm_asks_the_coordinator_before_it_leaves),
        cmocka_unit_test(a_second_signal_ends_at_once),
        cmocka_unit_test(who_is_refused_takes_the_next_assignment),
        cmocka_unit_test(a_worker_gives_up_a_lost_coordinator_when_it_was_told_to),
        cmocka_unit_test(another_worker_registers_again_and_keeps_its_weights),
        cmocka_unit_test(a_started_worker_ends_when_its_coordinator_is_lost),
    };

    log_init("coordinator", LOG_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
