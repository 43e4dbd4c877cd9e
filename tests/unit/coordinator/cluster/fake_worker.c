/* fake_worker.c - the worker's side of the control channel, and a model that is a hash. */
#include "fake_worker.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/ring.h"
#include "common/net/control.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define BEAT_NS      (100 * NS_PER_MS)
#define HELD_MAX     64
#define SAMPLES_MAX  64
#define LOGPROBS_MAX 64
#define TOPS_MAX     20

struct held_logprobs {
    struct step_logprobs answer;
    uint32_t tokens[TOPS_MAX];
    float values[TOPS_MAX];
};

struct held_step {
    uint64_t epoch, number;
    uint32_t attempt;
    uint32_t rows;
    uint32_t sample_count;
    struct step_sample samples[SAMPLES_MAX];
    uint32_t logprobs_count;
    struct held_logprobs logprobs[LOGPROBS_MAX];
};

struct fake_worker {
    struct fake_options options;
    char *endpoint;
    pthread_t thread;
    struct poller *poller;
    struct control_client *client;
    uint32_t id, stage, stage_count;

    struct waker waker;
    atomic_bool stop, hold, ask, lose, dismissed;
    atomic_uint held_count;
    atomic_uint attempt, links_anew;
    atomic_uint lost_peer, lost_attempt;
    uint64_t epoch;
    pthread_mutex_t mutex; /* guards error */
    char error[512];

    struct held_step held[HELD_MAX];
};

uint32_t fake_token(uint32_t position)
{
    return 10 + (uint32_t)(hash_mix(position) % 300);
}

float fake_logprob(uint32_t position)
{
    return -0.1f * (float)(1 + position % 7);
}

uint32_t fake_rank(uint32_t position)
{
    return position % 3 == 0 ? 2 : 1;
}

uint32_t fake_other(uint32_t token, uint32_t i)
{
    return token + 1 + i;
}

static void send(struct fake_worker *worker, const struct message *message)
{
    struct error err;

    (void)control_client_send(worker->client, message, &err);
}

static void send_register(struct fake_worker *worker)
{
    const struct fake_options *options = &worker->options;
    struct message message = {
        .kind = MESSAGE_REGISTER,
        .reg = {.protocol_major =
                    options->protocol_major > 0 ? options->protocol_major : PROTOCOL_MAJOR,
                .protocol_minor = options->protocol_minor,
                .build = options->build != NULL ? options->build : SHOAL_VERSION,
                .host = options->host,
                .pid = 1,
                .core_count = 1,
                .thread_count = 1,
                .numa_node_count = 1,
                .memory_bytes = UINT64_C(1) << 34,
                .cpu_level = "reference",
                .cpu_features = "",
                .cpu_name = "none",
                .read_bytes_per_s = 1e9,
                .data_endpoint = "tcp://127.0.0.1:1",
                .kernels_version = options->kernels_version > 0 ? options->kernels_version : 1,
                .numa_node = UINT32_MAX,
                .launch_token = "",
                .fast_numerics =
                    options->fast_numerics != NULL ? options->fast_numerics : "fast-blas"}};

    send(worker, &message);
}

static void send_beat(struct fake_worker *worker)
{
    struct message message = {.kind = MESSAGE_HEARTBEAT,
                              .heartbeat = {.sent_ns = clock_monotonic_ns()}};

    send(worker, &message);
}

static void answer_assign(struct fake_worker *worker, const struct assign_message *assign)
{
    struct ledger_line line = {"weights", 1000};
    struct message progress = {.kind = MESSAGE_PROGRESS,
                               .progress = {assign->placement->epoch, 500, 1000}};
    struct message loaded = {.kind = MESSAGE_LOADED,
                             .loaded = {.epoch = assign->placement->epoch,
                                        .line_count = 1,
                                        .lines = &line,
                                        .limit_bytes = 2000,
                                        .load_ns = 1,
                                        .read_bytes = 1000}};
    struct message refusal = {.kind = MESSAGE_ERROR,
                              .error = {.code = ERROR_LIMIT,
                                        .epoch = assign->placement->epoch,
                                        .step = UINT64_MAX,
                                        .text = worker->options.load_refusal}};
    struct placement_seat seat;

    ASSERT(placement_seat_of(assign->placement, worker->id, &seat));
    worker->epoch = assign->placement->epoch;
    worker->stage = seat.stage;
    worker->stage_count = assign->placement->stage_count;
    if (worker->options.load_refusal != NULL) {
        send(worker, &refusal);
        return;
    }
    send(worker, &progress);
    send(worker, &loaded);
}

/* count: as sampling_params has it. */
static void logprobs_keep(struct held_step *held, uint32_t entry, uint32_t row, uint32_t position,
                          uint32_t token, uint32_t count)
{
    struct held_logprobs *kept = &held->logprobs[held->logprobs_count++];
    uint32_t own = fake_rank(position) - 1; /* its place among the likely ones */

    ASSERT(held->logprobs_count <= LOGPROBS_MAX && count - 1 <= TOPS_MAX);
    kept->answer = (struct step_logprobs){.entry = entry,
                                          .row = row,
                                          .token = token,
                                          .logprob = fake_logprob(position),
                                          .rank = own + 1,
                                          .top_count = count - 1};
    for (uint32_t i = 0; i < count - 1; i++) {
        kept->tokens[i] = i == own ? token : fake_other(token, i < own ? i : i - 1);
        kept->values[i] =
            i < own ? fake_logprob(position) / 2 : fake_logprob(position) - (float)(i - own);
    }
}

static void entry_logprobs_keep(struct held_step *held, const struct step_entry *entry,
                                uint32_t index)
{
    uint32_t last = entry->token_count - 1;
    uint32_t position = entry->position + entry->token_count; /* of what follows the last row */

    for (uint32_t row = 0; entry->sampling.prompt_logprobs > 0 && row < entry->token_count; row++) {
        uint32_t next = row < last ? entry->tokens[row + 1] : entry->next_token;

        if (next != STEP_TOKEN_NONE && entry->position + row + 1 < entry->generated_begin) {
            logprobs_keep(held, index, row, entry->position + row + 1, next,
                          entry->sampling.prompt_logprobs);
        }
    }
    if (entry->sampling.logprobs > 0 && (entry->wants & WANT_SAMPLE) != 0) {
        logprobs_keep(held, index, last, position, fake_token(position) + 7,
                      entry->sampling.logprobs);
        logprobs_keep(held, index, last, position, fake_token(position), entry->sampling.logprobs);
    }
}

static void step_keep(struct fake_worker *worker, const struct step *step)
{
    uint32_t count = atomic_load(&worker->held_count);
    struct held_step *held = &worker->held[count];

    ASSERT(count < HELD_MAX);
    *held =
        (struct held_step){.epoch = step->epoch, .number = step->number, .attempt = step->attempt};
    held->rows = step_row_count(step);
    for (uint32_t i = 0; i < step->entry_count; i++) {
        const struct step_entry *entry = &step->entries[i];

        if (worker->stage + 1 == worker->stage_count && (entry->wants & WANT_SAMPLE) != 0) {
            ASSERT(held->sample_count < SAMPLES_MAX);
            held->samples[held->sample_count++] = (struct step_sample){
                .entry = i, .token = fake_token(entry->position + entry->token_count)};
        }
        if (worker->stage + 1 == worker->stage_count && !worker->options.without_logprobs) {
            entry_logprobs_keep(held, entry, i);
        }
    }
    atomic_store(&worker->held_count, count + 1);
}

static void steps_answer(struct fake_worker *worker)
{
    uint32_t count = atomic_load(&worker->held_count);

    for (uint32_t i = 0; i < count; i++) {
        struct held_step *held = &worker->held[i];
        struct step_logprobs logprobs[LOGPROBS_MAX];
        struct message message = {.kind = MESSAGE_STEP_RESULT,
                                  .result = {.epoch = held->epoch,
                                             .step = held->number,
                                             .attempt = held->attempt,
                                             .worker = worker->id,
                                             .begin_ns = 1000,
                                             .end_ns = 2000,
                                             .row_count = held->rows,
                                             .sample_count = held->sample_count,
                                             .samples = held->samples,
                                             .logprobs_count = held->logprobs_count,
                                             .logprobs = logprobs}};

        for (uint32_t p = 0; p < held->logprobs_count; p++) {
            logprobs[p] = held->logprobs[p].answer;
            logprobs[p].top_tokens = held->logprobs[p].tokens;
            logprobs[p].top_logprobs = held->logprobs[p].values;
        }

        send(worker, &message);
    }
    atomic_store(&worker->held_count, 0);
}

static void message_answer(struct fake_worker *worker, const struct message *message)
{
    struct message ready = {.kind = MESSAGE_READY, .ready = {.epoch = message->connect_epoch}};

    switch (message->kind) {
    case MESSAGE_WELCOME:
        worker->id = message->welcome.worker;
        break;
    case MESSAGE_ASSIGN:
        answer_assign(worker, &message->assign);
        break;
    case MESSAGE_CONNECT:
        send(worker, &ready);
        break;
    case MESSAGE_STEP:
        step_keep(worker, &message->step);
        break;
    case MESSAGE_ATTEMPT:
        atomic_store(&worker->held_count, 0);
        atomic_store(&worker->links_anew,
                     message->attempt.all_links ? UINT32_MAX : message->attempt.pair_count);
        atomic_store(&worker->attempt, message->attempt.attempt);
        break;
    case MESSAGE_DRAIN:
        atomic_store(&worker->dismissed, true);
        break;
    case MESSAGE_ERROR:
        pthread_mutex_lock(&worker->mutex);
        (void)snprintf(worker->error, sizeof(worker->error), "%s", message->error.text);
        pthread_mutex_unlock(&worker->mutex);
        break;
    default:
        break;
    }
}

static void send_loss(struct fake_worker *worker)
{
    struct message message = {.kind = MESSAGE_LINK_LOST,
                              .link_lost = {.epoch = worker->epoch,
                                            .attempt = atomic_load(&worker->lost_attempt),
                                            .peer = atomic_load(&worker->lost_peer),
                                            .text = "a spade cut the cable"}};

    send(worker, &message);
}

static void turn(struct fake_worker *worker, struct arena *arena, int64_t *beat_ns)
{
    struct message leave = {.kind = MESSAGE_DRAIN};
    struct message message;
    struct error err;

    poller_wait(worker->poller, BEAT_NS);
    waker_clear(&worker->waker);
    arena_reset(arena);
    while (control_client_receive(worker->client, arena, &message, &err) == CONTROL_DONE) {
        message_answer(worker, &message);
        arena_reset(arena);
    }
    if (atomic_exchange(&worker->ask, false)) {
        send(worker, &leave);
    }
    if (atomic_exchange(&worker->lose, false)) {
        send_loss(worker);
    }
    if (!atomic_load(&worker->hold)) {
        steps_answer(worker);
    }
    if (clock_monotonic_ns() - *beat_ns > BEAT_NS) {
        *beat_ns = clock_monotonic_ns();
        send_beat(worker);
    }
}

static void *run(void *context)
{
    struct fake_worker *worker = context;
    struct cluster_key key = {.present = false};
    struct arena arena;
    struct error err;
    int64_t beat_ns = clock_monotonic_ns();

    arena_init(&arena, 4096);
    worker->poller = poller_create();
    poller_add_fd(worker->poller, worker->waker.fd);
    worker->client = control_connect(worker->options.endpoint, &key, worker->poller, &err);
    ASSERT(worker->client != NULL);
    send_register(worker);
    while (!atomic_load(&worker->stop)) {
        turn(worker, &arena, &beat_ns);
    }
    control_client_destroy(worker->client);
    poller_destroy(worker->poller);
    arena_deinit(&arena);
    return NULL;
}

struct fake_worker *fake_worker_start(const struct fake_options *options)
{
    struct fake_worker *worker = mem_new(struct fake_worker);

    worker->options = *options;
    worker->endpoint = mem_strdup(options->endpoint); /* the cluster may end before the worker */
    worker->options.endpoint = worker->endpoint;
    ASSERT(waker_open(&worker->waker));
    ASSERT(pthread_mutex_init(&worker->mutex, NULL) == 0);
    ASSERT(pthread_create(&worker->thread, NULL, run, worker) == 0);
    return worker;
}

void fake_worker_kill(struct fake_worker *worker)
{
    if (worker == NULL) {
        return;
    }
    atomic_store(&worker->stop, true);
    waker_wake(&worker->waker);
    (void)pthread_join(worker->thread, NULL);
    waker_close(&worker->waker);
    (void)pthread_mutex_destroy(&worker->mutex);
    mem_free(worker->endpoint);
    mem_free(worker);
}

void fake_worker_hold(struct fake_worker *worker)
{
    atomic_store(&worker->hold, true);
}

void fake_worker_release(struct fake_worker *worker)
{
    atomic_store(&worker->hold, false);
    waker_wake(&worker->waker);
}

void fake_worker_ask_to_leave(struct fake_worker *worker)
{
    atomic_store(&worker->ask, true);
    waker_wake(&worker->waker);
}

void fake_worker_lose_link(struct fake_worker *worker, uint32_t peer, uint32_t attempt)
{
    atomic_store(&worker->lost_peer, peer);
    atomic_store(&worker->lost_attempt, attempt);
    atomic_store(&worker->lose, true);
    waker_wake(&worker->waker);
}

uint32_t fake_worker_attempt(struct fake_worker *worker)
{
    return atomic_load(&worker->attempt);
}

uint32_t fake_worker_links_anew(struct fake_worker *worker)
{
    return atomic_load(&worker->links_anew);
}

bool fake_worker_was_dismissed(struct fake_worker *worker)
{
    return atomic_load(&worker->dismissed);
}

bool fake_worker_error(struct fake_worker *worker, char *text, uint32_t bytes)
{
    pthread_mutex_lock(&worker->mutex);
    (void)snprintf(text, bytes, "%s", worker->error);
    pthread_mutex_unlock(&worker->mutex);
    return text[0] != '\0';
}

uint32_t fake_worker_held_steps(struct fake_worker *worker)
{
    return atomic_load(&worker->held_count);
}
