/* cluster.c - the cluster's public side: any thread may call.
 *
 * A submit travels to the cluster's thread and waits for its answer, one turn of the loop; a cancel
 * only travels. State comes from the published snapshot.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/cluster/placement_file.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_INTERVAL_NS (250 * NS_PER_MS)

static const char *const state_names[] = {
    [CLUSTER_GATHERING] = "gathering",   [CLUSTER_LOADING] = "loading",
    [CLUSTER_CONNECTING] = "connecting", [CLUSTER_SERVING] = "serving",
    [CLUSTER_DRAINING] = "draining",     [CLUSTER_FAILED] = "failed",
};

const char *cluster_state_name(enum cluster_state state)
{
    ASSERT((size_t)state < ARRAY_LENGTH(state_names));
    return state_names[state];
}

/* --- what can be refused before anything starts --- */

static bool file_placement_check(const struct cluster *cluster, struct error *err)
{
    const struct placement *placement = cluster->file_placement;
    const struct cluster_config *config = &cluster->config;
    const struct arch *arch = &config->catalog->arch;
    uint32_t worker_count = placement_worker_count(placement);

    if (placement->layer_count != arch->layer_count ||
        placement->expert_count != arch->router.expert_count ||
        (placement->expert_count > 0 && placement->dense_layer_count != arch->dense_layer_count)) {
        return error_set(
            err, ERROR_INPUT,
            "it is for %u layers (%u dense) of %u experts; the model has %u (%u) of %u",
            placement->layer_count, placement->dense_layer_count, placement->expert_count,
            arch->layer_count, arch->dense_layer_count, arch->router.expert_count);
    }
    if (placement->draft_layer_count > arch->draft_layer_count) {
        return error_set(err, ERROR_INPUT, "it places a draft layer; the model has none");
    }
    if (config->draft_mode == DRAFT_LAYER && !config->draft_layer_optional &&
        placement->draft_layer_count == 0) {
        return error_set(err, ERROR_USAGE,
                         "it has no place for the draft layer (draft_layer_count), which --draft "
                         "mtp needs");
    }
    if (placement->kv_type != config->kv_type) {
        return error_set(err, ERROR_USAGE, "its kv_type is %s, --kv-type says %s",
                         kv_type_name(placement->kv_type), kv_type_name(config->kv_type));
    }
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        for (uint32_t m = 0; m < placement->stages[i].member_count; m++) {
            if (placement->stages[i].workers[m] >= worker_count) {
                return error_set(err, ERROR_INPUT, "worker %u of %u: they are numbered from 0",
                                 placement->stages[i].workers[m], worker_count);
            }
        }
    }
    return true;
}

static bool file_placement_read(struct cluster *cluster, struct error *err)
{
    const char *path = cluster->config.placement_path;

    if (path == NULL) {
        return true;
    }
    cluster->file_placement = placement_file_read(path, &cluster->arena, err);
    if (cluster->file_placement == NULL) {
        return error_wrap(err, "placement");
    }
    return file_placement_check(cluster, err) || error_wrap(err, "placement %s", path);
}

static bool workers_check(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;
    uint64_t coming = (uint64_t)config->local_count + config->remote_count;
    uint64_t wanted = coming;

    if (cluster->file_placement != NULL) {
        wanted = placement_worker_count(cluster->file_placement);
    } else if (config->stage_count > 0) {
        wanted = (uint64_t)config->stage_count * (config->group_size > 0 ? config->group_size : 1);
    }
    if (coming == 0) {
        return error_set(err, ERROR_USAGE, "a cluster needs workers: --local N or --workers N");
    }
    if (coming < wanted || wanted == 0 || coming > MEMBERS_MAX) {
        return error_set(
            err, ERROR_USAGE,
            "the layout needs %llu workers; %u local and %u remote ones were asked for "
            "(at most %d)",
            (unsigned long long)wanted, config->local_count, config->remote_count, MEMBERS_MAX);
    }
    cluster->worker_wanted = (uint32_t)wanted;
    return true;
}

static bool config_check(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;
    uint32_t context_max = config->catalog->arch.context_tokens_max;
    uint32_t layer_count = config->catalog->arch.layer_count;

    if (config->context_tokens_max > context_max) {
        return error_set(err, ERROR_USAGE, "--context %u: the model's context has %u tokens",
                         config->context_tokens_max, context_max);
    }
    if (config->stage_count > layer_count) {
        return error_set(err, ERROR_USAGE, "%u stages are more than the model's %u layers",
                         config->stage_count, layer_count);
    }
    return keys_check_endpoint(config->control_endpoint, &config->key, config->keys_policy, err) &&
           file_placement_read(cluster, err) && workers_check(cluster, err);
}

/* --- life --- */

static struct cluster *cluster_make(const struct cluster_config *config)
{
    struct cluster *cluster = mem_new(struct cluster);
    char *absolute = realpath(config->model, NULL);

    cluster->config = *config;
    arena_init(&cluster->arena, 4096);
    cluster->model_path =
        arena_strdup(&cluster->arena, absolute != NULL ? absolute : config->model);
    free(absolute); /* libc's */
    model_hash(config->catalog, cluster->model_hash);
    (void)weights_choice_write(&config->catalog->weights, cluster->weights);
    cluster->next_remote_id = config->local_count;
    cluster->next_sequence = 1;
    ASSERT(pthread_mutex_init(&cluster->status_mutex, NULL) == 0);
    {
        pthread_condattr_t attributes;

        ASSERT(pthread_condattr_init(&attributes) == 0);
        ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
        ASSERT(pthread_cond_init(&cluster->status_changed, &attributes) == 0);
        (void)pthread_condattr_destroy(&attributes);
    }
    ASSERT(sem_init(&cluster->started, 0, 0) == 0);
    cluster->waker.fd = -1;
    return cluster;
}

static void cluster_free(struct cluster *cluster)
{
    waker_close(&cluster->waker);
    (void)sem_destroy(&cluster->started);
    (void)pthread_cond_destroy(&cluster->status_changed);
    (void)pthread_mutex_destroy(&cluster->status_mutex);
    cluster_status_destroy(cluster->status);
    arena_deinit(&cluster->arena);
    mem_free(cluster->misfit);
    mem_free(cluster);
}

static void semaphore_wait(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) {
        ASSERT(errno == EINTR);
    }
}

/* The thread takes no signals: they are the main thread's. */
static bool thread_start(struct cluster *cluster, struct error *err)
{
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&cluster->thread, NULL, cluster_thread, cluster);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        errno = failed;
        return error_set_errno(err, "cannot start the cluster's thread");
    }
    semaphore_wait(&cluster->started);
    if (!cluster->start_good) {
        (void)pthread_join(cluster->thread, NULL);
        *err = cluster->start_error;
        return false;
    }
    return true;
}

struct cluster *cluster_start(const struct cluster_config *config, struct error *err)
{
    struct cluster *cluster = cluster_make(config);

    if (!config_check(cluster, err)) {
        cluster_free(cluster);
        return NULL;
    }
    if (!waker_open(&cluster->waker)) {
        (void)error_set_errno(err, "eventfd");
        cluster_free(cluster);
        return NULL;
    }
    if (!thread_start(cluster, err)) {
        cluster_free(cluster);
        return NULL;
    }
    return cluster;
}

void cluster_stop(struct cluster *cluster)
{
    if (cluster == NULL) {
        return;
    }
    atomic_store(&cluster->stop_wish, true);
    waker_wake(&cluster->waker);
    (void)pthread_join(cluster->thread, NULL);
    cluster_free(cluster);
}

void cluster_drain(struct cluster *cluster)
{
    atomic_store(&cluster->drain_wish, true);
    waker_wake(&cluster->waker);
}

/* --- sequences --- */

static void mail_post(struct cluster *cluster, struct mail *mail)
{
    if (mpsc_push(&cluster->mailbox, &mail->node)) {
        waker_wake(&cluster->waker);
    }
}

/* Waits until the cluster's thread has answered; false: it takes no mail any more. */
static bool mail_ask(struct cluster *cluster, struct mail *mail)
{
    ASSERT(!pthread_equal(pthread_self(), cluster->thread)); /* it would wait for itself */
    atomic_fetch_add(&cluster->submitters, 1);
    if (atomic_load(&cluster->closed)) {
        atomic_fetch_sub(&cluster->submitters, 1);
        return error_set(mail->err, ERROR_PEER, "the coordinator stops");
    }
    ASSERT(sem_init(&mail->answered, 0, 0) == 0);
    mail_post(cluster, mail);
    semaphore_wait(&mail->answered);
    atomic_fetch_sub(&cluster->submitters, 1);
    (void)sem_destroy(&mail->answered);
    return true;
}

bool cluster_submit(struct cluster *cluster, const struct cluster_request *request, seq_id *out,
                    struct error *err)
{
    struct mail mail = {.kind = MAIL_SUBMIT, .request = request, .err = err};

    if (!mail_ask(cluster, &mail) || !mail.accepted) {
        return false;
    }
    *out = mail.sequence;
    return true;
}

void cluster_cancel(struct cluster *cluster, seq_id sequence)
{
    struct mail *mail;

    atomic_fetch_add(&cluster->submitters, 1);
    if (!atomic_load(&cluster->closed)) {
        mail = mem_new(struct mail);
        mail->kind = MAIL_CANCEL;
        mail->sequence = sequence;
        mail_post(cluster, mail);
    }
    atomic_fetch_sub(&cluster->submitters, 1);
}

/* --- profiles --- */

struct profile *cluster_profile(struct cluster *cluster, struct arena *arena, struct error *err)
{
    struct mail mail = {.kind = MAIL_PROFILE, .err = err, .arena = arena};

    return mail_ask(cluster, &mail) ? mail.profile : NULL;
}

/* --- state --- */

struct cluster_status *cluster_status(struct cluster *cluster)
{
    struct cluster_status *copy;

    pthread_mutex_lock(&cluster->status_mutex);
    copy = status_copy(cluster->status);
    pthread_mutex_unlock(&cluster->status_mutex);
    return copy;
}

const char *cluster_control_endpoint(const struct cluster *cluster)
{
    return cluster->control_endpoint;
}

/* Sleeps until the next snapshot, but not beyond the interval. */
static void status_wait(struct cluster *cluster)
{
    int64_t until_ns = clock_monotonic_ns() + PROGRESS_INTERVAL_NS;
    struct timespec until = {.tv_sec = until_ns / NS_PER_S, .tv_nsec = until_ns % NS_PER_S};
    enum cluster_state state;
    bool waited = true;

    pthread_mutex_lock(&cluster->status_mutex);
    state = cluster->status->state;
    while (waited && cluster->status->state == state && state != CLUSTER_SERVING &&
           state != CLUSTER_FAILED) {
        waited =
            pthread_cond_timedwait(&cluster->status_changed, &cluster->status_mutex, &until) == 0;
    }
    pthread_mutex_unlock(&cluster->status_mutex);
}

bool cluster_wait(struct cluster *cluster, cluster_progress_fn progress, void *context,
                  const volatile int *stop, struct error *err)
{
    for (;;) {
        struct cluster_status *status = cluster_status(cluster);
        enum cluster_state state = status->state;

        if (progress != NULL) {
            progress(context, status);
        }
        if (state == CLUSTER_FAILED || state == CLUSTER_DRAINING) {
            error_set(err, ERROR_PEER, "%s",
                      state == CLUSTER_FAILED ? status->problem : "the cluster is draining");
        }
        cluster_status_destroy(status);
        if (state == CLUSTER_SERVING || state == CLUSTER_FAILED || state == CLUSTER_DRAINING) {
            return state == CLUSTER_SERVING;
        }
        if (stop != NULL && *stop != 0) {
            return error_set(err, ERROR_PEER, "interrupted");
        }
        status_wait(cluster);
    }
}
