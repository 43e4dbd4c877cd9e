/* worker_assign.c - assignments on the communication thread: what is loaded, and what is told of
 * it.
 *
 * An assignment begins when nothing of the old epoch is left (worker_epoch.c sees to that). A
 * preload runs beside an epoch that goes on: it lends that epoch's model, reads what the new share
 * lacks with few threads, and holds it until the assignment proper finds it there. Weights stay
 * whatever happens: the next share keeps what it has of them.
 */
#include "worker/stage/worker.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/endpoint.h"

#include <inttypes.h>
#include <string.h>

#define PRELOAD_THREADS_SHARE 4 /* one reads for so many that compute */

/* The coordinator's service of model files, on the host that the control channel leads to. */
static const char *fetch_endpoint(struct worker *worker, const struct assign_message *assign,
                                  struct endpoint_text *text)
{
    struct endpoint coordinator;
    struct error err;

    if (assign->fetch_port == 0 ||
        !endpoint_parse(worker->options.coordinator, &coordinator, &err)) {
        return NULL;
    }
    return endpoint_format(text, coordinator.host, assign->fetch_port);
}

static struct prepare_config config_of(struct worker *worker, const struct assign_message *assign,
                                       struct endpoint_text *text)
{
    return (struct prepare_config){
        .assign = assign,
        .model = worker->options.model,
        .source = {.fetch_endpoint = fetch_endpoint(worker, assign, text),
                   .key = &worker->key,
                   .cache_directory = worker->options.cache,
                   .cache_bytes_max = worker->options.cache_bytes_max,
                   .verify = worker->options.verify ? VERIFY_LOCAL : VERIFY_NOT},
        .worker = worker->id,
        .thread_count = team_thread_count(worker->team),
        .limit_bytes = worker->facts.memory_bytes,
        .available_bytes = facts_available_now(),
        .cpu_level = worker->cpu_level,
        .team = worker->team,
        .model_kept = worker->model,
        .waker = &worker->waker,
    };
}

void worker_assign_begin(struct worker *worker)
{
    struct endpoint_text text;
    struct prepare_config config = config_of(worker, &worker->assignment, &text);
    uint64_t epoch = worker->assignment.placement->epoch;
    struct error err;

    worker->has_assignment = false;
    worker->phase = WORKER_PREPARING;
    worker->last_epoch = epoch > worker->last_epoch ? epoch : worker->last_epoch;
    log_debug("assigned: epoch=%" PRIu64, epoch);
    worker->prepare = prepare_start(&config, &err);
    if (worker->prepare == NULL) {
        worker_epoch_break(worker, &err, epoch);
        return;
    }
    worker->model = NULL;
}

/* --- what is told --- */

static void send_loaded(struct worker *worker, const struct prepared *epoch)
{
    struct ledger_line lines[LEDGER_LINES_MAX];
    struct message message = {
        .kind = MESSAGE_LOADED,
        .loaded =
            {
                .epoch = epoch->placement->epoch,
                .line_count = epoch->ledger.line_count,
                .lines = lines,
                .limit_bytes = epoch->ledger.limit_bytes,
                .load_ns = epoch->load_ns,
                .read_bytes = epoch->read_bytes,
                .kept_bytes = epoch->kept_bytes,
            },
    };

    for (uint32_t i = 0; i < epoch->ledger.line_count; i++) {
        lines[i] = (struct ledger_line){.what = epoch->ledger.lines[i].what,
                                        .bytes = epoch->ledger.lines[i].bytes};
    }
    worker_send(worker, &message);
}

static void send_progress(struct worker *worker)
{
    struct message message = {.kind = MESSAGE_PROGRESS,
                              .progress = {.epoch = worker->assignment.placement->epoch}};
    int64_t now_ns = clock_monotonic_ns();

    if (worker->ends_epoch || now_ns - worker->progress_ns < WORKER_PROGRESS_NS) {
        return; /* what ends is not the assignment's progress */
    }
    worker->progress_ns = now_ns;
    prepare_progress(worker->prepare, &message.progress.done_bytes, &message.progress.total_bytes);
    if (message.progress.total_bytes > 0) {
        worker_send(worker, &message);
    }
}

/* For the next registration. */
static void note_held(struct worker *worker)
{
    const struct prepared *epoch = worker->epoch;

    memcpy(worker->held.model, epoch->model->hash, sizeof(worker->held.model));
    worker->held.bytes = part_store_bytes(epoch->model->store);
    worker->held.stage = epoch->seat->stage;
    worker->held.member = epoch->seat->member;
}

static void finish_prepare(struct worker *worker)
{
    uint64_t epoch = worker->assignment.placement->epoch;
    struct error err;

    worker->epoch = prepare_finish(worker->prepare, &err);
    worker->prepare = NULL;
    if (worker->ends_epoch) {
        return;
    }
    if (worker->epoch->stage == NULL) {
        worker->model = prepared_end(worker->epoch);
        worker->epoch = NULL;
        worker_epoch_break(worker, &err, epoch);
        return;
    }
    worker->phase = WORKER_LOADED;
    note_held(worker);
    send_loaded(worker, worker->epoch);
}

/* --- beside an epoch --- */

static void refuse_preload(struct worker *worker, const struct error *err, uint64_t epoch)
{
    log_warn("nothing is loaded ahead for epoch %" PRIu64 ": %s", epoch, err->message);
    worker_send_error(worker, err, epoch, UINT64_MAX);
}

/* What it had stays with the model. */
static void drop_preloaded(struct worker *worker)
{
    if (worker->preloaded != NULL) {
        (void)prepared_end(worker->preloaded);
        worker->preloaded = NULL;
    }
}

void worker_assign_preload(struct worker *worker, const struct assign_message *assign)
{
    struct endpoint_text text;
    struct prepare_config config = config_of(worker, assign, &text);
    uint64_t epoch = assign->placement->epoch;
    uint32_t threads = config.thread_count / PRELOAD_THREADS_SHARE;
    struct error err;

    if (worker->prepare != NULL || worker->preload != NULL || worker->ends_epoch) {
        error_set(&err, ERROR_PEER, "another load is under way");
        refuse_preload(worker, &err, epoch);
        return;
    }
    drop_preloaded(worker);
    config.goal = PREPARE_PRELOAD;
    if (worker->epoch != NULL) {
        config.model_kept = worker->epoch->model;
        config.busy_bytes = ledger_total(&worker->epoch->ledger);
        config.thread_count = threads > 0 ? threads : 1;
    }
    log_debug("preload: epoch=%" PRIu64, epoch);
    worker->preload_epoch = epoch;
    worker->preload = prepare_start(&config, &err);
    if (worker->preload == NULL) {
        refuse_preload(worker, &err, epoch);
        return;
    }
    worker->model = NULL; /* taken, or in the epoch */
}

static void finish_preload(struct worker *worker)
{
    struct error err;
    struct prepared *preloaded = prepare_finish(worker->preload, &err);

    worker->preload = NULL;
    worker->preloaded = preloaded;
    if (worker->epoch == NULL) {
        worker->model = preloaded->model;
    }
    if (preloaded->is_loaded && !worker->ends_epoch) {
        send_loaded(worker, preloaded);
        return;
    }
    drop_preloaded(worker);
    if (!worker->ends_epoch) {
        refuse_preload(worker, &err, worker->preload_epoch);
    }
}

/* --- the turn, and the end --- */

void worker_assign_turn(struct worker *worker)
{
    if (worker->prepare != NULL) {
        send_progress(worker);
        if (prepare_has_ended(worker->prepare)) {
            finish_prepare(worker);
        }
    }
    if (worker->preload != NULL && prepare_has_ended(worker->preload)) {
        finish_preload(worker);
    }
}

bool worker_assign_cancel(struct worker *worker)
{
    if (worker->prepare != NULL) {
        prepare_cancel(worker->prepare);
    }
    if (worker->preload != NULL) {
        prepare_cancel(worker->preload);
    }
    if (worker->prepare != NULL || worker->preload != NULL) {
        return false;
    }
    drop_preloaded(worker);
    return true;
}

void worker_assign_destroy(struct worker *worker)
{
    struct error err;

    (void)worker_assign_cancel(worker);
    worker->ends_epoch = true;
    if (worker->preload != NULL) {
        finish_preload(worker);
    }
    if (worker->prepare != NULL) {
        worker->epoch = prepare_finish(worker->prepare, &err);
        worker->prepare = NULL;
    }
    drop_preloaded(worker);
}
