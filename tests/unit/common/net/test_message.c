/* Every kind of message comes back as it went, or is refused with the field's name. */
#include "common/net/control.h"

#include "common/base/mem.h"
#include "tests/support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CHUNK_BYTES 4096

static struct arena arena;
static struct random source;

static int arena_setup(void **state)
{
    (void)state;
    arena_init(&arena, CHUNK_BYTES);
    return 0;
}

static int arena_teardown(void **state)
{
    (void)state;
    arena_deinit(&arena);
    return 0;
}

/* --- messages of random values --- */

static uint32_t r32(void)
{
    return (uint32_t)random_u64(&source);
}

static int64_t rns(void)
{
    return (int64_t)random_below(&source, INT64_MAX / 2);
}

static const char *rtext(void)
{
    size_t length = random_below(&source, 30);
    char *text = arena_alloc(&arena, length + 1);

    for (size_t i = 0; i < length; i++) {
        text[i] = (char)('a' + random_below(&source, 26));
    }
    return text;
}

static uint32_t *rarray(uint32_t count)
{
    uint32_t *values = arena_new_array(&arena, uint32_t, count);

    for (uint32_t i = 0; i < count; i++) {
        values[i] = r32() >> random_below(&source, 32);
    }
    return values;
}

static struct message register_make(void)
{
    return (struct message){.kind = MESSAGE_REGISTER,
                            .reg = {.protocol_major = PROTOCOL_MAJOR,
                                    .protocol_minor = r32(),
                                    .build = rtext(),
                                    .host = rtext(),
                                    .pid = r32(),
                                    .core_count = r32(),
                                    .thread_count = r32(),
                                    .numa_node_count = r32(),
                                    .memory_bytes = random_u64(&source),
                                    .cpu_level = rtext(),
                                    .cpu_features = rtext(),
                                    .cpu_name = rtext(),
                                    .read_bytes_per_s = random_unit(&source) * 1e10,
                                    .world_id = random_u64(&source),
                                    .world_rank = 3,
                                    .world_size = 4,
                                    .data_endpoint = rtext(),
                                    .kernels_version = r32(),
                                    .numa_node = UINT32_MAX,
                                    .launch_token = rtext(),
                                    .held_model = rtext(),
                                    .held_bytes = random_u64(&source),
                                    .held_stage = r32(),
                                    .held_member = r32(),
                                    .last_epoch = random_u64(&source) / 2,
                                    .fast_numerics = rtext()}};
}

/* Two stages of two and one members, a dense layer, four experts with a replica, a draft layer. */
static struct message assign_make(void)
{
    struct placement *placement = arena_new(&arena, struct placement);
    struct peer_address *peers = arena_new_array(&arena, struct peer_address, 3);
    uint32_t owners = 0;

    *placement = (struct placement){.epoch = random_u64(&source) | 1,
                                    .numerics_id = "exact/f16/k1",
                                    .layer_count = 4,
                                    .expert_count = 4,
                                    .dense_layer_count = 1,
                                    .draft_layer_count = 1,
                                    .stage_count = 2,
                                    .lane_count = 2,
                                    .kv_type = KV_Q8,
                                    .kv_block_count = 100,
                                    .slot_count = 8,
                                    .context_tokens_max = 640,
                                    .step_rows_max = 512,
                                    .steps_in_flight_max = 3};
    placement->stages = arena_new_array(&arena, struct placement_stage, 2);
    placement->stages[0] = (struct placement_stage){0, 2, 2, rarray(2)};
    placement->stages[1] = (struct placement_stage){2, 4, 1, rarray(1)};
    placement->stages[0].workers[0] = 5;
    placement->stages[0].workers[1] = 9;
    placement->stages[1].workers[0] = 2;
    placement->lane_member = arena_new_array(&arena, uint32_t, 4);
    placement->lane_member[1] = 1;
    placement->replica_offset = arena_new_array(&arena, uint32_t, 21);
    placement->replica_member = arena_new_array(&arena, uint32_t, 64);
    for (uint32_t i = 0; i < 20; i++) {
        placement->replica_offset[i] = owners;
        if (i >= 4) {
            placement->replica_member[owners++] = 0;
        }
        if (i >= 4 && i < 8) {
            placement->replica_member[owners++] = 1;
        }
    }
    placement->replica_offset[20] = owners;
    for (uint32_t i = 0; i < 3; i++) {
        peers[i] = (struct peer_address){i, rtext(), random_u64(&source), r32()};
    }
    return (struct message){.kind = MESSAGE_ASSIGN,
                            .assign = {.placement = placement,
                                       .peer_count = 3,
                                       .peers = peers,
                                       .model = rtext(),
                                       .model_hash = rtext(),
                                       .weights = rtext(),
                                       .fetch_id = rtext(),
                                       .fetch_port = (uint16_t)r32(),
                                       .preload = true}};
}

static struct message loaded_make(void)
{
    struct ledger_line *lines = arena_new_array(&arena, struct ledger_line, 3);

    for (uint32_t i = 0; i < 3; i++) {
        lines[i] = (struct ledger_line){rtext(), random_u64(&source)};
    }
    return (struct message){.kind = MESSAGE_LOADED,
                            .loaded = {random_u64(&source), 3, lines, random_u64(&source), rns(),
                                       random_u64(&source), random_u64(&source)}};
}

static struct message ready_make(void)
{
    struct link_report *links = arena_new_array(&arena, struct link_report, 2);

    links[0] = (struct link_report){r32(), "zmq", rns(), 1e9};
    links[1] = (struct link_report){r32(), "mpi", rns(), 0};
    return (struct message){.kind = MESSAGE_READY, .ready = {random_u64(&source), 2, links}};
}

static struct message heartbeat_make(void)
{
    struct link_usage *links = arena_new_array(&arena, struct link_usage, 2);

    for (uint32_t i = 0; i < 2; i++) {
        links[i] = (struct link_usage){r32(), rtext(), random_u64(&source), 1, 2, 3, 4, 5};
    }
    return (struct message){.kind = MESSAGE_HEARTBEAT,
                            .heartbeat = {.sent_ns = rns(),
                                          .epoch = 3,
                                          .steps = random_u64(&source),
                                          .busy_ns = rns(),
                                          .wait_ns = rns(),
                                          .memory_bytes = random_u64(&source),
                                          .frames_dropped = r32(),
                                          .link_count = 2,
                                          .links = links}};
}

static struct message step_make(void)
{
    struct step_entry *entries = arena_new_array(&arena, struct step_entry, 5);
    struct token_bias *biases = arena_new_array(&arena, struct token_bias, 3);

    for (uint32_t i = 0; i < 3; i++) {
        biases[i] = (struct token_bias){.token = 7 * i, .bias = random_normal(&source)};
    }
    for (uint32_t i = 0; i < 5; i++) {
        entries[i] = (struct step_entry){.sequence = random_u64(&source),
                                         .lane = r32(),
                                         .slot = r32(),
                                         .position = r32() / 2,
                                         .token_count = i * 7,
                                         .tokens = rarray(i * 7),
                                         .draft_count = i,
                                         .next_token = i == 2 ? STEP_TOKEN_NONE : r32() / 2,
                                         .propose_max = r32(),
                                         .generated_begin = r32(),
                                         .block_begin = r32() / 2,
                                         .block_count = i,
                                         .blocks = rarray(i),
                                         .wants = r32() % 32,
                                         .sampling = {.temperature = 0.8F,
                                                      .top_p = 1,
                                                      .min_p = 0.05F,
                                                      .top_k = r32(),
                                                      .choice = r32(),
                                                      .seed = random_u64(&source),
                                                      .repetition_penalty = 1.5F,
                                                      .presence_penalty = -0.5F,
                                                      .frequency_penalty = 0.25F,
                                                      .bias_count = i % 4,
                                                      .biases = biases,
                                                      .logprobs = r32() % 20,
                                                      .prompt_logprobs = r32() % 20}};
    }
    return (struct message){.kind = MESSAGE_STEP,
                            .step = {random_u64(&source), random_u64(&source), r32(), 5, entries}};
}

static struct message result_make(void)
{
    struct step_sample *samples = arena_new_array(&arena, struct step_sample, 2);
    struct step_proposal *proposals = arena_new_array(&arena, struct step_proposal, 2);
    struct step_logprobs *logprobs = arena_new_array(&arena, struct step_logprobs, 2);
    struct step_rows *rows = arena_new_array(&arena, struct step_rows, 4);
    struct step_routing *routing = arena_new_array(&arena, struct step_routing, 4);
    float *weights = arena_new_array(&arena, float, 32);

    for (uint32_t i = 0; i < 4; i++) {
        routing[i] = (struct step_routing){r32(), r32(), r32(), (3 - i) * 8};
    }
    for (uint32_t i = 0; i < 32; i++) {
        weights[i] = random_normal(&source);
    }
    for (uint32_t i = 0; i < 2; i++) {
        samples[i] = (struct step_sample){r32(), r32(), r32()};
        proposals[i] = (struct step_proposal){r32(), 2 * i, rarray(2 * i)};
        logprobs[i] = (struct step_logprobs){r32(), r32(), r32(),         -1.5F,
                                             r32(), 8 * i, rarray(8 * i), weights};
    }
    for (uint32_t i = 0; i < 4; i++) {
        rows[i] = (struct step_rows){r32(), r32(), r32() % 1000, r32() % 1000, NULL};
    }
    return (struct message){.kind = MESSAGE_STEP_RESULT,
                            .result = {.epoch = random_u64(&source),
                                       .step = random_u64(&source),
                                       .attempt = r32(),
                                       .worker = r32(),
                                       .begin_ns = rns(),
                                       .end_ns = rns(),
                                       .wait_ns = rns(),
                                       .row_count = r32(),
                                       .sample_count = 2,
                                       .samples = samples,
                                       .proposal_count = 2,
                                       .proposals = proposals,
                                       .logprobs_count = 2,
                                       .logprobs = logprobs,
                                       .draft_logits_count = 1,
                                       .draft_logits = rows + 3,
                                       .logits_count = 1,
                                       .logits = rows,
                                       .hidden_count = 2,
                                       .hidden = rows + 1,
                                       .routing_count = 4,
                                       .routing = routing,
                                       .chosen_count = 8,
                                       .experts = rarray(32),
                                       .expert_weights = weights}};
}

static struct message message_make(enum message_kind kind)
{
    switch (kind) {
    case MESSAGE_REGISTER:
        return register_make();
    case MESSAGE_WELCOME:
        return (struct message){.kind = kind, .welcome = {r32(), 1, r32(), rns()}};
    case MESSAGE_ASSIGN:
        return assign_make();
    case MESSAGE_PROGRESS:
        return (struct message){.kind = kind,
                                .progress = {random_u64(&source), random_u64(&source), 0}};
    case MESSAGE_LOADED:
        return loaded_make();
    case MESSAGE_CONNECT:
        return (struct message){.kind = kind, .connect_epoch = random_u64(&source)};
    case MESSAGE_READY:
        return ready_make();
    case MESSAGE_START:
        return (struct message){.kind = kind, .start_epoch = random_u64(&source)};
    case MESSAGE_STEP:
        return step_make();
    case MESSAGE_STEP_RESULT:
        return result_make();
    case MESSAGE_HEARTBEAT:
        return heartbeat_make();
    case MESSAGE_DRAIN:
        return (struct message){.kind = kind};
    case MESSAGE_LINK_LOST:
        return (struct message){.kind = kind,
                                .link_lost = {random_u64(&source), r32(), r32(), rtext()}};
    case MESSAGE_ATTEMPT:
        return (struct message){.kind = kind,
                                .attempt = {random_u64(&source), r32(), true, 3, rarray(6)}};
    case MESSAGE_ERROR:
        break;
    }
    return (struct message){
        .kind = MESSAGE_ERROR,
        .error = {1 + (enum error_code)(r32() % 5), 2, UINT64_MAX, true, rtext()}};
}

/* --- what came back --- */

static void assign_compare(const struct assign_message *a, const struct assign_message *b)
{
    const struct placement *x = a->placement;
    const struct placement *y = b->placement;

    assert_int_equal(x->epoch, y->epoch);
    assert_string_equal(x->numerics_id, y->numerics_id);
    assert_int_equal(x->kv_type, y->kv_type);
    assert_int_equal(x->layer_count, y->layer_count);
    assert_int_equal(x->stage_count, y->stage_count);
    for (uint32_t i = 0; i < x->stage_count; i++) {
        assert_int_equal(x->stages[i].layer_end, y->stages[i].layer_end);
        assert_int_equal(x->stages[i].member_count, y->stages[i].member_count);
        assert_memory_equal(x->stages[i].workers, y->stages[i].workers,
                            x->stages[i].member_count * sizeof(uint32_t));
    }
    assert_memory_equal(x->lane_member, y->lane_member, 4 * sizeof(uint32_t));
    assert_int_equal(x->draft_layer_count, y->draft_layer_count);
    assert_memory_equal(x->replica_offset, y->replica_offset, 21 * sizeof(uint32_t));
    assert_memory_equal(x->replica_member, y->replica_member,
                        x->replica_offset[20] * sizeof(uint32_t));
    assert_int_equal(x->steps_in_flight_max, y->steps_in_flight_max);
    assert_int_equal(a->peer_count, b->peer_count);
    assert_string_equal(a->peers[2].data_endpoint, b->peers[2].data_endpoint);
    assert_true(a->peers[2].world_id == b->peers[2].world_id);
    assert_string_equal(a->model_hash, b->model_hash);
    assert_string_equal(a->fetch_id, b->fetch_id);
    assert_int_equal(a->fetch_port, b->fetch_port);
    assert_string_equal(a->weights, b->weights);
}

static void sampling_compare(const struct sampling_params *x, const struct sampling_params *y)
{
    struct sampling_params copy = *y;

    assert_memory_equal(x->biases, y->biases, x->bias_count * sizeof(*x->biases));
    copy.biases = x->biases;
    assert_memory_equal(x, &copy, sizeof(copy));
}

static void step_compare(const struct step *a, const struct step *b)
{
    assert_true(a->epoch == b->epoch && a->number == b->number && a->attempt == b->attempt);
    assert_int_equal(a->entry_count, b->entry_count);
    for (uint32_t i = 0; i < a->entry_count; i++) {
        const struct step_entry *x = &a->entries[i];
        const struct step_entry *y = &b->entries[i];

        assert_true(x->sequence == y->sequence && x->lane == y->lane && x->slot == y->slot);
        assert_true(x->position == y->position && x->generated_begin == y->generated_begin);
        assert_int_equal(x->token_count, y->token_count);
        assert_true(x->token_count == 0 ||
                    memcmp(x->tokens, y->tokens, x->token_count * sizeof(uint32_t)) == 0);
        assert_int_equal(x->block_count, y->block_count);
        assert_true(x->block_count == 0 ||
                    memcmp(x->blocks, y->blocks, x->block_count * sizeof(uint32_t)) == 0);
        assert_true(x->block_begin == y->block_begin && x->wants == y->wants);
        assert_true(x->draft_count == y->draft_count && x->next_token == y->next_token &&
                    x->propose_max == y->propose_max);
        sampling_compare(&x->sampling, &y->sampling);
    }
}

static void proposals_compare(const struct step_result *a, const struct step_result *b)
{
    assert_int_equal(a->proposal_count, b->proposal_count);
    for (uint32_t i = 0; i < a->proposal_count; i++) {
        assert_int_equal(a->proposals[i].entry, b->proposals[i].entry);
        assert_int_equal(a->proposals[i].count, b->proposals[i].count);
        assert_memory_equal(a->proposals[i].tokens, b->proposals[i].tokens,
                            a->proposals[i].count * sizeof(uint32_t));
    }
}

static void logprobs_compare(const struct step_result *a, const struct step_result *b)
{
    assert_int_equal(a->logprobs_count, b->logprobs_count);
    for (uint32_t i = 0; i < a->logprobs_count; i++) {
        const struct step_logprobs *x = &a->logprobs[i];
        const struct step_logprobs *y = &b->logprobs[i];

        assert_true(x->entry == y->entry && x->row == y->row && x->token == y->token);
        assert_true(x->rank == y->rank && x->top_count == y->top_count);
        assert_memory_equal(&x->logprob, &y->logprob, sizeof(float));
        assert_memory_equal(x->top_tokens, y->top_tokens, x->top_count * sizeof(uint32_t));
        assert_memory_equal(x->top_logprobs, y->top_logprobs, x->top_count * sizeof(float));
    }
}

static void result_compare(const struct step_result *a, const struct step_result *b)
{
    assert_true(a->begin_ns == b->begin_ns && a->end_ns == b->end_ns && a->wait_ns == b->wait_ns);
    assert_true(a->epoch == b->epoch && a->step == b->step && a->worker == b->worker);
    assert_int_equal(a->sample_count, b->sample_count);
    assert_memory_equal(a->samples, b->samples, a->sample_count * sizeof(*a->samples));
    assert_int_equal(a->logits_count, b->logits_count);
    assert_memory_equal(a->logits, b->logits, a->logits_count * sizeof(*a->logits));
    assert_int_equal(a->hidden_count, b->hidden_count);
    assert_memory_equal(a->hidden, b->hidden, a->hidden_count * sizeof(*a->hidden));
    assert_int_equal(a->draft_logits_count, b->draft_logits_count);
    assert_memory_equal(a->draft_logits, b->draft_logits,
                        a->draft_logits_count * sizeof(*a->draft_logits));
    proposals_compare(a, b);
    logprobs_compare(a, b);
    assert_int_equal(a->routing_count, b->routing_count);
    assert_memory_equal(a->routing, b->routing, a->routing_count * sizeof(*a->routing));
    assert_memory_equal(a->experts, b->experts, 32 * sizeof(uint32_t));
    assert_memory_equal(a->expert_weights, b->expert_weights, 32 * sizeof(float));
}

static void member_compare(const struct message *a, const struct message *b)
{
    switch (a->kind) {
    case MESSAGE_REGISTER:
        assert_int_equal(a->reg.protocol_minor, b->reg.protocol_minor);
        assert_string_equal(a->reg.data_endpoint, b->reg.data_endpoint);
        assert_string_equal(a->reg.launch_token, b->reg.launch_token);
        assert_string_equal(a->reg.fast_numerics, b->reg.fast_numerics);
        assert_true(a->reg.memory_bytes == b->reg.memory_bytes);
        assert_true(a->reg.world_id == b->reg.world_id);
        assert_memory_equal(&a->reg.read_bytes_per_s, &b->reg.read_bytes_per_s, sizeof(double));
        assert_int_equal(b->reg.numa_node, UINT32_MAX);
        assert_string_equal(a->reg.held_model, b->reg.held_model);
        assert_true(a->reg.held_bytes == b->reg.held_bytes);
        assert_int_equal(a->reg.held_stage, b->reg.held_stage);
        assert_int_equal(a->reg.held_member, b->reg.held_member);
        assert_true(a->reg.last_epoch == b->reg.last_epoch);
        break;
    case MESSAGE_LOADED:
        assert_int_equal(b->loaded.line_count, 3);
        assert_string_equal(a->loaded.lines[2].what, b->loaded.lines[2].what);
        assert_true(a->loaded.lines[2].bytes == b->loaded.lines[2].bytes);
        assert_true(a->loaded.load_ns == b->loaded.load_ns);
        assert_true(a->loaded.read_bytes == b->loaded.read_bytes);
        assert_true(a->loaded.kept_bytes == b->loaded.kept_bytes);
        break;
    case MESSAGE_READY:
        assert_int_equal(b->ready.link_count, 2);
        assert_string_equal(b->ready.links[1].kind, "mpi");
        assert_true(a->ready.links[0].latency_ns == b->ready.links[0].latency_ns);
        break;
    case MESSAGE_HEARTBEAT:
        assert_true(a->heartbeat.memory_bytes == b->heartbeat.memory_bytes);
        assert_true(a->heartbeat.frames_dropped == b->heartbeat.frames_dropped);
        assert_true(a->heartbeat.links[1].frames_sent == b->heartbeat.links[1].frames_sent);
        assert_int_equal(b->heartbeat.links[1].frames_dropped, 5);
        break;
    case MESSAGE_ERROR:
        assert_int_equal(a->error.code, b->error.code);
        assert_true(b->error.fatal && b->error.step == UINT64_MAX);
        assert_string_equal(a->error.text, b->error.text);
        break;
    case MESSAGE_LINK_LOST:
        assert_true(a->link_lost.epoch == b->link_lost.epoch);
        assert_int_equal(a->link_lost.attempt, b->link_lost.attempt);
        assert_int_equal(a->link_lost.peer, b->link_lost.peer);
        assert_string_equal(a->link_lost.text, b->link_lost.text);
        break;
    case MESSAGE_ATTEMPT:
        assert_true(a->attempt.epoch == b->attempt.epoch && b->attempt.all_links);
        assert_int_equal(a->attempt.attempt, b->attempt.attempt);
        assert_int_equal(b->attempt.pair_count, 3);
        assert_memory_equal(a->attempt.pairs, b->attempt.pairs, 6 * sizeof(uint32_t));
        break;
    default: /* plain numbers */
        assert_memory_equal(&a->welcome, &b->welcome, sizeof(a->welcome));
        break;
    }
}

static void message_compare(const struct message *a, const struct message *b)
{
    assert_int_equal(a->kind, b->kind);
    switch (a->kind) {
    case MESSAGE_ASSIGN:
        assign_compare(&a->assign, &b->assign);
        break;
    case MESSAGE_STEP:
        step_compare(&a->step, &b->step);
        break;
    case MESSAGE_STEP_RESULT:
        result_compare(&a->result, &b->result);
        break;
    default:
        member_compare(a, b);
        break;
    }
}

static void every_kind_comes_back_as_it_went(void **state)
{
    (void)state;
    random_init(&source, 11);
    for (int round = 0; round < 50; round++) {
        for (int kind = MESSAGE_REGISTER; kind <= MESSAGE_ATTEMPT; kind++) {
            struct message message = message_make((enum message_kind)kind);
            struct message got;
            struct buffer bytes = {0};
            struct error err;

            assert_true(message_encode(&message, &bytes));
            if (!message_decode((const uint8_t *)bytes.data, bytes.length, &arena, &got, &err)) {
                fail_msg("kind %d: %s", kind, err.message);
            }
            message_compare(&message, &got);
            buffer_deinit(&bytes);
            arena_reset(&arena);
        }
    }
}

/* Cut messages may happen to be whole ones with less in them, but never crash or mislead. */
static void messages_cut_at_any_byte_are_safe(void **state)
{
    (void)state;
    random_init(&source, 12);
    for (int kind = MESSAGE_REGISTER; kind <= MESSAGE_ATTEMPT; kind++) {
        struct message message = message_make((enum message_kind)kind);
        struct buffer bytes = {0};
        struct arena local;

        arena_init(&local, CHUNK_BYTES);
        assert_true(message_encode(&message, &bytes));
        for (size_t length = 0; length < bytes.length; length++) {
            uint8_t *exact = mem_alloc_zeroed(length, 1);
            struct message got;
            struct error err;

            memcpy(exact, bytes.data, length);
            assert_false(message_decode(exact, length, &local, &got, &err));
            assert_int_equal(err.code, ERROR_INPUT);
            mem_free(exact);
            arena_reset(&local);
        }
        arena_deinit(&local);
        buffer_deinit(&bytes);
    }
}

static void bytes_are_refused(const struct message *message, const char *why)
{
    struct buffer bytes = {0};
    struct message got;
    struct error err = {0};

    assert_true(message_encode(message, &bytes));
    assert_false(message_decode((const uint8_t *)bytes.data, bytes.length, &arena, &got, &err));
    if (strstr(err.message, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    }
    buffer_deinit(&bytes);
}

static void wrong_values_are_refused_by_the_name_of_their_field(void **state)
{
    struct message message;

    (void)state;
    random_init(&source, 13);
    message = step_make();
    message.step.entries[2].wants = 32;
    bytes_are_refused(&message, "step: entries[2]: wants");
    message = step_make();
    message.step.entries[1].draft_count = 7;
    bytes_are_refused(&message, "draft_count: 7 of 7 tokens");
    message = step_make();
    message.step.entries[0].sampling.presence_penalty = NAN;
    bytes_are_refused(&message, "sampling.presence_penalty");
    message = step_make();
    message.step.entries[0].sampling.logprobs = 5000;
    bytes_are_refused(&message, "sampling.logprobs");
    message = step_make();
    message.step.entries[2].sampling.biases =
        (const struct token_bias[]){{.token = 9}, {.token = 9}};
    bytes_are_refused(&message, "bias_tokens[1]: 9 after 9");
    message = step_make();
    message.step.entries[1].position = UINT32_MAX;
    bytes_are_refused(&message, "position + tokens");
    message = result_make();
    message.result.routing[1].expert_begin = 25;
    bytes_are_refused(&message, "routing_expert_begin[1]");
    message = assign_make();
    message.assign.placement->replica_offset[3] = 7;
    bytes_are_refused(&message, "assign: placement: replica_offset[4]");
    message = assign_make();
    message.assign.placement->stages[1].layer_begin = 3;
    bytes_are_refused(&message, "assign: placement: ");
    message = register_make();
    message.reg.world_rank = 4;
    bytes_are_refused(&message, "register: world_rank");
    message = register_make();
    message.reg.read_bytes_per_s = -1;
    bytes_are_refused(&message, "read_bytes_per_s");
    message = register_make();
    message.reg.last_epoch = UINT64_MAX;
    bytes_are_refused(&message, "last_epoch");
}

static void raw_is_refused(const void *bytes, size_t length, const char *why)
{
    struct message got;
    struct error err = {0};

    assert_false(message_decode(bytes, length, &arena, &got, &err));
    if (strstr(err.message, why) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    }
}

static void unknown_kinds_and_codes_are_refused(void **state)
{
    (void)state;
    raw_is_refused("", 0, "kind: missing or unknown");
    raw_is_refused("\xfa\x06\x00", 3, "kind: missing or unknown"); /* field 111 */
    raw_is_refused("\x6a\x02\x08\x09", 4, "code: unknown value 9");
    raw_is_refused("\x6a\x00", 2, "code: unknown value 0");
    raw_is_refused("\x1a\x00", 2, "placement: missing");
    raw_is_refused("hello world", 11, "malformed");
}

/* Only the first two fields are as we know them; the third is another type than ours. */
static void a_register_of_another_major_tells_its_versions(void **state)
{
    static const uint8_t bytes[] = {0x0a, 0x06, 0x08, 0x07, 0x10, 0x03, 0x18, 0x01};
    struct message got;
    struct error err;

    (void)state;
    assert_true(message_decode(bytes, sizeof(bytes), &arena, &got, &err));
    assert_int_equal(got.kind, MESSAGE_REGISTER);
    assert_int_equal(got.reg.protocol_major, 7);
    assert_int_equal(got.reg.protocol_minor, 3);
    assert_string_equal(got.reg.host, "");
}

/* A newer minor may have added fields. */
static void unknown_fields_are_passed_over(void **state)
{
    static const uint8_t bytes[] = {0x32, 0x05, 0x08, 0x09, 0x92, 0x3f, 0x00};
    struct message got;
    struct error err;

    (void)state;
    assert_true(message_decode(bytes, sizeof(bytes), &arena, &got, &err));
    assert_int_equal(got.kind, MESSAGE_CONNECT);
    assert_int_equal(got.connect_epoch, 9);
}

/* Two bytes an entry: the decoder's memory must stay in proportion. */
static void many_empty_entries_are_bounded(void **state)
{
    static uint8_t inner[2 * 70000];
    struct buffer bytes = {0};
    struct message got;
    struct error err;
    uint32_t length = sizeof(inner);

    (void)state;
    for (size_t i = 0; i < sizeof(inner); i += 2) {
        inner[i] = 0x22; /* step.entries */
    }
    buffer_append_char(&bytes, 0x4a);
    for (; length >= 0x80; length >>= 7) {
        buffer_append_char(&bytes, (char)(length | 0x80));
    }
    buffer_append_char(&bytes, (char)length);
    buffer_append(&bytes, inner, sizeof(inner));
    assert_false(message_decode((const uint8_t *)bytes.data, bytes.length, &arena, &got, &err));
    assert_true(arena.used_bytes < ((size_t)64 << 20));
    buffer_deinit(&bytes);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, arena_setup, arena_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_kind_comes_back_as_it_went),
        CASE(messages_cut_at_any_byte_are_safe),
        CASE(wrong_values_are_refused_by_the_name_of_their_field),
        CASE(unknown_kinds_and_codes_are_refused),
        CASE(a_register_of_another_major_tells_its_versions),
        CASE(unknown_fields_are_passed_over),
        CASE(many_empty_entries_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
