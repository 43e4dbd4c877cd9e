/* prepare.c - an assignment becomes a stage.
 *
 * In this order, each step refusing with what it saw: the placement's invariants, the seat, the
 * numerics, the model's identity, the ledger, the load. Nothing large is allocated before the
 * ledger is printed. Steps run on one thread started here; load_weights adds its own.
 */
#include "worker/stage/prepare.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "worker/stage/compute.h"
#include "worker/stage/load.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Programs, libraries, sockets, the catalog. */
#define FIXED_BYTES ((uint64_t)40 << 20)

struct prepare {
    struct prepare_config config;
    char *model_path;
    char *model_hash;
    char *weights_text;
    char *fetch_endpoint;
    char *fetch_id;
    struct model_source source;
    enum numerics numerics;
    struct model *kept;
    struct prepared *out;
    struct load_progress progress;
    _Atomic uint64_t total_bytes;
    atomic_bool ended;
    bool succeeded;
    struct error err;
    pthread_t thread;
};

/* --- the steps, in order --- */

static bool check_placement(struct prepare *prepare, struct error *err)
{
    const struct placement *placement = prepare->out->placement;
    struct placement_seat seat;
    char exact[NUMERICS_ID_BYTES], int8[NUMERICS_ID_BYTES];

    if (!placement_seat_of(placement, prepare->config.worker, &seat)) {
        return error_set(err, ERROR_INPUT, "placement: it has no seat for worker %u",
                         prepare->config.worker);
    }
    if (!numerics_of_id(placement->numerics_id, placement->kv_type, KERNELS_VERSION,
                        &prepare->numerics)) {
        return error_set(
            err, ERROR_INPUT, "numerics %s are not supported here, only %s and %s",
            placement->numerics_id,
            numerics_id_write(NUMERICS_EXACT, placement->kv_type, KERNELS_VERSION, exact),
            numerics_id_write(NUMERICS_INT8, placement->kv_type, KERNELS_VERSION, int8));
    }
    if (!kernels_available(prepare->config.cpu_level, prepare->numerics)) {
        return error_set(err, ERROR_INPUT,
                         "numerics %s are not supported here: CPU level %s has no AMX tiles for "
                         "bf16 (fast numerics need equal workers; fast-blas runs on all)",
                         placement->numerics_id, cpu_level_name(prepare->config.cpu_level));
    }
    return true;
}

static bool check_hash(const struct prepare *prepare, const struct model *model, struct error *err)
{
    return prepare->model_hash[0] == '\0' || strcmp(model->hash, prepare->model_hash) == 0 ||
           error_set(err, ERROR_INPUT, "%s is not the coordinator's model: hash %s here, %s there",
                     prepare->model_path, model->hash, prepare->model_hash);
}

/* The new model takes over what the kept one holds, if that is of the same content; another one is
 * given up only when the new one's load begins. */
static void inherit(struct prepare *prepare, struct model *model)
{
    struct model *kept = prepare->kept;

    if (kept != NULL && model_is_same(kept, model)) {
        struct part_store *store = model->store;

        model->store = kept->store;
        kept->store = store;
        model_destroy(kept);
        prepare->kept = NULL;
    }
}

static bool open_model(struct prepare *prepare, struct error *err)
{
    struct model *kept = prepare->kept;
    struct weights_choice weights;
    struct model *model;

    if (!weights_choice_parse(prepare->weights_text, &weights, err)) {
        return error_wrap(err, "weights");
    }
    if (kept != NULL && model_is_current(kept, &prepare->source, &weights, prepare->model_hash)) {
        prepare->out->model = kept;
        prepare->kept = NULL;
        return true;
    }
    if (prepare->config.busy_bytes > 0) {
        return error_set(err, ERROR_INPUT, "%s is not what is served: nothing is loaded beside it",
                         prepare->model_path);
    }
    model = model_open(&prepare->source, &weights, err);
    if (model == NULL || !check_hash(prepare, model, err)) {
        model_destroy(model);
        return false;
    }
    inherit(prepare, model);
    prepare->out->model = model;
    return true;
}

static bool check_model(const struct prepare *prepare, struct error *err)
{
    const struct placement *placement = prepare->out->placement;
    const struct arch *arch = &prepare->out->model->catalog->arch;

    if (placement->layer_count != arch->layer_count ||
        placement->expert_count != arch->router.expert_count ||
        (placement->expert_count > 0 && placement->dense_layer_count != arch->dense_layer_count)) {
        return error_set(err, ERROR_INPUT,
                         "placement for %u layers (%u dense) of %u experts, the model has %u (%u) "
                         "of %u",
                         placement->layer_count, placement->dense_layer_count,
                         placement->expert_count, arch->layer_count, arch->dense_layer_count,
                         arch->router.expert_count);
    }
    if (placement->draft_layer_count > arch->draft_layer_count) {
        return error_set(err, ERROR_INPUT, "placement with a draft layer, which the model lacks");
    }
    return true;
}

/* Before anything is loaded: no transport would carry a larger frame. */
static bool check_frames(const struct prepared *out, struct error *err)
{
    size_t most = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

    if (out->traffic.frame_bytes_max > most) {
        return error_set(err, ERROR_LIMIT,
                         "placement: steps of %u rows make frames of %zu bytes, at most %zu travel",
                         out->placement->step_rows_max, out->traffic.frame_bytes_max, most);
    }
    return true;
}

static bool plan_weights(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    const struct catalog *catalog = out->model->catalog;

    out->weights = weights_plan(catalog, &out->seat->share, err);
    if (out->weights == NULL) {
        return false;
    }
    if (catalog->weights.source == WEIGHTS_DUMMY) {
        out->dummy = weights_dummy_plan(out->weights, catalog->weights.seed);
    }
    return true;
}

static void add_up(struct prepare *prepare)
{
    struct prepared *out = prepare->out;
    uint32_t threads = team_thread_count(prepare->config.team);
    struct stage_bytes stage = stage_bytes(out->seat, &out->model->catalog->arch, threads);
    uint64_t staging = 0;

    out->ledger.limit_bytes = prepare->config.limit_bytes;
    if (out->dummy != NULL) {
        ledger_add(&out->ledger, "dummy weights", weights_dummy_bytes(out->dummy));
    } else {
        struct load_plan *whole = load_plan_create(out->weights);

        ledger_add(&out->ledger, "weights", out->weights->memory_bytes);
        staging = load_staging_bytes(whole, prepare->config.thread_count);
        load_plan_destroy(whole);
    }
    ledger_add(&out->ledger, "KV cache", stage.cache);
    ledger_add(&out->ledger, "step buffers", stage.buffers);
    ledger_add(&out->ledger, "frames", traffic_bytes(&out->traffic));
    ledger_add(&out->ledger, "fixed", FIXED_BYTES + staging + compute_bytes(out->work_count));
    ledger_log(&out->ledger);
}

/* The limit is that of the worker's start: by now others may have taken what was free then. What is
 * kept is here already, and what is not needed any more will be given back first. */
static bool fits_now(const struct prepare *prepare, struct error *err)
{
    const struct prepared *out = prepare->out;
    struct part_sum parts = part_store_sum(out->model->store, out->weights);
    uint64_t kept_bytes = out->dummy != NULL ? 0 : parts.kept_bytes;
    uint64_t needed_bytes = ledger_total(&out->ledger) - FIXED_BYTES - kept_bytes;
    uint64_t spare_bytes = parts.spare_bytes;
    struct units_text needed, spare, available;

    if (prepare->kept != NULL) {
        spare_bytes += part_store_bytes(prepare->kept->store);
    }
    if (prepare->config.available_bytes == UINT64_MAX ||
        needed_bytes <= prepare->config.available_bytes + spare_bytes) {
        return true;
    }
    return error_set(err, ERROR_LIMIT,
                     "not enough memory now: %s more are needed, %s are available on this machine "
                     "and %s in weights that are not needed any more",
                     units_bytes(&needed, needed_bytes),
                     units_bytes(&available, prepare->config.available_bytes),
                     units_bytes(&spare, spare_bytes));
}

/* While another epoch goes on, its weights, cache and buffers stay, too; its cache and buffers make
 * room for those of the new one later. */
static bool fits_beside(const struct prepare *prepare, struct error *err)
{
    const struct prepared *out = prepare->out;
    struct part_sum parts = part_store_sum(out->model->store, out->weights);
    uint64_t more_bytes = out->dummy != NULL ? 0 : out->weights->memory_bytes - parts.kept_bytes;
    uint64_t busy_bytes = prepare->config.busy_bytes;
    uint64_t available_bytes = prepare->config.available_bytes;
    struct units_text more, busy, limit, available;

    if (busy_bytes + more_bytes <= prepare->config.limit_bytes &&
        (available_bytes == UINT64_MAX || more_bytes <= available_bytes + parts.spare_bytes)) {
        return true;
    }
    return error_set(err, ERROR_LIMIT,
                     "not enough memory beside what is served: %s more, %s in use, of %s; %s are "
                     "available on this machine",
                     units_bytes(&more, more_bytes), units_bytes(&busy, busy_bytes),
                     units_bytes(&limit, prepare->config.limit_bytes),
                     units_bytes(&available, available_bytes));
}

static bool fits(const struct prepare *prepare, struct error *err)
{
    return ledger_check(&prepare->out->ledger, err) &&
           (prepare->config.busy_bytes > 0 ? fits_beside(prepare, err) : fits_now(prepare, err));
}

static bool make_dummy(struct prepared *out, struct error *err)
{
    struct units_text views, bytes;

    if (!weights_dummy_bind(out->dummy, out->weights, err)) {
        return error_wrap(err, "dummy weights");
    }
    log_info("dummy weights of layers %u to %u: views=%s memory=%s", out->seat->layer_begin,
             out->seat->layer_end - 1, units_bytes(&views, out->weights->memory_bytes),
             units_bytes(&bytes, weights_dummy_bytes(out->dummy)));
    return true;
}

static bool read_missing(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    struct load_plan *plan = load_plan_create(out->weights);
    bool loaded = true;

    atomic_store(&prepare->total_bytes, plan->file_bytes);
    if (plan->unit_count > 0) {
        loaded = model_source_load(&prepare->source, out->model->cache,
                                   &(struct load_config){
                                       .catalog = out->model->catalog,
                                       .weights = out->weights,
                                       .plan = plan,
                                       .thread_count = prepare->config.thread_count,
                                       .progress = &prepare->progress,
                                   },
                                   err);
        part_store_note(out->model->store, out->weights);
    }
    load_plan_destroy(plan);
    return loaded;
}

/* Before anything is written there. */
static void fresh_spread(const struct prepare *prepare)
{
    const struct weights *weights = prepare->out->weights;

    for (uint32_t i = 0; i < weights->part_count; i++) {
        const struct weights_part *part = &weights->parts[i];

        if (!part->is_filled) {
            team_spread(prepare->config.team, part->memory, part->bytes);
        }
    }
}

static bool load_model(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    struct units_text read, kept;
    int64_t begin_ns = clock_monotonic_ns();

    model_destroy(prepare->kept);
    prepare->kept = NULL;
    if (out->dummy != NULL) {
        return make_dummy(out, err);
    }
    part_store_trim(out->model->store, out->weights);
    out->kept_bytes = part_store_sum(out->model->store, out->weights).kept_file_bytes;
    if (!part_store_take(out->model->store, out->weights, err)) {
        return error_wrap(err, "weights");
    }
    fresh_spread(prepare);
    if (!read_missing(prepare, err)) {
        return false;
    }
    out->read_bytes = atomic_load(&prepare->progress.done_bytes);
    out->load_ns = clock_monotonic_ns() - begin_ns;
    log_info("loaded layers %u to %u: read=%s kept=%s seconds=%.1f", out->seat->layer_begin,
             out->seat->layer_end - 1, units_bytes(&read, out->read_bytes),
             units_bytes(&kept, out->kept_bytes), (double)out->load_ns * 1e-9);
    return true;
}

static bool prepare_all(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;

    if (!check_placement(prepare, err) || !open_model(prepare, err) || !check_model(prepare, err)) {
        return false;
    }
    out->seat = seat_create(out->placement, prepare->config.worker, &out->arena);
    traffic_plan(out->seat, &out->model->catalog->arch, &out->arena, &out->traffic);
    out->work_count = 2 * out->placement->steps_in_flight_max + 2;
    if (!check_frames(out, err) || !plan_weights(prepare, err)) {
        return false;
    }
    add_up(prepare);
    if (!fits(prepare, err) || !load_model(prepare, err)) {
        return false;
    }
    out->is_loaded = true;
    if (prepare->config.goal == PREPARE_PRELOAD) {
        return true;
    }
    out->stage = stage_create(
        &(struct stage_config){.seat = out->seat,
                               .weights = out->weights,
                               .kernels = kernels_for(prepare->config.cpu_level, prepare->numerics),
                               .team = prepare->config.team},
        err);
    return out->stage != NULL;
}

static void *prepare_main(void *context)
{
    struct prepare *prepare = context;

    (void)pthread_setname_np(pthread_self(), "load");
    prepare->succeeded = prepare_all(prepare, &prepare->err);
    atomic_store(&prepare->ended, true);
    waker_wake(prepare->config.waker);
    return NULL;
}

/* --- life --- */

static void copy_assignment(struct prepared *out, const struct assign_message *assign)
{
    arena_init(&out->arena, 1 << 16);
    out->placement = placement_copy(assign->placement, &out->arena);
    out->peer_count = assign->peer_count;
    out->peers = arena_new_array(&out->arena, struct peer_address, assign->peer_count);
    for (uint32_t i = 0; i < assign->peer_count; i++) {
        out->peers[i] = assign->peers[i];
        out->peers[i].data_endpoint = arena_strdup(&out->arena, assign->peers[i].data_endpoint);
    }
}

struct prepare *prepare_start(const struct prepare_config *config, struct error *err)
{
    struct prepare *prepare;
    int problem;

    if (!placement_check(config->assign->placement, err)) {
        error_wrap(err, "placement");
        return NULL;
    }
    prepare = mem_new(struct prepare);
    prepare->config = *config;
    prepare->config.assign = NULL;
    prepare->model_path = mem_strdup(config->model != NULL ? config->model : config->assign->model);
    prepare->model_hash = mem_strdup(config->assign->model_hash);
    prepare->weights_text = mem_strdup(config->assign->weights);
    prepare->source = config->source;
    prepare->source.path = prepare->model_path;
    prepare->fetch_id = mem_strdup(config->assign->fetch_id);
    prepare->source.fetch_id = prepare->fetch_id;
    prepare->source.cancel = &prepare->progress.cancel;
    if (config->source.fetch_endpoint != NULL) {
        prepare->fetch_endpoint = mem_strdup(config->source.fetch_endpoint);
        prepare->source.fetch_endpoint = prepare->fetch_endpoint;
    }
    prepare->kept = config->model_kept;
    prepare->out = mem_new(struct prepared);
    copy_assignment(prepare->out, config->assign);
    problem = pthread_create(&prepare->thread, NULL, prepare_main, prepare);
    if (problem != 0) {
        errno = problem;
        error_set_errno(err, "loading thread");
        prepared_destroy(prepare->out);
        mem_free(prepare->model_path);
        mem_free(prepare->model_hash);
        mem_free(prepare->weights_text);
        mem_free(prepare->fetch_endpoint);
        mem_free(prepare->fetch_id);
        mem_free(prepare);
        return NULL;
    }
    return prepare;
}

void prepare_cancel(struct prepare *prepare)
{
    atomic_store(&prepare->progress.cancel, true);
}

void prepare_progress(const struct prepare *prepare, uint64_t *done_bytes, uint64_t *total_bytes)
{
    *total_bytes = atomic_load(&prepare->total_bytes);
    *done_bytes = atomic_load(&prepare->progress.done_bytes);
}

bool prepare_has_ended(const struct prepare *prepare)
{
    return atomic_load(&prepare->ended);
}

/* Their parts stay with the model. */
static void drop_weights(struct prepared *prepared)
{
    if (prepared->weights != NULL && prepared->dummy == NULL) {
        part_store_release(prepared->model->store, prepared->weights);
    }
    weights_destroy(prepared->weights);
    weights_dummy_destroy(prepared->dummy);
    prepared->weights = NULL;
    prepared->dummy = NULL;
}

struct prepared *prepare_finish(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;

    (void)pthread_join(prepare->thread, NULL);
    if (!prepare->succeeded) {
        *err = prepare->err;
    }
    if (prepare->kept != NULL) { /* refused: what was there stays */
        drop_weights(out);
        model_destroy(out->model);
        out->model = prepare->kept;
    }
    mem_free(prepare->model_path);
    mem_free(prepare->model_hash);
    mem_free(prepare->weights_text);
    mem_free(prepare->fetch_endpoint);
    mem_free(prepare->fetch_id);
    mem_free(prepare);
    return out;
}

struct model *prepared_end(struct prepared *prepared)
{
    struct model *model = prepared->model;

    stage_destroy(prepared->stage);
    drop_weights(prepared);
    arena_deinit(&prepared->arena);
    mem_free(prepared);
    return model;
}

void prepared_destroy(struct prepared *prepared)
{
    if (prepared != NULL) {
        model_destroy(prepared_end(prepared));
    }
}
