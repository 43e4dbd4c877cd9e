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
#include "common/model/model_hash.h"
#include "worker/kernels/limits.h"
#include "worker/stage/compute.h"
#include "worker/stage/load.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Programs, libraries, sockets, the catalog. */
#define FIXED_BYTES ((uint64_t)40 << 20)
/* Measuring takes at most this part of the memory that the worker may use. */
#define LIMITS_MEMORY_SHARE 4

struct prepare {
    struct prepare_config config;
    char *model_path;
    char *model_hash;
    char *weights_text;
    char *fetch_endpoint;
    char *fetch_id;
    struct model_source source;
    enum numerics numerics;
    bool measure_limits;
    struct model *kept;
    struct prepared *out;
    struct load_progress progress;
    _Atomic uint64_t total_bytes;
    atomic_bool ended;
    struct error err;
    pthread_t thread;
};

/* --- a loaded share --- */

static void model_drop_weights(struct model *model)
{
    load_plan_destroy(model->plan);
    weights_destroy(model->weights);
    weights_dummy_destroy(model->dummy);
    mem_unmap_pages(model->memory, model->memory_bytes);
    mem_free(model->owned_experts);
    model->plan = NULL;
    model->weights = NULL;
    model->dummy = NULL;
    model->memory = NULL;
    model->owned_experts = NULL;
    model->is_filled = false;
}

void model_destroy(struct model *model)
{
    if (model == NULL) {
        return;
    }
    model_drop_weights(model);
    catalog_close(model->catalog);
    model_cache_close(model->cache);
    mem_free(model->path);
    mem_free(model->fetch_id);
    mem_free(model);
}

static bool is_same_share(const struct model *model, const struct weights_share *share,
                          size_t owned_bytes)
{
    const struct weights_share *held = &model->share;

    return model->is_filled && held->layer_begin == share->layer_begin &&
           held->layer_end == share->layer_end && held->has_embedding == share->has_embedding &&
           held->has_head == share->has_head && held->has_draft == share->has_draft &&
           model->owned_bytes == owned_bytes &&
           (owned_bytes == 0 ||
            memcmp(model->owned_experts, share->owned_experts, owned_bytes) == 0);
}

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
    return numerics_of_id(placement->numerics_id, placement->kv_type, KERNELS_VERSION,
                          &prepare->numerics) ||
           error_set(err, ERROR_INPUT, "numerics %s are not supported here, only %s and %s",
                     placement->numerics_id,
                     numerics_id_write(NUMERICS_EXACT, placement->kv_type, KERNELS_VERSION, exact),
                     numerics_id_write(NUMERICS_INT8, placement->kv_type, KERNELS_VERSION, int8));
}

static bool is_same_model(const struct model *model, const struct model_source *source,
                          const struct weights_choice *weights)
{
    return strcmp(model->path, source->path) == 0 && model->catalog != NULL &&
           (model->cache == NULL || strcmp(model->fetch_id, source->fetch_id) == 0) &&
           model->catalog->weights.source == weights->source &&
           model->catalog->weights.seed == weights->seed;
}

/* Sets the model's catalog, and its cache if it is fetched; or err. */
static void catalog_find_and_open(struct prepare *prepare, const struct weights_choice *weights,
                                  struct error *err)
{
    struct model *model = prepare->out->model;
    char *path = weights->source == WEIGHTS_DUMMY
                     ? mem_strdup(prepare->model_path)
                     : model_source_open(&prepare->source, &model->cache, err);

    if (path != NULL) {
        model->catalog = catalog_open_weights(path, weights, err);
    }
    mem_free(path);
}

static bool open_model(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    struct weights_choice weights;
    char hash[MODEL_HASH_BYTES];

    out->model = prepare->kept;
    prepare->kept = NULL;
    if (!weights_choice_parse(prepare->weights_text, &weights, err)) {
        return error_wrap(err, "weights");
    }
    if (out->model != NULL && !is_same_model(out->model, &prepare->source, &weights)) {
        model_destroy(out->model);
        out->model = NULL;
    }
    if (out->model == NULL) {
        out->model = mem_new(struct model);
        out->model->path = mem_strdup(prepare->model_path);
        out->model->fetch_id = mem_strdup(prepare->fetch_id);
        catalog_find_and_open(prepare, &weights, err);
    }
    if (out->model->catalog == NULL) {
        return false;
    }
    model_hash(out->model->catalog, hash);
    if (prepare->model_hash[0] != '\0' && strcmp(hash, prepare->model_hash) != 0) {
        return error_set(err, ERROR_INPUT,
                         "%s is not the coordinator's model: hash %s here, %s there",
                         prepare->model_path, hash, prepare->model_hash);
    }
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

static size_t owned_bytes_of(const struct seat *seat)
{
    return (size_t)(seat->held_end - seat->layer_begin) * seat->placement->expert_count;
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

/* The plan of the share, unless its weights are held already. */
static bool plan_weights(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    struct model *model = out->model;
    size_t owned_bytes = owned_bytes_of(out->seat);

    if (is_same_share(model, &out->seat->share, owned_bytes)) {
        return true;
    }
    model_drop_weights(model);
    model->share = out->seat->share;
    model->owned_bytes = owned_bytes;
    model->owned_experts = mem_new_array(uint8_t, owned_bytes);
    if (owned_bytes > 0) {
        memcpy(model->owned_experts, out->seat->share.owned_experts, owned_bytes);
        model->share.owned_experts = model->owned_experts;
    }
    model->weights = weights_plan(model->catalog, &model->share, err);
    if (model->weights == NULL) {
        return false;
    }
    if (model->catalog->weights.source == WEIGHTS_DUMMY) {
        model->dummy = weights_dummy_plan(model->weights, model->catalog->weights.seed);
    } else {
        model->plan = load_plan_create(model->weights);
    }
    return true;
}

static bool add_up(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;
    const struct arch *arch = &out->model->catalog->arch;
    uint32_t threads = team_thread_count(prepare->config.team);
    struct stage_bytes stage = stage_bytes(out->seat, arch, threads);
    const struct model *model = out->model;
    uint64_t staging = 0;

    out->ledger.limit_bytes = prepare->config.limit_bytes;
    if (model->dummy != NULL) {
        ledger_add(&out->ledger, "dummy weights", weights_dummy_bytes(model->dummy));
    } else {
        ledger_add(&out->ledger, "weights", model->weights->memory_bytes);
        staging = load_staging_bytes(model->plan, prepare->config.thread_count);
    }
    ledger_add(&out->ledger, "KV cache", stage.cache);
    ledger_add(&out->ledger, "step buffers", stage.buffers);
    ledger_add(&out->ledger, "frames", traffic_bytes(&out->traffic));
    ledger_add(&out->ledger, "fixed", FIXED_BYTES + staging + compute_bytes(out->work_count));
    ledger_log(&out->ledger);
    return ledger_check(&out->ledger, err);
}

static bool make_dummy(struct model *model, struct error *err)
{
    struct units_text views, bytes;

    if (!weights_dummy_bind(model->dummy, model->weights, err)) {
        return error_wrap(err, "dummy weights");
    }
    model->is_filled = true;
    log_info("dummy weights of layers %u to %u: views=%s memory=%s", model->share.layer_begin,
             model->share.layer_end - 1, units_bytes(&views, model->weights->memory_bytes),
             units_bytes(&bytes, weights_dummy_bytes(model->dummy)));
    return true;
}

static bool load_model(struct prepare *prepare, struct error *err)
{
    struct model *model = prepare->out->model;
    struct units_text bytes;
    int64_t begin_ns = clock_monotonic_ns();

    atomic_store(&prepare->total_bytes, model->weights->file_bytes);
    if (model->is_filled) {
        atomic_store(&prepare->progress.done_bytes, model->weights->file_bytes);
        return true;
    }
    if (model->dummy != NULL) {
        return make_dummy(model, err);
    }
    model->memory_bytes = model->weights->memory_bytes;
    model->memory = mem_map_pages(model->memory_bytes, err);
    if (model->memory == NULL) {
        return error_wrap(err, "weights");
    }
    weights_bind(model->weights, model->memory);
    if (!model_source_load(&prepare->source, model->cache,
                           &(struct load_config){.catalog = model->catalog,
                                                 .weights = model->weights,
                                                 .plan = model->plan,
                                                 .thread_count = prepare->config.thread_count,
                                                 .progress = &prepare->progress},
                           err)) {
        return false;
    }
    model->is_filled = true;
    prepare->out->load_ns = clock_monotonic_ns() - begin_ns;
    log_info("loaded layers %u to %u: bytes=%s seconds=%.1f", model->share.layer_begin,
             model->share.layer_end - 1, units_bytes(&bytes, model->weights->file_bytes),
             (double)prepare->out->load_ns * 1e-9);
    return true;
}

/* While there is room: before the share is loaded. */
static bool measure_limits(struct prepare *prepare, struct error *err)
{
    struct machine_limits *limits = &prepare->out->limits;
    struct units_text rate;

    *limits = prepare->config.limits;
    if (!prepare->measure_limits || limits->read_bytes_per_s > 0) {
        return true;
    }
    if (!limits_measure(prepare->config.team, prepare->config.cpu_level,
                        prepare->config.limit_bytes / LIMITS_MEMORY_SHARE, limits, err)) {
        return false;
    }
    log_info("limits: read=%s/s %s=%.3g operations/s %s=%.3g operations/s",
             units_bytes(&rate, (uint64_t)limits->read_bytes_per_s), limits->int8_unit,
             limits->int8_operations_per_s, limits->f32_unit, limits->f32_operations_per_s);
    return true;
}

static bool prepare_all(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;

    if (!measure_limits(prepare, err) || !check_placement(prepare, err) ||
        !open_model(prepare, err) || !check_model(prepare, err)) {
        return false;
    }
    out->seat = seat_create(out->placement, prepare->config.worker, &out->arena);
    traffic_plan(out->seat, &out->model->catalog->arch, &out->arena, &out->traffic);
    out->work_count = 2 * out->placement->steps_in_flight_max + 2;
    if (!check_frames(out, err) || !plan_weights(prepare, err) || !add_up(prepare, err) ||
        !load_model(prepare, err)) {
        return false;
    }
    out->stage = stage_create(
        &(struct stage_config){.seat = out->seat,
                               .weights = out->model->weights,
                               .kernels = kernels_for(prepare->config.cpu_level, prepare->numerics),
                               .team = prepare->config.team},
        err);
    return out->stage != NULL;
}

static void *prepare_main(void *context)
{
    struct prepare *prepare = context;

    (void)pthread_setname_np(pthread_self(), "load");
    (void)prepare_all(prepare, &prepare->err);
    if (prepare->out->stage == NULL && prepare->out->model != NULL &&
        !prepare->out->model->is_filled) {
        model_drop_weights(prepare->out->model);
    }
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
        model_destroy(config->model_kept);
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
    prepare->measure_limits = config->assign->measure_limits;
    prepare->out = mem_new(struct prepared);
    copy_assignment(prepare->out, config->assign);
    problem = pthread_create(&prepare->thread, NULL, prepare_main, prepare);
    if (problem != 0) {
        errno = problem;
        error_set_errno(err, "loading thread");
        model_destroy(prepare->kept);
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

struct prepared *prepare_finish(struct prepare *prepare, struct error *err)
{
    struct prepared *out = prepare->out;

    (void)pthread_join(prepare->thread, NULL);
    if (out->stage == NULL) {
        *err = prepare->err;
    }
    if (out->model == NULL) {
        out->model = prepare->kept; /* it failed before the model was looked at */
    }
    mem_free(prepare->model_path);
    mem_free(prepare->model_hash);
    mem_free(prepare->weights_text);
    mem_free(prepare->fetch_endpoint);
    mem_free(prepare->fetch_id);
    mem_free(prepare);
    return out;
}

void prepared_destroy(struct prepared *prepared)
{
    if (prepared == NULL) {
        return;
    }
    stage_destroy(prepared->stage);
    model_destroy(prepared->model);
    arena_deinit(&prepared->arena);
    mem_free(prepared);
}
