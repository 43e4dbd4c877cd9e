/* worker.c - the communication thread: the coordinator's end of it, and the life of the process.
 *
 * Turn: sleep until something happens, read the control channel, move the epoch along, send what is
 * due. A coordinator that is silent for long is lost: a worker that it started ends, any other one
 * keeps its weights and registers again, as often as it takes.
 */
#include "worker/stage/worker.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/units.h"
#include "worker/kernels/kernels.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HEARTBEAT_NS       NS_PER_S /* until the coordinator says otherwise */
#define HEARTBEAT_NS_MIN   (10 * NS_PER_MS)
#define HEARTBEAT_NS_MAX   (60 * NS_PER_S)
#define JOIN_RETRY_NS      (15 * NS_PER_S) /* over a connection that stands */
#define JOIN_LOG_NS        (60 * NS_PER_S)
#define SILENCE_NS         (15 * NS_PER_S)
#define SILENCE_HEARTBEATS 10
#define LEAVE_NS           (24 * NS_PER_S)
/* All workers of a cluster are told at about the same time: nobody closes links before the others
 * know why. */
#define LINGER_NS (100 * NS_PER_MS)
#define LINKS_MAX 256

/* --- sending --- */

void worker_end(struct worker *worker, int exit_code)
{
    worker->is_over = true;
    worker->exit_code = exit_code;
}

/* A full queue of the control channel holds ten thousand messages: what does not fit into it would
 * not be read either. A lost channel shows in the next receive. */
void worker_send(struct worker *worker, const struct message *message)
{
    struct error err;

    if (control_client_send(worker->control, message, &err) == CONTROL_AGAIN) {
        log_warn("message of kind %d dropped: the control channel is full", (int)message->kind);
    }
}

void worker_send_error(struct worker *worker, const struct error *err, uint64_t epoch,
                       uint64_t step)
{
    struct message message = {
        .kind = MESSAGE_ERROR,
        .error = {.code = err->code, .epoch = epoch, .step = step, .text = err->message},
    };

    worker_send(worker, &message);
}

static void send_register(struct worker *worker)
{
    struct message message = {
        .kind = MESSAGE_REGISTER,
        .reg =
            {
                .protocol_major = PROTOCOL_MAJOR,
                .protocol_minor = PROTOCOL_MINOR,
                .build = SHOAL_VERSION,
                .host = worker->facts.host,
                .pid = (uint32_t)getpid(),
                .core_count = worker->facts.core_count,
                .thread_count = team_thread_count(worker->team),
                .numa_node_count = worker->facts.numa_node_count,
                .memory_bytes = worker->facts.memory_bytes,
                .cpu_level = cpu_level_name(worker->cpu_level),
                .cpu_features = worker->facts.cpu_features,
                .cpu_name = worker->facts.cpu_name,
                .read_bytes_per_s = worker->facts.read_bytes_per_s,
                .world_id = worker->world.id,
                .world_rank = worker->world.rank,
                .world_size = worker->world.size,
                .data_endpoint = mesh_endpoint(worker->mesh),
                .kernels_version = KERNELS_VERSION,
                .numa_node = worker->facts.numa_node,
                .launch_token = worker->options.launch_token,
                .held_model = worker->held.model,
                .held_bytes = worker->held.bytes,
                .held_stage = worker->held.stage,
                .held_member = worker->held.member,
                .last_epoch = worker->last_epoch,
                .fast_numerics = numerics_name(kernels_fast(worker->cpu_level)),
            },
    };

    worker_send(worker, &message);
}

static void send_heartbeat(struct worker *worker, int64_t now_ns)
{
    struct link_usage links[LINKS_MAX];
    struct compute_counters counters = worker_epoch_counters(worker);
    struct message message = {
        .kind = MESSAGE_HEARTBEAT,
        .heartbeat =
            {
                .sent_ns = now_ns,
                .epoch = worker_epoch_number(worker),
                .steps = counters.steps,
                .busy_ns = counters.busy_ns,
                .wait_ns = counters.wait_ns,
                .memory_bytes = facts_resident_bytes(),
                .frames_dropped = counters.frames_dropped,
                .link_count = mesh_usage(worker->mesh, links, LINKS_MAX),
                .links = links,
            },
    };

    worker->beat_ns = now_ns;
    worker_send(worker, &message);
}

/* --- joining --- */

static bool join(struct worker *worker, struct error *err)
{
    control_client_destroy(worker->control);
    worker->control =
        control_connect(worker->options.coordinator, &worker->key, worker->poller, err);
    if (worker->control == NULL) {
        return false;
    }
    worker->phase = WORKER_JOINING;
    worker->heartbeat_ns = HEARTBEAT_NS;
    worker->joined_ns = clock_monotonic_ns();
    worker->heard_ns = worker->joined_ns;
    send_register(worker);
    return true;
}

/* A connection that is tried for the first time needs no news; a lost one is told once, then every
 * minute. */
static void lose_coordinator(struct worker *worker, const char *why)
{
    int64_t now_ns = clock_monotonic_ns();
    struct error err;

    worker_epoch_abandon(worker);
    if (worker->options.launch_token[0] != '\0' || worker->options.reconnect_seconds == 0) {
        log_error("coordinator lost: %s", why);
        worker_end(worker, 1);
        return;
    }
    if (worker->phase != WORKER_JOINING) {
        worker->lost_ns = now_ns;
        worker->told_ns = now_ns;
        log_warn("coordinator lost: %s; weights are kept, registering again", why);
    }
    if (worker->is_leaving) {
        worker_end(worker, 0);
    } else if (!join(worker, &err)) {
        log_error("%s", err.message);
        worker_end(worker, 1);
    }
}

static bool gives_up(const struct worker *worker, int64_t now_ns)
{
    int64_t limit_seconds = worker->options.reconnect_seconds;

    return worker->lost_ns > 0 && limit_seconds >= 0 &&
           now_ns - worker->lost_ns >= limit_seconds * NS_PER_S;
}

/* libzmq tries to connect by itself, every 0.1 s at first and every 2 s in the end, with jitter. */
static void check_joining(struct worker *worker, int64_t now_ns)
{
    const char *endpoint = worker->options.coordinator;
    int64_t since_ns = worker->lost_ns > 0 ? worker->lost_ns : worker->begin_ns;

    if (gives_up(worker, now_ns)) {
        log_error("no coordinator at %s for %" PRId64 " s: giving up (--reconnect)", endpoint,
                  (now_ns - worker->lost_ns) / NS_PER_S);
        worker_end(worker, 1);
        return;
    }
    if (now_ns - worker->told_ns >= JOIN_LOG_NS) {
        worker->told_ns = now_ns;
        log_info("still no coordinator at %s after %" PRId64 " s, trying on", endpoint,
                 (now_ns - since_ns) / NS_PER_S);
    }
    if (!control_client_is_open(worker->control)) {
        worker->joined_ns = now_ns; /* the registration waits here until it is */
    } else if (now_ns - worker->joined_ns > JOIN_RETRY_NS) {
        log_info("no answer from %s yet, trying again", endpoint);
        lose_coordinator(worker, "no answer to the registration");
    }
}

/* --- messages --- */

static int64_t heartbeat_of(const struct welcome_message *welcome)
{
    int64_t wanted_ns = welcome->heartbeat_ns > 0 ? welcome->heartbeat_ns : HEARTBEAT_NS;

    if (wanted_ns < HEARTBEAT_NS_MIN) {
        return HEARTBEAT_NS_MIN;
    }
    return wanted_ns < HEARTBEAT_NS_MAX ? wanted_ns : HEARTBEAT_NS_MAX;
}

static void handle_welcome(struct worker *worker, const struct welcome_message *welcome)
{
    char who[32];

    if (worker->phase != WORKER_JOINING) {
        return;
    }
    worker->id = welcome->worker;
    worker->protocol_minor = welcome->protocol_minor;
    worker->heartbeat_ns = heartbeat_of(welcome);
    worker->phase = WORKER_IDLE;
    worker->lost_ns = 0;
    (void)snprintf(who, sizeof(who), "worker %u", worker->id);
    log_set_who(who);
    log_info("joined %s: data=%s", worker->options.coordinator, mesh_endpoint(worker->mesh));
}

static void handle_error(struct worker *worker, const struct error_message *message)
{
    if (message->fatal) {
        log_error("the coordinator refuses: %s", message->text);
        worker_end(worker, 1);
        return;
    }
    log_warn("the coordinator reports: %s", message->text);
}

static void leave(struct worker *worker)
{
    if (!worker->is_leaving) {
        worker->is_leaving = true;
        worker->leaving_ns = clock_monotonic_ns();
    }
}

static void handle(struct worker *worker, struct message *message)
{
    switch (message->kind) {
    case MESSAGE_WELCOME:
        handle_welcome(worker, &message->welcome);
        break;
    case MESSAGE_ASSIGN:
        if (worker->phase != WORKER_JOINING) {
            worker_epoch_assign(worker, message);
        }
        break;
    case MESSAGE_CONNECT:
        worker_epoch_connect(worker, message->connect_epoch);
        break;
    case MESSAGE_START:
        worker_epoch_start(worker, message->start_epoch);
        break;
    case MESSAGE_STEP:
        worker_epoch_step(worker, message);
        break;
    case MESSAGE_ATTEMPT:
        worker_epoch_attempt(worker, &message->attempt);
        break;
    case MESSAGE_DRAIN:
        leave(worker);
        worker->may_leave_ns = clock_monotonic_ns();
        break;
    case MESSAGE_ERROR:
        handle_error(worker, &message->error);
        break;
    case MESSAGE_HEARTBEAT:
    case MESSAGE_REGISTER:
    case MESSAGE_PROGRESS:
    case MESSAGE_LOADED:
    case MESSAGE_READY:
    case MESSAGE_STEP_RESULT:
    case MESSAGE_LINK_LOST:
        break; /* a sign of life, or not for us */
    }
}

static void receive_messages(struct worker *worker)
{
    while (!worker->is_over && !worker->step_is_held) {
        struct message message;
        struct error err;
        enum control_result result;

        arena_reset(&worker->arena);
        result = control_client_receive(worker->control, &worker->arena, &message, &err);
        if (result == CONTROL_LOST) {
            lose_coordinator(worker, err.message);
            return; /* the next turn goes on */
        }
        if (result == CONTROL_AGAIN) {
            return;
        }
        worker->heard_ns = clock_monotonic_ns();
        handle(worker, &message);
    }
}

/* --- time --- */

static void check_silence(struct worker *worker, int64_t now_ns)
{
    int64_t silence_ns = SILENCE_HEARTBEATS * worker->heartbeat_ns;

    if (worker->phase == WORKER_JOINING) {
        check_joining(worker, now_ns);
        return;
    }
    silence_ns = silence_ns > SILENCE_NS ? silence_ns : SILENCE_NS;
    if (now_ns - worker->heard_ns > silence_ns) {
        lose_coordinator(worker, "it has been silent for too long");
    }
}

static void check_parent(struct worker *worker)
{
    if (worker->options.launch_token[0] != '\0' && (int)getppid() != worker->parent) {
        log_error("the process that started this worker is gone");
        worker_end(worker, 1);
    }
}

static void tick(struct worker *worker)
{
    int64_t now_ns = clock_monotonic_ns();

    if (now_ns - worker->beat_ns < worker->heartbeat_ns) {
        return;
    }
    check_parent(worker);
    check_silence(worker, now_ns);
    if (worker->phase != WORKER_JOINING) {
        send_heartbeat(worker, now_ns);
    }
    worker->beat_ns = now_ns;
}

static int64_t leave_at_ns(const struct worker *worker)
{
    int64_t linger_ns = worker->may_leave_ns + LINGER_NS;

    if (!worker->is_leaving) {
        return INT64_MAX;
    }
    if (worker->may_leave_ns > 0 && worker_epoch_open_steps(worker) == 0) {
        return linger_ns;
    }
    return worker->leaving_ns + LEAVE_NS;
}

static int64_t wait_ns(struct worker *worker)
{
    int64_t until_ns = worker->beat_ns + worker->heartbeat_ns;
    int64_t leave_ns = leave_at_ns(worker);
    int64_t epoch_ns = worker_epoch_wait_ns(worker);

    until_ns = (leave_ns < until_ns ? leave_ns : until_ns) - clock_monotonic_ns();
    until_ns = until_ns > 0 ? until_ns : 0;
    return epoch_ns >= 0 && epoch_ns < until_ns ? epoch_ns : until_ns;
}

/* --- the end --- */

/* The first signal: serve what runs, with the coordinator's help, then go. */
static void begin_to_leave(struct worker *worker)
{
    struct message message = {.kind = MESSAGE_DRAIN};

    leave(worker);
    check_parent(worker);
    if (worker->phase != WORKER_JOINING) {
        worker_send(worker, &message);
    }
    if (worker->phase != WORKER_READY && worker->phase != WORKER_SERVING) {
        worker_end(worker, worker->is_over ? worker->exit_code : 0); /* nothing runs here */
        return;
    }
    log_info("leaving: running requests are finished first");
}

static void check_leaving(struct worker *worker)
{
    if (!worker->is_leaving) {
        return;
    }
    if (clock_monotonic_ns() >= leave_at_ns(worker)) {
        worker_end(worker, 0);
    }
}

int worker_run(struct worker *worker, const volatile int *signals)
{
    struct error err;

    if (worker->options.launch_token[0] == '\0') {
        log_info("looking for the coordinator at %s", worker->options.coordinator);
    }
    worker->begin_ns = clock_monotonic_ns();
    worker->told_ns = worker->begin_ns;
    if (!join(worker, &err)) {
        log_error("%s", err.message);
        return 1;
    }
    while (!worker->is_over) {
        poller_wait(worker->poller, wait_ns(worker));
        waker_clear(&worker->waker);
        if (*signals > 0 && !worker->is_leaving) {
            begin_to_leave(worker);
        }
        receive_messages(worker);
        worker_epoch_turn(worker);
        tick(worker);
        check_leaving(worker);
    }
    return worker->exit_code;
}
