/* cluster_loop.c - the cluster's thread.
 *
 * One turn: sleep until something arrives or is due; take the mailbox; take the workers' messages;
 * look after children and deadlines; send the steps that the scheduler has; hand outcomes to their
 * sinks; publish the snapshot. Everything it touches is its own, so there is no lock but the
 * snapshot's. The control socket is made here too, since sockets never change threads, and children
 * are forked here, since they die with the thread that forked them.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

/* --- mailbox --- */

static void mail_answer(struct cluster *cluster, struct mail *mail, int64_t now_ns)
{
    if (mail->kind == MAIL_SUBMIT) {
        mail->accepted =
            sequences_submit(cluster, mail->request, &mail->sequence, now_ns, mail->err);
        (void)sem_post(&mail->answered); /* the mail may be gone from here on */
        return;
    }
    if (cluster->scheduler != NULL) {
        scheduler_cancel(cluster->scheduler, mail->sequence, now_ns);
    }
    mem_free(mail);
}

static void mailbox_take(struct cluster *cluster, int64_t now_ns)
{
    struct mpsc_node *node;

    waker_clear(&cluster->waker);
    node = mpsc_take_all(&cluster->mailbox);
    while (node != NULL) {
        struct mail *mail = (struct mail *)((char *)node - offsetof(struct mail, node));

        node = node->next;
        mail_answer(cluster, mail, now_ns);
        cluster->status_stale = true;
    }
    if (!cluster->draining && atomic_load(&cluster->drain_wish)) {
        cluster->draining = true;
        if (cluster->state == CLUSTER_SERVING) {
            epoch_set_state(cluster, CLUSTER_DRAINING, now_ns);
        }
    }
}

/* --- messages --- */

static void worker_error(struct cluster *cluster, struct member *member,
                         const struct error_message *message, int64_t now_ns)
{
    char name[128], why[400];
    bool current = message->epoch == 0 || message->epoch == cluster->epoch;
    enum cluster_state state = cluster->state;

    if (current && member->seated) {
        (void)snprintf(why, sizeof(why), "%s: %.240s", membership_name(member, name, sizeof(name)),
                       message->text);
        if (state == CLUSTER_LOADING || state == CLUSTER_CONNECTING) {
            epoch_refuse(cluster, member, why, now_ns);
        } else {
            cluster->epoch_failures++;
            epoch_abandon(cluster, why, now_ns);
        }
    } else {
        log_warn("%s: %s", membership_name(member, name, sizeof(name)), message->text);
    }
    if (message->fatal) {
        (void)snprintf(why, sizeof(why), "%.240s", message->text);
        membership_lose(cluster, member, why, now_ns);
    }
}

static void link_lost(struct cluster *cluster, struct member *member,
                      const struct link_lost_message *message, int64_t now_ns)
{
    struct error err;

    if (!retry_link_lost(cluster, member, message, now_ns, &err)) {
        struct error_message failure = {
            .code = err.code, .epoch = message->epoch, .step = UINT64_MAX, .text = err.message};

        worker_error(cluster, member, &failure, now_ns);
    }
}

static void message_handle(struct cluster *cluster, struct control_peer from,
                           const struct message *message, int64_t now_ns)
{
    struct member *member;

    if (message->kind == MESSAGE_REGISTER) {
        membership_register(cluster, from, &message->reg, now_ns);
        return;
    }
    member = membership_by_connection(cluster, from.connection);
    if (member == NULL) {
        return; /* refused, or lost already */
    }
    member->heard_ns = now_ns;
    switch (message->kind) {
    case MESSAGE_PROGRESS:
        epoch_progress(cluster, member, &message->progress, now_ns);
        break;
    case MESSAGE_LOADED:
        epoch_loaded(cluster, member, &message->loaded, now_ns);
        break;
    case MESSAGE_READY:
        epoch_ready(cluster, member, &message->ready, now_ns);
        break;
    case MESSAGE_STEP_RESULT:
        sequences_handle_result(cluster, member, &message->result, now_ns);
        break;
    case MESSAGE_HEARTBEAT:
        membership_heartbeat(cluster, member, &message->heartbeat, now_ns);
        break;
    case MESSAGE_DRAIN:
        membership_wants_to_leave(cluster, member, now_ns);
        break;
    case MESSAGE_ERROR:
        worker_error(cluster, member, &message->error, now_ns);
        break;
    case MESSAGE_LINK_LOST:
        link_lost(cluster, member, &message->link_lost, now_ns);
        break;
    default:
        membership_lose(cluster, member, "it sent a message that only a coordinator sends", now_ns);
        break;
    }
}

/* True: there may be more. */
static bool messages_take(struct cluster *cluster, int64_t now_ns)
{
    for (int i = 0; i < MESSAGES_PER_TURN_MAX; i++) {
        struct control_peer from;
        struct message message;
        struct member *member;
        struct error err;

        arena_reset(&cluster->message_arena);
        switch (control_server_receive(cluster->server, &cluster->message_arena, &from, &message,
                                       &err)) {
        case CONTROL_AGAIN:
            return false;
        case CONTROL_DONE:
            message_handle(cluster, from, &message, now_ns);
            break;
        case CONTROL_LOST:
            member = membership_by_connection(cluster, from.connection);
            if (member != NULL) {
                membership_lose(cluster, member,
                                err.code == ERROR_PEER ? "connection closed" : err.message, now_ns);
            } else if (err.code != ERROR_PEER) {
                log_warn("a peer was dropped: %s", err.message);
            }
            break;
        }
        cluster->status_stale = true;
    }
    return true;
}

/* --- children --- */

static void children_reap(struct cluster *cluster, int64_t now_ns)
{
    struct local_exit ended;

    while (cluster->local != NULL && local_workers_reap(cluster->local, &ended)) {
        log_write(cluster->served_once ? LOG_WARN : LOG_DEBUG, "%s", ended.what);
        if (!cluster->served_once) {
            epoch_fail_cluster(cluster, now_ns,
                               "%s before the cluster served; its own message is "
                               "above",
                               ended.what);
        }
        for (uint32_t id = ended.worker_begin; id < ended.worker_end; id++) {
            struct member *member = membership_by_id(cluster, id);

            if (member != NULL && member->local) {
                membership_lose(cluster, member, ended.what, now_ns);
            }
        }
    }
    if (cluster->local != NULL && cluster->served_once) {
        local_workers_restart(cluster->local, now_ns);
    }
}

/* --- steps --- */

static void steps_send(struct cluster *cluster, int64_t now_ns)
{
    struct message message = {.kind = MESSAGE_STEP};

    while (cluster->scheduler != NULL &&
           scheduler_next(cluster->scheduler, now_ns, &message.step)) {
        cluster->status_stale = true;
        for (uint32_t i = 0; i < cluster->member_count; i++) {
            if (cluster->members[i].seated &&
                !membership_send(cluster, &cluster->members[i], &message, now_ns)) {
                return; /* the epoch is over */
            }
        }
    }
}

/* --- the turn --- */

static int64_t wait_ns(const struct cluster *cluster, int64_t now_ns)
{
    int64_t due_ns = now_ns + TICK_NS;

    if (cluster->scheduler != NULL && scheduler_deadline_ns(cluster->scheduler) < due_ns) {
        due_ns = scheduler_deadline_ns(cluster->scheduler);
    }
    if (cluster->local != NULL && cluster->served_once &&
        local_workers_restart_ns(cluster->local) < due_ns) {
        due_ns = local_workers_restart_ns(cluster->local);
    }
    if (cluster->state == CLUSTER_GATHERING && cluster->settle_until_ns > now_ns &&
        cluster->settle_until_ns < due_ns) {
        due_ns = cluster->settle_until_ns;
    }
    if (cluster->status_stale && cluster->status_ns + STATUS_INTERVAL_NS < due_ns) {
        due_ns = cluster->status_ns + STATUS_INTERVAL_NS;
    }
    return due_ns > now_ns ? due_ns - now_ns : 0;
}

static void status_refresh(struct cluster *cluster, int64_t now_ns)
{
    /* At once when the last sequence has ended: whoever waited for that looks now. */
    if (cluster->status_stale &&
        (cluster->rate.open == 0 || now_ns - cluster->status_ns >= STATUS_INTERVAL_NS)) {
        status_publish(cluster, now_ns);
    }
}

static void turn(struct cluster *cluster, int64_t sleep_ns, bool *more)
{
    int64_t now_ns;

    poller_wait(cluster->poller, *more ? 0 : sleep_ns);
    now_ns = clock_monotonic_ns();
    mailbox_take(cluster, now_ns);
    *more = messages_take(cluster, now_ns);
    children_reap(cluster, now_ns);
    membership_tick(cluster, now_ns);
    epoch_tick(cluster, now_ns);
    steps_send(cluster, now_ns);
    if (cluster->scheduler != NULL) {
        sequences_deliver(cluster, NULL, now_ns);
    }
    status_refresh(cluster, now_ns);
}

/* --- the end --- */

/* Refuses what is still in the mailbox until nobody can be inside cluster_submit any more. */
static void mailbox_close(struct cluster *cluster)
{
    atomic_store(&cluster->closed, true);
    do {
        mailbox_take(cluster, clock_monotonic_ns());
    } while (atomic_load(&cluster->submitters) > 0);
    mailbox_take(cluster, clock_monotonic_ns());
}

static void children_wait(struct cluster *cluster, int64_t deadline_ns)
{
    struct local_exit ended;
    bool more = false;

    while (local_workers_running(cluster->local) > 0 && clock_monotonic_ns() < deadline_ns) {
        poller_wait(cluster->poller, more ? 0 : 50 * NS_PER_MS);
        waker_clear(&cluster->waker);
        more = messages_take(cluster, clock_monotonic_ns());
        while (local_workers_reap(cluster->local, &ended)) {
            log_debug("%s", ended.what);
        }
    }
}

/* Workers are told to leave, local ones are waited for, then made to. */
static void workers_dismiss(struct cluster *cluster)
{
    struct message drain = {.kind = MESSAGE_DRAIN};
    uint32_t local_members = 0;

    for (uint32_t i = 0; i < cluster->member_count; i++) {
        struct control_peer to = {cluster->members[i].connection};
        struct error err;

        local_members += cluster->members[i].local;
        (void)control_server_send(cluster->server, to, &drain, &err); /* else the signal does it */
    }
    if (cluster->local == NULL) {
        return;
    }
    if (local_members == cluster->config.local_count) {
        children_wait(cluster, clock_monotonic_ns() + STOP_TIMEOUT_NS);
    }
    if (local_workers_running(cluster->local) > 0) {
        local_workers_signal(cluster->local, SIGTERM);
        children_wait(cluster, clock_monotonic_ns() + TERM_TIMEOUT_NS);
    }
}

static void thread_end(struct cluster *cluster)
{
    if (cluster->step_log != NULL) {
        (void)fclose(cluster->step_log);
    }
    local_workers_destroy(cluster->local);
    cluster->local = NULL;
    model_service_stop(cluster->service);
    cluster->service = NULL;
    control_server_destroy(cluster->server);
    poller_remove_fd(cluster->poller, cluster->waker.fd);
    poller_destroy(cluster->poller);
    membership_destroy(cluster);
    mem_free(cluster->retry.pairs);
    arena_deinit(&cluster->message_arena);
    arena_deinit(&cluster->epoch_arena);
}

/* --- the beginning --- */

static bool local_start(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;
    struct local_workers_config local = {.count = config->local_count,
                                         .link = config->local_link,
                                         .program = config->worker_program,
                                         .endpoint = cluster->control_endpoint,
                                         .key_path = config->key_path,
                                         .keys_policy = config->keys_policy,
                                         .threads = config->threads,
                                         .memory_bytes = config->worker_memory_bytes};

    if (config->local_count == 0) {
        return true;
    }
    cluster->local = local_workers_start(&local, cluster->poller, err);
    return cluster->local != NULL;
}

/* Workers started here have the files; others may not. */
static bool service_start(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;
    struct model_service_config service = {.catalog = config->catalog,
                                           .model_hash = cluster->model_hash,
                                           .control_endpoint = cluster->control_endpoint,
                                           .port = config->fetch_port,
                                           .key = &config->key};

    if (config->remote_count == 0 || config->catalog->weights.source != WEIGHTS_PUBLISHED) {
        return true;
    }
    cluster->service = model_service_start(&service, err);
    return cluster->service != NULL;
}

static bool thread_begin(struct cluster *cluster, struct error *err)
{
    const struct cluster_config *config = &cluster->config;

    cluster->poller = poller_create();
    poller_add_fd(cluster->poller, cluster->waker.fd);
    arena_init(&cluster->message_arena, (size_t)1 << 16);
    arena_init(&cluster->epoch_arena, (size_t)1 << 16);
    cluster->start_ns = clock_monotonic_ns();
    if (config->step_log_path != NULL) {
        cluster->step_log = fopen(config->step_log_path, "we");
        if (cluster->step_log == NULL) {
            return error_set_errno(err, "step log %s", config->step_log_path);
        }
        /* Whoever has the answer finds its steps in the log. */
        (void)setvbuf(cluster->step_log, NULL, _IOLBF, BUFSIZ);
        (void)fputs("worker,stage,step,rows,begin_ns,end_ns\n", cluster->step_log);
    }
    cluster->server = control_listen(config->control_endpoint, &config->key, cluster->poller, err);
    if (cluster->server == NULL) {
        return false;
    }
    (void)snprintf(cluster->control_endpoint, sizeof(cluster->control_endpoint), "%s",
                   control_server_endpoint(cluster->server));
    log_info("control channel: endpoint=%s encrypted=%s", cluster->control_endpoint,
             config->key.present ? "yes" : "no");
    return service_start(cluster, err) && local_start(cluster, err);
}

void *cluster_thread(void *context)
{
    struct cluster *cluster = context;
    struct error *err = &cluster->start_error;
    bool more = false;

    cluster->start_good = thread_begin(cluster, err);
    if (!cluster->start_good) {
        thread_end(cluster);
        (void)sem_post(&cluster->started);
        return NULL;
    }
    epoch_set_state(cluster, CLUSTER_GATHERING, cluster->start_ns);
    (void)sem_post(&cluster->started);
    while (!atomic_load(&cluster->stop_wish)) {
        turn(cluster, wait_ns(cluster, clock_monotonic_ns()), &more);
    }
    cluster->served_once = true; /* from here a child's end is no failure */
    epoch_stop(cluster, clock_monotonic_ns());
    mailbox_close(cluster);
    workers_dismiss(cluster);
    thread_end(cluster);
    return NULL;
}
