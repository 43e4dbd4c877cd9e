/* worker_epoch.c - one epoch on the communication thread: its links, steps, results and its end.
 *
 * Nothing here waits. An epoch that must end is asked to (the loader at its next unit, the compute
 * thread at its next layer), and the next one begins in the turn in which both have stopped. The
 * weights stay: the next share keeps what it has of them.
 */
#include "worker/stage/worker.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/endpoint.h"
#include "worker/stage/step_check.h"

#include <inttypes.h>
#include <string.h>

#define RETRY_NS NS_PER_MS

static void swap_arenas(struct arena *a, struct arena *b)
{
    struct arena kept = *a;

    *a = *b;
    *b = kept;
}

uint64_t worker_epoch_number(const struct worker *worker)
{
    return worker->epoch != NULL ? worker->epoch->placement->epoch : 0;
}

uint32_t worker_epoch_open_steps(const struct worker *worker)
{
    return worker->compute != NULL ? compute_open_steps(worker->compute) : 0;
}

struct compute_counters worker_epoch_counters(const struct worker *worker)
{
    struct compute_counters counters = worker->before;

    if (worker->compute != NULL) {
        struct compute_counters now = compute_counters(worker->compute);

        counters.busy_ns += now.busy_ns;
        counters.wait_ns += now.wait_ns;
        counters.steps = now.steps;
        counters.frames_dropped = now.frames_dropped;
    }
    return counters;
}

void worker_epoch_break(struct worker *worker, const struct error *err, uint64_t epoch)
{
    log_error("epoch %" PRIu64 ": %s", epoch, err->message);
    worker_send_error(worker, err, epoch, UINT64_MAX);
    worker->phase = WORKER_BROKEN;
    if (worker->compute != NULL) {
        compute_request_stop(worker->compute);
    }
}

/* --- the end of an epoch --- */

void worker_epoch_abandon(struct worker *worker)
{
    worker->ends_epoch = true;
    worker->has_assignment = false;
}

static void drop_compute(struct worker *worker)
{
    struct compute_counters counters = worker_epoch_counters(worker);

    worker->before.busy_ns = counters.busy_ns;
    worker->before.wait_ns = counters.wait_ns;
    compute_destroy(worker->compute);
    worker->compute = NULL;
    frame_release(worker->frame_held);
    worker->frame_held = NULL;
    worker->result_held = NULL; /* its slot went with the others */
    worker->step_is_held = false;
}

static void drop_epoch(struct worker *worker)
{
    drop_compute(worker);
    if (worker->epoch != NULL) {
        worker->model = prepared_end(worker->epoch);
        worker->epoch = NULL;
    }
}

/* True when nothing of the old epoch is left. */
static bool end_epoch(struct worker *worker)
{
    if (!worker_assign_cancel(worker)) {
        return false;
    }
    if (worker->compute != NULL && !compute_has_stopped(worker->compute)) {
        compute_request_stop(worker->compute);
        return false;
    }
    drop_epoch(worker);
    worker->ends_epoch = false;
    return true;
}

void worker_epoch_destroy(struct worker *worker)
{
    worker_assign_destroy(worker);
    drop_epoch(worker);
    model_destroy(worker->model);
    worker->model = NULL;
}

/* --- assignment --- */

void worker_epoch_assign(struct worker *worker, struct message *message)
{
    if (message->assign.preload) {
        worker_assign_preload(worker, &message->assign);
        return;
    }
    worker->assignment = message->assign;
    swap_arenas(&worker->arena, &worker->assignment_arena); /* the message moves with its memory */
    worker->has_assignment = true;
    worker->ends_epoch = true;
}

/* --- links --- */

static uint32_t find_peers(const struct prepared *epoch, struct peer_address *out)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < epoch->peer_count; i++) {
        for (uint32_t j = 0; j < epoch->traffic.peer_count; j++) {
            if (epoch->peers[i].worker == epoch->traffic.peers[j]) {
                out[count++] = epoch->peers[i];
            }
        }
    }
    return count;
}

static bool open_links(struct worker *worker, struct error *err)
{
    struct prepared *epoch = worker->epoch;
    struct peer_address *peers =
        arena_new_array(&epoch->arena, struct peer_address, epoch->peer_count);
    struct mesh_epoch mesh = {
        .epoch = epoch->placement->epoch,
        .self = worker->id,
        .peer_count = find_peers(epoch, peers),
        .peers = peers,
        .frame_bytes_max = epoch->traffic.frame_bytes_max,
        .frames_per_link_max = epoch->traffic.frames_per_link_max + 1,
        .frames_unread_max = epoch->traffic.frames_early_per_peer,
    };

    if (mesh.peer_count != epoch->traffic.peer_count) {
        return error_set(err, ERROR_INPUT, "the assignment has addresses of %u of %u peers",
                         mesh.peer_count, epoch->traffic.peer_count);
    }
    worker->compute = compute_start(&(struct compute_config){.stage = epoch->stage,
                                                             .traffic = &epoch->traffic,
                                                             .work_count = epoch->work_count,
                                                             .waker = &worker->waker},
                                    err);
    return worker->compute != NULL && mesh_connect(worker->mesh, &mesh, err);
}

void worker_epoch_connect(struct worker *worker, uint64_t epoch)
{
    struct error err;

    if (worker->phase != WORKER_LOADED || epoch != worker_epoch_number(worker)) {
        return;
    }
    worker->phase = WORKER_CONNECTING;
    if (!open_links(worker, &err)) {
        worker_epoch_break(worker, &err, epoch);
    }
}

static void send_ready(struct worker *worker)
{
    struct message message = {.kind = MESSAGE_READY,
                              .ready = {.epoch = worker_epoch_number(worker)}};

    message.ready.links =
        (struct link_report *)mesh_reports(worker->mesh, &message.ready.link_count);
    worker_send(worker, &message);
}

/* The coordinator decides whether it is opened anew. One that knows nothing of attempts hears of an
 * epoch that failed. */
static void tell_losses(struct worker *worker)
{
    uint64_t epoch = worker_epoch_number(worker);
    struct mesh_loss loss;

    while (worker->phase != WORKER_BROKEN && mesh_lost(worker->mesh, &loss)) {
        struct message message = {.kind = MESSAGE_LINK_LOST,
                                  .link_lost = {.epoch = epoch,
                                                .attempt = loss.attempt,
                                                .peer = loss.peer,
                                                .text = loss.why.message}};

        if (worker->protocol_minor < PROTOCOL_MINOR_ATTEMPTS) {
            worker_epoch_break(worker, &loss.why, epoch);
            return;
        }
        log_warn("epoch %" PRIu64 ": %s", epoch, loss.why.message);
        worker_send(worker, &message);
    }
}

static void poll_mesh(struct worker *worker)
{
    struct error err;
    enum mesh_state state = mesh_poll(worker->mesh, &err);

    if (worker->epoch == NULL || worker->ends_epoch || worker->phase < WORKER_CONNECTING ||
        worker->phase == WORKER_BROKEN || worker->may_leave_ns > 0) {
        return; /* a peer that leaves closes its links */
    }
    tell_losses(worker);
    if (worker->phase == WORKER_BROKEN) {
        return;
    }
    if (state == MESH_FAILED) {
        worker_epoch_break(worker, &err, worker_epoch_number(worker));
    } else if (state == MESH_READY && worker->phase == WORKER_CONNECTING) {
        worker->phase = WORKER_READY;
        send_ready(worker);
    }
}

void worker_epoch_start(struct worker *worker, uint64_t epoch)
{
    const struct prepared *prepared = worker->epoch;

    if (worker->phase == WORKER_READY && epoch == worker_epoch_number(worker)) {
        worker->phase = WORKER_SERVING;
        log_info("serving: epoch=%" PRIu64 " stage=%u member=%u layers=%u-%u peers=%u", epoch,
                 prepared->seat->stage, prepared->seat->member, prepared->seat->layer_begin,
                 prepared->seat->layer_end - 1, prepared->traffic.peer_count);
    }
}

/* --- steps --- */

static void submit_step(struct worker *worker, struct work *work, const struct step *step,
                        struct arena *arena)
{
    swap_arenas(arena, &work->job.arena); /* the step moves with its memory */
    work->job.step = *step;
    compute_submit(worker->compute, work);
}

/* With steps of an earlier attempt under way there may be no slot free now: they end soon. */
static bool accept_step(struct worker *worker, struct message *message, struct error *err)
{
    const struct prepared *epoch = worker->epoch;
    struct work *work;

    if (!step_check(&message->step, epoch->placement, epoch->model->catalog->arch.vocab, err)) {
        return false;
    }
    work = compute_free_work(worker->compute);
    if (work != NULL) {
        submit_step(worker, work, &message->step, &worker->arena);
        return true;
    }
    if (compute_void_steps(worker->compute) == 0) {
        return error_set(err, ERROR_PEER, "step %" PRIu64 ": more than %u steps are under way",
                         message->step.number, epoch->work_count);
    }
    worker->step_held = *message;
    swap_arenas(&worker->arena, &worker->step_arena);
    worker->step_is_held = true;
    return true;
}

static void submit_held(struct worker *worker)
{
    struct work *work = worker->step_is_held ? compute_free_work(worker->compute) : NULL;

    if (work != NULL) {
        submit_step(worker, work, &worker->step_held.step, &worker->step_arena);
        worker->step_is_held = false;
    }
}

void worker_epoch_step(struct worker *worker, struct message *message)
{
    struct error err;

    if (worker->phase != WORKER_SERVING || worker->ends_epoch ||
        message->step.epoch != worker_epoch_number(worker)) {
        log_debug("step ignored: epoch=%" PRIu64 " step=%" PRIu64, message->step.epoch,
                  message->step.number);
        return;
    }
    if (!accept_step(worker, message, &err)) {
        log_error("%s", err.message);
        worker_send_error(worker, &err, message->step.epoch, message->step.number);
    }
}

/* Peers whose links are opened anew, with us. */
static uint32_t find_anew(const struct worker *worker, const struct attempt_message *attempt,
                          uint32_t *out)
{
    const struct traffic *traffic = &worker->epoch->traffic;
    uint32_t count = 0;

    for (uint32_t i = 0; i < traffic->peer_count; i++) {
        bool anew = attempt->all_links;

        for (uint32_t k = 0; k < attempt->pair_count; k++) {
            const uint32_t *pair = &attempt->pairs[(size_t)k * 2];

            anew = anew || (pair[0] == worker->id && pair[1] == traffic->peers[i]) ||
                   (pair[1] == worker->id && pair[0] == traffic->peers[i]);
        }
        if (anew) {
            out[count++] = traffic->peers[i];
        }
    }
    return count;
}

void worker_epoch_attempt(struct worker *worker, const struct attempt_message *attempt)
{
    uint32_t *peers;
    uint32_t count;

    if (worker->compute == NULL || worker->ends_epoch ||
        attempt->epoch != worker_epoch_number(worker) ||
        (worker->phase != WORKER_READY && worker->phase != WORKER_SERVING)) {
        return;
    }
    peers = arena_new_array(&worker->arena, uint32_t, worker->epoch->traffic.peer_count);
    count = find_anew(worker, attempt, peers);
    log_debug("attempt %u: links opened anew=%u", attempt->attempt, count);
    compute_attempt(worker->compute, attempt->attempt);
    mesh_attempt(worker->mesh, attempt->attempt, peers, count);
}

static void send_frames(struct worker *worker)
{
    struct frame *frame;
    struct error err;
    uint32_t peer = 0;

    while ((frame = compute_outgoing(worker->compute, &peer)) != NULL) {
        if (worker->phase == WORKER_BROKEN || worker->ends_epoch) {
            frame_release(frame);
        } else if (!mesh_send(worker->mesh, peer, frame, &err)) {
            worker_epoch_break(worker, &err, worker_epoch_number(worker));
        }
    }
}

static void receive_frames(struct worker *worker)
{
    for (;;) {
        struct frame *frame = worker->frame_held;

        worker->frame_held = NULL;
        if (frame == NULL) {
            frame = mesh_receive(worker->mesh);
        }
        if (frame == NULL) {
            return;
        }
        if (!compute_offer_frame(worker->compute, frame)) {
            worker->frame_held = frame;
            return;
        }
    }
}

/* False: the channel has no room now. */
static bool send_result(struct worker *worker, struct work *work)
{
    struct message message = {.kind = MESSAGE_STEP_RESULT, .result = work->job.result};
    struct error err;

    switch (work->outcome) {
    case STAGE_DONE:
        /* A lost channel shows in the next receive. */
        return control_client_send(worker->control, &message, &err) != CONTROL_AGAIN;
    case STAGE_FAILED:
        log_error("%s", work->err.message);
        worker_send_error(worker, &work->err, work->job.step.epoch, work->job.step.number);
        return true;
    case STAGE_ABANDONED:
        break;
    }
    return true;
}

static void send_results(struct worker *worker)
{
    for (;;) {
        struct work *work = worker->result_held;

        worker->result_held = NULL;
        if (work == NULL) {
            work = compute_finished(worker->compute);
        }
        if (work == NULL) {
            return;
        }
        if (!send_result(worker, work)) {
            worker->result_held = work;
            return;
        }
        compute_release(work);
    }
}

/* --- the turn --- */

void worker_epoch_turn(struct worker *worker)
{
    worker_assign_turn(worker);
    if (worker->ends_epoch && end_epoch(worker) && worker->has_assignment) {
        worker_assign_begin(worker);
    }
    if (worker->compute != NULL) {
        send_frames(worker);
    }
    poll_mesh(worker);
    if (worker->compute != NULL) {
        receive_frames(worker);
        send_results(worker);
        submit_held(worker);
    }
}

static enum mesh_activity mesh_activity(struct worker *worker)
{
    bool is_open = worker->phase >= WORKER_CONNECTING && worker->phase != WORKER_BROKEN &&
                   worker_epoch_open_steps(worker) > 0;

    if (!is_open) {
        return MESH_QUIET;
    }
    return mesh_needs_tests(worker->mesh) && compute_may_doze(worker->compute) ? MESH_STEP_COMPUTING
                                                                               : MESH_STEP_OPEN;
}

int64_t worker_epoch_wait_ns(struct worker *worker)
{
    int64_t wait_ns = mesh_wait_ns(worker->mesh, mesh_activity(worker));

    if ((worker->frame_held != NULL || worker->result_held != NULL) &&
        (wait_ns < 0 || wait_ns > RETRY_NS)) {
        wait_ns = RETRY_NS;
    }
    if (worker->prepare != NULL && (wait_ns < 0 || wait_ns > WORKER_PROGRESS_NS)) {
        wait_ns = WORKER_PROGRESS_NS;
    }
    return wait_ns;
}
