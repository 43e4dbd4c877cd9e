/* http_wait.c - requests that wait: suspended, woken, or left by their clients.
 *
 * The library forgets a suspended connection until it is resumed; the cluster's thread wakes it
 * when there are tokens: a plain answer goes back to the library, a stream to its writer. As a
 * suspended connection is not watched by the library, one thread of ours looks every quarter of a
 * second whether waiting clients are still there.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "coordinator/api/http.h"

#include <poll.h>
#include <time.h>

#define WATCH_INTERVAL_NS (250 * NS_PER_MS)

bool http_suspend(struct http_request *request)
{
    bool sleeps = false;

    pthread_mutex_lock(&request->lock);
    if (request->wanted || request->client_gone) {
        request->wanted = false;
    } else {
        request->suspended = true;
        MHD_suspend_connection(request->connection);
        sleeps = true;
    }
    pthread_mutex_unlock(&request->lock);
    return sleeps;
}

/* With the lock held. */
static void resume_locked(struct http_request *request)
{
    request->suspended = false;
    request->queued = false;
    MHD_resume_connection(request->connection);
}

void http_resume(struct http_request *request)
{
    pthread_mutex_lock(&request->lock);
    resume_locked(request);
    pthread_mutex_unlock(&request->lock);
}

void http_wake(struct http_request *request)
{
    pthread_mutex_lock(&request->lock);
    if (!request->suspended || request->queued) {
        request->wanted = true;
    } else if (request->writer) {
        request->queued = true;
        http_stream_push(request);
    } else {
        resume_locked(request);
    }
    pthread_mutex_unlock(&request->lock);
}

bool http_writer_release(struct http_request *request)
{
    bool released;

    pthread_mutex_lock(&request->lock);
    released = !request->wanted && !request->client_gone;
    request->wanted = false;
    request->queued = !released;
    pthread_mutex_unlock(&request->lock);
    return released;
}

bool http_client_gone(struct http_request *request)
{
    pthread_mutex_lock(&request->lock);
    bool gone = request->client_gone;
    pthread_mutex_unlock(&request->lock);
    return gone;
}

void http_wait_end(struct http_request *request)
{
    pthread_mutex_lock(&request->lock); /* a writer may still be inside http_resume */
    pthread_mutex_unlock(&request->lock);
}

/* --- clients that went away --- */

/* Scratch of the watcher, as long as there are requests. */
struct watch_list {
    struct pollfd *items;
    struct http_request **requests;
    size_t capacity;
};

/* With the lock held. A writer that has the request sees it by itself. */
static void leave_locked(struct http_request *request)
{
    request->client_gone = true;
    if (request->suspended && !request->queued) {
        resume_locked(request);
    }
}

static bool waits(struct http_request *request)
{
    pthread_mutex_lock(&request->lock);
    bool waiting = request->suspended && !request->client_gone;

    pthread_mutex_unlock(&request->lock);
    return waiting && request->socket >= 0;
}

/* Who waits, and which has a client that left: found with one system call. No request ends
 * meanwhile: that takes the lock which the caller holds. */
static void check_clients(struct api *api, struct watch_list *list)
{
    size_t count = 0;

    for (struct http_request *request = api->requests; request; request = request->next) {
        if (!waits(request)) {
            continue;
        }
        if (count == list->capacity) {
            list->capacity = count > 0 ? 2 * count : 64;
            list->items = mem_resize(list->items, list->capacity, sizeof(*list->items));
            list->requests = mem_resize(list->requests, list->capacity, sizeof(*list->requests));
        }
        list->items[count] = (struct pollfd){.fd = request->socket, .events = POLLRDHUP};
        list->requests[count++] = request;
    }
    if (count == 0 || poll(list->items, count, 0) <= 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (list->items[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) {
            pthread_mutex_lock(&list->requests[i]->lock);
            leave_locked(list->requests[i]);
            pthread_mutex_unlock(&list->requests[i]->lock);
        }
    }
}

static void *watch(void *context)
{
    struct api *api = context;
    struct watch_list list = {0};

    pthread_mutex_lock(&api->requests_lock);
    while (!api->stopping) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WATCH_INTERVAL_NS;
        until.tv_sec += until.tv_nsec / NS_PER_S;
        until.tv_nsec %= NS_PER_S;
        pthread_cond_timedwait(&api->watch_wake, &api->requests_lock, &until);
        check_clients(api, &list);
    }
    pthread_mutex_unlock(&api->requests_lock);
    mem_free(list.items);
    mem_free(list.requests);
    return NULL;
}

bool http_wait_start(struct api *api, struct error *err)
{
    if (pthread_create(&api->watcher, NULL, watch, api) != 0) {
        return error_set(err, ERROR_SYSTEM, "no thread for the HTTP watcher");
    }
    api->watching = true;
    return true;
}

/* The library ends the process when it is stopped with a suspended connection: all are woken as
 * lost, and none of them suspends again. */
void http_wait_stop(struct api *api)
{
    if (!api->watching) {
        return;
    }
    pthread_mutex_lock(&api->requests_lock);
    api->stopping = true;
    for (struct http_request *request = api->requests; request; request = request->next) {
        pthread_mutex_lock(&request->lock);
        leave_locked(request);
        pthread_mutex_unlock(&request->lock);
    }
    pthread_cond_signal(&api->watch_wake);
    pthread_mutex_unlock(&api->requests_lock);
    pthread_join(api->watcher, NULL);
}
